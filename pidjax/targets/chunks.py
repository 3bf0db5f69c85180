"""A data set read in chunks of points, without a copy: its mean, and distances from it.

The last chunk ends with the data and begins where it has to, so that all have one size; what it has in common with the one
before counts once. Data that are laid out over devices are read in shards, by each device its own.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

_POINTS_PER_CHUNK, _NUMBERS_PER_CHUNK = 1024, 2**22


def chunk_of(dim: int) -> int:
    """Points in a chunk by default: 1,024, or fewer where they hold more than 16 MB in single precision."""
    return max(1, min(_POINTS_PER_CHUNK, _NUMBERS_PER_CHUNK // dim))


def cut(rows: Any, start: Int[Array, ""], size: int) -> Any:
    """Rows from `start` on. Of half precision, a compiler would else convert all of them, once for all chunks."""
    if any(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(rows)):
        rows, start = jax.lax.optimization_barrier((rows, start))
    return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, size), rows)


def _by_chunks(function: Callable, rows: Any, chunk: int, shards: int) -> Any:
    """A function of each chunk of rows and of which of them no chunk before has: the values of each shard, stacked."""

    def of_shard(rows):
        length = jax.tree.leaves(rows)[0].shape[0]
        size = min(chunk, length)

        def of_chunk(begin):
            start = jnp.minimum(begin, length - size)
            return function(cut(rows, start, size), start + jnp.arange(size) >= begin)

        return jax.lax.map(of_chunk, jnp.arange(0, length, size))

    return jax.vmap(of_shard)(jax.tree.map(lambda leaf: leaf.reshape(shards, -1, *leaf.shape[1:]), rows))


def weighted_mean(
    points: Float[Array, "n d"], weights: Float[Array, " n"], chunk: int, shards: int = 1
) -> Float[Array, " d"]:
    """Σ w_i y_i; of points that are stored in another dtype than that of the weights in chunks, without a copy."""
    if points.dtype == weights.dtype:
        return weights @ points

    def moment(rows, is_new):
        points, weights = rows
        return jnp.where(is_new, weights, 0) @ points.astype(weights.dtype)

    return jnp.sum(_by_chunks(moment, (points, weights), chunk, shards), axis=(0, 1))


def squared_distances(
    points: Float[Array, "n d"], centre: Float[Array, " d"], chunk: int, shards: int = 1
) -> Float[Array, " n"]:
    """|y_i − c|², in chunks: a compiler makes a copy of the points otherwise."""

    def distances(points, is_new):
        return jnp.sum((points.astype(centre.dtype) - centre[None]) ** 2, axis=-1)

    parts = _by_chunks(distances, points, chunk, shards)
    length, again = len(points) // shards, parts[0].size - len(points) // shards
    whole, last = parts[:, :-1].reshape(shards, -1), parts[:, -1, again:]
    return jnp.concatenate([whole, last], axis=1).reshape(shards * length)


def mean_and_spread(
    points: Float[Array, "n d"], weights: Float[Array, " n"], chunk: int | None = None, shards: int = 1
) -> tuple[Float[Array, " d"], Float[Array, ""]]:
    """The mean of weighted points, and their standard deviation per coordinate; 1 for a single one."""
    chunk = chunk_of(points.shape[-1]) if chunk is None else chunk
    mean = weighted_mean(points, weights, chunk, shards)
    variance = weights @ squared_distances(points, mean, chunk, shards) / points.shape[-1]
    return mean, jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1)), 1)
