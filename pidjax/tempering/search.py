"""The search for modes: chains at all scales, climbs from where they end, and the modes that the climbs lead to.

Gradients are used only if they are good for something: at most of the ends of the chains they must be finite, not zero, and
agree with the difference quotient

    [log p̃(y + h u) − log p̃(y − h u)]/2h  ≈  u·∇log p̃(y),      h = ε^{1/3} |y|/√d,     u a random direction, |u| = 1

to a tenth and the roundings of log p̃, with ε the resolution of the dtype.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from .._doors.checks import check_count, check_key, check_kind
from .._maths.once import compiled_once
from ..targets.base import AbstractTarget, WithDensity, able
from ..targets.density import Density
from ..targets.fitting.fit import as_starts
from ..targets.fitting.pilot import MOST_THOROUGH, Chains, Sizes, pilot
from ..targets.fitting.tempered import PARTICLES
from .climb import climb, value_and_slope
from .modes import Modes, find_modes, most_modes

_MANY_UP_TO = 64
_AGREEMENT = 0.1
_ROUNDINGS = 8


def locate(
    key: Key[Array, ""],
    target: WithDensity | Callable[[Float[Array, " d"]], Float[Array, ""]],
    dim: int | None = None,
    *,
    starts: Float[Array, "s d"] | None = None,
) -> Modes:
    """The modes of a density of unknown place and scale, and how much of what such a search meets it did not meet.

    1. *Probe*: the scale of what carries mass around the origin.
    2. *Langevin chains*, 512 of 200 moves, 64 above 256 dimensions: most from tops, far apart, that scouts saw at all scales,
       the rest from starts a hundredth to a thousand of that scale away.
    3. *Climbs* from the ends of some of them, 256 up to dimension 64, 128 up to 256, 8 above, and from `starts`.
    4. *Modes*: the ends at which a Gaussian fits, best first, at most 64.

    A mode in whose basin no climb starts is not found, and nothing here can tell: `Modes.unseen` is about what other starts of
    this kind would meet. From afar the basins belong to the wider modes.

    Args:
        key: a typed key.
        target: what has a log-density, as a `Density`, or a function of one point, shape (d,), to a scalar.
        dim: d, of a function.
        starts: places from which chains and climbs start too, shape (s, d).

    Raises:
        ValueError: an argument of another kind, shape or dimension.

    Source: Good, *Biometrika* 1953, for what was not met.

    Example:
        >>> modes = locate(jax.random.key(0), lambda y: -jnp.sum((y**2 - 9) ** 2), 2)
        >>> int(modes.num_modes), float(modes.unseen), bool(jnp.allclose(jnp.abs(modes.points[:4]), 3, atol=1e-3))
        (4, 0.0, True)
    """
    check_key("key", key)
    known: Any = target
    if not (isinstance(target, AbstractTarget) and able(target, WithDensity)):
        check_kind("target", target, Callable, "a function of one point, or a Density")
        if dim is None:
            raise ValueError("dim is None; pass the dimension of a point, which a function does not tell")
        known = Density(target, check_count("dim", dim))
    mean = jax.eval_shape(known.place).mean
    (own_dim,), dtype = mean.shape, mean.dtype
    if dim is not None and dim != own_dim:
        raise ValueError(f"dim is {dim} but target has dimension {own_dim}; leave it out")
    given = as_starts(starts, own_dim, dtype)
    key_pilot, key_directions = jax.random.split(key)
    width, chains = pilot(key_pilot, known.log_density, jnp.zeros(own_dim, dtype), given)
    return _located(key_directions, known, width, chains, given)


def number_of_starts(dim: int) -> int:
    """How many climbs start from ends of chains."""
    return 256 if dim <= _MANY_UP_TO else 128 if dim <= MOST_THOROUGH else 8


@partial(compiled_once, level=1)
def _located(
    key: Key[Array, ""], target: WithDensity, width: Float[Array, ""], chains: Chains, given: Float[Array, "s d"]
) -> Modes:
    """The modes to which climbs from the ends of chains, and from given places, lead."""
    dim, dtype = given.shape[1], given.dtype
    points, values = width * chains.points.T, chains.values - dim * jnp.log(width)

    number = number_of_starts(dim)
    order = chains.order
    first = order[jnp.argsort(values[order] == -jnp.inf, stable=True)][:number]
    directions = jax.random.normal(key, (number, dim), dtype)
    useful = jax.vmap(lambda point, direction: is_useful(target, point, direction))(points[first], directions)
    has_slopes = 2 * jnp.sum(useful) > jnp.sum(values[first] > -jnp.inf)

    starts = jnp.concatenate([points[first], given])
    climbs = jax.vmap(lambda start: climb(target, start, width))(starts)
    heights = jnp.where(has_slopes, climbs.value, -jnp.inf)
    drawn = jnp.concatenate([chains.drawn[first], jnp.zeros(len(given), bool)])
    is_given = jnp.arange(len(starts)) >= number
    search = find_modes(target, climbs.point, heights, drawn, is_given, most_modes(dim))
    sizes = Sizes.of(dim)
    spent = PARTICLES + sizes.scouts + sizes.gradients + 3 * number + jnp.sum(climbs.evaluations) + search.evaluations
    return Modes(
        **search.modes._asdict(),
        counts=search.counts,
        were_given=search.were_given,
        num_modes=search.num_modes,
        num_starts=jnp.sum(drawn & (climbs.value > -jnp.inf)),
        num_unexplained=search.num_unexplained,
        num_left=jnp.sum(search.open & drawn),
        ridges=search.ridges,
        has_slopes=has_slopes,
        evaluations=spent,
        pilot_points=points,
        pilot_values=values,
    )


def is_useful(target: WithDensity, point: Float[Array, " d"], direction: Float[Array, " d"]) -> Bool[Array, ""]:
    """Whether the gradient at a point is finite, is not zero, and agrees with a difference along a direction.

    Example:
        >>> steps = pid.Density(lambda y: -jnp.sum(jnp.floor(y) ** 2), 1)
        >>> [bool(is_useful(one, jnp.array([0.7]), jnp.ones(1))) for one in (steps, pid.Density(lambda y: -jnp.sum(y**2), 1))]
        [False, True]
    """
    resolution = jnp.finfo(point.dtype).eps
    value, slope = value_and_slope(target, point)
    unit = direction / jnp.linalg.norm(direction)
    half = resolution ** (1 / 3) * jnp.maximum(jnp.linalg.norm(point) / math.sqrt(point.size), resolution)
    ahead, behind = target.log_density(point + half * unit), target.log_density(point - half * unit)
    measured, expected = (ahead - behind) / (2 * half), jnp.sum(slope * unit)
    rounding = _ROUNDINGS * resolution * jnp.abs(value) / half
    allowed = _AGREEMENT * jnp.maximum(jnp.abs(measured), jnp.abs(expected)) + rounding
    return (value > -jnp.inf) & jnp.any(slope != 0) & (jnp.abs(measured - expected) <= allowed)
