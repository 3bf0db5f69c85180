"""What all figures share: colours, told apart by every eye (Okabe and Ito), marks, axes and legends."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from .._doors.extras import load

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW, BLACK = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#B8A800",
    "#000000",
)
PALETTE = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY, YELLOW, BLACK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINE_STYLES = ("--", "-", ":", "-.")


def new_figure(width: float, height: float) -> "Figure":
    matplotlib = load("matplotlib.figure", user="pidjax.plot", package="matplotlib", extra="plot")
    return matplotlib.Figure(figsize=(width, height), layout="constrained", dpi=160)


def clean(pane: "Axes") -> None:
    pane.spines[["top", "right"]].set_visible(False)
    pane.tick_params(labelsize=8)
    pane.title.set_fontsize(10)


def round_ticks(pane: "Axes") -> None:
    """Plain numbers at 1, 10, 100 …, and at 2 and 5 times these where an axis spans little; none that collide."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for axis, (low, high) in ((pane.xaxis, pane.get_xlim()), (pane.yaxis, pane.get_ylim())):
        decades = np.log10(high / low)
        multiples = (1.0, 2.0, 5.0) if decades < 1.6 else (1.0, 3.0) if decades < 2.6 else (1.0,)
        axis.set_major_locator(LogLocator(subs=multiples, numticks=8))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if 1e-3 < value < 1e3 else _power(value)))
        axis.set_minor_formatter(NullFormatter())


def _power(value: float) -> str:
    exponent = int(np.floor(np.log10(value) + 1e-9))
    first = round(value / 10.0**exponent)
    return f"$10^{{{exponent}}}$" if first == 1 else f"${first}\\times10^{{{exponent}}}$"


def dots_legend(figure: "Figure", names: Mapping[str, str]) -> None:
    from matplotlib.lines import Line2D

    dots = [Line2D([], [], linestyle="", marker="o", markersize=5, color=colour) for colour in names.values()]
    figure.legend(dots, list(names), loc="outside lower center", ncols=len(names), frameon=False, fontsize=10)
