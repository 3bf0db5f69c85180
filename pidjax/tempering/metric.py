"""The metric of Hamiltonian moves: a linear map F for each group of particles, in whose coordinates the density is round.

    y ← y + ε F v,    v ← v + ½ε Fᵀ∇ log π,    F Fᵀ ≈ I⁻¹,    I = E[ g gᵀ ],  g = ∇ log π

The Fisher matrix I is the mean *local* precision: the distance between modes does not enter it. Estimated from the very
particles that it moves it would bias them (a particle's own gradient weighs d/N in its own metric), so each half of the
islands moves with that of the other half.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._maths.small import HIGHEST, cholesky, inverse_triangular, matmul, transpose

MOST_DENSE = 256
"""The largest dimension with a full Fisher matrix; a diagonal above."""
_RIDGE = 1e-6


class Metric(eqx.Module):
    """G linear maps of N particles, which stand in the order (repeats, G, …): each map for a group in each repeat.

    Example:
        >>> Metric(jnp.array([[1.0], [10.0]]), 2).forward(jnp.ones((4, 1))).ravel().tolist()
        [1.0, 10.0, 1.0, 10.0]
    """

    factors: Float[Array, "G *map"]
    repeats: int = eqx.field(static=True)

    def forward(self, vectors: Float[Array, "N d"]) -> Float[Array, "N d"]:
        """F v."""
        return self._apply(vectors, self.factors)

    def adjoint(self, vectors: Float[Array, "N d"]) -> Float[Array, "N d"]:
        """Fᵀ v."""
        return self._apply(vectors, transpose(self.factors) if self.factors.ndim == 3 else self.factors)

    def _apply(self, vectors, maps):
        groups, dim = maps.shape[0], vectors.shape[1]
        grouped = vectors.reshape(self.repeats, groups, -1, dim)
        if maps.ndim == 3:
            return jnp.matmul(grouped, transpose(maps)[None], precision=HIGHEST).reshape(vectors.shape)
        return (grouped * maps.reshape(1, groups, 1, -1)).reshape(vectors.shape)


def fisher_factors(slopes: Float[Array, "N d"]) -> Float[Array, "2 *map"]:
    """F of each half of the particles, from the gradients of the other half.

    The Fisher matrix of n gradients is shrunk to its diagonal by d/(n + d); above 256 dimensions it is its diagonal.

    Example:
        >>> fisher_factors(jnp.array([[2.0], [2.0], [0.5], [0.5]])).ravel().round(3).tolist()
        [2.0, 0.5]
    """
    number, dim = slopes.shape
    others = slopes.reshape(2, number // 2, dim)[::-1]
    diagonals = jnp.mean(others**2, axis=1)
    largest = jnp.max(diagonals, axis=1, keepdims=True)
    diagonals = jnp.maximum(diagonals, jnp.where(largest > 0, _RIDGE * largest, 1))
    scales = diagonals**-0.5
    if dim > MOST_DENSE:
        return scales
    scaled = others * scales[:, None]
    shrinkage = dim / (number // 2 + dim)
    one = jnp.eye(dim, dtype=slopes.dtype)[None]
    shrunk = (1 - shrinkage) * matmul(transpose(scaled), scaled) / (number // 2) + (shrinkage + _RIDGE) * one
    inverse_roots = transpose(inverse_triangular(cholesky(shrunk)))
    regular = jnp.all(jnp.isfinite(inverse_roots), axis=(1, 2), keepdims=True)
    return scales[:, :, None] * jnp.where(regular, inverse_roots, one)
