"""The φ⁴ model on a line: p̃(x) = Π_{i=0}^{n} K(x_i, x_{i+1}) Π_{i=1}^{n} s(x_i), x₀ = x_{n+1} = 0, n = 100, with

    K(x, y) = exp(−100 (x − y)²),     s(x) = exp(−½ (1 − x²)² − 2 b x).

A chain of neighbours, so the transfer operator gives all: with R_n(x) = K(x, 0) and

    R_{i−1}(x) = ∫ K(x, y) s(y) R_i(y) dy,     Z = R₀(0),     p(x_i | x_{i−1}) ∝ K(x_{i−1}, x_i) s(x_i) R_i(x_i).

The integrals are by Gauss–Legendre nodes in float64 on the host, whatever the dtype.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, DTypeLike, Float

from .._doors.checks import as_dtype, as_scalar
from ..targets.density import Density
from .inverse import inverse_cdf
from .known import Drawable

_DIM = 100
_STIFFNESS = 100.0
_REACH = 2.5
"""At b = 0 a coordinate has its mass around ±1 with standard deviation 0.13."""
_MIDDLE = (41, 60)
"""The sites, counted from 1, whose common sign is the phase."""
_POWER = 1e-4
"""E log p̃ is the derivative of log ∫ p̃^λ at λ = 1, by a difference of so much: right to 1e-6."""
_NODES = np.linspace(-_REACH, _REACH, 1001)
"""Where the conditional densities are tabulated, for draws."""
_OFFSETS = np.linspace(-7, 7, 97)
"""Nodes of one conditional density, in standard deviations of the bridge."""


class Phi4LogDensity(eqx.Module):
    """−100 Σ_{i=0}^{n} (x_{i+1} − x_i)² − Σ_{i=1}^{n} [½ (1 − x_i²)² + 2 b x_i]."""

    field: Float[Array, ""]

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        path = jnp.pad(x, 1)
        return -_STIFFNESS * jnp.sum((path[1:] - path[:-1]) ** 2) + jnp.sum(_log_site(x, self.field))


class Phi4(Drawable[Density]):
    """The φ⁴ model; made by `phi4`.

    Attributes:
        log_phase_ratio: log P(x₄₁, …, x₆₀ all > 0) − log P(all < 0).
        log_tilts: log s(x) R_i(x) + 100 x²/(n + 1 − i) at equidistant nodes, for each site i: the conditional density over
            that of the Gaussian bridge to x_{n+1} = 0.
    """

    log_phase_ratio: float = eqx.field(static=True)
    log_tilts: Float[Array, "d g"]

    def _draw(self, key, num_samples):
        dtype = self.log_tilts.dtype
        uniforms = jax.random.uniform(key, (self.dim, num_samples), dtype)
        remaining = jnp.arange(self.dim, 0, -1).astype(dtype)
        offsets = jnp.asarray(_OFFSETS, dtype)

        def step(before: Float[Array, " n"], site):
            uniform, log_tilt, remaining = site
            share = remaining / (remaining + 1)
            width = jnp.sqrt(share / (2 * _STIFFNESS))

            def draw(before: Float[Array, ""], uniform: Float[Array, ""]):
                nodes = (share * before + width * offsets + _REACH) * ((_NODES.size - 1) / (2 * _REACH))
                log_density = map_coordinates(log_tilt, [nodes], order=1, mode="nearest") - 0.5 * offsets**2
                place = inverse_cdf(jnp.exp(log_density - jnp.max(log_density)), uniform)
                return share * before + width * (offsets[0] + place * (offsets[1] - offsets[0]))

            after = jax.vmap(draw)(before, uniform)
            return after, after

        start = jnp.zeros(num_samples, dtype)
        return jax.lax.scan(step, start, (uniforms, self.log_tilts, remaining))[1].T


def phi4(b: float = 0.0, dtype: DTypeLike | None = None) -> Phi4:
    """log p̃ = −20 {5 Σ_{i=0}^{100} (x_{i+1} − x_i)² + (1/10) Σ_{i=1}^{100} [(1 − x_i²)²/4 + b x_i]}, x₀ = x₁₀₁ = 0.

    Two phases, around +1 and −1. The external field b > 0 favours the negative one by `log_phase_ratio`, which counting samples
    cannot resolve and weights can. Its published values come from a Laplace formula: theirs is −7.503 at b = 0.025.

    Raises:
        ValueError: b is not one finite number, or |b| is above 1.

    Example:
        >>> known = phi4(0.025)
        >>> round(known.log_z, 6), round(known.log_phase_ratio, 5)
        (-193.664446, -7.79175)

    Source: Grenioux, Noble, Gabrié & Durmus, *Stochastic localization via iterative posterior sampling*, arXiv 2402.10758.
    """
    b = float(as_scalar("b", b))
    if abs(b) > 1:
        raise ValueError(f"b is {b:g}; pass a number of at most 1 in magnitude")
    dtype = as_dtype(dtype)
    messages = _log_messages(b)
    log_z, higher, lower = (float(_log_messages(b, power=1 + change)[0, 0]) for change in (0, _POWER, -_POWER))
    positive, negative = (float(_log_messages(b, phase=phase)[0, 0]) for phase in (1, -1))
    remaining = np.arange(_DIM, 0, -1)[:, None]
    tilts = _log_site(_NODES, b) + messages[1:, 1:] + _STIFFNESS * _NODES**2 / remaining
    return Phi4(
        name=f"phi4({b:.4g})",
        target=Density(Phi4LogDensity(jnp.asarray(b, dtype)), _DIM, dtype=dtype),
        entropy=log_z - (higher - lower) / (2 * _POWER),
        log_z=log_z,
        log_phase_ratio=positive - negative,
        log_tilts=jnp.asarray(tilts, dtype),
    )


def _log_site(x, field):
    return -0.5 * (1 - x**2) ** 2 - 2 * field * x


def _log_messages(b: float, power: float = 1.0, phase: int = 0) -> np.ndarray:
    """log R_0, …, log R_n of p̃^power at 0 and at `_NODES`; with a phase, of what has its sign in the middle."""
    panels = np.linspace(-_REACH, _REACH, 21)
    unit, unit_weights = np.polynomial.legendre.leggauss(16)
    half = (panels[1] - panels[0]) / 2
    nodes = (panels[:-1, None] + half * (1 + unit)).ravel()
    site = np.tile(half * unit_weights, len(panels) - 1) * np.exp(power * _log_site(nodes, b))
    in_phase = np.where(phase * nodes >= 0, site, 0)
    points = np.concatenate([[0.0], _NODES, nodes])
    kernel = np.exp(-power * _STIFFNESS * (points[:, None] - nodes) ** 2)
    logs = [-power * _STIFFNESS * points**2]
    for index in range(_DIM, 0, -1):
        largest = logs[-1].max()
        message = np.exp(logs[-1][-nodes.size :] - largest)
        logs.append(np.log(kernel @ ((in_phase if _MIDDLE[0] <= index <= _MIDDLE[1] else site) * message)) + largest)
    return np.stack(logs[::-1])[:, : 1 + _NODES.size]
