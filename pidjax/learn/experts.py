"""Several experts in one: their targets multiplied, their potentials added, each as often as it is trusted.

    p ∝ Π_i p_i^κ_i,  κ_i = 0, 1, 2, …        a mixture again, of Π K_i^κ_i components
    V = Σ_i κ_i V_i                            a harmonic potential again: β = Σ κ_iβ_i,  ν = β⁻¹ Σ κ_iβ_iν_i

Both are exact: the fused process ends on the fused target.
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from .._linear import cholesky, inverse_triangular, log_diagonal, matmul, matvec, transpose
from .._structure import apply, inverse
from ..protocol import Protocol
from ..targets.mixture import GaussianMixture


def product_of_experts(experts: Sequence[GaussianMixture], trust: Sequence[int]) -> GaussianMixture:
    """The normalised Π p_i^κ_i, exactly: one component for each way to choose one from every factor.

    Args:
        experts: mixtures p_i of one dimension.
        trust: κ_i ≥ 0, integers, not all zero.

    Raises:
        ValueError: another number of exponents than experts; an exponent that is no integer ≥ 0; all of them zero.

    Example:
        >>> expert = GaussianMixture(jnp.zeros((1, 1)), jnp.ones((1, 1, 1)))
        >>> product_of_experts([expert, expert], [1, 2]).covariances.round(4)
        Array([[[0.3333]]], dtype=float32)

    Source: Chertkov, *Guided Harmonic Path Integral Diffusion*, arXiv 2512.11859, case C.
    """
    experts, trust = tuple(experts), tuple(trust)
    _check_trust(len(experts), trust)
    if not all(isinstance(power, int) and power >= 0 for power in trust) or not any(trust):
        raise ValueError(f"trust is {trust}; pass integers >= 0, not all 0")
    factors = [expert for expert, power in zip(experts, trust, strict=True) for _ in range(power)]
    fused = factors[0]
    for factor in factors[1:]:
        fused = _product(fused, factor)
    return fused


def _product(first: GaussianMixture, second: GaussianMixture) -> GaussianMixture:
    """N₁N₂ = N(m₁; m₂, C₁+C₂) N(·; m, C) with C = C₁ − C₁(C₁+C₂)⁻¹C₁ and m = m₁ + C₁(C₁+C₂)⁻¹(m₂ − m₁), over pairs."""

    def of_pair(log_weight, mean, covariance, other_log_weight, other_mean, other_covariance):
        whiten = inverse_triangular(cholesky(covariance + other_covariance))
        gain = matmul(whiten, covariance)
        white = matvec(whiten, other_mean - mean)
        log_overlap = log_diagonal(whiten) - 0.5 * jnp.sum(white**2)
        fused = covariance - matmul(transpose(gain), gain)
        return log_weight + other_log_weight + log_overlap, mean + matvec(transpose(gain), white), fused

    over_second = jax.vmap(of_pair, in_axes=(None, None, None, 0, 0, 0))
    pairs = jax.vmap(over_second, in_axes=(0, 0, 0, None, None, None))(
        first.log_weights, first.means, first.covariances, second.log_weights, second.means, second.covariances
    )
    log_weights, means, covariances = (leaf.reshape(-1, *leaf.shape[2:]) for leaf in pairs)
    return GaussianMixture(means, covariances, jnp.exp(log_weights - logsumexp(log_weights)))


def fuse_guides(protocols: Sequence[Protocol], trust: Sequence[ArrayLike]) -> Protocol:
    """The protocol whose potential is Σ κ_i V_i, but for a constant that no law and no control depends on.

    Args:
        protocols: of the same pieces, with centres and stiffness of one shape; everything else is taken from the first.
        trust: κ_i, such that Σ κ_iβ_i can be inverted.

    Raises:
        ValueError: another number of exponents than protocols; protocols of different pieces, or without centres.

    Example:
        >>> from pidjax import harmonic
        >>> left, right = (harmonic(2.0, centre=jnp.full(1, place), noise_scale=1.0) for place in (-1.0, 1.0))
        >>> fused = fuse_guides([left, right], [1.0, 3.0])
        >>> fused.beta, fused.centre
        (Array([8.], dtype=float32), Array([[0.5]], dtype=float32))

    Source: as `product_of_experts`.
    """
    protocols, trust = tuple(protocols), tuple(trust)
    _check_trust(len(protocols), trust)
    shapes = {(one.beta.shape, None if one.centre is None else one.centre.shape) for one in protocols}
    if len(shapes) > 1 or any(one.centre is None for one in protocols):
        raise ValueError(
            f"protocols have stiffness and centres of shapes {sorted(shapes, key=str)}; pass the same, with centres"
        )
    beta = jnp.sum(jnp.stack([power * one.beta for power, one in zip(trust, protocols, strict=True)]), axis=0)
    pulls = [power * jax.vmap(apply)(one.beta, _centre(one)) for power, one in zip(trust, protocols, strict=True)]
    centre = jax.vmap(lambda stiffness, pull: apply(inverse(stiffness), pull))(beta, jnp.sum(jnp.stack(pulls), axis=0))
    return eqx.tree_at(lambda one: (one.beta, one.centre), protocols[0], (beta, centre))


def _centre(protocol: Protocol) -> Float[Array, "P d"]:
    assert protocol.centre is not None
    return protocol.centre


def _check_trust(count: int, trust: tuple) -> None:
    if count == 0 or len(trust) != count:
        raise ValueError(f"trust has {len(trust)} exponents for {count} experts; pass one for each of at least one")
