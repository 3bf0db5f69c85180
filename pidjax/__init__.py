"""Sampling by Path Integral Diffusion: from a target to the process that ends on it, without training."""

from . import exact, learn
from .control import control, log_psi, weighted_state
from .grid import given, log_snr, uniform
from .kernel import Green
from .protocol import GaussianStart, Protocol
from .rollout import backward_log_weights, prepare, rollout
from .sample import sample
from .schedule import from_function, harmonic, piecewise
from .solution import SamplingError, Solution
from .step import Ancestral, Controlled, Euler, Moment
from .targets.density import Density, Surrogate
from .targets.mixture import GaussianMixture
from .targets.pool import LocalDraws, Pool
from .targets.samples import Samples

__version__ = "0.1.0"

__all__ = [
    "Ancestral", "Controlled", "Density", "Euler", "GaussianMixture", "GaussianStart", "Green", "LocalDraws", "Moment",
    "Pool", "Protocol", "Samples", "SamplingError", "Solution", "Surrogate", "backward_log_weights", "control",
    "exact", "from_function", "given", "harmonic", "learn", "log_psi", "log_snr", "piecewise", "prepare", "rollout",
    "sample", "uniform", "weighted_state",
]  # fmt: skip
