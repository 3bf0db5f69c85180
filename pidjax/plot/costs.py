"""Quality against cost: one marker for each method."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .._doors.checks import check_kind
from .arguments import check_shape, check_some
from .style import MARKERS, PALETTE, clean, new_figure, round_ticks

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def quality_cost(
    points: Mapping[str, Mapping[str, tuple[float, float]]],
    methods: Sequence[str],
    *,
    xlabel: str,
    ylabel: str,
    floor: float | None = None,
) -> "Figure":
    """One pane for each target, one marker for each method at (cost, distance), both logarithmic; lower left is better.

    Args:
        points: target → method → (cost, distance).
        methods: every method's name; its place in this order gives it colour and marker, in every pane and figure.
        floor: the distance of exact samples, drawn as a line.

    Raises:
        ValueError: no points, a method that `methods` does not name, or a mark that is not (cost, distance).
        ImportError: matplotlib is missing.

    Example:
        >>> len(quality_cost({"nine": {"H-PID": (1.0, 2.0)}}, ["H-PID"], xlabel="seconds", ylabel="distance").axes)
        1
    """
    check_kind("points", points, Mapping, "a mapping of targets to mappings of methods to (cost, distance)")
    check_some("the values of points", list(points.values()), Mapping)
    for marks in points.values():
        for method, mark in marks.items():
            if method not in methods:
                raise ValueError(f"points has the method {method!r}, which methods does not name; pass all of them")
            check_shape(f"the mark of {method!r}", mark, (2,))
    width = max(2.45 * len(points) + 0.5, 7.5)
    figure = new_figure(width, 3.9)
    panes = figure.subplots(1, len(points), sharex=True, sharey=True, squeeze=False)[0]
    handles = {}
    for (target, marks), pane in zip(points.items(), panes, strict=True):
        for method, (cost, distance) in marks.items():
            i = methods.index(method)
            face = PALETTE[i % 8] if i < 8 else "white"
            style = {"s": 52, "marker": MARKERS[i % 8], "facecolor": face, "edgecolor": PALETTE[i % 8]}
            handles[method] = pane.scatter(cost, distance, linewidths=1.2, zorder=3, alpha=0.9, **style)
        if floor is not None:
            pane.axhline(floor, color="0.5", linestyle="--", linewidth=0.9)
        pane.set(xscale="log", yscale="log", title=target)
        pane.margins(0.18)
        pane.grid(color="0.92", linewidth=0.6, which="major")
        pane.set_axisbelow(True)
        clean(pane)
    for pane in panes:
        round_ticks(pane)
    panes[0].set_ylabel(ylabel)
    figure.supxlabel(xlabel, fontsize=10)
    shown = [method for method in methods if method in handles]
    where = {"loc": "outside upper center", "ncols": min(len(shown), int(width / 2.9))}
    figure.legend([handles[method] for method in shown], shown, frameon=False, fontsize=9, **where)
    return figure
