"""Each method as one function of (key, model, number): configurations, weights, and energy evaluations spent beforehand.

A method is run once at the largest number; at smaller ones the first so many of the same run count. One evaluation is a
full energy, or a sweep of local ones.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from pidjax import discrete as df

NUM_CHAINS = 10
POPULATION = 100


class Draws(NamedTuple):
    """Configurations (N, n) with log-weights (N,), or None for a chain's; how many stand together; spent beforehand."""

    values: np.ndarray
    log_weights: np.ndarray | None
    spent: int


Method = Callable[[jax.Array, df.Pairwise, int], Draws]


def from_prior(
    prior: Callable[[jax.Array, df.Pairwise], df.AbstractPrior], spent: int = 0, population: int = 1
) -> Method:
    def method(key, model, number):
        fit_key, key = jax.random.split(key)
        solution = df.sample(key, model, prior(fit_key, model), num_samples=number, population=population)
        return Draws(np.asarray(solution.samples), np.asarray(solution.log_weights), spent)

    return method


def exact(key, model, number):
    return Draws(np.asarray(df.exact(model).sample(key, number).samples), np.zeros(number), 0)


def chains(sweep: Callable[[df.Pairwise], df.Gibbs]) -> Method:
    """Ten chains side by side; values in the order of sweeps, so that a prefix is what a shorter run gives."""

    def method(key, model, number):
        values = df.run(key, sweep(model), num_chains=NUM_CHAINS, num_sweeps=number // NUM_CHAINS)
        return Draws(np.asarray(values).swapaxes(0, 1).reshape(number, -1), None, 0)

    return method


def product(_, model):
    return df.Product(df.belief_propagation(model).probabilities, model.graph.order)


def cavity(_, model):
    return df.Corrected(model, df.Cavity(model, df.belief_propagation(model)))


def neural(iterations: int) -> Method:
    def prior(key, model):
        start_key, key = jax.random.split(key)
        return df.train(
            key, model, df.Neural(start_key, df.Boltzmann(model)), num_iterations=iterations, progress=False
        ).parameters.prior

    return from_prior(prior, spent=256 * iterations)


def fitted(kind: Callable[[df.Pairwise], df.AbstractValueEstimate]) -> Method:
    """Two rounds of 1,000 paths, each drawn and backed up once."""
    return from_prior(lambda key, model: df.fit(key, model, kind(model)), spent=4000)


EXACT = "exact"
EMPIRICAL = "empirical, uniform paths"
"""The published algorithm, as many samples as paths: in law resampling of the paths by their weights."""
PRIORS: dict[str, Method] = {
    "uniform": from_prior(lambda _, model: df.Uniform(model)),
    "mean field": from_prior(lambda _, model: df.Product(df.mean_field(model), model.graph.order)),
    "belief propagation": from_prior(product),
    "local Boltzmann": from_prior(lambda _, model: df.Boltzmann(model)),
    "cavity messages": from_prior(cavity),
}
SWEEPS = {"Metropolis": df.Metropolis, "Gibbs": df.Gibbs, "Swendsen–Wang": df.SwendsenWang}
CHAINS: dict[str, Method] = {name: chains(sweep) for name, sweep in SWEEPS.items()}


def methods(model: df.Pairwise, iterations: int) -> dict[str, Method]:
    """All methods that apply to a model."""
    found: dict[str, Method] = {EXACT: exact, EMPIRICAL: PRIORS["uniform"], **PRIORS}
    found["populations, local Boltzmann"] = from_prior(lambda _, m: df.Boltzmann(m), population=POPULATION)
    found["pooled states"] = fitted(lambda m: df.Table(m, window=6))
    found["fitted features"] = fitted(df.Features)
    found["network, trajectory balance"] = neural(iterations)
    for name, chain in CHAINS.items():
        if name != "Swendsen–Wang" or ferromagnetic(model):
            found[name] = chain
    return found


def ferromagnetic(model: df.Pairwise) -> bool:
    return bool((model.couplings[:, 1, 1] >= 0).all())
