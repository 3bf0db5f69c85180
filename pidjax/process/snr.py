"""The signal-to-noise ratio of the state as an observation of the end point, and the times at which it has given values.

K = rightᵀ Σ⁻¹ right,    d log det K / dt = tr Σ⁻¹

From a Gaussian start the state has seen the end point already at t = 0; ratios are then sought above that one.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._maths.maps import Map, diagonal, log_determinant, product
from .bridge import Bridge
from .reference import AbstractReference, Times


def log_snr_of(observation: Bridge, dim: int) -> Float[Array, ""]:
    """log det(K)/d with K = (L⁻¹ right)ᵀ L⁻¹ right."""
    return 2 * log_determinant(product(observation.whitening, observation.right), dim) / dim


def spaced(low: Float[Array, ""], high: Float[Array, ""], count: int) -> Float[Array, " n"]:
    """`count` numbers from low to high, both of them; the first alone if one."""
    fractions = jnp.linspace(0, 1, max(count, 1), dtype=low.dtype)[:count]
    return (1 - fractions) * low + fractions * high


def search_times(
    reference: AbstractReference, low: Float[Array, ""], high: Float[Array, ""], count: int, dim: int
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """The times at `count` ratios from `low` to `high`, but at least 2 and 4 times that of the start.

    A table in logit t, then Newton's steps with the slope t τ d log det K/dt = t τ tr Σ⁻¹. Differentiable, as an implicit
    function of the reference.
    """
    earliest = -15.0

    def at(reference, logit):
        t, remaining = jax.nn.sigmoid(logit), jax.nn.sigmoid(-logit)
        zero, one = jnp.zeros((1,), t.dtype), jnp.ones((1,), t.dtype)
        times = Times.of(jnp.concatenate([zero, t, one]), jnp.concatenate([one, remaining, zero]))
        observation = jax.tree.map(lambda leaf: leaf[1:], reference.observations(times))
        log_ratios = jax.vmap(lambda one: log_snr_of(one, dim))(observation)
        precision = jax.vmap(lambda one: _mean_square(one.whitening, dim))(observation)
        return log_ratios, precision * t * remaining

    def sought(at_start, low, high):
        return spaced(jnp.maximum(low, at_start + math.log(2)), jnp.maximum(high, at_start + math.log(4)), count)

    @jax.custom_jvp
    def solve(reference, low, high):
        table = jnp.linspace(earliest, -earliest, max(61, count), dtype=low.dtype)

        def improve(carry, number):
            logit, wanted = carry
            found, slope = at(reference, logit)
            ratios = jnp.pad(sought(found[0], low, high), (0, table.size - count), mode="edge")
            wanted = jnp.where(number == 0, ratios, wanted)
            interpolated = jnp.interp(wanted, jnp.maximum(found, -200), logit)
            return (jnp.where(number == 0, interpolated, logit + (wanted - found) / slope), wanted), None

        (logit, _), _ = jax.lax.scan(improve, (table, table), jnp.arange(5))
        return logit[:count]

    @solve.defjvp
    def solve_jvp(primals, tangents):
        logit = solve(*primals)

        def residual(reference, low, high):
            found, slope = at(reference, jnp.pad(logit, (1, 0), constant_values=earliest))
            return sought(found[0], low, high) - found[1:], slope[1:]

        (_, slope), (change, _) = jax.jvp(residual, primals, tangents)
        return logit, change / slope

    if count == 0:
        return jnp.zeros((0,), low.dtype), jnp.zeros((0,), low.dtype)
    logit = solve(reference, jnp.log(low), jnp.log(high))
    return jax.nn.sigmoid(logit), jax.nn.sigmoid(-logit)


def _mean_square(a: Map, dim: int) -> Float[Array, ""]:
    """tr(A Aᵀ)/d."""
    return jnp.sum(a**2) / dim if a.ndim == 2 else jnp.mean(diagonal(a, dim) ** 2)
