"""A function that reads past the end of its point: JAX clamps the index and says nothing.

    y[2] of a point of shape (2,) is y[1].

Indices that are constants show in the jaxpr, once what is computed of constants alone is followed through it.
"""

from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from ._checks import concrete

_OF_INDICES = ("lt", "add", "select_n", "broadcast_in_dim", "reshape", "squeeze", "concatenate", "convert_element_type")
"""The primitives that a constant index passes on its way to the array."""

Read = tuple[tuple[int, ...], tuple[int, ...]]
"""The shape of an array, and an index into it."""


def read_past_the_end(traced: ClosedJaxpr) -> Read | None:
    """The first read outside of its array, at an index that does not depend on the arguments.

    Example:
        >>> import jax.numpy as jnp
        >>> read_past_the_end(jax.make_jaxpr(lambda y: y[0] + y[2])(jnp.zeros(2)))
        ((2,), (2,))
        >>> read_past_the_end(jax.make_jaxpr(lambda y: y[0] + y[-1])(jnp.zeros(2))) is None
        True
    """
    with jax.ensure_compile_time_eval():
        return _first_in(traced.jaxpr, _known(traced.jaxpr.constvars, traced.consts))


def check_reads(name: str, traced: ClosedJaxpr, wanted: str = "let it read inside") -> None:
    """Raise if a traced function reads past the end.

    Example:
        >>> import jax.numpy as jnp
        >>> check_reads("function", jax.make_jaxpr(lambda y: y[0] + y[2])(jnp.zeros(2)))
        Traceback (most recent call last):
        ValueError: function reads index (2,) of an array of shape (2,), which JAX moves to the nearest end; let it read inside
    """
    read = read_past_the_end(traced)
    if read is not None:
        shape, index = read
        raise ValueError(
            f"{name} reads index {index} of an array of shape {shape}, which JAX moves to the nearest end; {wanted}"
        )


def _known(variables, values) -> dict[Any, np.ndarray]:
    """The concrete whole numbers among the values."""
    pairs = zip(variables, values, strict=False)
    whole = ((one, value) for one, value in pairs if value is not None and np.issubdtype(value.dtype, np.integer))
    return {one: array for one, value in whole if (array := concrete(value)) is not None}


def _first_in(jaxpr: Jaxpr, known: dict[Any, np.ndarray]) -> Read | None:
    for equation in jaxpr.eqns:
        values = [one.val if isinstance(one, Literal) else known.get(one) for one in equation.invars]
        found = _read(equation, values)
        for inner in () if found else _called_by(equation):
            passed = _known(inner.jaxpr.invars, values) if equation.primitive.name in ("jit", "pjit") else {}
            found = found or _first_in(inner.jaxpr, passed | _known(inner.jaxpr.constvars, inner.consts))
        if found:
            return found
        if equation.primitive.name in _OF_INDICES and all(value is not None for value in values):
            known[equation.outvars[0]] = np.asarray(equation.primitive.bind(*values, **equation.params))
    return None


def _called_by(equation) -> list[ClosedJaxpr]:
    parts = [part for value in equation.params.values() for part in (value if isinstance(value, tuple) else (value,))]
    return [part for part in parts if isinstance(part, ClosedJaxpr)]


def _read(equation, values: list) -> Read | None:
    """What an equation reads outside of its array at known indices."""
    shape, parameters = getattr(equation.invars[0].aval, "shape", ()) if equation.invars else (), equation.params
    if equation.primitive.name == "dynamic_slice" and all(value is not None for value in values[1:]):
        axes, sizes = range(len(shape)), parameters["slice_sizes"]
        indices = np.array([[int(value) for value in values[1:]]])
    elif equation.primitive.name == "gather" and values[1] is not None and "FILL" not in str(parameters["mode"]):
        axes, sizes = parameters["dimension_numbers"].start_index_map, parameters["slice_sizes"]
        indices = np.asarray(values[1]).reshape(-1, len(axes))
    else:
        return None
    last = np.array([shape[axis] - sizes[axis] for axis in axes])
    outside = ((indices < 0) | (indices > last)).any(axis=1)
    return (tuple(shape), tuple(indices[outside][0].tolist())) if outside.any() else None
