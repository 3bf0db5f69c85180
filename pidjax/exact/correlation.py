"""How early the state, and the weighted state, come to resemble the end point.

    A(t) = E[ x_t · x_1 ] / E|x_1|²,     Â(t) = E[ x̂_t · x_1 ] / E|x_1|² = E|x̂_t|² / E|x_1|²     (x̂_t is a mean given x_t)

A has a closed form, x_t being affine in the end point; Â is an integral over the exact law of x_t. Coordinates are the
user's own: a target far from the origin has both near one throughout.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from .._doors.checks import as_floating, as_scalar, concrete
from .._maths.maps import dense
from ..process.bridge import observe
from ..process.protocol import Protocol
from ..process.reference import Times
from ..process.unit import UnitProblem
from ..targets.base import AbstractTarget
from ..targets.quadrature import Nodes, check_nodes, expectation
from .law import as_mixture, inner_times, laws, observations


def correlation(target: AbstractTarget, protocol: Protocol, times: ArrayLike) -> Float[Array, " n"]:
    """A(t) = E[x_t · x_1] / E|x_1|².

    Args:
        target: a `GaussianMixture` or `Samples`.
        protocol: the process.
        times: increasing, inside (0, T).

    Raises:
        ValueError: as `marginals`.

    Example:
        >>> from pidjax import GaussianMixture, harmonic
        >>> target = GaussianMixture(jnp.zeros((1, 1)), jnp.ones((1, 1, 1)))
        >>> correlation(target, harmonic(0.0, noise_scale=1.0), jnp.array([0.25, 0.5]))
        Array([0.25, 0.5 ], dtype=float32)
    """
    unit, grid = inner_times(target, protocol, times)
    mixture = as_mixture(target)
    mean, second = mixture.mean(), _second_moment(mixture)

    def at(observation):
        """x_t = n + R y, whence E[x_t · y] = n · E y + tr(R E[yyᵀ])."""
        right = dense(observation.right, target.dim)
        origin = unit.from_unit(observation.mean(unit.start, unit.to_unit(jnp.zeros_like(mean))))
        return (jnp.sum(origin * mean) + jnp.sum(right * second)) / jnp.trace(second)

    return jax.vmap(at)(observations(unit, grid))


def weighted_state_correlation(
    target: AbstractTarget, protocol: Protocol, times: ArrayLike, *, nodes: Nodes | None = None
) -> Float[Array, " n"]:
    """Â(t) = E|x̂_t|² / E|x_1|²: from |E x_1|²/E|x_1|² at the start, if that is a point, to 1 at the end.

    Args:
        target, protocol, times: as in `correlation`.
        nodes: for the law of x_t, from `lattice` or `sobol`; by default `default_nodes`.

    Example:
        >>> from pidjax import GaussianMixture, harmonic
        >>> target = GaussianMixture(jnp.zeros((1, 1)), jnp.ones((1, 1, 1)))
        >>> weighted_state_correlation(target, harmonic(0.0, noise_scale=1.0), jnp.array([0.25, 0.5])).round(4)
        Array([0.25, 0.5 ], dtype=float32)
    """
    check_nodes(nodes, target.dim)
    return _weighted_state_correlation(target, *inner_times(target, protocol, times), nodes)


@eqx.filter_jit
def _weighted_state_correlation(
    target: AbstractTarget, unit: UnitProblem, grid: Times, nodes: Nodes | None
) -> Float[Array, " n"]:
    mixture = as_mixture(target)
    tilted, seen = target.rescaled(unit.shift, unit.scale), observations(unit, grid)

    def at(pair):
        observation, law = pair

        def squared(x):
            law = tilted.tilt(observe(observation, unit.to_unit(x), unit.start))
            return jnp.sum(unit.from_unit(law.mean) ** 2)

        return expectation(law, squared, nodes)

    return jax.lax.map(at, (seen, laws(mixture, unit, seen))) / jnp.trace(_second_moment(mixture))


def transition_time(times: ArrayLike, curve: ArrayLike, level: ArrayLike = 0.5) -> Float[Array, ""]:
    """The first time at which a curve reaches a level, by linear interpolation; the last time if it never does.

    Args:
        times: increasing, shape (n,).
        curve: its values there, shape (n,).
        level: what it is to reach.

    Raises:
        ValueError: another number of values than times, or none; times that do not increase.

    Example:
        >>> transition_time(jnp.array([0.0, 0.5, 1.0]), jnp.array([0.0, 0.4, 1.0])).round(4)
        Array(0.5833, dtype=float32)
    """
    times, curve = as_floating("times", times), as_floating("curve", curve)
    if times.ndim != 1 or curve.shape != times.shape or times.size == 0:
        raise ValueError(f"times has shape {times.shape} and curve {curve.shape}; pass shape (n,) each, n at least 1")
    known = concrete(times)
    if known is not None and not (np.diff(known) > 0).all():
        raise ValueError(f"times is {known}; pass increasing times")
    level = as_scalar("level", level).astype(curve.dtype)
    above = curve >= level
    after = jnp.argmax(above)
    before = jnp.maximum(after - 1, 0)
    rise = curve[after] - curve[before]
    share = jnp.where(after > 0, (level - curve[before]) / jnp.where(after > 0, rise, 1), 1)
    return jnp.where(jnp.any(above), times[before] + share * (times[after] - times[before]), times[-1])


def _second_moment(mixture) -> Float[Array, "d d"]:
    mean = mixture.mean()
    return mixture.covariance() + mean[:, None] * mean[None]
