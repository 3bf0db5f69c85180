"""Quality of sampling along the way: what the process does between its start and its end, with error bars.

`pidjax.metrics` judges end points; this room judges paths. Most of it is a mean over an `Ensemble`, made from a solution
with saved paths, and comes as an `Estimate`: a value and its standard error, the weights of the paths respected.

    >>> import jax, pidjax as pid
    >>> from pidjax import diagnostics, zoo
    >>> target, protocol = zoo.ada_regular().target, pid.harmonic(6.0, noise_scale=1.0)
    >>> solution = pid.sample(
    ...     jax.random.key(0), target, protocol=protocol, num_samples=500, grid=pid.uniform_grid(100), save_paths=True
    ... )
    >>> paths = diagnostics.ensemble(solution)
    >>> found = diagnostics.autocorrelations(paths).sharpness
    >>> bool(abs(found.value - 0.387) < 4 * found.standard_error)
    True
    >>> cost = diagnostics.path_costs(paths, protocol)
    >>> bool(cost.kinetic.value[-1] < cost.total.value[-1])
    True
"""

from .average import average
from .balance import DriftDiffusion, LangevinMismatch, drift_diffusion, langevin_mismatch
from .commitment import (
    Decisions,
    Reliability,
    class_probabilities,
    decisions,
    is_reliable,
    predicted_class_probabilities,
    responsibilities,
)
from .correlation import Autocorrelations, autocorrelations
from .cost import PathCosts, path_costs
from .distances import EarlyExit, ball, early_exit, restricted_wasserstein2, tail
from .energy import PathEnergies, energy_efficiency, path_cross_entropies
from .ensemble import Ensemble, Region, ensemble
from .jacobian import Sensitivity, sensitivity
from .prediction import Predictions, predictions
from .transitions import Transitions, path_transitions, transitions
from .uturns import UTurns, uturns

__all__ = [
    "Autocorrelations", "Decisions", "DriftDiffusion", "EarlyExit", "Ensemble", "LangevinMismatch", "PathCosts", "PathEnergies",
    "Predictions", "Region", "Reliability", "Sensitivity", "Transitions", "UTurns", "autocorrelations", "average", "ball",
    "class_probabilities",
    "decisions", "drift_diffusion", "early_exit", "energy_efficiency", "ensemble", "is_reliable",
    "langevin_mismatch", "path_costs", "path_cross_entropies", "path_transitions", "predicted_class_probabilities",
    "predictions", "responsibilities", "restricted_wasserstein2", "sensitivity", "tail", "transitions", "uturns",
]  # fmt: skip
