"""The harmonic reference in closed form: constant scalar or diagonal stiffness around one centre, a point to start from.

killing at the rate  ½ Σ_i β_i (x − ν)_i²,     G from `green`
"""

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float

from .bridge import Bridge, LinearDrift, StepLaws, unstacked
from .clock import time_at_snr
from .green import Green, Pinned
from .reference import AbstractReference, Instant
from .snr import search_times, spaced


class Harmonic(AbstractReference):
    """Killing at the rate ½ Σ_i β_i (x − ν)_i², no force, no gauge, a point to start from."""

    green: Green
    centre: Float[Array, "..."]

    def _bridge(self, pinned: Pinned) -> Bridge:
        left, right, variance = pinned
        return Bridge.of(left, right, (1 - left - right) * self.centre, variance, jnp.any(variance > 0))

    def _pull(self, remaining) -> LinearDrift:
        to_end, to_centre = self.green.pull(remaining)
        return LinearDrift(to_end, to_centre, (to_centre - to_end) * self.centre)

    def _bridges(self, before, after) -> Bridge:
        return jax.vmap(lambda *durations: self._bridge(self.green.pin(*durations)))(before, after)

    def laws(self, times):
        t, remaining = times.t[:-1], times.remaining
        before, after = jnp.stack([t, times.step, t]), jnp.stack([remaining[:-1], remaining[1:], times.step])
        observation, ahead, noising = unstacked(jax.vmap(self._bridges)(before, after))
        drift = jax.vmap(self._pull)(remaining[:-1])
        return StepLaws(t, times.step, observation, ahead, noising, drift, force=None), None

    def observations(self, times):
        return self._bridges(times.t[:-1], times.remaining[:-1])

    def instant(self, t, remaining):
        begun, goes_on = t > 0, remaining > 0
        log_green = Partial(_log_green, self.green, self.centre, jnp.where(begun, t, 1))
        pull = self._pull(jnp.where(goes_on, remaining, 1))
        return Instant(self._bridge(self.green.pin(t, remaining)), pull, log_green, None, None)

    def pieces(self):
        beta = self.green.beta[None]
        return beta, jnp.zeros_like(beta), jnp.arange(2, dtype=beta.dtype), None

    def reach(self):
        return jnp.max(jnp.abs(self.centre))

    def times_at_snr(self, low, high, count, dim):
        if self.green.beta.ndim == 0:
            return time_at_snr(self.green, jnp.exp(spaced(jnp.log(low), jnp.log(high), count)))
        return search_times(self, low, high, count, dim)


def _log_green(green: Green, centre, duration, start, x) -> Float[Array, ""]:
    """log G from `start` to x in `duration`."""
    return green.log(start - centre, x - centre, duration)
