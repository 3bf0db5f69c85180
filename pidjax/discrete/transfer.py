"""Transfer matrices that reveal one site at a time.

In an order in which bonds reach back at most w places, the sum over the sites still to come depends on the last w revealed
ones only, the window x. With v the next value,

    g_t(x) = log Σ_v exp( h_t(v) + Σ_l J_{t,l}(v, x_l) + g_{t+1}(x') ),     g_n = 0,    log Z = g_0,

x' = the window moved on by v. These messages are the Green function of decisions: the exact conditional law of the value is
∝ exp(h + ΣJ + g_{t+1}), whatever the prior. On a lattice of width w the lags l are 1 and w (and w−1 on a cylinder).

A window is a number in base q with its newest site as the highest digit, so moving on is v·q^{w−1} + ⌊x/q⌋: a reshape.
Messages are kept at every √n-th site and computed again in between: memory 2√n q^w, also under differentiation. A
`Guide` adds a counter to the message and a weight to what happens on the way.
"""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._doors.checks import check_kind
from .._doors.show import shown
from .._maths.logs import log_sum, pick
from .enumeration import MAX_STATES, AbstractExact, digits
from .graph import Graph, checked_order
from .guide import Guide
from .model import UNKNOWN, Pairwise, as_model


class Transfer(AbstractExact):
    """Exact sums over a window of an order.

    Args:
        model: a pairwise model.
        order: the sites in the order in which they are revealed; by default the graph's own.
        guide: what the decisions are conditioned on or tilted by; None for nothing.

    Raises:
        ValueError: a window (and counter) of more than 2^20 states, the width found and the limit are told; a guide for
            another model, or one whose counts leave their range.

    Example:
        >>> from pidjax.discrete import ising_glass
        >>> solution = Transfer(ising_glass(6)).sample(jax.random.key(0), 100)
        >>> solution.samples.shape, round(float(solution.ess))
        ((100, 36), 100)
    """

    model: Pairwise
    guide: Guide
    order: tuple[int, ...] = eqx.field(static=True)
    lags: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, model: Pairwise, order=None, guide: Guide | None = None):
        order = as_model(model).graph.order if order is None else checked_order(as_model(model).num_sites, order)
        self.model, self.order = model, tuple(order.tolist())
        self.lags = lags(model.graph, order)
        self.guide = Guide() if guide is None else guide
        check_kind("guide", self.guide, Guide, "a Guide(...) or total(...)")
        limit = int(math.log(MAX_STATES / self.guide.num_counts, model.num_values) + 1e-9)
        if self.window > limit:
            raise ValueError(
                f"bonds of this order reach back {self.window} sites, the limit is {limit} for {model.num_values} values"
                + (f" and a counter of {self.guide.num_counts}" if self.guide.num_counts > 1 else "")
                + "; choose an order with shorter bonds, Elimination for a sparse graph, or `sample` with a prior"
            )
        self.guide.check(model, order, self.window)

    def __repr__(self):
        return shown("Transfer", model=self.model, window=self.window, guide=self.guide)

    @property
    def window(self) -> int:
        """w, the longest lag."""
        return self.lags[-1]

    def log_partition(self, model):
        blocks = self._blocks(model)
        step = lambda message, block: (self._block_message(message, block), None)  # noqa: E731
        first = jax.lax.scan(step, self._last(model), blocks, reverse=True)[0]
        return first[self.guide.start, 0]

    def draw(self, key, num_samples):
        model, q = self.model, self.model.num_values
        blocks = self._blocks(model)

        def keep(message, block):
            return self._block_message(message, block), message

        kept = jax.lax.scan(keep, self._last(model), blocks, reverse=True)[1]
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(num_samples))
        places = blocks.place.size
        uniforms = jax.vmap(lambda key: jax.random.uniform(key, (places,), model.dtype))(keys)
        uniforms = uniforms.T.reshape(*blocks.place.shape, num_samples)

        def reveal_block(carry, inputs):
            block, after, uniforms = inputs
            messages = jax.lax.scan(lambda m, s: (self._message(m, s), m), after, block, reverse=True)[1]
            return jax.lax.scan(reveal, carry, (block, messages, uniforms))

        def reveal(carry, inputs):
            count, window = carry
            site, message, uniforms = inputs
            values = jnp.arange(q)
            rest = window[:, None] // q
            counts = self.guide.table(site.place, q)[count]
            after = message[counts, values[None, :] * q ** (self.window - 1) + rest]
            logits = after + jax.vmap(lambda x: self._potential(site, x))(window)
            value = jax.vmap(pick)(logits, uniforms)
            count = jnp.take_along_axis(counts, value[:, None], axis=1)[:, 0]
            return (count, value * q ** (self.window - 1) + rest[:, 0]), value

        start = jnp.full(num_samples, self.guide.start), jnp.zeros(num_samples, int)
        values = jax.lax.scan(reveal_block, start, (blocks, kept, uniforms))[1]
        values = values.reshape(places, num_samples)[: model.num_sites]
        return jnp.zeros((num_samples, model.num_sites), int).at[:, jnp.array(self.order)].set(values.T)

    def _last(self, model):
        size = model.num_values**self.window
        return jnp.broadcast_to(self.guide.log_final(model.dtype)[:, None], (self.guide.num_counts, size))

    def _block_message(self, message, block):
        """The message before a block from the one after it; what lies between is not kept for the derivative."""
        steps = jax.checkpoint(
            lambda m, block: jax.lax.scan(lambda m, s: (self._message(m, s), None), m, block, reverse=True)
        )
        return steps(message, block)[0]

    def _message(self, message: Float[Array, "counts states"], site: "Site") -> Float[Array, "counts states"]:
        """g_t from g_{t+1}."""
        q, w, counts = self.model.num_values, self.window, self.guide.num_counts
        table = self.guide.table(site.place, q)
        after = message.reshape(counts, q, q ** (w - 1))
        values = jnp.arange(q)
        terms = after[table.T, values[:, None], :] + site.fields[:, None, None]
        for place, lag in enumerate(self.lags[:-1]):
            split = terms.reshape(q, counts, q ** (lag - 1), q, q ** (w - 1 - lag))
            terms = (split + site.couplings[place][:, None, None, :, None]).reshape(terms.shape)
        terms = terms[:, :, :, None] + site.couplings[-1][:, None, None, :]
        if self.guide.running is not None:
            states = digits(jnp.arange(q**w), q, w)
            extra = jax.vmap(lambda x: self.guide.running_weights(site.place, x, q, terms.dtype), out_axes=1)(states)
            terms = terms + extra.reshape(q, 1, q ** (w - 1), q)
        return log_sum(terms, 0).reshape(counts, q**w)

    def _potential(self, site: "Site", window: Int[Array, ""]) -> Float[Array, " q"]:
        """h_t(v) + Σ_l J_{t,l}(v, x_l), and what the guide adds."""
        q, w = self.model.num_values, self.window
        total = site.fields
        for place, lag in enumerate(self.lags):
            total = total + site.couplings[place][:, window // q ** (w - lag) % q]
        if self.guide.running is not None:
            total = total + self.guide.running_weights(site.place, digits(window, q, w), q, total.dtype)
        return total

    def _blocks(self, model: Pairwise) -> "Site":
        """Fields and couplings in the order of revealing, in blocks; places past the end take the value 0 at no cost."""
        n, q = model.num_sites, model.num_values
        size = math.isqrt(n - 1) + 1
        padding = -n % size
        bonds = jnp.zeros((n, len(self.lags), q, q), model.dtype)
        if len(model.graph.edges):
            later, lag, directed = _lagged(model.graph, self.order, self.lags)
            bonds = bonds.at[later, lag].set(model.directed_couplings[directed])
        dummy = jnp.where(jnp.arange(q) == 0, jnp.zeros((), model.dtype), -jnp.inf)
        fields = jnp.concatenate([model.fields[jnp.array(self.order)], jnp.broadcast_to(dummy[None], (padding, q))])
        bonds = jnp.concatenate([bonds, jnp.zeros((padding, *bonds.shape[1:]), model.dtype)])
        places = jnp.concatenate([jnp.array(self.order), jnp.full(padding, UNKNOWN)])
        split = lambda array: array.reshape(-1, size, *array.shape[1:])  # noqa: E731
        return Site(split(fields), split(bonds), split(places))


class Site(NamedTuple):
    """What is revealed at one step: its field, couplings to each lag, and number (−1 past the end)."""

    fields: Float[Array, "*b q"]
    couplings: Float[Array, "*b lags q q"]
    place: Int[Array, "*b"]


def lags(graph: Graph, order: Int[np.ndarray, " n"]) -> tuple[int, ...]:
    """How far back bonds reach in an order: all lengths that occur, ascending; (1,) without bonds.

    Example:
        >>> from pidjax.discrete import lattice
        >>> lags(lattice(5, 3), np.arange(15)), lags(lattice(3, 5), lattice(3, 5).order)
        ((1, 3), (1, 3))
    """
    position = np.argsort(order)
    lengths = np.unique(np.abs(position[graph.edges[:, 0]] - position[graph.edges[:, 1]]))
    return tuple(lengths.tolist()) or (1,)


def _lagged(graph: Graph, order, lags):
    """For each bond: the place of its later site, the index of its lag, and the coupling with the later site first."""
    position = np.argsort(order)
    first, second = position[graph.edges[:, 0]], position[graph.edges[:, 1]]
    lag = np.searchsorted(lags, np.abs(first - second))
    return np.maximum(first, second), lag, np.arange(len(first)) + len(first) * (second > first)
