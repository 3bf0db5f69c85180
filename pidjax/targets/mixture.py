"""A Gaussian mixture: tilted, it is a Gaussian mixture again.

For p = Σ_k π_k N(μ_k, Σ_k) seen through ζ = A y + N(0, I), with S_k = I + AΣ_kAᵀ and the residual ρ_k = ζ − Aμ_k,

    component mean        μ_k + Σ_kAᵀ S_k⁻¹ ρ_k
    component covariance  (Σ_k⁻¹ + AᵀA)⁻¹
    component weight      ∝ π_k |S_k|^(−1/2) exp(−½ ρ_kᵀ S_k⁻¹ ρ_k)

S_k ≥ I, so nothing diverges at t = 0 (A = 0), and the determinant, which keeps the mode weights right, is there.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Key

from .._checks import as_floating, check_count, check_positive_definite, normalised_weights
from .._linear import cholesky, eigenvalues, inverse_triangular, log_diagonal, matmul, matvec, transpose
from .._show import shown
from .._structure import apply, product
from ..bridge import Observation
from .base import Law, Target, discrete


class TiltedMixture(Law):
    """A Gaussian mixture as a law: normalised log-weights (k,), means (k, d), covariances and their factors (k, d, d)."""

    log_mass: Float[Array, ""]
    mean: Float[Array, " d"]
    log_weights: Float[Array, " k"]
    means: Float[Array, "k d"]
    covariances: Float[Array, "k d d"]
    factors: Float[Array, "k d d"]

    def covariance(self):
        weights = jnp.exp(self.log_weights)
        offsets = self.means - self.mean[None]
        within = jnp.tensordot(weights, self.covariances, 1)
        return within + matmul(transpose(weights[:, None] * offsets), offsets)

    def draw(self, key):
        key_component, key_noise = jax.random.split(key)
        k = discrete_component(key_component, self.log_weights)
        noise = jax.random.normal(key_noise, self.mean.shape, self.mean.dtype)
        return self.means[k] + matvec(self.factors[k], noise)


def discrete_component(key: Key[Array, ""], log_weights: Float[Array, " k"]) -> Array:
    """An index drawn with the weights exp(log_weights), by one uniform and their running sum."""
    cumulative = jnp.cumsum(jnp.exp(discrete(log_weights) - jnp.max(log_weights)))
    uniform = jax.random.uniform(key, (), cumulative.dtype) * cumulative[-1]
    return jnp.sum(cumulative[:-1] <= uniform)


class GaussianMixture(Target):
    """The mixture Σ_k π_k N(μ_k, Σ_k), normalised.

    Args:
        means: μ, shape (k, d).
        covariances: Σ, shape (k, d, d), symmetric positive definite.
        weights: π, shape (k,), not negative; scaled to sum to one. Equal by default.

    Raises:
        ValueError: wrong shapes, NaN, a covariance that is not symmetric positive definite, weights negative or all zero.

    Example:
        >>> mixture = GaussianMixture(jnp.array([[-1.0], [2.0]]), jnp.array([[[0.1]], [[0.2]]]))
        >>> mixture.mean().item()
        0.5

    Source: Behjoo & Chertkov, arXiv 2409.15166; the tilted component is Bayes' rule for a Gaussian.
    """

    means: Float[Array, "k d"]
    covariances: Float[Array, "k d d"]
    weights: Float[Array, " k"]

    has_density: ClassVar[bool] = True
    closed_form: ClassVar[bool] = True

    def __init__(self, means, covariances, weights=None):
        means, covariances = as_floating("means", means), as_floating("covariances", covariances)
        if means.ndim != 2 or 0 in means.shape:
            raise ValueError(f"means has shape {means.shape}; pass shape (k, d) with k components in d dimensions")
        k, d = means.shape
        if covariances.shape != (k, d, d):
            raise ValueError(
                f"covariances has shape {covariances.shape} but means has shape {means.shape}; pass {(k, d, d)}"
            )
        check_positive_definite("covariances", covariances)
        self.means, self.covariances = means, covariances.astype(means.dtype)
        self.weights = normalised_weights("weights", weights, k, means.dtype)

    @classmethod
    def isotropic(cls, means, variance, weights=None) -> "GaussianMixture":
        """The mixture with covariances variance · I; `variance` is a scalar or has shape (k,)."""
        means = as_floating("means", means)
        variance = as_floating("variance", variance).astype(means.dtype)
        if means.ndim != 2 or variance.shape not in ((), means.shape[:1]):
            raise ValueError(
                f"means has shape {means.shape} and variance {variance.shape}; pass (k, d), and a scalar or shape (k,)"
            )
        variance = jnp.broadcast_to(variance, means.shape[:1])
        return cls(means, variance[:, None, None] * jnp.eye(means.shape[-1], dtype=means.dtype)[None], weights)

    def __repr__(self):
        facts = {"components": self.means.shape[-2], "dim": self.dim}
        if self.means.ndim > 2:
            return shown("GaussianMixture", **facts, batch=self.means.shape[:-2])
        return shown("GaussianMixture", **facts, mean=self.mean(), sd=jnp.sqrt(jnp.diagonal(self.covariance())))

    @property
    def dim(self) -> int:
        return self.means.shape[-1]

    @property
    def log_weights(self) -> Float[Array, " k"]:
        alive = self.weights > 0
        return jnp.where(alive, jnp.log(jnp.where(alive, self.weights, 1)), -jnp.inf)

    def tilt(self, observation: Observation, key=None) -> TiltedMixture:
        gain, value = observation
        one = jnp.eye(self.dim, dtype=self.means.dtype)
        prior = cholesky(self.covariances)
        seen = jax.vmap(lambda factor: product(gain, factor))(prior)
        whiten = inverse_triangular(cholesky(one[None] + matmul(seen, transpose(seen))))
        white = matvec(whiten, value[None] - jax.vmap(lambda mean: apply(gain, mean))(self.means))
        log_joint = self.log_weights + log_diagonal(whiten) - 0.5 * jnp.sum(white**2, axis=-1)
        log_mass = logsumexp(log_joint)
        log_weights = log_joint - log_mass
        means = self.means + matvec(prior, matvec(transpose(seen), matvec(transpose(whiten), white)))
        inner = cholesky(one[None] + matmul(transpose(seen), seen))
        factors = matmul(prior, transpose(inverse_triangular(inner)))
        return TiltedMixture(
            log_mass=log_mass,
            mean=jnp.exp(log_weights) @ means,
            log_weights=log_weights,
            means=means,
            covariances=matmul(factors, transpose(factors)),
            factors=factors,
        )

    def log_density(self, y):
        if y.shape != (self.dim,):
            raise ValueError(f"y has shape {y.shape}; pass one point of shape ({self.dim},)")
        whiten = inverse_triangular(cholesky(self.covariances))
        white = matvec(whiten, y[None] - self.means)
        log_joint = self.log_weights + log_diagonal(whiten) - 0.5 * jnp.sum(white**2, axis=-1)
        return logsumexp(log_joint) - 0.5 * self.dim * jnp.log(2 * jnp.pi).astype(y.dtype)

    def log_weight(self, y):
        return jnp.zeros((), y.dtype)

    def mean(self) -> Float[Array, " d"]:
        return self.weights @ self.means

    def covariance(self) -> Float[Array, "d d"]:
        offsets = self.means - self.mean()[None]
        within = jnp.tensordot(self.weights, self.covariances, 1)
        return within + matmul(transpose(self.weights[:, None] * offsets), offsets)

    def location(self):
        return self.mean(), jnp.sqrt(jnp.trace(self.covariance()) / self.dim)

    def snr_range(self):
        total, components = jax.lax.stop_gradient((self.covariance(), self.covariances))
        smallest = jnp.where(self.weights > 0, eigenvalues(components)[:, 0], jnp.inf)
        return 0.3 * self.dim / jnp.trace(total), 3 / jnp.min(smallest)

    def rescaled(self, shift, scale):
        return GaussianMixture((self.means - shift[None]) / scale, self.covariances / scale**2, self.weights)

    def sample(self, key: Key[Array, ""], num_samples: int) -> Float[Array, "n d"]:
        """Exact independent draws, shape (num_samples, d)."""
        num_samples = check_count("num_samples", num_samples)
        factors = cholesky(self.covariances)

        def draw(key):
            key_component, key_noise = jax.random.split(key)
            k = discrete_component(key_component, self.log_weights)
            return self.means[k] + matvec(factors[k], jax.random.normal(key_noise, (self.dim,), self.means.dtype))

        return jax.vmap(draw)(jax.random.split(key, num_samples))
