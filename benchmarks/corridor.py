"""The corridor problem: guide a bimodal law along a bent line, inside a narrow tube.

    line       m(s) = (3s, h(s) − h(0) − s(h(1) − h(0))),   h = 0.7 [ tanh 6(s−0.3) − tanh 6(s−0.7) ]
    target     ½N((3, ½), Σ) + ½N((3, −½), Σ),  Σ = diag(0.06, 0.05);  start at the origin
    protocol   stiffness a ttᵀ + c nnᵀ and centre m + ρn + σt on each of ten pieces, from the line's tangent t and normal n
    loss       the mass outside of the windows of widths 0.8 along t and 0.2 along n, at the pieces' middles up to 0.8

Source: the task E1 of the LQ-GM-PID code; Chertkov, *Guided Harmonic Path Integral Diffusion*, arXiv 2512.11859.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

import pidjax as pid
from pidjax.guides import Corridor, corridor_loss
from pidjax.learning import only

PIECES, NUM_POINTS = 10, 1001
LAST, ALONG, ACROSS = 0.8, 0.8, 0.2
STIFFEST, FIRST_STIFFNESS = 60, 15
STEEPNESS = math.log((FIRST_STIFFNESS - 2) / (STIFFEST - FIRST_STIFFNESS))
"""r, of 2 + 58 σ(r) = 15."""


def line(dtype: DTypeLike) -> tuple[Array, Array, Array, Array]:
    """s, m, t and n at the middles of the pieces; the frame by central differences on 1001 points."""
    s = np.linspace(0, 1, NUM_POINTS)
    h = 0.7 * (np.tanh(6 * (s - 0.3)) - np.tanh(6 * (s - 0.7)))
    points = np.stack([3 * s, h - h[0] - s * (h[-1] - h[0])], axis=-1)
    tangents = np.gradient(points, s, axis=0)
    tangents = tangents / np.linalg.norm(tangents, axis=-1, keepdims=True)
    normals = np.stack([-tangents[:, 1], tangents[:, 0]], axis=-1)
    times = (np.arange(PIECES) + 0.5) / PIECES
    nearest = np.rint(times * (NUM_POINTS - 1)).astype(int)
    parts = times, points[nearest], tangents[nearest], normals[nearest]
    return tuple(jnp.asarray(part, dtype) for part in parts)


def target(dtype: DTypeLike) -> pid.GaussianMixture:
    """The two modes at (3, ±½)."""
    means = jnp.array([[3.0, 0.5], [3.0, -0.5]], dtype)
    return pid.GaussianMixture(means, jnp.tile(jnp.diag(jnp.array([0.06, 0.05], dtype))[None], (2, 1, 1)))


def windows(dtype: DTypeLike) -> Corridor:
    """The corridor, at the middles of the pieces up to the time 0.8."""
    times, points, tangents, normals = line(dtype)
    axes = jnp.stack([tangents / ALONG, normals / ACROSS], axis=1)
    inner = int(np.sum((np.arange(PIECES) + 0.5) / PIECES <= LAST))
    return Corridor(times[:inner], points[:inner], axes[:inner])


class Guide(eqx.Module):
    """A protocol in the line's frame, one number of each on each of the pieces.

    Attributes:
        along, across: the eigenvalues a and c of the stiffness.
        angle: by which its axes are turned from the tangent and the normal.
        shift: ρ, of the centre along the normal.
        lead: σ, of the centre along the tangent.
    """

    along: Float[Array, " P"]
    across: Float[Array, " P"]
    angle: Float[Array, " P"]
    shift: Float[Array, " P"]
    lead: Float[Array, " P"]

    @property
    def protocol(self) -> pid.Protocol:
        """The protocol dx = u dt + dW from the origin, of this stiffness and centre."""
        _, points, t, n = line(self.shift.dtype)
        cosine, sine = jnp.cos(self.angle)[:, None], jnp.sin(self.angle)[:, None]
        first, second = cosine * t + sine * n, cosine * n - sine * t
        stiffness = self.along[:, None, None] * outer(first) + self.across[:, None, None] * outer(second)
        centre = points + self.shift[:, None] * n + self.lead[:, None] * t
        return pid.piecewise(stiffness, centre=centre, start=jnp.zeros(2, t.dtype), noise_scale=jnp.ones((), t.dtype))


def outer(a: Float[Array, "P 2"]) -> Float[Array, "P 2 2"]:
    """a aᵀ."""
    return a[:, :, None] * a[:, None]


def on_line(along: float, across: float, dtype: DTypeLike = float) -> Guide:
    """One stiffness along the line and another across it, on the line."""
    none = jnp.zeros(PIECES, dtype)
    return Guide(none + along, none + across, none, none, none)


def loss(guide: Guide) -> Float[Array, ""]:
    """L, the mean mass outside of the windows."""
    dtype = guide.shift.dtype
    return corridor_loss(target(dtype), guide.protocol, windows(dtype))


def published_start(dtype: DTypeLike = float) -> Guide:
    """What the published run learns: ρ, and r with the stiffness 2 + 58 σ(r) across, from 15; 0.2 along."""
    return only(lambda one: (one.shift, one.across), on_line(0.2, STEEPNESS, dtype))


def published(raw: Guide) -> Guide:
    return eqx.tree_at(lambda one: one.across, raw, 2 + 58 * jax.nn.sigmoid(raw.across))


def regularised_loss(raw: Guide) -> Float[Array, ""]:
    """10 L + 0.1 L_ρ + 0.05 L_r of the published run: for a smooth, short shift and a stiffness that stays near its start.

    L_ρ = mean (Δρ)² + ½ mean (Δ²ρ)² + 0.3 mean softplus(15(|ρ| − 0.55))/15,    L_r = mean (Δr)² + ½ mean (r − r₀)².
    """
    shift, steepness = raw.shift, raw.across
    long = 0.3 * jnp.mean(jax.nn.softplus(15 * (jnp.abs(shift) - 0.55))) / 15
    of_shift = jnp.mean(jnp.diff(shift) ** 2) + 0.5 * jnp.mean(jnp.diff(shift, 2) ** 2) + long
    of_steepness = jnp.mean(jnp.diff(steepness) ** 2) + 0.5 * jnp.mean((steepness - STEEPNESS) ** 2)
    return 10 * loss(published(raw)) + 0.1 * of_shift + 0.05 * of_steepness


def free_start(dtype: DTypeLike = float) -> Guide:
    """Every number free, the eigenvalues 60 σ(r): 15 across and 0.2 along, on the line.

    Without a bound the loss has no minimum: an infinite stiffness holds the path on the line.
    """
    return on_line(*(math.log(value / (STIFFEST - value)) for value in (0.2, FIRST_STIFFNESS)), dtype)


def bounded(raw: Guide) -> Guide:
    eigenvalues = [STIFFEST * jax.nn.sigmoid(raw) for raw in (raw.along, raw.across)]
    return eqx.tree_at(lambda one: (one.along, one.across), raw, eigenvalues)
