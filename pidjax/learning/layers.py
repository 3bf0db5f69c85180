"""What networks of (t, x) are made of: features of time, last layers that are zero, and their point checked."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from .._doors.checks import as_real, as_scalar
from .._doors.functions import in_words

_NUM_FREQUENCIES = 64
_LOWEST_FREQUENCY, _HIGHEST_FREQUENCY = 0.1, 100.0


def fourier_features(t: Float[Array, ""]) -> Float[Array, " features"]:
    """(sin ω_j t, cos ω_j t) at 64 evenly spaced frequencies ω_j from 0.1 to 100."""
    frequencies = jnp.linspace(_LOWEST_FREQUENCY, _HIGHEST_FREQUENCY, _NUM_FREQUENCIES, dtype=t.dtype)
    return jnp.concatenate([jnp.sin(frequencies * t), jnp.cos(frequencies * t)])


def perceptron_of_time(key, size, width: int, dtype) -> eqx.nn.MLP:
    """A perceptron of one hidden layer, of `fourier_features(t)`."""
    return eqx.nn.MLP(2 * _NUM_FREQUENCIES, size, width, 1, jax.nn.silu, dtype=dtype, key=key)


def zero_last_layer(perceptron: eqx.nn.MLP) -> eqx.nn.MLP:
    """The same perceptron with its output zero."""

    def last(perceptron):
        return perceptron.layers[-1].weight, perceptron.layers[-1].bias

    return eqx.tree_at(last, perceptron, replace_fn=jnp.zeros_like)


def as_point_for(made_for: Any, t: ArrayLike, x: ArrayLike) -> tuple[Float[Array, ""], Float[Array, " d"]]:
    """One time and point as arrays of the dtype, the point of the shape too, that a network is made for."""
    t, x = as_scalar("t", t).astype(made_for.dtype), as_real("x", x)
    if (x.dtype, x.shape) != (made_for.dtype, made_for.shape):
        raise ValueError(
            f"x is a point of {in_words(x)} but the network is made for {in_words(made_for)}; "
            "build it with the target's dim and dtype"
        )
    return t, x
