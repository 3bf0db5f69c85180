"""The rollout: one path of the controlled process with its exact weight, and a population of them.

    log W = Σ_k [ log b_k(x_k | x_{k+1}) − log q_k(x_{k+1} | x_k) ] + terminal(x_K),     E[W] = Z

Pure: under jit, vmap, grad and sharding. Path i draws from fold_in(key, i), step k of it from fold_in(·, k), whatever the
chunk or the device.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from .bridge import Bridges, observe
from .grid import Grid
from .protocol import Protocol, Unit
from .reference import log_snr_of
from .step import Rule
from .targets.base import Target, Tiltable


class Prepared(eqx.Module):
    """What the rollout needs: the target and the reference in the unit problem, and the change of variables back.

    Attributes:
        opening: the step that draws a Gaussian start; None for a point.
    """

    target: Tiltable
    bridges: Bridges
    opening: Bridges | None
    unit: Unit


def prepare(target: Target, protocol: Protocol, grid: Grid) -> Prepared:
    """The unit problem of a target under a protocol on a grid. Pure and differentiable in all three.

    Raises:
        ValueError: a start of another dimension than the target, β at or past the conjugate point, times that do not
            end at the horizon (concrete values only).
    """
    unit = protocol.unit(*target.location())
    rescaled = target.rescaled(unit.shift, unit.scale)
    low, high = target.snr_range()
    snr_range = (low * unit.scale**2, high * unit.scale**2)
    opening = unit.reference.opening(target.dim)
    first_snr = jnp.zeros_like(unit.scale) if opening is None else jnp.exp(log_snr_of(opening.toward, target.dim))
    times = grid.times(unit.reference, snr_range, first_snr, unit.horizon, target.dim)
    return Prepared(rescaled, unit.reference.bridges(times), opening, unit)


class Paths(NamedTuple):
    """What a rollout returns, in the unit problem: end points (n, d), log-weights (n,), states (n, K+1, d) if saved."""

    samples: Float[Array, "n d"]
    log_weights: Float[Array, " n"]
    states: Float[Array, "n times d"] | None


def rollout(
    prepared: Prepared,
    rule: Rule,
    key: Key[Array, ""],
    indices: Int[Array, " n"],
    *,
    save_states: bool = False,
    segments: int | None = None,
) -> Paths:
    """A population of paths, one for each index.

    Args:
        prepared: from `prepare`.
        rule: the step rule.
        key: of all paths together; path i uses fold_in(key, i).
        indices: numbers of the paths, shape (n,).
        save_states: also return every x_k.
        segments: under differentiation, keep the state at the ends of this many segments only and recompute each
            segment once more: temporaries shrink from K states to about `segments` + K/`segments`.

    Example:
        >>> from pidjax import GaussianMixture, harmonic, log_snr, Ancestral
        >>> target = GaussianMixture(jnp.zeros((1, 2)), jnp.eye(2)[None])
        >>> prepared = prepare(target, harmonic(), log_snr(5))
        >>> rollout(prepared, Ancestral(), jax.random.key(0), jnp.arange(3)).samples.shape
        (3, 2)
    """
    return jax.vmap(lambda index: _path(prepared, rule, jax.random.fold_in(key, index), save_states, segments))(indices)


def _path(prepared: Prepared, rule: Rule, key: Key[Array, ""], save_states: bool, segments: int | None) -> Paths:
    target, bridges, start = prepared.target, prepared.bridges, prepared.unit.start

    @jax.checkpoint
    def advance(carry, indexed):
        x, log_weight = carry
        k, now = indexed
        x, log_ratio = rule.step(target, now, start, x, jax.random.fold_in(key, k))
        return (x, log_weight + log_ratio), x if save_states else None

    carry = start, jnp.zeros((), start.dtype)
    if prepared.opening is not None:
        key_start = jax.random.fold_in(key, bridges.num_steps)
        carry = rule.opening.step(target, prepared.opening, start, start, key_start)
    first = carry[0]
    steps = jnp.arange(bridges.num_steps), bridges
    (x, log_weight), states = _scan(advance, carry, steps, segments)
    if save_states:
        states = jnp.concatenate([first[None], states])
    return Paths(x, log_weight + rule.log_terminal(target, x), states)


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


def weighted_states(
    prepared: Prepared, key: Key[Array, ""], states: Float[Array, "n times d"]
) -> Float[Array, "n K d"]:
    """x̂(t_k; x_k) along saved paths, for every step's start."""
    bridges, start = prepared.bridges, prepared.unit.start

    def of_path(key, path):
        def at(k, now, x):
            observation = observe(now.observation, x, start)
            return prepared.target.tilt(observation, jax.random.fold_in(key, k)).mean

        return jax.vmap(at)(jnp.arange(bridges.num_steps), bridges, path[:-1])

    return jax.lax.map(lambda part: of_path(*part), (jax.random.split(key, states.shape[0]), states), batch_size=256)


def backward_log_weights(
    prepared: Prepared, rule: Rule, key: Key[Array, ""], ends: Float[Array, "n d"]
) -> Float[Array, " n"]:
    """log W of paths drawn backward from exact end points by the noising kernel: paths of the optimal process itself.

    Their mean of W/Z is E_Q[(W/Z)²], so 1/mean(W/Z) is the *forward* ESS/N, which sees the modes a sampler misses.

    Args:
        ends: exact samples of the target in the unit problem, shape (n, d).
    """
    target, bridges, start = prepared.target, prepared.bridges, prepared.unit.start

    def of_path(key, end):
        def recede(carry, indexed):
            after, log_weight = carry
            k, now = indexed
            key_back, key_law = jax.random.split(jax.random.fold_in(key, k))
            x = now.back.draw(key_back, start, after)
            return (x, log_weight + rule.log_ratio(target, now, start, x, after, key_law)), None

        steps = jnp.arange(bridges.num_steps), bridges
        (first, log_weight), _ = jax.lax.scan(recede, (end, rule.log_terminal(target, end)), steps, reverse=True)
        if prepared.opening is None:
            return log_weight
        key_start = jax.random.fold_in(key, bridges.num_steps)
        return log_weight + rule.opening.log_ratio(target, prepared.opening, start, start, first, key_start)

    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(ends.shape[0]))
    return jax.vmap(of_path)(keys, ends)
