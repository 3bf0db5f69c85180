"""Linear maps of ℝᵈ with the structure that they have: the rank of the array says which.

    rank 0   a multiple of the identity
    rank 1   a diagonal
    rank 2   a matrix

Every formula of the Gaussian algebra is written once, in these operations.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from . import small
from .small import inverse_triangular, matmul, matvec, transpose

Map = Float[Array, "..."]
Factor = Map
"""A lower triangular map."""


def apply(a: Map, x: Float[Array, " d"]) -> Float[Array, " d"]:
    """A x."""
    return matvec(a, x) if a.ndim == 2 else a * x


def product(a: Map, b: Map) -> Map:
    """A B."""
    if a.ndim == 2 and b.ndim == 2:
        return matmul(a, b)
    if a.ndim == 1 and b.ndim == 2:
        return a[:, None] * b
    if a.ndim == 2 and b.ndim == 1:
        return a * b[None]
    return a * b


def adjoint(a: Map) -> Map:
    """Aᵀ."""
    return transpose(a) if a.ndim == 2 else a


def sandwich(a: Map, b: Map) -> Map:
    """A B Aᵀ, symmetric if B is."""
    return symmetric(product(product(a, b), adjoint(a)))


def symmetric(a: Map) -> Map:
    """½(A + Aᵀ)."""
    return 0.5 * (a + a.T) if a.ndim == 2 else a


def plus_identity(a: Map) -> Map:
    """I + A."""
    return a + identity(a)


def identity(like: Map) -> Map:
    """I, with the structure and dtype of another map."""
    return jnp.eye(like.shape[0], dtype=like.dtype) if like.ndim == 2 else jnp.ones_like(like)


def inverse(a: Map) -> Map:
    """A⁻¹."""
    return small.inverse_and_log_determinant(a)[0] if a.ndim == 2 else 1 / a


def inverse_and_log_determinant(a: Map, dim: int) -> tuple[Map, Float[Array, ""]]:
    """A⁻¹ and log |det A|."""
    if a.ndim == 2:
        return small.inverse_and_log_determinant(a)
    return 1 / a, jnp.sum(jnp.log(jnp.abs(diagonal(a, dim))))


def cholesky(a: Map) -> Factor:
    """L with L Lᵀ = A."""
    return small.cholesky(a) if a.ndim == 2 else jnp.sqrt(a)


def cholesky_of_one_plus_square(a: Map) -> Factor:
    """L with L Lᵀ = I + A Aᵀ, exact to the resolution of A, not of its square."""
    return small.cholesky_of_one_plus_square(a) if a.ndim == 2 else jnp.sqrt(1 + a**2)


def inverse_factor(lower: Factor) -> Factor:
    """L⁻¹."""
    return inverse_triangular(lower) if lower.ndim == 2 else 1 / lower


def diagonal(a: Map, dim: int) -> Float[Array, " d"]:
    """The d diagonal elements."""
    return jnp.diagonal(a) if a.ndim == 2 else jnp.broadcast_to(a, (dim,))


def log_volume(lower: Factor, dim: int) -> Float[Array, ""]:
    """log det L = Σ log L_ii."""
    return jnp.sum(jnp.log(diagonal(lower, dim)))


def log_determinant(a: Map, dim: int) -> Float[Array, ""]:
    """log |det A|."""
    return inverse_and_log_determinant(a, dim)[1]


def norm(a: Map) -> Float[Array, ""]:
    """A bound of the operator norm: the largest sum of |a_ij| along a row."""
    return jnp.max(jnp.sum(jnp.abs(a), axis=-1)) if a.ndim == 2 else jnp.max(jnp.abs(a))


def dense(a: Map, dim: int) -> Float[Array, "d d"]:
    """The map as a matrix."""
    return a if a.ndim == 2 else jnp.diag(diagonal(a, dim))


def lift(a: Map, rank: int, dim: int) -> Map:
    """The same map with at least the structure of this rank."""
    if a.ndim >= rank:
        return a
    return diagonal(a, dim) if rank == 1 else dense(a, dim)
