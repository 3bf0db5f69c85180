"""The top level: any potential, force and gauge, on the cells of a box in one to three dimensions.

Process     V, f and A, functions of (t, x)
Box         the cells, with walls
solve       the optimal process to a target, or to a `Cost`: log Z, log ψ, x̂, u*, marginals and exact paths on the cells

    solved = solve(Process(force=lambda t, x: jnp.stack([-x[1], x[0]])), Box.around(target), target).check()
"""

from .box import Box
from .process import Process
from .solve import Cost, Solved, solve

__all__ = ["Box", "Cost", "Process", "Solved", "solve"]
