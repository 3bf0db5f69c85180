"""A weighted data set: tilted, it is the same points with other weights.

For p = Σ_i w_i δ(y − y_i) seen through ζ = A y + N(0, I), the weights are a softmax,

    p_i(ζ)  ∝  e^{l_i},     l_i = log w_i − ½|ζ − A y_i|²:

attention with query ζ, keys and values y. The points are streamed in chunks: of each part of the data the sums of e^{l − m} f,
m = max l, are kept, and two parts are joined by bringing them to one m. What is asked of the law is such a sum:

    log-mass    log Σ e^l                     mean       Σ p_i y_i
    entropy     H(i | ζ) = −Σ p_i log p_i     classes    P(c | ζ) = Σ p_i [class of i is c]
    agreement   Σ p_i², that two draws are one point

and a draw inverts their running sum, by one uniform number, through the sums over blocks of √(n/d) points. It is the same draw
whatever the chunks and the devices, to rounding.

The data are kept once and as they are: the observation is brought to them, and each chunk is centred when it is read. Beside
them the stream takes a chunk of points, and for each ζ a chunk of weights and the sums over the blocks.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from .._doors.checks import as_labels, as_point, as_stored, check_count, check_single, normalised_weights
from .._doors.show import of_numbers, shown
from .._maths.maps import Map, adjoint, apply
from .._maths.small import HIGHEST, matmul, matvec, transpose
from ..process.bridge import Observation
from .base import AbstractTarget, ExactlyTilted, Place, WithCovariance, WithDraws, WithMass, discrete

_POINTS_PER_CHUNK, _NUMBERS_PER_CHUNK = 1024, 2**22
_PRODUCTS_ABOVE = 16
"""Dimension above which |ζ − A y|² is expanded into matrix products; the log-mass is restored by one difference."""
_MATRICES_UP_TO = 32
"""Dimension up to which the `Moment` step takes whole covariances: they are then no larger than a chunk of weights."""


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


def _terms(log_joint: Float[Array, "..."], maximum: Float[Array, ""]) -> Float[Array, "..."]:
    """e^{l − m}; zeros where every l is −∞."""
    return jnp.exp(log_joint - jnp.where(jnp.isfinite(maximum), maximum, 0))


class TiltedSamples(WithMass, WithCovariance, WithDraws):
    """A data set as a law.

    Attributes:
        entropy: H(i | ζ), of which point it is.
        agreement: Σ p_i², the probability that two draws are one point.
        nearest: the row of the likeliest point.
        class_probabilities: P(c | ζ), shape (C,), of labelled data; None without labels.
        data: what was tilted.
        seen: the observation, of the data less their centre.
        maximum, blocks: m = max l, and the sums that draws are made by.
    """

    log_mass: Float[Array, ""]
    mean: Float[Array, " d"]
    entropy: Float[Array, ""]
    agreement: Float[Array, ""]
    nearest: Int[Array, ""]
    class_probabilities: Float[Array, " C"] | None
    data: "StreamedSamples"
    seen: Observation
    maximum: Float[Array, ""]
    blocks: Blocks

    def __init__(self, data: "StreamedSamples", observation: Observation):
        self.data, self.seen = data, data.seen(observation)
        gain, value = self.seen

        def others(terms, rows: Rows):
            moment = jnp.matmul(terms, rows.points, precision=HIGHEST)
            if rows.labels is None:
                return moment, None
            classes = jax.nn.one_hot(rows.labels, data.num_classes, dtype=terms.dtype)
            return moment, jnp.matmul(terms, classes, precision=HIGHEST)

        sums, self.blocks = data.stream(self.seen, others)
        moment, classes = sums.others
        nearest = data.at(*data.place_of(sums.nearest), 1)
        distance = value - apply(gain, nearest.points[0])
        self.log_mass = nearest.log_weights[0] - 0.5 * jnp.sum(distance**2) + jnp.log(sums.total)
        self.mean = data.origin + moment / sums.total / data.scale
        self.entropy, self.maximum = sums.entropy, sums.maximum
        self.agreement, self.nearest = sums.squares / sums.total**2, sums.nearest
        self.class_probabilities = None if classes is None else classes / sums.total

    def covariance(self):
        mean = (self.mean - self.data.origin) * self.data.scale

        def others(terms, rows: Rows):
            offsets = rows.points - mean[None]
            return matmul(transpose(terms[:, None] * offsets), offsets)

        sums, _ = self.data.stream(self.seen, others)
        return sums.others / sums.total / self.data.scale**2

    def step_covariance(self):
        """Beyond 32 dimensions Σ p_i (y_i − x̂)² of each coordinate alone: no d × d matrix for each path."""
        if self.mean.size <= _MATRICES_UP_TO:
            return self.covariance()
        sums, _ = self.data.stream(self.seen, lambda terms, rows: jnp.matmul(terms, rows.points**2, precision=HIGHEST))
        offset = self.mean - self.data.origin
        return jnp.maximum(sums.others / sums.total / self.data.scale**2 - offset**2, 0)

    def draw(self, key):
        """The point where the running sum of the weights passes a uniform number, of which the blocks tell where to look."""
        data = self.data
        shards, count, size, block = data.layout
        length = data.rows.points.shape[0] // shards
        masses = self.blocks.totals * _terms(self.blocks.maxima, self.maximum)[..., None]
        masses = discrete(masses.ravel())
        coarse, fine = jax.random.uniform(key, (2,), masses.dtype)
        total = jnp.sum(masses)
        chosen, before = _passed(masses, coarse * total)
        position = coarse * total - before + fine * jnp.finfo(masses.dtype).eps * total
        chunk, number = chosen // (size // block), chosen % (size // block)
        shard, chunk = chunk // count, chunk % count
        start = jnp.minimum(chunk * size, length - size) + number * block
        rows = data.at(shard, start, block, chunk * size)
        within, _ = _passed(_terms(rows.log_joint(self.seen), self.maximum), position)
        return data.origin + rows.points[within] / data.scale


def _passed(masses: Float[Array, " n"], position: Float[Array, ""]) -> tuple[Int[Array, ""], Float[Array, ""]]:
    """The first of positive mass where the running sum passes a position, else one of positive mass; the sum before it."""
    running = jnp.cumsum(masses)
    chosen = jnp.argmax(jnp.where(masses > 0, jnp.where(running > position, 2, 1), 0))
    return chosen, running[chosen] - masses[chosen]


class StreamedSamples(ExactlyTilted):
    """A data set in the unit problem y' = (y − shift)/scale, its norms computed once: what the rollout works with.

    Attributes:
        rows: the points as they are stored, the user's own array.
        centre: c, their mean; far from the origin the products would lose digits.
        origin: (c − shift)/scale.
        chunk, shards, num_classes: points in a chunk at most, parts that the data are laid out in on devices, labels.
    """

    rows: Rows
    centre: Float[Array, " d"]
    origin: Float[Array, " d"]
    scale: Float[Array, ""]
    chunk: int = eqx.field(static=True)
    shards: int = eqx.field(static=True)
    num_classes: int = eqx.field(static=True, default=0)

    @classmethod
    def of(
        cls, points: Float[Array, "n d"], log_weights: Float[Array, " n"], chunk: int | None = None, shards: int = 1
    ) -> "StreamedSamples":
        """Points and log-weights, which need not be normalised."""
        chunk = chunk_of(points.shape[-1]) if chunk is None else chunk
        centre = weighted_mean(points, jax.nn.softmax(log_weights), chunk, shards)
        half_norms = 0.5 * squared_distances(points, centre, chunk, shards)
        rows = Rows(points, log_weights, half_norms, None)
        return cls(rows, centre, centre, jnp.ones((), centre.dtype), chunk, shards)

    @property
    def dim(self) -> int:
        return self.rows.points.shape[-1]

    @property
    def layout(self) -> tuple[int, int, int, int]:
        """Shards, chunks in a shard, points in a chunk, and points in a block, of which a chunk holds a whole number."""
        n, d = self.rows.points.shape
        length = n // self.shards
        size = -(-length // -(-length // self.chunk))
        block = max(1, min(size, math.isqrt(length // d)))
        rounded = -(-size // block) * block
        if rounded > length:
            block, rounded = 1, size
        return self.shards, -(-length // rounded), rounded, block

    def read(self, rows: Rows, start: Int[Array, ""], size: int, begin: Int[Array, ""] | int = 0) -> Rows:
        """Rows of a number from `start` on, less the centre; those before `begin` have no weight."""
        some = _cut(rows, start, size)
        points = some.points.astype(self.centre.dtype) - self.centre[None]
        log_weights = jnp.where(start + jnp.arange(size) >= begin, some.log_weights, -jnp.inf)
        return some._replace(points=points, log_weights=log_weights)

    @property
    def split(self) -> Rows:
        """The rows of each shard."""
        return jax.tree.map(lambda leaf: leaf.reshape(self.shards, -1, *leaf.shape[1:]), self.rows)

    def place_of(self, row: Int[Array, ""]) -> tuple[Int[Array, ""], Int[Array, ""]]:
        """The shard of a row, and its number there."""
        length = self.rows.points.shape[0] // self.shards
        return row // length, row % length

    def at(self, shard: Int[Array, ""], start: Int[Array, ""], size: int, begin: Int[Array, ""] | int = 0) -> Rows:
        """Rows of one shard, as `read` gives them; each device looks at its own, for one to find them."""
        if self.shards == 1:
            return self.read(self.rows, start, size, begin)
        own = jax.vmap(lambda rows: self.read(rows, start, size, begin))(self.split)

        def found(leaf):
            is_there = (jnp.arange(self.shards) == shard).reshape(-1, *[1] * (leaf.ndim - 1))
            return jnp.sum(jnp.where(is_there, leaf, 0), axis=0)

        return jax.tree.map(found, own)

    def stream(self, seen: Observation, others: Callable[[Float[Array, " c"], Rows], Any]) -> tuple[Sums, Blocks]:
        """The sums over all data, with those that `others` makes of e^{l − m} and a chunk of rows."""
        shards, count, size, block = self.layout

        def of_shard(rows: Rows, offset):
            def part(number):
                begin = number * size
                start = jnp.minimum(begin, rows.points.shape[0] - size)
                some = self.read(rows, start, size, begin)
                log_joint = some.log_joint(seen)
                nearest = jnp.argmax(log_joint)
                maximum = log_joint[nearest]
                terms = _terms(log_joint, maximum)
                surprise = jnp.sum(terms * jnp.where(terms > 0, maximum - log_joint, 0))
                counted = jnp.sum(terms), jnp.sum(terms**2), surprise
                sums = Sums(maximum, offset + start + nearest, *counted, others(terms, some))
                return sums, Blocks(jnp.sum(terms.reshape(-1, block), axis=1), maximum)

            @jax.checkpoint
            def absorb(sums, number):
                new, blocks = part(number)
                return jax.tree.map(lambda *leaves: jnp.stack(leaves), sums, new).joined(), blocks

            empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(part, 0)[0])
            empty = empty._replace(maximum=jnp.full_like(empty.maximum, -jnp.inf))
            return jax.lax.scan(absorb, empty, jnp.arange(count))

        if shards == 1:
            return of_shard(self.rows, 0)
        split = self.split
        sums, blocks = jax.vmap(of_shard)(split, jnp.arange(shards) * split.points.shape[1])
        return sums.joined(), blocks

    def seen(self, observation: Observation) -> Observation:
        """An observation of y', as one of the data less their centre."""
        gain, value = observation
        return Observation(gain / self.scale, value - apply(gain, self.origin))

    def tilt(self, observation, key=None):
        return TiltedSamples(self, observation)


def chunk_of(dim: int) -> int:
    """Points in a chunk by default: 1,024, or fewer where they hold more than 16 MB in single precision."""
    return max(1, min(_POINTS_PER_CHUNK, _NUMBERS_PER_CHUNK // dim))


def _cut(rows: Any, start: Int[Array, ""], size: int) -> Any:
    """Rows from `start` on. Of half precision, a compiler would else convert all of them, once for all chunks."""
    if any(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(rows)):
        rows, start = jax.lax.optimization_barrier((rows, start))
    return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, size), rows)


def _by_chunks(function: Callable, rows: Any, chunk: int, shards: int) -> Any:
    """A function of each chunk of rows and of which of them no chunk before has: the values of each shard, stacked."""

    def of_shard(rows):
        length = jax.tree.leaves(rows)[0].shape[0]
        size = min(chunk, length)

        def of_chunk(begin):
            start = jnp.minimum(begin, length - size)
            return function(_cut(rows, start, size), start + jnp.arange(size) >= begin)

        return jax.lax.map(of_chunk, jnp.arange(0, length, size))

    return jax.vmap(of_shard)(jax.tree.map(lambda leaf: leaf.reshape(shards, -1, *leaf.shape[1:]), rows))


def weighted_mean(
    points: Float[Array, "n d"], weights: Float[Array, " n"], chunk: int, shards: int = 1
) -> Float[Array, " d"]:
    """Σ w_i y_i; of points that are stored in another dtype than that of the weights in chunks, without a copy."""
    if points.dtype == weights.dtype:
        return weights @ points

    def moment(rows, is_new):
        points, weights = rows
        return jnp.where(is_new, weights, 0) @ points.astype(weights.dtype)

    return jnp.sum(_by_chunks(moment, (points, weights), chunk, shards), axis=(0, 1))


def squared_distances(
    points: Float[Array, "n d"], centre: Float[Array, " d"], chunk: int, shards: int = 1
) -> Float[Array, " n"]:
    """|y_i − c|², in chunks: a compiler makes a copy of the points otherwise."""

    def distances(points, is_new):
        return jnp.sum((points.astype(centre.dtype) - centre[None]) ** 2, axis=-1)

    parts = _by_chunks(distances, points, chunk, shards)
    length, again = len(points) // shards, parts[0].size - len(points) // shards
    whole, last = parts[:, :-1].reshape(shards, -1), parts[:, -1, again:]
    return jnp.concatenate([whole, last], axis=1).reshape(shards * length)


def mean_and_spread(
    points: Float[Array, "n d"], weights: Float[Array, " n"], chunk: int | None = None, shards: int = 1
) -> tuple[Float[Array, " d"], Float[Array, ""]]:
    """The mean of weighted points, and their standard deviation per coordinate; 1 for a single one."""
    chunk = chunk_of(points.shape[-1]) if chunk is None else chunk
    mean = weighted_mean(points, weights, chunk, shards)
    variance = weights @ squared_distances(points, mean, chunk, shards) / points.shape[-1]
    return mean, jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1)), 1)


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
