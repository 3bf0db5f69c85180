"""What stands in for a bare density: a fitted mixture in few dimensions, if it fits, else the end points of a climb.

The mixture has the better answer where it fits: independent samples, as many as one likes, each weighted by p̃/p̂.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from .._doors.checks import concrete
from ..targets.base import AbstractTarget
from ..targets.density import Density
from ..targets.ends import Ends, no_value
from ..targets.fitting import Fit, fit_surrogate
from ..targets.samples import Samples
from ..targets.surrogate import Surrogate
from ..tempering.reach import Reached, reach

MOST_FITTED = 12
"""The largest dimension in which a mixture is fitted: it wears out beyond."""
LEAST_ESS = 0.93


class StandIn(NamedTuple):
    """The target to sample, and how it was found: by a fit, or by a climb, perhaps after a fit that was no good."""

    target: AbstractTarget
    fit: Fit | None
    reached: Reached | None

    @property
    def num_energy_evaluations(self) -> int:
        return sum(int(part.num_energy_evaluations) for part in (self.fit, self.reached) if part is not None)


def stand_in(
    key: Key[Array, ""], density: Density, num_samples: int, starts: Float[Array, "s d"] | None, progress: bool
) -> StandIn:
    """Found on the host; held fixed under `grad`, but for the weights.

    Raises:
        ValueError: the density is traced by jit or vmap; it is no density, or has no mass that could be found.
    """
    arrays, rest = eqx.partition(density, eqx.is_array)
    fixed = eqx.combine(jax.lax.stop_gradient(arrays), rest)
    check_untraced(jax.random.key_data(key), *jax.tree.leaves(eqx.filter(fixed, eqx.is_array)))
    key_fit, key_climb = jax.random.split(key)
    fit = None
    if density.dim <= MOST_FITTED:
        options = {"dtype": density.shift.dtype, "starts": starts, "progress": progress}
        fit = fit_surrogate(key_fit, fixed.log_density, density.dim, **options)
        check_untraced(fit.log_z)
        if fit.check().ess[fit.num_rounds - 1] >= LEAST_ESS:
            return StandIn(Surrogate(density, fit.mixture), fit, None)
    fitted = None if fit is None else fit.mixture
    reached = reach(key_climb, fixed, num_samples, starts=starts, fitted=fitted, progress=progress)
    population = reached.population
    data, log_z = Samples(population.samples, population.weights), population.log_z
    slopes = jax.vmap(lambda y: no_value(density.log_density(y)))(population.samples)
    weighted = eqx.tree_at(lambda own: own.population.log_weights, reached, population.log_weights + slopes)
    return StandIn(Ends(density, data, log_z), fit, weighted)


def check_untraced(*arrays: Array) -> None:
    """Raise if one of them is traced."""
    if any(concrete(array) is None for array in arrays):
        raise ValueError(
            "a Density cannot be sampled under jit or vmap, nor differentiated in what its function closes over: what stands "
            "in for it is found on the host. Find it first, target = pidjax.sample(key, density).target, and use Problem and "
            "rollout with that; or make log_density an Equinox module, whose arrays grad can follow"
        )


def chosen(
    key: Key[Array, ""], reached: Reached, num_samples: int
) -> tuple[Float[Array, "n d"], Float[Array, " n"], int]:
    """So many of the points, with log-weights, and the number of islands among them.

    The points as they are, if they are as many; else drawn with their weights, in random order: then each weighs Ẑ.
    """
    population = reached.population
    if population.num_samples == num_samples:
        return population.samples, population.log_weights, population.num_islands
    ends = population.resample(key, num_samples)
    return ends, jnp.full(num_samples, population.log_z.value), 1
