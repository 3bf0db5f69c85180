"""Decision Flow: the discrete twin. From a prior Markov process and an energy to the decisions whose end has the law e^{−E}/Z.

    Dense, Sparse, solve, solve_control     a finite Markov chain, its Green function, optimal transitions and costs
    ising, potts, Pairwise                  models on a Graph: lattice, complete, random_regular
    exact                                   log Z, moments, independent samples: Enumeration, Transfer, Elimination
    Guide, total, augmented                 conditioning and tilting by what happens on the way
    sample                                  configurations from an autoregressive prior with exact weights; populations
    fit                                     Green functions fitted to paths: Table, Features; the published Empirical
    Neural, train                           an autoregressive network, by trajectory balance and others
    run                                     Metropolis, Gibbs, SwendsenWang

    >>> import jax
    >>> model = ising_glass(6)
    >>> prior = fit(jax.random.key(0), model, Features(model))
    >>> solution = sample(jax.random.key(1), model, prior).check()
    >>> bool(abs(solution.log_z.value - exact(model).log_z) < 4 * solution.log_z.standard_error)
    True

Source: Chertkov, Ahn & Behjoo, *Sampling Decisions*, arXiv 2503.14549.
"""

from .beliefs import Cavity, belief_propagation, mean_field
from .chain import Dense, Sparse, log_backward, log_forward, log_green
from .desirability import solve, solve_control
from .elimination import Elimination, exact
from .empirical import Empirical
from .enumeration import Enumeration
from .errors import exact_moments, moment_errors, moments
from .fitted import Features, Table, fit
from .graph import Graph, complete, lattice, random_regular
from .guide import Guide, augmented, total
from .markov import Gibbs, Metropolis, SwendsenWang, autocorrelation_time, run
from .model import Pairwise, ising, ising_glass, ising_grid, potts, sherrington_kirkpatrick
from .neural import Neural, log_variance, reverse_kl, train, trajectory_balance
from .prior import (
    AbstractPrior,
    AbstractValueEstimate,
    Autoregressive,
    Boltzmann,
    Corrected,
    Product,
    Uniform,
    log_probability,
)
from .revealing import reveal, sample
from .solution import Solution
from .transfer import Transfer

__all__ = [
    "AbstractPrior", "AbstractValueEstimate", "Autoregressive", "Boltzmann", "Cavity", "Corrected", "Dense",
    "Elimination", "Empirical", "Enumeration", "Features", "Gibbs", "Graph", "Guide", "Metropolis", "Neural",
    "Pairwise", "Product", "Solution", "Sparse", "SwendsenWang", "Table", "Transfer", "Uniform", "augmented",
    "autocorrelation_time", "belief_propagation", "complete", "exact", "exact_moments", "fit", "ising", "ising_glass",
    "ising_grid", "lattice", "log_backward", "log_forward", "log_green", "log_probability", "log_variance",
    "mean_field", "moment_errors", "moments", "potts", "random_regular", "reveal", "reverse_kl", "run", "sample",
    "sherrington_kirkpatrick", "solve", "solve_control", "total", "train", "trajectory_balance",
]  # fmt: skip
