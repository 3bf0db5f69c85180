"""What the user chooses about the process: stiffness, start, horizon and noise scale.

The controlled process, in the user's units, is

    dx = u dt + σ dW  on [0, T],   x(0) = x₀,   at the least cost  E ∫ ( |u|²/2σ² + β|x|²/2 ) dt.

In the unit problem (t' = t/T, x' = (x − shift)/scale with scale = σ√T) it is dx' = u' dt' + dW' on [0, 1] with the
stiffness β' = βσ²T² and the cost unchanged.
"""

from typing import Literal

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ._checks import as_floating, concrete
from .kernel import Green


class Unit(eqx.Module):
    """The change of variables x = shift + scale · x', t = horizon · t' to the unit problem, and what it looks like there.

    Attributes:
        green: Green function of the unit problem.
        start: start x₀' of the unit problem, (d,).
        shift, scale, horizon: the change of variables; (d,), scalar, scalar.
    """

    green: Green
    start: Float[Array, " d"]
    shift: Float[Array, " d"]
    scale: Float[Array, ""]
    horizon: Float[Array, ""]

    def to_unit(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        return (x - jnp.broadcast_to(self.shift, x.shape)) / self.scale

    def from_unit(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        return jnp.broadcast_to(self.shift, x.shape) + self.scale * x


class Harmonic(eqx.Module):
    """The harmonic protocol with a constant scalar stiffness; made by `harmonic`."""

    beta: Float[Array, ""]
    start: Float[Array, " d"] | None
    horizon: Float[Array, ""]
    noise_scale: Float[Array, ""] | None

    def unit_beta(self, dtype) -> Float[Array, ""]:
        """β' = βσ²T²; β itself where the problem is rescaled."""
        beta = self.beta.astype(dtype)
        if self.noise_scale is None:
            return beta
        return beta * (self.noise_scale.astype(dtype) * self.horizon.astype(dtype)) ** 2

    def unit(self, mean: Float[Array, " d"], spread: Float[Array, ""]) -> Unit:
        """The unit problem for a target of this mean and spread (standard deviation per coordinate)."""
        beta, horizon = self.unit_beta(mean.dtype), self.horizon.astype(mean.dtype)
        if self.start is not None and self.start.shape != mean.shape:
            raise ValueError(
                f"start has shape {self.start.shape} but the target has dimension {mean.size}; pass shape ({mean.size},)"
            )
        if self.noise_scale is None:
            shift, scale = mean, spread
        else:
            shift, scale = jnp.zeros_like(mean), self.noise_scale.astype(mean.dtype) * jnp.sqrt(horizon)
        check_beta(beta)
        start = shift if self.start is None else self.start.astype(mean.dtype)
        return Unit(Green(beta), (start - shift) / scale, shift, scale, horizon)


def check_beta(beta: Array) -> None:
    """Raise if a concrete β is at or past the conjugate point of the unit horizon."""
    value = concrete(beta)
    if value is not None and not value > -(jnp.pi**2):
        raise ValueError(
            f"beta is {float(value):g} in the unit problem, at or past the conjugate point: pass beta > -pi^2 = -9.8696 "
            "(in units of 1/(noise_scale * horizon)^2), where the Green function is finite on the whole horizon"
        )


def harmonic(
    beta: ArrayLike = 1.0,
    *,
    start: ArrayLike | None = None,
    horizon: ArrayLike = 1.0,
    noise_scale: ArrayLike | None = None,
) -> Harmonic:
    """The process dx = u dt + σ dW on [0, T] of least cost E ∫ (|u|²/2σ² + β|x|²/2) dt from a start to the target.

    Args:
        beta: stiffness β, a scalar > −(π/σT)². It moves the clock and the cost, not the law of the end point.
        start: x₀, shape (d,). By default the target's mean, or the origin if `noise_scale` is given.
        horizon: T > 0.
        noise_scale: σ > 0. If left out the problem is rescaled: σ√T becomes the target's standard deviation, the
            centre of the potential its mean, and β is meant in that unit problem.

    Raises:
        ValueError: β, start, horizon or noise scale of a wrong shape, not finite, or out of range.

    Example:
        >>> harmonic(beta=1.0).horizon.item()
        1.0

    Source: Behjoo & Chertkov, arXiv 2409.15166, eqs. 1–3 at β > 0; the units are those of the stochastic control problem
    with cost |u|²/2σ².
    """
    beta = _scalar("beta", beta)
    horizon = _scalar("horizon", horizon, positive=True)
    if noise_scale is not None:
        noise_scale = _scalar("noise_scale", noise_scale, positive=True)
    if start is not None:
        start = as_floating("start", start)
        if start.ndim != 1:
            raise ValueError(f"start has shape {start.shape}; pass one point of shape (d,)")
    protocol = Harmonic(beta, start, horizon, noise_scale)
    check_beta(protocol.unit_beta(beta.dtype))
    return protocol


def _scalar(name: Literal["beta", "horizon", "noise_scale"], value, positive: bool = False) -> Float[Array, ""]:
    value = as_floating(name, value)
    if value.shape != ():
        raise ValueError(f"{name} has shape {value.shape}; pass a scalar")
    number = concrete(value)
    if positive and number is not None and not number > 0:
        raise ValueError(f"{name} is {float(number):g}; pass a number > 0")
    return value
