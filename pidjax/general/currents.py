"""Where probability goes: the currents of the optimal process on cells.

    J = p* (f + u*) − ½∇p*,      ∂p*/∂t = −∇·J,      between two cells of an axis   J = ( φ_i u ψ_{i+1} − φ_{i+1} d ψ_i )/Z,

with u and d the rates of the generator between them, which the control changes by ψ_{i+1}/ψ_i and its inverse. From it

    circulation            ∫ ( x Jᵀ − J xᵀ ) dx,      twice the rate at which paths sweep area
    entropy production     Σ_faces J log( φ_i u ψ_{i+1} / φ_{i+1} d ψ_i )  →  2 ∫ |J|²/p* dx,      zero only where J is

Source: Schnakenberg, *Reviews of Modern Physics* 48, 571 (1976); Seifert, *Reports on Progress in Physics* 75, 126001 (2012).
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._doors.checks import check_kind
from .generator import rates_along
from .solve import Solved


class Currents(NamedTuple):
    """What `currents` returns, at each time.

    Attributes:
        flux: J at the centres of the cells, the mean of both faces.
        circulation: antisymmetric; of one dimension zero.
        entropy_production: a rate; what is left of it where one side of a face holds nothing in this dtype does not count.
    """

    flux: Float[Array, "times *cells d"]
    circulation: Float[Array, "times d d"]
    entropy_production: Float[Array, " times"]


def currents(solved: Solved) -> Currents:
    """Flux, circulation and entropy production of an optimal process, from the start, where they know no bound, to the end.

    Raises:
        ValueError: what is given is not solved.

    Example:
        >>> from pidjax.general import Box, Cost, Process, solve
        >>> vortex = Process(force=lambda t, x: jnp.stack([-x[0] - x[1], x[0] - x[1]]))
        >>> solved = solve(vortex, Box([-4.0, -4.0], [4.0, 4.0], (40, 40)), Cost(lambda y: 0 * y[0]), num_steps=40)
        >>> found = currents(solved)
        >>> print(f"{found.circulation[-1, 0, 1]:.1f}")  # E|x|² at t = 1, 1 − e^{−2}, at unit angular velocity
        0.9
    """
    check_kind("solved", solved, Solved, "what general.solve gives")
    return _currents(solved)


@eqx.filter_jit
def _currents(solved: Solved) -> Currents:
    box = solved.box

    def at(indexed) -> Currents:
        t, masses, values = indexed
        total, flux, production = jnp.sum(masses * values), [], jnp.zeros((), values.dtype)
        for axis in range(box.dim):
            up, down = rates_along(solved.process, box, axis, t)
            before, after = jnp.moveaxis(masses, axis, -1), jnp.moveaxis(values, axis, -1)
            onward = before[..., :-1] * up * after[..., 1:] / total
            back = before[..., 1:] * down * after[..., :-1] / total
            both, net = (onward > 0) & (back > 0), onward - back
            ratio = jnp.log(jnp.where(both, onward, 1)) - jnp.log(jnp.where(both, back, 1))
            production = production + jnp.sum(net * ratio)
            sides = jnp.pad(net, [(0, 0)] * (box.dim - 1) + [(1, 1)])
            centred = 0.5 * (sides[..., 1:] + sides[..., :-1]) * box.spacing[axis] / box.volume
            flux.append(jnp.moveaxis(centred, -1, axis))
        flux = jnp.stack(flux, axis=-1)
        moment = jnp.einsum("...i,...j->ij", box.points, flux) * box.volume
        return Currents(flux, moment - moment.T, production)

    return jax.lax.map(at, (solved.times, solved.forward, solved.backward))
