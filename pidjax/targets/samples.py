"""A weighted data set: tilted, it is the same points with other weights.

For p = Σ_i w_i δ(y − y_i) seen through ζ = A y + N(0, I), the weights are a softmax,

    w_i(ζ)  ∝  w_i exp(−½ |ζ − A y_i|²):

attention with query ζ, keys and values y. The points are streamed in chunks with a running log-sum-exp, so that memory is
one chunk of weights a particle; a draw takes one uniform number a chunk (a running reservoir), not one a point.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._doors.checks import as_floating, check_single, normalised_weights
from .._doors.show import of_numbers, shown
from .._maths.maps import Map, adjoint, apply
from .._maths.small import HIGHEST, matvec
from ..process.bridge import Observation
from .base import AbstractTarget, ExactlyTilted, Place, WithCovariance, WithDraws, WithMass, discrete

_CHUNK = 1024
_PRODUCTS_ABOVE = 16
"""Dimension above which |ζ − A y|² is expanded into matrix products; the log-mass is restored by one difference."""


class Chunks(NamedTuple):
    """The points cut into chunks of one size, the last filled up with points of weight zero."""

    points: Float[Array, "chunks c d"]
    log_weights: Float[Array, "chunks c"]
    half_norms: Float[Array, "chunks c"]

    @classmethod
    def of(cls, points: Float[Array, "n d"], log_weights: Float[Array, " n"]) -> "Chunks":
        n, d = points.shape
        count = -(-n // _CHUNK)
        size = -(-n // count)
        filler = count * size - n
        if filler:
            points = jnp.pad(points, ((0, filler), (0, 0)))
            log_weights = jnp.pad(log_weights, (0, filler), constant_values=-jnp.inf)
        points = points.reshape(count, size, d)
        return cls(points, log_weights.reshape(count, size), 0.5 * jnp.sum(points**2, axis=-1))

    def log_joint(self, observation: Observation) -> Float[Array, "*chunks c"]:
        """log w_i − ½|ζ − A y_i|², of one chunk; above 16 dimensions short of its −½|ζ|², common to all points."""
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


def _finite(maximum):
    return jnp.where(jnp.isfinite(maximum), maximum, 0)


class TiltedSamples(WithMass, WithCovariance, WithDraws):
    """A data set as a law: the chunks of its points less their centre, the observation that tilts them, log-mass, mean."""

    log_mass: Float[Array, ""]
    mean: Float[Array, " d"]
    chunks: Chunks
    centre: Float[Array, " d"]
    observation: Observation

    def __init__(self, chunks: Chunks, centre: Float[Array, " d"], observation: Observation):
        gain, value = observation.gain, observation.value - apply(observation.gain, centre)
        observation = Observation(gain, value)

        @jax.checkpoint
        def absorb(carry, chunk: Chunks):
            maximum, total, moment, nearest = carry
            log_joint = chunk.log_joint(observation)
            best = jnp.argmax(log_joint)
            risen = log_joint[best] > maximum
            new_maximum = jnp.where(risen, log_joint[best], maximum)
            old = jnp.exp(maximum - _finite(new_maximum))
            terms = jnp.exp(log_joint - _finite(new_maximum))
            nearest = jnp.where(risen, jnp.append(chunk.points[best], chunk.log_weights[best]), nearest)
            return (new_maximum, total * old + jnp.sum(terms), moment * old + terms @ chunk.points, nearest), None

        none = jnp.full((), -jnp.inf, value.dtype), jnp.zeros((), value.dtype), jnp.zeros_like(value)
        start = (*none, jnp.zeros(value.size + 1, value.dtype))
        (_, total, moment, nearest), _ = jax.lax.scan(absorb, start, chunks)
        at_nearest = nearest[-1] - 0.5 * jnp.sum((value - apply(gain, nearest[:-1])) ** 2)
        self.log_mass = at_nearest + jnp.log(total)
        self.mean = centre + moment / total
        self.chunks, self.centre, self.observation = chunks, centre, observation

    def covariance(self):
        @jax.checkpoint
        def absorb(carry, chunk: Chunks):
            maximum, total, moment = carry
            log_joint = chunk.log_joint(self.observation)
            new_maximum = jnp.maximum(maximum, jnp.max(log_joint))
            old = jnp.exp(maximum - _finite(new_maximum))
            terms = jnp.exp(log_joint - _finite(new_maximum))
            offsets = chunk.points - (self.mean - self.centre)[None]
            product = jnp.matmul((terms[:, None] * offsets).T, offsets, precision=HIGHEST)
            return (new_maximum, total * old + jnp.sum(terms), moment * old + product), None

        d, dtype = self.mean.size, self.mean.dtype
        start = jnp.full((), -jnp.inf, dtype), jnp.zeros((), dtype), jnp.zeros((d, d), dtype)
        (_, total, moment), _ = jax.lax.scan(absorb, start, self.chunks)
        return moment / total

    def draw(self, key):
        """The running reservoir: chunk by chunk, the choice moves into the chunk with the chunk's share of the mass."""
        count, size, _ = self.chunks.points.shape

        def absorb(carry, indexed):
            maximum, total, chosen = carry
            number, chunk = indexed
            log_joint = discrete(chunk.log_joint(self.observation))
            new_maximum = jnp.maximum(maximum, jnp.max(log_joint))
            cumulative = jnp.cumsum(jnp.exp(log_joint - _finite(new_maximum)))
            kept = total * jnp.exp(maximum - _finite(new_maximum))
            uniform = jax.random.uniform(jax.random.fold_in(key, number), (), cumulative.dtype)
            position = uniform * (kept + cumulative[-1]) - kept
            within = jnp.sum(cumulative[:-1] <= position)
            return (new_maximum, kept + cumulative[-1], jnp.where(position >= 0, number * size + within, chosen)), None

        start = jnp.full((), -jnp.inf, self.mean.dtype), jnp.zeros((), self.mean.dtype), 0
        (_, _, chosen), _ = jax.lax.scan(absorb, start, (jnp.arange(count), self.chunks))
        return self.centre + self.chunks.points.reshape(count * size, -1)[chosen]


class StreamedSamples(ExactlyTilted):
    """A data set less its centre, cut into chunks, the norms computed once: what the rollout works with."""

    chunks: Chunks
    centre: Float[Array, " d"]

    @classmethod
    def of(cls, points: Float[Array, "n d"], log_weights: Float[Array, " n"]) -> "StreamedSamples":
        """Points and log-weights, which need not be normalised; far from the origin the products would lose digits."""
        centre = jax.nn.softmax(log_weights) @ points
        return cls(Chunks.of(points - centre[None], log_weights), centre)

    def tilt(self, observation, key=None):
        return TiltedSamples(self.chunks, self.centre, observation)


def mean_and_spread(
    points: Float[Array, "n d"], weights: Float[Array, " n"]
) -> tuple[Float[Array, " d"], Float[Array, ""]]:
    """The mean of weighted points, and their standard deviation per coordinate; 1 for a single one."""
    mean = weights @ points
    variance = jnp.mean(weights @ (points - mean[None]) ** 2)
    return mean, jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1)), 1)


class Samples(AbstractTarget, ExactlyTilted):
    """A data set Σ_i w_i δ(y − y_i) as the target: what comes out at t = 1 are its points.

    Args:
        points: y, shape (n, d).
        weights: w, shape (n,), not negative; scaled to sum to one. Equal by default.

    Raises:
        ValueError: an empty data set, wrong shapes, NaN, weights negative or all zero.

    Example:
        >>> Samples(jnp.array([[0.0], [1.0]])).dim
        1

    Source: Behjoo & Chertkov, arXiv 2409.15166 ("sampling from samples").
    """

    points: Float[Array, "n d"]
    weights: Float[Array, " n"]

    def __init__(self, points, weights=None):
        points = as_floating("points", points)
        if points.ndim != 2 or 0 in points.shape:
            raise ValueError(
                f"points has shape {points.shape}; pass shape (n, d) with n >= 1 points in d >= 1 dimensions"
            )
        self.points = points
        self.weights = normalised_weights("weights", weights, points.shape[0], points.dtype)

    def __repr__(self):
        if self.points.ndim > 2:
            return shown("Samples", points=self.points.shape[-2], dim=self.dim, batch=self.points.shape[:-2])

        def moments(own):
            mean = own.weights @ own.points
            return {"mean": mean, "sd": jnp.sqrt(own.weights @ (own.points - mean[None]) ** 2)}

        return shown("Samples", points=self.points.shape[0], dim=self.dim, **of_numbers(moments, self))

    @property
    def dim(self) -> int:
        return self.points.shape[-1]

    def tilt(self, observation: Observation, key=None) -> TiltedSamples:
        return self.rescaled(jnp.zeros(self.dim, self.points.dtype), jnp.ones((), self.points.dtype)).tilt(observation)

    def place(self):
        """Its narrowest width is that at which nearest points come apart: half their squared distance/d is its square.

        Distances are those of at most 512 points to each other.
        """
        check_single("the data set", self.points, 2)
        mean, spread = mean_and_spread(self.points, self.weights)
        points = jax.lax.stop_gradient(self.points)
        some = points[:: max(1, points.shape[0] // 512)][:512]
        norms = jnp.sum(some**2, axis=-1)
        squared = norms[:, None] + norms[None] - 2 * jnp.matmul(some, some.T, precision=HIGHEST)
        resolution = jnp.finfo(points.dtype).eps * jnp.max(norms)
        nearest = jnp.min(jnp.where(squared > 100 * resolution, squared, jnp.inf), axis=-1)
        typical = jnp.median(jnp.where(jnp.isfinite(nearest), nearest, 1)) / (2 * self.dim)
        return Place(mean, spread, narrowest=jnp.minimum(jnp.sqrt(typical), spread * 5**0.5))

    def rescaled(self, shift, scale):
        alive = self.weights > 0
        log_weights = jnp.where(alive, jnp.log(jnp.where(alive, self.weights, 1)), -jnp.inf)
        return StreamedSamples.of((self.points - shift[None]) / scale, log_weights)
