"""A density with a Gaussian mixture, a product of such mixtures, or a smoothed data set standing in for it.

    q(y | ζ) ∝ p̂(y) exp(−½|ζ − A y|²),    the end point weighted by p̃/p̂

The surrogate's own chain, drawn exactly (`Ancestral`), has a path weight that telescopes to p̃(y)/p̂(y) at its end point.

With samples and an energy both at hand, the smoothed samples know where mass is, and the energy how much.
"""

from .._doors.checks import as_point, check_kind
from .base import AbstractTarget, ExactlyTilted, WithDensity
from .density import Density
from .mixture import GaussianMixture
from .product import Product
from .smoothed import Smoothed


class Surrogate(AbstractTarget, ExactlyTilted, WithDensity):
    """A density with a mixture p̂ in its place: the tilts are p̂'s, the end is weighted by p̃/p̂.

    Attributes:
        density: p̃.
        mixture: p̂, a `GaussianMixture`, a `Product` of them, or `Smoothed` samples.

    Example:
        >>> density = Density(lambda y: -2 * jnp.sum((jnp.abs(y) - 3) ** 2), 1)
        >>> samples = pid.Samples(jnp.array([[-3.4], [-2.5], [-2.9], [3.1]]))  # of the mode at 3 too few
        >>> solution = pid.sample(jax.random.key(0), Surrogate(density, Smoothed(samples, 0.5)), num_samples=20_000)
        >>> bool(jnp.abs(solution.log_z.value - jnp.log(2 * jnp.sqrt(jnp.pi / 2))) < 0.05)
        True
    """

    density: Density
    mixture: GaussianMixture | Product | Smoothed

    def __check_init__(self):
        check_kind("density", self.density, Density, "a Density")
        check_kind(
            "mixture", self.mixture, GaussianMixture | Product | Smoothed, "a GaussianMixture, a Product or Smoothed"
        )
        if self.mixture.dim != self.density.dim:
            raise ValueError(
                f"mixture has dimension {self.mixture.dim} but density has dimension {self.density.dim}; pass equal ones"
            )

    def __repr__(self):
        return f"Surrogate({self.density!r}, {self.mixture!r})"

    @property
    def dim(self) -> int:
        return self.density.dim

    @property
    def numbers_per_tilt(self) -> int:
        return self.mixture.numbers_per_tilt

    @property
    def is_spread(self) -> bool:
        return self.mixture.is_spread

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
