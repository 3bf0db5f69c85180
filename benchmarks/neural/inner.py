"""Regression of a control on inner Monte Carlo estimates of the optimal one, at states of the model's own paths, as iDEM does.

    L = E ½ Δt |u_θ(t, x) − û(t, x)|²,     û from Σ_j w_j y_j,   w_j ∝ p̃(y_j)/p̂(y_j),   y_j ~ p̂(y | x_t = x)

p̂ is one broad Gaussian. The states are those of paths that are drawn anew every few iterations.

Source: Akhound-Sadegh et al., *Iterated denoising energy matching*, arXiv 2402.06121; here on the paths' own grid, without its
buffer of all states before and its noising of end points.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

import pidjax as pid
from pidjax import learning
from pidjax.learning.losses import held
from pidjax.process.bridge import observe


class Visited(NamedTuple):
    """States of paths, shape (n, K + 1, d), and the iterations so far."""

    states: Float[Array, "n times d"]
    iteration: Int[Array, ""]


class InnerRegression(learning.AbstractLoss):
    """The regression of a rule's `control` on the drift that `local` estimates.

    Args:
        local: the density, with p̂ and the number of its draws.
        num_paths, every: paths whose states are learned at, and iterations before new ones are drawn.
    """

    local: pid.LocalDraws
    num_paths: int = eqx.field(static=True)
    every: int = eqx.field(static=True, default=25)

    def start(self, prepared, rule, key):
        return Visited(self._visited(prepared, rule, key), jnp.zeros((), int))

    def __call__(self, prepared, rule, key, indices, state):
        key_paths, key_choice, key = jax.random.split(key, 3)
        states = jax.lax.cond(
            (state.iteration > 0) & (state.iteration % self.every == 0),
            lambda: self._visited(prepared, rule, key_paths),
            lambda: state.states,
        )
        num_steps, unit = prepared.step_laws.num_steps, prepared.unit
        local: Any = self.local.rescaled(unit.shift, unit.scale)
        places = jax.random.randint(key_choice, (indices.size, 2), 0, jnp.array([[self.num_paths, num_steps]]))

        def error(index, place):
            x, now = states[place[0], place[1]], jax.tree.map(lambda leaf: leaf[place[1]], prepared.step_laws)
            law = local.tilt(observe(now.observation, x, unit.start), jax.random.fold_in(key, index))
            return 0.5 * now.step * jnp.sum((rule.control(now.t, x) - now.drift(x, law.mean)) ** 2)

        return num_steps * jnp.mean(jax.vmap(error)(indices, places)), Visited(states, state.iteration + 1)

    def num_evaluations(self, num_iterations, batch_size, num_steps, per_step):
        return num_iterations * batch_size * self.local.num_draws

    def _visited(self, prepared, rule, key):
        paths = pid.rollout(prepared, held(rule), key, jnp.arange(self.num_paths), save_states=True)
        return jax.lax.stop_gradient(paths.states)
