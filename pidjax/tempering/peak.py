"""The peak that a place is near, with its Gaussian.

    m:  ∇log p̃(m) = 0,     H = −∇² log p̃(m) = (L Lᵀ)⁻¹,     log mass = log p̃(m) + ½ d log 2π + log det L        [Laplace]

found by at most three of Newton's steps y + L Lᵀ∇log p̃. There is none if H has no Cholesky factor (saddles, plateaus), or if
the steps do not settle; and it is a *ridge*, whose mass the Gaussian does not tell, if log p̃ falls by more than 4, in the place
of ½, at one of the points m ± L e_j, a standard deviation away: straight ones where a zero of H is positive by rounding, and
bent ones.

Above 2,048 dimensions H is its diagonal alone: no Newton steps, no test by Cholesky, widths of one coordinate given the others,
and log masses that are too low, as det H ≤ Π H_jj.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._maths.maps import adjoint, apply, inverse_factor, log_volume
from .._maths.small import cholesky, inverse_triangular, transpose
from ..targets.base import WithDensity
from .climb import value_and_slope

MOST_DENSE = 2048
"""The largest dimension with the whole Hessian; its diagonal above."""
_NEWTON_STEPS = 3
_SETTLED = 1e-4
"""|Lᵀ∇log p̃|², the squared distance to the mode in standard deviations, below which an end is there."""
_FALL = 4.0
_BATCH = 64


class Peak(NamedTuple):
    """A mode, if `found`, or the top of a ridge: its L, L⁻¹, log mass and height log p̃; and what was spent on the way."""

    point: Float[Array, " d"]
    factor: Float[Array, "*map"]
    whiten: Float[Array, "*map"]
    log_mass: Float[Array, ""]
    height: Float[Array, ""]
    found: Bool[Array, ""]
    is_ridge: Bool[Array, ""]
    evaluations: Int[Array, ""]


class Look(NamedTuple):
    """An end on its way to the mode: L there, |Lᵀ∇log p̃|² and log p̃, and whether to go on."""

    point: Float[Array, " d"]
    factor: Float[Array, "*map"]
    gain: Float[Array, ""]
    height: Float[Array, ""]
    number: Int[Array, ""]
    going: Bool[Array, ""]


def polish(target: WithDensity, end: Float[Array, " d"]) -> Peak:
    """The mode that an end is near, if it is near one: after at most three of Newton's steps, none longer than √d."""
    dim, dtype = end.shape[0], end.dtype
    dense = dim <= MOST_DENSE
    newton_steps = _NEWTON_STEPS if dense else 0

    def step(look: Look) -> Look:
        factor = gaussian_factor(target, look.point)
        height, slope = value_and_slope(target, look.point)
        white_slope = apply(adjoint(factor), slope)
        gain = jnp.sum(white_slope**2)
        going = (gain >= _SETTLED) & (gain < dim) & (look.number < newton_steps)
        point = jnp.where(going, look.point + apply(factor, white_slope), look.point)
        return Look(point, factor, gain, height, look.number + 1, going)

    zero = jnp.zeros((), dtype)
    begun = Look(end, unit_factor(dim, dtype), zero, zero, jnp.zeros((), int), jnp.ones((), bool))
    ended = jax.lax.while_loop(lambda look: look.going, step, begun)
    point, factor, height = ended.point, ended.factor, ended.height

    def fall(index):
        column = factor[:, index % dim] if dense else jnp.where(jnp.arange(dim) == index % dim, factor, 0)
        return height - value_and_slope(target, point + jnp.where(index < dim, column, -column))[0]

    falls = jax.lax.map(fall, jnp.arange(2 * dim), batch_size=_BATCH)
    settled = jnp.isfinite(height) & ((ended.gain < _SETTLED) if dense else jnp.isfinite(ended.gain))
    peaked, fits = settled & jnp.all(jnp.isfinite(factor)), jnp.all(falls < _FALL)
    left = 0.5 * ended.gain if dense else 0
    log_mass = height + left + 0.5 * dim * math.log(2 * math.pi) + log_volume(factor, dim)
    spent = ended.number * (dim + 1) + 2 * dim
    return Peak(point, factor, inverse_factor(factor), log_mass, height, peaked & fits, peaked & ~fits, spent)


def gaussian_factor(target: WithDensity, point: Float[Array, " d"]) -> Float[Array, "*map"]:
    """Lower triangular L with L Lᵀ = H⁻¹, by d products of the Hessian and a vector; not finite where H is indefinite.

    With J the reversal of coordinates and J H J = C Cᵀ it is L = J C⁻ᵀ J.

    Example:
        >>> target = pid.Density(lambda y: -2 * y[0] ** 2 - 0.5 * (y[1] - y[0]) ** 2, 2)
        >>> gaussian_factor(target, jnp.zeros(2)).tolist()
        [[0.5, 0.0], [0.5, 1.0]]
    """
    dim = point.shape[0]
    slope = jax.grad(target.log_density)

    def bend(index):
        return -jax.jvp(slope, (point,), (jax.nn.one_hot(index, dim, dtype=point.dtype),))[1]

    indices = jnp.arange(dim)
    if dim > MOST_DENSE:
        return 1 / jnp.sqrt(jax.lax.map(lambda index: bend(index)[index], indices, batch_size=_BATCH))
    reversed_hessian = jax.lax.map(bend, indices, batch_size=_BATCH)[::-1, ::-1]
    return transpose(inverse_triangular(cholesky(reversed_hessian)))[::-1, ::-1]


def unit_factor(dim: int, dtype) -> Float[Array, "*map"]:
    """L of the identity, dense or its diagonal."""
    return jnp.eye(dim, dtype=dtype) if dim <= MOST_DENSE else jnp.ones(dim, dtype)
