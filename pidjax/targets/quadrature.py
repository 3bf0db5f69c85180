"""Expectations under a Gaussian mixture, without randomness.

    E[f(x)] = Σ_k π_k Σ_j w_j f( μ_k + L_k z_j ),     L_k L_kᵀ = Σ_k,

with nodes z_j, w_j for the standard normal law: up to three dimensions a lattice, on which the trapezoidal rule converges
geometrically for analytic f; beyond, Sobol points.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float

from .._doors.checks import as_dtype, check_count, check_kind, check_single
from .._doors.functions import check_array
from .._doors.show import shown
from .._maths.maps import apply, log_volume
from .mixture import GaussianMixture

_PER_AXIS = {1: 400, 2: 96, 3: 32}
_SOBOL_POINTS = 2**12
_FARTHEST = 8.0
_AT_ONCE = 16


class Nodes(NamedTuple):
    """Points z_j of shape (n, d) and weights w_j of shape (n,) for the standard normal law."""

    points: Float[Array, "n d"]
    weights: Float[Array, " n"]

    def __repr__(self):
        return shown("Nodes", points=self.points, weights=self.weights)


def lattice(dim: int, per_axis: int, dtype: DTypeLike | None = None) -> Nodes:
    """The points of a lattice inside a ball, with weights ∝ exp(−|z|²/2).

    Args:
        dim: d ≥ 1.
        per_axis: points along each axis, ≥ 2.
        dtype: of the nodes; JAX's default if left out.

    Raises:
        ValueError: a count out of range.

    Example:
        >>> nodes = lattice(2, 20)
        >>> print(f"{nodes.weights @ nodes.points[:, 0] ** 4:.4f}")
        3.0000
    """
    dim, per_axis = check_count("dim", dim), check_count("per_axis", per_axis)
    if per_axis < 2:
        raise ValueError(f"per_axis is {per_axis}; pass an integer >= 2")
    if dim * np.log2(per_axis) > 30:
        raise ValueError(
            f"per_axis is {per_axis} in dimension {dim}, which makes {per_axis}^{dim} points; pass fewer, or use sobol"
        )
    reach = min(_FARTHEST, 0.85 * np.sqrt(np.pi * per_axis))
    axis = np.linspace(-reach, reach, per_axis)
    points = np.stack(np.meshgrid(*[axis] * dim, indexing="ij"), axis=-1).reshape(-1, dim)
    points = points[np.sum(points**2, axis=-1) <= 1.0001 * reach**2]
    weights = np.exp(-0.5 * np.sum(points**2, axis=-1))
    return _nodes(points, weights / weights.sum(), dtype)


def sobol(dim: int, count: int, dtype: DTypeLike | None = None) -> Nodes:
    """`count` points of a scrambled Sobol sequence (of one fixed scrambling) and their mirror images, equally weighed.

    Args:
        dim: d ≥ 1.
        count: a power of two.
        dtype: of the nodes; JAX's default if left out.

    Raises:
        ValueError: a count that is no power of two, or out of range.

    Example:
        >>> nodes = sobol(5, 1024)
        >>> print(f"{nodes.weights @ nodes.points[:, 0] ** 2:.2f}")
        1.00
    """
    dim, count = check_count("dim", dim), check_count("count", count)
    if count & (count - 1):
        raise ValueError(f"count is {count}; pass a power of two")

    from scipy.special import ndtri
    from scipy.stats.qmc import Sobol

    uniforms = Sobol(dim, rng=np.random.default_rng(0)).random(count)
    half = ndtri(np.clip(uniforms, 1e-12, 1 - 1e-12))
    points = np.concatenate([half, -half])
    return _nodes(points, np.full(2 * count, 0.5 / count), dtype)


def _nodes(points: np.ndarray, weights: np.ndarray, dtype: DTypeLike | None) -> Nodes:
    dtype = as_dtype(dtype)
    return Nodes(jnp.asarray(points, dtype), jnp.asarray(weights, dtype))


def default_nodes(dim: int, dtype: DTypeLike | None = None) -> Nodes:
    """400, 96² or 32³ nodes (those inside the ball) in one to three dimensions; 2 · 4096 Sobol points beyond.

    Example:
        >>> default_nodes(1).points.shape
        (400, 1)
    """
    dim = check_count("dim", dim)
    return lattice(dim, _PER_AXIS[dim], dtype) if dim in _PER_AXIS else sobol(dim, _SOBOL_POINTS, dtype)


def expectation(
    mixture: GaussianMixture, function: Callable[[Float[Array, " d"]], Array], nodes: Nodes | None = None
) -> Array:
    """E[f(x)] of an array-valued function of one point.

    Args:
        mixture: the law of x.
        function: of x, shape (d,), to an array.
        nodes: from `lattice` or `sobol`; by default `default_nodes`.

    Raises:
        ValueError: nodes of another dimension than the mixture.

    Example:
        >>> mixture = GaussianMixture.isotropic(jnp.array([[0.0], [2.0]]), 0.5)
        >>> print(f"{expectation(mixture, lambda x: x[0] ** 2):.4f}")
        2.5000
    """
    _check(mixture, nodes)
    check_array("function", function, mixture.means[0])
    return _expectation(mixture, lambda _, x: function(x), nodes)


def _expectation(mixture: GaussianMixture, function, nodes: Nodes | None) -> Array:
    """E[f(k, x)] with the number k of the component that x belongs to."""
    points, weights = default_nodes(mixture.dim, mixture.means.dtype) if nodes is None else nodes

    @jax.checkpoint
    def of_component(k, mean, factor):
        values = jax.vmap(lambda z: function(k, mean + apply(factor, z)))(points)
        return jnp.tensordot(weights, values, 1)

    numbers = jnp.arange(mixture.means.shape[0])
    means = jax.lax.map(
        lambda part: of_component(*part), (numbers, mixture.means, mixture.factors), batch_size=_AT_ONCE
    )
    return jnp.tensordot(mixture.weights, means, 1)


def entropy(mixture: GaussianMixture, nodes: Nodes | None = None) -> Float[Array, ""]:
    """−E[log p(x)] of a mixture of positive covariances.

    With r_k(x) the probability that x belongs to component k, −log p = −log π_k − log N_k + log r_k: the first two have
    closed means, only log r_k, which vanishes where components are apart, is left to the nodes.

    Args:
        mixture: p.
        nodes: from `lattice` or `sobol`; by default `default_nodes`.

    Example:
        >>> print(f"{entropy(GaussianMixture.isotropic(jnp.array([[0.0], [2.0]]), 0.5)):.4f}")
        1.5724
    """
    _check(mixture, nodes)
    log_scales = jax.vmap(lambda factor: log_volume(factor, mixture.dim))(mixture.factors)
    normal = 0.5 * mixture.dim * (1 + jnp.log(2 * jnp.pi).astype(log_scales.dtype)) + log_scales
    alive = mixture.weights > 0
    surprise = jnp.where(alive, -jnp.where(alive, mixture.log_weights, 0), 0)

    def log_responsibility(k, x):
        apart = mixture.log_joint(x)
        return jnp.where(alive[k], apart[k] - jax.scipy.special.logsumexp(apart), 0)

    return mixture.weights @ (surprise + normal) + _expectation(mixture, log_responsibility, nodes)


def check_nodes(nodes: Nodes | None, dim: int) -> None:
    """Raise unless nodes, if given, are `Nodes` in this dimension."""
    if nodes is not None:
        check_kind("nodes", nodes, Nodes, "lattice(...) or sobol(...)")
    if nodes is not None and nodes.points.shape[1:] != (dim,):
        raise ValueError(f"nodes have points of shape {nodes.points.shape[1:]}; pass nodes of dimension {dim}")


def _check(mixture: GaussianMixture, nodes: Nodes | None) -> None:
    check_kind("mixture", mixture, GaussianMixture, "a GaussianMixture")
    check_single("mixture", mixture.means, 2)
    check_nodes(nodes, mixture.dim)
