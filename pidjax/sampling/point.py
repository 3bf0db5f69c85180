"""A problem at one point (t, x): value function, weighted state, control, and their slopes.

    log ψ(t, x) = log ∫ p̃(y) N(x; M y + n, Σ) dy − log G(0, x₀ → t, x)            (at t = 0: log Z)
    x̂(t, x)    = E[ y | t, x ]
    u*(t, x)    = ∇log ψ − A(t, x)                                                 (at t = 1: ∇log p̃ − ∇log G(0, x₀ → 1, x) − A)

For V = β|x|²/2 and neither force nor gauge, u* = ( x̂ − C(τ) x ) / S(τ).
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._doors.checks import concrete
from .._doors.show import brief, shown
from .._maths.maps import dense
from .._maths.small import matmul, transpose
from ..process.reference import Instant
from ..process.unit import UnitProblem
from ..targets.base import WithCovariance, WithDensity, WithMass, able


class Point(eqx.Module):
    """A problem at one point (t, x).

    Attributes:
        unit, target, instant, remaining, x: of the unit problem: the target, the reference and 1 − t at the time, the state.
        law: the target's tilted law there.
    """

    unit: UnitProblem
    target: Any
    instant: Instant
    remaining: Float[Array, ""]
    x: Float[Array, " d"]
    law: Any

    def __repr__(self):
        return shown("Point", law=type(self.law).__name__, x=self.unit.from_unit(self.x))

    @property
    def log_psi(self) -> Float[Array, ""]:
        """log ψ(t, x), minus the cost to go; log Z at the start, NaN at t = 1 for a target without a density."""
        self._check_able(WithMass)
        return self._known("log_psi", _log_psi(self))

    @property
    def weighted_state(self) -> Float[Array, " d"]:
        """x̂(t, x) = E[y | t, x], the mean end point given the state: the target's mean at t = 0, x itself at t = 1."""
        return self._known("weighted_state", _weighted_state(self))

    @property
    def control(self) -> Float[Array, " d"]:
        """u*(t, x); NaN at t = 1 for a target without a density."""
        return self._known("control", _control(self))

    @property
    def control_jacobian(self) -> Float[Array, "d d"]:
        """∂u*/∂x = −J_xx − A₁ + B Cov(y|t,x) Bᵀ, with ∇log ψ = B x̂ − J_xx x + …, for t < horizon."""
        return _jacobians(self._before_end())[0]

    @property
    def weighted_state_jacobian(self) -> Float[Array, "d d"]:
        """∂x̂/∂x = Cov(y|t,x) Bᵀ, for t < horizon. No derivative of the target is taken."""
        return _jacobians(self._before_end())[1]

    def _known(self, name: str, value: Array) -> Array:
        """The value; raise if it is concrete and NaN."""
        number = concrete(value)
        if number is not None and np.isnan(number).any():
            raise ValueError(
                f"{name} is NaN at x = {brief(self.unit.from_unit(self.x))}: at t = 0 only the start has a law, at the horizon "
                f"only a target with a density has a control; elsewhere {self.x.dtype} does not hold numbers of this size"
            )
        return value

    def _check_able(self, ability: type) -> None:
        if not able(self.law, ability):
            raise ValueError(f"the target's laws are {type(self.law).__name__}, which are not {ability.__name__}")

    def _before_end(self) -> "Point":
        self._check_able(WithCovariance)
        left = concrete(self.remaining)
        if left is not None and not left > 0:
            raise ValueError(
                "t is the horizon, where the slopes have no limit that this form reaches; pass an earlier time"
            )
        return self


@eqx.filter_jit
def _log_psi(point: Point) -> Float[Array, ""]:
    observation, ended = point.instant.observation, point.remaining <= 0
    log_evidence = point.law.log_mass - observation.log_normaliser(point.x.size)
    at_end = point.target.log_density(point.x) if able(point.target, WithDensity) else jnp.nan
    log_green = jnp.where(observation.is_spread | ended, point.instant.log_green(point.unit.start, point.x), 0)
    return jnp.where(ended, at_end, log_evidence) - log_green


@eqx.filter_jit
def _weighted_state(point: Point) -> Float[Array, " d"]:
    return point.unit.from_unit(jnp.where(point.remaining > 0, point.law.mean, point.x))


@eqx.filter_jit
def _control(point: Point) -> Float[Array, " d"]:
    unit, instant = point.unit, point.instant
    gauge = 0 if instant.gauge is None else instant.gauge(point.x)
    on_the_way = instant.pull(point.x, point.law.mean) - gauge
    at_end = control_at_end(point.target, instant, unit.start, point.x)
    return jnp.where(point.remaining > 0, on_the_way, at_end) * unit.scale / unit.horizon


def control_at_end(target: Any, last: Instant, start: Float[Array, " d"], x: Float[Array, " d"]) -> Float[Array, " d"]:
    """∇log p̃(x) − ∇log G(0, x₀ → 1, x) − A, in the unit problem; NaN for a target without a density.

    Args:
        last: the reference at t = 1.
    """
    if not able(target, WithDensity):
        return jnp.full_like(x, jnp.nan)
    slope = jax.grad(target.log_density)(x) - jax.grad(last.log_green, argnums=1)(start, x)
    return slope if last.gauge is None else slope - last.gauge(x)


@eqx.filter_jit
def _jacobians(point: Point) -> tuple[Float[Array, "d d"], Float[Array, "d d"]]:
    """∂u*/∂x and ∂x̂/∂x; NaN at the horizon, where this form reaches no limit."""
    pull, gauge, d = point.instant.pull, point.instant.gauge, point.x.size
    to_end = dense(pull.to_end, d)
    gain = jnp.where(point.remaining > 0, matmul(point.law.covariance(), transpose(to_end)), jnp.nan)
    control = matmul(to_end, gain) - dense(pull.to_centre, d)
    if gauge is not None:
        control = control - dense(gauge.matrix, d)
    return control / point.unit.horizon, gain
