"""The way up from one point: limited-memory BFGS, one evaluation an iteration.

    y ← y + t H g,     g = ∇log p̃(y),     H ≈ (−∇² log p̃)⁻¹ of the last ten pairs (y' − y, g − g')

The step t is 1 at first, and × 0.3 until log p̃ gains a ten-thousandth of what its slope promises. Pairs along which log p̃ bends
upwards are left out, so H stays positive definite. Before there is a pair, H g is a step of a given length along g.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..targets.base import WithDensity

MEMORY = 10
ITERATIONS = 300
_SHRINK = 0.3
_SMALLEST_STEP = 1e-10
_ARMIJO = 1e-4
_ROUNDINGS = 8
"""Of log p̃, by which it may fall: near the top they hide what is gained."""
_SETTLED = 1e-8
"""gᵀH g, twice what is left to gain, at which a climb ends."""


class Climb(NamedTuple):
    """Where a climb ended, log p̃ there (−∞ if it was not finite at the start), and evaluations of it and its gradient."""

    point: Float[Array, " d"]
    value: Float[Array, ""]
    evaluations: Int[Array, ""]


class Memory(NamedTuple):
    """The newest pair first; all is zero where there is none yet.

    Attributes:
        steps, bends: s = y' − y and b = g − g'.
        scales: 1/sᵀb.
    """

    steps: Float[Array, "m d"]
    bends: Float[Array, "m d"]
    scales: Float[Array, " m"]

    def with_pair(self, step: Float[Array, " d"], bend: Float[Array, " d"], wanted: Bool[Array, ""]) -> "Memory":
        """With a pair in front, in place of the oldest."""
        product = jnp.sum(step * bend)
        pair = Memory(step, bend, 1 / jnp.where(wanted, product, 1))

        def push(old, new):
            return jnp.where(wanted, jnp.concatenate([new[None], old[:-1]]), old)

        return Memory(*map(push, self, pair))

    def direction(self, slope: Float[Array, " d"], length: Float[Array, ""]) -> Float[Array, " d"]:
        """H g, by the two loops of Nocedal."""

        def take(rest, pair):
            step, bend, scale = pair
            share = scale * jnp.sum(step * rest)
            return rest - share * bend, share

        def give(gained, pair):
            step, bend, scale, share = pair
            return gained + (share - scale * jnp.sum(bend * gained)) * step, None

        rest, shares = jax.lax.scan(take, slope, tuple(self))
        bend = _norm(self.bends[0])
        pair = jnp.sum(self.steps[0] * (self.bends[0] / jnp.where(bend > 0, bend, 1)))
        softness = jnp.where(bend > 0, pair / jnp.where(bend > 0, bend, 1), _of_length(slope, length))
        return jax.lax.scan(give, softness * rest, (*self, shares), reverse=True)[0]


class _State(NamedTuple):
    """A climb on its way: `gain` is gᵀH g, `step` is t."""

    point: Float[Array, " d"]
    value: Float[Array, ""]
    slope: Float[Array, " d"]
    memory: Memory
    direction: Float[Array, " d"]
    gain: Float[Array, ""]
    step: Float[Array, ""]
    evaluations: Int[Array, ""]
    finished: Bool[Array, ""]


def climb(target: WithDensity, start: Float[Array, " d"], length: Float[Array, ""]) -> Climb:
    """The end of the way up from a start, after at most 300 evaluations.

    Args:
        target: what has a log-density.
        start: shape (d,).
        length: of the first step.

    Source: Nocedal, *Mathematics of Computation* 1980; Nocedal & Wright, *Numerical optimization*, algorithms 7.4 and 3.1.

    Example:
        >>> target = pid.Density(lambda y: -((y[0] - 3) ** 2) - 50 * (y[1] - y[0]) ** 2, 2)
        >>> end = climb(target, jnp.array([-2.0, 5.0]), jnp.array(1.0))
        >>> bool(jnp.allclose(end.point, 3.0, atol=1e-3))
        True
    """
    dtype = start.dtype
    resolution = _ROUNDINGS * jnp.finfo(dtype).eps

    def iterate(state: _State) -> _State:
        trial = state.point + state.step * state.direction
        value, slope = value_and_slope(target, trial)
        least = state.value + _ARMIJO * state.step * state.gain - resolution * jnp.abs(state.value)
        accepted = value >= least
        step, bend = trial - state.point, state.slope - slope
        curved = jnp.sum(step * bend) > jnp.finfo(dtype).eps * _norm(step) * _norm(bend)
        memory = state.memory.with_pair(step, bend, accepted & curved)
        point, value, slope = (
            jnp.where(accepted, *pair) for pair in ((trial, state.point), (value, state.value), (slope, state.slope))
        )
        direction = memory.direction(slope, length)
        upwards = jnp.sum(direction * slope) > 0
        direction = jnp.where(upwards, direction, _of_length(slope, length) * slope)
        gain = jnp.sum(direction * slope)
        fraction = jnp.where(accepted, 1, _SHRINK * state.step)
        settled = (gain < _SETTLED) & ((memory.scales[0] > 0) | (gain == 0))
        finished = settled | (fraction < _SMALLEST_STEP) | (value == -jnp.inf)
        return _State(point, value, slope, memory, direction, gain, fraction, state.evaluations + 1, finished)

    nothing, none = jnp.zeros_like(start), jnp.zeros((), dtype)
    no_pairs = jnp.zeros((MEMORY, *start.shape), dtype)
    memory = Memory(no_pairs, no_pairs, jnp.zeros(MEMORY, dtype))
    begun = _State(
        start, none - jnp.inf, nothing, memory, nothing, none, none + 1, jnp.zeros((), int), jnp.zeros((), bool)
    )
    ended = jax.lax.while_loop(lambda state: ~state.finished & (state.evaluations < ITERATIONS), iterate, begun)
    return Climb(ended.point, ended.value, ended.evaluations)


def value_and_slope(target: WithDensity, point: Float[Array, " d"]) -> tuple[Float[Array, ""], Float[Array, " d"]]:
    """log p̃ and its gradient; −∞ and 0 where one of them is not finite."""
    value, slope = jax.value_and_grad(target.log_density)(point)
    usable = jnp.isfinite(value) & jnp.all(jnp.isfinite(slope))
    return jnp.where(usable, value, -jnp.inf), jnp.where(usable, slope, 0)


def _of_length(slope: Float[Array, " d"], length: Float[Array, ""]) -> Float[Array, ""]:
    """What makes a slope a step of this length."""
    steepness = _norm(slope)
    return length / jnp.where(steepness > 0, steepness, 1)


def _norm(vector: Float[Array, " d"]) -> Float[Array, ""]:
    """|v|, also where |v|² is too large for the dtype: far from a mode log p̃ can be as steep as that."""
    largest = jnp.max(jnp.abs(vector))
    return largest * jnp.linalg.norm(vector / jnp.where(largest > 0, largest, 1))
