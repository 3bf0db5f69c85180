"""Jacobians against automatic differentiation, class probabilities against Bayes' rule, distances against brute force."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers import assert_within
from test_diagnostics import BROWNIAN, GAUSSIAN, SPREAD, TIMES, gaussian_paths, rich_protocol, two_modes

import pidjax as pid
from pidjax import diagnostics, metrics

KEY = jax.random.key(1)


def cloud():
    return pid.Samples(jax.random.normal(jax.random.key(5), (40, 2)), jnp.arange(1.0, 41.0))


@pytest.mark.parametrize(
    ("target", "protocol"),
    [
        (two_modes(), pid.harmonic(3.0, noise_scale=0.7, horizon=2.0)),
        (two_modes(), pid.harmonic(jnp.array([4.0, 0.0]))),
        (cloud(), pid.harmonic(1.0)),
        pytest.param(two_modes(), rich_protocol(), marks=pytest.mark.slow),
    ],
    ids=["scalar", "rescaled diagonal", "data set", "matrix, force and gauge"],
)
def test_jacobians_by_automatic_differentiation(target, protocol):
    problem, times = pid.Problem(target, protocol), jnp.array([0.02, 0.5, 0.98]) * protocol.horizon
    points = jnp.array([[0.1, -0.2], [0.7, 0.3], [-0.9, 0.4]])

    def both(t, x):
        point = problem.at(t, x)
        closed = point.control_jacobian, point.weighted_state_jacobian
        derived = (
            jax.jacfwd(lambda x: problem.at(t, x).control)(x),
            jax.jacfwd(lambda x: problem.at(t, x).weighted_state)(x),
        )
        return closed, derived

    closed, derived = jax.jit(jax.vmap(both))(times, points)
    for one, other in zip(closed, derived, strict=True):
        assert jnp.allclose(one, other, rtol=1e-8, atol=1e-8)


@pytest.mark.slow
def test_jacobian_at_the_start_is_its_limit():
    target, protocol = two_modes(), pid.harmonic(1.0, noise_scale=1.0)
    at_start = pid.Problem(target, protocol).at(0.0, jnp.zeros(2)).control_jacobian
    soon = pid.Problem(target, protocol).at(1e-7, jnp.zeros(2)).control_jacobian
    assert jnp.allclose(at_start, soon, atol=1e-5)


def test_sensitivity_of_a_gaussian():
    """The control is slope · x: every path has the same Jacobian, slope · I."""
    found = diagnostics.sensitivity(GAUSSIAN, BROWNIAN, gaussian_paths())
    t = TIMES[:-1]
    slope = (SPREAD**2 - 1) / (1 - t + t * SPREAD**2)
    gain = SPREAD**2 / (1 - t + t * SPREAD**2)
    assert jnp.allclose(found.norm.value, np.abs(slope))
    assert jnp.allclose(found.frobenius_squared.value, 2 * slope**2)
    assert jnp.allclose(found.trace.value, 2 * slope)
    assert jnp.allclose(found.largest.value, slope)
    assert jnp.allclose(found.smallest.value, slope)
    assert jnp.allclose(found.radial.value[1:], slope[1:])
    assert jnp.allclose(found.radial_gain.value[1:], gain[1:])
    assert jnp.allclose(found.norm.standard_error, 0, atol=1e-8)


def three_modes():
    covariances = jnp.array([[[0.3, 0.1], [0.1, 0.2]], [[0.1, 0.0], [0.0, 0.5]], [[0.05, 0.0], [0.0, 0.05]]])
    return pid.GaussianMixture(
        jnp.array([[2.0, 0.5], [-2.0, 0.2], [0.0, 2.5]]), covariances, jnp.array([0.3, 0.5, 0.2])
    )


@functools.cache
def three_mode_paths():
    solution = pid.sample(
        KEY,
        three_modes(),
        protocol=pid.harmonic(2.0, noise_scale=1.0),
        num_samples=1500,
        grid=pid.uniform_grid(60),
        save_paths=True,
    )
    return solution, diagnostics.ensemble(solution)


def test_responsibilities_are_bayes_rule():
    target, y = three_modes(), np.array([0.4, 1.1])
    joint = [
        weight * scipy.stats.multivariate_normal.pdf(y, mean, covariance)
        for weight, mean, covariance in zip(target.weights, target.means, target.covariances, strict=True)
    ]
    assert jnp.allclose(diagnostics.responsibilities(target, jnp.asarray(y)), np.array(joint) / np.sum(joint))


@pytest.mark.slow
def test_class_probabilities_are_bayes_rule_and_a_martingale():
    """x_t = my + √s z with m = S(t)/S(1), s = S(t)S(1−t)/S(1): Bayes' rule for the seen components; E r = π at every t."""
    target, (_, paths) = three_modes(), three_mode_paths()
    found = diagnostics.class_probabilities(target, pid.harmonic(2.0, noise_scale=1.0), paths)
    k, t, root = 33, 33 / 60, np.sqrt(2.0)
    gain = np.sinh(root * t) / np.sinh(root)
    noise = np.sinh(root * t) * np.sinh(root * (1 - t)) / (root * np.sinh(root))
    joint = np.stack(
        [
            weight
            * scipy.stats.multivariate_normal.pdf(paths.states[:, k], gain * mean, gain**2 * cov + noise * np.eye(2))
            for weight, mean, cov in zip(target.weights, target.means, target.covariances, strict=True)
        ],
        axis=1,
    )
    assert jnp.allclose(found[:, k], joint / joint.sum(axis=1, keepdims=True), rtol=1e-6, atol=1e-12)
    mean = diagnostics.average(found, paths)
    assert_within(mean.value, np.broadcast_to(target.weights, mean.value.shape), mean.standard_error + 1e-12)


@pytest.mark.slow
def test_decisions():
    """From one half up: the risk falls from 1 − max π to the overlap, and is the error of the guess; the CDF rises to one."""
    target, (_, paths) = three_modes(), three_mode_paths()
    exact_probabilities = diagnostics.class_probabilities(target, pid.harmonic(2.0, noise_scale=1.0), paths)
    found = diagnostics.decisions(paths, exact_probabilities)
    assert found.risk.value[0] == pytest.approx(0.5)
    assert jnp.all(jnp.diff(found.decided.value) >= -1e-12)
    assert jnp.all(found.decided.value[paths.times < 0.5] == 0)
    assert found.decided.value[-1] == pytest.approx(1)
    assert found.accuracy.value[-1] == pytest.approx(1)
    # P(guess at t = true component) = 1 − risk exactly; the label at the end is the true component but for the overlap.
    error = np.hypot(found.accuracy.standard_error, found.risk.standard_error)
    overlap = found.risk.value[-1]
    assert jnp.all(jnp.abs(found.accuracy.value - 1 + found.risk.value) <= 4 * error + overlap)
    assert_within(found.mean_time.value, np.mean(found.times), 1e-9)
    predicted = diagnostics.decisions(paths, diagnostics.predicted_class_probabilities(target, paths))
    assert predicted.mean_time.value < found.mean_time.value, "the paper's probabilities are over-confident"


def test_who_never_decides_has_not_decided_at_the_end():
    paths = three_mode_paths()[1]
    even = jnp.full((*paths.states.shape[:2], 3), 1 / 3)
    found = diagnostics.decisions(paths, even)
    assert jnp.all(found.decided.value == 0)
    assert jnp.all(found.times == paths.times[-1])


def test_each_threshold_of_a_decision():
    times = jnp.linspace(0, 1, 11)

    def path(*tops):
        top = jnp.array(tops)[:, None]
        return jnp.concatenate([top, (1 - top) * 0.9, (1 - top) * 0.1], axis=1)

    sure = path(*[0.99] * 11)
    assert diagnostics.is_reliable(times, sure).tolist() == [False] * 5 + [True] * 6
    late = path(*[0.01] * 7, *[0.99] * 4)
    assert jnp.argmax(diagnostics.is_reliable(times, late)) == 8, "the label must have lasted a window"
    for field, value in (
        ("confidence", 0.995),
        ("margin", 0.985),
        ("entropy", 0.01),
        ("earliest", 1.0),
        ("window", 1.0),
    ):
        strict = diagnostics.Reliability()._replace(**{field: value})
        assert not diagnostics.is_reliable(times, sure, strict)[:-1].any(), field


@pytest.mark.slow
def test_early_exit():
    """At the start W2² is E|y − x₀|²; at the end both sets are exact draws, at the floor."""
    solution, _ = three_mode_paths()
    target = three_modes()
    found = diagnostics.early_exit(KEY, solution, target.sample, [0, 30, -1], num_points=400)
    square = jnp.sum(target.sample(jax.random.key(9), 4000) ** 2, axis=-1)
    truth, error = np.mean(square), np.std(square) * np.sqrt(1 / 4000 + 1 / 400)
    assert_within(found.state[0] ** 2, truth, error)
    from_mean = truth - float(jnp.sum(target.mean() ** 2))
    assert_within(found.weighted_state[0] ** 2, from_mean, error)
    assert found.state[-1] == found.weighted_state[-1]
    assert_within(found.state[-1], found.floor.mean, found.floor.standard_deviation)
    assert found.state[0] > found.state[1] > found.state[2]
    assert jnp.allclose(found.times, jnp.array([0.0, 0.5, 1.0]))


@pytest.mark.slow
def test_restricted_distance_is_that_of_the_points_inside():
    first, second = (jax.random.normal(key, (200, 2)) for key in jax.random.split(KEY))
    centre = jnp.array([0.5, 0.0])
    region = diagnostics.ball(centre, 1.0)
    kept = [np.asarray([x for x in points if np.sum((x - centre) ** 2) <= 1]) for points in (first, second)]
    count = min(map(len, kept))
    expected = metrics.wasserstein2(kept[0][:count], kept[1][:count])
    assert diagnostics.restricted_wasserstein2(first, second, region) == expected
    floor = metrics.floor(
        lambda x, y: diagnostics.restricted_wasserstein2(x, y, region),
        lambda key, n: jax.random.normal(key, (n, 2)),
        KEY,
        200,
    )
    assert_within(expected, floor.mean, floor.standard_deviation)


def test_a_tail_holds_its_mass():
    """For a Gaussian in the plane −log p is exponential: the tail of mass q is |x|² ≥ −2 log q."""
    exact = jax.random.normal(KEY, (20_000, 2))
    far = diagnostics.tail(lambda x: -0.5 * jnp.sum(x**2), exact, 0.1)
    fresh = jax.random.normal(jax.random.key(7), (20_000, 2))
    inside = jax.vmap(far)(fresh)
    assert_within(jnp.mean(inside), 0.1, np.sqrt(2 * 0.1 * 0.9 / 20_000))
    radius = jnp.min(jnp.where(inside, jnp.sum(fresh**2, axis=-1), jnp.inf))
    # The quantile of the tail's edge: sd of q over the density of |x|²/2 there, doubled for |x|².
    assert_within(radius, -2 * np.log(0.1), 2 * np.sqrt(0.9 / 0.1 / 20_000) + 2 / 2000)
