"""A function that reads or writes past the end of an array: JAX moves the index, or drops the value, and says nothing.

    y[2] of a point of shape (2,) is y[1].

Indices that come of constants alone, through arithmetic and loops, are computed along its jaxpr, in NumPy. An index
that is cut on purpose, by mode="clip", looks the same: `jnp.clip` of the index passes.
"""

from typing import Any

import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from .checks import concrete

_MOST_EQUATIONS = 50_000
"""Equations of loops that are followed; the rest of a longer loop is taken on trust."""

_ARITHMETIC = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "rem": np.fmod, "neg": np.negative, "sign": np.sign,
    "max": np.maximum, "min": np.minimum, "and": np.bitwise_and, "or": np.bitwise_or, "not": np.invert,
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal,
    "div": lambda a, b: np.trunc(a / b).astype(a.dtype),
    "clamp": lambda low, value, high: np.clip(value, low, high),
    "select_n": lambda which, *cases: np.choose(which.astype(int), cases),
}  # fmt: skip
_SHAPES = {
    "iota": lambda *, dtype, shape, dimension, **_: np.broadcast_to(
        np.arange(shape[dimension], dtype=dtype).reshape([-1] + [1] * (len(shape) - 1 - dimension)), shape
    ),
    "convert_element_type": lambda a, *, new_dtype, **_: a.astype(new_dtype),
    "broadcast_in_dim": lambda a, *, shape, broadcast_dimensions, **_: np.broadcast_to(
        a.reshape([dict(zip(broadcast_dimensions, a.shape)).get(k, 1) for k in range(len(shape))]), shape
    ),
    "reshape": lambda a, *, new_sizes, **_: a.reshape(new_sizes),
    "squeeze": lambda a, *, dimensions, **_: a.squeeze(dimensions),
    "concatenate": lambda *parts, dimension: np.concatenate(parts, dimension),
}  # fmt: skip
"""The primitives that an index passes on its way to the array; the second kind takes parameters."""

Read = tuple[tuple[int, ...], tuple[int, ...]]
"""The shape of an array, and an index into it."""


def read_past_the_end(traced: ClosedJaxpr) -> Read | None:
    """The first access outside of its array, at an index that does not depend on the arguments.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def total(y):
        ...     return jax.lax.fori_loop(0, 3, lambda i, sum: sum + y[i], 0.0)
        >>> read_past_the_end(jax.make_jaxpr(total)(jnp.zeros(2)))
        ((2,), (2,))
        >>> read_past_the_end(jax.make_jaxpr(total)(jnp.zeros(3))) is None
        True
    """
    return _Reading().of(traced, [None] * len(traced.jaxpr.invars))[0]


class _Reading:
    """One walk along a jaxpr, with the equations that it may still follow through loops."""

    def __init__(self):
        self.left = _MOST_EQUATIONS

    def of(self, traced: ClosedJaxpr, arguments: list) -> tuple[Read | None, list]:
        """The first access outside, and the results that are known, given the arguments that are (None: unknown)."""
        jaxpr: Jaxpr = traced.jaxpr
        known: dict[Any, np.ndarray | None] = dict(zip(jaxpr.constvars, map(_whole, traced.consts), strict=True))
        known |= dict(zip(jaxpr.invars, arguments, strict=True))

        def value(atom):
            return _whole(atom.val) if isinstance(atom, Literal) else known.get(atom)

        for equation in jaxpr.eqns:
            self.left -= 1
            values = [value(atom) for atom in equation.invars]
            found, results = self._of_equation(equation, values)
            if found is not None:
                return found, [None] * len(jaxpr.outvars)
            known |= zip(equation.outvars, results)
        return None, [value(atom) for atom in jaxpr.outvars]

    def _of_equation(self, equation, values: list) -> tuple[Read | None, list]:
        name, parameters = equation.primitive.name, equation.params
        if name in ("jit", "pjit"):
            return self.of(parameters["jaxpr"], values)
        if name == "scan":
            return self._of_scan(equation, values)
        if name == "while":
            return self._of_while(parameters, values)
        if name == "cond":
            return self._of_branches(parameters["branches"], values), []
        for inner in _called_by(parameters):
            found, _ = self.of(inner, [None] * len(inner.jaxpr.invars))
            if found is not None:
                return found, []
        if all(value is not None for value in values):
            if name in _ARITHMETIC:
                return None, [np.asarray(_ARITHMETIC[name](*values))]
            if name in _SHAPES:
                return None, [_SHAPES[name](*values, **parameters)]
        return _read(equation, values), []

    def _of_scan(self, equation, values: list) -> tuple[Read | None, list]:
        """What has an axis more outside than inside is a sequence: inputs are shared, carried, sequences, in this order."""
        parameters, body = equation.params, equation.params["jaxpr"].jaxpr
        num_sequences, num_results = (
            sum(len(outer.aval.shape) > len(inner.aval.shape) for outer, inner in zip(*pairs, strict=True))
            for pairs in ((equation.invars, body.invars), (equation.outvars, body.outvars))
        )
        num_carry = len(body.outvars) - num_results
        num_shared = len(values) - num_sequences - num_carry
        shared, carry = values[:num_shared], values[num_shared : num_shared + num_carry]
        sequences = values[num_shared + num_carry :]
        for step in range(parameters["length"])[:: -1 if parameters["reverse"] else 1]:
            now = [None if sequence is None else sequence[step] for sequence in sequences]
            found, results = self.of(parameters["jaxpr"], [*shared, *carry, *now])
            if found is not None or self.left < 0 or all(part is None for part in [*carry, *now]):
                return found, []
            carry = results[:num_carry]
        return None, carry

    def _of_while(self, parameters, values: list) -> tuple[Read | None, list]:
        num_asked, num_shared = parameters["cond_nconsts"], parameters["body_nconsts"]
        asked, shared = values[:num_asked], values[num_asked : num_asked + num_shared]
        carry = values[num_asked + num_shared :]
        while True:
            found, (goes_on,) = self.of(parameters["cond_jaxpr"], [*asked, *carry])
            if found is not None or self.left < 0 or (goes_on is not None and not goes_on):
                return found, carry
            found, carry = self.of(parameters["body_jaxpr"], [*shared, *(carry if goes_on else [None] * len(carry))])
            if found is not None or not goes_on:
                return found, []

    def _of_branches(self, branches, values: list) -> Read | None:
        which, *operands = values
        for branch in branches if which is None else [branches[int(np.clip(which, 0, len(branches) - 1))]]:
            found, _ = self.of(branch, operands)
            if found is not None:
                return found
        return None


def _whole(value) -> np.ndarray | None:
    """A concrete value of whole numbers or truth values."""
    dtype = getattr(value, "dtype", type(value))
    return concrete(value) if any(np.issubdtype(dtype, kind) for kind in (np.integer, np.bool_)) else None


def _called_by(parameters) -> list[ClosedJaxpr]:
    parts = [part for value in parameters.values() for part in (value if isinstance(value, tuple) else (value,))]
    return [part for part in parts if isinstance(part, ClosedJaxpr)]


def _read(equation, values: list) -> Read | None:
    """What an equation reads or writes outside of its array at known indices."""
    shape, parameters = getattr(equation.invars[0].aval, "shape", ()) if equation.invars else (), equation.params
    name = equation.primitive.name
    if name in ("dynamic_slice", "dynamic_update_slice"):
        first = 1 if name == "dynamic_slice" else 2
        if any(value is None for value in values[first:]):
            return None
        sizes = parameters["slice_sizes"] if first == 1 else equation.invars[1].aval.shape
        axes, indices = range(len(shape)), np.array([[int(value) for value in values[first:]]])
    elif name == "gather" and values[1] is not None and "FILL" not in str(parameters["mode"]):
        axes, sizes = parameters["dimension_numbers"].start_index_map, parameters["slice_sizes"]
        indices = np.asarray(values[1]).reshape(-1, len(axes))
    elif name.startswith("scatter") and values[1] is not None:
        axes, sizes = parameters["dimension_numbers"].scatter_dims_to_operand_dims, [1] * len(shape)
        indices = np.asarray(values[1]).reshape(-1, len(axes))
    else:
        return None
    last = np.array([shape[axis] - sizes[axis] for axis in axes])
    outside = ((indices < 0) | (indices > last)).any(axis=1)
    return (tuple(shape), tuple(indices[outside][0].tolist())) if outside.any() else None
