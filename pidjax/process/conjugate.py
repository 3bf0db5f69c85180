"""Conjugate points: where the Green function of the reference stops being finite.

Along short stretches of the Hamiltonian flow exp(τH) of (x, p), H = [[F, I], [S, −Fᵀ]], the exponent of the Green function
is −½xᵀAx + xᵀBy − ½yᵀCy with A = Φ₁₂⁻¹Φ₁₁, B = Φ₁₂⁻¹, C = Φ₂₂Φ₁₂⁻¹. Two of them meet in a finite integral if and only if
C(first) + A(second) > 0, and then C = C₂ − B₂ᵀ(C₁ + A₂)⁻¹B₂. Where S ≥ 0 there are no conjugate points.
"""

import numpy as np
from jaxtyping import Array, Float

from .._doors.checks import concrete
from .._maths.maps import Map

_MOST_STRETCHES = 200_000

_STRETCH = 0.25
"""Longest ‖τH‖ of a stretch."""


def check_conjugate(
    stiffness: Float[Array, "P *map"],
    drift: Float[Array, "P *map"],
    edges: Float[Array, " ends"],
    start_covariance: Map | None,
    horizon: Float[Array, ""],
    dim: int,
) -> None:
    """Raise if concrete pieces of the unit problem have a conjugate point before the end, saying when.

    Args:
        stiffness, drift: S and F of each piece.
        edges: the ends of the pieces, from 0 to 1.
        start_covariance: of a Gaussian start; None for a point.
        horizon: T, for the message.

    Raises:
        ValueError: with the time of the conjugate point in the user's units.
    """
    given = [stiffness, drift, edges, horizon, *([] if start_covariance is None else [start_covariance])]
    values = [concrete(array) for array in given]
    if any(value is None for value in values):
        return
    stiffnesses, drifts, ends, end, *starts = (np.asarray(value, dtype=np.float64) for value in values)
    if not (np.isfinite(stiffnesses).all() and np.isfinite(drifts).all()):
        raise ValueError(
            "beta, force and gauge are not finite in the unit problem, where they are β σ²T², T f and σ²T A: pass a smaller "
            f"noise_scale or horizon ({float(end):g})"
        )
    smallest = (
        np.linalg.eigvalsh(stiffnesses)[:, 0]
        if stiffnesses.ndim == 3
        else stiffnesses.reshape(len(stiffnesses), -1).min(1)
    )
    if (smallest >= -1e-6 * (1 + np.abs(stiffnesses).reshape(len(smallest), -1).max(1))).all():
        return
    if stiffnesses.ndim == drifts.ndim == 1 and all(np.ndim(start) == 0 for start in starts):
        dim = 1
    maps = list(zip(_matrices(stiffnesses, dim), _matrices(drifts, dim), strict=True))
    begun = _matrices(starts[0][None], dim)[0] if starts else None
    time = first_conjugate_time(maps, ends, begun)
    if time is not None:
        narrower = "" if begun is None else ", a narrower start"
        raise ValueError(
            f"beta, force and gauge have a conjugate point at t = {time * end:.4g}, within the horizon {end:g}: the "
            f"Green function is infinite from there on (smallest beta, or beta with its gauge terms, in the unit problem: "
            f"{smallest.min():g}; a constant scalar must exceed -pi^2 = -9.8696). Pass a "
            f"larger beta{narrower}, or a shorter horizon"
        )


def first_conjugate_time(
    maps: list[tuple[np.ndarray, np.ndarray]], edges: np.ndarray, start_covariance: np.ndarray | None = None
) -> float | None:
    """The first time at which the integral over a meeting point diverges; None for never.

    Args:
        maps: S and F of each piece, (d, d).
        edges: the ends of the pieces, one more than pieces.
        start_covariance: of a Gaussian start, (d, d), whose inverse stands for C at first.
    """
    end = None if start_covariance is None else np.linalg.inv(start_covariance)
    for (stiffness, drift), start, stop in zip(maps, edges[:-1], edges[1:]):
        speed = np.sqrt(np.linalg.norm(stiffness, 2)) + np.linalg.norm(drift, 2)
        count = max(1, int(np.ceil((stop - start) * speed / _STRETCH)))
        if count > _MOST_STRETCHES:
            raise ValueError(
                f"beta, force and gauge are of size {speed:.2g} per unit of time in the unit problem, and not of one sign: "
                "too large to look for conjugate points. Pass smaller ones, or a shorter horizon"
            )
        stretch = (stop - start) / count
        a, b, c = _exponent(stiffness, drift, stretch)
        for number in range(count):
            if end is None:
                end = c
                continue
            if not _meet(end, a):
                return float(start + number * stretch + _last_meeting(end, stiffness, drift, stretch))
            end = c - b.T @ np.linalg.solve(end + a, b)
    return None


def _meet(end: np.ndarray, a: np.ndarray) -> bool:
    return bool(np.linalg.eigvalsh((end + a + (end + a).T) / 2)[0] > 0)


def _last_meeting(end: np.ndarray, stiffness: np.ndarray, drift: np.ndarray, stretch: float) -> float:
    """The longest part of a stretch that still meets, by bisection."""
    low, high = 0.0, stretch
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if _meet(end, _exponent(stiffness, drift, middle)[0]) else (low, middle)
    return high


def _exponent(stiffness: np.ndarray, drift: np.ndarray, duration: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A, B, C of one stretch."""
    dim = len(drift)
    hamiltonian = duration * np.block([[drift, np.eye(dim)], [stiffness, -drift.T]])
    flow = np.eye(2 * dim)
    for k in range(24, 0, -1):
        flow = np.eye(2 * dim) + hamiltonian @ flow / k
    from_momentum = np.linalg.inv(flow[:dim, dim:])
    return from_momentum @ flow[:dim, :dim], from_momentum, flow[dim:, dim:] @ from_momentum


def _matrices(stack: np.ndarray, dim: int) -> np.ndarray:
    """A stack of scalars, diagonals or matrices, as matrices."""
    if stack.ndim == 3:
        return stack
    return np.eye(dim) * np.broadcast_to(stack.reshape(len(stack), -1), (len(stack), dim))[:, None]
