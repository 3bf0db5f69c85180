"""The suite `neural`: trained samplers and corrections beside H-PID, with their whole cost and how they learned."""

from .suite import run_neural

__all__ = ["run_neural"]
