"""All that the rollout needs of the reference, at each time of the grid: computed once per call, passed by value.

One law, the reference pinned at both ends, is used three ways:

    observation   x_t  | x₀, y      0 → t → 1      what the state says of the end point
    toward        x_t' | x_t, y     t → t' → 1     a step, once the end point is known
    back          x_t  | x₀, x_t'   0 → t → t'     the noising kernel, which weighs the path
"""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .grid import Times
from .kernel import Green, Pinned


class Observation(NamedTuple):
    """The state as a noisy observation of the end point y, in units of its noise: value = gain · y + N(0, I).

    gain² = K is the signal-to-noise ratio: 0 at the start of time. The pair is what a target is tilted by.
    """

    gain: Float[Array, ""]
    value: Float[Array, " d"]


def observe(pinned: Pinned, x: Float[Array, " d"], start: Float[Array, " d"]) -> Observation:
    """The observation that the state x makes of the end point: ((x − left·x₀)/√variance, right/√variance).

    At t = 0 the state is the start and says nothing; any other state there has no law, and gives NaN.
    """
    noisy = pinned.variance > 0
    inverse_noise = jnp.where(noisy, 1 / jnp.sqrt(jnp.where(noisy, pinned.variance, 1)), 0)
    residual = x - pinned.left * start
    is_start = jnp.abs(residual) <= 8 * jnp.finfo(x.dtype).eps * jnp.abs(start)
    return Observation(
        gain=pinned.right * inverse_noise,
        value=jnp.where(noisy | is_start, residual * inverse_noise, jnp.nan),
    )


class Bridges(eqx.Module):
    """The reference along the grid; every leaf has the grid's K steps in front.

    Attributes:
        t, step: start and length of each step.
        observation, toward, back: the three pinned laws.
        to_end, to_centre: gains of the control u = to_end · x̂ − to_centre · x.
    """

    t: Float[Array, " *K"]
    step: Float[Array, " *K"]
    observation: Pinned
    toward: Pinned
    back: Pinned
    to_end: Float[Array, " *K"]
    to_centre: Float[Array, " *K"]

    @classmethod
    def of(cls, green: Green, times: Times) -> "Bridges":
        t, remaining = times.t[:-1], times.remaining[:-1]
        to_end, to_centre = green.pull(remaining)
        return cls(
            t=t,
            step=times.step,
            observation=green.pin(t, remaining),
            toward=green.pin(times.step, times.remaining[1:]),
            back=green.pin(t, times.step),
            to_end=to_end,
            to_centre=to_centre,
        )

    @property
    def num_steps(self) -> int:
        return self.t.shape[0]
