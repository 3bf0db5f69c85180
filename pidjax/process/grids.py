"""Grids of times 0 = t_0 < … < t_K = 1, with the time to the end and the step stored on their own.

The signal-to-noise ratio K(t) of the state as an observation of the end point goes from 0 at the start to infinity at the
end. A grid placed at given ratios makes the same chain for every scalar stiffness: β moves the clock.
"""

from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from .._doors.checks import as_floating, as_scalar, check_count, concrete
from .._doors.show import shown_fields
from .reference import AbstractReference, Times


class AbstractGrid(eqx.Module):
    """Chooses the times, given the reference and the range of ratios at which the target resolves."""

    __repr__ = shown_fields

    @abstractmethod
    def times(self, reference: AbstractReference, snr_range: tuple[Array, Array], horizon: Array, dim: int) -> Times:
        """The grid on the unit horizon, in the dtype of the horizon."""

    def check(self, horizon: Array) -> None:
        """Raise if the grid does not fit a concrete horizon."""


class UniformGrid(AbstractGrid):
    """t_k = k/K."""

    num_steps: int = eqx.field(static=True)

    def times(self, reference, snr_range, horizon, dim):
        k = jnp.arange(self.num_steps + 1, dtype=horizon.dtype)
        t, remaining = k / self.num_steps, k[::-1] / self.num_steps
        return Times(t, remaining, jnp.full(self.num_steps, 1 / self.num_steps, horizon.dtype))


class LogSNRGrid(AbstractGrid):
    """The K − 1 inner times at geometrically spaced signal-to-noise ratios, from `low` to `high`."""

    num_steps: int = eqx.field(static=True)
    low: Float[Array, ""] | None
    high: Float[Array, ""] | None

    def times(self, reference, snr_range, horizon, dim):
        low = snr_range[0] if self.low is None else self.low.astype(horizon.dtype)
        high = snr_range[1] if self.high is None else self.high.astype(horizon.dtype)
        if self.low is None:
            low = jnp.minimum(low, 0.1 * high)
        if self.high is None:
            high = jnp.maximum(high, 10 * low)
        t, remaining = reference.times_at_snr(low, high, self.num_steps - 1, dim)
        return Times.of(jnp.pad(t, 1, constant_values=(0, 1)), jnp.pad(remaining, 1, constant_values=(1, 0)))


class AtTimes(AbstractGrid):
    """The given times, in the user's units."""

    values: Float[Array, " times"]

    def times(self, reference, snr_range, horizon, dim):
        self.check(horizon)
        t = (self.values.astype(horizon.dtype) / horizon).at[-1].set(1)
        return Times.of(t, 1 - t)

    def check(self, horizon):
        last, end = concrete(self.values[-1]), concrete(horizon)
        if last is not None and end is not None and abs(last - end) > 1e-5 * end:
            raise ValueError(f"times end at {last:g} but the horizon is {end:g}; end there")


def uniform_grid(num_steps: int) -> UniformGrid:
    """The grid t_k = k/K of K equal steps.

    Raises:
        ValueError: fewer than one step.

    Example:
        >>> uniform_grid(100).num_steps
        100
    """
    return UniformGrid(check_count("num_steps", num_steps))


def log_snr_grid(num_steps: int, low: ArrayLike | None = None, high: ArrayLike | None = None) -> LogSNRGrid:
    """The grid of K steps whose K − 1 inner times lie at geometrically spaced signal-to-noise ratios.

    Args:
        num_steps: K ≥ 1.
        low, high: ratios K(t) of the first and the last inner time, in the unit problem. By default 0.3/(variance of
            the target per coordinate) and 3/(smallest variance of a component).

    Raises:
        ValueError: fewer than one step; ratios not finite, not positive or out of order.

    Example:
        >>> log_snr_grid(20, low=0.1, high=100.0).num_steps
        20

    The state as an observation of the end point depends on its ratio alone, so on this grid every scalar β makes the same
    chain. Where K is a matrix the ratio is det(K)^(1/d).
    """
    num_steps = check_count("num_steps", num_steps)
    ends = [None if end is None else as_scalar(name, end) for name, end in (("low", low), ("high", high))]
    lowest, highest = (None if end is None else concrete(end) for end in ends)
    for name, number in (("low", lowest), ("high", highest)):
        if number is not None and not number > 0:
            raise ValueError(f"{name} is {number:g}; pass a signal-to-noise ratio > 0")
    if lowest is not None and highest is not None and not lowest < highest:
        raise ValueError(f"low is {lowest:g} and high is {highest:g}; pass low < high")
    return LogSNRGrid(num_steps, *ends)


def at_times(times: ArrayLike) -> AtTimes:
    """The grid through the given times, in the user's units, from 0 to the horizon; they may be differentiated.

    Raises:
        ValueError: fewer than two times, not increasing, not starting at 0; at use: not ending at the horizon.

    Example:
        >>> at_times(jnp.array([0.0, 0.5, 1.0])).values.shape
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
    return AtTimes(times)
