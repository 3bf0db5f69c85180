"""An ensemble of controlled paths: what every diagnostic along paths is a mean over.

x(t_k),    x̂(t_k; x(t_k)) = E[x(1) | x(t_k)],    u*(t_k, x(t_k)),    f(t_k, x(t_k)),    log W
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..control import control_at_end
from ..protocol import Unit
from ..rollout import Prepared
from ..solution import Solution

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
        unit: the change of variables to the unit problem.
    """

    times: Float[Array, " times"]
    states: Float[Array, "N times d"]
    weighted_states: Float[Array, "N times d"]
    controls: Float[Array, "N times d"]
    forces: Float[Array, "N times d"]
    log_weights: Float[Array, " N"]
    unit: Unit

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

        Example:
            >>> import jax, pidjax as pid
            >>> target = pid.GaussianMixture(jnp.zeros((1, 1)), jnp.ones((1, 1, 1)))
            >>> paths = ensemble(pid.sample(jax.random.key(0), target, num_samples=9, save_paths=True))
            >>> positive = paths.given_end(lambda x: x[0] > 0)
            >>> bool(jnp.all((positive.log_weights == 0) == (paths.states[:, -1, 0] > 0)))
            True
        """
        inside = jax.vmap(region)(self.states[:, -1])
        return eqx.tree_at(lambda one: one.log_weights, self, jnp.where(inside, self.log_weights, -jnp.inf))


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
    if solution.states is None or solution.weighted_states is None:
        raise ValueError("solution has no paths; pass one from pidjax.sample(..., save_paths=True)")
    states, expected = solution.states, solution.weighted_states
    controls, forces = _controls_and_forces(solution.prepared, states, expected)
    weighted = jnp.concatenate([expected, states[:, -1:]], axis=1)
    unit = solution.prepared.unit
    return Ensemble(solution.times, states, weighted, controls, forces, solution.log_weights, unit)


@eqx.filter_jit
def _controls_and_forces(prepared: Prepared, states, weighted_states):
    """u* and f along the paths, from the states and weighted states: the target is asked at the end only."""
    unit, bridges, target = prepared.unit, prepared.bridges, prepared.target
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
