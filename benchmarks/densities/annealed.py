"""Annealed importance sampling from Laplace's mixture p̂ of the modes that were found, N particles that never meet:

    log W = Σ_t (λ_t − λ_{t−1}) [log p̃(y_{t−1}) − log p̂(y_{t−1})],      y_0 ~ p̂,      λ_t = t/T,      Z = E[W],

with y_t one Hamiltonian move from y_{t−1} that leaves p̂^{1−λ_t} p̃^{λ_t} as it is. A particle moves in the metric of the
component that it was drawn from. Steps are found by a pilot run, and then held fixed: nothing is adapted where W is made.

Source: Neal, *Annealed importance sampling*, Statistics and Computing 11 (2001) 125.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

import pidjax as pid
from pidjax.tempering.metric import Metric
from pidjax.tempering.moves import ACCEPTANCE, hamiltonian, num_leapfrogs
from pidjax.tempering.path import Base, Path


class Annealed(NamedTuple):
    """Particles of the target.

    Attributes:
        samples, log_weights: y_T and log W.
        steps: the step of each level; the pilot's are the last that were tried there.
        evaluations: of log p̃ with its gradient.
    """

    samples: Float[Array, "N d"]
    log_weights: Float[Array, " N"]
    steps: Float[Array, " T"]
    evaluations: Int[Array, ""]


def pilot(
    key: Key[Array, ""],
    density: pid.Density,
    mixture: pid.GaussianMixture,
    num_particles: int = 64,
    num_levels: int = 32,
) -> Annealed:
    """A short run whose step follows the acceptance from level to level."""
    first = jnp.full(num_levels, 1.2 * density.dim**-0.25, mixture.means.dtype)
    return _rise(key, density, mixture, first, num_particles, True)


def annealed(
    key: Key[Array, ""],
    density: pid.Density,
    mixture: pid.GaussianMixture,
    steps: Float[Array, " T"],
    num_particles: int,
) -> Annealed:
    """A run of T levels with given steps: E[W] = Z."""
    return _rise(key, density, mixture, steps, num_particles, False)


@eqx.filter_jit
def _rise(key, density, mixture, steps, num_particles: int, adapts: bool) -> Annealed:
    key_component, key_noise, key_moves = jax.random.split(key, 3)
    dtype, count = steps.dtype, steps.size
    components = jax.random.categorical(key_component, mixture.log_weights, shape=(num_particles,))
    metric = Metric(mixture.factors[components], 1)
    noise = jax.random.normal(key_noise, (num_particles, density.dim), dtype)
    path = Path(density, Base.of(mixture))

    def climb(carry, level):
        places, log_weights, stretch = carry
        number, planned = level
        rung = path.at((number + 1).astype(dtype) / count)
        reading, _ = path.read(places, True)
        log_weights = log_weights + (reading.log_target - reading.log_base) / count
        step = stretch * planned
        keys = jax.random.split(jax.random.fold_in(key_moves, number), num_particles)
        moved, report = hamiltonian(keys, rung, reading.at(rung.level), metric, step)
        if adapts:
            stretch = stretch * jnp.exp(jnp.clip(2 * (report.acceptance - ACCEPTANCE), -1, 1))
        return (moved.places, log_weights, stretch), step

    begun = mixture.means[components] + metric.forward(noise), jnp.zeros(num_particles, dtype), jnp.ones((), dtype)
    (places, log_weights, _), used = jax.lax.scan(climb, begun, (jnp.arange(count), steps))
    return Annealed(places, log_weights, used, num_particles * jnp.sum(1 + num_leapfrogs(used)))
