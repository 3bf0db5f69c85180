"""Pairwise models: sites on a graph, each with one of q values; Ising (q = 2, spins ∓1) and Potts.

    log p̃(v) = Σ_i fields[i, v_i] + Σ_{e=(i,j)} couplings[e, v_i, v_j] = −E(v)

Derivatives of log Z are moments: in fields[i, a] it is P(v_i = a), in couplings[e, a, b] it is P(v_i = a, v_j = b).
"""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, DTypeLike, Float, Int, Key

from .._doors.checks import as_floating, as_scalar, check_count, check_key, check_kind, concrete
from .._doors.show import shown
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
        ValueError: shapes or dtypes that do not agree; NaN or infinity; energies that add up to more than a number of the
            dtype holds.

    Example:
        >>> model = ising(lattice(1, 2), couplings=jnp.array([0.5]), fields=jnp.array([0.1, 0.0]))
        >>> round(float(model.log_density(jnp.array([1, 0]))), 4)
        -0.4
    """

    graph: Graph = eqx.field(static=True)
    fields: Float[Array, "n q"] = eqx.field(converter=partial(as_floating, "fields"))
    couplings: Float[Array, "M q q"] = eqx.field(converter=partial(as_floating, "couplings"))
    levels: Float[Array, " q"] = eqx.field(converter=partial(as_floating, "levels"))

    def __check_init__(self):
        check_graph(self.graph)
        if self.levels.ndim != 1 or self.levels.shape[0] < 2:
            raise ValueError(f"levels has shape {self.levels.shape}; pass shape (q,), q at least 2")
        n, q = self.graph.num_sites, self.levels.shape[0]
        for name, array, shape in (
            ("fields", self.fields, (n, q)),
            ("couplings", self.couplings, (len(self.graph.edges), q, q)),
        ):
            if array.shape != shape:
                raise ValueError(f"{name} has shape {array.shape}; this graph and {q} values take {shape}")
            if array.dtype != self.levels.dtype:
                raise ValueError(f"{name} is of {array.dtype} but levels of {self.levels.dtype}; pass one dtype")
        _check_sum(self.fields, self.couplings)

    def __repr__(self):
        return shown("Pairwise", graph=self.graph, fields=self.fields, couplings=self.couplings)

    @property
    def num_sites(self) -> int:
        return self.graph.num_sites

    @property
    def num_values(self) -> int:
        return self.fields.shape[1]

    @property
    def dtype(self):
        return self.fields.dtype

    def log_density(self, values: Int[Array, " n"]) -> Float[Array, ""]:
        """log p̃ of a configuration, minus its energy; NaN if traced values are not all in 0 … q−1."""
        values = as_values("values", values, self.num_values, (self.num_sites,))
        first, second = self.graph.edges.T
        bonds = self.couplings[jnp.arange(len(first)), values[first], values[second]]
        log_density = jnp.sum(self.fields[jnp.arange(self.num_sites), values]) + jnp.sum(bonds)
        return jnp.where(jnp.all(are_values(values, self.num_values)), log_density, jnp.nan)

    def local(self, site: Int[Array, ""], values: Int[Array, " n"]) -> Float[Array, " q"]:
        """What each value of a site adds to log p̃, given those of its neighbours that are known (not −1)."""
        site = as_values("site", site, self.num_sites, ())
        values = as_values("values", values, self.num_values, (self.num_sites,), lowest=UNKNOWN)
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
        """The levels of values; NaN where a traced one is not in 0 … q−1."""
        values = as_values("values", values, self.num_values)
        return jnp.where(are_values(values, self.num_values), self.levels[values], jnp.nan)

    def tempered(self, beta: ArrayLike) -> "Pairwise":
        """The model at inverse temperature β: all energies times β."""
        beta = as_scalar("beta", beta).astype(self.dtype)
        return Pairwise(self.graph, self.fields * beta, self.couplings * beta, self.levels)

    def in_field(self, field: ArrayLike) -> "Pairwise":
        """The model with Σ_i field_i · level(v_i) added to log p̃: the source of the magnetisations. (n,), or one number."""
        field = _spread("field", field, self.num_sites, self.dtype)
        return Pairwise(self.graph, self.fields + field[:, None] * self.levels[None, :], self.couplings, self.levels)


def as_values(
    name: str, values: Any, num_values: int, shape: tuple[int, ...] | None = None, lowest: int = 0
) -> Int[Array, "..."]:
    """Values 0 … q−1 (or from −1, not revealed) as an array of integers, of a shape if one is given."""
    values = jnp.asarray(values)
    wanted = f"integers from {lowest} to {num_values - 1}"
    if not jnp.issubdtype(values.dtype, jnp.integer):
        raise ValueError(f"{name} is of {values.dtype}; pass {wanted}")
    if shape is not None and values.shape != shape:
        raise ValueError(f"{name} has shape {values.shape}; pass {shape}, and jax.vmap over many")
    known = concrete(values)
    if known is not None and not ((known >= lowest) & (known < num_values)).all():
        spins = "; for spins ∓1 the values 0 and 1" if num_values == 2 and known.min() == -1 else ""
        raise ValueError(f"{name} holds {known.min()} … {known.max()}; pass {wanted}{spins}")
    return values


def are_values(values: Int[Array, "..."], num_values: int) -> Array:
    """Which of them are in 0 … q−1: for what nothing can be raised about, while it is traced."""
    return (values >= 0) & (values < num_values)


def as_model(model: Pairwise, name: str = "model") -> Pairwise:
    """The model, if it is one."""
    check_kind(name, model, Pairwise, "a Pairwise model: ising(...), potts(...)")
    return model


def check_graph(graph: Graph) -> None:
    """Raise unless it is a graph."""
    check_kind("graph", graph, Graph, "a Graph: lattice(...), complete(...), random_regular(...)")


def _check_sum(fields: Float[Array, "n q"], couplings: Float[Array, "M q q"]) -> None:
    """Raise if the largest that energies can add up to is beyond the dtype."""
    of_sites, of_bonds = concrete(fields), concrete(couplings)
    if of_sites is None or of_bonds is None:
        return
    with np.errstate(over="ignore"):
        largest = np.abs(of_sites).max(1).sum(dtype=float) + np.abs(of_bonds).max((1, 2)).sum(dtype=float)
    if not 4 * largest < np.finfo(fields.dtype).max:
        raise ValueError(
            f"fields and couplings add up to as much as {largest:.3g}, too large for {fields.dtype}; pass smaller ones"
        )


def ising(graph: Graph, couplings: ArrayLike, fields: ArrayLike = 0.0) -> Pairwise:
    """log p̃ = Σ_e J_e s_i s_j + Σ_i h_i s_i, with spins s = ∓1 for values 0 and 1.

    Args:
        graph: sites and bonds.
        couplings: J, shape (M,), or one number.
        fields: h, shape (n,), or one number.

    Raises:
        ValueError: a wrong shape, NaN or infinity.
    """
    check_graph(graph)
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
        >>> float(model.log_density(jnp.array([2, 2, 3])))
        1.0
    """
    check_graph(graph)
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
    rng, size = _random(seed), check_count("size", size)
    fields = rng.uniform(-0.1, 0.1, size**2)
    return _random_lattice(size, 0.3 + rng.uniform(0, 0.2, 2 * size * (size - 1)), fields, dtype)


def ising_glass(size: int, seed: int = 42, *, dtype: DTypeLike | None = None) -> Pairwise:
    """A spin glass on a size × size lattice: fields and couplings U(−1, 1), drawn in the order of `ising_grid`."""
    rng, size = _random(seed), check_count("size", size)
    fields = rng.uniform(-1, 1, size**2)
    return _random_lattice(size, rng.uniform(-1, 1, 2 * size * (size - 1)), fields, dtype)


def sherrington_kirkpatrick(key: Key[Array, ""], num_sites: int, *, dtype: DTypeLike | None = None) -> Pairwise:
    """Sherrington and Kirkpatrick's glass: J ~ N(0, 1/n) on every pair of sites, no field."""
    check_key("key", key)
    graph = complete(num_sites)
    return ising(graph, jax.random.normal(key, (len(graph.edges),), _floating(dtype)) / graph.num_sites**0.5)


def _random(seed) -> np.random.Generator:
    """NumPy's generator of a seed that is a number."""
    check_kind("seed", seed, (int, np.integer), "an integer")
    return np.random.default_rng(seed)


def _floating(dtype: DTypeLike | None):
    """The dtype, JAX's default for floats if None."""
    dtype = jnp.result_type(float) if dtype is None else jnp.dtype(dtype)
    if dtype not in (jnp.float32, jnp.float64):
        raise ValueError(f"dtype is {dtype}; pass float32 or float64")
    return dtype


def _random_lattice(size, couplings, fields, dtype):
    dtype = _floating(dtype)
    return ising(lattice(size, size), jnp.asarray(couplings, dtype), jnp.asarray(fields, dtype))


def _spread(name, values, size, dtype=None):
    values = as_floating(name, values)
    values = values if dtype is None else values.astype(dtype)
    if values.shape not in ((), (size,)):
        raise ValueError(f"{name} has shape {values.shape}; pass one number or shape ({size},)")
    return jnp.broadcast_to(values, (size,))
