"""A descent on disk, from which it goes on bit for bit.

    file = names and leaves of what an iteration changes, and of the key  +  history  +  reports  +  what was asked for

The names are the places and shapes of the leaves. With them, the key, a hash of the loss's arrays and of the first parameters,
a file of another descent is known, and said to be one; but for another function of the same name, or another optimiser of the
same state.
"""

from os import PathLike
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float, Key
from numpy import ndarray

from .._doors.functions import in_words
from ..storage import load, save
from .devices import is_spread
from .reports import Reports


class Checkpoint(NamedTuple):
    """How far a descent is.

    Attributes:
        run: what an iteration changes.
        history: the loss at every iteration so far.
        reports: those before now.
    """

    run: Any
    history: Float[ndarray, " n"]
    reports: Reports


def keep(path: str | PathLike, made: Checkpoint, key: Key[Array, ""] | None, asked: list[str], origin: str) -> None:
    """Write over the file.

    Args:
        path: of the file.
        made: how far the descent is.
        key: of the descent.
        asked: what it was asked for, in words that differ where it differs.
        origin: of the descent, likewise; told last.
    """
    save(path, _content(made.run, key, asked, origin) | {"history": made.history, "reports": made.reports})


def resumed(path: str | PathLike, run: Any, key: Key[Array, ""] | None, asked: list[str], origin: str) -> Checkpoint:
    """How far the descent of a file was.

    Args:
        path: of the file.
        run: at the start of this descent; what is spread over devices there is spread alike.
        key, asked, origin: of this descent.

    Raises:
        ValueError: a file that is damaged, or of another descent.
    """
    saved, wanted = load(path), _content(run, key, asked, origin)
    found = saved["names"] if isinstance(saved, dict) and "names" in saved else [f"a {type(saved).__name__}"]
    for one, other in zip([*found, "no more"], [*wanted["names"], "no more"]):
        if one != other:
            raise ValueError(f"{path} holds {one} where this descent has {other}; pass the checkpoint of this descent")
    leaves = map(_placed_as, saved["leaves"], wanted["leaves"])
    run, found_key = jax.tree.structure((run, key)).unflatten(leaves)
    if key is not None and not found_key == key:
        raise ValueError(f"{path} is of a descent with another key; pass the same key, or another file")
    return Checkpoint(run, saved["history"], saved["reports"])


def _content(run: Any, key, asked: list[str], origin: str) -> dict[str, Any]:
    named, _ = jax.tree_util.tree_flatten_with_path((run, key))
    names = [f"{jax.tree_util.keystr(path[1:])} {in_words(leaf)}".strip() for path, leaf in named]
    return {"names": [*asked, *names, origin], "leaves": [leaf for _, leaf in named]}


def _placed_as(leaf: Any, other: Any) -> Any:
    """The leaf on the devices of the other, if these are several."""
    return jax.device_put(leaf, other.sharding) if is_spread(other) else leaf
