"""Distances between two sample sets by ranks and kernels, and the floor of a distance."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Key

from .._doors.checks import as_positive, check_count, check_key, check_kind, concrete
from .._doors.functions import check_array
from .._doors.show import shown
from ._inputs import floating, log_densities, sample_pair

BANDWIDTH_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""`mmd_squared` averages the Gaussian kernels of these multiples of one bandwidth."""

MEDIAN_POINTS = 1000
"""The default bandwidth is the median distance among at most this many points of the reference."""


class Floor(NamedTuple):
    """Mean and standard deviation of a metric between exact sample sets."""

    mean: Float[Array, ""]
    standard_deviation: Float[Array, ""]

    def __repr__(self):
        return shown("Floor", **self._asdict())


def floor(
    metric: Callable[[Float[Array, "n d"], Float[Array, "m d"]], Float[Array, ""]],
    draw: Callable[[Key[Array, ""], int], Float[Array, "n d"]],
    key: Key[Array, ""],
    n: int,
    repeats: int = 10,
    reference_n: int | None = None,
) -> Floor:
    """Mean and standard deviation of metric(x, y) over independent exact x ~ draw(·, n), y ~ draw(·, reference_n or n).

    Raises:
        ValueError: fewer than two repeats, a count below 1, or draws of another number than asked for.

    Example:
        >>> lowest = floor(mmd_squared, lambda key, n: jax.random.normal(key, (n, 1)), jax.random.key(0), n=50)
        >>> bool(lowest.standard_deviation > 0)
        True
    """
    check_key("key", key)
    n, repeats = check_count("n", n), check_count("repeats", repeats)
    reference_n = n if reference_n is None else check_count("reference_n", reference_n)
    if repeats < 2:
        raise ValueError(f"repeats is {repeats}; pass at least 2")
    check_kind("draw", draw, Callable, "a function of a key and a number")
    check_array("draw", lambda key: draw(key, n), key, of="a key", on_host=True)

    def drawn(key, count):
        points = jnp.asarray(draw(key, count))
        if points.shape[:1] != (count,):
            raise ValueError(f"draw returns shape {points.shape} where {count} points were asked for; return (n, d)")
        return points

    keys = jax.random.split(key, (repeats, 2))
    pairs = [(drawn(one, n), drawn(two, reference_n)) for one, two in keys]
    check_array("metric", metric, *pairs[0], of="two sets of points", on_host=True)
    values = jnp.stack([jnp.asarray(metric(*pair)) for pair in pairs])
    if values.ndim != 1:
        raise ValueError(f"metric returns shape {values.shape[1:]} for two sets of points; return one number")
    return Floor(jnp.mean(values), jnp.std(values, ddof=1))


def kolmogorov_smirnov(
    values: ArrayLike, reference: ArrayLike, log_weights: ArrayLike | None = None
) -> Float[Array, ""]:
    """sup_t |F̂(t) − F̂_reference(t)| on the line, from 0 to 1.

    Example:
        >>> float(kolmogorov_smirnov(jnp.array([0.0, 1.0]), jnp.array([0.5, 2.0])))
        0.5
    """
    values, reference = floating("values", values), floating("reference", reference)
    if values.ndim != 1 or reference.ndim != 1:
        raise ValueError(f"values has shape {values.shape} and reference {reference.shape}; pass (n,) and (m,)")
    values, weights, reference = sample_pair(values[:, None], reference[:, None], log_weights)
    return _largest_gap(values[:, 0], weights, reference[:, 0])


def energy_ks(
    samples: ArrayLike,
    reference: ArrayLike,
    log_density: Callable[[Float[Array, " d"]], Float[Array, ""]],
    log_weights: ArrayLike | None = None,
) -> Float[Array, ""]:
    """`kolmogorov_smirnov` distance of the laws of log p, known up to a constant, at the samples and at the reference.

    Example:
        >>> float(energy_ks(jnp.zeros((4, 2)), jnp.ones((4, 2)), lambda x: -jnp.sum(x**2)))
        1.0
    """
    samples, weights, reference = sample_pair(samples, reference, log_weights)
    of_samples, of_reference = log_densities(log_density, samples, weights), log_densities(log_density, reference)
    return _largest_gap(of_samples, weights, of_reference)


def sliced_ks(
    samples: ArrayLike,
    reference: ArrayLike,
    key: Key[Array, ""],
    log_weights: ArrayLike | None = None,
    num_projections: int = 128,
) -> Float[Array, ""]:
    """The mean, over directions uniform on the sphere, of the `kolmogorov_smirnov` distance of the projections.

    Example:
        >>> float(sliced_ks(jnp.ones((4, 2)), jnp.ones((4, 2)), jax.random.key(0)))
        0.0

    Source: Grenioux, Noble, Gabrié & Durmus, arXiv 2402.10758 (there with histograms of 256 bins; here exact).
    """
    samples, weights, reference = sample_pair(samples, reference, log_weights)
    check_key("key", key)
    num_projections = check_count("num_projections", num_projections)
    directions = jax.random.normal(key, (num_projections, samples.shape[1]), samples.dtype)
    directions = directions / jnp.linalg.norm(directions, axis=-1, keepdims=True)
    return _mean_largest_gap(samples, weights, reference, directions)


def mmd_squared(
    samples: ArrayLike,
    reference: ArrayLike,
    log_weights: ArrayLike | None = None,
    bandwidth: ArrayLike | None = None,
    chunk_size: int = 128,
) -> Float[Array, ""]:
    """MMD² = E k(x,x') + E k(y,y') − 2 E k(x,y) over distinct pairs: unbiased at equal weights, so it may be negative.

        k(x, y) = mean_c exp(−|x−y|² / 2(c h)²),   c = ¼, ½, 1, 2, 4

    h, the bandwidth, is by default the median distance among the first 1000 points of the reference; a given one is
    strictly unbiased. With weights E k(x,x') = Σ_{i≠j} w_i w_j k(x_i,x_j) / Σ_{i≠j} w_i w_j.
    Time O((n+m)² d), memory O(chunk_size · max(n, m) · d).

    Raises:
        ValueError: fewer than two samples that count, or reference points; more than half of the reference one point and
            no bandwidth given.

    Example:
        >>> x = jnp.array([[0.0], [0.0]])
        >>> float(mmd_squared(x, x + 100.0, bandwidth=1.0))
        2.0

    Source: Gretton, Borgwardt, Rasch, Schölkopf & Smola, *A kernel two-sample test*, JMLR 2012, eq. 3.
    """
    samples, weights, reference = sample_pair(samples, reference, log_weights)
    n, m = len(samples), len(reference)
    if min(n, m) < 2:
        raise ValueError(f"samples has {n} points and reference has {m}; pass at least 2 of each")
    heaviest = concrete(jnp.max(weights))
    if heaviest is not None and heaviest == 1:
        raise ValueError("log_weights leave one sample that counts; pass at least 2")
    if bandwidth is None:
        bandwidth = _median_distance(reference[:MEDIAN_POINTS])
        if concrete(bandwidth) is not None and bandwidth == 0:
            raise ValueError(
                "bandwidth is by default the median distance of the reference, which is 0; pass a number > 0"
            )
    bandwidth = as_positive("bandwidth", bandwidth).astype(samples.dtype)
    return _mmd_squared(samples, weights, reference, bandwidth, check_count("chunk_size", chunk_size))


@functools.partial(jax.jit, static_argnames="chunk_size")
def _mmd_squared(samples, weights, reference, bandwidth, chunk_size):
    equal = jnp.full(len(reference), 1 / len(reference), samples.dtype)

    def mean_kernel(x, weights_x, y, weights_y):
        def row(point):
            return jnp.sum(weights_y * _kernel(jnp.sum((point[None] - y) ** 2, axis=-1), bandwidth))

        return jnp.sum(weights_x * jax.lax.map(row, x, batch_size=chunk_size))

    def mean_kernel_of_distinct(x, weights_x):
        itself = jnp.sum(weights_x**2)
        return (mean_kernel(x, weights_x, x, weights_x) - itself) / (1 - itself)

    between = mean_kernel(samples, weights, reference, equal)
    return mean_kernel_of_distinct(samples, weights) + mean_kernel_of_distinct(reference, equal) - 2 * between


def _kernel(squared_distance, bandwidth):
    scaled = squared_distance / (2 * bandwidth**2)
    return sum(jnp.exp(-scaled / factor**2) for factor in BANDWIDTH_FACTORS) / len(BANDWIDTH_FACTORS)


def _median_distance(points):
    first, second = jnp.triu_indices(len(points), k=1)
    return jnp.median(jnp.linalg.norm(points[first] - points[second], axis=-1))


@jax.jit
def _mean_largest_gap(samples, weights, reference, directions):
    def project(points, direction):
        return jnp.matmul(points, direction, precision=jax.lax.Precision.HIGHEST)

    def gap_along(direction):
        return _largest_gap(project(samples, direction), weights, project(reference, direction))

    return jnp.mean(jax.lax.map(gap_along, directions))


@jax.jit
def _largest_gap(values, weights, reference):
    """sup |F̂ − F̂_reference| from one sort; between equal values the running sum is not yet a difference of the two."""
    pooled = jnp.concatenate([values, reference])
    jumps = jnp.concatenate([weights, jnp.full(len(reference), -1 / len(reference), weights.dtype)])
    order = jnp.argsort(pooled)
    pooled, difference = pooled[order], jnp.cumsum(jumps[order])
    last_of_equals = jnp.append(pooled[1:] != pooled[:-1], True)
    return jnp.max(jnp.where(last_of_equals, jnp.abs(difference), 0))
