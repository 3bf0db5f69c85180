"""The clock of the harmonic reference: the time at which the signal-to-noise ratio has a given value.

    K(t) = S(t) / (S(1) S(1−t)),     from 0 at the start to infinity at the end.

A grid placed at given ratios makes the same chain for every stiffness: β moves the clock.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .green import Green, cosh_sinhc


def time_at_snr(green: Green, ratio: Float[Array, "*times"]) -> tuple[Float[Array, "*times"], Float[Array, "*times"]]:
    """(t, 1 − t) at which K(t) = S(t)/(S(1)S(1−t)) is the ratio.

    With c = C(1)/S(1), and arc the inverse of τ ↦ C(τ)/S(τ): 1 − t = arc(K + c) and t = arc(1/(S(1)²K) + c);
    at β = 0 they are 1/(1+K) and K/(1+K).
    """
    stiff = green.beta > 1
    w = jnp.sqrt(jnp.where(stiff, green.beta, 1))
    beta = jnp.where(stiff, 0, green.beta)
    cosine, sinhc = cosh_sinhc(beta)
    decay = -jnp.expm1(-2 * w)
    excess = 2 * w * jnp.exp(-2 * w) / decay

    def arc(inner):
        """Of inner + c; c exceeds w by `excess`, so that artanh(w/(inner + c))/w loses no digits."""
        gap = inner + excess
        return jnp.where(
            stiff, jnp.log1p(2 * w / jnp.where(gap > 0, gap, 1)) / (2 * w), _soft_arc(beta, inner + cosine / sinhc)
        )

    remaining = arc(ratio)
    inner = jnp.where(stiff, 2 * w * excess / decay, 1 / sinhc**2) / ratio
    elapsed, is_lost = arc(inner), stiff & (inner + excess == 0)
    late = (remaining < 0.5) | is_lost
    return jnp.where(late, 1 - remaining, elapsed), jnp.where(late, remaining, 1 - elapsed)


def _soft_arc(beta: Array, q: Array) -> Array:
    """artanh(√β/q)/√β for β ≤ 1: a series in β/q² where that is small and q > 0, else artanh, or atan2 below β = 0."""
    near = (q > 0) & (jnp.abs(beta) < 0.01 * q**2)
    safe_q = jnp.where(near, q, 1)
    z = jnp.where(near, beta, 0) / safe_q**2
    series = sum(z**k / (2 * k + 1) for k in range(10)) / safe_q
    oscillates, grows = ~near & (beta < 0), ~near & (beta >= 0)
    omega, w = jnp.sqrt(jnp.where(oscillates, -beta, 1)), jnp.sqrt(jnp.where(grows, beta, 1))
    above = jnp.arctanh(jnp.where(grows, w / jnp.where(grows, q, 1), 0)) / w
    return jnp.where(near, series, jnp.where(grows, above, jnp.arctan2(omega, q) / omega))
