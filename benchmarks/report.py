"""From rows to what a reader sees: a Markdown table, a comparison with an older run, and two honest sentences.

A row is one run of one method on one case with one seed, as a plain dictionary (see `core.measured`). Everything here is
a function of the rows and of the cases' floors, so a results file can be reported again at any time.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from .outcome import ENERGY, FOLLMER, PIS, TEMPERED

Row = Mapping[str, Any]
Results = Mapping[str, Any]

ENERGY_ONLY = (ENERGY, PIS, FOLLMER, TEMPERED)
"""Methods that see the target through its log-density and gradient only."""
COLUMNS: Mapping[str, str] = {
    "log_z": "Δ log Z",
    "log_z_error": "s.e.",
    "ess": "ESS/N",
    "forward_ess": "forward",
    "excess_energy": "E[−log p] − H",
    "worst": "worst/floor",
    "energy_evaluations": "energies",
    "gradient_evaluations": "gradients",
    "compile_seconds": "compile s",
    "run_seconds": "run s",
    "peak_bytes": "peak MiB",
}


def groups(rows: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    """The rows of each (case, method), all seeds together, in the order in which they came."""
    grouped: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        grouped.setdefault((row["case"], row["method"]), []).append(row)
    return grouped


def middle(rows: Sequence[Row], column: str) -> float | None:
    """Median over seeds, of those rows that have the column."""
    values = [row[column] for row in rows if row.get(column) is not None]
    return median(values) if values else None


def largest(rows: Sequence[Row], column: str) -> float:
    """Largest over seeds, of those rows that have the column; else 0."""
    return max((row[column] for row in rows if row.get(column) is not None), default=0.0)


def markdown(results: Results) -> str:
    """The whole report as Markdown: one table for each case, floors in its first line, failures in their places."""
    parts = ["# Benchmark\n", _environment(results)]
    for case in results["cases"]:
        rows = [row for row in results["rows"] if row["case"] == case["case"]]
        if rows:
            parts.append(_case_table(case, rows))
    parts.append(_NOTES)
    parts.append("\n" + summary(results) + "\n")
    return "\n".join(parts)


_NOTES = """
Medians over seeds; Δ log Z: median (largest absolute value). `worst/floor` is the largest of the distances, each over
the mean + 3 standard deviations of that distance between exact sample sets of the same size: up to 1, no distance
tells the samples from exact ones. Distances are of the weighted samples, but for the step rules and PIS, whose samples
are taken as they come. ESS/N is that of the run's own weights and blind to modes that it missed; `forward` is the same
number from exact end points, which is not. Energies and gradients count evaluations of the log-density and of its
gradient, training and fitting included. BlackJAX's samplers and PIS are told the exact mean and scale of the target;
H-PID from the energy alone is told nothing. Compile seconds are those of the first seed, peak MiB the compiler's count
of temporaries, for H-PID those of the rollout (its closed form runs the program of the line `ancestral`). †
`Solution.check()` raised: the run says itself that it is not to be trusted.
"""


def _environment(results: Results) -> str:
    words = ", ".join(f"{name} {value}" for name, value in results["environment"].items())
    options = ", ".join(f"{name} {value}" for name, value in results["options"].items())
    return f"{words}.\n\nOptions: {options}.\n"


def _case_table(case: Mapping[str, Any], rows: Sequence[Row]) -> str:
    distances = list(case["floors"]["density"])
    header = ["method", "budget", "seeds", *distances, *COLUMNS.values()]
    lines = [
        f"\n## {case['case']}\n",
        f"{case['note']} d = {case['dim']}, entropy H = {case['entropy']:.4f}, log Z = 0.\n",
        _line(header),
        _line(["---"] * len(header)),
    ]
    for kind, floor in case["floors"].items():
        cells = [f"{mean:.2g} ± {deviation:.1g}" for mean, deviation in floor.values()]
        blank = [""] * len(COLUMNS)
        lines.append(_line([f"*floor: exact draws of the {kind}*", f"n = {case['size']}", "", *cells, *blank]))
    for (_, method), seeds in groups(rows).items():
        worked = [row for row in seeds if row["error"] is None]
        count = f"{len(worked)} of {len(seeds)}" if len(worked) < len(seeds) else f"{len(seeds)}"
        if worked:
            mark = " †" if any(row["warning"] for row in worked) else ""
            cells = [number(middle(worked, f"distance/{distance}")) for distance in distances]
            cells += [_cell(worked, column) for column in COLUMNS]
            lines.append(_line([method + mark, worked[0]["budget"], count, *cells]))
        else:
            reason = seeds[0]["error"].splitlines()[0][:100].replace("|", "\\|")
            lines.append(_line([method, f"**failed**: {reason}", count, *[""] * (len(distances) + len(COLUMNS))]))
    return "\n".join(lines) + "\n"


def _cell(rows: Sequence[Row], column: str) -> str:
    value = middle(rows, column)
    if value is None:
        return ""
    if column == "compile_seconds":
        value = largest(rows, column)
    if column == "log_z":
        farthest = max(abs(row["log_z"]) for row in rows if row["log_z"] is not None)
        return f"{value:+.4f} ({farthest:.4f})"
    if column == "peak_bytes":
        return number(value / 2**20)
    if column.endswith("evaluations"):
        return compact(value)
    return f"{value:+.3f}" if column == "excess_energy" else number(value)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def compact(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f}"


def summary(results: Results) -> str:
    """Two sentences, computed: how H-PID from the energy alone compares with PIS, and where it is beaten or failed."""
    grouped = {key: [row for row in rows if row["error"] is None] for key, rows in groups(results["rows"]).items()}
    cases = list(dict.fromkeys(case for case, _ in grouped))
    failures = sum(row["error"] is not None for row in results["rows"])
    mine, other = (_standing(grouped, cases, method) for method in (ENERGY, PIS))
    budgets = {
        row["budget"].partition(" of ")[0] for (_, method), rows in grouped.items() if method == PIS for row in rows
    }
    first = f"From the energy alone, H-PID {mine}; PIS, after {' or '.join(sorted(budgets)) or 'no training'}, {other}."
    beaten = []
    for case in cases:
        worst = {method: middle(rows, "worst") for (name, method), rows in grouped.items() if name == case}
        own = worst.get(ENERGY)
        rivals = {method: worst[method] for method in ENERGY_ONLY[1:] if worst.get(method) is not None}
        best = min(rivals, key=rivals.__getitem__, default=None)
        if best is not None and ENERGY in worst and (own is None or (own > 1 and rivals[best] < 0.8 * own)):
            beaten.append(f"{case} ({best} {rivals[best]:.3g}, H-PID {'failed' if own is None else f'{own:.3g}'})")
    where = "; ".join(beaten) if beaten else "none"
    second = (
        "Cases where another sampler that sees only the energy came clearly nearer to exact samples (distance over "
        f"floor): {where}; {failures} of {len(results['rows'])} runs failed."
    )
    return f"{first} {second}"


def _standing(grouped: Mapping[tuple[str, str], list[Row]], cases: Sequence[str], method: str) -> str:
    """On how many cases a method is at the floor, the farthest of them, its errors of log Z, forward ESS and time."""
    reached = {case: grouped[case, method] for case in cases if grouped.get((case, method))}
    if not reached:
        return "has no finished run"
    worst = {case: middle(rows, "worst") for case, rows in reached.items()}
    near = sum(value <= 1 for value in worst.values())
    farthest = max(worst, key=worst.__getitem__)
    log_z = {case: abs(middle(rows, "log_z") or 0.0) for case, rows in reached.items()}
    known = {case: middle(rows, "forward_ess") for case, rows in reached.items()}
    forward = {case: value for case, value in known.items() if value is not None}
    hardest, thinnest = max(log_z, key=log_z.__getitem__), min(forward, key=forward.__getitem__, default=None)
    least = "" if thinnest is None else f"; forward ESS/N down to {forward[thinnest]:.2g}, {thinnest}"
    seconds = median(middle(rows, "run_seconds") + largest(rows, "compile_seconds") for rows in reached.values())
    return (
        f"is at the sampling floor in every distance on {near} of {len(cases)} cases (farthest {worst[farthest]:.3g} floors, "
        f"{farthest}; |Δ log Z| up to {log_z[hardest]:.2g}, {hardest}{least}), a median of {seconds:.0f} s each with "
        "compilation"
    )


def comparison(new: Results, old: Results) -> str:
    """For each (case, method) of both runs: time and evaluations as new/old, quality as new − old."""
    before, after = groups(old["rows"]), groups(new["rows"])
    ratio: Callable[[float, float], str] = lambda a, b: f"×{a / b:.2f}" if b else "–"  # noqa: E731
    change: Callable[[float, float], str] = lambda a, b: f"{a - b:+.3g}"  # noqa: E731
    shown = {
        "run_seconds": ratio,
        "compile_seconds": ratio,
        "energy_evaluations": ratio,
        "worst": change,
        "ess": change,
        "log_z": lambda a, b: f"{abs(a) - abs(b):+.3g}",
    }
    lines = []
    for key in after:
        if key not in before:
            lines.append(f"{key[0]} · {key[1]}: new")
            continue
        cells = []
        for column, show in shown.items():
            a, b = middle(after[key], column), middle(before[key], column)
            if a is not None and b is not None:
                cells.append(f"{column} {show(a, b)}")
        lines.append(f"{key[0]} · {key[1]}: " + (", ".join(cells) or "no finished run in one of the two"))
    lines += [f"{key[0]} · {key[1]}: gone" for key in before if key not in after]
    return "\n".join(lines)
