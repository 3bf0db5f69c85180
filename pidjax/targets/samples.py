"""A data set as the target: what comes out at t = 1 are its points, and how it is tilted is told in `streamed`."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from .._doors.checks import as_labels, as_point, as_stored, check_count, check_single, normalised_weights
from .._doors.show import of_numbers, shown
from .._maths.small import matmul
from ..process.bridge import Observation
from .base import AbstractTarget, ExactlyTilted, Place
from .chunks import chunk_of, mean_and_spread, weighted_mean
from .streamed import StreamedSamples, TiltedSamples


class Samples(AbstractTarget, ExactlyTilted):
    """A data set Σ_i w_i δ(y − y_i) as the target: what comes out at t = 1 are its points.

    Args:
        points: y, shape (n, d); not copied. In bfloat16 they are kept so, and computed with in float32. Laid out over devices
            along n, each device streams its own.
        weights: w, shape (n,), not negative; scaled to sum to one. Equal by default.
        labels: class of each point, shape (n,), integers from 0 on.
        chunk: points that are read at once; by default 1,024, or fewer in more than 4,096 dimensions. Changes results by
            rounding only.

    Raises:
        ValueError: an empty data set, wrong shapes, NaN, weights negative or all zero, labels of another length.

    Example:
        >>> Samples(jnp.array([[0.0], [1.0]])).dim
        1

    Source: Behjoo & Chertkov, arXiv 2409.15166 ("sampling from samples").
    """

    points: Float[Array, "n d"]
    weights: Float[Array, " n"]
    labels: Int[Array, " n"] | None
    chunk: int = eqx.field(static=True)
    shards: int = eqx.field(static=True)
    num_classes: int = eqx.field(static=True)

    def __init__(self, points, weights=None, *, labels=None, chunk=None):
        points = as_stored("points", points)
        if points.ndim != 2 or 0 in points.shape:
            raise ValueError(
                f"points has shape {points.shape}; pass shape (n, d) with n >= 1 points in d >= 1 dimensions"
            )
        self.points = points
        dtype = jnp.float32 if points.dtype == jnp.bfloat16 else points.dtype
        self.weights = normalised_weights("weights", weights, points.shape[0], dtype)
        self.labels, self.num_classes = (None, 0) if labels is None else as_labels("labels", labels, points.shape[0])
        self.chunk = chunk_of(points.shape[1]) if chunk is None else check_count("chunk", chunk)
        self.shards = 1 if isinstance(points, Tracer) else len(points) // points.sharding.shard_shape(points.shape)[0]

    def __repr__(self):
        if self.points.ndim > 2:
            return shown("Samples", points=self.points.shape[-2], dim=self.dim, batch=self.points.shape[:-2])

        def moments(own):
            mean = weighted_mean(own.points, own.weights, own.chunk)
            squares = (own.points.astype(mean.dtype) - mean[None]) ** 2
            return {"mean": mean, "sd": jnp.sqrt(own.weights @ squares)}

        return shown("Samples", points=self.points.shape[0], dim=self.dim, **of_numbers(moments, self))

    @property
    def dim(self) -> int:
        return self.points.shape[-1]

    @property
    def numbers_per_tilt(self) -> int:
        return max(self.dim, min(self.chunk, self.points.shape[-2]))

    @property
    def is_spread(self) -> bool:
        return self.shards > 1

    def tilt(self, observation: Observation, key=None) -> TiltedSamples:
        return self.rescaled(jnp.zeros(self.dim, self.weights.dtype), jnp.ones((), self.weights.dtype)).tilt(
            observation
        )

    def nearest(self, y: Float[Array, " d"]) -> Int[Array, ""]:
        """The row of the datum nearest to y, of those that have a weight.

        Example:
            >>> Samples(jnp.array([[0.0], [1.0], [5.0]])).nearest(jnp.array([0.9])).item()
            1
        """
        dtype = self.weights.dtype
        y = as_point("y", y, self.dim).astype(dtype)
        alive = jnp.where(self.weights > 0, jnp.zeros((), dtype), -jnp.inf)
        data = StreamedSamples.of(self.points, alive, self.chunk, self.shards)
        return data.stream(data.seen(Observation(jnp.ones((), dtype), y)), lambda terms, rows: ())[0].nearest

    def place(self):
        """Its narrowest width is that at which nearest points come apart: half their squared distance/d is its square.

        Distances are those of at most 512 points to each other.
        """
        check_single("the data set", self.points, 2)
        mean, spread = mean_and_spread(self.points, self.weights, self.chunk, self.shards)
        points = jax.lax.stop_gradient(self.points)
        some = points[:: max(1, points.shape[0] // 512)][:512].astype(mean.dtype)
        norms = jnp.sum(some**2, axis=-1)
        squared = norms[:, None] + norms[None] - 2 * matmul(some, some.T)
        resolution = jnp.finfo(mean.dtype).eps * jnp.max(norms)
        nearest = jnp.min(jnp.where(squared > 100 * resolution, squared, jnp.inf), axis=-1)
        typical = jnp.median(jnp.where(jnp.isfinite(nearest), nearest, 1)) / (2 * self.dim)
        return Place(mean, spread, narrowest=jnp.minimum(jnp.sqrt(typical), spread * 5**0.5))

    def rescaled(self, shift, scale):
        alive = self.weights > 0
        log_weights = jnp.where(alive, jnp.log(jnp.where(alive, self.weights, 1)), -jnp.inf)
        data = StreamedSamples.of(self.points, log_weights, self.chunk, self.shards)
        rows, origin = data.rows._replace(labels=self.labels), (data.centre - shift) / scale
        return StreamedSamples(rows, data.centre, origin, scale, self.chunk, self.shards, self.num_classes)
