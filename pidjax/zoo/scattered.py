"""Components at random places, of random shapes: Σ_k w_k f(y; μ_k, Σ_k) with, in turn from numpy's default_rng(seed),

    μ = separation · N(0, 1)^(k×d),   A = N(0, 1)^(k×d×d)/√d,   Σ_k = 0.3 A_k A_kᵀ + 0.2 I,   w ∝ 1, 2, …, k,

f a Gaussian, or a Student t with scale matrix Σ_k.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, DTypeLike, Float

from .._doors.checks import as_dtype, as_positive, check_count
from .._maths.small import matmul, matvec, transpose
from ..targets.density import Density
from ..targets.mixture import GaussianMixture
from .known import Drawable, KnownMixture


class StudentMixtureLogDensity(eqx.Module):
    """log Σ_k w_k t_ν(y; μ_k, (W_kᵀW_k)⁻¹).

    Attributes:
        log_heights: log of w_k times the density of component k at μ_k.
    """

    centres: Float[Array, "k d"]
    whitening: Float[Array, "k d d"]
    log_heights: Float[Array, " k"]
    degrees_of_freedom: Float[Array, ""]

    def __call__(self, y: Float[Array, " d"]) -> Float[Array, ""]:
        squared = jnp.sum(matvec(self.whitening, y[None] - self.centres) ** 2, axis=1)
        decay = (self.degrees_of_freedom + y.size) / 2 * jnp.log1p(squared / self.degrees_of_freedom)
        return logsumexp(self.log_heights - decay)


class StudentMixture(Drawable[Density]):
    """A mixture of Student t; made by `student_mixture`.

    Attributes:
        gaussians: the mixture of N(μ_k, Σ_k), of which a draw is μ_k + √(ν/χ²_ν) (y − μ_k).
    """

    gaussians: GaussianMixture
    degrees_of_freedom: Float[Array, ""]

    @property
    def centres(self) -> Float[Array, "k d"]:
        """μ_k."""
        return self.gaussians.means

    @property
    def mode_weights(self) -> Float[Array, " k"]:
        """w_k."""
        return self.gaussians.weights

    def _draw(self, key, num_samples):
        component_key, noise_key, width_key = jax.random.split(key, 3)
        chosen = jax.random.categorical(component_key, self.gaussians.log_weights, shape=(num_samples,))
        noise = jax.random.normal(noise_key, (num_samples, self.dim), self.centres.dtype)
        squared = 2 * jax.random.gamma(width_key, self.degrees_of_freedom / 2, (num_samples,), noise.dtype)
        widths = jnp.sqrt(self.degrees_of_freedom / squared)
        of_each = jnp.stack([matmul(noise, transpose(factor)) for factor in self.gaussians.factors])
        return self.centres[chosen] + widths[:, None] * of_each[chosen, jnp.arange(num_samples)]


def gaussian_mixture(
    dim: int = 10, num_components: int = 4, separation: float = 3.0, seed: int = 5, dtype: DTypeLike | None = None
) -> KnownMixture:
    """Σ_k w_k N(μ_k, 0.3 A_k A_kᵀ + 0.2 I), w ∝ 1, 2, …, k: full covariances, no two alike.

    With numpy's default_rng(seed), in turn μ = separation · N(0, 1)^(k×d), A = N(0, 1)^(k×d×d)/√d.

    Raises:
        ValueError: separation not positive, or a count that is none.

    Example:
        >>> gaussian_mixture(50).mode_weights.tolist() == jnp.array([0.1, 0.2, 0.3, 0.4]).tolist()
        True
    """
    mixture = _components(dim, num_components, separation, seed, dtype)
    return KnownMixture(f"gaussian_mixture({mixture.dim})", mixture, entropy=None, log_z=0.0)


def student_mixture(
    dim: int = 10,
    num_components: int = 4,
    degrees_of_freedom: float = 3.0,
    separation: float = 3.0,
    seed: int = 5,
    dtype: DTypeLike | None = None,
) -> StudentMixture:
    """Σ_k w_k t_ν(μ_k, Σ_k) with the places and shapes of `gaussian_mixture`: tails |y|^(−ν−d).

    Raises:
        ValueError: degrees_of_freedom or separation not positive, or a count that is none.

    Example:
        >>> student_mixture(5, degrees_of_freedom=3.0).dim
        5
    """
    gaussians = _components(dim, num_components, separation, seed, dtype)
    degrees, dim = float(as_positive("degrees_of_freedom", degrees_of_freedom)), gaussians.dim
    factors = np.asarray(gaussians.factors, np.float64)
    log_heights = (
        np.log(np.asarray(gaussians.weights, np.float64))
        - np.linalg.slogdet(factors)[1]
        + math.lgamma((degrees + dim) / 2)
        - math.lgamma(degrees / 2)
        - dim / 2 * math.log(degrees * math.pi)
    )
    own = gaussians.means.dtype
    density = StudentMixtureLogDensity(
        gaussians.means,
        jnp.asarray(np.tril(np.linalg.inv(factors)), own),
        jnp.asarray(log_heights, own),
        jnp.asarray(degrees, own),
    )
    return StudentMixture(
        name=f"student_mixture({dim}, {degrees:.4g})",
        target=Density(density, dim, dtype=own),
        entropy=None,
        log_z=0.0,
        gaussians=gaussians,
        degrees_of_freedom=density.degrees_of_freedom,
    )


def _components(dim: int, num_components: int, separation: float, seed: int, dtype) -> GaussianMixture:
    dim, num_components = check_count("dim", dim), check_count("num_components", num_components)
    rng = np.random.default_rng(seed)
    means = float(as_positive("separation", separation)) * rng.normal(size=(num_components, dim))
    shapes = rng.normal(size=(num_components, dim, dim)) / math.sqrt(dim)
    covariances = 0.3 * shapes @ shapes.transpose(0, 2, 1) + 0.2 * np.eye(dim)
    means, covariances = (jnp.asarray(value, as_dtype(dtype)) for value in (means, covariances))
    return GaussianMixture(means, covariances, jnp.arange(1, num_components + 1).astype(means.dtype))
