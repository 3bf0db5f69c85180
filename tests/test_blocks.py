"""Products of mixtures over blocks of coordinates: against the same law written out; the blocks, found from particles."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_within, grid_quadrature, mean_and_error

import pidjax as pid
from pidjax import GaussianMixture, Product
from pidjax.process.bridge import Observation

KEY = jax.random.key(17)
BLOCKS = [[2, 0], [1], [3]]
GAINS = {"nothing seen": 0.0, "scalar": 0.7, "diagonal": [0.3, 1.5, 0.0, 4.0]}


def factors(dtype):
    """Two of one kind and one of another: a correlated pair, two wells, a Gaussian."""
    pair = GaussianMixture(
        jnp.array([[-1.0, 0.5], [1.2, -0.3], [0.0, 1.0]], dtype),
        jnp.array([[[0.5, 0.2], [0.2, 0.3]], [[0.2, -0.1], [-0.1, 0.6]], [[1.0, 0.0], [0.0, 0.1]]], dtype),
        jnp.array([0.2, 0.5, 0.3], dtype),
    )
    wells = GaussianMixture(jnp.array([[-1.5], [1.5]], dtype), jnp.array([[[0.2]], [[0.1]]], dtype))
    line = GaussianMixture(jnp.array([[0.4], [0.4]], dtype), jnp.array([[[2.0]], [[0.5]]], dtype))
    return pair, wells, line


def product(dtype=jnp.float64):
    return Product(BLOCKS, factors(dtype))


def written_out(dtype=jnp.float64):
    """The same law as one mixture: a component for every combination."""
    pair, wells, line = factors(dtype)
    means, covariances, weights = [], [], []
    for i in range(3):
        for j in range(2):
            for k in range(2):
                covariance = jnp.zeros((4, 4), dtype).at[jnp.ix_(jnp.array([2, 0]), jnp.array([2, 0]))]
                covariance = covariance.set(pair.covariances[i])
                covariance = covariance.at[1, 1].set(wells.covariances[j, 0, 0])
                covariances.append(covariance.at[3, 3].set(line.covariances[k, 0, 0]))
                mean = jnp.stack([pair.means[i, 1], wells.means[j, 0], pair.means[i, 0], line.means[k, 0]])
                means.append(mean)
                weights.append(pair.weights[i] * wells.weights[j] * line.weights[k])
    return GaussianMixture(jnp.stack(means), jnp.stack(covariances), jnp.stack(weights))


def seen(gain, dtype=jnp.float64):
    gain = jnp.array(gain, dtype)
    return Observation(gain, gain * jnp.array([0.4, -1.3, 0.2, 0.9], dtype) + jnp.array([0.3, -0.8, 0.1, 1.1], dtype))


@eqx.filter_jit
def moments(target, observation):
    law = target.tilt(observation)
    return law.log_mass, law.mean, law.covariance()


def tolerance(dtype):
    return {"rtol": 1e-12, "atol": 1e-12} if dtype == jnp.float64 else {"rtol": 2e-5, "atol": 2e-5}


@pytest.mark.parametrize("gain", GAINS.values(), ids=GAINS)
def test_tilted_laws_are_those_of_the_mixture_written_out(gain, dtype):
    found, expected = (moments(target, seen(gain, dtype)) for target in (product(dtype), written_out(dtype)))
    for value, truth in zip(found, expected, strict=True):
        assert value.dtype == dtype
        np.testing.assert_allclose(value, truth, **tolerance(dtype))


def test_density_and_place_are_those_of_the_mixture_written_out(dtype):
    points = jax.random.normal(KEY, (20, 4), dtype)
    found, expected = (jax.vmap(target.log_density)(points) for target in (product(dtype), written_out(dtype)))
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, **tolerance(dtype))
    for value, truth in zip(product(dtype).place(), written_out(dtype).place(), strict=True):
        assert value is truth or np.allclose(value, truth, **tolerance(dtype))
    slopes = [jax.grad(target.log_density)(points[0]) for target in (product(dtype), written_out(dtype))]
    np.testing.assert_allclose(*slopes, **tolerance(dtype))


def test_rescaled_is_the_mixture_written_out_rescaled():
    shift, scale, y = jnp.array([1.0, -2.0, 0.5, 3.0]), jnp.array(2.5), jnp.array([0.4, 0.9, -0.2, 0.1])
    moved, expected = (target.rescaled(shift, scale) for target in (product(), written_out()))
    np.testing.assert_allclose(moved.log_density(y), expected.log_density(y), rtol=1e-12)
    for value, truth in zip(moments(moved, seen(0.7)), moments(expected, seen(0.7)), strict=True):
        np.testing.assert_allclose(value, truth, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("gain", [*GAINS.values(), None], ids=[*GAINS, "not tilted"])
def test_draws_have_the_moments_of_the_law(gain):
    """Means and second moments of 20,000 draws; `None` are draws of the product itself."""
    _, mean, covariance = moments(written_out(), seen(0.0 if gain is None else gain))
    if gain is None:
        points = product().sample(KEY, 20_000)
    else:
        draw = eqx.filter_jit(lambda law, keys: jax.vmap(law.draw)(keys))
        points = draw(product().tilt(seen(gain)), jax.random.split(KEY, 20_000))
    estimate, error = mean_and_error(points)
    assert_within(estimate, mean, error)
    offsets = np.array(points) - np.array(mean)
    estimate, error = mean_and_error(offsets[:, :, None] * offsets[:, None, :])
    assert_within(estimate, covariance, error)
