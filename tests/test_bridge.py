"""What the rollout is built of: the observation, the bridges, and the identity that makes path weights exact."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pidjax as pid
from pidjax import Green, log_snr_grid, uniform_grid
from pidjax.process.bridge import observe
from pidjax.process.harmonic import Harmonic

BETAS = [-9.0, -1.0, 0.0, 1.0, 100.0]
RANGE, ONE = (jnp.array(0.3), jnp.array(30.0)), jnp.array(1.0)


@eqx.filter_jit
def bridges_of(green, grid):
    reference = Harmonic(green, jnp.zeros(()))
    return reference.laws(grid.times(reference, RANGE, ONE, 1))[0]


def along(beta, grid):
    green = Green(jnp.array(beta))
    return green, bridges_of(green, grid)


@eqx.filter_jit
def both_sides(green, bridges, states):
    """Σ log b_k(x_k | x_{k+1}), and Σ log G(x_k → x_{k+1}) − log G(x₀ → x_K)."""
    noising = jax.vmap(lambda law, x, after: law.log_density(x, states[0], after))(
        bridges.noising, states[:-1], states[1:]
    )
    steps = jax.vmap(green.log)(states[:-1], states[1:], bridges.step)
    return jnp.sum(noising), jnp.sum(steps) - green.log(states[0], states[-1], 1.0)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("grid", [uniform_grid(1), uniform_grid(6), log_snr_grid(6)], ids=repr)
def test_noising_kernels_are_green_functions_over_a_green_function(beta, grid):
    """Σ log b_k(x_k | x_{k+1}) = Σ log G(x_k → x_{k+1}) − log G(x₀ → x_K), whatever the path."""
    green, bridges = along(beta, grid)
    states = jax.random.normal(jax.random.key(1), (bridges.num_steps + 1, 3))
    np.testing.assert_allclose(*both_sides(green, bridges, states), rtol=1e-10)


@pytest.mark.parametrize("beta", BETAS)
def test_the_first_and_the_last_step_are_points(beta):
    """Gains are 1 to a rounding; the zeros are exact."""
    _, bridges = along(beta, log_snr_grid(5))
    on_the_left, on_the_right = (1, 0, 0, 0, 0, 0), (0, 1, 0, 0, 0, 0)
    ends = [(bridges.ahead, -1, on_the_right), (bridges.noising, 0, on_the_left), (bridges.observation, 0, on_the_left)]
    for law, k, point in ends:
        np.testing.assert_allclose([leaf[k] for leaf in law], point, rtol=np.finfo(float).eps)


@pytest.mark.parametrize("beta", BETAS)
def test_a_step_toward_the_end_continues_the_observation(beta):
    """x_{k+1} | x₀, y through x_k is x_{k+1} | x₀, y: the chain of bridges is one bridge."""
    _, bridges = along(beta, log_snr_grid(5))
    seen, step = bridges.observation, bridges.ahead
    for k in range(bridges.num_steps - 1):
        np.testing.assert_allclose(step.left[k] * seen.left[k], seen.left[k + 1], rtol=1e-11)
        np.testing.assert_allclose(step.left[k] * seen.right[k] + step.right[k], seen.right[k + 1], rtol=1e-11)
        variance = (step.left[k] * seen.factor[k]) ** 2 + step.factor[k] ** 2
        np.testing.assert_allclose(variance, seen.factor[k + 1] ** 2, rtol=1e-11)


@jax.jit
def slope_of_log_green(green, x, y, duration):
    return jax.grad(green.log)(x, y, duration)


@pytest.mark.parametrize("beta", BETAS)
def test_the_control_is_the_slope_of_the_green_function(beta):
    """∇ₓ log G(x → y) = y/S − (C/S) x."""
    green, bridges = along(beta, uniform_grid(4))
    x, y = jnp.array([0.3, -1.0]), jnp.array([1.0, 0.2])
    for k, remaining in enumerate([1.0, 0.75, 0.5, 0.25]):
        slope = slope_of_log_green(green, x, y, remaining)
        np.testing.assert_allclose(bridges.drift.to_end[k] * y - bridges.drift.to_centre[k] * x, slope, rtol=1e-12)


@pytest.mark.slow
def test_the_observation_in_units_of_its_noise():
    green, start, x, y = Green(jnp.array(2.0)), jnp.array([0.5]), jnp.array([0.1]), jnp.array([1.3])
    law = Harmonic(green, jnp.zeros(())).instant(jnp.array(0.3), jnp.array(0.7)).observation
    observation = observe(law, x, start)
    squared = jnp.sum((observation.value - observation.gain * y) ** 2)
    np.testing.assert_allclose(squared, jnp.sum((x - law.mean(start, y)) ** 2) * law.whitening**2, rtol=1e-13)


def test_at_the_start_only_the_start_has_a_law():
    at_start = Harmonic(Green(ONE), jnp.zeros(())).instant(jnp.array(0.0), ONE).observation
    start = jnp.array([0.5])
    assert observe(at_start, start, start) == (0, 0)
    assert jnp.isnan(observe(at_start, start + 1e-3, start).value).all()


@pytest.mark.parametrize("beta", [0.3, 1.0, 10.0])
def test_the_start_is_known_for_the_start_around_a_centre(beta):
    """In single precision left + right is not quite one at t = 0, and the centre's share of the state not quite zero."""
    target = pid.GaussianMixture.isotropic(jnp.zeros((1, 2), jnp.float32), 1.0)
    protocol = pid.harmonic(jnp.float32(beta), centre=jnp.array([1.0, -2.0], jnp.float32))
    paths = pid.rollout(
        pid.Problem(target, protocol).prepare(pid.log_snr_grid(4)), pid.Ancestral(), jax.random.key(0), jnp.arange(4)
    )
    assert jnp.isfinite(paths.samples).all()
