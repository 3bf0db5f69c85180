"""Four particles in the plane, of which each two have a double well in their distance: the DW4 of the literature.

    log p̃(z) = Σ_{i<j} φ(|r_i − r_j|),     φ(r) = 4 (r − 4)² − 0.9 (r − 4)⁴,     r = B z

B is Helmert's matrix, so that z are six orthonormal coordinates of positions whose centre is the origin. With a = r_2 − r_1,
b = r_3 − r_1, c = r_4 − r_1 the volume is dz = da db dc/4, and turning a onto the first axis leaves

    Z = (2π/4) ∫ ρ(r) dr,     ρ(r) = r w(r) ∫∫ f_r(b) w(|b − c|) f_r(c) db dc,     w = e^φ,     f_r(b) = w(|b|) w(|b − r e₁|)

The inner integral is a convolution in the plane. w is smooth, for at r = 0 it is e^−166, and ends at both sides, so the
trapezoidal rule is exact to ten digits. ρ is the law of any of the six distances: the entropy is log Z − 6 E[φ].

Draws: a, b and c from the law of density w(|a|), accepted, one in 464, with w(|a − b|) w(|a − c|) w(|b − c|) over its bound,
e^{40/3}.
"""

import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float

from .._maths.centred import helmert
from .._maths.small import matmul
from ..targets.density import Density
from .inverse import inverse_cdf
from .known import Drawable

_REACH = 7.6
"""Beyond which w, as below 0.4, is nothing beside its largest value."""
_NODES = 2049
_PROPOSALS = 2**13
_HIGHEST = 40 / 9
"""Of φ, where (r − 4)² = 20/9."""


class DoubleWellParticlesLogDensity(eqx.Module):
    """Σ_{i<j} 4 (r_ij − 4)² − 0.9 (r_ij − 4)⁴."""

    def __call__(self, z: Float[Array, " 6"]) -> Float[Array, ""]:
        basis, (first, second) = helmert(4), np.triu_indices(4, 1)
        differences = jnp.asarray(basis[first] - basis[second], z.dtype)
        return jnp.sum(pair(length(matmul(differences, z.reshape(3, 2)))))


class DoubleWellParticles(Drawable[Density]):
    """Four particles; made by `double_well_particles`.

    Attributes:
        radial_density: r w(r) at equidistant nodes of [0, 7.6].
    """

    radial_density: Float[Array, " g"]

    def _draw(self, key, num_samples):
        dtype = self.radial_density.dtype

        def propose(key):
            """a, b, c and whether they are accepted."""
            key_radius, key_angle, key_accept = jax.random.split(key, 3)
            uniforms = jax.random.uniform(key_radius, (3,), dtype)
            nodes = jax.vmap(lambda uniform: inverse_cdf(self.radial_density, uniform))(uniforms)
            angles = jax.random.uniform(key_angle, (3,), dtype, maxval=2 * math.pi)
            directions = jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)
            others = (nodes * (_REACH / (self.radial_density.size - 1)))[:, None] * directions
            log_share = jnp.sum(pair(length(others - jnp.roll(others, 1, axis=0))) - _HIGHEST)
            return others, jax.random.exponential(key_accept, (), dtype) > -log_share

        def again(carry):
            count, filled, chosen = carry
            keys = jax.random.split(jax.random.fold_in(key, count), _PROPOSALS)
            others, accepted = jax.vmap(propose)(keys)
            places = jnp.where(accepted, filled + jnp.cumsum(accepted) - 1, num_samples)
            return count + 1, filled + jnp.sum(accepted), chosen.at[places].set(others, mode="drop")

        begin = 0, jnp.zeros((), int), jnp.zeros((num_samples, 3, 2), dtype)
        chosen = jax.lax.while_loop(lambda carry: carry[1] < num_samples, again, begin)[2]
        coordinates = jnp.asarray(helmert(4)[1:].T, dtype)
        return jax.vmap(lambda others: matmul(coordinates, others).reshape(6))(chosen)


def double_well_particles(dtype: DTypeLike | None = None) -> DoubleWellParticles:
    """log p̃(z) = Σ_{i<j} 4 (r_ij − 4)² − 0.9 (r_ij − 4)⁴ of four particles in the plane, centre of mass removed: d = 6.

    Coordinates z with positions B z, B = `pidjax.learning.centred_basis(4)`: `centred_basis(4) @ z.reshape(3, 2)`. Every
    distance is wanted near 4 ± 1.49, and no four points of the plane have six equal ones.

    Example:
        >>> known = double_well_particles()
        >>> known.dim, round(known.log_z, 6), round(known.entropy, 6)
        (6, 29.667232, 7.125723)

    Source: Köhler, Klein & Noé, *Equivariant flows*, arXiv 2006.02425, with a = 0, b = −4, c = 0.9, d₀ = 4, τ = 1; log Z is of
    the quadrature above.
    """
    radii = np.linspace(0, _REACH, _NODES)
    target = Density(DoubleWellParticlesLogDensity(), 6, dtype=dtype)
    log_z, entropy = integrals()
    return DoubleWellParticles(
        name="double_well_particles",
        target=target,
        entropy=entropy,
        log_z=log_z,
        radial_density=jnp.asarray(radii * np.exp(pair(radii)), target.shift.dtype),
    )


def pair(distance):
    """φ(r)."""
    squared = (distance - 4) ** 2
    return squared * (4 - 0.9 * squared)


def length(vectors: Float[Array, "*n s"]) -> Float[Array, " *n"]:
    """|v|, whose derivative at v = 0 is 0."""
    squared = jnp.sum(vectors**2, axis=-1)
    apart = squared > 0
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1)), 0)


@functools.cache
def integrals(cell: float = 0.15, step: float = 0.1) -> tuple[float, float]:
    """log Z and the entropy, from ρ at multiples of `step` and its inner integral on cells of the plane.

    Example:
        >>> [round(value, 8) for value in integrals()]
        [29.66723223, 7.12572263]
    """
    axis = cell * np.arange(-math.ceil(_REACH / cell), math.ceil(_REACH / cell) + 1)
    padded = (2 * axis.size, 2 * axis.size)
    lags = cell * np.fft.fftfreq(padded[0], 1 / padded[0])
    kernel = np.fft.rfft2(np.exp(pair(np.hypot(lags[:, None], lags))))

    def density(radius: float) -> float:
        """ρ."""
        both = np.exp(pair(np.hypot(axis[:, None], axis)) + pair(np.hypot(axis[:, None] - radius, axis)))
        met = np.fft.irfft2(np.fft.rfft2(both, padded) * kernel, padded)[: axis.size, : axis.size]
        return radius * math.exp(pair(radius)) * float(np.sum(both * met)) * cell**4

    radii = np.arange(step, _REACH, step)
    densities = np.array([density(radius) for radius in radii])
    log_z = math.log(math.pi / 2 * float(np.sum(densities)) * step)
    return log_z, log_z - 6 * float(np.average(pair(radii), weights=densities))
