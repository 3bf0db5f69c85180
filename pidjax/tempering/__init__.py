"""Tempering: a population carried from a base to a target, with its evidence.

anneal                       the verb: adaptive without a schedule, exactly unbiased with one
Hamiltonian, Differences     the moves, with gradients and without
locate                       modes, and bases made of them: `Modes.laplace`, `broad_base`
Population                   the answer: samples, log Z and two errors of it
Schedule                     what a run chose, for another that adapts nothing
"""

from .annealing import anneal
from .bases import broad_base
from .modes import Modes
from .moves import Differences, Hamiltonian
from .population import Errors, Population
from .schedule import Schedule
from .search import locate

__all__ = ["Differences", "Errors", "Hamiltonian", "Modes", "Population", "Schedule", "anneal", "broad_base", "locate"]
