"""A data set under a kernel: a law with a density, and tilted still the data's own softmax.

    p̂(y) = Σ_i w_i N(y; y_i, LLᵀ)

Seen through ζ = A y + N(0, I), a datum is seen through the kernel and the noise together: with W⁻¹ the Cholesky factor of
I + AL(AL)ᵀ, Wζ = WA y_i + N(0, I). So the data are tilted by that observation, streamed as they are, and

    y | y_i, ζ  ~  N( y_i + B(ζ − A y_i),  L(I + (AL)ᵀAL)⁻¹Lᵀ ),     B = L(AL)ᵀWᵀW.

It generates beyond the data, and says with which likelihood.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from .._doors.checks import as_floating, as_point, check_count, check_key, check_kind, concrete
from .._doors.show import shown
from .._maths.maps import (
    Factor,
    Map,
    adjoint,
    apply,
    cholesky_of_one_plus_square,
    identity,
    inverse_factor,
    lift,
    log_volume,
    product,
    sandwich,
)
from ..process.bridge import Observation
from .base import AbstractTarget, ExactlyTilted, Place, WithCovariance, WithDensity, WithDraws, WithMass
from .mixture import discrete_component
from .samples import Samples
from .streamed import StreamedSamples


class TiltedSmoothed(WithMass, WithCovariance, WithDraws):
    """A data set under a kernel, as a law.

    Attributes:
        datum: the law of the datum.
        slope, gain, value: B, A and ζ.
        factor: of the kernel that is left.
    """

    log_mass: Float[Array, ""]
    mean: Float[Array, " d"]
    datum: Any
    slope: Map
    gain: Map
    value: Float[Array, " d"]
    factor: Factor

    def covariance(self):
        return self._covariance(self.datum.covariance())

    def step_covariance(self):
        return self._covariance(self.datum.step_covariance())

    def draw(self, key):
        key_datum, key_noise = jax.random.split(key)
        datum = self.datum.draw(key_datum)
        return self._towards(datum) + apply(self.factor, jax.random.normal(key_noise, datum.shape, datum.dtype))

    def _towards(self, datum):
        return datum + apply(self.slope, self.value - apply(self.gain, datum))

    def _covariance(self, of_datum: Map) -> Map:
        pulled = product(self.slope, self.gain)
        between = sandwich(identity(pulled) - pulled, of_datum)
        within = product(self.factor, adjoint(self.factor))
        rank = max(between.ndim, within.ndim)
        return lift(between, rank, self.mean.size) + lift(within, rank, self.mean.size)


class Smoothed(AbstractTarget, ExactlyTilted, WithDensity):
    """A data set under a Gaussian kernel, Σ_i w_i N(y; y_i, LLᵀ).

    Args:
        data: the points y_i and their weights.
        factor: L: the kernel's width as a number, the widths of coordinates, shape (d,), or a lower triangular matrix, (d, d).
            `pidjax.fit_kernel` finds the one under which held-out data are likeliest.

    Raises:
        ValueError: no data; a factor of another shape, or whose diagonal is not positive.

    Example:
        >>> smoothed = Smoothed(Samples(jnp.array([[0.0], [1.0]])), 0.1)
        >>> solution = pid.sample(jax.random.key(0), smoothed, num_samples=8)
        >>> solution.samples.shape, float(solution.log_z.value)
        ((8, 1), 0.0)

    Source: Parzen, *On estimation of a probability density function and mode*, Annals of Mathematical Statistics 33 (1962).
    """

    data: Any
    factor: Factor

    def __init__(self, data, factor):
        check_kind("data", data, Samples | StreamedSamples, "Samples")
        factor = as_floating("factor", factor).astype(data.weights.dtype if isinstance(data, Samples) else factor.dtype)
        if factor.shape not in ((), (data.dim,), (data.dim, data.dim)):
            raise ValueError(
                f"factor has shape {factor.shape}; pass a width, or shape ({data.dim},) or ({data.dim}, {data.dim})"
            )
        known = concrete(factor)
        if known is not None:
            diagonal = known.diagonal() if known.ndim == 2 else known
            if not (diagonal > 0).all() or (known.ndim == 2 and (known != jnp.tril(known)).any()):
                raise ValueError(
                    f"factor is {known}; pass widths > 0, or a lower triangular matrix with such a diagonal"
                )
        self.data, self.factor = data, factor

    def __repr__(self):
        return shown("Smoothed", data=self.data, factor=self.factor)

    @property
    def dim(self) -> int:
        return self.data.dim

    @property
    def numbers_per_tilt(self) -> int:
        return self.data.numbers_per_tilt

    @property
    def is_spread(self) -> bool:
        return self.data.is_spread

    def tilt(self, observation: Observation, key=None) -> TiltedSmoothed:
        gain, value = observation
        seen = product(gain, self.factor)
        whiten = inverse_factor(cholesky_of_one_plus_square(seen))
        left = inverse_factor(cholesky_of_one_plus_square(adjoint(seen)))
        spread = product(self.factor, adjoint(left))
        slope = product(spread, adjoint(product(seen, adjoint(left))))
        datum = self.data.tilt(Observation(product(whiten, gain), apply(whiten, value)))
        mean = datum.mean + apply(slope, value - apply(gain, datum.mean))
        log_mass = datum.log_mass + log_volume(whiten, self.dim)
        return TiltedSmoothed(log_mass, mean, datum, slope, gain, value, spread)

    def log_density(self, y):
        y = as_point("y", y, self.dim)
        whiten = inverse_factor(self.factor)
        log_mass = self.data.tilt(Observation(whiten, apply(whiten, y))).log_mass
        return log_mass + log_volume(whiten, self.dim) - 0.5 * self.dim * math.log(2 * math.pi)

    def place(self):
        place, widths = self.data.place(), self.factor
        square = jnp.sum(widths**2) / self.dim if widths.ndim == 2 else jnp.mean(widths**2)
        narrowest = jnp.min(jnp.diagonal(widths) if widths.ndim == 2 else widths)
        return Place(place.mean, jnp.sqrt(place.spread**2 + square), narrowest=narrowest)

    def rescaled(self, shift, scale):
        return Smoothed(self.data.rescaled(shift, scale), self.factor / scale)

    def sample(self, key: Key[Array, ""], num_samples: int) -> Float[Array, "n d"]:
        """Exact independent draws, shape (num_samples, d)."""
        check_key("key", key)
        num_samples = check_count("num_samples", num_samples)
        points, log_weights = self.data.points, jnp.log(self.data.weights)

        def draw(key):
            key_datum, key_noise = jax.random.split(key)
            datum = points[discrete_component(key_datum, log_weights)].astype(self.factor.dtype)
            return datum + apply(self.factor, jax.random.normal(key_noise, datum.shape, datum.dtype))

        return jax.vmap(draw)(jax.random.split(key, num_samples))
