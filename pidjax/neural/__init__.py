"""Learned controls: the Path Integral Sampler, and corrections to the explicit control.

brownian             the reference, β = 0
Network, Guided      control fields u(t, x)
relative_entropy     the loss E[−log W], log_variance another
fit                  training; `pidjax.save` keeps what it gives
"""

from .fit import Trained, TrainingError, decayed_adam, fit, trainable
from .loss import log_variance, relative_entropy
from .network import Constant, Guided, Network
from .reference import brownian

__all__ = [
    "Constant", "Guided", "Network", "Trained", "TrainingError", "brownian", "decayed_adam", "fit", "log_variance",
    "relative_entropy", "trainable",
]  # fmt: skip
