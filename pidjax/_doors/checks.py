"""Checks of values at the door. They act on concrete arrays; under a transformation they let everything pass."""

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float


def concrete(value) -> np.ndarray | None:
    """The value as a NumPy array, or None while it is being traced."""
    return None if isinstance(value, Tracer) else np.asarray(value)


def check_finite(name: str, value: jax.Array) -> None:
    """Raise if a concrete array holds NaN or infinity, saying how many and where the first one is."""
    array = concrete(value)
    if array is not None and not np.isfinite(array).all():
        bad = np.argwhere(~np.isfinite(array))
        where = tuple(int(i) for i in bad[0])
        raise ValueError(
            f"{name} holds {len(bad)} non-finite values of {array.size}, the first at index {where}; pass finite numbers"
        )


def as_real(name: str, value) -> jax.Array:
    """The value as an array of a floating dtype."""
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is {_in_short(value)}; pass numbers, in an array of one shape") from error
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        raise ValueError(f"{name} holds random keys; pass numbers")
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise ValueError(f"{name} holds complex numbers; pass real ones")
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(float)


def as_floating(name: str, value) -> jax.Array:
    """The value as an array of a floating dtype of 32 bits at least, checked finite."""
    array = as_real(name, value)
    if array.dtype in (jnp.float16, jnp.bfloat16):
        raise ValueError(f"{name} is of {array.dtype}, too coarse to sample with; pass float32 or float64")
    check_finite(name, array)
    return array


def as_stored(name: str, value) -> jax.Array:
    """The value as a floating array of any size, bfloat16 allowed, checked finite where it lies."""
    array = as_real(name, value)
    if array.dtype == jnp.float16:
        return as_floating(name, array)
    if not isinstance(array, Tracer):
        with jax.ensure_compile_time_eval():
            finite = _all_finite(array)
        if not finite:
            check_finite(name, array)
    return array


@jax.jit
def _all_finite(array: jax.Array) -> jax.Array:
    return jnp.isfinite(array).all()


def as_labels(name: str, value, count: int) -> tuple[jax.Array, int]:
    """The value as integers ≥ 0 of shape (count,), and how many classes that makes."""
    try:
        labels = jnp.asarray(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is {_in_short(value)}; pass integers >= 0") from error
    values = concrete(labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer) or labels.shape != (count,):
        raise ValueError(f"{name} is {labels.dtype}{list(labels.shape)}; pass integers >= 0 of shape ({count},)")
    if values is None:
        raise ValueError(f"{name} is being traced, and the number of classes with it; make the data set outside of jit")
    if values.min() < 0:
        raise ValueError(f"{name} has the minimum {values.min()}; pass integers >= 0")
    return labels, int(values.max()) + 1


def as_point(name: str, value, dim: int) -> jax.Array:
    """The value as one point: a floating array of shape (d,), checked finite.

    Example:
        >>> as_point("y", [1, 2], 2)
        Array([1., 2.], dtype=float32)
    """
    point = as_floating(name, value)
    if point.shape != (dim,):
        raise ValueError(f"{name} has shape {point.shape}; pass one point of shape ({dim},)")
    return point


def as_points(name: str, value, dim: int) -> jax.Array:
    """The value as points, at least one: a floating array of shape (n, d), checked finite.

    Example:
        >>> as_points("held_out", [[1, 2], [3, 4], [5, 6]], 2).shape
        (3, 2)
    """
    points = as_floating(name, value)
    if points.ndim != 2 or points.shape[1] != dim or not len(points):
        raise ValueError(f"{name} has shape {points.shape}; pass shape (n, {dim}), n at least 1")
    return points


def as_dtype(dtype) -> np.dtype:
    """A floating dtype of 32 bits at least; JAX's default if None."""
    try:
        known = jnp.dtype(jnp.result_type(float) if dtype is None else dtype)
    except TypeError as error:
        raise ValueError(f"dtype is {dtype!r}; pass float32 or float64") from error
    if not jnp.issubdtype(known, jnp.floating) or known.itemsize < 4:
        raise ValueError(f"dtype is {known}; pass float32 or float64")
    return known


def check_single(name: str, leaf, rank: int) -> None:
    """Raise if one of the value's arrays has axes in front: a batch that `vmap` made, used as one."""
    if leaf.ndim != rank:
        raise ValueError(f"{name} is a batch of shape {leaf.shape[:-rank]}; use jax.vmap over it, or pass one")


def check_known(name: str, value, at: str) -> None:
    """Raise if a concrete result holds NaN."""
    array = concrete(value)
    if array is not None and np.isnan(array).any():
        raise ValueError(f"{name} is NaN {at}")


def normalised_weights(name: str, weights, count: int, dtype) -> jax.Array:
    """Weights of shape (count,), not negative, scaled to sum to one; equal if None."""
    if weights is None:
        return jnp.full(count, 1 / count, dtype)
    weights = as_floating(name, weights).astype(dtype)
    if weights.shape != (count,):
        raise ValueError(f"{name} has shape {weights.shape}; pass shape ({count},)")
    values = concrete(weights)
    if values is not None and not (values.min() >= 0 and values.max() >= np.finfo(values.dtype).tiny):
        raise ValueError(
            f"{name} has the minimum {values.min():g} and the maximum {values.max():g}; pass weights >= 0, not all 0"
        )
    root = jax.lax.stop_gradient(jnp.sqrt(jnp.max(weights)))
    weights = weights / root / root
    return weights / jnp.sum(weights)


def check_symmetric(name: str, matrices: Float[Array, "k d d"]) -> None:
    """Raise if a concrete matrix of the stack differs from its transpose."""
    values = concrete(matrices)
    for index, matrix in enumerate(() if values is None else values):
        if not np.allclose(matrix, matrix.T, rtol=1e-4, atol=1e-6 * np.abs(matrix).max()):
            raise ValueError(
                f"{name}[{index}] is not symmetric: it differs from its transpose by "
                f"{np.abs(matrix - matrix.T).max():g}; pass symmetric matrices"
            )


def check_positive_definite(name: str, matrices: Float[Array, "k d d"]) -> None:
    """Raise if a concrete matrix of the stack is not symmetric positive definite."""
    check_symmetric(name, matrices)
    values = concrete(matrices)
    for index, matrix in enumerate(() if values is None else values):
        smallest = np.linalg.eigvalsh(matrix)[0]
        if not smallest > 0:
            raise ValueError(f"{name}[{index}] is not positive definite: its smallest eigenvalue is {smallest:g}")


def as_scalar(name: str, value) -> jax.Array:
    """The value as a floating array of shape (), checked finite."""
    value = as_floating(name, value)
    if value.shape != ():
        raise ValueError(f"{name} has shape {value.shape}; pass a scalar")
    return value


def as_positive(name: str, value) -> jax.Array:
    """The value as a floating array of shape (), checked finite and greater than 0."""
    value = as_scalar(name, value)
    known = concrete(value)
    if known is not None and not known > 0:
        raise ValueError(f"{name} is {known:g}; pass a number > 0")
    return value


def check_kind(name: str, value: Any, kind: Any, wanted: str) -> None:
    """Raise unless the value is of a kind; say what it is, and what to pass.

    Example:
        >>> check_kind("model", 3.0, dict, "a dictionary")
        Traceback (most recent call last):
        ValueError: model is a float; pass a dictionary
    """
    if not isinstance(value, kind):
        found = f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
        raise ValueError(f"{name} is {found}; pass {wanted}")


def check_count(name: str, value) -> int:
    """The value as an `int`; raise unless it is an integer ≥ 1, of Python's or of NumPy's kind."""
    try:
        count = 0 if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        count = 0
    if count < 1:
        raise ValueError(f"{name} is {_in_short(value)}; pass an integer >= 1")
    return count


def check_below(name: str, value: Any, bound: int | float, wanted: str) -> None:
    """Raise unless the value is one of the integers 0 ≤ value < bound."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < bound:
        raise ValueError(f"{name} is {value!r}; pass {wanted}")


def check_key(name: str, key) -> None:
    """Raise unless the value is one typed random key; its type is known under a transformation too."""
    if not (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ()):
        raise ValueError(f"{name} is {_in_short(key)}; pass one typed key, jax.random.key(seed)")


def _in_short(value) -> str:
    """A value in one line of an error message."""
    if isinstance(value, jax.Array) and value.ndim > 0:
        return f"an array of {value.dtype}{list(value.shape)}"
    text = repr(value)
    return text if len(text) < 60 and "\n" not in text else f"a {type(value).__name__}"
