"""Surrogates: a Gaussian mixture of an unnormalised density of unknown place and scale, and products from particles."""

from .blocks import independent_blocks
from .defence import undefended
from .fit import Fit, fit_surrogate
from .product import find_product, fit_product, refined

__all__ = ["Fit", "find_product", "fit_product", "fit_surrogate", "independent_blocks", "refined", "undefended"]
