"""What a user sees with untouched defaults, from the energy alone, place and scale unknown, in float32."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pidjax as pid
from pidjax import metrics, zoo

pytestmark = [pytest.mark.slow, pytest.mark.extended, pytest.mark.optimised]


def moved(known, shift, scale):
    """The log-density of shift + scale y."""

    def log_density(x):
        return known.log_density((x - shift) / scale) - known.dim * math.log(scale)

    return pid.Density(log_density, known.dim, dtype=jnp.float32)


@pytest.mark.parametrize("name", ["nine", "grid25", "gmm40"])
@pytest.mark.parametrize(("shift", "scale"), [(0, 1), (0, 1e-3), (0, 1e3), (1000, 1)])
def test_mixtures_from_the_energy_alone(name, shift, scale):
    """Five seeds: |Δ log Z| ≤ 0.01 + 3 s.e., ESS/N and forward ESS/N ≥ 0.9, mode weights within 4 sd of the floor.

    At 3 sd one in some ten runs of these sixty checks would fail by chance.
    """
    known = getattr(zoo, name)(dtype=jnp.float32)
    density = moved(known, shift, scale)

    def variation(samples, log_weights=None):
        return metrics.mode_total_variation(samples, known.responsibilities, known.mode_weights, log_weights)

    floor = [variation(known.sample(jax.random.key(100 + i), 4096)) for i in range(20)]
    exact = shift + scale * known.sample(jax.random.key(99), 4096)
    for seed in range(5):
        solution = pid.sample(jax.random.key(seed), density)
        assert abs(solution.log_z.value) <= 0.01 + 3 * solution.log_z.standard_error
        assert solution.ess >= 0.9 * solution.num_samples
        assert solution.forward_ess(jax.random.key(98), exact, 0.0) >= 0.9
        share = variation((solution.samples - shift) / scale, solution.log_weights)
        assert share <= np.mean(floor) + 4 * np.std(floor, ddof=1)


def test_funnel_from_the_energy_alone():
    """Five seeds: |Δ log Z| ≤ 0.03 + 3 s.e., its median ≤ 0.03. The neck, which no path reaches, is not in the ESS."""
    known = zoo.funnel(3.0, dtype=jnp.float32)
    density = moved(known, 0, 1)
    errors = []
    for seed in range(5):
        solution = pid.sample(jax.random.key(seed), density)
        errors.append(abs(float(solution.log_z.value)))
        assert errors[-1] <= 0.03 + 3 * solution.log_z.standard_error
    assert np.median(errors) <= 0.03
