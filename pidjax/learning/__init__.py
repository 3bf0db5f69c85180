"""What is learned by gradient: protocols, and networks that control or correct.

descend, descend_refining              descent of any loss; and the same while pieces are cut in two
only, positive, refined, resolve       what is learned, and how
sharpness, control_gradient, energy    objectives without simulation
fit                                    training of a step rule
RelativeEntropy, LogVariance, TrajectoryBalance, Sum      its losses on paths
Regression, Buffer, Refresh, Turns     and on bridges to weighted end points, renewed on the way
Amortised                              a loss over a family of targets, told apart by a context
evidence                               ELBO, EUBO, log Z and ESS both ways
undefended                             a fitted surrogate to train from
Network, Given, ParticleNetwork        fields of (t, x); of one in a family of targets; of particles in space
centred_basis                          coordinates of particles whose centre is the origin
Guided, brownian                       control and reference of the Path Integral Sampler

    start = only(lambda protocol: protocol.beta, positive(harmonic(1.0, noise_scale=1.0)))
    levels = descend_refining(lambda protocol: sharpness(target, protocol), start)
    solution = pidjax.sample(key, target, protocol=levels[-1].parameters)
"""

from ..targets.fitting import undefended
from .amortised import Amortised
from .brownian import brownian
from .buffer import Buffer
from .context import Given
from .descend import descend
from .descent import Descent, DescentError, Outcome
from .fit import fit
from .losses import AbstractLoss, LogVariance, RelativeEntropy, Sum, TrajectoryBalance, evidence
from .networks import Guided, Network
from .objectives import control_gradient, energy, sharpness
from .optimiser import adam
from .parameters import Fixed, Parameter, Positive, is_learned, only, positive, refined, resolve
from .particles import ParticleNetwork, centred_basis
from .refining import descend_refining
from .refresh import AbstractRefresh, Refresh, Turns
from .regression import Regression

__all__ = [
    "AbstractLoss", "AbstractRefresh", "Amortised", "Buffer", "Descent", "DescentError", "Fixed", "Given", "Guided",
    "LogVariance", "Network", "Outcome", "Parameter", "ParticleNetwork", "Positive", "Refresh", "Regression",
    "RelativeEntropy", "Sum", "TrajectoryBalance", "Turns", "adam", "brownian", "centred_basis", "control_gradient",
    "descend", "descend_refining", "energy", "evidence", "fit", "is_learned", "only", "positive", "refined", "resolve",
    "sharpness", "undefended",
]  # fmt: skip
