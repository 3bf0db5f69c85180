"""Metrics against brute force, scipy and closed forms; their floors; their errors."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from pidjax import metrics, zoo

pytestmark = pytest.mark.optimised

KEY = jax.random.key(0)


def normal(key, n, d=2, shift=0.0):
    return shift + jax.random.normal(jax.random.key(key), (n, d))


# Path weights


def gaussian_log_weights(key, n, from_target, mean=0.7, log_z=1.3):
    """log W for p̃ = e^{log Z} N(0, 1), q = N(mean, 1), at draws from p or q: KL = mean²/2, ESS/N = exp(−mean²)."""
    x = jax.random.normal(jax.random.key(key), (n,)) + (0.0 if from_target else mean)
    return log_z - x**2 / 2 + (x - mean) ** 2 / 2


def test_reverse_and_forward_weights_of_two_gaussians():
    reverse, forward = (gaussian_log_weights(key, 40_000, key == 1) for key in range(2))
    for estimate, truth in [
        (metrics.log_z_error(reverse, truth=1.3), 0.0),
        (metrics.elbo(reverse), 1.3 - 0.245),
        (metrics.eubo(forward), 1.3 + 0.245),
    ]:
        assert abs(float(estimate.value) - truth) < 4 * float(estimate.standard_error)
    fraction = math.exp(-0.49)
    assert float(metrics.ess(reverse)) / 40_000 == pytest.approx(fraction, rel=0.04)
    assert float(metrics.forward_ess(forward)) / 40_000 == pytest.approx(fraction, rel=0.04)


def test_standard_error_of_log_z_is_the_spread_over_repeats():
    repeats = [metrics.log_z_error(gaussian_log_weights(key, 500, False)) for key in range(200)]
    spread = np.std([float(one.value) for one in repeats])
    stated = np.mean([float(one.standard_error) for one in repeats])
    assert abs(spread / stated - 1) < 4 / math.sqrt(2 * 200)


def test_ess_of_equal_one_and_dead_weights():
    assert float(metrics.ess(jnp.full(7, -900.0))) == pytest.approx(7)
    assert float(metrics.ess(jnp.array([0.0, -jnp.inf, 0.0]))) == pytest.approx(2)
    assert float(metrics.ess(jnp.array([1000.0, 0.0]))) == pytest.approx(1)
    assert float(metrics.log_z_error(jnp.zeros(5)).standard_error) == 0
    assert float(metrics.elbo(jnp.array([0.0, -jnp.inf])).value) == -math.inf


def test_forward_ess_sees_a_missed_mode():
    """Half the exact samples lie where the sampler has e^{−50} of the density it should; its own weights are equal."""
    assert float(metrics.ess(jnp.zeros(100))) == pytest.approx(100)
    assert float(metrics.forward_ess(jnp.tile(jnp.array([0.0, 50.0]), 50))) < 1e-15
    assert float(metrics.forward_ess(jnp.array([0.0, jnp.inf]))) == 0


# Modes


def test_mode_total_variation_simple_cases():
    centres = jnp.array([[-5.0, 0.0], [5.0, 0.0]])
    assignment = metrics.nearest(centres)
    left = normal(1, 10, shift=jnp.array([[-5.0, 0.0]]))
    half = jnp.array([0.5, 0.5])
    assert float(metrics.mode_total_variation(left, assignment, half)) == pytest.approx(0.5)
    assert float(metrics.mode_total_variation(left, assignment, jnp.array([0.0, 1.0]))) == pytest.approx(1.0)
    both = jnp.concatenate([left, -left])
    assert float(metrics.mode_total_variation(both, assignment, half)) == pytest.approx(0.0, abs=1e-6)
    log_weights = jnp.log(jnp.repeat(jnp.array([1.0, 3.0]), 10))
    np.testing.assert_allclose(metrics.mode_shares(both, assignment, log_weights), [0.25, 0.75], rtol=1e-6)


@pytest.mark.slow
def test_importance_weights_repair_mode_shares():
    """Draws of the equal mixture, weighted to .2/.8, against both definitions of a mode."""
    known, samples = zoo.nine(), zoo.nine().sample(KEY, 4000)
    truth = jnp.arange(1.0, 10.0, dtype=samples.dtype) / 45
    log_weights = jnp.log(jax.vmap(known.responsibilities)(samples) @ truth)
    for assignment in (known.responsibilities, metrics.nearest(known.centres)):
        assert float(metrics.mode_total_variation(samples, assignment, truth, log_weights)) < 0.03
        assert float(metrics.mode_total_variation(samples, assignment, truth)) > 0.15


def test_fraction_within_uses_the_width_of_each_mode():
    centres, widths = jnp.array([[0.0, 0.0], [10.0, 0.0]]), jnp.array([1.0, 0.1])
    points = jnp.array([[2.9, 0.0], [3.1, 0.0], [10.29, 0.0], [10.31, 0.0]])
    assert float(metrics.fraction_within(points, centres, widths).value) == pytest.approx(0.5)
    assert float(metrics.fraction_within(points, centres, 1.0).value) == pytest.approx(0.75)
    assert float(metrics.fraction_within(points, centres, widths, radius=4.0).value) == pytest.approx(1.0)


def test_weighted_cross_entropy_is_the_importance_sampling_estimate():
    """Draws from N(1, I) weighted to N(0, I), whose entropy is log 2πe."""
    samples = normal(3, 20_000, shift=1.0)
    log_weights = 1 - jnp.sum(samples, axis=1)
    estimate = metrics.cross_entropy(samples, lambda x: -jnp.sum(x**2) / 2 - math.log(2 * math.pi), log_weights)
    assert abs(float(estimate.value) - math.log(2 * math.pi * math.e)) < 4 * float(estimate.standard_error)


# Distances


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


def test_sinkhorn_divergence_of_a_set_with_itself_and_its_translate():
    x = normal(14, 60)
    assert float(metrics.sinkhorn_divergence(x, x, epsilon=0.5)) == pytest.approx(0, abs=1e-4)
    translated = x + jnp.array([[1.5, 0.0]])
    assert float(metrics.sinkhorn_divergence(x, translated, epsilon=0.5)) == pytest.approx(2.25, rel=5e-3)


def test_sinkhorn_divergence_tends_to_squared_wasserstein2():
    x, y = normal(15, 60), normal(16, 60, shift=1.0)
    exact = float(metrics.wasserstein2(x, y)) ** 2
    errors = [abs(float(metrics.sinkhorn_divergence(x, y, epsilon=epsilon)) - exact) for epsilon in (1.0, 0.1, 0.01)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.01 * exact


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


# Compilation


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_compiled_metrics_equal_the_plain_ones_and_keep_the_dtype(dtype):
    samples, reference = (normal(key, 50).astype(dtype) for key in (19, 20))
    log_weights, centres = samples[:, 0], jnp.zeros((1, 2), dtype)
    calls = [
        lambda x, w: metrics.mmd_squared(x, reference, w),
        lambda x, w: metrics.sliced_ks(x, reference, KEY, w, num_projections=8),
        lambda x, w: metrics.energy_ks(x, reference, lambda y: -jnp.sum(y**2), w),
        lambda x, w: metrics.kolmogorov_smirnov(x[:, 0], reference[:, 0], w),
        lambda x, w: metrics.mode_total_variation(x, metrics.nearest(centres), jnp.ones(1, dtype), w),
        lambda x, w: metrics.fraction_within(x, centres, 1.0, w).value,
        lambda x, w: metrics.cross_entropy(x, lambda y: -jnp.sum(y**2), w).standard_error,
        lambda x, w: metrics.log_z_error(w, 0.5).standard_error,
        lambda x, w: metrics.ess(w) + metrics.forward_ess(w) + metrics.elbo(w).value + metrics.eubo(w).value,
    ]
    for call in calls:
        plain, compiled = call(samples, log_weights), jax.jit(call)(samples, log_weights)
        assert plain.dtype == compiled.dtype == dtype
        np.testing.assert_allclose(plain, compiled, rtol=1e-4, atol=1e-6)
        if dtype == jnp.float64:
            batched = jax.vmap(call)(samples[None], log_weights[None])
            np.testing.assert_allclose(plain, batched[0], rtol=1e-4, atol=1e-6)
    assert metrics.wasserstein2(samples, reference).dtype == dtype


# Errors

GOOD = np.zeros((4, 2)) + np.arange(4.0)[:, None]
TWO_SAMPLE_METRICS = {
    "mmd_squared": metrics.mmd_squared,
    "sliced_ks": lambda x, y: metrics.sliced_ks(x, y, KEY),
    "energy_ks": lambda x, y: metrics.energy_ks(x, y, lambda z: -jnp.sum(z**2)),
    "wasserstein2": metrics.wasserstein2,
    "sinkhorn_divergence": lambda x, y: metrics.sinkhorn_divergence(x, y, epsilon=1.0),
}


@pytest.mark.parametrize("name", TWO_SAMPLE_METRICS)
@pytest.mark.parametrize(
    ("samples", "reference", "message"),
    [
        (GOOD[:, 0], GOOD, r"samples has shape \(4,\)"),
        (GOOD[:0], GOOD, r"samples has shape \(0, 2\)"),
        (GOOD, GOOD[:0], r"reference has shape \(0, 2\)"),
        (GOOD, GOOD[:, :1], "samples has dimension 2 but reference has dimension 1"),
        (np.where(GOOD > 2, np.nan, GOOD), GOOD, "samples holds 2 non-finite values"),
        (GOOD, np.where(GOOD > 2, np.inf, GOOD), "reference holds 2 non-finite values"),
    ],
)
def test_two_sample_errors(name, samples, reference, message):
    with pytest.raises(ValueError, match=message):
        TWO_SAMPLE_METRICS[name](samples, reference)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.wasserstein2(GOOD, GOOD[:3]), "4 points but reference has 3; pass equal sizes"),
        (lambda: metrics.mmd_squared(GOOD[:1], GOOD), "samples has 1 points"),
        (lambda: metrics.sinkhorn_divergence(GOOD, GOOD, epsilon=0.0), "epsilon is 0"),
        (lambda: metrics.mmd_squared(GOOD, GOOD, np.zeros(3)), r"log_weights has shape \(3,\) but there are 4 samples"),
        (lambda: metrics.ess(np.zeros((2, 2))), r"log_weights has shape \(2, 2\)"),
        (lambda: metrics.ess(np.zeros(0)), r"log_weights has shape \(0,\)"),
        (lambda: metrics.ess(np.array([0.0, np.nan])), "log_weights holds 1 non-finite"),
        (lambda: metrics.ess(np.array([0.0, np.inf])), "log_weights holds 1 non-finite"),
        (lambda: metrics.eubo(np.array([0.0, -np.inf])), "log_weights holds 1 non-finite"),
        (lambda: metrics.ess(np.full(3, -np.inf)), "log_weights are all -inf"),
        (lambda: metrics.kolmogorov_smirnov(GOOD, GOOD[:, 0]), r"values has shape \(4, 2\)"),
        (lambda: metrics.fraction_within(GOOD, GOOD[:, :1], 1.0), r"centres has shape \(4, 1\)"),
        (lambda: metrics.fraction_within(GOOD, GOOD, np.ones(3)), r"standard_deviations has shape \(3,\)"),
        (
            lambda: metrics.mode_total_variation(GOOD, metrics.nearest(GOOD), np.ones(3) / 3),
            r"mode_weights has shape \(3,\) but the assignment has shape \(4,\)",
        ),
        (lambda: metrics.floor(metrics.wasserstein2, zoo.nine().sample, KEY, 5, repeats=1), "repeats is 1"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(("name", "package"), [("wasserstein2", "scipy"), ("sinkhorn_divergence", "ott-jax")])
def test_a_missing_extra_is_named(monkeypatch, name, package):
    def missing(module, *arguments):
        raise ImportError(module)

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(ImportError, match=rf"{name} needs {package}; install it with pip install pidjax\[metrics\]"):
        TWO_SAMPLE_METRICS[name](GOOD, GOOD)


def test_importing_the_metrics_does_not_import_the_extras():
    import subprocess
    import sys

    code = "import sys, pidjax.metrics; sys.exit(any(name in sys.modules for name in ('ott', 'scipy.optimize')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
