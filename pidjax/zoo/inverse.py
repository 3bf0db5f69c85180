"""A draw in one dimension from its density at equidistant nodes, by the inverse of its distribution function F.

F at the nodes is by the integral of the cubic through four neighbours, and within a cell by that of the line through two:

    F_{j+1} − F_j = h (−p_{j−1} + 13 p_j + 13 p_{j+1} − p_{j+2})/24,     v = (2 p_j s + (p_{j+1} − p_j) s²) / (p_j + p_{j+1}),

at the share s of the cell for the share v of its mass: moments are right to O(h⁴).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def inverse_cdf(density: Float[Array, " g"], uniform: Float[Array, ""]) -> Float[Array, ""]:
    """The place, in units of nodes, 0 … g − 1, below which a share `uniform` of the mass lies.

    Args:
        density: at the nodes, not normalised, and negligible at both ends.
        uniform: in [0, 1).

    Example:
        >>> inverse_cdf(jnp.array([0.0, 1.0, 1.0, 0.0]), jnp.array(0.5))
        Array(1.5, dtype=float32)
    """
    outer = jnp.pad(density, 1)
    mass = jnp.maximum(13 * (density[:-1] + density[1:]) - outer[:-3] - outer[3:], 0)
    cumulative = jnp.cumsum(mass)
    wanted = uniform * cumulative[-1]
    cell = jnp.minimum(jnp.searchsorted(cumulative, wanted, side="right"), mass.size - 1)
    share = jnp.clip(1 - (cumulative[cell] - wanted) / mass[cell], 0, 1)
    left, right = density[cell], density[cell + 1]
    inside = share * (left + right) / (left + jnp.sqrt(left**2 + share * (right**2 - left**2)))
    return cell.astype(density.dtype) + inside
