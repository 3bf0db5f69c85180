"""A prior Markov process on finitely many states, and its Green function.

A chain p_t(s'|s), t = 0 … T−1, from p_0(s), with running costs c_t(s) taken as killing:

    G_t(s|y) = Σ over paths s = s_t, …, s_T = y of Π_{u≥t} e^{−c_u(s_u)} p_u(s_{u+1}|s_u).

Everything is in log space, and differentiable in costs and probabilities, also in probabilities that are zero.

Source: Chertkov, Ahn & Behjoo, *Sampling Decisions*, arXiv 2503.14549.
"""

from abc import abstractmethod
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from .._doors.checks import as_floating, as_real, check_count, check_kind, concrete
from .._doors.functions import outcome
from .._doors.show import shown
from .._maths.logs import log_mean, log_scatter, safe_log

OUTSIDE = -1
"""A successor that is no state: `Sparse` refuses it."""


class AbstractChain(eqx.Module):
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

    def __repr__(self):
        return shown(type(self).__name__, steps=self.num_steps, start=self.start)

    def _table(self, step):
        return jax.vmap(self.successors, (None, 0))(step, jnp.arange(self.num_states))


class Dense(AbstractChain):
    """A chain from arrays: transitions[t, s, s'] = p_t(s'|s).

    Args:
        transitions: shape (T, n, n); rows not negative, each with the sum one.
        start: the first state, or a law over states of shape (n,).

    Raises:
        ValueError: a wrong shape, a negative or non-finite entry, a row that does not sum to one, a start out of range.

    Example:
        >>> from pidjax.discrete import solve
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


class Sparse(AbstractChain):
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
        >>> from pidjax.discrete import solve
        >>> walk = Sparse(lambda t, s: (jnp.array([s, (s + 1) % 5]), jnp.full(2, 0.5)), num_states=5, num_steps=4)
        >>> round(float(solve(walk, jnp.zeros(5)).log_z), 4)
        1.6094
    """

    step: Callable[[Int[Array, ""], Int[Array, ""]], tuple[Int[Array, " k"], Float[Array, " k"]]]
    num_steps: int = eqx.field(static=True)
    start: Float[Array, " n"]

    def __init__(self, step: Callable, num_states: int, num_steps: int, start: ArrayLike = 0):
        states, probabilities = _shapes(outcome("step", step, jnp.array(0), jnp.array(0), of="a time and a state"))
        num_states, num_steps = check_count("num_states", num_states), check_count("num_steps", num_steps)
        self.step, self.num_steps = step, num_steps
        self.start = _first_law(start, num_states, probabilities.dtype)
        every = num_states * states.shape[0] * num_steps <= 2**22
        for t in range(num_steps) if every else (0, num_steps - 1):
            states, probabilities = eqx.filter_jit(AbstractChain._table)(self, jnp.array(t))
            _check_rows(f"step({t}, ·)", probabilities)
            found = concrete(states)
            if found is not None and not ((found >= 0) & (found < num_states)).all():
                raise ValueError(
                    f"step({t}, ·) leads to states {found.min()} … {found.max()}; let it give states (and counts, if it is "
                    f"augmented) that exist, here 0 … {num_states - 1}"
                )

    def successors(self, step, state):
        return self.step(step, state)


def log_forward(chain: AbstractChain, costs: ArrayLike | None = None) -> Float[Array, "times n"]:
    """log π_t(s): the prior's mass at s, its running costs taken as killing; shape (T+1, n)."""
    return _log_forward(chain, as_costs(chain, "costs", costs))


@eqx.filter_jit
def _log_forward(chain: AbstractChain, costs: Float[Array, "T n"]) -> Float[Array, "times n"]:
    def step(log_masses, inputs):
        time, cost = inputs
        log_masses = chain.forward(time, log_masses - cost)
        return log_masses, log_masses

    first = safe_log(chain.start)
    later = jax.lax.scan(step, first, (jnp.arange(chain.num_steps), costs))[1]
    return jnp.concatenate([first[None], later])


def log_backward(
    chain: AbstractChain, costs: ArrayLike | None, log_final: Float[Array, " n"]
) -> Float[Array, "times n"]:
    """log ψ_t(s) for every t and s, shape (T+1, n): the backward recursion. With log_final = log δ_y it is log G_t(s|y)."""
    log_final = -as_cost("-log_final", -jnp.asarray(log_final), (chain.num_states,))
    return _log_backward(chain, as_costs(chain, "costs", costs), log_final.astype(chain.start.dtype))


@eqx.filter_jit
def _log_backward(
    chain: AbstractChain, costs: Float[Array, "T n"], log_final: Float[Array, " n"]
) -> Float[Array, "times n"]:
    def step(log_psi, inputs):
        time, cost = inputs
        log_psi = chain.backward(time, log_psi) - cost
        return log_psi, log_psi

    earlier = jax.lax.scan(step, log_final, (jnp.arange(chain.num_steps), costs), reverse=True)[1]
    return jnp.concatenate([earlier, log_final[None]])


def log_green(chain: AbstractChain, costs: ArrayLike | None = None) -> Float[Array, "times n n"]:
    """log G_t(s|y), the prior's Green function from s at t to y at T; shape (T+1, n, n)."""
    costs = as_costs(chain, "costs", costs)
    deltas = jnp.where(jnp.eye(chain.num_states, dtype=bool), jnp.zeros((), chain.start.dtype), -jnp.inf)
    return jax.vmap(lambda delta: _log_backward(chain, costs, delta), out_axes=2)(deltas)


def as_costs(chain: AbstractChain, name: str, costs: ArrayLike | None) -> Float[Array, "T n"]:
    """Running costs c_t(s) of any time and state, given of each state or of both; none if None."""
    check_kind("chain", chain, AbstractChain, "a chain: Dense(...) or Sparse(...)")
    shape, dtype = (chain.num_steps, chain.num_states), chain.start.dtype
    if costs is None:
        return jnp.zeros(shape, dtype)
    costs = as_real(name, costs)
    constant = costs.shape == shape[1:]
    return as_cost(name, jnp.broadcast_to(costs[None], shape) if constant else costs, shape).astype(dtype)


def as_cost(name: str, values: ArrayLike, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Costs of a shape: numbers, or +inf to forbid."""
    values = as_real(name, values)
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


def _shapes(found):
    """The shapes of states and probabilities that a step gives."""
    leaves = jax.tree.leaves(found)
    shapes = [leaf.shape for leaf in leaves]
    if jax.tree.structure(found) != jax.tree.structure((0, 0)) or shapes[0] != shapes[1] or len(shapes[0]) != 1:
        raise ValueError(f"step gives shapes {shapes}; let it give (states, probabilities), two arrays of shape (k,)")
    states, probabilities = leaves
    if not (jnp.issubdtype(states.dtype, jnp.integer) and jnp.issubdtype(probabilities.dtype, jnp.floating)):
        raise ValueError(f"step gives {states.dtype} and {probabilities.dtype}; let it give integers and floats")
    return states, probabilities


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
