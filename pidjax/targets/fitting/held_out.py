"""Laws of a data set that generate beyond it, chosen by the likelihood of data that they have not seen.

    kernel     p̂(y) = mean_i N(y; y_i, h² R Rᵀ),         h² ← mean_held E_{i|y} |R⁻¹(y − y_i)|²/d
    Gaussians  p̂(y) = Σ_k w_k N(y; m_k, Σ_k),            by expectation maximisation, stopped where held-out data say

h by its own expectation maximisation, on the held-out data: each step raises their likelihood. R is the identity or the
Cholesky factor of the data's covariance, whichever makes them likelier; k and the number of steps likewise.

Data of which a coordinate is constant, or takes few values, have no density: their likelihood grows without bound as a Gaussian
narrows. Add noise of their resolution first.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ..._doors.checks import as_points, check_count, check_key, check_kind
from ..._maths.maps import Factor
from ..._maths.small import HIGHEST, cholesky
from ..mixture import GaussianMixture
from ..samples import Samples
from ..smoothed import Smoothed
from .gaussians import Gaussians, expectation_maximisation, seed

_KERNEL_STEPS = 40
_STEPS = 60
_SHAPED_UP_TO = 32
"""Dimension up to which a kernel of the shape of the data's covariance is tried."""


def fit_kernel(data: Samples, held_out: Float[Array, "m d"]) -> Smoothed:
    """The data under the Gaussian kernel that makes held-out data likeliest.

    Args:
        data: the points of the law, with their weights.
        held_out: other points of the same target, shape (m, d), that are none of the data.

    Raises:
        ValueError: arguments of another kind or shape.

    Example:
        >>> points = jax.random.normal(jax.random.key(0), (600, 1))
        >>> fitted = fit_kernel(pid.Samples(points[:300]), points[300:])
        >>> bool(0.1 < fitted.factor < 0.6)
        True
    """
    check_kind("data", data, Samples, "Samples")
    held_out = as_points("held_out", held_out, data.dim)
    spread = data.place().spread
    shapes: list[Factor] = [jnp.ones((), spread.dtype)]
    if data.dim <= _SHAPED_UP_TO:
        offsets = (data.points.astype(spread.dtype) - (data.weights @ data.points)[None]) / spread
        covariance = jnp.matmul((offsets * data.weights[:, None]).T, offsets, precision=HIGHEST)
        factor = cholesky(covariance)
        if jnp.isfinite(factor).all() and data.dim > 1:
            shapes.append(factor)
    fits = [_with_width(data, held_out, spread * shape) for shape in shapes]
    return max(fits, key=lambda fit: float(fit[1]))[0]


@jax.jit
def _with_width(data: Samples, held_out: Float[Array, "m d"], shape: Factor) -> tuple[Smoothed, Float[Array, ""]]:
    """The kernel h R of a given R, and the mean log-likelihood of the held-out data."""
    dim = data.dim

    def likelihood(log_width):
        law = Smoothed(data, jnp.exp(log_width) * shape)
        return jnp.mean(jax.lax.map(law.log_density, held_out, batch_size=64))

    def improve(_, log_width):
        # Of a Gaussian d log N/d log h = |R⁻¹(y − y_i)|²/h² − d, and its mean over i | y is the slope of log p̂.
        return log_width + 0.5 * jnp.log(jnp.maximum(1 + jax.grad(likelihood)(log_width) / dim, 1e-6))

    widest = -jnp.log(jnp.asarray(len(data.points), shape.dtype)) / (dim + 4)
    log_width = jax.lax.fori_loop(0, _KERNEL_STEPS, improve, widest)
    return Smoothed(data, jnp.exp(log_width) * shape), likelihood(log_width)


def fit_local_gaussians(
    key: Key[Array, ""],
    data: Samples,
    held_out: Float[Array, "m d"],
    counts: Sequence[int] = (1, 2, 4, 8, 16, 32, 64),
) -> GaussianMixture:
    """The mixture of full Gaussians that makes held-out data likeliest, of several numbers of components.

    Args:
        data: what it is fitted to, with weights.
        held_out: other points of the same target, shape (m, d), that are none of the data.
        counts: numbers of components that are tried; those beyond a third of the data are left out.

    Raises:
        ValueError: arguments of another kind or shape.

    Example:
        >>> points = jax.random.normal(jax.random.key(0), (400, 2)) + 9 * (jnp.arange(400) % 2)[:, None]
        >>> fit_local_gaussians(jax.random.key(1), pid.Samples(points[:300]), points[300:]).weights.shape
        (2,)
    """
    check_key("key", key)
    check_kind("data", data, Samples, "Samples")
    held_out = as_points("held_out", held_out, data.dim)
    counts = [check_count(f"counts[{number}]", count) for number, count in enumerate(counts)]
    counts = [count for count in counts if count == min(counts) or 3 * count <= len(data.points)]
    dtype = data.weights.dtype
    points, alive = data.points.astype(dtype).T, len(data.points) * data.weights
    fits = [_fitted(key, points, alive, held_out.astype(dtype).T, count) for count in counts]
    best, _ = max(fits, key=lambda fit: float(fit[1]))
    return GaussianMixture.of_factors(best.means, best.factors, jnp.exp(best.log_weights))


def _fitted(key, points, alive, held_out, count: int) -> tuple[Gaussians, Float[Array, ""]]:
    """The mixture of k components on the way of expectation maximisation, where held-out data were likeliest."""

    def likelihood(mixture):
        return jnp.mean(mixture.log_density(mixture.squared_distances(held_out)))

    def improve(_, carry):
        mixture, best, most = carry
        mixture = expectation_maximisation(mixture, points, alive)
        found = likelihood(mixture)
        better = found > most
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), mixture, best)
        return mixture, best, jnp.where(better, found, most)

    @jax.jit
    def climb(key):
        first = seed(key, points, count)
        return jax.lax.fori_loop(0, _STEPS, improve, (first, first, likelihood(first)))

    return climb(key)[1:]
