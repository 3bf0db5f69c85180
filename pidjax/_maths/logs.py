"""Sums of exponentials that are differentiable where terms, or all of them, are zero.

    log_sum(a)          log Σ_i e^{a_i}           derivative in a_i: e^{a_i − result}
    log_mean(a, p)      log Σ_i p_i e^{a_i}       derivatives in a_i: p_i e^{a_i − result}, in p_i: e^{a_i − result}

An empty sum is −inf, with derivative 0. At p_i = 0 the derivative in p_i is still right, which log p_i would lose.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def _finite(values: Array) -> Array:
    return jnp.where(jnp.isfinite(values), values, 0)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def log_sum(log_values: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    """log Σ e^a along an axis; −inf, with derivative 0, where every a is −inf.

    Example:
        >>> float(log_sum(jnp.array([-jnp.inf, 2.0]), 0)), jax.grad(log_sum)(jnp.full(2, -jnp.inf), 0).tolist()
        (2.0, [0.0, 0.0])
    """
    peak = _finite(jnp.max(log_values, axis))
    return jnp.log(jnp.sum(jnp.exp(log_values - jnp.expand_dims(peak, axis)), axis)) + peak


@log_sum.defjvp
def _(axis, primals, tangents):
    (log_values,), (tangent,) = primals, tangents
    result = log_sum(log_values, axis)
    shares = jnp.exp(log_values - jnp.expand_dims(_finite(result), axis))
    return result, jnp.sum(shares * tangent, axis)


@jax.custom_jvp
def log_mean(log_values: Float[Array, "*k n"], probabilities: Float[Array, "*k n"]) -> Float[Array, "*k"]:
    """log Σ_i p_i e^{a_i} along the last axis; where p_i = 0 the value of a_i does not count.

    Example:
        >>> gradient = jax.grad(log_mean, argnums=1)(jnp.array([0.0, 1.0]), jnp.array([1.0, 0.0]))
        >>> [round(float(slope), 3) for slope in gradient]
        [1.0, 2.718]
    """
    counted = jnp.where(probabilities > 0, log_values, -jnp.inf)
    peak = _finite(jnp.max(counted, -1))
    return jnp.log(jnp.sum(probabilities * jnp.exp(counted - peak[..., None]), -1)) + peak


@log_mean.defjvp
def _(primals, tangents):
    (log_values, probabilities), (value_tangent, probability_tangent) = primals, tangents
    result = log_mean(log_values, probabilities)
    dead = jnp.isneginf(result)[..., None]
    highest = math.log(jnp.finfo(log_values.dtype).max)  # Above, where p_i = 0, a tangent of zero would meet +∞.
    ratios = jnp.where(dead, 0, jnp.exp(jnp.minimum(log_values - _finite(result)[..., None], highest)))
    counted = jnp.where(probabilities > 0, ratios * probabilities, 0)
    return result, jnp.sum(counted * value_tangent + ratios * probability_tangent, -1)


def safe_log(probabilities: Float[Array, "..."]) -> Float[Array, "..."]:
    """log p, −inf with derivative 0 at p = 0."""
    positive = probabilities > 0
    return jnp.where(positive, jnp.log(jnp.where(positive, probabilities, 1)), -jnp.inf)


def log_scatter(
    log_values: Float[Array, " k"], probabilities: Float[Array, " k"], targets: Int[Array, " k"], size: int
) -> Float[Array, " size"]:
    """log Σ_{i: targets_i = j} p_i e^{a_i} for each j < size.

    Example:
        >>> log_scatter(jnp.zeros(3), jnp.array([0.5, 0.5, 0.0]), jnp.array([1, 1, 0]), 2).tolist()
        [-inf, 0.0]
    """
    counted = jax.lax.stop_gradient(jnp.where(probabilities > 0, log_values, -jnp.inf))
    peak = _finite(jax.ops.segment_max(counted, targets, size))
    alive = jnp.isfinite(counted)
    ratios = jnp.where(alive, jnp.exp(jnp.where(alive, log_values, 0) - peak[targets]), 0)
    total = jax.ops.segment_sum(probabilities * ratios, targets, size)
    return safe_log(total) + peak


def pick(log_values: Float[Array, " q"], uniform: Float[Array, ""]) -> Int[Array, ""]:
    """The value v, with probability ∝ e^{a_v}, at which the cumulative law passes `uniform` in [0, 1).

    Example:
        >>> int(pick(jnp.log(jnp.array([0.3, 0.7])), jnp.array(0.31)))
        1
    """
    masses = jnp.exp(log_values - _finite(jnp.max(log_values)))
    cumulative = jnp.cumsum(masses)
    passed = (cumulative > uniform * cumulative[-1]) & (masses > 0)
    return jnp.where(jnp.any(passed), jnp.argmax(passed), jnp.argmax(masses))
