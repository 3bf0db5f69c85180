"""Values on disk: solutions, surrogates, protocols, trained rules, and whatever else is made of modules and arrays.

    file = header + arrays:  an npz archive, whose entry `header` is JSON and says what the value is made of.

Nothing is pickled, and nothing of a file is ever run. A function or a class of the user's cannot be stored: the file keeps its
name, and `load` is given it.
"""

import hashlib
import json
import os
import zipfile
from os import PathLike
from typing import Any

import numpy as np

from .. import __version__
from .._doors.checks import check_kind
from .names import names_in
from .reader import Reader
from .writer import Hasher, Writer

FORMAT = 1
"""Raised when a file of before cannot be read any more."""


def save(path: str | PathLike, value: Any) -> None:
    """Write a value to a file: a `Solution`, a target, a protocol, a rule, or any pytree of modules, containers and arrays.

    Args:
        path: of the file; an existing one is written over.
        value: what to keep. Its functions are kept by name, but for those of `jax.nn` and `jax.numpy`.

    Raises:
        FileNotFoundError: no folder of this name.
        TypeError: a part that is neither module, container, array, number, string nor function.
        ValueError: arrays of a transformation, which have no values yet.

    Example:
        >>> import tempfile, pidjax as pid
        >>> solution = pid.sample(jax.random.key(0), pid.GaussianMixture(jnp.zeros((1, 2)), jnp.eye(2)[None]), num_samples=5)
        >>> with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        ...     save(file.name, solution)
        ...     same = load(file.name)
        >>> bool(jnp.all(same.samples == solution.samples))
        True
    """
    arrays: list[np.ndarray] = []
    made_of = Writer(arrays).node(value, "value")
    header = {
        "format": "pidjax", "version": FORMAT, "library": __version__, "holds": type(value).__name__, "value": made_of,
    }  # fmt: skip
    written = np.frombuffer(json.dumps(header).encode(), np.uint8)
    entries: dict[str, Any] = {str(number): array for number, array in enumerate(arrays)}
    check_kind("path", path, str | PathLike, "the name of a file")
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"path is {path}, but there is no folder {folder}; make it first")
    unfinished = f"{os.fspath(path)}.unfinished"
    with open(unfinished, "wb") as file:
        np.savez(file, header=written, **entries)
    os.replace(unfinished, path)


def load(path: str | PathLike, /, **given: Any) -> Any:
    """The value that `save` wrote.

    Args:
        path: of the file.
        given: the functions and classes that the file names but does not hold, by these names, as
            `load("ring.npz", log_density=log_density)`. A lambda goes by the name of the field that holds it; of several
            functions or classes with one name the second is name_2, and so on.

    Raises:
        ValueError: no file of this kind, a damaged one, one of a later format; a name that is not given, a class of other
            fields, or a log-density that does not take the points of the one saved; double-precision arrays while JAX is set to
            single.

    Example:
        >>> import tempfile, pidjax as pid
        >>> def half_square(y):
        ...     return -0.5 * jnp.sum(y**2)
        >>> with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        ...     save(file.name, pid.Density(half_square, 2))
        ...     load(file.name, half_square=half_square)
        Density(half_square, dim=2)
    """
    check_kind("path", path, str | PathLike, "the name of a file")
    header, arrays = _read(path)
    missing = sorted(names_in(header.get("value")) - set(given))
    unknown = sorted(set(given) - names_in(header.get("value")))
    if unknown:
        raise ValueError(f"{path} does not name {', '.join(unknown)}; pass what it names, and no more")
    if missing:
        wanted = ", ".join(f"{name}=…" for name in missing)
        raise ValueError(f"{path} names {', '.join(missing)}, which a file cannot hold; pass load(path, {wanted})")
    try:
        return Reader(arrays, given).value(header["value"])
    except (AttributeError, ImportError, IndexError, KeyError, StopIteration, TypeError) as error:
        raise ValueError(
            f"{path} does not fit this version of pidjax ({__version__}; the file is of {header['library']}), or what was "
            f"given does not fit it: {error!r}"
        ) from error


def fingerprint(value: Any) -> str:
    """A hash of what a file of the value would hold.

    Example:
        >>> fingerprint(jnp.ones(2)) == fingerprint(jnp.ones(2)), fingerprint(jnp.ones(2)) == fingerprint(jnp.zeros(2))
        (True, False)
    """
    return hashlib.sha256(json.dumps(Hasher([]).node(value, "value")).encode()).hexdigest()


def _read(path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = dict(file)
        header = json.loads(arrays.pop("header").tobytes())
        is_ours = header["format"] == "pidjax" and isinstance(header["version"], int)
    except (
        zipfile.BadZipFile,
        KeyError,
        TypeError,
        EOFError,
        OSError,
        ValueError,
        AttributeError,
        RuntimeError,
    ) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path} is no file of pidjax's, or is damaged") from error
    if not is_ours or header["version"] > FORMAT:
        raise ValueError(
            f"{path} is of format {header['format']} {header['version']}; this is pidjax {__version__}, format {FORMAT}"
        )
    return header, arrays
