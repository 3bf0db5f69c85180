"""What is learned by gradient: protocols, and networks that control or correct.

minimise, minimise_refining            descent of any objective; and the same while pieces are cut in two
only, positive, refined, resolve       what is learned, and how
sharpness, control_gradient, energy    objectives without simulation
fit                                    training of a step rule on its own paths
relative_entropy, log_variance         its losses
Network, Guided, brownian              control fields u(t, x), and the reference of the Path Integral Sampler

    start = only(lambda protocol: protocol.beta, positive(harmonic(1.0, noise_scale=1.0)))
    levels = minimise_refining(lambda protocol: sharpness(target, protocol), start)
    solution = pidjax.sample(key, target, protocol=levels[-1].parameters)
"""

from .brownian import brownian
from .fit import Trained, TrainingError, decayed_adam, fit, trainable
from .losses import log_variance, relative_entropy
from .minimise import Learned, LearningError, adam, minimise, minimise_refining
from .networks import Constant, Guided, Network
from .objectives import control_gradient, energy, sharpness
from .parameters import Fixed, Parameter, Positive, only, positive, refined, resolve

__all__ = [
    "Constant", "Fixed", "Guided", "Learned", "LearningError", "Network", "Parameter", "Positive", "Trained",
    "TrainingError", "adam", "brownian", "control_gradient", "decayed_adam", "energy", "fit", "log_variance", "minimise",
    "minimise_refining", "only", "positive", "refined", "relative_entropy", "resolve", "sharpness", "trainable",
]  # fmt: skip
