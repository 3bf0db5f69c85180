"""Pairwise models: sites on a graph, each with one of q values; Ising (q = 2, spins ∓1) and Potts.

    log p̃(v) = Σ_i fields[i, v_i] + Σ_{e=(i,j)} couplings[e, v_i, v_j] = −E(v)

Derivatives of log Z are moments: in fields[i, a] it is P(v_i = a), in couplings[e, a, b] it is P(v_i = a, v_j = b).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, DTypeLike, Float, Int, Key

from .._checks import as_floating
from .graph import Graph, complete, lattice

UNKNOWN = -1
"""The value of a site that is not yet revealed."""


class Pairwise(eqx.Module):
    """A pairwise model.

    Attributes:
        graph: the sites and their bonds.
        fields: log-potentials of each site, shape (n, q).
        couplings: log-potentials of each bond (i, j), shape (M, q, q), the value of i first.
        levels: the number that a value stands for in magnetisations, shape (q,): −1 and 1, or 0 … q−1.

    Raises:
        ValueError: shapes that do not agree; NaN or infinity.

    Example:
        >>> model = ising(lattice(1, 2), couplings=jnp.array([0.5]), fields=jnp.array([0.1, 0.0]))
        >>> round(float(model.log_weight(jnp.array([1, 0]))), 4)
        -0.4
    """

    graph: Graph = eqx.field(static=True)
    fields: Float[Array, "n q"]
    couplings: Float[Array, "M q q"]
    levels: Float[Array, " q"]

    def __check_init__(self):
        n, q = self.graph.num_sites, self.levels.shape[0]
        for name, array, shape in (
            ("fields", self.fields, (n, q)),
            ("couplings", self.couplings, (len(self.graph.edges), q, q)),
        ):
            if array.shape != shape:
                raise ValueError(f"{name} has shape {array.shape}; this graph and {q} values take {shape}")

    @property
    def num_sites(self) -> int:
        return self.graph.num_sites

    @property
    def num_values(self) -> int:
        return self.fields.shape[1]

    @property
    def dtype(self):
        return self.fields.dtype

    def log_weight(self, values: Int[Array, " n"]) -> Float[Array, ""]:
        """log p̃ of a configuration, minus its energy."""
        first, second = self.graph.edges.T
        bonds = self.couplings[jnp.arange(len(first)), values[first], values[second]]
        return jnp.sum(self.fields[jnp.arange(self.num_sites), values]) + jnp.sum(bonds)

    def local(self, site: Int[Array, ""], values: Int[Array, " n"]) -> Float[Array, " q"]:
        """What each value of a site adds to log p̃, given those of its neighbours that are known (not −1)."""
        neighbours = jnp.asarray(self.graph.neighbours)[site]
        found = jnp.where(neighbours >= 0, values[neighbours], UNKNOWN)
        tables = self.directed_couplings[jnp.asarray(self.graph.directed)[site]]
        chosen = jnp.take_along_axis(tables, jnp.maximum(found, 0)[:, None, None], axis=2)[:, :, 0]
        return self.fields[site] + jnp.sum(jnp.where((found >= 0)[:, None], chosen, 0), axis=0)

    @property
    def directed_couplings(self) -> Float[Array, "2M q q"]:
        """The couplings from either end: those of `couplings`, then the same with the second site's value first."""
        if not len(self.graph.edges):
            return jnp.zeros((1, self.num_values, self.num_values), self.dtype)
        return jnp.concatenate([self.couplings, jnp.swapaxes(self.couplings, 1, 2)])

    def spins(self, values: Int[Array, "..."]) -> Float[Array, "..."]:
        """The levels of values."""
        return self.levels[values]

    def tempered(self, beta: float | Float[Array, ""]) -> "Pairwise":
        """The model at inverse temperature β: all energies times β."""
        return eqx.tree_at(lambda m: (m.fields, m.couplings), self, (self.fields * beta, self.couplings * beta))

    def in_field(self, field: Float[Array, " n"]) -> "Pairwise":
        """The model with Σ_i field_i · level(v_i) added to log p̃: the source of the magnetisations."""
        return eqx.tree_at(lambda m: m.fields, self, self.fields + field[:, None] * self.levels[None, :])


def ising(graph: Graph, couplings: ArrayLike, fields: ArrayLike = 0.0) -> Pairwise:
    """log p̃ = Σ_e J_e s_i s_j + Σ_i h_i s_i, with spins s = ∓1 for values 0 and 1.

    Args:
        graph: sites and bonds.
        couplings: J, shape (M,), or one number.
        fields: h, shape (n,), or one number.

    Raises:
        ValueError: a wrong shape, NaN or infinity.
    """
    couplings = _spread("couplings", couplings, len(graph.edges))
    fields = _spread("fields", fields, graph.num_sites, couplings.dtype)
    levels = jnp.array([-1, 1], couplings.dtype)
    pairs = levels[:, None] * levels[None, :]
    return Pairwise(graph, fields[:, None] * levels[None, :], couplings[:, None, None] * pairs[None], levels)


def potts(graph: Graph, couplings: ArrayLike, fields: ArrayLike) -> Pairwise:
    """log p̃ = Σ_e J_e [v_i = v_j] + Σ_i h_i(v_i) with q values.

    Args:
        graph: sites and bonds.
        couplings: J, shape (M,), or one number.
        fields: h, shape (n, q).

    Raises:
        ValueError: a wrong shape, NaN or infinity, fewer than two values.

    Example:
        >>> model = potts(lattice(1, 3), 1.0, jnp.zeros((3, 4)))
        >>> float(model.log_weight(jnp.array([2, 2, 3])))
        1.0
    """
    fields = as_floating("fields", fields)
    if fields.ndim != 2 or fields.shape[0] != graph.num_sites or fields.shape[1] < 2:
        raise ValueError(f"fields has shape {fields.shape}; pass ({graph.num_sites}, q), q at least 2")
    couplings = _spread("couplings", couplings, len(graph.edges), fields.dtype)
    q = fields.shape[1]
    same = jnp.eye(q, dtype=fields.dtype)
    return Pairwise(graph, fields, couplings[:, None, None] * same[None], jnp.arange(q, dtype=fields.dtype))


def ising_grid(size: int, seed: int = 42, *, dtype: DTypeLike | None = None) -> Pairwise:
    """A ferromagnet on a size × size lattice: h = U(−0.1, 0.1), J = 0.3 + U(0, 0.2).

    NumPy's default_rng(seed) draws all fields first, then bond by bond in row order, right before down.

    Example:
        >>> ising_grid(3).graph
        Graph(9 sites, 12 bonds)
    """
    rng = np.random.default_rng(seed)
    fields = rng.uniform(-0.1, 0.1, size**2)
    return _random_lattice(size, 0.3 + rng.uniform(0, 0.2, 2 * size * (size - 1)), fields, dtype)


def ising_glass(size: int, seed: int = 42, *, dtype: DTypeLike | None = None) -> Pairwise:
    """A spin glass on a size × size lattice: fields and couplings U(−1, 1), drawn in the order of `ising_grid`."""
    rng = np.random.default_rng(seed)
    fields = rng.uniform(-1, 1, size**2)
    return _random_lattice(size, rng.uniform(-1, 1, 2 * size * (size - 1)), fields, dtype)


def sherrington_kirkpatrick(key: Key[Array, ""], num_sites: int, *, dtype: DTypeLike | None = None) -> Pairwise:
    """Sherrington and Kirkpatrick's glass: J ~ N(0, 1/n) on every pair of sites, no field."""
    graph = complete(num_sites)
    dtype = jnp.result_type(float) if dtype is None else dtype
    return ising(graph, jax.random.normal(key, (len(graph.edges),), dtype) / num_sites**0.5)


def _random_lattice(size, couplings, fields, dtype):
    dtype = jnp.result_type(float) if dtype is None else dtype
    return ising(lattice(size, size), jnp.asarray(couplings, dtype), jnp.asarray(fields, dtype))


def _spread(name, values, size, dtype=None):
    values = as_floating(name, values)
    values = values if dtype is None else values.astype(dtype)
    if values.shape not in ((), (size,)):
        raise ValueError(f"{name} has shape {values.shape}; pass one number or shape ({size},)")
    return jnp.broadcast_to(values, (size,))
