"""Sums over a weighted data set that was seen through ζ = A y + N(0, I), in parts that can be joined.

    l_i = log w_i − ½|ζ − A y_i|²,       m = max l,       Σ e^{l − m} f

Two parts are joined by bringing them to one m.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._maths.maps import Map, adjoint, apply
from .._maths.small import matvec
from ..process.bridge import Observation

_PRODUCTS_ABOVE = 16
"""Dimension above which |ζ − A y|² is expanded into matrix products; the log-mass is restored by one difference."""


class Rows(NamedTuple):
    """Some of the data: the points, as they are stored or less the centre, and ½|y|² of them less the centre."""

    points: Float[Array, "c d"]
    log_weights: Float[Array, " c"]
    half_norms: Float[Array, " c"]
    labels: Int[Array, " c"] | None

    def log_joint(self, observation: Observation) -> Float[Array, " c"]:
        """l_i of points less the centre; above 16 dimensions short of its −½|ζ|², common to all points."""
        gain, value = observation
        if self.points.shape[-1] > _PRODUCTS_ABOVE:
            return self.log_weights + matvec(self.points, apply(adjoint(gain), value)) - self._half_norms_seen(gain)
        seen = jax.vmap(lambda point: apply(gain, point))(self.points)
        return self.log_weights - 0.5 * jnp.sum((value[None] - seen) ** 2, axis=-1)

    def _half_norms_seen(self, gain: Map) -> Float[Array, " c"]:
        """½|A y_i|², from the norms computed once where A is a scalar."""
        if gain.ndim == 0:
            return gain**2 * self.half_norms
        return 0.5 * jnp.sum(jax.vmap(lambda point: apply(gain, point))(self.points) ** 2, axis=-1)


class Sums(NamedTuple):
    """Of a part of the data: m = max l, the row where it is, and Σ e^{l − m} f for f = 1, e^{l − m}, m − l, and others."""

    maximum: Float[Array, "*parts"]
    nearest: Int[Array, "*parts"]
    total: Float[Array, "*parts"]
    squares: Float[Array, "*parts"]
    surprise: Float[Array, "*parts"]
    others: Any

    @property
    def entropy(self) -> Float[Array, ""]:
        """−Σ p log p = log Σ e^{l − m} + Σ p (m − l)."""
        return jnp.log(self.total) + self.surprise / self.total

    def joined(self) -> "Sums":
        """The sums of the parts along the leading axis, brought to one m."""
        largest = jnp.argmax(self.maximum)
        maximum = self.maximum[largest]
        fall = jnp.where(jnp.isfinite(self.maximum), maximum - self.maximum, 0)

        def brought(sums):
            return jnp.sum(jnp.exp(-fall).reshape(-1, *[1] * (sums.ndim - 1)) * sums, axis=0)

        squares = brought(jnp.exp(-fall) * self.squares)
        surprise = brought(self.surprise + fall * self.total)
        others = jax.tree.map(brought, self.others)
        return Sums(maximum, self.nearest[largest], brought(self.total), squares, surprise, others)


class Blocks(NamedTuple):
    """Σ e^{l − m} over each block of each chunk, and the m of the chunk, in the order of the data."""

    totals: Float[Array, "*shards chunks blocks"]
    maxima: Float[Array, "*shards chunks"]


def terms_of(log_joint: Float[Array, "..."], maximum: Float[Array, ""]) -> Float[Array, "..."]:
    """e^{l − m}; zeros where every l is −∞."""
    return jnp.exp(log_joint - jnp.where(jnp.isfinite(maximum), maximum, 0))
