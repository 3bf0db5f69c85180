"""E[W] = Z: whatever the rule, the number of steps, the control, the noise of the estimate, the stiffness, the units.

W has finite variance only if the last step's proposal has less than twice the precision of the tilted law's tails.
`Euler`'s last step has the precision 1/dt, and the tails p̃(y) exp(−|y − x|²/2 dt), p̃ Gaussian, have a larger one.
`Moment`'s last step has the tilted law's covariance, at least each component's if all components have one width.
So the mixture here has one width: with unequal ones W could have infinite variance.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_within, mean_and_error

from pidjax import (
    Ancestral,
    Controlled,
    Density,
    Euler,
    GaussianMixture,
    LocalDraws,
    Moment,
    Pool,
    Problem,
    Samples,
    Surrogate,
    backward_log_weights,
    harmonic,
    log_snr_grid,
    rollout,
    uniform_grid,
)
from pidjax.sampling.rules import EndingOnDraw

KEY = jax.random.key(11)
LOG_Z = 1.3
ORIGIN = jnp.zeros(2)


def mixture():
    return GaussianMixture.isotropic(jnp.array([[-1.0, 0.0], [1.0, 0.6]]), 0.4, jnp.array([0.35, 0.65]))


def density():
    """exp(1.3) times the mixture, as an unnormalised density."""
    return Density(lambda y: mixture().log_density(y) + LOG_Z, 2)


@eqx.filter_jit
def log_weights(target, protocol, grid, rule, key, count):
    prepared = Problem(target, protocol).prepare(grid)
    return rollout(prepared, rule, key, jnp.arange(count)).log_weights


def assert_unbiased(target, *, rule, log_z=0.0, beta=1.0, start=ORIGIN, grid=None, count=4000, **units):
    protocol = harmonic(jnp.array(beta), start=start, **({"noise_scale": 1.0} | units))
    weights = jnp.exp(
        log_weights(target, protocol, uniform_grid(5) if grid is None else grid, rule, KEY, count) - log_z
    )
    estimate, error = mean_and_error(weights)
    assert np.isfinite(error)
    assert_within(estimate, 1, max(error, 1e-13))


RULES = [Euler(), Moment(), Ancestral()]


@pytest.mark.parametrize("num_steps", [1, *(pytest.param(count, marks=pytest.mark.extended) for count in (2, 5)), 50])
@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_every_number_of_steps(rule, num_steps):
    target = (
        Surrogate(density(), GaussianMixture.isotropic(jnp.zeros((1, 2)), 2.0))
        if isinstance(rule, Ancestral)
        else mixture()
    )
    assert_unbiased(
        target, rule=rule, log_z=LOG_Z if isinstance(rule, Ancestral) else 0.0, grid=uniform_grid(num_steps)
    )


@pytest.mark.parametrize("beta", [-3.0, 0.0, 1.0, 30.0])
@pytest.mark.parametrize("rule", RULES[:2], ids=repr)
@pytest.mark.slow
def test_every_stiffness(rule, beta):
    """Uniform times at small β; at β = 30 the last steps would be too long for `Euler`, so log-SNR times."""
    assert_unbiased(mixture(), rule=rule, beta=beta, grid=uniform_grid(5) if beta < 10 else log_snr_grid(12, 0.1, 30.0))


@pytest.mark.parametrize("rule", RULES[:2], ids=repr)
def test_away_from_the_origin_in_other_units(rule):
    """Start, horizon 2, noise scale 1.7 and mass e^1.3: surrogate of the exact shape, so that only the units matter."""
    units = {"start": jnp.array([1.0, -0.5]), "horizon": 2.0, "noise_scale": 1.7, "beta": 0.3}
    assert_unbiased(Surrogate(density(), mixture()), rule=rule, log_z=LOG_Z, grid=log_snr_grid(8, 0.1, 30.0), **units)


@pytest.mark.parametrize(
    "rule",
    [Controlled(lambda t, x: 0.5 * jnp.sin(3 * x) - t), Euler(lambda t, x: 0.4 * jnp.cos(x))],
    ids=["given", "corrected"],
)
def test_a_wrong_control(rule):
    assert_unbiased(
        density() if isinstance(rule, Controlled) else mixture(), rule=rule, log_z=LOG_Z * isinstance(rule, Controlled)
    )


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES[:2], ids=repr)
@pytest.mark.parametrize("name", ["pool", "local", "local and pool", "flat and pool"])
def test_a_noisy_estimator(name, rule):
    """A pool of 40, and 20 fresh draws a step. `Moment` cannot end on a pool alone: its law narrows to a point."""
    if rule == Moment() and name == "pool":
        pytest.skip("W has infinite variance: the last step's covariance is that of a few points")
    wide = GaussianMixture.isotropic(jnp.zeros((1, 2)), 1.5)
    pool = Pool.draw(KEY, density(), wide, 40)
    target = {
        "pool": pool,
        "local": LocalDraws(density(), wide, 20),
        "local and pool": LocalDraws(density(), wide, 20, pool),
        "flat and pool": LocalDraws(density(), None, 20, pool),
    }[name]
    assert_unbiased(target, rule=rule, log_z=LOG_Z, grid=uniform_grid(5))


@pytest.mark.parametrize("num_steps", [1, pytest.param(2, marks=pytest.mark.extended), 5])
@pytest.mark.parametrize(
    "rule", [EndingOnDraw(Euler()), EndingOnDraw(Moment()), Ancestral()], ids=["euler", "moment", "ancestral"]
)
@pytest.mark.slow
def test_a_data_set(rule, num_steps):
    target = Samples(mixture().sample(KEY, 60))
    assert_unbiased(target, rule=rule, grid=uniform_grid(num_steps), start=jnp.array([0.3, 0.0]))


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES[:2], ids=repr)
def test_backward_weights(rule):
    """Over paths drawn backward from exact end points E[Z/W] = 1, and their E[W/Z] is E[(W/Z)²] of forward paths."""
    protocol, grid = harmonic(1.0, start=ORIGIN, noise_scale=1.0), log_snr_grid(6, 0.1, 30.0)
    prepared = Problem(mixture(), protocol).prepare(grid)
    backward = eqx.filter_jit(backward_log_weights)(prepared, rule, KEY, mixture().sample(jax.random.key(5), 6000))
    assert_within(*_with_truth(jnp.exp(-backward), 1))
    second_moment, error = mean_and_error(jnp.exp(backward))
    forward, forward_error = mean_and_error(jnp.exp(2 * log_weights(mixture(), protocol, grid, rule, KEY, 6000)))
    assert_within(second_moment, forward, np.hypot(error, forward_error))


def _with_truth(values, truth):
    estimate, error = mean_and_error(values)
    return estimate, truth, error


def test_float32():
    """Noise is other numbers in another dtype, so the mean is compared: E[W] = 1 in float32, on 50 steps."""
    target = GaussianMixture.isotropic(mixture().means.astype(jnp.float32), 0.4, mixture().weights.astype(jnp.float32))
    assert_unbiased(target, rule=Euler(), start=jnp.zeros(2, jnp.float32), grid=uniform_grid(50))
