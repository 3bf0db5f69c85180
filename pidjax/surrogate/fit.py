"""Population Monte Carlo: a Gaussian mixture refitted to its own weighted draws until the weights are even."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from pidjax.surrogate.energy import Energy
from pidjax.surrogate.gaussians import Gaussians, expectation_maximisation, seed
from pidjax.surrogate.tempered import MOVES, PARTICLES, probe, systematic, tempered_particles

HIGHEST = jax.lax.Precision.HIGHEST

COMPONENTS = 64
FIRST_ITERATIONS = 20
ROUNDS = 64
ROUND_DRAWS = 8192
TAIL_DRAWS = 1638
ROUND_ITERATIONS = 5
ROUND_MOVES = 8
CHAINS = 2048
EVEN = 0.95
WINDOW = 8
TRUSTED = 0.1
DEFENCE = 0.02
DEFENCE_WIDTH = 2.0


class Fit(eqx.Module):
    """p̂(x) = Σ_k w_k N(x; m_k, Σ_k), a normalised stand-in for p = p̃/Z, and how it was found.

    Components of weight zero are finite and have a valid covariance. `ess` is the effective sample size over the
    number of draws and `log_z` the log-mass, both by fresh draws of the mixture of each round (NaN after the last);
    those of the last round are of the mixture returned. `location` and `scale` are the mixture's mean and standard
    deviations. `converged` says that the weights are even (ess ≥ 0.95), or that the medians of log Z and ess over
    eight rounds stood still with ess ≥ 0.1.
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
    center = jnp.zeros(dim, dtype) if center is None else jnp.asarray(center, dtype)
    if center.shape != (dim,):
        raise ValueError(f"center has shape {center.shape} but dim is {dim}; pass a ({dim},) vector")
    return _fit(key, log_density, center)


class _State(eqx.Module):
    mixture: Gaussians
    points: Float[Array, "d n"]
    counts: Float[Array, " n"]
    log_z: Float[Array, " rounds"]
    ess: Float[Array, " rounds"]
    round: Int[Array, ""]
    invalid: Int[Array, ""]
    stop: Bool[Array, ""]


@eqx.filter_jit
def _fit(key, log_density, center):
    dim, dtype = center.shape[0], center.dtype
    key_probe, key_cloud, key_seed, key_rounds = jr.split(key, 4)
    identity = jnp.eye(dim, dtype=dtype)
    components = component_count(dim)

    width, invalid_probe = probe(key_probe, Energy(log_density, center, identity))
    energy = Energy(log_density, center, width * identity)
    cloud = tempered_particles(key_cloud, energy)

    shift = jnp.mean(cloud.points, axis=1)
    residual = cloud.points - shift[:, None]
    covariance = jnp.matmul(residual, residual.T, precision=HIGHEST) / PARTICLES
    factor = jnp.linalg.cholesky(covariance)
    factor = jnp.where(jnp.all(jnp.isfinite(factor)), factor, jnp.diag(jnp.sqrt(jnp.diag(covariance))))
    energy = energy.within(shift, factor)
    points = jax.scipy.linalg.solve_triangular(factor, residual, lower=True)

    def first(_, mixture):
        return expectation_maximisation(mixture, points, jnp.ones(PARTICLES, dtype))

    mixture = jax.lax.fori_loop(0, FIRST_ITERATIONS, first, seed(key_seed, points, components))

    def round(state):
        key_draw, key_move, key_birth = jr.split(jr.fold_in(key_rounds, state.round), 3)
        proposal = defended(state.mixture)
        draws, log_weights, log_z, ess, invalid = weighted_draws(key_draw, energy, proposal)
        log_zs, esses = state.log_z.at[state.round].set(log_z), state.ess.at[state.round].set(ess)
        stop = (ess >= EVEN) | stands_still(log_zs, esses, state.round + 1) | (state.round + 1 == ROUNDS)

        def refit(_):
            clipped = jnp.minimum(log_weights, jax.nn.logsumexp(log_weights) - 0.5 * jnp.log(ROUND_DRAWS))
            moved, invalid = moved_draws(key_move, energy, proposal, draws, clipped)
            even = jnp.nan_to_num(jax.nn.softmax(clipped))
            points = jnp.concatenate([draws, moved], axis=1)
            counts = jnp.concatenate([even / jnp.sum(even**2), jnp.full((CHAINS,), 1.0, dtype)])
            mixture = reborn(key_birth, state.mixture, draws, clipped)
            all_points = jnp.concatenate([state.points, points], axis=1)
            all_counts = jnp.concatenate([state.counts, counts])
            step = lambda _, m: expectation_maximisation(m, all_points, all_counts)
            return jax.lax.fori_loop(0, ROUND_ITERATIONS, step, mixture), points, counts, invalid

        mixture, points, counts, moved_invalid = jax.lax.cond(
            stop, lambda _: (state.mixture, state.points, state.counts, jnp.zeros((), int)), refit, None
        )
        return _State(
            mixture, points, counts, log_zs, esses, state.round + 1, state.invalid + invalid + moved_invalid, stop
        )

    blank = jnp.full((ROUNDS,), jnp.nan, dtype)
    state = _State(
        mixture,
        jnp.zeros((dim, ROUND_DRAWS + CHAINS), dtype),
        jnp.zeros((ROUND_DRAWS + CHAINS,), dtype),
        blank,
        blank,
        jnp.zeros((), int),
        invalid_probe + cloud.invalid,
        jnp.zeros((), bool),
    )
    state = jax.lax.while_loop(lambda state: ~state.stop, round, state)

    final = defended(state.mixture)
    means = energy.shift + jnp.matmul(final.means, energy.scale.T, precision=HIGHEST)
    factors = jnp.matmul(energy.scale, final.factors, precision=HIGHEST)
    covariances = jnp.matmul(factors, jnp.swapaxes(factors, 1, 2), precision=HIGHEST)
    refits = state.round - 1
    calls = PARTICLES * (2 + MOVES * cloud.stages) + ROUND_DRAWS * state.round
    calls += refits * CHAINS * (1 + ROUND_MOVES)
    location = energy.shift + energy.scale @ final.means[-1]
    return Fit(
        weights=jnp.exp(final.log_weights),
        means=means,
        covariances=covariances,
        location=location,
        scale=jnp.sqrt(jnp.diag(covariances[-1])) / DEFENCE_WIDTH,
        log_z=state.log_z,
        ess=state.ess,
        num_rounds=state.round,
        num_energy_evaluations=calls,
        non_finite=state.invalid,
        converged=state.ess[state.round - 1] >= TRUSTED,
    )


def component_count(dim):
    """As many components as have a draw for each parameter, at least 8 and at most 64."""
    parameters = 1 + dim + dim * (dim + 1) // 2
    return max(8, min(COMPONENTS, 2 * ROUND_DRAWS // parameters))


def weighted_draws(key, energy, mixture):
    key_body, key_tail = jr.split(key)
    body = ROUND_DRAWS - TAIL_DRAWS
    points = jnp.concatenate([mixture.draw(key_body, body), mixture.draw_tail(key_tail, TAIL_DRAWS)], axis=1)
    values, invalid = energy(points)
    distances = mixture.squared_distances(points)
    log_body, log_tail = mixture.log_density(distances), mixture.log_tail_density(distances)
    fraction = TAIL_DRAWS / ROUND_DRAWS
    log_proposal = jnp.logaddexp(jnp.log1p(-fraction) + log_body, jnp.log(fraction) + log_tail)
    log_weights = (values - log_body)[:body]
    log_sum, log_square = jax.nn.logsumexp(log_weights), jax.nn.logsumexp(2 * log_weights)
    ess = jnp.nan_to_num(jnp.exp(2 * log_sum - log_square) / body)
    return points, values - log_proposal, log_sum - jnp.log(body), ess, invalid


def moved_draws(key, energy, mixture, draws, log_weights):
    key_resample, key_moves = jr.split(key)
    parents = systematic(key_resample, log_weights, CHAINS)
    points = draws[:, parents]
    factors = mixture.factors[jnp.argmax(mixture.log_joint(mixture.squared_distances(points)), axis=0)]
    values, invalid = energy(points)

    def move(state, key):
        points, values, invalid = state
        key_noise, key_step, key_accept = jr.split(key, 3)
        noise = jr.normal(key_noise, points.shape, points.dtype)
        step = jnp.exp(jr.uniform(key_step, values.shape, points.dtype, jnp.log(0.1), 0.0)) * 2.38 / jnp.sqrt(1.0 * points.shape[0])
        proposed = points + step * jnp.einsum("nij,jn->in", factors, noise, precision=HIGHEST)
        proposed_values, proposed_invalid = energy(proposed)
        accepted = jnp.log(jr.uniform(key_accept, values.shape, points.dtype)) < proposed_values - values
        points = jnp.where(accepted, proposed, points)
        return (points, jnp.where(accepted, proposed_values, values), invalid + proposed_invalid), None

    (points, _, invalid), _ = jax.lax.scan(move, (points, values, 0 * invalid), jr.split(key_moves, ROUND_MOVES))
    return points, invalid


def reborn(key, mixture, draws, log_weights):
    """Components of fewer than d + 1 observations move to heavy points."""
    dim = draws.shape[0]
    heavy = jnp.where(log_weights > jax.nn.logsumexp(log_weights) - jnp.log(ROUND_DRAWS) + jnp.log(4.0), log_weights, -jnp.inf)
    few = jnp.log((dim + 1) / ROUND_DRAWS)
    dead = (mixture.log_weights < few) & jnp.any(heavy > -jnp.inf)
    chosen = jr.categorical(key, heavy, shape=dead.shape)
    parents = jnp.argmax(mixture.log_joint(mixture.squared_distances(draws[:, chosen])), axis=0)
    log_weights = jnp.where(dead, few, mixture.log_weights)
    return Gaussians(
        log_weights - jax.nn.logsumexp(log_weights),
        jnp.where(dead[:, None], draws[:, chosen].T, mixture.means),
        jnp.where(dead[:, None, None], mixture.factors[parents], mixture.factors),
    )


def defended(mixture):
    weights = jnp.exp(mixture.log_weights)
    mean = weights @ mixture.means
    residual = mixture.means - mean
    spread = jnp.einsum("k,kij,klj->il", weights, mixture.factors, mixture.factors, precision=HIGHEST)
    between = jnp.einsum("k,ki,kj->ij", weights, residual, residual, precision=HIGHEST)
    factor = DEFENCE_WIDTH * jnp.linalg.cholesky(spread + between)
    return Gaussians(
        jnp.append(mixture.log_weights + jnp.log1p(-DEFENCE), jnp.log(DEFENCE)),
        jnp.concatenate([mixture.means, mean[None]]),
        jnp.concatenate([mixture.factors, factor[None]]),
    )


def stands_still(log_z, ess, rounds):
    def median(history, end):
        return jnp.median(jax.lax.dynamic_slice(history, (jnp.maximum(end - WINDOW, 0),), (WINDOW,)))

    settled = jnp.abs(median(log_z, rounds) - median(log_z, rounds - WINDOW)) < 0.01
    settled &= jnp.abs(median(ess, rounds) - median(ess, rounds - WINDOW)) < 0.02
    return settled & (rounds >= 2 * WINDOW)
