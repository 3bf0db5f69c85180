"""The suite `decisions`: exact and sampled decisions of spins, beside Markov chains, at equal energy evaluations."""

from .suite import run_decisions

__all__ = ["run_decisions"]
