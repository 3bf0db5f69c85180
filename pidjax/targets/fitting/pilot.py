"""Scouts and Langevin chains at all scales: where mass may lie, near and far.

    top(y) = y + u |∇log p'(y)| / κ,     u = ∇log p'/|∇log p'|,     κ the curvature along u

    y' = y + ½ ε² ∇log p'(y) + ε z,     accepted with  min(1, p'(y') q(y|y') / p'(y) q(y'|y)),     z ~ N(0, I)

The unit of length is what a probe finds. Scouts start at s z with s log-uniform over five decades, and up to 256 dimensions a
quarter of them at b ± s e_i, on the coordinate lines through the highest top b so far: a mode much narrower than another basin
is met only near it, and modes often differ in one coordinate. Chains start at the scouts' tops and at points s z. Each chain
has its own step ε: × 1.3 where a move is accepted, × 0.6 where it is not. Where the gradient is zero, or not finite, a scout is
its own top, and the moves are a random walk's.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from ..._maths.once import compiled_once
from .energy import Energy
from .gaussians import far_apart
from .tempered import probe

STEPS = 200
FARTHEST_TOP = 4.0
"""How far away a top may be, in distances of the point from the origin."""
CHAINS_PER_TOP = 8
MOST_THOROUGH = 256
"""The largest dimension that is looked at with all scouts and chains: above, a density is dear."""
SMALLEST_START, LARGEST_START = 1e-2, 1e3
GROW, SHRINK = 1.3, 0.6
DEEPEST, DEEPER = 50.0, 5.0
"""How far below the highest value log p' of a point may lie to count, and by how much more for each dimension."""
_PROBE_STEP = 0.01
_SCOUTS_AT_ONCE = 1024
_ON_LINES = 4
"""One batch of so many is on the lines."""


class Sizes(NamedTuple):
    """How many scouts look, and how many chains run: from how many tops, and in all."""

    scouts: int
    tops: int
    chains: int

    @classmethod
    def of(cls, dim: int) -> "Sizes":
        return cls(32_768, 48, 512) if dim <= MOST_THOROUGH else cls(2048, 6, 64)

    @property
    def of_tops(self) -> int:
        """The chains that start at tops: they come first."""
        return self.tops * CHAINS_PER_TOP

    @property
    def gradients(self) -> int:
        """Evaluations with the gradient, in all."""
        return 2 * self.scouts + self.chains * (STEPS + 1)


class Chains(eqx.Module):
    """Where the chains ended.

    Attributes:
        points: columns.
        values: log p' there.
        invalid: how many values were, on the way.
        drawn: whether a chain's start was drawn: one for each top, and those from anywhere. The others of a top start at the
            same place, and tell no more about what was not met; nor do those from places that were given.
    """

    points: Float[Array, "d chains"]
    values: Float[Array, " chains"]
    invalid: Int[Array, ""]
    drawn: Bool[Array, " chains"]

    @property
    def order(self) -> Int[Array, " chains"]:
        """Those drawn first, by turns from a top and from anywhere."""
        number, of_tops = self.values.size, Sizes.of(self.points.shape[0]).of_tops
        chains = jnp.arange(number)
        turn = jnp.where(chains < of_tops, 2 * (chains // CHAINS_PER_TOP), 2 * (chains - of_tops) + 1)
        return jnp.argsort(jnp.where(self.drawn, turn, 2 * number + chains), stable=True)


def at_all_scales(
    key_scale: Key[Array, ""], key_start: Key[Array, ""], dim: int, count: int, dtype
) -> Float[Array, "d n"]:
    """s z, with s log-uniform over five decades and z ~ N(0, I)."""
    return _scales(key_scale, count, dtype)[None] * jr.normal(key_start, (dim, count), dtype)


def _scales(key: Key[Array, ""], count: int, dtype) -> Float[Array, " n"]:
    return jnp.exp(jr.uniform(key, (count,), dtype, math.log(SMALLEST_START), math.log(LARGEST_START)))


def scouted(
    key: Key[Array, ""], energy: Energy
) -> tuple[Float[Array, "d scouts"], Float[Array, " scouts"], Int[Array, ""]]:
    """Points at all scales and on lines, each moved to where the parabola along its slope has its top; log p' there, −∞ without
    a top near.

    The slope at y + δu, u = ∇log p'/|∇log p'|, gives the curvature along u. The top of a round Gaussian's is its centre, from
    wherever in its basin. On a plateau, where there is no slope, the point stays.
    """
    dim, dtype = energy.shift.shape[0], energy.shift.dtype
    batches = Sizes.of(dim).scouts // _SCOUTS_AT_ONCE
    places = jnp.arange(_SCOUTS_AT_ONCE)
    signs = 1 - 2 * (places // dim % 2)
    directions = signs.astype(dtype)[None] * jax.nn.one_hot(places % dim, dim, axis=0, dtype=dtype)

    def look(best: tuple[Float[Array, " d"], Float[Array, ""]], numbered):
        number, key = numbered
        key_scale, key_start = jr.split(key)
        on_lines = number >= batches - batches // _ON_LINES
        around = jr.normal(key_start, (dim, _SCOUTS_AT_ONCE), dtype)
        offsets = _scales(key_scale, _SCOUTS_AT_ONCE, dtype)[None] * jnp.where(on_lines, directions, around)
        points = jnp.where(on_lines, best[0], jnp.zeros_like(best[0]))[:, None] + offsets
        _, slopes, invalid = energy.with_slope(points)
        steepness, radius = (jnp.linalg.norm(columns, axis=0)[None] for columns in (slopes, offsets))
        upward = slopes / jnp.maximum(steepness, jnp.finfo(dtype).tiny)
        _, ahead, invalid_ahead = energy.with_slope(points + _PROBE_STEP * radius * upward)
        bend = (steepness - jnp.sum(ahead * upward, axis=0)[None]) / (_PROBE_STEP * radius)
        has_top = (steepness > 0) & (steepness < FARTHEST_TOP * radius * bend)
        tops = points + jnp.where(has_top, steepness / jnp.where(has_top, bend, 1), 0) * upward
        values, invalid_top = energy(tops)
        values = jnp.where((has_top | (steepness == 0))[0], values, -jnp.inf)
        highest = jnp.argmax(values)
        is_higher = values[highest] > best[1]
        best = jnp.where(is_higher, tops[:, highest], best[0]), jnp.where(is_higher, values[highest], best[1])
        return best, (tops, values, invalid + invalid_ahead + invalid_top)

    start = jnp.zeros(dim, dtype), jnp.full((), -jnp.inf, dtype)
    _, (tops, values, invalid) = jax.lax.scan(look, start, (jnp.arange(batches), jr.split(key, batches)))
    return jnp.moveaxis(tops, 1, 0).reshape(dim, -1), values.ravel(), jnp.sum(invalid)


def pilot_chains(key: Key[Array, ""], energy: Energy, given: Float[Array, "s d"]) -> Chains:
    """The end points of 512 chains of 200 steps, above 256 dimensions of 64.

    Eight start at each of 48 tops that lie far apart, 6 above 256 dimensions, of those that scouts saw; the rest, or all where
    there are no tops, at random at all scales; the last of them, eight each, at places that are given.

    Args:
        energy: in coordinates in which what lies near the origin is of unit scale.
        given: in these coordinates. No more than an eighth of the chains start there, spread over the places if these are many.

    Source: Roberts & Tweedie, *Bernoulli* 1996, for the moves. Steps that adapt all along leave no law invariant, and none is
    asked for: the chains say where to look.
    """
    dim, dtype = energy.shift.shape[0], energy.shift.dtype
    key_scout, key_choose, key_scale, key_start, key_steps = jr.split(key, 5)
    tops, heights, scout_invalid = scouted(key_scout, energy)
    alive = heights > jnp.max(heights) - (DEEPEST + DEEPER * dim)
    _, num_tops, number = sizes = Sizes.of(dim)
    chosen = jnp.repeat(far_apart(key_choose, tops, alive, num_tops)[0].T, CHAINS_PER_TOP, axis=1)
    points = at_all_scales(key_scale, key_start, dim, number, dtype)
    points = points.at[:, : sizes.of_tops].set(jnp.where(jnp.any(alive), chosen, points[:, : sizes.of_tops]))
    room = number // 8
    count = min(len(given), room)
    places = np.arange(count) * len(given) // max(1, count)
    each = min(CHAINS_PER_TOP, room // max(1, count))
    own = number - each * count
    points = points.at[:, own:].set(jnp.repeat(given[places].T, each, axis=1))
    chains = jnp.arange(number)
    drawn = jnp.where(chains < sizes.of_tops, chains % CHAINS_PER_TOP == 0, chains < own)
    values, slopes, invalid = energy.with_slope(points)
    radii, steepness = jnp.linalg.norm(points, axis=0), jnp.linalg.norm(slopes, axis=0)
    steps = jnp.minimum(jnp.sqrt(0.2 * radii / jnp.maximum(steepness, 1e-30)), 0.5 * radii / dim**0.5)[None]

    def move(state, key):
        points, values, slopes, steps, invalid = state
        key_noise, key_accept = jr.split(key)
        noise = jr.normal(key_noise, points.shape, dtype)
        proposed = points + 0.5 * steps**2 * slopes + steps * noise
        proposed_values, proposed_slopes, proposed_invalid = energy.with_slope(proposed)
        back = (points - proposed - 0.5 * steps**2 * proposed_slopes) / steps
        log_ratio = proposed_values - values + 0.5 * jnp.sum(noise**2 - back**2, axis=0)
        accepted = jnp.log(jr.uniform(key_accept, values.shape, dtype)) < log_ratio
        points, slopes = (jnp.where(accepted[None], *pair) for pair in ((proposed, points), (proposed_slopes, slopes)))
        steps = steps * jnp.where(accepted, GROW, SHRINK)[None]
        return (points, jnp.where(accepted, proposed_values, values), slopes, steps, invalid + proposed_invalid), None

    start = points, values, slopes, steps, invalid + scout_invalid
    (points, values, _, _, invalid), _ = jax.lax.scan(move, start, jr.split(key_steps, STEPS))
    return Chains(points, values, invalid, drawn)


def _pilot(
    key: Key[Array, ""], log_density: Callable, centre: Float[Array, " d"], given: Float[Array, "s d"]
) -> tuple[Float[Array, ""], Chains]:
    """The scale of what carries mass around a centre, and chains in coordinates with that origin and unit."""
    key_probe, key_chains = jr.split(key)
    width, _, invalid = probe(key_probe, Energy(log_density, centre, jnp.ones((), centre.dtype)))
    chains = pilot_chains(key_chains, Energy(log_density, centre, width), (given - centre[None]) / width)
    return width, dataclasses.replace(chains, invalid=chains.invalid + invalid)


pilot = compiled_once(_pilot, level=1)
"""One program for all who search the same density."""


def where_to_look(log_density: Callable, given: Float[Array, "s d"]) -> Float[Array, " d"]:
    """The origin, or, if it has no mass, the given place that has the most."""
    origin = jnp.zeros(given.shape[1], given.dtype)
    if len(given) == 0:
        return origin
    values, _ = Energy(log_density, origin, jnp.ones((), given.dtype))(jnp.concatenate([origin[None], given]).T)
    return jnp.where(values[0] > -jnp.inf, origin, given[jnp.argmax(values[1:])])
