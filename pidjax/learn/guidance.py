"""Guided transport: a stiff potential around a centre line leads the paths, while the law of the end stays exact.

    V = ½ (x − ν(t))ᵀ β(t) (x − ν(t))

    straight     ν = (1−t) a + t b
    bend         … + A sin(kπt) n: one bump for k = 1, an S for k = 2
    shoulder     … + A [tanh(6(2t−1)) − (2t−1) tanh 6] n: a teacher's line

n is the direction a → b turned by 90°. A line is a function of t in [0, 1]; `from_function` makes it a protocol.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ..exact.cost import costs, quadratic_cost
from ..protocol import Protocol
from ..schedule import from_function
from ..targets.base import Target

CentreLine = Callable[[Float[Array, ""]], Float[Array, " d"]]


def straight(start: Float[Array, " d"], end: Float[Array, " d"]) -> CentreLine:
    """t ↦ (1−t) a + t b.

    Example:
        >>> straight(jnp.zeros(2), jnp.array([2.0, 4.0]))(jnp.array(0.5))
        Array([1., 2.], dtype=float32)
    """
    return lambda t: (1 - t) * start + t * end


def bend(start: Float[Array, " 2"], end: Float[Array, " 2"], amplitude: ArrayLike, bumps: int = 2) -> CentreLine:
    """t ↦ (1−t) a + t b + A sin(kπt) n, with k bumps.

    Example:
        >>> bend(jnp.zeros(2), jnp.array([2.0, 0.0]), 0.5)(jnp.array(0.25)).round(4)
        Array([0.5, 0.5], dtype=float32)
    """
    normal = _normal(start, end)
    return lambda t: (1 - t) * start + t * end + amplitude * jnp.sin(bumps * jnp.pi * t) * normal


def shoulder(start: Float[Array, " 2"], end: Float[Array, " 2"], amplitude: ArrayLike) -> CentreLine:
    """t ↦ (1−t) a + t b + A [ tanh(6(2t−1)) − (2t−1) tanh 6 ] n: from a to b, along one side and then the other.

    Example:
        >>> shoulder(jnp.zeros(2), jnp.array([2.0, 0.0]), 0.7)(jnp.array(1.0)).round(4)
        Array([2., 0.], dtype=float32)

    Source: the teachers of arXiv 2512.11859, case C, whose offset along n their correction at the ends takes out again.
    """
    normal = _normal(start, end)

    def across(t):
        return jnp.tanh(6 * (2 * t - 1)) - (2 * t - 1) * jnp.tanh(jnp.full_like(t, 6))

    return lambda t: (1 - t) * start + t * end + amplitude * across(t) * normal


def v_neck(
    start: Float[Array, " d"],
    end: Float[Array, " d"],
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
        ValueError: as `from_function`.

    Example:
        >>> v_neck(jnp.zeros(2), jnp.ones(2)).num_pieces
        20

    Source: Chertkov, *Guided Harmonic Path Integral Diffusion*, arXiv 2512.11859, case A (its numbers are not public).
    """
    outer, inner, spread = jnp.asarray(stiffness), jnp.asarray(neck), jnp.asarray(width)

    def profile(t):
        return outer + (inner - outer) * jnp.exp(-((t - 0.5) ** 2) / (2 * spread**2))

    return from_function(num_pieces, beta=profile, centre=straight(start, end), start=start, noise_scale=1.0)


def s_tunnel(
    start: Float[Array, " 2"],
    end: Float[Array, " 2"],
    *,
    amplitude: ArrayLike = 0.4,
    bumps: int = 2,
    stiffness: ArrayLike = 40.0,
    num_pieces: int = 20,
) -> Protocol:
    """A tunnel of constant stiffness along a bent line: an S by default; one bump is the paper's.

    Arguments as in `bend` and `v_neck`.

    Example:
        >>> s_tunnel(jnp.zeros(2), jnp.ones(2)).centre.shape
        (20, 2)

    Source: as `v_neck`.
    """
    line = bend(start, end, amplitude, bumps)
    return from_function(num_pieces, beta=stiffness, centre=line, start=start, noise_scale=1.0)


def following_cost(
    target: Target,
    protocol: Protocol,
    line: Float[Array, "P d"],
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
        effort: the price of control.
        entropy: the target's, if known: it does not depend on the protocol.

    Example:
        >>> from pidjax import GaussianMixture, harmonic
        >>> target = GaussianMixture(jnp.zeros((1, 1)), jnp.ones((1, 1, 1)))
        >>> print(f"{following_cost(target, harmonic(0.0, noise_scale=1.0), jnp.zeros((1, 1))):.4f}")
        0.5000
    """
    twice = jnp.full(protocol.num_pieces, 2, line.dtype)
    distance = quadratic_cost(target, protocol, twice, line)
    return distance + effort * costs(target, protocol, entropy=entropy).kinetic


def _normal(start: Float[Array, " 2"], end: Float[Array, " 2"]) -> Float[Array, " 2"]:
    tangent = (end - start) / jnp.linalg.norm(end - start)
    return jnp.stack([-tangent[1], tangent[0]])
