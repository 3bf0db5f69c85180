"""Pickles of plain values, read without running anything of the file.

A pickle names functions and classes, and its reader calls them. Here a name stands for what only holds what it is given: the
four that arrays of bytes are written with. Any other is refused before it is looked for, and NumPy itself never sees the file.
"""

import pickle
from typing import Any, BinaryIO

import numpy as np


class Bytes:
    """Stands for an array that is being read: what `_reconstruct` makes, until its state is known."""

    def __init__(self, *_):
        self.array = np.zeros(0, np.uint8)

    def __setstate__(self, state):
        _, shape, kind, is_fortran, content = state
        if not isinstance(kind, Kind) or kind.code not in ("u1", "|u1") or not isinstance(content, bytes):
            raise pickle.UnpicklingError("an array that is not of bytes")
        self.array = np.frombuffer(content, np.uint8).reshape(shape, order="F" if is_fortran else "C")


class Kind:
    """Stands for a dtype."""

    def __init__(self, code, *_):
        self.code = code.decode() if isinstance(code, bytes) else code

    def __setstate__(self, state):
        pass


def _encoded(text: str, encoding: str) -> bytes:
    """Bytes, as Python 3 writes them for Python 2."""
    if encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError("bytes of another encoding than latin1")
    return text.encode("latin1")


_KNOWN = {
    ("numpy.core.multiarray", "_reconstruct"): Bytes,
    ("numpy._core.multiarray", "_reconstruct"): Bytes,
    ("numpy", "ndarray"): Bytes,
    ("numpy", "dtype"): Kind,
    ("_codecs", "encode"): _encoded,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no array of bytes needs")
        return _KNOWN[module, name]


def read_plain(file: BinaryIO) -> Any:
    """The value of a pickle made of dictionaries, lists, numbers, bytes and arrays of bytes, these as `Bytes`.

    Raises:
        ValueError: anything else; a file that ends too soon.

    Example:
        >>> import io
        >>> read_plain(io.BytesIO(pickle.dumps({b"labels": [3, 1]})))
        {b'labels': [3, 1]}
        >>> read_plain(io.BytesIO(pickle.dumps(print)))
        Traceback (most recent call last):
        ValueError: no pickle of plain values: it names builtins.print, which no array of bytes needs
    """
    try:
        return _Reader(file, encoding="bytes").load()
    except Exception as error:  # whatever a damaged file makes of the reader
        raise ValueError(f"no pickle of plain values: {error}") from error
