"""Sampling by Path Integral Diffusion: from a target to the process that ends on it, without training.

The rooms `decision`, `diagnostics`, `exact`, `learn`, `metrics`, `neural`, `plot`, `surrogate` and `zoo` are attributes of this
package, imported when first asked for.
"""

import importlib

__version__ = "0.1.0"

from .control import control, log_psi, weighted_state
from .grid import given, log_snr, uniform
from .kernel import Green
from .protocol import GaussianStart, Protocol
from .rollout import backward_log_weights, prepare, rollout
from .sample import sample
from .schedule import from_function, harmonic, piecewise
from .solution import SamplingError, Solution
from .step import Ancestral, Controlled, Euler, Moment
from .storage import load, save
from .targets.density import Density, Surrogate
from .targets.mixture import GaussianMixture
from .targets.pool import LocalDraws, Pool
from .targets.samples import Samples

_ROOMS = ("decision", "diagnostics", "exact", "learn", "metrics", "neural", "plot", "surrogate", "zoo")

__all__ = [
    "Ancestral", "Controlled", "Density", "Euler", "GaussianMixture", "GaussianStart", "Green", "LocalDraws", "Moment",
    "Pool", "Protocol", "Samples", "SamplingError", "Solution", "Surrogate", "backward_log_weights", "control",
    "from_function", "given", "harmonic", "load", "log_psi", "log_snr", "piecewise", "prepare", "rollout", "sample",
    "save", "uniform", "weighted_state",
]  # fmt: skip


def __getattr__(name: str):
    if name in _ROOMS:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *_ROOMS, "__version__"]
