"""Against tuning to the table: densities drawn by a seeded generator, none of them chosen, each with its exact log Z.

A density is a mixture Σ_k w_k f_k of skewed ellipses, then bent, then folded at a wall, then multiplied by e^{log Z}:

    ellipse   y = μ_k + L_k z,  z of density 2 f(|z|) G(a_kᵀz),  f a Gaussian or a Student t, G(u) = 1/(1 + e^{−u})
    bend      y ← y + c (y₁²/s² − 1) e₂, of unit Jacobian
    wall      y ← y − 2 min(nᵀy − h, 0) n: what is behind the wall is reflected, p(y) ← [p(y) + p(reflection of y)] 1[nᵀy ≥ h]

2 f(|z|) G(aᵀz) is normalised for every a since G(u) + G(−u) = 1; a draw z of f becomes −z with probability 1 − G(aᵀz). So all
is exact: the density, log Z, and the draws.

    >>> import jax
    >>> known = seeded()[0]
    >>> known.sample(jax.random.key(0), 3).shape == (3, known.dim)
    True

The list is to be run once, when a method is finished. A method that was changed after a look at its results here needs
another seed.
"""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import pidjax as pid
from pidjax import zoo

from .grade import Question

SEED = 20261212
COUNT = 32


class Shape(NamedTuple):
    """What the density is made of, in words for a report."""

    dim: int
    modes: int
    degrees_of_freedom: float | None
    skewed: bool
    bent: bool
    walled: bool
    distance: float

    def in_words(self) -> str:
        tails = "Gaussian" if self.degrees_of_freedom is None else f"Student ν = {self.degrees_of_freedom:.1f}"
        marks = {"skewed": self.skewed, "bent": self.bent, "walled": self.walled}
        return ", ".join([f"{self.modes} × {tails}", *(word for word, holds in marks.items() if holds)])


class SeededLogDensity(eqx.Module):
    """log of the density above.

    Attributes:
        log_heights: log of w_k times twice the unskewed density of component k at μ_k.
        whitening: L_k⁻¹.
        skews: a_k.
        degrees_of_freedom: ν, or None for Gaussians.
        bend: c, with s = `bend_scale`.
        wall: n, with h = `wall_height`, or None.
    """

    log_heights: Float[Array, " k"]
    centres: Float[Array, "k d"]
    whitening: Float[Array, "k d d"]
    skews: Float[Array, "k d"]
    degrees_of_freedom: Float[Array, ""] | None
    bend: Float[Array, ""]
    bend_scale: Float[Array, ""]
    wall: Float[Array, " d"] | None
    wall_height: Float[Array, ""]
    log_z: Float[Array, ""]

    def __call__(self, y: Float[Array, " d"]) -> Float[Array, ""]:
        if self.wall is None:
            return self.unfolded(y) + self.log_z
        depth = self.wall @ y - self.wall_height
        folded = jnp.logaddexp(self.unfolded(y), self.unfolded(y - 2 * depth * self.wall))
        return jnp.where(depth >= 0, folded, -jnp.inf) + self.log_z

    def unfolded(self, y: Float[Array, " d"]) -> Float[Array, ""]:
        white = jnp.einsum("kij,kj->ki", self.whitening, self.bent(y, -1)[None] - self.centres, precision="highest")
        squared = jnp.sum(white**2, axis=1)
        if self.degrees_of_freedom is None:
            decay = squared / 2
        else:
            decay = (self.degrees_of_freedom + y.size) / 2 * jnp.log1p(squared / self.degrees_of_freedom)
        skewed = jax.nn.log_sigmoid(jnp.sum(self.skews * white, axis=1))
        return jax.nn.logsumexp(self.log_heights - decay + skewed)

    def bent(self, y: Float[Array, " d"], sign: int) -> Float[Array, " d"]:
        """y ± c (y₁²/s² − 1) e₂; on a line there is nowhere to bend to."""
        return y.at[1:2].add(sign * self.bend * ((y[0] / self.bend_scale) ** 2 - 1)) if y.size > 1 else y


class Seeded(zoo.Drawable[pid.Density]):
    """One of the list; made by `seeded`."""

    shape: Shape = eqx.field(static=True)
    weights: Float[Array, " k"]
    factors: Float[Array, "k d d"]

    def _draw(self, key, num_samples):
        return jax.lax.map(self._draw_one, jax.random.split(key, num_samples), batch_size=1000)

    def _draw_one(self, key):
        law: SeededLogDensity = self.target.function
        component_key, noise_key, width_key, skew_key = jax.random.split(key, 4)
        k = jax.random.categorical(component_key, jnp.log(self.weights))
        white = jax.random.normal(noise_key, (self.dim,), law.centres.dtype)
        if law.degrees_of_freedom is not None:
            chi_squared = 2 * jax.random.gamma(width_key, law.degrees_of_freedom / 2, (), white.dtype)
            white = white * jnp.sqrt(law.degrees_of_freedom / chi_squared)
        kept = jax.random.uniform(skew_key, (), white.dtype) < jax.nn.sigmoid(law.skews[k] @ white)
        y = law.bent(law.centres[k] + self.factors[k] @ jnp.where(kept, white, -white), 1)
        return y if law.wall is None else y - 2 * jnp.minimum(law.wall @ y - law.wall_height, 0) * law.wall


def seeded(seed: int = SEED, count: int = COUNT, dtype=None) -> list[Seeded]:
    """The list: `count` densities, each by its own stream of the seed, in any dimension from 1 to 30.

    In turn, of each: d = 30^U, rounded; modes 1…8; a typical width and the distance of modes in widths, log-uniform in ¼…4
    and 2…40; places on spheres of up to that distance, around a common offset; widths of modes within a factor 3 of each
    other, of axes by factors e^{N(0, ½²)}; random rotations; weights of Dirichlet(2). Of all, about 40 % have Student
    tails, ν in 2.5…10, 40 % are skewed, 30 % bent, 20 % walled. log Z is uniform in ± 20.
    """
    return [_one(np.random.default_rng([seed, index]), index, dtype) for index in range(count)]


def questions() -> list[Question]:
    """The list as `grade` takes it."""
    return [
        Question(known.name, known.shape.in_words(), known.dim, known.target.function, known.log_z)
        for known in seeded()
    ]


def _one(rng: np.random.Generator, index: int, dtype) -> Seeded:
    dim = int(np.clip(round(30 ** rng.uniform()), 1, 30))
    modes = int(rng.integers(1, 9))
    width, distance = np.exp(rng.uniform(np.log([0.25, 2]), np.log([4, 40])))
    widths = width * np.exp(rng.uniform(-0.5, 0.5, modes) * math.log(3))
    directions = rng.normal(size=(modes, dim))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    offset = rng.normal(size=dim) * width * rng.uniform(0, 5) / math.sqrt(dim)
    centres = offset + directions * width * distance * rng.uniform(0.2, 1, (modes, 1))
    axes = widths[:, None] * np.exp(0.5 * rng.normal(size=(modes, dim)))
    rotations = np.linalg.qr(rng.normal(size=(modes, dim, dim)))[0]
    factors = rotations * axes[:, None, :]
    weights = rng.dirichlet(np.full(modes, 2.0))
    degrees = float(np.exp(rng.uniform(np.log(2.5), np.log(10)))) if rng.uniform() < 0.4 else None
    skewed, bent, walled = rng.uniform(size=3) < (0.4, 0.3, 0.2)
    skews = skewed * rng.normal(size=(modes, dim)) * 3
    bend = (bent and dim > 1) * width * rng.uniform(0.5, 2)
    bend_scale = width * max(1.0, distance / 4)
    wall = rng.normal(size=dim)
    wall /= np.linalg.norm(wall)
    height = np.quantile(centres @ wall, rng.uniform(0, 0.5)) - width * rng.uniform(0, 2)
    log_z = rng.uniform(-20, 20)
    log_heights = np.log(2 * weights) - np.sum(np.log(axes), axis=1) + _log_height(dim, degrees)
    dtype = jnp.zeros((), dtype).dtype
    values = (
        log_heights, centres, np.swapaxes(rotations, 1, 2) / axes[:, :, None], skews, degrees, bend, bend_scale,
        wall if walled else None, height, log_z,
    )  # fmt: skip
    density = SeededLogDensity(*(None if value is None else jnp.asarray(value, dtype) for value in values))
    return Seeded(
        name=f"seeded {index}",
        target=pid.Density(density, dim, dtype=dtype),
        entropy=None,
        log_z=float(log_z),
        shape=Shape(dim, modes, degrees, bool(skewed), bool(bend), bool(walled), float(distance)),
        weights=jnp.asarray(weights, dtype),
        factors=jnp.asarray(factors, dtype),
    )


def _log_height(dim: int, degrees: float | None) -> float:
    """log f(0) of a Gaussian or of a Student t with identity scale matrix."""
    if degrees is None:
        return -dim / 2 * math.log(2 * math.pi)
    return math.lgamma((degrees + dim) / 2) - math.lgamma(degrees / 2) - dim / 2 * math.log(degrees * math.pi)
