"""Means over weighted paths, and smooth functions of means, with their standard errors.

    m = Σ_i w_i v_i,    g(m) ± r ( Σ_g | Σ_{i∈g} w_i ∂g(m)(v_i − m) |² )^½,    w_i = W_i/ΣW

The standard error is that of the delta method: g made linear at m. It needs no resampling, keeps the correlation of one
path's values at different times, and holds for ratios, integrals over time and whatever else is differentiable. r is 1, or
the ensemble's `inflation` where its paths share a pool.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._doors.functions import check_array
from .._maths.estimates import Estimate, error_of_sum, living, weighted_sum
from .._maths.weighted import Weighted
from ..metrics._inputs import checked_log_weights, floating
from .ensemble import Ensemble


def average(
    values: PyTree[Float[Array, "N ..."]],
    paths: Ensemble | Weighted | Float[Array, " N"],
    function: Callable[[Any], Float[Array, "..."]] = lambda mean: mean,
) -> Estimate:
    """g(E[v]) and its standard error, each of the shape that g returns.

    Args:
        values: v_i, arrays with the N paths in front.
        paths: the ensemble or solution that the values are of, whose weights and shared pool count; or log W_i, shape
            (N,), of independent paths. A path of weight −inf does not count, whatever its values.
        function: g, of the mean of `values`, to one array; the mean itself by default.

    Raises:
        ValueError: values of another number than the paths; log-weights that are NaN, +inf or all −inf (concrete values
            only); a function that does not return one array.

    Example:
        >>> average(jnp.array([1.0, 3.0]), jnp.zeros(2)).value.item()
        2.0
        >>> ratio = average((jnp.array([1.0, 2.0]), jnp.array([2.0, 4.0])), jnp.zeros(2), lambda m: m[0] / m[1])
        >>> ratio.value.item(), ratio.standard_error.item()
        (0.5, 0.0)
    """
    of_paths = isinstance(paths, Ensemble | Weighted)
    log_weights = checked_log_weights(paths.log_weights if of_paths else paths)
    weights = jax.nn.softmax(log_weights)
    values = jax.tree.map(lambda leaf: floating("values", leaf), values)
    for leaf in jax.tree.leaves(values):
        if leaf.shape[:1] != weights.shape:
            raise ValueError(f"values have shape {leaf.shape}; pass the {weights.size} paths in front")

    values = jax.tree.map(lambda leaf: living(leaf, weights), values)
    mean = jax.tree.map(lambda leaf: weighted_sum(weights.astype(leaf.dtype), leaf), values)
    check_array("function", function, mean, of="the mean of the values")
    value, linear = jax.linearize(lambda mean: jnp.asarray(function(mean)), mean)

    def deviation(weight, one):
        return weight.astype(value.dtype) * linear(jax.tree.map(jnp.subtract, one, mean))

    error = error_of_sum(jax.vmap(deviation)(weights, values), paths.num_islands if of_paths else None)
    return Estimate(value, paths.inflation.astype(value.dtype) * error if of_paths else error)


def integrate(values: Float[Array, "*batch times"], times: Float[Array, " times"]) -> Float[Array, "*batch times"]:
    """∫ from t_0 to each t_k by the trapezoidal rule on the grid.

    Example:
        >>> integrate(jnp.array([0.0, 1.0, 2.0]), jnp.array([0.0, 1.0, 2.0])).tolist()
        [0.0, 0.5, 2.0]
    """
    steps = jnp.broadcast_to(jnp.diff(times), (*values.shape[:-1], times.size - 1))
    pieces = 0.5 * (values[..., 1:] + values[..., :-1]) * steps
    return jnp.concatenate([jnp.zeros_like(values[..., :1]), jnp.cumsum(pieces, axis=-1)], axis=-1)
