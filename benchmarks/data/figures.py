"""The figures of the suite."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from pidjax import plot
from pidjax.plot import MARKERS, PALETTE, Curve, Film, Order

from .report import Rows

K = "signal-to-noise ratio $K$"


def draw(results: Mapping[str, Rows], out: Path) -> None:
    """Every figure as a PNG."""
    makers = {
        "data-order": (lambda: order(results), "curves"),
        "data-betas": (lambda: betas(results), "betas"),
        "data-uturns": (lambda: uturns(results), "uturns"),
        "data-exits": (lambda: exits(results), "exits"),
        "data-finite-size": (lambda: finite(results["gaussians"]), "gaussians"),
        "data-nine": (lambda: nine(results["nine"]), "nine"),
        "data-universal": (lambda: universal(results["universal"]), "universal"),
    }
    for name, (make, needs) in makers.items():
        if results[needs]:
            make().savefig(out / f"{name}.png", dpi=150)
            print(f"figure {out / name}.png", flush=True)
    for data in dict.fromkeys(row["data"] for row in results["films"]):
        films([row for row in results["films"] if row["data"] == data]).savefig(out / f"data-film-{data}.png", dpi=150)
        print(f"figure {out}/data-film-{data}.png", flush=True)
    for data in dict.fromkeys(row["data"] for row in results["generated"]):
        own = [row for row in results["generated"] if row["data"] == data]
        generated(own).savefig(out / f"data-generated-{data}.png", dpi=150)
        print(f"figure {out}/data-generated-{data}.png", flush=True)


def curve(x: Sequence[float], estimate: Sequence[Sequence[float]], scale: float = 1.0) -> Curve:
    """A value with two standard errors to either side."""
    middle, error = (np.array(part) * scale for part in estimate)
    return Curve(np.array(x), middle, middle - 2 * error, middle + 2 * error)


def order(results: Mapping[str, Rows]) -> Figure:
    """Entropies, agreements and autocorrelation against K, a row for each data set: points score-based diffusion."""
    panes, points = [], []
    for about in results["theory"]:
        own = {row["process"]: row for row in results["curves"] if row["data"] == about["data"]}
        if not {"H-PID", "score-based"} <= set(own):
            continue
        marks = {"$1/\\Lambda$": about["speciation"], "$1/\\Lambda$ between classes": about["speciation_between"]}
        marks |= {"spectral collapse": about["collapse"]}
        at_first = {"datum": 1 / np.log(about["count"]), "class": 1 / np.log(about["classes"])}
        parts = {
            "entropy / at the start": {name: (f"{name}_entropy", scale) for name, scale in at_first.items()},
            "agreement of two ends": {name: (f"{name}_agreement", 1.0) for name in at_first},
            "autocorrelation": {r"$\hat{x}$ with the end": ("weighted_state", 1.0)},
        }
        for label, named in parts.items():
            line, dots = (
                {
                    name: curve(own[process]["snr"], own[process][column], scale)
                    for name, (column, scale) in named.items()
                }
                for process in ("H-PID", "score-based")
            )
            panes.append(Order(f"{about['data']}: lines H-PID, points score-based", K, label, line, marks))
            points.append(dots)
    figure = plot.order_parameters(panes)
    names = list(dict.fromkeys(name for pane in panes for name in pane.curves))
    for pane, dots in zip(figure.axes, points, strict=True):
        for name, dot in dots.items():
            number = names.index(name)
            shown = {"color": PALETTE[number], "marker": MARKERS[number], "markersize": 3.5, "linestyle": ""}
            pane.errorbar(dot.x[::2], dot.middle[::2], (dot.high - dot.middle)[::2], elinewidth=1, **shown)
    return figure


def uturns(results: Mapping[str, Rows]) -> Figure:
    """Simulated U-turns as points over the laws' own curves."""
    panes, points = [], []
    for row in results["uturns"]:
        laws = next(one for one in results["curves"] if one["data"] == row["data"] and one["process"] == "bridges")
        about = next(one for one in results["theory"] if one["data"] == row["data"])
        datum, label = (curve(laws["snr"], laws[name]) for name in ("datum_agreement", "class_agreement"))
        named = {"new": datum, "same class": label, "same datum": datum}
        named["new"] = Curve(datum.x, 1 - datum.middle, 1 - datum.high, 1 - datum.low)
        marks = {"$1/\\Lambda$ between classes": about["speciation_between"], "spectral collapse": about["collapse"]}
        panes.append(Order(row["data"], K + " at the turn", "share of ends", named, marks))
        same, error = np.array(row["datum"])
        points.append({"new": (1 - same, error), "same class": row["label"], "same datum": (same, error)})
    figure = plot.order_parameters(panes)
    for pane, row, of_row in zip(figure.axes, results["uturns"], points, strict=True):
        for number, (value, error) in enumerate(of_row.values()):
            shown = {"color": PALETTE[number], "marker": MARKERS[number], "markersize": 4}
            pane.errorbar(row["snr"], value, 2 * np.array(error), linestyle="", elinewidth=1, **shown)
    return figure


def exits(results: Mapping[str, Rows]) -> Figure:
    """How often the end is told from x̂, and how far off what one gets is, against K."""
    panes = [
        Order(
            row["data"],
            K + " of the exit",
            "share of paths",
            {
                "class told": curve(row["snr"], row["label"]),
                "datum told": curve(row["snr"], row["datum"]),
                r"squared distance to the end / 2 tr Cov": curve(row["snr"], row["change"], 0.5),
            },
        )
        for row in results["exits"]
    ]
    return plot.order_parameters(panes)


def betas(results: Mapping[str, Rows]) -> Figure:
    """Times of the transitions against β, with what the theory's K makes of them."""
    names = list(dict.fromkeys(row["data"] for row in results["betas"]))
    figure = Figure(figsize=(3.9 * len(names) + 0.4, 3.6), layout="constrained")
    parts = {"half": r"$\hat{A}$ = ½", "speciation": "class decided", "memorisation": "datum decided"}
    for name, pane in zip(names, figure.subplots(1, len(names), sharey=True, squeeze=False)[0], strict=True):
        rows = [row for row in results["betas"] if row["data"] == name]
        places = np.arange(len(rows))
        for number, (part, label) in enumerate(parts.items()):
            times = [row[f"{part}_time"] for row in rows]
            values, errors = (times, np.zeros(len(times))) if part == "half" else np.array(times).T
            shown = {"color": PALETTE[number], "marker": MARKERS[number], "markersize": 5, "linewidth": 1.2}
            pane.errorbar(places, values, 2 * np.array(errors), label=label, **shown)
        pane.set(title=name, xlabel=r"$\beta$", yscale="log")
        pane.set_xticks(places, [f"{row['beta']:g}" for row in rows])
        pane.grid(color="0.93", linewidth=0.6)
        pane.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("time of the transition")
    ticks = [tick for tick in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0) if tick > figure.axes[0].get_ylim()[0]]
    figure.axes[0].set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    figure.axes[0].minorticks_off()
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def finite(rows: Rows) -> Figure:
    """Measured over theory's K against log n, a line for each dimension; and what a random-energy estimate makes of it."""
    figure = Figure(figsize=(8.6, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    counts, dims = ([row[part] for row in rows] for part in ("count", "dim"))
    often = max(set(counts), key=counts.count)
    _finite_line(left, [row for row in rows if row["count"] == often], "dim", PALETTE[0], f"$n$ = {often:,}")
    several = [dim for dim in dict.fromkeys(dims) if dims.count(dim) > 1]
    for number, dim in enumerate(several):
        own = sorted((row for row in rows if row["dim"] == dim), key=lambda row: row["count"])
        _finite_line(right, own, "count", PALETTE[number + 1], f"$d$ = {dim}")
    left.set(xlabel="dimension $d$", ylabel="$K$ of the datum, measured / collapse")
    right.set(xlabel="number of points $n$")
    for pane in (left, right):
        pane.axhline(1, color="0.5", linewidth=0.8)
        pane.plot([], [], color="0.4", linewidth=1, linestyle="--", label="random-energy estimate")
        pane.legend(frameon=False, fontsize=8.5, loc="upper left", ncols=2)
        pane.set_ylim(top=1.08)
        pane.grid(color="0.93", linewidth=0.6)
        pane.spines[["top", "right"]].set_visible(False)
    return figure


def _finite_line(pane, rows: Rows, axis: str, colour: str, label: str) -> None:
    x, (values, errors) = [row[axis] for row in rows], np.array([row["ratio"] for row in rows]).T
    pane.set_xscale("log", base=2)
    pane.set_xticks(x, [f"{value:,}" for value in x])
    pane.errorbar(x, values, 2 * errors, color=colour, marker="o", markersize=5, linestyle="", label=label)
    pane.plot(x, [row["expected"] for row in rows], color=colour, linewidth=1, linestyle="--")


def nine(rows: Rows) -> Figure:
    """Â(t) of the nine Gaussians at several β, and when it is ½: for σ = 1 and in the rescaled problem."""
    figure = Figure(figsize=(11.0, 3.5), layout="constrained")
    panes = figure.subplots(1, 3)
    for pane, rescaled in zip(panes[:2], (False, True), strict=True):
        own = [row for row in rows if row["rescaled"] == rescaled and row["beta"] in (0, 0.1, 1, 10, 100)]
        for number, row in enumerate(own):
            pane.plot(row["times"], row["curve"], color=PALETTE[number], label=rf"$\beta$ = {row['beta']:g}")
        pane.set(title="rescaled" if rescaled else r"$\sigma$ = 1", xlabel="$t$", ylabel=r"$\hat{A}(t)$")
        pane.legend(frameon=False, fontsize=8)
        own = [row for row in rows if row["rescaled"] == rescaled]
        colour, label = (PALETTE[1], "rescaled") if rescaled else (PALETTE[0], r"$\sigma$ = 1")
        x = np.arange(len(own))
        panes[2].set_xticks(x, [f"{row['beta']:g}" for row in own])
        panes[2].plot(
            x, [row["time"] for row in own], color=colour, marker="o", markersize=4, label=f"{label}: $t$ at ½"
        )
        duration = [row["duration"] for row in own]
        panes[2].plot(
            x, duration, color=colour, marker="s", markersize=4, linestyle="--", label=f"{label}: from 0.1 to 0.9"
        )
    panes[2].set(xlabel=r"$\beta$", ylabel="time", ylim=(0, 1.45))
    panes[2].legend(frameon=False, fontsize=8, loc="upper left")
    for pane in panes:
        pane.spines[["top", "right"]].set_visible(False)
        pane.grid(color="0.93", linewidth=0.6)
    return figure


def universal(rows: Rows) -> Figure:
    """Universal importance sampling: W2 and ESS against steps and against draws, a line for each β, and the floor."""
    figure = Figure(figsize=(8.6, 5.8), layout="constrained")
    panes = figure.subplots(2, 2, sharex="col", sharey="row")
    axes = {
        "num_steps": ("Euler steps, 256 draws", "num_draws", 256),
        "num_draws": ("draws, 100 steps", "num_steps", 100),
    }
    for column, (axis, (label, other, fixed)) in zip(panes.T, axes.items(), strict=True):
        for number, beta in enumerate(dict.fromkeys(row["beta"] for row in rows)):
            own = sorted(
                (row for row in rows if row["beta"] == beta and row[other] == fixed), key=lambda row: row[axis]
            )
            shown = {"color": PALETTE[number], "marker": MARKERS[number], "markersize": 4, "linewidth": 1.2}
            for pane, name in zip(column, ("distance", "ess"), strict=True):
                values = np.array([row[name] for row in own])
                error = 2 * values.std(axis=1, ddof=1) / values.shape[1] ** 0.5
                pane.errorbar(
                    [row[axis] for row in own], values.mean(axis=1), error, label=rf"$\beta$ = {beta:g}", **shown
                )
        middle, spread = rows[0]["floor"]
        column[0].axhspan(middle - spread, middle + spread, color="0.9", label="exact samples ± sd")
        column[1].set(xlabel=label, xscale="log", ylim=(0, 1))
        ticks = sorted({row[axis] for row in rows})
        column[1].set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        column[1].minorticks_off()
        for pane in column:
            pane.grid(color="0.93", linewidth=0.6)
            pane.spines[["top", "right"]].set_visible(False)
    panes[0, 0].set(ylabel="W2 of the ends", ylim=(0, None))
    panes[1, 0].set_ylabel("ESS/N")
    handles, labels = panes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def generated(rows: Rows) -> Figure:
    """What each method made, with the nearest datum of each beneath it; held-out images last."""
    named = {"held out": rows[0]["held_out"]}
    for row in reversed(rows):
        named = {row["method"]: row["made"], f"nearest to these, {row['method']}": row["nearest"]} | named
    names = ["its nearest datum" if name.startswith("nearest") else name for name in named]
    return plot.image_grid(np.array(list(named.values())) / 255, rows=names, width=8.0)


def films(rows: Rows) -> Figure:
    """x̂ above and x below, columns in time, for each β."""
    strips = [
        Film(rf"$\beta$ = {row['beta']:g}", np.array(row["states"]), np.array(row["weighted_states"])) for row in rows
    ]
    return plot.film(strips, rows[0]["times"])
