"""Two wells in some coordinates: p̃(x) = Π_{i ∈ wells} exp(f(x_i)) · Π_{other i} exp(−x_i²/2).

All is one integral over a line: log Z = m log z + (d − m)/2 · log 2π with z = ∫ exp f, and the entropy likewise.
"""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, DTypeLike, Float

from .._doors.checks import as_dtype, as_positive, check_count
from ..targets.density import Density
from .inverse import inverse_cdf
from .known import Drawable

_NODES = 2049
"""Of one coordinate: the trapezoidal rule is then exact to all digits, and draws to their fifth."""


class DoubleWellLogDensity(eqx.Module):
    """−Σ_{i≤m} (x_i² − δ)² − ½ Σ_{i>m} x_i²."""

    depth: Float[Array, ""]
    num_wells: int = eqx.field(static=True)

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        wells, rest = x[: self.num_wells], x[self.num_wells :]
        return -jnp.sum((wells**2 - self.depth) ** 2) - 0.5 * jnp.sum(rest**2)


class ManyWellLogDensity(eqx.Module):
    """Σ ½ x + 6 x² − x⁴ − ½ y² over pairs (x, y) of neighbours."""

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        wells, rest = x[0::2], x[1::2]
        return jnp.sum(wells * (0.5 + wells * (6 - wells**2))) - 0.5 * jnp.sum(rest**2)


class Wells(Drawable[Density]):
    """Wells in some coordinates, Gaussians in the others; made by `double_well` and `many_well`.

    Attributes:
        wells: which coordinates have two wells.
        reach: the well density is that of [−reach, reach].
        well_density: at equidistant nodes there.
    """

    wells: Bool[Array, " d"]
    reach: Float[Array, ""]
    well_density: Float[Array, " g"]

    def _draw(self, key, num_samples):
        uniform_key, noise_key = jax.random.split(key)
        shape, dtype = (num_samples, self.dim), self.well_density.dtype
        nodes = jax.vmap(lambda uniform: inverse_cdf(self.well_density, uniform))(
            jax.random.uniform(uniform_key, (num_samples * self.dim,), dtype)
        )
        inside = self.reach * (2 * nodes.reshape(shape) / (self.well_density.size - 1) - 1)
        return jnp.where(self.wells[None], inside, jax.random.normal(noise_key, shape, dtype))


def double_well(dim: int = 5, num_wells: int = 5, depth: float = 4.0, dtype: DTypeLike | None = None) -> Wells:
    """log p̃ = −Σ_{i≤m} (x_i² − δ)² − ½ Σ_{i>m} x_i² with m = `num_wells`, δ = `depth`: 2^m modes of equal weight.

    (5, 5, 4) is the MW54 of the literature, (50, 5, 2) its MW52.

    Raises:
        ValueError: depth not positive, num_wells above dim.

    Example:
        >>> known = double_well(50, 5, 2.0)
        >>> known.dim, round(known.log_z, 3)
        (50, 42.817)

    Source: Berner, Richter & Ullrich, *An optimal control perspective on diffusion-based generative modeling*, arXiv
    2211.01364.
    """
    dim, num_wells, depth = (
        check_count("dim", dim),
        check_count("num_wells", num_wells),
        float(as_positive("depth", depth)),
    )
    if num_wells > dim:
        raise ValueError(f"num_wells is {num_wells}; pass at most dim, {dim}")
    return _wells(
        f"double_well({dim}, {num_wells}, {depth:.4g})",
        Density(DoubleWellLogDensity(jnp.asarray(depth, as_dtype(dtype)), num_wells), dim, dtype=dtype),
        np.arange(dim) < num_wells,
        lambda x: -((x**2 - depth) ** 2),
        reach=math.sqrt(depth + 7),
    )


def many_well(num_pairs: int = 16, dtype: DTypeLike | None = None) -> Wells:
    """log p̃ = Σ ½ x + 6 x² − x⁴ − ½ y² over pairs, as x₁, y₁, x₂, y₂, …: 2^num_pairs modes of unequal weight.

    In each pair P(x > 0) = 0.8443071, E x = 1.18796, Var x = 1.54855.

    Example:
        >>> known = many_well(16)
        >>> known.dim, round(known.log_z, 4)
        (32, 164.6957)

    Source: Midgley, Stimper, Simm, Schölkopf & Hernández-Lobato, *Flow annealed importance sampling bootstrap*, arXiv
    2208.01893; one pair is the double well of Noé, Olsson, Köhler & Wu, *Boltzmann generators*, Science 2019.
    """
    dim = 2 * check_count("num_pairs", num_pairs)
    return _wells(
        f"many_well({dim})",
        Density(ManyWellLogDensity(), dim, dtype=dtype),
        np.arange(dim) % 2 == 0,
        lambda x: x / 2 + 6 * x**2 - x**4,
        reach=4.0,
    )


def _wells(name: str, target: Density, wells: np.ndarray, log_well: Callable, reach: float) -> Wells:
    """With the integrals of one well; beyond ± reach its mass is below the last digit."""
    nodes = np.linspace(-reach, reach, _NODES)
    logs = log_well(nodes)
    density = np.exp(logs - logs.max())
    mass = np.sum(density) * (nodes[1] - nodes[0])
    log_z = math.log(mass) + logs.max()
    entropy = log_z - np.average(logs, weights=density)
    num_wells, num_rest = int(np.sum(wells)), int(np.sum(~wells))
    dtype = target.shift.dtype
    return Wells(
        name=name,
        target=target,
        entropy=float(num_wells * entropy + num_rest / 2 * math.log(2 * math.pi * math.e)),
        log_z=float(num_wells * log_z + num_rest / 2 * math.log(2 * math.pi)),
        wells=jnp.asarray(wells),
        reach=jnp.asarray(reach, dtype),
        well_density=jnp.asarray(density, dtype),
    )
