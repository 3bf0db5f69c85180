"""U-turns against the two-Gaussian formula, exact moments and the ends of time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial.hermite_e import hermegauss

import pidjax as pid
from pidjax import learning

KEY = jax.random.key(0)
BROWNIAN = pid.harmonic(0.0, noise_scale=1.0)
"""x(t) = t y + √(t(1 − t)) z: the signal-to-noise ratio is t/(1 − t)."""
N = 20_000


def test_two_gaussians_keep_their_class_as_the_formula_says():
    """P(same class) = E_z σ(2c(c + z)), c² = |μ|² K/(1 + Kσ²), at c = 1/2, 1, 2."""
    mean, deviation = jnp.array([[3.0, -4.0, 0.0]]), 0.2
    target = pid.GaussianMixture.isotropic(jnp.concatenate([mean, -mean]), deviation**2)
    points = target.sample(KEY, N)
    nodes, weights = hermegauss(60)
    for c in (0.5, 1.0, 2.0):
        ratio = c**2 / (25 - c**2 * deviation**2)
        same = uturn_class(pid.uturn(jax.random.key(1), target, points, ratio / (1 + ratio), protocol=BROWNIAN), points)
        expected = weights @ (1 / (1 + np.exp(-2 * c * (c + nodes)))) / np.sqrt(2 * np.pi)
        assert c != 1 or expected == pytest.approx(0.775200, abs=1e-6)
        assert abs(same - expected) < 4 * np.sqrt(expected * (1 - expected) / N)


def uturn_class(turned, points):
    return float(jnp.mean((turned.samples[:, 0] > 0) == (points[:, 0] > 0)))


def test_samples_of_a_density_stay_its_samples():
    """N(1/2, 1) with N(0, 1.3²) in its place, whose mean the points would take if all were accepted."""
    density = pid.Density(lambda y: -0.5 * jnp.sum((y - 0.5) ** 2), 1)
    surrogate = pid.Surrogate(density, pid.GaussianMixture.isotropic(jnp.zeros((1, 1)), 1.3**2))
    points = 0.5 + jax.random.normal(KEY, (N, 1))
    turned = pid.uturn(jax.random.key(1), surrogate, points, 0.3, protocol=BROWNIAN)
    assert 0.5 < turned.taken.mean() < 0.95
    assert (turned.samples[~turned.taken] == points[~turned.taken]).all()
    assert abs(turned.samples.mean() - 0.5) < 4 / np.sqrt(N)
    assert abs(turned.samples.var() - 1) < 4 * np.sqrt(2 / N)


def test_both_ends_of_time():
    """At t = 0 an independent draw, at t = 1 none; a datum returns as itself."""
    data = pid.Samples(jnp.array([[-1.0, 0.0], [0.0, 1.0], [5.0, 5.0]]), jnp.array([0.5, 0.2, 0.3]))
    points = jnp.tile(jnp.array([[5.0, 5.0]]), (N, 1))
    first, last = (pid.uturn(KEY, data, points, t) for t in (0.0, 1.0))
    for datum, weight in zip(data.points, (0.5, 0.2, 0.3)):
        share = jnp.mean(jnp.all(jnp.abs(first.samples - datum[None]) < 1e-5, axis=1))
        assert abs(float(share) - weight) < 4 * np.sqrt(weight * (1 - weight) / N)
    assert (last.samples == points).all()
    assert not last.taken.any()


def test_what_cannot_turn():
    mixture = pid.GaussianMixture.isotropic(jnp.zeros((1, 2)), 1.0)
    with pytest.raises(ValueError, match="tilted laws are not known exactly"):
        pid.uturn(KEY, pid.Density(lambda y: -jnp.sum(y**2), 2), jnp.zeros((3, 2)), 0.5)
    with pytest.raises(ValueError, match="points has shape"):
        pid.uturn(KEY, mixture, jnp.zeros((3, 1)), 0.5)
    with pytest.raises(ValueError, match="t is 2"):
        pid.uturn(KEY, mixture, jnp.zeros((3, 2)), 2.0)


@pytest.mark.slow
def test_turned_points_of_a_regression_stay_samples():
    """Twenty refreshments of a buffer, and the mean of the density is that of its points."""
    density = pid.Density(lambda y: -0.5 * jnp.sum((y - 0.5) ** 2), 1)
    surrogate = pid.Surrogate(density, pid.GaussianMixture.isotropic(jnp.zeros((1, 1)), 1.3**2))
    prepared = pid.Problem(surrogate).prepare(pid.log_snr_grid(5))
    rule = pid.Corrected(pid.Moment(), lambda t, x: jnp.zeros_like(x))
    loss = learning.Regression(
        learning.Buffer(0.5 + jax.random.normal(KEY, (2000, 1))), refresh=learning.Turns(1, 2000)
    )

    def step(state, key):
        return loss(prepared, rule, key, jnp.arange(4), state)[1], None

    state = loss.start(prepared, rule, KEY)
    after, _ = jax.lax.scan(step, state, jax.random.split(jax.random.key(2), 21))
    ends = prepared.unit.from_unit(after.points.ends)
    assert jnp.mean(ends != prepared.unit.from_unit(state.points.ends)) > 0.99
    assert abs(ends.mean() - 0.5) < 4 / np.sqrt(2000)
    assert abs(ends.var() - 1) < 4 * np.sqrt(2 / 2000)
    assert loss.num_evaluations(21, 4, 5, 0) > 20 * 3 * 2000
