"""The verb: a population carried from a base to a target, checked at the door."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from .._doors.checks import check_count, check_key, check_kind, check_single, concrete
from ..targets.base import WithDensity, able
from ..targets.mixture import GaussianMixture
from .ladder import Ascent, Layout, adaptive, frozen
from .moves import AbstractMoves, Hamiltonian
from .path import Base, Path
from .population import Population
from .schedule import Schedule, with_length
from .white import is_white, restored, whitened

LARGEST_COUNT = 2**31 - 1
"""Of 32 bits: of paths, and where counts of evaluations stop."""
_LEVELS_AT_ONCE = 64
"""Buffers of schedules are multiples of this, so that one of another length seldom compiles again."""


def anneal(
    key: Key[Array, ""],
    target: WithDensity,
    base: GaussianMixture,
    *,
    moves: AbstractMoves | None = None,
    schedule: Schedule | None = None,
    num_islands: int = 8,
    island_size: int = 512,
    stratified: bool = True,
) -> Population:
    """Samples of the target and its log Z, by particles on the path π_λ ∝ p̂^{1−λ} p̃^λ in islands that never exchange.

    Without a schedule the run chooses its own: levels, steps, metric. With the schedule of an earlier run nothing is adapted:
    its Ẑ is exactly unbiased, E[Ẑ] = Z, and it is pure: under jit and vmap.

    An error knows of the modes that were visited only. A base with a component for each mode keeps their weights even where
    no particle ever passes from one to another.

    Args:
        key: a typed key.
        target: what has a log-density, as a `Density`.
        base: p̂, where the particles start; wider than the target where its modes are not known.
        moves: `Hamiltonian()`, the default, or `Differences()`, which needs no gradients.
        schedule: of an earlier run of the same moves, under another key; `population.schedule`.
        num_islands: a multiple of the number of components, at least two for each; even without a schedule.
        island_size: particles of an island.
        stratified: each island starts in one component of the base. Otherwise anywhere in it, as befits a base of many.

    Raises:
        ValueError: an argument of another kind, dimension or size; traced values without a schedule.

    Source: Del Moral, Doucet & Jasra, *Sequential Monte Carlo samplers*, JRSS B 2006;
    for frozen and adaptive ladders Beskos, Jasra, Kantas & Thiery, arXiv 1306.6462.

    Example:
        >>> target = pid.Density(lambda y: -jnp.sum((y - 1) ** 2), 2)
        >>> base = pid.GaussianMixture.isotropic(jnp.zeros((1, 2)), 4.0)
        >>> population = anneal(jax.random.key(0), target, base, island_size=64)
        >>> log_z = population.check().log_z
        >>> bool(abs(log_z.value - jnp.log(jnp.pi)) < 4 * log_z.standard_error)
        True
    """
    check_key("key", key)
    check_kind("base", base, GaussianMixture, "a GaussianMixture, of one component or of one for each mode")
    check_single("base", base.means, 2)
    if isinstance(target, type) or not able(target, WithDensity):
        found = f"the class {target.__name__}" if isinstance(target, type) else f"a {type(target).__name__}"
        raise ValueError(f"target is {found}, without a log-density; pass a Density(log_density, {base.dim})")
    dim: Any = getattr(target, "dim", base.dim)
    if dim != base.dim:
        raise ValueError(f"target has dimension {dim} but base has dimension {base.dim}; pass equal ones")
    of_point = jax.eval_shape(target.log_density, jax.ShapeDtypeStruct((base.dim,), base.means.dtype))
    if of_point.dtype != base.means.dtype:
        raise ValueError(f"target is of {of_point.dtype} but base of {base.means.dtype}; pass equal ones")
    check_kind("stratified", stratified, bool, "True or False")
    strata = base.means.shape[0] if stratified else 1
    islands, size = check_count("num_islands", num_islands), check_count("island_size", island_size)
    check_islands(islands, size, strata, schedule is None)
    layout = Layout(islands, size, strata)
    if schedule is not None:
        check_kind("schedule", schedule, Schedule, "population.schedule of an earlier run")
        if moves is not None:
            raise ValueError(
                f"moves is {moves!r}, but the schedule has its own, {schedule.moves!r}; pass one of the two"
            )
        check_schedule(schedule, base, strata)
        count = schedule.levels.size
        buffered = schedule.first(-(-count // _LEVELS_AT_ONCE) * _LEVELS_AT_ONCE)
        white = is_white(base, schedule.moves)
        return _cut(_frozen(key, target, base, buffered, jnp.asarray(count), layout, white), count)
    moves = Hamiltonian() if moves is None else moves
    check_kind("moves", moves, AbstractMoves, "Hamiltonian() or Differences()")
    check_metric(moves, base, strata)
    population, chosen = _adaptive(key, target, base, moves, layout, is_white(base, moves))
    num_levels = concrete(chosen)
    if num_levels is None:
        raise ValueError(
            "schedule is None, under jit, vmap or grad: a schedule is chosen on the host. Run once outside, and pass "
            "schedule=population.schedule"
        )
    return _cut(population, int(num_levels))


def check_islands(islands: int, size: int, strata: int, halved: bool) -> None:
    least = 2 * strata if strata > 1 or halved else 1
    if islands % strata or islands < least or (halved and islands % 2):
        wanted = f"a multiple of {strata}, at least {least}" if strata > 1 else f"at least {least}"
        even = ", and even, as each half of the islands takes its metric from the other" if halved else ""
        other = ", or stratified=False" if strata > 1 else ""
        raise ValueError(f"num_islands is {islands} and base has {strata} strata; pass {wanted}{even}{other}")
    if size < 2:
        raise ValueError(f"island_size is {size}; pass an integer >= 2")


def check_metric(moves: AbstractMoves, base: GaussianMixture, strata: int) -> None:
    metric = getattr(moves, "metric", None)
    if metric is None:
        return
    shapes = [(count, *[base.dim] * rank) for count in sorted({1, strata}) for rank in range(3)]
    if metric.shape not in shapes:
        raise ValueError(f"metric has shape {metric.shape}; pass one of {', '.join(map(str, shapes))}")
    if metric.dtype != base.means.dtype:
        raise ValueError(f"metric is of {metric.dtype} but base of {base.means.dtype}; pass equal ones")


def check_schedule(schedule: Schedule, base: GaussianMixture, strata: int) -> None:
    check_kind("schedule.moves", schedule.moves, AbstractMoves, "population.schedule of an earlier run")
    check_single("schedule", schedule.levels, 1)
    check_metric(schedule.moves, base, strata)
    of_points = [leaf.shape[-1] for leaf in (schedule.rungs.factors, schedule.rungs.cloud) if leaf is not None]
    if any(dim != base.dim for dim in of_points):
        raise ValueError(f"schedule is of dimension {of_points[0]} but base of {base.dim}; pass one of the same target")
    if schedule.levels.dtype != base.means.dtype:
        raise ValueError(f"schedule is of {schedule.levels.dtype} but base of {base.means.dtype}; pass equal ones")
    levels = concrete(schedule.levels)
    if levels is not None and not (
        levels.size and levels[-1] == 1 and levels[0] > 0 and (levels[1:] > levels[:-1]).all()
    ):
        raise ValueError(f"schedule has the levels {levels}; pass levels that rise from above 0 to 1")


@eqx.filter_jit
def _adaptive(
    key, target, base: GaussianMixture, moves: AbstractMoves, layout: Layout, white: bool
) -> tuple[Population, Int[Array, ""]]:
    if white:
        path, within = whitened(target, base, moves)
        ascent = restored(adaptive(key, path, within, layout), base, moves)
    else:
        ascent = adaptive(key, Path(target, Base.of(base)), moves, layout)
    return _population(ascent, base.weights, layout), ascent.num_levels


@eqx.filter_jit
def _frozen(
    key, target, base: GaussianMixture, schedule: Schedule, num_levels: Int[Array, ""], layout: Layout, white: bool
) -> Population:
    if white:
        path, within = whitened(target, base, schedule.moves)
        ascent = frozen(key, path, Schedule(within, schedule.rungs), num_levels, layout)
        ascent = restored(ascent, base, schedule.moves)
    else:
        ascent = frozen(key, Path(target, Base.of(base)), schedule, num_levels, layout)
    return _population(ascent, base.weights, layout)


def _cut(population: Population, num_levels: int) -> Population:
    """With so many levels, of a buffer."""
    rungs, acceptance = with_length((population.schedule.rungs, population.acceptance), num_levels)
    schedule = Schedule(population.schedule.moves, rungs)
    return dataclasses.replace(population, schedule=schedule, acceptance=acceptance)


def _shares(island_log_z: Float[Array, " islands"], weights: Float[Array, " K"], layout: Layout) -> Float[Array, " N"]:
    """log Ẑ_i α_k K of each particle, for its island i and stratum k."""
    if layout.strata > 1:
        stratum = jnp.arange(layout.num_islands) % layout.strata
        island_log_z = island_log_z + jnp.log(layout.strata * weights[stratum])
    return jnp.repeat(island_log_z, layout.island_size)


def _population(ascent: Ascent, weights: Float[Array, " K"], layout: Layout) -> Population:
    climber, spent = ascent.climber, ascent.climber.spent
    number, most = layout.num_particles, LARGEST_COUNT // layout.num_particles

    def of_all(count: Int[Array, ""]) -> Int[Array, ""]:
        return number * jnp.minimum(count, most)

    return Population(
        samples=climber.places,
        log_weights=_shares(climber.island_log_z, weights, layout),
        island_log_z=climber.island_log_z,
        ancestors=climber.ancestors,
        slopes=ascent.slopes,
        walled=climber.walled,
        acceptance=ascent.acceptance,
        schedule=ascent.schedule,
        num_gradient_evaluations=of_all(spent.gradients),
        num_energy_evaluations=of_all(spent.energies + spent.gradients),
        num_nonfinite=spent.invalid,
        num_islands=layout.num_islands,
        num_strata=layout.strata,
    )
