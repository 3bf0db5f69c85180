"""A cost at the end, in the place of a law: ψ(T, y) = e^{−cost(y)}."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float

from .box import Box


class Cost(eqx.Module):
    """A cost at the end in the place of a law: ψ_K = e^{−cost}, which leaves the end free.

    Example:
        >>> Cost(lambda y: y @ y).function(jnp.ones(2))
        Array(2., dtype=float32)
    """

    function: Callable[[Float[Array, " d"]], Float[Array, ""]]


class LawAsCost(eqx.Module):
    """log G(0, x₀ → T, y) − log p̃(y)."""

    box: Box
    log_green: Float[Array, "*cells"]
    end: Any

    def __call__(self, y: Float[Array, " d"]) -> Float[Array, ""]:
        return self.box.interpolated(self.log_green, y) - self.end.log_density(y)
