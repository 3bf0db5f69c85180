"""Training: every floating array of a step rule, but for what is `Fixed`, goes down a loss of the rule's own paths.

The Path Integral Sampler is the case β = 0 with nothing explicit in the control:

    protocol = brownian(key, target)
    rule = Controlled(Guided(key, target, protocol))
    trained = fit(key, target, rule, protocol=protocol)
    solution = sample(key, target, protocol=protocol, grid=uniform_grid(100), rule=trained.parameters)
"""

from dataclasses import replace
from os import PathLike

import equinox as eqx
import jax
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from .._doors.checks import as_floating, check_count, check_key, check_kind
from ..process.grids import AbstractGrid, uniform_grid
from ..process.protocol import Protocol
from ..sampling.problem import Problem
from ..sampling.rollout import spread
from ..sampling.rules import AbstractGaussianRule
from ..targets.base import AbstractTarget, Tilted, WithDensity, able
from .descend import descend
from .descent import Descent
from .losses import AbstractLoss, RelativeEntropy, evidence
from .networks import Guided
from .optimiser import adam
from .parameters import is_learned, resolve


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
    loss: AbstractLoss | None = None,
    average: float | None = None,
    report_every: int | None = None,
    ends: Float[Array, "n d"] | None = None,
    checkpoint: str | PathLike | None = None,
    progress: bool = True,
) -> Descent:
    """Minimise a loss of the paths of a step rule over its trainable arrays; by default KL(controlled ‖ optimal) − log Z.

    Iteration i draws its paths with fold_in(key, i).

    Args:
        key: a typed key.
        target: a target with a density, in the user's units.
        rule: `Controlled(Guided(...))` for the Path Integral Sampler, `Corrected(Moment(), Network(...))` for a correction
            to the explicit control, or any Gaussian rule with floating arrays in it; `only` says which are trained.
        protocol: the reference.
        grid: by default 100 equal steps.
        num_iterations, batch_size: how many, and paths in each.
        optimiser: from optax; by default Adam at 1e-3, decaying to zero over `num_iterations`, on gradients cut to unit norm:
            what goes on from a checkpoint to another number takes one of its own. Some targets diverge at 5e-3.
        loss: by default `RelativeEntropy()`; `LogVariance`, `TrajectoryBalance`, `Regression`, a `Sum` of them, or another.
        report_every: iterations between reports of the `evidence` of a batch of paths, kept in `Descent.reports`; none, if left
            out.
        ends: samples of the target, for what `evidence` says of these, at least a batch of them, shape (n, d).
        average, checkpoint, progress: as of `descend`.

    Returns:
        The descent, whose `parameters` are the rule, for `pidjax.sample` with the protocol and grid it was trained with.
        Its `num_evaluations` are of the log-density or its gradient: at the end of each path, for a `Guided` control at each
        of its steps too.

    Raises:
        ValueError: a target without a density; a rule that is not Gaussian, has arrays of another dtype than the target, or a
            network that gives no vector; counts below 1; fewer ends than paths in a batch, or no reports of them; as `descend`.

    Example:
        >>> from pidjax import Controlled, Density, harmonic
        >>> target = Density(lambda y: -0.5 * jnp.sum((y - 1) ** 2), 1)
        >>> protocol = harmonic(beta=0.0, noise_scale=1.0)
        >>> rule = Controlled(Guided(jax.random.key(0), target, protocol))
        >>> trained = fit(jax.random.key(1), target, rule, protocol=protocol, grid=uniform_grid(5), num_iterations=3)
        >>> trained.history.shape, trained.num_evaluations
        ((3,), 9216)

    Source: Zhang & Chen, *Path Integral Sampler*, arXiv 2111.15141, with this library's exact weights.
    """
    _check_arguments(key, target, rule, protocol, grid, loss)
    num_iterations, batch_size = check_count("num_iterations", num_iterations), check_count("batch_size", batch_size)
    grid = uniform_grid(100) if grid is None else grid
    loss = RelativeEntropy() if loss is None else loss
    prepared = Problem(target, protocol).prepare(grid)
    _check_dtype(rule, prepared.unit.start.dtype)
    as_it_is = resolve(rule)
    as_it_is.check(prepared.step_laws.t[0], prepared.unit.start)
    if ends is not None and report_every is None:
        raise ValueError("ends is given, but report_every is not; pass how often evidence is to be reported")
    key_start, key_descent = jax.random.split(key)
    indices = spread(np.arange(batch_size))
    if ends is not None:
        ends = prepared.unit.to_unit(_checked(ends, batch_size, target.dim).astype(prepared.unit.start.dtype))
    descent = descend(
        eqx.Partial(_of_rule, loss, prepared, indices),
        rule,
        state=_started(loss, prepared, as_it_is, key_start),
        optimiser=adam(1e-3, decay=num_iterations, clip=1.0) if optimiser is None else optimiser,
        num_iterations=num_iterations,
        key=key_descent,
        average=average,
        report=None if report_every is None else eqx.Partial(_evidence, prepared, indices, ends),
        report_every=100 if report_every is None else report_every,
        checkpoint=checkpoint,
        progress=progress,
    )
    per_step = _is_guided(rule) + (target.evaluations_per_tilt if issubclass(rule.needs, Tilted) else 0)
    spent = loss.num_evaluations(descent.history.size, batch_size, prepared.step_laws.num_steps, per_step)
    return replace(descent, num_evaluations=spent)


@eqx.filter_jit
def _started(loss: AbstractLoss, prepared, rule, key):
    return loss.start(prepared, rule, key)


def _of_rule(loss: AbstractLoss, prepared, indices, rule, state, key):
    return loss(prepared, rule, key, indices, state)


def _evidence(prepared, indices, ends, rule, state, key):
    return evidence(prepared, rule, key, indices, ends)


def _checked(ends, batch_size: int, dim: int) -> Float[Array, "n d"]:
    ends = as_floating("ends", ends)
    if ends.ndim != 2 or ends.shape[1] != dim or len(ends) < batch_size:
        raise ValueError(
            f"ends has shape {ends.shape}; pass {batch_size} samples of the target or more, shape (n, {dim})"
        )
    return ends[:batch_size]


def _is_guided(rule: AbstractGaussianRule) -> bool:
    nodes = jax.tree.leaves(rule, is_leaf=lambda node: isinstance(node, Guided))
    return any(isinstance(node, Guided) for node in nodes)


def _check_arguments(key, target, rule, protocol, grid, loss) -> None:
    check_key("key", key)
    if not (isinstance(target, AbstractTarget) and able(target, WithDensity)):
        raise ValueError(
            f"target is a {type(target).__name__}, which has no log-density; pass a GaussianMixture or Density"
        )
    check_kind("rule", rule, AbstractGaussianRule, "Controlled(...), Euler(correction=...) or Moment()")
    if issubclass(rule.needs, Tilted) and not able(target, Tilted):
        raise ValueError(
            f"target is a {type(target).__name__}, which has no tilted laws for the rule {type(rule).__name__}; pass what "
            "stands in for it, pidjax.sample(key, density).target, or a Surrogate"
        )
    check_kind("protocol", protocol, Protocol, "learning.brownian(key, target), harmonic(...) or another")
    if grid is not None:
        check_kind("grid", grid, AbstractGrid, "log_snr_grid(...), uniform_grid(...) or at_times(...)")
    if loss is not None:
        check_kind("loss", loss, AbstractLoss, "RelativeEntropy(), LogVariance(), Regression(...) or another")


def _check_dtype(rule, dtype) -> None:
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(eqx.filter(rule, is_learned(rule)))}
    if not dtypes:
        raise ValueError("rule has nothing to train: no floating array in it; give its control or correction some")
    if dtypes != {dtype}:
        found = ", ".join(sorted(str(other) for other in dtypes))
        raise ValueError(f"rule has arrays of {found} but the target is of {dtype}; build the rule with dtype={dtype}")
