"""The rollout: a population of paths of the controlled process, each with its exact weight.

    log W = Σ_k [ log b_k(x_k | x_{k+1}) − log q_k(x_{k+1} | x_k) ] + terminal(x_K),     E[W] = Z

Pure: under jit, vmap, grad and sharding. Path i draws from fold_in(key, i), step k of it from fold_in(·, k), whatever the
chunk or the device: with one half of that key the tilted law at x_k, where it is an estimate, with the other the step. So one
key realises the same laws on a path that is drawn and on one that is given.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Key

from .._doors.checks import as_floating, check_count, check_key, check_kind
from ..process.bridge import StartLaws, StepLaws, observe
from ..targets.base import AbstractLaw, ExactlyTilted, Tilted, WithDensity, able, check_tilted
from .problem import Prepared
from .resampling import Resampling, check_resampling
from .rules import AbstractGaussianRule, AbstractRule, check_law

_NUMBERS_AT_ONCE = 2**22


class Paths(NamedTuple):
    """What a rollout returns, in the unit problem.

    Attributes:
        samples, log_weights: the end points and log W.
        states: x_k, if saved; of resampled paths, those of their ancestors.
        weighted_states: x̂(t_k; x_k), those that the steps were taken with, if saved; None for a target without tilted laws.
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
    resampling: Resampling | None = None,
) -> Paths:
    """A population of paths, one for each index.

    Args:
        prepared: from `Problem.prepare`.
        rule: the step rule.
        key: of all paths together; path i uses fold_in(key, i).
        indices: numbers of the paths, shape (n,).
        save_states: also return every x_k and x̂(t_k; x_k).
        segments: under differentiation, keep the state at the ends of this many segments only, in the place of every state and
            its step's noise, and recompute each segment once more: K states shrink to about `segments` + K/`segments`.
        resampling: of groups of consecutive paths; `island_size` must divide n. Its choices have no derivative.

    Raises:
        ValueError: arguments of another kind; laws that are not able to do what the rule needs.

    Example:
        >>> from pidjax import Ancestral, GaussianMixture, Problem, harmonic, log_snr_grid
        >>> target = GaussianMixture(jnp.zeros((1, 2)), jnp.eye(2)[None])
        >>> prepared = Problem(target, harmonic()).prepare(log_snr_grid(5))
        >>> rollout(prepared, Ancestral(), jax.random.key(0), jnp.arange(3)).samples.shape
        (3, 2)
    """
    _check_run(prepared, rule, key)
    check_kind("indices", indices, jax.Array | np.ndarray, "the numbers of the paths, as jnp.arange(100)")
    indices = jnp.asarray(indices)
    if indices.ndim != 1 or not jnp.issubdtype(indices.dtype, jnp.integer):
        raise ValueError(
            f"indices is {indices.dtype}{list(indices.shape)}; pass the numbers of the paths, as jnp.arange(100)"
        )
    if segments is not None:
        segments = check_count("segments", segments)
    if resampling is not None:
        check_resampling(resampling, rule, indices.size)
    target, bridges, start = prepared.target, prepared.step_laws, prepared.unit.start
    keys = keys_of_paths(key, indices)
    with_law = issubclass(rule.needs, Tilted) or (save_states and able(target, Tilted))

    @partial(jax.checkpoint, policy=_is_noise)
    def advance(carry, indexed):
        x, log_weights = carry
        k, now = indexed
        key_laws, key_steps = _at_step(keys, k)
        parents = None
        if resampling is not None:

            def twist(x, key_law):
                return rule.log_twist(_law(rule, target, now, start, x, key_law), now)

            twists = jax.vmap(twist)(x, key_laws)
            islands = _at_step(keys[:: resampling.island_size], bridges.num_steps + 1 + k)[0]
            parents, log_weights = resampling.choose(islands, log_weights, twists)
            x, key_laws = x[parents], key_laws[parents]

        def step(x, key_law, key_step):
            law = _law(rule, target, now, start, x, key_law) if with_law else None
            shown = None if law is None else rule.weighted_state(law, now, x)
            return *rule.step(law, now, start, x, key_step), shown

        after, log_ratios, means = jax.vmap(step)(x, key_laws, key_steps)
        return (after, log_weights + log_ratios), (after, means, parents) if save_states else None

    first = jnp.broadcast_to(start, (indices.size, start.size))
    log_weights = jnp.zeros(indices.size, start.dtype)
    if prepared.start_laws is not None:
        begin = rule.start_rule
        key_laws, key_steps = _at_step(keys, bridges.num_steps)

        def draw(key_law, key_step, now=prepared.start_laws):
            law = _law(begin, target, now, start, start, key_law) if issubclass(begin.needs, Tilted) else None
            return begin.step(law, now, start, start, key_step)

        first, log_weights = jax.vmap(draw)(key_laws, key_steps)
    steps = jnp.arange(bridges.num_steps), bridges
    (ends, log_weights), saved = _scan(advance, (first, log_weights), steps, segments)
    log_weights = log_weights + rule.finish(target, ends)
    return Paths(ends, log_weights, *(_lineages(first, *saved) if save_states else (None, None)))


def _lineages(first, after, means, parents) -> tuple[Float[Array, "n times d"], Float[Array, "n K d"] | None]:
    """The states and x̂ along the path that ends in each slot, from those of the slots at each step."""
    if parents is not None:

        def recede(slots, step):
            after, means, parents = step
            return parents[slots], (after[slots], means[slots])

        slots, (after, means) = jax.lax.scan(recede, jnp.arange(len(first)), (after, means, parents), reverse=True)
        first = first[slots]
    states = jnp.concatenate([first[None], after])
    return jnp.swapaxes(states, 0, 1), None if means is None else jnp.swapaxes(means, 0, 1)


def pinned(
    prepared: Prepared, key: Key[Array, ""], indices: Int[Array, " n"], ends: Float[Array, "n d"], *, save_states: bool
) -> Paths:
    """Paths of weight one to given end points: the optimal process's own, if the end points are samples of the target.

    Args:
        prepared, key, indices, save_states: as of `rollout`.
        ends: in the unit problem, shape (n, d).
    """
    none = jnp.zeros(len(ends), ends.dtype)
    if not save_states:
        return Paths(ends, none, None, None)
    start, target = prepared.unit.start, prepared.target
    states = backward_states(prepared, key, indices, ends)

    def look(_, now_and_states):
        now, x = now_and_states
        return None, jax.vmap(lambda x: target.tilt(observe(now.observation, x, start)).mean)(x)

    means = jax.lax.scan(look, None, (prepared.step_laws, jnp.swapaxes(states, 0, 1)[:-1]))[1]
    return Paths(ends, none, states, jnp.swapaxes(means, 0, 1))


def default_batch(numbers_per_path: int, num_paths: int) -> int:
    """How many paths are run at once, by the numbers that each holds: 16 MB in single precision, 256 paths at the least."""
    return min(num_paths, max(256, _NUMBERS_AT_ONCE // numbers_per_path))


def spread(indices: np.ndarray) -> Int[Array, " n"]:
    """Numbers of paths, or of what else is independent, divided among the devices where they divide evenly."""
    devices = jax.devices()
    if len(devices) == 1 or len(indices) % len(devices):
        return jnp.asarray(indices)
    return jax.device_put(indices, NamedSharding(Mesh(np.array(devices), ("paths",)), PartitionSpec("paths")))


def _is_noise(primitive, *_, **__) -> bool:
    """What is kept for the derivative, as small as the states: Gaussian noise, which takes long to draw again."""
    return primitive is jax.lax.erf_inv_p


def keys_of_paths(key: Key[Array, ""], indices: Int[Array, " n"]) -> Key[Array, " n"]:
    """The key of each number, the same on any number of devices."""
    return jax.vmap(lambda index: jax.random.fold_in(key, index))(indices)


def _at_step(keys: Key[Array, " n"], k) -> tuple[Key[Array, " n"], Key[Array, " n"]]:
    """Of each path at step k, the key of its tilted law and that of the step; k = K for the start, K + 1 + k for resampling."""
    pairs = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, k)))(keys)
    return pairs[:, 0], pairs[:, 1]


def _check_run(prepared, rule, key) -> None:
    check_kind("prepared", prepared, Prepared, "what Problem(target, protocol).prepare(grid) gives")
    check_kind("rule", rule, AbstractRule, "a step rule: Ancestral(), Moment(), Euler() or Controlled(control)")
    check_key("key", key)
    lacks_density = isinstance(rule, AbstractGaussianRule) and not able(prepared.target, WithDensity)
    if lacks_density or (rule.needs is ExactlyTilted and not able(prepared.target, ExactlyTilted)):
        lacking = "a density to weigh its end points with" if lacks_density else "a target whose tilted laws are exact"
        raise ValueError(
            f"rule is {type(rule).__name__}, which needs {lacking}; take the rule that Problem(target, protocol).plan() chooses"
        )
    rule.check(prepared.step_laws.t[0], prepared.unit.start)


def _law(
    rule: AbstractRule,
    target: Any,
    now: StepLaws | StartLaws,
    start: Float[Array, " d"],
    x: Float[Array, " d"],
    key: Key[Array, ""],
) -> AbstractLaw:
    """The target's tilted law at x, realised with this key."""
    check_tilted(target)
    law = target.tilt(observe(now.observation, x, start), key)
    check_law(law, rule.needs_law, f"rule {type(getattr(rule, 'rule', rule)).__name__}")
    return law


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
    keys = keys_of_paths(key, indices)

    def log_ratios(rule, k, now, x, after):
        def of_path(x, after, key_law):
            law = _law(rule, target, now, start, x, key_law) if issubclass(rule.needs, Tilted) else None
            return rule.log_ratio(law, now, start, x, after)

        return jax.vmap(of_path)(x, after, _at_step(keys, k)[0])

    @jax.checkpoint
    def weigh(log_weights, indexed):
        return log_weights + log_ratios(rule, *indexed), None

    along = jnp.swapaxes(states, 0, 1)
    log_weights = rule.finish(target, along[-1])
    if prepared.start_laws is not None:
        at_start = jnp.broadcast_to(start, along[0].shape)
        log_weights += log_ratios(rule.start_rule, bridges.num_steps, prepared.start_laws, at_start, along[0])
    return jax.lax.scan(weigh, log_weights, (jnp.arange(bridges.num_steps), bridges, along[:-1], along[1:]))[0]


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
    indices = jnp.arange(ends.shape[0])
    return given_log_weights(prepared, rule, key, indices, backward_states(prepared, key, indices, ends))


def backward_states(
    prepared: Prepared, key: Key[Array, ""], indices: Int[Array, " n"], ends: Float[Array, "n d"]
) -> Float[Array, "n times d"]:
    """x_k of paths drawn backward from their end points by the noising kernel."""
    bridges, start = prepared.step_laws, prepared.unit.start
    keys = keys_of_paths(key, indices)

    def recede(after, indexed):
        k, now = indexed
        before = jax.vmap(lambda key, after: now.noising.draw(key, start, after))(_at_step(keys, k)[1], after)
        return before, before

    steps = jnp.arange(bridges.num_steps), bridges
    states = jnp.concatenate([jax.lax.scan(recede, ends, steps, reverse=True)[1], ends[None]])
    return jnp.swapaxes(states, 0, 1)
