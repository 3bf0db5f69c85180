"""Mass beyond the edge of a population, into which short steps lead.

The neck of a funnel that neither base nor moves entered leaves no trace in weights or gradients, nor do the tips of a bent
ridge. But the points near by are there, and steps much shorter than those of the climb lead in from them. Let c be the 99.8 %
quantile of log p̃/p̂ at the points: where it is larger the base is too thin to tell. A walk y → y' that leaves the target as it
is leaves

    P(log p̃/p̂ (y') > c)  =  P(log p̃/p̂ (y) > c)

if the points are the target's. What the left side is larger by is missing, at least, in units of the mass that was found. Where
the base is thinner elsewhere, as in a wide end of the target, c is of there, and a neck stays hidden. With mean m and
covariance S of the ends y' beyond,

    p̂  ←  (1 − α) p̂ + α N(m, 1.5 S),      α = min(4 P(log p̃/p̂ (y') > c), ½)

is a base from which a climb enters.

Necks show in gradients g whose lengths are very uneven: E|g|⁴/(E|g|²)² is 1 + 2/d for a Gaussian, in its own metric. Tips do
not; but few of the points that come from a base without them are effective.
"""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from .._maths.estimates import Estimate
from ..targets.base import WithDensity
from ..targets.mixture import GaussianMixture
from .bases import shrunk_moments
from .metric import Metric, fisher_factors
from .moves import hamiltonian
from .path import Base, Path
from .population import Population

MOST_EVEN = 4.0
"""How many times a Gaussian's the unevenness is below which no neck is looked for."""
MOST_WIDENED = 5
"""How often a base is widened."""
MOVES = 24
_STEP = 0.12
"""Of d^(−¼), in the Fisher metric: a tenth of what a climb takes."""
_BEYOND = 0.002
_WIDER, _HEAVIER, _MOST = 1.5, 4.0, 0.5


class Edge(NamedTuple):
    """What a walk found.

    Attributes:
        missing: the mass that is missing at least, in units of that found, and its error.
        beyond: the weight of the ends beyond the edge, of all.
        mean, factor: m and L of these ends, L Lᵀ = S with correlations less by d/(count + d).
        gradients: evaluations, for all points together.
    """

    missing: Estimate
    beyond: Float[Array, ""]
    mean: Float[Array, " d"]
    factor: Float[Array, "d d"]
    gradients: Int[Array, ""]

    @property
    def has_place(self) -> bool:
        """Whether the ends beyond are enough for a Gaussian."""
        return bool(jnp.all(jnp.diagonal(self.factor) > 0))

    def widened(self, base: GaussianMixture) -> GaussianMixture:
        """A base of dense factors, with a component for what lies beyond, in place of one without weight.

        Where there is none, of as many more as may be wanted: each other number of components would be compiled anew.
        """
        means, factors, weights = base.means, base.factors, base.weights
        if jnp.all(weights > 0):
            means, factors = (
                jnp.concatenate([stack, stack[:1].repeat(MOST_WIDENED, axis=0)]) for stack in (means, factors)
            )
            weights = jnp.append(weights, jnp.zeros(MOST_WIDENED, weights.dtype))
        spare, weight = jnp.argmin(weights), jnp.minimum(_HEAVIER * self.beyond, _MOST)
        return GaussianMixture.of_factors(
            means.at[spare].set(self.mean),
            factors.at[spare].set(math.sqrt(_WIDER) * self.factor),
            ((1 - weight) * weights).at[spare].set(weight),
        )


@jax.jit
def unevenness(slopes: Float[Array, "N d"]) -> Float[Array, ""]:
    """E|g|⁴/(E|g|²)² in the Fisher metric, in units of a Gaussian's.

    Example:
        >>> slopes = jax.random.normal(jax.random.key(0), (4096, 3))
        >>> even, uneven = unevenness(slopes), unevenness(slopes * jnp.exp(slopes[:, :1]))
        >>> bool(even < 1.1), bool(uneven > 4)
        (True, True)
    """
    squares = jnp.sum(_metric(slopes).adjoint(slopes) ** 2, axis=1)
    return jnp.mean(squares**2) / (jnp.mean(squares) ** 2 * (1 + 2 / slopes.shape[1]))


@eqx.filter_jit
def walk_beyond(key: Key[Array, ""], target: WithDensity, base: GaussianMixture, population: Population) -> Edge:
    """Whether short steps from the points of a population, which has gradients, lead to mass that it lacks.

    Example:
        >>> target = pid.GaussianMixture.isotropic(jnp.zeros((1, 2)), 1.0)
        >>> base = pid.GaussianMixture.isotropic(jnp.zeros((1, 2)), 1.5)
        >>> population = pid.tempering.anneal(jax.random.key(0), target, base, island_size=64)
        >>> missing = walk_beyond(jax.random.key(1), target, base, population).missing
        >>> bool(missing.value < 4 * missing.standard_error)
        True
    """
    dtype = population.samples.dtype
    number, dim = population.samples.shape
    path, weights = Path(target, Base.of(base)), population.weights
    density, step = path.at(jnp.ones((), dtype)), jnp.asarray(_STEP * dim**-0.25, dtype)
    begin, _ = density.place(population.samples, with_slopes=True)
    metric = _metric(begin.known_slopes)

    def move(particles, key):
        particles, report = hamiltonian(jax.random.split(key, number), density, particles, metric, step)
        return particles, report.gradients

    ends, gradients = jax.lax.scan(move, begin, jax.random.split(key, MOVES))
    before, after = (one.log_density - jax.vmap(path.base.log_density)(one.places) for one in (begin, ends))
    order = jnp.argsort(before)
    edge = before[order][jnp.searchsorted(jnp.cumsum(weights[order]), 1 - _BEYOND)]
    gained = (after > edge).astype(dtype) - (before > edge).astype(dtype)
    beyond = jnp.where(after > edge, weights, 0)
    mean, factor = shrunk_moments(ends.places, beyond)
    return Edge(population._mean(gained, weights), jnp.sum(beyond), mean, factor, number * (1 + jnp.sum(gradients)))


def _metric(slopes: Float[Array, "N d"]) -> Metric:
    return Metric(jnp.mean(fisher_factors(slopes), axis=0, keepdims=True), 1)
