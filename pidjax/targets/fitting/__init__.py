"""A Gaussian-mixture surrogate of an unnormalised density of unknown place and scale."""

from .fit import Fit, fit_surrogate

__all__ = ["Fit", "fit_surrogate"]
