"""The clock of generation: the signal-to-noise ratio of the state as an observation of the end point.

    K(t) = det( Mᵀ Σ⁻¹ M )^(1/d),     x_t | y ~ N( M y + n, Σ ),     in the user's units

A scalar β and every other scalar schedule enter what the state says of the end point through K(t) alone: a transition sits at
one ratio K* for all of them, and happens at the time t(K*).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from .._doors.checks import as_floating, concrete
from ..process.protocol import GaussianStart, Protocol
from ..process.snr import log_snr_of
from ..process.unit import UnitProblem
from ..sampling.problem import Problem
from ..targets.base import AbstractTarget
from .law import grid_through, observations


def snr(target: AbstractTarget, protocol: Protocol, times: ArrayLike) -> Float[Array, " n"]:
    """K(t) at n increasing times inside (0, T).

    Args:
        target: any; where the problem is rescaled, its mean and spread make the units.
        protocol: the process.

    Raises:
        ValueError: times not increasing or not inside (0, T).

    Example:
        >>> from pidjax import GaussianMixture, harmonic
        >>> target = GaussianMixture.isotropic(jnp.zeros((1, 2)), 1.0)
        >>> snr(target, harmonic(0.0, noise_scale=2.0), jnp.array([0.2, 0.5])).round(4).tolist()
        [0.0625, 0.25]

    Source: Behjoo & Chertkov, arXiv 2409.15166, whose Ĥ⁻¹ is 1/K.
    """
    unit = Problem(target, protocol).unit
    seen = observations(unit, grid_through(unit, times))
    return jnp.exp(jax.vmap(lambda one: log_snr_of(one, target.dim))(seen)) / unit.scale**2


def time_at_snr(target: AbstractTarget, protocol: Protocol, ratios: ArrayLike) -> Float[Array, "*ratios"]:
    """The times t at which K(t) has given values: the inverse of `snr`, of ratios of any shape.

    Raises:
        ValueError: ratios that are not positive, or below twice that which a Gaussian start has at t = 0.

    Example:
        >>> from pidjax import GaussianMixture, harmonic
        >>> target = GaussianMixture.isotropic(jnp.zeros((1, 2)), 1.0)
        >>> for beta in (0.0, 0.1, 1.0, 10.0, 100.0):
        ...     print(f"{time_at_snr(target, harmonic(beta, noise_scale=1.0), 1.0):.3f}", end=" ")
        0.500 0.504 0.537 0.687 0.848
    """
    unit, ratios = Problem(target, protocol).unit, as_floating("ratios", ratios)
    least, known = _at_start(unit, protocol, target.dim), concrete(ratios)
    if known is not None and not (known > 0).all():
        raise ValueError(f"ratios holds {known.min():g}; pass signal-to-noise ratios > 0")
    if known is not None and (lowest := concrete(least)) is not None and not (known >= 2 * lowest).all():
        raise ValueError(
            f"ratios holds {known.min():g}, but from a Gaussian start the ratio is {lowest:g} at t = 0; pass ratios of twice "
            "that at least"
        )
    return _times(unit, ratios.astype(unit.start.dtype), target.dim)


def _at_start(unit: UnitProblem, protocol: Protocol, dim: int) -> Float[Array, ""]:
    """K(0): 0 of a point."""
    if not isinstance(protocol.start, GaussianStart):
        return jnp.zeros_like(unit.scale)
    seen = unit.reference.instant(jnp.zeros_like(unit.scale), jnp.ones_like(unit.scale)).observation
    return jnp.exp(log_snr_of(seen, dim)) / unit.scale**2


@eqx.filter_jit
def _times(unit: UnitProblem, ratios: Float[Array, "*ratios"], dim: int) -> Float[Array, "*ratios"]:
    def at(ratio):
        sought = ratio * unit.scale**2
        return unit.reference.times_at_snr(sought, sought, 1, dim)[0][0]

    return unit.horizon * jax.lax.map(at, ratios.ravel()).reshape(ratios.shape)
