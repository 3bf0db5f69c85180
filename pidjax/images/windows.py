"""What a pixel of a local denoiser sees: its window Ω_p of the image, at each signal-to-noise ratio K.

    squares   Ω_p = the pixels within (k − 1)/2 of p along both axes, with all their channels, cut at the image's edge
    Wiener    Ω_p = { j : |W_pj| ≥ c |W_pp| },     W = C (C + I/K)⁻¹,     p and j each a pixel and channel

The side k of a square is given, as a number or falling with K. W is the best linear denoiser, C the data's covariance: its
windows shrink by themselves.
"""

from abc import abstractmethod
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._doors.checks import as_floating, as_positive, check_kind, concrete
from .._doors.show import shown, shown_fields
from .._maths.small import HIGHEST
from .images import Images


class Square(NamedTuple):
    """Whether two rows, and two columns, of an image are within one window: Ω_p of all pixels."""

    rows: Bool[Array, "h h"]
    columns: Bool[Array, "w w"]

    def sums(self, values: Float[Array, "n h w c"]) -> Float[Array, "n h w 1"]:
        """Σ_{j∈Ω_p} of each image, the same for all channels of p."""
        return _sums(self.rows, self.columns, values)

    def sums_within(self, values: Float[Array, "n a b c"], side: int) -> Float[Array, "n h w 1"]:
        """The same of values that belong to blocks of side × side pixels: of those blocks that lie in Ω_p as a whole."""
        rows, columns = (near.reshape(len(near), -1, side).all(axis=2) for near in self)
        return _sums(rows, columns, values)


class Sets(NamedTuple):
    """Whether j is in Ω_p, for each p."""

    members: Bool[Array, "h w c h w c"]

    def sums(self, values: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        """Σ_{j∈Ω_p} of each image."""
        return _sums_of_sets(self.members, values)

    def sums_within(self, values: Float[Array, "n a b c"], side: int) -> Float[Array, "n h w c"]:
        """The same of values that belong to blocks of side × side pixels: of those blocks that lie in Ω_p as a whole."""
        h, w, c = self.members.shape[:3]
        blocks = self.members.reshape(h, w, c, h // side, side, w // side, side, c)
        return _sums_of_sets(blocks.all(axis=(4, 6)), values)


def _sums(
    rows: Bool[Array, "h a"], columns: Bool[Array, "w b"], values: Float[Array, "n a b c"]
) -> Float[Array, "n h w 1"]:
    rows, columns = rows.astype(values.dtype), columns.astype(values.dtype)
    along = jnp.einsum("nab,wb->naw", jnp.sum(values, axis=-1), columns, precision=HIGHEST)
    return jnp.einsum("ha,naw->nhw", rows, along, precision=HIGHEST)[..., None]


def _sums_of_sets(members: Bool[Array, "h w c a b e"], values: Float[Array, "n a b e"]) -> Float[Array, "n h w c"]:
    shape = members.shape[:3]
    members = members.reshape(np.prod(shape), -1).astype(values.dtype)
    return jnp.matmul(values.reshape(len(values), -1), members.T, precision=HIGHEST).reshape(-1, *shape)


class AbstractWindows(eqx.Module):
    """Windows of all pixels at every signal-to-noise ratio."""

    @abstractmethod
    def at(self, ratio: Float[Array, ""], shape: tuple[int, int, int]) -> Square | Sets:
        """Those at a ratio, of images of a shape."""


class Squares(AbstractWindows):
    """Squares of side k(K).

    Args:
        sizes: k, odd integers: one for all ratios, or J, the first for K below the first of the `ratios`.
        ratios: the J − 1 ratios K, increasing, at which the side changes; of images as they are, not rescaled.

    Raises:
        ValueError: even or negative sides; ratios of another number than these ask for, not positive, or not increasing.

    Example:
        >>> windows = Squares([9, 5, 3], [1.0, 20.0])
        >>> [windows.size(jnp.asarray(ratio)).item() for ratio in (0.5, 1.0, 100.0)]
        [9, 5, 3]
    """

    sizes: Int[Array, " J"]
    ratios: Float[Array, " J-1"]

    def __init__(self, sizes, ratios=()):
        sizes, ratios = jnp.atleast_1d(jnp.asarray(sizes)), as_floating("ratios", ratios)
        known = concrete(sizes)
        are_odd = jnp.issubdtype(sizes.dtype, jnp.integer) and (known is None or ((known > 0) & (known % 2 == 1)).all())
        if sizes.ndim != 1 or not sizes.size or not are_odd:
            raise ValueError(f"sizes is {sizes}; pass odd integers >= 1, the sides of squares around a pixel")
        if ratios.shape != (sizes.size - 1,):
            raise ValueError(f"ratios has shape {ratios.shape}, of {sizes.size} sizes; pass one ratio less than sizes")
        known = concrete(ratios)
        if known is not None and not ((known > 0).all() and (np.diff(known) > 0).all()):
            raise ValueError(f"ratios is {known}; pass signal-to-noise ratios > 0, increasing")
        self.sizes, self.ratios = sizes, ratios

    __repr__ = shown_fields

    def size(self, ratio: Float[Array, ""]) -> Int[Array, ""]:
        """k(K)."""
        return self.sizes[jnp.sum(self.ratios.astype(ratio.dtype) <= ratio)]

    def at(self, ratio, shape):
        reach = (self.size(ratio) - 1) // 2
        rows, columns = (jnp.abs(jnp.arange(size)[:, None] - jnp.arange(size)[None]) <= reach for size in shape[:2])
        return Square(rows, columns)


class WienerWindows(AbstractWindows):
    """The pixels that the best linear denoiser of a pixel looks at most.

    Attributes:
        vectors, values: the eigenvectors, in columns, and eigenvalues of C.
        threshold: c.

    Source: Lukoianov et al., *Locality in image diffusion models emerges from data statistics*, arXiv 2509.09672.
    """

    vectors: Float[Array, "d d"]
    values: Float[Array, " d"]
    threshold: Float[Array, ""]

    @classmethod
    def of(cls, images: Images, threshold: float = 0.1) -> "WienerWindows":
        """Those of the covariance of images.

        Raises:
            ValueError: no images; a threshold not positive.

        Example:
            >>> pixels = jax.random.normal(jax.random.key(0), (50, 3, 3, 1))
            >>> WienerWindows.of(Images(pixels)).at(jnp.asarray(1.0), (3, 3, 1)).members.shape
            (3, 3, 1, 3, 3, 1)
        """
        check_kind("images", images, Images, "Images")
        smallest = as_positive("threshold", threshold)
        points = np.asarray(images.points, np.float64)
        values, vectors = np.linalg.eigh(np.cov(points, rowvar=False, bias=True).reshape(points.shape[1], -1))
        vectors, values = (jnp.asarray(part, images.dtype) for part in (vectors, np.maximum(values, 0)))
        return cls(vectors, values, smallest.astype(images.dtype))

    def __repr__(self):
        return shown("WienerWindows", threshold=self.threshold)

    def filter(self, ratio: Float[Array, ""]) -> Float[Array, "d d"]:
        """W/K, which at K = 0 is C."""
        return jnp.matmul(
            self.vectors * (self.values / (1 + ratio * self.values))[None], self.vectors.T, precision=HIGHEST
        )

    def at(self, ratio, shape):
        sizes = jnp.abs(self.filter(ratio))
        is_large = sizes >= self.threshold * jnp.diagonal(sizes)[:, None]
        return Sets(is_large.reshape(*shape, *shape))
