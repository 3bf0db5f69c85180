"""Several experts in one: their targets multiplied, their potentials added, each as often as it is trusted.

    p ∝ Π_i p_i^κ_i,  κ_i = 0, 1, 2, …        a mixture again, of Π K_i^κ_i components
    V = Σ_i κ_i V_i                            a harmonic potential again: β = Σ κ_iβ_i,  ν = β⁻¹ Σ κ_iβ_iν_i

Both are exact: the fused process ends on the fused target.
"""

import math
import operator
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike

from .._doors.checks import as_scalar, check_kind, concrete
from .._maths.maps import apply, inverse, symmetric
from .._maths.small import cholesky, inverse_triangular, log_diagonal, matmul, matvec, transpose
from ..learning.parameters import check_protocol
from ..process.protocol import Protocol
from ..targets.mixture import GaussianMixture

_MOST_COMPONENTS = 100_000


def product_of_experts(experts: Sequence[GaussianMixture], trust: Sequence[int]) -> GaussianMixture:
    """The normalised Π p_i^κ_i, exactly: one component for each way to choose one from every factor.

    Args:
        experts: mixtures p_i of one dimension.
        trust: κ_i ≥ 0, integers, not all zero.

    Raises:
        ValueError: another number of exponents than experts; an exponent that is no integer ≥ 0; all of them zero; experts
            that are no mixtures, or of several dimensions; more than 100,000 components.

    Example:
        >>> expert = GaussianMixture(jnp.zeros((1, 1)), jnp.ones((1, 1, 1)))
        >>> product_of_experts([expert, expert], [1, 2]).covariances.round(4)
        Array([[[0.3333]]], dtype=float32)

    Source: Chertkov, *Guided Harmonic Path Integral Diffusion*, arXiv 2512.11859, case C.
    """
    experts, powers = _pairs("experts", experts, trust)
    for expert in experts:
        if not isinstance(expert, GaussianMixture):
            raise ValueError(f"experts holds a {type(expert).__name__}; pass GaussianMixtures")
    if len({expert.dim for expert in experts}) > 1:
        raise ValueError(
            f"experts have the dimensions {[expert.dim for expert in experts]}; pass mixtures of one dimension"
        )
    powers = tuple(map(_integer, powers))
    if min(powers) < 0 or not any(powers):
        raise ValueError(f"trust is {trust}; pass integers >= 0, not all 0")
    count = math.prod(expert.weights.size**power for expert, power in zip(experts, powers, strict=True))
    if count > _MOST_COMPONENTS:
        raise ValueError(
            f"trust is {trust}, which makes {count} components; pass smaller ones, for at most {_MOST_COMPONENTS}"
        )
    factors = [expert for expert, power in zip(experts, powers, strict=True) for _ in range(power)]
    fused = factors[0]
    for factor in factors[1:]:
        fused = _product(fused, factor)
    return fused


def _product(first: GaussianMixture, second: GaussianMixture) -> GaussianMixture:
    """N₁N₂ = N(m₁; m₂, C₁+C₂) N(·; m, C) with C = C₁(C₁+C₂)⁻¹C₂ and m = m₁ + C₁(C₁+C₂)⁻¹(m₂ − m₁), over pairs."""

    def of_pair(log_weight, mean, covariance, other_log_weight, other_mean, other_covariance):
        whiten = inverse_triangular(cholesky(covariance + other_covariance))
        gain = matmul(whiten, covariance)
        white = matvec(whiten, other_mean - mean)
        log_overlap = log_diagonal(whiten) - 0.5 * jnp.sum(white**2)
        fused = symmetric(matmul(transpose(gain), matmul(whiten, other_covariance)))
        return log_weight + other_log_weight + log_overlap, mean + matvec(transpose(gain), white), fused

    over_second = jax.vmap(of_pair, in_axes=(None, None, None, 0, 0, 0))
    pairs = jax.vmap(over_second, in_axes=(0, 0, 0, None, None, None))(
        first.log_weights, first.means, first.covariances, second.log_weights, second.means, second.covariances
    )
    log_weights, means, covariances = (leaf.reshape(-1, *leaf.shape[2:]) for leaf in pairs)
    return GaussianMixture(means, covariances, jnp.exp(log_weights - logsumexp(log_weights)))


def fuse_protocols(protocols: Sequence[Protocol], trust: Sequence[ArrayLike]) -> Protocol:
    """The protocol whose potential is Σ κ_i V_i, but for a constant that no law and no control depends on.

    Args:
        protocols: with centres, and stiffness of one shape; all else but a linear and a constant term is the same in all.
            The constant term is that of the first.
        trust: κ_i, such that Σ κ_iβ_i can be inverted.

    Raises:
        ValueError: another number of exponents than protocols; protocols without centres, or of different pieces, start,
            force, gauge or noise; Σ κ_iβ_i that cannot be inverted (concrete values only).

    Example:
        >>> from pidjax import harmonic
        >>> left, right = (harmonic(2.0, centre=jnp.full(1, place), noise_scale=1.0) for place in (-1.0, 1.0))
        >>> fused = fuse_protocols([left, right], [1.0, 3.0])
        >>> fused.beta, fused.centre
        (Array([8.], dtype=float32), Array([[0.5]], dtype=float32))

    Source: as `product_of_experts`.
    """
    protocols, trust = _pairs("protocols", protocols, trust)
    for one in protocols:
        check_protocol(one)
    trust = [as_scalar("trust", power).astype(protocols[0].beta.dtype) for power in trust]
    shapes = {(one.beta.shape, None if one.centre is None else one.centre.shape) for one in protocols}
    if len(shapes) > 1 or any(one.centre is None for one in protocols):
        raise ValueError(
            f"protocols have stiffness and centres of shapes {sorted(shapes, key=str)}; pass the same, with centres"
        )
    for name in ("edges", "start", "force", "gauge", "noise_scale"):
        agree = concrete(eqx.tree_equal(*(getattr(one, name) for one in protocols)))
        if agree is not None and not agree:
            raise ValueError(f"protocols differ in {name}; pass the same in all")

    def total(of):
        return jnp.sum(jnp.stack([power * of(one) for power, one in zip(trust, protocols, strict=True)]), axis=0)

    def linear(one):
        return jnp.zeros_like(one.centre) if one.linear is None else one.linear

    beta = total(lambda one: one.beta)
    pull = total(lambda one: jax.vmap(apply)(one.beta, one.centre))
    centre = jax.vmap(lambda stiffness, pull: apply(inverse(stiffness), pull))(beta, pull)
    known = concrete(centre)
    if known is not None and not np.isfinite(known).all():
        raise ValueError(
            f"trust is {[float(power) for power in trust]}, with which the sum of the stiffnesses has no inverse"
        )
    has_linear = any(one.linear is not None for one in protocols)
    return eqx.tree_at(
        lambda one: (one.beta, one.centre, one.linear),
        protocols[0],
        (beta, centre, total(linear) if has_linear else None),
        is_leaf=lambda leaf: leaf is None,
    )


def _pairs(name: str, values: Any, trust: Any) -> tuple[tuple, tuple]:
    """Both as tuples of one length, at least one."""
    check_kind(name, values, list | tuple, "a list of them")
    is_row = isinstance(trust, list | tuple) or getattr(trust, "ndim", 0) == 1
    if not is_row or len(trust) != len(values) or not values:
        raise ValueError(f"trust is {trust} for {len(values)} {name}; pass one exponent for each of at least one")
    return tuple(values), tuple(trust)


def _integer(value: Any) -> int:
    """The value as an `int`; −1 if it is no integer."""
    try:
        return -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return -1
