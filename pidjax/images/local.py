"""Denoisers that are no law: of each pixel the posterior mean of its window alone.

    x̂_p = Σ_i q_p(i) y_{i,p},     q_p(i) ∝ exp(−½ |(ζ − a y_i)_{Ω_p}|²)

for images seen through ζ = a y + N(0, I). Neighbouring pixels may follow different data: what comes out are images that no
datum is. With Ω_p the whole image it is the posterior mean of the data set, which ends on data. The means belong to no common
law: paths led by them have no weights, and their ends no likelihood.

The data are streamed in chunks, with the sums of e^{l − m} y of each pixel, m its own running maximum of l.

Source: Kamb & Ganguli, *An analytic theory of creativity in convolutional diffusion models*, arXiv 2412.20292.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._doors.checks import check_count, check_kind
from .._doors.show import shown
from .._maths.small import HIGHEST
from ..process.bridge import Observation
from ..targets.base import AbstractLaw, AbstractTarget, Place, Tilted
from ..targets.chunks import mean_and_spread
from .images import Images
from .windows import AbstractWindows, Sets, Square

_NUMBERS_PER_CHUNK = 2**16
_TURNS = 12
_FINEST = 10.0
"""The last step leaves noise of some 1/17 of the spread of a pixel: one is decided where K is 300 over its variance."""


class Denoised(AbstractLaw):
    """What is known of the end point: a mean of each pixel.

    Attributes:
        entropy: H(i | ζ_Ω) of each pixel, of which datum its window is, shape (h, w, 1), or (h, w, c) where channels differ.
    """

    mean: Float[Array, " d"]
    entropy: Float[Array, "h w g"]


class PixelSums(NamedTuple):
    """Of a part of the data, for each pixel: m = max l, and Σ e^{l − m} f for f = 1, f = m − l, f = y."""

    maximum: Float[Array, "h w g"]
    total: Float[Array, "h w g"]
    surprise: Float[Array, "h w g"]
    moment: Float[Array, "h w c"]

    def joined(self, other: "PixelSums") -> "PixelSums":
        """The sums of both parts, brought to one m."""
        maximum = jnp.maximum(self.maximum, other.maximum)

        def brought(part):
            fall = jnp.where(jnp.isfinite(part.maximum), maximum - part.maximum, 0)
            scale = jnp.exp(-fall)
            return scale * part.total, scale * (part.surprise + fall * part.total), scale * part.moment

        return PixelSums(maximum, *(a + b for a, b in zip(brought(self), brought(other), strict=True)))

    @property
    def law(self) -> Denoised:
        return Denoised((self.moment / self.total).ravel(), jnp.log(self.total) + self.surprise / self.total)


def pixel_sums(log_joint: Float[Array, "n h w g"], values: Float[Array, "n h w c"] | Float[Array, "n c"]) -> PixelSums:
    """The sums of a chunk: of data with a value at each pixel, or of values that all pixels share."""
    maximum = jnp.max(log_joint, axis=0)
    fall = jnp.where(jnp.isfinite(maximum), maximum, 0)[None] - log_joint
    terms = jnp.exp(-fall)
    surprise = jnp.sum(terms * jnp.where(terms > 0, fall, 0), axis=0)
    if values.ndim == 2:
        moment = jnp.einsum("nhwg,nc->hwc", terms, values, precision=HIGHEST)
    else:
        moment = jnp.sum(terms * values, axis=0)
    return PixelSums(maximum, jnp.sum(terms, axis=0), surprise, moment)


def streamed(part: Callable[[Int[Array, " c"], Array], PixelSums], count: int, chunk: int) -> PixelSums:
    """The sums over data 0 … count − 1, from those over the numbers of some of them, and whether no chunk before had them."""
    size = min(chunk, count)

    @jax.checkpoint
    def absorb(sums, begin):
        numbers = jnp.minimum(begin, count - size) + jnp.arange(size)
        return sums.joined(part(numbers, numbers >= begin)), None

    empty = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(part, jnp.arange(size), jnp.arange(size) >= 0)
    )
    empty = empty._replace(maximum=jnp.full_like(empty.maximum, -jnp.inf))
    return jax.lax.scan(absorb, empty, jnp.arange(0, count, size))[0]


def place_of(images: Images) -> Place:
    """Where images lie: between the width along which they differ most, and a tenth of the spread of a pixel."""
    points = images.points
    mean, spread = mean_and_spread(points, jnp.full(len(images), 1 / len(images), images.dtype))
    return Place(mean, spread, widest=jnp.maximum(spread, _largest_width(points, mean)), narrowest=spread / _FINEST)


def _largest_width(points: Float[Array, "n d"], mean: Float[Array, " d"]) -> Float[Array, ""]:
    """√Λ, Λ the largest eigenvalue of the covariance, by the power method: from below, to a few per cent."""

    def turn(_, vector):
        along = jnp.matmul(points.astype(mean.dtype), vector, precision=HIGHEST) - mean @ vector
        image = jnp.matmul(along, points.astype(mean.dtype), precision=HIGHEST) - jnp.sum(along) * mean
        return image / jnp.maximum(jnp.linalg.norm(image), jnp.finfo(mean.dtype).tiny)

    start = jax.random.normal(jax.random.key(0), mean.shape, mean.dtype)
    vector = jax.lax.fori_loop(0, _TURNS, turn, start)
    along = jnp.matmul(points.astype(mean.dtype), vector, precision=HIGHEST) - mean @ vector
    return jnp.sqrt(jnp.mean(along**2))


def scalar_gain(observation: Observation, of: str) -> Float[Array, ""]:
    """The gain, if it is one number for all pixels."""
    if observation.gain.ndim:
        raise ValueError(f"{of} sees all pixels through one noise; pass a protocol whose stiffness is a scalar")
    return observation.gain


class Local(AbstractTarget, Tilted):
    """The local denoiser of images, as a target of `sample`: `Euler` steps, without weights.

    Args:
        images: the data.
        windows: `Squares`, given or from `memory_edge`, or `WienerWindows`.
        chunk: images that are read at once, for each path; by default as many as hold 65,536 numbers.

    Raises:
        ValueError: arguments of another kind. In use: a protocol of matrix or diagonal stiffness.

    Example:
        >>> images = Images(jax.random.bernoulli(jax.random.key(0), 0.5, (40, 6, 6, 1)).astype(float))
        >>> solution = pid.sample(jax.random.key(1), Local(images, pid.images.Squares(3)), num_samples=4)
        >>> images.of(solution.samples).shape
        (4, 6, 6, 1)
        >>> [found.name for found, _ in solution.problems()]
        ['NO_LAW']
    """

    images: Images
    windows: AbstractWindows
    chunk: int = eqx.field(static=True)

    def __init__(self, images, windows, *, chunk=None):
        check_kind("images", images, Images, "Images")
        check_kind("windows", windows, AbstractWindows, "Squares(k) or WienerWindows.of(images)")
        self.images, self.windows = images, windows
        numbers = images.points.shape[1]
        self.chunk = max(1, _NUMBERS_PER_CHUNK // numbers) if chunk is None else check_count("chunk", chunk)

    def __repr__(self):
        return shown("Local", images=len(self.images), shape=self.images.shape, windows=self.windows)

    @property
    def numbers_per_tilt(self) -> int:
        return min(self.chunk, len(self.images)) * self.images.points.shape[1]

    def place(self):
        return place_of(self.images)

    def tilt(self, observation, key=None):
        gain = scalar_gain(observation, "a local denoiser")
        return self.sums(observation, self.windows.at(gain**2, self.images.shape)).law

    def sums(self, observation: Observation, window: Square | Sets, few: Int[Array, " m"] | None = None) -> PixelSums:
        """The sums over the data, or over a few of them, through a window."""

        def part(numbers, is_new):
            pixels = self.images.pixels[numbers if few is None else few[numbers]].astype(observation.value.dtype)
            log_joint = self.log_joint(pixels, observation, window)
            return pixel_sums(jnp.where(is_new[:, None, None, None], log_joint, -jnp.inf), pixels)

        return streamed(part, len(self.images) if few is None else few.size, self.chunk)

    def log_joint(
        self, pixels: Float[Array, "n h w c"], observation: Observation, window: Square | Sets
    ) -> Float[Array, "n h w g"]:
        """−½|(ζ − a y_i)_{Ω_p}|²."""
        residuals = observation.value.reshape(1, *self.images.shape) - observation.gain * pixels
        return -0.5 * window.sums(residuals**2)
