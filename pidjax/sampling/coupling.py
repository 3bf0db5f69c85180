"""The joint law of both ends of a Schrödinger bridge, π(x₀, y) = φ₀(x₀) G(0, x₀ → T, y) φ₁(y), with ∫π dy = μ₀, ∫π dx₀ = μ₁.

    two Gaussians      B = ∂²log G/∂x∂y,  Σ₁' = BΣ₁Bᵀ,    Cov(x₀, y) = { Σ₀^½ (Σ₀^½ Σ₁' Σ₀^½ + ¼)^½ Σ₀^−½ − ½ } B⁻ᵀ
    data sets          Sinkhorn's iteration with the cost −log G

The duals f = log φ₀/μ₀ and g = log φ₁/μ₁ have log π/μ₀μ₁ = f(x₀) + log G + g(y).

Source: Janati et al., arXiv 2006.02572, for Gaussians.
"""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Key

from .._doors.checks import concrete
from .._doors.extras import load
from .._maths.small import (
    cholesky,
    inverse_and_log_determinant,
    inverse_triangular,
    matmul,
    matvec,
    symmetric_root,
    transpose,
)
from ..process.protocol import Protocol
from ..process.unit import LogGreen
from ..targets.mixture import GaussianMixture
from ..targets.samples import Samples

_THRESHOLD = 1e-5
_MOST_ITERATIONS = 100_000
_MOST_ERROR = 1e-3
_AT_ONCE = 256


class AbstractCoupling(eqx.Module):
    """The joint law π of both ends."""

    @abstractmethod
    def given(self, x: Float[Array, " d"]) -> GaussianMixture | Samples:
        """π(y | x₀), and where x₀ cannot lie the law to which the same process would lead from there."""

    @abstractmethod
    def draw(self, key: Key[Array, ""], count: int) -> tuple[Float[Array, "n d"], Float[Array, "n d"]]:
        """Pairs (x₀, y)."""

    @abstractmethod
    def duals(self, x: Float[Array, " d"], y: Float[Array, " d"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """f(x) and g(y)."""

    @property
    @abstractmethod
    def cost(self) -> Float[Array, ""]:
        """E_μ₀ f + E_μ₁ g."""

    def log_weights(self, starts: Float[Array, "n d"], ends: Float[Array, "n d"]) -> Float[Array, " n"]:
        """log W of drawn pairs; 0 where the ends are of μ₁ as they are."""
        return jnp.zeros(len(starts), starts.dtype)


class GaussianCoupling(AbstractCoupling):
    """(x₀, y) jointly Gaussian, with `across` = Cov(x₀, y)."""

    start: GaussianMixture
    end: GaussianMixture
    across: Float[Array, "d d"]
    log_green: LogGreen

    @property
    def gain(self) -> Float[Array, "d d"]:
        """∂E[y | x₀]/∂x₀."""
        return matmul(transpose(self.across), inverse_and_log_determinant(self.start.covariances[0])[0])

    def given(self, x):
        mean = self.end.means[0] + matvec(self.gain, x - self.start.means[0])
        return GaussianMixture(mean[None], (self.end.covariances[0] - matmul(self.gain, self.across))[None])

    def draw(self, key, count):
        key_start, key_end = jax.random.split(key)
        starts = self.start.sample(key_start, count)
        at_mean = self.given(self.start.means[0])
        noise = jax.random.normal(key_end, starts.shape, starts.dtype)
        moved = matmul(starts - self.start.means[0][None], transpose(self.gain))
        return starts, at_mean.means[0][None] + moved + matmul(noise, transpose(cholesky(at_mean.covariances[0])))

    def duals(self, x, y):
        """With g = 0 at the mean of μ₁."""
        first, last = self.start.means[0], self.end.means[0]
        return self._sum(x, last), self._sum(first, y) - self._sum(first, last)

    def _sum(self, x, y) -> Float[Array, ""]:
        """f(x) + g(y)."""
        return self.given(x).log_density(y) - self.end.log_density(y) - self.log_green(x, y)

    @property
    def cost(self):
        first, last = self.start.means[0], self.end.means[0]
        bends = jax.hessian(self._sum, (0, 1))(first, last)
        within = jnp.sum(bends[0][0] * self.start.covariances[0]) + jnp.sum(bends[1][1] * self.end.covariances[0])
        return self._sum(first, last) + 0.5 * within


class DiscreteCoupling(AbstractCoupling):
    """Points x_i, y_j of two data sets: π(y_j | x) ∝ e^{h_j} G(x, y_j).

    Attributes:
        law: μ₀, which starts are drawn of: `start`, or a law that it holds points of.
        start, end: the points.
        log_potential: h.
        error: Σ_j |Σ_i π_ij − w_j|; the first marginal is exact.
    """

    law: GaussianMixture | Samples
    start: Samples
    end: Samples
    log_green: LogGreen
    log_potential: Float[Array, " m"]
    error: Float[Array, ""]

    def given(self, x):
        return Samples(self.end.points, self.weights(x))

    def weights(self, x: Float[Array, " d"]) -> Float[Array, " m"]:
        """π(y_j | x)."""
        return jax.nn.softmax(self.log_potential - _costs(x[None], self.end.points, self.log_green)[0])

    def draw(self, key, count):
        key_start, key_ends = jax.random.split(key)
        if isinstance(self.law, Samples):
            chosen = jax.random.choice(key_start, len(self.law.points), (count,), p=self.law.weights)
            starts = self.law.points[chosen]
        else:
            starts = self.law.sample(key_start, count)

        def end_of(pair):
            key, x = pair
            return self.end.points[jax.random.choice(key, len(self.end.points), p=self.weights(x))]

        return starts, jax.lax.map(end_of, (jax.random.split(key_ends, count), starts), batch_size=_AT_ONCE)

    def log_weights(self, starts, ends):
        if isinstance(self.law, Samples):
            return super().log_weights(starts, ends)
        return self._second(starts, jnp.zeros(len(starts), starts.dtype), ends) - self._second_of_points(ends)

    def duals(self, x, y):
        return self._first(x), self._second_of_points(y[None])[0]

    def _first(self, x) -> Float[Array, ""]:
        """f = −log Σ_j e^{h_j} G(x, y_j)."""
        return -logsumexp(self.log_potential - _costs(x[None], self.end.points, self.log_green)[0])

    def _second_of_points(self, ends) -> Float[Array, " n"]:
        """g, by the points of μ₀."""
        return self._second(self.start.points, jnp.log(self.start.weights), ends)

    def _second(self, starts, log_weights, ends) -> Float[Array, " n"]:
        """g = −log Σ_i w_i e^{f(x_i)} G(x_i, y) of each end, with the weights divided by their sum."""
        joint = log_weights + jax.lax.map(self._first, starts, batch_size=_AT_ONCE)
        log_norm = logsumexp(log_weights)

        def at(y):
            return log_norm - logsumexp(joint - _costs(starts, y[None], self.log_green)[:, 0])

        return jax.lax.map(at, ends, batch_size=_AT_ONCE)

    @property
    def cost(self):
        first = jax.lax.map(self._first, self.start.points, batch_size=_AT_ONCE)
        second = jnp.where(self.end.weights > 0, self.log_potential - jnp.log(self.end.weights), 0)
        return self.start.weights @ first + self.end.weights @ second


@eqx.filter_jit
def covariance_across(start: GaussianMixture, end: GaussianMixture, protocol: Protocol) -> Float[Array, "d d"]:
    """Cov(x₀, y), with Σ₀ = LLᵀ: Σ₀^½ (Σ₀^½ Σ₁' Σ₀^½ + ¼)^½ Σ₀^−½ = L (Lᵀ Σ₁' L + ¼)^½ L⁻¹."""
    origin = jnp.zeros_like(start.means[0])
    mixed = jax.jacfwd(jax.grad(LogGreen.of(protocol, origin)), argnums=1)(origin, origin)
    lower = cholesky(start.covariances[0])
    inner = matmul(matmul(matmul(transpose(lower), mixed), end.covariances[0]), matmul(transpose(mixed), lower))
    half = 0.5 * jnp.eye(origin.size, dtype=origin.dtype)
    root = symmetric_root(inner + 0.5 * half)
    scaled = matmul(matmul(lower, root - half), inverse_triangular(lower))
    return matmul(scaled, transpose(inverse_and_log_determinant(mixed)[0]))


def by_sinkhorn(law: GaussianMixture | Samples, start: Samples, end: Samples, log_green: LogGreen) -> DiscreteCoupling:
    """Between the points of two data sets.

    Raises:
        ValueError: the iteration does not settle.
        ImportError: ott-jax is missing.
    """
    load("ott", user="schrodinger_bridge, but for two Gaussians,", package="ott-jax", extra="metrics")
    from ott.geometry.geometry import Geometry
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn import Sinkhorn

    costs = _costs(start.points, end.points, log_green)
    solver = Sinkhorn(threshold=_THRESHOLD, max_iterations=_MOST_ITERATIONS)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        found = jax.jit(solver)(LinearProblem(Geometry(costs, epsilon=1.0), start.weights, end.weights))
    log_potential = found.g
    joint = start.weights[:, None] * jax.nn.softmax(log_potential[None] - costs, axis=1)
    error = jnp.sum(jnp.abs(jnp.sum(joint, axis=0) - end.weights))
    known = concrete(error)
    if known is not None and not known < _MOST_ERROR:
        raise ValueError(
            f"Sinkhorn's iteration ends {known:.2g} from the second law in total variation: the noise is small beside the "
            "distances between the laws; take a larger noise_scale"
        )
    return DiscreteCoupling(law, start, end, log_green, log_potential, error)


@eqx.filter_jit
def _costs(starts, ends, log_green: LogGreen) -> Float[Array, "n m"]:
    """−log G of each pair."""
    return -jax.vmap(lambda x: jax.vmap(lambda y: log_green(x, y))(ends))(starts)
