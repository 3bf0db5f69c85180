"""A normalised Gaussian mixture in place of an unnormalised density of unknown place and scale."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from .._linear import HIGHEST, cholesky, inverse_triangular, matmul, transpose
from .energy import Energy
from .gaussians import Gaussians, expectation_maximisation, seed
from .rounds import CHAIN_MOVES, CHAINS, DEFENCE_WIDTH, DRAWS, defended, population_monte_carlo
from .tempered import MOVES, PARTICLES, probe, tempered_particles

LEAST_COMPONENTS, MOST_COMPONENTS = 8, 64
FIRST_ITERATIONS = 20
TRUSTED = 0.1


class Fit(eqx.Module):
    """p̂(x) = Σ_k w_k N(x; m_k, Σ_k) ≈ p̃(x)/Z, and how it was found.

    `log_z` and `ess` (effective sample size over the number of draws) are a history over the rounds, NaN after the
    last one: each is by fresh draws of that round's mixture, and the last is that of the mixture returned. `location`
    and `scale` are the mixture's mean and standard deviations. `converged` says that the rounds ended before their
    limit, or at it, with ess ≥ 0.1; below that not even the standard errors are to be believed. `non_finite` counts
    log-densities of NaN or +∞, which were read as −∞. A component of weight zero is finite, with a valid covariance.
    """

    weights: Float[Array, " k"]
    means: Float[Array, "k d"]
    covariances: Float[Array, "k d d"]
    location: Float[Array, " d"]
    scale: Float[Array, " d"]
    log_z: Float[Array, " rounds"]
    ess: Float[Array, " rounds"]
    num_rounds: Int[Array, ""]
    num_energy_evaluations: Int[Array, ""]
    non_finite: Int[Array, ""]
    converged: Bool[Array, ""]


def fit_surrogate(
    key: PRNGKeyArray,
    log_density: Callable[[Float[Array, " d"]], Float[Array, ""]],
    dim: int,
    *,
    dtype=jnp.float32,
    center: Float[Array, " d"] | None = None,
) -> Fit:
    """The mixture p̂ whose weights p̃/p̂ are even, from values of log p̃ alone.

    1. *Probe*: the scale of what carries mass around `center` (the origin unless given).
    2. *Tempered sequential Monte Carlo*: particles of p̃, hence its place, and coordinates in which they are white.
    3. *Mixture*: D² seeding and expectation maximisation on the particles.
    4. *Population Monte Carlo*: draw from the mixture, weigh, refit, until ESS/N ≥ 0.95 or nothing changes any more.

    `log_density` takes a (d,) vector to a scalar, is called under `vmap`, and may be an Equinox module: its arrays are
    then arguments of the one compiled program, and new values do not compile again. −∞ marks the outside of a bounded
    support. The number of components depends on `dim` only.

    Raises ValueError if `dim` is below 1, if `center` is not a (dim,) vector, or if `log_density` is not scalar.

    Example: `fit = fit_surrogate(jax.random.key(0), lambda x: -0.5 * jnp.sum((x - 7) ** 2), dim=2)`.
    """
    if dim < 1:
        raise ValueError(f"dim is {dim}; pass the positive dimension of the density")
    center = jnp.zeros(dim, dtype) if center is None else jnp.asarray(center, dtype)
    if center.shape != (dim,):
        raise ValueError(f"center has shape {center.shape} but dim is {dim}; pass a ({dim},) vector")
    value = eqx.filter_eval_shape(log_density, center)
    if getattr(value, "shape", None) != ():
        found = getattr(value, "shape", type(value).__name__)
        raise ValueError(f"log_density returns {found} for one ({dim},) vector; return a scalar")
    return _fit(key, log_density, center)


@eqx.filter_jit
def _fit(key: PRNGKeyArray, log_density: Callable, center: Float[Array, " d"]) -> Fit:
    dim, dtype = center.shape[0], center.dtype
    key_probe, key_cloud, key_seed, key_rounds = jr.split(key, 4)
    identity = jnp.eye(dim, dtype=dtype)

    width, probe_invalid = probe(key_probe, Energy(log_density, center, identity))
    energy = Energy(log_density, center, width * identity)
    cloud = tempered_particles(key_cloud, energy)
    shift, factor = place_and_scale(cloud.points)
    energy = energy.within(shift, factor)
    points = matmul(inverse_triangular(factor), cloud.points - shift[:, None])

    mixture = jax.lax.fori_loop(
        0,
        FIRST_ITERATIONS,
        lambda _, mixture: expectation_maximisation(mixture, points, jnp.ones(PARTICLES, dtype)),
        seed(key_seed, points, component_count(dim)),
    )
    population = population_monte_carlo(key_rounds, energy, mixture)

    final = in_coordinates_of(energy, defended(population.mixture))
    covariances = matmul(final.factors, transpose(final.factors))
    refits = population.rounds - 1
    return Fit(
        weights=jnp.exp(final.log_weights),
        means=final.means,
        covariances=covariances,
        location=final.means[-1],
        scale=jnp.sqrt(jnp.diagonal(covariances[-1])) / DEFENCE_WIDTH,
        log_z=population.log_z,
        ess=population.ess,
        num_rounds=population.rounds,
        num_energy_evaluations=PARTICLES * (2 + MOVES * cloud.stages)
        + DRAWS * population.rounds
        + CHAINS * CHAIN_MOVES * refits,
        non_finite=probe_invalid + cloud.invalid + population.invalid,
        converged=population.ess[refits] >= TRUSTED,
    )


def component_count(dim: int) -> int:
    """One component for every parameter's worth of draws in two rounds, between 8 and 64."""
    parameters = 1 + dim + dim * (dim + 1) // 2
    return max(LEAST_COMPONENTS, min(MOST_COMPONENTS, 2 * DRAWS // parameters))


def place_and_scale(points: Float[Array, "d n"]) -> tuple[Float[Array, " d"], Float[Array, "d d"]]:
    """m = ⟨y⟩ and lower triangular L with L Lᵀ = ⟨(y−m)(y−m)ᵀ⟩, or its diagonal where that is singular."""
    mean = jnp.mean(points, axis=1)
    residual = points - mean[:, None]
    covariance = jnp.matmul(residual, residual.T, precision=HIGHEST) / points.shape[1]
    factor = cholesky(covariance)
    diagonal = jnp.diag(jnp.sqrt(jnp.maximum(jnp.diagonal(covariance), jnp.finfo(points.dtype).eps ** 2)))
    return mean, jnp.where(jnp.all(jnp.isfinite(factor)), factor, diagonal)


def in_coordinates_of(energy: Energy, mixture: Gaussians) -> Gaussians:
    """The law of x = shift + scale y for y ~ p̂."""
    return Gaussians(
        mixture.log_weights,
        energy.shift[None] + jnp.matmul(mixture.means, energy.scale.T, precision=HIGHEST),
        jnp.matmul(energy.scale, mixture.factors, precision=HIGHEST),
    )
