"""The points that a regression learns from, and how they are renewed on the way.

Refresh     end points of the rule's own paths, weighted by W
Turns       the points before, moved by U-turns of the target's tilted laws, which leave p̃ as it is
"""

from abc import abstractmethod
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from .._doors.checks import as_scalar, check_count, concrete
from .._doors.show import shown_fields
from ..sampling.problem import Prepared
from ..sampling.rollout import rollout
from ..sampling.rules import AbstractGaussianRule
from ..sampling.uturn import turn
from ..targets.base import ExactlyTilted, able
from .losses import held


class Points(NamedTuple):
    """A buffer in the unit problem, with ∇log p̃ at each point."""

    ends: Float[Array, "n d"]
    log_weights: Float[Array, " n"]
    slopes: Float[Array, "n d"]

    @classmethod
    def of(cls, target: Any, ends: Float[Array, "n d"], log_weights: Float[Array, " n"]) -> "Points":
        """Points with a slope that is not finite have no weight."""
        slopes = jax.vmap(jax.grad(target.log_density))(ends)
        usable = jnp.isfinite(slopes).all(axis=1) & jnp.isfinite(ends).all(axis=1)
        return cls(
            jnp.where(usable[:, None], ends, 0),
            jnp.where(usable, log_weights, -jnp.inf),
            jnp.where(usable[:, None], slopes, 0),
        )


class AbstractRefresh(eqx.Module):
    """New points, after every so many iterations."""

    every: eqx.AbstractVar[int]
    num_points: eqx.AbstractVar[int]

    __repr__ = shown_fields

    @abstractmethod
    def __call__(
        self, prepared: Prepared, rule: AbstractGaussianRule, key: Key[Array, ""], points: Points | None
    ) -> Points:
        """The points after those before; there are none at the start without a buffer."""

    @abstractmethod
    def num_evaluations(self, num_steps: int, per_step: int) -> int:
        """States at which the log-density or its gradient is asked for, each time."""


class Refresh(AbstractRefresh):
    """New points from the rule that is learned.

    Args:
        every: iterations.
        num_points: paths of the rule, whose end points replace the points before.
        power: a in [0, 1] of their weights W^a: 1 is exact, 0 takes them as they are, as adjoint sampling does, where weights
            would collapse.

    Raises:
        ValueError: counts below 1; a power outside of [0, 1].
    """

    every: int = eqx.field(static=True)
    num_points: int = eqx.field(static=True)
    power: Float[Array, ""]

    def __init__(self, every: int, num_points: int, *, power: float = 1.0):
        self.every, self.num_points = check_count("every", every), check_count("num_points", num_points)
        self.power = as_scalar("power", power)
        known = concrete(self.power)
        if known is not None and not 0 <= known <= 1:
            raise ValueError(f"power is {known:g}; pass a number in [0, 1]")

    def __call__(self, prepared, rule, key, points):
        paths = jax.lax.stop_gradient(rollout(prepared, held(rule), key, jnp.arange(self.num_points)))
        log_weights = self.power.astype(paths.log_weights.dtype) * paths.log_weights
        return Points.of(prepared.target, paths.samples, jnp.where(log_weights < jnp.inf, log_weights, -jnp.inf))

    def num_evaluations(self, num_steps, per_step):
        return self.num_points * (2 + per_step * num_steps)


class Turns(AbstractRefresh):
    """A U-turn of every point, each at the time of a step drawn for it: see `pidjax.uturn`.

    Args:
        every: iterations.
        num_points: drawn from the buffer at the start, with its weights.

    Raises:
        ValueError: counts below 1; a target whose tilted laws are not exact.
    """

    every: int = eqx.field(static=True)
    num_points: int = eqx.field(static=True)

    def __init__(self, every: int, num_points: int):
        self.every, self.num_points = check_count("every", every), check_count("num_points", num_points)

    def __call__(self, prepared, rule, key, points):
        if not able(prepared.target, ExactlyTilted):
            raise ValueError(
                "Turns need a target whose tilted laws are exact, as a Surrogate; pass Refresh(...) instead"
            )
        assert points is not None
        key_steps, key_turns = jax.random.split(key)
        bridges, start = prepared.step_laws.observation, prepared.unit.start
        steps = jax.random.randint(key_steps, (self.num_points,), 0, prepared.step_laws.num_steps)

        def of_point(key, step, end):
            return turn(key, prepared.target, jax.tree.map(lambda leaf: leaf[step], bridges), start, end).samples

        ends = jax.vmap(of_point)(jax.random.split(key_turns, self.num_points), steps, points.ends)
        return Points.of(prepared.target, ends, points.log_weights)

    def num_evaluations(self, num_steps, per_step):
        return 3 * self.num_points
