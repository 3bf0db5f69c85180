"""Mixtures of isotropic Gaussians in the plane, Σ_k w_k N(μ_k, σ_k² I), as the literature draws them."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import DTypeLike

from .._doors.checks import as_dtype
from ..targets.mixture import GaussianMixture
from .known import KnownMixture

GMM40_STANDARD_DEVIATION = math.log1p(math.e)
"""softplus(1) = 1.3132617."""


def nine(dtype: DTypeLike | None = None) -> KnownMixture:
    """Σ N(m, 0.3 I)/9 over m ∈ {−5, 0, 5}². P(within 3 sd of the nearest mean) = 0.98889.

    Example:
        >>> nine().centres.shape
        (9, 2)
    """
    return _mixture("nine", _lattice([-5, 0, 5]), math.sqrt(0.3), None, 3.831108867, dtype)


def grid25(dtype: DTypeLike | None = None) -> KnownMixture:
    """Σ N(m, 0.3 I)/25 over m ∈ {−10, −5, 0, 5, 10}².

    Example:
        >>> grid25().centres.shape
        (25, 2)
    """
    return _mixture("grid25", _lattice([-10, -5, 0, 5, 10]), math.sqrt(0.3), None, 4.852756120, dtype)


def gmm40(dtype: DTypeLike | None = None) -> KnownMixture:
    """Σ_k N(m_k, softplus(1)² I)/40 with m_k = 80 ((u & 0xFFFFFF)/2²⁴ − ½), u the raw 32-bit draws of MT19937, seed 0.

    Example:
        >>> gmm40().centres[0].tolist()
        [-0.2994728088378906, 21.457744598388672]

    Source: Midgley, Stimper, Simm, Schölkopf & Hernández-Lobato, *Flow annealed importance sampling bootstrap*, arXiv
    2208.01893, whose means are those of torch.rand after manual_seed(0).
    """
    raw = np.random.RandomState(0).randint(0, 2**32, size=(40, 2), dtype=np.uint32)
    uniform = (raw & 0xFFFFFF).astype(np.float32) / np.float32(2**24)
    means = (uniform - np.float32(0.5)) * np.float32(80)
    return _mixture("gmm40", means, GMM40_STANDARD_DEVIATION, None, 6.859468829, dtype)


def ada_regular(dtype: DTypeLike | None = None) -> KnownMixture:
    """Σ N(m, 0.3² I)/9 over m ∈ {−1.5, 0, 1.5}².

    Example:
        >>> round(ada_regular().entropy, 3)
        2.581

    Source: Chertkov & Behjoo, *AdaPID*, arXiv 2512.11858.
    """
    return _mixture("ada_regular", _lattice([-1.5, 0, 1.5]), 0.3, None, 2.581277093, dtype)


def ada_perturbed_a(dtype: DTypeLike | None = None) -> KnownMixture:
    """`ada_regular` perturbed, no symmetry left: Σ_k w_k N(m_k, σ_k² I). With numpy's default_rng(20241005), in turn

        m += U(−½, ½)^(9×2),   σ = 0.3 · U(½, 2)^9,   w ∝ U(½, 3/2)^9.

    Example:
        >>> bool(ada_perturbed_a().standard_deviations.max() > 0.59)
        True

    Source: Chertkov & Behjoo, *AdaPID*, arXiv 2512.11858.
    """
    rng = np.random.default_rng(20241005)
    means = _lattice([-1.5, 0, 1.5]) + rng.uniform(-0.5, 0.5, (9, 2))
    standard_deviations = 0.3 * rng.uniform(0.5, 2, 9)
    weights = rng.uniform(0.5, 1.5, 9)
    return _mixture("ada_perturbed_a", means, standard_deviations, weights, 2.798665099, dtype)


def _lattice(axis: list[float]) -> np.ndarray:
    """The square lattice axis × axis, second coordinate outer, shape (len(axis)², 2)."""
    first, second = np.meshgrid(axis, axis)
    return np.stack([first.ravel(), second.ravel()], axis=1)


def _mixture(name, means, standard_deviations, weights, entropy, dtype) -> KnownMixture:
    means, variances = jnp.asarray(means, as_dtype(dtype)), np.square(standard_deviations)
    return KnownMixture(name, GaussianMixture.isotropic(means, variances, weights), entropy, log_z=0.0)
