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
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._maths.maps import apply
from .._maths.small import HIGHEST, matmul, transpose
from ..process.bridge import Observation
from .base import ExactlyTilted, WithCovariance, WithDraws, WithMass, discrete
from .chunks import chunk_of, cut, squared_distances, weighted_mean
from .sums import Blocks, Rows, Sums, terms_of

_MATRICES_UP_TO = 32
"""Dimension up to which the `Moment` step takes whole covariances: they are then no larger than a chunk of weights."""


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
        masses = self.blocks.totals * terms_of(self.blocks.maxima, self.maximum)[..., None]
        masses = discrete(masses.ravel())
        coarse, fine = jax.random.uniform(key, (2,), masses.dtype)
        total = jnp.sum(masses)
        chosen, before = _passed(masses, coarse * total)
        position = coarse * total - before + fine * jnp.finfo(masses.dtype).eps * total
        chunk, number = chosen // (size // block), chosen % (size // block)
        shard, chunk = chunk // count, chunk % count
        start = jnp.minimum(chunk * size, length - size) + number * block
        rows = data.at(shard, start, block, chunk * size)
        within, _ = _passed(terms_of(rows.log_joint(self.seen), self.maximum), position)
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
        some = cut(rows, start, size)
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
                terms = terms_of(log_joint, maximum)
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
