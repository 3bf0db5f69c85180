"""Every target under every kind of map, from every start, by every rule: each law against quadrature, each weight against Z.

    laws      target × (scalar, diagonal, matrix) × (point, Gaussian): log-mass, mean and covariance of the tilted law
    weights   target × rule × (scalar, diagonal, matrix) × (point, Gaussian): E[W] = Z

The default set holds every target under every kind of map, the start and the precision by turns, and of the weights a
covering set, in which every pair that is allowed occurs but for some of a target and a rule; the rest is `extended`.
"""

import itertools
import re
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_within, grid_quadrature, mean_and_error

import pidjax as pid
from pidjax.process.bridge import observe
from pidjax.sampling.rules import EndingOnDraw

KEY = jax.random.key(23)
LOG_Z = 0.7
MEANS = np.array([[-0.8, 0.1], [0.9, 0.7], [0.2, -0.9]])
SHARES = np.array([0.2, 0.5, 0.3])
VARIANCE = 0.4


def mixture(dtype):
    return pid.GaussianMixture.isotropic(jnp.array(MEANS, dtype), VARIANCE, jnp.array(SHARES, dtype))


class Heaped(eqx.Module):
    """e^0.7 times the mixture, as a log-density."""

    mixture: pid.GaussianMixture

    def __call__(self, y):
        return self.mixture.log_density(y) + LOG_Z


def density(dtype):
    return pid.Density(Heaped(mixture(dtype)), 2, dtype=dtype)


def wide(dtype):
    return pid.GaussianMixture(jnp.array([[0.1, 0.2]], dtype), jnp.array([[[1.3, 0.2], [0.2, 1.1]]], dtype))


def points(dtype):
    rng = np.random.default_rng(5)
    return pid.Samples(jnp.array(rng.normal(size=(40, 2)) ** 3 / 3, dtype), jnp.array(rng.uniform(0.1, 1, 40), dtype))


def shown(name):
    """A class that the documentation defines."""
    text = (Path(__file__).parents[1] / "docs" / "own.md").read_text()
    (block,) = (code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if f"class {name}(" in code)
    names = {"jax": jax, "jnp": jnp}
    exec(block.partition("\n\n\nsolution = ")[0], names)
    return names[name]


Normal, Wide = shown("Normal"), shown("Wide")
EXACT = {
    "mixture": mixture,
    "own": lambda dtype: Normal(jnp.array([0.5, -0.3], dtype)),
    "samples": points,
    "surrogate": lambda dtype: pid.Surrogate(density(dtype), wide(dtype)),
}
ESTIMATED = {
    "pool": lambda dtype: pid.Pool.draw(KEY, density(dtype), wide(dtype), 60),
    "local": lambda dtype: pid.LocalDraws(density(dtype), wide(dtype), 16),
    "both": lambda dtype: pid.LocalDraws(
        density(dtype), wide(dtype), 16, pid.Pool.draw(KEY, density(dtype), wide(dtype), 60)
    ),
}
TARGETS = EXACT | ESTIMATED | {"density": density}
BETA = {"scalar": 1.5, "diagonal": np.array([0.5, 3.0]), "matrix": np.array([[2.0, 0.8], [0.8, 1.0]])}
STARTS = {
    "point": lambda dtype: jnp.array([0.3, -0.2], dtype),
    "gaussian": lambda dtype: pid.GaussianStart(
        jnp.array([0.3, -0.2], dtype), jnp.array([[0.3, 0.1], [0.1, 0.2]], dtype)
    ),
}
RULES = {
    "euler": pid.Euler(),
    "corrected": pid.Euler(lambda t, x: 0.3 * jnp.sin(x[::-1])),
    "moment": pid.Moment(),
    "ancestral": pid.Ancestral(),
    "own": Wide(),
    "controlled": pid.Controlled(lambda t, x: -0.5 * x + t),
}


def protocol(kind, start, dtype):
    return pid.harmonic(jnp.array(BETA[kind], dtype), start=STARTS[start](dtype), noise_scale=jnp.ones((), dtype))


def moments(points, log_weights):
    """log Σ e^w, and the mean and covariance under these weights."""
    peak = log_weights.max()
    weights = np.exp(log_weights - peak)
    total = weights.sum()
    mean = weights @ points / total
    return np.log(total) + peak, mean, (weights[:, None] * (points - mean)).T @ (points - mean) / total


def tilted_by_sums(name, observation):
    """The tilted law of the mixture, or of the wide one, by quadrature, and of the data set by its sum: in NumPy."""
    gain, value = (np.asarray(part, float) for part in observation)
    gain = gain if gain.ndim == 2 else np.diag(np.broadcast_to(gain, (2,)))
    if name == "samples":
        data = points(jnp.float64)
        y, log_p = np.asarray(data.points), np.log(np.asarray(data.weights))
    else:
        y, cell = grid_quadrature(-7.0, 7.0, 281, 2)
        law = {"surrogate": wide, "own": EXACT["own"]}.get(name, mixture)(jnp.float64)
        log_p = np.asarray(jax.vmap(law.log_density)(jnp.asarray(y))) + np.log(cell)
    return moments(y, log_p - 0.5 * np.sum((value - y @ gain.T) ** 2, axis=1))


@eqx.filter_jit
def law_at(target, protocol, x):
    """The tilted law at (0.4, x), and the observation that it answers."""
    prepared = pid.Problem(target, protocol).prepare(pid.at_times(jnp.array([0.0, 0.4, 1.0], x.dtype)))
    now = jax.tree.map(lambda leaf: leaf[1], prepared.step_laws)
    observation = observe(now.observation, x, prepared.unit.start)
    law = prepared.target.tilt(observation, KEY)
    return observation, law.log_mass, law.mean, law.covariance()


def laws():
    """Double precision for each target and map, single for one map of each target: from one start or the other."""
    for (i, name), (j, kind) in itertools.product(enumerate(EXACT), enumerate(BETA)):
        for start, dtype in itertools.product(STARTS, ("float64", "float32")):
            by_turns = list(STARTS)[(i + j + (dtype == "float32")) % 2]
            slow = pytest.mark.slow if start == "gaussian" else []
            if dtype == "float64" or (i + j) % 3 == 0:
                yield pytest.param(name, kind, start, dtype, marks=slow if start == by_turns else pytest.mark.extended)


@pytest.mark.parametrize(("name", "kind", "start", "dtype"), list(laws()))
def test_laws_against_quadrature(name, kind, start, dtype):
    dtype = jnp.dtype(dtype)
    x = jnp.array([0.2, 0.5], dtype)
    observation, *found = law_at(EXACT[name](dtype), protocol(kind, start, dtype), x)
    expected = tilted_by_sums(name, observation)
    tolerance = 1e-9 if dtype == jnp.float64 else 2e-5
    for value, truth in zip(found, expected, strict=True):
        assert value.dtype == dtype
        np.testing.assert_allclose(value, truth, rtol=tolerance, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("kind", BETA)
@pytest.mark.parametrize("name", ["pool", "local"])
def test_estimated_laws_are_unbiased(name, kind):
    """The mean of e^(log-mass), over 400 pools or sets of draws, is the mass by quadrature."""
    prepared = pid.Problem(mixture(jnp.float64), protocol(kind, "point", jnp.float64)).prepare(
        pid.at_times(jnp.array([0.0, 0.4, 1.0]))
    )
    now = jax.tree.map(lambda leaf: leaf[1], prepared.step_laws)
    observation = observe(now.observation, jnp.array([0.2, 0.5]), prepared.unit.start)

    @jax.jit
    @jax.vmap
    def log_mass(key):
        if name == "pool":
            return pid.Pool.draw(key, density(jnp.float64), wide(jnp.float64), 60).tilt(observation).log_mass
        return ESTIMATED["local"](jnp.float64).tilt(observation, key).log_mass

    truth, _, _ = tilted_by_sums("mixture", observation)
    estimate, error = mean_and_error(jnp.exp(log_mass(jax.random.split(KEY, 400))))
    assert_within(estimate, np.exp(truth + LOG_Z), error)


def allowed(name, rule):
    """A bare density has no tilts, an estimate no exact draws, and a pool narrows to a point under `Moment`."""
    if name == "density":
        return rule == "controlled"
    if name in ESTIMATED:
        return rule != "ancestral" and not (name == "pool" and rule == "moment")
    return True


PRODUCT = [
    (name, rule, kind, start, dtype)
    for name, rule, kind, start, dtype in itertools.product(TARGETS, RULES, BETA, STARTS, ("float64", "float32"))
    if allowed(name, rule)
]


def covering(product):
    """A greedy choice in which every pair of values of different factors occurs.

    But for targets with rules, which not all go together, and with maps, which `laws` has.
    """
    columns = [pair for pair in itertools.combinations(range(len(product[0])), 2) if pair not in ((0, 1), (0, 2))]
    pairs = lambda case: {(i, j, case[i], case[j]) for i, j in columns}  # noqa: E731
    wanted, chosen = set().union(*map(pairs, product)), []
    while wanted:
        best = max(product, key=lambda case: len(pairs(case) & wanted))
        chosen.append(best)
        wanted -= pairs(best)
    return chosen


COVERING = covering(PRODUCT)
CASES = [
    pytest.param(*case, marks=[pytest.mark.slow] if case in COVERING else [pytest.mark.extended]) for case in PRODUCT
]


@eqx.filter_jit
def log_weights(target, protocol, rule, count):
    grid = pid.log_snr_grid(6, 0.3, 12.0)
    return pid.rollout(pid.Problem(target, protocol).prepare(grid), rule, KEY, jnp.arange(count)).log_weights


@pytest.mark.parametrize(("name", "rule", "kind", "start", "dtype"), CASES)
def test_weights_are_unbiased(name, rule, kind, start, dtype):
    """E[W] = Z within four standard errors, over 3,000 paths."""
    dtype = jnp.dtype(dtype)
    step = RULES[rule]
    if name == "samples" and rule != "ancestral":
        step = EndingOnDraw(step)
    found = log_weights(TARGETS[name](dtype), protocol(kind, start, dtype), step, 3000)
    assert found.dtype == dtype
    log_z = 0.0 if name in ("mixture", "samples", "own") else LOG_Z
    estimate, error = mean_and_error(jnp.exp(found - log_z))
    assert np.isfinite(error)
    assert_within(estimate, 1, max(error, 1e-13 if dtype == jnp.float64 else 1e-5))
