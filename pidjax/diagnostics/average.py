"""Means over weighted paths, and smooth functions of means, with their standard errors.

    m = Σ_i w_i v_i,    g(m) ± ( Σ_i w_i² |∂g(m)(v_i − m)|² )^½,    w_i = W_i/ΣW

The standard error is that of the delta method: g made linear at m. It needs no resampling, keeps the correlation of one
path's values at different times, and holds for ratios, integrals over time and whatever else is differentiable.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..metrics import Estimate


def average(
    values: PyTree[Float[Array, "N ..."]],
    log_weights: Float[Array, " N"],
    function: Callable[[Any], Float[Array, "..."]] = lambda mean: mean,
) -> Estimate:
    """g(E[v]) and its standard error, each of the shape that g returns.

    Args:
        values: v_i, arrays with the N paths in front.
        log_weights: log W_i, shape (N,); a path of weight −inf does not count, whatever its values.
        function: g, of the mean of `values`; the mean itself by default.

    Example:
        >>> average(jnp.array([1.0, 3.0]), jnp.zeros(2)).value.item()
        2.0
        >>> ratio = average((jnp.array([1.0, 2.0]), jnp.array([2.0, 4.0])), jnp.zeros(2), lambda m: m[0] / m[1])
        >>> ratio.value.item(), ratio.standard_error.item()
        (0.5, 0.0)
    """
    weights = jax.nn.softmax(log_weights)

    def counted(leaf):
        weight = weights.reshape(-1, *[1] * (leaf.ndim - 1))
        return jnp.where(weight > 0, leaf, 0)

    values = jax.tree.map(counted, values)
    mean = jax.tree.map(lambda leaf: jnp.tensordot(weights.astype(leaf.dtype), leaf, 1), values)
    value, linear = jax.linearize(function, mean)

    def squared_deviation(weight, one):
        return (weight.astype(value.dtype) * linear(jax.tree.map(jnp.subtract, one, mean))) ** 2

    variance = jnp.sum(jax.vmap(squared_deviation)(weights, values), axis=0)
    return Estimate(value, jnp.sqrt(variance))


def integrate(values: Float[Array, "*batch times"], times: Float[Array, " times"]) -> Float[Array, "*batch times"]:
    """∫ from t_0 to each t_k by the trapezoidal rule on the grid.

    Example:
        >>> integrate(jnp.array([0.0, 1.0, 2.0]), jnp.array([0.0, 1.0, 2.0])).tolist()
        [0.0, 0.5, 2.0]
    """
    steps = jnp.broadcast_to(jnp.diff(times), (*values.shape[:-1], times.size - 1))
    pieces = 0.5 * (values[..., 1:] + values[..., :-1]) * steps
    return jnp.concatenate([jnp.zeros_like(values[..., :1]), jnp.cumsum(pieces, axis=-1)], axis=-1)
