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

from abc import abstractmethod
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Key

from .._checks import as_floating, concrete
from ._log import log_mean, log_scatter, pick


class Chain(eqx.Module):
    """A Markov prior on states 0 … n−1: its first law, and where each step leads from each state."""

    start: eqx.AbstractVar[Float[Array, " n"]]
    num_steps: eqx.AbstractVar[int]

    @property
    def num_states(self) -> int:
        return self.start.shape[0]

    @abstractmethod
    def successors(self, step: Int[Array, ""], state: Int[Array, ""]) -> tuple[Int[Array, " k"], Float[Array, " k"]]:
        """The states that one step may lead to, and their probabilities."""

    def backward(self, step: Int[Array, ""], log_values: Float[Array, " n"]) -> Float[Array, " n"]:
        """log Σ_{s'} p(s'|s) e^{a(s')} for every state s."""
        states, probabilities = self._table(step)
        return log_mean(log_values[states], probabilities)

    def forward(self, step: Int[Array, ""], log_masses: Float[Array, " n"]) -> Float[Array, " n"]:
        """log Σ_s e^{a(s)} p(s'|s) for every state s'."""
        states, probabilities = self._table(step)
        spread = jnp.broadcast_to(log_masses[:, None], states.shape)
        return log_scatter(spread.ravel(), probabilities.ravel(), states.ravel(), self.num_states)

    def _table(self, step):
        return jax.vmap(self.successors, (None, 0))(step, jnp.arange(self.num_states))


class Dense(Chain):
    """A chain from arrays: transitions[t, s, s'] = p_t(s'|s).

    Args:
        transitions: shape (T, n, n); rows not negative, each with the sum one.
        start: the first state, or a law over states of shape (n,).

    Raises:
        ValueError: a wrong shape, a negative or non-finite entry, a row that does not sum to one, a start out of range.

    Example:
        >>> chain = Dense(jnp.array([[[0.5, 0.5], [0.0, 1.0]]]), start=0)
        >>> round(float(solve(chain, jnp.array([0.0, 1.0])).transitions()[0, 0, 1]), 3)
        0.269
    """

    transitions: Float[Array, "T n n"]
    start: Float[Array, " n"]
    num_steps: int = eqx.field(static=True)

    def __init__(self, transitions: ArrayLike, start: ArrayLike = 0):
        self.transitions = as_floating("transitions", transitions)
        shape = self.transitions.shape
        if len(shape) != 3 or shape[1] != shape[2] or shape[0] < 1:
            raise ValueError(f"transitions has shape {shape}; pass (T, n, n), T at least 1")
        _check_rows("transitions", self.transitions)
        self.start = _first_law(start, shape[1], self.transitions.dtype)
        self.num_steps = shape[0]

    def successors(self, step, state):
        return jnp.arange(self.num_states), self.transitions[step, state]

    def backward(self, step, log_values):
        return log_mean(jnp.broadcast_to(log_values[None], self.transitions.shape[1:]), self.transitions[step])

    def forward(self, step, log_masses):
        return log_mean(jnp.broadcast_to(log_masses[None], self.transitions.shape[1:]), self.transitions[step].T)


class Sparse(Chain):
    """A chain from a function of state: step(t, s) gives k successors and their probabilities. Memory O(n k), not O(n²).

    Args:
        step: a function of integer arrays (t, s) to states (k,) and probabilities (k,) that sum to one; a repeated
            successor counts twice, one of probability 0 not at all.
        num_states, num_steps: n and T.
        start: the first state, or a law over states of shape (n,).

    Raises:
        ValueError: probabilities that are negative or do not sum to one, or successors out of range; at each time of at
            most 2^22 transitions in all, else at the first and the last.

    Example:
        >>> walk = Sparse(lambda t, s: (jnp.array([s, (s + 1) % 5]), jnp.full(2, 0.5)), num_states=5, num_steps=4)
        >>> round(float(solve(walk, jnp.zeros(5)).log_z), 4)
        1.6094
    """

    step: Callable[[Int[Array, ""], Int[Array, ""]], tuple[Int[Array, " k"], Float[Array, " k"]]]
    num_steps: int = eqx.field(static=True)
    start: Float[Array, " n"]

    def __init__(self, step: Callable, num_states: int, num_steps: int, start: ArrayLike = 0):
        if num_states < 1 or num_steps < 1:
            raise ValueError(f"num_states is {num_states} and num_steps {num_steps}; pass integers >= 1")
        self.step, self.num_steps = step, num_steps
        states, probabilities = jax.eval_shape(step, jnp.array(0), jnp.array(0))
        if states.shape != probabilities.shape or len(states.shape) != 1:
            raise ValueError(f"step gives shapes {states.shape} and {probabilities.shape}; give (k,) and (k,)")
        self.start = _first_law(start, num_states, probabilities.dtype)
        every = num_states * states.shape[0] * num_steps <= 2**22
        for t in range(num_steps) if every else (0, num_steps - 1):
            states, probabilities = eqx.filter_jit(Chain._table)(self, jnp.array(t))
            _check_rows(f"step({t}, ·)", probabilities)
            found = concrete(states)
            if found is not None and not ((found >= 0) & (found < num_states)).all():
                raise ValueError(f"step({t}, ·) leads to states {found.min()} … {found.max()} of {num_states}")

    def successors(self, step, state):
        return self.step(step, state)


class Decisions(eqx.Module):
    """The optimal chain.

    Attributes:
        chain: the prior.
        costs: c_t(s), shape (T, n).
        log_final: −φ, shape (n,).
        log_psi: log ψ_t(s), the log-desirability, shape (T+1, n).
    """

    chain: Chain
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
        first = _safe_log(self.chain.start)

        def path(index):
            uniforms = jax.random.uniform(
                jax.random.fold_in(key, index), (self.chain.num_steps + 1,), self.log_psi.dtype
            )
            state = pick(first + self.log_psi[0], uniforms[0])

            def decide(state, inputs):
                step, uniform = inputs
                states, probabilities = self._policy(step, state)
                state = states[pick(_safe_log(probabilities), uniform)]
                return state, state

            return jnp.append(state, jax.lax.scan(decide, state, (jnp.arange(self.chain.num_steps), uniforms[1:]))[1])

        return jax.vmap(path)(jnp.arange(num_samples))


def solve(chain: Chain, energy: ArrayLike, *, running_costs: ArrayLike | None = None) -> Decisions:
    """Decision Flow: the chain nearest to the prior (and its running costs) whose final law is e^{−E}/Z.

    Args:
        chain: the prior.
        energy: E, shape (n,); +inf forbids a state.
        running_costs: c_t(s), shape (T, n) or (n,); +inf forbids a state at a time. None means none.

    Raises:
        ValueError: a wrong shape; an energy that is NaN or −inf; a state of finite energy at which the prior cannot end;
            every state forbidden.

    Example:
        >>> chain = Dense(jnp.full((3, 4, 4), 0.25))
        >>> decisions = solve(chain, jnp.array([0.0, 1.0, 2.0, jnp.inf]))
        >>> round(float(jnp.exp(decisions.log_marginals[-1, 1])), 3), round(float(decisions.kl_cost), 3)
        (0.245, 0.554)
    """
    energy, costs = _costs(chain, "energy", energy, running_costs)
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


def solve_control(chain: Chain, final_costs: ArrayLike, *, running_costs: ArrayLike | None = None) -> Decisions:
    """Linearly solvable control: least E[log dq/dp + Σ c + φ(s_T)], whatever the final law.

    Args:
        chain: the passive dynamics.
        final_costs: φ, shape (n,); +inf forbids a state.
        running_costs: c_t(s), shape (T, n) or (n,); None means none.

    Raises:
        ValueError: a wrong shape; a cost that is NaN or −inf; no path of finite cost.

    Example:
        >>> chain = Dense(jnp.full((1, 2, 2), 0.5))
        >>> float(solve_control(chain, jnp.zeros(2), running_costs=jnp.array([3.0, 0.0])).log_z)
        -3.0
    """
    final_costs, costs = _costs(chain, "final_costs", final_costs, running_costs)
    return _solved(chain, costs, -final_costs)


def log_forward(chain: Chain, costs: Float[Array, "T n"]) -> Float[Array, "times n"]:
    """log π_t(s): the prior's mass at s, its running costs taken as killing; shape (T+1, n)."""

    def step(log_masses, inputs):
        time, cost = inputs
        log_masses = chain.forward(time, log_masses - cost)
        return log_masses, log_masses

    first = _safe_log(chain.start)
    later = jax.lax.scan(step, first, (jnp.arange(chain.num_steps), costs))[1]
    return jnp.concatenate([first[None], later])


def log_desirability(
    chain: Chain, costs: Float[Array, "T n"], log_final: Float[Array, " n"]
) -> Float[Array, "times n"]:
    """log ψ_t(s) for every t and s, shape (T+1, n): the backward recursion. With log_final = log δ_y it is log G_t(s|y)."""

    def step(log_psi, inputs):
        time, cost = inputs
        log_psi = chain.backward(time, log_psi) - cost
        return log_psi, log_psi

    earlier = jax.lax.scan(step, log_final, (jnp.arange(chain.num_steps), costs), reverse=True)[1]
    return jnp.concatenate([earlier, log_final[None]])


def log_green(chain: Chain, costs: Float[Array, "T n"] | None = None) -> Float[Array, "times n n"]:
    """log G_t(s|y), the prior's Green function from s at t to y at T; shape (T+1, n, n)."""
    costs = jnp.zeros((chain.num_steps, chain.num_states), chain.start.dtype) if costs is None else costs
    deltas = jnp.where(jnp.eye(chain.num_states, dtype=bool), jnp.zeros((), chain.start.dtype), -jnp.inf)
    return jax.vmap(lambda delta: log_desirability(chain, costs, delta), out_axes=2)(deltas)


def _solved(chain, costs, log_final):
    decisions = Decisions(chain, costs, log_final, log_desirability(chain, costs, log_final))
    log_z = concrete(decisions.log_z)
    if log_z is not None and np.isneginf(log_z):
        raise ValueError("infeasible: no path of the prior ends, at finite cost, where the weight is positive")
    return decisions


def _safe_log(probabilities):
    positive = probabilities > 0
    return jnp.where(positive, jnp.log(jnp.where(positive, probabilities, 1)), -jnp.inf)


def _costs(chain, name, final, running):
    size, dtype = chain.num_states, chain.start.dtype
    final = _cost(name, final, (size,)).astype(dtype)
    if running is None:
        return final, jnp.zeros((chain.num_steps, size), dtype)
    running = jnp.asarray(running, dtype)
    shape = (chain.num_steps, size)
    return final, _cost(
        "running_costs", jnp.broadcast_to(running[None], shape) if running.ndim == 1 else running, shape
    )


def _cost(name, values, shape):
    values = jnp.asarray(values)
    values = values if jnp.issubdtype(values.dtype, jnp.floating) else values.astype(float)
    if values.shape != shape:
        raise ValueError(f"{name} has shape {values.shape}; pass shape {shape}")
    known = concrete(values)
    if known is not None and not (known > -np.inf).all():
        bad = np.argwhere(~(known > -np.inf))
        where = tuple(int(i) for i in bad[0])
        raise ValueError(
            f"{name} is {known[where]} at {where}, the first of {len(bad)}; pass numbers, or +inf to forbid"
        )
    return values


def _check_rows(name, probabilities):
    known = concrete(probabilities)
    if known is None:
        return
    tolerance = 8 * np.sqrt(known.shape[-1]) * np.finfo(known.dtype).eps
    wrong = np.argwhere(~((known >= 0).all(-1) & (np.abs(known.sum(-1) - 1) <= tolerance)))
    if len(wrong):
        where = tuple(int(i) for i in wrong[0])
        raise ValueError(
            f"{name} at {where} has the sum {known[where].sum():.9g} and the minimum {known[where].min():g}, the first of "
            f"{len(wrong)} such rows; pass rows that are not negative and sum to one"
        )


def _first_law(start, num_states, dtype):
    start = jnp.asarray(start)
    if start.ndim == 0 and jnp.issubdtype(start.dtype, jnp.integer):
        index = concrete(start)
        if index is not None and not 0 <= index < num_states:
            raise ValueError(
                f"start is {index}; pass a state from 0 to {num_states - 1}, or a law of shape ({num_states},)"
            )
        return jnp.zeros(num_states, dtype).at[start].set(1)
    if start.shape != (num_states,):
        raise ValueError(f"start has shape {start.shape}; pass a state, or a law of shape ({num_states},)")
    start = as_floating("start", start).astype(dtype)
    _check_rows("start", start)
    return start
