"""Exact W2 (a length, not squared) along the paths and on parts of space.

    early exit      W2 of {x(t)} and of {x̂(t)} to exact draws of the target: what stopping at t would give
    restricted      W2 of the samples and of the reference inside a region, in equal numbers

The terminal W2 is the early exit at the last time. A restricted distance compares shapes inside the region, not the mass
that it holds. Each has its floor: `metrics.floor` of the same function between exact sample sets.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from .._doors.checks import as_floating, as_positive, as_scalar, check_count, check_key, concrete
from .._doors.functions import check_on_host
from .._doors.show import shown
from ..metrics import Floor, floor, wasserstein2
from ..metrics._inputs import log_densities, weighted_samples
from ..sampling.solution import Solution
from .ensemble import Region, are_inside, saved_paths

Draw = Callable[[Key[Array, ""], int], Float[Array, "n d"]]
"""Exact independent draws of the target: a key and a number to points (n, d)."""


class EarlyExit(NamedTuple):
    """W2 at T times, of the states and of the weighted states, each shape (T,), and the floor of both."""

    times: Float[Array, " T"]
    state: Float[Array, " T"]
    weighted_state: Float[Array, " T"]
    floor: Floor

    def __repr__(self):
        return shown("EarlyExit", **self._asdict())


def early_exit(
    key: Key[Array, ""],
    solution: Solution,
    draw: Draw,
    steps: Sequence[int],
    num_points: int,
) -> EarlyExit:
    """W2 of x(t_k) and of x̂(t_k) to exact draws of the target, at the steps k asked for; K, or −1, is the end.

    The paths are resampled with their weights: to `num_points` at most the effective sample size, else points repeat and
    the floor is not theirs. Time O(T num_points³), on the host.

    Raises:
        ImportError: scipy is missing.
        ValueError: the solution has no paths; a step that is none of its, or more points than it has paths.

    Example:
        >>> import pidjax as pid
        >>> target = pid.GaussianMixture(jnp.zeros((1, 1)), jnp.ones((1, 1, 1)))
        >>> solution = pid.sample(jax.random.key(0), target, num_samples=50, save_paths=True)
        >>> found = early_exit(jax.random.key(1), solution, target.sample, [0, -1], num_points=50)
        >>> bool(found.state[0] > found.state[1])
        True

    Source: Chertkov & Behjoo, *AdaPID*, arXiv 2512.11858 (there squared).
    """
    check_key("key", key)
    states, expected = saved_paths(solution)
    num_points, at_steps, last = check_count("num_points", num_points), np.asarray(steps), states.shape[1] - 1
    if at_steps.ndim != 1 or at_steps.size == 0 or not np.issubdtype(at_steps.dtype, np.integer):
        raise ValueError(f"steps is {steps!r}; pass a sequence of integers, not empty")
    if not ((-last - 1 <= at_steps) & (at_steps <= last)).all():
        raise ValueError(f"steps is {steps!r}; pass steps between 0 and {last}, or -1 for the end")
    if num_points > solution.num_samples:
        raise ValueError(f"num_points is {num_points}; pass at most the {solution.num_samples} paths, or points repeat")
    weighted = jnp.concatenate([expected, states[:, -1:]], axis=1)
    chosen = states[:, at_steps], weighted[:, at_steps]
    key_resample, key_exact, key_floor = jax.random.split(key, 3)
    lowest = floor(wasserstein2, draw, key_floor, n=num_points)
    at_times = eqx.tree_at(lambda one: one.samples, solution, chosen, is_leaf=lambda leaf: leaf is solution.samples)
    states, expected = at_times.resample(key_resample, num_points)
    exact = draw(key_exact, num_points)

    def distances(points):
        return jnp.stack([wasserstein2(points[:, k], exact) for k in range(at_steps.size)])

    return EarlyExit(solution.times[at_steps], distances(states), distances(expected), lowest)


def restricted_wasserstein2(
    samples: Float[Array, "n d"], reference: Float[Array, "m d"], region: Region
) -> Float[Array, ""]:
    """W2 between the samples and the reference inside a region, as many of each: the first of the more numerous.

    Args:
        samples, reference: independent points of equal weight, in random order.
        region: from `ball`, `tail`, or any function of one point to whether it is inside.

    Raises:
        ImportError: scipy is missing.
        ValueError: no sample, or no reference point, is inside.

    Example:
        >>> x = jnp.array([[0.0], [9.0]])
        >>> restricted_wasserstein2(x, x + 0.5, ball(jnp.zeros(1), 1.0)).item()
        0.5

    Source: Chertkov & Behjoo, *AdaPID*, arXiv 2512.11858 (there squared).
    """
    check_on_host("restricted_wasserstein2", samples, reference)
    samples, reference = (
        weighted_samples(points, None, name)[0] for name, points in (("samples", samples), ("reference", reference))
    )
    inside, reference_inside = (points[are_inside(region, points)] for points in (samples, reference))
    count = min(len(inside), len(reference_inside))
    if count == 0:
        raise ValueError(
            f"region holds {len(inside)} of {len(samples)} samples and {len(reference_inside)} of {len(reference)} "
            "reference points; pass a region that holds some of each"
        )
    return wasserstein2(inside[:count], reference_inside[:count])


def ball(centre: Float[Array, " d"], radius: ArrayLike) -> Region:
    """{ x : |x − centre| ≤ radius }: around a mode, the mode-local W2.

    Raises:
        ValueError: a centre that is not one point, a radius that is not positive; later, a point of another dimension.

    Example:
        >>> ball(jnp.zeros(2), 1.0)(jnp.ones(2)).item()
        False
    """
    centre, radius = as_floating("centre", centre), as_positive("radius", radius)
    if centre.ndim != 1:
        raise ValueError(f"centre has shape {centre.shape}; pass one point of shape (d,)")

    def is_inside(x):
        if x.shape != centre.shape:
            raise ValueError(f"the point has shape {x.shape} but the ball's centre {centre.shape}")
        return jnp.sum((x - centre.astype(x.dtype)) ** 2) <= radius.astype(x.dtype) ** 2

    return is_inside


def tail(
    log_density: Callable[[Float[Array, " d"]], Float[Array, ""]], exact: Float[Array, "n d"], mass: ArrayLike
) -> Region:
    """{ x : log p(x) ≤ q }, with q the quantile of log p at this mass over exact samples: where p holds this mass, the
    least likely.

    Raises:
        ValueError: a mass outside of (0, 1); no exact samples; a log-density that is no number, or NaN, there.

    Example:
        >>> far = tail(lambda x: -jnp.sum(x**2), jnp.linspace(-1, 1, 101)[:, None], 0.1)
        >>> far(jnp.array([0.98])).item(), far(jnp.array([0.5])).item()
        (True, False)
    """
    exact, mass = weighted_samples(exact, None, "exact")[0], as_scalar("mass", mass)
    known = concrete(mass)
    if known is not None and not 0 < known < 1:
        raise ValueError(f"mass is {known:g}; pass a number in (0, 1)")
    threshold = jnp.quantile(log_densities(log_density, exact), mass.astype(exact.dtype))
    return lambda x: log_density(x) <= threshold
