"""Images in rows and columns, and as they form along a path."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

from .._doors.show import shown
from .arguments import check_images, check_shape, check_some
from .style import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Film(NamedTuple):
    """One strip of `film`: its label, and at each time an image x(t) and its weighted state x̂(t; x(t))."""

    label: str
    states: Float[Array, "times h w c"]
    weighted_states: Float[Array, "times h w c"]

    def __repr__(self):
        return shown("Film", **self._asdict())


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
    check_images("images", images, ("rows", "columns"))
    for name, said, count in (("rows", rows, images.shape[0]), ("columns", columns, images.shape[1])):
        if len(said) not in (0, count):
            raise ValueError(f"{name} has {len(said)} names, of {count} {name} of images; pass one for each, or none")
    number_of_rows, number_of_columns, high, wide, _ = images.shape
    longest = max((len(line) for said in rows for line in said.splitlines()), default=0)
    side = (width - 0.07 * longest) / number_of_columns
    height = side * number_of_rows * high / wide + 0.3 * bool(columns) + 0.35 * bool(title)
    figure = new_figure(width, height)
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
    check_some("strips", strips, Film)
    for strip in strips:
        check_images("states", strip.states, (len(times),))
        check_shape("weighted_states", strip.weighted_states, np.shape(strip.states))
        check_shape("states", strip.states, np.shape(strips[0].states))
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
