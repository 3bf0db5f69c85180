"""The two pictures of README and documentation: `python docs/pictures.py` draws them anew.

nine.png      paths from one point to nine modes, each in the colour of the mode on which it ends
digits.png    the process on handwritten digits: the weighted state x̂(t; x(t)) above, the state x(t) below
"""

from io import BytesIO
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from PIL import Image

import pidjax as pid
from pidjax import images, plot, zoo

FOLDER = Path(__file__).with_suffix("")
COLOURS = np.array([*plot.PALETTE[:6], plot.BLACK, "#8C564B", "#8A8A8A"])
SLANTED = np.array([1.0, 1 / 3])
"""A direction in the plane along which no two of the nine modes lie behind each other."""


def nine() -> Figure:
    known = zoo.nine()
    grid = pid.uniform_grid(120)
    solution = pid.sample(
        jax.random.key(0), known.target, protocol=pid.harmonic(12.0), num_samples=600, grid=grid, save_paths=True
    )
    ends, times = np.asarray(solution.samples), np.asarray(solution.times)
    mode = np.argmin(np.linalg.norm(ends[:, None] - np.asarray(known.target.means), axis=2), axis=1)
    heights = np.asarray(solution.states)[:99] @ SLANTED

    figure = Figure(figsize=(8.4, 3.2), layout="constrained")
    fan, plane = figure.subplots(1, 2, width_ratios=(1.9, 1))
    lines = np.stack([np.broadcast_to(times, heights.shape), heights], axis=2)
    fan.add_collection(LineCollection(lines, colors=COLOURS[mode[:99]], linewidths=0.7, alpha=0.9))
    fan.set(xlabel="time $t$", ylabel="$x_1 + x_2/3$", xlim=(0, 1), ylim=(-9, 9), yticks=[-5, 0, 5], title="99 paths")
    plane.scatter(*ends.T, s=4, c=COLOURS[mode], linewidths=0)
    plane.set(xlabel="$x_1$", ylabel="$x_2$", xticks=[-5, 0, 5], yticks=[-5, 0, 5], aspect="equal", title="600 ends")
    for pane in (fan, plane):
        pane.spines[["top", "right"]].set_visible(False)
        pane.tick_params(labelsize=8)
        pane.title.set_fontsize(10)
    return figure


def digits() -> Figure:
    times = [0.01, 0.03, 0.06, 0.1, 0.2, 0.4, 0.7, 0.95]
    grid = pid.at_times(jnp.array([0.0, *times, 1.0]))
    paths = pid.sample(jax.random.key(1), images.digits().samples, num_samples=2, grid=grid, save_paths=True)
    shape = (2, len(times), 8, 8, 1)
    states = np.asarray(paths.states[:, 1:-1]).reshape(shape)
    weighted_states = np.asarray(paths.weighted_states[:, 1:]).reshape(shape)
    return plot.film([plot.Film("", *pair) for pair in zip(states, weighted_states)], times, width=8.4)


def save(figure: Figure, path: Path) -> None:
    """As a PNG of at most 128 colours."""
    drawn = BytesIO()
    figure.savefig(drawn, dpi=110)
    Image.open(drawn).convert("RGB").quantize(128).save(path, optimize=True)


if __name__ == "__main__":
    for picture in (nine, digits):
        save(picture(), FOLDER / f"{picture.__name__}.png")
