"""From a tree in JSON and its arrays back to the value. Classes are looked up by name; nothing of a file is run."""

import dataclasses
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._doors.checks import check_kind
from .names import DENSITY, GRAPH, PLAIN, PUBLIC, is_known


class Reader:
    """The value of a tree of JSON."""

    def __init__(self, arrays: dict[str, np.ndarray], given: dict[str, Any]):
        self.arrays, self.given, self.made = arrays, given, {}

    def value(self, node: Any) -> Any:
        if isinstance(node, PLAIN):
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
        if node["module"] == DENSITY:
            made.check()
        return made

    def _graph(self, node):
        edges, order = map(self.value, node["graph"])
        room, _, name = GRAPH.partition(":")
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
        return getattr(PUBLIC[room], name)

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
        found = getattr(importlib.import_module(room), called, None) if is_known(room) else None
        if not (isinstance(found, type) and issubclass(found, kind)):
            raise ValueError(f"the file holds a {name}, which this version of pidjax does not have")
        return found


def _check_fields(kind: type, found: list[str], saved: list[str]) -> None:
    if found != saved:
        raise ValueError(
            f"{kind.__name__} has the fields {', '.join(found)} but what was saved has {', '.join(saved)}; load it with "
            "the class, or the version of pidjax, that it was saved with"
        )
