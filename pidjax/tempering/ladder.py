"""The climb from λ = 0 to λ = 1: weigh, resample, move.

    Ẑ_i = Π_t mean_{j ∈ island i} w_tj,      w_tj = (p̃(y_j)/p̂(y_j))^{λ_{t+1} − λ_t}

At each level the particles are weighted and resampled, systematically, each island by itself; then they are moved under π_λ.
*Adaptive*: the next λ is the one at which an island keeps an effective share of 0.9 on average, and metric, step and jumps are
fitted as the moves are; Ẑ is consistent. *Frozen*: all of that is given, islands are independent, and E[Ẑ] = Z exactly.

Particle i draws from fold_in(key, i): its start from fold_in(·, 0), what follows as `Draws` says; an island is resampled with
the key of its first.
"""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Bool, Float, Int, Key

from .._maths.systematic import systematic
from .moves import AbstractMoves, Draws, Report
from .path import Path, Reading
from .schedule import Schedule

SHARE = 0.9
"""The effective share of an island that a new level keeps."""
MOST_LEVELS = 400
_BISECTIONS = 40


class Layout(NamedTuple):
    """How the particles stand: islands one after the other, which belong to the strata in turn."""

    num_islands: int
    island_size: int
    strata: int

    @property
    def repeats(self) -> int:
        """Islands of each stratum."""
        return self.num_islands // self.strata

    @property
    def num_particles(self) -> int:
        return self.num_islands * self.island_size


class Climber(NamedTuple):
    """The population on its way.

    Attributes:
        places: y, shape (N, d).
        ancestors: for each particle the number of the one it descends from, at the start.
        island_log_z: log Ẑ_i so far.
        walled: whether log p̃ was −∞ at a place where a particle stood before it was weighed.
        spent: evaluations so far.
    """

    places: Float[Array, "N d"]
    ancestors: Int[Array, " N"]
    island_log_z: Float[Array, " islands"]
    walled: Bool[Array, ""]
    spent: Report


class Ascent(NamedTuple):
    """A climber that has arrived, ∇log p̃ there, the schedule, and the acceptance at each level, over a buffer of levels."""

    climber: Climber
    slopes: Float[Array, "N d"] | None
    schedule: Schedule
    acceptance: Float[Array, " T"]
    num_levels: Int[Array, ""]


def adaptive(key: Key[Array, ""], path: Path, moves: AbstractMoves, layout: Layout) -> Ascent:
    """The climb that chooses its own schedule; what was chosen stands in a buffer of 400 levels."""
    keys, climber = begin(key, path, layout)
    dtype, dim = climber.places.dtype, climber.places.shape[1]

    def rise(climber, t, level, step, num_jumps):
        draws = Draws(keys, t)
        climber, reading = weigh(path, climber, moves.with_slopes)
        gains = log_gains(reading, layout)
        above = next_level(gains, level)
        climber, reading = resample(draws, climber, reading, (above - level) * gains, layout)
        particles = reading.at(above)
        rung = moves.rung(above, particles, step, num_jumps)
        made = moves.make(draws, path.at(above), particles, rung, layout.repeats, True)
        places, step, num_jumps, report = made
        kept = eqx.tree_at(lambda rung: rung.step, rung.pooled(), step)
        return arrived(climber, places, report), above, step, num_jumps, kept, report.acceptance

    def body(carry):
        climber, level, step, num_jumps, t, rungs, acceptance = carry
        climber, level, step, num_jumps, rung, accepted = rise(climber, t, level, step, num_jumps)
        rungs = jax.tree.map(lambda buffer, value: buffer.at[t].set(value), rungs, rung)
        return climber, level, step, num_jumps, t + 1, rungs, acceptance.at[t].set(accepted)

    def unfinished(carry):
        return (carry[1] < 1) & (carry[4] < MOST_LEVELS)

    level, (step, num_jumps) = jnp.zeros((), dtype), moves.start(dim, dtype)
    zero = jnp.zeros((), int)
    shapes = jax.eval_shape(rise, climber, zero, level, step, num_jumps)[4]
    rungs = jax.tree.map(lambda shape: jnp.zeros((MOST_LEVELS, *shape.shape), shape.dtype), shapes)
    begun = climber, level, step, num_jumps, zero, rungs, jnp.zeros(MOST_LEVELS, dtype)
    climber, *_, num_levels, rungs, acceptance = jax.lax.while_loop(unfinished, body, begun)
    climber, reading = weigh(path, climber, moves.with_slopes)
    return Ascent(climber, reading.target_slopes, Schedule(moves, rungs), acceptance, num_levels)


def frozen(key: Key[Array, ""], path: Path, schedule: Schedule, num_levels: Int[Array, ""], layout: Layout) -> Ascent:
    """The climb by so many levels of a given schedule, the first of a buffer."""
    keys, climber = begin(key, path, layout)
    moves, levels = schedule.moves, schedule.levels

    def rise(t, carry):
        climber, acceptance = carry
        rung = jax.tree.map(lambda leaf: leaf[t], schedule.rungs)
        below = jnp.where(t > 0, levels[t - 1], 0)
        draws = Draws(keys, t)
        climber, reading = weigh(path, climber, moves.with_slopes)
        log_weights = (rung.level - below) * log_gains(reading, layout)
        climber, reading = resample(draws, climber, reading, log_weights, layout)
        density, particles = path.at(rung.level), reading.at(rung.level)
        places, _, _, report = moves.make(draws, density, particles, rung, layout.repeats, False)
        return arrived(climber, places, report), acceptance.at[t].set(report.acceptance)

    climber, acceptance = jax.lax.fori_loop(0, num_levels, rise, (climber, jnp.zeros_like(levels)))
    climber, reading = weigh(path, climber, moves.with_slopes)
    return Ascent(climber, reading.target_slopes, schedule, acceptance, num_levels)


def begin(key: Key[Array, ""], path: Path, layout: Layout) -> tuple[Key[Array, " N"], Climber]:
    """A key for each particle, and the particles as draws of the base."""
    numbers = jnp.arange(layout.num_particles)
    keys = jax.vmap(partial(jax.random.fold_in, key))(numbers)
    start = jax.vmap(lambda key: jax.random.fold_in(key, 0))(keys)
    places = path.base.draw(start, layout.strata, layout.island_size)
    zero = jnp.zeros((), int)
    spent = Report(jnp.zeros((), places.dtype), zero, zero, zero)
    return keys, Climber(places, numbers, jnp.zeros(layout.num_islands, places.dtype), jnp.zeros((), bool), spent)


def weigh(path: Path, climber: Climber, with_slopes: bool) -> tuple[Climber, Reading]:
    """Both densities where the climber stands."""
    reading, invalid = path.read(climber.places, with_slopes)
    one, zero = jnp.ones((), int), jnp.zeros((), int)
    looked = Report(
        jnp.zeros((), climber.places.dtype), one if with_slopes else zero, zero if with_slopes else one, invalid
    )
    walled = climber.walled | jnp.any(reading.log_target == -jnp.inf)
    return climber._replace(walled=walled, spent=jax.tree.map(jnp.add, climber.spent, looked)), reading


def arrived(climber: Climber, places: Float[Array, "N d"], report: Report) -> Climber:
    return climber._replace(places=places, spent=jax.tree.map(jnp.add, climber.spent, report))


def log_gains(reading: Reading, layout: Layout) -> Float[Array, "islands n"]:
    """log p̃/p̂ by islands; −∞ outside the target's support."""
    inside = reading.log_target > -jnp.inf
    gains = jnp.where(inside, reading.log_target - reading.log_base, -jnp.inf)
    return gains.reshape(layout.num_islands, layout.island_size)


def effective_share(log_weights: Float[Array, "islands n"]) -> Float[Array, ""]:
    """(Σw)²/(n Σw²) over the members of an island that have any weight, on average over the islands that have any.

    Example:
        >>> effective_share(jnp.array([[0.0, 0.0, -jnp.inf], [0.0, 0.0, 0.0], [-jnp.inf, -jnp.inf, -jnp.inf]])).item()
        1.0
    """
    alive = log_weights > -jnp.inf
    peaks = jnp.max(log_weights, axis=1, keepdims=True)
    weights = jnp.where(alive, jnp.exp(log_weights - jnp.where(peaks > -jnp.inf, peaks, 0)), 0)
    numbers, squares = jnp.sum(alive.astype(weights.dtype), axis=1), jnp.sum(weights**2, axis=1)
    some = numbers > 0
    shares = jnp.where(some, jnp.sum(weights, axis=1) ** 2 / jnp.where(some, numbers * squares, 1), 0)
    return jnp.sum(shares) / jnp.maximum(jnp.sum(some.astype(shares.dtype)), 1)


def next_level(gains: Float[Array, "islands n"], level: Float[Array, ""]) -> Float[Array, ""]:
    """The λ' > λ at which weights (p̃/p̂)^{λ' − λ} have an effective share of 0.9; 1 where they keep more, or nothing is left.

    Example:
        >>> round(float(next_level(jnp.array([[0.0, 10.0]]), jnp.zeros(()))), 3)
        0.069
        >>> bool(next_level(jnp.array([[0.0, 1e30]]), jnp.zeros(())) > 0)
        True
    """
    rest = 1 - level
    alive = gains > -jnp.inf

    def share(difference):
        return effective_share(jnp.where(alive, difference * gains, -jnp.inf))

    def halve(_, bracket):
        low, high = bracket
        middle = 0.5 * (low + high)
        enough = share(middle) >= SHARE
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    low, high = jax.lax.fori_loop(0, _BISECTIONS, halve, (jnp.zeros_like(rest), 2 * rest))
    above = level + jnp.maximum(jnp.where(low > 0, low, high), jnp.finfo(low.dtype).eps * level)
    return jnp.where((low >= rest) | ~jnp.any(alive), 1, above)


def resample(
    draws: Draws,
    climber: Climber,
    reading: Reading,
    log_weights: Float[Array, "islands n"],
    layout: Layout,
) -> tuple[Climber, Reading]:
    """Each island by itself; log Ẑ_i grows by the log of its mean weight. An island without any weight stays as it is."""
    log_weights = jnp.where(jnp.isnan(log_weights), -jnp.inf, log_weights)
    log_means = logsumexp(log_weights, axis=1) - jnp.log(jnp.asarray(layout.island_size, log_weights.dtype))

    def of_island(key, log_weights, has_weight: Bool[Array, ""]):
        weights = jax.nn.softmax(jnp.where(has_weight, log_weights, 0))
        return systematic(key, weights, layout.island_size)

    keys = draws._replace(keys=draws.keys[:: layout.island_size])(0)
    parents = jax.vmap(of_island)(keys, log_weights, log_means > -jnp.inf)
    parents = (parents + layout.island_size * jnp.arange(layout.num_islands)[:, None]).ravel()
    reading = jax.tree.map(lambda leaf: leaf[parents], reading)
    island_log_z = climber.island_log_z + log_means
    return climber._replace(ancestors=climber.ancestors[parents], island_log_z=island_log_z), reading
