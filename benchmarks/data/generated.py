"""Images that none of the data is: by local denoisers and by a kernel's law, beside held-out images and their nearest data.

distance    to the nearest training image, the median over that of held-out images: 0 of a copy, 1 of what is as new
contrast    of the distances to the nearest and to the second nearest: near 1 no datum stands out
patches     sliced Kolmogorov–Smirnov distance of small grey patches to those of held-out images
entropy     H(datum | x)/log n of the training images along the paths
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

import pidjax as pid
from pidjax import images, metrics
from pidjax.process.bridge import observe

from .sets import CIFAR

STEPS = 20
SHOWN = 10
_PATCHES = 4000
_FLOOR_SETS = 20
_ENTROPIES_OF = 4
"""Paths whose entropies are taken, at five times."""


class Generation(NamedTuple):
    """Images to learn from and others held out, the side of a patch, and how many are made by what, by name."""

    training: images.Images
    held_out: images.Images
    side: int
    number: int
    makers: Mapping[str, Callable[[], Any]]


def split(found: images.Images, share: float) -> tuple[images.Images, images.Images]:
    order = np.random.default_rng(0).permutation(len(found))
    return found[jnp.array(order[: int(share * len(found))])], found[jnp.array(order[int(share * len(found)) :])]


def of_digits() -> Generation:
    training, held_out = split(images.digits(), 0.75)
    ratios, sizes = jnp.geomspace(0.1, 300, 16), [1, 3, 5, 7, 9, 15]

    def kernel():
        """Of data with noise of their resolution, a sixteenth: as they are they have no density."""
        noisy = training.points + jax.random.uniform(jax.random.key(9), training.points.shape) / 16
        return pid.fit_kernel(pid.Samples(noisy[:-150]), noisy[-150:])

    makers = {
        "the data": lambda: training.samples,
        "squares at the memory edge": lambda: images.Local(
            training, images.memory_edge(jax.random.key(0), training, ratios, sizes)
        ),
        "Wiener windows": lambda: images.Local(training, images.WienerWindows.of(training, 0.03)),
        "equivariant 5 × 5, of 200": lambda: images.EquivariantLocal(training[jnp.arange(200)], images.Squares(5)),
        "kernel, held-out likelihood": kernel,
    }
    return Generation(training, held_out, 3, 64, makers)


def of_cifar(folder: Path) -> Generation:
    training, held_out = split(images.cifar(folder), 0.94)
    ratios, sizes = jnp.geomspace(0.003, 300, 12), [3, 5, 7, 11, 15, 21, 31, 63]

    def edge():
        return images.Local(training, images.memory_edge(jax.random.key(0), training, ratios, sizes, num_queries=6))

    def golden():
        return images.Golden(images.Local(training, images.WienerWindows.of(training, 0.1)), 256, 4)

    makers = {
        "the data": lambda: training.samples,
        "squares at the memory edge": edge,
        "Wiener windows on 256 golden data": golden,
    }
    return Generation(training, held_out, 5, 16, makers)


def generations(folder: Path, quick: bool) -> dict[str, Callable[[], Generation]]:
    """Name → the images and what is made of them."""
    found = {"digits": of_digits}
    if not quick and (folder / CIFAR).exists():
        found["CIFAR-10"] = lambda: of_cifar(folder / CIFAR)
    return found


class Usual(NamedTuple):
    """Of held-out images the median distance and contrast; the patch distances of as many training images as are made."""

    distance: float
    contrast: float
    floor: list[float]


def usual(about: Generation) -> Usual:
    distances, _ = nearest_of(np.asarray(about.held_out.points, np.float64), about.training)
    firsts = range(0, len(about.training) - about.number, about.number)[:_FLOOR_SETS]
    floor = [patch_distance(np.asarray(about.training.points[first : first + about.number]), about) for first in firsts]
    return Usual(float(np.median(distances[:, 0])), float(np.median(distances[:, 0] / distances[:, 1])), floor)


def generated(about: Generation, method: str, usual: Usual) -> dict[str, Any]:
    """What one method makes, in numbers and as a few images of 256 greys beside their nearest data."""
    training, held_out = about.training, about.held_out
    target = about.makers[method]()

    def run():
        return pid.sample(
            jax.random.key(1), target, num_samples=about.number, num_steps=STEPS, save_paths=True, progress=False
        )

    jax.block_until_ready(run().samples)
    begin = time.perf_counter()
    solution = jax.block_until_ready(run())
    seconds = time.perf_counter() - begin
    made = np.asarray(solution.samples, np.float64)
    distances, nearest = nearest_of(made, training)
    snr, entropy = entropies(solution, training)
    shown = min(SHOWN, about.number)
    return {
        "distance": float(np.median(distances[:, 0]) / usual.distance),
        "contrast": float(np.median(distances[:, 0] / np.maximum(distances[:, 1], 1e-12))),
        "usual_contrast": usual.contrast,
        "patches": patch_distance(made, about),
        "floor": [float(np.mean(usual.floor)), float(np.std(usual.floor, ddof=1))],
        "snr": snr,
        "entropy": entropy,
        "seconds": seconds / (about.number * STEPS),
        "made": greys(training.of(solution.samples[:shown])),
        "nearest": greys(training.pixels[nearest[:shown]]),
        "held_out": greys(held_out.pixels[:shown]),
    }


def nearest_of(points: Float[np.ndarray, "n d"], training: images.Images) -> tuple[np.ndarray, np.ndarray]:
    """The distances of each point to the nearest and second nearest training image, shape (n, 2), and which is nearest."""
    data = np.asarray(training.points, np.float64)
    squares = np.sum(points**2, axis=1)[:, None] + np.sum(data**2, axis=1)[None] - 2 * points @ data.T
    order = np.argsort(squares, axis=1)[:, :2]
    return np.sqrt(np.maximum(np.take_along_axis(squares, order, axis=1), 0)), order[:, 0]


def patch_distance(points: Float[np.ndarray, "n d"], about: Generation) -> float:
    """Of the grey patches of images, each less its own mean, from those of held-out images."""
    one, other = (patches(some, about) for some in (points, np.asarray(about.held_out.points)))
    return float(metrics.sliced_ks(one, other, jax.random.key(3)))


def patches(points: Float[np.ndarray, "n d"], about: Generation) -> jax.Array:
    grey = points.reshape(-1, *about.training.shape).mean(axis=-1)
    windows = np.lib.stride_tricks.sliding_window_view(grey, (about.side, about.side), axis=(1, 2))
    flat = windows.reshape(-1, about.side**2)
    some = np.random.default_rng(0).permutation(flat - flat.mean(axis=1, keepdims=True))[:_PATCHES]
    return jnp.asarray(some)


def entropies(solution: pid.Solution, training: images.Images) -> tuple[list[float], list[float]]:
    """K, of images as they are, and H(datum | x)/log n at five times of a few paths, whatever led them."""
    prepared, unit = solution.prepared, solution.prepared.unit
    samples = training.samples.rescaled(unit.shift, unit.scale)

    @jax.jit
    def entropy(observation, state):
        seen = observe(observation, unit.to_unit(state), unit.start)
        return (seen.gain / unit.scale) ** 2, samples.tilt(seen).entropy

    snr, found = [], []
    for step in np.linspace(0, STEPS - 1, 5).astype(int):
        observation = jax.tree.map(lambda leaf, step=step: leaf[step], prepared.step_laws.observation)
        seen = [entropy(observation, solution.states[path, step]) for path in range(_ENTROPIES_OF)]
        snr.append(float(seen[0][0]))
        found.append(float(np.mean([value for _, value in seen]) / np.log(len(training))))
    return snr, found


def greys(pixels: Any) -> list[Any]:
    """As integers from 0 to 255."""
    return np.round(255 * np.clip(np.asarray(pixels, np.float64), 0, 1)).astype(int).tolist()
