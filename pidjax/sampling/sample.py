"""The host driver: from a target to a `Solution`, with good choices made for the user and said in the result.

It fits a surrogate where only a log-density is given, then runs `Problem.prepare` and `rollout`, which are pure, in chunks of
paths spread over the devices. `grad` goes through it; under `jit` and `vmap` it takes what needs no fit.
"""

import math
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Key

from .._doors.checks import check_count, check_key, concrete
from .._doors.progress import progress_bar
from .._doors.show import brief
from ..process.grids import AbstractGrid
from ..process.protocol import Protocol
from ..targets.base import AbstractTarget, Tilted, WithDensity, able
from ..targets.density import Density
from ..targets.fitting import Fit, fit_surrogate
from ..targets.surrogate import Surrogate
from .problem import Prepared, Problem
from .rollout import Resampling, check_resampling, rollout
from .rules import AbstractRule, EndingOnDraw, Unweighted
from .solution import Solution

_FLOATS_PER_CHUNK = 2**22
_MOST_SAMPLES = 2**31 - 1


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
    progress: bool = True,
) -> Solution:
    """Draw weighted samples of a target by path integral diffusion.

    Left alone it rescales the problem to unit scale, steps with `Ancestral` (exact on any grid; `Moment` where the tilted
    law is an estimate) on a grid of 20 steps uniform in log signal-to-noise, and for a bare `Density` first fits a
    Gaussian mixture surrogate from the energy alone. `Solution.settings` says what was used.

    Args:
        key: a typed key, from `jax.random.key`.
        target: `GaussianMixture`, `Samples`, `Density`, or a density with a chosen estimate: `Surrogate`, `Pool`,
            `LocalDraws`.
        protocol: from `harmonic`, `piecewise` or `from_function`; by default β = 1 in the rescaled problem.
        num_samples: N ≥ 1 paths.
        num_steps: K ≥ 1, for the default grid; give this or `grid`.
        rule: the step rule. On a target without a density a Gaussian rule's last step is a draw.
        grid: from `log_snr_grid`, `uniform_grid` or `at_times`.
        batch_size: paths run at once; by default what keeps a chunk's states at some 16 MB. Changes the result by
            rounding only.
        save_paths: keep x(t) and x̂(t; x(t)).
        resampling: of groups of paths between steps; useful where steps are not exact. Errors are then those of the groups.
        progress: show a bar (if tqdm is installed) when a fit, or a run of several chunks, takes more than two seconds.

    Raises:
        ValueError: an argument out of range or of a wrong shape; a rule that the target does not allow; a `Density` under
            `jit` or `vmap`; one that no surrogate could be fitted to.

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
    if num_samples > _MOST_SAMPLES:
        raise ValueError(f"num_samples is {num_samples}; pass at most {_MOST_SAMPLES}, since paths have 32-bit numbers")
    if resampling is not None:
        check_resampling(resampling, rule, num_samples)
    key_fit, key_paths = jax.random.split(key)
    fit, evaluations = None, 0
    if type(target) is Density and issubclass(rule.needs, Tilted):
        target, fit = _with_surrogate(key_fit, target, progress)
        evaluations = int(fit.num_energy_evaluations)
        problem = Problem(target, problem.protocol)
    protocol, prepared = problem.protocol, problem.prepare(grid)
    island = 1 if resampling is None else resampling.island_size
    most = _default_batch(target.dim, num_samples) if batch_size is None else check_count("batch_size", batch_size)
    num_chunks = math.ceil(num_samples / max(most, island))
    chunk = math.ceil(num_samples / num_chunks / island) * island
    parts = []
    with progress_bar(num_chunks, "pidjax", "chunk", progress and num_chunks > 1) as advance:
        for number in range(num_chunks):
            indices = _spread(np.arange(number * chunk, (number + 1) * chunk))
            parts.append(jax.block_until_ready(_run_chunk(prepared, rule, key_paths, indices, save_paths, resampling)))
            advance(1)
    samples, log_weights, num_nonfinite, states, expected = _joined(parts, num_samples)
    beta, known = protocol.beta, concrete(protocol.beta)
    choices = {
        "rule": _describe(rule),
        "grid": _describe(grid),
        "num_steps": prepared.step_laws.num_steps,
        "batch_size": chunk,
        "beta": brief(beta if known is None or protocol.num_pieces > 1 else known[0]),
        "rescaled": protocol.noise_scale is None,
    }
    if resampling is not None:
        choices["resampling"] = f"in groups of {resampling.island_size}"
    evaluations_per_path = prepared.step_laws.num_steps * target.evaluations_per_tilt + able(target, WithDensity)
    return Solution(
        samples=jax.vmap(target.point)(samples),
        log_weights=log_weights,
        states=states,
        weighted_states=expected,
        target=target,
        prepared=prepared,
        rule=rule,
        num_nonfinite=num_nonfinite,
        num_energy_evaluations=jnp.asarray(evaluations + num_samples * evaluations_per_path),
        shared=target.shared_sample,
        fit=fit,
        num_islands=num_samples // island,
        choices=tuple(choices.items()),
    )


@eqx.filter_jit
def _run_chunk(prepared: Prepared, rule: AbstractRule, key, indices, save_paths: bool, resampling: Resampling | None):
    """One chunk in the user's units, with what is not finite given no weight and marked."""
    paths = rollout(prepared, rule, key, indices, save_states=save_paths, resampling=resampling)
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


def _with_surrogate(key, density: Density, progress: bool) -> tuple[Surrogate, Fit]:
    """The density with a mixture fitted to it. The fit is made on the host, and is held fixed under `grad`."""
    arrays, rest = eqx.partition(density, eqx.is_array)
    fixed = eqx.combine(jax.lax.stop_gradient(arrays), rest)
    _check_untraced(jax.random.key_data(key), *jax.tree.leaves(eqx.filter(fixed, eqx.is_array)))
    fit = fit_surrogate(key, fixed.log_density, density.dim, dtype=density.shift.dtype, progress=progress)
    _check_untraced(fit.log_z)
    return Surrogate(density, fit.check().mixture), fit


def _check_untraced(*arrays: Array) -> None:
    if any(concrete(array) is None for array in arrays):
        raise ValueError(
            "a Density cannot be sampled under jit or vmap, nor differentiated in what its function closes over: a surrogate "
            "is fitted to it on the host. Fit it first, target = pidjax.sample(key, density).target, and use Problem and "
            "rollout with that; or make log_density an Equinox module, whose arrays grad can follow"
        )


def _default_batch(dim: int, num_samples: int) -> int:
    return min(num_samples, max(256, _FLOATS_PER_CHUNK // dim))


def _spread(indices: np.ndarray) -> Array:
    """The path numbers of a chunk, divided among the devices where they divide evenly."""
    devices = jax.devices()
    if len(devices) == 1 or len(indices) % len(devices):
        return jnp.asarray(indices)
    return jax.device_put(indices, NamedSharding(Mesh(np.array(devices), ("paths",)), PartitionSpec("paths")))


def _describe(module: eqx.Module) -> str:
    if isinstance(module, EndingOnDraw | Unweighted):
        return f"{_describe(module.rule)}, {'last step drawn' if isinstance(module, EndingOnDraw) else 'unweighted'}"
    return type(module).__name__
