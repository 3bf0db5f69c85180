"""The top level: any potential, force and gauge.

Process         V, f and A, functions of (t, x)
Box, solve      on the cells of a box in one to three dimensions, the optimal process to a target, or to a `Cost`: log Z, log ψ,
                x̂, u*, marginals and exact paths on the cells
currents        of that: flux, circulation and entropy production
steer           in any dimension, paths under any control with exact weights
path_integral   in any dimension, log ψ and u* at a point by paths from there
Perturbed       in any dimension, the exact steps of a harmonic process weighed for another one: a rule of `sample`, with
                nearest_harmonic, that process, and bridges, paths between two points and the Green function

    solved = solve(Process(force=lambda t, x: jnp.stack([-x[1], x[0]])), Box.around(target), target).check()
    steered = steer(key, solved.process, solved.control, solved.cost, start=solved.start)
"""

from .box import Box
from .cost import Cost
from .currents import Currents, currents
from .perturbed import Perturbed, bridges, nearest_harmonic
from .process import Process
from .solve import Solved, solve
from .steered import Steered, path_integral, steer

__all__ = [
    "Box", "Cost", "Currents", "Perturbed", "Process", "Solved", "Steered", "bridges", "currents", "nearest_harmonic",
    "path_integral", "solve", "steer",
]  # fmt: skip
