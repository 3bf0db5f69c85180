"""The Green function against 40-digit arithmetic, quadrature, its own composition law and its differential equation."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from helpers import exact_cosine, exact_log_green, exact_sine
from hypothesis import given, settings
from hypothesis import strategies as st

from pidjax import Green, harmonic

BETAS = [-9.8, -5.0, -1.0, -1e-12, 0.0, 1e-12, 0.01, 1.0, 10.0, 100.0, 1e4]
LATE, EARLY = 1 - 1e-6, 1e-6

log_green = jax.jit(lambda beta, x, y, duration: Green(beta).log(x, y, duration))
pin = jax.jit(lambda beta, before, after: Green(beta).pin(before, after))
pull = jax.jit(lambda beta, duration: Green(beta).pull(duration))


@jax.jit
def slopes_of_log_green(beta, x, y, duration):
    log = Green(beta).log
    return jax.grad(log, argnums=2)(x, y, duration), jax.grad(log)(x, y, duration), jax.hessian(log)(x, y, duration)


def gains(beta, before):
    return jnp.stack(Green(beta).pin(before, 1 - before))


slopes_of_gains = jax.jit(jax.jacfwd(gains, (0, 1)))
slopes_of_pin = jax.jit(jax.jacrev(lambda beta, before, after: Green(beta).pin(before, after), (0, 1, 2)))


@jax.jit
def expansion_of_pin(z, duration):
    """Value, slope and curvature in z = βτ² of the three gains, halved unevenly."""

    def value(z):
        return jnp.stack(Green(z / duration**2).pin(duration / 4, 3 * duration / 4))

    return value(z), jax.jacfwd(value)(z), jax.jacfwd(jax.jacfwd(value))(z)


betas = st.floats(-9.0, 1e3)
fractions = st.floats(0.01, 0.99)
coordinates = st.floats(-3, 3)
laws = settings(max_examples=40, deadline=None)


def exact_pin(beta, before, after):
    with mpmath.workdps(40):
        before, after = mpmath.mpf(before), mpmath.mpf(after)
        ends, whole = (exact_sine(beta, after), exact_sine(beta, before)), exact_sine(beta, before + after)
        return ends[0] / whole, ends[1] / whole, ends[0] * ends[1] / whole


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("duration", [EARLY, 0.3, 1.0])
def test_log_green_is_the_closed_form(beta, duration):
    x, y = 0.7, -0.4
    value = log_green(beta, jnp.array([x]), jnp.array([y]), duration)
    np.testing.assert_allclose(float(value), float(exact_log_green(beta, x, y, duration)), rtol=1e-12)


@pytest.mark.parametrize("beta", [-5.0, -1.0, -1e-6, 0.0, 1e-6, 0.01, 1.0, 10.0, 1e2, 1e3, 1e4, 1e5, 1e6])
def test_float32_at_both_ends_of_time(beta):
    """A few roundings, plus what float32 leaves of the exponent √β τ of a gain far below one."""
    beta = np.float32(beta)
    for t in [EARLY, 1e-3, 0.1, 0.5, 0.9, 1 - 1e-3, LATE]:
        before, after = np.float32(t), np.float32(1 - t)
        truth = [*exact_pin(float(beta), float(before), float(after)), 1 / exact_sine(float(beta), float(after))]
        truth += [exact_cosine(float(beta), float(after)) * truth[-1]]
        values = [*pin(beta, before, after), *pull(beta, after)]
        for value, exact in zip(values, truth, strict=True):
            assert value.dtype == jnp.float32
            if abs(exact) > 1e-35:
                allowed = 3e-7 + 1e-7 * abs(float(mpmath.log(abs(exact))))
                assert abs(float(value) / float(exact) - 1) <= allowed, (beta, t)


@laws
@given(betas, coordinates, coordinates, fractions)
def test_symmetry(beta, x, y, duration):
    x, y = jnp.array([x]), jnp.array([y])
    np.testing.assert_allclose(log_green(beta, x, y, duration), log_green(beta, y, x, duration), rtol=1e-14)


@laws
@given(betas, coordinates, coordinates, fractions)
def test_a_pinned_density_is_a_product_of_green_functions(beta, x, y, t):
    """Bayes: p(z | x, y) = G(x → z) G(z → y)/G(x → y) integrates to one: Chapman–Kolmogorov."""
    law = pin(beta, t, 1 - t)
    start, end = jnp.array([x]), jnp.array([y])
    for sigmas in [-2.0, 0.5]:
        between = law.left * start + law.right * end + sigmas * jnp.sqrt(law.variance)
        log_density = -0.5 * (sigmas**2 + jnp.log(2 * jnp.pi * law.variance))
        product = (
            log_green(beta, start, between, t) + log_green(beta, between, end, 1 - t) - log_green(beta, start, end, 1.0)
        )
        scale = 1 + float(jnp.abs(log_green(beta, start, end, 1.0)))
        assert abs(float(log_density - product)) <= 1e-11 * scale / min(t, 1 - t)


@pytest.mark.parametrize("beta", [-9.0, -1.0, 0.0, 1.0, 50.0])
def test_chapman_kolmogorov_by_quadrature(beta):
    start, end, t = jnp.array([0.8]), jnp.array([-0.5]), 0.3
    between = jnp.linspace(-12, 12, 4001)[:, None]
    green = Green(jnp.array(beta))
    path = jax.vmap(lambda z: jnp.exp(green.log(start, z, t) + green.log(z, end, 1 - t)))(between)
    np.testing.assert_allclose(jnp.sum(path) * 24 / 4000, jnp.exp(log_green(beta, start, end, 1.0)), rtol=1e-11)


@laws
@given(betas, fractions, fractions)
def test_pinning_twice_is_pinning_once(beta, t, fraction):
    """The state at f·t, through the state at t, is the state at f·t: left, right and variance compose."""
    outer, inner, once = (
        pin(beta, t, 1 - t),
        pin(beta, fraction * t, (1 - fraction) * t),
        pin(beta, fraction * t, 1 - fraction * t),
    )
    np.testing.assert_allclose(inner.left + inner.right * outer.left, once.left, rtol=1e-9)
    np.testing.assert_allclose(inner.right * outer.right, once.right, rtol=1e-9)
    np.testing.assert_allclose(inner.variance + inner.right**2 * outer.variance, once.variance, rtol=1e-9)


@pytest.mark.parametrize("beta", [-9.0, -0.5, 0.0, 0.5, 30.0])
def test_feynman_kac_equation(beta):
    """∂_τ G + V G = ½ΔG with V = β|x|²/2, divided by G."""
    x, y = jnp.array([0.7, -0.2]), jnp.array([0.1, 0.5])
    slope, gradient, hessian = slopes_of_log_green(beta, x, y, 0.6)
    np.testing.assert_allclose(slope + beta * (x @ x) / 2, 0.5 * (jnp.trace(hessian) + gradient @ gradient), rtol=1e-11)


@pytest.mark.parametrize("z", [-1.0, 1.0])
def test_regimes_meet(z, dtype):
    """Across βτ² = ±1 the formula changes and the function, its slope and its curvature do not."""
    sides = [jnp.nextafter(jnp.array(z, dtype), jnp.array(side, dtype)) for side in (-jnp.inf, jnp.inf)]
    below, above = (expansion_of_pin(side, jnp.array(0.5, dtype)) for side in sides)
    for left, right in zip(below, above, strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=8 * float(jnp.finfo(dtype).eps * jnp.max(below[0])))


@pytest.mark.parametrize("beta", [-5.0, -1.0, 0.0, 1.0, 100.0])
@pytest.mark.parametrize("t", [EARLY, 0.4, LATE])
def test_gradients_in_beta_and_time(beta, t):
    """Slopes of the gains against 40-digit differences, at both ends of time."""

    def exact(index, by):
        with mpmath.workdps(40):
            h, t_, b = mpmath.mpf(10) ** -15, mpmath.mpf(t), mpmath.mpf(beta)
            db, dt = (h, 0) if by == "beta" else (0, h)
            ends = [exact_pin(b + s * db, t_ + s * dt, 1 - t_ - s * dt)[index] for s in (1, -1)]
            return float((ends[0] - ends[1]) / (2 * h))

    by_beta, by_time = slopes_of_gains(beta, t)
    np.testing.assert_allclose(by_beta, [exact(i, "beta") for i in range(3)], rtol=1e-7, atol=1e-16)
    np.testing.assert_allclose(by_time, [exact(i, "time") for i in range(3)], rtol=1e-9)


def test_float32_gradients_are_finite():
    for beta in [-9.8, -1.0, 0.0, 1e-30, 1.0, 1e6]:
        for before, after in [(0.0, 1.0), (1e-6, 1.0), (1.0, 1e-6), (1.0, 0.0)]:
            slopes = slopes_of_pin(*map(jnp.float32, (beta, before, after)))
            assert all(jnp.isfinite(slope) for slope in jax.tree.leaves(slopes)), (beta, before, after)


@pytest.mark.parametrize("beta", [-10.0, -(np.pi**2)])
def test_the_conjugate_point_raises(beta):
    with pytest.raises(ValueError, match="conjugate point"):
        harmonic(beta)
    with pytest.raises(ValueError, match="conjugate point"):
        harmonic(beta / 4, noise_scale=2.0)
    harmonic(beta / 4)
