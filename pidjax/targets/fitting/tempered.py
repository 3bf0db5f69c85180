"""From an energy of unknown scale to equal-weight particles: a probe, then tempered sequential Monte Carlo."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ..._maths.systematic import systematic
from .energy import Energy

PARTICLES = 4096
SMALLEST_SCALE, LARGEST_SCALE = 1e-4, 1e6
START_WIDTH = 1.5
MOVES = 4
SMALLEST_STEP = 0.02
STAGES = 200
BISECTIONS = 50


def probe(key: PRNGKeyArray, energy: Energy) -> tuple[Float[Array, ""], Bool[Array, ""], Int[Array, ""]]:
    """log s₀ = ⟨log(|y|/√d)⟩ under the weights p'(y) |y|ᵈ of points y = s z, z ~ N(0, I), log s uniform.

    Such points have a density ∝ |y|⁻ᵈ between the ends, hence the weights: they say where the mass is, decade by
    decade, and the geometric mean does not run after the tail. Returns s₀ (1 where no draw has mass),
    whether any has, and the number of invalid values.
    """
    key_scale, key_direction = jr.split(key)
    dtype, dim = energy.shift.dtype, energy.shift.shape[0]
    ends = jnp.log(SMALLEST_SCALE), jnp.log(LARGEST_SCALE)
    log_scales = jr.uniform(key_scale, (PARTICLES,), dtype, ends[0], ends[1])
    points = jnp.exp(log_scales)[None] * jr.normal(key_direction, (dim, PARTICLES), dtype)
    values, invalid = energy(points)
    log_radius = jnp.log(jnp.linalg.norm(points, axis=0))
    weights = jnp.nan_to_num(jax.nn.softmax(values + dim * log_radius))
    found = jnp.sum(weights) > 0
    return jnp.where(found, jnp.exp(weights @ log_radius - 0.5 * jnp.log(dim)), 1.0).astype(dtype), found, invalid


class Cloud(eqx.Module):
    """Particles of p_β ∝ N(0, w² I)^{1−β} p'^β, columns of `points`, with their log p'."""

    points: Float[Array, "d n"]
    values: Float[Array, " n"]
    inverse_temperature: Float[Array, ""]
    stages: Int[Array, ""]
    invalid: Int[Array, ""]


def tempered_particles(key: PRNGKeyArray, energy: Energy) -> Cloud:
    """Particles of p', from N(0, w² I) through the bridge p_β ∝ N(0, w² I)^{1−β} p'^β, w = 1.5.

    The next β halves the effective sample size (bisection); particles are resampled and moved four times each by
    y' = y + γ (a − b), a and b two particles of the resampled cloud and γ log-uniform for each particle: steps of
    every size, between the modes too, in whatever shape the cloud has (ter Braak, *Statistics and Computing* 2006).
    """
    dim, dtype = energy.shift.shape[0], energy.shift.dtype
    key_start, key_stages = jr.split(key)

    def reference(points):
        return -0.5 * jnp.sum(points**2, axis=0) / START_WIDTH**2

    def stage(cloud: Cloud) -> Cloud:
        key_resample, *key_moves = jr.split(jr.fold_in(key_stages, cloud.stages), 1 + MOVES)
        log_ratio = cloud.values - reference(cloud.points)
        inverse_temperature = next_inverse_temperature(log_ratio, cloud.inverse_temperature)
        gained = (inverse_temperature - cloud.inverse_temperature) * jnp.where(cloud.values == -jnp.inf, 0.0, log_ratio)
        log_weights = jnp.where(cloud.values == -jnp.inf, -jnp.inf, gained)
        parents = systematic(key_resample, jax.nn.softmax(log_weights), PARTICLES)
        points, values = cloud.points[:, parents], cloud.values[parents]
        resampled = points

        def move(state, key):
            points, values, invalid = state
            key_pair, key_uniform = jr.split(key)
            first, second = jr.randint(key_pair, (2, PARTICLES), 0, PARTICLES)
            uniform_step, uniform_accept = jr.uniform(key_uniform, (2, PARTICLES), dtype)
            steps = SMALLEST_STEP**uniform_step
            proposed = points + steps[None] * (resampled[:, first] - resampled[:, second])
            proposed_values, proposed_invalid = energy(proposed)
            log_gain = inverse_temperature * (proposed_values - values) + (1 - inverse_temperature) * (
                reference(proposed) - reference(points)
            )
            accepted = jnp.log(uniform_accept) < log_gain
            points = jnp.where(accepted[None], proposed, points)
            return (points, jnp.where(accepted, proposed_values, values), invalid + proposed_invalid), None

        (points, values, invalid), _ = jax.lax.scan(move, (points, values, cloud.invalid), jnp.stack(key_moves))
        return Cloud(points, values, inverse_temperature, cloud.stages + 1, invalid)

    def unfinished(cloud: Cloud):
        return (cloud.inverse_temperature < 1) & (cloud.stages < STAGES) & jnp.any(cloud.values > -jnp.inf)

    points = START_WIDTH * jr.normal(key_start, (dim, PARTICLES), dtype)
    values, invalid = energy(points)
    start = Cloud(points, values, jnp.zeros((), dtype), jnp.zeros((), int), invalid)
    return jax.lax.while_loop(unfinished, stage, start)


def next_inverse_temperature(log_ratio: Float[Array, " n"], current: Float[Array, ""]) -> Float[Array, ""]:
    """The β' > β at which the weights (p'/reference)^{β'−β} keep half of the particles that have any mass."""
    alive = log_ratio > -jnp.inf
    log_ratio = jnp.where(alive, log_ratio - jnp.max(log_ratio), 0.0)

    def halve(_, bracket):
        low, high = bracket
        middle = 0.5 * (low + high)
        weights = jnp.where(alive, jnp.exp(middle * log_ratio), 0.0)
        enough = jnp.sum(weights) ** 2 >= 0.5 * jnp.sum(alive.astype(weights.dtype)) * jnp.sum(weights**2)
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    rest = 1 - current
    low, _ = jax.lax.fori_loop(0, BISECTIONS, halve, (jnp.zeros_like(current), 2 * rest))
    return jnp.where(low >= rest, 1.0, current + jnp.maximum(low, jnp.finfo(low.dtype).eps * current))
