"""A climb in the coordinates in which its base is white: one Gaussian, whose factor is the metric of the moves too.

    y = μ + L z:     p̂'(z) = N(0, I),     log p̃'(z) = log p̃(μ + L z) + log det L,     ∇_y log p̃ = L⁻ᵀ ∇_z log p̃'

It is the same climb, without the products with L⁻¹, L and their transposes that base and metric take at each step.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._doors.checks import concrete
from .._maths.maps import log_volume
from .._maths.small import inverse_triangular, lower_matvec
from ..targets.base import WithDensity
from ..targets.mixture import GaussianMixture
from .ladder import Ascent
from .metric import Metric
from .moves import AbstractMoves, Hamiltonian
from .path import Base, Path
from .schedule import Schedule


class Whitened(WithDensity):
    """p̃'."""

    target: WithDensity
    mean: Float[Array, " d"]
    factor: Float[Array, "d d"]

    def log_density(self, y):
        return self.target.log_density(self.mean + lower_matvec(self.factor, y)) + log_volume(self.factor, y.size)


def is_white(base: GaussianMixture, moves: AbstractMoves) -> bool:
    """Whether base and moves are known to have one dense factor in common, and there are no jumps of one coordinate.

    Example:
        >>> base = pid.GaussianMixture(jnp.zeros((1, 2)), jnp.eye(2)[None])
        >>> is_white(base, pid.tempering.Hamiltonian(1, 0, base.factors)), is_white(base, pid.tempering.Hamiltonian(1, 0))
        (True, False)
    """
    if not isinstance(moves, Hamiltonian) or moves.num_jumps or moves.metric is None or base.factors.ndim < 3:
        return False
    factors, metric = concrete(base.factors), concrete(moves.metric)
    return factors is not None and metric is not None and len(factors) == 1 and np.array_equal(factors, metric)


def whitened(target: WithDensity, base: GaussianMixture, moves: AbstractMoves) -> tuple[Path, AbstractMoves]:
    """The path in these coordinates, and the moves."""
    one = jnp.ones_like(base.weights)
    standard = GaussianMixture.of_factors(jnp.zeros_like(base.means), one, one)
    path = Path(Whitened(target, base.means[0], base.factors[0]), Base.of(standard))
    return path, dataclasses.replace(moves, metric=one)


def restored(ascent: Ascent, base: GaussianMixture, moves: AbstractMoves) -> Ascent:
    """What was climbed there, in the coordinates y."""
    climber, slopes = ascent.climber, ascent.slopes
    places = base.means + Metric(base.factors, 1).forward(climber.places)
    if slopes is not None:
        slopes = Metric(inverse_triangular(base.factors), 1).adjoint(slopes)
    schedule = Schedule(moves, ascent.schedule.rungs)
    return ascent._replace(climber=climber._replace(places=places), slopes=slopes, schedule=schedule)
