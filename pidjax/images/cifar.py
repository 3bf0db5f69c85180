"""CIFAR-10: 60,000 photographs of 32 × 32 pixels in ten classes, read from where you keep them.

    binary   records of one byte for the class and 3,072 for the pixels
    Python   pickles of a dictionary with `data`, an array of bytes (n, 3072), and `labels`

In both the pixels are the planes of red, green and blue, each row by row.

Source: Krizhevsky, *Learning multiple layers of features from tiny images*, 2009.
"""

from os import PathLike
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import DTypeLike

from .._doors.checks import as_dtype, check_kind
from .images import Images
from .pickled import Bytes, read_plain

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_PLANES = (3, 32, 32)
_NUMBERS = 3 * 32 * 32


def cifar(path: str | PathLike, *, dtype: DTypeLike | None = None) -> Images:
    """CIFAR-10 from a file, or from all training batches, `data_batch_*`, of a folder.

    Args:
        path: of a file of either format, which its first byte tells, or of a folder with such files.
        dtype: of the pixels, which are the bytes divided by 255; JAX's default if left out.

    Raises:
        ValueError: a folder without batches; a file of another format, or one that ends in the midst of a record.
        FileNotFoundError: nothing is there.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile(suffix=".bin") as file:
        ...     _ = file.write(bytes([3, *range(256)] + [0] * (3072 - 256)))
        ...     file.flush()
        ...     cifar(file.name)
        Images(count=1, shape=(32, 32, 3), classes=10)
    """
    check_kind("path", path, str | PathLike, "the name of a file or of a folder")
    dtype, path = as_dtype(dtype), Path(path)
    files = sorted(path.glob("data_batch_*")) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path} is a folder without data_batch_*; pass that of the training batches, or one file")
    labels, planes = (np.concatenate(parts) for parts in zip(*map(_read, files), strict=True))
    pixels = planes.reshape(-1, *_PLANES).transpose(0, 2, 3, 1)
    return Images(jnp.asarray(pixels).astype(dtype) / jnp.asarray(255, dtype), labels, NAMES)


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n,) and bytes (n, 3072) of one file."""
    with path.open("rb") as file:
        is_pickle = file.read(1) == b"\x80"
        file.seek(0)
        labels, planes = _of_pickle(path, file) if is_pickle else _of_records(path, file.read())
    if planes.shape != (len(labels), _NUMBERS) or not len(labels):
        raise ValueError(
            f"{path} holds pixels of shape {planes.shape} and {len(labels)} labels; pass a batch of CIFAR-10"
        )
    if labels.min() < 0 or labels.max() > 9:
        raise ValueError(
            f"{path} holds labels from {labels.min()} to {labels.max()}; pass a batch of CIFAR-10, of 0 to 9"
        )
    return labels, planes


def _of_records(path: Path, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    if not content or len(content) % (1 + _NUMBERS):
        raise ValueError(
            f"{path} has {len(content)} bytes, which are no whole records of {1 + _NUMBERS}: it is truncated, or not "
            "CIFAR-10 in its binary format"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, 1 + _NUMBERS)
    return records[:, 0].astype(int), records[:, 1:]


def _of_pickle(path: Path, file) -> tuple[np.ndarray, np.ndarray]:
    try:
        held = read_plain(file)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; it is truncated, or not CIFAR-10 in its Python format") from error
    if not isinstance(held, dict):
        raise ValueError(f"{path} holds a {type(held).__name__}; pass a batch of CIFAR-10, a dictionary")
    named = {str(name, "latin1") if isinstance(name, bytes) else name: of for name, of in held.items()}
    labels, data = named.get("labels"), named.get("data")
    are_numbers = isinstance(labels, list) and all(type(label) is int for label in labels)
    if not are_numbers or not isinstance(data, Bytes):
        raise ValueError(f"{path} holds {sorted(map(str, named))}; pass a batch of CIFAR-10, with data and labels")
    return np.array(labels, int), data.array
