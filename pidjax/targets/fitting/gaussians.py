"""Gaussian mixtures fitted to weighted points: density, draws, seeding and expectation maximisation."""

from math import lgamma, log, pi

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ..._maths.small import HIGHEST, cholesky, inverse_triangular

TAIL_FREEDOM = 3.0
TAIL_WIDTH = 1.5
NARROWEST = 1e-15
MOST_FREE = 3
"""Dimensions up to which the correlations of a component are left as they come."""


class Gaussians(eqx.Module):
    """p̂(y) = Σ_k w_k N(y; m_k, L_k L_kᵀ), and the heavier τ(y) = Σ_k w_k t₃(y; m_k, (1.5 L_k)(1.5 L_k)ᵀ).

    Points are the columns of a (d, n) array. Components are visited one after the other, so that the (d, n)
    residual of one component is the largest temporary. A component of weight zero has log-weight −∞.
    """

    log_weights: Float[Array, " k"]
    means: Float[Array, "k d"]
    factors: Float[Array, "k d d"]

    def squared_distances(self, points: Float[Array, "d n"]) -> Float[Array, "k n"]:
        """|L_k⁻¹ (y − m_k)|²."""

        def distance(component):
            mean, factor = component
            whiten = inverse_triangular(factor)
            return jnp.sum(jnp.matmul(whiten, points - mean[:, None], precision=HIGHEST) ** 2, axis=0)

        return jax.lax.map(distance, (self.means, self.factors))

    def log_joint(self, squared_distances: Float[Array, "k n"]) -> Float[Array, "k n"]:
        """log w_k N(y; m_k, L_k L_kᵀ)."""
        dim = self.means.shape[1]
        constant = self.log_weights - self._log_volume() - 0.5 * dim * log(2 * pi)
        return constant[:, None] - 0.5 * squared_distances

    def log_density(self, squared_distances: Float[Array, "k n"]) -> Float[Array, " n"]:
        """log p̂(y)."""
        return jax.nn.logsumexp(self.log_joint(squared_distances), axis=0)

    def log_tail_density(self, squared_distances: Float[Array, "k n"]) -> Float[Array, " n"]:
        """log τ(y)."""
        dim, freedom = self.means.shape[1], TAIL_FREEDOM
        normaliser = lgamma(0.5 * (freedom + dim)) - lgamma(0.5 * freedom) - 0.5 * dim * log(pi * freedom)
        constant = self.log_weights - self._log_volume() - dim * log(TAIL_WIDTH) + normaliser
        spread = jnp.log1p(squared_distances / (freedom * TAIL_WIDTH**2))
        joint = constant[:, None] - 0.5 * (freedom + dim) * spread
        return jax.nn.logsumexp(joint, axis=0)

    def draw(self, key: PRNGKeyArray, tail: Bool[Array, " n"]) -> Float[Array, "d n"]:
        """y ~ p̂, or y ~ τ where `tail`: the noise is then divided by the root of a mean square of three normals."""
        key_component, key_noise = jr.split(key)
        (dim, count), freedom = (self.means.shape[1], tail.shape[0]), int(TAIL_FREEDOM)
        component = jr.categorical(key_component, self.log_weights, shape=(count,))
        normals = jr.normal(key_noise, (dim + freedom, count), self.means.dtype)
        stretch = TAIL_WIDTH / jnp.sqrt(jnp.mean(normals[dim:] ** 2, axis=0))
        noise = jnp.where(tail, stretch, 1.0)[None] * normals[:dim]
        return self.means[component].T + jnp.einsum("nij,jn->in", self.factors[component], noise, precision=HIGHEST)

    def _log_volume(self):
        return jnp.sum(jnp.log(jnp.diagonal(self.factors, axis1=1, axis2=2)), axis=1)


def seed(key: PRNGKeyArray, points: Float[Array, "d n"], count: int) -> Gaussians:
    """D² seeding: each next centre is drawn with probability ∝ its squared distance to the centres so far.

    The components start spherical, with the mean squared distance that is left as their common variance.
    """
    dim, number = points.shape
    centres, nearest = far_apart(key, points, jnp.ones(number, bool), count)
    spread = jnp.sqrt(jnp.mean(nearest) / dim + jnp.finfo(points.dtype).tiny)
    factors = jnp.broadcast_to(spread * jnp.eye(dim, dtype=points.dtype), (count, dim, dim))
    return Gaussians(jnp.full((count,), -jnp.log(count), points.dtype), centres, factors)


def far_apart(
    key: PRNGKeyArray, points: Float[Array, "d n"], alive: Bool[Array, " n"], count: int
) -> tuple[Float[Array, "count d"], Float[Array, " n"]]:
    """Living points, each next one drawn with probability ∝ its squared distance to those so far, and the last distances.

    Where all others are at no distance, any of the living; of any points where none lives.
    """
    usable = alive | ~jnp.any(alive)

    def choose(nearest, key):
        distances = jnp.where(usable, nearest, 0)
        chances = jnp.where(jnp.any(distances > 0), distances, usable.astype(points.dtype))
        chosen = points[:, jr.categorical(key, jnp.log(chances))]
        return jnp.minimum(nearest, jnp.sum((points - chosen[:, None]) ** 2, axis=0)), chosen

    farthest = jnp.full(points.shape[1:], jnp.finfo(points.dtype).max, points.dtype)
    nearest, chosen = jax.lax.scan(choose, farthest, jr.split(key, count))
    return chosen, nearest


def expectation_maximisation(mixture: Gaussians, points: Float[Array, "d n"], counts: Float[Array, " n"]) -> Gaussians:
    """One step of r_k(y) = w_k N_k(y)/p̂(y),  w_k = ⟨r_k⟩,  m_k = ⟨r_k y⟩/w_k,  Σ_k = ⟨r_k (y−m_k)(y−m_k)ᵀ⟩/w_k.

    `counts` says how many observations each point stands for. The scatter is taken about the old mean, where it is
    free of cancellation; a component of n observations keeps d/(n+d) of its old covariance and, where these are many, in
    more than three dimensions, shrinks its correlations by n/(n+d): what lies along a thin ridge could not be fitted else.
    One whose update is not positive definite, or narrower than 1e-15, stays as it was.
    """
    dim = points.shape[0]
    responsibilities = counts[None] * jax.nn.softmax(mixture.log_joint(mixture.squared_distances(points)), axis=0)
    numbers = jnp.sum(responsibilities, axis=1)

    def update(component):
        responsibility, number, mean, factor = component
        residual = points - mean[:, None]
        step = jnp.matmul(residual, responsibility, precision=HIGHEST) / jnp.maximum(number, 1e-6)
        scatter = jnp.matmul(residual * responsibility[None], residual.T, precision=HIGHEST) - number * jnp.outer(
            step, step
        )
        covariance = (scatter + dim * jnp.matmul(factor, factor.T, precision=HIGHEST)) / (number + dim)
        if dim > MOST_FREE:
            diagonal = jnp.diag(jnp.diagonal(covariance))
            covariance = diagonal + (covariance - diagonal) * number / (number + dim)
        updated = cholesky(covariance)
        sound = jnp.all(jnp.diagonal(updated) > NARROWEST) & (number > 0)
        return jnp.where(sound, mean + step, mean), jnp.where(sound, updated, factor)

    means, factors = jax.lax.map(update, (responsibilities, numbers, mixture.means, mixture.factors))
    return Gaussians(jnp.log(numbers / jnp.sum(numbers)), means, factors)
