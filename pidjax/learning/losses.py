"""Losses of a controlled process on its own paths, or on paths drawn backward from given end points.

    RelativeEntropy     E[−log W]  =  KL(controlled ‖ optimal) − log Z        differentiated through the paths
    LogVariance         Var[log W]                                            on paths held fixed
    TrajectoryBalance   E[(log W − c)²]/2,      c ← c + r (E[log W] − c)      on paths held fixed, c a learned log Z

Each is least where W is constant, at the optimal process: −log Z, and 0. On paths that are held fixed any law of paths will do:
the rule's own, which never visit a mode that it misses, or those of the optimal process, drawn backward from samples of the
target.

A loss is a pure function of (prepared, rule, key, indices, state) to its value over a batch of paths, and its next state.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int, Key

from .._doors.checks import as_positive, check_kind
from .._doors.show import shown_fields
from .._maths.systematic import systematic
from ..sampling.problem import Prepared
from ..sampling.rollout import backward_states, given_log_weights, rollout
from ..sampling.rules import AbstractGaussianRule
from .buffer import Buffer

_STARTING = 256


class AbstractLoss(eqx.Module):
    """What training goes down."""

    __repr__ = shown_fields

    def start(self, prepared: Prepared, rule: AbstractGaussianRule, key: Key[Array, ""]) -> Any:
        """The state before the first iteration: a pytree of arrays, none for a loss that remembers nothing."""
        return ()

    @abstractmethod
    def __call__(
        self,
        prepared: Prepared,
        rule: AbstractGaussianRule,
        key: Key[Array, ""],
        indices: Int[Array, " n"],
        state: Any,
    ) -> tuple[Float[Array, ""], Any]:
        """The value over n paths, of the given numbers, and the next state."""

    def num_evaluations(self, num_iterations: int, batch_size: int, num_steps: int, per_step: int) -> int:
        """States at which the log-density or its gradient is asked for: at each path's end, and `per_step` times a step."""
        return num_iterations * batch_size * (1 + per_step * num_steps)


class RelativeEntropy(AbstractLoss):
    """E[−log W] = KL(controlled ‖ optimal) − log Z ≥ −log Z, as a mean over n paths; for any reference.

    It weighs where the controlled process goes, and is blind to a mode that it never reaches.

    Example:
        >>> from pidjax import Controlled, Density, Problem, harmonic, uniform_grid
        >>> target = Density(lambda y: -0.5 * jnp.sum(y**2), 1)
        >>> prepared = Problem(target, harmonic(beta=0.0, noise_scale=1.0)).prepare(uniform_grid(5))
        >>> uncontrolled = Controlled(lambda t, x: jnp.zeros_like(x))
        >>> value, _ = RelativeEntropy()(prepared, uncontrolled, jax.random.key(0), jnp.arange(10), ())
        >>> round(float(value), 4)
        -0.9189

    Source: Zhang & Chen, *Path Integral Sampler*, arXiv 2111.15141.
    """

    def __call__(self, prepared, rule, key, indices, state):
        _check_paths(indices, 1, "mean")
        return -jnp.mean(rollout(prepared, rule, key, indices).log_weights), state


class LogVariance(AbstractLoss):
    """Var[log W] over n ≥ 2 paths, which are held fixed: the gradient is that of their weights alone.

    Args:
        buffer: end points from which the paths are drawn backward; by default the paths are the rule's own.

    Example:
        >>> from pidjax import Controlled, Density, Problem, harmonic, uniform_grid
        >>> target = Density(lambda y: -0.5 * jnp.sum(y**2), 1)
        >>> prepared = Problem(target, harmonic(beta=0.0, noise_scale=1.0)).prepare(uniform_grid(5))
        >>> uncontrolled = Controlled(lambda t, x: jnp.zeros_like(x))
        >>> float(LogVariance()(prepared, uncontrolled, jax.random.key(0), jnp.arange(10), ())[0]) < 1e-6
        True

    Source: Richter et al., *VarGrad*, arXiv 2010.10436; for diffusion samplers, Richter & Berner, arXiv 2307.01198.
    """

    buffer: Buffer | None = None

    def __check_init__(self):
        _check_buffer(self.buffer)

    def __call__(self, prepared, rule, key, indices, state):
        _check_paths(indices, 2, "variance")
        return jnp.var(_on_fixed_paths(prepared, rule, key, indices, self.buffer), ddof=1), state


class TrajectoryBalance(AbstractLoss):
    """½ E[(log W − c)²] over n paths held fixed, with c, the state, on its way to log Z.

    Args:
        buffer: as of `LogVariance`.
        rate: r in (0, 1], the share of the way to the batch's E[log W] that c goes at each iteration.

    Raises:
        ValueError: a rate outside of (0, 1].

    Source: Malkin et al., *Trajectory balance*, arXiv 2201.13259, where c has an optimiser's learning rate of its own.
    """

    buffer: Buffer | None = None
    rate: float = eqx.field(static=True, default=0.1)

    def __check_init__(self):
        _check_buffer(self.buffer)
        as_positive("rate", self.rate)
        if self.rate > 1:
            raise ValueError(f"rate is {self.rate}; pass a number in (0, 1]")

    def start(self, prepared, rule, key):
        """c = E[log W] over 256 paths."""
        return jnp.mean(_on_fixed_paths(prepared, rule, key, jnp.arange(_STARTING), self.buffer))

    def __call__(self, prepared, rule, key, indices, state):
        _check_paths(indices, 1, "mean")
        log_weights = _on_fixed_paths(prepared, rule, key, indices, self.buffer)
        nearer = state + self.rate * (jnp.mean(jax.lax.stop_gradient(log_weights)) - state)
        return 0.5 * jnp.mean((log_weights - state) ** 2), nearer

    def num_evaluations(self, num_iterations, batch_size, num_steps, per_step):
        return super().num_evaluations(1, num_iterations * batch_size + _STARTING, num_steps, per_step)


class Sum(AbstractLoss):
    """Σ_i a_i L_i of some losses, each with its own state, over the same numbers of paths.

    Raises:
        ValueError: no losses; not as many factors.

    Example:
        >>> Sum([RelativeEntropy(), LogVariance()], [1.0, 0.1]).factors
        (1.0, 0.1)
    """

    losses: tuple[AbstractLoss, ...]
    factors: tuple[float, ...] = eqx.field(static=True)

    def __init__(self, losses: Sequence[AbstractLoss], factors: Sequence[float]):
        self.losses, self.factors = tuple(losses), tuple(float(factor) for factor in factors)
        for loss in self.losses:
            check_kind("losses", loss, AbstractLoss, "losses, as RelativeEntropy()")
        if not self.losses or len(self.losses) != len(self.factors):
            raise ValueError(
                f"{len(self.losses)} losses and {len(self.factors)} factors; pass one factor for each loss"
            )

    def start(self, prepared, rule, key):
        keys = jax.random.split(key, len(self.losses))
        return tuple(loss.start(prepared, rule, key) for loss, key in zip(self.losses, keys))

    def __call__(self, prepared, rule, key, indices, state):
        keys = jax.random.split(key, len(self.losses))
        found = [loss(prepared, rule, key, indices, own) for loss, key, own in zip(self.losses, keys, state)]
        values, states = zip(*found)
        return jnp.dot(jnp.asarray(self.factors, values[0].dtype), jnp.stack(values)), states

    def num_evaluations(self, num_iterations, batch_size, num_steps, per_step):
        return sum(loss.num_evaluations(num_iterations, batch_size, num_steps, per_step) for loss in self.losses)


def evidence(
    prepared: Prepared,
    rule: AbstractGaussianRule,
    key: Key[Array, ""],
    indices: Int[Array, " n"],
    ends: Float[Array, "n d"] | None = None,
) -> dict[str, Float[Array, ""]]:
    """ELBO = E[log W] ≤ log Z, log Ẑ = log E[W] and ESS/N of a rule's paths; with exact ends also EUBO ≥ log Z, forward ESS/N.

        EUBO = E_Q[log W],     forward ESS/N = Ẑ/E_Q[W],     Q: paths drawn backward from samples of the target

    Args:
        ends: samples of the target in the unit problem.
    """
    key, key_backward = jax.random.split(key)
    log_weights = rollout(prepared, rule, key, indices).log_weights
    log_z = logsumexp(log_weights) - jnp.log(indices.size)
    log_square = logsumexp(2 * log_weights) - jnp.log(indices.size)
    found = {"elbo": jnp.mean(log_weights), "log_z": log_z, "ess": jnp.exp(2 * log_z - log_square)}
    if ends is None:
        return found
    states = backward_states(prepared, key_backward, indices, ends)
    backward = given_log_weights(prepared, rule, key_backward, indices, states)
    log_mean = logsumexp(backward) - jnp.log(indices.size)
    return found | {"eubo": jnp.mean(backward), "forward_ess": jnp.exp(log_z - log_mean)}


def _on_fixed_paths(
    prepared: Prepared,
    rule: AbstractGaussianRule,
    key: Key[Array, ""],
    indices: Int[Array, " n"],
    buffer: Buffer | None,
) -> Float[Array, " n"]:
    """log W of paths without a derivative of their own."""
    if buffer is None:
        paths = jax.lax.stop_gradient(rollout(prepared, held(rule), key, indices, save_states=True))
        states: Any = paths.states
        weigh = eqx.filter_closure_convert(lambda: given_log_weights(prepared, rule, key, indices, states))
        return _known(weigh, paths.log_weights)
    key_choice, key = jax.random.split(key)
    chosen = systematic(key_choice, buffer.weights, indices.size)
    states = backward_states(prepared, key, indices, buffer.ends_in(prepared.unit, chosen))
    return given_log_weights(prepared, rule, key, indices, states)


@eqx.filter_custom_vjp
def _known(weigh, values: Float[Array, " n"]) -> Float[Array, " n"]:
    """weigh(), of which the values are known: it is evaluated for its derivative alone."""
    return values


@_known.def_fwd
def _known_forward(perturbed, weigh, values):
    return values, None


@_known.def_bwd
def _known_backward(_, slopes, perturbed, weigh, values):
    learned, rest = eqx.partition(weigh, perturbed)
    return jax.vjp(lambda own: eqx.combine(own, rest)(), learned)[1](slopes)[0]


def held(rule: AbstractGaussianRule) -> AbstractGaussianRule:
    """The rule without derivatives."""
    arrays, rest = eqx.partition(rule, eqx.is_array)
    return eqx.combine(jax.lax.stop_gradient(arrays), rest)


def _check_buffer(buffer) -> None:
    if buffer is not None:
        check_kind("buffer", buffer, Buffer, "a Buffer, as Buffer.of(solution)")


def _check_paths(indices, least: int, of: str) -> None:
    if np.size(indices) < least:
        raise ValueError(f"indices has {np.size(indices)} paths; a {of} needs at least {least}")
