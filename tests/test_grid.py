"""Grids: the ratios asked for, times in order, steps that sum to one, float32 as good as float64, and the clock."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pidjax import (
    Ancestral,
    GaussianMixture,
    Green,
    Moment,
    Problem,
    at_times,
    harmonic,
    log_snr_grid,
    rollout,
    uniform_grid,
)
from pidjax.process.clock import time_at_snr
from pidjax.process.harmonic import Harmonic

BETAS = [-9.8, -9.0, -2.0, -1e-9, 0.0, 1e-9, 0.5, 1.0, 1.01, 30.0, 1e4, 1e6]
RATIOS = np.geomspace(1e-4, 1e6, 31)
ONE, RANGE = jnp.array(1.0), (jnp.array(0.3), jnp.array(30.0))


@jax.jit
def times_and_ratios(beta, ratios):
    green = Green(beta)
    t, remaining = time_at_snr(green, ratios)
    law = green.pin(t, remaining)
    return t, remaining, law.right**2 / law.variance


@pytest.mark.parametrize("beta", BETAS)
def test_times_at_given_ratios(beta):
    t, remaining, ratios = times_and_ratios(jnp.array(beta), jnp.array(RATIOS))
    # Near the conjugate point, β = −9.8, a rounding of t moves the ratio by 1e-10.
    np.testing.assert_allclose(ratios, RATIOS, rtol=1e-9)
    np.testing.assert_allclose(t + remaining, 1, rtol=1e-15)
    assert jnp.all(jnp.diff(t) >= 0)
    assert jnp.all(jnp.diff(remaining) < 0)
    assert jnp.all((t > 0) & (t <= 1) & (remaining > 0))


@pytest.mark.parametrize("beta", [beta for beta in BETAS if beta >= -5])
def test_float32_times_are_those_of_float64(beta):
    beta = np.float32(beta)
    single = times_and_ratios(jnp.array(beta), jnp.array(RATIOS, jnp.float32))
    double = times_and_ratios(jnp.array(float(beta)), jnp.array(RATIOS.astype(np.float32).astype(float)))
    for ours, exact in zip(single[:2], double[:2], strict=True):
        assert ours.dtype == jnp.float32
        np.testing.assert_allclose(ours, exact, rtol=5e-7)


@pytest.mark.parametrize("beta", [-9.0, 0.0, 1.0, 1e4])
@pytest.mark.parametrize(
    "grid",
    [uniform_grid(7), log_snr_grid(1), log_snr_grid(2), log_snr_grid(20), at_times(jnp.array([0.0, 0.1, 0.6, 1.0]))],
    ids=repr,
)
def test_grids_go_from_zero_to_one(grid, beta, dtype):
    reference = Harmonic(Green(jnp.array(beta, dtype)), jnp.zeros((), dtype))
    times = grid.times(reference, tuple(end.astype(dtype) for end in RANGE), ONE.astype(dtype), 1)
    tolerance = 4 * float(jnp.finfo(dtype).eps)
    assert times.step.dtype == dtype
    assert jnp.all(times.step > 0)
    np.testing.assert_allclose(jnp.sum(times.step), 1, rtol=tolerance)
    np.testing.assert_allclose(times.t + times.remaining, 1, rtol=tolerance)
    assert times.t[0] == 0
    assert times.remaining[-1] == 0


def test_the_gradient_in_beta_through_the_clock_is_finite():
    slope = jax.jit(jax.jacfwd(lambda beta: time_at_snr(Green(beta), jnp.array(RATIOS))))
    for beta in [-9.8, -1.0, 0.0, 1.0, 100.0]:
        assert all(jnp.isfinite(leaf).all() for leaf in slope(beta)), beta


@pytest.mark.parametrize("rule", [Moment(), Ancestral()], ids=repr)
@pytest.mark.slow
def test_the_clock(rule):
    """On one grid of ratios (x − n)/√s and log W are the same numbers for every stiffness."""
    target = GaussianMixture.isotropic(
        jnp.array([[-1.5, 0.0], [1.0, 0.5]]), jnp.array([0.2, 0.4]), jnp.array([0.3, 0.7])
    )

    @jax.jit
    def chain(beta, start):
        protocol = harmonic(beta, start=start, noise_scale=1.0)
        prepared = Problem(target, protocol).prepare(log_snr_grid(6, 0.2, 20.0))
        paths = rollout(prepared, rule, jax.random.key(3), jnp.arange(50), save_states=True)
        law = prepared.step_laws.observation
        inner = (
            paths.states[:, 1:-1]
            - jnp.broadcast_to(law.left[1:, None] * start[None], paths.states[:, 1:-1].shape[1:])[None]
        )
        return inner * law.whitening[1:][None, :, None], paths.samples, paths.log_weights

    reference = chain(0.0, jnp.zeros(2))
    for beta, start in [(-5.0, 0.0), (1.0, 0.0), (200.0, 0.0), (1.0, 0.8)]:
        for computed, expected in zip(chain(beta, jnp.full(2, start)), reference, strict=True):
            np.testing.assert_allclose(computed, expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(
    ("times", "message"),
    [([0.0, 0.5, 0.4, 1.0], "not increasing"), ([0.1, 1.0], "start at 0"), ([0.0], "at least two")],
)
def test_given_times_are_checked(times, message):
    with pytest.raises(ValueError, match=message):
        at_times(jnp.array(times))


def test_given_times_end_at_the_horizon():
    with pytest.raises(ValueError, match="end there"):
        at_times(jnp.array([0.0, 0.5])).times(Harmonic(Green(ONE), jnp.zeros(())), RANGE, ONE, 1)


@pytest.mark.parametrize("arguments", [(0,), (5, 2.0, 1.0), (5, -1.0, 1.0), (5, 0.1, jnp.inf)])
def test_log_snr_is_checked(arguments):
    with pytest.raises(ValueError, match=r"num_steps|low|high"):
        log_snr_grid(*arguments)
