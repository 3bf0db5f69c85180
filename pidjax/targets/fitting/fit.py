"""A normalised Gaussian mixture in place of an unnormalised density of unknown place and scale."""

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float, Int, Key

from ..._doors.checks import as_dtype, as_floating, check_count, check_key, concrete
from ..._doors.functions import check_scalar
from ..._doors.progress import progress_bar
from ..._doors.show import shown
from ..._maths.estimates import Estimate
from ..._maths.once import compiled_once
from ..._maths.small import HIGHEST, cholesky, inverse_triangular, matmul
from ..mixture import GaussianMixture
from .defence import DEFENCE_WIDTH, defended
from .energy import Energy
from .gaussians import Gaussians, expectation_maximisation, seed
from .pilot import DEEPER, DEEPEST, Chains, Sizes, pilot, where_to_look
from .rounds import (
    CHAIN_MOVES,
    DRAWS,
    MOVED,
    ROUNDS,
    TAIL_DRAWS,
    Population,
    first_population,
    population_monte_carlo,
)
from .tempered import MOVES, PARTICLES, tempered_particles

LEAST_COMPONENTS, MOST_COMPONENTS = 8, 64
FIRST_ITERATIONS = 20
TRUSTED = 0.1
MOST_UNRESOLVED = 0.02
FARTHEST = 1e11
"""Scale beyond which a fit that did not settle has run away: the probe looks up to 1e6."""
_ROUNDS_PER_CALL = 8


class Fit(eqx.Module):
    """The mixture p̂ ≈ p̃/Z, and how it was found.

    Attributes:
        mixture: p̂. Components that were left out have weight zero; the last one is the widened Gaussian of them all.
        log_z, ess: log Z and the effective sample size over the number of draws, by fresh draws of each round's mixture; NaN
            after the last round, whose mixture is the one returned.
        num_rounds, num_energy_evaluations: what was spent.
        num_gradient_evaluations: of these evaluations, those with the gradient.
        non_finite: log-densities of NaN or +∞, which were read as −∞, from the farthest scouts on.
        non_finite_near: those of the last round's draws of the mixture and of its heavier twin.
        unresolved: the mass of components that were left out: so near the origin, and so narrow, that the roundings of the
            place y − shift show in them.
        converged: the rounds ended before their limit, or at it, with ess ≥ 0.1; below that not even the standard errors are
            to be believed.
    """

    mixture: GaussianMixture
    log_z: Float[Array, " rounds"]
    ess: Float[Array, " rounds"]
    num_rounds: Int[Array, ""]
    num_energy_evaluations: Int[Array, ""]
    num_gradient_evaluations: Int[Array, ""]
    non_finite: Int[Array, ""]
    non_finite_near: Int[Array, ""]
    unresolved: Float[Array, ""]
    converged: Bool[Array, ""]

    def __repr__(self):
        history = {"log_z": self.log_z, "ess": self.ess}
        if isinstance(self.num_rounds, jax.Array) and self.num_rounds.ndim == 0:
            history = {name: leaf[self.num_rounds - 1] for name, leaf in history.items()}
        facts = {"location": self.location, "scale": self.scale, **history, "num_rounds": self.num_rounds}
        return shown("Fit", components=self.mixture.weights.shape[-1], **facts, converged=self.converged)

    @property
    def last_log_z(self) -> Estimate:
        """log Z by the last round's draws of the mixture itself, n of them, and its error √((1/ess − 1)/n)."""
        last = self.num_rounds - 1
        return Estimate(self.log_z[last], jnp.sqrt(jnp.maximum(1 / self.ess[last] - 1, 0) / (DRAWS - TAIL_DRAWS)))

    @property
    def location(self) -> Float[Array, " d"]:
        """The mixture's mean."""
        return self.mixture.means[..., -1, :]

    @property
    def scale(self) -> Float[Array, " d"]:
        """The mixture's standard deviations."""
        return jnp.linalg.norm(self.mixture.factors[..., -1, :, :], axis=-1) / DEFENCE_WIDTH

    def check(self) -> "Fit":
        """Return self if the mixture can be sampled with.

        Raises:
            ValueError: a log-density that was finite nowhere, does not fall off, or is narrower than its dtype resolves.
        """
        tried, invalid, dtype = int(self.num_energy_evaluations), int(self.non_finite), self.mixture.means.dtype
        if not jnp.isfinite(self.log_z[self.num_rounds - 1]):
            raise ValueError(
                f"log_density was finite at none of the points where the last round looked, {invalid} of {tried} values in all "
                "being NaN or +inf: its support is small, or far from the origin for its size, or it grows outwards (is its "
                "sign right?) or has no finite mass, and the fit ran away. Shift and scale it so that the origin lies within, "
                "or pass starts=... with a place inside; bound it, or add a prior"
            )
        finite = all(jnp.isfinite(part).all() for part in (self.mixture.means, self.mixture.factors))
        if not (finite and (self.converged or jnp.all(self.scale < FARTHEST))):
            raise ValueError(
                f"the surrogate's fit ran away to infinity in {int(self.num_rounds)} rounds: log_density does not fall off, "
                "and has no finite mass. Bound it, or add a prior"
            )
        if float(self.unresolved) > MOST_UNRESOLVED:
            raise ValueError(
                f"components that hold {float(self.unresolved):.0%} of the surrogate's mass are narrower than {dtype} resolves "
                "at their place: log_density has a singularity, or a mode far narrower than its surroundings. Sample another "
                "variable (the logarithm of one that piles up at 0), or in float64"
            )
        flat = jnp.any(jnp.diagonal(self.mixture.factors, axis1=1, axis2=2) <= 0, axis=1)
        if flat.any():
            raise ValueError(
                f"{int(flat.sum())} of the surrogate's components became flat: log_density lies within {dtype}'s resolution of "
                "a set of lower dimension. Take out a coordinate, or use float64"
            )
        return self


def fit_surrogate(
    key: Key[Array, ""],
    log_density: Callable[[Float[Array, " d"]], Float[Array, ""]],
    dim: int,
    *,
    dtype: DTypeLike | None = None,
    centre: Float[Array, " d"] | None = None,
    starts: Float[Array, "s d"] | None = None,
    progress: bool = True,
) -> Fit:
    """The mixture p̂ whose weights p̃/p̂ are even, from log p̃ alone and its slopes, where it has useful ones.

    1. *Probe*: the scale of what carries mass around `centre`.
    2. *Langevin chains* from starts at all scales, a hundredth to a thousand of that one: where else there is mass.
    3. *Tempered sequential Monte Carlo*: particles of p̃, hence its place, and coordinates in which they are white.
    4. *Mixture*: D² seeding and expectation maximisation on the particles and the ends of the chains.
    5. *Population Monte Carlo*: draw from the mixture, weigh, refit, until ESS/N ≥ 0.95 or nothing changes any more.

    A mode is found if a chain starts in its basin, and lost, with nothing here that could tell, if none does: from afar the
    basins belong to the wider modes, the more so the higher the dimension.

    Args:
        key: a typed key.
        log_density: takes a (d,) vector to a scalar. −∞ marks the outside of a bounded support. May be an Equinox module: its
            arrays are then arguments of the compiled programs, and new values do not compile again.
        dim: d ≥ 1; the number of components depends on it only.
        dtype: of the fit; JAX's default if left out.
        centre: where to look first, shape (d,); by default the origin, or, if it has no mass, the best of `starts`.
        starts: places from which Langevin chains start too, eight from each, shape (s, d).
        progress: show a bar, if tqdm is installed, when the rounds take more than two seconds.

    Raises:
        ValueError: an argument of a wrong shape or kind.

    Example:
        >>> fit = fit_surrogate(jax.random.key(0), lambda y: -0.5 * jnp.sum((y - 7) ** 2), 2)
        >>> bool(jnp.all(jnp.abs(fit.location - 7) < 0.2))
        True
    """
    check_key("key", key)
    dim, dtype = check_count("dim", dim), as_dtype(dtype)
    check_scalar("log_density", log_density, jnp.zeros(dim, dtype), where="pass the dim that log_density means")
    starts = as_starts(starts, dim, dtype)
    centre = where_to_look(log_density, starts) if centre is None else as_floating("centre", centre).astype(dtype)
    if centre.shape != (dim,):
        raise ValueError(f"centre has shape {centre.shape} but dim is {dim}; pass a ({dim},) vector")

    key_pilot, key_cloud, key_seed, key_rounds = jax.random.split(key, 4)
    width, chains = pilot(key_pilot, log_density, centre, starts)
    energy, population, spent, invalid = _start(key_cloud, key_seed, Energy(log_density, centre, width), chains)
    is_traced = concrete(population.stop) is None
    with progress_bar(ROUNDS, "fit", "round", progress and not is_traced) as advance:
        for until in [ROUNDS] if is_traced else range(_ROUNDS_PER_CALL, ROUNDS + 1, _ROUNDS_PER_CALL):
            population = _play(key_rounds, energy, population, jnp.asarray(until))
            if concrete(population.stop):
                break
            advance(_ROUNDS_PER_CALL)
    return _finish(energy, population, spent, invalid)


@partial(compiled_once, level=1)
def _start(
    key_cloud: Key[Array, ""], key_seed: Key[Array, ""], energy: Energy, chains: Chains
) -> tuple[Energy, Population, Int[Array, ""], Int[Array, ""]]:
    """The energy where its particles are white, their mixture, evaluations of the energy, and how many were invalid."""
    dim, dtype = energy.shift.shape[0], energy.shift.dtype
    cloud = tempered_particles(key_cloud, energy)
    shift, factor = place_and_scale(cloud.points)
    energy = energy.within(shift, factor)
    found = chains.values > jnp.maximum(jnp.max(chains.values), jnp.max(cloud.values)) - (DEEPEST + DEEPER * dim)
    ends = jnp.where(found[None], chains.points, cloud.points[:, : found.size])
    points = matmul(inverse_triangular(factor), jnp.concatenate([cloud.points, ends], axis=1) - shift[:, None])

    mixture = jax.lax.fori_loop(
        0,
        FIRST_ITERATIONS,
        lambda _, mixture: expectation_maximisation(mixture, points, jnp.ones(PARTICLES + found.size, dtype)),
        seed(key_seed, points, component_count(dim)),
    )
    sizes = Sizes.of(dim)
    spent = PARTICLES * (2 + MOVES * cloud.stages) + sizes.scouts + sizes.gradients
    return energy, first_population(mixture), spent, chains.invalid + cloud.invalid


_play = compiled_once(population_monte_carlo, level=1)


@compiled_once
def _finish(energy: Energy, population: Population, spent: Int[Array, ""], invalid: Int[Array, ""]) -> Fit:
    final = in_coordinates_of(energy.shift, energy.scale, defended(population.mixture))
    widths = jnp.linalg.norm(final.factors, axis=-1)
    cancelled = jnp.abs(energy.shift)[None] - 16 * jnp.abs(final.means)
    resolved = jnp.all(widths > 64 * jnp.finfo(widths.dtype).eps * cancelled, axis=1)
    factors = jnp.where(resolved[:, None, None], final.factors, final.factors[-1:])
    weights = jnp.exp(final.log_weights)
    refits = population.rounds - 1
    return Fit(
        mixture=GaussianMixture.of_factors(final.means, factors, jnp.where(resolved, weights, 0)),
        log_z=population.log_z,
        ess=population.ess,
        num_rounds=population.rounds,
        num_energy_evaluations=spent + DRAWS * population.rounds + MOVED * CHAIN_MOVES * refits,
        num_gradient_evaluations=jnp.asarray(Sizes.of(energy.shift.size).gradients),
        non_finite=invalid + population.invalid,
        non_finite_near=population.last_invalid,
        unresolved=jnp.sum(jnp.where(resolved, 0, weights)),
        converged=population.ess[refits] >= TRUSTED,
    )


def as_starts(starts: Any, dim: int, dtype) -> Float[Array, "s d"]:
    """Places to start from as an array, none of them if None; raise if they are no points of this dimension."""
    points = jnp.zeros((0, dim), dtype) if starts is None else as_floating("starts", starts).astype(dtype)
    if points.ndim != 2 or points.shape[1] != dim:
        raise ValueError(f"starts has shape {points.shape}; pass s points of dimension {dim}, shape (s, {dim})")
    return points


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


def in_coordinates_of(shift: Float[Array, " d"], scale: Float[Array, "d d"], mixture: Gaussians) -> Gaussians:
    """The law of x = shift + scale y for y ~ p̂."""
    return Gaussians(
        mixture.log_weights,
        shift[None] + jnp.matmul(mixture.means, scale.T, precision=HIGHEST),
        jnp.matmul(scale, mixture.factors, precision=HIGHEST),
    )
