"""Which second mode is found: a map of ½ N(0, I) + ½ N(a u, w² I) over distance, width and dimension, and of log Z = 0.

A mode that is lost takes half of the mass: Δ = log ½. The direction u is the first coordinate's, on which points are looked for
as well, or one at random.

    >>> questions()[0].name
    'a = 5, w = 1, u = e₁, d = 1'
"""

from itertools import product

import jax.numpy as jnp
import numpy as np

import pidjax as pid

from .grade import Question

DISTANCES = (5, 20, 50, 100, 200)
ALONG = tuple(product((1, 2, 5, 10), (1.0, 0.3)))
AT_RANDOM = tuple(product((2, 5, 10), (0.3,)))
"""Dimensions and widths."""


def questions() -> list[Question]:
    """Each distance along the first coordinate, then in a direction of its own."""
    rng = np.random.default_rng(0)
    asked = []
    for (dim, width), distance in product(ALONG, DISTANCES):
        asked.append(_question(dim, width, distance, "e₁", np.eye(dim)[0]))
    for (dim, width), distance in product(AT_RANDOM, DISTANCES):
        direction = rng.normal(size=dim)
        asked.append(_question(dim, width, distance, "any", direction / np.linalg.norm(direction)))
    return asked


def _question(dim: int, width: float, distance: float, word: str, direction: np.ndarray) -> Question:
    means = np.stack([np.zeros(dim), distance * direction])
    mixture = pid.GaussianMixture.isotropic(jnp.asarray(means), np.array([1, width**2]))
    name = f"a = {distance}, w = {width:g}, u = {word}, d = {dim}"
    return Question(name, "two modes", dim, mixture.log_density, 0.0)
