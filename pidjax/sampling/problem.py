"""A target and the process that is to end on it: one problem, how it is solved, and what a rollout needs of it.

In the unit problem (x' = (x − shift)/scale, t' = t/T) the reference has its laws along a grid, and the target is rescaled.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from .._doors.checks import as_floating, as_scalar, check_key, check_kind, concrete
from .._doors.show import shown
from .._maths.once import compiled, compiled_once
from ..process.bridge import StartLaws, StepLaws, observe
from ..process.grids import AbstractGrid, log_snr_grid
from ..process.protocol import Protocol
from ..process.schedule import harmonic
from ..process.unit import Sizes, UnitProblem, unit_problem
from ..targets.base import (
    AbstractTarget,
    ExactlyTilted,
    Tilted,
    WithDensity,
    able,
    check_tilted,
)
from .point import Point
from .rules import AbstractGaussianRule, AbstractRule, Ancestral, EndingOnDraw, Euler, Moment, Unweighted


class Problem(eqx.Module):
    """End on the target, at the least cost that the protocol charges.

    Args:
        target: p̃.
        protocol: from `harmonic`, `piecewise` or `from_function`; by default β = 1 in the rescaled problem.

    Everything it gives is checked where its values are concrete, and is pure: under `jit`, `vmap` and `grad`, in target and
    protocol.

    Raises:
        ValueError: no target, no protocol; a coefficient or a start of another dimension than the target.

    Example:
        >>> from pidjax import GaussianMixture
        >>> problem = Problem(GaussianMixture(jnp.ones((1, 1)), jnp.ones((1, 1, 1))), harmonic(0.0, noise_scale=1.0))
        >>> problem.at(0.5, jnp.ones(1)).control.tolist()
        [1.0]

    Source: Behjoo & Chertkov, *Harmonic Path Integral Diffusion*, arXiv 2409.15166.
    """

    target: AbstractTarget
    protocol: Protocol

    def __init__(self, target, protocol=None):
        check_kind(
            "target",
            target,
            AbstractTarget,
            "a GaussianMixture, Samples, Density, or another target, in the order (target, protocol)",
        )
        self.target, self.protocol = target, harmonic() if protocol is None else protocol
        check_kind("protocol", self.protocol, Protocol, "one of harmonic(...), piecewise(...), from_function(...)")
        self.protocol.check_dimension(target.dim)

    def __repr__(self):
        return f"Problem({self.target!r}, {self.protocol!r})"

    @property
    def unit(self) -> UnitProblem:
        """The change of variables to the unit problem, and the reference there.

        Raises:
            ValueError: a conjugate point before the end; a start, centre or force that the dtype does not resolve.
        """
        unit, sizes = _unit_and_sizes(self)
        sizes.check(unit)
        return unit

    def plan(
        self, rule: AbstractRule | None = None, grid: AbstractGrid | None = None, num_steps: int | None = None
    ) -> "Plan":
        """The step rule and the grid to solve it with: those given, and good ones where none is.

        `Ancestral` where the tilted laws are exact, `Moment` where they are estimates of a density's, else `Euler`; 20 steps,
        uniform in log signal-to-noise. On a target without a density a Gaussian rule ends on a draw where the laws are exact,
        and is unweighted elsewhere. For a bare `Density` the plan is that for the surrogate that `sample` fits to it.

        Raises:
            ValueError: both a grid and a number of steps; a rule that the target does not allow; a grid that does not end at
                the horizon.
        """
        if rule is not None and not isinstance(rule, AbstractRule):
            made = f"{rule.__name__} itself" if isinstance(rule, type) else f"a {type(rule).__name__}"
            raise ValueError(f"rule is {made}; pass a step rule: Ancestral(), Moment(), Euler() or Controlled(control)")
        if grid is not None and num_steps is not None:
            raise ValueError(f"num_steps is {num_steps} and grid is given too; pass one of them")
        grid = log_snr_grid(20 if num_steps is None else num_steps) if grid is None else grid
        check_kind("grid", grid, AbstractGrid, "log_snr_grid(...), uniform_grid(...) or at_times(...)")
        grid.check(self.protocol.horizon)
        return Plan(_rule_for(self.target, rule), grid)

    def prepare(self, grid: AbstractGrid) -> "Prepared":
        """What a rollout needs along a grid.

        Raises:
            ValueError: as `unit`; times that do not end at the horizon.

        Example:
            >>> from pidjax import GaussianMixture, log_snr_grid
            >>> Problem(GaussianMixture.isotropic(jnp.zeros((1, 2)), 1.0)).prepare(log_snr_grid(5)).step_laws.num_steps
            5
        """
        check_kind("grid", grid, AbstractGrid, "one of log_snr_grid(...), uniform_grid(...), at_times(...)")
        grid.check(self.protocol.horizon)
        prepared, sizes = _prepared_and_sizes(self, grid)
        sizes.check(prepared.unit)
        return prepared

    def at(
        self,
        t: ArrayLike,
        x: Float[Array, " d"],
        *,
        remaining: ArrayLike | None = None,
        key: Key[Array, ""] | None = None,
    ) -> Point:
        """Value function, weighted state, control and their slopes at one point.

        Args:
            t: time in [0, horizon].
            x: state, shape (d,), in the user's units; at t = 0 the start.
            remaining: horizon − t, where the caller knows it better than the subtraction does.
            key: for targets whose tilted laws are estimated.

        Raises:
            ValueError: x of a wrong shape; a time outside of the horizon; as `unit`. What is asked of the point raises where it
                would be NaN, and is NaN while it is traced.
        """
        check_tilted(self.target)
        if key is not None:
            check_key("key", key)
        x = as_floating("x", x)
        if x.shape != (self.target.dim,):
            raise ValueError(f"x has shape {x.shape}; pass one point of shape ({self.target.dim},)")
        t = as_scalar("t", t)
        remaining = None if remaining is None else as_scalar("remaining", remaining)
        check_time(t, remaining, self.protocol.horizon)
        point, sizes = _point_and_sizes(self, t, remaining, x, jax.random.key(0) if key is None else key)
        sizes.check(point.unit)
        return point


class Plan(NamedTuple):
    """How a problem is solved: with which step rule, on which grid."""

    rule: AbstractRule
    grid: AbstractGrid


def _rule_for(target: AbstractTarget, rule: AbstractRule | None) -> AbstractRule:
    is_estimated = able(target, Tilted) and not able(target, ExactlyTilted)
    if rule is None:
        rule = Ancestral() if not is_estimated else Moment() if able(target, WithDensity) else Euler()
    if rule.needs is ExactlyTilted and is_estimated:
        raise ValueError(
            f"rule is {type(rule).__name__} but {type(target).__name__} only estimates its tilted law; pass Moment() or "
            "Euler(), or a Surrogate as the target"
        )
    if isinstance(rule, AbstractGaussianRule) and not able(target, WithDensity):
        return EndingOnDraw(rule) if able(target, ExactlyTilted) else Unweighted(rule)
    return rule


class Prepared(eqx.Module):
    """What the rollout needs: the target and the reference in the unit problem, and the change of variables back.

    Attributes:
        start_laws: the step that draws a Gaussian start; None for a point.
    """

    target: Any
    step_laws: StepLaws
    start_laws: StartLaws | None
    unit: UnitProblem

    def __repr__(self):
        return shown("Prepared", target=self.target, steps=self.step_laws.num_steps, unit=self.unit)


@compiled_once
def _unit_and_sizes(problem: Problem) -> tuple[UnitProblem, Sizes]:
    unit = unit_problem(problem.protocol, *problem.target.place()[:2])
    return unit, Sizes.of(unit)


@compiled_once
def _prepared_and_sizes(problem: Problem, grid: AbstractGrid) -> tuple[Prepared, Sizes]:
    target = problem.target
    unit, sizes = _unit_and_sizes(problem)
    low, high = target.place().snr_range
    snr_range = (low * unit.scale**2, high * unit.scale**2)
    steps, start = unit.reference.laws(grid.times(unit.reference, snr_range, unit.horizon, target.dim))
    return Prepared(target.rescaled(unit.shift, unit.scale), steps, start, unit), sizes


@compiled
def _point_and_sizes(problem: Problem, t, remaining, x, key) -> tuple[Point, Sizes]:
    unit, sizes = _unit_and_sizes(problem)
    t, x = t.astype(unit.start.dtype), x.astype(unit.start.dtype)
    x = jnp.where((t >= 0) & (t <= unit.horizon * (1 + 1e-5)), x, jnp.nan)
    left = unit.horizon - t if remaining is None else remaining.astype(t.dtype)
    instant = unit.reference.instant(t / unit.horizon, left / unit.horizon)
    target, x = problem.target.rescaled(unit.shift, unit.scale), unit.to_unit(x)
    law = target.tilt(observe(instant.observation, x, unit.start), key)
    return Point(unit, target, instant, left / unit.horizon, x, law), sizes


def check_time(t, remaining, horizon) -> None:
    now, left, end = (None if value is None else concrete(value) for value in (t, remaining, horizon))
    if now is None or end is None:
        return
    if not 0 <= now <= end:
        raise ValueError(f"t is {float(now):g}; pass a time in [0, {float(end):g}]")
    if left is not None and not (0 <= left and abs(now + left - end) <= 1e-4 * end):
        raise ValueError(
            f"remaining is {float(left):g} at t = {float(now):g}; pass the time to the horizon {float(end):g}"
        )
