"""The suite `densities`: H-PID from the log-density alone, beside other samplers at about equal numbers of evaluations."""

from .suite import run_densities
from .targets import FROM_FILES

__all__ = ["FROM_FILES", "run_densities"]
