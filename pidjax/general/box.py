"""A box of cells: where the equations are solved.

Cells of equal size, centres x_i = lower + (i + ½) h along each axis. Nothing leaves the box, nor enters a cell whose centre is
not `inside`: walls reflect.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from .._doors.checks import as_floating, as_point, as_positive, check_count, check_kind, concrete
from .._doors.functions import outcome
from .._doors.show import shown
from ..targets.base import AbstractTarget

MOST_DIMENSIONS = 3
_REACH = 6.0
_NOISES = 4.0


class Box(eqx.Module):
    """Cells of a box in one to three dimensions.

    Args:
        lower, upper: its corners, shape (d,).
        shape: cells along each axis, d of them.
        inside: a function of a point to whether it is inside the walls; all are, if left out.

    Raises:
        ValueError: corners that are no points of one to three dimensions, or not below each other; counts below 2, or not one
            for each axis; a function that does not give one truth value; no cell inside.

    Example:
        >>> box = Box([-1.0, -1.0], [1.0, 1.0], (4, 2))
        >>> box.points[0, 1].tolist(), float(box.volume)
        ([-0.75, 0.5], 0.5)
    """

    lower: Float[Array, " d"]
    upper: Float[Array, " d"]
    shape: tuple[int, ...] = eqx.field(static=True)
    inside: Callable[[Float[Array, " d"]], Bool[Array, ""]] | None

    def __init__(
        self,
        lower: ArrayLike,
        upper: ArrayLike,
        shape: tuple[int, ...],
        inside: Callable[[Float[Array, " d"]], Bool[Array, ""]] | None = None,
    ):
        self.lower = as_floating("lower", lower)
        self.upper = as_floating("upper", upper).astype(self.lower.dtype)
        if self.lower.ndim != 1 or not 1 <= self.lower.size <= MOST_DIMENSIONS or self.upper.shape != self.lower.shape:
            raise ValueError(
                f"lower has shape {self.lower.shape} and upper {self.upper.shape}; pass two corners in one to three dimensions"
            )
        known = concrete(self.upper - self.lower)
        if known is not None and not (known > 0).all():
            raise ValueError(f"upper is not above lower in every coordinate: upper − lower is {known.tolist()}")
        check_kind("shape", shape, tuple | list, "the numbers of cells along the axes, as (128, 128)")
        self.shape = tuple(check_count("shape", number) for number in shape)
        if len(self.shape) != self.lower.size or min(self.shape) < 2:
            raise ValueError(f"shape is {self.shape}; pass {self.lower.size} counts of cells, each >= 2")
        self.inside = inside
        if inside is not None:
            found = outcome("inside", inside, self.lower)
            if getattr(found, "shape", None) != () or found.dtype != bool:
                raise ValueError("inside does not return one truth value for one point; return x[0] > 0, or the like")
            known = concrete(self.are_inside)
            if known is not None and not known.any():
                raise ValueError("inside holds at no centre of a cell; make the cells smaller, or check its sign")

    @classmethod
    def around(
        cls,
        target: AbstractTarget,
        start: ArrayLike | None = None,
        *,
        cells: int = 128,
        horizon: float = 1.0,
        inside: Callable[[Float[Array, " d"]], Bool[Array, ""]] | None = None,
    ) -> "Box":
        """A box with room for a target, 6 of its standard deviations each way, and for the start, with 4 of the noise's.

        Args:
            target: a target of one to three dimensions.
            start: x₀, shape (d,); the origin if left out.
            cells: along each axis.
            horizon: the time that paths take.
            inside: as of `Box`.

        Raises:
            ValueError: no target; a start of another shape; a horizon that is not positive; as `Box`.

        Example:
            >>> target = pid.GaussianMixture.isotropic(jnp.array([[4.0]]), 0.5)
            >>> Box.around(target)
            Box(lower=[-4], upper=[8.243], shape=(128,))
        """
        check_kind("target", target, AbstractTarget, "a target, whose place and width are known")
        place = target.place()
        start = jnp.zeros_like(place.mean) if start is None else as_point("start", start, target.dim)
        start = start.astype(place.mean.dtype)
        noise = _NOISES * jnp.sqrt(as_positive("horizon", horizon)).astype(place.mean.dtype)
        lower = jnp.minimum(start - noise, place.mean - _REACH * place.spread)
        upper = jnp.maximum(start + noise, place.mean + _REACH * place.spread)
        return cls(lower, upper, (cells,) * lower.size, inside)

    def __repr__(self):
        walls = {} if self.inside is None else {"inside": self.inside}
        return shown("Box", lower=self.lower, upper=self.upper, shape=self.shape, **walls)

    @property
    def dim(self) -> int:
        """The dimension d."""
        return len(self.shape)

    @property
    def spacing(self) -> Float[Array, " d"]:
        """h, of each axis."""
        return (self.upper - self.lower) / jnp.asarray(self.shape, self.lower.dtype)

    @property
    def volume(self) -> Float[Array, ""]:
        """Of a cell."""
        return jnp.prod(self.spacing)

    @property
    def points(self) -> Float[Array, "*cells d"]:
        """The centres."""
        return self._mesh([self.centres(axis) for axis in range(self.dim)])

    @property
    def are_inside(self) -> Bool[Array, "*cells"]:
        """Which cells are inside the walls."""
        if self.inside is None:
            return jnp.ones(self.shape, bool)
        return at_points(self.inside, self.points)

    def centres(self, axis: int) -> Float[Array, " n"]:
        """Of the cells along an axis."""
        numbers = jnp.arange(self.shape[axis]).astype(self.lower.dtype)
        return self.lower[axis] + (numbers + 0.5) * self.spacing[axis]

    def faces(self, axis: int) -> Float[Array, "*faces d"]:
        """The middles of the faces between cells that are neighbours along an axis."""
        coordinates = [self.centres(other) for other in range(self.dim)]
        coordinates[axis] = coordinates[axis][:-1] + 0.5 * self.spacing[axis]
        return self._mesh(coordinates)

    def refined(self) -> "Box":
        """The same box with cells of half the size."""
        return Box(self.lower, self.upper, tuple(2 * number for number in self.shape), self.inside)

    def nearest(self, x: Float[Array, "*n d"]) -> tuple[Int[Array, " *n"], ...]:
        """The indices of the cells that points lie in; of the nearest, for points outside."""
        places = [(x[..., axis] - self.lower[axis]) / self.spacing[axis] for axis in range(self.dim)]
        return tuple(jnp.clip(jnp.floor(place).astype(int), 0, n - 1) for place, n in zip(places, self.shape))

    def interpolated(self, values: Float[Array, "*cells"], x: Float[Array, " d"]) -> Float[Array, ""]:
        """Values of the cells at a point, linear between the centres; outside of the box those of the nearest cell.

        Example:
            >>> Box([0.0], [2.0], (2,)).interpolated(jnp.array([1.0, 3.0]), jnp.array([0.75])).item()
            1.5
        """
        place = (x - self.lower) / self.spacing - 0.5
        return map_coordinates(values, list(place), order=1, mode="nearest")

    def _mesh(self, coordinates) -> Float[Array, "*cells d"]:
        return jnp.stack(jnp.meshgrid(*coordinates, indexing="ij"), axis=-1)


def at_points(function: Callable, points: Float[Array, "*cells d"]) -> Array:
    """The function of one point, at all of them."""
    for _ in range(points.ndim - 1):
        function = jax.vmap(function)
    return function(points)
