"""What a sampler asks of a target: its tilted law, its density if it has one, and where it lies.

The state at time t is an observation ζ = A y + N(0, I) of the end point y, so all that the target p̃ must answer on the way is

    q(y | ζ)  ∝  p̃(y) exp(−½ |ζ − A y|²):

its mean (the weighted state x̂, hence the control), and what else a law is able to say: its log-mass
log ∫ p̃(y) exp(−½|ζ − A y|²) dy, its covariance (the `Moment` step), a draw (the `Ancestral` step). The log-mass is that of a
squared distance, never of the expanded exponential −½|Ay|² + ζᵀAy, which float32 cannot carry.

Abilities are types: a target or a law has those that it inherits, and `able` asks.
"""

from abc import abstractmethod
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from .._maths.maps import Map, apply
from .._maths.weighted import SharedSample
from ..process.bridge import Observation


class AbstractLaw(eqx.Module):
    """A tilted law q(y | ζ), known by its mean."""

    mean: eqx.AbstractVar[Float[Array, " d"]]


class WithMass(AbstractLaw):
    """A law that knows its log-mass."""

    log_mass: eqx.AbstractVar[Float[Array, ""]]


class WithCovariance(AbstractLaw):
    """A law that knows its covariance."""

    @abstractmethod
    def covariance(self) -> Float[Array, "d d"]:
        """Covariance of y under the law."""

    def step_covariance(self) -> Map:
        """The covariance as the `Moment` step takes it: whole, unless a law says that it is too large to be made.

        Path weights are exact with any.
        """
        return self.covariance()


class WithDraws(AbstractLaw):
    """A law that can be drawn from."""

    @abstractmethod
    def draw(self, key: Key[Array, ""]) -> Float[Array, " d"]:
        """One draw of y. A discrete choice: raises if differentiated."""


class Tilted(eqx.Module):
    """A target whose tilted laws are known, exactly or by an estimate."""

    @abstractmethod
    def tilt(self, observation: Observation, key: Key[Array, ""] | None = None) -> AbstractLaw:
        """The target given an observation of the end point. The key is for laws that are estimated."""


class ExactlyTilted(Tilted):
    """A target whose tilted laws are those of one fixed law p̂ that ends where the target does: what `Ancestral` needs."""

    def log_correction(self, y: Float[Array, " d"]) -> Float[Array, ""]:
        """log p̃(y)/p̂(y), with p̂ normalised; 0 where the laws are the target's own."""
        return jnp.zeros((), y.dtype)


class WithDensity(eqx.Module):
    """A target with a density. Without one, the last step can only be a draw."""

    @abstractmethod
    def log_density(self, y: Float[Array, " d"]) -> Float[Array, ""]:
        """log p̃(y), unnormalised."""


class Place(NamedTuple):
    """Where a target lies.

    Attributes:
        mean: shape (d,).
        spread: the standard deviation per coordinate, √(tr Cov / d).
        widest, narrowest: standard deviations between which the end point is decided; `spread` if left out.
    """

    mean: Float[Array, " d"]
    spread: Float[Array, ""]
    widest: Float[Array, ""] | None = None
    narrowest: Float[Array, ""] | None = None

    @property
    def snr_range(self) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """The signal-to-noise ratios between which the end point is decided: 0.3/widest² and 3/narrowest²."""
        widest, narrowest = (self.spread if width is None else width for width in self[2:])
        return jax.lax.stop_gradient((0.3 / widest**2, 3 / narrowest**2))


class AbstractTarget(eqx.Module):
    """What the process ends on at t = 1, in the user's units. Unbatched: `vmap` outside."""

    @abstractmethod
    def place(self) -> Place:
        """Where it lies."""

    @property
    def dim(self) -> int:
        """Dimension d of the end point, as a vector."""
        return jax.eval_shape(self.place).mean.shape[-1]

    @property
    def evaluations_per_tilt(self) -> int:
        """Calls of the user's log-density that one tilted law takes."""
        return 0

    @property
    def numbers_per_tilt(self) -> int:
        """Numbers that one tilted law holds at once, to an order of magnitude: what paths are run in batches by."""
        return self.dim

    @property
    def is_spread(self) -> bool:
        """Whether its arrays lie on several devices, which then work at one path together."""
        return False

    @property
    def shared_sample(self) -> SharedSample | None:
        """The weighted sample that all tilted laws are made of, whose own error every estimate then has; None without."""
        return None

    def rescaled(self, shift: Float[Array, " d"], scale: Float[Array, ""]) -> Any:
        """The target of y' = (y − shift)/scale, with the same mass."""
        return Rescaled(given=self, shift=shift, scale=scale)

    def point(self, y: Float[Array, " d"]) -> Any:
        """The vector as a point of the kind that the target is about."""
        return y


class Rescaled(ExactlyTilted, WithDensity):
    """The target of y' = (y − shift)/scale, able to do what the given one is: the observation is moved, not the target."""

    given: Any
    shift: Float[Array, " d"]
    scale: Float[Array, ""]

    def tilt(self, observation, key=None):
        gain = observation.gain / self.scale
        value = observation.value + apply(gain, self.shift)
        law = self.given.tilt(Observation(gain, value), key)
        mean, log_mass = (law.mean - self.shift) / self.scale, getattr(law, "log_mass", None)
        return RescaledLaw(mean, log_mass, law, self.shift, self.scale)

    def log_correction(self, y):
        return self.given.log_correction(self.shift + self.scale * y)

    def log_density(self, y):
        return self.given.log_density(self.shift + self.scale * y) + y.size * jnp.log(self.scale)


class RescaledLaw(WithMass, WithCovariance, WithDraws):
    """The law of y' = (y − shift)/scale, able to do what the given one is."""

    mean: Float[Array, " d"]
    log_mass: Any
    given: Any
    shift: Float[Array, " d"]
    scale: Float[Array, ""]

    def covariance(self):
        return self.given.covariance() / self.scale**2

    def step_covariance(self):
        return self.given.step_covariance() / self.scale**2

    def draw(self, key):
        return (self.given.draw(key) - self.shift) / self.scale


def able(one: Any, ability: type) -> bool:
    """Whether a target or a law has an ability.

    Example:
        >>> from pidjax import GaussianMixture
        >>> able(GaussianMixture.isotropic(jnp.zeros((1, 2)), 1.0), WithDensity)
        True
    """
    return isinstance(one.given if isinstance(one, Rescaled | RescaledLaw) else one, ability)


def check_tilted(target: Any) -> None:
    """Raise unless a target has tilted laws."""
    if not able(target, Tilted):
        raise TypeError(
            f"target is a {type(target).__name__}, which has no tilted law; value function, control and every rule but "
            "Controlled need one: call pidjax.sample, which fits a surrogate to a Density, or wrap it in Surrogate, Pool or "
            "LocalDraws"
        )


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
