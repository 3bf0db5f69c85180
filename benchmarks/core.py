"""The suite `core`: every method on every case with every seed."""

import functools
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from pidjax import metrics
from pidjax._maths.systematic import systematic

from .cases import CASES, Case
from .ledger import Ledger
from .methods import METHODS
from .outcome import Budget, Outcome


def run_core(names: Sequence[str], budget: Budget, ledger: Ledger) -> None:
    """The sections `cases`, with their floors, and `rows`."""
    for name in names:
        run_case(name, budget, ledger)
        jax.clear_caches()


def run_case(name: str, budget: Budget, ledger: Ledger) -> None:
    """All methods and seeds on one case, which is made when the first run needs it."""
    made = functools.cache(functools.partial(CASES[name], budget.num_samples))

    def facts(case):
        known = made()
        floors = known.floors(jax.random.key(0))
        yield {"note": known.note, "dim": known.dim, "entropy": known.entropy, "size": known.size, "floors": floors}

    def rows(case, method, seed):
        key_run, key_measure = jax.random.split(jax.random.key(seed))
        for reported, outcome in METHODS[method](made(), key_run, budget).items():
            row = measured(made(), about["floors"], outcome, key_measure, seed == 0)
            print(f"{time.strftime('%X')}  {case:8s} {reported:40s} seed {seed}{quality(row)}", flush=True)
            yield {"method": reported, **row}

    (about,) = ledger.run("cases", facts, case=name)
    if about["error"] is None:
        for method in METHODS:
            for seed in range(budget.seeds_of(method, name)):
                ledger.run("rows", rows, case=name, method=method, seed=seed)


def measured(case: Case, floors, outcome: Outcome, key, first: bool) -> dict[str, Any]:
    """A row's columns: distances, what the weights say, what it cost. Temporaries are asked for the first seed only."""
    key_resample, key_reference = jax.random.split(key)
    kind = "density" if outcome.has_density or "data" not in floors else "data"
    samples = outcome.samples
    if not jnp.isfinite(samples).all():
        lost = int((~jnp.isfinite(samples)).any(axis=1).sum())
        raise FloatingPointError(f"{lost} of {len(samples)} samples are not finite")
    if outcome.weighted and outcome.log_weights is not None:
        key_offset, key_order = jax.random.split(key_resample)
        chosen = systematic(key_offset, jax.nn.softmax(outcome.log_weights), case.size)
        samples = jax.random.permutation(key_order, samples[chosen])
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


def quality(row: dict[str, Any]) -> str:
    words = f"  worst/floor {row['worst']:6.2f}"
    words += "" if row["log_z"] is None else f"  Δ log Z {row['log_z']:+.4f}"
    words += "" if row.get("run_seconds") is None else f"  {row['compile_seconds']:.1f} + {row['run_seconds']:.2f} s"
    return words + ("" if row["warning"] is None else "  (flagged by its own check)")
