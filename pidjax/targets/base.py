"""The one thing a sampler asks of a target: its tilted law.

The state at time t is an observation ζ = A y + N(0, I) of the end point y, so all that the target p̃ must answer is

    q(y | ζ)  ∝  p̃(y) exp(−½ |ζ − A y|²):

its log-mass log ∫ p̃(y) exp(−½|ζ − A y|²) dy, its mean (the weighted state x̂, hence the control), its covariance (the
`Moment` step) and a draw (the `Ancestral` step). The log-mass is that of a squared distance, never of the expanded
exponential −½|Ay|² + ζᵀAy, which float32 cannot carry.
"""

from abc import abstractmethod
from typing import ClassVar

import equinox as eqx
import jax
from jaxtyping import Array, Float, Key

from ..process.bridge import Observation


class AbstractLaw(eqx.Module):
    """A tilted law q(y | ζ): its log-mass and mean now, its covariance and draws when asked."""

    log_mass: eqx.AbstractVar[Float[Array, ""]]
    mean: eqx.AbstractVar[Float[Array, " d"]]

    @abstractmethod
    def covariance(self) -> Float[Array, "d d"]:
        """Covariance of y under the law."""

    @abstractmethod
    def draw(self, key: Key[Array, ""]) -> Float[Array, " d"]:
        """One draw of y. A discrete choice: raises if differentiated."""


class Tiltable(eqx.Module):
    """What the rollout asks of a target. Unbatched: `vmap` outside."""

    has_density: ClassVar[bool]
    """Whether `log_density` is known. Without it the last step can only be a draw."""

    closed_form: ClassVar[bool]
    """Whether the tilts are those of one fixed law p̂ that ends where the target does: what `Ancestral` needs."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """Dimension d of the end point, as a vector."""

    @abstractmethod
    def tilt(self, observation: Observation, key: Key[Array, ""] | None = None) -> AbstractLaw:
        """The target given an observation of the end point. The key is for laws that are estimated."""

    @abstractmethod
    def log_density(self, y: Float[Array, " d"]) -> Float[Array, ""]:
        """log p̃(y), unnormalised. Only where `has_density`."""

    @abstractmethod
    def log_weight(self, y: Float[Array, " d"]) -> Float[Array, ""]:
        """log p̃(y)/p̂(y), with p̂ the normalised law of the tilts; 0 where they are exact. Only where `closed_form`."""


class AbstractTarget(Tiltable):
    """What the process ends on at t = 1, in the user's units, and how to bring it to the unit problem."""

    @abstractmethod
    def location(self) -> tuple[Float[Array, " d"], Float[Array, ""]]:
        """The mean, and the standard deviation per coordinate √(tr Cov / d)."""

    @abstractmethod
    def snr_range(self) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Ratios between which the end point is decided: 0.3/(variance per coordinate), 3/(smallest variance)."""

    @abstractmethod
    def rescaled(self, shift: Float[Array, " d"], scale: Float[Array, ""]) -> Tiltable:
        """The target of y' = (y − shift)/scale, with the same mass."""


@jax.custom_jvp
def discrete(choice: Array) -> Array:
    """The identity on a discretely drawn value; raises when a derivative is taken through it."""
    return choice


@discrete.defjvp
def _discrete_jvp(primals, tangents):
    raise TypeError(
        "a discrete draw has no pathwise derivative: differentiate with rule=pidjax.Moment() or pidjax.Euler(), "
        "on a target with a density"
    )
