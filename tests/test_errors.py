"""Bad input gets a clear error at the door: which argument, what it got, what it wants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pidjax as pid

KEY = jax.random.key(0)
TARGET = pid.GaussianMixture.isotropic(jnp.array([[-1.0, 0.0], [1.0, 1.0]]), 0.3)


def gaussian(y):
    return -0.5 * jnp.sum(y**2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pid.GaussianMixture(jnp.zeros(3), jnp.eye(3)), r"means has shape \(3,\)"),
        (
            lambda: pid.GaussianMixture(jnp.zeros((2, 3)), jnp.eye(3)),
            r"covariances has shape \(3, 3\).*pass \(2, 3, 3\)",
        ),
        (
            lambda: pid.GaussianMixture(jnp.zeros((1, 2)), -jnp.eye(2)[None]),
            r"covariances\[0\] is not positive definite",
        ),
        (lambda: pid.GaussianMixture(jnp.zeros((1, 2)), jnp.array([[[1.0, 0.5], [0.0, 1.0]]])), "not symmetric"),
        (lambda: pid.GaussianMixture(jnp.array([[np.nan]]), jnp.ones((1, 1, 1))), "means holds 1 non-finite"),
        (
            lambda: pid.GaussianMixture(jnp.zeros((1, 1)), jnp.ones((1, 1, 1)), jnp.array([-1.0])),
            "weights has the minimum -1",
        ),
        (lambda: pid.GaussianMixture(jnp.zeros((1, 1)), jnp.ones((1, 1, 1)), jnp.ones(2)), r"weights has shape \(2,\)"),
        (lambda: pid.Samples(jnp.zeros((0, 2))), r"points has shape \(0, 2\)"),
        (lambda: pid.Samples(jnp.zeros(3)), r"points has shape \(3,\)"),
        (lambda: pid.Samples(jnp.array([[0.0], [np.inf]])), r"points holds 1 non-finite.*\(1, 0\)"),
        (lambda: pid.Samples(jnp.zeros((2, 1)), jnp.zeros(2)), "weights has the minimum 0 and the sum 0"),
        (lambda: pid.Density(lambda y: y, 2), r"log_density returns .*shape \(\)"),
        (lambda: pid.Density(gaussian, 0), "like is 0"),
        (lambda: pid.Density(gaussian, {"n": 1}), "pytree of floating arrays"),
        (lambda: pid.harmonic(-9.87), "conjugate point at t = 1"),
        (lambda: pid.harmonic(-4.0, horizon=2.0, noise_scale=1.0), "conjugate point at t = 1.571"),
        (lambda: pid.sample(KEY, TARGET, protocol=pid.harmonic(jnp.ones(3))), r"beta has shape \(3,\).*dimension 2"),
        (lambda: pid.harmonic(np.nan), "beta holds 1 non-finite"),
        (lambda: pid.harmonic(horizon=0.0), "horizon is 0"),
        (lambda: pid.harmonic(noise_scale=-1.0), "noise_scale is -1"),
        (lambda: pid.harmonic(start=jnp.zeros((1, 2))), r"start has shape \(1, 2\)"),
        (lambda: pid.uniform(0), "num_steps is 0"),
        (lambda: pid.log_snr(-1), "num_steps is -1"),
        (lambda: pid.log_snr(5, low=2.0, high=1.0), "low < high"),
        (lambda: pid.log_snr(5, low=-2.0), "low is -2"),
        (lambda: pid.given(jnp.array([0.0, 0.5, 0.5, 1.0])), "not increasing"),
        (lambda: pid.given(jnp.array([0.1, 1.0])), "starts at 0.1"),
        (lambda: pid.given(jnp.array([0.0])), r"times has shape \(1,\)"),
        (
            lambda: pid.sample(KEY, TARGET, grid=pid.given(jnp.array([0.0, 0.9]))),
            "times end at 0.9 but the horizon is 1",
        ),
        (lambda: pid.sample(KEY, TARGET, num_steps=0), "num_steps is 0"),
        (lambda: pid.sample(KEY, TARGET, num_samples=0), "num_samples is 0"),
        (lambda: pid.sample(KEY, TARGET, batch_size=0), "batch_size is 0"),
        (lambda: pid.sample(KEY, TARGET, num_steps=3, grid=pid.uniform(3)), "pass one of them"),
        (lambda: pid.sample(0, TARGET), "key is 0; pass one typed key"),
        (lambda: pid.sample(KEY, gaussian), "target is a function"),
        (lambda: pid.sample(KEY, TARGET, protocol=1.0), "protocol is a float"),
        (lambda: pid.sample(KEY, TARGET, grid=20), "grid is a int"),
        (
            lambda: pid.sample(KEY, TARGET, protocol=pid.harmonic(start=jnp.zeros(3))),
            r"start has shape \(3,\).*dimension 2",
        ),
        (lambda: pid.LocalDraws(pid.Density(gaussian, 2), None, 5), "flat"),
        (lambda: pid.LocalDraws(pid.Density(gaussian, 2), TARGET, 0), "num_draws is 0"),
        (lambda: pid.Pool.draw(KEY, pid.Density(gaussian, 2), TARGET, 0), "size is 0"),
        (lambda: pid.Surrogate(pid.Density(gaussian, 3), TARGET), "dimension 2.*dimension 3"),
        (
            lambda: pid.sample(KEY, pid.Pool.draw(KEY, pid.Density(gaussian, 2), TARGET, 9), rule=pid.Ancestral()),
            "rule is Ancestral but Pool",
        ),
        (lambda: pid.control(TARGET, pid.harmonic(), 0.5, jnp.zeros(3)), r"x has shape \(3,\)"),
    ],
)
@pytest.mark.slow
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.parametrize(
    "value", [jnp.nan, *(pytest.param(value, marks=pytest.mark.extended) for value in (jnp.inf, -jnp.inf))]
)
def test_a_log_density_that_is_nowhere_finite(value):
    with pytest.raises(ValueError, match=r"log_density is nowhere finite on .* of them NaN or"):
        pid.sample(KEY, pid.Density(lambda y: value + 0 * jnp.sum(y), 2))


def test_a_bare_density_has_no_tilted_law():
    with pytest.raises(TypeError, match="surrogate"):
        pid.weighted_state(pid.Density(gaussian, 2), pid.harmonic(), 0.5, jnp.zeros(2))


@pytest.mark.slow
def test_nan_paths_are_counted_and_explained():
    density = pid.Density(lambda y: jnp.where(y[0] > 0, jnp.nan, gaussian(y)), 2)
    standard = pid.GaussianMixture(jnp.zeros((1, 2)), jnp.eye(2)[None])
    solution = pid.sample(KEY, pid.Surrogate(density, standard), num_samples=200)
    assert 60 < solution.num_nonfinite < 140
    assert jnp.isfinite(solution.log_z)
    assert jnp.isfinite(solution.expectation(lambda y: y)[0]).all()
    with pytest.raises(pid.SamplingError, match=r"of 200 paths were not finite.*Return -inf outside"):
        solution.check()


def test_a_collapsed_run_is_explained():
    far = pid.GaussianMixture(jnp.full((1, 2), 6.0), 0.01 * jnp.eye(2)[None])
    standard = pid.GaussianMixture(jnp.zeros((1, 2)), jnp.eye(2)[None])
    solution = pid.sample(KEY, pid.Surrogate(pid.Density(far.log_density, 2), standard), num_samples=200)
    with pytest.raises(pid.SamplingError, match=r"effective sample size.*better surrogate"):
        solution.check()


@pytest.mark.slow
def test_a_run_outside_the_support_is_explained():
    nowhere = pid.Density(lambda y: jnp.where(y[0] > 100, 0.0, -jnp.inf), 2)
    standard = pid.GaussianMixture(jnp.zeros((1, 2)), jnp.eye(2)[None])
    solution = pid.sample(KEY, pid.Surrogate(nowhere, standard), num_samples=50)
    assert solution.num_nonfinite == 0
    with pytest.raises(pid.SamplingError, match="every weight is zero"):
        solution.check()
