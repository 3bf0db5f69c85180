"""Protocols: constant, piecewise constant, or sampled from functions of time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from .._doors.checks import as_floating, as_positive, check_count, check_symmetric, concrete
from .._doors.functions import outcome
from .bridge import Affine
from .protocol import GaussianStart, Protocol
from .unit import check_alone

Coefficient = ArrayLike | tuple[ArrayLike, ArrayLike] | Callable[[Float[Array, ""]], Any]
"""A value, or a function of the time that returns one."""


def harmonic(
    beta: ArrayLike = 1.0,
    *,
    centre: ArrayLike | None = None,
    force: tuple[ArrayLike, ArrayLike] | None = None,
    gauge: tuple[ArrayLike, ArrayLike] | None = None,
    linear: ArrayLike | None = None,
    constant: ArrayLike | None = None,
    start: ArrayLike | GaussianStart | None = None,
    horizon: ArrayLike = 1.0,
    noise_scale: ArrayLike | None = None,
) -> Protocol:
    """The process dx = (f + u) dt + σ dW on [0, T] of least cost E[∫ (|u|²/2σ² + V) dt + ∫ Aᵀ∘dx], constant in time.

        V = ½ (x−ν)ᵀβ(x−ν) + V₁ᵀx + V₀,     f = f₁x + f₀,     A = A₁x + A₀

    Args:
        beta: stiffness β: a scalar, a (d,) diagonal, or a symmetric (d, d) matrix. It moves the clock and the cost, not
            the law of the end point.
        centre: ν, shape (d,). By default the target's mean, or the origin if `noise_scale` is given.
        force: the pair (f₁, f₀); f₁ shaped as β may be, not symmetric in general, f₀ of shape (d,).
        gauge: the pair (A₁, A₀), likewise.
        linear, constant: V₁, shape (d,), and V₀, a scalar.
        start: x₀, shape (d,), or a `GaussianStart`. By default the target's mean, or the origin if `noise_scale` is given.
        horizon: T > 0.
        noise_scale: σ > 0. If left out the problem is rescaled: σ√T becomes the target's standard deviation, and β is
            meant in that unit problem.

    Raises:
        ValueError: an argument of a wrong shape, not finite, not symmetric or out of range; a conjugate point, with its
            time.

    Example:
        >>> harmonic(beta=1.0).horizon.item()
        1.0

    Source: Behjoo & Chertkov, arXiv 2409.15166; the units are those of the stochastic control problem with cost |u|²/2σ².
    """
    horizon = as_positive("horizon", horizon)
    beta = as_floating("beta", beta)
    fields = [("beta", beta), ("centre", centre), ("linear", linear), ("constant", constant)]
    stacked = {name: None if value is None else as_floating(name, value)[None] for name, value in fields}
    pairs = {name: _one_piece(name, pair) for name, pair in (("force", force), ("gauge", gauge))}
    edges = jnp.stack([jnp.zeros_like(horizon), horizon])
    return _checked(**stacked, **pairs, edges=edges, start=start, noise_scale=noise_scale, shown=1)


def piecewise(
    beta: ArrayLike,
    *,
    edges: ArrayLike | None = None,
    centre: ArrayLike | None = None,
    force: tuple[ArrayLike, ArrayLike] | None = None,
    gauge: tuple[ArrayLike, ArrayLike] | None = None,
    linear: ArrayLike | None = None,
    constant: ArrayLike | None = None,
    start: ArrayLike | GaussianStart | None = None,
    noise_scale: ArrayLike | None = None,
) -> Protocol:
    """A protocol that is constant on each of P pieces: as `harmonic`, with P in front of every coefficient.

    Args:
        beta: shape (P,), (P, d) or (P, d, d).
        edges: the P + 1 ends of the pieces in time, from 0 to the horizon; equal pieces of [0, 1] by default.
        centre, linear: shape (P, d); constant: shape (P,).
        force, gauge: pairs of a (P,), (P, d) or (P, d, d) and a (P, d).
        start, noise_scale: as in `harmonic`.

    Raises:
        ValueError: no pieces, edges not increasing or not P + 1 of them; as `harmonic`.

    Example:
        >>> piecewise(jnp.array([1.0, 10.0, 3.0])).num_pieces
        3

    Source: Chertkov & Behjoo, *Adaptive Path Integral Diffusion*, arXiv 2512.11858.
    """
    beta = as_floating("beta", beta)
    if beta.ndim == 0 or beta.shape[0] == 0:
        raise ValueError(f"beta has shape {beta.shape}; pass one value for each of P >= 1 pieces along its first axis")
    pieces = beta.shape[0]
    edges = jnp.arange(pieces + 1, dtype=beta.dtype) / pieces if edges is None else as_floating("edges", edges)
    if edges.shape != (pieces + 1,):
        raise ValueError(f"edges has shape {edges.shape} but beta has {pieces} pieces; pass shape ({pieces + 1},)")
    values = concrete(edges)
    if values is not None and not (values[0] == 0 and (values[1:] > values[:-1]).all()):
        raise ValueError(f"edges is {values}; pass increasing times that start at 0")
    fields = {
        name: None if value is None else as_floating(name, value)
        for name, value in (("centre", centre), ("linear", linear), ("constant", constant))
    }
    pairs = {name: _pair(name, pair) for name, pair in (("force", force), ("gauge", gauge))}
    return _checked(beta=beta, **fields, **pairs, edges=edges, start=start, noise_scale=noise_scale, shown=0)


def from_function(
    num_pieces: int,
    *,
    beta: Coefficient = 1.0,
    centre: Coefficient | None = None,
    force: Coefficient | None = None,
    gauge: Coefficient | None = None,
    linear: Coefficient | None = None,
    constant: Coefficient | None = None,
    horizon: ArrayLike = 1.0,
    start: ArrayLike | GaussianStart | None = None,
    noise_scale: ArrayLike | None = None,
) -> Protocol:
    """A smooth protocol, held at its value in the middle of each of equal pieces.

    The piecewise protocol is itself a valid reference: samples, weights and Z stay exact; costs have an error of the
    order of the piece's length squared.

    Args:
        num_pieces: P ≥ 1.
        beta, centre, force, gauge, linear, constant: each a value as in `harmonic`, or a function of the time in [0, T]
            that returns one.
        horizon, start, noise_scale: as in `harmonic`.

    Raises:
        ValueError: fewer than one piece; as `piecewise`.

    Example:
        >>> protocol = from_function(4, beta=lambda t: 1 + t, centre=lambda t: jnp.stack([t, jnp.sin(t)]))
        >>> protocol.beta
        Array([1.125, 1.375, 1.625, 1.875], dtype=float32)
    """
    num_pieces = check_count("num_pieces", num_pieces)
    horizon = as_positive("horizon", horizon)
    edges = even_edges(num_pieces, horizon)
    middles = (edges[:-1] + edges[1:]) / 2

    def stacked(name, value) -> Any:
        if not callable(value):
            value = as_floating(name, value)
            return jnp.broadcast_to(value, (num_pieces, *value.shape))
        outcome(name, value, middles[0], of="a time")
        return jax.vmap(value)(middles)

    fields = {"centre": centre, "force": force, "gauge": gauge, "linear": linear, "constant": constant}
    given: dict[str, Any] = {
        name: tuple(stacked(name, part) for part in value) if isinstance(value, tuple) else stacked(name, value)
        for name, value in fields.items()
        if value is not None
    }
    return piecewise(stacked("beta", beta), **given, edges=edges, start=start, noise_scale=noise_scale)


def even_edges(num_pieces: int, horizon: Float[Array, ""]) -> Float[Array, " P+1"]:
    """The ends of equal pieces of [0, T]; the last is T, to its last digit."""
    return (horizon * jnp.arange(num_pieces + 1, dtype=horizon.dtype) / num_pieces).at[-1].set(horizon)


def _checked(*, beta, centre, force, gauge, linear, constant, edges, start, noise_scale, shown: int) -> Protocol:
    """The protocol after all checks. `shown` leading axes were added to what the user passed."""
    pieces = beta.shape[0]
    for name, leaf, ranks in (
        ("beta", beta, (1, 2, 3)),
        ("centre", centre, (2,)),
        ("linear", linear, (2,)),
        ("constant", constant, (1,)),
        ("the matrix of force", None if force is None else force.matrix, (1, 2, 3)),
        ("the matrix of gauge", None if gauge is None else gauge.matrix, (1, 2, 3)),
        ("the vector of force", None if force is None else force.vector, (2,)),
        ("the vector of gauge", None if gauge is None else gauge.vector, (2,)),
    ):
        if leaf is None:
            continue
        is_square = leaf.ndim < 3 or leaf.shape[1] == leaf.shape[2]
        if leaf.ndim not in ranks or leaf.shape[0] != pieces or not is_square or 0 in leaf.shape:
            forms = " or ".join({1: "()", 2: "(d,)", 3: "(d, d)"}[rank] for rank in ranks)
            front = "" if shown else f", with {pieces} pieces in front"
            raise ValueError(f"{name} has shape {leaf.shape[shown:]}; pass shape {forms}{front}")
    if beta.ndim == 3:
        check_symmetric("beta", beta)
    if noise_scale is not None:
        noise_scale = as_positive("noise_scale", noise_scale)
    if start is not None and not isinstance(start, GaussianStart):
        start = as_floating("start", start)
        if start.ndim != 1:
            raise ValueError(f"start has shape {start.shape}; pass one point of shape (d,), or a GaussianStart")
    return check_alone(Protocol(beta, centre, force, gauge, linear, constant, edges, start, noise_scale))


def _one_piece(name: str, pair) -> Affine | None:
    pair = _pair(name, pair)
    return None if pair is None else Affine(pair.matrix[None], pair.vector[None])


def _pair(name: str, pair) -> Affine | None:
    if pair is None:
        return None
    if not (isinstance(pair, tuple | list) and len(pair) == 2):
        raise ValueError(f"{name} is {pair!r}; pass the pair (matrix, vector) of an affine field")
    matrix, vector = (as_floating(name, part) for part in pair)
    return Affine(matrix, vector)
