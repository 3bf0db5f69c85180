"""The data sets of the suite, centred at their mean: scikit-learn's digits, and CIFAR-10 where its files are."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import pidjax as pid
from pidjax import images

CIFAR = "cifar-10-batches-bin"


class DataSet(NamedTuple):
    """The target, its images' shape and mean, how many paths are taken, and at which K they are looked at."""

    target: pid.Samples
    shape: tuple[int, int, int]
    mean: jax.Array
    num_paths: int
    low: float
    high: float

    def ends(self, key, number: int) -> jax.Array:
        """Independent draws of the data."""
        return self.target.points[jax.random.randint(key, (number,), 0, len(self.target.points))]

    def grid(self, unit: jax.Array, num_steps: int) -> Any:
        """Times at geometrically spaced K, from `low` to `high`, in a problem whose unit of K is given."""
        return pid.log_snr_grid(num_steps, self.low * unit, self.high * unit)


def _of(found: images.Images, num_paths: int, low: float, high: float) -> DataSet:
    mean = jnp.mean(found.points, axis=0)
    target = pid.Samples(found.points - mean, labels=found.labels)
    return DataSet(target, found.shape, mean, num_paths, low, high)


def data_sets(folder: Path, quick: bool) -> Mapping[str, Callable[[], DataSet]]:
    """Name → what makes it."""
    made = {"digits": lambda: _of(images.digits(), 600 if quick else 1797, 0.02, 60.0)}
    if quick:
        return made
    if (folder / CIFAR).exists():
        made["CIFAR-10"] = lambda: _of(images.cifar(folder / CIFAR), 256, 0.0005, 3.0)
    else:
        print(f"CIFAR-10 is skipped: there is no {folder / CIFAR}", flush=True)
    return made
