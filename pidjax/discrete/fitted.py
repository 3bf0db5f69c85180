"""Green functions fitted to paths, backward in the order of revealing: transitions that pool over states or features.

K paths visit K prefixes at each step. Given ĝ_{t+1}, each prefix says what ĝ_t should be there,

    b_k = log Σ_v exp( what v adds to log p̃ + ĝ_{t+1}(prefix_k, v) ),

an average over *all* values, not only the one that was taken, and what is fitted is

    Table      ĝ_t = log of the mean of e^b over the prefixes that share a state (a window of the frontier)
    Features   ĝ_t = a quadratic function of the values of the frontier, by least squares on b

The *frontier* are the revealed sites with an unrevealed neighbour: the exact g_t is a function of these. Paths drawn from
the fitted decisions serve the next round, and beside them samples, if there are some: they say where the mass is, the energy
how much. Neither the fit nor the samples need be right: weights stay exact, E[W] = Z.
"""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Key

from .._doors.checks import check_below, check_count, check_key, check_kind
from .._doors.show import shown
from .._maths.logs import log_scatter, log_sum
from .._maths.small import cholesky, inverse_triangular, matmul, matvec, transpose
from .graph import Graph, checked_order
from .model import Pairwise, as_model, as_values
from .prior import AbstractPrior, AbstractValueEstimate, Corrected, check_prior, hidden
from .revealing import reveal


class AbstractFitted(AbstractValueEstimate):
    """A value estimate with parameters for each step, axis 0 of length n + 1; all zero before the fit and at step n."""

    order: eqx.AbstractVar[tuple[int, ...]]
    num_values: eqx.AbstractVar[int]
    parameters: eqx.AbstractVar[tuple[Array, ...]]
    frontier: eqx.AbstractVar[Int[Array, "times sites"]]

    @abstractmethod
    def value(self, parameters: tuple[Array, ...], step: Int[Array, ""], values: Int[Array, " n"]) -> Float[Array, ""]:
        """ĝ_t of a prefix of `step` sites, by that step's parameters."""

    @abstractmethod
    def regress(
        self, step: Int[Array, ""], prefixes: Int[Array, "K n"], targets: Float[Array, " K"]
    ) -> tuple[Array, ...]:
        """The parameters of a step that fit the targets best."""

    @property
    def orders(self):
        return (np.array(self.order),)

    def __repr__(self):
        return shown(type(self).__name__, sites=len(self.order), frontier=self.frontier)

    def increments(self, step, values):
        before, after = ([leaf[step + ahead] for leaf in self.parameters] for ahead in (0, 1))
        site = jnp.array(self.order)[step]
        now = jnp.where(step == 0, 0, self.value(tuple(before), step, values))
        return self.next_values(tuple(after), step, site, values) - now

    def next_values(self, after, step, site, values):
        """ĝ_{t+1} for each value of the site revealed at step t."""
        next_value = lambda v: self.value(after, step + 1, values.at[site].set(v))  # noqa: E731
        return jax.vmap(next_value)(jnp.arange(self.num_values))


def fit(
    key: Key[Array, ""],
    target: Pairwise,
    estimate: AbstractFitted,
    *,
    base: AbstractValueEstimate | None = None,
    samples: ArrayLike | None = None,
    num_paths: int = 1000,
    num_rounds: int = 2,
) -> Corrected:
    """A prior whose decisions follow a value estimate fitted to its own paths.

    Round r draws `num_paths` paths with fold_in(key, r): the first by the local Boltzmann law (or `base`), the next by the
    fit so far. Each path costs two sweeps of local energies: one to draw it, one to fit.

    Args:
        key: a typed key.
        target: a pairwise model.
        estimate: `Table(target)` or `Features(target)`.
        base: an estimate to be corrected, as `Cavity`; None for none.
        samples: configurations, shape (K, n), from data or from a chain, of any law that has been where the target's mass
            is: in the place of the first round's paths, and beside those of the next.
        num_paths, num_rounds: paths in a round, and rounds.

    Raises:
        ValueError: counts below 1; an estimate for another target, or no `Table` or `Features`; samples of other values or
            sites.

    Example:
        >>> from pidjax.discrete import ising_glass
        >>> from pidjax.discrete import sample
        >>> model = ising_glass(6)
        >>> prior = fit(jax.random.key(0), model, Features(model), num_paths=500)
        >>> bool(sample(jax.random.key(1), model, prior).ess > 0.95 * 4096)
        True
    """
    check_key("key", key)
    check_kind("estimate", estimate, AbstractFitted, "Table(model, window=...) or Features(model)")
    check_kind(
        "base", base, (AbstractValueEstimate, type(None)), "an estimate to be corrected, as Cavity(...), or None"
    )
    num_paths, num_rounds = check_count("num_paths", num_paths), check_count("num_rounds", num_rounds)
    check_prior(target, _prior(target, estimate, base))
    given = jnp.zeros((0, target.num_sites), int) if samples is None else _as_samples(target, samples)
    for index in range(num_rounds):
        values = given
        if index > 0 or samples is None:
            paths = _paths(jax.random.fold_in(key, index), _prior(target, estimate, base), num_paths)
            values = jnp.concatenate([given.astype(paths.dtype), paths])
        estimate = _round(target, estimate, base, values)
    return _prior(target, estimate, base)


def _as_samples(target: Pairwise, samples: ArrayLike) -> Int[Array, "K n"]:
    samples = as_values("samples", samples, target.num_values)
    if samples.ndim != 2 or samples.shape[0] == 0 or samples.shape[1] != target.num_sites:
        raise ValueError(f"samples has shape {samples.shape}; pass configurations, shape (K, {target.num_sites})")
    return samples


def _prior(target, estimate: AbstractFitted, base: AbstractValueEstimate | None) -> Corrected:
    return Corrected(target, estimate if base is None else base + estimate, np.array(estimate.order))


@eqx.filter_jit
def _paths(key, prior: AbstractPrior, num_paths: int) -> Int[Array, "K n"]:
    return reveal(key, prior, num_paths)[0]


@eqx.filter_jit
def _round(
    target: Pairwise, estimate: AbstractFitted, base: AbstractValueEstimate | None, values: Int[Array, "K n"]
) -> AbstractFitted:
    prior: AbstractPrior = _prior(target, estimate, base)

    def step(after, time):
        prefixes = jax.vmap(lambda v: hidden(prior, time, v))(values)

        def backed_up(prefix):
            site = prior.order[time]
            gain = target.local(site, prefix) + estimate.next_values(after, time, site, prefix)
            return log_sum(gain if base is None else gain + base.increments(time, prefix), 0)

        parameters = estimate.regress(time, prefixes, jax.vmap(backed_up)(prefixes))
        return parameters, parameters

    last = tuple(jnp.zeros_like(leaf[0]) for leaf in estimate.parameters)
    fitted = jax.lax.scan(step, last, jnp.arange(target.num_sites), reverse=True)[1]
    parameters = tuple(jnp.concatenate([leaf, end[None]]) for leaf, end in zip(fitted, last))
    return eqx.tree_at(lambda one: one.parameters, estimate, parameters)


class Table(AbstractFitted):
    """ĝ pooled over states: one number for each assignment of `window` sites of the frontier.

    These are the ones whose unrevealed neighbours come soonest. With a window as wide as the frontier, and paths enough to
    see every state, the table is the exact message of `Transfer`. A state that no path saw has the mean of all.

    Args:
        model: the target.
        order: by default the graph's.
        window: how many sites.
    """

    order: tuple[int, ...] = eqx.field(static=True)
    parameters: tuple[Float[Array, "times states"]]
    num_values: int = eqx.field(static=True)
    window: int = eqx.field(static=True)
    frontier: Int[Array, "times window"]

    def __init__(self, model: Pairwise, *, window: int, order=None):
        window = check_count("window", window)
        if as_model(model).num_values ** window > 2**20:
            raise ValueError(f"window is {window}; pass one of at most {model.num_values}^window = 2^20 states")
        sites = checked_order(model.num_sites, model.graph.order if order is None else order)
        self.order, self.num_values, self.window = tuple(sites.tolist()), model.num_values, window
        self.frontier = jnp.asarray(frontier(model.graph, sites)[:, :window])
        self.window = self.frontier.shape[1]
        self.parameters = (jnp.zeros((model.num_sites + 1, model.num_values**self.window), model.dtype),)

    def state(self, step, values):
        """The assignment of the window, as a number in base q."""
        sites = self.frontier[step]
        powers = jnp.array([self.num_values**place for place in range(self.window)])
        return jnp.sum(jnp.where(sites >= 0, values[sites], 0) * powers)

    def value(self, parameters, step, values):
        return parameters[0][self.state(step, values)]

    def regress(self, step, prefixes, targets):
        states = jax.vmap(lambda v: self.state(step, v))(prefixes)
        size = self.parameters[0].shape[1]
        counts = jnp.zeros(size, targets.dtype).at[states].add(1)
        means = log_scatter(targets, jnp.ones_like(targets), states, size) - jnp.log(jnp.maximum(counts, 1))
        overall = log_sum(targets, 0) - jnp.log(targets.shape[0]).astype(targets.dtype)
        return (jnp.where(counts > 0, means, overall),)


class Features(AbstractFitted):
    """ĝ = c + Σ_a c_a x_a + Σ_{a<b} c_ab x_a x_b, with x the values of the frontier (spins, for q = 2) in contrasts of mean
    zero; for Ising effective fields and couplings. By least squares with a ridge of 1e-6 of the number of paths, and above
    what rounding does to its matrix in float32.

    Args:
        model: the target.
        order: by default the graph's.
        num_paired: only so many sites of the frontier, the soonest needed, have pairs; 0 for none.
    """

    order: tuple[int, ...] = eqx.field(static=True)
    parameters: tuple[Float[Array, " times"], Float[Array, "times linear"], Float[Array, "times paired paired"]]
    num_values: int = eqx.field(static=True)
    num_paired: int = eqx.field(static=True)
    frontier: Int[Array, "times sites"]

    def __init__(self, model: Pairwise, order=None, *, num_paired: int = 20):
        sites = checked_order(as_model(model).num_sites, model.graph.order if order is None else order)
        check_below("num_paired", num_paired, np.inf, "an integer >= 0")
        self.order, self.num_values = tuple(sites.tolist()), model.num_values
        self.frontier = jnp.asarray(frontier(model.graph, sites))
        self.num_paired = min(int(num_paired), self.frontier.shape[1])
        times, width = model.num_sites + 1, model.num_values - 1
        linear, paired = self.frontier.shape[1] * width, self.num_paired * width
        self.parameters = (
            jnp.zeros(times, model.dtype),
            jnp.zeros((times, linear), model.dtype),
            jnp.zeros((times, paired, paired), model.dtype),
        )

    def contrasts(self, step, values):
        """x, the values of the frontier in an orthogonal basis of mean zero; 0 where it is filled up."""
        basis = jnp.asarray(_contrasts(self.num_values), self.parameters[0].dtype)
        sites = self.frontier[step]
        return jnp.where((sites >= 0)[:, None], basis[jnp.maximum(values[sites], 0)], 0).ravel()

    def value(self, parameters, step, values):
        constant, linear, pairs = parameters
        x = self.contrasts(step, values)
        paired = x[: pairs.shape[0]]
        return constant + x @ linear + paired @ (pairs @ paired)

    def regress(self, step, prefixes, targets):
        count, width, paired = targets.shape[0], self.num_values - 1, self.parameters[2].shape[1]
        x = jax.vmap(lambda v: self.contrasts(step, v))(prefixes)
        first, second = np.triu_indices(paired, 1)
        apart = first // width != second // width
        first, second = first[apart], second[apart]
        design = jnp.concatenate([jnp.ones((count, 1), x.dtype), x, x[:, first] * x[:, second]], axis=1)
        gram, mean = matmul(design.T, design), jnp.mean(targets)
        ridge = jnp.maximum(1e-6 * count, 2 * jnp.finfo(x.dtype).eps * jnp.trace(gram))
        whiten = inverse_triangular(cholesky(gram + ridge * jnp.eye(design.shape[1], dtype=x.dtype)))
        found = matvec(transpose(whiten), matvec(whiten, matvec(design.T, targets - mean)))
        split = 1 + x.shape[1]
        pairs = jnp.zeros((paired, paired), x.dtype).at[first, second].set(found[split:])
        return mean + found[0], found[1:split], pairs


def frontier(graph: Graph, order: Int[np.ndarray, " n"]) -> Int[np.ndarray, "times sites"]:
    """After each step 0 … n: the revealed sites with an unrevealed neighbour, the soonest needed first; filled up with −1.

    Example:
        >>> from pidjax.discrete import lattice
        >>> frontier(lattice(2, 2), np.arange(4)).tolist()
        [[-1, -1], [0, -1], [0, 1], [2, 1], [-1, -1]]
    """
    position = np.argsort(order)
    rows = []
    for step in range(graph.num_sites + 1):
        next_needed = {}
        for site in order[:step].tolist():
            later = [int(position[other]) for other in graph.neighbour_lists[site] if position[other] >= step]
            if later:
                next_needed[site] = min(later)
        rows.append(sorted(next_needed, key=lambda site: (next_needed[site], -position[site])))
    filled = np.full((len(rows), max(1, *map(len, rows))), -1)
    for step, sites in enumerate(rows):
        filled[step, : len(sites)] = sites
    return filled


def _contrasts(num_values: int) -> np.ndarray:
    """An orthogonal basis of functions of a value with mean zero and mean square one, shape (q, q−1)."""
    centred = np.eye(num_values)[:, 1:] - 1 / num_values
    return np.linalg.qr(centred)[0] * np.sqrt(num_values)
