"""A density with weighted end points standing in for it: the process ends on one of them, by an exact bridge.

    q(y | ζ)  ∝  Σ_i w_i δ(y − y_i) exp(−½|ζ − A y|²),      Ẑ = mean_i W_i,      w_i = W_i/ΣW

The points come from a sampler that knows no tilted laws, as a tempered population. Weighted state, control and paths are those
of this data set; every path weighs Ẑ, and its error is that of the points, however many paths are drawn.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._doors.checks import check_kind
from .._doors.show import shown
from .._maths.estimates import Estimate
from .._maths.weighted import SharedSample
from .base import AbstractTarget, ExactlyTilted, WithDensity
from .density import Density
from .samples import Samples


class StreamedEnds(ExactlyTilted, WithDensity):
    """Weighted points of a density, cut into chunks; fields as of `Ends`."""

    density: Density
    data: Any
    log_z: Estimate

    def tilt(self, observation, key=None):
        return self.data.tilt(observation)

    def log_density(self, y):
        return self.density.log_density(y)

    def log_correction(self, y):
        return self.log_z.value + no_value(self.density.log_density(y))


class Ends(StreamedEnds, AbstractTarget):
    """A density through weighted points of it.

    Attributes:
        density: p̃.
        data: the points y_i, with weights w_i.
        log_z: log Ẑ of them, and its standard error.
    """

    def __check_init__(self):
        check_kind("density", self.density, Density, "a Density")
        check_kind("data", self.data, Samples, "Samples")
        if self.data.dim != self.density.dim:
            raise ValueError(
                f"data has dimension {self.data.dim} but density has dimension {self.density.dim}; pass equal ones"
            )

    def __repr__(self):
        return shown("Ends", density=self.density, points=self.data.points.shape[-2])

    @property
    def dim(self) -> int:
        return self.density.dim

    @property
    def shared_sample(self):
        number = self.data.points.shape[-2]
        return SharedSample(1 / (self.log_z.standard_error**2 + 1 / number), number)

    def place(self):
        return self.data.place()

    def point(self, y):
        return self.density.point(y)

    def rescaled(self, shift, scale):
        return StreamedEnds(self.density.rescaled(shift, scale), self.data.rescaled(shift, scale), self.log_z)


def no_value(log_density: Float[Array, "..."]) -> Float[Array, "..."]:
    """0, with the derivative of log p̃ in its parameters: weights W e⁰ then have ∇E[W f] = E[W f ∇log p̃].

    Example:
        >>> value, slope = jax.value_and_grad(lambda x: no_value(-(x**2)))(jnp.array(3.0))
        >>> value.item(), slope.item()
        (0.0, -6.0)
    """
    finite = jnp.where(jnp.isfinite(log_density), log_density, 0)
    return finite - jax.lax.stop_gradient(finite)
