"""The optimal chain on the cells: its weighted states, and its paths, drawn exactly.

    x̂_k = S…S (y ψ_K)/ψ_k,        P*(j | i) = S_ij ψ_{k+1,j}/ψ_{k,i}

A step is drawn along one axis after the other, with the entries of E times what is left of ψ as probabilities.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from .generator import Generator
from .sweeps import one_step


def weighted_states(
    steps: Generator,
    middles: Float[Array, " steps"],
    backward: Float[Array, "times *cells"],
    log_backward: Float[Array, " times"],
) -> Float[Array, "times *cells d"]:
    """x̂ at K + 1 times and all cells; NaN where ψ is zero."""
    last = jnp.moveaxis(steps.box.points, -1, 0) * backward[-1][None]
    scales = jnp.exp(log_backward[1:] - log_backward[:-1])

    def back(moments, indexed):
        t, scale = indexed
        moments = scale * jax.vmap(lambda values: one_step(steps, t, values)[0])(moments)
        return moments, moments

    moments = jax.lax.scan(back, last, (middles, scales), reverse=True)[1]
    moments = jnp.concatenate([moments, last[None]])
    return jnp.moveaxis(moments / backward[:, None], 1, -1)


def paths(
    key: Key[Array, ""],
    steps: Generator,
    middles: Float[Array, " steps"],
    first: Float[Array, "*cells"],
    backward: Float[Array, "times *cells"],
    number: int,
) -> Float[Array, "n times d"]:
    """The centres that paths pass which begin in cells with probabilities in proportion to `first`."""
    box = steps.box
    key_start, key = jax.random.split(key)
    begun = jnp.unravel_index(_drawn(key_start, jnp.broadcast_to(first.ravel(), (number, first.size))), box.shape)

    def onward(cells, indexed):
        key, t, values = indexed
        for axis, left in enumerate(one_step(steps, t, values)[1]):
            others = tuple(index for other, index in enumerate(cells) if other != axis)
            lines = jnp.moveaxis(left, axis, -1)[others]
            lines = jnp.broadcast_to(lines, (number, box.shape[axis]))
            chosen = _drawn(jax.random.fold_in(key, axis), steps.rows(axis, t, cells) * lines)
            cells = (*cells[:axis], chosen, *cells[axis + 1 :])
        return cells, cells

    keys = jax.random.split(key, len(middles))
    passed = jax.lax.scan(onward, begun, (keys, middles, backward[1:]))[1]
    indices = [jnp.concatenate([first[None], rest]).T for first, rest in zip(begun, passed)]
    return jnp.stack([box.centres(axis)[index] for axis, index in enumerate(indices)], axis=-1)


def _drawn(key: Key[Array, ""], weights: Float[Array, "m n"]) -> Int[Array, " m"]:
    """One index for each row, with probabilities in proportion to it."""
    sums = jnp.cumsum(weights, axis=1)
    heights = jax.random.uniform(key, (len(weights), 1), weights.dtype) * sums[:, -1:]
    return jnp.minimum(jnp.sum(sums <= heights, axis=1), weights.shape[1] - 1)
