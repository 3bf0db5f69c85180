"""Which sites are bound to which: the part of a model that is known before any compilation.

A `Graph` is immutable and hashed by its content, so that it can be a static part of a model: lattices, complete and random
graphs, and what algorithms ask of them: neighbours, a colouring, an order of elimination, the lags of an order.
"""

from collections.abc import Sequence
from functools import cached_property

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Int, Key

from .._doors.checks import check_count, check_key


class Graph(eqx.Module):
    """Sites 0 … n−1 and M bonds between different sites.

    Args:
        num_sites: n.
        edges: pairs of sites, shape (M, 2).
        order: an order of the sites in which bonds are short; by default the order of their numbers.

    Attributes:
        edges: as given, shape (M, 2).
        order: the order, shape (n,).

    Raises:
        ValueError: edges that are not pairs of integers, a site out of range, a bond from a site to itself, a bond given
            twice, a graph in several pieces, an order that is no permutation.

    Example:
        >>> Graph(3, [(0, 1), (1, 2)]).neighbours.tolist()
        [[1, -1], [0, 2], [1, -1]]
    """

    num_sites: int = eqx.field(static=True)
    _edges: tuple[tuple[int, int], ...] = eqx.field(static=True)
    _order: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, num_sites: int, edges: Sequence | np.ndarray, order: Sequence | np.ndarray | None = None):
        self.num_sites = check_count("num_sites", num_sites)
        pairs = _pairs(edges)
        if pairs.size and not (pairs.min() >= 0 and pairs.max() < self.num_sites):
            raise ValueError(
                f"edges name sites {pairs.min()} … {pairs.max()}; pass numbers from 0 to {self.num_sites - 1}"
            )
        loops = pairs[pairs[:, 0] == pairs[:, 1]]
        if loops.size:
            raise ValueError(f"edges hold the loop {tuple(loops[0].tolist())}")
        if len(np.unique(np.sort(pairs, axis=1), axis=0)) < len(pairs):
            raise ValueError("edges hold a bond twice; add the two couplings into one")
        self._edges, self._order = (
            tuple(map(tuple, pairs.tolist())),
            tuple(checked_order(self.num_sites, order).tolist()),
        )

    def __check_init__(self):
        pieces = np.unique(self.components)
        if len(pieces) > 1:
            sizes = np.bincount(self.components)
            sizes = sizes[sizes > 0]
            raise ValueError(
                f"the graph is disconnected: {len(pieces)} pieces of {sizes.min()} to {sizes.max()} sites; sample each "
                "piece by itself, or join them by bonds of coupling 0"
            )

    @cached_property
    def edges(self) -> Int[np.ndarray, "M 2"]:
        return np.array(self._edges, np.int64).reshape(-1, 2)

    @cached_property
    def order(self) -> Int[np.ndarray, " n"]:
        return np.array(self._order, np.int64)

    def __eq__(self, other):
        return isinstance(other, Graph) and (self._edges, self._order) == (other._edges, other._order)

    def __hash__(self):
        return hash((self.num_sites, self._edges, self._order))

    def __repr__(self):
        return f"Graph({self.num_sites} sites, {len(self.edges)} bonds)"

    @cached_property
    def neighbour_lists(self) -> list[set[int]]:
        """The neighbours of each site, as sets."""
        lists: list[set[int]] = [set() for _ in range(self.num_sites)]
        for a, b in self.edges.tolist():
            lists[a].add(b)
            lists[b].add(a)
        return lists

    @cached_property
    def neighbours(self) -> Int[np.ndarray, "n degree"]:
        """The neighbours of each site, filled up with −1 to the largest degree."""
        return self._incident[0]

    @cached_property
    def directed(self) -> Int[np.ndarray, "n degree"]:
        """For each entry of `neighbours` the bond: e if the site is its first end, M + e if its second; 0 where filled."""
        return self._incident[1]

    @cached_property
    def _incident(self):
        degree = max((len(found) for found in self.neighbour_lists), default=0)
        neighbours = np.full((self.num_sites, max(degree, 1)), -1)
        directed = np.zeros_like(neighbours)
        filled = np.zeros(self.num_sites, int)
        for e, (a, b) in enumerate(self.edges.tolist()):
            for site, other, bond in ((a, b, e), (b, a, len(self.edges) + e)):
                neighbours[site, filled[site]], directed[site, filled[site]] = other, bond
                filled[site] += 1
        return neighbours, directed

    @cached_property
    def components(self) -> Int[np.ndarray, " n"]:
        """For each site the smallest site of its piece."""
        label = np.arange(self.num_sites)
        while True:
            lower = label.copy()
            np.minimum.at(lower, self.edges[:, 0], label[self.edges[:, 1]])
            np.minimum.at(lower, self.edges[:, 1], label[self.edges[:, 0]])
            lower = lower[lower]
            if (lower == label).all():
                return label
            label = lower

    @cached_property
    def colours(self) -> tuple[Int[np.ndarray, " m"], ...]:
        """Sites in groups without a bond inside: two on a lattice (its checkerboard), by breadth-first greedy choice."""
        colour = np.full(self.num_sites, -1)
        for site in self._breadth_first():
            taken = {colour[other] for other in self.neighbour_lists[site]}
            colour[site] = next(c for c in range(self.num_sites) if c not in taken)
        return tuple(np.flatnonzero(colour == c) for c in range(colour.max() + 1))

    def _breadth_first(self):
        seen, queue = {0}, [0]
        for site in queue:
            fresh = sorted(self.neighbour_lists[site] - seen)
            seen.update(fresh)
            queue.extend(fresh)
        return queue


def _pairs(edges) -> Int[np.ndarray, "M 2"]:
    """The bonds as an array of whole numbers, which nothing is rounded to."""
    try:
        pairs = np.asarray(edges)
    except ValueError:
        raise ValueError("edges are not all pairs; pass pairs of sites, shape (M, 2)") from None
    if pairs.size == 0 and pairs.ndim > 0:
        return np.zeros((0, 2), np.int64)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not np.issubdtype(pairs.dtype, np.integer):
        raise ValueError(f"edges is of {pairs.dtype}{list(pairs.shape)}; pass pairs of integers, shape (M, 2)")
    return pairs.astype(np.int64)


def checked_order(num_sites: int, order) -> Int[np.ndarray, " n"]:
    """The order as an array; that of the numbers if None."""
    if order is None:
        return np.arange(num_sites)
    order = np.asarray(order)
    whole = np.issubdtype(order.dtype, np.integer) and order.shape == (num_sites,)
    if not whole or not (np.sort(order) == np.arange(num_sites)).all():
        raise ValueError(
            f"order is of {order.dtype}{list(order.shape)} and no permutation of the integers 0 … {num_sites - 1}; pass "
            "the sites as they are revealed"
        )
    return order.astype(np.int64)


def lattice(rows: int, columns: int, *, periodic: bool = False) -> Graph:
    """A square lattice, site (r, c) with the number r·columns + c; `periodic` closes each row into a ring (a cylinder).

    Bonds come site by site in row order, right before down, the rings' closing bonds last. The order runs along the
    shorter side, so that the lags are 1 and that side.

    Example:
        >>> lattice(2, 2).edges.tolist()
        [[0, 1], [0, 2], [1, 3], [2, 3]]
    """
    rows, columns = check_count("rows", rows), check_count("columns", columns)
    if periodic and columns < 3:
        raise ValueError(f"columns is {columns}; a ring needs at least 3")
    number = np.arange(rows * columns).reshape(rows, columns)
    edges = []
    for r in range(rows):
        for c in range(columns):
            if c + 1 < columns:
                edges.append((number[r, c], number[r, c + 1]))
            if r + 1 < rows:
                edges.append((number[r, c], number[r + 1, c]))
    if periodic:
        edges += [(number[r, 0], number[r, -1]) for r in range(rows)]
    order = number.ravel() if columns <= rows or periodic else number.T.ravel()
    return Graph(rows * columns, edges, order)


def complete(num_sites: int) -> Graph:
    """Every pair of sites bound.

    Example:
        >>> complete(4)
        Graph(4 sites, 6 bonds)
    """
    return Graph(num_sites, np.stack(np.triu_indices(check_count("num_sites", num_sites), 1), axis=1))


def random_regular(key: Key[Array, ""], num_sites: int, degree: int) -> Graph:
    """A connected graph, each site with `degree` neighbours: stubs joined at random, again until it is simple and whole.

    Raises:
        ValueError: no such graph, or none found in 10,000 attempts.

    Example:
        >>> {len(found) for found in random_regular(jax.random.key(0), 10, 3).neighbour_lists}
        {3}
    """
    check_key("key", key)
    num_sites, degree = check_count("num_sites", num_sites), check_count("degree", degree)
    if not 2 <= degree < num_sites or num_sites * degree % 2:
        raise ValueError(
            f"no connected graph of {num_sites} sites has degree {degree}; pass 2 <= degree < num_sites, their product even"
        )
    random = np.random.default_rng(int(jax.random.bits(key)))
    for _ in range(10_000):
        edges = random.permutation(np.repeat(np.arange(num_sites), degree)).reshape(-1, 2)
        try:
            return Graph(num_sites, np.sort(edges, axis=1))
        except ValueError:
            continue
    raise ValueError(
        f"no simple connected graph of degree {degree} was found on {num_sites} sites; pass a lower degree"
    )
