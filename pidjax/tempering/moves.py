"""Moves of particles that leave π_λ as it is, whatever the step and the metric.

*Hamiltonian*: velocities v ~ N(0, I), then leapfrog steps of each particle's own length ε' = ε e^{U(−.7, .7)},

    v ← v + ½ε' Fᵀ∇ log π_λ(y),    y ← y + ε' F v,    v ← v + ½ε' Fᵀ∇ log π_λ(y),

and the end is accepted with probability min(1, e^{−ΔH}), H = −log π_λ(y) + ½|v|².

*By differences*: y' = y + γ (a − b), all coordinates or one, a and b drawn from a cloud that the particle is no part of:
symmetric, so accepted with min(1, π_λ(y')/π_λ(y)). No gradients; jumps between modes where the cloud has some in each.

A move whose density is not finite is rejected.

Sources: Neal, *MCMC using Hamiltonian dynamics*, arXiv 1206.1901; ter Braak, *Statistics and Computing* 16 (2006) 239.
"""

import dataclasses
import math
from abc import abstractmethod
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from .._doors.checks import as_floating, check_below, check_count
from .._doors.show import shown
from .metric import Metric, fisher_factors
from .path import Level, Particles
from .schedule import Rung

JITTER = 0.7
TRAJECTORY, MOST_LEAPFROGS = 1.5, 16
ACCEPTANCE = 0.8
LAST_MOVES = 2
"""How many times as many moves at λ = 1."""
PAYING, FEWEST_JUMPS = 2.0, 2
"""Mean squared length of a jump, in units of the Fisher metric, below which only so many are made."""
SHORTEST_DIFFERENCE = 0.02
CLOUD = 512
_CLOUD_NUMBERS = 2**15
"""The most numbers of a cloud."""


class Report(NamedTuple):
    """Of a move, or of several.

    Attributes:
        acceptance: mean probability.
        gradients, energies: evaluations for each particle.
        invalid: log-densities of NaN or +∞.
    """

    acceptance: Float[Array, ""]
    gradients: Int[Array, ""]
    energies: Int[Array, ""]
    invalid: Int[Array, ""]


def num_leapfrogs(step: Float[Array, "..."]) -> Int[Array, "..."]:
    """1.5/ε, from 1 to 16.

    Example:
        >>> num_leapfrogs(jnp.array([0.01, 0.5, 4.0])).tolist()
        [16, 3, 1]
    """
    return jnp.clip(jnp.round(TRAJECTORY / step), 1, MOST_LEAPFROGS).astype(int)


def hamiltonian(
    keys: Key[Array, " N"], density: Level, particles: Particles, metric: Metric, step: Float[Array, ""]
) -> tuple[Particles, Report]:
    """One Hamiltonian move of each particle, which has gradients; particle i uses key i."""
    dtype, dim = particles.places.dtype, particles.places.shape[1]
    least = np.nextafter(np.asarray(-1, dtype), np.asarray(0, dtype))
    symmetric = jax.vmap(lambda key: jax.random.uniform(key, (dim + 2,), dtype, least, 1))(keys)
    velocities, (stretches, choices) = math.sqrt(2) * jax.lax.erf_inv(symmetric[:, :dim]), symmetric[:, dim:].T
    steps, count = step * jnp.exp(JITTER * stretches[:, None]), num_leapfrogs(step)

    def kicked(velocities, slopes, share):
        return velocities + share * steps * metric.adjoint(slopes)

    def leapfrog(_, carry):
        moved, velocities, invalid = carry
        moved, more = density.place(moved.places + steps * metric.forward(velocities), with_slopes=True)
        return moved, kicked(velocities, moved.known_slopes, 1), invalid + more

    begin = particles, kicked(velocities, particles.known_slopes, 0.5), jnp.zeros((), int)
    moved, ends, invalid = jax.lax.fori_loop(0, count, leapfrog, begin)
    ends = kicked(ends, moved.known_slopes, -0.5)
    log_ratio = moved.log_density - particles.log_density + 0.5 * jnp.sum(velocities**2 - ends**2, axis=1)
    chosen, acceptance = metropolis(0.5 * (1 + choices), log_ratio)
    return moved.where(chosen, particles), Report(acceptance, count, jnp.zeros_like(count), invalid)


def by_differences(
    keys: Key[Array, " N"],
    density: Level,
    particles: Particles,
    cloud: Float[Array, "G m d"],
    *,
    only_jumps: bool,
) -> tuple[Particles, Report]:
    """One move of each particle by a difference of two places of its group's cloud; the particles come without gradients.

    Args:
        cloud: for each of G consecutive groups of particles.
        only_jumps: of one coordinate, γ = 1. Otherwise of one or of all with equal probability, and γ = 1 or, three times as
            often, log-uniform from 0.02 to 1.
    """
    groups, size, dim = cloud.shape
    dtype = cloud.dtype

    def propose(key, place, cloud):
        uniforms = jax.random.uniform(key, (4 if only_jumps else 6,), dtype)
        first, second, coordinate = jnp.floor(uniforms[:3] * jnp.array([size, size, dim], dtype)).astype(int)
        moving = jnp.arange(dim) == coordinate
        if only_jumps:
            step = jnp.where(moving, cloud[first, coordinate] - cloud[second, coordinate], 0)
        else:
            thirds = (4 * uniforms[5] - 1) / 3
            length = jnp.where(thirds < 0, 1, SHORTEST_DIFFERENCE**thirds)
            step = jnp.where(moving | (uniforms[4] < 0.5), length * (cloud[first] - cloud[second]), 0)
        return place + step, uniforms[3]

    of_group = jax.vmap(propose, in_axes=(0, 0, None))
    places, uniforms = jax.vmap(of_group)(keys.reshape(groups, -1), particles.places.reshape(groups, -1, dim), cloud)
    moved, invalid = density.place(places.reshape(-1, dim), with_slopes=False)
    log_ratio = moved.log_density - particles.log_density
    chosen, acceptance = metropolis(uniforms.ravel(), log_ratio)
    return moved.where(chosen, particles), Report(acceptance, jnp.zeros((), int), jnp.ones((), int), invalid)


def metropolis(uniforms: Float[Array, " N"], log_ratio: Float[Array, " N"]) -> tuple[Array, Float[Array, ""]]:
    """Which moves are accepted, with min(1, ratio), and the mean probability; a ratio that is not finite is 0.

    Example:
        >>> chosen, acceptance = metropolis(jnp.array([0.2, 0.2]), jnp.log(jnp.array([0.1, 2.0])))
        >>> chosen.tolist(), round(acceptance.item(), 3)
        ([False, True], 0.55)
    """
    probabilities = jnp.exp(jnp.minimum(jnp.where(jnp.isfinite(log_ratio), log_ratio, -jnp.inf), 0))
    return uniforms < probabilities, jnp.mean(probabilities)


class Draws(NamedTuple):
    """The keys of what is drawn at one level: the j-th draw of a particle uses fold_in(its key, 2¹⁶ (t + 1) + j)."""

    keys: Key[Array, " N"]
    level_number: Int[Array, ""]

    def __call__(self, index: Int[Array, ""] | int) -> Key[Array, " N"]:
        number = 2**16 * (self.level_number + 1) + index
        return jax.vmap(lambda key: jax.random.fold_in(key, number))(self.keys)


class AbstractMoves(eqx.Module):
    """What is done at each level; one kind follows gradients, the other does without."""

    with_slopes: ClassVar[bool] = True
    """Whether they follow gradients."""

    @abstractmethod
    def start(self, dim: int, dtype) -> tuple[Float[Array, ""], Int[Array, ""]]:
        """The first step and number of jumps."""

    @abstractmethod
    def rung(
        self, level: Float[Array, ""], particles: Particles, step: Float[Array, ""], num_jumps: Int[Array, ""]
    ) -> Rung:
        """What the moves at a level need, for each half of the particles from the other half."""

    @abstractmethod
    def make(
        self, draws: "Draws", density: Level, particles: Particles, rung: Rung, repeats: int, adapt: bool
    ) -> tuple[Float[Array, "N d"], Float[Array, ""], Int[Array, ""], Report]:
        """The particles' places after all moves of a level, step and number of jumps for the next one, and what it took."""


class Hamiltonian(AbstractMoves):
    """Hamiltonian moves, then jumps of one coordinate.

    Args:
        num_moves: at each level; twice as many at λ = 1.
        num_jumps: at each level, by energies alone; two while they do not pay. 0 for none.
        metric: F_k with F_kF_kᵀ ≈ the covariance, K maps, of shape (K,), (K, d) or (K, d, d): one for each component of the
            base, or one for all. By default the cross-fitted Fisher metric.

    Raises:
        ValueError: counts that are none, a metric of another shape.

    Example:
        >>> Hamiltonian(1, 0)
        Hamiltonian(num_moves=1, num_jumps=0, metric=Fisher)
    """

    num_moves: int = eqx.field(static=True)
    num_jumps: int = eqx.field(static=True)
    metric: Float[Array, "K *map"] | None

    def __init__(self, num_moves: int = 4, num_jumps: int = 32, metric=None):
        self.num_moves = check_count("num_moves", num_moves)
        check_below("num_jumps", num_jumps, math.inf, "an integer >= 0")
        self.num_jumps = int(num_jumps)
        self.metric = None if metric is None else as_floating("metric", metric)
        if self.metric is not None and not 1 <= self.metric.ndim <= 3:
            raise ValueError(f"metric has shape {self.metric.shape}; pass K maps, shape (K,), (K, d) or (K, d, d)")

    def __repr__(self):
        metric = "Fisher" if self.metric is None else self.metric
        return shown("Hamiltonian", num_moves=self.num_moves, num_jumps=self.num_jumps, metric=metric)

    def start(self, dim, dtype):
        return jnp.asarray(1.2 * dim**-0.25, dtype), jnp.asarray(self.num_jumps)

    def rung(self, level, particles, step, num_jumps):
        factors = fisher_factors(particles.known_slopes) if self.metric is None else None
        cloud = other_half(particles.places) if self.num_jumps else None
        return Rung(level, step, num_jumps, factors, cloud)

    def make(self, draws, density, particles, rung, repeats, adapt):
        metric = Metric(rung.known_factors, 1) if self.metric is None else Metric(self.metric, repeats)
        importance = jnp.mean(particles.known_slopes**2, axis=0)
        count = moves_at(rung.level, self.num_moves)

        def move(index, carry):
            particles, step, total = carry
            particles, report = hamiltonian(draws(1 + index), density, particles, metric, step)
            if adapt:
                step = step * jnp.exp(jnp.clip(report.acceptance - ACCEPTANCE, -0.5, 0.5))
            return particles, step, jax.tree.map(jnp.add, total, report)

        particles, step, total = jax.lax.fori_loop(0, count, move, (particles, rung.step, none_yet(rung.step)))
        total = total._replace(acceptance=total.acceptance / count.astype(rung.step.dtype))
        if rung.cloud is None:
            return particles.places, step, rung.num_jumps, total

        def jump(index, carry):
            particles, travelled, total = carry
            after, report = by_differences(
                draws(1 + count + index), density, particles, rung.known_cloud, only_jumps=True
            )
            length = jnp.mean(jnp.sum((after.places - particles.places) ** 2 * importance[None], axis=1))
            return after, travelled + length, jax.tree.map(jnp.add, total, report)

        bare = dataclasses.replace(particles, slopes=None)
        begin = bare, jnp.zeros_like(step), none_yet(step)
        bare, travelled, jumps = jax.lax.fori_loop(0, rung.num_jumps, jump, begin)
        pays = travelled > PAYING * rung.num_jumps.astype(step.dtype)
        num_jumps = jnp.where(pays, self.num_jumps, min(FEWEST_JUMPS, self.num_jumps))
        jumps = jumps._replace(acceptance=jnp.zeros_like(step))
        return bare.places, step, num_jumps.astype(rung.num_jumps.dtype), jax.tree.map(jnp.add, total, jumps)


class Differences(AbstractMoves):
    """Moves by differences of the other particles, for densities without useful gradients.

    Args:
        num_moves: at each level; twice as many at λ = 1.

    Raises:
        ValueError: a count that is none.

    Example:
        >>> Differences(8)
        Differences(num_moves=8)
    """

    num_moves: int = eqx.field(static=True)
    with_slopes: ClassVar[bool] = False

    def __init__(self, num_moves: int = 32):
        self.num_moves = check_count("num_moves", num_moves)

    def __repr__(self):
        return shown("Differences", num_moves=self.num_moves)

    def start(self, dim, dtype):
        return jnp.ones((), dtype), jnp.asarray(0)

    def rung(self, level, particles, step, num_jumps):
        return Rung(level, step, num_jumps, None, other_half(particles.places))

    def make(self, draws, density, particles, rung, repeats, adapt):
        count = moves_at(rung.level, self.num_moves)

        def move(index, carry):
            particles, total = carry
            after, report = by_differences(draws(1 + index), density, particles, rung.known_cloud, only_jumps=False)
            return after, jax.tree.map(jnp.add, total, report)

        particles, total = jax.lax.fori_loop(0, count, move, (particles, none_yet(rung.step)))
        total = total._replace(acceptance=total.acceptance / count.astype(rung.step.dtype))
        return particles.places, rung.step, rung.num_jumps, total


def other_half(places: Float[Array, "N d"]) -> Float[Array, "2 m d"]:
    """For each half of the particles places of the other half, evenly spaced: 512 of them, or what a level has room for."""
    number, dim = places.shape
    size = max(4, min(number // 2, CLOUD, _CLOUD_NUMBERS // dim))
    halves = places.reshape(2, number // 2, dim)[::-1]
    return halves[:, jnp.arange(size) * (number // 2) // size]


def moves_at(level: Float[Array, ""], count: int) -> Int[Array, ""]:
    return jnp.where(level >= 1, LAST_MOVES * count, count)


def none_yet(step: Float[Array, ""]) -> Report:
    zero = jnp.zeros((), int)
    return Report(jnp.zeros_like(step), zero, zero, zero)
