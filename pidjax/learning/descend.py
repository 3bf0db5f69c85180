"""Descent of any differentiable loss of any pytree of parameters.

    θ ← θ − optimiser( ∇L(θ, s) ),     s ← s(θ, s)

in compiled stretches of a few dozen iterations, between which the host shows how far it is, decides whether to stop and keeps
what a later call needs to go on. An iteration whose loss or gradient is not finite is counted and changes nothing.
"""

import os
from collections.abc import Callable
from enum import StrEnum
from functools import lru_cache
from os import PathLike
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from .._doors.checks import as_positive, check_count, check_key, check_kind
from .._doors.functions import check_on_host, in_words, outcome
from .._doors.progress import progress_bar
from .._doors.show import shown
from ..storage import load, save
from .parameters import check_protocol, is_learned, refined, resolve

_STRETCH = 25


class DescentError(RuntimeError):
    """What `Descent.check` raises: what went wrong, and what to try."""


class Outcome(StrEnum):
    """How a descent ended: at the last iteration, by its stopping rule, or where nothing is finite any more."""

    COMPLETED = "completed"
    SETTLED = "settled"
    NOT_FINITE = "not finite"


class Descent(eqx.Module):
    """The end of a descent, and what it took.

    Attributes:
        free: the parameters with what `only` and `positive` put around them: pass them to `descend` again to go on.
        state: of the loss, if it has one.
        history: the loss at every iteration before its update, shape (n,).
        num_nonfinite: iterations whose loss or gradient was not finite.
        outcome: how it ended.
        num_evaluations: what the loss cost, in states at which the log-density or its gradient was asked for, where `fit` and
            `discrete.train` count them. What the backward pass computes again is not counted.
    """

    free: Any
    state: Any
    history: Float[np.ndarray, " n"]
    num_nonfinite: int = eqx.field(static=True)
    outcome: Outcome = eqx.field(static=True)
    num_evaluations: int | None = eqx.field(static=True, default=None)

    def __repr__(self):
        facts = {"num_nonfinite": self.num_nonfinite, "outcome": str(self.outcome)}
        return shown("Descent", iterations=self.history.size, loss=self.history[-1, ...], **facts)

    @property
    def parameters(self) -> Any:
        """The parameters as the loss sees them."""
        return resolve(self.free)

    def check(self) -> None:
        """Raise `DescentError` if an iteration was not finite, saying what to try."""
        if self.num_nonfinite:
            raise DescentError(
                f"{self.num_nonfinite} of {self.history.size} iterations had a loss or gradient that is not finite and "
                "changed nothing. A step was too large, or crossed a bound or a conjugate point: take a smaller "
                "learning rate, a `positive` stiffness, more paths, or a reference whose scale is nearer the target's"
            )


def adam(
    learning_rate: float = 3e-2, *, decay: int | None = None, clip: float | None = None
) -> optax.GradientTransformation:
    """Adam. The same arguments give the same object, so that descents which differ only in arrays share one compilation.

    Args:
        learning_rate: a number > 0.
        decay: iterations over which the rate falls to zero along half a cosine; it stays, if left out.
        clip: what longer gradients are cut to.

    Raises:
        ValueError: a rate or length that is not a finite number > 0, a count that is no integer ≥ 1.
    """
    as_positive("learning_rate", learning_rate)
    if clip is not None:
        as_positive("clip", clip)
    return _adam(
        float(learning_rate),
        None if decay is None else check_count("decay", decay),
        None if clip is None else float(clip),
    )


@lru_cache
def _adam(rate: float, decay: int | None, clip: float | None) -> optax.GradientTransformation:
    optimiser = optax.adam(rate if decay is None else optax.cosine_decay_schedule(rate, decay))
    return optimiser if clip is None else optax.chain(optax.clip_by_global_norm(clip), optimiser)


class _Run(NamedTuple):
    """What an iteration changes."""

    free: Any
    optimiser: optax.ApplyIfFiniteState
    state: Any


def descend(
    loss: Callable[..., Any],
    parameters: Any,
    *,
    optimiser: optax.GradientTransformation | None = None,
    num_iterations: int = 300,
    key: Key[Array, ""] | None = None,
    state: Any = None,
    tolerance: float | None = None,
    checkpoint: str | PathLike | None = None,
    progress: bool = True,
) -> Descent:
    """Minimise a loss over the floating arrays of a pytree.

    Args:
        loss: a function of (parameters), (parameters, key), (parameters, state) or (parameters, state, key), as they are given,
            to a scalar; with a state, to (scalar, state). As a pytree (`equinox.Partial`, a method of a module) its arrays may
            change without a new compilation.
        parameters: any pytree; `only`, `positive`, `Fixed` and `Positive` say what is learned and how.
        optimiser: from optax; by default `adam()`, of rate 3e-2.
        num_iterations: at most.
        key: for a loss that is estimated; iteration i gets fold_in(key, i).
        state: arrays that the loss hands from each iteration to the next, as a buffer of points.
        tolerance: stop when the loss's mean over 25 iterations falls by less than this against the 25 before; for an estimated
            loss take some standard errors. Never, if left out.
        checkpoint: a file, written over after every 25 iterations. Where it is there already the descent goes on from it, and
            all numbers are those of one that was never stopped.
        progress: show a bar, if tqdm is installed, when it takes more than two seconds.

    Raises:
        ValueError: nothing to learn; a count or tolerance out of range; a loss that cannot be traced, reads past the end of an
            array, does not return one floating scalar, or is not finite or without slope at the start; a checkpoint of
            another descent; a call under `jit` or `vmap`.

    Example:
        >>> descent = descend(lambda x: (x - 2) ** 2, jnp.array(0.0), num_iterations=400)
        >>> print(f"{descent.parameters:.3f}, {descent.outcome}")
        2.000, completed
    """
    num_iterations = check_count("num_iterations", num_iterations)
    _check_arguments(loss, parameters, optimiser, key, tolerance)
    optimiser = adam() if optimiser is None else optimiser
    free, fixed = eqx.partition(parameters, is_learned(parameters))
    free = jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype), free)
    run = _Run(free, _guarded(optimiser).init(free), state)
    check_on_host("a descent", *jax.tree.leaves((run, fixed, key, loss)))
    history = np.zeros(0, jnp.result_type(*jax.tree.leaves(free)))
    if checkpoint is not None and os.path.exists(checkpoint):
        run, history = _resumed(checkpoint, run, key)
    with progress_bar(num_iterations, "descend", "iteration", progress) as advance:
        advance(history.size)
        while (ended := _outcome(run, history, num_iterations, key, tolerance)) is None:
            first = history.size
            count = min(_STRETCH - first % _STRETCH, num_iterations - first)
            run, losses, has_slope = _iterate(loss, optimiser, fixed, run, key, jnp.array([first, count]))
            history = np.concatenate([history, np.asarray(losses)[:count].astype(history.dtype)])
            if first == 0:
                _check_start(run, history, has_slope)
            if checkpoint is not None:
                save(checkpoint, _content(run, key) | {"history": history})
            advance(count, loss=f"{history[-1]:.5g}")
    return Descent(eqx.combine(run.free, fixed), run.state, history, int(run.optimiser.total_notfinite), ended)


def descend_refining(
    loss: Callable[..., Any],
    parameters: Any,
    *,
    num_levels: int = 4,
    refine: Callable[[Any], Any] = refined,
    **options,
) -> tuple[Descent, ...]:
    """Descend, cut each piece in two, descend again: 1 → 2 → 4 → 8 pieces in four levels, each from where the last ended.

    Args:
        loss: as in `descend`; it must take protocols of any number of pieces.
        parameters: a protocol, with `only` and `positive` as in `descend`.
        num_levels: ≥ 1.
        refine: what makes parameters finer.
        options: those of `descend`.

    Returns:
        The end of each level.

    Raises:
        ValueError: fewer than one level; as `descend`.

    Example:
        >>> from pidjax import harmonic
        >>> from pidjax.learning import only, positive
        >>> start = only(lambda protocol: protocol.beta, positive(harmonic(1.0)))
        >>> levels = descend_refining(lambda protocol: jnp.sum(protocol.beta**2), start, num_levels=3, num_iterations=5)
        >>> [level.parameters.num_pieces for level in levels]
        [1, 2, 4]

    Source: Chertkov & Behjoo, *Adaptive Path Integral Diffusion*, arXiv 2512.11858.
    """
    num_levels = check_count("num_levels", num_levels)
    check_kind("refine", refine, Callable, "a function of the parameters")
    if refine is refined:
        check_protocol(parameters)
    levels = [descend(loss, parameters, **options)]
    while len(levels) < num_levels:
        levels.append(descend(loss, refine(levels[-1].free), **options))
    return tuple(levels)


def _guarded(optimiser: optax.GradientTransformation) -> Any:
    """The same, but for gradients that are not finite, of which it counts how many there were and are in a row."""
    return optax.apply_if_finite(optimiser, np.iinfo(np.int32).max)


@eqx.filter_jit
def _iterate(loss, optimiser, fixed, run: _Run, key, span):
    """`count` iterations from number `first`, these two in `span`: the run, its losses, and whether any had a slope."""
    first, count = span
    has_state = run.state is not None

    def given(run, i):
        parts = run.state, None if key is None else jax.random.fold_in(key, first + i)
        return [part for part in parts if part is not None]

    def evaluated(free, *given):
        return loss(resolve(eqx.combine(free, fixed)), *given)

    def value_and_state(free, *given):
        value, state = evaluated(free, *given) if has_state else (evaluated(free, *given), None)
        return jnp.asarray(value), state

    def iterate(i, carry):
        run, losses, has_slope = carry
        (value, state), gradient = jax.value_and_grad(value_and_state, has_aux=True)(run.free, *given(run, i))
        gradient = jax.tree.map(lambda slope: jnp.where(jnp.isfinite(value), slope, jnp.nan), gradient)
        has_slope |= jnp.stack([jnp.any(slope != 0) for slope in jax.tree.leaves(gradient)]).any()
        moved, after = _guarded(optimiser).update(
            gradient, run.optimiser, run.free,
            value=value, grad=gradient, value_fn=lambda free: value_and_state(free, *given(run, i))[0],
        )  # fmt: skip
        state = jax.tree.map(lambda new, old: jnp.where(after.last_finite, new, old), state, run.state)
        losses = losses.at[i].set(value.astype(losses.dtype))
        return _Run(optax.apply_updates(run.free, moved), after, state), losses, has_slope

    _check_loss(evaluated, run, given(run, 0))
    losses = jnp.full(_STRETCH, jnp.nan, jnp.result_type(*jax.tree.leaves(run.free)))
    return jax.lax.fori_loop(0, count, iterate, (run, losses, jnp.array(False)))


def _check_loss(evaluated, run: _Run, given) -> None:
    """Traced once a compilation: raise unless the loss takes what it is given and returns what it is to."""
    found = outcome("loss", evaluated, run.free, *given, of="the parameters and what is given with them")
    value: Any = found
    wanted = "one floating scalar"
    if run.state is not None:
        wanted = f"(value, state), a floating scalar and {in_words(run.state)}"
        is_pair = isinstance(found, tuple) and len(found) == 2
        value = found[0] if is_pair and in_words(found[1]) == in_words(run.state) else None
    if getattr(value, "shape", None) != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(f"loss returns {in_words(found)}; return {wanted}")


def _check_start(run: _Run, history: np.ndarray, has_slope) -> None:
    if run.optimiser.total_notfinite == history.size:
        raise ValueError(
            f"loss is {history[0]} at the parameters given, or its gradient is not finite; pass parameters where both are, and "
            "in a log-density return a large negative number in the place of -inf outside of the support"
        )
    if not has_slope:
        raise ValueError(
            "loss has no slope at the parameters given, its gradient is exactly zero: it does not depend on what is learned, "
            "or they are at a stationary point already; pass others"
        )


def _outcome(run: _Run, history: np.ndarray, num_iterations: int, key, tolerance: float | None) -> Outcome | None:
    """How the descent has ended; None while it goes on."""
    if run.optimiser.notfinite_count >= (1 if key is None else _STRETCH):
        return Outcome.NOT_FINITE
    if tolerance is not None and history.size >= 2 * _STRETCH and history.size % _STRETCH == 0:
        before, now = history[-2 * _STRETCH : -_STRETCH], history[-_STRETCH:]
        if np.nanmean(before) - np.nanmean(now) < tolerance:
            return Outcome.SETTLED
    return Outcome.COMPLETED if history.size >= num_iterations else None


def _content(run: _Run, key) -> dict[str, Any]:
    """What a checkpoint holds but for the history: leaves, and what they are called."""
    named, _ = jax.tree_util.tree_flatten_with_path((run, key))
    names = [f"{jax.tree_util.keystr(path[1:])} {in_words(leaf)}".strip() for path, leaf in named]
    return {"names": names, "leaves": [leaf for _, leaf in named]}


def _resumed(path: str | PathLike, run: _Run, key) -> tuple[_Run, np.ndarray]:
    saved, wanted = load(path), _content(run, key)
    found = saved["names"] if isinstance(saved, dict) and "names" in saved else [f"a {type(saved).__name__}"]
    for one, other in zip([*found, "no more"], [*wanted["names"], "no more"]):
        if one != other:
            raise ValueError(f"{path} holds {one} where this descent has {other}; pass the checkpoint of this descent")
    run, found_key = jax.tree.structure((run, key)).unflatten(saved["leaves"])
    if key is not None and not found_key == key:
        raise ValueError(f"{path} is of a descent with another key; pass the same key, or another file")
    return run, saved["history"]


def _check_arguments(loss, parameters, optimiser, key, tolerance) -> None:
    check_kind("loss", loss, Callable, "a function of the parameters")
    if not any(jax.tree.leaves(is_learned(parameters))):
        raise ValueError("parameters holds nothing to learn: no floating array (a number is none) outside of a Fixed")
    if any(map(jnp.iscomplexobj, jax.tree.leaves(eqx.filter(parameters, is_learned(parameters))))):
        raise ValueError("parameters holds complex arrays; pass real and imaginary parts as arrays of their own")
    if optimiser is not None:
        check_kind("optimiser", optimiser, optax.GradientTransformation, "one from optax, or adam(rate)")
    if key is not None:
        check_key("key", key)
    if tolerance is not None and not tolerance >= 0:
        raise ValueError(f"tolerance is {tolerance}; pass a number >= 0")
