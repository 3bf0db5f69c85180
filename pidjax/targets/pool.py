"""The tilted law of a density through one pool of weighted points, drawn once and shared by all particles and times.

    y_j ~ p̂,    weights p̃(y_j)/p̂(y_j):    it tilts as a data set

By far the cheapest estimate; poor as t → 1, where few of its points are near. The control is then an estimate, and the path
weights stay exact under it.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from .._doors.checks import check_count, check_kind
from .._maths.estimates import effective_size
from .._maths.weighted import SharedSample
from ..process.bridge import Observation
from .base import AbstractTarget, Place, Tilted, WithDensity
from .chunks import mean_and_spread
from .density import Density
from .mixture import GaussianMixture
from .streamed import StreamedSamples, TiltedSamples


def check_parts(density: Density, **parts: Any) -> None:
    check_kind("density", density, Density, "a Density")
    for name, part in parts.items():
        kind = Pool if name == "pool" else GaussianMixture
        check_kind(name, part, kind, f"a {kind.__name__}")
        if part.dim != density.dim:
            raise ValueError(
                f"{name} has dimension {part.dim} but density has dimension {density.dim}; pass equal ones"
            )


class TiltedPool(TiltedSamples):
    """A pool as a law. What its points stand for is smooth, so that steps with their whole covariance are worth their cost."""

    def __init__(self, data: StreamedSamples, observation: Observation):
        super().__init__(data, observation)

    def step_covariance(self):
        return self.covariance()


class Pool(AbstractTarget, Tilted, WithDensity):
    """A density through one pool of weighted points.

    Attributes:
        density, mixture: p̃, and the p̂ the points were drawn from.
        points: y_j, shape (J, d).
        log_target, log_proposal: log p̃(y_j) and log p̂(y_j), shape (J,).
    """

    density: Density
    mixture: GaussianMixture
    points: Float[Array, "J d"]
    log_target: Float[Array, " J"]
    log_proposal: Float[Array, " J"]

    def __check_init__(self):
        check_parts(self.density, mixture=self.mixture)
        size, dim = self.points.shape
        if size <= dim:
            raise ValueError(
                f"points has {size} points in dimension {dim}, whose spread they do not span; pass more than {dim}: thousands "
                "for steps that can be weighted"
            )
        if dim != self.density.dim or not self.log_target.shape == self.log_proposal.shape == (size,):
            raise ValueError(
                f"points has shape {self.points.shape}, log_target {self.log_target.shape} and log_proposal "
                f"{self.log_proposal.shape}; pass (J, {self.density.dim}), (J,) and (J,), as Pool.draw does"
            )

    @classmethod
    def draw(cls, key: Key[Array, ""], density: Density, mixture: GaussianMixture, size: int) -> "Pool":
        """A pool of `size` points from the mixture: one energy evaluation each."""
        size = check_count("size", size)
        check_parts(density, mixture=mixture)
        points = mixture.sample(key, size)
        return cls(
            density, mixture, points, jax.vmap(density.log_density)(points), jax.vmap(mixture.log_density)(points)
        )

    def __repr__(self):
        return f"Pool({self.density!r}, points={self.points.shape[0]})"

    @property
    def dim(self) -> int:
        return self.density.dim

    @property
    def log_ratios(self) -> Float[Array, " J"]:
        """log p̃(y_j)/p̂(y_j); −inf where the density is NaN or zero."""
        ratios = self.log_target - self.log_proposal
        return jnp.where(jnp.isnan(ratios), -jnp.inf, ratios)

    def tilt(self, observation, key=None):
        log_weights = self.log_ratios - jnp.log(self.log_ratios.size)
        return TiltedPool(StreamedSamples.of(self.points, log_weights), observation)

    def log_density(self, y):
        return self.density.log_density(y)

    @property
    def numbers_per_tilt(self) -> int:
        return max(self.dim, len(self.points))

    @property
    def shared_sample(self) -> SharedSample:
        return SharedSample(effective_size(self.log_ratios), self.log_ratios.size)

    def place(self):
        mean, spread = mean_and_spread(self.points, jax.nn.softmax(self.log_ratios))
        drawn_from = self.mixture.place()
        return Place(mean, spread, widest=drawn_from.spread, narrowest=drawn_from.narrowest)

    def point(self, y):
        return self.density.point(y)

    def rescaled(self, shift, scale):
        volume = self.dim * jnp.log(scale)
        return Pool(
            self.density.rescaled(shift, scale),
            self.mixture.rescaled(shift, scale),
            (self.points - shift[None]) / scale,
            self.log_target + volume,
            self.log_proposal + volume,
        )
