"""The local denoiser that knows no place: of each pixel the posterior mean over the patches of every image at every position.

    x̂_p = Σ_{i,q} q_p(i, q) y_{i,q},     q_p(i, q) ∝ exp(−½ |ζ_{Ω_p} − a y_{i,Ω_q}|²)

Where a window is cut by the image's edge, patches are those that have all its pixels: a corner is told by any place at least as
far from the edges, the interior by the interior alone. n h w patches for each of h w pixels: for few images, or small ones.

Source: Kamb & Ganguli, *An analytic theory of creativity in convolutional diffusion models*, arXiv 2412.20292.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._doors.checks import check_count, check_kind
from .._doors.show import shown
from .._maths.small import HIGHEST
from ..targets.base import AbstractTarget, Tilted
from .images import Images
from .local import pixel_sums, place_of, scalar_gain, streamed
from .windows import Squares

_NUMBERS_PER_CHUNK = 2**16


class EquivariantLocal(AbstractTarget, Tilted):
    """The equivariant local denoiser of images, as a target of `sample`: `Euler` steps, without weights.

    Args:
        images: the data.
        windows: `Squares`, of sides that are known when the denoiser is made.
        chunk: images that are read at once, for each path; by default as many as make 65,536 logits.

    Raises:
        ValueError: arguments of another kind. In use: a protocol of matrix or diagonal stiffness.

    Example:
        >>> images = Images(jnp.zeros((2, 5, 5, 1)).at[:, :, ::2].set(1))
        >>> denoiser = EquivariantLocal(images, Squares(3))
        >>> pid.sample(jax.random.key(1), denoiser, num_samples=3).samples.shape
        (3, 25)
    """

    images: Images
    windows: Squares
    chunk: int = eqx.field(static=True)
    reach: int = eqx.field(static=True)

    def __init__(self, images, windows, *, chunk=None):
        check_kind("images", images, Images, "Images")
        check_kind("windows", windows, Squares, "Squares(k)")
        self.images, self.windows = images, windows
        largest = int(np.max(np.asarray(windows.sizes)))
        self.reach = min((largest - 1) // 2, max(images.shape[:2]) - 1)
        places = images.shape[0] * images.shape[1]
        self.chunk = max(1, _NUMBERS_PER_CHUNK // places**2) if chunk is None else check_count("chunk", chunk)

    def __repr__(self):
        return shown("EquivariantLocal", images=len(self.images), shape=self.images.shape, windows=self.windows)

    @property
    def numbers_per_tilt(self) -> int:
        return min(self.chunk, len(self.images)) * (self.images.shape[0] * self.images.shape[1]) ** 2

    def place(self):
        return place_of(self.images)

    def tilt(self, observation, key=None):
        gain = scalar_gain(observation, "a local denoiser")
        h, w, c = self.images.shape
        steps = jnp.arange(-self.reach, self.reach + 1)
        is_near = jnp.abs(steps) <= (self.windows.size(gain**2) - 1) // 2
        is_near = (is_near[:, None] & is_near[None]).ravel()
        inside = self._patches(jnp.ones((1, h, w, 1), bool))[0, :, :, 0]
        window = inside & is_near[None]
        fits = ~jnp.any(window[:, None] & ~inside[None], axis=-1)
        own = self._patches(observation.value.reshape(1, h, w, c))[0] * window[..., None].astype(gain.dtype)

        def part(numbers, is_new):
            pixels = self.images.pixels[numbers].astype(own.dtype)
            patches = self._patches(pixels).reshape(-1, *own.shape[1:])
            products = jnp.einsum("poc,qoc->qp", own, patches, precision=HIGHEST)
            norms = jnp.einsum("po,qo->qp", window.astype(own.dtype), jnp.sum(patches**2, axis=-1), precision=HIGHEST)
            log_joint = gain * products - 0.5 * gain**2 * norms
            allowed = (is_new[:, None, None] & fits.T[None]).reshape(log_joint.shape)
            log_joint = jnp.where(allowed, log_joint, -jnp.inf).reshape(-1, h, w, 1)
            return pixel_sums(log_joint, pixels.reshape(-1, c))

        return streamed(part, len(self.images), self.chunk).law

    def _patches(self, images: Float[Array, "n h w c"] | Bool[Array, "n h w c"]) -> Array:
        """Of each image at each place the pixels within reach, zero beyond the edges, shape (n, h w, k k, c)."""
        n, h, w, c = images.shape
        r = self.reach
        padded = jnp.pad(images, ((0, 0), (r, r), (r, r), (0, 0)))
        steps = np.arange(2 * r + 1)
        rows = np.arange(h)[:, None, None, None] + steps[None, None, :, None]
        columns = np.arange(w)[None, :, None, None] + steps[None, None, None]
        return padded[:, rows, columns].reshape(n, h * w, -1, c)
