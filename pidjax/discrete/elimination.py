"""Variable elimination: sums over one site after the other, in an order that keeps tables small.

To eliminate site i: add all tables that hold it, the bucket B_i(v_i, v_S), and sum it out, g_i(v_S) = log Σ_{v_i} e^{B_i}.
S, the neighbours of i among the sites that are left, are joined by bonds in turn; the largest |S| of the best order is the
treewidth. Backward, each site is drawn from its bucket given the sites after it: the law of the decision is exact.

The order is *min-fill*: next is the site whose neighbours lack the fewest bonds among themselves, found on the host.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._doors.show import shown
from .._maths.logs import log_sum, pick
from .enumeration import MAX_STATES, AbstractExact, Enumeration
from .graph import Graph
from .model import Pairwise, as_model
from .transfer import Transfer


class Elimination(AbstractExact):
    """Exact sums for graphs of small treewidth: trees, sparse random graphs, ladders.

    Args:
        model: a pairwise model.

    Raises:
        ValueError: a table of more than 2^20 numbers; the width found and the limit are told.

    Example:
        >>> from pidjax.discrete import ising, random_regular
        >>> model = ising(random_regular(jax.random.key(0), 20, 3), 0.4)
        >>> Elimination(model).sample(jax.random.key(1), 5).samples.shape
        (5, 20)
    """

    model: Pairwise
    buckets: tuple[tuple[int, tuple[int, ...]], ...] = eqx.field(static=True)

    def __init__(self, model: Pairwise):
        self.model = as_model(model)
        limit = int(math.log(MAX_STATES, model.num_values) + 1e-9) - 1
        self.buckets = min_fill(model.graph, limit)

    def __repr__(self):
        return shown("Elimination", model=self.model, width=self.width)

    @property
    def width(self) -> int:
        """The largest number of neighbours at an elimination: an upper bound on the treewidth."""
        return max(len(rest) for _, rest in self.buckets)

    def log_partition(self, model):
        return self._eliminated(model)[0]

    def draw(self, key, num_samples):
        tables = self._eliminated(self.model)[1]
        n, q = self.model.num_sites, self.model.num_values

        def configuration(index):
            uniforms = jax.random.uniform(jax.random.fold_in(key, index), (n,), self.model.dtype)
            values = jnp.zeros(n, int)
            for (site, rest), table in zip(reversed(self.buckets), reversed(tables)):
                place = jnp.zeros((), int)
                for other in rest:
                    place = place * q + values[other]
                values = values.at[site].set(pick(table.reshape(q, -1)[:, place], uniforms[site]))
            return values

        return jax.vmap(configuration)(jnp.arange(num_samples))

    def _eliminated(self, model: Pairwise) -> tuple[Float[Array, ""], list[Array]]:
        """log Z, and the bucket of each site, its own axis first and then those of the later ones in order."""
        q = model.num_values
        place = {site: position for position, (site, _) in enumerate(self.buckets)}
        waiting: list[list[tuple[tuple[int, ...], Array]]] = [
            [((site,), model.fields[site])] for site, _ in self.buckets
        ]
        for e, (a, b) in enumerate(model.graph.edges.tolist()):
            first, second = (a, b) if place[a] < place[b] else (b, a)
            table = model.couplings[e] if first == a else model.couplings[e].T
            waiting[place[first]].append(((first, second), table))
        tables = []
        log_z = jnp.zeros((), model.dtype)
        for position, (site, rest) in enumerate(self.buckets):
            scope = (site, *rest)
            bucket = jnp.zeros((q,) * len(scope), model.dtype)
            for sites, table in waiting[position]:
                bucket = bucket + table.reshape([q if other in sites else 1 for other in scope])
            tables.append(bucket)
            message = log_sum(bucket, 0)
            if rest:
                waiting[place[rest[0]]].append((rest, message))
            else:
                log_z = log_z + message
        return log_z, tables


def min_fill(graph: Graph, limit: int) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """The min-fill order: each site, and its neighbours at its elimination in the order of theirs.

    Raises:
        ValueError: a site would have more than `limit` neighbours.

    Example:
        >>> from pidjax.discrete import lattice
        >>> max(len(rest) for _, rest in min_fill(lattice(1, 9), 3))
        1
    """
    left = {site: set(found) for site, found in enumerate(graph.neighbour_lists)}
    fill = {site: _missing(left, site) for site in left}
    found, width = [], 0
    while left:
        site = min(left, key=lambda s: (fill[s], len(left[s]), s))
        rest = left.pop(site)
        width = max(width, len(rest))
        found.append((site, rest))
        changed = set(rest)
        for a in rest:
            changed |= left[a]
            left[a] |= rest
            left[a] -= {a, site}
        for a in rest:
            changed |= left[a]
        for other in changed - {site}:
            fill[other] = _missing(left, other)
    if width > limit:
        raise ValueError(
            f"the graph is too wide for elimination: min-fill finds width {width}, the limit is {limit}; use `sample` with a "
            "prior, or a lattice order with Transfer"
        )
    place = {site: position for position, (site, _) in enumerate(found)}
    return tuple((site, tuple(sorted(rest, key=place.__getitem__))) for site, rest in found)


def _missing(neighbours, site):
    around = sorted(neighbours[site])
    return sum(b not in neighbours[a] for i, a in enumerate(around) for b in around[i + 1 :])


def exact(model: Pairwise) -> AbstractExact:
    """Enumeration up to 2^10 configurations, else Transfer along the graph's order, or Elimination if it is much narrower.

    Raises:
        ValueError: neither order has tables of at most 2^20 numbers; both widths are told.

    Example:
        >>> from pidjax.discrete import ising_grid
        >>> round(float(exact(ising_grid(6)).log_z), 4)
        30.1541
    """
    if as_model(model).num_values ** model.num_sites <= 2**10:
        return Enumeration(model)
    ways, reasons = [], []
    for way in (Transfer, Elimination):
        try:
            ways.append(way(model))
        except ValueError as error:
            reasons.append(str(error))
    if not ways:
        raise ValueError(". And ".join(reasons))
    if len(ways) == 2 and ways[1].width < ways[0].window // 2:
        return ways[1]
    return ways[0]
