"""Metrics of path weights and modes against closed forms; every metric compiled; every error."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pidjax import metrics, zoo

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


# Compilation


@pytest.mark.slow
@pytest.mark.parametrize(
    "dtype", [pytest.param(jnp.float32, marks=[pytest.mark.extended, pytest.mark.optimised]), jnp.float64]
)
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
            r"mode_weights has shape \(3,\); pass shape \(4,\)",
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
