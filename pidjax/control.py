"""The value function, the weighted state and the optimal control at one point (t, x).

log ψ(t, x) = log ∫ p̃(y) N(x; M y + n, Σ) dy − log G(0, x₀ → t, x)            (at t = 0: log Z)
x̂(t, x)    = E[ y | t, x ]
u*(t, x)    = ∇log ψ − A(t, x)                                                 (at t = 1: ∇log p̃ − ∇log G(0, x₀ → 1, x) − A)

For V = β|x|²/2 and neither force nor gauge, u* = ( x̂ − C(τ) x ) / S(τ).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from .bridge import observe
from .protocol import Protocol, Unit
from .reference import Instant
from .targets.base import Law, Target, Tiltable


class Point(eqx.Module):
    """A target's tilted law at one point (t, x), in the unit problem."""

    unit: Unit
    target: Tiltable
    instant: Instant
    remaining: Float[Array, ""]
    x: Float[Array, " d"]
    law: Law

    def __init__(self, target, protocol, t, x, remaining, key):
        self.unit = protocol.unit(*target.location())
        self.target = target.rescaled(self.unit.shift, self.unit.scale)
        if x.shape != self.unit.start.shape:
            raise ValueError(f"x has shape {x.shape}; pass one point of shape ({target.dim},)")
        elapsed = jnp.asarray(t, x.dtype)
        remaining = self.unit.horizon - elapsed if remaining is None else jnp.asarray(remaining, x.dtype)
        self.remaining = remaining / self.unit.horizon
        self.instant = self.unit.reference.instant(elapsed / self.unit.horizon, self.remaining)
        self.x = self.unit.to_unit(x)
        observation = observe(self.instant.observation, self.x, self.unit.start)
        self.law = self.target.tilt(observation, jax.random.key(0) if key is None else key)


def log_psi(
    target: Target,
    protocol: Protocol,
    t: ArrayLike,
    x: Float[Array, " d"],
    *,
    remaining: ArrayLike | None = None,
    key: Key[Array, ""] | None = None,
) -> Float[Array, ""]:
    """log ψ(t, x) = log ∫ p̃(y) G(t, x → 1, y)/G(0, x₀ → 1, y) dy, minus the cost to go; log Z at the start.

    Args:
        target, protocol: the problem.
        t: time in [0, horizon).
        x: state, shape (d,), in the user's units. At t = 0 only the start has a law; elsewhere the value is NaN.
        remaining: horizon − t, where the caller knows it better than the subtraction does.
        key: for targets whose tilts are estimated.

    Example:
        >>> from pidjax import GaussianMixture, harmonic
        >>> target, protocol = GaussianMixture(jnp.ones((1, 1)), jnp.ones((1, 1, 1))), harmonic(0.0, noise_scale=1.0)
        >>> print(f"{log_psi(target, protocol, 0.5, jnp.zeros(1)):.3f}")
        -0.250

    Source: Behjoo & Chertkov, arXiv 2409.15166.
    """
    point = Point(target, protocol, t, x, remaining, key)
    observation = point.instant.observation
    log_green = jnp.where(observation.is_spread, point.instant.log_green(point.unit.start, point.x), 0)
    return point.law.log_mass - observation.log_normaliser(x.size) - log_green


def weighted_state(
    target: Target,
    protocol: Protocol,
    t: ArrayLike,
    x: Float[Array, " d"],
    *,
    remaining: ArrayLike | None = None,
    key: Key[Array, ""] | None = None,
) -> Float[Array, " d"]:
    """x̂(t, x) = E[y | t, x], the mean end point given the state: the target's mean at t = 0, x itself at t = 1.

    Arguments as in `log_psi`, with t in [0, horizon].

    Example:
        >>> from pidjax import GaussianMixture, harmonic
        >>> target, protocol = GaussianMixture(jnp.ones((1, 1)), jnp.ones((1, 1, 1))), harmonic(0.0, noise_scale=1.0)
        >>> print(f"{weighted_state(target, protocol, 0.5, jnp.ones(1))[0]:.3f}")
        1.500
    """
    point = Point(target, protocol, t, x, remaining, key)
    return jnp.where(point.remaining > 0, point.unit.from_unit(point.law.mean), x)


def control(
    target: Target,
    protocol: Protocol,
    t: ArrayLike,
    x: Float[Array, " d"],
    *,
    remaining: ArrayLike | None = None,
    key: Key[Array, ""] | None = None,
) -> Float[Array, " d"]:
    """u*(t, x) = ∇log ψ − A, the optimal control; at t = 1 its limit ∇log p̃(x) − ∇log G(0, x₀ → 1, x) − A.

    Arguments as in `log_psi`, with t in [0, horizon]; NaN at t = 1 for a target without a density.

    Example:
        >>> from pidjax import GaussianMixture, harmonic
        >>> target, protocol = GaussianMixture(jnp.ones((1, 1)), jnp.ones((1, 1, 1))), harmonic(0.0, noise_scale=1.0)
        >>> print(f"{control(target, protocol, 0.5, jnp.ones(1))[0]:.3f}")
        1.000

    Source: Behjoo & Chertkov, arXiv 2409.15166, with both signs as derived from u* = ∇log ψ.
    """
    point = Point(target, protocol, t, x, remaining, key)
    unit, instant = point.unit, point.instant
    gauge = 0 if instant.gauge is None else instant.gauge(point.x)
    on_the_way = instant.pull(point.x, point.law.mean) - gauge
    at_end = control_at_end(point.target, instant, unit.start, point.x)
    return jnp.where(point.remaining > 0, on_the_way, at_end) * unit.scale / unit.horizon


def control_at_end(
    target: Tiltable, last: Instant, start: Float[Array, " d"], x: Float[Array, " d"]
) -> Float[Array, " d"]:
    """∇log p̃(x) − ∇log G(0, x₀ → 1, x) − A, in the unit problem; NaN for a target without a density.

    Args:
        last: the reference at t = 1.
    """
    if not target.has_density:
        return jnp.full_like(x, jnp.nan)
    slope = jax.grad(target.log_density)(x) - jax.grad(last.log_green, argnums=1)(start, x)
    return slope if last.gauge is None else slope - last.gauge(x)
