"""The suite `data`: the transitions of generation from data sets, by simulation and by theory, in exact numbers."""

from .suite import run_data

__all__ = ["run_data"]
