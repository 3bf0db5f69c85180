"""Sampling decisions: configurations revealed site by site from a prior, with exact weights.

Independent paths:   log W = log p̃(v) − log p(v)
Populations:         after each step the particles of a population have the weights of γ_t/Πp, with the twisted targets

    γ_t(prefix) = exp( log p̃ of what is revealed + ĝ_t(prefix) ),    γ_n = p̃,

    log w_t = what v adds to log p̃ + ĝ_{t+1}(prefix, v) − ĝ_t(prefix) − log p_t(v | prefix),

and are resampled (systematically) when their effective number falls below half: a twisted particle filter. E[W] = Z for
either, for every prior and every ĝ. The standard errors come from the spread over independent paths or populations.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int, Key

from ..weighted import systematic
from ._log import pick
from .model import UNKNOWN, Pairwise
from .prior import Boltzmann, Prior
from .solution import Solution


def sample(
    key: Key[Array, ""],
    model: Pairwise,
    prior: Prior | None = None,
    *,
    num_samples: int = 4096,
    population: int = 1,
) -> Solution:
    """Weighted configurations of a pairwise model.

    Args:
        key: a typed key; path or population i uses fold_in(key, i).
        model: the target.
        prior: by default `Boltzmann`.
        num_samples: of configurations; as many sweeps of local energies are spent.
        population: particles that are resampled together; 1 for independent paths.

    Raises:
        ValueError: counts below 1, a population that does not divide `num_samples`, a prior of other size.

    Example:
        >>> from pidjax.decision import ising_glass
        >>> solution = sample(jax.random.key(0), ising_glass(3), num_samples=2000, population=200)
        >>> bool(abs(solution.log_z - 9.0749608857) < 4 * solution.log_z_error)
        True
    """
    prior = Boltzmann(model) if prior is None else prior
    if num_samples < 1 or population < 1 or num_samples % population:
        raise ValueError(f"num_samples is {num_samples} and population {population}; pass a multiple of it, both >= 1")
    if prior.num_sites != model.num_sites:
        raise ValueError(f"prior reveals {prior.num_sites} sites but the model has {model.num_sites}")
    groups = num_samples // population
    values, log_weights = _sample(key, model, prior, groups, population)
    return Solution(values, log_weights, groups, num_samples)


def reveal(
    key: Key[Array, ""], prior: Prior, num_samples: int
) -> tuple[Int[Array, "num_samples n"], Float[Array, " num_samples"]]:
    """Independent configurations of a prior, and their log p."""

    def path(index):
        def step(carry, inputs):
            values, log_law = carry
            time, uniform = inputs
            law = prior.log_conditional(time, values)
            value = pick(law, uniform)
            return (values.at[prior.order[time]].set(value), log_law + law[value]), None

        dtype = _dtype(prior)
        uniforms = jax.random.uniform(jax.random.fold_in(key, index), (prior.num_sites,), dtype)
        start = jnp.full(prior.num_sites, UNKNOWN), jnp.zeros((), dtype)
        return jax.lax.scan(step, start, (jnp.arange(prior.num_sites), uniforms))[0]

    return jax.vmap(path)(jnp.arange(num_samples))


@eqx.filter_jit
def _sample(key, model: Pairwise, prior: Prior, groups: int, population: int):
    if population == 1:
        values, log_law = reveal(key, prior, groups)
        return values, jax.vmap(model.log_weight)(values) - log_law
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(groups))
    values, log_weights = jax.lax.map(lambda key: _filter(key, model, prior, population), keys)
    return values.reshape(-1, model.num_sites), log_weights.reshape(-1)


def _filter(key, model: Pairwise, prior: Prior, population: int):
    """One population: values, and log W with the population's log Ẑ in it."""

    def step(carry, inputs):
        values, log_weights = carry
        time, key = inputs
        resample_key, key = jax.random.split(key)
        values, log_weights = _resampled(resample_key, values, log_weights)
        uniforms = jax.random.uniform(key, (population,), log_weights.dtype)

        def decide(values, uniform):
            law = prior.log_conditional(time, values)
            value = pick(law, uniform)
            gain = model.local(prior.order[time], values)[value] + prior.green_ratio(time, values)[value]
            return values.at[prior.order[time]].set(value), gain - law[value]

        values, gains = jax.vmap(decide)(values, uniforms)
        return (values, log_weights + gains), None

    keys = jax.random.split(key, prior.num_sites)
    start = jnp.full((population, prior.num_sites), UNKNOWN), jnp.zeros(population, _dtype(prior))
    return jax.lax.scan(step, start, (jnp.arange(prior.num_sites), keys))[0]


def _resampled(key, values, log_weights):
    """The particles, resampled if their effective number is below half; the mean weight is kept."""
    population = log_weights.shape[0]
    log_sum = logsumexp(log_weights)
    weights = jnp.exp(log_weights - jnp.where(jnp.isfinite(log_sum), log_sum, 0))
    low = jnp.isfinite(log_sum) & (jnp.sum(weights**2) * population > 2)
    chosen = jnp.where(low, systematic(key, weights, population), jnp.arange(population))
    mean = log_sum - jnp.log(population).astype(log_weights.dtype)
    return values[chosen], jnp.where(low, mean, log_weights)


def _dtype(prior: Prior):
    return jax.eval_shape(prior.log_conditional, jnp.array(0), jnp.full(prior.num_sites, UNKNOWN)).dtype
