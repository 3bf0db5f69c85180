"""Guided transport: a stiff potential around a centre line leads the paths, while the law of the end stays exact.

    V = ½ (x − ν(t))ᵀ β(t) (x − ν(t))

    straight     ν = (1−t) a + t b
    bend         … + A sin(kπt) n: one bump for k = 1, an S for k = 2
    shoulder     … + A [tanh(6(2t−1)) − (2t−1) tanh 6] n: a teacher's line

n is the direction a → b turned by 90°. A line is a function of t in [0, 1]; `from_function` makes it a protocol.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from .._doors.checks import as_floating, as_positive, as_scalar, check_count, concrete
from ..exact.cost import costs, quadratic_cost
from ..exact.law import check_problem
from ..process.protocol import Protocol
from ..process.schedule import from_function
from ..targets.base import AbstractTarget

CentreLine = Callable[[Float[Array, ""]], Float[Array, " d"]]


def straight(start: ArrayLike, end: ArrayLike) -> CentreLine:
    """t ↦ (1−t) a + t b.

    Raises:
        ValueError: ends that are not two points of one dimension.

    Example:
        >>> straight(jnp.zeros(2), jnp.array([2.0, 4.0]))(jnp.array(0.5))
        Array([1., 2.], dtype=float32)
    """
    start, end = _ends(start, end)
    return lambda t: (1 - t) * start + t * end


def bend(start: ArrayLike, end: ArrayLike, amplitude: ArrayLike, bumps: int = 2) -> CentreLine:
    """t ↦ (1−t) a + t b + A sin(kπt) n, with k bumps.

    Raises:
        ValueError: ends that are not two different points in the plane (concrete values only); bumps that are no integer ≥ 1.

    Example:
        >>> bend(jnp.zeros(2), jnp.array([2.0, 0.0]), 0.5)(jnp.array(0.25)).round(4)
        Array([0.5, 0.5], dtype=float32)
    """
    line, across = straight(start, end), _across(start, end, amplitude)
    bumps = check_count("bumps", bumps)
    return lambda t: line(t) + jnp.sin(bumps * jnp.pi * t) * across


def shoulder(start: ArrayLike, end: ArrayLike, amplitude: ArrayLike) -> CentreLine:
    """t ↦ (1−t) a + t b + A [ tanh(6(2t−1)) − (2t−1) tanh 6 ] n: from a to b, along one side and then the other.

    Raises:
        ValueError: as `bend`.

    Example:
        >>> shoulder(jnp.zeros(2), jnp.array([2.0, 0.0]), 0.7)(jnp.array(1.0)).round(4)
        Array([2., 0.], dtype=float32)

    Source: the teachers of arXiv 2512.11859, case C, whose offset along n their correction at the ends takes out again.
    """
    line, across = straight(start, end), _across(start, end, amplitude)

    def share(t):
        return jnp.tanh(6 * (2 * t - 1)) - (2 * t - 1) * jnp.tanh(jnp.full_like(t, 6))

    return lambda t: line(t) + share(t) * across


def v_neck(
    start: ArrayLike,
    end: ArrayLike,
    *,
    stiffness: ArrayLike = 1.0,
    neck: ArrayLike = 60.0,
    width: ArrayLike = 0.15,
    num_pieces: int = 20,
) -> Protocol:
    """A straight line whose potential narrows half-way: β(t) = β₀ + (β₁ − β₀) exp(−(t−½)²/2w²).

    Args:
        start, end: a and b, shape (d,). The process starts at a.
        stiffness, neck: β₀ and β₁, scalars.
        width: w of the neck, in time.
        num_pieces: pieces of the protocol.

    Raises:
        ValueError: a width that is not positive; ends as in `straight`; as `from_function`.

    Example:
        >>> v_neck(jnp.zeros(2), jnp.ones(2)).num_pieces
        20

    Source: Chertkov, *Guided Harmonic Path Integral Diffusion*, arXiv 2512.11859, case A (its numbers are not public).
    """
    outer, inner, spread = as_scalar("stiffness", stiffness), as_scalar("neck", neck), as_positive("width", width)

    def profile(t):
        return outer + (inner - outer) * jnp.exp(-((t - 0.5) ** 2) / (2 * spread**2))

    line = straight(start, end)
    return from_function(num_pieces, beta=profile, centre=line, start=start, noise_scale=1.0)


def s_tunnel(
    start: ArrayLike,
    end: ArrayLike,
    *,
    amplitude: ArrayLike = 0.4,
    bumps: int = 2,
    stiffness: ArrayLike = 40.0,
    num_pieces: int = 20,
) -> Protocol:
    """A tunnel of constant stiffness along a bent line: an S by default; one bump is the paper's.

    Arguments as in `bend` and `v_neck`.

    Raises:
        ValueError: as `bend` and `from_function`.

    Example:
        >>> s_tunnel(jnp.zeros(2), jnp.ones(2)).centre.shape
        (20, 2)

    Source: as `v_neck`.
    """
    line = bend(start, end, amplitude, bumps)
    return from_function(num_pieces, beta=stiffness, centre=line, start=start, noise_scale=1.0)


def following_cost(
    target: AbstractTarget,
    protocol: Protocol,
    line: ArrayLike,
    *,
    effort: ArrayLike = 0.0,
    entropy: ArrayLike | None = None,
) -> Float[Array, ""]:
    """E ∫ |x − γ|² dt + effort · E ∫ |u|²/2σ² dt: what to learn a centre line by, so that paths keep to the line γ.

    The centre that makes paths keep to γ is not γ: it leads in the bends.

    Args:
        target: a `GaussianMixture`.
        protocol: the process.
        line: γ on each of the protocol's pieces, shape (P, d).
        effort: the price of control, ≥ 0.
        entropy: the target's, if known: it does not depend on the protocol.

    Raises:
        ValueError: a line of another shape; an effort below 0; as `pidjax.exact.costs`.

    Example:
        >>> from pidjax import GaussianMixture, harmonic
        >>> target = GaussianMixture(jnp.zeros((1, 1)), jnp.ones((1, 1, 1)))
        >>> print(f"{following_cost(target, harmonic(0.0, noise_scale=1.0), jnp.zeros((1, 1))):.4f}")
        0.5000
    """
    check_problem(target, protocol)
    line, effort = as_floating("line", line), as_scalar("effort", effort)
    if line.shape != (protocol.num_pieces, target.dim):
        raise ValueError(
            f"line has shape {line.shape}; pass shape {(protocol.num_pieces, target.dim)}, a point for each piece"
        )
    known = concrete(effort)
    if known is not None and known < 0:
        raise ValueError(f"effort is {known:g}; pass a number >= 0")
    twice = jnp.full(protocol.num_pieces, 2, line.dtype)
    distance = quadratic_cost(target, protocol, twice, line)
    if known is not None and known == 0:
        return distance
    return distance + effort.astype(distance.dtype) * costs(target, protocol, entropy=entropy).kinetic


def _ends(start: ArrayLike, end: ArrayLike) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
    start, end = as_floating("start", start), as_floating("end", end)
    if start.ndim != 1 or start.shape != end.shape:
        raise ValueError(f"start has shape {start.shape} and end {end.shape}; pass two points of shape (d,)")
    return start, end


def _across(start: ArrayLike, end: ArrayLike, amplitude: ArrayLike) -> Float[Array, " 2"]:
    """A n."""
    start, end = _ends(start, end)
    if start.size != 2:
        raise ValueError(f"start and end have dimension {start.size}; a line bends in the plane: pass shape (2,)")
    length = jnp.linalg.norm(end - start)
    if concrete(length) is not None and not length > 0:
        raise ValueError(f"start and end are both {np.asarray(start)}; pass different points")
    tangent = (end - start) / length
    return as_scalar("amplitude", amplitude).astype(start.dtype) * jnp.stack([-tangent[1], tangent[0]])
