"""Population Monte Carlo: a Gaussian mixture refitted to its own weighted draws until the weights are even."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from pidjax.surrogate.energy import Energy
from pidjax.surrogate.gaussians import Gaussians, expectation_maximisation, seed
from pidjax.surrogate.tempered import MOVES, PARTICLES, probe, tempered_particles

HIGHEST = jax.lax.Precision.HIGHEST

COMPONENTS = 64
FIRST_ITERATIONS = 20
ROUNDS = 64
ROUND_DRAWS = 8192
TAIL_DRAWS = 1638
ROUND_ITERATIONS = 5
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
    log_weights: Float[Array, " n"]
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
        key_draw, key_birth = jr.split(jr.fold_in(key_rounds, state.round))
        points, log_weights, log_z, ess, invalid = weighted_draws(key_draw, energy, defended(state.mixture))
        log_zs, esses = state.log_z.at[state.round].set(log_z), state.ess.at[state.round].set(ess)
        stop = (ess >= EVEN) | stands_still(log_zs, esses, state.round + 1) | (state.round + 1 == ROUNDS)
        all_points = jnp.concatenate([state.points, points], axis=1)
        all_log_weights = jnp.concatenate([state.log_weights, log_weights])
        counts = fitting_counts(all_log_weights)

        def refit(mixture):
            mixture = reborn(key_birth, mixture, all_points, counts)
            return jax.lax.fori_loop(
                0, ROUND_ITERATIONS, lambda _, m: expectation_maximisation(m, all_points, counts), mixture
            )

        mixture = jax.lax.cond(stop, lambda m: m, refit, state.mixture)
        return _State(mixture, points, log_weights, log_zs, esses, state.round + 1, state.invalid + invalid, stop)

    blank = jnp.full((ROUNDS,), jnp.nan, dtype)
    state = _State(
        mixture,
        jnp.zeros((dim, ROUND_DRAWS), dtype),
        jnp.full((ROUND_DRAWS,), -jnp.inf, dtype),
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
    calls = PARTICLES * (2 + MOVES * cloud.stages) + ROUND_DRAWS * state.round
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


def fitting_counts(log_weights):
    n = log_weights.shape[0]
    live = jnp.sum(log_weights > -jnp.inf)
    w = jnp.nan_to_num(jax.nn.softmax(log_weights)) * n
    w = jnp.minimum(w, jnp.sqrt(n))
    return w * jnp.sum(w) / jnp.maximum(jnp.sum(w**2), 1e-30)


def reborn(key, mixture, points, counts):
    """Components of fewer than d + 1 observations move to heavy points."""
    dim = points.shape[0]
    total = jnp.sum(counts)
    dead = jnp.exp(mixture.log_weights) * total < dim + 1
    mean = total / jnp.maximum(jnp.sum(counts > 0), 1)
    heavy = jnp.where(counts > 4 * mean, counts, 0.0)
    chosen = jr.categorical(key, jnp.log(heavy), shape=dead.shape)
    dead = dead & (jnp.sum(heavy) > 0)
    parents = jnp.argmax(mixture.log_joint(mixture.squared_distances(points[:, chosen])), axis=0)
    log_weights = jnp.where(dead, jnp.log((dim + 1) / total), mixture.log_weights)
    return Gaussians(
        log_weights - jax.nn.logsumexp(log_weights),
        jnp.where(dead[:, None], points[:, chosen].T, mixture.means),
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
