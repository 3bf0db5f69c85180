"""The linear algebra of small Gaussians, in full precision on every device."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

HIGHEST = jax.lax.Precision.HIGHEST


def matvec(matrices: Float[Array, "*k i j"], vectors: Float[Array, "*k j"]) -> Float[Array, "*k i"]:
    return jnp.einsum("...ij,...j->...i", matrices, vectors, precision=HIGHEST)


def matmul(left: Float[Array, "*k i j"], right: Float[Array, "*k j l"]) -> Float[Array, "*k i l"]:
    return jnp.matmul(left, right, precision=HIGHEST)


def inverse_triangular(lower: Float[Array, "*k d d"]) -> Float[Array, "*k d d"]:
    """L⁻¹ of a lower triangular matrix."""
    identity = jnp.broadcast_to(jnp.eye(lower.shape[-1], dtype=lower.dtype), lower.shape)
    return jax.scipy.linalg.solve_triangular(lower, identity, lower=True)


def transpose(matrices: Float[Array, "*k i j"]) -> Float[Array, "*k j i"]:
    return jnp.swapaxes(matrices, -1, -2)


def log_diagonal(lower: Float[Array, "*k d d"]) -> Float[Array, "*k"]:
    """Σ_i log L_ii, the log-determinant of a triangular matrix."""
    return jnp.sum(jnp.log(jnp.diagonal(lower, axis1=-2, axis2=-1)), axis=-1)
