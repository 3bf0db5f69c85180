"""Values in a few words, for `repr`: numbers of scalars and short vectors, shapes of the rest and of what is traced."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._checks import concrete

_LONGEST = 4
"""Most entries of a vector that are shown."""


def brief(value: Any) -> str:
    """A value in a few words.

    Example:
        >>> brief(jnp.array([1.0, 2.5])), brief(jnp.zeros((3, 2))), brief(jnp.arange(9.0)), brief(None)
        ('[1, 2.5]', 'float32[3, 2]', '[0, 1, 2, 3, …]', 'None')
    """
    if not isinstance(value, jax.Array | np.ndarray | float):
        return str(value)
    if not hasattr(value, "shape"):
        return f"{value:.4g}"
    known = concrete(value) if jnp.issubdtype(value.dtype, jnp.number) else None
    if known is None or known.ndim > 1:
        return f"{value.dtype}{list(value.shape)}"
    if known.ndim == 0:
        return f"{known:.4g}"
    return "[" + ", ".join([*(f"{entry:.4g}" for entry in known[:_LONGEST]), *["…"] * (known.size > _LONGEST)]) + "]"


def shown(name: str, **facts: Any) -> str:
    """`name(fact=value, …)`, each value in a few words.

    Example:
        >>> shown("Samples", points=30, dim=2, mean=jnp.array([0.5, 1.0]))
        'Samples(points=30, dim=2, mean=[0.5, 1])'
    """
    return f"{name}({', '.join(f'{fact}={brief(value)}' for fact, value in facts.items())})"
