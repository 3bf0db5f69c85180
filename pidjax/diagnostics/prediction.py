"""Early exit: the end of a path predicted from its weighted state, and how often that is right.

    datum   î(t) = argmin_i |x̂(t) − y_i|,      class   that of the datum

A path that is stopped at t gives y_î(t). It is right about the class long before it is about the datum; `decisions` says when
each path may be stopped, from the probabilities of its classes.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._doors.show import shown
from ..metrics import Estimate
from ..sampling.rollout import default_batch
from ..sampling.solution import Solution
from ..targets.samples import Samples
from .average import average
from .ensemble import saved_paths


class Predictions(NamedTuple):
    """What `predictions` returns, at the times of the steps.

    Attributes:
        times: t_k, shape (K,).
        rows: î, the row of the datum that each path was stopped at, shape (N, K).
        datum, label: the share of paths whose end, or its class, is the predicted one; of labels None without them.
        error: E|y_î − x(1)|².
    """

    times: Float[Array, " K"]
    rows: Int[Array, "N K"]
    datum: Estimate
    label: Estimate | None
    error: Estimate

    def __repr__(self):
        return shown("Predictions", **self._asdict())


def predictions(solution: Solution) -> Predictions:
    """What stopping at each step would give, beside what the paths ended on.

    Raises:
        ValueError: the solution has no paths, or is not of `Samples`.

    Example:
        >>> data = pid.Samples(jnp.array([[-1.0], [0.0], [5.0]]))
        >>> solution = pid.sample(jax.random.key(0), data, num_samples=200, save_paths=True)
        >>> found = predictions(solution)
        >>> [f"{found.datum.value[k]:.1f}" for k in (0, 10, 19)]
        ['0.4', '0.7', '0.9']
    """
    (states, expected), target = saved_paths(solution), solution.target
    if not isinstance(target, Samples):
        raise ValueError(f"solution is of a {type(target).__name__}; pass one of Samples")
    rows, ends = nearest_rows(target, expected), nearest_rows(target, states[:, -1:])
    error = _errors(target.points, rows, states[:, -1], default_batch(target.numbers_per_tilt, len(states)))
    dtype, labels = states.dtype, target.labels

    def share(one, other):
        return average((one == other).astype(dtype), solution)

    return Predictions(
        times=solution.times[:-1],
        rows=rows,
        datum=share(rows, ends),
        label=None if labels is None else share(labels[rows], labels[ends]),
        error=average(error, solution),
    )


def nearest_rows(target: Samples, points: Float[Array, "N K d"]) -> Int[Array, "N K"]:
    """The rows of the data nearest to each of many points."""
    return _nearest(target, points, default_batch(target.numbers_per_tilt, len(points)))


@eqx.filter_jit
def _nearest(target: Samples, points: Float[Array, "N K d"], at_once: int) -> Int[Array, "N K"]:
    return jax.lax.map(lambda path: jax.lax.map(target.nearest, path), points, batch_size=at_once)


@eqx.filter_jit
def _errors(points, rows: Int[Array, "N K"], ends: Float[Array, "N d"], at_once: int) -> Float[Array, "N K"]:
    def of_path(path):
        rows, end = path
        return jax.lax.map(lambda row: jnp.sum((points[row].astype(end.dtype) - end) ** 2), rows)

    return jax.lax.map(of_path, (rows, ends), batch_size=at_once)
