"""Values on disk: solutions, surrogates, protocols, trained rules, and whatever else is made of modules and arrays.

    file = header + arrays:  an npz archive, whose entry `header` is JSON and says what the value is made of.

Nothing is pickled, and nothing of a file is ever run. A function or a class of the user's cannot be stored: the file keeps its
name, and `load` is given it.
"""

import dataclasses
import hashlib
import importlib
import inspect
import itertools
import json
import os
import zipfile
from collections.abc import Callable
from os import PathLike
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from . import __version__
from ._doors.checks import check_kind
from ._doors.functions import check_on_host

FORMAT = 1
"""Raised when a file of before cannot be read any more."""

_PUBLIC = {"jax.nn": jax.nn, "jax.numpy": jnp}
"""Where functions are looked for by name."""

_DENSITY = "pidjax.targets.density:Density"
"""Looked at again once its function is given."""

_GRAPH = "pidjax.discrete.graph:Graph"
"""The one class of the library that is no module; imported when a file holds one."""

_PLAIN = (type(None), bool, int, float, str)


def save(path: str | PathLike, value: Any) -> None:
    """Write a value to a file: a `Solution`, a target, a protocol, a rule, or any pytree of modules, containers and arrays.

    Args:
        path: of the file; an existing one is written over.
        value: what to keep. Its functions are kept by name, but for those of `jax.nn` and `jax.numpy`.

    Raises:
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
    made_of = _Writer(arrays).node(value, "value")
    header = {
        "format": "pidjax", "version": FORMAT, "library": __version__, "holds": type(value).__name__, "value": made_of,
    }  # fmt: skip
    written = np.frombuffer(json.dumps(header).encode(), np.uint8)
    entries: dict[str, Any] = {str(number): array for number, array in enumerate(arrays)}
    check_kind("path", path, str | PathLike, "the name of a file")
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
    missing = sorted(_names(header.get("value")) - set(given))
    unknown = sorted(set(given) - _names(header.get("value")))
    if unknown:
        raise ValueError(f"{path} does not name {', '.join(unknown)}; pass what it names, and no more")
    if missing:
        wanted = ", ".join(f"{name}=…" for name in missing)
        raise ValueError(f"{path} names {', '.join(missing)}, which a file cannot hold; pass load(path, {wanted})")
    try:
        return _Reader(arrays, given).value(header["value"])
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
    return hashlib.sha256(json.dumps(_Hasher([]).node(value, "value")).encode()).hexdigest()


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


class _Writer:
    """The tree of a value in JSON, its arrays put aside; an array that occurs twice is kept once."""

    def __init__(self, arrays: list[np.ndarray]):
        self.arrays, self.seen = arrays, {}
        self.named: dict[str, Callable] = {}

    def node(self, value: Any, name: str, owner: type | None = None) -> Any:
        if isinstance(value, _PLAIN):
            return value
        if isinstance(value, jax.Array | np.ndarray | np.generic):
            return self._array(value)
        if isinstance(value, np.dtype):
            return {"dtype": str(value)}
        if isinstance(value, jax.tree_util.PyTreeDef):
            return {"structure": self.node(value.unflatten(range(value.num_leaves)), name)}
        if isinstance(value, jax.tree_util.Partial):
            return {"partial": [self.node(part, name) for part in (value.func, value.args, value.keywords)]}
        if hasattr(value, "__self__") and hasattr(value, "__func__"):
            return {"method": value.__func__.__name__, "of": self.node(value.__self__, name)}
        if isinstance(value, eqx.Module):
            fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            parts = {field: self.node(part, field, type(value)) for field, part in fields.items()}
            return {"module": self._class(type(value)), "fields": parts}
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            kind: Any = type(value)
            parts = [self.node(part, name) for part in value]
            return {"named": self._class(kind), "items": parts, "called": list(kind._fields)}
        if isinstance(value, list | tuple):
            return {"list" if isinstance(value, list) else "tuple": [self.node(part, name) for part in value]}
        if isinstance(value, dict):
            return {"dict": [[self.node(key, name), self.node(part, str(key))] for key, part in value.items()]}
        if _class_name(type(value)) == _GRAPH:
            return {"graph": [self._array(part) for part in (value.edges, value.order)], "sites": value.num_sites}
        if callable(value):
            return self._known_function(value, name, owner) or {"given": self._name(value, name)}
        raise TypeError(
            f"{name} is a {type(value).__name__}, which cannot be stored; save what it was made of: modules, arrays, numbers, "
            "strings, functions, graphs, and lists, tuples and dictionaries of them"
        )

    def _name(self, given: Callable, field: str) -> str:
        """The name that `load` is to be given a function or class by: its own, or the field's; numbered if another has it."""
        called = getattr(given, "__name__", "")
        first = called if called.isidentifier() else field
        names = (first if number == 1 else f"{first}_{number}" for number in itertools.count(1))
        name = next(name for name in names if self.named.get(name, given) is given)
        self.named[name] = given
        return name

    def _class(self, kind: type) -> str:
        """Room and name of a class of the library's, the name alone of a user's."""
        return _class_name(kind) if _is_known(kind.__module__) else self._name(kind, kind.__name__)

    def _known_function(self, value: Callable, name: str, owner: type | None) -> dict[str, str] | None:
        """A function by its public name, or as the default of its owner's constructor."""
        called = getattr(value, "__name__", "")
        for room, module in _PUBLIC.items():
            if getattr(module, called, None) is value:
                return {"function": f"{room}.{called}"}
        if owner is not None and name in (parameters := inspect.signature(owner.__init__).parameters):
            if parameters[name].default is value:
                return {"default": name, "of": self._class(owner)}
        return None

    def _array(self, value) -> dict[str, Any]:
        if isinstance(value, np.ndarray) and value.dtype.kind not in "biufcUV":
            raise TypeError(f"an array of {value.dtype} cannot be stored")
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            return {"random": self._array(jax.random.key_data(value)), "kind": str(jax.random.key_impl(value))}
        on = "device" if isinstance(value, jax.Array) else "host"
        return {"array": self._kept(value), "dtype": str(value.dtype), "on": on}

    def _kept(self, value) -> Any:
        if id(value) not in self.seen:
            check_on_host("save", value)
            self.seen[id(value)] = len(self.arrays), value
            self.arrays.append(np.asarray(value))
        return self.seen[id(value)][0]


class _Hasher(_Writer):
    """The same tree, with shape and hash of an array in its place."""

    def _kept(self, value):
        return [*np.shape(value), hashlib.sha256(np.asarray(value).tobytes()).hexdigest()]


class _Reader:
    """The value of a tree of JSON."""

    def __init__(self, arrays: dict[str, np.ndarray], given: dict[str, Any]):
        self.arrays, self.given, self.made = arrays, given, {}

    def value(self, node: Any) -> Any:
        if isinstance(node, _PLAIN):
            return node
        kind = next(iter(node))
        return getattr(self, f"_{kind}")(node)

    def _array(self, node):
        number = node["array"]
        if number not in self.made:
            array = self.arrays[str(number)].view(jnp.dtype(node["dtype"]))
            made = jnp.asarray(array) if node["on"] == "device" else array
            if made.dtype != array.dtype:
                raise ValueError(f"the file holds {array.dtype} arrays; set jax_enable_x64 to load it")
            self.made[number] = made
        return self.made[number]

    def _random(self, node):
        return jax.random.wrap_key_data(self.value(node["random"]), impl=node["kind"])

    def _dtype(self, node):
        return jnp.dtype(node["dtype"])

    def _structure(self, node):
        return jax.tree.structure(self.value(node["structure"]))

    def _partial(self, node):
        function, arguments, keywords = map(self.value, node["partial"])
        return jax.tree_util.Partial(function, *arguments, **keywords)

    def _method(self, node):
        return getattr(self.value(node["of"]), node["method"])

    def _module(self, node):
        kind = self._class(node["module"], eqx.Module)
        _check_fields(kind, sorted(field.name for field in dataclasses.fields(kind)), sorted(node["fields"]))
        made = object.__new__(kind)
        for name, part in node["fields"].items():
            object.__setattr__(made, name, self.value(part))
        if node["module"] == _DENSITY:
            made.check()
        return made

    def _graph(self, node):
        edges, order = map(self.value, node["graph"])
        room, _, name = _GRAPH.partition(":")
        return getattr(importlib.import_module(room), name)(node["sites"], edges, order)

    def _named(self, node):
        kind: Any = self._class(node["named"], tuple)
        _check_fields(kind, list(kind._fields), node.get("called", list(kind._fields)))
        return kind(*map(self.value, node["items"]))

    def _list(self, node):
        return list(map(self.value, node["list"]))

    def _tuple(self, node):
        return tuple(map(self.value, node["tuple"]))

    def _dict(self, node):
        return {self.value(key): self.value(part) for key, part in node["dict"]}

    def _function(self, node):
        room, name = node["function"].rsplit(".", 1)
        return getattr(_PUBLIC[room], name)

    def _default(self, node):
        owner = self._class(node["of"], eqx.Module)
        return inspect.signature(owner.__init__).parameters[node["default"]].default

    def _given(self, node):
        check_kind(node["given"], self.given[node["given"]], Callable, "the function of this name")
        return self.given[node["given"]]

    def _class(self, name: str, kind: type) -> type:
        if ":" not in name:
            check_kind(name, self.given[name], type, "the class of this name")
            if not issubclass(self.given[name], kind):
                raise ValueError(
                    f"{name} is the class {self.given[name].__name__}, no {kind.__name__}; pass the class saved"
                )
            return self.given[name]
        room, _, called = name.partition(":")
        found = getattr(importlib.import_module(room), called, None) if _is_known(room) else None
        if not (isinstance(found, type) and issubclass(found, kind)):
            raise ValueError(f"the file holds a {name}, which this version of pidjax does not have")
        return found


def _check_fields(kind: type, found: list[str], saved: list[str]) -> None:
    if found != saved:
        raise ValueError(
            f"{kind.__name__} has the fields {', '.join(found)} but what was saved has {', '.join(saved)}; load it with "
            "the class, or the version of pidjax, that it was saved with"
        )


def _is_known(room: str) -> bool:
    return room.split(".")[0] == "pidjax" or room.startswith("equinox.nn")


def _class_name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _names(node: Any) -> set[str]:
    """The names of what a tree of JSON does not hold."""
    if isinstance(node, list):
        return set().union(*map(_names, node))
    if not isinstance(node, dict):
        return set()
    own = {node[kind] for kind in ("given", "module", "named") if ":" not in node.get(kind, ":")}
    return own.union(
        *map(_names, [*node.get("fields", {}).values(), *(node[part] for part in node if part != "fields")])
    )
