"""The tilted law of a density, estimated anew at every particle and step by importance sampling.

n fresh points from the tilted surrogate q̂(y|ζ) ∝ p̂(y) exp(−½|ζ − Ay|²), or from the tilted flat measure N(ζ/a, I/a²): good as
t → 1. With a pool of J points beside them, the points of both are weighted by the balance heuristic

    p̃(y) exp(−½|ζ − Ay|²) / [ J p̂(y) + n q̂(y|ζ) ].

The control is then an estimate, and the path weights stay exact under it: the estimate's noise is independent of the step's.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Key

from .._doors.checks import check_count
from .._maths.maps import Map, adjoint, apply, dense, identity, inverse, log_determinant, product
from .._maths.small import matmul, transpose
from .._maths.weighted import SharedSample
from ..process.bridge import Observation
from .base import AbstractTarget, Tilted, WithCovariance, WithDensity, WithDraws, WithMass
from .density import Density
from .mixture import GaussianMixture, discrete_component
from .pool import Pool, check_parts


class WeightedPoints(WithMass, WithCovariance, WithDraws):
    """Points (m, d) with log-weights (m,), not normalised, as a law.

    Its covariance is Σ w (y − m)(y − m)ᵀ + 2 Σw² C, with C that of the law the points were drawn from: their scatter falls
    short by Σw² C in the mean, and m itself is uncertain by as much. A `Moment` step narrower than that gives weights of
    infinite variance, whose mean over the paths is too low.
    """

    log_mass: Float[Array, ""]
    mean: Float[Array, " d"]
    points: Float[Array, "m d"]
    log_weights: Float[Array, " m"]
    drawn_covariance: Map

    def __init__(self, points, log_weights, drawn_covariance):
        self.points, self.log_weights, self.drawn_covariance = points, log_weights, drawn_covariance
        self.log_mass = logsumexp(log_weights)
        self.mean = jnp.exp(log_weights - self.log_mass) @ points

    def covariance(self):
        weights, offsets = jnp.exp(self.log_weights - self.log_mass), self.points - self.mean[None]
        scatter = matmul(transpose(weights[:, None] * offsets), offsets)
        return scatter + 2 * jnp.sum(weights**2) * dense(self.drawn_covariance, self.mean.size)

    def draw(self, key):
        return self.points[discrete_component(key, self.log_weights)]


class LocalDraws(AbstractTarget, Tilted, WithDensity):
    """A density through fresh points at every particle and step, and a pool if one is given.

    Attributes:
        density: p̃.
        proposal: p̂, whose tilted law the points come from; None for the flat measure, which has no width at t = 0 and
            needs a pool there.
        num_draws: n ≥ 1 points: n energy evaluations a particle and step.
        pool: J points shared by all, drawn from the same `proposal` if that is not flat.
    """

    density: Density
    proposal: GaussianMixture | None
    num_draws: int = eqx.field(static=True)
    pool: Pool | None

    def __init__(self, density, proposal, num_draws: int, pool: Pool | None = None):
        num_draws = check_count("num_draws", num_draws)
        parts = {"proposal": proposal, "pool": pool}
        check_parts(density, **{name: part for name, part in parts.items() if part is not None})
        if proposal is None and pool is None:
            raise ValueError(
                "proposal is flat and pool is None: the flat measure has no width at t = 0; pass a pool too"
            )
        self.density, self.proposal, self.num_draws, self.pool = density, proposal, num_draws, pool

    def __repr__(self):
        return (
            f"LocalDraws({self.density!r}, num_draws={self.num_draws}, proposal={self.proposal!r}, pool={self.pool!r})"
        )

    @property
    def dim(self) -> int:
        return self.density.dim

    @property
    def _reference(self) -> Pool | GaussianMixture:
        reference = self.pool if self.proposal is None else self.proposal
        assert reference is not None
        return reference

    def tilt(self, observation: Observation, key: Key[Array, ""] | None = None) -> WeightedPoints:
        if key is None:
            raise ValueError("key is None; LocalDraws draws fresh points and needs one")
        gain, value = observation
        keys = jax.random.split(key, self.num_draws)
        if self.proposal is None:
            informative = jnp.any(gain != 0)
            safe_gain = jnp.where(informative, gain, identity(gain))
            spread = inverse(safe_gain)
            noise = jax.vmap(lambda key: jax.random.normal(key, value.shape, value.dtype))(keys)
            points = jax.vmap(lambda noise: apply(spread, value + noise))(noise)
            log_width = 0.5 * self.dim * math.log(2 * math.pi) - log_determinant(safe_gain, self.dim)
            log_mass = jnp.where(informative, log_width, jnp.inf)
            log_base = jnp.zeros(self.num_draws, value.dtype)
            covariance = product(spread, adjoint(spread))
        else:
            law = self.proposal.tilt(observation)
            points, log_mass = jax.vmap(law.draw)(keys), law.log_mass
            log_base = jax.vmap(self.proposal.log_density)(points)
            covariance = law.covariance()
        log_target = jax.vmap(self.density.log_density)(points)
        log_pool = jax.vmap(self.pool.mixture.log_density)(points) if self.pool is not None else None
        log_local = jnp.log(self.num_draws) - log_mass

        def log_weights(points, log_target, log_base, log_pool):
            seen = jax.vmap(lambda point: apply(gain, point))(points)
            log_tilt = -0.5 * jnp.sum((value[None] - seen) ** 2, axis=-1)
            log_drawn = log_local + log_base + log_tilt
            if self.pool is not None:
                log_drawn = jnp.logaddexp(log_drawn, jnp.log(self.pool.log_ratios.size) + log_pool)
            ratio = log_target + log_tilt - log_drawn
            return jnp.where(jnp.isnan(ratio), -jnp.inf, ratio)

        fresh = jnp.where(jnp.isfinite(log_mass), log_weights(points, log_target, log_base, log_pool), -jnp.inf)
        if self.pool is None:
            return WeightedPoints(points, fresh, covariance)
        pool = self.pool
        pool_base = jnp.zeros_like(pool.log_proposal) if self.proposal is None else pool.log_proposal
        shared = log_weights(pool.points, pool.log_target, pool_base, pool.log_proposal)
        return WeightedPoints(jnp.concatenate([points, pool.points]), jnp.concatenate([fresh, shared]), covariance)

    def log_density(self, y):
        return self.density.log_density(y)

    @property
    def evaluations_per_tilt(self) -> int:
        return self.num_draws

    @property
    def numbers_per_tilt(self) -> int:
        return (self.num_draws + (0 if self.pool is None else len(self.pool.points))) * self.dim

    @property
    def shared_sample(self) -> SharedSample | None:
        return None if self.pool is None else self.pool.shared_sample

    def place(self):
        return self._reference.place()

    def point(self, y):
        return self.density.point(y)

    def rescaled(self, shift, scale):
        return LocalDraws(
            self.density.rescaled(shift, scale),
            None if self.proposal is None else self.proposal.rescaled(shift, scale),
            self.num_draws,
            None if self.pool is None else self.pool.rescaled(shift, scale),
        )
