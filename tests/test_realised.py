"""An estimated law is realised once: the step, its density and the x̂ that is shown are of the same random points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_within, mean_and_error

import pidjax as pid
from pidjax.learning import LogVariance
from pidjax.sampling.rollout import given_log_weights
from pidjax.sampling.rules import EndingOnDraw

KEY = jax.random.key(31)
WIDE = pid.GaussianMixture(jnp.array([[0.2, -0.1]]), 1.4 * jnp.eye(2)[None])
TWO = pid.GaussianMixture.isotropic(jnp.array([[-0.8, 0.0], [0.9, 0.5]]), 0.4, jnp.array([0.3, 0.7]))
GAUSSIAN = pid.GaussianStart(jnp.array([0.2, 0.1]), jnp.array([[0.4, 0.1], [0.1, 0.2]]))


def local():
    return pid.LocalDraws(pid.Density(TWO.log_density, 2), WIDE, 12)


def prepared(target, start):
    protocol = pid.harmonic(1.0, start=start, noise_scale=1.0)
    return pid.Problem(target, protocol).prepare(pid.log_snr_grid(5, 0.3, 10.0))


@pytest.mark.parametrize(
    ("rule", "start"),
    [
        pytest.param(pid.Euler(), jnp.zeros(2), id="euler-point"),
        pytest.param(pid.Moment(), GAUSSIAN, id="moment-gaussian", marks=pytest.mark.slow),
        pytest.param(pid.Euler(), GAUSSIAN, id="euler-gaussian", marks=pytest.mark.extended),
        pytest.param(pid.Moment(), jnp.zeros(2), id="moment-point", marks=pytest.mark.extended),
    ],
)
def test_weights_of_given_paths_are_those_that_they_were_drawn_with(rule, start):
    problem, indices = prepared(local(), start), jnp.array([3, 0, 7])
    paths = jax.jit(lambda: pid.rollout(problem, rule, KEY, indices, save_states=True))()
    given = jax.jit(lambda states: given_log_weights(problem, rule, KEY, indices, states))(paths.states)
    np.testing.assert_allclose(given, paths.log_weights, rtol=1e-9)


@pytest.mark.slow
def test_the_log_variance_is_that_of_the_weights():
    problem, indices = prepared(local(), jnp.zeros(2)), jnp.arange(20)
    weights = pid.rollout(problem, pid.Euler(), KEY, indices).log_weights
    value, _ = LogVariance()(problem, pid.Euler(), KEY, indices, ())
    np.testing.assert_allclose(value, jnp.var(weights, ddof=1), rtol=1e-9)


def test_a_drawn_last_step_is_weighed_alike():
    problem, indices = prepared(pid.Samples(TWO.means), jnp.zeros(2)), jnp.arange(4)
    rule = EndingOnDraw(pid.Euler())
    paths = pid.rollout(problem, rule, KEY, indices, save_states=True)
    np.testing.assert_allclose(
        given_log_weights(problem, rule, KEY, indices, paths.states), paths.log_weights, rtol=1e-9
    )


@pytest.mark.slow
def test_chunks_do_not_change_the_weighted_states():
    whole, parts = (
        pid.sample(KEY, local(), num_samples=8, num_steps=4, batch_size=size, save_paths=True) for size in (8, 3)
    )
    np.testing.assert_allclose(whole.states, parts.states, rtol=1e-10)
    np.testing.assert_allclose(whole.weighted_states, parts.weighted_states, rtol=1e-10)


@pytest.mark.slow
def test_the_weighted_state_shown_is_the_one_that_was_used():
    """Undone: an Euler step without noise would go from x to x + (f + u)dt, u by x̂; the noise left over is N(0, 1)."""
    solution = pid.sample(KEY, local(), rule=pid.Euler(), num_samples=400, num_steps=6, save_paths=True)
    bridges, unit = solution.prepared.step_laws, solution.prepared.unit
    x, expected = unit.to_unit(solution.states), unit.to_unit(solution.weighted_states)
    drift = jax.vmap(jax.vmap(lambda now, x, mean: now.drift(x, mean)), in_axes=(None, 0, 0))(
        bridges, x[:, :-1], expected
    )
    noise = (x[:, 1:] - x[:, :-1] - drift * bridges.step[None, :, None]) / jnp.sqrt(bridges.step)[None, :, None]
    mean, error = mean_and_error(noise.reshape(-1))
    assert_within(mean, 0, error)
    second, error = mean_and_error(noise.reshape(-1) ** 2)
    assert_within(second, 1, error)


@pytest.mark.slow
def test_a_control_on_a_bare_density_from_a_gaussian_start():
    """The start is drawn as it is, N(m₀, P₀), and E[W] = Z."""
    target = pid.Density(lambda y: TWO.log_density(y) + 0.4, 2)
    rule = pid.Controlled(lambda t, x: 0.3 - 0.4 * x)
    protocol = pid.harmonic(0.0, start=GAUSSIAN, noise_scale=1.0)
    solution = pid.sample(
        KEY, target, protocol=protocol, rule=rule, grid=pid.uniform_grid(6), num_samples=6000, save_paths=True
    )
    estimate, error = mean_and_error(jnp.exp(solution.log_weights))
    assert_within(estimate, np.exp(0.4), error)
    start, error = mean_and_error(solution.states[:, 0])
    assert_within(start, GAUSSIAN.mean, error)
    assert solution.weighted_states is None
