"""Whether stated errors are true: the share of 95 % intervals of `sample`, left alone, that hold, over many fresh keys.

    t = (estimate − truth)/s.e.,     z = Φ⁻¹(F_ν(t)),     an interval holds where |z| ≤ 1.96,

of log Z and of the mean of the first coordinate. F_ν is Student's t with the degrees of freedom that the solution states, Φ if
it states none. True errors give a share of 0.95 and a root mean square of z of 1. The error of a share of k in n is
√(p(1 − p)/(n + 4)) at p = (k + 2)/(n + 4), after Agresti and Coull.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import stats

import pidjax as pid
from pidjax import zoo

from .densities import FROM_FILES
from .ledger import Ledger
from .page import page

BLOCK = 10
CREDIT, _ = FROM_FILES["logistic_credit"]
"""The numeric file of the German credit data."""
_LIMIT = float(stats.norm.ppf(0.975))


class Subject(NamedTuple):
    """A target with its log Z, and the mean of its first coordinate, or None if nobody knows it."""

    known: zoo.Known
    mean: float | None


def many_well() -> Subject:
    x = np.linspace(-4, 4, 2049)
    return Subject(zoo.many_well(4), float(np.average(x, weights=np.exp(x / 2 + 6 * x**2 - x**4))))


TARGETS: Mapping[str, Callable[[Path], Subject]] = {
    "funnel3": lambda data: Subject(zoo.funnel(math.sqrt(3)), 0.0),
    "many_well": lambda data: many_well(),
    "mw54": lambda data: Subject(zoo.double_well(5, 5, 4.0), 0.0),
    "credit": lambda data: Subject(zoo.logistic_credit(data / CREDIT), None),
}
"""Name → the target, given where the data are."""


def run_coverage(names: Sequence[str], ledger: Ledger, table: Path, runs: int, data: Path) -> None:
    """The section `rows`, by blocks of ten runs, the last one full; then the table."""
    kept = []
    for name in names:
        subject = TARGETS[name](data)

        def rows(target, block, subject=subject):
            begin = time.perf_counter()
            for run in range(block * BLOCK, (block + 1) * BLOCK):
                yield {"key": run, **stated(subject, jax.random.key(run))}
            print(f"{time.strftime('%X')}  {target:10s} block {block}  {time.perf_counter() - begin:.0f} s", flush=True)

        for block in range(math.ceil(runs / BLOCK)):
            kept += ledger.run("rows", rows, target=name, block=block)
        jax.clear_caches()
    table.write_text(markdown(ledger.results()["environment"], kept))
    print(table.read_text())


def stated(subject: Subject, key) -> dict[str, Any]:
    """What one run states, as pairs of t and s.e., and its complaint, if it has one."""
    try:
        solution = pid.sample(key, subject.known.target, progress=False)
    except (ValueError, pid.SamplingError) as error:
        return {"complaint": str(error)}
    complaint = "; ".join(text for _, text in solution.problems()) or None
    degrees = getattr(solution, "degrees_of_freedom", None)
    row = {"complaint": complaint, "degrees_of_freedom": None if degrees is None else float(degrees)}
    truths = {"log Z": (solution.log_z, subject.known.log_z), "mean": (solution.expectation(_first), subject.mean)}
    for quantity, (estimate, truth) in truths.items():
        if truth is not None:
            value, error = map(float, estimate)
            row[quantity] = ((value - truth) / error if error > 0 else math.nan, error)
    return row


def _first(y):
    return y[0]


def normal_score(t: float, degrees: float | None) -> float:
    """z = Φ⁻¹(F_ν(t)), by the smaller tail.

    >>> round(normal_score(float(stats.t.ppf(0.975, 5)), 5), 6), normal_score(-1.5, None)
    (1.959964, -1.5)
    """
    return t if degrees is None else float(math.copysign(stats.norm.isf(stats.t.sf(abs(t), degrees)), t))


class Coverage(NamedTuple):
    """Share of intervals that hold with its error, root mean square of z, and median stated error, over a number of runs."""

    runs: int
    share: float
    share_error: float
    rms_score: float
    median_error: float


def coverage(rows: Sequence[Mapping[str, Any]], quantity: str) -> Coverage:
    """Of those runs that state the quantity; a t of NaN holds nothing and is left out of the root mean square."""
    found = [(normal_score(row[quantity][0], row["degrees_of_freedom"]), row[quantity][1]) for row in rows]
    scores, errors = np.array(found).reshape(-1, 2).T
    number, held = len(scores), int(np.sum(np.abs(scores) <= _LIMIT))
    shrunk = (held + 2) / (number + 4)
    finite = scores[~np.isnan(scores)]
    rms = float(np.sqrt(np.mean(finite**2))) if len(finite) else math.nan
    share_error = math.sqrt(shrunk * (1 - shrunk) / (number + 4))
    return Coverage(number, held / max(number, 1), share_error, rms, float(np.median(errors)) if number else math.nan)


def markdown(environment: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> str:
    """A line for each target and quantity, of all runs and of those whose check() is content."""
    header = ["target", "quantity", "check()", "runs", "share that holds", "rms of z", "median s.e."]
    return page("coverage", environment, "95 % intervals of sample, left alone.", header, _cells(rows))


def _cells(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[str]]:
    finished = [row for row in rows if row["error"] is None]
    for target in dict.fromkeys(row["target"] for row in finished):
        own = [row for row in finished if row["target"] == target]
        for quantity in ("log Z", "mean"):
            for word, part in {"any": own, "content": [row for row in own if row["complaint"] is None]}.items():
                stating = [row for row in part if quantity in row]
                if stating:
                    found = coverage(stating, quantity)
                    share = f"{found.share:.3f} ± {found.share_error:.3f}"
                    runs = f"{found.runs} of {len(own)}"
                    yield [target, quantity, word, runs, share, f"{found.rms_score:.3f}", f"{found.median_error:.2g}"]
