"""Exact laws and costs of mixtures and data sets: closed forms and quadrature, no simulation.

marginal, marginals, score     the law of x_t and its score
costs, potential_cost          the optimal cost and its parts
quadratic_cost, guide_cost     any quadratic running cost
correlation, weighted_state_correlation, transition_time     how x_t and x̂_t come to resemble the end point
snr, time_at_snr                the clock of generation, and its inverse
spectrum, speciation_snr, collapse_snr, two_gaussians     where class and datum are decided, by theory
expectation, entropy, lattice, sobol     quadrature under a mixture

Everything is deterministic, and differentiable in the protocol and in the target.
"""

from ..targets.quadrature import Nodes, default_nodes, entropy, expectation, lattice, sobol
from .clock import snr, time_at_snr
from .correlation import correlation, transition_time, weighted_state_correlation
from .cost import Costs, costs, guide_cost, potential_cost, quadratic_cost
from .law import marginal, marginals, score
from .transitions import collapse_snr, speciation_snr, spectrum, two_gaussians

__all__ = [
    "Costs", "Nodes", "collapse_snr", "correlation", "costs", "default_nodes", "entropy", "expectation",
    "guide_cost", "lattice", "marginal", "marginals", "potential_cost", "quadratic_cost", "score", "snr", "sobol",
    "speciation_snr", "spectrum", "time_at_snr", "transition_time", "two_gaussians", "weighted_state_correlation",
]  # fmt: skip
