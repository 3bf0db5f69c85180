"""Means over the samples whose truth is known exactly: mode shares, fraction near a mode, cross-entropy."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._doors.checks import as_positive, concrete, normalised_weights
from .._doors.functions import outcome
from .._maths.estimates import Estimate, weighted_mean
from ._inputs import (
    log_densities,
    positive,
    weighted_samples,
)

Assignment = Callable[[Float[Array, " d"]], Float[Array, " k"]]
"""A map from one point to the probabilities (k,) of the mode that it belongs to, summing to one."""


def nearest(centres: ArrayLike) -> Assignment:
    """The assignment of a point to its nearest centre (Euclidean), one-hot.

    Example:
        >>> nearest(jnp.array([[-1.0], [1.0]]))(jnp.array([0.2])).tolist()
        [0.0, 1.0]
    """
    centres, _ = weighted_samples(centres, None, "centres")

    def assignment(y):
        if y.shape != centres.shape[1:]:
            raise ValueError(f"the point has shape {y.shape} but the centres have dimension {centres.shape[1]}")
        closest = jnp.argmin(jnp.sum((centres.astype(y.dtype) - y[None]) ** 2, axis=-1))
        return jax.nn.one_hot(closest, len(centres), dtype=y.dtype)

    return assignment


def mode_shares(samples: ArrayLike, assignment: Assignment, log_weights: ArrayLike | None = None) -> Float[Array, " k"]:
    """Σ_i w_i r(x_i), the share of each mode under an assignment r.

    With r the responsibilities of a mixture its mean under the target is *exactly* the mixture's weights, however much
    the components overlap. With `nearest` it is the mass of the Voronoi cells.

    Example:
        >>> mode_shares(jnp.array([[-2.0], [3.0]]), nearest(jnp.array([[-1.0], [1.0]]))).tolist()
        [0.5, 0.5]
    """
    samples, weights = weighted_samples(samples, log_weights)
    shape = getattr(outcome("assignment", assignment, samples[0]), "shape", None)
    if shape is None or len(shape) != 1:
        raise ValueError(
            f"assignment returns shape {shape} for one point; return one probability a mode, of shape (k,)"
        )
    shares = jnp.sum(weights[:, None] * jax.vmap(assignment)(samples), axis=0)
    total = concrete(jnp.sum(shares))
    if total is not None and not abs(total - 1) < 1e-3:
        raise ValueError(f"assignment gives shares that sum to {total:g}; return probabilities that sum to one")
    return shares


def mode_total_variation(
    samples: ArrayLike,
    assignment: Assignment,
    mode_weights: ArrayLike,
    log_weights: ArrayLike | None = None,
) -> Float[Array, ""]:
    """½ Σ_k |ŵ_k − w_k| with ŵ the `mode_shares`: from 0 to 1.

    Args:
        samples, assignment, log_weights: as in `mode_shares`.
        mode_weights: w, shape (k,), not negative; scaled to sum to one.

    Example:
        >>> assignment = nearest(jnp.array([[-1.0], [1.0]]))
        >>> float(mode_total_variation(jnp.ones((8, 1)), assignment, jnp.array([0.25, 0.75])))
        0.25
    """
    shares = mode_shares(samples, assignment, log_weights)
    return 0.5 * jnp.sum(jnp.abs(shares - normalised_weights("mode_weights", mode_weights, shares.size, shares.dtype)))


def fraction_within(
    samples: ArrayLike,
    centres: ArrayLike,
    standard_deviations: ArrayLike,
    log_weights: ArrayLike | None = None,
    radius: ArrayLike = 3.0,
) -> Estimate:
    """P( min_k |x − μ_k|/σ_k ≤ radius ), σ of shape (k,) or (). For one Gaussian in the plane 1 − exp(−radius²/2).

    Example:
        >>> float(fraction_within(jnp.array([[0.0], [4.0]]), jnp.zeros((1, 1)), 1.0).value)
        0.5
    """
    samples, weights = weighted_samples(samples, log_weights)
    centres, standard_deviations, radius = (
        value.astype(samples.dtype)
        for value in (
            weighted_samples(centres, None, "centres")[0],
            positive("standard_deviations", standard_deviations),
            as_positive("radius", radius),
        )
    )
    if centres.shape[1] != samples.shape[1]:
        raise ValueError(f"centres has shape {centres.shape}; pass shape (modes, {samples.shape[1]})")
    if standard_deviations.shape not in ((), centres.shape[:1]):
        raise ValueError(f"standard_deviations has shape {standard_deviations.shape}; pass () or {centres.shape[:1]}")

    def is_within(x):
        return jnp.any(jnp.sum((x[None] - centres) ** 2, axis=-1) <= (radius * standard_deviations) ** 2)

    return weighted_mean(jax.vmap(is_within)(samples).astype(samples.dtype), weights)


def cross_entropy(
    samples: ArrayLike,
    log_density: Callable[[Float[Array, " d"]], Float[Array, ""]],
    log_weights: ArrayLike | None = None,
) -> Estimate:
    """E[−log p(x)] with p normalised: the entropy of p if x ~ p. Above it the samples are smeared, below it too sharp.

    Example:
        >>> float(cross_entropy(jnp.zeros((4, 1)), lambda x: -jnp.sum(x**2) - 1.0).value)
        1.0
    """
    samples, weights = weighted_samples(samples, log_weights)
    return weighted_mean(-log_densities(log_density, samples, weights), weights)
