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

from .._doors.checks import as_floating, as_scalar, check_key, check_kind, concrete
from ..process.bridge import observe
from ..process.protocol import Protocol, UnitProblem
from ..process.reference import Instant
from ..targets.base import AbstractLaw, AbstractTarget, Tiltable


class Point(eqx.Module):
    """A target's tilted law at one point (t, x), in the unit problem."""

    unit: UnitProblem
    target: Tiltable
    instant: Instant
    remaining: Float[Array, ""]
    x: Float[Array, " d"]
    law: AbstractLaw

    def __init__(self, target, unit, t, remaining, x, key):
        self.unit, self.remaining = unit, remaining
        self.target = target.rescaled(unit.shift, unit.scale)
        self.instant = unit.reference.instant(t, remaining)
        self.x = unit.to_unit(x)
        observation = observe(self.instant.observation, self.x, unit.start)
        self.law = self.target.tilt(observation, jax.random.key(0) if key is None else key)


def place(
    target: AbstractTarget, protocol: Protocol, t: ArrayLike, x: ArrayLike, remaining: ArrayLike | None, key
) -> tuple:
    """What a `Point` is made of, checked, in the unit problem but for x.

    Raises:
        ValueError: x of a wrong shape; a time outside of the horizon (NaN while it is traced); as `Protocol.unit`.
    """
    check_kind("target", target, AbstractTarget, "a target: the order is (target, protocol, t, x)")
    check_kind("protocol", protocol, Protocol, "one of harmonic(...), piecewise(...), from_function(...)")
    if key is not None:
        check_key("key", key)
    unit = protocol.unit(*target.location())
    x = as_floating("x", x).astype(unit.start.dtype)
    if x.shape != unit.start.shape:
        raise ValueError(f"x has shape {x.shape}; pass one point of shape ({target.dim},)")
    elapsed = as_scalar("t", t).astype(x.dtype)
    now, end = concrete(elapsed), concrete(unit.horizon)
    if now is not None and end is not None and not 0 <= now <= end:
        raise ValueError(f"t is {float(now):g}; pass a time in [0, {float(end):g}]")
    x = jnp.where((elapsed >= 0) & (elapsed <= unit.horizon * (1 + 1e-5)), x, jnp.nan)
    remaining = unit.horizon - elapsed if remaining is None else as_scalar("remaining", remaining).astype(x.dtype)
    left = concrete(remaining)
    if (
        left is not None
        and now is not None
        and end is not None
        and not (0 <= left and abs(now + left - end) <= 1e-4 * end)
    ):
        raise ValueError(
            f"remaining is {float(left):g} at t = {float(now):g}; pass the time to the horizon {float(end):g}"
        )
    return target, unit, elapsed / unit.horizon, remaining / unit.horizon, x, key


def log_psi(
    target: AbstractTarget,
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
    return _log_psi(*place(target, protocol, t, x, remaining, key))


@eqx.filter_jit
def _log_psi(*arguments) -> Float[Array, ""]:
    point = Point(*arguments)
    observation = point.instant.observation
    log_green = jnp.where(observation.is_spread, point.instant.log_green(point.unit.start, point.x), 0)
    return point.law.log_mass - observation.log_normaliser(point.x.size) - log_green


def weighted_state(
    target: AbstractTarget,
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
    return _weighted_state(*place(target, protocol, t, x, remaining, key))


@eqx.filter_jit
def _weighted_state(target, unit, t, remaining, x, key) -> Float[Array, " d"]:
    point = Point(target, unit, t, remaining, x, key)
    return jnp.where(remaining > 0, unit.from_unit(point.law.mean), x)


def control(
    target: AbstractTarget,
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
    return _control(*place(target, protocol, t, x, remaining, key))


@eqx.filter_jit
def _control(*arguments) -> Float[Array, " d"]:
    point = Point(*arguments)
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
