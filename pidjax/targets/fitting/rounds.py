"""Population Monte Carlo: a Gaussian mixture refitted to its own weighted draws until the weights are even."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ..._maths.small import HIGHEST
from ..._maths.systematic import systematic
from .defence import defended
from .energy import Energy
from .gaussians import Gaussians, expectation_maximisation

ROUNDS = 64
DRAWS = 8192
TAIL_DRAWS = 1638
MOVED = 2048
CHAIN_MOVES = 8
SMALLEST_STEP = 0.1
ITERATIONS = 5
HEAVY = 4.0

EVEN = 0.95
WINDOW = 8
STILL_LOG_Z = 0.01
STILL_ESS = 0.02
HOPELESS = 0.01


class Batch(eqx.Module):
    """Points to fit, as columns, and how many observations each stands for."""

    points: Float[Array, "d n"]
    counts: Float[Array, " n"]


class Draws(eqx.Module):
    """Fresh draws y ~ q = 0.8 p̂ + 0.2 τ with log p' and log p'/q; log Z and ESS/N are those of the draws of p̂ alone.

    `forward_ess` is 1/E_p[p/p̂], the same number in the limit, but by all draws: it sees what p̂ stops short of.
    """

    points: Float[Array, "d n"]
    values: Float[Array, " n"]
    log_weights: Float[Array, " n"]
    log_z: Float[Array, ""]
    ess: Float[Array, ""]
    forward_ess: Float[Array, ""]
    invalid: Int[Array, ""]


class Population(eqx.Module):
    """The mixture, the batch it was last fitted to, and the history of log Z and ESS/N (NaN after the last round).

    `invalid` counts all rounds, `last_invalid` the draws of the last one.
    """

    mixture: Gaussians
    batch: Batch
    log_z: Float[Array, " rounds"]
    ess: Float[Array, " rounds"]
    rounds: Int[Array, ""]
    invalid: Int[Array, ""]
    last_invalid: Int[Array, ""]
    stop: Bool[Array, ""]


def first_population(mixture: Gaussians) -> Population:
    """Before the first round."""
    dim, dtype = mixture.means.shape[1], mixture.means.dtype
    number = DRAWS + MOVED
    history = jnp.full((ROUNDS,), jnp.nan, dtype)
    nothing = Batch(jnp.zeros((dim, number), dtype), jnp.zeros((number,), dtype))
    zero = jnp.zeros((), int)
    return Population(mixture, nothing, history, history, zero, zero, zero, jnp.zeros((), bool))


def population_monte_carlo(
    key: PRNGKeyArray, energy: Energy, population: Population, until: Int[Array, ""]
) -> Population:
    """Rounds of: draw from p̂, weigh by p'/p̂, stop if the weights are even or stand still, else refit; no more than `until`.

    So the numbers of the last round are those of the mixture returned, by draws that it was not fitted to. Each refit
    is warm (five steps of expectation maximisation) and sees this batch and the one before.

    Source: Cappé, Douc, Guillin, Marin and Robert, *Statistics and Computing* 18 (2008).
    """

    def play(population: Population) -> Population:
        key_draw, key_refit = jr.split(jr.fold_in(key, population.rounds))
        draws = weighted_draws(key_draw, energy, defended(population.mixture))
        log_z = population.log_z.at[population.rounds].set(draws.log_z)
        ess = population.ess.at[population.rounds].set(draws.ess)
        rounds = population.rounds + 1
        even = jnp.minimum(draws.ess, draws.forward_ess) >= EVEN
        stop = even | stands_still(log_z, ess, rounds) | (rounds == ROUNDS)
        mixture, batch, invalid = jax.lax.cond(
            stop,
            lambda: (population.mixture, population.batch, draws.invalid),
            lambda: refit(key_refit, energy, population, draws),
        )
        invalid = population.invalid + invalid
        return Population(mixture, batch, log_z, ess, rounds, invalid, draws.invalid, stop)

    def goes_on(population: Population):
        return ~population.stop & (population.rounds < until)

    return jax.lax.while_loop(goes_on, play, population)


def weighted_draws(key: PRNGKeyArray, energy: Energy, mixture: Gaussians) -> Draws:
    """y ~ p̂ (6,554 of them) and y ~ τ (1,638); weights p'/(0.8 p̂ + 0.2 τ) for the fit, p'/p̂ for log Z and ESS."""
    tail = jnp.arange(DRAWS) >= DRAWS - TAIL_DRAWS
    points = mixture.draw(key, tail)
    values, invalid = energy(points)
    distances = mixture.squared_distances(points)
    log_body, log_tail = mixture.log_density(distances), mixture.log_tail_density(distances)
    fraction = TAIL_DRAWS / DRAWS
    log_proposal = jnp.logaddexp(jnp.log1p(-fraction) + log_body, jnp.log(fraction) + log_tail)
    log_weights = values - log_proposal
    own = jnp.where(tail, -jnp.inf, values - log_body)
    log_sum, body = jax.nn.logsumexp(own), DRAWS - TAIL_DRAWS
    log_ess = 2 * log_sum - jax.nn.logsumexp(2 * own) - jnp.log(body)
    log_forward_ess = (
        2 * jax.nn.logsumexp(log_weights) - jax.nn.logsumexp(log_weights + values - log_body) - jnp.log(DRAWS)
    )
    ess, forward_ess = jnp.nan_to_num(jnp.exp(jnp.stack([log_ess, log_forward_ess])))
    return Draws(points, values, log_weights, log_sum - jnp.log(body), ess, forward_ess, invalid)


def refit(
    key: PRNGKeyArray, energy: Energy, population: Population, draws: Draws
) -> tuple[Gaussians, Batch, Int[Array, ""]]:
    """Warm expectation maximisation on the draws, their moved copies, and the batch before.

    For the fit, and for it only, no weight counts for more than √N mean weights. The draws stand together for their
    effective sample size, each moved copy for one observation.
    """
    key_move, key_birth = jr.split(key)
    log_weights = jnp.minimum(draws.log_weights, jax.nn.logsumexp(draws.log_weights) - 0.5 * jnp.log(DRAWS))
    weights = jnp.nan_to_num(jax.nn.softmax(log_weights))
    counts = weights / jnp.maximum(jnp.sum(weights**2), jnp.finfo(weights.dtype).tiny)
    moved, invalid = moved_draws(key_move, energy, population.mixture, draws, log_weights)
    batch = Batch(
        jnp.concatenate([draws.points, moved], axis=1), jnp.concatenate([counts, jnp.ones(MOVED, counts.dtype)])
    )
    points = jnp.concatenate([population.batch.points, batch.points], axis=1)
    counts = jnp.concatenate([population.batch.counts, batch.counts])
    mixture = jax.lax.fori_loop(
        0,
        ITERATIONS,
        lambda _, mixture: expectation_maximisation(mixture, points, counts),
        reborn(key_birth, population.mixture, draws.points, weights),
    )
    return mixture, batch, draws.invalid + invalid


def moved_draws(
    key: PRNGKeyArray, energy: Energy, mixture: Gaussians, draws: Draws, log_weights: Float[Array, " n"]
) -> tuple[Float[Array, "d chains"], Int[Array, ""]]:
    """Draws resampled by weight, then moved by Metropolis steps y' = y + γ L_k z: where p' goes on, p̂ follows.

    L_k belongs to the component that is likeliest at the start of the chain and stays with it, so that the step is
    symmetric; γ is log-uniform up to 2.38/√d. Weights alone see only what p̂ already covers: a funnel's neck would
    grow by one lucky draw a round.
    """
    dim, dtype = draws.points.shape[0], draws.points.dtype
    key_resample, key_moves = jr.split(key)
    parents = systematic(key_resample, jax.nn.softmax(log_weights), MOVED)
    points, values = draws.points[:, parents], draws.values[parents]
    factors = mixture.factors[jnp.argmax(mixture.log_joint(mixture.squared_distances(points)), axis=0)]

    def move(state, key):
        points, values, invalid = state
        key_noise, key_uniform = jr.split(key)
        uniform_step, uniform_accept = jr.uniform(key_uniform, (2, MOVED), dtype)
        steps = 2.38 / dim**0.5 * SMALLEST_STEP**uniform_step
        noise = jr.normal(key_noise, points.shape, dtype)
        proposed = points + steps[None] * jnp.einsum("nij,jn->in", factors, noise, precision=HIGHEST)
        proposed_values, proposed_invalid = energy(proposed)
        accepted = jnp.log(uniform_accept) < proposed_values - values
        points = jnp.where(accepted[None], proposed, points)
        return (points, jnp.where(accepted, proposed_values, values), invalid + proposed_invalid), None

    start = (points, values, jnp.zeros_like(draws.invalid))
    (points, _, invalid), _ = jax.lax.scan(move, start, jr.split(key_moves, CHAIN_MOVES))
    return points, invalid


def reborn(
    key: PRNGKeyArray, mixture: Gaussians, points: Float[Array, "d n"], weights: Float[Array, " n"]
) -> Gaussians:
    """Components of fewer than d + 1 observations move to heavy points (weight above four means), if there are any.

    They start with the covariance of the component that is likeliest there, and with d + 1 observations.
    """
    dim, number = points.shape
    heavy = jnp.where(weights * number > HEAVY, weights, 0.0)
    few = jnp.log((dim + 1) / number)
    dead = (mixture.log_weights < few) & (jnp.sum(heavy) > 0)
    places = points[:, jr.categorical(key, jnp.log(heavy), shape=dead.shape)]
    parents = jnp.argmax(mixture.log_joint(mixture.squared_distances(places)), axis=0)
    log_weights = jnp.where(dead, few, mixture.log_weights)
    return Gaussians(
        jax.nn.log_softmax(log_weights),
        jnp.where(dead[:, None], places.T, mixture.means),
        jnp.where(dead[:, None, None], mixture.factors[parents], mixture.factors),
    )


def stands_still(
    log_z: Float[Array, " rounds"], ess: Float[Array, " rounds"], rounds: Int[Array, ""]
) -> Bool[Array, ""]:
    """Whether the medians over the last eight rounds differ little from those over the eight before, or say that
    hardly any draw counts."""

    def medians(end):
        first = jnp.maximum(end - WINDOW, 0)
        return [jnp.median(jax.lax.dynamic_slice(history, (first,), (WINDOW,))) for history in (log_z, ess)]

    (log_z_now, ess_now), (log_z_before, ess_before) = medians(rounds), medians(rounds - WINDOW)
    still = (jnp.abs(log_z_now - log_z_before) < STILL_LOG_Z) & (jnp.abs(ess_now - ess_before) < STILL_ESS)
    return (still | (ess_now < HOPELESS)) & (rounds >= 2 * WINDOW)
