"""Checks of values at the door. They act on concrete arrays; under a transformation they let everything pass."""

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


def as_floating(name: str, value) -> jax.Array:
    """The value as an array of a floating dtype, checked finite."""
    array = jnp.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        array = array.astype(float)
    check_finite(name, array)
    return array


def normalised_weights(name: str, weights, count: int, dtype) -> jax.Array:
    """Weights of shape (count,), not negative, scaled to sum to one; equal if None."""
    if weights is None:
        return jnp.full(count, 1 / count, dtype)
    weights = as_floating(name, weights).astype(dtype)
    if weights.shape != (count,):
        raise ValueError(f"{name} has shape {weights.shape}; pass shape ({count},)")
    values = concrete(weights)
    if values is not None and not ((values >= 0).all() and values.sum() > 0):
        raise ValueError(
            f"{name} has the minimum {values.min():g} and the sum {values.sum():g}; pass weights >= 0, not all 0"
        )
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


def check_count(name: str, value) -> None:
    """Raise unless the value is an integer ≥ 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} is {value!r}; pass an integer >= 1")


def check_key(name: str, key) -> None:
    """Raise unless the value is one typed random key; its type is known under a transformation too."""
    if not (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ()):
        raise ValueError(f"{name} is {key!r}; pass one typed key, jax.random.key(seed)")
