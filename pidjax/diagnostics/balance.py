"""The drift against the noise, and against the drift of a Langevin process.

With v = f + u* the drift of the unit problem dx = v dt + dW, and x from the start,

    strength    ( E|v|²/d )^½
    growth      2 E[x·v]/d,          so that  d/dt E|x|² = d (1 + growth)
    alignment   E[ x·v / |x||v| ]

and with b = ½ ∇log p, under which the target is stationary,

    mismatch    E[ |v−b| / (|v|+|b|) ]   in [0, 1]
    cosine      E[ v·b / |v||b| ]
    ratio       E[ |v| / |b| ]

A ratio whose denominator is zero counts as zero.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..metrics import Estimate
from .average import average
from .ensemble import Ensemble, along_paths, check_paths


class DriftDiffusion(NamedTuple):
    """What `drift_diffusion` returns; each of shape (K+1,)."""

    strength: Estimate
    growth: Estimate
    alignment: Estimate


class LangevinMismatch(NamedTuple):
    """What `langevin_mismatch` returns; each of shape (K+1,)."""

    mismatch: Estimate
    cosine: Estimate
    ratio: Estimate


def drift_diffusion(paths: Ensemble) -> DriftDiffusion:
    """Strength, growth and alignment of the drift at each time, in the unit problem.

    Example:
        >>> import jax, pidjax as pid
        >>> from pidjax.diagnostics import ensemble
        >>> target = pid.GaussianMixture(jnp.zeros((1, 1)), jnp.ones((1, 1, 1)))
        >>> brownian = pid.harmonic(0.0, noise_scale=1.0)
        >>> solution = pid.sample(jax.random.key(0), target, protocol=brownian, num_samples=9, save_paths=True)
        >>> bool(jnp.all(jnp.abs(drift_diffusion(ensemble(solution)).strength.value) < 1e-4))
        True

    Source: Chertkov & Behjoo, *AdaPID*, arXiv 2512.11858.
    """
    check_paths(paths)
    unit, d = paths.unit, paths.dim
    x = unit.to_unit(paths.states) - unit.start[None, None]
    v = paths.drifts * unit.horizon / unit.scale
    inner, square = jnp.sum(x * v, axis=-1), jnp.sum(v**2, axis=-1)
    return DriftDiffusion(
        strength=average(square, paths, lambda mean: _root(mean / d)),
        growth=average(2 * inner / d, paths),
        alignment=average(_divided(inner, _length(x) * _length(v)), paths),
    )


def langevin_mismatch(
    paths: Ensemble, log_density: Callable[[Float[Array, " d"]], Float[Array, ""]]
) -> LangevinMismatch:
    """Mismatch, cosine and ratio of the drift and the Langevin drift b = ½σ²∇log p at each time.

    Args:
        paths: from `ensemble`.
        log_density: log p, up to a constant.

    Source: Chertkov & Behjoo, *AdaPID*, arXiv 2512.11858.
    """
    check_paths(paths)
    v = paths.drifts
    b = 0.5 * paths.noise_scale**2 * along_paths(log_density, paths, paths.states, of=jax.grad)
    inner = jnp.sum(v * b, axis=-1)
    return LangevinMismatch(
        mismatch=average(_divided(_length(v - b), _length(v) + _length(b)), paths),
        cosine=average(_divided(inner, _length(v) * _length(b)), paths),
        ratio=average(_divided(_length(v), _length(b)), paths),
    )


def _length(vectors: Float[Array, "*batch d"]) -> Float[Array, "*batch"]:
    return jnp.linalg.norm(vectors, axis=-1)


def _divided(numerator, denominator):
    return jnp.where(denominator == 0, 0, numerator / jnp.where(denominator == 0, 1, denominator))


def _root(value):
    """√value, with the derivative 0 at 0."""
    return jnp.where(value > 0, jnp.sqrt(jnp.where(value > 0, value, 1)), 0)
