"""Training: every floating array of a step rule, but for its `Constant`s, goes down a loss of the rule's own paths.

The Path Integral Sampler is the case β = 0 with nothing explicit in the control:

    protocol = brownian(key, target)
    rule = Controlled(Guided(key, target, protocol))
    trained = fit(key, target, rule, protocol=protocol)
    solution = sample(key, target, protocol=protocol, grid=uniform_grid(100), rule=trained.rule)
"""

from collections.abc import Callable
from functools import lru_cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from .._doors.checks import as_positive, check_count, check_key, check_kind, concrete
from .._doors.progress import progress_bar
from .._doors.show import shown
from ..process.grids import AbstractGrid, uniform_grid
from ..process.protocol import Protocol
from ..sampling.rollout import Prepared, prepare
from ..sampling.rules import AbstractGaussianRule
from ..targets.base import AbstractTarget
from .losses import relative_entropy
from .networks import Constant, Guided

Loss = Callable[[Prepared, AbstractGaussianRule, Key[Array, ""], Int[Array, " n"]], Float[Array, ""]]

_ITERATIONS_PER_CALL = 20


class TrainingError(RuntimeError):
    """What `fit` raises when the loss is no longer finite: where, and what to try."""


class Trained(eqx.Module):
    """A trained rule, and what it took.

    Attributes:
        rule: the step rule, for `pidjax.sample` with the protocol and grid it was trained with.
        history: the loss at every iteration, shape (num_iterations,).
        num_gradient_evaluations: states at which training asked for the gradient of the log-density: the end of each
            path and, for a `Guided` control, each of its steps. What the backward pass recomputes is not counted.
    """

    rule: AbstractGaussianRule
    history: Float[np.ndarray, " num_iterations"]
    num_gradient_evaluations: int = eqx.field(static=True)

    def __repr__(self):
        return shown("Trained", rule=self.rule, iterations=self.history.size, loss=self.history[-1, ...])


def decayed_adam(num_iterations: int, learning_rate: float = 5e-3) -> optax.GradientTransformation:
    """Adam, the rate falling to zero along half a cosine, on gradients cut to unit norm: what `fit` takes by default.

    The same arguments give the same object, so that fits which differ only in their arrays share one compilation.

    Raises:
        ValueError: `num_iterations` not an integer ≥ 1, a rate that is not a finite number > 0.
    """
    as_positive("learning_rate", learning_rate)
    return _decayed_adam(check_count("num_iterations", num_iterations), float(learning_rate))


@lru_cache
def _decayed_adam(num_iterations: int, learning_rate: float) -> optax.GradientTransformation:
    schedule = optax.cosine_decay_schedule(learning_rate, num_iterations)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))


def fit(
    key: Key[Array, ""],
    target: AbstractTarget,
    rule: AbstractGaussianRule,
    *,
    protocol: Protocol,
    grid: AbstractGrid | None = None,
    num_iterations: int = 4000,
    batch_size: int = 512,
    optimiser: optax.GradientTransformation | None = None,
    loss: Loss = relative_entropy,
    progress: bool = True,
) -> Trained:
    """Minimise E[−log W] = KL(controlled ‖ optimal) − log Z over the trainable arrays of a step rule.

    Iteration i draws its paths with fold_in(key, i). The loop runs on the host, 20 iterations to a compiled call.

    Args:
        key: a typed key.
        target: a target with a density, in the user's units.
        rule: `Controlled(Guided(...))` for the Path Integral Sampler, `Euler(correction=Network(...))` for a correction
            to the explicit control, or any Gaussian rule with floating arrays in it.
        protocol: the reference.
        grid: by default 100 equal steps.
        num_iterations, batch_size: how many, and paths in each.
        optimiser: from optax; by default `decayed_adam(num_iterations)`.
        loss: `relative_entropy`, `log_variance`, or a function with their signature.
        progress: show a bar, if tqdm is installed, when training takes more than two seconds.

    Raises:
        ValueError: a target without a density; a rule that is not Gaussian, has nothing to train, or weights of another
            dtype than the target; counts below 1; an optimiser or a loss of another kind; a call under `jit` or `vmap`.
        TrainingError: the loss is not finite.

    Example:
        >>> from pidjax import Controlled, Density, harmonic
        >>> target = Density(lambda y: -0.5 * jnp.sum((y - 1) ** 2), 1)
        >>> protocol = harmonic(beta=0.0, noise_scale=1.0)
        >>> rule = Controlled(Guided(jax.random.key(0), target, protocol))
        >>> trained = fit(jax.random.key(1), target, rule, protocol=protocol, grid=uniform_grid(5), num_iterations=3)
        >>> trained.history.shape, trained.num_gradient_evaluations
        ((3,), 9216)

    Source: Zhang & Chen, *Path Integral Sampler*, arXiv 2111.15141, with this library's exact weights.
    """
    _check_arguments(key, target, rule, protocol, grid, optimiser, loss)
    num_iterations, batch_size = check_count("num_iterations", num_iterations), check_count("batch_size", batch_size)
    grid = uniform_grid(100) if grid is None else grid
    grid.check(protocol.horizon)
    optimiser = decayed_adam(num_iterations) if optimiser is None else optimiser
    prepared = eqx.filter_jit(prepare)(target, protocol, grid)
    prepared.unit.check()
    learned, fixed = eqx.partition(rule, trainable(rule))
    _check_dtype(learned, prepared.unit.start.dtype)

    state = optimiser.init(learned)
    history = []
    with progress_bar(num_iterations, "fit", "iteration", progress) as advance:
        for first in range(0, num_iterations, _ITERATIONS_PER_CALL):
            count = min(_ITERATIONS_PER_CALL, num_iterations - first)
            iterations = jnp.array([first, count])
            learned, state, losses = _iterate(
                prepared, learned, fixed, state, key, iterations, batch_size, optimiser, loss
            )
            if (values := concrete(losses)) is None:
                raise ValueError("fit trains on numbers, which jit and vmap do not have: call it outside of them")
            history.append(values[:count])
            _check_finite(history[-1], first)
            advance(count, loss=f"{history[-1].mean():.3f}")
    num_gradients = num_iterations * batch_size * (prepared.step_laws.num_steps + 1 if _is_guided(rule) else 1)
    return Trained(eqx.combine(learned, fixed), np.concatenate(history), num_gradients)


def trainable(rule: AbstractGaussianRule) -> AbstractGaussianRule:
    """The rule with each leaf replaced by whether `fit` trains it: floating arrays outside of every `Constant`."""
    return jax.tree.map(eqx.is_inexact_array, rule, is_leaf=lambda node: isinstance(node, Constant))


@eqx.filter_jit
def _iterate(prepared, learned, fixed, state, key, iterations, batch_size: int, optimiser, loss: Loss):
    """`count` iterations from number `first`, these two in `iterations`; the losses of the others are NaN."""
    first, count = iterations
    indices = jnp.arange(batch_size)

    @jax.value_and_grad
    def value_and_gradient(learned, key):
        return loss(prepared, eqx.combine(learned, fixed), key, indices)

    def iterate(i, carry):
        learned, state, losses = carry
        value, gradient = value_and_gradient(learned, jax.random.fold_in(key, first + i))
        updates, state = optimiser.update(gradient, state, learned)
        return optax.apply_updates(learned, updates), state, losses.at[i].set(value)

    losses = jnp.full(_ITERATIONS_PER_CALL, jnp.nan, prepared.unit.start.dtype)
    return jax.lax.fori_loop(0, count, iterate, (learned, state, losses))


def _is_guided(rule: AbstractGaussianRule) -> bool:
    nodes = jax.tree.leaves(rule, is_leaf=lambda node: isinstance(node, Guided))
    return any(isinstance(node, Guided) for node in nodes)


def _check_finite(losses: np.ndarray, first: int) -> None:
    if not np.isfinite(losses).all():
        number = first + int(np.argmin(np.isfinite(losses)))
        raise TrainingError(
            f"the loss is {losses[number - first]} at iteration {number}: a path ended where the log-density is not "
            "finite, or a step blew up. Return a large negative number instead of -inf outside the support; try a "
            "smaller learning rate, more steps, or a reference whose scale is nearer the target's"
        )


def _check_arguments(key, target, rule, protocol, grid, optimiser, loss) -> None:
    check_key("key", key)
    if not (isinstance(target, AbstractTarget) and target.has_density):
        raise ValueError(
            f"target is a {type(target).__name__}, which has no log-density; pass a GaussianMixture or Density"
        )
    check_kind("rule", rule, AbstractGaussianRule, "Controlled(...), Euler(correction=...) or Moment()")
    check_kind("protocol", protocol, Protocol, "learning.brownian(key, target), harmonic(...) or another")
    if grid is not None:
        check_kind("grid", grid, AbstractGrid, "log_snr_grid(...), uniform_grid(...) or at_times(...)")
    if optimiser is not None:
        check_kind(
            "optimiser", optimiser, optax.GradientTransformation, "one from optax, or decayed_adam(num_iterations)"
        )
    check_kind("loss", loss, Callable, "relative_entropy, log_variance, or a function with their signature")


def _check_dtype(learned, dtype) -> None:
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(learned)}
    if not dtypes:
        raise ValueError("rule has nothing to train: no floating array in it; give its control or correction some")
    if dtypes != {dtype}:
        found = ", ".join(sorted(str(other) for other in dtypes))
        raise ValueError(f"rule has arrays of {found} but the target is of {dtype}; build the rule with dtype={dtype}")
