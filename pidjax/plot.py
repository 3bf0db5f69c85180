"""Figures: what the sampler does, and how well. The only file that needs matplotlib, imported where it is used.

Every function takes arrays and gives back a `matplotlib.figure.Figure`, made without pyplot: nothing global is touched,
nothing is shown. The colours are Okabe and Ito's, told apart by every eye; each series has a marker of its own besides.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

from ._doors.checks import check_count, check_kind
from ._doors.extras import load
from ._doors.show import shown

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


class Evolution(NamedTuple):
    """One row of `evolution`: its label, and at each time the states x(t) and the weighted states x̂(t; x(t))."""

    label: str
    states: Float[Array, "times n 2"]
    weighted_states: Float[Array, "times n 2"]

    def __repr__(self):
        return shown("Evolution", **self._asdict())


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


class Bundle(NamedTuple):
    """One pane of `bundles`: paths (n, K+1, 2), the density of the state at T times, and lines drawn besides by name."""

    title: str
    paths: Float[Array, "n times 2"]
    density: Float[Array, "T ny nx"]
    lines: Mapping[str, Float[Array, "m 2"]]

    def __repr__(self):
        return shown("Bundle", title=self.title, paths=self.paths, density=self.density, lines=list(self.lines))


class Film(NamedTuple):
    """One strip of `film`: its label, and at each time an image x(t) and its weighted state x̂(t; x(t))."""

    label: str
    states: Float[Array, "times h w c"]
    weighted_states: Float[Array, "times h w c"]

    def __repr__(self):
        return shown("Film", **self._asdict())


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
    _check_some("rows", rows, Evolution)
    _check_shape("exact", exact, ("m", 2))
    for row in rows:
        _check_shape("states", row.states, (len(times), "n", 2))
        _check_shape("weighted_states", row.weighted_states, np.shape(row.states))
    figure = _figure(1.55 * len(times) + 0.6, 1.55 * len(rows) + 0.8)
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
    _dots_legend(figure, names)
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
    _check_shape("times", times, ("K+1",))
    _check_shape("paths", paths, (len(times), "n"))
    _check_shape("weighted_states", weighted_states, np.shape(paths))
    _check_shape("exact", exact, ("m",))
    figure = _figure(10.0, 3.9)
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
        _clean(pane)
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
    _check_some("panes", panes, Bundle)
    _check_shape("x", x, ("nx",))
    _check_shape("y", y, ("ny",))
    names = list(dict.fromkeys(name for pane in panes for name in pane.lines))
    for bundle in panes:
        _check_shape("paths", bundle.paths, ("n", "times", 2))
        _check_shape("density", bundle.density, (len(times), len(y), len(x)))
        for name, line in bundle.lines.items():
            _check_shape(f"lines[{name!r}]", line, ("m", 2))
    for name, values, most in (("times", times, len(PALETTE)), ("lines", names, len(LINE_STYLES))):
        if len(values) > most:
            raise ValueError(f"{name} has {len(values)} entries; pass at most {most}, which can be told apart")
    figure = _figure(width, width / len(panes) * (y[-1] - y[0]) / (x[-1] - x[0]) + 0.9)
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
        _clean(pane)
    lines = [Line2D([], [], color=colour) for colour, _ in zip(PALETTE, times)]
    lines += [Line2D([], [], color=BLACK, linewidth=1.0, linestyle=style) for style in styles.values()]
    labels = [*(f"$t$ = {time:g}" for time in times), *styles]
    figure.legend(lines, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    return figure


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
    _check_some("panels", panels, Panel)
    for panel in panels:
        for name, curve in panel.curves.items():
            for field, values in curve._asdict().items():
                _check_shape(f"{field} of {name!r}", values, ("points",) if field == "x" else np.shape(curve.x))
    figure = _figure(4.3 * len(panels), 3.7)
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
        _clean(pane)
        _round_ticks(pane)
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
    _check_some("panes", panes, Order)
    columns = min(check_count("columns", columns), len(panes))
    names = list(dict.fromkeys(name for pane in panes for name in pane.curves))
    marks = list(dict.fromkeys(name for pane in panes for name in pane.marks))
    if len(marks) > len(LINE_STYLES):
        raise ValueError(f"panes have {len(marks)} marks; pass at most {len(LINE_STYLES)}, which can be told apart")
    for pane in panes:
        for name, curve in pane.curves.items():
            for field, values in curve._asdict().items():
                _check_shape(f"{field} of {name!r}", values, ("points",) if field == "x" else np.shape(curve.x))
    rows = -(-len(panes) // columns)
    figure = _figure(3.6 * columns + 0.3, 2.9 * rows + 0.7)
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
        _clean(pane)
    for pane in axes[len(panes) :]:
        pane.remove()
    listed = [*names, *marks]
    where = {"loc": "outside lower center", "ncols": min(len(listed), max(2, int(1.6 * columns)))}
    figure.legend([handles[name] for name in listed], listed, frameon=False, fontsize=9, **where)
    return figure


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
    _check_some("the values of points", list(points.values()), Mapping)
    for marks in points.values():
        for method, mark in marks.items():
            if method not in methods:
                raise ValueError(f"points has the method {method!r}, which methods does not name; pass all of them")
            _check_shape(f"the mark of {method!r}", mark, (2,))
    width = max(2.45 * len(points) + 0.5, 7.5)
    figure = _figure(width, 3.9)
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
        _clean(pane)
    for pane in panes:
        _round_ticks(pane)
    panes[0].set_ylabel(ylabel)
    figure.supxlabel(xlabel, fontsize=10)
    shown = [method for method in methods if method in handles]
    where = {"loc": "outside upper center", "ncols": min(len(shown), int(width / 2.9))}
    figure.legend([handles[method] for method in shown], shown, frameon=False, fontsize=9, **where)
    return figure


def image_grid(
    images: Float[Array, "rows columns h w c"],
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    title: str = "",
    width: float = 8.0,
) -> "Figure":
    """Images in rows and columns, in grey of one channel and in colour of three; 0 is black and 1 white, and beyond is cut.

    Args:
        images: shape (rows, columns, h, w, c). One that holds NaN is left blank.
        rows, columns: what they are, if it is to be said.
        width: of the figure, in inches; the height follows from the images.

    Raises:
        ValueError: images of another shape, or names of another number than rows or columns.
        ImportError: matplotlib is missing.

    Example:
        >>> len(image_grid(np.zeros((2, 3, 8, 8, 1)), rows=("x̂", "x")).axes)
        6
    """
    _check_images("images", images, ("rows", "columns"))
    for name, said, count in (("rows", rows, images.shape[0]), ("columns", columns, images.shape[1])):
        if len(said) not in (0, count):
            raise ValueError(f"{name} has {len(said)} names, of {count} {name} of images; pass one for each, or none")
    number_of_rows, number_of_columns, high, wide, _ = images.shape
    longest = max((len(line) for said in rows for line in said.splitlines()), default=0)
    side = (width - 0.07 * longest) / number_of_columns
    height = side * number_of_rows * high / wide + 0.3 * bool(columns) + 0.35 * bool(title)
    figure = _figure(width, height)
    figure.set_layout_engine("constrained", w_pad=0.015, h_pad=0.015, wspace=0, hspace=0)
    panes = figure.subplots(number_of_rows, number_of_columns, squeeze=False)
    for row, across in zip(images, panes, strict=True):
        for image, pane in zip(row, across, strict=True):
            _show(pane, image)
    for said, across in zip(rows, panes):
        across[0].set_ylabel(said, fontsize=9, rotation=0, ha="right", va="center")
    for said, pane in zip(columns, panes[0]):
        pane.set_title(said, fontsize=9, pad=3)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def film(strips: Sequence[Film], times: Sequence[float], *, width: float = 10.0) -> "Figure":
    """Columns in time, two rows for each strip: the weighted states x̂(t; x(t)) above, the states x(t) below.

    A state is shown on its own scale, from its mean less 2.5 to its mean plus 2.5 standard deviations; x̂ from 0 to 1.

    Args:
        strips: one or several paths, in images of one shape.
        times: the T times, in units of the horizon.
        width: of the figure, in inches.

    Raises:
        ValueError: no strips, or arrays of shapes that do not fit together.
        ImportError: matplotlib is missing.

    Example:
        >>> states = np.random.default_rng(0).normal(size=(2, 8, 8, 1))
        >>> len(film([Film("β = 1", states, states)], [0.5, 1.0]).axes)
        4
    """
    _check_some("strips", strips, Film)
    for strip in strips:
        _check_images("states", strip.states, (len(times),))
        _check_shape("weighted_states", strip.weighted_states, np.shape(strip.states))
        _check_shape("states", strip.states, np.shape(strips[0].states))
    shown = [row for strip in strips for row in (strip.weighted_states, _on_own_scale(strip.states))]
    names = [name for strip in strips for name in (f"{strip.label}\n$\\hat{{x}}$".strip(), "$x$")]
    return image_grid(np.stack(shown), rows=names, columns=[f"$t$ = {time:.3g}" for time in times], width=width)


def _on_own_scale(images: Float[Array, "times h w c"]) -> Float[Array, "times h w c"]:
    """Grey at an image's mean, white at 2.5 standard deviations above it."""
    mean, spread = (of(images, axis=(1, 2, 3), keepdims=True) for of in (np.mean, np.std))
    return 0.5 + (images - mean) / (5 * np.where(spread > 0, spread, 1))


def _show(pane: "Axes", image: Float[Array, "h w c"]) -> None:
    pane.set(xticks=[], yticks=[])
    pane.spines[:].set_visible(False)
    if np.isnan(image).any():
        return
    image = np.clip(np.asarray(image, np.float64), 0, 1)
    kind = {"cmap": "gray", "vmin": 0, "vmax": 1} if image.shape[-1] == 1 else {}
    pane.imshow(image[..., 0] if image.shape[-1] == 1 else image, interpolation="nearest", **kind)


def _check_images(name: str, images, before: tuple) -> None:
    """Raise unless an array holds images of one or of three channels, along axes that are given."""
    _check_shape(name, images, (*before, "h", "w", "c"))
    if np.shape(images)[-1] not in (1, 3):
        raise ValueError(
            f"{name} has {np.shape(images)[-1]} channels; pass images of 1, shown in grey, or of 3, in colour"
        )


def _check_some(name: str, values, of: type) -> None:
    """Raise unless a sequence of values of one kind is that, and not empty."""
    check_kind(name, values, Sequence | np.ndarray, f"a list of {of.__name__}")
    if not len(values):
        raise ValueError(f"{name} is empty; pass at least one")
    for number, value in enumerate(values):
        check_kind(f"{name}[{number}]", value, of, f"one {of.__name__}")


def _check_shape(name: str, values, wanted: tuple) -> None:
    """Raise unless an array has the wanted shape, in which a name stands for any number from 1."""
    shape = np.shape(values)
    fits = len(shape) == len(wanted) and all(
        size == want or (isinstance(want, str) and size > 0) for size, want in zip(shape, wanted)
    )
    if not fits:
        raise ValueError(
            f"{name} has shape {shape}; pass shape ({', '.join(map(str, wanted))}{',' * (len(wanted) == 1)})"
        )


def _figure(width: float, height: float) -> "Figure":
    matplotlib = load("matplotlib.figure", user="pidjax.plot", package="matplotlib", extra="plot")
    return matplotlib.Figure(figsize=(width, height), layout="constrained", dpi=160)


def _clean(pane: "Axes") -> None:
    pane.spines[["top", "right"]].set_visible(False)
    pane.tick_params(labelsize=8)
    pane.title.set_fontsize(10)


def _round_ticks(pane: "Axes") -> None:
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


def _dots_legend(figure: "Figure", names: Mapping[str, str]) -> None:
    from matplotlib.lines import Line2D

    dots = [Line2D([], [], linestyle="", marker="o", markersize=5, color=colour) for colour in names.values()]
    figure.legend(dots, list(names), loc="outside lower center", ncols=len(names), frameon=False, fontsize=10)


def _enclosing(density: Float[Array, "ny nx"]) -> list[float]:
    """The values of a density above which lie 90 % and half of its mass."""
    ordered = np.sort(density, axis=None)[::-1]
    return [float(ordered[np.searchsorted(np.cumsum(ordered), mass * ordered.sum())]) for mass in (0.9, 0.5)]
