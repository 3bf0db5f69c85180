"""Protocols learned by gradient: any differentiable objective of any parameters.

minimise, minimise_refining            descent; and the same while pieces are cut in two
only, positive, refined, resolve       what is learned, and how
sharpness, control_gradient, energy    objectives without simulation
guidance, experts, corridor, mean_field     guided transport, case by case

    start = only(lambda protocol: protocol.beta, positive(harmonic(1.0, noise_scale=1.0)))
    levels = minimise_refining(lambda protocol: sharpness(target, protocol), start)
    solution = pidjax.sample(key, target, protocol=levels[-1].parameters)
"""

from . import corridor, experts, guidance, mean_field
from .experts import fuse_guides, product_of_experts
from .guidance import following_cost, s_tunnel, v_neck
from .mean_field import mean_field_energy, unguided_energy
from .minimise import Learned, LearningError, adam, minimise, minimise_refining
from .objectives import control_gradient, energy, sharpness
from .parameters import Fixed, Parameter, Positive, only, positive, refined, resolve

__all__ = [
    "Fixed", "Learned", "LearningError", "Parameter", "Positive", "adam", "control_gradient", "corridor", "energy",
    "experts", "following_cost", "fuse_guides", "guidance", "mean_field", "mean_field_energy", "minimise",
    "minimise_refining", "only", "positive", "product_of_experts", "refined", "resolve", "s_tunnel", "sharpness",
    "unguided_energy", "v_neck",
]  # fmt: skip
