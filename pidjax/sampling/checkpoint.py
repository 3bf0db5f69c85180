"""A run of `sample` on disk, from which it goes on bit for bit.

    folder = run.npz: what was asked for  +  stand_in.npz: what stands in for a density  +  chunk-k.npz: the paths of chunk k

Every file is written whole or not at all. Arguments are told apart by hashes; a log-density, whose function a file cannot hold,
by its name and by its values at a few points.
"""

import os
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._doors.checks import check_kind
from .._doors.functions import check_on_host
from ..storage import fingerprint, load, save
from ..targets.base import AbstractTarget, WithDensity, able
from .stand_in import StandIn

_PROBES = 8


class Checkpoint:
    """The folder of a run.

    Args:
        folder: made if it is not there.
        target: what is sampled.
        asked: the other arguments on which the paths depend, by name.

    Raises:
        ValueError: no folder, one of other files or of another run, a damaged file; a call under `jit`, `vmap` or `grad`, or in
            several processes.
    """

    def __init__(self, folder: str | PathLike, target: AbstractTarget, **asked: Any):
        check_kind("checkpoint", folder, str | PathLike, "the name of a folder")
        check_on_host("a checkpoint", *jax.tree.leaves((target, asked)))
        if jax.process_count() > 1:
            raise ValueError(f"a checkpoint is of one process, and these are {jax.process_count()}; leave it out")
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"checkpoint is the file {folder}; pass the name of a folder")
        asked = {name: fingerprint(value) for name, value in {"target": target, **asked}.items()}
        wanted = asked | {"values": _values(target)}
        os.makedirs(self.folder, exist_ok=True)
        if not (self.folder / "run.npz").exists() and any(self.folder.glob("*.npz")):
            raise ValueError(f"{folder} holds other files; pass a new folder")
        self._check(self.once("run", lambda: wanted), wanted)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What the file of this name holds; where there is none, what is made now, and kept in it."""
        path = self.folder / f"{name}.npz"
        if path.exists():
            return load(path)
        made = make()
        save(path, made)
        return made

    def stand_in(self, find: Callable[[], StandIn], density: AbstractTarget) -> StandIn:
        """What stands in for a density, found once."""

        def of(found):
            return found.target.density

        found = self.once("stand_in", lambda: eqx.tree_at(of, find(), None))
        return eqx.tree_at(of, found, density, is_leaf=lambda part: part is None)

    def _check(self, found: Any, wanted: dict[str, Any]) -> None:
        if not (isinstance(found, dict) and found.keys() == wanted.keys()):
            raise ValueError(f"{self.folder} is of another version of pidjax; pass a new folder")
        other = [name for name in wanted if name != "values" and found[name] != wanted[name]]
        if not other and not _agree(found["values"], wanted["values"]):
            other = ["target (its log-density has other values)"]
        if other:
            raise ValueError(
                f"{self.folder} is of a run with another {', '.join(other)}; pass what that run had, or a new folder"
            )


def _values(target: Any) -> np.ndarray:
    """The log-density at some points; none of a target without one."""
    if not able(target, WithDensity):
        return np.zeros(0)
    mean = target.place().mean
    points = mean[None] + jax.random.normal(jax.random.key(0), (_PROBES, mean.size), mean.dtype)
    return np.asarray(jax.vmap(target.log_density)(points))


def _agree(found: np.ndarray, wanted: np.ndarray) -> bool:
    """Up to rounding, which differs between machines."""
    rounding = float(jnp.finfo(wanted.dtype).eps) ** 0.5
    return np.allclose(found, wanted, rtol=rounding, atol=rounding, equal_nan=True)
