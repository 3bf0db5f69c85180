"""Where generation decides, by theory: which class, and which datum, in the signal-to-noise ratio K.

    speciation      K_S = 1/Λ,                             Λ the largest eigenvalue of a covariance of the data
    collapse        ½ Σ_i log(1 + K_C λ_i) = log n,        of n data of spectrum λ_i; K_C = (n^{2/d} − 1)/σ² where λ_i = σ²
    two Gaussians   P(same class) = E_z σ(2c(c + z)),      c² = |μ|² K/(1 + Kσ²), exact in every dimension

Λ is that of the total covariance where the classes dominate it, of the covariance between classes otherwise. Up to the collapse
the state, which says I(K) nats of the end point, leaves log n − I(K) of which datum it is. `time_at_snr` turns a ratio into
the time of a protocol; in the time of an Ornstein–Uhlenbeck process e^{2t} = 1 + 1/K.

Source: Biroli, Bonnaire, de Bortoli & Mézard, *Dynamical regimes of diffusion models*, Nature Communications 15 (2024).
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from .._doors.checks import as_floating, as_positive, concrete
from .._maths.small import HIGHEST, eigenvalues, matmul, transpose
from ..process.bridge import Observation
from ..targets.mixture import GaussianMixture
from ..targets.quadrature import lattice
from ..targets.samples import Samples
from .law import without_exact_laws

_NEWTON_STEPS = 60


def spectrum(target: Samples | GaussianMixture, *, between_classes: bool = False) -> Float[Array, " n"]:
    """Ascending eigenvalues of the covariance of the target, d of them.

    Args:
        between_classes: of Σ_c π_c (μ_c − μ)(μ_c − μ)ᵀ in its place, one for each class: the labels of a data set, the
            components of a mixture.

    Raises:
        ValueError: another kind of target; a data set without labels, of whose classes it is asked.

    Example:
        >>> mixture = GaussianMixture.isotropic(jnp.array([[-1.0, 0.0], [1.0, 0.0]]), 0.5)
        >>> spectrum(mixture).round(4).tolist(), spectrum(mixture, between_classes=True).round(4).tolist()
        ([0.5, 1.5], [0.0, 1.0])
    """
    if not isinstance(target, Samples | GaussianMixture):
        raise without_exact_laws(target)
    if not between_classes:
        return _total(target)
    if isinstance(target, Samples) and target.labels is None:
        raise ValueError("target has no labels; pass Samples(points, labels=labels)")
    return _between(target)


@jax.jit
def _total(target: Samples | GaussianMixture) -> Float[Array, " d"]:
    if isinstance(target, GaussianMixture):
        return eigenvalues(target.covariance())
    zero = jnp.zeros(target.dim, target.weights.dtype)
    return eigenvalues(target.tilt(Observation(zero[0], zero)).covariance())


@jax.jit
def _between(target: Samples | GaussianMixture) -> Float[Array, " classes"]:
    """Of the k × k products of the means' offsets, weighed by √π: the same, but for zeros, as of the d × d covariance."""
    if isinstance(target, GaussianMixture):
        weights, means = target.weights, target.means
    else:
        zero = jnp.zeros(target.dim, target.weights.dtype)
        data = target.rescaled(zero, jnp.ones_like(zero[0]))

        def of_classes(terms, rows):
            members = terms[:, None] * jax.nn.one_hot(rows.labels, target.num_classes, dtype=terms.dtype)
            return jnp.sum(members, axis=0), jnp.matmul(members.T, rows.points, precision=HIGHEST)

        sums, _ = data.stream(data.seen(Observation(zero[0], zero)), of_classes)
        masses, moments = sums.others
        weights, means = masses / sums.total, moments / jnp.where(masses > 0, masses, 1)[:, None]
    offsets = jnp.sqrt(weights)[:, None] * (means - (weights @ means)[None])
    return eigenvalues(matmul(offsets, transpose(offsets)))


def speciation_snr(variances: ArrayLike) -> Float[Array, ""]:
    """K_S = 1/Λ.

    Args:
        variances: λ_i, shape (d,), from `spectrum`.

    Raises:
        ValueError: variances of which none is > 0.

    Example:
        >>> speciation_snr(jnp.array([0.5, 4.0])).item()
        0.25
    """
    return 1 / jnp.max(_variances(variances))


def collapse_snr(variances: ArrayLike, count: ArrayLike) -> Float[Array, ""]:
    """K_C, at which ½ Σ_i log(1 + K_C λ_i) = log n: the Gaussian estimate of where the state has told which datum it is.

    Args:
        variances: λ_i, shape (d,): σ² d times over for n points of N(0, σ²I).
        count: n > 1; of weighted data the exponential of the weights' entropy.

    Raises:
        ValueError: variances of which none is > 0; a count that is not above 1.

    Example:
        >>> print(f"{collapse_snr(jnp.ones(3072), 4660):.6f} {4660 ** (2 / 3072) - 1:.6f}")
        0.005514 0.005514
    """
    variances, count = _variances(variances), as_positive("count", count)
    known = concrete(count)
    if known is not None and not known > 1:
        raise ValueError(f"count is {known:g}; pass more than one datum")
    return _collapse_snr(variances, jnp.log(count).astype(variances.dtype))


@jax.jit
def _collapse_snr(variances: Float[Array, " d"], log_count: Float[Array, ""]) -> Float[Array, ""]:
    def newton(log_ratio, variances, log_count):
        seen = jnp.exp(log_ratio) * variances
        return log_ratio - (0.5 * jnp.sum(jnp.log1p(seen)) - log_count) / (0.5 * jnp.sum(seen / (1 + seen)))

    # Convex and increasing in log K, so that the steps come down from the value that the largest variance alone would need.
    fixed = jax.lax.stop_gradient((variances, log_count))
    highest = 2 * fixed[1] - jnp.log(jnp.max(fixed[0]))
    found = jax.lax.fori_loop(0, _NEWTON_STEPS, lambda _, log_ratio: newton(log_ratio, *fixed), highest)
    return jnp.exp(newton(found, variances, log_count))


def two_gaussians(ratio: ArrayLike, distance: ArrayLike, variance: ArrayLike) -> Float[Array, "*ratios"]:
    """P(same class) = E_z σ(2c(c + z)), c² = |μ|² K/(1 + Kσ²), of ½N(−μ, σ²I) + ½N(μ, σ²I), back to K and forward again.

    Args:
        ratio: K, of any shape.
        distance: |μ|, half of that between the two.
        variance: σ².

    Raises:
        ValueError: a ratio below 0, a distance or variance that is not positive.

    Example:
        >>> print(f"{two_gaussians(1.0, 2.0, 3.0):.6f}")
        0.775200
    """
    ratio, distance, variance = (
        as_floating("ratio", ratio),
        as_positive("distance", distance),
        as_positive("variance", variance),
    )
    known = concrete(ratio)
    if known is not None and not (known >= 0).all():
        raise ValueError(f"ratio holds {known.min():g}; pass signal-to-noise ratios >= 0")
    distance, variance = distance.astype(ratio.dtype), variance.astype(ratio.dtype)
    nodes = lattice(1, 400, ratio.dtype)
    squared = (distance**2 * ratio / (1 + ratio * variance))[..., None]
    apart = squared > 0
    separation = jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1)), 0)
    points = nodes.points[:, 0].reshape(*[1] * ratio.ndim, -1)
    # By the symmetry of z the odd part of σ drops out, and 2c² may be taken for itself: so the slope at c = 0 is right.
    return jax.nn.sigmoid(2 * (squared + separation * points)) @ nodes.weights


def _variances(variances: ArrayLike) -> Float[Array, " d"]:
    variances = as_floating("variances", variances)
    if variances.ndim != 1 or variances.size == 0:
        raise ValueError(f"variances has shape {variances.shape}; pass shape (d,), from spectrum(target)")
    known = concrete(variances)
    if known is not None and not known.max() > 0:
        raise ValueError(f"variances has the maximum {known.max():g}; pass variances of which one is > 0")
    return jnp.maximum(variances, 0)
