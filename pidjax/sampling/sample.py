"""The host driver: from a target to a `Solution`, with good choices made for the user and said in the result.

Where only a log-density is given it finds what stands in for it, then runs `Problem.prepare` and `rollout`, which are pure, in
chunks of paths spread over the devices. `grad` goes through it; under `jit` and `vmap` it takes what needs nothing found.
"""

import math
from functools import partial
from os import PathLike
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from .._doors.checks import check_count, check_key, concrete
from .._doors.progress import progress_bar
from .._doors.show import brief
from ..process.grids import AbstractGrid
from ..process.protocol import Protocol
from ..targets.base import AbstractTarget, Tilted, WithDensity, able
from ..targets.density import Density
from ..targets.ends import Ends
from ..targets.fitting.fit import as_starts
from ..tempering.annealing import LARGEST_COUNT
from .checkpoint import Checkpoint
from .problem import Prepared, Problem
from .resampling import Resampling, check_resampling
from .rollout import default_batch, pinned, rollout, spread
from .rules import AbstractRule, Ancestral, EndingOnDraw, Unweighted
from .solution import Solution
from .stand_in import StandIn, chosen, stand_in

_DIVISIBLE_BY = 64
"""What chunks are multiples of, where there are several, so that devices share them evenly however many there are."""
_ROADS = {
    "fitted": "a fitted mixture",
    "modes": "the modes",
    "halo": "a halo of the modes",
    "broad": "one broad Gaussian",
}


def sample(
    key: Key[Array, ""],
    target: AbstractTarget,
    *,
    protocol: Protocol | None = None,
    num_samples: int = 4096,
    num_steps: int | None = None,
    rule: AbstractRule | None = None,
    grid: AbstractGrid | None = None,
    batch_size: int | None = None,
    save_paths: bool = False,
    resampling: Resampling | None = None,
    starts: Any = None,
    checkpoint: str | PathLike | None = None,
    progress: bool = True,
) -> Solution:
    """Draw weighted samples of a target by path integral diffusion.

    Left alone it rescales the problem to unit scale, steps with `Ancestral` (exact on any grid; `Moment` where the tilted
    law is an estimate) on a grid of 20 steps uniform in log signal-to-noise. For a bare `Density` it first finds what stands in
    for it, from the energy and its slopes alone: up to dimension 12 a fitted Gaussian mixture; where that does not fit, or
    overlooked a mode, and beyond, weighted end points, by a tempered climb from the modes or from one broad Gaussian, to which
    paths are exact bridges. `Solution.settings` says what was used.

    Args:
        key: a typed key, from `jax.random.key`.
        target: `GaussianMixture`, `Samples`, `Density`, or a density with a chosen estimate: `Surrogate`, `Pool`,
            `LocalDraws`.
        protocol: from `harmonic`, `piecewise` or `from_function`; by default β = 1 in the rescaled problem.
        num_samples: N ≥ 1 paths.
        num_steps: K ≥ 1, for the default grid; give this or `grid`.
        rule: the step rule. On a target without a density a Gaussian rule's last step is a draw.
        grid: from `log_snr_grid`, `uniform_grid` or `at_times`.
        batch_size: paths run at once; by default what keeps a chunk's states and tilted laws at some 16 MB.
            Changes the result by rounding only.
        save_paths: keep x(t) and x̂(t; x(t)).
        resampling: of groups of paths between steps; useful where steps are not exact. Errors are then those of the groups.
        starts: of a `Density`, places to look from too: vectors, shape (s, d), or of a pytree of arrays or supports one such
            pytree of free numbers with a leading axis, as the positions of a chain of blackjax.
        checkpoint: a folder, made if it is not there, for what stands in for a density and for each finished chunk of paths.
            Where some are there already the same call goes on from them, and all numbers are those of one never stopped.
        progress: show a bar (if tqdm is installed) when a fit, or a run of several chunks, takes more than two seconds.

    Raises:
        ValueError: an argument out of range or of a wrong shape; a rule that the target does not allow; a `Density` under
            `jit` or `vmap`; one whose mass could not be found; a checkpoint that is damaged, or of another run.

    Example:
        >>> from pidjax import GaussianMixture
        >>> target = GaussianMixture.isotropic(jnp.array([[-1.0], [1.0]]), 0.1)
        >>> solution = sample(jax.random.key(0), target, num_samples=100)
        >>> solution.samples.shape, float(solution.ess)
        ((100, 1), 100.0)

    Source: Behjoo & Chertkov, arXiv 2409.15166; the exact weights are those of the Path Integral Sampler, arXiv 2111.15141.
    """
    if isinstance(key, AbstractTarget) and not isinstance(target, AbstractTarget):
        raise ValueError(f"key is a {type(key).__name__} and target no target; pass the key first: sample(key, target)")
    check_key("key", key)
    problem = Problem(target, protocol)
    rule, grid = problem.plan(rule, grid, num_steps)
    num_samples = check_count("num_samples", num_samples)
    if num_samples > LARGEST_COUNT:
        raise ValueError(f"num_samples is {num_samples}; pass at most {LARGEST_COUNT}, since paths have 32-bit numbers")
    if resampling is not None:
        check_resampling(resampling, rule, num_samples)
    if starts is not None:
        if type(target) is not Density:
            raise ValueError(f"starts are for a Density, and target is a {type(target).__name__}; leave them out")
        if target.of_pytree and not jax.tree_util.all_leaves([starts]):
            starts = target.vectors("starts", starts)
        starts = as_starts(starts, target.dim, target.place().mean.dtype)
    if batch_size is not None:
        batch_size = check_count("batch_size", batch_size)
    kept = None
    if checkpoint is not None:
        kept = Checkpoint(
            checkpoint, target, key=key, protocol=problem.protocol, rule=rule, grid=grid, num_samples=num_samples,
            batch_size=batch_size, save_paths=save_paths, resampling=resampling, starts=starts,
        )  # fmt: skip
    key_fit, key_paths, key_ends = jax.random.split(key, 3)
    found = StandIn(target, None, None)
    if type(target) is Density and issubclass(rule.needs, Tilted):
        apart = all(len(shape) < 2 for _, shape in problem.protocol.shapes())
        find = partial(stand_in, key_fit, target, num_samples, starts=starts, may_factorise=apart, progress=progress)
        found = find() if kept is None else kept.stand_in(find, target)
        problem = Problem(found.target, problem.protocol)
    target = problem.target
    protocol, prepared = problem.protocol, problem.prepare(grid)
    island = 1 if resampling is None else resampling.island_size
    most = default_batch(target.numbers_per_tilt, num_samples) if batch_size is None else batch_size
    num_chunks = math.ceil(num_samples / max(most, island))
    multiple = island if num_chunks == 1 or batch_size is not None else math.lcm(island, _DIVISIBLE_BY)
    chunk = math.ceil(num_samples / num_chunks / multiple) * multiple
    num_chunks = math.ceil(num_samples / chunk)
    ends = None
    if found.reached is not None and isinstance(target, Ends) and isinstance(rule, Ancestral) and resampling is None:
        ends = chosen(key_ends, found.reached, num_samples)
    parts = []
    with progress_bar(num_chunks, "pidjax", "chunk", progress and num_chunks > 1) as advance:
        for number in range(num_chunks):
            indices = np.arange(number * chunk, (number + 1) * chunk)
            indices = jnp.asarray(indices) if target.is_spread else spread(indices)
            some = None if ends is None else ends.places[np.minimum(indices, num_samples - 1)]
            run = partial(_run_chunk, prepared, rule, key_paths, indices, some, save_paths, resampling)
            parts.append(jax.block_until_ready(run() if kept is None else kept.once(f"chunk-{number}", run)))
            advance(1)
    samples, log_weights, num_nonfinite, states, expected = _joined(parts, num_samples)
    num_islands = num_samples // island
    if ends is not None:
        samples, log_weights, num_islands = ends
    beta, known = protocol.beta, concrete(protocol.beta)
    choices = {
        "rule": _describe(rule),
        "grid": _describe(grid),
        "num_steps": prepared.step_laws.num_steps,
        "batch_size": chunk,
        "beta": brief(beta if known is None or protocol.num_pieces > 1 else known[0]),
        "rescaled": protocol.noise_scale is None,
    }
    if found.reached is not None:
        choices["rule"] = "bridges to given ends" if ends is not None else choices["rule"]
        choices["road"] = f"a climb from {_ROADS[found.reached.road]}"
    if resampling is not None:
        choices["resampling"] = f"in groups of {resampling.island_size}"
    per_path = 1 if able(target, WithDensity) else 0
    if issubclass(rule.needs, Tilted) or save_paths:
        per_path += prepared.step_laws.num_steps * target.evaluations_per_tilt
    evaluations = found.num_energy_evaluations + (num_samples * per_path if ends is None else 0)
    return Solution(
        samples=jax.vmap(target.point)(samples),
        vectors=samples,
        log_weights=log_weights,
        states=states,
        weighted_states=expected,
        target=target,
        prepared=prepared,
        rule=rule,
        num_nonfinite=num_nonfinite,
        num_energy_evaluations=jnp.asarray(min(evaluations, LARGEST_COUNT)),
        shared=target.shared_sample if ends is None else None,
        fit=found.fit,
        reached=found.reached,
        located=found.located,
        num_islands=num_islands,
        pinned=ends is not None,
        choices=tuple(choices.items()),
    )


@eqx.filter_jit
def _run_chunk(
    prepared: Prepared, rule: AbstractRule, key, indices, ends, save_paths: bool, resampling: Resampling | None
):
    """One chunk in the user's units, with what is not finite given no weight and marked."""
    if ends is None:
        paths = rollout(prepared, rule, key, indices, save_states=save_paths, resampling=resampling)
    else:
        paths = pinned(prepared, key, indices, prepared.unit.to_unit(ends), save_states=save_paths)
    finite = jnp.isfinite(paths.samples).all(axis=-1) & (paths.log_weights < jnp.inf)
    log_weights = jnp.where(finite, paths.log_weights, -jnp.inf)
    states = expected = None
    if paths.states is not None:
        states = prepared.unit.from_unit(paths.states)
    if paths.weighted_states is not None:
        expected = prepared.unit.from_unit(paths.weighted_states)
    return prepared.unit.from_unit(paths.samples), log_weights, ~finite, states, expected


@partial(jax.jit, static_argnames="num_samples")
def _joined(parts: list, num_samples: int):
    """The chunks one after the other, without what fills the last one up, and how many paths are marked."""
    joined = jax.tree.map(lambda *chunks: jnp.concatenate(chunks)[:num_samples], *parts)
    samples, log_weights, nonfinite, states, expected = joined
    return samples, log_weights, jnp.sum(nonfinite), states, expected


def _describe(module: eqx.Module) -> str:
    if isinstance(module, EndingOnDraw | Unweighted):
        return f"{_describe(module.rule)}, {'last step drawn' if isinstance(module, EndingOnDraw) else 'unweighted'}"
    return type(module).__name__
