"""When the end is decided: the correlation of the state, and of the weighted state, with the end point.

    A(t) = E[ x_t·x_1 ] / E|x_1|²,       Â(t) = E[ x̂_t·x_1 ] / E|x_1|²

x̂ is a conditional mean, so that E[x_t·x_1] = E[x_t·x̂_t] and E[x̂_t·x_1] = E|x̂_t|²: the second forms are what is averaged,
with the smaller variance. Â rises from |E x_1|²/E|x_1|² to 1. Exact curves without simulation: `pidjax.exact`; the exact
sharpness: `pidjax.learning`.

    transition time   the first t at which Â is ½
    sharpness         S = ∫ ( 1 − |2Â − 1| ) dt:  0 for a jump, ½ for Â = t
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..exact import transition_time
from ..metrics import Estimate
from .average import average, integrate
from .ensemble import Ensemble, check_paths


class Autocorrelations(NamedTuple):
    """What `autocorrelations` returns: A and Â of shape (K+1,), transition time and sharpness of Â."""

    state: Estimate
    weighted_state: Estimate
    transition_time: Estimate
    sharpness: Estimate


def autocorrelations(paths: Ensemble) -> Autocorrelations:
    """A(t_k), Â(t_k), the transition time and the sharpness of Â, each with its standard error.

    The sharpness is the trapezoidal rule on the paths' grid, divided by the horizon.

    Example:
        >>> import jax, pidjax as pid
        >>> from pidjax.diagnostics import ensemble
        >>> target = pid.GaussianMixture(jnp.zeros((1, 1)), jnp.ones((1, 1, 1)))
        >>> solution = pid.sample(jax.random.key(0), target, num_samples=99, grid=pid.uniform_grid(9), save_paths=True)
        >>> found = autocorrelations(ensemble(solution))
        >>> bool(jnp.abs(found.sharpness.value - 0.5) < 4 * found.sharpness.standard_error)
        True

    Source: Chertkov & Behjoo, *AdaPID*, arXiv 2512.11858.
    """
    check_paths(paths)
    inner = jnp.sum(paths.states * paths.weighted_states, axis=-1)
    square = jnp.sum(paths.weighted_states**2, axis=-1)

    def of(values, function):
        return average((values, square[:, -1]), paths, lambda means: function(means[0] / means[1]))

    return Autocorrelations(
        state=of(inner, lambda curve: curve),
        weighted_state=of(square, lambda curve: curve),
        transition_time=of(square, lambda curve: transition_time(paths.times, curve)),
        sharpness=of(square, lambda curve: _sharpness(paths.times, curve)),
    )


def _sharpness(times: Float[Array, " times"], curve: Float[Array, " times"]) -> Float[Array, ""]:
    return integrate(1 - jnp.abs(2 * curve - 1), times)[-1] / (times[-1] - times[0])
