"""What `sample`, left alone, says of log Z, against the truth: Δ = log Ẑ − log Z, one grade for each density and seed.

    right                |Δ| ≤ 4 s.e. or |Δ| ≤ 0.02, and check() is content
    flagged but right    so near, and check() complains
    flagged              check() complains, or sample itself does
    content and wrong    check() is content with a log Z that is not near, or of what has none

A standard error that is not finite makes nothing near.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

import pidjax as pid

from .ledger import Ledger
from .page import page

SIGMAS, CLOSE = 4.0, 0.02
GRADES = ("right", "flagged but right", "flagged", "content and wrong")


class Question(NamedTuple):
    """A log-density on R^d and what makes it hard; log Z is None where the mass is not finite, or zero."""

    name: str
    kind: str
    dim: int
    log_density: Callable
    log_z: float | None


def run_graded(questions: Sequence[Question], ledger: Ledger, table: Path, seeds: int) -> None:
    """The section `rows`, a row for each density and seed; then the table."""
    known = {question.name: question for question in questions}

    def rows(density, seed):
        begin = time.perf_counter()
        row = answered(known[density], jax.random.key(seed)) | {"seconds": time.perf_counter() - begin}
        print(f"{time.strftime('%X')}  {density:36s} seed {seed}  {row['seconds']:5.0f} s  {row['grade']}", flush=True)
        yield row

    graded_rows = []
    for name in known:
        for seed in range(seeds):
            graded_rows += ledger.run("rows", rows, density=name, seed=seed)
        jax.clear_caches()
    table.write_text(markdown(table.stem, ledger.results()["environment"], graded_rows))
    print(f"{table}: {counts(graded_rows)}")


def answered(question: Question, key) -> dict[str, Any]:
    """The row of one run with untouched defaults."""
    row = {"kind": question.kind, "dim": question.dim, "log_z": question.log_z}
    try:
        solution = pid.sample(key, pid.Density(question.log_density, question.dim), progress=False)
    except (ValueError, pid.SamplingError) as error:
        return row | {"grade": "flagged", "complaint": f"{type(error).__name__} of sample: {error}"}
    return row | {
        **graded(solution, question.log_z),
        "ess": float(solution.ess) / solution.num_samples,
        "energy_evaluations": int(solution.num_energy_evaluations),
        "settings": {name: str(value) for name, value in solution.settings.items()},
    }


def graded(solution: pid.Solution, log_z: float | None) -> dict[str, Any]:
    """The grade, with Δ, its standard error, what made it near and what check() says."""
    value, error = map(float, solution.log_z)
    delta = math.nan if log_z is None else value - log_z
    near = {"4 s.e.": math.isfinite(error) and abs(delta) <= SIGMAS * error, "0.02": abs(delta) <= CLOSE}
    try:
        solution.check()
        complaint = None
        grade = "right" if any(near.values()) else "content and wrong"
    except pid.SamplingError as found:
        complaint = str(found)
        grade = "flagged but right" if any(near.values()) else "flagged"
    within = " and ".join(bound for bound, holds in near.items() if holds)
    return {
        "estimate": value, "delta": delta, "log_z_error": error, "within": within, "grade": grade, "complaint": complaint,
    }  # fmt: skip


def counts(rows: Iterable[Mapping[str, Any]]) -> str:
    """How many of each grade, and of runs that broke."""
    found = Counter(row.get("grade", "broken") for row in rows)
    return ", ".join(f"{found[grade]} {grade}" for grade in (*GRADES, "broken") if grade in GRADES or found[grade])


def markdown(title: str, environment: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> str:
    """The counts, and a line for each run."""
    header = [
        "density",
        "kind",
        "d",
        "seed",
        "log Z",
        "Δ",
        "s.e.",
        "near by",
        "ESS/N",
        "energies",
        "s",
        "grade",
        "complaint",
    ]
    return page(title, environment, f"{counts(rows)}.", header, map(_cells, rows))


def _cells(row: Mapping[str, Any]) -> list[str]:
    if row["error"] is not None:
        return [row["density"], "", "", str(row["seed"]), *[""] * 7, "broken", row["error"][:200]]
    truth = "none" if row["log_z"] is None else f"{row['log_z']:.4f}"
    found = [""] * 5
    if "estimate" in row:
        delta = f"log Ẑ {row['estimate']:.4f}" if row["log_z"] is None else f"{row['delta']:+.4f}"
        evaluations = f"{row['energy_evaluations']:.3g}"
        found = [delta, f"{row['log_z_error']:.2g}", row["within"], f"{row['ess']:.2g}", evaluations]
    asked = [row["density"], row["kind"], str(row["dim"]), str(row["seed"]), truth]
    return [*asked, *found, f"{row['seconds']:.0f}", row["grade"], (row["complaint"] or "")[:200]]
