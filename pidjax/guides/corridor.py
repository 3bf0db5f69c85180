"""The corridor problem: guide a bimodal law along a bent line, inside a narrow tube.

    line       m(s) = (3s, h(s) − h(0) − s(h(1) − h(0))),   h = 0.7 [ tanh 6(s−0.3) − tanh 6(s−0.7) ]
    target     ½N((3, ½), Σ) + ½N((3, −½), Σ),  Σ = diag(0.06, 0.05);  start at the origin
    protocol   stiffness a ttᵀ + c nnᵀ and centre m + ρn + σt on each piece, from the line's tangent t and normal n
    loss       the mass outside of the windows of widths 0.8 along t and 0.2 along n, at the pieces' middles up to 0.8

Source: the task E1 of the LQ-GM-PID code; Chertkov, *Guided Harmonic Path Integral Diffusion*, arXiv 2512.11859.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float

from .._doors.checks import check_count
from .._doors.show import shown
from ..exact.corridor import Corridor, corridor_loss
from ..process.protocol import Protocol
from ..process.schedule import piecewise
from ..targets.mixture import GaussianMixture

_NUM_POINTS = 1001
_LAST, _ALONG, _ACROSS = 0.8, 0.8, 0.2
_STEEPNESS = math.log((15 - 2) / (60 - 15))
_STIFFEST = 60


class Line(eqx.Module):
    """The line with its frame at the middles of P equal pieces.

    Attributes:
        times: s, shape (P,).
        points, tangents, normals: m, t and n, shape (P, 2).
    """

    times: Float[Array, " P"]
    points: Float[Array, "P 2"]
    tangents: Float[Array, "P 2"]
    normals: Float[Array, "P 2"]

    def __repr__(self):
        return shown("Line", pieces=self.times.size)


def line(num_pieces: int = 10, dtype: DTypeLike | None = None) -> Line:
    """The line at the middles of equal pieces; the frame by central differences on 1001 points.

    Example:
        >>> line().points.shape
        (10, 2)
    """
    num_pieces = check_count("num_pieces", num_pieces)
    s = np.linspace(0, 1, _NUM_POINTS)
    h = 0.7 * (np.tanh(6 * (s - 0.3)) - np.tanh(6 * (s - 0.7)))
    points = np.stack([3 * s, h - h[0] - s * (h[-1] - h[0])], axis=-1)
    tangents = np.gradient(points, s, axis=0)
    tangents = tangents / np.linalg.norm(tangents, axis=-1, keepdims=True)
    normals = np.stack([-tangents[:, 1], tangents[:, 0]], axis=-1)
    times = (np.arange(num_pieces) + 0.5) / num_pieces
    nearest = np.rint(times * (_NUM_POINTS - 1)).astype(int)
    return Line(
        *(jnp.asarray(part, dtype or float) for part in (times, points[nearest], tangents[nearest], normals[nearest]))
    )


def target(dtype: DTypeLike | None = None) -> GaussianMixture:
    """The two modes at (3, ±½)."""
    means = jnp.array([[3.0, 0.5], [3.0, -0.5]], dtype or float)
    return GaussianMixture(means, jnp.tile(jnp.diag(jnp.array([0.06, 0.05], dtype or float))[None], (2, 1, 1)))


def windows(num_pieces: int = 10, dtype: DTypeLike | None = None) -> Corridor:
    """The corridor, at the middles of the pieces up to the time 0.8."""
    on = line(num_pieces, dtype)
    axes = jnp.stack([on.tangents / _ALONG, on.normals / _ACROSS], axis=1)
    inner = int(np.sum((np.arange(num_pieces) + 0.5) / num_pieces <= _LAST))
    return Corridor(on.times[:inner], on.points[:inner], axes[:inner])


class Guide(eqx.Module):
    """A protocol in the line's frame, one number of each on each of P pieces.

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

    def __repr__(self):
        return shown("Guide", **vars(self))

    def protocol(self, on: Line) -> Protocol:
        """The protocol dx = u dt + dW from the origin, of this stiffness and centre.

        Raises:
            ValueError: a line of another number of pieces.
        """
        if on.times.shape != self.shift.shape:
            raise ValueError(
                f"on has {on.times.size} pieces but the guide has {self.shift.size}; pass line({self.shift.size})"
            )
        t, n = on.tangents, on.normals
        cosine, sine = jnp.cos(self.angle)[:, None], jnp.sin(self.angle)[:, None]
        first, second = cosine * t + sine * n, cosine * n - sine * t
        stiffness = self.along[:, None, None] * _outer(first) + self.across[:, None, None] * _outer(second)
        centre = on.points + self.shift[:, None] * n + self.lead[:, None] * t
        return piecewise(stiffness, centre=centre, start=jnp.zeros(2, t.dtype), noise_scale=jnp.ones((), t.dtype))


def _outer(a: Float[Array, "P 2"]) -> Float[Array, "P 2 2"]:
    """a aᵀ."""
    return a[:, :, None] * a[:, None]


def baseline(num_pieces: int = 10, dtype: DTypeLike | None = None) -> Guide:
    """Stiffness 3 in every direction, on the line."""
    return hand_made(3.0, num_pieces, along=3.0, dtype=dtype)


def hand_made(across: float, num_pieces: int = 10, *, along: float = 0.2, dtype: DTypeLike | None = None) -> Guide:
    """One stiffness along the line and another across it, on the line."""
    none = _zeros(num_pieces, dtype)
    return Guide(none + along, none + across, none, none, none)


def _zeros(num_pieces: int, dtype: DTypeLike | None) -> Float[Array, " P"]:
    return jnp.zeros(check_count("num_pieces", num_pieces), dtype or float)


def loss(guide: Guide) -> Float[Array, ""]:
    """L, the mean mass outside of the windows at the middles of ten pieces, whatever the guide's own pieces.

    Example:
        >>> print(f"{loss(baseline()):.4f}")
        0.7025
    """
    dtype = guide.shift.dtype
    protocol = guide.protocol(line(guide.shift.size, dtype))
    return corridor_loss(target(dtype), protocol, windows(dtype=dtype))


class ShiftAndStiffness(eqx.Module):
    """The parameters of the published run: ρ, and c with the stiffness 2 + 58 σ(c) across; 0.2 along."""

    shift: Float[Array, " P"]
    steepness: Float[Array, " P"]

    def __repr__(self):
        return shown("ShiftAndStiffness", **vars(self))

    @classmethod
    def start(cls, num_pieces: int = 10, dtype: DTypeLike | None = None) -> "ShiftAndStiffness":
        """ρ = 0 and a stiffness of 15 across."""
        none = _zeros(num_pieces, dtype)
        return cls(none, none + _STEEPNESS)

    @property
    def guide(self) -> Guide:
        none = jnp.zeros_like(self.shift)
        return Guide(none + 0.2, 2 + 58 * jax.nn.sigmoid(self.steepness), none, self.shift, none)


def bare_loss(parameters: "ShiftAndStiffness | Free") -> Float[Array, ""]:
    """L of the parameters' guide."""
    return loss(parameters.guide)


def regularised_loss(parameters: ShiftAndStiffness) -> Float[Array, ""]:
    """10 L + 0.1 L_ρ + 0.05 L_c: with L_ρ for a smooth, short shift and L_c for a stiffness that stays near its start.

    L_ρ = mean (Δρ)² + ½ mean (Δ²ρ)² + 0.3 mean softplus(15(|ρ| − 0.55))/15,    L_c = mean (Δc)² + ½ mean (c − c₀)².

    Example:
        >>> print(f"{regularised_loss(ShiftAndStiffness.start()):.3f}")
        6.323
    """
    shift, steepness = parameters.shift, parameters.steepness
    long = 0.3 * jnp.mean(jax.nn.softplus(15 * (jnp.abs(shift) - 0.55))) / 15
    of_shift = jnp.mean(jnp.diff(shift) ** 2) + 0.5 * jnp.mean(jnp.diff(shift, 2) ** 2) + long
    of_steepness = jnp.mean(jnp.diff(steepness) ** 2) + 0.5 * jnp.mean((steepness - _STEEPNESS) ** 2)
    return 10 * bare_loss(parameters) + 0.1 * of_shift + 0.05 * of_steepness


class Free(eqx.Module):
    """Every number of the guide free, both eigenvalues of the stiffness between 0 and 60.

    Without a bound the loss has no minimum: an infinite stiffness holds the path on the line.

    Attributes:
        along, across: r, of eigenvalues 60 σ(r).
        angle, shift, lead: as in `Guide`.
    """

    along: Float[Array, " P"]
    across: Float[Array, " P"]
    angle: Float[Array, " P"]
    shift: Float[Array, " P"]
    lead: Float[Array, " P"]

    def __repr__(self):
        return shown("Free", **vars(self))

    @classmethod
    def start(cls, num_pieces: int = 10, dtype: DTypeLike | None = None) -> "Free":
        """Stiffness 15 across and 0.2 along, on the line."""
        none = _zeros(num_pieces, dtype)
        along, across = (math.log(value / (_STIFFEST - value)) for value in (0.2, 15.0))
        return cls(none + along, none + across, none, none, none)

    @property
    def guide(self) -> Guide:
        along, across = (_STIFFEST * jax.nn.sigmoid(raw) for raw in (self.along, self.across))
        return Guide(along, across, self.angle, self.shift, self.lead)
