"""Images, each a point of a data set: what a vector means as an image."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._doors.checks import as_labels, as_stored
from .._doors.show import shown
from ..targets.samples import Samples


class Images(eqx.Module):
    """n images of one shape, with their labels if they have any.

    Args:
        pixels: shape (n, h, w, c), black at 0 and white at 1; of one channel, (n, h, w) will do.
        labels: class of each image, shape (n,), integers from 0 on.
        names: of the classes.

    `images[rows]` are some of them.

    Raises:
        ValueError: no images, another shape, NaN; labels of another length, or without a name where there are names.

    Example:
        >>> images = Images(jnp.zeros((5, 2, 3, 1)), [0, 1, 0, 1, 1], ("dark", "bright"))
        >>> images
        Images(count=5, shape=(2, 3, 1), classes=2)
        >>> images.samples.dim, images[1:3].labels.tolist()
        (6, [1, 0])
    """

    pixels: Float[Array, "n h w c"]
    labels: Int[Array, " n"] | None
    names: tuple[str, ...] = eqx.field(static=True)

    def __init__(self, pixels, labels=None, names=()):
        pixels = as_stored("pixels", pixels)
        if pixels.ndim == 3:
            pixels = pixels[..., None]
        if pixels.ndim != 4 or 0 in pixels.shape:
            raise ValueError(f"pixels has shape {pixels.shape}; pass n >= 1 images of one shape, (n, h, w, c)")
        self.pixels, self.names = pixels, tuple(names)
        self.labels, classes = (None, 0) if labels is None else as_labels("labels", labels, len(pixels))
        if self.names and classes > len(self.names):
            raise ValueError(
                f"labels go up to {classes - 1} and names has {len(self.names)}; pass a name for each class"
            )

    def __repr__(self):
        classes = None if self.labels is None else len(self.names) or len(np.unique(self.labels))
        return shown("Images", count=len(self), shape=self.shape, classes=classes)

    def __len__(self):
        return self.pixels.shape[0]

    def __getitem__(self, rows) -> "Images":
        return Images(self.pixels[rows], None if self.labels is None else self.labels[rows], self.names)

    @property
    def shape(self) -> tuple[int, int, int]:
        """h, w and c."""
        return self.pixels.shape[1], self.pixels.shape[2], self.pixels.shape[3]

    @property
    def dtype(self) -> np.dtype:
        """What is computed in: that of the pixels, but float32 of half precision."""
        return np.dtype(np.float32) if self.pixels.dtype == jnp.bfloat16 else np.dtype(self.pixels.dtype)

    @property
    def points(self) -> Float[Array, "n d"]:
        """The images as vectors."""
        return self.pixels.reshape(len(self), -1)

    @property
    def samples(self) -> Samples:
        """The data set, its labels with it."""
        return Samples(self.points, labels=self.labels)

    def of(self, points: Float[Array, "*batch d"]) -> Float[Array, "*batch h w c"]:
        """Vectors as images of this shape."""
        if points.shape[-1] != np.prod(self.shape):
            raise ValueError(f"points has shape {points.shape}; pass vectors of {np.prod(self.shape)} numbers")
        return points.reshape(*points.shape[:-1], *self.shape)
