"""Every method on every target with every seed, one row each: quality both ways, cost in all, and how it was learned.

What takes long comes last: the variants of PIS after all else, then the other seeds.
"""

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import pidjax as pid
from pidjax import zoo

from ..densities.rivals import Problem, of_solution
from ..densities.suite import measured
from ..densities.targets import Target, of
from ..ledger import Ledger
from . import figures, report
from .budget import Budget
from .methods import HPID, LONG, METHODS, Run, solve

TARGETS: Mapping[str, Callable[[], Target]] = {
    "nine": lambda: of(zoo.nine()),
    "gmm40": lambda: of(zoo.gmm40()),
    "funnel 3": lambda: of(zoo.funnel(3.0)),
    "MW54": lambda: of(zoo.double_well(5, 5, 4.0)),
    "many_well 32": lambda: of(zoo.many_well(16)),
    "DW4": lambda: of(zoo.double_well_particles()),
}
"""Name → the target."""

QUICK = ("nine", "MW54")
OFTEN = ("nine", "gmm40", "MW54")
"""Those that have three seeds in the full form."""
MOST_VALUES = 100
"""Of a loss history that is kept."""


def run_neural(ledger: Ledger, out: Path, *, quick: bool, seeds: int | None) -> None:
    """The sections `targets` and `rows`; then neural.md and neural.png in `out`."""
    budget = Budget.quick() if quick else Budget.full()
    targets = QUICK if quick else tuple(TARGETS)
    numbers = {name: seeds or (3 if name in OFTEN and not quick else 1) for name in targets}
    for seed in range(max(numbers.values())):
        for methods in ([name for name in METHODS if name not in LONG], LONG):
            for name in (name for name, number in numbers.items() if seed < number):
                run_target(name, TARGETS[name], ledger, budget, methods, seed)
                (out / "neural.md").write_text(report.markdown(ledger.results()))
                figures.draw(ledger.results(), out)
                jax.clear_caches()
    print(f"{out / 'neural.md'} and {out / 'neural.png'}")


def run_target(
    name: str, make: Callable[[], Target], ledger: Ledger, budget: Budget, methods: Sequence[str], seed: int
) -> None:
    """Some methods on one target with one seed. H-PID's solution is found when the first run needs it."""
    made = functools.cache(lambda: Problem.of(make()))

    @functools.cache
    def solved():
        begin = time.process_time()
        solution = solve(jax.random.key(seed), made(), budget)
        jax.block_until_ready(solution.samples)
        return solution, time.process_time() - begin

    def facts(target):
        known = made().target
        floor = known.floor(budget.num_samples)
        yield {
            "dim": known.dim,
            "log_z": known.log_z,
            "quality": known.quality,
            "floor": None if floor is None else float(floor.mean),
        }

    def rows(target, method, seed):
        solution, seconds = solved() if method.startswith(HPID) else (None, 0.0)
        key = jax.random.fold_in(jax.random.key(seed), 1 + list(METHODS).index(method))
        begin = time.process_time()
        found = METHODS[method](key, made(), solution, budget)
        if isinstance(found, Run):
            jax.block_until_ready(found.solution.samples)
            seconds = seconds if method == HPID else time.process_time() - begin
        row = row_of(found, made().target, jax.random.fold_in(key, 2)) | {"seconds": seconds}
        print(f"{time.strftime('%X')}  {target:12s} {method:30s} seed {seed}  {report.words(row)}", flush=True)
        yield row

    (about,) = ledger.run("targets", facts, target=name)
    if about["error"] is None:
        for method in methods:
            ledger.run("rows", rows, target=name, method=method, seed=seed)


def row_of(found: Run | str, target: Target, key) -> dict[str, Any]:
    """A row's columns but for its seconds; of a method that had nothing to do, `reason` alone."""
    if isinstance(found, str):
        return {"reason": found}
    solution, descent = found.solution, found.descent
    outcome = of_solution(solution, found.settings, found.energy_evaluations, found.gradient_evaluations)
    row = {"reason": None, **measured(target, outcome, key), **bounds(solution, target, key)}
    row |= {"steps": 0, "nonfinite": 0, "history": [], "curve": {}}
    if descent is not None:
        curve = {name: np.asarray(values, float).tolist() for name, values in descent.reports.items()}
        row |= {"steps": descent.history.size, "nonfinite": descent.num_nonfinite, "history": thinned(descent.history)}
        row["curve"] = {**curve, "evaluations": list(found.evaluations_at)}
    return row


def bounds(solution: pid.Solution, target: Target, key) -> dict[str, float | None]:
    """ELBO, and EUBO and forward ESS/N = Z/E_Q[W] from exact draws; none for paths to given ends, whose weight says nothing."""
    found: dict[str, float | None] = {"elbo": None, "eubo": None, "forward_ess": None}
    if solution.pinned:
        return found
    found["elbo"] = float(jnp.mean(solution.log_weights))
    if target.draw is not None:
        key_ends, key = jax.random.split(key)
        ends = target.draw(key_ends, solution.num_samples)
        log_weights = _backward(solution.prepared, solution.rule, key, ends)
        log_mean = float(jax.nn.logsumexp(log_weights)) - math.log(len(ends))
        found |= {"eubo": float(jnp.mean(log_weights)), "forward_ess": math.exp(min(target.log_z - log_mean, 0.0))}
    return found


@eqx.filter_jit
def _backward(prepared, rule, key, ends):
    return pid.backward_log_weights(prepared, rule, key, prepared.unit.to_unit(ends))


def thinned(history) -> list[float]:
    """Means over at most a hundred stretches of a history.

    Example:
        >>> thinned(np.arange(200.0))[:2]
        [0.5, 2.5]
    """
    parts = np.array_split(np.asarray(history, float), min(MOST_VALUES, len(history)))
    return [float(np.mean(part)) for part in parts]
