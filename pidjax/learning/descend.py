"""Descent of any differentiable loss of any pytree of parameters.

    θ ← θ − optimiser( ∇L(θ, s) ),     s ← s(θ, s)

in compiled stretches of a few dozen iterations, between which the host shows how far it is, decides whether to stop and keeps
what a later call needs to go on. An iteration whose loss or gradient is not finite is counted and changes nothing.
"""

import itertools
import os
from collections.abc import Callable
from os import PathLike
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Key

from .._doors.checks import as_scalar, check_count, check_key, check_kind
from .._doors.functions import check_on_host, in_words, outcome
from .._doors.progress import progress_bar
from ..storage import fingerprint
from .average import first_average, next_average
from .checkpoint import Checkpoint, keep, resumed
from .descent import Descent, Outcome
from .devices import beside
from .optimiser import adam
from .parameters import is_learned, resolve
from .reports import Reports, given, kinds, with_report

_STRETCH = 25


class _Run(NamedTuple):
    """What an iteration changes."""

    free: Any
    optimiser: optax.ApplyIfFiniteState
    state: Any
    average: Any


def descend(
    loss: Callable[..., Any],
    parameters: Any,
    *,
    optimiser: optax.GradientTransformation | None = None,
    num_iterations: int = 300,
    key: Key[Array, ""] | None = None,
    state: Any = None,
    tolerance: float | None = None,
    average: float | None = None,
    report: Callable[..., Any] | None = None,
    report_every: int = 100,
    checkpoint: str | PathLike | None = None,
    progress: bool = True,
) -> Descent:
    """Minimise a loss over the floating arrays of a pytree.

    Args:
        loss: a function of (parameters), (parameters, key), (parameters, state) or (parameters, state, key), as they are given,
            to a scalar; with a state, to (scalar, state). As a pytree (`equinox.Partial`, a method of a module) its arrays may
            change without a new compilation.
        parameters: any pytree; `only`, `positive`, `Fixed` and `Positive` say what is learned and how.
        optimiser: from optax; by default `adam()`, of rate 3e-2. Schedules, decay of weights and accumulation of gradients are
            optax's: `optax.MultiSteps(adam(), 4).gradient_transformation()` moves once in four iterations.
        num_iterations: at most.
        key: for a loss that is estimated; iteration i gets fold_in(key, i).
        state: arrays that the loss hands from each iteration to the next, as a buffer of points.
        tolerance: stop when the loss's mean over 25 iterations falls by less than this against the 25 before; for an estimated
            loss take some standard errors. Never, if left out.
        average: a decay d between 0 and 1, as 0.999; `averaged` then has (1 − d)/(1 − dⁿ) Σₖ dⁿ⁻ᵏ θₖ of what is learned, after
            the finite iterations k = 1, …, n.
        report: a function of what the loss is given to a dictionary of real scalars, as {"ess": …}, evaluated before iterations
            0, m, 2m, … and at the end. Its key is never one of the loss's, and it changes nothing of the descent.
        report_every: m.
        checkpoint: a file, written over after every 25 iterations. Where it is there already the descent goes on from it, and
            all numbers are those of one that was never stopped, if the optimiser is the same. A function is known by its name:
            what it closes over is not compared.
        progress: show a bar, if tqdm is installed, when it takes more than two seconds.

    Raises:
        ValueError: nothing to learn; a count, tolerance or decay out of range; a loss that cannot be traced, reads past the end
            of an array, does not return one floating scalar, or is not finite or without slope at the start; a report that
            cannot be traced or is no dictionary of real scalars; a checkpoint that is damaged, or of another descent; a call
            under `jit` or `vmap`.

    Example:
        >>> descent = descend(lambda x: (x - 2) ** 2, jnp.array(0.0), num_iterations=400)
        >>> print(f"{descent.parameters:.3f}, {descent.outcome}")
        2.000, completed
        >>> def loss(x, key):
        ...     return jnp.sum((x - jax.random.normal(key)) ** 2)
        >>> def report(x, key):
        ...     return {"distance": jnp.abs(x)}
        >>> descent = descend(loss, jnp.array(3.0), key=jax.random.key(0), average=0.99, report=report)
        >>> descent.reports["iteration"], bool(descent.averaged < descent.reports["distance"][0])
        (array([  0, 100, 200, 300]), True)
    """
    num_iterations = check_count("num_iterations", num_iterations)
    report_every = check_count("report_every", report_every)
    _check_arguments(loss, parameters, optimiser, key, tolerance, average, report)
    optimiser = adam() if optimiser is None else optimiser
    free, fixed = eqx.partition(parameters, is_learned(parameters))
    free = jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype), free)
    run = _Run(free, _guarded(optimiser).init(free), state, None if average is None else first_average(free))
    check_on_host("a descent", *jax.tree.leaves((run, fixed, key, loss, report)))
    run = beside((loss, run, fixed), run)
    history: np.ndarray = np.zeros(0, jnp.result_type(*jax.tree.leaves(free)))
    reports: Reports = {}
    log_decay = None if average is None else jnp.asarray(np.log(float(average)), float)
    asked = _in_words(average, report, report_every, eqx.combine(free, fixed), state, key)
    origin = ""
    if checkpoint is not None:
        try:
            origin = f"a loss, first parameters and state of hash {fingerprint((loss, parameters, state))}"
        except TypeError as error:
            raise ValueError(
                f"loss, parameters or state cannot be told from others by a checkpoint: {error}; pass as the loss a function, "
                "an equinox.Partial of one or a method of an equinox.Module"
            ) from error
        if os.path.exists(checkpoint):
            run, history, reports = resumed(checkpoint, run, key, asked, origin)
        if history.size > num_iterations:
            raise ValueError(
                f"num_iterations is {num_iterations} but {checkpoint} has {history.size} behind it; pass as many, or more"
            )
    with progress_bar(num_iterations, "descend", "iteration", progress) as advance:
        advance(history.size)
        while (ended := _outcome(run, history, num_iterations, key, tolerance)) is None:
            first, slopes = history.size, []
            last = min(first - first % _STRETCH + _STRETCH, num_iterations)
            to_report = range(first - first % report_every + report_every, last, report_every)
            for start, end in itertools.pairwise([first, *to_report, last]):
                if report is not None and start % report_every == 0:
                    reports = with_report(reports, report, eqx.combine(run.free, fixed), run.state, key, start)
                span = jnp.array([start, end - start])
                run, losses, has_slope = _iterate(loss, optimiser, fixed, run, key, log_decay, span)
                history = np.concatenate([history, np.asarray(losses)[: end - start].astype(history.dtype)])
                slopes.append(has_slope)
            if first == 0:
                _check_start(run, history, any(slopes))
            if checkpoint is not None:
                keep(checkpoint, Checkpoint(run, history, reports), key, asked, origin)
            advance(last - first, **_latest({"loss": history} | reports))
    if report is not None:
        reports = with_report(reports, report, eqx.combine(run.free, fixed), run.state, key, history.size)
    if average is not None:
        run = run._replace(average=jax.tree.map(lambda mean, leaf: mean.astype(leaf.dtype), run.average, run.free))
    return Descent(
        free=eqx.combine(run.free, fixed),
        state=run.state,
        history=history,
        num_nonfinite=int(run.optimiser.total_notfinite),
        outcome=ended,
        average=None if average is None else eqx.combine(run.average, fixed),
        reports=reports,
    )


def _guarded(optimiser: optax.GradientTransformation) -> Any:
    """The same, but for gradients that are not finite, of which it counts how many there were and are in a row."""
    return optax.apply_if_finite(optimiser, np.iinfo(np.int32).max)


@eqx.filter_jit
def _iterate(loss, optimiser, fixed, run: _Run, key, log_decay, span):
    """`count` iterations from number `first`, these two in `span`: the run, its losses, and whether any had a slope."""
    first, count = span
    has_state = run.state is not None

    def with_them(run, i):
        return given(run.state, None if key is None else jax.random.fold_in(key, first + i))

    def evaluated(free, *given):
        return loss(resolve(eqx.combine(free, fixed)), *given)

    def value_and_state(free, *given):
        value, state = evaluated(free, *given) if has_state else (evaluated(free, *given), None)
        return jnp.asarray(value), state

    def iterate(i, carry):
        run, losses, has_slope = carry
        (value, state), gradient = jax.value_and_grad(value_and_state, has_aux=True)(run.free, *with_them(run, i))
        gradient = jax.tree.map(lambda slope: jnp.where(jnp.isfinite(value), slope, jnp.nan), gradient)
        has_slope |= jnp.stack([jnp.any(slope != 0) for slope in jax.tree.leaves(gradient)]).any()
        moved, after = _guarded(optimiser).update(
            gradient, run.optimiser, run.free,
            value=value, grad=gradient, value_fn=lambda free: value_and_state(free, *with_them(run, i))[0],
        )  # fmt: skip
        free, average = optax.apply_updates(run.free, moved), None
        if log_decay is not None:
            average = next_average(run.average, free, log_decay, first + i + 1 - after.total_notfinite)
        state, average = jax.tree.map(
            lambda new, old: jnp.where(after.last_finite, new, old), (state, average), (run.state, run.average)
        )
        losses = losses.at[i].set(value.astype(losses.dtype))
        return _Run(free, after, state, average), losses, has_slope

    _check_loss(evaluated, run, with_them(run, 0))
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
    """How the descent has ended; None while it goes on. The rules look at the end of whole stretches, and at the last."""
    is_last, is_whole = history.size >= num_iterations, history.size % _STRETCH == 0
    if (is_last or is_whole) and run.optimiser.notfinite_count >= (1 if key is None else _STRETCH):
        return Outcome.NOT_FINITE
    if tolerance is not None and history.size >= 2 * _STRETCH and is_whole:
        before, now = history[-2 * _STRETCH : -_STRETCH], history[-_STRETCH:]
        if np.nanmean(before) - np.nanmean(now) < tolerance:
            return Outcome.SETTLED
    return Outcome.COMPLETED if is_last else None


def _in_words(average: float | None, report: Callable | None, every: int, *seen: Any) -> list[str]:
    """What a descent is asked for beside its end, for its checkpoint."""
    return [
        "no average" if average is None else f"an average of decay {average}",
        "no reports" if report is None else f"reports every {every} iterations of {kinds(report, *seen)}",
    ]


def _latest(values: dict[str, np.ndarray]) -> dict[str, str]:
    return {name: f"{float(value[-1]):.5g}" for name, value in values.items() if name != "iteration"}


def _check_arguments(loss, parameters, optimiser, key, tolerance, average, report) -> None:
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
    if average is not None and not 0 < as_scalar("average", average) < 1:
        raise ValueError(f"average is {average}; pass a decay between 0 and 1, as 0.999")
    if report is not None:
        check_kind("report", report, Callable, "a function of what the loss is given, to a dictionary")
