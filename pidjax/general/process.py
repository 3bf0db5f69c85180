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

from .._doors.functions import in_words, outcome
from .._doors.show import shown_fields

Field = Callable[[Float[Array, ""], Float[Array, " d"]], Array]
"""A function of time and one point."""


class Fields(NamedTuple):
    """V, f and A at one time and point."""

    potential: Float[Array, ""]
    force: Float[Array, " d"]
    gauge: Float[Array, " d"]


class Process(eqx.Module):
    """V, f and A; what is left out is zero.

    Args:
        potential: V(t, x), a scalar.
        force, gauge: f(t, x) and A(t, x), vectors like x.

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
