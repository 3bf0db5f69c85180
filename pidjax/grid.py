"""Grids of times 0 = t_0 < … < t_K = 1, with the time to the end and the step stored on their own.

The signal-to-noise ratio of the state as an observation of the end point is K(t) = S(t) / (S(1) S(1−t)), from 0 at the
start to infinity at the end. A grid placed at given ratios makes the same chain for every stiffness: β moves the clock.

In float32 a subtraction near t = 1 would cost digits of everything that follows, so τ = 1 − t is never recomputed.
"""

from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ._checks import as_floating, concrete
from .kernel import Green, cosh_sinhc


class Times(eqx.Module):
    """A grid on the unit horizon: t_k and τ_k = 1 − t_k for k = 0 … K, and the K steps t_{k+1} − t_k."""

    t: Float[Array, " times"]
    remaining: Float[Array, " times"]
    step: Float[Array, " steps"]

    @classmethod
    def of(cls, t: Float[Array, " times"], remaining: Float[Array, " times"]) -> "Times":
        """The grid with each step taken from whichever of t and 1 − t is the smaller, hence the more exact."""
        early = t[1:] < 0.5
        return cls(t, remaining, jnp.where(early, jnp.diff(t), -jnp.diff(remaining)))


class Grid(eqx.Module):
    """Chooses the times, given the Green function and the range of ratios at which the target resolves."""

    @abstractmethod
    def times(self, green: Green, snr_range: tuple[Array, Array], horizon: Array) -> Times:
        """The grid in the dtype of `green.beta`."""

    def check(self, horizon: Array) -> None:
        """Raise if the grid does not fit a concrete horizon."""


class Uniform(Grid):
    """t_k = k/K."""

    num_steps: int = eqx.field(static=True)

    def times(self, green, snr_range, horizon):
        k = jnp.arange(self.num_steps + 1, dtype=green.beta.dtype)
        t, remaining = k / self.num_steps, k[::-1] / self.num_steps
        return Times(t, remaining, jnp.full(self.num_steps, 1 / self.num_steps, green.beta.dtype))


class LogSNR(Grid):
    """The K − 1 inner times at geometrically spaced signal-to-noise ratios, from `low` to `high`."""

    num_steps: int = eqx.field(static=True)
    low: Float[Array, ""] | None
    high: Float[Array, ""] | None

    def times(self, green, snr_range, horizon):
        low = snr_range[0] if self.low is None else self.low.astype(green.beta.dtype)
        high = snr_range[1] if self.high is None else self.high.astype(green.beta.dtype)
        fractions = jnp.linspace(0, 1, max(self.num_steps - 1, 1), dtype=green.beta.dtype)[: self.num_steps - 1]
        t, remaining = time_at_snr(green, jnp.exp((1 - fractions) * jnp.log(low) + fractions * jnp.log(high)))
        return Times.of(jnp.pad(t, 1, constant_values=(0, 1)), jnp.pad(remaining, 1, constant_values=(1, 0)))


class Given(Grid):
    """The given times, in the user's units."""

    values: Float[Array, " times"]

    def times(self, green, snr_range, horizon):
        self.check(horizon)
        t = (self.values.astype(green.beta.dtype) / horizon).at[-1].set(1)
        return Times.of(t, 1 - t)

    def check(self, horizon):
        last, end = concrete(self.values[-1]), concrete(horizon)
        if last is not None and end is not None and abs(last - end) > 1e-5 * end:
            raise ValueError(f"times end at {last:g} but the horizon is {end:g}; end there")


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
    elapsed = arc(jnp.where(stiff, 2 * w * excess / decay, 1 / sinhc**2) / ratio)
    late = remaining < 0.5
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


def uniform(num_steps: int) -> Uniform:
    """The grid t_k = k/K of K equal steps.

    Raises:
        ValueError: fewer than one step.

    Example:
        >>> uniform(100).num_steps
        100
    """
    return Uniform(_num_steps(num_steps))


def log_snr(num_steps: int, low: ArrayLike | None = None, high: ArrayLike | None = None) -> LogSNR:
    """The grid of K steps whose K − 1 inner times lie at geometrically spaced signal-to-noise ratios.

    Args:
        num_steps: K ≥ 1.
        low, high: ratios K(t) of the first and the last inner time, in the unit problem. By default 0.3/(variance of
            the target per coordinate) and 3/(smallest variance of a component).

    Raises:
        ValueError: fewer than one step; ratios not finite, not positive or out of order.

    Example:
        >>> log_snr(20, low=0.1, high=100.0).num_steps
        20

    The state as an observation of the end point depends on its ratio alone, so on this grid every β makes the same chain.
    """
    ends = [None if end is None else as_floating(name, end) for name, end in (("low", low), ("high", high))]
    lowest, highest = (None if end is None else concrete(end) for end in ends)
    for name, number in (("low", lowest), ("high", highest)):
        if number is not None and not number > 0:
            raise ValueError(f"{name} is {number:g}; pass a signal-to-noise ratio > 0")
    if lowest is not None and highest is not None and not lowest < highest:
        raise ValueError(f"low is {lowest:g} and high is {highest:g}; pass low < high")
    return LogSNR(_num_steps(num_steps), *ends)


def given(times: ArrayLike) -> Given:
    """The grid through the given times, in the user's units, from 0 to the horizon; they may be differentiated.

    Raises:
        ValueError: fewer than two times, not increasing, not starting at 0; at use: not ending at the horizon.

    Example:
        >>> given(jnp.array([0.0, 0.5, 1.0])).values.shape
        (3,)
    """
    times = as_floating("times", times)
    if times.ndim != 1 or times.size < 2:
        raise ValueError(f"times has shape {times.shape}; pass a vector of at least two times, from 0 to the horizon")
    values = concrete(times)
    if values is not None:
        if values[0] != 0:
            raise ValueError(f"times starts at {values[0]:g}; start at 0")
        if not (values[1:] > values[:-1]).all():
            raise ValueError("times is not increasing; pass 0 = t_0 < t_1 < … < t_K = horizon")
    return Given(times)


def _num_steps(num_steps: int) -> int:
    if not isinstance(num_steps, int) or isinstance(num_steps, bool) or num_steps < 1:
        raise ValueError(f"num_steps is {num_steps!r}; pass an integer >= 1")
    return num_steps
