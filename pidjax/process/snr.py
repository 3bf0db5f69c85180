"""The signal-to-noise ratio of the state as an observation of the end point, and the times at which it has given values.

K = rightᵀ Σ⁻¹ right,    d log det K / dt = tr Σ⁻¹
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._maths.maps import Map, diagonal, log_determinant, product
from .bridge import Bridge
from .reference import AbstractReference, Times


def log_snr_of(observation: Bridge, dim: int) -> Float[Array, ""]:
    """log det(K)/d with K = (L⁻¹ right)ᵀ L⁻¹ right."""
    return 2 * log_determinant(product(observation.whitening, observation.right), dim) / dim


def search_times(
    reference: AbstractReference, ratios: Float[Array, " n"], dim: int
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """The times at given ratios: a table in logit t, then Newton's steps with the slope t τ d log det K/dt = t τ tr Σ⁻¹.

    Differentiable, as an implicit function of the reference.
    """

    def at(reference, logit):
        t, remaining = jax.nn.sigmoid(logit), jax.nn.sigmoid(-logit)
        zero, one = jnp.zeros((1,), t.dtype), jnp.ones((1,), t.dtype)
        times = Times.of(jnp.concatenate([zero, t, one]), jnp.concatenate([one, remaining, zero]))
        observation = jax.tree.map(lambda leaf: leaf[1:], reference.observations(times))
        log_ratios = jax.vmap(lambda one: log_snr_of(one, dim))(observation)
        precision = jax.vmap(lambda one: _mean_square(one.whitening, dim))(observation)
        return log_ratios, precision * t * remaining

    @jax.custom_jvp
    def solve(reference, log_ratios):
        table = jnp.linspace(-15, 15, max(61, log_ratios.size), dtype=log_ratios.dtype)
        padding = (0, table.size - log_ratios.size)
        wanted = jnp.pad(log_ratios, padding, mode="edge")

        def improve(logit, number):
            found, slope = at(reference, logit)
            interpolated = jnp.interp(wanted, jnp.maximum(found, -200), logit)
            return jnp.where(number == 0, interpolated, logit + (wanted - found) / slope), None

        logit, _ = jax.lax.scan(improve, table, jnp.arange(5))
        return logit[: log_ratios.size]

    @solve.defjvp
    def solve_jvp(primals, tangents):
        (reference, log_ratios), (reference_dot, log_ratios_dot) = primals, tangents
        logit = solve(reference, log_ratios)
        (_, slope), (found_dot, _) = jax.jvp(lambda reference: at(reference, logit), (reference,), (reference_dot,))
        return logit, (log_ratios_dot - found_dot) / slope

    if ratios.size == 0:
        return ratios, ratios
    logit = solve(reference, jnp.log(ratios))
    return jax.nn.sigmoid(logit), jax.nn.sigmoid(-logit)


def _mean_square(a: Map, dim: int) -> Float[Array, ""]:
    """tr(A Aᵀ)/d."""
    return jnp.sum(a**2) / dim if a.ndim == 2 else jnp.mean(diagonal(a, dim) ** 2)
