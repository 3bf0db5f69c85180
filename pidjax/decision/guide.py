"""What decisions are conditioned on, or tilted by: a counter and its last value, and what happens on the way.

    log p̃(v) + log_weight(c_n) + Σ_t running(t, last w values, v_t),       c_t = update(site, c_{t−1}, v_t)

A weight of −inf forbids. Rare events are no harder than common ones: log P(event) = log Z(guided) − log Z.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from .._checks import concrete
from .chain import Chain, Sparse
from .model import UNKNOWN


class Guide(eqx.Module):
    """A counter over sites as they are revealed, the weight of its last value, and the weight of patterns.

    Args:
        num_counts: the counter takes values 0 … num_counts−1.
        update: function of (site, count, value) to the next count; it does not depend on the window.
        log_weight: weight of the last count, shape (num_counts,); −inf forbids.
        running: function of (site, window, value) to a number: window (w,) the values revealed before, the last one
            first; those before the first site are 0, so ask the number of the site first.
        start: the first count.

    Raises:
        ValueError: a wrong shape; NaN or +inf; all counts forbidden; an update without its weights.

    Example:
        >>> even = Guide(2, lambda site, count, value: (count + value) % 2, jnp.array([0.0, -jnp.inf]))
    """

    num_counts: int = eqx.field(static=True)
    update: Callable | None
    weights: Float[Array, " counts"] | None
    running: Callable | None
    start: int = eqx.field(static=True)

    def __init__(
        self,
        num_counts: int = 1,
        update: Callable[[Int[Array, ""], Int[Array, ""], Int[Array, ""]], Int[Array, ""]] | None = None,
        log_weight: ArrayLike | None = None,
        *,
        running: Callable[[Int[Array, ""], Int[Array, " w"], Int[Array, ""]], Float[Array, ""]] | None = None,
        start: int = 0,
    ):
        if (update is None) != (log_weight is None) or (update is None and num_counts != 1):
            raise ValueError("a counter needs all of num_counts, update and log_weight")
        if not 0 <= start < num_counts:
            raise ValueError(f"start is {start}; pass a count from 0 to {num_counts - 1}")
        self.num_counts, self.update, self.running, self.start = num_counts, update, running, start
        self.weights = None if log_weight is None else checked_weights(log_weight, num_counts)

    def log_final(self, dtype) -> Float[Array, " counts"]:
        """The weight of each last count."""
        return jnp.zeros(1, dtype) if self.weights is None else self.weights.astype(dtype)

    def table(self, site: Int[Array, ""], num_values: int) -> Int[Array, "counts q"]:
        """The next count, for each count and value; unchanged at places past the end."""
        counts, values = jnp.arange(self.num_counts), jnp.arange(num_values)
        same = jnp.broadcast_to(counts[:, None], (self.num_counts, num_values))
        if self.update is None:
            return same
        update = jax.vmap(jax.vmap(self.update, (None, None, 0)), (None, 0, None))
        return jnp.where(site == UNKNOWN, same, update(site, counts, values))

    def running_weights(self, site, window: Int[Array, " w"], num_values: int, dtype) -> Float[Array, " q"]:
        """The weight of each value after a window; 0 at places past the end."""
        assert self.running is not None
        weights = jax.vmap(self.running, (None, None, 0))(site, window, jnp.arange(num_values))
        return jnp.where(site == UNKNOWN, 0, weights.astype(dtype))


def total(num_sites: int, log_weight: ArrayLike) -> Guide:
    """A guide by the sum of all values, for Ising the number of spins up: log_weight of shape (n + 1,) for q = 2.

    A fixed magnetisation is 0 at its number and −inf elsewhere.

    Example:
        >>> from pidjax.decision import Transfer, ising_grid
        >>> half = jnp.where(jnp.arange(10) == 4, 0.0, -jnp.inf)
        >>> solution = Transfer(ising_grid(3), guide=total(9, half)).sample(jax.random.key(0), 50)
        >>> set(solution.samples.sum(axis=1).tolist())
        {4}
    """
    log_weight = jnp.asarray(log_weight)
    if log_weight.ndim != 1 or log_weight.shape[0] % num_sites != 1 % num_sites:
        raise ValueError(f"log_weight has shape {log_weight.shape}; pass (n (q − 1) + 1,) for n = {num_sites} sites")
    last = log_weight.shape[0] - 1
    return Guide(last + 1, lambda site, count, value: jnp.minimum(count + value, last), log_weight)


def augmented(chain: Chain, num_counts: int, update: Callable, start: int = 0) -> Sparse:
    """A chain on pairs (state, count), the state s with count c numbered s·num_counts + c: c' = update(t, c, s').

    An energy or cost of pairs then conditions the chain on its own history: see `solve` and `solve_control`.

    Example:
        >>> from pidjax.decision import Dense, solve_control
        >>> coin = Dense(jnp.full((4, 2, 2), 0.5))
        >>> heads = augmented(coin, 5, lambda t, count, state: jnp.minimum(count + state, 4))
        >>> wanted = jnp.where(jnp.arange(10) % 5 == 2, 0.0, jnp.inf)
        >>> round(float(jnp.exp(solve_control(heads, wanted).log_z)), 4)
        0.375
    """

    def step(time, pair):
        states, probabilities = chain.successors(time, pair // num_counts)
        counts = jax.vmap(lambda state: update(time, pair % num_counts, state))(states)
        return states * num_counts + counts, probabilities

    first = jnp.zeros((chain.num_states, num_counts), chain.start.dtype).at[:, start].set(chain.start)
    return Sparse(step, chain.num_states * num_counts, chain.num_steps, first.ravel())


def checked_weights(log_weight, num_counts):
    weights = jnp.asarray(log_weight)
    weights = weights if jnp.issubdtype(weights.dtype, jnp.floating) else weights.astype(float)
    if weights.shape != (num_counts,):
        raise ValueError(f"log_weight has shape {weights.shape}; pass ({num_counts},)")
    known = concrete(weights)
    if known is not None and not (known < np.inf).all():
        raise ValueError("log_weight holds NaN or +inf; pass numbers, or −inf to forbid")
    if known is not None and np.isneginf(known).all():
        raise ValueError("infeasible: log_weight forbids every count")
    return weights
