"""log ψ, the weighted state and the control: golden values, differential equations, the ends of time, the units."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import exact_log_green

from pidjax import GaussianMixture, Problem, harmonic

GOLDEN = [  # beta, t, x, log psi, weighted state, control: 40-digit quadrature
    (0.0, 0.5, -0.3, -0.902251675920377, -0.454982093082877, -0.309964186165755),
    (0.1, 0.05, 0.1, 0.000928107597271362, 0.734714346812646, 0.65346094236032),
    (1.0, 0.95, 1.2, 0.879563934067602, 1.2993973062268, 1.95712430361577),
    (10.0, 0.5, -0.3, 0.298514330982321, -0.631497534394668, 0.174511162679472),
    (100.0, 0.95, 1.2, 10.5979373597572, 1.9218377131288, 10.9132926143385),
]


def mixture(dtype=jnp.float64):
    means, variances = jnp.array([[-2.0], [1.5]], dtype), jnp.array([0.16, 0.64], dtype)
    return GaussianMixture.isotropic(means, variances, jnp.array([0.3, 0.7], dtype))


def unit(beta, dtype=jnp.float64, start=0.0):
    return harmonic(jnp.asarray(beta, dtype), start=jnp.full(1, start, dtype), noise_scale=1.0)


@eqx.filter_jit
def answers(target, protocol, t, x):
    point = Problem(target, protocol).at(t, x)
    return point.log_psi, point.weighted_state[0], point.control[0]


@eqx.filter_jit
def slopes(target, protocol, t, x):
    """∂_t log ψ, ∂_x log ψ, ∂_x² log ψ in one dimension."""

    def value(t, x):
        return Problem(target, protocol).at(t, x[None]).log_psi

    return jax.grad(value)(t, x), jax.grad(value, 1)(t, x), jax.grad(jax.grad(value, 1), 1)(t, x)


@pytest.mark.parametrize(("beta", "t", "x", "value", "state", "drift"), GOLDEN)
def test_golden_values(beta, t, x, value, state, drift):
    computed = answers(mixture(), unit(beta), jnp.array(t), jnp.array([x]))
    np.testing.assert_allclose(np.array(computed), [value, state, drift], rtol=1e-12)


@pytest.mark.parametrize(("beta", "t", "x", "value", "state", "drift"), GOLDEN)
@pytest.mark.slow
def test_golden_values_in_float32(beta, t, x, value, state, drift):
    computed = answers(mixture(jnp.float32), unit(beta, jnp.float32), jnp.float32(t), jnp.array([x], jnp.float32))
    for got, exact in zip(computed, (value, state, drift), strict=True):
        assert got.dtype == jnp.float32
        assert abs(float(got) - exact) <= 1e-5 * max(1, abs(exact))


@pytest.mark.slow
@pytest.mark.parametrize("beta", [-5.0, -1.0, 0.0, 1.0, 30.0])
@pytest.mark.parametrize("t", [0.1, 0.5, 0.95])
def test_value_function_equations(beta, t):
    """−∂_t ψ + Vψ = ½Δψ, divided by ψ; HJB, −∂_t J = V + ½ΔJ − ½|∇J|² for J = −log ψ; and u* = ∇log ψ."""
    x = jnp.array(0.4)
    by_time, by_state, curvature = slopes(mixture(), unit(beta, start=-0.5), jnp.array(t), x)
    potential = beta * x**2 / 2
    np.testing.assert_allclose(-by_time + potential, 0.5 * (curvature + by_state**2), rtol=1e-10)
    np.testing.assert_allclose(by_time, potential - 0.5 * curvature - 0.5 * by_state**2, rtol=1e-10)
    np.testing.assert_allclose(
        answers(mixture(), unit(beta, start=-0.5), jnp.array(t), x[None])[2], by_state, rtol=1e-10
    )


@pytest.mark.parametrize("beta", [-9.0, 0.0, 20.0])
def test_quadrature_away_from_the_origin(beta):
    """ψ(t, x) = ∫ p(y) G(t, x → 1, y)/G(0, x₀ → 1, y) dy by summation over y."""
    start, t, x = 0.7, 0.4, -0.2
    y = np.linspace(-12, 12, 1201)
    density = np.exp(jax.vmap(mixture().log_density)(jnp.array(y)[:, None]))
    ratio = [float(exact_log_green(beta, x, end, 0.6) - exact_log_green(beta, start, end, 1)) for end in y]
    terms = density * np.exp(ratio) * 0.02
    value, state, _ = answers(mixture(), unit(beta, start=start), jnp.array(t), jnp.array([x]))
    np.testing.assert_allclose(value, np.log(terms.sum()), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(state, (terms * y).sum() / terms.sum(), rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("beta", [-5.0, 0.0, 1.0, 1e4])
def test_ends_of_time(beta, dtype):
    target, protocol, x = mixture(dtype), unit(beta, dtype), jnp.array([0.3], dtype)
    value, state, drift = answers(target, protocol, jnp.array(0, dtype), jnp.zeros(1, dtype))
    tolerance = 20 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose([float(value), float(state)], [0, 0.45], atol=tolerance)
    assert jnp.isfinite(drift)
    assert jnp.isnan(answers(target, protocol, jnp.array(0, dtype), x)[0])
    at_end = answers(target, protocol, jnp.array(1, dtype), x)
    np.testing.assert_allclose(at_end[1], x[0])
    if dtype == jnp.float64:
        just_before = Problem(target, protocol).at(1.0, x, remaining=jnp.array(1e-9)).control
        np.testing.assert_allclose(at_end[2], just_before[0], rtol=1e-5)


@pytest.mark.parametrize("beta", [-2.0, 0.0, 3.0])
def test_units(beta):
    """On [0, T] with noise σ: the unit problem of y/σ√T at t/T with βσ²T², and u = σ/√T u'."""
    horizon, noise, t, x = 2.0, 1.7, 0.6, jnp.array([0.4])
    scale = noise * np.sqrt(horizon)
    user = harmonic(beta / (noise * horizon) ** 2, start=jnp.array([0.5]), horizon=horizon, noise_scale=noise)
    small = GaussianMixture(mixture().means / scale, mixture().covariances / scale**2, mixture().weights)
    value, state, drift = answers(small, unit(beta, start=0.5 / scale), jnp.array(t / horizon), x / scale)
    computed = answers(mixture(), user, jnp.array(t), x)
    np.testing.assert_allclose(computed, [value, state * scale, drift * scale / horizon], rtol=1e-11)
