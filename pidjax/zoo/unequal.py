"""Two isotropic Gaussians of unequal width: w N(μ₁, σ₁² I) + (1 − w) N(μ₂, σ₂² I), beside each other or one in the other.

In many dimensions the narrow one has next to no volume, and as much mass as the wide one all the same.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import DTypeLike

from .._doors.checks import as_dtype, as_positive, as_scalar, check_count
from ..targets.mixture import GaussianMixture
from .known import KnownMixture


def two_modes(
    dim: int = 20, distance: float = 10.0, width: float = 0.3, dtype: DTypeLike | None = None
) -> KnownMixture:
    """½ N(0, I) + ½ N(a e₁, w² I) with a = `distance`, w = `width`.

    Raises:
        ValueError: distance negative, width not positive.

    Example:
        >>> two_modes(3, distance=5.0).centres.tolist()
        [[0.0, 0.0, 0.0], [5.0, 0.0, 0.0]]
    """
    dim, distance = check_count("dim", dim), float(as_scalar("distance", distance))
    width = float(as_positive("width", width))
    if distance < 0:
        raise ValueError(f"distance is {distance:g}; pass a number >= 0")
    means = np.zeros((2, dim))
    means[1, 0] = distance
    mixture = GaussianMixture.isotropic(jnp.asarray(means, as_dtype(dtype)), np.array([1, width**2]))
    return KnownMixture(f"two_modes({dim}, {distance:.4g}, {width:.4g})", mixture, entropy=None, log_z=0.0)


def spike_and_slab(
    dim: int = 10,
    spike_width: float = 0.1,
    slab_width: float = 1.0,
    spike_weight: float = 0.5,
    dtype: DTypeLike | None = None,
) -> KnownMixture:
    """w N(0, σ² I) + (1 − w) N(0, s² I) with w = `spike_weight`, σ = `spike_width`, s = `slab_width`.

    The entropy is an integral over the radius r, whose density is w χ_d(r/σ)/σ + (1 − w) χ_d(r/s)/s.

    Raises:
        ValueError: a width not positive, spike_weight outside (0, 1).

    Example:
        >>> round(spike_and_slab(10).entropy, 3)
        3.37
    """
    dim = check_count("dim", dim)
    widths = np.array(
        [float(as_positive(name, value)) for name, value in (("spike_width", spike_width), ("slab_width", slab_width))]
    )
    spike_weight = float(as_positive("spike_weight", spike_weight))
    if spike_weight >= 1:
        raise ValueError(f"spike_weight is {spike_weight:g}; pass a number between 0 and 1")
    weights = np.array([spike_weight, 1 - spike_weight])
    mixture = GaussianMixture.isotropic(jnp.zeros((2, dim), as_dtype(dtype)), widths**2, weights)
    return KnownMixture(
        f"spike_and_slab({dim}, {widths[0]:.4g})", mixture, _concentric_entropy(dim, widths, weights), log_z=0.0
    )


def _concentric_entropy(dim: int, widths: np.ndarray, weights: np.ndarray) -> float:
    """−∫ p log p of Σ_k w_k N(0, σ_k² I), over log r by the trapezoidal rule."""
    log_radius = np.linspace(np.log(widths.min()) - 40 / dim, np.log(widths.max() * (math.sqrt(dim) + 9)), 20_001)
    log_normal = (
        np.log(weights)[:, None]
        - dim * np.log(widths * math.sqrt(2 * math.pi))[:, None]
        - 0.5 * (np.exp(log_radius) / widths[:, None]) ** 2
    )
    log_density = np.logaddexp(*log_normal)
    log_shell = math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2) + dim * log_radius
    mass = np.exp(log_density + log_shell) * (log_radius[1] - log_radius[0])
    return float(-np.sum(mass * log_density))
