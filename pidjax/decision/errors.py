"""How far estimated moments are from exact ones, relative as published and absolute.

    Δ₁ = mean_i |m̂_i − m_i| / |m_i|,        Δ₂ = mean_{i<j} |ĉ_ij − c_ij| / |c_ij|,     m_i = E[s_i], c_ij = E[s_i s_j]

The relative errors are ill-conditioned: one m_i near zero rules the mean. The absolute ones leave the denominators out.

Source: Chertkov, Ahn & Behjoo, *Sampling Decisions*, arXiv 2503.14549.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from .exact import Exact


class MomentErrors(NamedTuple):
    """Δ₁ and Δ₂, relative and absolute."""

    relative_magnetisation: Float[Array, ""]
    relative_correlation: Float[Array, ""]
    absolute_magnetisation: Float[Array, ""]
    absolute_correlation: Float[Array, ""]


class Moments(NamedTuple):
    """E[s_i], shape (n,), and E[s_i s_j], shape (n, n)."""

    magnetisations: Float[Array, " n"]
    correlations: Float[Array, "n n"]


def moments(spins: Float[Array, "N n"], weights: Float[Array, " N"] | None = None) -> Moments:
    """Moments of weighted spins; weights sum to one, equal if None."""
    weights = jnp.full(spins.shape[0], 1 / spins.shape[0], spins.dtype) if weights is None else weights
    weighted = weights[:, None] * spins
    return Moments(jnp.sum(weighted, axis=0), weighted.T @ spins)


def exact_moments(exact: Exact) -> Moments:
    """The true ones."""
    return Moments(exact.magnetisations, exact.correlations)


def moment_errors(found: Moments, true: Moments) -> MomentErrors:
    """Δ₁ and Δ₂ of one estimate; their standard errors come from independent repetitions.

    Example:
        >>> true = Moments(jnp.array([0.5, -0.1]), jnp.array([[1.0, 0.2], [0.2, 1.0]]))
        >>> found = Moments(jnp.array([0.4, -0.1]), jnp.array([[1.0, 0.1], [0.1, 1.0]]))
        >>> [round(float(error), 3) for error in moment_errors(found, true)]
        [0.1, 0.5, 0.05, 0.1]
    """
    first, second = jnp.triu_indices(len(true.magnetisations), 1)
    single = jnp.abs(found.magnetisations - true.magnetisations)
    double = jnp.abs(found.correlations - true.correlations)[first, second]
    return MomentErrors(
        jnp.mean(single / jnp.abs(true.magnetisations)),
        jnp.mean(double / jnp.abs(true.correlations[first, second])),
        jnp.mean(single),
        jnp.mean(double),
    )
