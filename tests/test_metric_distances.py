"""Distances between two sets of points against brute force, scipy and closed forms; their floors."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from pidjax import metrics, zoo

KEY = jax.random.key(0)


def normal(key, n, d=2, shift=0.0):
    return shift + jax.random.normal(jax.random.key(key), (n, d))


@pytest.mark.parametrize(("n", "m"), [(50, 50), (37, 80), (1, 5)])
def test_kolmogorov_smirnov_is_that_of_scipy(n, m):
    rng = np.random.default_rng(n)
    for first, second in [
        (rng.normal(size=n), rng.normal(0.5, 2, size=m)),
        (rng.integers(0, 5, n).astype(float), rng.integers(0, 6, m).astype(float)),
    ]:
        expected = scipy.stats.ks_2samp(first, second).statistic
        assert float(metrics.kolmogorov_smirnov(first, second)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
@pytest.mark.extended
def test_weights_are_repeated_samples():
    """Integer weights give what repeating each sample that often gives, in every rank and transport metric."""
    samples, reference, counts = normal(4, 12), normal(5, 40, shift=0.4), np.arange(12) % 4
    repeated, log_weights = samples[np.repeat(np.arange(12), counts)], jnp.log(jnp.asarray(counts, samples.dtype))

    def log_density(x):
        return -jnp.sum(x**2)

    def pair(metric, **keywords):
        return [float(metric(samples, log_weights=log_weights, **keywords)), float(metric(repeated, **keywords))]

    for weighted, plain in [
        pair(metrics.energy_ks, reference=reference, log_density=log_density),
        pair(metrics.sliced_ks, reference=reference, key=KEY),
        pair(metrics.sinkhorn_divergence, reference=reference, epsilon=0.5),
        pair(lambda x, **keywords: metrics.cross_entropy(x, log_density, **keywords).value),
        pair(lambda x, **keywords: metrics.fraction_within(x, jnp.zeros((1, 2)), 0.5, **keywords).value),
    ]:
        assert weighted == pytest.approx(plain, abs=2e-3)


@pytest.mark.slow
def test_a_dead_sample_does_not_count():
    samples, reference = normal(6, 30), normal(7, 30)
    broken = jnp.concatenate([samples, jnp.full((1, 2), jnp.nan)])
    log_weights = jnp.append(jnp.zeros(30), -jnp.inf)
    for metric in (
        metrics.mmd_squared,
        lambda *arguments: metrics.sliced_ks(*arguments[:2], KEY, *arguments[2:]),
        lambda *arguments: metrics.energy_ks(*arguments[:2], lambda x: -jnp.sum(x**2), *arguments[2:]),
    ):
        assert float(metric(broken, reference, log_weights)) == pytest.approx(
            float(metric(samples, reference)), abs=1e-5
        )
    log_density = metrics.cross_entropy(broken, lambda x: -1 / jnp.sum(x**2), log_weights)
    assert jnp.isfinite(log_density.value)


def test_sliced_ks_in_one_dimension_is_ks():
    samples, reference = normal(8, 60, d=1), normal(9, 50, d=1, shift=0.7)
    expected = scipy.stats.ks_2samp(samples[:, 0], reference[:, 0]).statistic
    assert float(metrics.sliced_ks(samples, reference, KEY)) == pytest.approx(expected, abs=1e-6)


def test_mmd_is_the_double_sum_over_distinct_pairs():
    samples, reference = np.asarray(normal(10, 9)), np.asarray(normal(11, 7, shift=0.5))
    weights = np.arange(1.0, 10.0) / 45
    equal = np.full(7, 1 / 7)

    def kernel(x, y):
        return np.mean([np.exp(-np.sum((x - y) ** 2) / (2 * (c * 1.3) ** 2)) for c in (0.25, 0.5, 1, 2, 4)])

    def mean_of_distinct(x, w):
        pairs = list(itertools.permutations(range(len(x)), 2))
        return sum(w[i] * w[j] * kernel(x[i], x[j]) for i, j in pairs) / sum(w[i] * w[j] for i, j in pairs)

    between = sum(w * v * kernel(x, y) for x, w in zip(samples, weights) for y, v in zip(reference, equal))
    expected = mean_of_distinct(samples, weights) + mean_of_distinct(reference, equal) - 2 * between
    found = metrics.mmd_squared(samples, reference, np.log(weights), bandwidth=1.3, chunk_size=4)
    assert float(found) == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
def test_mmd_default_bandwidth_is_the_median_distance():
    samples, reference = normal(12, 30), normal(13, 41)
    bandwidth = np.median(scipy.spatial.distance.pdist(reference))
    given = metrics.mmd_squared(samples, reference, bandwidth=bandwidth)
    assert float(metrics.mmd_squared(samples, reference)) == pytest.approx(float(given), rel=1e-4)


def test_mmd_is_unbiased_between_equal_laws():
    floor = metrics.floor(
        lambda x, y: metrics.mmd_squared(x, y, bandwidth=1.0),
        lambda key, n: jax.random.normal(key, (n, 2)),
        KEY,
        40,
        200,
    )
    assert abs(float(floor.mean)) < 4 * float(floor.standard_deviation) / math.sqrt(200)


def test_mmd_between_gaussians_has_its_closed_form():
    """E exp(−|x−y|²/2h²) = (h²/(h²+2))^{d/2} exp(−|μ|²/2(h²+2)) for x, y of unit covariance, their means μ apart."""
    shift, h = 1.0, np.array([0.25, 0.5, 1, 2, 4])
    expected = np.mean(2 * h**2 / (h**2 + 2) * (1 - np.exp(-(shift**2) / (2 * (h**2 + 2)))))
    values = [
        float(metrics.mmd_squared(normal(2 * i, 100), normal(2 * i + 1, 100, shift=2**-0.5), bandwidth=1.0))
        for i in range(60)
    ]
    assert abs(np.mean(values) - expected) < 4 * np.std(values) / math.sqrt(60)


def test_wasserstein2_is_the_best_of_all_permutations():
    for key in range(5):
        x, y = np.asarray(normal(key, 6)), np.asarray(normal(key + 50, 6))
        best = min(np.mean(np.sum((x - y[list(order)]) ** 2, axis=1)) for order in itertools.permutations(range(6)))
        assert float(metrics.wasserstein2(x, y)) == pytest.approx(math.sqrt(best), rel=1e-6)


@pytest.mark.slow
def test_sinkhorn_divergence_of_a_set_with_itself_and_its_translate():
    x = normal(14, 60)
    assert float(metrics.sinkhorn_divergence(x, x, epsilon=0.5)) == pytest.approx(0, abs=1e-4)
    translated = x + jnp.array([[1.5, 0.0]])
    assert float(metrics.sinkhorn_divergence(x, translated, epsilon=0.5)) == pytest.approx(2.25, rel=5e-3)


@pytest.mark.slow
def test_sinkhorn_divergence_tends_to_squared_wasserstein2():
    x, y = normal(15, 60), normal(16, 60, shift=1.0)
    exact = float(metrics.wasserstein2(x, y)) ** 2
    errors = [abs(float(metrics.sinkhorn_divergence(x, y, epsilon=epsilon)) - exact) for epsilon in (1.0, 0.1, 0.01)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.01 * exact


@pytest.mark.slow
def test_sinkhorn_says_when_it_has_not_converged():
    with pytest.raises(RuntimeError, match="larger epsilon or max_iterations"):
        metrics.sinkhorn_divergence(normal(17, 50), normal(18, 50, shift=30.0), epsilon=1e-3, max_iterations=20)


# Floors


@pytest.mark.slow
def test_floor_is_reproducible_and_falls_with_the_size():
    known = zoo.nine()
    small, again, large = (
        metrics.floor(metrics.wasserstein2, known.sample, KEY, n, repeats=6) for n in (100, 100, 800)
    )
    assert float(small.mean) == float(again.mean)
    assert float(large.mean) < float(small.mean)


@pytest.mark.slow
def test_floor_of_gmm40_is_the_tabulated_one():
    floor = metrics.floor(metrics.wasserstein2, zoo.gmm40().sample, KEY, 1000)
    assert abs(float(floor.mean) - 4.4) < 4 * 1.1 / math.sqrt(10)
