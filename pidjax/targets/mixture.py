"""A Gaussian mixture: tilted, it is a Gaussian mixture again.

For p = Σ_k π_k N(μ_k, L_kL_kᵀ) seen through ζ = A y + N(0, I), with the Cholesky factor W_k⁻¹ of S_k = I + AL_k(AL_k)ᵀ,

    component weight      ∝ π_k |W_k| exp(−½ |W_kζ − W_kAμ_k|²)
    component mean        b_k + B_kζ,    B_k = L_k(AL_k)ᵀW_kᵀW_k,    b_k = μ_k − B_kAμ_k
    component factor      L_k(I + (AL_k)ᵀAL_k)^(−½)

S_k ≥ I, so nothing diverges at t = 0 (A = 0), and the determinant, which keeps the mode weights right, is there. All but the
weights and the means is the same for every state, and the factors are as structured as the covariances and A.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Key

from .._doors.checks import (
    as_floating,
    as_point,
    check_count,
    check_key,
    check_known,
    check_positive_definite,
    check_single,
    concrete,
    normalised_weights,
)
from .._doors.show import of_numbers, shown
from .._maths.maps import (
    Factor,
    adjoint,
    apply,
    cholesky,
    cholesky_of_one_plus_square,
    dense,
    inverse_factor,
    log_volume,
    product,
)
from .._maths.small import HIGHEST, eigenvalues, matmul, transpose
from ..process.bridge import Observation
from .base import AbstractTarget, ExactlyTilted, Place, WithCovariance, WithDensity, WithDraws, WithMass, discrete


class TiltedMixture(WithMass, WithCovariance, WithDraws):
    """A Gaussian mixture as a law.

    Attributes:
        log_weights: normalised, shape (k,).
        value: ζ.
        origins, slopes: b_k, shape (k, d), and B_k, k maps.
        factors: k maps.
    """

    log_mass: Float[Array, ""]
    mean: Float[Array, " d"]
    log_weights: Float[Array, " k"]
    value: Float[Array, " d"]
    origins: Float[Array, "k d"]
    slopes: Float[Array, "k *map"]
    factors: Float[Array, "k *map"]

    def covariance(self):
        weights = jnp.exp(self.log_weights)
        offsets = self.origins + _each(apply, self.slopes, self.value) - self.mean[None]
        within = _mean(weights, _each(lambda factor: product(factor, adjoint(factor)), self.factors))
        between = matmul(transpose(weights[:, None] * offsets), offsets)
        return dense(within, self.value.size) + between

    def draw(self, key):
        key_component, key_noise = jax.random.split(key)
        k = discrete_component(key_component, self.log_weights)
        noise = jax.random.normal(key_noise, self.mean.shape, self.mean.dtype)
        return self.origins[k] + apply(self.slopes[k], self.value) + apply(self.factors[k], noise)


def _each(function, maps: Float[Array, "k *map"], *shared) -> Array:
    """A function of each map of a stack, and of what they share."""
    return jax.vmap(lambda one: function(one, *shared))(maps)


def _mean(weights: Float[Array, " k"], stack: Float[Array, "k ..."]) -> Float[Array, "..."]:
    return jnp.tensordot(weights, stack, 1, precision=HIGHEST)


def discrete_component(key: Key[Array, ""], log_weights: Float[Array, " k"]) -> Array:
    """An index drawn with the weights exp(log_weights), by one uniform and their running sum."""
    cumulative = jnp.cumsum(jnp.exp(discrete(log_weights) - jnp.max(log_weights)))
    uniform = jax.random.uniform(key, (), cumulative.dtype) * cumulative[-1]
    return jnp.sum(cumulative[:-1] <= uniform)


class GaussianMixture(AbstractTarget, ExactlyTilted, WithDensity):
    """The mixture Σ_k π_k N(μ_k, Σ_k), normalised.

    Args:
        means: μ, shape (k, d).
        covariances: Σ, shape (k,) for multiples of the identity, (k, d) for diagonals, or (k, d, d), symmetric positive
            definite. The mixture keeps their factors L_k, of the same shape.
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
    factors: Float[Array, "k *map"]
    weights: Float[Array, " k"]

    def __init__(self, means, covariances, weights=None):
        means, covariances = as_floating("means", means), as_floating("covariances", covariances)
        if means.ndim != 2 or 0 in means.shape:
            raise ValueError(f"means has shape {means.shape}; pass shape (k, d) with k components in d dimensions")
        k, d = means.shape
        if covariances.shape not in ((k,), (k, d), (k, d, d)):
            raise ValueError(
                f"covariances has shape {covariances.shape} but means has shape {means.shape}; pass {(k, d, d)}, {(k, d)} or "
                f"{(k,)}"
            )
        _check_covariances(covariances)
        self.means = means
        self.factors = _each(cholesky, covariances.astype(means.dtype))
        self.weights = normalised_weights("weights", weights, k, means.dtype)

    @classmethod
    def of_factors(
        cls, means: Float[Array, "k d"], factors: Float[Array, "k *map"], weights: Float[Array, " k"]
    ) -> "GaussianMixture":
        """From L_k, unchecked: they may be zero, and the components points."""
        made = object.__new__(cls)
        for name, value in (("means", means), ("factors", factors), ("weights", weights)):
            object.__setattr__(made, name, value)
        return made

    @classmethod
    def isotropic(cls, means, variance, weights=None) -> "GaussianMixture":
        """The mixture with covariances variance · I; `variance` is a scalar or has shape (k,)."""
        means = as_floating("means", means)
        variance = as_floating("variance", variance).astype(means.dtype)
        if means.ndim != 2 or variance.shape not in ((), means.shape[:1]):
            raise ValueError(
                f"means has shape {means.shape} and variance {variance.shape}; pass (k, d), and a scalar or shape (k,)"
            )
        return cls(means, jnp.broadcast_to(variance, means.shape[:1]), weights)

    def __repr__(self):
        facts = {"components": self.means.shape[-2], "dim": self.dim}
        if self.means.ndim > 2:
            return shown("GaussianMixture", **facts, batch=self.means.shape[:-2])
        facts |= of_numbers(
            lambda own: {"mean": own.mean(), "sd": jnp.sqrt(jnp.diagonal(own.covariance()))},
            self,
        )
        return shown("GaussianMixture", **facts)

    @property
    def dim(self) -> int:
        return self.means.shape[-1]

    @property
    def log_weights(self) -> Float[Array, " k"]:
        alive = self.weights > 0
        return jnp.where(alive, jnp.log(jnp.where(alive, self.weights, 1)), -jnp.inf)

    @property
    def covariances(self) -> Float[Array, "*batch k d d"]:
        """L_kL_kᵀ as matrices; of a batch of mixtures as well."""
        rank = self.factors.ndim - self.means.ndim + 1
        if rank == 2:
            return matmul(self.factors, transpose(self.factors))
        variances = jnp.broadcast_to(self.factors[(..., *[None] * (1 - rank))] ** 2, self.means.shape)
        return jax.vmap(jnp.diag)(variances.reshape(-1, self.dim)).reshape(*self.means.shape, self.dim)

    def tilt(self, observation: Observation, key=None) -> TiltedMixture:
        check_single("the mixture", self.means, 2)
        gain, value = observation

        def component(mean: Float[Array, " d"], factor: Factor):
            seen, at_mean = product(gain, factor), apply(gain, mean)
            whiten = inverse_factor(cholesky_of_one_plus_square(seen))
            inner = inverse_factor(cholesky_of_one_plus_square(adjoint(seen)))
            spread = product(factor, adjoint(inner))
            slope = product(spread, adjoint(product(seen, adjoint(inner))))
            centre, origin = apply(whiten, at_mean), mean - apply(slope, at_mean)
            return whiten, centre, log_volume(whiten, self.dim), origin, slope, spread

        whiten, centres, log_widths, origins, slopes, factors = jax.vmap(component)(self.means, self.factors)
        white = _each(apply, whiten, value) - centres
        log_joint = self.log_weights + log_widths - 0.5 * jnp.sum(white**2, axis=-1)
        log_mass = logsumexp(log_joint)
        log_weights = log_joint - log_mass
        weights = jnp.exp(log_weights)
        mean = _mean(weights, origins) + apply(_mean(weights, slopes), value)
        return TiltedMixture(log_mass, mean, log_weights, value, origins, slopes, factors)

    def log_joint(self, y: Float[Array, " d"]) -> Float[Array, " k"]:
        """log π_k N(y; μ_k, Σ_k) of each component."""
        check_single("the mixture", self.means, 2)
        y = as_point("y", y, self.dim)
        whiten = _each(inverse_factor, self.factors)
        white = jax.vmap(apply)(whiten, y[None] - self.means)
        log_widths = _each(log_volume, whiten, self.dim)
        log_normal = (
            log_widths - 0.5 * jnp.sum(white**2, axis=-1) - 0.5 * self.dim * jnp.log(2 * jnp.pi).astype(y.dtype)
        )
        return self.log_weights + log_normal

    def log_density(self, y):
        return logsumexp(self.log_joint(y))

    def responsibilities(self, y: Float[Array, " d"]) -> Float[Array, " k"]:
        """π_k N(y; μ_k, Σ_k)/p(y): the probability that y came from each component."""
        of_components = jax.nn.softmax(self.log_joint(y))
        check_known(
            "responsibilities", of_components, "for y so far off that no component's density can be told from 0"
        )
        return of_components

    def mean(self) -> Float[Array, " d"]:
        check_single("the mixture", self.means, 2)
        return self.weights @ self.means

    def covariance(self) -> Float[Array, "d d"]:
        offsets = self.means - self.mean()[None]
        return _mean(self.weights, self.covariances) + matmul(transpose(self.weights[:, None] * offsets), offsets)

    @property
    def numbers_per_tilt(self) -> int:
        return self.means.shape[-2] * self.dim

    def place(self):
        spread = jnp.sqrt(jnp.trace(self.covariance()) / self.dim)
        smallest = jnp.where(self.weights > 0, _smallest_widths(jax.lax.stop_gradient(self.factors)), jnp.inf)
        return Place(self.mean(), spread, narrowest=jnp.min(smallest))

    def rescaled(self, shift, scale):
        return GaussianMixture.of_factors((self.means - shift[None]) / scale, self.factors / scale, self.weights)

    def sample(self, key: Key[Array, ""], num_samples: int) -> Float[Array, "n d"]:
        """Exact independent draws, shape (num_samples, d)."""
        check_single("the mixture", self.means, 2)
        check_key("key", key)
        num_samples = check_count("num_samples", num_samples)

        def draw(key):
            key_component, key_noise = jax.random.split(key)
            k = discrete_component(key_component, self.log_weights)
            return self.means[k] + apply(self.factors[k], jax.random.normal(key_noise, (self.dim,), self.means.dtype))

        return jax.vmap(draw)(jax.random.split(key, num_samples))


def _smallest_widths(factors: Float[Array, "k *map"]) -> Float[Array, " k"]:
    """The smallest singular value of L_k, by the largest of L_k⁻¹: roundings of L_kL_kᵀ would hide it; 0 of a flat one."""
    if factors.ndim < 3:
        return jnp.min(factors.reshape(factors.shape[0], -1), axis=1)
    inverses = _each(inverse_factor, factors)
    sizes = jnp.max(jnp.abs(inverses), axis=(1, 2))
    regular = jnp.isfinite(sizes)
    inverses = jnp.where(regular[:, None, None], inverses / jnp.where(regular, sizes, 1)[:, None, None], 0)
    largest = eigenvalues(matmul(inverses, transpose(inverses)))[:, -1]
    return jnp.where(regular, 1 / (sizes * jnp.sqrt(jnp.where(regular, largest, 1))), 0)


def _check_covariances(covariances: Float[Array, "k *map"]) -> None:
    if covariances.ndim == 3:
        check_positive_definite("covariances", covariances)
        return
    values = concrete(covariances)
    if values is None:
        return
    size = len(values)
    if values.shape == (size, size) and size > 1 and (values == values.T).all() and np.ptp(values):
        raise ValueError(
            f"covariances of shape {values.shape} are {size} diagonals, and look like one matrix; pass a matrix for each "
            f"component, shape {(size, size, size)}"
        )
    if not (values > 0).all():
        raise ValueError(f"covariances has the minimum {values.min():g}; pass variances > 0")
