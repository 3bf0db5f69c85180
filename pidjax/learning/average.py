"""The exponential moving average of what is learned, without the bias of its start.

θ̄ₙ = (1 − d)/(1 − dⁿ) Σₖ dⁿ⁻ᵏ θₖ = θ̄ₙ₋₁ + (1 − d)/(1 − dⁿ) (θₙ − θ̄ₙ₋₁),     θ̄₁ = θ₁
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def first_average(free: Any) -> Any:
    """Before any iteration. In 32 bits at least: in fewer its small steps are rounded away."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)), free)


def next_average(average: Any, free: Any, log_decay: Float[Array, ""], count: Int[Array, ""]) -> Any:
    """θ̄ₙ from θ̄ₙ₋₁, θₙ, log d and n.

    Example:
        >>> next_average(jnp.array(1.0), jnp.array(4.0), jnp.log(0.5), jnp.array(2)).round(4)
        Array(3., dtype=float32)
    """
    rate = jnp.expm1(log_decay) / jnp.expm1(count.astype(log_decay.dtype) * log_decay)

    def moved(mean, leaf):
        return mean + rate.astype(mean.dtype) * (leaf.astype(mean.dtype) - mean)

    return jax.tree.map(moved, average, free)
