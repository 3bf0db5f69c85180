"""The contract of a reference process on the unit horizon: what a rollout needs of it along a grid of times, and at one time.

In float32 a subtraction near t = 1 would cost digits of everything that follows, so τ = 1 − t is stored on its own.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._maths.maps import Map
from .bridge import Affine, Bridge, LinearDrift, StartLaws, StepLaws


class Times(eqx.Module):
    """A grid on the unit horizon: t_k and τ_k = 1 − t_k for k = 0 … K, and the K steps t_{k+1} − t_k."""

    t: Float[Array, " times"]
    remaining: Float[Array, " times"]
    step: Float[Array, " steps"]

    @classmethod
    def of(cls, t: Float[Array, " times"], remaining: Float[Array, " times"]) -> "Times":
        """The grid with each step taken from whichever of t and 1 − t is the smaller, hence the more exact."""
        early = t[1:] < 0.5
        return cls(t, remaining, jnp.where(early, jnp.diff(t), -jnp.diff(remaining)))


class Instant(NamedTuple):
    """The reference at one time t: the law of x_t given both ends, ∇log ψ as a pull, log G(x₀ → x_t), force, gauge."""

    observation: Bridge
    pull: LinearDrift
    log_green: Callable[[Float[Array, " d"], Float[Array, " d"]], Float[Array, ""]]
    force: Affine | None
    gauge: Affine | None


class AbstractReference(eqx.Module):
    """The reference process on the unit horizon."""

    @abstractmethod
    def laws(self, times: Times) -> tuple[StepLaws, StartLaws | None]:
        """The three laws and the drift along a grid from t = 0, and the step that draws a Gaussian start, given the end."""

    @abstractmethod
    def observations(self, times: Times) -> Bridge:
        """Of these, the law of x_t given both ends alone."""

    @abstractmethod
    def instant(self, t: Float[Array, ""], remaining: Float[Array, ""]) -> Instant:
        """The same at one time in [0, 1); at t = 1 only `log_green` has a meaning."""

    @abstractmethod
    def pieces(self) -> tuple[Float[Array, "P *map"], Float[Array, "P *map"], Float[Array, " ends"], Map | None]:
        """S and F of each piece, the ends of the pieces from 0 to 1, and the covariance of a Gaussian start.

        Its conjugate points follow from these.
        """

    @abstractmethod
    def reach(self) -> Float[Array, ""]:
        """How far from the origin centre, force, gauge and linear potential carry the process, to an order of magnitude."""

    @abstractmethod
    def times_at_snr(
        self, low: Float[Array, ""], high: Float[Array, ""], count: int, dim: int
    ) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """(t, 1 − t) at `count` geometrically spaced ratios, det(K)^(1/d), from `low` to `high`."""
