"""The optimal process of any V, f, A on the cells of a box: two passes of one linear equation.

    φ_0 = δ_{x₀},   φ_{k+1} = Sᵀ φ_k        the masses of the reference, unnormalised: φ_K/h^d is G(0, x₀ → T, ·)
    ψ_K = p̃/G(0, x₀ → T, ·),  or e^{−cost};      ψ_k = S ψ_{k+1}

    Z = ⟨φ_k, ψ_k⟩  at every k,     p*_k = φ_k ψ_k/Z,     P*(j | i) = S_ij ψ_{k+1,j}/ψ_{k,i},     x̂ = S…S (y ψ_K)/ψ_k

and u* = ∇log ψ − A by central differences. The optimal chain on the cells is drawn exactly: along one axis after the other,
with the entries of E times what is left of ψ as probabilities. Sums are kept in range by a factor for each time.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Key

from .._doors.checks import as_point, as_positive, as_scalar, check_count, check_key, check_kind, concrete
from .._doors.functions import check_scalar
from .._doors.show import of_numbers, shown
from ..targets.base import AbstractTarget, WithDensity, able
from ..targets.mixture import GaussianMixture
from ..targets.product import Product
from ..targets.smoothed import Smoothed
from .box import Box, at_points
from .generator import Generator, generator
from .process import Process

_MOST_OUTSIDE = 1e-3
_MOST_MISSING = 1e-2


class Cost(eqx.Module):
    """A cost at the end in the place of a law: ψ_K = e^{−cost}, which leaves the end free.

    Example:
        >>> Cost(lambda y: y @ y).function(jnp.ones(2))
        Array(2., dtype=float32)
    """

    function: Callable[[Float[Array, " d"]], Float[Array, ""]]


class LawAsCost(eqx.Module):
    """log G(0, x₀ → T, y) − log p̃(y)."""

    box: Box
    log_green: Float[Array, "*cells"]
    end: Any

    def __call__(self, y: Float[Array, " d"]) -> Float[Array, ""]:
        return self.box.interpolated(self.log_green, y) - self.end.log_density(y)


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
            reason = _fault(self) or (
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
    steps, middles = _steps(process, box, horizon, num_steps)
    first = spread(box, start)

    def onward(masses, t):
        half = steps.half(t)
        masses = half * masses
        for axis in range(box.dim):
            masses = steps.forward(axis, t, masses)
        masses, log_scale = _scaled(half * masses)
        return masses, (masses, log_scale)

    def back(values, t):
        values, log_scale = _scaled(_one_step(steps, t, values)[0])
        return values, (values, log_scale)

    first, log_first = _scaled(first)
    forward, log_scales = jax.lax.scan(jax.checkpoint(onward), first, middles)[1]
    forward, log_forward = jnp.concatenate([first[None], forward]), jnp.cumsum(jnp.append(log_first, log_scales))

    if isinstance(end, Cost):
        log_last, unreachable = -at_points(end.function, box.points), jnp.zeros((), start.dtype)
    else:
        log_mass = at_points(end.log_density, box.points) + jnp.log(box.volume)
        reached = forward[-1] > 0
        log_last = jnp.where(
            reached, log_mass - jnp.log(jnp.where(reached, forward[-1], 1)) - log_forward[-1], -jnp.inf
        )
        shares = jnp.exp(log_mass - jnp.max(log_mass))
        unreachable = jnp.sum(jnp.where(reached, 0, shares)) / jnp.sum(shares)
    log_last = jnp.where(box.are_inside, log_last, -jnp.inf)
    top = jax.lax.stop_gradient(jnp.max(log_last))
    last = jnp.exp(log_last - top)
    backward, log_scales = jax.lax.scan(jax.checkpoint(back), last, middles, reverse=True)[1]
    backward = jnp.concatenate([backward, last[None]])
    log_backward = jnp.cumsum(jnp.append(log_scales, top)[::-1])[::-1]
    return Solved(process, box, end, start, horizon, forward, log_forward, backward, log_backward, unreachable)


def _fault(solved: Solved) -> str | None:
    """Which function is not finite at a centre where it must be, and where."""
    for name, (is_bad, k, cell) in _faults(solved).items():
        if is_bad:
            x = solved.box.points.reshape(-1, solved.box.dim)[cell]
            when = (
                "" if name == "the end" else f" and t = {(int(k) + 0.5) * float(solved.horizon) / solved.num_steps:g}"
            )
            return f"{name} is NaN or infinite at x = {[round(float(value), 3) for value in x]}{when}"
    return None


@eqx.filter_jit
def _faults(solved: Solved) -> dict[str, tuple[Bool[Array, ""], Int[Array, ""], Int[Array, ""]]]:
    """Of each function, whether there is such a centre, and the numbers of its step and cell. V and a cost may be +∞."""
    box = solved.box
    inside = box.are_inside.ravel()
    points = box.points.reshape(-1, box.dim)

    def is_faulty(values):
        return (jnp.isnan(values) | jnp.isneginf(values)) & inside

    def at(t):
        fields = jax.vmap(lambda x: solved.process.at(t, x))(points)
        vectors = (jnp.where(jnp.isfinite(field).all(-1), 0, jnp.nan) for field in (fields.force, fields.gauge))
        return [is_faulty(values) for values in (fields.potential, *vectors)]

    def first(faulty: Bool[Array, "steps cells"]):
        k, cell = jnp.divmod(jnp.argmax(faulty), inside.size)
        return jnp.any(faulty), k, cell

    found = jax.lax.map(at, _steps(solved.process, box, solved.horizon, solved.num_steps)[1])
    cost = solved.end.function if isinstance(solved.end, Cost) else lambda y: -solved.end.log_density(y)
    found.append(is_faulty(jax.vmap(cost)(points))[None])
    return {name: first(faulty) for name, faulty in zip(("potential", "force", "gauge", "the end"), found)}


def _one_step(steps: Generator, t, values) -> tuple[Float[Array, "*cells"], list[Float[Array, "*cells"]]]:
    """S ψ, and what is left of ψ after the move along each axis."""
    half, left = steps.half(t), []
    values = half * values
    for axis in reversed(range(steps.box.dim)):
        left.insert(0, values)
        values = steps.backward(axis, t, values)
    return half * values, left


def spread(box: Box, start: Float[Array, " d"]) -> Float[Array, "*cells"]:
    """The unit mass at a point, over the two nearest centres of each axis, in the shares that keep its mean."""
    place = (start - box.lower) / box.spacing - 0.5
    masses = jnp.ones((1,) * box.dim, start.dtype)
    for axis, number in enumerate(box.shape):
        along = jnp.clip(place[axis], 0, number - 1)
        shares = jnp.maximum(1 - jnp.abs(jnp.arange(number).astype(start.dtype) - along), 0)
        masses = masses * shares.reshape([-1 if other == axis else 1 for other in range(box.dim)])
    masses = jnp.where(box.are_inside, masses, 0)
    return masses / jnp.sum(masses)


def _scaled(values: Float[Array, "*cells"]) -> tuple[Float[Array, "*cells"], Float[Array, ""]]:
    """Values over their largest, and its logarithm."""
    most = jax.lax.stop_gradient(jnp.max(values))
    return values / most, jnp.log(most)


def _steps(process: Process, box: Box, horizon, num_steps: int) -> tuple[Generator, Float[Array, " steps"]]:
    """The steps, and the times in their middles."""
    step = horizon / num_steps
    return generator(process, box, step), (jnp.arange(num_steps).astype(step.dtype) + 0.5) * step


@eqx.filter_jit
def _weighted_states(solved: Solved) -> Float[Array, "times *cells d"]:
    steps, middles = _steps(solved.process, solved.box, solved.horizon, solved.num_steps)
    last = jnp.moveaxis(solved.box.points, -1, 0) * solved.backward[-1][None]
    scales = jnp.exp(solved.log_backward[1:] - solved.log_backward[:-1])

    def back(moments, indexed):
        t, scale = indexed
        moments = scale * jax.vmap(lambda values: _one_step(steps, t, values)[0])(moments)
        return moments, moments

    moments = jax.lax.scan(back, last, (middles, scales), reverse=True)[1]
    moments = jnp.concatenate([moments, last[None]])
    return jnp.moveaxis(moments / solved.backward[:, None], 1, -1)


@eqx.filter_jit
def _paths(solved: Solved, key: Key[Array, ""], number: int) -> Float[Array, "n times d"]:
    box = solved.box
    steps, middles = _steps(solved.process, box, solved.horizon, solved.num_steps)
    key_start, key = jax.random.split(key)
    first = (solved.forward[0] * solved.backward[0]).ravel()
    begun = jnp.unravel_index(_drawn(key_start, jnp.broadcast_to(first, (number, first.size))), box.shape)

    def onward(cells, indexed):
        key, t, values = indexed
        for axis, left in enumerate(_one_step(steps, t, values)[1]):
            others = tuple(index for other, index in enumerate(cells) if other != axis)
            lines = jnp.moveaxis(left, axis, -1)[others]
            lines = jnp.broadcast_to(lines, (number, box.shape[axis]))
            chosen = _drawn(jax.random.fold_in(key, axis), steps.rows(axis, t, cells) * lines)
            cells = (*cells[:axis], chosen, *cells[axis + 1 :])
        return cells, cells

    keys = jax.random.split(key, solved.num_steps)
    passed = jax.lax.scan(onward, begun, (keys, middles, solved.backward[1:]))[1]
    indices = [jnp.concatenate([first[None], rest]).T for first, rest in zip(begun, passed)]
    return jnp.stack([box.centres(axis)[index] for axis, index in enumerate(indices)], axis=-1)


def _drawn(key: Key[Array, ""], weights: Float[Array, "m n"]) -> Int[Array, " m"]:
    """One index for each row, with probabilities in proportion to it."""
    sums = jnp.cumsum(weights, axis=1)
    heights = jax.random.uniform(key, (len(weights), 1), weights.dtype) * sums[:, -1:]
    return jnp.minimum(jnp.sum(sums <= heights, axis=1), weights.shape[1] - 1)
