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

from .._doors.checks import as_real, check_below, check_count, check_kind, concrete
from .._doors.functions import check_gives
from .._doors.show import shown
from .chain import OUTSIDE, AbstractChain, Sparse
from .model import UNKNOWN, Pairwise


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
        ValueError: a wrong shape; NaN or +inf; all counts forbidden; an update without its weights. When it meets a model,
            as in `Transfer`: counts that leave 0 … num_counts−1, functions that do not give one number, another model than
            `total` counts.

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
        num_counts = check_count("num_counts", num_counts)
        if (update is None) != (log_weight is None) or (update is None and num_counts != 1):
            raise ValueError("a counter needs all of num_counts, update and log_weight")
        for name, function, given in (("update", update, "count"), ("running", running, "window")):
            if function is not None:
                check_kind(name, function, Callable, f"a function of (site, {given}, value)")
        check_below("start", start, num_counts, f"a count from 0 to {num_counts - 1}")
        self.num_counts, self.update, self.running, self.start = num_counts, update, running, int(start)
        self.weights = None if log_weight is None else checked_weights(log_weight, num_counts)

    def __repr__(self):
        running = None if self.running is None else getattr(self.running, "__name__", "function")
        return shown("Guide", counts=self.num_counts, weights=self.weights, running=running)

    def check(self, model: Pairwise, order: Int[np.ndarray, " n"], window: int) -> None:
        """Raise if a function does not give one number, or the counts that can be reached leave 0 … num_counts−1."""
        zero = jnp.array(0)
        if self.running is not None:
            wanted = "one number, the weight of the value"
            check_gives("running", self.running, (zero, jnp.zeros(window, int), zero), np.number, wanted)
        if self.update is None:
            return
        check_gives("update", self.update, (zero, zero, zero), np.integer, "one integer, the next count")
        table = jax.vmap(lambda site: self.table(site, model.num_values))
        known = concrete(eqx.filter_jit(table)(jnp.asarray(order)))
        reached = np.array([self.start])
        for counts in () if known is None else known:
            reached = np.unique(counts[reached])
            if reached[0] < 0 or reached[-1] >= self.num_counts:
                raise ValueError(
                    f"update reaches the counts {reached[0]} … {reached[-1]}; let it give counts from 0 to num_counts - 1, "
                    f"which is {self.num_counts - 1}"
                )

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
        running = self.running
        weight = lambda value: jnp.asarray(running(site, window, value)).astype(dtype)  # noqa: E731
        return jnp.where(site == UNKNOWN, 0, jax.vmap(weight)(jnp.arange(num_values)))


def total(num_sites: int, log_weight: ArrayLike) -> Guide:
    """A guide by the sum of all values, for Ising the number of spins up: log_weight of shape (n + 1,) for q = 2.

    A fixed magnetisation is 0 at its number and −inf elsewhere.

    Example:
        >>> from pidjax.discrete import Transfer, ising_grid
        >>> half = jnp.where(jnp.arange(10) == 4, 0.0, -jnp.inf)
        >>> solution = Transfer(ising_grid(3), guide=total(9, half)).sample(jax.random.key(0), 50)
        >>> set(solution.samples.sum(axis=1).tolist())
        {4}
    """
    return _Total(num_sites, log_weight)


class _Total(Guide):
    """The sum of the values of n sites of q values each."""

    num_sites: int = eqx.field(static=True)

    def __init__(self, num_sites: int, log_weight: ArrayLike):
        self.num_sites = check_count("num_sites", num_sites)
        log_weight = jnp.asarray(log_weight)
        last = log_weight.size - 1
        if log_weight.ndim != 1 or last < self.num_sites or last % self.num_sites:
            raise ValueError(
                f"log_weight has shape {log_weight.shape}; pass (n (q − 1) + 1,) for n = {self.num_sites} sites"
            )
        super().__init__(last + 1, _Added(last), log_weight)

    def __repr__(self):
        return shown("total", num_sites=self.num_sites, log_weight=self.weights)

    def check(self, model, order, window):
        if self.num_counts != 1 + model.num_sites * (model.num_values - 1) or self.num_sites != model.num_sites:
            raise ValueError(
                f"guide counts {self.num_sites} sites of {(self.num_counts - 1) // self.num_sites + 1} values but the model "
                f"has {model.num_sites} of {model.num_values}; pass total({model.num_sites}, log_weight) with log_weight of "
                f"shape ({1 + model.num_sites * (model.num_values - 1)},)"
            )


class _Added(eqx.Module):
    """The next sum, which a count that no path reaches does not take past the last."""

    last: int = eqx.field(static=True)

    def __call__(self, site, count, value):
        return jnp.minimum(count + value, self.last)


def augmented(chain: AbstractChain, num_counts: int, update: Callable, start: int = 0) -> Sparse:
    """A chain on pairs (state, count), the state s with count c numbered s·num_counts + c: c' = update(t, c, s').

    An energy or cost of pairs then conditions the chain on its own history: see `solve` and `solve_control`.

    Raises:
        ValueError: counts that leave 0 … num_counts−1, from any pair, at the times that `Sparse` checks.

    Example:
        >>> from pidjax.discrete import Dense, solve_control
        >>> coin = Dense(jnp.full((4, 2, 2), 0.5))
        >>> heads = augmented(coin, 5, lambda t, count, state: jnp.minimum(count + state, 4))
        >>> wanted = jnp.where(jnp.arange(10) % 5 == 2, 0.0, jnp.inf)
        >>> round(float(jnp.exp(solve_control(heads, wanted).log_z)), 4)
        0.375
    """

    check_kind("chain", chain, AbstractChain, "a chain: Dense(...) or Sparse(...)")
    num_counts = check_count("num_counts", num_counts)
    check_kind("update", update, Callable, "a function of (time, count, state)")
    check_below("start", start, num_counts, f"a count from 0 to {num_counts - 1}")
    zero = jnp.array(0)
    check_gives("update", update, (zero, zero, zero), np.integer, "one integer, the next count")

    def step(time, pair):
        states, probabilities = chain.successors(time, pair // num_counts)
        counts = jax.vmap(lambda state: update(time, pair % num_counts, state))(states)
        inside = (counts >= 0) & (counts < num_counts)
        return jnp.where(inside, states * num_counts + counts, OUTSIDE), probabilities

    first = jnp.zeros((chain.num_states, num_counts), chain.start.dtype).at[:, start].set(chain.start)
    return Sparse(step, chain.num_states * num_counts, chain.num_steps, first.ravel())


def checked_weights(log_weight, num_counts):
    weights = as_real("log_weight", log_weight)
    if weights.shape != (num_counts,):
        raise ValueError(f"log_weight has shape {weights.shape}; pass ({num_counts},)")
    known = concrete(weights)
    if known is not None and not (known < np.inf).all():
        raise ValueError("log_weight holds NaN or +inf; pass numbers, or −inf to forbid")
    if known is not None and np.isneginf(known).all():
        raise ValueError("infeasible: log_weight forbids every count")
    return weights
