"""The table of the suite as Markdown: one line a target and method, all seeds together."""

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from ..page import page
from ..report import Results, Row, compact, middle, number
from .rivals import HPID

COLUMNS = (
    "target", "d", "method", "seeds", "|Δ log Z| (least … largest)", "rms score", "ESS/N", "evaluations", "seconds (first)",
    "quality (floor)", "flagged",
)  # fmt: skip

NOTE = """
Medians over seeds. Δ log Z is the error of log Z, its score Δ over its stated standard error: the root mean square of
honest scores is about 1. Evaluations are of the log-density, with or without its gradient, those of fits, adaptation
and searches included; every sampler is given about what H-PID spent on the same target and seed, but for PIS, which
is trained as in the suite `core`. Seconds are of the first seed: with another key, and in brackets of the first call,
with compilation. Quality is a distance to exact draws, its floor that of one set of 4,096 exact draws to another.
Flagged are runs of which `check()` says that they are not to be trusted. Tempered SMC, NUTS, Schrödinger–Föllmer and
PIS are told centre and scale of the target, by exact draws or by Laplace's formula; H-PID and annealing from Laplace
are told nothing. NUTS and Schrödinger–Föllmer have no log Z; tempered SMC has no error of it, and its ESS is that of
the last weights.
"""


def markdown(results: Results) -> str:
    """The whole table, failures in their places."""
    lines, rows = [], results.get("rows", [])
    for target in results["targets"]:
        if target["error"] is not None:
            lines.append([target["target"], "", f"failed: {_reason(target)}", *[""] * (len(COLUMNS) - 3)])
        own = [row for row in rows if row["target"] == target["target"]]
        for method in dict.fromkeys(row["method"] for row in own):
            lines.append(_cells(target, method, [row for row in own if row["method"] == method]))
    return page("Densities", results["environment"], finding(rows), list(COLUMNS), lines) + NOTE


def finding(rows: Sequence[Row]) -> str:
    """How H-PID, left alone, states its own error, over all targets."""
    own = [row for row in rows if row["method"] == HPID]
    worked = [row for row in own if row["error"] is None]
    trusted = [abs(row["score"]) for row in worked if row["outcomes"] is None]
    words = f"H-PID, defaults untouched: of {len(own)} runs {len(own) - len(worked)} failed and "
    words += f"{len(worked) - len(trusted)} were flagged"
    if not trusted:
        return words + "."
    far, spread = sum(score > 4 for score in trusted), _root_mean_square(trusted)
    return f"{words}; of the others the score of log Z is {spread} in root mean square, and above 4 in {far} of {len(trusted)}."


def _cells(target: Row, method: str, seeds: Sequence[Row]) -> list[str]:
    worked = [row for row in seeds if row["error"] is None]
    count = f"{len(seeds)}" if len(worked) == len(seeds) else f"{len(worked)} of {len(seeds)}"
    head = [target["target"], str(target["dim"]), method, count]
    if not worked:
        return [*head, f"failed: {_reason(seeds[0])}", *[""] * (len(COLUMNS) - 5)]
    evaluations = median(row["energy_evaluations"] + row["gradient_evaluations"] for row in worked)
    flagged = sum(row["outcomes"] is not None for row in worked)
    return [
        *head,
        _spread([abs(row["delta"]) for row in worked if row["delta"] is not None]),
        _root_mean_square([row["score"] for row in worked if row["score"] is not None]),
        number(middle(worked, "ess")),
        compact(evaluations),
        _with(middle(worked, "again_seconds"), middle([row for row in worked if row["seed"] == 0], "first_seconds")),
        f"{target['quality']} {_with(middle(worked, 'quality'), target['floor'])}" if target["quality"] else "",
        f"{flagged} of {len(worked)}" if method.startswith("H-PID") else "",
    ]


def words(row: Mapping[str, Any]) -> str:
    """A row as it is printed when it comes."""
    parts = [
        "" if row["delta"] is None else f"  Δ log Z {row['delta']:+.4f}",
        "" if row["log_z_error"] is None else f" ± {row['log_z_error']:.4f}",
        "" if row["quality"] is None else f"  quality {row['quality']:.3g}",
        f"  {compact(row['energy_evaluations'] + row['gradient_evaluations'])} evaluations",
        f"  {row['first_seconds']:.1f} s",
        "" if row["again_seconds"] is None else f", again {row['again_seconds']:.1f} s",
        "" if row["outcomes"] is None else f"  ({row['outcomes']})",
    ]
    return "".join(parts)


def _spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    return f"{number(median(values))} ({number(min(values))} … {number(max(values))})"


def _root_mean_square(values: Sequence[float]) -> str:
    return number(math.sqrt(sum(value**2 for value in values) / len(values))) if values else ""


def _with(value: float | None, beside: float | None) -> str:
    return number(value) if beside is None else f"{number(value)} ({number(beside)})"


def _reason(row: Row) -> str:
    return row["error"].splitlines()[0][:100]
