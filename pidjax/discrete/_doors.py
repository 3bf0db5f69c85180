"""Checks at the doors of this room, of kinds, functions and configurations; of concrete values where values are asked."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from .._doors.checks import concrete
from .._doors.functions import in_words, outcome


def check_gives(name: str, function: Callable, arguments: tuple, kind: Any, wanted: str, ndim: int = 0) -> None:
    """Raise unless a function of these arguments gives one array of a kind, and reads inside of them; it is not run."""
    found = outcome(name, lambda *arguments: jnp.asarray(function(*arguments)), *arguments, of="arguments")
    if len(found.shape) != ndim or not jnp.issubdtype(found.dtype, kind):
        raise ValueError(f"{name} gives {in_words(found)}; let it give {wanted}")


def check_below(name: str, value: Any, bound: float, wanted: str) -> None:
    """Raise unless the value is one of the integers 0 ≤ value < bound."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < bound:
        raise ValueError(f"{name} is {value!r}; pass {wanted}")


def as_values(
    name: str, values: Any, num_values: int, shape: tuple[int, ...] | None = None, lowest: int = 0
) -> Int[Array, "..."]:
    """Values 0 … q−1 (or from −1, not revealed) as an array of integers, of a shape if one is given."""
    values = jnp.asarray(values)
    wanted = f"integers from {lowest} to {num_values - 1}"
    if not jnp.issubdtype(values.dtype, jnp.integer):
        raise ValueError(f"{name} is of {values.dtype}; pass {wanted}")
    if shape is not None and values.shape != shape:
        raise ValueError(f"{name} has shape {values.shape}; pass {shape}, and jax.vmap over many")
    known = concrete(values)
    if known is not None and not ((known >= lowest) & (known < num_values)).all():
        spins = "; for spins ∓1 the values 0 and 1" if num_values == 2 and known.min() == -1 else ""
        raise ValueError(f"{name} holds {known.min()} … {known.max()}; pass {wanted}{spins}")
    return values


def are_values(values: Int[Array, "..."], num_values: int) -> Array:
    """Which of them are in 0 … q−1: for what nothing can be raised about, while it is traced."""
    return (values >= 0) & (values < num_values)


def check_range(name: str, value: Any, low: float, high: float, wanted: str) -> None:
    """Raise unless a concrete number has low ≤ value < high."""
    known = concrete(value)
    if known is not None and not low <= known < high:
        raise ValueError(f"{name} is {known:g}; pass {wanted}")
