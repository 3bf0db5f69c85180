"""Descent of any differentiable objective of any pytree of parameters.

    θ ← θ − optimiser( ∇L(θ) )

in compiled stretches of a few dozen iterations, between which the host draws the progress bar and decides whether to stop.
An iteration whose objective or gradient is not finite is counted and changes nothing; without randomness it ends the descent.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from .._doors.checks import check_count, check_key, check_kind
from .._doors.progress import progress_bar
from .._doors.show import shown
from .parameters import check_protocol, is_learned, refined, resolve

Objective = Callable[..., Float[Array, ""]]

_ITERATIONS_PER_CALL = 25


class LearningError(RuntimeError):
    """What `Learned.check` raises: what went wrong, and what to try."""


class Learned(eqx.Module):
    """The end of a descent, and what it took.

    Attributes:
        free: the parameters with what `only` and `positive` put around them: pass them to `minimise` again to go on.
        history: the objective at every iteration before its update, shape (n,).
        num_nonfinite: iterations whose objective or gradient was not finite.
        has_settled: whether the stopping rule ended the descent.
    """

    free: Any
    history: Float[np.ndarray, " n"]
    num_nonfinite: int = eqx.field(static=True)
    has_settled: bool = eqx.field(static=True)

    def __repr__(self):
        facts = {"num_nonfinite": self.num_nonfinite, "has_settled": self.has_settled}
        return shown("Learned", iterations=self.history.size, objective=self.history[-1, ...], **facts)

    @property
    def parameters(self) -> Any:
        """The parameters as the objective sees them."""
        return resolve(self.free)

    def check(self) -> None:
        """Raise `LearningError` if an iteration was not finite, saying what to try."""
        if self.num_nonfinite:
            raise LearningError(
                f"{self.num_nonfinite} of {self.history.size} iterations had an objective or gradient that is not finite "
                "and changed nothing. A step may have crossed a conjugate point or a "
                "bound: take a smaller learning rate, or a `positive` stiffness"
            )


def adam(learning_rate: float = 3e-2) -> optax.GradientTransformation:
    """Adam. The same rate gives the same object, so that descents which differ only in arrays share one compilation.

    Raises:
        ValueError: a rate that is not a finite number > 0.
    """
    rate = float(learning_rate)
    if not 0 < rate < np.inf:
        raise ValueError(f"learning_rate is {rate:g}; pass a finite number > 0")
    return _adam(rate)


@lru_cache
def _adam(rate: float) -> optax.GradientTransformation:
    return optax.adam(rate)


def minimise(
    objective: Objective,
    parameters: Any,
    *,
    optimiser: optax.GradientTransformation | None = None,
    num_iterations: int = 300,
    key: Key[Array, ""] | None = None,
    tolerance: float | None = None,
    progress: bool = True,
) -> Learned:
    """Minimise an objective over the floating arrays of a pytree.

    Args:
        objective: a function of the parameters, or of the parameters and a key if `key` is given, to a scalar. As a pytree
            (`equinox.Partial`, a method of a module) its arrays may change without a new compilation.
        parameters: any pytree; `only`, `positive`, `Fixed` and `Positive` say what is learned and how.
        optimiser: from optax; by default `adam()`, of rate 3e-2.
        num_iterations: at most.
        key: for an objective that is estimated; iteration i gets fold_in(key, i).
        tolerance: stop when the objective's mean over 25 iterations falls by less than this against the 25 before; for
            an estimated objective take some standard errors. Never, if left out.
        progress: show a bar, if tqdm is installed, when it takes more than two seconds.

    Raises:
        ValueError: nothing to learn; a count or tolerance out of range; an objective that does not return one floating
            scalar, or is not finite at the start.

    Example:
        >>> learned = minimise(lambda x: (x - 2) ** 2, jnp.array(0.0), num_iterations=400)
        >>> print(f"{learned.parameters:.3f}")
        2.000
    """
    _check_arguments(objective, parameters, optimiser, key, tolerance)
    num_iterations = check_count("num_iterations", num_iterations)
    optimiser = adam() if optimiser is None else optimiser
    free, fixed = eqx.partition(parameters, is_learned(parameters))
    state = optimiser.init(free)
    history: list[np.ndarray] = []
    num_nonfinite, has_settled = 0, False
    with progress_bar(num_iterations, "learn", "iteration", progress) as advance:
        for first in range(0, num_iterations, _ITERATIONS_PER_CALL):
            count = min(_ITERATIONS_PER_CALL, num_iterations - first)
            free, state, values, bad = _iterate(
                objective, optimiser, free, fixed, state, key, jnp.array([first, count])
            )
            values = np.asarray(values)[:count]
            if first == 0 and not np.isfinite(values[0]):
                raise ValueError(
                    f"objective is {values[0]} at the parameters given; pass parameters where it is finite"
                )
            history.append(values)
            num_nonfinite += int(bad)
            advance(count, objective=f"{values[-1]:.5g}")
            has_settled = tolerance is not None and _has_settled(history, tolerance)
            is_stuck = key is None and int(bad) > 0
            if has_settled or is_stuck:
                break
    return Learned(eqx.combine(free, fixed), np.concatenate(history), num_nonfinite, has_settled)


def minimise_refining(
    objective: Objective,
    parameters: Any,
    *,
    num_levels: int = 4,
    refine: Callable[[Any], Any] = refined,
    **options,
) -> tuple[Learned, ...]:
    """Descend, cut each piece in two, descend again: 1 → 2 → 4 → 8 pieces in four levels, each from where the last ended.

    Args:
        objective: as in `minimise`; it must take protocols of any number of pieces.
        parameters: a protocol, with `only` and `positive` as in `minimise`.
        num_levels: ≥ 1.
        refine: what makes parameters finer.
        options: those of `minimise`.

    Returns:
        The end of each level.

    Raises:
        ValueError: fewer than one level; as `minimise`.

    Example:
        >>> from pidjax import harmonic
        >>> from pidjax.learning import only, positive
        >>> start = only(lambda protocol: protocol.beta, positive(harmonic(1.0)))
        >>> levels = minimise_refining(lambda protocol: jnp.sum(protocol.beta**2), start, num_levels=3, num_iterations=5)
        >>> [level.parameters.num_pieces for level in levels]
        [1, 2, 4]

    Source: Chertkov & Behjoo, *Adaptive Path Integral Diffusion*, arXiv 2512.11858.
    """
    num_levels = check_count("num_levels", num_levels)
    if refine is refined:
        check_protocol(parameters)
    levels = [minimise(objective, parameters, **options)]
    while len(levels) < num_levels:
        levels.append(minimise(objective, refine(levels[-1].free), **options))
    return tuple(levels)


@eqx.filter_jit
def _iterate(objective, optimiser, free, fixed, state, key, iterations):
    """`count` iterations from number `first`, these two in `iterations`; the objectives of the others are NaN."""
    first, count = iterations
    optimiser = optax.with_extra_args_support(optimiser)

    def iterate(i, carry):
        free, state, values, bad = carry

        def value_of(free):
            tree = resolve(eqx.combine(free, fixed))
            value = objective(tree) if key is None else objective(tree, jax.random.fold_in(key, first + i))
            if jnp.shape(value) != () or not jnp.issubdtype(jnp.result_type(value), jnp.floating):
                raise ValueError(f"objective returns {jax.typeof(value).str_short()}; return one floating scalar")
            return jnp.asarray(value)

        value, gradient = jax.value_and_grad(value_of)(free)
        leaves = [value, *jax.tree.leaves(gradient)]
        is_finite = jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]).all()
        updates, moved = optimiser.update(gradient, state, free, value=value, grad=gradient, value_fn=value_of)
        stepped = optax.apply_updates(free, updates)
        free, state = jax.tree.map(lambda new, old: jnp.where(is_finite, new, old), (stepped, moved), (free, state))
        return free, state, values.at[i].set(value.astype(values.dtype)), bad + ~is_finite

    dtype = jnp.result_type(*jax.tree.leaves(free))
    start = free, state, jnp.full(_ITERATIONS_PER_CALL, jnp.nan, dtype), jnp.zeros((), int)
    return jax.lax.fori_loop(0, count, iterate, start)


def _has_settled(history: list[np.ndarray], tolerance: float) -> bool:
    if len(history) < 2 or history[-1].size < _ITERATIONS_PER_CALL:
        return False
    return bool(np.nanmean(history[-2]) - np.nanmean(history[-1]) < tolerance)


def _check_arguments(objective, parameters, optimiser, key, tolerance) -> None:
    check_kind("objective", objective, Callable, "a function of the parameters")
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
