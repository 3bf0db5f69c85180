"""The rollout: one path of the controlled process with its exact weight, and a population of them.

    log W = Σ_k [ log b_k(x_k | x_{k+1}) − log q_k(x_{k+1} | x_k) ] + terminal(x_K),     E[W] = Z

Pure: under jit, vmap, grad and sharding. Path i draws from fold_in(key, i), step k of it from fold_in(·, k), whatever the
chunk or the device: with one half of that key the tilted law at x_k, where it is an estimate, with the other the step. So one
key realises the same laws on a path that is drawn and on one that is given.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from .._doors.checks import as_floating, check_count, check_key, check_kind
from ..process.bridge import StartLaws, StepLaws, observe
from ..targets.base import AbstractLaw, Tiltable
from ..targets.density import Density
from .problem import Prepared
from .rules import AbstractRule


class Paths(NamedTuple):
    """What a rollout returns, in the unit problem.

    Attributes:
        samples, log_weights: the end points and log W.
        states: x_k, if saved.
        weighted_states: x̂(t_k; x_k), those that the steps were taken with, if saved; None for a bare `Density`.
    """

    samples: Float[Array, "n d"]
    log_weights: Float[Array, " n"]
    states: Float[Array, "n times d"] | None
    weighted_states: Float[Array, "n K d"] | None


def rollout(
    prepared: Prepared,
    rule: AbstractRule,
    key: Key[Array, ""],
    indices: Int[Array, " n"],
    *,
    save_states: bool = False,
    segments: int | None = None,
) -> Paths:
    """A population of paths, one for each index.

    Args:
        prepared: from `Problem.prepare`.
        rule: the step rule.
        key: of all paths together; path i uses fold_in(key, i).
        indices: numbers of the paths, shape (n,).
        save_states: also return every x_k and x̂(t_k; x_k).
        segments: under differentiation, keep the state at the ends of this many segments only and recompute each
            segment once more: temporaries shrink from K states to about `segments` + K/`segments`.

    Example:
        >>> from pidjax import Ancestral, GaussianMixture, Problem, harmonic, log_snr_grid
        >>> target = GaussianMixture(jnp.zeros((1, 2)), jnp.eye(2)[None])
        >>> prepared = Problem(target, harmonic()).prepare(log_snr_grid(5))
        >>> rollout(prepared, Ancestral(), jax.random.key(0), jnp.arange(3)).samples.shape
        (3, 2)
    """
    _check_run(prepared, rule, key)
    indices = jnp.asarray(indices)
    if indices.ndim != 1 or not jnp.issubdtype(indices.dtype, jnp.integer):
        raise ValueError(
            f"indices is {indices.dtype}{list(indices.shape)}; pass the numbers of the paths, as jnp.arange(100)"
        )
    if segments is not None:
        segments = check_count("segments", segments)
    return jax.vmap(lambda index: _path(prepared, rule, jax.random.fold_in(key, index), save_states, segments))(indices)


def _check_run(prepared, rule, key) -> None:
    check_kind("prepared", prepared, Prepared, "what Problem(target, protocol).prepare(grid) gives")
    check_kind("rule", rule, AbstractRule, "a step rule: Ancestral(), Moment(), Euler() or Controlled(control)")
    check_key("key", key)
    rule.check(prepared.step_laws.t[0], prepared.unit.start)


def _path(
    prepared: Prepared, rule: AbstractRule, key: Key[Array, ""], save_states: bool, segments: int | None
) -> Paths:
    target, bridges, start = prepared.target, prepared.step_laws, prepared.unit.start
    with_law = rule.needs_tilt or (save_states and not isinstance(target, Density))

    @jax.checkpoint
    def advance(carry, indexed):
        x, log_weight = carry
        k, now = indexed
        key_law, key_step = jax.random.split(jax.random.fold_in(key, k))
        law = _law(target, now, start, x, key_law) if with_law else None
        after, log_ratio = rule.step(law, now, start, x, key_step)
        saved = (after, None if law is None else law.mean) if save_states else (None, None)
        return (after, log_weight + log_ratio), saved

    carry = start, jnp.zeros((), start.dtype)
    if prepared.start_laws is not None:
        key_law, key_step = jax.random.split(jax.random.fold_in(key, bridges.num_steps))
        law = _law(target, prepared.start_laws, start, start, key_law) if rule.start_rule.needs_tilt else None
        carry = rule.start_rule.step(law, prepared.start_laws, start, start, key_step)
    first = carry[0]
    steps = jnp.arange(bridges.num_steps), bridges
    (x, log_weight), (states, weighted_states) = _scan(advance, carry, steps, segments)
    if save_states:
        states = jnp.concatenate([first[None], states])
    return Paths(x, log_weight + rule.log_terminal(target, x), states, weighted_states)


def _law(
    target: Tiltable, now: StepLaws | StartLaws, start: Float[Array, " d"], x: Float[Array, " d"], key: Key[Array, ""]
) -> AbstractLaw:
    """The target's tilted law at x, realised with this key."""
    return target.tilt(observe(now.observation, x, start), key)


def _scan(body, carry, steps, segments: int | None):
    """`lax.scan`, in checkpointed segments if asked: whole ones first, what is left over at the end."""
    if segments is None:
        return jax.lax.scan(body, carry, steps)
    length = jax.tree.leaves(steps)[0].shape[0]
    size = -(-length // segments)
    whole = length // size * size
    first = jax.tree.map(lambda leaf: leaf[:whole].reshape(-1, size, *leaf.shape[1:]), steps)
    last = jax.tree.map(lambda leaf: leaf[whole:], steps)
    carry, early = jax.lax.scan(jax.checkpoint(lambda carry, part: jax.lax.scan(body, carry, part)), carry, first)
    early = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), early)
    if whole == length:
        return carry, early
    carry, late = jax.lax.scan(body, carry, last)
    return carry, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), early, late)


def given_log_weights(
    prepared: Prepared,
    rule: AbstractRule,
    key: Key[Array, ""],
    indices: Int[Array, " n"],
    states: Float[Array, "n times d"],
) -> Float[Array, " n"]:
    """log W of given paths; of the same key, indices and states the log-weights of `rollout`.

    Args:
        prepared, rule, key, indices: as of `rollout`.
        states: x_k of each path, in the unit problem, shape (n, K+1, d).

    Example:
        >>> from pidjax import GaussianMixture, Moment, Problem, harmonic, uniform_grid
        >>> prepared = Problem(GaussianMixture(jnp.zeros((1, 2)), jnp.eye(2)[None]), harmonic()).prepare(uniform_grid(5))
        >>> run = prepared, Moment(), jax.random.key(0), jnp.arange(3)
        >>> paths = rollout(*run, save_states=True)
        >>> bool(jnp.allclose(given_log_weights(*run, paths.states), paths.log_weights, atol=1e-4))
        True
    """
    target, bridges, start = prepared.target, prepared.step_laws, prepared.unit.start

    def log_ratio(rule, key, k, now, x, after):
        key_law, _ = jax.random.split(jax.random.fold_in(key, k))
        law = _law(target, now, start, x, key_law) if rule.needs_tilt else None
        return rule.log_ratio(law, now, start, x, after)

    def of_path(index, path):
        key_path = jax.random.fold_in(key, index)

        @jax.checkpoint
        def weigh(log_weight, indexed):
            return log_weight + log_ratio(rule, key_path, *indexed), None

        log_weight = rule.log_terminal(target, path[-1])
        if prepared.start_laws is not None:
            log_weight += log_ratio(rule.start_rule, key_path, bridges.num_steps, prepared.start_laws, start, path[0])
        return jax.lax.scan(weigh, log_weight, (jnp.arange(bridges.num_steps), bridges, path[:-1], path[1:]))[0]

    return jax.vmap(of_path)(indices, states)


def backward_log_weights(
    prepared: Prepared, rule: AbstractRule, key: Key[Array, ""], ends: Float[Array, "n d"]
) -> Float[Array, " n"]:
    """log W of paths drawn backward from exact end points by the noising kernel: paths of the optimal process itself.

    Their mean of W/Z is E_Q[(W/Z)²], so 1/mean(W/Z) is the *forward* ESS/N, which sees the modes a sampler misses.

    Args:
        ends: exact samples of the target in the unit problem, shape (n, d).
    """
    _check_run(prepared, rule, key)
    ends = as_floating("ends", ends)
    if ends.ndim != 2 or ends.shape[1:] != prepared.unit.start.shape:
        raise ValueError(f"ends has shape {ends.shape}; pass shape (n, {prepared.unit.start.size})")
    bridges, start = prepared.step_laws, prepared.unit.start

    def noised(index, end):
        key_path = jax.random.fold_in(key, index)

        def recede(after, indexed):
            k, now = indexed
            _, key_step = jax.random.split(jax.random.fold_in(key_path, k))
            return (before := now.noising.draw(key_step, start, after)), before

        states = jax.lax.scan(recede, end, (jnp.arange(bridges.num_steps), bridges), reverse=True)[1]
        return jnp.concatenate([states, end[None]])

    indices = jnp.arange(ends.shape[0])
    return given_log_weights(prepared, rule, key, indices, jax.vmap(noised)(indices, ends))
