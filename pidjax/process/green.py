"""The Green function of the harmonic reference, in closed form.

The reference process is a unit Brownian motion killed at the rate V(x) = β|x|²/2. With

    C(τ) = cosh(√β τ),   S(τ) = sinh(√β τ)/√β                       (entire in β: 1 and τ at β = 0, cos and sin/√ below)

its Green function, the unnormalised density of going from x to y in a time τ, is

    log G(x → y; τ) = −(d/2) log 2πS(τ) − [C(τ)(|x|² + |y|²) − 2xᵀy] / 2S(τ),

and the reference *pinned* at a time a after its start x and a time b before its end y is Gaussian:

    x_a | x, y  ~  N( S(b)/S(a+b) x + S(a)/S(a+b) y,  S(a)S(b)/S(a+b) I ).

That one law is all the sampler needs: between x₀ and the end point it is the observation of the end point by the state,
between two grid times it is a step, backwards it is the noising kernel of the path weight.

Everything holds while S > 0 on (0, τ], that is β τ² > −π²; at −π² lies the conjugate point.
"""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from .._doors.checks import as_floating, concrete
from .._doors.show import shown_fields

_SERIES_TERMS = 11
"""Terms of the power series in z = βτ² for |z| ≤ 1: the first one left out is below 1/23! < 1e-22."""


def _power_series(z: Array, first_factorial: int) -> Array:
    """Σ_k z^k / (2k + first_factorial)!: C for 0, S/τ for 1, as polynomials in z = βτ²."""
    total = jnp.ones_like(z)
    for k in range(_SERIES_TERMS, 0, -1):
        n = 2 * k + first_factorial
        total = 1 + total * z / (n * (n - 1))
    return total


def cosh_sinhc(z: Array) -> tuple[Array, Array]:
    """C and S/τ as functions of z = βτ² ≤ 1, with finite derivatives through z = 0.

    Larger z give what the series gives: finite, to be masked by the caller.
    """
    oscillates = z < -1
    near = jnp.where(oscillates, 0, z)
    angle = jnp.sqrt(jnp.where(oscillates, -z, 1))
    cosine = jnp.where(oscillates, jnp.cos(angle), _power_series(near, 0))
    sine = jnp.where(oscillates, jnp.sin(angle) / angle, _power_series(near, 1))
    return cosine, sine


class Pinned(NamedTuple):
    """The reference pinned at both ends: the state between is N(left · x + right · y, variance · I).

    At either end of its interval the law is a point: (1, 0, 0) or (0, 1, 0).
    """

    left: Float[Array, "..."]
    right: Float[Array, "..."]
    variance: Float[Array, "..."]


class Green(eqx.Module):
    """The Green function G of unit Brownian motion killed at the rate ½ Σ_i β_i x_i².

    Attributes:
        beta: stiffness β, a scalar or one of each coordinate; any sign above the conjugate point −(π/τ)², up to 1e6 in
            float32.

    Example:
        >>> green = Green(beta=jnp.array(0.0))
        >>> print(f"{green.log(jnp.zeros(1), jnp.zeros(1), 1.0):.3f}")
        -0.919

    Source: Behjoo & Chertkov, *Harmonic Path Integral Diffusion*, arXiv 2409.15166, section III.
    """

    beta: Float[Array, "..."] = eqx.field(converter=partial(as_floating, "beta"))

    __repr__ = shown_fields

    def __check_init__(self):
        if self.beta.ndim > 1:
            raise ValueError(
                f"beta has shape {self.beta.shape}; pass a scalar or a (d,) diagonal here, and a matrix to harmonic(beta)"
            )

    def _regimes(self, duration):
        """(is βτ² > 1?, w = √β where it is, β where it is not): each branch gets values that keep it finite."""
        stiff = self.beta * duration**2 > 1
        return stiff, jnp.sqrt(jnp.where(stiff, self.beta, 1)), jnp.where(stiff, 0, self.beta)

    def _as_duration(self, name: str, value: ArrayLike, with_zero: bool = False) -> Array:
        """The value as an array of durations: positive, or 0 too, and before the conjugate point."""
        duration = as_floating(name, value)
        if self.beta.ndim and duration.ndim and 1 != self.beta.size != duration.shape[-1] != 1:
            raise ValueError(f"{name} has shape {duration.shape} but beta has {self.beta.shape}; pass a scalar")
        known, beta = concrete(duration), concrete(self.beta)
        if known is None:
            return duration
        if not (known >= 0 if with_zero else known > 0).all():
            raise ValueError(f"{name} is {known.min():g}; pass a duration {'>= 0' if with_zero else '> 0'}")
        if beta is not None and not (beta * known**2 > -(np.pi**2)).all():
            raise ValueError(
                f"{name} is {known.max():g} and beta {beta.min():g}: the conjugate point lies at pi/sqrt(-beta) = "
                f"{np.pi / np.sqrt(-beta.min()):g}; pass a shorter duration"
            )
        return duration

    def pin(self, before, after) -> Pinned:
        """The law of the state a time `before` after the start and `after` before the end.

        left = S(after)/S(total), right = S(before)/S(total), variance = S(before)S(after)/S(total), in a form
        without overflow or cancellation: relative error of a few roundings for β up to 1e6 and both ends of time.

        Args:
            before, after: durations ≥ 0, not both zero; scalars or arrays of a shape that β broadcasts with.

        Raises:
            ValueError: a duration below 0, both 0, or a sum of them at or past the conjugate point (concrete values only).
        """
        before, after = (self._as_duration(*pair, with_zero=True) for pair in (("before", before), ("after", after)))
        _, before, after = jnp.broadcast_arrays(self.beta, before, after)
        self._as_duration("before + after", before + after)
        stiff, w, beta = (array[None] for array in self._regimes(before + after))
        times = jnp.stack([before, after, before + after])
        decay = -jnp.expm1(-2 * w * times)
        _, sinhc = cosh_sinhc(beta * times**2)
        s = times * sinhc
        left, right = jnp.where(stiff, jnp.exp(-w * times[:2]) * decay[1::-1] / decay[2:], s[1::-1] / s[2:])
        variance = jnp.where(stiff, decay[:1] * decay[1:2] / (2 * w * decay[2:]), s[:1] * s[1:2] / s[2:])
        return Pinned(left, right, variance[0])

    def pull(self, duration) -> tuple[Array, Array]:
        """(1/S(τ), C(τ)/S(τ)): the gains of the control u = y/S − (C/S) x toward an end point y at a time τ > 0 ahead."""
        duration = self._as_duration("duration", duration)
        stiff, w, beta = self._regimes(duration)
        decay = -jnp.expm1(-2 * w * duration)
        cosine, sinhc = cosh_sinhc(beta * duration**2)
        to_end = jnp.where(stiff, 2 * w * jnp.exp(-w * duration) / decay, 1 / (duration * sinhc))
        to_centre = jnp.where(stiff, w * (2 - decay) / decay, cosine / (duration * sinhc))
        return to_end, to_centre

    def log(self, x: ArrayLike, y: ArrayLike, duration: ArrayLike) -> Float[Array, ""]:
        """log G(x → y; τ), as −(d/2) log 2πS − |x−y|²/2S − ½ (C−1)/S (|x|²+|y|²), which does not cancel at small τ.

        Args:
            x, y: points, shape (d,).
            duration: τ > 0.

        Raises:
            ValueError: points or a duration of another shape; a duration that is not positive, or at or past the
                conjugate point (concrete values only).
        """
        x, y, duration = as_floating("x", x), as_floating("y", y), self._as_duration("duration", duration)
        if x.ndim != 1 or y.shape != x.shape or self.beta.shape not in ((), x.shape) or duration.shape != ():
            raise ValueError(
                f"x has shape {x.shape}, y {y.shape}, beta {self.beta.shape} and duration {duration.shape}; pass points of "
                "one shape (d,), as beta if that is no scalar, and a scalar duration"
            )
        stiff, w, beta = self._regimes(duration)
        decay = -jnp.expm1(-2 * w * duration)
        cosine_half, sinhc_half = cosh_sinhc(beta * duration**2 / 4)
        _, sinhc = cosh_sinhc(beta * duration**2)
        log_s = jnp.where(stiff, w * duration + jnp.log(decay / (2 * w)), jnp.log(duration * sinhc))
        to_end = jnp.where(stiff, 2 * w * jnp.exp(-w * duration) / decay, 1 / (duration * sinhc))
        confinement = jnp.where(stiff, w * jnp.tanh(w * duration / 2), beta * duration * sinhc_half / (2 * cosine_half))
        return -0.5 * (
            jnp.sum(jnp.broadcast_to(jnp.log(2 * jnp.pi) + log_s, x.shape))
            + jnp.sum(to_end * (x - y) ** 2)
            + jnp.sum(confinement * (x**2 + y**2))
        )
