"""Training of whatever is trainable in a step rule, by gradient through its own rollout."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from ..grid import Grid, uniform
from ..protocol import Harmonic
from ..rollout import Prepared, prepare
from ..step import Gaussian
from ..targets.base import Target
from .loss import relative_entropy
from .network import Constant, Guided

Loss = Callable[[Prepared, Gaussian, Key[Array, ""], Int[Array, " n"]], Float[Array, ""]]

_ITERATIONS_PER_CALL = 20


class Trained(eqx.Module):
    rule: Gaussian
    history: Float[np.ndarray, " iterations"]
    num_gradient_evaluations: int = eqx.field(static=True)


@lru_cache
def decayed_adam(num_iterations: int, learning_rate: float = 5e-3):
    return optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(learning_rate, num_iterations))
    )


def trainable(rule):
    return jax.tree.map(
        lambda leaf: eqx.is_inexact_array(leaf), rule, is_leaf=lambda node: isinstance(node, Constant)
    )


def fit(key, target, rule, *, protocol, grid=None, num_iterations=4000, batch_size=512, optimiser=None,
        loss=relative_entropy, progress=True):
    grid = uniform(100) if grid is None else grid
    optimiser = decayed_adam(num_iterations) if optimiser is None else optimiser
    prepared = eqx.filter_jit(prepare)(target, protocol, grid)
    learned, fixed = eqx.partition(rule, trainable(rule))
    state = optimiser.init(learned)
    history = []
    for first in range(0, num_iterations, _ITERATIONS_PER_CALL):
        count = min(_ITERATIONS_PER_CALL, num_iterations - first)
        learned, state, losses = _iterate(prepared, fixed, learned, state, key, jnp.asarray(first), jnp.asarray(count),
                                          batch_size, optimiser, loss)
        history.append(np.asarray(losses)[:count])
    return Trained(eqx.combine(learned, fixed), np.concatenate(history), 0)


@eqx.filter_jit
def _iterate(prepared, fixed, learned, state, key, first, count, batch_size, optimiser, loss):
    indices = jnp.arange(batch_size)

    def value(learned, key):
        return loss(prepared, eqx.combine(learned, fixed), key, indices)

    def iteration(i, carry):
        learned, state, losses = carry
        now, gradient = jax.value_and_grad(value)(learned, jax.random.fold_in(key, first + i))
        updates, state = optimiser.update(gradient, state, learned)
        return optax.apply_updates(learned, updates), state, losses.at[i].set(now)

    losses = jnp.full(_ITERATIONS_PER_CALL, jnp.nan)
    return jax.lax.fori_loop(0, count, iteration, (learned, state, losses))
