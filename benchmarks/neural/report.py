"""The tables of the suite as Markdown: one for each target, all seeds of a method together."""

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from ..report import Results, Row, compact, middle, number

COLUMNS = (
    "method", "seeds", "ELBO − log Z", "EUBO − log Z", "Δ log Z (its error)", "ESS/N", "forward ESS/N", "quality",
    "gradient steps", "evaluations", "of these gradients", "processor seconds", "flagged",
)  # fmt: skip

NOTE = """
Medians over seeds. ELBO = E[log W] of the sampler's own paths is at most log Z, EUBO = E[log W] of paths drawn backward
from exact draws is at least log Z; a sampler that misses a mode has a good ELBO and a bad EUBO. Δ log Z is log of the
mean weight less the truth, with its stated standard error. ESS/N is that of the sampler's own weights, blind to modes
that it misses; forward ESS/N = Z/E[W] over paths drawn backward, which is not. Quality is a distance of the weighted
samples to exact draws, its floor that of one set of exact draws to another. Evaluations are of the log-density, with or
without its gradient, in all: those of H-PID's fit, of training and of the last samples are included. Seconds are
those that the cores above were busy, at the first call, with compilation; those of corrections do not include H-PID's own,
which are in its line. Flagged are runs of which `check()` says that they are not to be trusted. PIS, but for its raw form, and
the regression on inner estimates are told centre and scale of the target; H-PID and its corrections are told nothing.
Corrections are networks in moment steps to H-PID's surrogate, the line above them; the regression on bridges and trajectory
balance use H-PID's samples, the other two losses the sampler's own paths.
"""


def markdown(results: Results) -> str:
    """The whole report, failures and what had nothing to correct in their places."""
    parts = ["# Networks\n", ", ".join(f"{name} {value}" for name, value in results["environment"].items()) + ".\n"]
    for target in results.get("targets", []):
        parts.append(f"## {target['target']}\n")
        if target["error"] is not None:
            parts.append(f"Failed: {_reason(target)}\n")
            continue
        floor = f" {target['quality']}, floor {number(target['floor'])}" if target["quality"] else " none"
        parts.append(f"d = {target['dim']}, log Z = {target['log_z']:.4f}. Quality:{floor}.\n")
        own = [row for row in results.get("rows", []) if row["target"] == target["target"]]
        lines = [COLUMNS, ["---"] * len(COLUMNS)]
        for method in dict.fromkeys(row["method"] for row in own):
            lines.append(_cells(target, method, [row for row in own if row["method"] == method]))
        parts.append("\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n")
    return "\n".join(parts) + NOTE


def _cells(target: Row, method: str, seeds: Sequence[Row]) -> list[str]:
    worked = [row for row in seeds if row["error"] is None and row["reason"] is None]
    count = f"{len(worked)}" if len(worked) == len(seeds) else f"{len(worked)} of {len(seeds)}"
    if not worked:
        failed = [f"failed: {_reason(row)}" for row in seeds if row["error"] is not None]
        words = (failed or [row["reason"] for row in seeds])[0].replace("|", "\\|")
        return [method, count, words, *[""] * (len(COLUMNS) - 3)]
    evaluations = median(row["energy_evaluations"] + row["gradient_evaluations"] for row in worked)
    flagged = sum(row["outcomes"] is not None for row in worked)
    return [
        method,
        count,
        _less(middle(worked, "elbo"), target["log_z"]),
        _less(middle(worked, "eubo"), target["log_z"]),
        f"{_less(middle(worked, 'delta'), 0)} ({number(middle(worked, 'log_z_error'))})",
        number(middle(worked, "ess")),
        number(middle(worked, "forward_ess")),
        number(middle(worked, "quality")),
        compact(median(row["steps"] for row in worked)),
        compact(evaluations),
        compact(median(row["gradient_evaluations"] for row in worked)),
        number(middle(worked, "seconds")),
        f"{flagged} of {len(worked)}" if flagged else "",
    ]


def words(row: Mapping[str, Any]) -> str:
    """A row as it is printed when it comes."""
    if row["reason"] is not None:
        return row["reason"]
    bounds = "  ".join(f"{name.upper()} {row[name]:.4g}" for name in ("elbo", "eubo") if row[name] is not None)
    evaluations = compact(row["energy_evaluations"] + row["gradient_evaluations"])
    delta = f"Δ log Z {row['delta']:+.4f} ± {row['log_z_error']:.4f}"
    return f"{bounds}  {delta}  ESS/N {row['ess']:.3g}  {evaluations} evaluations  {row['seconds']:.0f} s"


def _less(value: float | None, truth: float) -> str:
    """The difference, with its sign."""
    if value is None:
        return ""
    return f"{value - truth:+.3g}" if math.isfinite(value) else str(value)


def _reason(row: Row) -> str:
    return row["error"].splitlines()[0][:100]
