"""The figure of the suite: ELBO and EUBO less log Z while networks learn, against evaluations in all."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pidjax.plot import MARKERS, PALETTE

from .methods import HPID, METHODS, MOMENT

TRAINED = [name for name in METHODS if name not in (HPID, MOMENT)]
STYLES = {name: (PALETTE[i % 8], MARKERS[(i + i // 8) % 8]) for i, name in enumerate(TRAINED)}
RESOLVED = 0.01
"""Gaps below this are on a linear scale."""


def draw(results: Mapping[str, Any], out: Path) -> None:
    """neural.png, once there is a row to show."""
    rows = [row for row in results.get("rows", []) if row["error"] is None and row["reason"] is None]
    log_z = {target["target"]: target["log_z"] for target in results["targets"] if target["error"] is None}
    if rows:
        learning_curves(rows, log_z).savefig(out / "neural.png", dpi=150)


def learning_curves(rows: Sequence[Mapping[str, Any]], log_z: Mapping[str, float]) -> Figure:
    """One panel for each target, one line for each seed: solid the ELBO, from below, dashed the EUBO, from above."""
    names = [name for name in log_z if any(row["target"] == name for row in rows)]
    columns = min(len(names), 3)
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(4.4 * columns + 0.4, 3.5 * lines + 1.2), layout="constrained")
    panes = figure.subplots(lines, columns, squeeze=False).ravel()
    for pane, name in zip(panes, names):
        _panel(pane, [row for row in rows if row["target"] == name], log_z[name])
        pane.set_title(name, fontsize=11)
    for pane in panes[len(names) :]:
        pane.remove()
    for pane in panes[: len(names)][-columns:]:
        pane.set_xlabel("evaluations of the log-density or its gradient")
    for pane in panes[::columns]:
        pane.set_ylabel("nats above log Z")
    figure.legend(
        handles=_handles(rows), loc="outside lower center", ncols=min(4, columns + 1), frameon=False, fontsize=9
    )
    return figure


def _panel(pane, rows: Sequence[Mapping[str, Any]], log_z: float) -> None:
    pane.axhline(0, color="0.4", linewidth=0.8)
    for row in rows:
        for column, line_style in (("elbo", "-"), ("eubo", "--")):
            if row["method"] in STYLES:
                colour, marker = STYLES[row["method"]]
                points = [(x, y) for x, y in zip(row["curve"]["evaluations"], row["curve"].get(column, [])) if x > 0]
                if points:
                    x, y = np.array(points).T
                    shown = {"color": colour, "linewidth": 1.1, "alpha": 0.85}
                    pane.plot(x, y - log_z, linestyle=line_style, **shown)
                    pane.plot(x[-1], y[-1] - log_z, marker=marker, markersize=5, **shown)
            elif row[column] is not None:
                spent = row["energy_evaluations"] + row["gradient_evaluations"]
                face = "black" if row["method"] == HPID else "white"
                pane.plot(spent, row[column] - log_z, "*", color="black", markerfacecolor=face, markersize=10, zorder=4)
    pane.set_xscale("log")
    pane.set_yscale("symlog", linthresh=RESOLVED)
    pane.grid(alpha=0.25)
    pane.spines[["top", "right"]].set_visible(False)


def _handles(rows: Sequence[Mapping[str, Any]]) -> list[Line2D]:
    present = {row["method"] for row in rows}
    handles = [
        Line2D([], [], linestyle="", marker="*", markersize=10, color="black", markerfacecolor=face, label=name)
        for name, face in ((HPID, "black"), (MOMENT, "white"))
        if name in present
    ]
    handles += [
        Line2D([], [], color=colour, marker=marker, markersize=5, label=name)
        for name, (colour, marker) in STYLES.items()
        if name in present
    ]
    return [
        *handles,
        Line2D([], [], color="0.3", linestyle="-", label="ELBO, below"),
        Line2D([], [], color="0.3", linestyle="--", label="EUBO, above"),
    ]
