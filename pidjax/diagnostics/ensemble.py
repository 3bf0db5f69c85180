"""An ensemble of controlled paths: what every diagnostic along paths is a mean over.

x(t_k),    x̂(t_k; x(t_k)) = E[x(1) | x(t_k)],    u*(t_k, x(t_k)),    f(t_k, x(t_k)),    log W
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._doors.checks import check_kind, check_known, concrete
from .._doors.functions import check_scalar, in_words, outcome
from .._doors.show import shown
from ..process.protocol import Protocol
from ..process.unit import UnitProblem, unit_problem
from ..sampling.point import control_at_end
from ..sampling.problem import Prepared, Problem
from ..sampling.solution import Solution
from ..targets.mixture import GaussianMixture

Region = Callable[[Float[Array, " d"]], Bool[Array, ""]]
"""A set of points, as the function that says whether one point is inside."""


class Ensemble(eqx.Module):
    """N paths on a grid of K steps, in the user's units. Means under the weights are those of the optimal process.

    Attributes:
        times: t_k, shape (K+1,).
        states: x(t_k), shape (N, K+1, d).
        weighted_states: x̂(t_k), shape (N, K+1, d); at the end the state itself.
        controls: u*(t_k, x(t_k)), shape (N, K+1, d), whatever rule drew the path; at the end its limit, NaN for a
            target without a density.
        forces: f(t_k, x(t_k)), shape (N, K+1, d).
        log_weights: log W, shape (N,).
        inflation: r of `average`, by which standard errors exceed those of independent islands: 1 but for a pool that the
            paths share. A region has its share of the paths and of the pool: `given_end` leaves it as it is.
        num_islands: groups of paths that never exchange.
        unit: the change of variables to the unit problem.
        mixture: the target, if it was one.
    """

    times: Float[Array, " times"]
    states: Float[Array, "N times d"]
    weighted_states: Float[Array, "N times d"]
    controls: Float[Array, "N times d"]
    forces: Float[Array, "N times d"]
    log_weights: Float[Array, " N"]
    inflation: Float[Array, ""]
    unit: UnitProblem
    mixture: GaussianMixture | None
    num_islands: int = eqx.field(static=True)

    def __repr__(self):
        paths, times, dim = self.states.shape
        return shown("Ensemble", paths=paths, times=times, dim=dim, horizon=self.unit.horizon, inflation=self.inflation)

    @property
    def dim(self) -> int:
        return self.states.shape[-1]

    @property
    def noise_scale(self) -> Float[Array, ""]:
        """σ of dx = (f + u) dt + σ dW."""
        return self.unit.scale / jnp.sqrt(self.unit.horizon)

    @property
    def drifts(self) -> Float[Array, "N times d"]:
        """f + u*."""
        return self.forces + self.controls

    @property
    def start(self) -> Float[Array, " d"]:
        """x₀, or the mean of a Gaussian start."""
        return self.unit.from_unit(self.unit.start)

    def given_end(self, region: Region) -> "Ensemble":
        """The ensemble conditioned on x(1) in a region: the other paths lose their weight.

        Raises:
            ValueError: a region that no path of positive weight ends in (concrete values only), or that is no function of
                one point to a boolean.

        Example:
            >>> import jax, pidjax as pid
            >>> target = pid.GaussianMixture(jnp.zeros((1, 1)), jnp.ones((1, 1, 1)))
            >>> paths = ensemble(pid.sample(jax.random.key(0), target, num_samples=9, save_paths=True))
            >>> positive = paths.given_end(lambda x: x[0] > 0)
            >>> bool(jnp.all((positive.log_weights == 0) == (paths.states[:, -1, 0] > 0)))
            True
        """
        inside = are_inside(region, self.states[:, -1])
        log_weights = jnp.where(inside, self.log_weights, -jnp.inf)
        known = concrete(log_weights)
        if known is not None and not (known > -np.inf).any():
            raise ValueError(
                f"region holds the ends of {jnp.sum(inside)} of {known.size} paths, none of positive weight; pass a region "
                "that some paths end in"
            )
        return eqx.tree_at(lambda one: one.log_weights, self, log_weights)


def are_inside(region: Region, points: Float[Array, "n d"]) -> Bool[Array, " n"]:
    """Which of the points are in a region, with its answer checked to be one boolean."""
    answer = outcome("region", region, points[0])
    if getattr(answer, "shape", None) != () or answer.dtype != bool:
        raise ValueError(
            f"region returns {in_words(answer)} for one point of shape {points.shape[1:]}; return one boolean"
        )
    return jax.vmap(region)(points)


def ensemble(solution: Solution) -> Ensemble:
    """The paths of a solution with their controls.

    Raises:
        ValueError: the solution has no paths.

    Example:
        >>> import jax, pidjax as pid
        >>> target = pid.GaussianMixture(jnp.zeros((1, 2)), jnp.eye(2)[None])
        >>> ensemble(pid.sample(jax.random.key(0), target, num_samples=9, save_paths=True)).controls.shape
        (9, 21, 2)
    """
    states, expected = saved_paths(solution)
    controls, forces = _controls_and_forces(solution.prepared, states, expected)
    return Ensemble(
        times=solution.times,
        states=states,
        weighted_states=jnp.concatenate([expected, states[:, -1:]], axis=1),
        controls=controls,
        forces=forces,
        log_weights=solution.log_weights,
        inflation=solution.inflation,
        unit=solution.prepared.unit,
        mixture=solution.target if isinstance(solution.target, GaussianMixture) else None,
        num_islands=solution.num_islands,
    )


def saved_paths(solution: Any) -> tuple[Float[Array, "N times d"], Float[Array, "N K d"]]:
    """x(t_k) and x̂(t_k) of a solution, or an error that says how to get them."""
    check_kind("solution", solution, Solution, "one from pidjax.sample(..., save_paths=True)")
    if solution.states is None or solution.weighted_states is None:
        raise ValueError("solution has no paths; pass one from pidjax.sample(..., save_paths=True)")
    return solution.states, solution.weighted_states


def check_paths(paths: Any) -> None:
    """Raise unless the value is an `Ensemble`."""
    check_kind("paths", paths, Ensemble, "pidjax.diagnostics.ensemble(solution)")


def check_process(paths: Ensemble, protocol: Any, target: Any = None) -> None:
    """Raise unless a protocol is the one that the paths were sampled with: concrete unit problems are compared.

    Args:
        target: what the unit problem is made for; if left out, one of the mean and spread that it was made for.
    """
    check_target(paths, target)
    check_kind("protocol", protocol, Protocol, "the one that the paths were sampled with")
    own = paths.unit
    protocol.check_dimension(paths.dim)
    other = _unit(protocol, own.shift, own.scale) if target is None else Problem(target, protocol).unit
    for (name, sampled), given in zip(_parts(own, own).items(), _parts(other, own).values(), strict=True):
        if _differ(sampled, given):
            who = "protocol has" if target is None else "target and protocol have"
            raise ValueError(f"{who} another {name} than the paths were sampled with; pass those of the solution")


def check_target(paths: Ensemble, target: Any) -> None:
    """Raise unless a target, if given, is of the paths' dimension, and a mixture the one that they were sampled for."""
    check_paths(paths)
    if target is not None and target.dim != paths.dim:
        raise ValueError(f"target has dimension {target.dim} but the paths have dimension {paths.dim}")
    if isinstance(target, GaussianMixture) and paths.mixture is not None and _differ(paths.mixture, target):
        raise ValueError("target is another mixture than the paths were sampled for; pass that of the solution")


def _differ(one: Any, other: Any) -> bool:
    """Whether concrete values are apart by more than rounding."""
    rounding = float(jnp.finfo(jax.tree.leaves(one)[0].dtype).eps) ** 0.5
    agree = concrete(eqx.tree_equal(one, other, rtol=rounding, atol=rounding))
    return agree is not None and not agree


def along_paths(
    log_density: Callable[[Float[Array, " d"]], Float[Array, ""]],
    paths: Ensemble,
    points: Float[Array, "N times d"],
    of: Callable[[Callable], Callable] = lambda function: function,
) -> Float[Array, "N times ..."]:
    """log p, or its derivative, at points along the paths; NaN where a concrete weight is not zero raises."""
    check_scalar("log_density", log_density, points[0, 0])
    values = jax.vmap(jax.vmap(of(log_density)))(points)
    alive = (paths.log_weights > -jnp.inf).reshape(-1, *[1] * (values.ndim - 1))
    check_known(
        "log_density, or its gradient,", jnp.where(alive, values, 0), "on the paths; return -inf outside the support"
    )
    return values


_unit = eqx.filter_jit(unit_problem)


def _parts(unit: UnitProblem, own: UnitProblem) -> dict[str, Any]:
    """What makes a unit problem, in units in which numbers of its own are of order one."""
    return {
        "horizon": unit.horizon / own.horizon,
        "scale": unit.scale / own.scale,
        "shift": unit.shift / own.scale,
        "start": unit.start,
        "potential, force or gauge": unit.reference,
    }


@eqx.filter_jit
def _controls_and_forces(prepared: Prepared, states, weighted_states):
    """u* and f along the paths, from the states and weighted states: the target is asked at the end only."""
    unit, bridges, target = prepared.unit, prepared.step_laws, prepared.target
    last = unit.reference.instant(jnp.ones_like(unit.scale), jnp.zeros_like(unit.scale))

    def on_the_way(now, x, weighted_state):
        force = jnp.zeros_like(x) if now.force is None else now.force(x)
        return now.drift(x, weighted_state) - force, force

    def at_end(x):
        control = control_at_end(target, last, unit.start, x)
        return control, jnp.zeros_like(x) if last.force is None else last.force(x)

    def along(path, weighted):
        before = jax.vmap(on_the_way)(bridges, path[:-1], weighted)
        return jax.tree.map(lambda early, end: jnp.concatenate([early, end[None]]), before, at_end(path[-1]))

    fields = jax.vmap(along)(unit.to_unit(states), unit.to_unit(weighted_states))
    return jax.tree.map(lambda field: field * unit.scale / unit.horizon, fields)
