"""The reference of the Path Integral Sampler: Brownian motion, wide enough at its end to cover the target."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from .._checks import as_floating
from ..protocol import Protocol
from ..schedule import harmonic
from ..surrogate.energy import Energy
from ..surrogate.tempered import probe
from ..targets.base import Target
from ..targets.density import Density


def brownian(
    key: Key[Array, ""],
    target: Target,
    *,
    scale: float | Float[Array, ""] | None = None,
    start: Float[Array, " d"] | None = None,
    horizon: float | Float[Array, ""] = 1.0,
) -> Protocol:
    """dx = u dt + σ dW on [0, T], β = 0, with σ√T = `scale`: uncontrolled it ends on N(start, scale² I).

    Args:
        key: of the probe.
        target: what the reference is to cover.
        scale: by default the target's standard deviation, √(tr Cov/d); where only its log-density is known, that is
            probed at 4,096 points, decade by decade, for the mean radius over √d.
        start: by default the target's mean, and the origin where only its log-density is known.
        horizon: T; with `scale` given it sets no more than the unit of time.

    Raises:
        ValueError: a scale or horizon that is not positive, a start of another dimension than the target.

    Example:
        >>> import jax
        >>> target = Density(lambda y: -0.5 * jnp.sum((y / 30) ** 2), 2)
        >>> 10 < float(brownian(jax.random.key(0), target).noise_scale) < 90
        True

    Source: Zhang & Chen, *Path Integral Sampler*, arXiv 2111.15141, whose T and σ are set by hand.
    """
    mean, spread = target.location()
    if isinstance(target, Density):
        mean = jnp.zeros_like(mean)
        if scale is None:
            spread, _ = eqx.filter_jit(probe)(
                key, Energy(target.log_density, mean, jnp.eye(mean.size, dtype=mean.dtype))
            )
    start = mean if start is None else start
    scale = spread if scale is None else as_floating("scale", scale)
    if start.shape != mean.shape:
        raise ValueError(
            f"start has shape {start.shape} but the target has dimension {mean.size}; pass shape ({mean.size},)"
        )
    if not scale > 0:
        raise ValueError(f"scale is {float(scale):g}; pass a number > 0")
    return harmonic(beta=0.0, start=start, horizon=horizon, noise_scale=scale / jnp.sqrt(jnp.asarray(horizon)))
