"""The optimal process of any V, f, A on the cells of a box: two passes of one linear equation.

    φ_0 = δ_{x₀},   φ_{k+1} = Sᵀ φ_k        the masses of the reference, unnormalised: φ_K/h^d is G(0, x₀ → T, ·)
    ψ_K = p̃/G(0, x₀ → T, ·),  or e^{−cost};      ψ_k = S ψ_{k+1}

    Z = ⟨φ_k, ψ_k⟩  at every k,     p*_k = φ_k ψ_k/Z,     P*(j | i) = S_ij ψ_{k+1,j}/ψ_{k,i},     x̂ = S…S (y ψ_K)/ψ_k

and u* = ∇log ψ − A by central differences.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from .._doors.checks import as_point, as_positive, as_scalar, check_count, check_key, check_kind, concrete
from .._doors.functions import check_scalar
from .._doors.show import of_numbers, shown
from ..targets.base import AbstractTarget, WithDensity, able
from ..targets.mixture import GaussianMixture
from ..targets.product import Product
from ..targets.smoothed import Smoothed
from .box import Box, at_points
from .chain import paths, weighted_states
from .cost import Cost, LawAsCost
from .faults import fault
from .generator import Generator
from .process import Process
from .sweeps import backward, forward, spread, steps_of

_MOST_OUTSIDE = 1e-3
_MOST_MISSING = 1e-2


class Solved(eqx.Module):
    """The optimal process, on cells and K + 1 times.

    Attributes:
        process, box, end, horizon: what was asked for, T the horizon.
        start: x₀.
        forward, backward: φ_k and ψ_k, each divided by e to the power of its `log_forward` and `log_backward`.
        unreachable: the share of the target's mass on cells, in walls too, that the reference does not reach in this dtype; 0
            for a cost.
    """

    process: Process
    box: Box
    end: Any
    start: Float[Array, " d"]
    horizon: Float[Array, ""]
    forward: Float[Array, "times *cells"]
    log_forward: Float[Array, " times"]
    backward: Float[Array, "times *cells"]
    log_backward: Float[Array, " times"]
    unreachable: Float[Array, ""]

    def __repr__(self):
        log_z = of_numbers(lambda own: own.log_z, self)
        return shown("Solved", box=self.box, num_steps=self.num_steps, log_z=log_z)

    @property
    def num_steps(self) -> int:
        """K."""
        return self.log_forward.size - 1

    @property
    def log_z(self) -> Float[Array, ""]:
        """log Z, minus the least cost from x₀: of an unnormalised target with its log-mass added."""
        return self.log_products[0]

    @property
    def log_products(self) -> Float[Array, " times"]:
        """log ⟨φ_k, ψ_k⟩ at each time, log Z to rounding."""
        return jnp.log(jnp.sum(self.forward * self.backward, axis=self._axes)) + self.log_forward + self.log_backward

    @property
    def times(self) -> Float[Array, " times"]:
        """t_k."""
        return self.horizon * jnp.arange(self.num_steps + 1).astype(self.start.dtype) / self.num_steps

    @property
    def log_psi(self) -> Float[Array, "times *cells"]:
        """log ψ_k, −∞ where it is zero."""
        return jnp.log(self.backward) + self.log_backward.reshape(-1, *[1] * self.box.dim)

    @property
    def marginals(self) -> Float[Array, "times *cells"]:
        """The probabilities p*_k of the cells."""
        masses = self.forward * self.backward
        return masses / jnp.sum(masses, axis=self._axes, keepdims=True)

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(range(1, self.box.dim + 1))

    @property
    def boundary_mass(self) -> Float[Array, ""]:
        """The largest probability, of all times, that the outermost cells hold together: large if the box is too small."""
        inner = (slice(None), *(slice(1, -1),) * self.box.dim)
        return jnp.max(1 - jnp.sum(self.marginals[inner], axis=self._axes))

    def weighted_states(self) -> Float[Array, "times *cells d"]:
        """x̂ = E[x_T | x_t], at each time and cell; NaN where no path to the end begins."""
        return _weighted_states(self)

    def control(self, t: ArrayLike, x: ArrayLike) -> Float[Array, " d"]:
        """u*(t, x) = ∇log ψ − A: central differences of log ψ, between cells and times by linear interpolation.

        NaN where no path to the end begins, in this dtype; outside of the box that of its nearest cell.

        Raises:
            ValueError: a point of another dimension; a time that is not between 0 and the horizon.

        Example:
            >>> target = pid.GaussianMixture.isotropic(jnp.array([[1.0]]), 1.0)
            >>> solved = solve(Process(), Box.around(target, cells=200), target, num_steps=50)
            >>> print(f"{solved.control(0.0, jnp.zeros(1))[0]:.2f}")
            1.00
        """
        t = as_scalar("t", t).astype(self.start.dtype)
        known, last = concrete(t), concrete(self.horizon)
        if known is not None and last is not None and not 0 <= known <= last:
            raise ValueError(f"t is {known:g}; pass a time from 0 to the horizon, {last:g}")
        x = as_point("x", x, self.box.dim).astype(self.start.dtype)
        when = t / self.horizon * self.num_steps
        first = jnp.clip(jnp.floor(when).astype(int), 0, self.num_steps - 1)

        def slope(number):
            values = jnp.log(self.backward[number])
            slopes = [jnp.asarray(jnp.gradient(values, axis=axis)) for axis in range(self.box.dim)]
            return jnp.stack([self.box.interpolated(slope, x) for slope in slopes]) / self.box.spacing

        share = when - first.astype(when.dtype)
        found = (1 - share) * slope(first) + share * slope(first + 1)
        return found if self.process.gauge is None else found - self.process.gauge(t, x)

    @property
    def cost(self) -> Cost:
        """The cost at the end: the one asked for, or the law's, log G(0, x₀ → T, y) − log p̃(y), with G between cells."""
        if isinstance(self.end, Cost):
            return self.end
        log_green = jnp.log(self.forward[-1]) + self.log_forward[-1] - jnp.log(self.box.volume)
        return Cost(LawAsCost(self.box, log_green, self.end))

    def sample(self, key: Key[Array, ""], num_samples: int) -> Float[Array, "n times d"]:
        """Paths of the optimal chain on the cells, exactly: the centres that they pass.

        Example:
            >>> solved = solve(Process(), Box([-6.0], [6.0], (60,)), Cost(lambda y: 2 * jnp.sum((y - 1) ** 2)), num_steps=10)
            >>> solved.sample(jax.random.key(0), 5).shape
            (5, 11, 1)
        """
        check_key("key", key)
        return _paths(self, key, check_count("num_samples", num_samples))

    def check(self) -> "Solved":
        """This, if the numbers are to be trusted as far as one solution can tell.

        Raises:
            ValueError: log Z is not finite, with the field that is not, and where; the outermost cells hold a thousandth of the
                probability; the reference does not reach a thousandth of the target's mass; the cells hold a hundredth too
                much or too little of a law that is normalised.
        """
        if not np.isfinite(self.log_z):
            reason = fault(self.process, self.box, self.end, _steps(self)[1]) or (
                "the end has no mass that paths in the box can reach, or a potential is so negative that its exponential "
                "overflows"
            )
            raise ValueError(f"log Z is {float(self.log_z)}: {reason}")
        if self.boundary_mass > _MOST_OUTSIDE:
            share = float(self.boundary_mass)
            raise ValueError(f"the outermost cells hold {share:.1%} of the probability; take a larger box")
        if self.unreachable > _MOST_OUTSIDE:
            raise ValueError(
                f"{float(self.unreachable):.1%} of the target's mass is in walls, or where the reference has none in "
                f"{self.start.dtype}: move the target or the walls, bring the start nearer, or take float64"
            )
        if isinstance(self.end, GaussianMixture | Product | Smoothed) and abs(self.log_z) > _MOST_MISSING:
            share = float(jnp.exp(self.log_z))
            raise ValueError(
                f"the cells hold {share:.3g} of the target's mass, which is one: it reaches out of the box, or is narrower "
                "than a cell; take a larger box, or more cells"
            )
        return self

    def refined(self) -> "Solved":
        """The same with cells of half the size and twice as many steps: the differences show the error."""
        return solve(
            self.process,
            self.box.refined(),
            self.end,
            start=self.start,
            num_steps=2 * self.num_steps,
            horizon=self.horizon,
        )


def solve(
    process: Process,
    box: Box,
    end: AbstractTarget | Cost,
    *,
    start: ArrayLike | None = None,
    num_steps: int = 200,
    horizon: ArrayLike = 1.0,
) -> Solved:
    """The optimal process from a point to a law, or to a cost, at the horizon.

    Args:
        process: V, f and A.
        box: the cells; `Box.around(target)` has room for most.
        end: a target with a density, or a `Cost`.
        start: x₀, shape (d,), inside the box; the origin if left out. It is spread over the nearest cells with its mean kept.
        num_steps: K, of equal length.
        horizon: T > 0.

    Raises:
        ValueError: arguments of another kind, shape or dimension; fields that do not return what they should; a start outside
            of the box or in a wall.

    Example:
        >>> target = pid.GaussianMixture.isotropic(jnp.array([[-2.0], [2.0]]), 0.5)
        >>> well = Process(potential=lambda t, x: jnp.sum(x**4 / 20 - x**2))
        >>> solved = solve(well, Box.around(target), target).check()
        >>> print(f"{abs(solved.log_z):.3f}")
        0.000
    """
    check_kind("process", process, Process, "general.Process(potential=..., force=..., gauge=...)")
    check_kind("box", box, Box, "general.Box(lower, upper, shape)")
    num_steps, horizon = check_count("num_steps", num_steps), as_positive("horizon", horizon).astype(box.lower.dtype)
    start = (
        jnp.zeros(box.dim, box.lower.dtype)
        if start is None
        else as_point("start", start, box.dim).astype(box.lower.dtype)
    )
    place = concrete((start - box.lower) / (box.upper - box.lower))
    if place is not None and not ((place > 0) & (place < 1)).all():
        raise ValueError(
            f"start is {start.tolist()}, outside of the box from {box.lower.tolist()} to {box.upper.tolist()}"
        )
    reached = concrete(jnp.sum(spread(box, start)))
    if reached is not None and not np.isfinite(reached):
        raise ValueError(f"start is {start.tolist()}, inside a wall of the box; pass a place that is free")
    if isinstance(end, Cost):
        check_scalar("cost", end.function, start)
    elif not (isinstance(end, AbstractTarget) and able(end, WithDensity)):
        raise ValueError(f"end is a {type(end).__name__}; pass a target with a density, or general.Cost(function)")
    elif end.dim != box.dim:
        raise ValueError(f"end has dimension {end.dim} but the box {box.dim}")
    process.check(jnp.zeros((), start.dtype), start)
    return _solved(process, box, end, start, horizon, num_steps)


@eqx.filter_jit
def _solved(process: Process, box: Box, end, start, horizon, num_steps: int) -> Solved:
    steps, middles = steps_of(process, box, horizon, num_steps)
    masses, log_masses = forward(steps, middles, spread(box, start))
    if isinstance(end, Cost):
        log_last, unreachable = -at_points(end.function, box.points), jnp.zeros((), start.dtype)
    else:
        log_mass = at_points(end.log_density, box.points) + jnp.log(box.volume)
        reached = masses[-1] > 0
        log_last = jnp.where(reached, log_mass - jnp.log(jnp.where(reached, masses[-1], 1)) - log_masses[-1], -jnp.inf)
        shares = jnp.exp(log_mass - jnp.max(log_mass))
        unreachable = jnp.sum(jnp.where(reached, 0, shares)) / jnp.sum(shares)
    values, log_values = backward(steps, middles, jnp.where(box.are_inside, log_last, -jnp.inf))
    return Solved(process, box, end, start, horizon, masses, log_masses, values, log_values, unreachable)


@eqx.filter_jit
def _weighted_states(solved: Solved) -> Float[Array, "times *cells d"]:
    return weighted_states(*_steps(solved), solved.backward, solved.log_backward)


@eqx.filter_jit
def _paths(solved: Solved, key: Key[Array, ""], number: int) -> Float[Array, "n times d"]:
    return paths(key, *_steps(solved), solved.forward[0] * solved.backward[0], solved.backward, number)


def _steps(solved: Solved) -> tuple[Generator, Float[Array, " steps"]]:
    return steps_of(solved.process, solved.box, solved.horizon, solved.num_steps)
