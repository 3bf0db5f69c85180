"""What stands in for a bare density: a surrogate p̂ if one is good, else the end points of a climb.

    E_p̂[W]² / E_p̂[W²],      E_p̂[W] / E_p[W],      W = p̃/p̂

A surrogate has the better answer: independent samples, as many as one likes, each weighted by W. In few dimensions it is one
mixture, fitted to the energy, if the first of these is 0.9; else a product of mixtures over blocks of coordinates that look
independent at the end points, if both are a half.

A fit sees the modes that its chains met, and from five dimensions on these are the wider ones. So modes are looked for again,
as they are from places that the user gave, and if the mixture has *overlooked* one of a thousandth of the mass,

    log p̂(m_k)  <  log p̃(m_k) − log Z − 3,         Z = max(Ẑ, Σ_j M_j),

there is a climb from them in its place. Else their Gaussians, by mass, stand in where their weights are the more even.
"""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Bool, Float, Key

from .._doors.checks import concrete
from .._maths.estimates import Estimate, effective_size, living, log_evidence
from .._maths.outcomes import SamplingError
from ..targets.base import AbstractTarget
from ..targets.density import Density
from ..targets.ends import Ends, no_value
from ..targets.fitting import Fit, fit_surrogate
from ..targets.fitting.blocks import FEATURES
from ..targets.fitting.energy import log_ratios
from ..targets.fitting.product import DRAWS, find_product, refined
from ..targets.mixture import GaussianMixture
from ..targets.product import Product
from ..targets.samples import Samples
from ..targets.surrogate import Surrogate
from ..tempering.modes import Modes
from ..tempering.population import Population
from ..tempering.reach import reach
from ..tempering.reached import Reached
from ..tempering.search import locate

MOST_FITTED = 12
"""The largest dimension in which a mixture is fitted: it wears out beyond."""
FEW = 4
"""The largest dimension in which the chains of a fit meet narrow modes as well."""
LEAST_ESS = 0.9
MOST_BLOCKS = 256
"""The largest dimension in which blocks are looked for."""
LEAST_EACH_WAY = 0.5
_REFITS = 2
_UNLIKELY = 4.0
_LEAST_MASS, _FAR_BELOW = 1e-3, 3.0


class StandIn(NamedTuple):
    """The target to sample, and how it was found: by a fit, or by a climb, perhaps after a fit that was no good.

    Attributes:
        located: modes that a search found, of which the fit had overlooked none.
    """

    target: AbstractTarget
    fit: Fit | None
    reached: Reached | None
    num_energy_evaluations: int = 0
    located: Modes | None = None


def stand_in(
    key: Key[Array, ""],
    density: Density,
    num_samples: int,
    *,
    starts: Float[Array, "s d"] | None,
    may_factorise: bool,
    progress: bool,
) -> StandIn:
    """Found on the host; held fixed under `grad`, but for the weights.

    Args:
        may_factorise: whether the reference keeps coordinates apart, as the laws of a product need.

    Raises:
        ValueError: the density is traced by jit or vmap; it is no density, or has no mass that could be found.
        SamplingError: no particle that climbed has any.
    """
    arrays, rest = eqx.partition(density, eqx.is_array)
    fixed = eqx.combine(jax.lax.stop_gradient(arrays), rest)
    check_untraced(jax.random.key_data(key), *jax.tree.leaves(eqx.filter(fixed, eqx.is_array)))
    check_untraced(fixed.log_density(jnp.zeros(density.dim, density.shift.dtype)))
    key_fit, key_climb, key_product, key_look = jax.random.split(key, 4)
    fit, modes, spent = None, None, 0
    if density.dim <= MOST_FITTED:
        options = {"dtype": density.shift.dtype, "starts": starts, "progress": progress}
        fit = fit_surrogate(key_fit, fixed.log_density, density.dim, **options)
        spent = int(fit.num_energy_evaluations)
        if fit.check().ess[fit.num_rounds - 1] >= LEAST_ESS:
            if density.dim <= FEW and starts is None:
                return StandIn(Surrogate(density, fit.mixture), fit, None, spent)
            key_modes, key_compare = jax.random.split(key_look)
            modes = locate(key_modes, fixed, starts=starts)
            if not jnp.any(are_overlooked(fixed, fit, modes)):
                mixture, more = more_even(key_compare, fixed, fit.mixture, modes)
                return StandIn(Surrogate(density, mixture), fit, None, spent + int(modes.evaluations) + more, modes)
    fitted = None if fit is None else fit.mixture
    options = {"starts": starts, "modes": modes, "fitted": fitted, "progress": progress}
    reached = reach(key_climb, fixed, num_samples, **options)
    population, spent = reached.population, spent + int(reached.num_energy_evaluations)
    if may_factorise and density.dim <= MOST_BLOCKS and reached.modes.has_slopes and not reached.problems():
        product, more = good_product(key_product, fixed, population)
        spent += more
        if product is not None:
            return StandIn(Surrogate(density, product), fit, reached, spent)
    if not jnp.isfinite(population.log_z.value):
        raise SamplingError(*reached.problems())
    data, log_z = Samples(population.samples, population.weights), population.log_z
    slopes = jax.vmap(lambda y: no_value(density.log_density(y)))(living(population.samples, population.weights))
    weighted = eqx.tree_at(lambda own: own.population.log_weights, reached, population.log_weights + slopes)
    return StandIn(Ends(density, data, log_z), fit, weighted, spent)


@eqx.filter_jit
def are_overlooked(density: Density, fit: Fit, modes: Modes) -> Bool[Array, " K"]:
    """Modes of which the fitted mixture has next to nothing."""
    log_z = jnp.maximum(fit.last_log_z.value, logsumexp(modes.log_masses))
    heights = jax.vmap(density.log_density)(modes.points) - log_z
    below = jax.vmap(fit.mixture.log_density)(modes.points) < heights - _FAR_BELOW
    return below & (modes.log_masses > log_z + math.log(_LEAST_MASS))


def more_even(
    key: Key[Array, ""], density: Density, fitted: GaussianMixture, modes: Modes
) -> tuple[GaussianMixture, int]:
    """Of a fitted mixture and the modes' Gaussians, by mass, that of the more even weights, both ways; and evaluations."""
    if modes.num_modes == 0:
        return fitted, 0
    key_draw, key_weigh = jax.random.split(key)
    own, points, weights = weighed(key_draw, density, fitted)
    of_modes = modes.laplace(by_mass=True)
    reverse, forward, _ = each_way(key_weigh, density, of_modes, points, weights)
    return of_modes if min(reverse, forward) > own else fitted, 3 * DRAWS


@eqx.filter_jit
def weighed(
    key: Key[Array, ""], density: Density, mixture: GaussianMixture
) -> tuple[Float[Array, ""], Float[Array, "n d"], Float[Array, " n"]]:
    """ESS/N of W by draws of the mixture, the draws, and their weights, which sum to one."""
    draws = mixture.sample(key, DRAWS)
    log_weights = log_ratios(density, mixture, draws)
    return effective_size(log_weights) / DRAWS, draws, jax.nn.softmax(log_weights)


def good_product(key: Key[Array, ""], density: Density, population: Population) -> tuple[Product | None, int]:
    """The product over blocks of the end points, if one is good both ways and has their log Z; and evaluations spent."""
    key_find, key_weigh, *keys = jax.random.split(key, 2 + _REFITS)
    points, weights = population.samples, population.weights
    if min(len(np.unique(column)) for column in np.asarray(points).T) <= FEATURES:
        return None, 0
    product = find_product(key_find, points, weights, effective_size=population.ess)
    if product is None:
        return None, 0
    for key in keys:
        product = refined(key, density.log_density, product)
    reverse, forward, log_z = each_way(key_weigh, density, product, points, weights)
    apart, error = abs(log_z.value - population.log_z.value), jnp.hypot(*(one[1] for one in (log_z, population.log_z)))
    good = min(reverse, forward) >= LEAST_EACH_WAY and apart <= _UNLIKELY * error
    return product if good else None, _REFITS * DRAWS + 2 * population.num_samples


@eqx.filter_jit
def each_way(
    key: Key[Array, ""],
    density: Density,
    surrogate: GaussianMixture | Product,
    points: Float[Array, "n d"],
    weights: Float[Array, " n"],
) -> tuple[Float[Array, ""], Float[Array, ""], Estimate]:
    """ESS/N of W by draws of the surrogate, E_p̂[W]/E_p[W] by weighted points of p, and log E_p̂[W]."""
    by_draws = log_ratios(density, surrogate, surrogate.sample(key, len(points)))
    log_z = log_evidence(by_draws)
    log_mean = logsumexp(log_ratios(density, surrogate, points), b=weights)
    return effective_size(by_draws) / by_draws.size, jnp.exp(log_z.value - log_mean), log_z


def check_untraced(*arrays: Array) -> None:
    """Raise if one of them is traced."""
    if any(concrete(array) is None for array in arrays):
        raise ValueError(
            "a Density cannot be sampled under jit or vmap, nor differentiated in what its function closes over: what stands "
            "in for it is found on the host. Find it first, target = pidjax.sample(key, density).target, and use Problem and "
            "rollout with that; or make log_density an Equinox module, whose arrays grad can follow"
        )


class Chosen(NamedTuple):
    """End points, their log-weights, and the number of islands among them."""

    places: Float[Array, "n d"]
    log_weights: Float[Array, " n"]
    num_islands: int


def chosen(key: Key[Array, ""], reached: Reached, num_samples: int) -> Chosen:
    """So many of the points.

    As they are, if they are as many; else drawn with their weights, in random order: then each weighs Ẑ.
    """
    population = reached.population
    if population.num_samples == num_samples:
        return Chosen(population.samples, population.log_weights, population.num_islands)
    ends = population.resample(key, num_samples)
    return Chosen(ends, jnp.full(num_samples, population.log_z.value), 1)
