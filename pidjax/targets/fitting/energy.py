"""The energy in standard coordinates: place and scale are taken out once, here."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..._doors.functions import evaluate
from ..._maths.maps import apply, log_volume, product
from ..base import WithDensity


class Energy(eqx.Module):
    """log p'(y) = log p̃(shift + scale y) + log det scale, with a number or a lower triangular map; points are columns.

    −∞ is an answer (outside the support). NaN and +∞ are not: they are counted, and read as −∞.
    """

    log_density: Callable
    shift: Float[Array, " d"]
    scale: Float[Array, "*map"]

    def __call__(self, points: Float[Array, "d n"]) -> tuple[Float[Array, " n"], Int[Array, ""]]:
        def of_point(point):
            return evaluate(self.log_density, self.shift + apply(self.scale, point))

        values = jax.vmap(of_point, in_axes=1)(points).astype(points.dtype)
        values, invalid = as_read(values + log_volume(self.scale, self.shift.size))
        return values, jnp.sum(invalid)

    def with_slope(self, points: Float[Array, "d n"]) -> tuple[Float[Array, " n"], Float[Array, "d n"], Int[Array, ""]]:
        """log p', its gradient, 0 where it is not finite, and how many values were invalid."""

        def of_point(point):
            return evaluate(self.log_density, self.shift + apply(self.scale, point)).astype(point.dtype)

        values, slopes = jax.vmap(jax.value_and_grad(of_point), in_axes=1, out_axes=(0, 1))(points)
        values, invalid = as_read(values + log_volume(self.scale, self.shift.size))
        usable = jnp.isfinite(slopes).all(axis=0) & ~invalid
        return values, jnp.where(usable[None], slopes, 0), jnp.sum(invalid)

    def within(self, shift: Float[Array, " d"], scale: Float[Array, "*map"]) -> "Energy":
        """The same energy in the coordinates y' of y = shift + scale y'."""
        return Energy(
            self.log_density,
            self.shift + apply(self.scale, shift),
            product(self.scale, scale),
        )


def log_ratios(target: WithDensity, mixture: WithDensity, points: Float[Array, "n d"]) -> Float[Array, " n"]:
    """log p̃/p̂ at points, −∞ where it is NaN or +∞.

    Example:
        >>> flat = pid.Density(lambda y: 0 * y[0], 1)
        >>> log_ratios(pid.Density(lambda y: jnp.log(y[0]), 1), flat, jnp.array([[1.0], [-1.0]])).tolist()
        [0.0, -inf]
    """
    return as_read(jax.vmap(target.log_density)(points) - jax.vmap(mixture.log_density)(points))[0]


def as_read(values: Float[Array, " n"]) -> tuple[Float[Array, " n"], Bool[Array, " n"]]:
    """Log-densities with NaN and +∞ as −∞, and which they were.

    Example:
        >>> [part.tolist() for part in as_read(jnp.array([1.0, jnp.nan, -jnp.inf]))]
        [[1.0, -inf, -inf], [False, True, False]]
    """
    invalid = jnp.isnan(values) | (values == jnp.inf)
    return jnp.where(invalid, -jnp.inf, values), invalid
