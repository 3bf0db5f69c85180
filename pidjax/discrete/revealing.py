"""Sampling decisions: configurations revealed site by site from a prior, with exact weights.

Independent paths:   log W = log p̃(v) − log p(v)
Populations:         after each step the particles of a population have the weights of γ_t/Πp, with the twisted targets

    γ_t(prefix) = exp( log p̃ of what is revealed + ĝ_t(prefix) ),    γ_n = p̃,

    log w_t = what v adds to log p̃ + ĝ_{t+1}(prefix, v) − ĝ_t(prefix) − log p_t(v | prefix),

and are resampled (systematically) when their effective number falls below half: a twisted particle filter. What the ĝ of a
particle have added up to is taken off at the end, so that γ_n = p̃ also if ĝ_n is not 0. E[W] = Z for either, for every ĝ and
every prior that gives each value a positive probability; decisions at which it does not are counted. The standard errors
come from the spread over independent paths or populations.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int, Key

from .._doors.checks import check_count, check_key
from .._maths.estimates import effective_size, log_evidence
from .._maths.logs import pick
from .._maths.systematic import systematic
from .model import UNKNOWN, Pairwise
from .prior import AbstractPrior, Boltzmann, check_prior, law_of
from .solution import Solution


def sample(
    key: Key[Array, ""],
    target: Pairwise,
    prior: AbstractPrior | None = None,
    *,
    num_samples: int = 4096,
    population: int = 1,
) -> Solution:
    """Weighted configurations of a pairwise model.

    Args:
        key: a typed key; path or population i uses fold_in(key, i).
        target: a pairwise model.
        prior: by default `Boltzmann`.
        num_samples: of configurations; as many sweeps of local energies are spent.
        population: particles that are resampled together; 1 for independent paths.

    Raises:
        ValueError: counts below 1, a population that does not divide `num_samples`, a prior of other sites or values, or
            one that gives a value no probability. What shows only on the way, `Solution.check` tells.

    Example:
        >>> from pidjax.discrete import ising_glass
        >>> solution = sample(jax.random.key(0), ising_glass(3), num_samples=2000, population=200)
        >>> bool(abs(solution.log_z.value - 9.0749608857) < 4 * solution.log_z.standard_error)
        True
    """
    check_key("key", key)
    prior = Boltzmann(target) if prior is None else prior
    check_prior(target, prior)
    num_samples, population = check_count("num_samples", num_samples), check_count("population", population)
    if num_samples % population:
        raise ValueError(f"num_samples is {num_samples} and population {population}; pass a multiple of the population")
    islands = num_samples // population
    values, log_weights, num_faulty_laws = _sample(key, target, prior, islands, population)
    return Solution(values, log_weights, islands, num_samples, num_faulty_laws=num_faulty_laws)


def reveal(
    key: Key[Array, ""], prior: AbstractPrior, num_samples: int
) -> tuple[Int[Array, "num_samples n"], Float[Array, " num_samples"]]:
    """Independent configurations of a prior, and their log p.

    Raises:
        ValueError: a count below 1, an untyped key.
    """
    check_key("key", key)
    return _revealed(key, prior, check_count("num_samples", num_samples))[:2]


@eqx.filter_jit
def _revealed(key, prior: AbstractPrior, num_samples: int):
    """Configurations, their log p, and how many laws on the way were faulty."""
    dtype = law_of(prior).dtype

    def path(index):
        def step(carry, inputs):
            values, log_law, num_faulty = carry
            time, uniform = inputs
            law = prior.log_conditional(time, values)
            value = pick(law, uniform)
            return (
                values.at[prior.order[time]].set(value),
                log_law + law[value],
                num_faulty + _is_faulty(law).astype(int),
            ), None

        uniforms = jax.random.uniform(jax.random.fold_in(key, index), (prior.num_sites,), dtype)
        start = jnp.full(prior.num_sites, UNKNOWN), jnp.zeros((), dtype), jnp.zeros((), int)
        return jax.lax.scan(step, start, (jnp.arange(prior.num_sites), uniforms))[0]

    return jax.vmap(path)(jnp.arange(num_samples))


def _is_faulty(log_law: Float[Array, " q"]) -> Array:
    """Whether a value has no probability, or they do not sum to one."""
    return ~(jnp.all(log_law > -jnp.inf) & (jnp.abs(logsumexp(log_law)) < 1e-3))


@eqx.filter_jit
def _sample(key, target: Pairwise, prior: AbstractPrior, islands: int, population: int):
    if population == 1:
        values, log_law, num_faulty = _revealed(key, prior, islands)
        return values, jax.vmap(target.log_density)(values) - log_law, jnp.sum(num_faulty)
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(islands))
    values, log_weights, num_faulty = jax.lax.map(lambda key: _filter(key, target, prior, population), keys)
    return values.reshape(-1, target.num_sites), log_weights.reshape(-1), jnp.sum(num_faulty)


def _filter(key, target: Pairwise, prior: AbstractPrior, population: int):
    """One population: values, log W with the population's log Ẑ in it, and how many laws were faulty."""

    def step(carry, inputs):
        values, estimates, log_weights, num_faulty = carry
        time, key = inputs
        resample_key, key = jax.random.split(key)
        chosen, log_weights = _resampled(resample_key, log_weights)
        values, estimates = values[chosen], estimates[chosen]
        uniforms = jax.random.uniform(key, (population,), log_weights.dtype)

        def decide(values, uniform):
            law = prior.log_conditional(time, values)
            value = pick(law, uniform)
            increment = prior.value_increments(time, values)[value]
            gain = target.local(prior.order[time], values)[value] + increment - law[value]
            return values.at[prior.order[time]].set(value), increment, gain, _is_faulty(law)

        values, added, gains, faulty = jax.vmap(decide)(values, uniforms)
        return (values, estimates + added, log_weights + gains, num_faulty + jnp.sum(faulty)), None

    keys = jax.random.split(key, prior.num_sites)
    zeros = jnp.zeros(population, jnp.result_type(law_of(prior).dtype, target.dtype))
    start = jnp.full((population, prior.num_sites), UNKNOWN), zeros, zeros, jnp.zeros((), int)
    values, estimates, log_weights, num_faulty = jax.lax.scan(step, start, (jnp.arange(prior.num_sites), keys))[0]
    return values, log_weights - estimates, num_faulty


def _resampled(key, log_weights):
    """Which particles go on, resampled if their effective number is below half, and with what weights: the mean is kept."""
    population = log_weights.shape[0]
    low = effective_size(log_weights) < population / 2
    chosen = jnp.where(low, systematic(key, jax.nn.softmax(log_weights), population), jnp.arange(population))
    return chosen, jnp.where(low, log_evidence(log_weights).value, log_weights)
