"""Bases to climb from: one broad Gaussian, a Gaussian for each mode, and the same with the moments of particles.

    N(μ_k, Σ_k),    μ_k = ⟨y⟩_k,    Σ_k = (1 − s) ⟨(y − μ_k)(y − μ_k)ᵀ⟩_k + s (tr/d) L_kL_kᵀ,    s = d/(n + d)

with the means over the n particles of stratum k, and the trace taken where L_kL_kᵀ is round.
"""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from .._doors.checks import as_floating, as_real, concrete
from .._maths.estimates import effective_size
from .._maths.small import HIGHEST, cholesky, inverse_triangular, matmul
from ..targets.base import WithDensity
from ..targets.fitting.energy import log_ratios
from ..targets.mixture import GaussianMixture
from .modes import Modes
from .population import Population

MOST_STRATA = 8
LEAST_EXPLAINED = 0.75
"""Of the starts, by modes that are to be a base."""
_WIDER = 2.5
_DRAWS = 1024


def broad_base(points: Float[Array, "n d"], values: Float[Array, " n"]) -> GaussianMixture:
    """N(mean, diag (2.5 sd)²) of the better three quarters of the points: a base where modes are not known.

    Args:
        points: shape (n, d); as `Modes.pilot_points`.
        values: log p̃ there; points of −∞ are not counted.

    Raises:
        ValueError: other shapes, fewer than two points of finite value.

    Example:
        >>> base = broad_base(jnp.array([[1.0], [3.0], [9.0]]), jnp.array([-1.0, 0.0, -jnp.inf]))
        >>> base.means.tolist(), base.factors.tolist()
        ([[2.0]], [[2.5]])
    """
    points, values = as_floating("points", points), as_real("values", values)
    if points.ndim != 2 or values.shape != points.shape[:1]:
        raise ValueError(
            f"points has shape {points.shape} and values {values.shape}; pass (n, d) and (n,), a value for each point"
        )
    finite = jnp.isfinite(values)
    known = concrete(finite)
    if known is not None and known.sum() < 2:
        raise ValueError(f"values has {known.sum()} finite ones of {known.size}; pass two or more")
    count = jnp.sum(finite) - jnp.sum(finite) // 4
    ranks = jnp.argsort(jnp.argsort(jnp.where(finite, -values, jnp.inf)))
    kept = (ranks < count).astype(points.dtype)[:, None] / count.astype(points.dtype)
    mean = jnp.sum(kept * points, axis=0)
    variances = jnp.sum(kept * (points - mean[None]) ** 2, axis=0)
    least = jnp.finfo(points.dtype).eps * jnp.maximum(jnp.max(jnp.abs(mean)), 1e-6)
    widths = _WIDER * jnp.maximum(jnp.sqrt(variances), least)
    return GaussianMixture.of_factors(mean[None], widths[None], jnp.ones(1, points.dtype))


def are_all(modes: Modes) -> bool:
    """Whether modes are few, and none was met by chance only once, if starts were more than there is room for modes.

    Then there are others.
    """
    return _are_few(modes) and not (int(modes.num_starts) > modes.counts.size and bool(modes.met_once.any()))


def are_a_base(modes: Modes) -> bool:
    """Whether modes are few, and most starts led to one of them."""
    return _are_few(modes) and int(modes.num_unexplained) <= (1 - LEAST_EXPLAINED) * int(modes.num_starts)


def _are_few(modes: Modes) -> bool:
    return 0 < int(modes.num_modes) <= MOST_STRATA and int(modes.num_left) == 0


@eqx.filter_jit
def effective_share(key: Key[Array, ""], density: WithDensity, mixture: GaussianMixture) -> Float[Array, ""]:
    """ESS/N of importance weights p̃/p̂, by 1,024 draws; 0 where no draw has any."""
    draws = mixture.sample(key, _DRAWS)
    return jnp.nan_to_num(effective_size(log_ratios(density, mixture, draws))) / _DRAWS


def shrunk_moments(
    points: Float[Array, "n d"], weights: Float[Array, " n"], count: Float[Array, ""] | None = None
) -> tuple[Float[Array, " d"], Float[Array, "d d"]]:
    """m = Σ_i w_i y_i/Σw, and a factor of Σ_i w_i (y_i − m)(y_i − m)ᵀ/Σw with correlations less by d/(count + d).

    Args:
        points, weights: shapes (n, d) and (n,).
        count: of independent points; (Σw)²/Σw² by default.

    Example:
        >>> mean, factor = shrunk_moments(jnp.array([[0.0, 1.0], [2.0, 3.0], [9.0, 9.0]]), jnp.array([1.0, 1.0, 0.0]))
        >>> mean.tolist(), (factor @ factor.T).tolist()
        ([1.0, 2.0], [[1.0, 0.5], [0.5, 1.0]])
    """
    dim = points.shape[1]
    shares = weights / jnp.sum(weights)
    shrinkage = dim / ((1 / jnp.sum(shares**2) if count is None else count) + dim)
    mean = jnp.sum(shares[:, None] * points, axis=0)
    offsets = points - mean[None]
    covariance = jnp.matmul((shares[:, None] * offsets).T, offsets, precision=HIGHEST)
    variances = jnp.diag(jnp.diagonal(covariance))
    return mean, cholesky((1 - shrinkage) * covariance + shrinkage * variances)


def refitted(base: GaussianMixture, population: Population) -> GaussianMixture:
    """The base with the moments of the particles of each of its strata, which started in its components, in turn.

    Args:
        base: of dense factors, one component for each stratum.

    Example:
        >>> base = pid.GaussianMixture(jnp.zeros((1, 2)), jnp.eye(2)[None])
        >>> target = pid.GaussianMixture(jnp.ones((1, 2)), 4 * jnp.eye(2)[None])
        >>> again = refitted(base, pid.tempering.anneal(jax.random.key(0), target, base))
        >>> bool(jnp.all(jnp.abs(again.means - 1) < 0.3)), bool(jnp.all(jnp.abs(again.covariances[0] - 4 * jnp.eye(2)) < 0.6))
        (True, True)
    """
    means, factors = _moments(base.factors, population.samples, population.log_weights, population.num_islands)
    return GaussianMixture.of_factors(means, factors, base.weights)


@partial(jax.jit, static_argnames="num_islands")
def _moments(
    base_factors: Float[Array, "K d d"], samples: Float[Array, "N d"], log_weights: Float[Array, " N"], num_islands: int
) -> tuple[Float[Array, "K d"], Float[Array, "K d d"]]:
    """μ_k and a factor of Σ_k."""
    strata, dim = base_factors.shape[:2]
    shape = num_islands // strata, strata, len(samples) // num_islands
    places = jnp.swapaxes(samples.reshape(*shape, dim), 0, 1).reshape(strata, -1, dim)
    log_weights = jnp.swapaxes(log_weights.reshape(shape), 0, 1).reshape(strata, -1)
    number = places.shape[1]
    shrinkage = dim / (number + dim)

    def of_stratum(factor, places, log_weights):
        weights = jnp.nan_to_num(jax.nn.softmax(log_weights), nan=1 / number)
        mean = weights @ places
        white = jnp.matmul(places - mean[None], inverse_triangular(factor).T, precision=HIGHEST)
        covariance = jnp.matmul((weights[:, None] * white).T, white, precision=HIGHEST)
        round_one = jnp.trace(covariance) / dim * jnp.eye(dim, dtype=covariance.dtype)
        return mean, matmul(factor, cholesky((1 - shrinkage) * covariance + shrinkage * round_one))

    return jax.vmap(of_stratum)(base_factors, places, log_weights)
