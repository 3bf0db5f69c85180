"""From a density alone to weighted points of it: which base to climb from.

In turn, until nothing speaks against one, the first two in the order of their importance weights' effective share, and the
halo before both if nine tenths of its mass are at other widths than the modes' own, and its weights are even:

    modes     a Gaussian for each mode that was located                   a stratum of islands for each
    fitted    a mixture that was fitted before, if there is one           islands start anywhere in it
    halo      the modes' Gaussians at many widths, and of strays          islands start anywhere in it
    broad     one wide Gaussian over the ends of the chains

Each is climbed from twice: adaptively by few particles, which choose the schedule, then by all of them with that schedule
frozen, so that E[Ẑ] = Z, and both estimates must agree. If few particles need fewer levels from the modes' Gaussians with
their own moments, all climb from there; and if short steps from the points lead on, into a neck or a tip, again from a mixture
or halo widened by what they met, up to five times.

What speaks against one, `Reached.problems` tells. If something speaks against each, that of the fewest problems is taken; of
these one with enough effective particles, if none missed mass; of thin ones, as climbs miss mass rather than find too much, one
that found clearly more; and otherwise the first, unless another's error is half.

Modes are a base if they are few and explain most starts. If one was met only once, which tells of others, not met, they are the
last one that is tried.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from .._doors.progress import progress_bar
from ..targets.density import Density
from ..targets.mixture import GaussianMixture
from .annealing import LARGEST_COUNT, anneal
from .bases import are_a_base, are_all, broad_base, effective_share, refitted
from .edge import MOST_EVEN, MOST_WIDENED, Edge, unevenness, walk_beyond
from .halo import Halo, halo
from .modes import Modes
from .moves import Differences, Hamiltonian
from .population import Population
from .reached import Reached, num_lost
from .search import locate

ISLANDS = 8
LEAST_PARTICLES = 1024
AIM, MOST_TIMES = 0.01, 4
"""The error of log Z for which a climb from modes, which is short, is made by up to so many times the particles."""
MOST_REFITTED = 256
_FEW_LEVELS = 2
_PILOT_SHARE = 4
_WIDENED = ("fitted", "halo")
_FEW = 0.3
"""Effective share of the particles below which short steps from a base that can be widened are tried."""
_MOST_NUMBERS = 2**22
_MOST_OWN, _MUCH = 0.1, 0.5
"""Weight of the modes' own Gaussians in a halo below which, and its effective share above which, it is climbed from first."""


def reach(
    key: Key[Array, ""],
    density: Density,
    num_samples: int,
    *,
    starts: Float[Array, "s d"] | None = None,
    modes: Modes | None = None,
    fitted: GaussianMixture | None = None,
    progress: bool = True,
) -> Reached:
    """Weighted points of a density of unknown place and scale.

    Args:
        key: a typed key.
        density: with values, not traced.
        num_samples: how many are wanted. At least 1,024 particles climb, up to four times as many as are wanted where that is
            short and the error of log Z would be above 0.01, and no more than 2²² numbers in all.
        starts: places to look from too.
        modes: those of a search before, whose evaluations are counted here; looked for if left out.
        fitted: a mixture that was fitted.
        progress: show a bar, if tqdm is installed.

    Raises:
        ValueError: the log-density is finite almost nowhere.

    Example:
        >>> reached = reach(jax.random.key(0), pid.Density(lambda y: -0.5 * jnp.sum((y - 3) ** 2), 2), 1024)
        >>> reached.road, int(reached.modes.num_modes), reached.problems()
        ('modes', 1, [])
    """
    key_modes, key_contest, *keys, key_halo = jax.random.split(key, 7)
    with progress_bar(4, "pidjax", "climb", progress) as advance:
        modes = locate(key_modes, density, starts=starts) if modes is None else modes
        energies, gradients = int(modes.evaluations), int(modes.num_gradient_evaluations)
        finite = int(jnp.sum(modes.pilot_values > -jnp.inf))
        if finite < 2:
            raise ValueError(
                f"log_density was finite at {finite} of {modes.pilot_values.size} places that chains from points at all scales "
                "around the origin reached: its support is small, or far from the origin for its size. Shift and scale it so "
                "that the origin lies within, or pass starts inside"
            )
        advance(1)
        around = halo(key_halo, density, modes) if modes.num_modes > 0 and density.dim <= MOST_REFITTED else None
        best, climbs = None, []
        if around is not None:
            energies += around.evaluations
        seen = None if around is None else around.log_z
        for key, (road, base) in zip(keys, candidates(key_contest, density, modes, fitted, around), strict=False):
            reached = climb_from(key, density, base, road, modes, num_samples)
            found = reached.population
            if found.schedule.levels[-1] >= 1 and (seen is None or found.log_z.value > seen.value):
                seen = found.log_z
            climbs.append(reached)
            advance(1)
            beyond = None
            if road == "halo" and around is not None:
                beyond = around.share_beyond(found.samples, found.weights)
            reached = dataclasses.replace(reached, seen_log_z=seen, beyond=beyond)
            before = None if best is None else dataclasses.replace(best, seen_log_z=seen)
            best = reached if before is None or reached.is_better(before) else before
            if not best.problems() and not best.is_thin:
                break
    assert best is not None
    return dataclasses.replace(best, **_counts(climbs, energies, gradients))


def candidates(
    key: Key[Array, ""], density: Density, modes: Modes, fitted: GaussianMixture | None, around: Halo | None
) -> list[tuple[str, GaussianMixture]]:
    """The bases in the order in which they are tried."""
    bases = [] if fitted is None else [("fitted", fitted)]
    own = [("modes", modes.laplace())] if are_a_base(modes) else []
    all_met = are_all(modes)
    if all_met:
        bases += own
    if len(bases) == 2:
        bases.sort(key=lambda named: -float(effective_share(key, density, named[1])))
    if around is not None and all_met:
        needed = around.own_weight < _MOST_OWN and around.effective_share > _MUCH
        bases.insert(0 if needed else len(bases), ("halo", around.mixture))
    broad = "broad", broad_base(modes.pilot_points, modes.pilot_values)
    return [*bases, broad] if all_met else [*bases, broad, *own]


def climb_from(
    key: Key[Array, ""],
    density: Density,
    base: GaussianMixture,
    road: str,
    modes: Modes,
    num_samples: int,
) -> Reached:
    """A climb from a base, and again from a wider one where short steps lead on, or a few particles of much weight went.

    Of these the last one of the fewest faults, leading on only if all do, and thin only if all are; not one that misses less:
    that may be chance.
    """
    key, *keys = jax.random.split(key, 1 + MOST_WIDENED)
    reached, edge = _climbed(key, density, base, road, modes, num_samples)
    best, climbs = reached, [reached]

    def standing(own: Reached):
        return own.num_faults, own.leads_on, own.is_thin

    for key in keys if road in _WIDENED else []:
        if edge is None or not edge.has_place or not (reached.leads_on or reached.is_thin):
            break
        reached, edge = _climbed(key, density, edge.widened(reached.base), road, modes, num_samples)
        climbs.append(reached)
        if standing(reached) <= standing(best):
            best = reached
    return dataclasses.replace(best, **_counts(climbs))


def _counts(climbs: Sequence[Reached | Population], energies: int = 0, gradients: int = 0) -> dict[str, Any]:
    """What climbs spent together, and what was spent beside them."""
    energies += sum(int(one.num_energy_evaluations) for one in climbs)
    gradients += sum(int(one.num_gradient_evaluations) for one in climbs)
    return {
        "num_energy_evaluations": jnp.asarray(min(energies, LARGEST_COUNT)),
        "num_gradient_evaluations": jnp.asarray(min(gradients, LARGEST_COUNT)),
    }


def _climbed(
    key: Key[Array, ""], density: Density, base: GaussianMixture, road: str, modes: Modes, num_samples: int
) -> tuple[Reached, Edge | None]:
    """An adaptive climb from a base by a quarter of the particles and, if it reached the target, a frozen one by all.

    With what short steps from the points met, if gradients are uneven, or few particles effective.
    """
    strata = base.means.shape[0] if road == "modes" else 1
    islands = strata * max(2, ISLANDS // strata)
    room = max(LEAST_PARTICLES, _MOST_NUMBERS // density.dim)
    number = min(max(num_samples, LEAST_PARTICLES), room)
    least = LEAST_PARTICLES if density.dim <= MOST_REFITTED else LEAST_PARTICLES // 2
    pilot = min(number, max(least, number // _PILOT_SHARE))
    options = {"num_islands": islands, "stratified": road == "modes"}
    key_pilot, key_again, key_all, key_edge = jax.random.split(key, 4)
    spent = []

    def adaptive(key, base):
        moves = Hamiltonian(1, 0, metric=base.factors) if road == "modes" else Hamiltonian()
        moves = moves if modes.has_slopes else Differences()
        climbed = anneal(key, density, base, moves=moves, island_size=math.ceil(pilot / islands), **options)
        spent.append(climbed)
        return climbed

    first = adaptive(key_pilot, base)
    if road == "modes" and first.schedule.levels.size > _FEW_LEVELS and density.dim <= MOST_REFITTED:
        own = refitted(base, first)
        again = adaptive(key_again, own)
        if again.schedule.levels.size < first.schedule.levels.size:
            first, base = again, own
    if road == "modes" and first.log_z.standard_error * math.sqrt(pilot / number) > AIM:
        number = min(MOST_TIMES * number, room)
    population, has_arrived = first, bool(first.schedule.levels[-1] >= 1)
    if has_arrived:
        size = math.ceil(number / islands)
        population = anneal(key_all, density, base, schedule=first.schedule, island_size=size, **options)
        spent.append(population)
    slopes, edge = population.slopes, None
    are_few = road in _WIDENED and bool(population.ess < _FEW * population.num_samples)
    if has_arrived and slopes is not None and (are_few or unevenness(slopes) > MOST_EVEN):
        edge = walk_beyond(key_edge, density, base, population)
    walked = 0 if edge is None else int(edge.gradients)
    reached = Reached(
        population=population,
        pilot_log_z=first.log_z,
        base=base,
        modes=modes,
        seen_log_z=None,
        missing=None if edge is None else edge.missing,
        beyond=None,
        num_lost=num_lost(population, modes.tops),
        road=road,
        **_counts(spent, walked, walked),
    )
    return reached, edge
