"""What the contracts of targets and rules allow: the move to other units, a mean alone, resampling in groups."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_within, mean_and_error

import pidjax as pid
from pidjax import Resampling
from pidjax.process.bridge import Observation
from pidjax.targets.base import (
    AbstractLaw,
    AbstractTarget,
    Place,
    Rescaled,
    Tilted,
    WithCovariance,
    WithDensity,
    able,
)

KEY = jax.random.key(31)
SHIFT = 1.5
SPOILT = pid.Euler(lambda t, x: jnp.full_like(x, SHIFT))


class Mean(AbstractLaw):
    mean: jax.Array


class Denoiser(AbstractTarget, Tilted):
    """A target known by E[y | ζ] alone, here that of a mixture."""

    mixture: pid.GaussianMixture

    def tilt(self, observation, key=None):
        return Mean(self.mixture.tilt(observation).mean)

    def place(self):
        return Place(*self.mixture.place()[:2])


def mixture():
    return pid.GaussianMixture.isotropic(
        jnp.array([[-1.0, 0.0], [2.0, 1.0]]), jnp.array([0.2, 0.4]), jnp.array([0.3, 0.7])
    )


def test_the_observation_is_moved_as_well_as_the_target():
    """A mixture rescaled by its own rule, and by the one that every target has: the same laws, densities and abilities."""
    target, shift, scale = mixture(), jnp.array([3.0, -1.0]), jnp.array(2.5)
    moved, wrapped = target.rescaled(shift, scale), Rescaled(target, shift, scale)
    observation = Observation(jnp.array([[0.9, 0.2], [-0.1, 1.4]]), jnp.array([-0.4, 0.8]))
    one, other = moved.tilt(observation), wrapped.tilt(observation)
    for name in ("log_mass", "mean"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-12)
    np.testing.assert_allclose(one.covariance(), other.covariance(), rtol=1e-12)
    np.testing.assert_allclose(one.draw(KEY), other.draw(KEY), rtol=1e-12)
    np.testing.assert_allclose(moved.log_density(one.mean), wrapped.log_density(one.mean), rtol=1e-12)
    denoiser = Rescaled(Denoiser(target), shift, scale)
    assert able(wrapped, WithDensity)
    assert not able(denoiser, WithDensity)
    assert able(other, WithCovariance)
    assert not able(denoiser.tilt(observation), WithCovariance)


@pytest.mark.slow
def test_a_mean_is_enough_for_eulers_steps():
    """Path by path those of the mixture itself; without weights, which only a density or a mass could give."""
    options = {"num_samples": 64, "grid": pid.uniform_grid(30)}
    found = pid.sample(KEY, Denoiser(mixture()), **options)
    expected = pid.sample(KEY, mixture(), rule=pid.Euler(), **options)
    np.testing.assert_allclose(found.samples, expected.samples, rtol=1e-9)
    assert found.settings["rule"] == "Euler, unweighted"
    for answer in ("log_z", "ess", "weights", "pareto_k"):
        with pytest.raises(ValueError, match="known by their means alone"):
            getattr(found, answer)
    with pytest.raises(ValueError, match="known by their means alone"):
        found.expectation(lambda y: y)
    with pytest.raises(pid.SamplingError, match="known by means alone") as raised:
        found.check()
    assert raised.value.outcomes == (pid.Outcome.NO_LAW,)
    assert "weights   none" in repr(found)
    assert "log_weights" not in found.to_dict()
    with pytest.raises(ValueError, match="Moment needs tilted laws WithCovariance, and those of the target are Mean"):
        pid.sample(KEY, Denoiser(mixture()), rule=pid.Moment(), **options)
    point = pid.Problem(Denoiser(mixture())).at(0.5, jnp.zeros(2))
    assert jnp.isfinite(point.control).all()
    with pytest.raises(ValueError, match="not WithMass"):
        _ = point.log_psi


@pytest.mark.slow
@pytest.mark.parametrize("name", ["exact", "estimated"])
def test_resampling_keeps_the_mean_of_the_weights(name):
    """E[W] = Z from 400 groups of 32, each an independent estimate, of exact laws and of laws estimated by 4 draws.

    The control is spoilt, so that weights spread and groups do resample.
    """
    target = mixture()
    if name == "estimated":
        target = pid.LocalDraws(
            pid.Density(target.log_density, 2), pid.GaussianMixture.isotropic(jnp.ones((1, 2)), 3.0), 4
        )
    prepared = pid.Problem(target, pid.harmonic(1.0, noise_scale=1.0)).prepare(pid.log_snr_grid(6, 0.3, 12.0))

    @jax.jit
    def log_weights(resampling):
        return pid.rollout(prepared, SPOILT, KEY, jnp.arange(32 * 400), resampling=resampling).log_weights

    groups = np.exp(log_weights(Resampling(32))).reshape(400, 32).mean(axis=1)
    mean, error = mean_and_error(groups)
    assert_within(mean, 1, error)
    assert jnp.std(log_weights(Resampling(32))) < 0.7 * jnp.std(log_weights(None))
    if name != "estimated":
        exact = pid.rollout(prepared, pid.Ancestral(), KEY, jnp.arange(64), resampling=Resampling(32))
        assert (exact.log_weights == 0).all()


@pytest.mark.slow
def test_errors_of_resampled_paths_are_those_of_groups():
    """Over 80 runs of 32 groups of 32: log Ẑ spreads as each says, within four standard errors."""
    options = {
        "rule": SPOILT,
        "num_samples": 1024,
        "grid": pid.uniform_grid(8),
        "protocol": pid.harmonic(1.0, noise_scale=1.0),
    }
    runs = [pid.sample(key, mixture(), resampling=Resampling(32), **options) for key in jax.random.split(KEY, 80)]
    values, errors = (np.array([float(run.log_z[part]) for run in runs]) for part in (0, 1))
    assert runs[0].num_islands == 32
    assert_within(values.mean(), 0, values.std(ddof=1) / np.sqrt(80))
    assert_within(values.var(ddof=1), np.mean(errors**2), np.mean(errors**2) * np.sqrt(2 / 79))
    halves = pid.sample(KEY, mixture(), resampling=Resampling(32), batch_size=512, **options)
    whole = pid.sample(KEY, mixture(), resampling=Resampling(32), **options)
    np.testing.assert_allclose(halves.log_weights, whole.log_weights, rtol=1e-8)
    with pytest.raises(ValueError, match="no multiple of the island_size"):
        pid.sample(KEY, mixture(), resampling=Resampling(300), **options)


@pytest.mark.slow
def test_saved_paths_are_those_of_the_ancestors():
    """Each ends where its path does; some starts of a Gaussian start have no descendants; each step is short."""
    start = pid.GaussianStart(jnp.zeros(2), 0.5)
    prepared = pid.Problem(mixture(), pid.harmonic(0.0, noise_scale=1.0, start=start)).prepare(pid.uniform_grid(8))
    run = prepared, SPOILT, KEY, jnp.arange(64)
    paths = pid.rollout(*run, save_states=True, resampling=Resampling(64))
    np.testing.assert_array_equal(paths.states[:, -1], paths.samples)
    assert len(np.unique(np.asarray(paths.states[:, 0]), axis=0)) < 64
    drift = jax.vmap(jax.vmap(lambda now, x, mean: now.drift(x, mean), in_axes=(0, 0, 0)), in_axes=(None, 0, 0))
    moved = paths.states[:, :-1] + drift(prepared.step_laws, paths.states[:, :-1], paths.weighted_states) / 8
    noise = np.asarray((paths.states[:, 1:] - moved) * np.sqrt(8)) - SHIFT / np.sqrt(8)
    assert np.abs(noise).max() < 6
    with pytest.raises(ValueError, match="does not divide"):
        pid.rollout(*run, resampling=Resampling(60))

    def log_mean(horizon):
        moved = eqx.tree_at(lambda one: one.step_laws.step, prepared, horizon * prepared.step_laws.step)
        return pid.rollout(moved, *run[1:], resampling=Resampling(64)).log_weights.mean()

    with pytest.raises(TypeError, match="discrete draw"):
        jax.grad(log_mean)(1.0)
