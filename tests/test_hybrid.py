"""Smoothed samples as the mixture that they are; laws chosen by held-out data; samples and an energy together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_within, mean_and_error
from scipy.integrate import quad
from scipy.optimize import minimize_scalar

import pidjax as pid
from pidjax.metrics import cross_entropy, nearest
from pidjax.process.bridge import Observation

KEY = jax.random.key(23)
FACTORS = {"scalar": 0.4, "diagonal": [0.3, 0.6], "matrix": [[0.5, 0.0], [-0.2, 0.3]]}
GAINS = {"none": 0.0, "scalar": 1.3, "diagonal": [0.4, 2.0], "matrix": [[0.9, 0.3], [-0.4, 1.1]]}


@pytest.mark.parametrize(
    "factor",
    [
        pytest.param("scalar", marks=pytest.mark.extended),
        pytest.param("diagonal", marks=pytest.mark.extended),
        "matrix",
    ],
)
def test_smoothed_samples_are_a_mixture(factor):
    """Density and tilts of the Gaussian mixture with a component at each datum, for each kind of kernel and gain."""
    rng = np.random.default_rng(0)
    points, weights = jnp.array(rng.normal(size=(9, 2))), jnp.array(rng.uniform(size=9))
    width = jnp.array(FACTORS[factor])
    full = width if width.ndim == 2 else jnp.diag(jnp.broadcast_to(width, (2,)))
    mixture = pid.GaussianMixture(points, jnp.broadcast_to(full @ full.T, (9, 2, 2)), weights)
    smoothed = pid.Smoothed(pid.Samples(points, weights, chunk=4), width)
    y = jnp.array([0.3, -0.8])
    np.testing.assert_allclose(smoothed.log_density(y), mixture.log_density(y), rtol=1e-12)
    shift, scale = jnp.array([0.5, -1.0]), jnp.array(1.7)

    @jax.jit
    def answers(target, gain):
        law = target.rescaled(shift, scale).tilt(Observation(gain, jnp.array([0.7, -0.2])))
        return law.log_mass, law.mean, law.covariance()

    for name, gain in GAINS.items():
        if name == "matrix" or factor != "matrix":
            for one, other in zip(answers(smoothed, jnp.array(gain)), answers(mixture, jnp.array(gain)), strict=True):
                other = other if one.ndim == other.ndim else jnp.diagonal(other)
                np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)
    place, truth = smoothed.place(), mixture.place()
    np.testing.assert_allclose(place.mean, truth.mean, rtol=1e-12)
    np.testing.assert_allclose(place.spread, truth.spread, rtol=1e-12)


@pytest.mark.extended
def test_draws_of_smoothed_samples():
    """First and second moments, by `sample`, by its own draws and by draws of a tilted law."""
    points, weights = jnp.array([[-1.0, 0.0], [2.0, 1.0], [0.5, -3.0]]), jnp.array([0.2, 0.3, 0.5])
    smoothed = pid.Smoothed(pid.Samples(points, weights), jnp.array([0.3, 0.6]))
    law = smoothed.tilt(Observation(jnp.array(0.6), jnp.array([0.2, -0.4])))
    own = weights @ points
    for samples, mean, covariance in [
        (pid.sample(KEY, smoothed, num_samples=4000).samples, own, None),
        (smoothed.sample(KEY, 4000), own, None),
        (jax.vmap(law.draw)(jax.random.split(KEY, 4000)), law.mean, law.covariance()),
    ]:
        if covariance is None:
            covariance = jnp.cov(points.T, aweights=weights, bias=True) + jnp.diag(jnp.array([0.09, 0.36]))
        found, error = mean_and_error(samples)
        assert_within(found, mean, error)
        products = (samples - mean[None])[:, :, None] * (samples - mean[None])[:, None]
        found, error = mean_and_error(products)
        assert_within(found, covariance, error)


@pytest.mark.extended
def test_kernel_by_held_out_data():
    """No other width does better, to the resolution of a search; data along a line take a kernel along it."""
    rng = np.random.default_rng(2)
    slanted = rng.normal(size=(240, 2)) @ np.array([[2.0, 1.9], [0.0, 0.2]])
    round_ones = rng.normal(size=(240, 2)) + 8 * (np.arange(240) % 2)[:, None] * np.array([1.0, -1.0])
    for points, rank in ((slanted, 2), (round_ones, 0)):
        data, held = pid.Samples(jnp.array(points[:160])), points[160:]
        fitted = pid.fit_kernel(data, jnp.array(held))
        assert fitted.factor.ndim == rank
        whiten = np.linalg.inv(fitted.factor) if rank else np.eye(2) / float(fitted.factor)
        squares = np.sum(((held[:, None] - points[None, :160]) @ whiten.T) ** 2, axis=2)

        def loss(log_scale, squares=squares):
            joint = -0.5 * squares * np.exp(-2 * log_scale)
            return -np.mean(np.log(np.exp(joint).sum(axis=1))) + 2 * log_scale

        best = minimize_scalar(loss, bounds=(-1, 1), method="bounded", options={"xatol": 1e-6})
        assert abs(best.x) < 1e-3
        constant = np.log(160) + np.log(2 * np.pi) - np.log(np.linalg.det(whiten))
        np.testing.assert_allclose(
            cross_entropy(jnp.array(held), fitted.log_density).value, loss(0.0) + constant, rtol=1e-9
        )


@pytest.mark.extended
def test_local_gaussians_by_held_out_data():
    """Three clusters of different shapes: as likely, on fresh data, as the truth within 2 %, and as scikit-learn's fit."""
    from sklearn.mixture import GaussianMixture

    means, covariances = (
        np.array([[0, 0], [6, 0], [0, 6.0]]),
        np.array([[[1, 0.8], [0.8, 1]], np.eye(2) * 0.2, [[2, 0], [0, 0.1]]]),
    )
    truth = pid.GaussianMixture(jnp.array(means), jnp.array(covariances), jnp.array([0.5, 0.2, 0.3]))
    points, held, fresh = (
        truth.sample(key, n) for key, n in zip(jax.random.split(KEY, 3), (600, 300, 4000), strict=True)
    )
    fitted = pid.fit_local_gaussians(KEY, pid.Samples(points), held)
    other = GaussianMixture(3, n_init=5, random_state=0).fit(np.array(points))
    ours, best = (cross_entropy(fresh, law.log_density).value for law in (fitted, truth))
    assert best < ours < best + 0.06
    assert ours < -other.score(np.array(fresh)) + 0.03
    smoothed = pid.fit_kernel(pid.Samples(points), held)
    assert ours < cross_entropy(fresh, smoothed.log_density).value


def wells(dim, count, seed):
    """Narrow wells, no Gaussians, far apart: log p̃, the masses and centres, and exact draws of a well; Z = e^1.7."""
    rng = np.random.default_rng(seed)
    centres = 60 * rng.normal(size=(count, dim)) / np.sqrt(dim)
    widths = rng.uniform(0.05, 0.25, size=(count, dim))
    masses = rng.uniform(0.5, 1.5, size=count)
    masses /= masses.sum()
    mass = quad(lambda u: np.exp(-(u**2) / 2 - u**4 / 4), -9, 9)[0]
    log_heights = np.log(masses) + 1.7 - dim * np.log(mass) - np.log(widths).sum(axis=1)

    def log_density(y):
        u = (y[None] - jnp.array(centres)) / jnp.array(widths)
        return jax.nn.logsumexp(jnp.array(log_heights) - jnp.sum(u**2 / 2 + u**4 / 4, axis=1))

    def draw(well, number):
        grid = np.linspace(-4, 4, 8001)
        cumulative = np.cumsum(np.exp(-(grid**2) / 2 - grid**4 / 4))
        u = np.interp(rng.uniform(size=(number, dim)) * cumulative[-1], cumulative, grid)
        return centres[well] + widths[well] * u

    return log_density, masses, centres, draw


@pytest.mark.extended
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_samples_say_where_and_the_energy_how_much(seed):
    """Twelve wells in six dimensions, half of them with a fifth of their share of samples: log Z and shares within 4 s.e.

    Either alone fails: the samples' shares by more than 10 s.e., and the energy's climb does not meet all wells.
    """
    log_density, masses, centres, draw = wells(6, 12, seed)
    kept = np.where(np.arange(12) % 2, 0.2, 1.0) * masses
    numbers = np.ceil(1600 * kept / kept.sum()).astype(int)
    samples = np.random.default_rng(seed).permutation(np.concatenate([draw(well, n) for well, n in enumerate(numbers)]))
    points, held = jnp.array(samples[400:]), jnp.array(samples[:400])
    density, share = pid.Density(log_density, 6), nearest(jnp.array(centres))
    law = pid.fit_local_gaussians(KEY, pid.Samples(points), held, counts=(12, 16, 24))
    solution = pid.sample(KEY, pid.Surrogate(density, law), num_samples=16_384).check()
    shares = solution.expectation(share)
    assert_within(solution.log_z.value, 1.7, solution.log_z.standard_error)
    assert_within(shares.value, masses, shares.standard_error)
    assert float(jnp.max(shares.standard_error)) < 0.01
    alone, error = mean_and_error(jax.vmap(share)(points))
    assert np.max(np.abs(alone - masses) / error) > 10
    energy = pid.sample(KEY, density, num_samples=2048, progress=False)
    assert float(jnp.min(energy.expectation(share).value / masses)) < 0.1


def test_share_of_the_energy_between_two_gaussians():
    """The held-out optimum over λ, in closed form: p_λ of two Gaussians is one, of which the data's two moments tell all."""
    truth_mean, truth_variance, count = 0.4, 1.0, 4000
    held = truth_mean + np.sqrt(truth_variance) * np.random.default_rng(3).normal(size=(count, 1))
    law = pid.GaussianMixture.isotropic(jnp.array([[-0.5]]), 3.0)
    density = pid.Density(lambda y: -0.5 * jnp.sum((y - 1.0) ** 2) / 0.6 + 11.0, 1)

    def gaussian(share):
        precision = (1 - share) / 3.0 + share / 0.6
        return ((1 - share) * -0.5 / 3.0 + share * 1.0 / 0.6) / precision, 1 / precision

    def loss(share):
        mean, variance = gaussian(share)
        return 0.5 * (np.mean((held - mean) ** 2) / variance + np.log(variance))

    best = minimize_scalar(loss, bounds=(0, 1), method="bounded", options={"xatol": 1e-7}).x
    assert 0.1 < best < 0.9
    assert loss(best) + 0.05 < min(loss(0.0), loss(1.0))
    found = [float(pid.energy_share(key, density, law, jnp.array(held))) for key in jax.random.split(KEY, 12)]
    assert_within(np.mean(found), best, np.std(found, ddof=1) / np.sqrt(12))
    assert np.std(found) < 0.1
    solution = pid.sample(KEY, pid.blend(density, law, best), num_samples=4096)
    value, error = solution.expectation(lambda y: y[0])
    assert_within(value, gaussian(best)[0], error)


def test_bad_input_is_named():
    data = pid.Samples(jnp.zeros((3, 2)))
    law = pid.GaussianMixture.isotropic(jnp.zeros((1, 2)), 1.0)
    density = pid.Density(lambda y: -jnp.sum(y**2), 2)
    for message, wrong in [
        (r"factor has shape \(3,\)", lambda: pid.Smoothed(data, jnp.ones(3))),
        ("factor is 0.0; pass widths > 0", lambda: pid.Smoothed(data, 0.0)),
        ("lower triangular", lambda: pid.Smoothed(data, jnp.ones((2, 2)))),
        ("data is a GaussianMixture; pass Samples", lambda: pid.Smoothed(law, 0.1)),
        (r"held_out has shape \(3,\)", lambda: pid.fit_kernel(data, jnp.ones(3))),
        (r"held_out has shape \(0, 2\)", lambda: pid.fit_local_gaussians(KEY, data, jnp.ones((0, 2)))),
        ("share is 1.5; pass a number from 0", lambda: pid.blend(density, law, 1.5)),
        ("density is a GaussianMixture", lambda: pid.energy_share(KEY, law, law, jnp.ones((3, 2)))),
    ]:
        with pytest.raises(ValueError, match=message):
            wrong()
