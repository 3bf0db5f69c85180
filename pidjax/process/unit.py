"""The unit problem: every protocol as dx' = (f' + u') dt' + dW' on [0, 1], at the same cost.

    t' = t/T,   x' = (x − shift)/scale,   scale = σ√T:
    β' = βσ²T²,   V₁' = T scale V₁,   f' = (T/scale) f,   A' = scale A.

Where the noise scale is left open, shift and scale are the target's mean and spread, and β is that of the unit problem.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._doors.checks import concrete
from .._doors.show import shown
from .._maths.maps import Map, adjoint, apply, diagonal, lift, product
from .._maths.once import compiled_once
from .bridge import Affine
from .conjugate import check_conjugate
from .green import Green
from .harmonic import Harmonic
from .piecewise import Piecewise
from .propagator import Generator
from .protocol import GaussianStart, Protocol
from .reference import AbstractReference

_COARSEST = 0.02
"""Coarsest resolution of the state, in noise widths of the whole process: means then err by less than a tenth of one."""


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

    def to_unit(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        return (x - jnp.broadcast_to(self.shift, x.shape)) / self.scale

    def from_unit(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        return jnp.broadcast_to(self.shift, x.shape) + self.scale * x


class Sizes(NamedTuple):
    """What decides whether a unit problem can be computed with.

    Attributes:
        pieces: S, F, the ends of the pieces and the covariance of a Gaussian start, as `AbstractReference.pieces` gives them.
        reach: how far from the origin the process is carried, to an order of magnitude.
    """

    pieces: tuple[Array, Array, Array, Map | None]
    reach: Float[Array, ""]

    @classmethod
    def of(cls, unit: UnitProblem) -> "Sizes":
        return cls(unit.reference.pieces(), jnp.maximum(unit.reference.reach(), jnp.max(jnp.abs(unit.start))))

    def check(self, unit: UnitProblem) -> None:
        """Raise if concrete values cannot be computed with.

        Raises:
            ValueError: a conjugate point before the end, with its time in the user's units; a start, centre, force, gauge or
                linear potential so large that their dtype does not resolve the noise beside it.
        """
        check_conjugate(*self.pieces, unit.horizon, unit.start.size)
        known, step = concrete(self.reach), jnp.finfo(self.reach.dtype).eps
        if known is not None and known * step > _COARSEST:
            raise ValueError(
                f"start, centre, force, gauge or linear carry the process some {known:.2g} noise widths away from the target, "
                f"where {self.reach.dtype} resolves {known * step:.2g} of one: pass smaller ones, a larger noise_scale, or "
                "float64"
            )


def check_alone(protocol: Protocol) -> Protocol:
    """Return the protocol; raise for what is wrong with it whatever the target.

    Raises:
        ValueError: coefficients of several dimensions; a conjugate point, where it does not hang on the target.
    """
    dims = [(name, shape[0]) for name, shape in protocol.shapes() if shape]
    name, dim = dims[0] if dims else ("the target", 1)
    protocol.check_dimension(dim, of=name)
    depends_on_target = protocol.noise_scale is None and protocol.gauge is not None
    if not (depends_on_target or _repels_nowhere(protocol)):
        like = jnp.zeros(dim, protocol.beta.dtype)
        pieces = _pieces(protocol, like, jnp.ones((), like.dtype))
        check_conjugate(*pieces, protocol.horizon, dim)
    return protocol


def _repels_nowhere(protocol: Protocol) -> bool:
    """Whether the killing rate is convex beyond doubt, and there is no conjugate point to look for."""
    beta = concrete(protocol.beta)
    if beta is None or protocol.force is not None or protocol.gauge is not None:
        return False
    return bool(((beta if beta.ndim < 3 else np.linalg.eigvalsh(beta)) >= 0).all())


@compiled_once
def _pieces(protocol: Protocol, mean: Float[Array, " d"], spread: Float[Array, ""]):
    return unit_problem(protocol, mean, spread).reference.pieces()


def unit_problem(protocol: Protocol, mean: Float[Array, " d"], spread: Float[Array, ""]) -> UnitProblem:
    """The unit problem for a target of this mean and spread (standard deviation per coordinate), unchecked."""
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


class LogGreen(eqx.Module):
    """log G(0, x → T, y) in the user's units, of a protocol with a `noise_scale` from points: the propagator, made once."""

    unit: UnitProblem
    of_unit: Callable

    @classmethod
    def of(cls, protocol: Protocol, origin: Float[Array, " d"]) -> "LogGreen":
        """Of the shape and dtype of a point."""
        unit = unit_problem(protocol, jnp.zeros_like(origin), jnp.ones((), origin.dtype))
        one = jnp.ones_like(unit.scale)
        return cls(unit, unit.reference.instant(one, jnp.zeros_like(one)).log_green)

    def __call__(self, x: Float[Array, " d"], y: Float[Array, " d"]) -> Float[Array, ""]:
        return self.of_unit(self.unit.to_unit(x), self.unit.to_unit(y)) - y.size * jnp.log(self.unit.scale)


def started(protocol: Protocol, x: Float[Array, " d"]) -> Protocol:
    """The protocol from x."""
    return eqx.tree_at(lambda one: one.start, protocol, x, is_leaf=lambda leaf: leaf is None)
