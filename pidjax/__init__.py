"""Sampling by Path Integral Diffusion: from a target to the process that ends on it, without training.

The rooms `diagnostics`, `discrete`, `exact`, `general`, `guides`, `images`, `interop`, `learning`, `metrics`, `plot`,
`supports`, `tempering` and `zoo` are attributes of this package, imported when first asked for.
"""

import importlib

__version__ = "0.1.0"

from ._maths.outcomes import Outcome, SamplingError
from .process.diffusion import variance_exploding, variance_preserving
from .process.green import Green
from .process.grids import at_times, log_snr_grid, uniform_grid
from .process.protocol import GaussianStart, Protocol
from .process.schedule import from_function, harmonic, piecewise
from .sampling.corrected import Corrected
from .sampling.flow import Flow
from .sampling.problem import Problem
from .sampling.resampling import Resampling
from .sampling.rollout import backward_log_weights, rollout
from .sampling.rules import Ancestral, Controlled, Euler, Moment
from .sampling.sample import sample
from .sampling.schrodinger import Bridge, schrodinger_bridge
from .sampling.solution import Solution
from .sampling.terminal import quadratic_terminal_cost, terminal_cost
from .sampling.uturn import uturn
from .storage import load, save
from .targets.density import Density
from .targets.fitting import Fit, fit_kernel, fit_local_gaussians, fit_surrogate
from .targets.hybrid import blend, energy_share
from .targets.local import LocalDraws
from .targets.mixture import GaussianMixture
from .targets.pool import Pool
from .targets.product import Product
from .targets.samples import Samples
from .targets.smoothed import Smoothed
from .targets.surrogate import Surrogate

_ROOMS = (
    "diagnostics",
    "discrete",
    "exact",
    "general",
    "guides",
    "images",
    "interop",
    "learning",
    "metrics",
    "plot",
    "supports",
    "tempering",
    "zoo",
)

__all__ = [
    "Ancestral", "Bridge", "Controlled", "Corrected", "Density", "Euler", "Fit", "Flow", "GaussianMixture", "GaussianStart",
    "Green", "LocalDraws", "Moment", "Outcome", "Pool", "Problem", "Product", "Protocol", "Resampling", "Samples",
    "SamplingError", "Smoothed", "Solution", "Surrogate", "at_times", "backward_log_weights", "blend", "energy_share",
    "fit_kernel", "fit_local_gaussians", "fit_surrogate", "from_function", "harmonic", "load", "log_snr_grid",
    "piecewise", "quadratic_terminal_cost", "rollout", "sample", "save", "schrodinger_bridge", "terminal_cost",
    "uniform_grid", "uturn", "variance_exploding", "variance_preserving",
]  # fmt: skip


def __getattr__(name: str):
    if name in _ROOMS:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *_ROOMS, "__version__"]
