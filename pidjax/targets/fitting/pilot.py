"""Langevin chains at all scales: where mass may lie, near and far.

    y' = y + ½ ε² ∇log p'(y) + ε z,     accepted with  min(1, p'(y') q(y|y') / p'(y) q(y'|y)),     z ~ N(0, I)

from starts s z with s log-uniform over five decades, each chain with a step ε of its own: × 1.3 where a move is accepted, × 0.6
where it is not. Where the gradient is zero, or not finite, the moves are a random walk's.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, Key

from .energy import Energy

CHAINS = 1024
STEPS = 200
SMALLEST_START, LARGEST_START = 1e-2, 1e3
GROW, SHRINK = 1.3, 0.6


class Chains(eqx.Module):
    """Where the chains ended, columns of `points`, their log p' there, and how many values were invalid."""

    points: Float[Array, "d chains"]
    values: Float[Array, " chains"]
    invalid: Int[Array, ""]


def pilot_chains(key: Key[Array, ""], energy: Energy) -> Chains:
    """The end points of 1,024 chains of 200 steps.

    Args:
        energy: in coordinates in which what lies near the origin is of unit scale.

    Source: Roberts & Tweedie, *Bernoulli* 1996, for the moves. Steps that adapt all along leave no law invariant, and none is
    asked for: the chains say where to look.
    """
    dim, dtype = energy.shift.shape[0], energy.shift.dtype
    key_scale, key_start, key_steps = jr.split(key, 3)
    ends = math.log(SMALLEST_START), math.log(LARGEST_START)
    scales = jnp.exp(jr.uniform(key_scale, (CHAINS,), dtype, *ends))
    points = scales[None] * jr.normal(key_start, (dim, CHAINS), dtype)
    values, slopes, invalid = energy.with_slope(points)
    radii, steepness = jnp.linalg.norm(points, axis=0), jnp.linalg.norm(slopes, axis=0)
    steps = jnp.minimum(jnp.sqrt(0.2 * radii / jnp.maximum(steepness, 1e-30)), 0.5 * radii / dim**0.5)[None]

    def move(state, key):
        points, values, slopes, steps, invalid = state
        key_noise, key_accept = jr.split(key)
        noise = jr.normal(key_noise, points.shape, dtype)
        proposed = points + 0.5 * steps**2 * slopes + steps * noise
        proposed_values, proposed_slopes, proposed_invalid = energy.with_slope(proposed)
        back = (points - proposed - 0.5 * steps**2 * proposed_slopes) / steps
        log_ratio = proposed_values - values + 0.5 * jnp.sum(noise**2 - back**2, axis=0)
        accepted = jnp.log(jr.uniform(key_accept, values.shape, dtype)) < log_ratio
        points, slopes = (jnp.where(accepted[None], *pair) for pair in ((proposed, points), (proposed_slopes, slopes)))
        steps = steps * jnp.where(accepted, GROW, SHRINK)[None]
        return (points, jnp.where(accepted, proposed_values, values), slopes, steps, invalid + proposed_invalid), None

    start = points, values, slopes, steps, invalid
    (points, values, _, _, invalid), _ = jax.lax.scan(move, start, jr.split(key_steps, STEPS))
    return Chains(points, values, invalid)
