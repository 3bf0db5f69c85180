"""The blocks of coordinates that look independent in a population of particles.

With a coordinate's ranks v ∈ (0, 1) its features are f_a(v) = √2 cos(π a v), a = 1, 2, 3: bounded, and orthonormal whatever its
law. Under independence their correlations C obey

    C_{ia,jb} = ⟨f_a(v_i) f_b(v_j)⟩  ~  N(0, 1/N)             for two coordinates i ≠ j,
    N ‖C_{A,rest}‖²  ~  m χ²_ν/ν                              for a block A and the rest of the coordinates,

m = tr C_A tr C_rest, ν = m²/(‖C_A‖² ‖C_rest‖²). The first sees what couples two coordinates, the second a coupling that is
spread over many pairs, of which none stands out.

Source: Kallenberg & Ledwina, *Data-driven rank tests for independence*, JASA 94 (1999), for tests by features of ranks.
"""

from statistics import NormalDist

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..._doors.checks import as_floating, as_positive, concrete, normalised_weights
from ..product import Blocks

FEATURES = 3
FALSE_ALARM = 0.01
"""The probability that independent coordinates are not all told apart: Bonferroni's bound over all tests."""


def independent_blocks(
    points: Float[Array, "n d"],
    weights: Float[Array, " n"] | None = None,
    *,
    effective_size: Float[Array, ""] | float | None = None,
) -> Blocks:
    """The finest partition of the coordinates that the particles do not speak against.

    Coordinates with a correlation beyond the threshold (4.7 standard errors in 32 dimensions, 5.0 in 64) are linked, and blocks
    are what is connected. Those blocks that depend on the rest beyond the same threshold are then joined to one.
    Dependence that no two coordinates show, as that of a parity, is not seen.

    Args:
        points: particles, concrete.
        weights: not negative; equal by default.
        effective_size: how many independent particles they are worth, if they have ancestors in common; 1/Σw² by default.

    Raises:
        ValueError: wrong shapes, NaN, weights negative or all zero; fewer than four distinct values of a coordinate; particles
            that are being traced.

    Example:
        >>> x, y, z = jax.random.normal(jax.random.key(0), (3, 1000))
        >>> independent_blocks(jnp.stack([x, y, x + z], axis=1))
        ((0, 2), (1,))
    """
    points, weights, effective_size = as_population(points, weights, effective_size)
    particles, shares, size = concrete(points), concrete(weights), concrete(effective_size)
    if particles is None or shares is None or size is None:
        raise ValueError("points, or their weights, are being traced; find blocks outside of jit, vmap and grad")
    dim = particles.shape[1]
    num_tests = FEATURES**2 * dim * (dim - 1) // 2 + dim
    threshold = NormalDist().inv_cdf(1 - FALSE_ALARM / (2 * num_tests))

    squares = _squared_correlations(particles[shares > 0].astype(float), shares[shares > 0].astype(float))
    labels = _connected(float(size) * squares.max(axis=(1, 3)) > threshold**2)
    members = np.unique(labels)[:, None] == labels[None]
    if len(members) > 1:
        dependence = _dependence_on_the_rest(squares.sum(axis=(1, 3)), members, float(size))
        joined = members[dependence > threshold].any(axis=0)
        labels = np.where(joined, labels[joined].min(initial=dim), labels)
    return tuple(tuple(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels))


def as_population(points, weights, effective_size) -> tuple[Float[Array, "n d"], Float[Array, " n"], Float[Array, ""]]:
    """Particles, their normalised weights, and the number of independent ones that they are worth: 1/Σw² if None."""
    points = as_floating("points", points)
    if points.ndim != 2 or 0 in points.shape:
        raise ValueError(f"points has shape {points.shape}; pass shape (n, d) with n particles in d dimensions")
    weights = normalised_weights("weights", weights, points.shape[0], points.dtype)
    if effective_size is None:
        return points, weights, 1 / jnp.sum(weights**2)
    return points, weights, as_positive("effective_size", effective_size).astype(points.dtype)


def _squared_correlations(points: Float[np.ndarray, "n d"], weights: Float[np.ndarray, " n"]) -> np.ndarray:
    """C², shape (d, features, d, features)."""
    number, dim = points.shape
    features = np.stack([_features(f"coordinate {i}", points[:, i], weights) for i in range(dim)], axis=1)
    features = features.reshape(number, dim * FEATURES)
    correlations = (features * weights[:, None]).T @ features
    return (correlations**2).reshape(dim, FEATURES, dim, FEATURES)


def _features(name: str, values: Float[np.ndarray, " n"], weights: Float[np.ndarray, " n"]) -> np.ndarray:
    """√2 cos(π a v), shape (n, features), of mean 0 and variance 1 under the weights; equal values share a rank."""
    distinct, inverse = np.unique(values, return_inverse=True)
    if len(distinct) <= FEATURES:
        raise ValueError(f"points has {len(distinct)} distinct values of {name}; pass more than {FEATURES}")
    masses = np.bincount(inverse, weights)
    ranks = (np.cumsum(masses) - masses / 2)[inverse]
    waves = np.cos(np.pi * ranks[:, None] * np.arange(1, FEATURES + 1)[None])
    waves = waves - (weights @ waves)[None]
    return waves / np.sqrt(weights @ waves**2)[None]


def _connected(linked: Bool[np.ndarray, "d d"]) -> Int[np.ndarray, " d"]:
    """The lowest coordinate of the connected part that each belongs to."""
    labels = np.arange(len(linked))
    linked = linked | (labels[:, None] == labels[None])
    while True:
        lowest = np.min(np.where(linked, labels[None], len(linked)), axis=1)
        if (lowest == labels).all():
            return labels
        labels = lowest[lowest]


def _dependence_on_the_rest(
    norms: Float[np.ndarray, "d d"], members: Bool[np.ndarray, "blocks d"], size: float
) -> Float[np.ndarray, " blocks"]:
    """N ‖C_{A,rest}‖² of each block, as a standard normal quantile, by the cube root of Wilson and Hilferty."""
    within = members.astype(float)
    own = np.sum((within @ norms) * within, axis=1)
    across = np.sum(within @ norms, axis=1) - own
    rest = norms.sum() - own - 2 * across
    counts = FEATURES * within.sum(axis=1)
    expected = counts * (FEATURES * len(norms) - counts)
    variance = 2 / 9 * own * rest / expected**2
    return (np.cbrt(size * across / expected) - (1 - variance)) / np.sqrt(variance)
