"""Guided transport: centre lines, corridors, experts and mean fields, as protocols of least cost.

following_cost, s_tunnel, v_neck       lines to follow, and what following costs
product_of_experts, fuse_protocols     several guides at once
mean_field_energy, unguided_energy     many agents, each under the mean of all
Corridor, corridor_loss                a soft tube, and how much of the law leaves it
"""

from . import experts, lines, mean_field
from .corridor import Corridor, corridor_loss
from .experts import fuse_protocols, product_of_experts
from .lines import following_cost, s_tunnel, v_neck
from .mean_field import mean_field_energy, unguided_energy

__all__ = [
    "Corridor", "corridor_loss", "experts", "following_cost", "fuse_protocols", "lines", "mean_field",
    "mean_field_energy", "product_of_experts", "s_tunnel", "unguided_energy", "v_neck",
]  # fmt: skip
