"""Images that scikit-learn brings: handwritten digits, and patches of two photographs."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import DTypeLike

from .._doors.checks import as_dtype, check_count
from .._doors.extras import load
from .images import Images


def digits(*, dtype: DTypeLike | None = None) -> Images:
    """1,797 handwritten digits of 8 × 8 pixels, of 17 greys from 0 to 1, labelled by the digit.

    Raises:
        ImportError: scikit-learn is missing.

    Example:
        >>> digits()
        Images(count=1797, shape=(8, 8, 1), classes=10)

    Source: Alpaydin & Kaynak, *Optical recognition of handwritten digits*, UCI Machine Learning Repository, 1998.
    """
    held = _datasets().load_digits()
    pixels, labels = held.images / 16, held.target.astype(int)
    return Images(jnp.asarray(pixels, as_dtype(dtype)), labels, tuple(map(str, range(10))))


def photographs(size: int, stride: int | None = None, *, dtype: DTypeLike | None = None) -> Images:
    """All size × size patches on a lattice over two photographs of 427 × 640 pixels, a temple and a flower.

    Args:
        size: of a patch, in pixels.
        stride: of the lattice; `size` by default, so that no two patches overlap.

    Raises:
        ValueError: a size or a stride that is no positive integer; patches larger than a photograph.
        ImportError: scikit-learn, or Pillow, is missing.

    Example:
        >>> photographs(32)
        Images(count=520, shape=(32, 32, 3), classes=2)
    """
    size = check_count("size", size)
    stride = size if stride is None else check_count("stride", stride)
    load("PIL", user="photographs", package="Pillow", extra="bench")
    held = _datasets().load_sample_images().images
    if size > min(min(one.shape[:2]) for one in held):
        raise ValueError(f"size is {size}; pass at most {min(min(one.shape[:2]) for one in held)}, as a photograph has")
    parts = [_patches(one, size, stride) for one in held]
    labels = np.repeat([0, 1], [len(part) for part in parts])
    pixels = np.concatenate(parts) / 255
    return Images(jnp.asarray(pixels, as_dtype(dtype)), labels, ("temple", "flower"))


def _patches(image: np.ndarray, size: int, stride: int) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(image, (size, size), axis=(0, 1))[::stride, ::stride]
    return np.moveaxis(windows.reshape(-1, image.shape[2], size, size), 1, -1)


def _datasets():
    return load("sklearn.datasets", user="pidjax.images", package="scikit-learn", extra="bench")
