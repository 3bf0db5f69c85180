"""Curves with their spread: quality against effort, and order parameters against the signal-to-noise ratio."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

from .._doors.checks import check_count
from .._doors.show import shown
from .arguments import check_shape, check_some
from .style import LINE_STYLES, MARKERS, PALETTE, clean, new_figure, round_ticks

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Curve(NamedTuple):
    """One line of `convergence`: at each x the middle and the ends of its spread over seeds."""

    x: Float[Array, " points"]
    middle: Float[Array, " points"]
    low: Float[Array, " points"]
    high: Float[Array, " points"]

    def __repr__(self):
        return shown("Curve", **self._asdict())


class Panel(NamedTuple):
    """One pane of `convergence`: what is plotted against what, and the band that exact samples reach (or None)."""

    title: str
    xlabel: str
    ylabel: str
    curves: Mapping[str, Curve]
    floor: tuple[float, float] | None = None


class Order(NamedTuple):
    """One pane of `order_parameters`: curves with their spread, and places on the axis, by name."""

    title: str
    xlabel: str
    ylabel: str
    curves: Mapping[str, Curve]
    marks: Mapping[str, float] = {}

    def __repr__(self):
        return shown("Order", title=self.title, curves=list(self.curves), marks=list(self.marks))


def convergence(panels: Sequence[Panel]) -> "Figure":
    """Quality against effort on logarithmic axes, one pane each: middle and spread over seeds, and the sampling floor.

    Raises:
        ValueError: no panels, or a curve of several lengths.
        ImportError: matplotlib is missing.

    Example:
        >>> ones = np.ones(2)
        >>> panel = Panel("nine", "steps", "distance", {"euler": Curve(np.array([1, 2]), ones, ones, ones)}, (0.5, 0.1))
        >>> len(convergence([panel]).axes)
        1
    """
    check_some("panels", panels, Panel)
    for panel in panels:
        _check_curves(panel.curves)
    figure = new_figure(4.3 * len(panels), 3.7)
    names = list(dict.fromkeys(name for panel in panels for name in panel.curves))
    styles = {name: (PALETTE[i % 8], MARKERS[i % 8]) for i, name in enumerate(names)}
    for panel, pane in zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True):
        if panel.floor is not None:
            middle, spread = panel.floor
            pane.axhspan(max(middle - spread, 1e-12), middle + spread, color="0.88", label="exact samples ± sd")
            pane.axhline(middle, color="0.5", linewidth=0.8)
        for name, curve in panel.curves.items():
            colour, marker = styles[name]
            pane.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
            pane.plot(curve.x, curve.middle, color=colour, marker=marker, markersize=4.5, linewidth=1.3, label=name)
        pane.set(xscale="log", yscale="log", title=panel.title, xlabel=panel.xlabel, ylabel=panel.ylabel)
        pane.legend(frameon=False, fontsize=8)
        clean(pane)
        round_ticks(pane)
    return figure


def order_parameters(panes: Sequence[Order], *, columns: int = 3) -> "Figure":
    """Order parameters against the signal-to-noise ratio, on a logarithmic axis, and where theory says that they turn.

    Args:
        panes: row by row. A curve has one colour in all panes, as has a mark one style.
        columns: panes in a row.

    Raises:
        ValueError: no panes, more marks than line styles, or a curve of several lengths.
        ImportError: matplotlib is missing.

    Example:
        >>> x = np.array([0.1, 1.0, 10.0])
        >>> pane = Order("digits", "K", "entropy", {"datum": Curve(x, 1 / x, 1 / x, 1 / x)}, {"collapse": 2.0})
        >>> len(order_parameters([pane]).axes)
        1
    """
    check_some("panes", panes, Order)
    columns = min(check_count("columns", columns), len(panes))
    names = list(dict.fromkeys(name for pane in panes for name in pane.curves))
    marks = list(dict.fromkeys(name for pane in panes for name in pane.marks))
    if len(marks) > len(LINE_STYLES):
        raise ValueError(f"panes have {len(marks)} marks; pass at most {len(LINE_STYLES)}, which can be told apart")
    for pane in panes:
        _check_curves(pane.curves)
    rows = -(-len(panes) // columns)
    figure = new_figure(3.6 * columns + 0.3, 2.9 * rows + 0.7)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    handles = {}
    for order, pane in zip(panes, axes):
        for name, place in order.marks.items():
            style = (":", "-.", "--", "-")[marks.index(name)]
            handles[name] = pane.axvline(place, color="0.45", linewidth=1.0, linestyle=style, zorder=1)
        for name, curve in order.curves.items():
            colour = PALETTE[names.index(name) % 8]
            pane.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.2, linewidth=0)
            handles[name] = pane.plot(curve.x, curve.middle, color=colour, linewidth=1.4)[0]
        pane.set(title=order.title, xlabel=order.xlabel, ylabel=order.ylabel)
        pane.set_xscale("log")
        pane.grid(color="0.93", linewidth=0.6)
        clean(pane)
    for pane in axes[len(panes) :]:
        pane.remove()
    listed = [*names, *marks]
    where = {"loc": "outside lower center", "ncols": min(len(listed), max(2, int(1.6 * columns)))}
    figure.legend([handles[name] for name in listed], listed, frameon=False, fontsize=9, **where)
    return figure


def _check_curves(curves: Mapping[str, Curve]) -> None:
    for name, curve in curves.items():
        for field, values in curve._asdict().items():
            check_shape(f"{field} of {name!r}", values, ("points",) if field == "x" else np.shape(curve.x))
