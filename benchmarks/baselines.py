"""Samplers by others, each as one function of (key, log_density, dim, center, scale, num_samples).

All are BlackJAX's, and all are told what H-PID has to find out: the target's exact mean and its root mean square
standard deviation. Without it Schrödinger–Föllmer collapses onto one mode.
"""

from typing import NamedTuple

import blackjax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.smc import adaptive_tempered, resampling
from blackjax.vi import schrodinger_follmer as follmer
from jaxtyping import Array, Float


class Draws(NamedTuple):
    """What a sampler hands back: samples (n, d), log-weights (n,) and log Z where it has them, and what it spent."""

    samples: Float[Array, "n d"]
    log_weights: Float[Array, " n"] | None
    log_z: Float[Array, ""] | None
    energy_evaluations: Array | int
    gradient_evaluations: Array | int


def schrodinger_follmer(key, log_density, dim, center, scale, num_samples, *, num_steps=50, num_inner=256, chunk=128):
    """dx = u dt + dW with u = E[z p(x + s z) e^{|x + s z|²/2}] / (s E[p e^{|·|²/2}]), s = √(1 − t), by `num_inner`
    normal draws z a particle and step: BlackJAX's `schrodinger_follmer` on the target of y = (x − center) / scale.

    It has no weights and no estimate of Z. Memory: `chunk` particles at a time (it must divide `num_samples`).
    Source: Huang et al., arXiv 2106.10880, as BlackJAX 1.x has it.
    """

    def unit_log_density(y):
        return log_density(center + scale * y)

    def one_chunk(chunk_key):
        start = follmer.init(jnp.zeros_like(center))
        return follmer.sample(chunk_key, start, unit_log_density, num_steps, num_inner, chunk).position

    unit_samples = jax.lax.map(one_chunk, jax.random.split(key, num_samples // chunk)).reshape(-1, dim)
    spent = unit_samples.shape[0] * num_steps * num_inner
    return Draws(center + scale * unit_samples, None, None, spent, 0)


class _Annealing(NamedTuple):
    key: Array
    state: NamedTuple
    log_z: Array
    step_size: Array
    num_temperatures: Array


def tempered_smc(
    key, log_density, dim, center, scale, num_samples, *, num_moves=4, num_leapfrog=8, target_ess=0.9, acceptance=0.8
):
    """p_λ ∝ N(center, (1.5 scale)² I)^{1−λ} p^λ, λ from 0 to 1 so that each step keeps ESS/N = `target_ess`:
    BlackJAX's adaptive tempered SMC, `num_moves` Hamiltonian moves of `num_leapfrog` steps between temperatures.

    Each particle has its own step size, log-uniform over a factor of 4 around one that is adapted to `acceptance` from
    temperature to temperature. log Z is the sum of the increments; it has no standard error of its own.
    """
    width = 1.5 * scale
    kernel = adaptive_tempered.build_kernel(
        lambda x: jax.scipy.stats.norm.logpdf(x, center, width).sum(),
        lambda x: log_density(x) - jax.scipy.stats.norm.logpdf(x, center, width).sum(),
        blackjax.hmc.build_kernel(),
        blackjax.hmc.init,
        resampling.systematic,
        target_ess,
    )

    def anneal(carry):
        next_key, step_key, size_key = jax.random.split(carry.key, 3)
        spread = jnp.exp(jnp.log(4.0) * (jax.random.uniform(size_key, (num_samples,)) - 0.5))
        moves = {
            "step_size": carry.step_size * spread,
            "inverse_mass_matrix": jnp.ones((1, dim)),
            "num_integration_steps": jnp.full((1,), num_leapfrog),
        }
        state, info = kernel(step_key, carry.state, num_moves, moves)
        faster = jnp.exp(jnp.clip(2.0 * (info.update_info.acceptance_rate.mean() - acceptance), -1.0, 1.0))
        log_z = carry.log_z + info.log_likelihood_increment
        return _Annealing(next_key, state, log_z, carry.step_size * faster, carry.num_temperatures + 1)

    start_key, loop_key = jax.random.split(key)
    particles = center + width * jax.random.normal(start_key, (num_samples, dim))
    state = adaptive_tempered.init(particles)._replace(tempering_param=jnp.zeros(()))
    first = _Annealing(loop_key, state, jnp.zeros(()), jnp.asarray(0.3 * scale), jnp.zeros((), int))
    unfinished = lambda carry: (carry.state.tempering_param < 1.0) & (carry.num_temperatures < 200)  # noqa: E731
    last = jax.lax.while_loop(unfinished, anneal, first)
    gradients = last.num_temperatures * num_samples * (num_moves * num_leapfrog + 1)
    energies = last.num_temperatures * num_samples * 2
    return Draws(last.state.particles, jnp.log(last.state.weights), last.log_z, energies, gradients)


def nuts(
    key,
    log_density,
    dim,
    center,
    scale,
    num_samples,
    *,
    num_gradients,
    num_warmup,
    num_chains=8,
    num_doublings=8,
    block=64,
):
    """Hamiltonian chains that end where they turn back (NUTS), from N(center, scale² I): `num_warmup` transitions in which
    step size and diagonal metric are adapted, then blocks of transitions until `num_gradients` are spent in all.

    `num_samples` of the transitions after the adaptation, evenly spaced in time, all chains together. No weights, no Z.
    """
    start_key, warmup_key, key = jax.random.split(key, 3)
    starts = center + scale * jax.random.normal(start_key, (num_chains, dim))
    states, step_sizes, metrics, spent = _adapted(warmup_key, log_density, starts, num_warmup, num_doublings)
    spent, blocks = int(spent), []
    while not blocks or spent < num_gradients:
        block_key = jax.random.fold_in(key, len(blocks))
        states, positions, steps = _transitions(
            block_key, log_density, states, step_sizes, metrics, block, num_doublings
        )
        spent, blocks = spent + int(steps), [*blocks, np.asarray(positions)]
    positions = np.concatenate(blocks).reshape(-1, dim)
    kept = np.linspace(0, len(positions) - 1, min(num_samples, len(positions))).astype(int)
    return Draws(jnp.asarray(positions[kept]), None, None, 0, spent)


@eqx.filter_jit
def _adapted(key, log_density, starts, num_warmup: int, num_doublings: int):
    """States, step sizes and metrics of the chains, and the gradients that their adaptation took."""
    adaptation = blackjax.window_adaptation(
        blackjax.nuts,
        log_density,
        adaptation_info_fn=lambda state, info, adapted: info.num_integration_steps,
        max_num_doublings=num_doublings,
    )

    def chain(key, start):
        found, steps = adaptation.run(key, start, num_steps=num_warmup)
        return found.state, found.parameters["step_size"], found.parameters["inverse_mass_matrix"], jnp.sum(steps)

    states, step_sizes, metrics, steps = jax.vmap(chain)(jax.random.split(key, len(starts)), starts)
    return states, step_sizes, metrics, jnp.sum(steps)


@eqx.filter_jit
def _transitions(key, log_density, states, step_sizes, metrics, number: int, num_doublings: int):
    """The next states, positions (number, chains, d), and the gradients that they took."""
    kernel = blackjax.nuts.build_kernel()

    def chain(key, state, step_size, metric):
        def transition(state, key):
            state, info = kernel(key, state, log_density, step_size, metric, num_doublings)
            return state, (state.position, info.num_integration_steps)

        return jax.lax.scan(transition, state, jax.random.split(key, number))

    keys = jax.random.split(key, len(step_sizes))
    states, (positions, steps) = jax.vmap(chain, out_axes=(0, 1))(keys, states, step_sizes, metrics)
    return states, positions, jnp.sum(steps)
