"""The value function, the weighted state and the optimal control at one point (t, x).

log ψ(t, x) = log ∫ p̃(y) N(x; m y + n, s I) dy − log G(0, x₀ → t, x)          (at t = 0: log Z)
x̂(t, x)    = E[ y | t, x ]
u*(t, x)    = ( x̂ − C(τ) x ) / S(τ)                                            (at t = 1: ∇log p̃ − ∇log G(0, x₀ → 1, x))
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from .bridge import observe
from .protocol import Harmonic, Unit
from .targets.base import Law, Target, Tiltable


class Point(eqx.Module):
    """A target's tilted law at one point (t, x), in the unit problem."""

    unit: Unit
    target: Tiltable
    elapsed: Float[Array, ""]
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
        self.elapsed, self.remaining = elapsed / self.unit.horizon, remaining / self.unit.horizon
        self.x = self.unit.to_unit(x)
        observation = observe(self.unit.green.pin(self.elapsed, self.remaining), self.x, self.unit.start)
        self.law = self.target.tilt(observation, jax.random.key(0) if key is None else key)


def log_psi(
    target: Target,
    protocol: Harmonic,
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
    pinned = point.unit.green.pin(point.elapsed, point.remaining)
    begun = pinned.variance > 0
    log_noise = 0.5 * x.size * jnp.log(2 * jnp.pi * jnp.where(begun, pinned.variance, 1))
    log_green = point.unit.green.log(point.unit.start, point.x, jnp.where(begun, point.elapsed, 1))
    return point.law.log_mass - jnp.where(begun, log_noise + log_green, 0)


def weighted_state(
    target: Target,
    protocol: Harmonic,
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
    protocol: Harmonic,
    t: ArrayLike,
    x: Float[Array, " d"],
    *,
    remaining: ArrayLike | None = None,
    key: Key[Array, ""] | None = None,
) -> Float[Array, " d"]:
    """u*(t, x) = ( x̂ − C(τ) x ) / S(τ), the optimal drift; at t = 1 its limit ∇log p̃(x) − ∇log G(0, x₀ → 1, x).

    Arguments as in `log_psi`, with t in [0, horizon]; NaN at t = 1 for a target without a density.

    Example:
        >>> from pidjax import GaussianMixture, harmonic
        >>> target, protocol = GaussianMixture(jnp.ones((1, 1)), jnp.ones((1, 1, 1))), harmonic(0.0, noise_scale=1.0)
        >>> print(f"{control(target, protocol, 0.5, jnp.ones(1))[0]:.3f}")
        1.000

    Source: Behjoo & Chertkov, arXiv 2409.15166, with both signs as derived from u* = ∇log ψ.
    """
    point = Point(target, protocol, t, x, remaining, key)
    unit, before_end = point.unit, point.remaining > 0
    to_end, to_centre = unit.green.pull(jnp.where(before_end, point.remaining, 1))
    drift = to_end * point.law.mean - to_centre * point.x
    if target.has_density:
        score = jax.grad(point.target.log_density)(point.x)
        at_end = score - jax.grad(unit.green.log, argnums=1)(unit.start, point.x, jnp.ones_like(unit.scale))
    else:
        at_end = jnp.full_like(drift, jnp.nan)
    return jnp.where(before_end, drift, at_end) * unit.scale / unit.horizon
