"""Values in a few words, for `repr`: numbers of scalars and short vectors, shapes of the rest and of what is traced."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .checks import concrete

_LONGEST = 4
"""Most entries of a vector that are shown."""


def brief(value: Any) -> str:
    """A value in a few words.

    Example:
        >>> brief(jnp.array([1.0, 2.5])), brief(jnp.zeros((3, 2))), brief(jnp.arange(9.0)), brief(None)
        ('[1, 2.5]', 'float32[3, 2]', '[0, 1, 2, 3, …]', 'None')
    """
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, partial):
        return brief(value.func)
    if not isinstance(value, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct):
        text = getattr(value, "__name__", None) or str(value)
        return type(value).__name__ if "\n" in text else text
    is_number = jnp.issubdtype(value.dtype, jnp.number) or value.dtype == bool
    known = concrete(value) if is_number and not isinstance(value, jax.ShapeDtypeStruct) else None
    if known is None or known.ndim > 1:
        return f"{value.dtype}{list(value.shape)}"
    form = ".4g" if jnp.issubdtype(known.dtype, jnp.inexact) else ""
    if known.ndim == 0:
        return format(known[()], form)
    entries = [format(entry, form) for entry in known[:_LONGEST]]
    return "[" + ", ".join([*entries, *["…"] * (known.size > _LONGEST)]) + "]"


def of_numbers(function: Callable, module: Any) -> Any:
    """A function of a module; of shapes alone if the module holds no more."""
    are_shapes = any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(module))
    return jax.eval_shape(function, module) if are_shapes else function(module)


def shown(name: str, **facts: Any) -> str:
    """`name(fact=value, …)`, each value in a few words.

    Example:
        >>> shown("Samples", points=30, dim=2, mean=jnp.array([0.5, 1.0]))
        'Samples(points=30, dim=2, mean=[0.5, 1])'
    """
    return f"{name}({', '.join(f'{fact}={brief(value)}' for fact, value in facts.items())})"


def shown_fields(self: Any) -> str:
    """The `repr` of a module of few fields: `Name(field=value, …)`."""
    facts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
    return shown(type(self).__name__, **facts)


def sheet(title: str, **rows: str) -> str:
    """A title, and a line for each row: its name (`_` for a blank) and what is said of it.

    Example:
        >>> print(sheet("Solution: 30 samples", log_Z="0.1 ± 0.2", ESS="29 of 30"))
        Solution: 30 samples
          log Z   0.1 ± 0.2
          ESS     29 of 30
    """
    width = max(map(len, rows), default=0) + 3
    return "\n".join([title, *(f"  {name.replace('_', ' '):{width}}{row}" for name, row in rows.items())])
