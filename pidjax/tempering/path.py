"""The geometric path from a normalised base p̂ to the unnormalised target p̃, and particles that know where they stand on it.

    log π_λ(y) = (1 − λ) log p̂(y) + λ log p̃(y),      0 ≤ λ ≤ 1

A log-density of −∞ is an answer (outside the support). NaN and +∞ are not: they are counted, and read as −∞. A gradient that
is not finite is read as 0: a leapfrog step is reversible and keeps volume whatever field it follows, so moves stay exact.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Bool, Float, Int, Key

from .._maths.maps import apply, inverse_factor, log_volume
from ..targets.base import WithDensity
from ..targets.fitting.energy import as_read
from ..targets.mixture import GaussianMixture
from .metric import Metric


class Base(eqx.Module):
    """p̂ = Σ_k α_k N(μ_k, L_kL_kᵀ), with L_k⁻¹ at hand: its density is asked for at every step.

    Attributes:
        means, factors, whitenings: μ_k, shape (K, d); L_k and L_k⁻¹, K maps each.
        log_weights: log α_k.
        log_heights: log of α_k times the k-th component's density at its mean.
    """

    means: Float[Array, "K d"]
    factors: Float[Array, "K *map"]
    whitenings: Float[Array, "K *map"]
    log_weights: Float[Array, " K"]
    log_heights: Float[Array, " K"]

    @classmethod
    def of(cls, mixture: GaussianMixture) -> "Base":
        dim = mixture.dim
        whitenings = jax.vmap(inverse_factor)(mixture.factors)
        log_volumes = jax.vmap(lambda whitening: log_volume(whitening, dim))(whitenings)
        log_heights = mixture.log_weights + log_volumes - 0.5 * dim * math.log(2 * math.pi)
        return cls(mixture.means, mixture.factors, whitenings, mixture.log_weights, log_heights)

    def log_density(self, y: Float[Array, " d"]) -> Float[Array, ""]:
        white = jax.vmap(apply)(self.whitenings, y[None] - self.means)
        return logsumexp(self.log_heights - 0.5 * jnp.sum(white**2, axis=1))

    def draw(self, keys: Key[Array, " N"], strata: int, island_size: int) -> Float[Array, "N d"]:
        """One draw for each key: the islands' components in turn if there are as many strata, else any component."""
        count, dim = self.means.shape
        noise = jax.vmap(lambda key: jax.random.normal(key, (dim,), self.means.dtype))(keys)
        if strata == count:
            islands = keys.size // island_size
            offsets = Metric(self.factors, islands // strata).forward(noise)
            return offsets + self.means[jnp.arange(keys.size) // island_size % strata]
        chosen = jax.vmap(lambda key: jax.random.categorical(jax.random.fold_in(key, 1), self.log_weights))(keys)

        def add(places, component):
            index, mean, factor = component
            own = mean[None] + Metric(factor[None], 1).forward(noise)
            return jnp.where((chosen == index)[:, None], own, places), None

        return jax.lax.scan(add, jnp.zeros_like(noise), (jnp.arange(count), self.means, self.factors))[0]


class Particles(eqx.Module):
    """Places y, log π_λ there, and its gradients if moves follow them."""

    places: Float[Array, "N d"]
    log_density: Float[Array, " N"]
    slopes: Float[Array, "N d"] | None

    @property
    def known_slopes(self) -> Float[Array, "N d"]:
        if self.slopes is None:
            raise TypeError("particles placed without slopes are moved along them")
        return self.slopes

    def where(self, chosen: Bool[Array, " N"], other: "Particles") -> "Particles":
        """These where chosen, the others elsewhere."""
        return jax.tree.map(lambda a, b: jnp.where(chosen.reshape(-1, *[1] * (a.ndim - 1)), a, b), self, other)


class Reading(eqx.Module):
    """What both ends of the path are at the places of particles: all that any level needs to know of them."""

    places: Float[Array, "N d"]
    log_target: Float[Array, " N"]
    log_base: Float[Array, " N"]
    target_slopes: Float[Array, "N d"] | None
    base_slopes: Float[Array, "N d"] | None

    def at(self, level: Float[Array, ""]) -> Particles:
        """The particles of π_λ."""
        of_target = jnp.where(level > 0, level * self.log_target, 0)
        log_density = of_target + jnp.where(level < 1, (1 - level) * self.log_base, 0)
        slopes = None
        if self.target_slopes is not None and self.base_slopes is not None:
            slopes = level * self.target_slopes + (1 - level) * self.base_slopes
        return Particles(self.places, log_density, slopes)


class Path(eqx.Module):
    """The target and the base between which λ interpolates."""

    target: WithDensity
    base: Base

    def read(self, places: Float[Array, "N d"], with_slopes: bool) -> tuple[Reading, Int[Array, ""]]:
        """Both ends, and at how many places log p̃ was NaN or +∞, or without a finite gradient."""
        if not with_slopes:
            log_target, invalid = as_read(jax.vmap(self.target.log_density)(places))
            log_base = jax.vmap(self.base.log_density)(places)
            return Reading(places, log_target, log_base, None, None), jnp.sum(invalid)
        log_target, target_slopes = jax.vmap(jax.value_and_grad(self.target.log_density))(places)
        log_base, base_slopes = jax.vmap(jax.value_and_grad(self.base.log_density))(places)
        log_target, invalid = as_read(log_target)
        smooth = jnp.all(jnp.isfinite(target_slopes), axis=1)
        invalid = invalid | (~smooth & (log_target > -jnp.inf))
        target_slopes = jnp.where(smooth[:, None], target_slopes, 0)
        return Reading(places, log_target, log_base, target_slopes, base_slopes), jnp.sum(invalid)

    def at(self, level: Float[Array, ""]) -> "Level":
        return Level(self, level)


class Level(eqx.Module):
    """π_λ."""

    path: Path
    level: Float[Array, ""]

    def place(self, places: Float[Array, "N d"], with_slopes: bool) -> tuple[Particles, Int[Array, ""]]:
        """Particles at these places, and at how many log p̃ was invalid."""
        reading, invalid = self.path.read(places, with_slopes)
        return reading.at(self.level), invalid
