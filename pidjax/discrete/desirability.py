"""Decisions of a finite Markov chain: the linearly solvable Markov decision process.

A prior chain p_t(s'|s), t = 0 … T−1, from p_0(s); running costs c_t(s); a weight e^{−φ(s)} of the final state. Over
chains q, minimise E_q[ log dq/dp + Σ_t c_t(s_t) + φ(s_T) ]. The desirability ψ = e^{−cost to go} is linear in ψ_T:

    ψ_t(s) = e^{−c_t(s)} Σ_{s'} p_t(s'|s) ψ_{t+1}(s'),   ψ_T = e^{−φ},   q*_t(s'|s) ∝ p_t(s'|s) ψ_{t+1}(s'),
    Z = Σ_s p_0(s) ψ_0(s),   least cost = −log Z.

*Control* takes φ as a cost. *Decision Flow* asks for the final law e^{−E}/Z: φ = E + log π_T, with π_T(s) the prior's mass
at s, so that ψ_t(s) = Σ_y G_t(s|y) e^{−E(y)}/π_T(y), with G the prior's Green function. Everything is in log space, and
differentiable in costs, energies and probabilities, also in probabilities that are zero.

Source: Chertkov, Ahn & Behjoo, *Sampling Decisions*, arXiv 2503.14549; Todorov, *Linearly-solvable Markov decision
problems*, 2007.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Key

from .._doors.checks import check_count, check_key, concrete
from .._doors.show import shown
from .._maths.logs import log_mean, pick, safe_log
from .chain import AbstractChain, as_cost, as_costs, log_backward, log_forward


class Decisions(eqx.Module):
    """The optimal chain.

    Attributes:
        chain: the prior.
        costs: c_t(s), shape (T, n).
        log_final: −φ, shape (n,).
        log_psi: log ψ_t(s), the log-desirability, shape (T+1, n).
    """

    chain: AbstractChain
    costs: Float[Array, "T n"]
    log_final: Float[Array, " n"]
    log_psi: Float[Array, "times n"]

    @property
    def log_z(self) -> Float[Array, ""]:
        """log Σ_s p_0(s) ψ_0(s): minus the least cost; log Σ e^{−E} if a final law was asked for."""
        return log_mean(self.log_psi[0], self.chain.start)

    @property
    def log_marginals(self) -> Float[Array, "times n"]:
        """log P*(s_t = s) = log π_t(s) + log ψ_t(s) − log Z."""
        return log_forward(self.chain, self.costs) + self.log_psi - self.log_z

    @property
    def kl_cost(self) -> Float[Array, ""]:
        """KL(optimal ‖ prior) of whole paths: −log Z − E*[ Σ_t c_t(s_t) + φ(s_T) ]."""
        marginals = jnp.exp(self.log_marginals)
        finite = jnp.where(marginals[-1] > 0, self.log_final, 0)
        costs = jnp.where(marginals[:-1] > 0, self.costs, 0)
        return jnp.sum(marginals[-1] * finite) - jnp.sum(marginals[:-1] * costs) - self.log_z

    def transitions(self) -> Float[Array, "T n n"]:
        """q*_t(s'|s); the prior's own row at states from which no weight can be reached."""

        def row(step, state):
            states, probabilities = self._policy(step, state)
            return jnp.zeros(self.chain.num_states, probabilities.dtype).at[states].add(probabilities)

        states = jnp.arange(self.chain.num_states)
        return jax.vmap(jax.vmap(row, (None, 0)), (0, None))(jnp.arange(self.chain.num_steps), states)

    def _policy(self, step, state):
        states, prior = self.chain.successors(step, state)
        after = self.log_psi[step + 1][states]
        total = log_mean(after, prior)
        alive = (prior > 0) & jnp.isfinite(after)
        optimal = jnp.where(alive, prior * jnp.exp(jnp.where(alive, after, 0) - jnp.where(alive, total, 0)), 0)
        return states, jnp.where(jnp.isneginf(total), prior, optimal)

    def sample(self, key: Key[Array, ""], num_samples: int) -> Int[Array, "num_samples times"]:
        """Independent paths s_0 … s_T of the optimal chain; path i has the key fold_in(key, i)."""
        check_key("key", key)
        return self._paths(key, check_count("num_samples", num_samples))

    @eqx.filter_jit
    def _paths(self, key, num_samples: int):
        first = safe_log(self.chain.start)

        def path(index):
            uniforms = jax.random.uniform(
                jax.random.fold_in(key, index), (self.chain.num_steps + 1,), self.log_psi.dtype
            )
            state = pick(first + self.log_psi[0], uniforms[0])

            def decide(state, inputs):
                step, uniform = inputs
                states, probabilities = self._policy(step, state)
                state = states[pick(safe_log(probabilities), uniform)]
                return state, state

            return jnp.append(state, jax.lax.scan(decide, state, (jnp.arange(self.chain.num_steps), uniforms[1:]))[1])

        return jax.vmap(path)(jnp.arange(num_samples))

    def __repr__(self):
        return shown("Decisions", chain=self.chain, log_psi=self.log_psi)


def solve(chain: AbstractChain, energy: ArrayLike, *, running_costs: ArrayLike | None = None) -> Decisions:
    """Decision Flow: the chain nearest to the prior (and its running costs) whose final law is e^{−E}/Z.

    Args:
        chain: the prior.
        energy: E, shape (n,); +inf forbids a state.
        running_costs: c_t(s), shape (T, n) or (n,); +inf forbids a state at a time. None means none.

    Raises:
        ValueError: a wrong shape; an energy that is NaN or −inf; a state of finite energy at which the prior cannot end;
            every state forbidden.

    Example:
        >>> from pidjax.discrete import Dense
        >>> chain = Dense(jnp.full((3, 4, 4), 0.25))
        >>> decisions = solve(chain, jnp.array([0.0, 1.0, 2.0, jnp.inf]))
        >>> round(float(jnp.exp(decisions.log_marginals[-1, 1])), 3), round(float(decisions.kl_cost), 3)
        (0.245, 0.554)
    """
    costs = as_costs(chain, "running_costs", running_costs)
    energy = as_cost("energy", energy, (chain.num_states,)).astype(costs.dtype)
    log_mass = log_forward(chain, costs)[-1]
    reached = jnp.isfinite(log_mass)
    lost = concrete(~reached & jnp.isfinite(energy))
    if lost is not None and lost.any():
        states = np.flatnonzero(lost)
        raise ValueError(
            f"{len(states)} states have weight but the prior cannot end there, the first is {states[0]}; give them the "
            "energy +inf, or a prior that reaches them"
        )
    counts = reached & jnp.isfinite(energy)
    log_final = jnp.where(counts, -jnp.where(counts, energy, 0) - jnp.where(counts, log_mass, 0), -jnp.inf)
    return _solved(chain, costs, log_final)


def solve_control(chain: AbstractChain, final_costs: ArrayLike, *, running_costs: ArrayLike | None = None) -> Decisions:
    """Linearly solvable control: least E[log dq/dp + Σ c + φ(s_T)], whatever the final law.

    Args:
        chain: the passive dynamics.
        final_costs: φ, shape (n,); +inf forbids a state.
        running_costs: c_t(s), shape (T, n) or (n,); None means none.

    Raises:
        ValueError: a wrong shape; a cost that is NaN or −inf; no path of finite cost.

    Example:
        >>> from pidjax.discrete import Dense
        >>> chain = Dense(jnp.full((1, 2, 2), 0.5))
        >>> float(solve_control(chain, jnp.zeros(2), running_costs=jnp.array([3.0, 0.0])).log_z)
        -3.0
    """
    costs = as_costs(chain, "running_costs", running_costs)
    return _solved(chain, costs, -as_cost("final_costs", final_costs, (chain.num_states,)).astype(costs.dtype))


def _solved(chain, costs, log_final):
    decisions = Decisions(chain, costs, log_final, log_backward(chain, costs, log_final))
    log_z = concrete(decisions.log_z)
    if log_z is not None and np.isneginf(log_z):
        raise ValueError("infeasible: no path of the prior ends, at finite cost, where the weight is positive")
    if log_z is not None and not np.isfinite(log_z):
        raise ValueError(f"log Z is {log_z}: the costs add up to more than {log_z.dtype} holds; pass smaller ones")
    return decisions
