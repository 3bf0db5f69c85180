"""The suite `core`: every method on every case with every seed, one row each, and no row kills the rest."""

import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from pidjax import metrics
from pidjax.weighted import systematic

from . import measure
from .cases import CASES, Case
from .methods import METHODS
from .outcome import Budget, Outcome


def run_core(names: Sequence[str], budget: Budget, save: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """The results: environment, options, cases with their floors, rows. They are saved after every case."""
    cases: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    results = {"environment": measure.environment(), "options": vars(budget), "cases": cases, "rows": rows}
    begin = time.perf_counter()
    for name in names:
        case = CASES[name](budget.num_samples)
        floors = case.floors(jax.random.key(0))
        cases[name] = {
            "note": case.note,
            "dim": case.dim,
            "entropy": case.entropy,
            "size": case.size,
            "floors": floors,
        }
        for method in METHODS:
            for seed in range(budget.seeds_of(method, name)):
                added = run_method(case, floors, method, seed, budget)
                rows += added
                for row in added:
                    print(f"{time.perf_counter() - begin:6.0f} s  {progress_line(row)}", flush=True)
        save(results)
        jax.clear_caches()
    return results


def run_method(case: Case, floors, method: str, seed: int, budget: Budget) -> list[dict[str, Any]]:
    """The rows of one run; a failure is a row as well, with its error."""
    key_run, key_measure = jax.random.split(jax.random.key(seed))
    identity = {"case": case.name, "seed": seed, "num_samples": budget.num_samples}
    try:
        outcomes = METHODS[method](case, key_run, budget)
        return [
            {**identity, "method": name, "error": None, **measured(case, floors, outcome, key_measure, seed == 0)}
            for name, outcome in outcomes.items()
        ]
    except Exception as error:
        traceback.print_exc()
        return [{**identity, "method": method, "error": f"{type(error).__name__}: {error}"}]


def measured(case: Case, floors, outcome: Outcome, key, first: bool) -> dict[str, Any]:
    """A row's columns: distances, what the weights say, what it cost. Temporaries are asked for the first seed only."""
    key_resample, key_reference = jax.random.split(key)
    kind = "density" if outcome.has_density or "data" not in floors else "data"
    samples = outcome.samples
    if not jnp.isfinite(samples).all():
        lost = int((~jnp.isfinite(samples)).any(axis=1).sum())
        raise FloatingPointError(f"{lost} of {len(samples)} samples are not finite")
    if outcome.weighted and outcome.log_weights is not None:
        samples = resampled(key_resample, samples, outcome.log_weights, case.size)
    distances = case.measured(key_reference, samples[: case.size])
    worst = max(distances[name] / (mean + 3 * deviation) for name, (mean, deviation) in floors[kind].items())
    row = {
        "budget": outcome.budget,
        "target": kind,
        "warning": outcome.warning,
        **{f"distance/{name}": value for name, value in distances.items()},
        "worst": worst,
        "log_z": outcome.log_z,
        "log_z_error": outcome.log_z_error,
        "ess": outcome.ess,
        "forward_ess": outcome.forward_ess,
        "energy_evaluations": outcome.energy_evaluations,
        "gradient_evaluations": outcome.gradient_evaluations,
        "peak_bytes": outcome.temporaries() if first and outcome.temporaries else None,
    }
    if outcome.has_density:
        log_weights = outcome.log_weights if outcome.weighted else None
        excess = metrics.cross_entropy(outcome.samples, case.log_density, log_weights)
        row["excess_energy"] = float(excess.value) - case.entropy
        row["excess_energy_error"] = float(excess.standard_error)
    if outcome.cost is not None:
        row |= {"compile_seconds": outcome.cost.compile_seconds, "run_seconds": outcome.cost.run_seconds}
        row["peak_bytes"] = row["peak_bytes"] if outcome.cost.peak_bytes is None else outcome.cost.peak_bytes
    return row


def resampled(key, samples, log_weights, count: int):
    """Equally weighted samples by systematic resampling, in random order."""
    key_offset, key_order = jax.random.split(key)
    chosen = systematic(key_offset, jax.nn.softmax(log_weights), count)
    return samples[jax.random.permutation(key_order, chosen)]


def progress_line(row: dict[str, Any]) -> str:
    head = f"{row['case']:8s} {row['method']:40s} seed {row['seed']}"
    if row["error"] is not None:
        return f"{head}  FAILED: {row['error'].splitlines()[0][:90]}"
    quality = f"  worst/floor {row['worst']:6.2f}"
    quality += "" if row["log_z"] is None else f"  Δ log Z {row['log_z']:+.4f}"
    seconds = "" if row.get("run_seconds") is None else f"  {row['compile_seconds']:.1f} + {row['run_seconds']:.2f} s"
    return head + quality + seconds + ("" if row["warning"] is None else "  (flagged by its own check)")
