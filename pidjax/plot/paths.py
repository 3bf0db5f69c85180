"""Paths: in the plane beside their weighted states, in one coordinate against time, and over their exact law."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

from .._doors.checks import check_count
from .._doors.show import shown
from .arguments import check_shape, check_some
from .style import BLACK, BLUE, GREEN, LINE_STYLES, ORANGE, PALETTE, RED, SKY, clean, dots_legend, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Evolution(NamedTuple):
    """One row of `evolution`: its label, and at each time the states x(t) and the weighted states x̂(t; x(t))."""

    label: str
    states: Float[Array, "times n 2"]
    weighted_states: Float[Array, "times n 2"]

    def __repr__(self):
        return shown("Evolution", **self._asdict())


class Bundle(NamedTuple):
    """One pane of `bundles`: paths (n, K+1, 2), the density of the state at T times, and lines drawn besides by name."""

    title: str
    paths: Float[Array, "n times 2"]
    density: Float[Array, "T ny nx"]
    lines: Mapping[str, Float[Array, "m 2"]]

    def __repr__(self):
        return shown("Bundle", title=self.title, paths=self.paths, density=self.density, lines=list(self.lines))


def evolution(rows: Sequence[Evolution], times: Sequence[float], exact: Float[Array, "m 2"]) -> "Figure":
    """Columns in time, one row for each setting: exact samples (grey), states x(t), weighted states x̂(t; x(t)).

    Args:
        rows: R settings, each with states and weighted states of shape (T, n, 2).
        times: the T times, in units of the horizon.
        exact: samples of the target, (m, 2).

    Raises:
        ValueError: no rows, or arrays of shapes that do not fit together.
        ImportError: matplotlib is missing.

    Example:
        >>> states = np.random.default_rng(0).normal(size=(2, 5, 2))
        >>> len(evolution([Evolution("β = 1", states, states)], [0.5, 1.0], states[0]).axes)
        2
    """
    check_some("rows", rows, Evolution)
    check_shape("exact", exact, ("m", 2))
    for row in rows:
        check_shape("states", row.states, (len(times), "n", 2))
        check_shape("weighted_states", row.weighted_states, np.shape(row.states))
    figure = new_figure(1.55 * len(times) + 0.6, 1.55 * len(rows) + 0.8)
    axes = np.atleast_2d(figure.subplots(len(rows), len(times), sharex=True, sharey=True, squeeze=False))
    low, high = np.percentile(exact, [0.2, 99.8], axis=0)
    margin = 0.12 * (high - low).max()
    for row, panes in zip(rows, axes, strict=True):
        for k, (time, pane) in enumerate(zip(times, panes, strict=True)):
            pane.scatter(*exact.T, s=2, color="0.82", linewidths=0, rasterized=True)
            pane.scatter(*row.states[k].T, s=5, color=SKY, alpha=0.6, linewidths=0, rasterized=True)
            pane.scatter(*row.weighted_states[k].T, s=1.4, color=RED, alpha=0.8, linewidths=0, rasterized=True)
            pane.set(xticks=[], yticks=[], xlim=(low[0] - margin, high[0] + margin), aspect="equal")
            pane.set_ylim(low[1] - margin, high[1] + margin)
            if pane in axes[0]:
                pane.set_title(f"$t$ = {time:g}", fontsize=10)
        panes[0].set_ylabel(row.label, fontsize=10)
    names = {"exact samples": "0.7", "state $x(t)$": SKY, r"weighted state $\hat{x}(t;\,x(t))$": RED}
    dots_legend(figure, names)
    return figure


def space_time(
    times: Float[Array, " times"],
    paths: Float[Array, "times n"],
    weighted_states: Float[Array, "times n"],
    exact: Float[Array, " m"],
    *,
    title: str = "",
    drawn: int = 60,
) -> "Figure":
    """Paths and their weighted states in one coordinate against time, beside the target's histogram.

    Args:
        times: t_k, (K+1,).
        paths: x(t_k) in one coordinate, (K+1, n); coloured by the third of the end points that they reach.
        weighted_states: x̂(t_k; x(t_k)) in the same coordinate, (K+1, n).
        exact: the same coordinate of samples of the target, (m,).
        drawn: how many of the n paths are drawn as lines; the histogram counts all.

    Raises:
        ValueError: arrays of shapes that do not fit together.
        ImportError: matplotlib is missing.

    Example:
        >>> times = np.linspace(0, 1, 3)
        >>> len(space_time(times, np.zeros((3, 4)), np.zeros((3, 4)), np.zeros(8)).axes)
        3
    """
    drawn = check_count("drawn", drawn)
    check_shape("times", times, ("K+1",))
    check_shape("paths", paths, (len(times), "n"))
    check_shape("weighted_states", weighted_states, np.shape(paths))
    check_shape("exact", exact, ("m",))
    figure = new_figure(10.0, 3.9)
    left, middle, right = figure.subplots(1, 3, sharey=True, width_ratios=(1.0, 1.0, 0.32))
    thirds = np.digitize(paths[-1], np.quantile(exact, [1 / 3, 2 / 3]))
    for j in range(min(drawn, paths.shape[1])):
        style = {"color": (BLUE, ORANGE, GREEN)[thirds[j]], "linewidth": 0.6, "alpha": 0.7}
        left.plot(times, paths[:, j], **style)
        middle.plot(times, weighted_states[:, j], **style)
    bins = np.histogram_bin_edges(np.concatenate([exact, paths[-1]]), 60)
    right.hist(exact, bins, density=True, orientation="horizontal", color="0.82", label="exact")
    right.hist(paths[-1], bins, density=True, orientation="horizontal", histtype="step", color=BLACK, label="$x(1)$")
    right.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=1, borderaxespad=0.2)
    right.set(xticks=[], xlabel="density")
    left.set(title="state $x(t)$", xlabel="$t$", ylabel="first coordinate", xlim=(0, 1))
    middle.set(title=r"weighted state $\hat{x}(t;\,x(t))$", xlabel="$t$", xlim=(0, 1))
    for pane in (left, middle, right):
        clean(pane)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def bundles(
    panes: Sequence[Bundle], x: Float[Array, " nx"], y: Float[Array, " ny"], times: Sequence[float], width: float = 10.0
) -> "Figure":
    """Paths in the plane over their exact law: at each of T times the contours that enclose half and 90 % of its mass.

    Args:
        panes: side by side, on the same axes.
        x, y: the lattice of the densities.
        times: the T times of the densities.
        width: of the figure, in inches; the height follows from the lattice.

    Raises:
        ValueError: no panes, more times than colours or lines than styles, or arrays of shapes that do not fit together.
        ImportError: matplotlib is missing.

    Example:
        >>> x = np.linspace(-3, 3, 21)
        >>> density = np.exp(-0.5 * (x[None, :, None] ** 2 + x[None, None] ** 2))
        >>> len(bundles([Bundle("start", np.zeros((4, 3, 2)), density, {})], x, x, [0.5]).axes)
        1
    """
    check_some("panes", panes, Bundle)
    check_shape("x", x, ("nx",))
    check_shape("y", y, ("ny",))
    names = list(dict.fromkeys(name for pane in panes for name in pane.lines))
    for bundle in panes:
        check_shape("paths", bundle.paths, ("n", "times", 2))
        check_shape("density", bundle.density, (len(times), len(y), len(x)))
        for name, line in bundle.lines.items():
            check_shape(f"lines[{name!r}]", line, ("m", 2))
    for name, values, most in (("times", times, len(PALETTE)), ("lines", names, len(LINE_STYLES))):
        if len(values) > most:
            raise ValueError(f"{name} has {len(values)} entries; pass at most {most}, which can be told apart")
    figure = new_figure(width, width / len(panes) * (y[-1] - y[0]) / (x[-1] - x[0]) + 0.9)
    from matplotlib.lines import Line2D

    styles = dict(zip(names, LINE_STYLES))
    axes = figure.subplots(1, len(panes), sharex=True, sharey=True, squeeze=False)[0]
    for bundle, pane in zip(panes, axes, strict=True):
        for path in bundle.paths:
            pane.plot(*path.T, color="0.55", linewidth=0.3, alpha=0.5)
        for name, line in bundle.lines.items():
            pane.plot(*line.T, color=BLACK, linewidth=1.0, linestyle=styles[name])
        for density, colour in zip(bundle.density, PALETTE):
            pane.contour(x, y, density, levels=_enclosing(density), colors=colour, linewidths=(0.9, 1.6), zorder=3)
        pane.set(title=bundle.title, aspect="equal", xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
        clean(pane)
    lines = [Line2D([], [], color=colour) for colour, _ in zip(PALETTE, times)]
    lines += [Line2D([], [], color=BLACK, linewidth=1.0, linestyle=style) for style in styles.values()]
    labels = [*(f"$t$ = {time:g}" for time in times), *styles]
    figure.legend(lines, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    return figure


def _enclosing(density: Float[Array, "ny nx"]) -> list[float]:
    """The values of a density above which lie 90 % and half of its mass."""
    ordered = np.sort(density, axis=None)[::-1]
    return [float(ordered[np.searchsorted(np.cumsum(ordered), mass * ordered.sum())]) for mass in (0.9, 0.5)]
