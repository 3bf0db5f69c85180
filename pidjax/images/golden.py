"""A denoiser on a golden subset of the data: those that may count, by a look at low resolution.

Over a block b of s × s pixels of one channel, ȳ_b the mean of y times s and |y°_b| the norm of what is left,

    |(ζ − a y)_b|²  ≥  (ζ̄_b − a ȳ_b)² + (|ζ°_b| − a|y°_b|)².

The m data whose ȳ are nearest to ζ̄ are kept, and the denoiser is exact on these. What the others could have been worth is
bounded by the right-hand side, summed over the blocks that lie in the window of a pixel as a whole: with G those kept, L the
exact logits and U ≥ L the bounds,

    mass that x̂_p misses  ≤  Σ_{i∉G} e^{U_i} / ( Σ_{i∈G} e^{L_i} + Σ_{i∉G} e^{U_i} ).

It tells of windows of many blocks; of smaller or ragged ones the mass itself does, at the cost of looking at all data once.
Late in time a small window is alike in many data, of which few are alike as a whole: most mass is then missed, and what is made
is the work of the m data.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._doors.checks import as_point, as_positive, check_count, check_kind
from .._doors.show import shown
from ..process.bridge import Observation
from ..targets.base import AbstractTarget, Tilted
from .local import Denoised, Local, scalar_gain


class Coarse(NamedTuple):
    """Images in blocks: the mean of each times s, and the norm of what is left."""

    means: Float[Array, "n a b c"]
    rests: Float[Array, "n a b c"]

    @classmethod
    def of(cls, pixels: Float[Array, "n h w c"], side: int) -> "Coarse":
        n, h, w, c = pixels.shape
        blocks = pixels.reshape(n, h // side, side, w // side, side, c)
        mean = jnp.mean(blocks, axis=(2, 4), keepdims=True)
        return cls(side * mean[:, :, 0, :, 0], jnp.sqrt(jnp.sum((blocks - mean) ** 2, axis=(2, 4))))


class Golden(AbstractTarget, Tilted):
    """A local denoiser on the m data that are nearest at low resolution, as a target of `sample`.

    Args:
        local: the denoiser of all data.
        size: m.
        side: s, of the blocks, which divides the height and the width of the images.

    Raises:
        ValueError: arguments of another kind; a side that does not divide; a size beyond the number of data.

    Example:
        >>> images = pid.images.Images(jax.random.uniform(jax.random.key(0), (50, 4, 4, 1)))
        >>> golden = Golden(pid.images.Local(images, pid.images.Squares(7)), 5, 2)
        >>> missed = [golden.missed(images.points[3], ratio) for ratio in (1e-2, 1e4)]
        >>> [bool(jnp.all(one.mass <= one.bound)) for one in missed], bool(missed[1].bound.max() < 1e-6)
        ([True, True], True)
    """

    local: Local
    coarse: Coarse
    size: int = eqx.field(static=True)
    side: int = eqx.field(static=True)

    def __init__(self, local, size, side):
        check_kind("local", local, Local, "a Local")
        size, side = check_count("size", size), check_count("side", side)
        if size > len(local.images):
            raise ValueError(f"size is {size}, of {len(local.images)} images; pass at most as many")
        if local.images.shape[0] % side or local.images.shape[1] % side:
            raise ValueError(
                f"side is {side}, of images of shape {local.images.shape}; pass one that divides both sides"
            )
        self.local, self.size, self.side = local, size, side
        self.coarse = Coarse.of(local.images.pixels.astype(local.images.dtype), side)

    def __repr__(self):
        return shown("Golden", local=self.local, size=self.size, side=self.side)

    @property
    def numbers_per_tilt(self) -> int:
        return self.local.numbers_per_tilt + self.coarse.means.size

    def place(self):
        return self.local.place()

    def kept(self, observation: Observation) -> Int[Array, " m"]:
        """The numbers of the data whose means over blocks are nearest."""
        seen = self._seen(observation).means - observation.gain * self.coarse.means
        return jax.lax.top_k(-jnp.sum(seen**2, axis=(1, 2, 3)), self.size)[1]

    def tilt(self, observation, key=None) -> Denoised:
        gain = scalar_gain(observation, "a golden subset")
        window = self.local.windows.at(gain**2, self.local.images.shape)
        return self.local.sums(observation, window, self.kept(observation)).law

    def missed(self, x: Float[Array, " d"], ratio: Float[Array, ""] | float) -> "Missed":
        """The mass of the data left out, and its bound, at each pixel of x = y + N(0, I/K).

        Args:
            x: an image under noise, as a vector.
            ratio: K, of images as they are.

        Raises:
            ValueError: x of another shape; a ratio not positive.
        """
        x = as_point("x", x, self.dim)
        return _missed(self, x, as_positive("ratio", ratio).astype(x.dtype))

    def _seen(self, observation: Observation) -> Coarse:
        return Coarse.of(observation.value.reshape(1, *self.local.images.shape), self.side)


class Missed(NamedTuple):
    """The mass of the data left out at each pixel, by all data, and what blocks alone bound it by."""

    mass: Float[Array, "h w g"]
    bound: Float[Array, "h w g"]


@eqx.filter_jit
def _missed(golden: Golden, x: Float[Array, " d"], ratio: Float[Array, ""]) -> Missed:
    local, gain = golden.local, jnp.sqrt(ratio)
    observation = Observation(gain, gain * x)
    window = local.windows.at(ratio, local.images.shape)
    kept = golden.kept(observation)
    own, everything = local.sums(observation, window, kept), local.sums(observation, window)
    log_own, log_all = (sums.maximum + jnp.log(sums.total) for sums in (own, everything))
    seen, coarse = golden._seen(observation), golden.coarse
    least = (seen.means - gain * coarse.means) ** 2 + (seen.rests - gain * coarse.rests) ** 2
    bounds = -0.5 * window.sums_within(least, golden.side)
    log_others = jax.nn.logsumexp(bounds.at[kept].set(-jnp.inf), axis=0)
    return Missed(
        -jnp.expm1(jnp.minimum(log_own - log_all, 0)), jnp.exp(log_others - jnp.logaddexp(log_own, log_others))
    )
