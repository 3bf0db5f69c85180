"""From a density alone to weighted points of it: which base to climb from, and whether the climb reached what was seen.

In turn, until nothing speaks against one, the first two in the order of their importance weights' effective share, and the
halo before both if nine tenths of its mass are at other widths than the modes' own, and its weights are even:

    modes     a Gaussian for each mode that was located                   a stratum of islands for each
    fitted    a mixture that was fitted before, if there is one           islands start anywhere in it
    halo      the modes' Gaussians at many widths, and of strays          islands start anywhere in it
    broad     one wide Gaussian over the ends of the chains

Each is climbed from twice: adaptively by few particles, which choose the schedule, then by all of them with that schedule
frozen, so that E[Ẑ] = Z, and both estimates must agree. If few particles need fewer levels from the modes' Gaussians with
their own moments, all climb from there; and if short steps from the points lead on, into a neck, again from a mixture or halo
widened by what they met, up to five times. A mode or ridge k of Laplace's mass M_k with hardly a sample near it is *lost* if

    ESS · q_k  ≥  10,      Σ_i W_i 1[|L_k⁻¹(y_i − m_k)|² < d + 4 √(2d) + 16]  <  q_k/20,      q_k = M_k/max(Ẑ, Σ_j M_j).

If the importance weights of the halo tell of clearly more mass than a climb found, or short steps from its points lead to such,
there is mass that the climb has not seen; if it started from modes, and those met by chance only once hold much, there may be;
if from the halo, and a hundredth of its points are where its widest Gaussians end, its base was too narrow for the tails.

If something speaks against each, that of the fewest problems is taken; of these the first, unless another's error is half.

Modes are a base if they are few and explain most starts. If one was met only once, which tells of others, not met, they are the
last one that is tried.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int, Key

from .._doors.progress import progress_bar
from .._doors.show import shown
from .._maths.estimates import Estimate
from .._maths.maps import inverse_factor
from .._maths.outcomes import Outcome
from ..targets.density import Density
from ..targets.mixture import GaussianMixture
from .annealing import LARGEST_COUNT, anneal
from .bases import are_a_base, are_all, broad_base, effective_share, refitted
from .edge import MOST_EVEN, MOST_WIDENED, Edge, unevenness, walk_beyond
from .halo import Halo, halo
from .modes import Modes, Tops, shell, squares
from .moves import Differences, Hamiltonian
from .population import Population
from .search import locate

LEAST_SHARE = 0.15
"""Effective share of the particles with which a climb is content."""
ISLANDS = 8
LEAST_PARTICLES = 1024
AIM, MOST_TIMES = 0.01, 4
"""The error of log Z for which a climb from modes, which is short, is made by up to so many times the particles."""
MOST_REFITTED = 256
_FEW_LEVELS = 2
_PILOT_SHARE = 4
_MOST_NUMBERS = 2**22
_MOST_OWN, _MUCH = 0.1, 0.5
"""Weight of the modes' own Gaussians in a halo below which, and its effective share above which, it is climbed from first."""
_EXPECTED, _LEAST_NEAR = 10.0, 0.05
_MOST_UNSEEN = 0.05
_MOST_BEYOND = 0.01
_UNLIKELY, _SMALL = 4.0, 0.5
"""Of missing mass: its standard errors, and its share of that of log Z, below which it is no matter."""


class Reached(eqx.Module):
    """Weighted points of a density, and how they were reached.

    Attributes:
        population: the points, their log Z and errors.
        pilot_log_z: of the adaptive climb, by fewer particles.
        base: where both climbed from, and `road` its name: "fitted", "modes", "halo" or "broad".
        modes: what was seen before.
        seen_log_z: the largest log Z by the importance weights of the halo and all climbs; too low rather than too high.
        missing: mass into which short steps from the points lead, in units of that found; None where gradients are even, or not
            followed.
        beyond: the weight of points where the widest Gaussians of a halo end, if it was the base.
        num_lost: modes and ridges that were seen, and where no point is.
        num_energy_evaluations, num_gradient_evaluations: in all, of log p̃, and of these with the gradient.
    """

    population: Population
    pilot_log_z: Estimate
    base: GaussianMixture
    modes: Modes
    seen_log_z: Estimate | None
    missing: Estimate | None
    beyond: Float[Array, ""] | None
    num_lost: Int[Array, ""]
    num_energy_evaluations: Int[Array, ""]
    num_gradient_evaluations: Int[Array, ""]
    road: str = eqx.field(static=True)

    def __repr__(self):
        facts: dict[str, Any] = {"levels": self.population.schedule.levels.shape[-1], "modes": self.modes.num_modes}
        return shown("Reached", road=self.road, **facts, unseen=self.modes.unseen, lost=self.num_lost)

    @property
    def missed(self) -> float:
        """The missing mass if it is there for certain, and more than the error of log Z covers; else 0."""
        if self.missing is None:
            return 0.0
        value, error = self.missing
        least = max(_UNLIKELY * error, _SMALL * self.population.log_z.standard_error)
        return float(value) if value > least else 0.0

    @property
    def is_thin(self) -> bool:
        """Whether few effective particles arrived."""
        return not bool(self.population.ess >= LEAST_SHARE * self.population.num_samples)

    @property
    def num_faults(self) -> int:
        """Problems, but for mass missed by short steps: where the error is large that is not seen, and not less."""
        return len(self.problems()) - (self.missed > 0)

    def is_better(self, other: "Reached") -> bool:
        """Whether it has fewer faults; if as many, less than half the error of log Z, to which missed mass is added."""
        faults, others_faults = self.num_faults, other.num_faults
        if faults != others_faults:
            return faults < others_faults
        error, others_error = (float(one.population.log_z.standard_error) + one.missed for one in (self, other))
        return error < 0.5 * others_error or math.isnan(others_error)

    def problems(self) -> list[tuple[Outcome, str]]:
        """What speaks against it: see `Outcome`."""
        found = self.population.problems()
        if self.num_lost > 0:
            text = (
                f"{int(self.num_lost)} of the modes and ridges that were located have mass, and hardly a sample near: they "
                "were lost on the way. Use more samples, or anneal from a base with a component for each"
            )
            found.append((Outcome.LOST_MODE, text))
        unseen = float(self.modes.unseen_mass)
        if self.road == "modes" and not are_all(self.modes) and unseen > _MOST_UNSEEN:
            text = (
                f"modes to which one start alone led hold {unseen:.0%} of the mass: others, to which none led, may hold as "
                "much. Pass starts near where mass may be, or repeat with other keys and compare"
            )
            found.append((Outcome.UNSEEN_MASS, text))
        one, other = self.population.log_z, self.pilot_log_z
        if one.disagrees(other):
            text = (
                f"two climbs gave log Z of {one:.4g} and {other:.4g}: the errors are too small. Use more samples, or a base "
                "nearer to the target"
            )
            found.append((Outcome.DISAGREEING, text))
        if self.missed > 0:
            text = (
                f"short steps from the samples led on to {self.missed:.1%} more mass, as far as they went: a narrow part that "
                "the climb did not enter (the neck of a funnel). Use another variable, as a hierarchy not centred"
            )
            found.append((Outcome.UNSEEN_MASS, text))
        if self.beyond is not None and self.beyond > _MOST_BEYOND:
            text = (
                f"{float(self.beyond):.1%} of the samples are where the widest Gaussians end from which the climb started: the "
                "tails go on, or there is no finite mass. Bound the density, or sample another variable"
            )
            found.append((Outcome.UNSEEN_MASS, text))
        seen = self.seen_log_z
        if seen is not None and one.is_below(seen):
            text = (
                f"importance weights around the modes and strays, or a climb from another base, gave log Z of {seen:.4g}, "
                f"this climb {one:.4g}: there is mass where no sample is (heavy tails, a wide part under a narrow top). Use a "
                "base that covers it"
            )
            found.append((Outcome.UNSEEN_MASS, text))
        return found


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
            if road == "halo" and around is not None:
                reached = dataclasses.replace(reached, beyond=around.share_beyond(found.samples, found.weights))
            reached = dataclasses.replace(reached, seen_log_z=seen)
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

    Of these the last one of the fewest faults, thin only if all are; not one that misses less: that may be chance.
    """
    key, *keys = jax.random.split(key, 1 + MOST_WIDENED)
    reached, edge = _climbed(key, density, base, road, modes, num_samples)
    best, climbs = reached, [reached]

    def standing(own: Reached):
        return own.num_faults, own.is_thin

    for key in keys if road in ("fitted", "halo") else []:
        if edge is None or not edge.has_place or not (edge.leads_on or reached.is_thin):
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

    With what short steps from the points met, if gradients are uneven.
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
    if has_arrived and slopes is not None and unevenness(slopes) > MOST_EVEN:
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


@eqx.filter_jit
def num_lost(population: Population, tops: Tops) -> Int[Array, ""]:
    """How many of them have mass, and hardly any sample near."""
    samples, reach = population.samples, shell(population.samples.shape[1])
    total = jnp.maximum(population.log_z.value, logsumexp(tops.log_masses))

    def is_lost(top):
        near = squares(inverse_factor(top.factors), samples - top.points[None]) < reach
        share = jnp.exp(top.log_masses - total)
        found = jnp.sum(jnp.where(near, population.weights, 0))
        return (population.ess * share >= _EXPECTED) & (found < _LEAST_NEAR * share)

    return jnp.sum(jax.lax.map(is_lost, tops))
