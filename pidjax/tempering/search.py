"""The search for modes: chains at all scales, climbs from where they end, and the modes that the climbs lead to.

Where some modes are, others may be near, in basins that few points at all scales around the origin fall into. So there are
eight rounds of climbs, all but the first from places around the modes and ridges so far, or around their mean m₀,

    y = m_k + s √c ⊙ z,      k = 0 half of the time,      s log-uniform in ¼ … 16,     c the variances of Σ_k N(m_k, L_kL_kᵀ)/K

two where most climbs end at neither, or at more ridges than are kept, as along a crest; and if there are several tops in no
more than 32 dimensions up to 128, until one a fifth as wide as the widest would be met (`Modes.narrowest`), or there is room
for no more.

Gradients are used only if they are good for something: at most of the ends of the chains they must be finite, not zero, and
agree with the difference quotient

    [log p̃(y + h u) − log p̃(y − h u)]/2h  ≈  u·∇log p̃(y),      h = ε^{1/3} |y|/√d,     u a random direction, |u| = 1

to a tenth and the roundings of log p̃, with ε the resolution of the dtype.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from .._doors.checks import check_count, check_key, check_kind
from .._maths.once import compiled_once
from ..targets.base import AbstractTarget, WithDensity, able
from ..targets.density import Density
from ..targets.fitting.fit import as_starts
from ..targets.fitting.pilot import MOST_THOROUGH, Chains, Sizes, pilot, where_to_look
from ..targets.fitting.tempered import PARTICLES
from .climb import climb, value_and_slope
from .explain import Search, find_modes, most_modes, nothing_found
from .modes import FARTHEST, NEAREST, Modes, are_met, together

_MANY_UP_TO = 64
_OFTEN_UP_TO = 32
_NARROW_ENOUGH = 0.2
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
    4. *Modes*: the ends at which a Gaussian fits, best first, at most 64; *ridges*: tops where it does not, as at a wall.
    5. Up to dimension 256 seven times as many climbs from around what was found; if that is several of these, in up to 32
       dimensions up to 127 times, so that narrow ones are met too.

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
    key_pilot, key_climbs = jax.random.split(key)
    centre = where_to_look(known.log_density, given)
    width, chains = pilot(key_pilot, known.log_density, centre, given)
    return _located(key_climbs, known, centre, width, chains, given)


def number_of_starts(dim: int) -> int:
    """How many climbs start from ends of chains."""
    return 256 if dim <= _MANY_UP_TO else 128 if dim <= MOST_THOROUGH else 8


def number_of_rounds(dim: int) -> tuple[int, int]:
    """Of climbs, if most end at modes: the fewest, and the most."""
    fewest = 8 if dim <= MOST_THOROUGH else 1
    return fewest, 128 if dim <= _OFTEN_UP_TO else fewest


@partial(compiled_once, level=1)
def _located(
    key: Key[Array, ""],
    target: WithDensity,
    centre: Float[Array, " d"],
    width: Float[Array, ""],
    chains: Chains,
    given: Float[Array, "s d"],
) -> Modes:
    """The modes to which climbs from the ends of chains, and from given places, lead."""
    dim, dtype = given.shape[1], given.dtype
    points, values = centre[None] + width * chains.points.T, chains.values - dim * jnp.log(width)

    number = number_of_starts(dim)
    order = chains.order
    first = order[jnp.argsort(values[order] == -jnp.inf, stable=True)][:number]
    key_directions, key_around = jax.random.split(key)
    directions = jax.random.normal(key_directions, (number, dim), dtype)
    useful = jax.vmap(lambda point, direction: is_useful(target, point, direction))(points[first], directions)
    has_slopes = 2 * jnp.sum(useful) > jnp.sum(values[first] > -jnp.inf)

    starts = Starts(
        jnp.concatenate([points[first], given]),
        jnp.concatenate([chains.drawn[first], jnp.zeros(len(given), bool)]),
        jnp.arange(number + len(given)) >= number,
        jnp.full(number + len(given), -1),
    )
    fewest, most = number_of_rounds(dim)

    def is_on(climbed: Climbed) -> Bool[Array, ""]:
        search, turn = climbed.search, climbed.turn
        are_first = (turn == 0) | ((turn == 1) & jnp.any(are_found(search)))
        are_all_kept = jnp.any(search.ridges.log_masses == -jnp.inf)
        num_astray = search.num_unexplained - jnp.where(are_all_kept, search.num_on_ridges, 0)
        lead_to_tops = 2 * num_astray < climbed.num_starts
        narrow = jnp.array([_NARROW_ENOUGH], dtype)
        are_several = (jnp.sum(are_found(search)) > 1) & (search.num_modes < most_modes(dim))
        may_be_more = are_several & ~are_met(narrow, dim, climbed.num_starts)[0]
        return (turn < most) & (are_first | (lead_to_tops & ((turn < fewest) | may_be_more)))

    def climb_all(climbed: Climbed) -> Climbed:
        starts, search = climbed.starts, climbed.search
        climbs = jax.vmap(lambda start: climb(target, start, width))(starts.points)
        heights = jnp.where(has_slopes, climbs.value, -jnp.inf)

        def put(stack, own):
            return jax.lax.dynamic_update_slice_in_dim(stack, own, climbed.turn * len(own), axis=0)

        ends = jax.tree.map(put, climbed.ends, starts._replace(points=climbs.point))
        values = put(climbed.values, heights)
        search = search._replace(open=put(search.open, heights > -jnp.inf))
        search = find_modes(target, ends.points, values, ends.drawn, ends.were_given, ends.origins, search)
        starts = around(jax.random.fold_in(key_around, climbed.turn), search, starts)
        evaluations = climbed.evaluations + jnp.sum(climbs.evaluations)
        return Climbed(climbed.turn + 1, search, starts, ends, values, evaluations)

    zero = jnp.zeros((), int)
    nowhere = jax.tree.map(lambda leaf: jnp.zeros((most * len(leaf), *leaf.shape[1:]), leaf.dtype), starts)
    nothing = nothing_found(nowhere.points, most_modes(dim))
    below = jnp.full(len(nowhere.drawn), -jnp.inf, dtype)
    climbed = jax.lax.while_loop(is_on, climb_all, Climbed(zero, nothing, starts, nowhere, below, zero))
    search = climbed.search
    sizes = Sizes.of(dim)
    gradients = sizes.gradients + number + climbed.evaluations + search.evaluations
    return Modes(
        **search.modes._asdict(),
        counts=search.counts,
        were_given=search.were_given,
        num_modes=search.num_modes,
        num_starts=climbed.num_starts,
        num_unexplained=search.num_unexplained,
        num_left=jnp.sum(search.open & climbed.ends.drawn),
        ridges=search.ridges,
        has_slopes=has_slopes,
        evaluations=PARTICLES + sizes.scouts + 2 * number + gradients,
        num_gradient_evaluations=gradients,
        pilot_points=points,
        pilot_values=values,
    )


class Starts(NamedTuple):
    """Where climbs start, which of these places were drawn, which were given, and the mode around which they are, or −1."""

    points: Float[Array, "n d"]
    drawn: Bool[Array, " n"]
    were_given: Bool[Array, " n"]
    origins: Int[Array, " n"]


class Climbed(NamedTuple):
    """What `turn` rounds of climbs found, where the next ones start, and where all before ended."""

    turn: Int[Array, ""]
    search: Search
    starts: Starts
    ends: Starts
    values: Float[Array, " N"]
    evaluations: Int[Array, ""]

    @property
    def num_starts(self) -> Int[Array, ""]:
        """Those drawn from which a climb ended at a finite log p̃."""
        return jnp.sum(self.ends.drawn & (self.values > -jnp.inf))


def are_found(search: Search) -> Bool[Array, " M"]:
    """Of modes and ridges together."""
    return together(search.modes, search.ridges).log_masses > -jnp.inf


def around(key: Key[Array, ""], search: Search, before: Starts) -> Starts:
    """As many places around the modes and ridges; any places if nothing was found."""
    key_top, key_mean, key_scale, key_place = jax.random.split(key, 4)
    (number, dim), dtype = before.points.shape, before.points.dtype
    tops, found = together(search.modes, search.ridges), are_found(search).astype(dtype)
    share = (found / jnp.maximum(jnp.sum(found), 1))[:, None]
    own = jnp.sum(tops.factors**2, axis=2) if tops.factors.ndim == 3 else tops.factors**2
    mean = jnp.sum(share * tops.points, axis=0)[None]
    offsets = tops.points - mean
    widths = jnp.sqrt(jnp.sum(share * (own + offsets**2), axis=0))
    scales = jax.random.uniform(key_scale, (number, 1), dtype, math.log(NEAREST), math.log(FARTHEST))
    chosen = jax.random.categorical(key_top, jnp.log(found), shape=(number,))
    origins = jnp.where(jax.random.bernoulli(key_mean, shape=(number,)), -1, chosen)
    centres = jnp.where(origins[:, None] < 0, mean, tops.points[chosen])
    points = centres + jnp.exp(scales) * widths[None] * jax.random.normal(key_place, (number, dim), dtype)
    return Starts(points, jnp.ones(number, bool), jnp.zeros(number, bool), origins)


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
