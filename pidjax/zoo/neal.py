"""Neal's funnel, log N(x₁; 0, s²) + Σ_{i≥2} log N(x_i; 0, e^{x₁}): one coordinate sets the width of all others."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

from .._doors.checks import as_positive, check_count
from ..targets.density import Density
from .known import Drawable


class FunnelLogDensity(eqx.Module):
    """log N(x₁; 0, s²) + Σ_{i≥2} log N(x_i; 0, e^{x₁})."""

    scale: float = eqx.field(static=True)

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        neck, rest = x[0], x[1:]
        constant = math.log(self.scale) + x.size / 2 * math.log(2 * math.pi)
        quadratic = (neck / self.scale) ** 2 + jnp.sum((jnp.exp(-neck / 2) * rest) ** 2)
        return -0.5 * (quadratic + rest.size * neck) - constant


class Funnel(Drawable[Density]):
    """Neal's funnel; made by `funnel`."""

    scale: float = eqx.field(static=True)

    def _draw(self, key, num_samples):
        noise = jax.random.normal(key, (num_samples, self.dim), self.target.shift.dtype)
        neck = self.scale * noise[:, :1]
        return jnp.concatenate([neck, jnp.exp(neck / 2) * noise[:, 1:]], axis=1)


def funnel(scale: float = 3.0, dim: int = 10, dtype: DTypeLike | None = None) -> Funnel:
    """x₁ ~ N(0, s²), x_i ~ N(0, e^{x₁}) for i = 2…d. Entropy (d/2) log 2πe + log s, as E x₁ = 0.

    s = 3 in most papers, √3 in SLIPS and RDSMC, 1 in PIS: the scale must be named with the figure.

    Raises:
        ValueError: scale not positive, or dim below 2.

    Example:
        >>> round(funnel(scale=3.0).entropy, 4)
        15.288

    Source: Neal, *Slice sampling*, Annals of Statistics 2003, section 8, there with s = 3, d = 10.
    """
    as_positive("scale", scale)
    dim = check_count("dim", dim)
    if dim < 2:
        raise ValueError(f"dim is {dim}; pass at least 2")
    return Funnel(
        name=f"funnel({scale:.4g})",
        target=Density(FunnelLogDensity(scale), dim, dtype=dtype),
        entropy=dim / 2 * math.log(2 * math.pi * math.e) + math.log(scale),
        log_z=0.0,
        scale=scale,
    )
