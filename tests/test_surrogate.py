"""The surrogate of an energy of unknown place and scale: log-mass, evenness of fresh weights, and honesty."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.scipy.stats import multivariate_normal as normal

from pidjax.surrogate import fit_surrogate

DRAWS = 8192


class Mixture(eqx.Module):
    """Equal mixture of N(m, v I) in the plane, with its parameters as leaves."""

    means: jax.Array
    variance: jax.Array

    def __call__(self, x):
        squares = jnp.sum((x - self.means) ** 2, axis=1) / self.variance
        return jax.nn.logsumexp(-0.5 * squares) - jnp.log(2 * jnp.pi * self.variance) - jnp.log(self.means.shape[0])

    def sample(self, key, count):
        key_component, key_noise = jr.split(key)
        component = jr.randint(key_component, (count,), 0, self.means.shape[0])
        return self.means[component] + jnp.sqrt(self.variance) * jr.normal(key_noise, (count, 2))


def nine(shift=0.0, scale=1.0):
    axis = jnp.array([-5.0, 0.0, 5.0])
    means = jnp.stack(jnp.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    return Mixture(shift + scale * means, jnp.asarray(0.3 * scale**2))


@jax.jit
def surrogate_log_density(fit, points):
    log_components = jax.vmap(normal.logpdf, (None, 0, 0))(points, fit.means, fit.covariances)
    return jax.nn.logsumexp(jnp.log(fit.weights)[:, None] + log_components, axis=0)


def fresh_weights(fit, key, log_density):
    """log p̃/p̂ at draws the fit has never seen; (log Z, its standard error, ESS/N)."""
    key_component, key_noise = jr.split(key)
    component = jr.categorical(key_component, jnp.log(fit.weights), shape=(DRAWS,))
    noise = jr.normal(key_noise, (DRAWS, fit.means.shape[1]), fit.means.dtype)
    factors = jnp.linalg.cholesky(fit.covariances)
    points = fit.means[component] + jnp.einsum("nij,nj->ni", factors[component], noise)
    weights = np.exp(np.asarray(jax.vmap(log_density)(points) - surrogate_log_density(fit, points), np.float64))
    ess = weights.mean() ** 2 / (weights**2).mean()
    return np.log(weights.mean()), np.sqrt((1 / ess - 1) / DRAWS), ess


def assert_sound(fit):
    for leaf in (fit.weights, fit.means, fit.covariances, fit.location, fit.scale):
        assert jnp.all(jnp.isfinite(leaf))
    assert jnp.all(jnp.isfinite(jnp.linalg.cholesky(fit.covariances)))
    assert abs(float(jnp.sum(fit.weights)) - 1) < 1e-5
    assert jnp.sum(jnp.isfinite(fit.ess)) <= fit.num_rounds


@pytest.mark.parametrize(
    ("shift", "scale"),
    [(0.0, 1.0), pytest.param(1000.0, 1.0, marks=pytest.mark.slow), pytest.param(0.0, 1e-3, marks=pytest.mark.slow)],
)
def test_nine_modes_wherever_they_are(shift, scale):
    target = nine(shift, scale)
    fit = fit_surrogate(jr.key(0), target, 2)
    log_z, error, ess = fresh_weights(fit, jr.key(1), target)
    assert abs(log_z) <= 4 * error
    assert ess >= 0.9
    exact = target.sample(jr.key(2), DRAWS)
    ratio = jnp.exp(jax.vmap(target)(exact) - surrogate_log_density(fit, exact))
    assert 1 / jnp.mean(ratio) >= 0.9
    assert fit.converged
    assert fit.non_finite == 0
    assert_sound(fit)


def test_correlated_gaussian_place_scale_and_mass():
    mean, covariance = jnp.array([30.0, -2.0]), jnp.array([[4.0, 0.0396], [0.0396, 0.0004]])

    def log_density(x):
        return normal.logpdf(x, mean, covariance) + 7.0

    fit = fit_surrogate(jr.key(3), log_density, 2)
    log_z, error, ess = fresh_weights(fit, jr.key(4), log_density)
    assert abs(log_z - 7) <= 4 * error
    assert ess >= 0.9
    standard_deviation = np.sqrt(np.diag(covariance))
    assert np.all(np.abs(fit.location - mean) <= 0.1 * standard_deviation)
    assert np.allclose(fit.scale, standard_deviation, rtol=0.1)


def test_bounded_support_is_minus_infinity_and_nan_is_counted():
    def log_density(x):
        return jnp.sum(2 * jnp.log(x) - x)

    fit = fit_surrogate(jr.key(5), log_density, 2)
    log_z, error, ess = fresh_weights(fit, jr.key(6), lambda x: jnp.nan_to_num(log_density(x), nan=-jnp.inf))
    assert abs(log_z - 2 * np.log(2)) <= 4 * error
    assert ess >= 0.9
    assert fit.non_finite > 0
    assert_sound(fit)


def test_no_mass_at_all_is_said():
    fit = fit_surrogate(jr.key(7), lambda x: -jnp.inf * jnp.ones_like(x[0]), 2)
    assert not fit.converged
    assert_sound(fit)


def test_new_parameters_do_not_compile_again():
    traced = []

    class Counted(Mixture):
        def __call__(self, x):
            traced.append(x)
            return super().__call__(x)

    first, second = (Counted(nine(shift).means, jnp.asarray(0.3)) for shift in (0.0, 1.0))
    fit_surrogate(jr.key(8), first, 2)
    number = len(traced)
    fit_surrogate(jr.key(8), second, 2)
    assert len(traced) <= number + 1


@pytest.mark.slow
def test_funnel_log_mass_and_honest_ess():
    def log_density(x):
        return normal.logpdf(x[0], 0.0, 9.0) + jnp.sum(jax.scipy.stats.norm.logpdf(x[1:], 0.0, jnp.exp(x[0] / 2)))

    errors = []
    for seed in range(3):
        fit = fit_surrogate(jr.key(seed), log_density, 10)
        log_z, error, ess = fresh_weights(fit, jr.key(100 + seed), log_density)
        assert abs(log_z) <= 0.03 + 3 * error
        assert ess >= 0.1
        errors.append(abs(log_z))
    assert np.median(errors) <= 0.03


def test_a_wrong_centre_is_named():
    with pytest.raises(ValueError, match=r"center has shape \(3,\) but dim is 2"):
        fit_surrogate(jr.key(0), lambda x: -jnp.sum(x**2), 2, center=jnp.zeros(3))
    with pytest.raises(ValueError, match="return a scalar"):
        fit_surrogate(jr.key(0), lambda x: -(x**2), 2)
