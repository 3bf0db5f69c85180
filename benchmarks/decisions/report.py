"""The table of the suite as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

COLUMNS = {
    "log_z": "Δ log Z",
    "ess": "ESS/N",
    "relative_magnetisation": "Δ₁ relative",
    "relative_correlation": "Δ₂ relative",
    "absolute_magnetisation": "Δ₁ absolute",
    "absolute_correlation": "Δ₂ absolute",
}

NOTE = """
Means over seeds ± their standard errors. Δ₁ and Δ₂ are the mean errors of magnetisations and of pair correlations; the
relative ones, as published, are ruled by whichever exact moment is nearest to zero, the absolute ones are not. Evaluations
are full energies, or sweeps of local ones, with those of fits and training; the exact sampler's samples count one each.
Chains are ten, side by side, and drop their first tenth. log Z and ESS are of the weights; chains have none. A relative
error is infinite where an exact moment vanishes by symmetry.
"""


def markdown(results: Mapping[str, Any]) -> str:
    """One table for each case, then what exact sums cost."""
    parts = ["# Decisions\n", NOTE]
    for case in dict.fromkeys(row["case"] for row in results["rows"]):
        parts.append(_table(case, [row for row in results["rows"] if row["case"] == case]))
    parts.append("## Autocorrelation times of the chains\n\nIn sweeps, with the time's own standard error.\n")
    parts.append("| case | chain | energy | sum of spins |\n|---|---|---|---|")
    for row in results["chains"]:
        parts.append(f"| {row['case']} | {row['method']} | {_cell(row['energy'])} | {_cell(row['total'])} |")
    parts.append("\n## What exact sums cost\n\nSeconds after compilation, single precision.\n")
    parts.append("| lattice | samples | log Z | magnetisations | samples, s |\n|---|---|---|---|---|")
    for rows, count in ((results["growth"], "1,000"), (results["large"], "10,000")):
        for row in rows:
            parts.append(
                f"| {row['length']}×{row['width']} | {count} | {row['log_z_seconds']:.3f} | {row['gradient_seconds']:.3f} | "
                f"{row['sample_seconds']:.3f} |"
            )
    return "\n".join(parts) + "\n"


def mean_and_error(rows: Sequence[Mapping[str, Any]], column: str) -> tuple[float, float] | None:
    """Mean over seeds and its standard error; None if the rows have no such number."""
    values = np.array([row[column] for row in rows if row[column] is not None])
    if not len(values):
        return None
    if not np.isfinite(values).all():
        return float("inf"), 0.0
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def _table(case: str, rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [f"## {case}\n", f"| method | N | evaluations | {' | '.join(COLUMNS.values())} |", "|---" * 9 + "|"]
    for method, number in dict.fromkeys((row["method"], row["number"]) for row in rows):
        group = [row for row in rows if (row["method"], row["number"]) == (method, number)]
        cells = (mean_and_error(group, column) for column in COLUMNS)
        text = " | ".join(_cell(cell) for cell in cells)
        lines.append(f"| {method} | {number:,} | {group[0]['evaluations']:,.0f} | {text} |")
    return "\n".join(lines) + "\n"


def _cell(cell: Sequence[float] | None) -> str:
    if cell is None:
        return ""
    return f"{cell[0]:.2g} ± {cell[1]:.1g}" if np.isfinite(cell[0]) else "∞"
