"""A target together with its truth: log Z = log ∫ p̃, the entropy −∫ p log p, exact draws."""

from abc import abstractmethod
from typing import Generic, TypeVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from .._doors.checks import check_count, check_key
from .._doors.show import shown
from ..targets.base import AbstractTarget, WithDensity
from ..targets.mixture import GaussianMixture

Kind = TypeVar("Kind", bound=AbstractTarget)


class Known(eqx.Module, Generic[Kind]):
    """A target of which the truth is known.

    Attributes:
        name: as benchmarks print it.
        target: what `pidjax.sample` takes.
        entropy: −∫ p log p of the normalised density, or None if nobody knows it.
        log_z: log ∫ p̃, or None if nobody knows it.
    """

    name: str = eqx.field(static=True)
    target: Kind
    entropy: float | None = eqx.field(static=True)
    log_z: float | None = eqx.field(static=True)

    def __repr__(self):
        return shown(type(self).__name__, called=self.name, dim=self.dim, entropy=self.entropy, log_z=self.log_z)

    @property
    def dim(self) -> int:
        return self.target.dim

    def log_density(self, y: Float[Array, " d"]) -> Float[Array, ""]:
        """log p̃(y) of one point."""
        assert isinstance(self.target, WithDensity)
        return self.target.log_density(y)


class Drawable(Known[Kind]):
    """A known target that can be drawn from."""

    def sample(self, key: Key[Array, ""], num_samples: int) -> Float[Array, "n d"]:
        """Exact independent draws, shape (num_samples, d)."""
        check_key("key", key)
        return self._draw(key, check_count("num_samples", num_samples))

    @abstractmethod
    def _draw(self, key: Key[Array, ""], num_samples: int) -> Float[Array, "n d"]: ...


class KnownMixture(Drawable[GaussianMixture]):
    """A mixture of Gaussians Σ_k w_k N(μ_k, Σ_k): its modes are known as well."""

    @property
    def centres(self) -> Float[Array, "k d"]:
        """μ_k."""
        return self.target.means

    @property
    def standard_deviations(self) -> Float[Array, " k"]:
        """√(tr Σ_k / d): σ_k where Σ_k = σ_k² I."""
        factors = self.target.factors
        return factors if factors.ndim == 1 else jnp.sqrt(jnp.sum(factors.reshape(len(factors), -1) ** 2, 1) / self.dim)

    @property
    def mode_weights(self) -> Float[Array, " k"]:
        """w_k."""
        return self.target.weights

    def responsibilities(self, y: Float[Array, " d"]) -> Float[Array, " k"]:
        """w_k N(y; μ_k, Σ_k) / p(y): the probability that y came from each component; w is its mean under p."""
        return self.target.responsibilities(y)

    def _draw(self, key, num_samples):
        return self.target.sample(key, num_samples)
