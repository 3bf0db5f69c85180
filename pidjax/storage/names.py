"""What a file calls things.

    a class of the library   room:name, as pidjax.targets.density:Density
    one of the user's        a name, by which `load` is given it

A name without a colon is one that the file does not hold.
"""

from typing import Any

import jax
import jax.numpy as jnp

PUBLIC = {"jax.nn": jax.nn, "jax.numpy": jnp}
"""Where functions are looked for by name."""

DENSITY = "pidjax.targets.density:Density"
"""Looked at again once its function is given."""

GRAPH = "pidjax.discrete.graph:Graph"
"""The one class of the library that is no module; imported when a file holds one."""

PLAIN = (type(None), bool, int, float, str)
"""What JSON holds as it is."""


def is_known(room: str) -> bool:
    return room.split(".")[0] == "pidjax" or room.startswith("equinox.nn")


def class_name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def names_in(node: Any) -> set[str]:
    """The names of what a tree of JSON does not hold."""
    if isinstance(node, list):
        return set().union(*map(names_in, node))
    if not isinstance(node, dict):
        return set()
    own = {node[kind] for kind in ("given", "module", "named") if ":" not in node.get(kind, ":")}
    return own.union(
        *map(names_in, [*node.get("fields", {}).values(), *(node[part] for part in node if part != "fields")])
    )
