"""The reference of the Path Integral Sampler: Brownian motion, wide enough at its end to cover the target."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from .._doors.checks import as_floating, as_positive, check_key, check_kind, concrete
from ..process.protocol import Protocol
from ..process.schedule import harmonic
from ..targets.base import AbstractTarget
from ..targets.density import Density
from ..targets.fitting.energy import Energy
from ..targets.fitting.tempered import probe


def brownian(
    key: Key[Array, ""],
    target: AbstractTarget,
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
        ValueError: a scale or horizon that is not positive, a start of another dimension than the target, a log-density
            that is finite nowhere.

    Example:
        >>> import jax
        >>> target = Density(lambda y: -0.5 * jnp.sum((y / 30) ** 2), 2)
        >>> 10 < float(brownian(jax.random.key(0), target).noise_scale) < 90
        True

    Source: Zhang & Chen, *Path Integral Sampler*, arXiv 2111.15141, whose T and σ are set by hand.
    """
    check_key("key", key)
    check_kind("target", target, AbstractTarget, "a target: the order is (key, target)")
    horizon = as_positive("horizon", horizon)
    mean, spread = target.place()[:2]
    if isinstance(target, Density):
        mean = jnp.zeros_like(mean)
        if scale is None:
            energy = Energy(target.log_density, mean, jnp.eye(mean.size, dtype=mean.dtype))
            spread, is_found, _ = eqx.filter_jit(probe)(key, energy)
            known = concrete(is_found)
            if known is not None and not known:
                raise ValueError(
                    "log_density was finite at none of the points where the scale was probed, around the origin; return "
                    "finite numbers there, or pass scale and start"
                )
    start = mean if start is None else as_floating("start", start)
    scale = as_positive("scale", spread if scale is None else scale)
    if start.shape != mean.shape:
        raise ValueError(
            f"start has shape {start.shape} but the target has dimension {mean.size}; pass shape ({mean.size},)"
        )
    return harmonic(beta=0.0, start=start, horizon=horizon, noise_scale=scale / jnp.sqrt(horizon))
