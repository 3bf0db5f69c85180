"""What the path weights alone tell: log Z, effective sample sizes, and the bounds on both sides of log Z.

*Reverse* weights come from the sampler's own paths: blind to a mode that no path has found. *Forward* weights come from
paths led back from exact samples y ~ p by the noising kernels: these see it.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._doors.checks import as_scalar
from .._maths.estimates import Estimate, effective_size, log_evidence, weighted_mean
from ._inputs import checked_log_weights


def log_z_error(log_weights: ArrayLike, truth: ArrayLike = 0.0) -> Estimate:
    """log Ẑ − log Z, with Ẑ = (1/N) Σ_i W_i, and its standard error √((1/ρ − 1)/N), ρ = ESS/N.

    Example:
        >>> round(float(log_z_error(jnp.log(jnp.array([1.0, 3.0])), truth=jnp.log(2.0)).value), 6)
        0.0
    """
    log_weights = checked_log_weights(log_weights)
    value, error = log_evidence(log_weights)
    return Estimate(value - as_scalar("truth", truth).astype(value.dtype), error)


def ess(log_weights: ArrayLike) -> Float[Array, ""]:
    """(Σ_i W_i)² / Σ_i W_i², the effective number of samples, from 1 to N, of reverse weights.

    Example:
        >>> round(float(ess(jnp.zeros(50))), 3)
        50.0
    """
    return effective_size(checked_log_weights(log_weights))


def forward_ess(log_weights: ArrayLike) -> Float[Array, ""]:
    """N / (E_p[W] E_p[1/W]), the effective number of samples, of forward weights.

    It estimates what `ess` does, for E_p[W] = E_q[W²]/Z and E_p[1/W] = 1/Z. One path that the sampler cannot take, of
    log weight +inf, makes it 0.

    Example:
        >>> round(float(forward_ess(jnp.zeros(50))), 3)
        50.0

    Source: Blessing, Jia, Esslinger, Vargas & Neumann, *Beyond ELBOs*, arXiv 2406.07423, and its code.
    """
    log_weights = checked_log_weights(log_weights, forbidden=-jnp.inf)
    return jnp.exp(3 * math.log(log_weights.size) - jax.nn.logsumexp(log_weights) - jax.nn.logsumexp(-log_weights))


def elbo(log_weights: ArrayLike) -> Estimate:
    """E_q[log W] = log Z − KL(q‖p) ≤ log Z, of reverse weights. One dead path makes it −inf.

    Example:
        >>> float(elbo(jnp.array([-1.0, -3.0])).value)
        -2.0
    """
    log_weights = checked_log_weights(log_weights)
    return weighted_mean(log_weights, jnp.full_like(log_weights, 1 / log_weights.size))


def eubo(log_weights: ArrayLike) -> Estimate:
    """E_p[log W] = log Z + KL(p‖q) ≥ log Z, of forward weights.

    Example:
        >>> float(eubo(jnp.array([1.0, 3.0])).value)
        2.0
    """
    log_weights = checked_log_weights(log_weights, forbidden=-jnp.inf)
    return weighted_mean(log_weights, jnp.full_like(log_weights, 1 / log_weights.size))
