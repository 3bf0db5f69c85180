"""A density with a Gaussian mixture, or a product of such mixtures, standing in for it.

    q(y | ζ) ∝ p̂(y) exp(−½|ζ − A y|²),    the end point weighted by p̃/p̂

The surrogate's own chain, drawn exactly (`Ancestral`), has a path weight that telescopes to p̃(y)/p̂(y) at its end point.
"""

from .._doors.checks import as_point, check_kind
from .base import AbstractTarget, ExactlyTilted, WithDensity
from .density import Density
from .mixture import GaussianMixture
from .product import Product


class Surrogate(AbstractTarget, ExactlyTilted, WithDensity):
    """A density with a mixture p̂ (a product of mixtures) in its place: the tilts are p̂'s, the end is weighted by p̃/p̂."""

    density: Density
    mixture: GaussianMixture | Product

    def __check_init__(self):
        check_kind("density", self.density, Density, "a Density")
        check_kind("mixture", self.mixture, GaussianMixture | Product, "a GaussianMixture or a Product")
        if self.mixture.dim != self.density.dim:
            raise ValueError(
                f"mixture has dimension {self.mixture.dim} but density has dimension {self.density.dim}; pass equal ones"
            )

    def __repr__(self):
        return f"Surrogate({self.density!r}, {self.mixture!r})"

    @property
    def dim(self) -> int:
        return self.density.dim

    def tilt(self, observation, key=None):
        return self.mixture.tilt(observation)

    def log_density(self, y):
        return self.density.log_density(y)

    def log_correction(self, y):
        y = as_point("y", y, self.dim)
        return self.density.log_density(y) - self.mixture.log_density(y)

    def place(self):
        return self.mixture.place()

    def point(self, y):
        return self.density.point(y)

    def rescaled(self, shift, scale):
        return Surrogate(self.density.rescaled(shift, scale), self.mixture.rescaled(shift, scale))
