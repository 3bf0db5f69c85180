"""From a value to a tree in JSON and a list of arrays.

    module  →  {"module": its class, "fields": {name: node}}        array  →  {"array": its number, "dtype": …}

The first key of a node says what it is; `reader` has a method for each.
"""

import dataclasses
import functools
import hashlib
import inspect
import itertools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._doors.functions import check_on_host
from .names import GRAPH, PLAIN, PUBLIC, class_name, is_known


class Writer:
    """The tree of a value in JSON, its arrays put aside; an array that occurs twice is kept once."""

    partials: type[functools.partial] = jax.tree_util.Partial

    def __init__(self, arrays: list[np.ndarray]):
        self.arrays, self.seen = arrays, {}
        self.named: dict[str, Callable] = {}

    def node(self, value: Any, name: str, owner: type | None = None) -> Any:
        if isinstance(value, PLAIN):
            return value
        if isinstance(value, jax.Array | np.ndarray | np.generic):
            return self._array(value)
        if isinstance(value, np.dtype):
            return {"dtype": str(value)}
        if isinstance(value, jax.tree_util.PyTreeDef):
            return {"structure": self.node(value.unflatten(range(value.num_leaves)), name)}
        if isinstance(value, self.partials):
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
        if class_name(type(value)) == GRAPH:
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
        return class_name(kind) if is_known(kind.__module__) else self._name(kind, kind.__name__)

    def _known_function(self, value: Callable, name: str, owner: type | None) -> dict[str, str] | None:
        """A function by its public name, or as the default of its owner's constructor."""
        called = getattr(value, "__name__", "")
        for room, module in PUBLIC.items():
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


class Hasher(Writer):
    """The same tree, with shape and hash of an array in its place, and what a function is given beforehand."""

    partials = functools.partial

    def _kept(self, value):
        return [*np.shape(value), hashlib.sha256(np.asarray(value).tobytes()).hexdigest()]
