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
    if isinstance(value, float):
        return f"{value:.4g}"
    if not isinstance(value, jax.Array | np.ndarray):
        return str(value)
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
