"""What the user chooses about the process: potential, force, gauge, start, horizon and noise scale.

The controlled process, in the user's units, is

    dx = ( f(t, x) + u ) dt + σ dW  on [0, T],   x(0) = x₀,
    at the least cost  E[ ∫ ( |u|²/2σ² + V(t, x) ) dt + ∫ A(t, x)ᵀ∘dx ],
    V = ½ (x−ν)ᵀβ(x−ν) + V₁ᵀx + V₀,    f = f₁x + f₀,    A = A₁x + A₀,

with coefficients constant on each piece of [0, T]. In the unit problem (t' = t/T, x' = (x − shift)/scale, scale = σ√T) it
is dx' = (f' + u') dt' + dW' on [0, 1] at the same cost, with

    β' = βσ²T²,   V₁' = T scale V₁,   f' = (T/scale) f,   A' = scale A.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._doors.checks import as_floating, check_count, check_positive_definite, check_single, concrete
from .._doors.show import brief, shown
from .._maths.maps import Map, adjoint, apply, dense, diagonal, lift, product
from .bridge import Affine
from .conjugate import check_conjugate
from .green import Green
from .propagator import Generator
from .reference import AbstractReference, Harmonic, Piecewise

_COARSEST = 0.02
"""Coarsest resolution of the state, in noise widths of the whole process: means then err by less than a tenth of one."""


class GaussianStart(eqx.Module):
    """The start N(mean, covariance) of the reference. The end law is exact; the law of x(0) is the start's times ψ(0, ·)/Z."""

    mean: Float[Array, " d"]
    covariance: Map

    def __init__(self, mean, covariance):
        self.mean, self.covariance = as_floating("mean", mean), as_floating("covariance", covariance)
        dim = self.mean.size
        if self.mean.ndim != 1 or dim == 0 or self.covariance.shape not in ((), (dim,), (dim, dim)):
            raise ValueError(
                f"mean has shape {self.mean.shape} and covariance {self.covariance.shape}; pass shape (d,) and a scalar, a "
                "(d,) diagonal or a (d, d) matrix"
            )
        check_positive_definite("covariance", dense(self.covariance, dim)[None])

    def __repr__(self):
        return shown("GaussianStart", mean=self.mean, covariance=self.covariance)


class UnitProblem(eqx.Module):
    """The change of variables x = shift + scale · x', t = horizon · t' to the unit problem, and what it looks like there.

    Attributes:
        reference: the uncontrolled process of the unit problem.
        start: start x₀' of the unit problem, (d,); the mean of a Gaussian start.
        shift, scale, horizon: the change of variables; (d,), scalar, scalar.
    """

    reference: AbstractReference
    start: Float[Array, " d"]
    shift: Float[Array, " d"]
    scale: Float[Array, ""]
    horizon: Float[Array, ""]

    def __repr__(self):
        place = {"shift": self.shift, "scale": self.scale, "horizon": self.horizon}
        return shown("UnitProblem", reference=type(self.reference).__name__, start=self.start, **place)

    def check(self) -> "UnitProblem":
        """Return self; raise if concrete values cannot be computed with.

        Raises:
            ValueError: a conjugate point before the end, with its time in the user's units; a start, centre, force, gauge or
                linear potential so large that their dtype does not resolve the noise beside it.
        """
        self.check_conjugate()
        _, reach = _sizes(self)
        known, step = concrete(reach), jnp.finfo(reach.dtype).eps
        if known is not None and known * step > _COARSEST:
            raise ValueError(
                f"start, centre, force, gauge or linear carry the process some {known:.2g} noise widths away from the target, "
                f"where {reach.dtype} resolves {known * step:.2g} of one: pass smaller ones, a larger noise_scale, or float64"
            )
        return self

    def check_conjugate(self) -> None:
        """Raise if concrete coefficients have a conjugate point before the end."""
        pieces, _ = _sizes(self)
        check_conjugate(*pieces, self.horizon, self.start.size)

    def to_unit(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        return (x - jnp.broadcast_to(self.shift, x.shape)) / self.scale

    def from_unit(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        return jnp.broadcast_to(self.shift, x.shape) + self.scale * x


@eqx.filter_jit
def _sizes(unit: UnitProblem):
    """The pieces of the reference, and how far from the origin the process is carried."""
    return unit.reference.pieces(), jnp.maximum(unit.reference.reach(), jnp.max(jnp.abs(unit.start)))


class Protocol(eqx.Module):
    """Potential, force and gauge, constant on each of P pieces, with start and units.

    Made by `harmonic`, `piecewise` and `from_function`. Every leaf may be differentiated and learned.

    Attributes:
        beta: β, shape (P,), (P, d) or (P, d, d).
        centre: ν, shape (P, d).
        force, gauge: pairs of f₁ or A₁, shaped as β may be, and f₀ or A₀, shape (P, d).
        linear, constant: V₁, shape (P, d), and V₀, shape (P,).
        edges: the P + 1 ends of the pieces, from 0 to the horizon.
        start: x₀, shape (d,), or a `GaussianStart`.
        noise_scale: σ; None where the problem is rescaled.
    """

    beta: Float[Array, "P *map"]
    centre: Float[Array, "P d"] | None
    force: Affine | None
    gauge: Affine | None
    linear: Float[Array, "P d"] | None
    constant: Float[Array, " P"] | None
    edges: Float[Array, " ends"]
    start: Float[Array, " d"] | GaussianStart | None
    noise_scale: Float[Array, ""] | None

    def __repr__(self):
        if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(self)):
            return shown("Protocol", **{"beta": self.beta, "edges": self.edges})
        one = self.num_pieces == 1
        fields = {"beta": self.beta, "centre": self.centre, "linear": self.linear, "constant": self.constant}
        facts = {name: leaf[0] if one else leaf for name, leaf in fields.items() if leaf is not None}
        for name, field in (("force", self.force), ("gauge", self.gauge)):
            if field is not None:
                matrix, vector = (brief(leaf[0] if one else leaf) for leaf in field)
                facts[name] = f"({matrix}, {vector})"
        ends = {"start": self.start, "noise_scale": self.noise_scale}
        facts |= {name: value for name, value in ends.items() if value is not None}
        return shown("Protocol", **facts, horizon=self.horizon, pieces=self.num_pieces)

    @property
    def horizon(self) -> Float[Array, ""]:
        return self.edges[-1]

    @property
    def num_pieces(self) -> int:
        return self.beta.shape[0]

    def refine(self, factor: int = 2) -> "Protocol":
        """The same protocol with each piece cut into equal parts: more to learn, the same process.

        Raises:
            ValueError: a factor below one.
        """
        factor = check_count("factor", factor)
        fractions = jnp.arange(factor, dtype=self.edges.dtype) / factor
        starts = self.edges[:-1, None] + jnp.diff(self.edges)[:, None] * fractions[None]
        fields = (self.beta, self.centre, self.force, self.gauge, self.linear, self.constant)
        beta, centre, force, gauge, linear, constant = jax.tree.map(
            lambda leaf: jnp.repeat(leaf, factor, axis=0), fields
        )
        edges = jnp.append(starts.ravel(), self.edges[-1])
        return Protocol(beta, centre, force, gauge, linear, constant, edges, self.start, self.noise_scale)

    def unit(self, mean: Float[Array, " d"], spread: Float[Array, ""]) -> UnitProblem:
        """The unit problem for a target of this mean and spread (standard deviation per coordinate).

        Raises:
            ValueError: another dimension than the target's; a conjugate point (concrete values only).
        """
        self.check_dimension(mean.size)
        return _unit(self, mean, spread).check()

    def check_alone(self) -> None:
        """The checks of `unit` that need no target: agreement of dimensions, and conjugate points where they do not hang on it.

        Raises:
            ValueError: as `unit`.
        """
        dims = [(name, shape[0]) for name, shape in self._shapes() if shape]
        name, dim = dims[0] if dims else ("the target", 1)
        self.check_dimension(dim, of=name)
        if self.noise_scale is not None or self.gauge is None:
            like = jnp.zeros(dim, self.beta.dtype)
            _unit(self, like, jnp.ones((), like.dtype)).check_conjugate()

    def check_dimension(self, dim: int, of: str = "the target") -> None:
        """Raise if a coefficient or the start is of another dimension."""
        check_single("the protocol", self.edges, 1)
        for name, shape in self._shapes():
            if any(size != dim for size in shape):
                is_map = name in ("beta", "the matrix of force", "the matrix of gauge", "the covariance of start")
                forms = f"a scalar, a ({dim},) diagonal or a ({dim}, {dim}) matrix" if is_map else f"shape ({dim},)"
                raise ValueError(f"{name} has shape {shape} but {of} has dimension {dim}; pass {forms}")

    def _shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        """The shapes of the coefficients on one piece, and of the start, by name."""
        named: list[tuple[str, Any]] = [("beta", self.beta), ("centre", self.centre)]
        for name, pair in (("force", self.force), ("gauge", self.gauge)):
            named += [] if pair is None else zip((f"the matrix of {name}", f"the vector of {name}"), pair, strict=True)
        shapes = [(name, leaf.shape[1:]) for name, leaf in [*named, ("linear", self.linear)] if leaf is not None]
        start: list[tuple[str, Any]] = [("start", self.start)]
        if isinstance(self.start, GaussianStart):
            start = [("the mean of start", self.start.mean), ("the covariance of start", self.start.covariance)]
        return shapes + [(name, leaf.shape) for name, leaf in start if leaf is not None]


@eqx.filter_jit
def _unit(protocol: Protocol, mean: Float[Array, " d"], spread: Float[Array, ""]) -> UnitProblem:
    protocol = jax.tree.map(lambda leaf: leaf.astype(mean.dtype), protocol)
    horizon = protocol.horizon
    if protocol.noise_scale is None:
        shift, scale = mean, spread
    else:
        shift, scale = jnp.zeros_like(mean), protocol.noise_scale * jnp.sqrt(horizon)
    start = protocol.start.mean if isinstance(protocol.start, GaussianStart) else protocol.start
    start = (jnp.zeros_like(mean) if start is None else start - shift) / scale
    return UnitProblem(_reference(protocol, start, shift, scale), start, shift, scale, horizon)


def _reference(protocol: Protocol, start, shift, scale) -> AbstractReference:
    dim, horizon = shift.size, protocol.horizon
    beta = protocol.beta if protocol.noise_scale is None else protocol.beta * horizon * scale**2
    is_closed = protocol.num_pieces == 1 and beta.ndim < 3 and not isinstance(protocol.start, GaussianStart)
    if is_closed and all(part is None for part in (protocol.force, protocol.gauge, protocol.linear, protocol.constant)):
        centre = jnp.zeros((), start.dtype) if protocol.centre is None else (protocol.centre[0] - shift) / scale
        return Harmonic(Green(beta[0]), centre)

    covariance = protocol.start.covariance / scale**2 if isinstance(protocol.start, GaussianStart) else None
    force = _changed(protocol.force, shift, scale, horizon, horizon / scale)
    gauge = _changed(protocol.gauge, shift, scale, scale**2, scale)
    maps = (beta, *(field.matrix for field in (force, gauge) if field is not None))
    rank = max(part.ndim - 1 for part in maps)
    rank = rank if covariance is None else max(rank, covariance.ndim)
    none = Affine(jnp.zeros_like(beta), jnp.zeros((protocol.num_pieces, dim), start.dtype))

    def generator(beta, centre, force, gauge, linear, constant):
        beta, f, a = (lift(part, rank, dim) for part in (beta, force.matrix, gauge.matrix))
        slope, rate = linear - apply(beta, centre), constant + 0.5 * jnp.sum(centre * apply(beta, centre))
        return Generator(
            drift=f - a,
            push=force.vector - gauge.vector,
            stiffness=beta + product(adjoint(f), a) + product(adjoint(a), f) - product(adjoint(a), a),
            slope=slope + apply(adjoint(f - a), gauge.vector) + apply(adjoint(a), force.vector),
            rate=rate + 0.5 * jnp.sum(diagonal(a, dim)) + jnp.sum((force.vector - 0.5 * gauge.vector) * gauge.vector),
        )

    zeros = none.vector
    linear = zeros if protocol.linear is None else protocol.linear
    fields = (
        beta,
        zeros if protocol.centre is None else (protocol.centre - shift[None]) / scale,
        none if force is None else force,
        none if gauge is None else gauge,
        horizon * scale * linear,
        horizon * (linear @ shift + (0 if protocol.constant is None else protocol.constant)),
    )
    generators = jax.vmap(generator)(*fields)
    lifted = None if covariance is None else lift(covariance, rank, dim)
    lift_field = jax.vmap(lambda part: Affine(lift(part.matrix, rank, dim), part.vector))
    force, gauge = (None if part is None else lift_field(part) for part in (force, gauge))
    inner = (protocol.edges / horizon)[1:-1]
    return Piecewise.of(generators, force, gauge, inner, start, lifted)


def _changed(field: Affine | None, shift, scale, matrix_scale, vector_scale) -> Affine | None:
    """A field in the unit problem: matrix_scale · A₁ and vector_scale · (A₁ shift + A₀)."""
    if field is None:
        return None
    vector = jax.vmap(apply, in_axes=(0, None))(field.matrix, shift) + field.vector
    return Affine(matrix_scale * field.matrix, vector_scale * vector)
