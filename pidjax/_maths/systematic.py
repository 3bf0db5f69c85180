"""Systematic resampling: member i on average N w_i times, by one uniform offset for all."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key


def systematic(key: Key[Array, ""], weights: Float[Array, " n"], count: int) -> Int[Array, " count"]:
    """`count` indices in ascending order, index i on average count·w_i times, by one uniform offset.

    Example:
        >>> systematic(jax.random.key(0), jnp.array([0.0, 0.5, 0.5]), 4).tolist()
        [1, 1, 2, 2]
    """
    cumulative = jnp.cumsum(weights)
    offset = jax.random.uniform(key, (), weights.dtype)
    positions = (jnp.arange(count, dtype=weights.dtype) + offset) / count * cumulative[-1]
    last = jnp.max(jnp.where(weights > 0, jnp.arange(len(weights)), 0))
    return jnp.minimum(jnp.searchsorted(cumulative, positions, side="right").astype(int), last)
