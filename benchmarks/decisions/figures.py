"""Figures of the suite: errors against number and cost, effective sizes, growth, and a path of decisions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from pidjax import discrete as df
from pidjax.plot import MARKERS, PALETTE

from .report import mean_and_error

STYLES = {
    "exact": (7, "o"),
    "empirical, uniform paths": (3, "X"),
    "local Boltzmann": (5, "v"),
    "cavity messages": (3, "P"),
    "populations, local Boltzmann": (5, "X"),
    "fitted features": (0, "*"),
    "network, trajectory balance": (4, "v"),
    "Metropolis": (1, "s"),
    "Gibbs": (2, "^"),
    "Swendsen–Wang": (6, "D"),
}
"""Number of the colour, and marker."""
SMALL = ("exact", "empirical, uniform paths", "local Boltzmann", "fitted features", "Metropolis", "Gibbs")
AGAINST_COST = (
    "exact",
    "cavity messages",
    "populations, local Boltzmann",
    "fitted features",
    "network, trajectory balance",
    "Metropolis",
    "Gibbs",
    "Swendsen–Wang",
)
LABELS = {
    "relative_magnetisation": r"$\Delta_1$, relative",
    "relative_correlation": r"$\Delta_2$, relative",
    "absolute_magnetisation": r"$\Delta_1$, absolute",
    "absolute_correlation": r"$\Delta_2$, absolute",
}


def draw(results: Mapping[str, Any], out: Path) -> None:
    """Every figure of the suite as a PNG."""
    rows = results["rows"]
    cases = tuple(dict.fromkeys(row["case"] for row in rows))
    makers = {
        "decisions-small": lambda: errors_by_number(rows, "glass 3×3"),
        "decisions-cost": lambda: errors_by_cost(rows, [case for case in cases if case.endswith(("6×6", "12×12"))]),
        "decisions-ess": lambda: effective_sizes(rows, cases),
        "decisions-growth": lambda: growth(results["growth"]),
        "decisions-path": lambda: path(df.ising_glass(12)),
    }
    for name, make in makers.items():
        make().savefig(out / f"{name}.png", dpi=150)
        print(f"figure {out / name}.png", flush=True)


def errors_by_number(rows: Sequence[Mapping[str, Any]], case: str) -> Figure:
    """Δ₁ and Δ₂, relative and absolute, against the number of samples."""
    figure = Figure(figsize=(9.0, 6.6), layout="constrained")
    for pane, column in zip(figure.subplots(2, 2, sharex=True).ravel(), LABELS):
        _curves(pane, rows, case, column, SMALL, "number")
        pane.set_ylabel(LABELS[column])
    for pane in figure.axes[2:]:
        pane.set_xlabel("number of samples")
    figure.suptitle(f"{case}: errors of moments, mean over seeds ± standard error", fontsize=11)
    _legend(figure)
    return figure


def errors_by_cost(rows: Sequence[Mapping[str, Any]], cases: Sequence[str]) -> Figure:
    """Absolute Δ₂ against energy evaluations, one pane for each case."""
    figure = Figure(figsize=(9.0, 3.3 * ((len(cases) + 1) // 2) + 0.6), layout="constrained")
    panes = figure.subplots((len(cases) + 1) // 2, 2, squeeze=False).ravel()
    for pane, case in zip(panes, cases):
        _curves(pane, rows, case, "absolute_correlation", AGAINST_COST, "evaluations")
        pane.set(title=case, xlabel="energy evaluations, fits and training included", ylabel=r"$\Delta_2$, absolute")
    _legend(figure)
    return figure


def _curves(pane, rows, case, column, names, axis):
    for name in names:
        found = [row for row in rows if row["case"] == case and row["method"] == name]
        if not found:
            continue
        numbers = sorted({row[axis] for row in found})
        points = [mean_and_error([row for row in found if row[axis] == number], column) for number in numbers]
        means, errors = np.array([point for point in points if point is not None]).T
        colour, marker = STYLES[name]
        pane.errorbar(
            numbers,
            means,
            errors,
            label=name,
            color=PALETTE[colour],
            marker=marker,
            markersize=5,
            linewidth=1.2,
            linestyle="--" if name in ("Metropolis", "Gibbs", "Swendsen–Wang") else "-",
        )
    pane.set(xscale="log", yscale="log")
    pane.grid(alpha=0.25)
    pane.spines[["top", "right"]].set_visible(False)


def effective_sizes(rows: Sequence[Mapping[str, Any]], cases: Sequence[str]) -> Figure:
    """ESS/N of every prior at the largest number, one group for each case."""
    names = [name for name in dict.fromkeys(row["method"] for row in rows) if name != "exact"]
    names = [name for name in names if any(row["method"] == name and row["ess"] is not None for row in rows)]
    number = max(row["number"] for row in rows)
    figure = Figure(figsize=(9.0, 0.42 * len(names) + 1.6), layout="constrained")
    pane = figure.subplots()
    for k, case in enumerate(cases):
        for height, name in enumerate(names):
            group = [row for row in rows if (row["case"], row["method"], row["number"]) == (case, name, number)]
            point = mean_and_error(group, "ess") if group else None
            if point is not None:
                offset = height + 0.6 * (k - (len(cases) - 1) / 2) / len(cases)
                style = {"color": PALETTE[k % len(PALETTE)], "marker": MARKERS[k % len(MARKERS)], "linestyle": "none"}
                pane.plot(point[0], offset, label=case if height == 0 else None, **style)
    pane.set(xscale="log", xlabel=f"ESS/N at N = {number:,}", yticks=range(len(names)), yticklabels=names)
    pane.invert_yaxis()
    pane.grid(axis="x", alpha=0.25)
    pane.spines[["top", "right"]].set_visible(False)
    _legend(figure)
    return figure


def growth(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Seconds of exact sums against width and length."""
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    kinds = {"log_z_seconds": r"$\log Z$", "gradient_seconds": "all magnetisations", "sample_seconds": "1,000 samples"}
    by_width = sorted((row for row in rows if row["length"] == 32), key=lambda row: row["width"])
    by_length = sorted((row for row in rows if row["width"] == 8), key=lambda row: row["length"])
    for pane, found, axis in ((left, by_width, "width"), (right, by_length, "length")):
        for k, (kind, label) in enumerate(kinds.items()):
            points = [(row[axis], row[kind]) for row in found]
            pane.plot(*np.array(points).T, color=PALETTE[k], marker=MARKERS[k], label=label)
        pane.set(yscale="log", xlabel=axis)
        pane.grid(alpha=0.25)
        pane.spines[["top", "right"]].set_visible(False)
    widths = np.array([row["width"] for row in by_width])
    last = by_width[-1]
    left.plot(
        widths, last["log_z_seconds"] * 2.0 ** (widths - last["width"]), color="0.6", linestyle=":", label="$2^w$"
    )
    left.set(title="length 32", ylabel="seconds after compilation")
    right.set(title="width 8", xscale="log")
    right.set_xticks([row["length"] for row in by_length], [str(row["length"]) for row in by_length], minor=False)
    right.set_xticks([], minor=True)
    low = min(row[kind] for row in rows for kind in kinds)
    left.set_ylim(bottom=low / 2)
    _legend(figure)
    return figure


def path(model: df.Pairwise, steps: Sequence[int] = (0, 24, 60, 102, 144)) -> Figure:
    """One configuration as it is decided, with the exact magnetisations of the sites still open given those decided."""
    transfer = df.Transfer(model)
    values = transfer.sample(jax.random.key(3), 1).samples[0]
    side = round(model.num_sites**0.5)
    order = np.asarray(transfer.order)
    figure = Figure(figsize=(2.1 * len(steps) + 0.8, 2.9), layout="constrained")
    panes = figure.subplots(1, len(steps))
    for pane, step in zip(panes, steps):
        decided = jnp.zeros(model.num_sites, bool).at[order[:step]].set(True)
        clamp = jnp.where(decided, 50.0 * model.spins(values), 0.0)
        shown = df.Transfer(model.in_field(clamp)).magnetisations.reshape(side, side)
        image = pane.imshow(shown, cmap="RdBu_r", vmin=-1, vmax=1)
        row, column = divmod(step, side)
        edge = [(-0.5, row + 0.5), (column - 0.5, row + 0.5), (column - 0.5, row - 0.5), (side - 0.5, row - 0.5)]
        if 0 < step < model.num_sites:
            pane.plot(*np.array(edge if column else edge[2:]).T, color="black", linewidth=1.5)
        pane.set(xticks=[], yticks=[], xlim=(-0.5, side - 0.5), ylim=(side - 0.5, -0.5))
        pane.set_title(f"{step} decided", fontsize=10)
    figure.colorbar(image, ax=panes, shrink=0.8, label=r"$E[s_i \mid$ decided$]$")
    figure.suptitle("A path of decisions on a 12×12 glass: decided above the line, exact marginals below", fontsize=11)
    return figure


def _legend(figure: Figure) -> None:
    handles = {}
    for pane in figure.axes:
        for handle, label in zip(*pane.get_legend_handles_labels()):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
