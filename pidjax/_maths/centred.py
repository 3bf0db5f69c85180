"""Coordinates of n particles whose centre is the origin."""

import numpy as np


def helmert(num_particles: int) -> np.ndarray:
    """B of shape (n, n − 1), with BᵀB = I and BBᵀ = I − 11ᵀ/n, in float64.

        B_ik = 1/√(k(k + 1)) for i ≤ k,     B_ik = −k/√(k(k + 1)) for i = k + 1,     0 for i > k + 1

    Example:
        >>> helmert(2).round(3)
        array([[ 0.707],
               [-0.707]])
    """
    i, k = np.arange(1, num_particles + 1)[:, None], np.arange(1, num_particles)[None]
    return np.where(i <= k, 1.0, np.where(i == k + 1, -k, 0)) / np.sqrt(k * (k + 1))
