"""How far estimated moments are from exact ones, relative as published and absolute.

    Δ₁ = mean_i |m̂_i − m_i| / |m_i|,        Δ₂ = mean_{i<j} |ĉ_ij − c_ij| / |c_ij|,     m_i = E[s_i], c_ij = E[s_i s_j]

The relative errors are ill-conditioned: one m_i near zero rules the mean. The absolute ones leave the denominators out.

Source: Chertkov, Ahn & Behjoo, *Sampling Decisions*, arXiv 2503.14549.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._doors.checks import as_floating, check_kind, concrete
from .._maths.small import matmul
from .enumeration import AbstractExact


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


def moments(spins: ArrayLike, weights: ArrayLike | None = None) -> Moments:
    """Moments of weighted spins, shape (N, n); weights of shape (N,) sum to one, equal if None.

    Raises:
        ValueError: a wrong shape; NaN or infinity; weights that are negative or do not sum to one.
    """
    if not jnp.issubdtype(jnp.result_type(spins), jnp.inexact):
        raise ValueError(f"spins is of {jnp.result_type(spins)}; pass numbers with a point, as model.spins(values)")
    spins = as_floating("spins", spins)
    if spins.ndim != 2 or spins.shape[0] < 1:
        raise ValueError(f"spins has shape {spins.shape}; pass (N, n), N at least 1")
    number = spins.shape[0]
    weights = jnp.full(number, 1 / number, spins.dtype) if weights is None else as_floating("weights", weights)
    if weights.shape != (number,):
        raise ValueError(f"weights has shape {weights.shape}; pass ({number},)")
    known = concrete(weights)
    if known is not None and not (known.min() >= 0 and abs(known.sum() - 1) < 1e-3):
        raise ValueError(
            f"weights has the minimum {known.min():g} and the sum {known.sum():g}; pass weights >= 0 that sum to one, as "
            "Solution.weights"
        )
    weighted = weights[:, None] * spins
    return Moments(jnp.sum(weighted, axis=0), matmul(weighted.T, spins))


def exact_moments(exact: AbstractExact) -> Moments:
    """The true ones."""
    check_kind("exact", exact, AbstractExact, "exact(model), Transfer(model), ...")
    return Moments(exact.magnetisations, exact.correlations)


def moment_errors(found: Moments, true: Moments) -> MomentErrors:
    """Δ₁ and Δ₂ of one estimate; their standard errors come from independent repetitions.

    Example:
        >>> true = Moments(jnp.array([0.5, -0.1]), jnp.array([[1.0, 0.2], [0.2, 1.0]]))
        >>> found = Moments(jnp.array([0.4, -0.1]), jnp.array([[1.0, 0.1], [0.1, 1.0]]))
        >>> [round(float(error), 3) for error in moment_errors(found, true)]
        [0.1, 0.5, 0.05, 0.1]
    """
    for name, pair in (("found", found), ("true", true)):
        check_kind(name, pair, Moments, "Moments: moments(...) or exact_moments(...)")
    if found.magnetisations.shape != true.magnetisations.shape:
        raise ValueError(f"found is of {len(found.magnetisations)} sites but true of {len(true.magnetisations)}")
    first, second = jnp.triu_indices(len(true.magnetisations), 1)
    single = jnp.abs(found.magnetisations - true.magnetisations)
    double = jnp.abs(found.correlations - true.correlations)[first, second]
    return MomentErrors(
        jnp.mean(single / jnp.abs(true.magnetisations)),
        jnp.mean(double / jnp.abs(true.correlations[first, second])),
        jnp.mean(single),
        jnp.mean(double),
    )
