"""Surrogates: a Gaussian mixture of an unnormalised density of unknown place and scale, products from particles, laws of
data."""

from .blocks import independent_blocks
from .defence import undefended
from .fit import Fit, fit_surrogate
from .held_out import fit_kernel, fit_local_gaussians
from .product import find_product, fit_product, refined

__all__ = [
    "Fit", "find_product", "fit_kernel", "fit_local_gaussians", "fit_product", "fit_surrogate", "independent_blocks", "refined",
    "undefended",
]  # fmt: skip
