"""The reference process of the top level: any potential V, force f and gauge A, functions of (t, x).

    minimise E[ ∫ ( |u|²/2 + V(t,x) ) dt + ∫ A(t,x)ᵀ∘dx ],      dx = ( f(t,x) + u ) dt + dW

With J = −log ψ this is linear, −∂ψ/∂t + Ṽψ + (A − f)ᵀ∇ψ = ½Δψ: drift b and killing at rate Ṽ, which may be negative somewhere,

    b = f − A,      Ṽ = V + ½∇ᵀA + fᵀA − ½|A|²,      u* = ∇log ψ − A
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._doors.checks import concrete
from .._doors.functions import in_words, outcome
from .._doors.show import shown_fields
from .._maths.maps import apply
from ..process.bridge import Affine
from ..process.protocol import Protocol

Field = Callable[[Float[Array, ""], Float[Array, " d"]], Array]
"""A function of time and one point."""


class Fields(NamedTuple):
    """V, f and A at one time and point."""

    potential: Float[Array, ""]
    force: Float[Array, " d"]
    gauge: Float[Array, " d"]


class AffineOnPieces(eqx.Module):
    """An affine field on each piece."""

    field: Affine
    edges: Float[Array, " ends"]

    def __call__(self, t: Float[Array, ""], x: Float[Array, " d"]) -> Float[Array, " d"]:
        return _on_piece(self.field, self.edges, t)(x)


class QuadraticOnPieces(eqx.Module):
    """V = ½ (x−ν)ᵀβ(x−ν) + V₁ᵀx + V₀ on each piece."""

    protocol: Protocol

    def __call__(self, t: Float[Array, ""], x: Float[Array, " d"]) -> Float[Array, ""]:
        own = self.protocol
        fields = own.beta, own.centre, own.linear, own.constant
        beta, centre, linear, constant = _on_piece(fields, own.edges, t)
        away = x if centre is None else x - centre
        value = 0.5 * away @ apply(beta, away)
        value = value if linear is None else value + linear @ x
        return value if constant is None else value + constant


def _on_piece(fields, edges: Float[Array, " ends"], t: Float[Array, ""]):
    return jax.tree.map(lambda leaf: leaf[jnp.searchsorted(edges[1:-1], t, side="right")], fields)


class Process(eqx.Module):
    """V, f and A; what is left out is zero.

    Args:
        potential: V(t, x), a scalar.
        force, gauge: f(t, x) and A(t, x), vectors like x. Where walls reflect, a gauge bills no push of a wall along it; a
            potential in its place does: of A = ∇χ, χ at both ends and −∂χ/∂t between.

    An Equinox module in the place of a function has parameters that `grad` follows, and whose new values never compile again.

    Example:
        >>> process = Process(potential=lambda t, x: 0.5 * x @ x, gauge=lambda t, x: 2 * x)
        >>> float(process.killing(0.0, jnp.ones(3))), process.drift(0.0, jnp.ones(3)).tolist()
        (-1.5, [-2.0, -2.0, -2.0])
    """

    potential: Field | None
    force: Field | None
    gauge: Field | None

    __repr__ = shown_fields

    def __init__(self, *, potential: Field | None = None, force: Field | None = None, gauge: Field | None = None):
        self.potential, self.force, self.gauge = potential, force, gauge

    @classmethod
    def of(cls, protocol: Protocol) -> "Process":
        """That of a protocol of unit noise: V quadratic, f and A affine, constant on each piece, whose later one has its edge.

        Raises:
            ValueError: a protocol of another noise, or with none.

        Example:
            >>> stiff = Process.of(pid.harmonic(2.0, force=(-1.0, jnp.zeros(2)), noise_scale=1.0))
            >>> float(stiff.at(0.5, jnp.ones(2)).potential), stiff.drift(0.5, jnp.ones(2)).tolist()
            (2.0, [-1.0, -1.0])
        """
        noise = None if protocol.noise_scale is None else concrete(protocol.noise_scale)
        if protocol.noise_scale is None or (noise is not None and noise != 1):
            raise ValueError(f"protocol has noise_scale {noise}; pass one with noise_scale=1.0, the noise of a Process")

        def affine(field):
            return None if field is None else AffineOnPieces(field, protocol.edges)

        return cls(potential=QuadraticOnPieces(protocol), force=affine(protocol.force), gauge=affine(protocol.gauge))

    def at(self, t: Float[Array, ""], x: Float[Array, " d"]) -> Fields:
        """V, f and A, zero where left out."""
        zeros = jnp.zeros((), x.dtype), jnp.zeros_like(x), jnp.zeros_like(x)
        fields = self.potential, self.force, self.gauge
        return Fields(*(zero if field is None else field(t, x) for field, zero in zip(fields, zeros)))

    def drift(self, t: Float[Array, ""], x: Float[Array, " d"]) -> Float[Array, " d"]:
        """b = f − A."""
        force = jnp.zeros_like(x) if self.force is None else self.force(t, x)
        return force if self.gauge is None else force - self.gauge(t, x)

    def killing(self, t: Float[Array, ""], x: Float[Array, " d"]) -> Float[Array, ""]:
        """Ṽ = V + ½∇ᵀA + fᵀA − ½|A|²."""
        rate = jnp.zeros((), x.dtype) if self.potential is None else self.potential(t, x)
        if self.gauge is None:
            return rate
        gauge, divergence = self.gauge(t, x), jnp.trace(jax.jacfwd(self.gauge, argnums=1)(t, x))
        along = jnp.zeros((), x.dtype) if self.force is None else self.force(t, x) @ gauge
        return rate + 0.5 * divergence + along - 0.5 * gauge @ gauge

    def check(self, t: Float[Array, ""], x: Float[Array, " d"]) -> None:
        """Raise unless V gives a scalar, f and A vectors like x, of x's dtype."""
        for name, shape in (("potential", ()), ("force", x.shape), ("gauge", x.shape)):
            field = getattr(self, name)
            if field is None:
                continue
            found = outcome(name, field, t, x, of="one time and point")
            if (getattr(found, "shape", None), getattr(found, "dtype", None)) != (shape, x.dtype):
                wanted = in_words(jax.ShapeDtypeStruct(shape, x.dtype))
                raise ValueError(f"{name} returns {in_words(found)} for one time and point; return {wanted}")
