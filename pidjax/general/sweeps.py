"""The two passes on the cells, each value divided by its largest, whose logarithm is kept:

φ_{k+1} = Sᵀ φ_k  from the start,       ψ_k = S ψ_{k+1}  from the end
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .box import Box
from .generator import Generator, generator
from .process import Process


def steps_of(process: Process, box: Box, horizon, num_steps: int) -> tuple[Generator, Float[Array, " steps"]]:
    """The steps, and the times in their middles."""
    step = horizon / num_steps
    return generator(process, box, step), (jnp.arange(num_steps).astype(step.dtype) + 0.5) * step


def forward(
    steps: Generator, middles: Float[Array, " steps"], first: Float[Array, "*cells"]
) -> tuple[Float[Array, "times *cells"], Float[Array, " times"]]:
    """φ_k at K + 1 times, scaled, and the logarithms of their scales."""

    def onward(masses, t):
        half = steps.half(t)
        masses = half * masses
        for axis in range(steps.box.dim):
            masses = steps.forward(axis, t, masses)
        masses, log_scale = _scaled(half * masses)
        return masses, (masses, log_scale)

    first, log_first = _scaled(first)
    rest, log_scales = jax.lax.scan(jax.checkpoint(onward), first, middles)[1]
    return jnp.concatenate([first[None], rest]), jnp.cumsum(jnp.append(log_first, log_scales))


def backward(
    steps: Generator, middles: Float[Array, " steps"], log_last: Float[Array, "*cells"]
) -> tuple[Float[Array, "times *cells"], Float[Array, " times"]]:
    """ψ_k at K + 1 times, scaled, and the logarithms of their scales."""

    def back(values, t):
        values, log_scale = _scaled(one_step(steps, t, values)[0])
        return values, (values, log_scale)

    top = jax.lax.stop_gradient(jnp.max(log_last))
    last = jnp.exp(log_last - top)
    rest, log_scales = jax.lax.scan(jax.checkpoint(back), last, middles, reverse=True)[1]
    return jnp.concatenate([rest, last[None]]), jnp.cumsum(jnp.append(log_scales, top)[::-1])[::-1]


def one_step(steps: Generator, t, values) -> tuple[Float[Array, "*cells"], list[Float[Array, "*cells"]]]:
    """S ψ, and what is left of ψ after the move along each axis."""
    half, left = steps.half(t), []
    values = half * values
    for axis in reversed(range(steps.box.dim)):
        left.insert(0, values)
        values = steps.backward(axis, t, values)
    return half * values, left


def spread(box: Box, start: Float[Array, " d"]) -> Float[Array, "*cells"]:
    """The unit mass at a point, over the two nearest centres of each axis, in the shares that keep its mean."""
    place = (start - box.lower) / box.spacing - 0.5
    masses = jnp.ones((1,) * box.dim, start.dtype)
    for axis, number in enumerate(box.shape):
        along = jnp.clip(place[axis], 0, number - 1)
        shares = jnp.maximum(1 - jnp.abs(jnp.arange(number).astype(start.dtype) - along), 0)
        masses = masses * shares.reshape([-1 if other == axis else 1 for other in range(box.dim)])
    masses = jnp.where(box.are_inside, masses, 0)
    return masses / jnp.sum(masses)


def _scaled(values: Float[Array, "*cells"]) -> tuple[Float[Array, "*cells"], Float[Array, ""]]:
    """Values over their largest, and its logarithm."""
    most = jax.lax.stop_gradient(jnp.max(values))
    return values / most, jnp.log(most)
