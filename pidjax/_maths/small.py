"""The linear algebra of small Gaussians, in full precision on every device.

On CPU, two decompositions of whole batches at once can wait for each other for ever: each holds a thread while its parts
queue for one (jaxlib 0.10.1, two cores). So there the matrices of a batch are decomposed and inverted in turn, which
costs no more, and derivatives are matrix products.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

HIGHEST = jax.lax.Precision.HIGHEST


def matvec(matrices: Float[Array, "*k i j"], vectors: Float[Array, "*k j"]) -> Float[Array, "*k i"]:
    return jnp.einsum("...ij,...j->...i", matrices, vectors, precision=HIGHEST)


def matmul(left: Float[Array, "*k i j"], right: Float[Array, "*k j l"]) -> Float[Array, "*k i l"]:
    return jnp.matmul(left, right, precision=HIGHEST)


def lower_matvec(lower: Float[Array, "d d"], vector: Float[Array, " d"]) -> Float[Array, " d"]:
    """L y of a lower triangular matrix, whose quarter of zeros is left out."""
    half = lower.shape[0] // 2
    below = matvec(lower[half:, :half], vector[:half]) + matvec(lower[half:, half:], vector[half:])
    return jnp.concatenate([matvec(lower[:half, :half], vector[:half]), below])


def transpose(matrices: Float[Array, "*k i j"]) -> Float[Array, "*k j i"]:
    return jnp.swapaxes(matrices, -1, -2)


def tridiagonal_solve(
    below: Float[Array, "*k n"],
    diagonal: Float[Array, "*k n"],
    above: Float[Array, "*k n"],
    values: Float[Array, "*k n"],
) -> Float[Array, "*k n"]:
    """T⁻¹ v of tridiagonal matrices T; the first entry `below` and the last `above` are zero."""
    return jax.lax.linalg.tridiagonal_solve(below, diagonal, above, values[..., None])[..., 0]


def log_diagonal(lower: Float[Array, "*k d d"]) -> Float[Array, "*k"]:
    """Σ_i log L_ii, the log-determinant of a triangular matrix."""
    return jnp.sum(jnp.log(jnp.diagonal(lower, axis1=-2, axis2=-1)), axis=-1)


def _inverse_lower(lower: Float[Array, "*k d d"], *, unit_diagonal: bool = False) -> Float[Array, "*k d d"]:
    one = jnp.broadcast_to(jnp.eye(lower.shape[-1], dtype=lower.dtype), lower.shape)
    return jax.lax.linalg.triangular_solve(lower, one, left_side=True, lower=True, unit_diagonal=unit_diagonal)


def _inverse_by_lu(matrix: Float[Array, "*k d d"]) -> tuple[Float[Array, "*k d d"], Float[Array, "*k"]]:
    packed, _, permutation = jax.lax.linalg.lu(matrix)
    unpermuted = jax.lax.linalg.triangular_solve(packed, _inverse_lower(packed, unit_diagonal=True), left_side=True)
    columns = jnp.argsort(permutation, axis=-1)[..., None, :]
    return jnp.take_along_axis(unpermuted, columns, axis=-1), log_diagonal(jnp.abs(packed))


def _decomposition(of_one: Callable[[Array], Any]) -> Callable[[Array], Any]:
    """A decomposition mapped over leading axes: by a loop on CPU, at once elsewhere."""
    looped = jax.custom_batching.custom_vmap(of_one)

    @looped.def_vmap
    def _in_turn(axis_size, in_batched, matrix):
        of_batch = jax.lax.map(looped, matrix) if in_batched[0] else of_one(matrix)
        return of_batch, jax.tree.map(lambda _: in_batched[0], of_batch)

    def of_all(matrices: Float[Array, "*k i j"]) -> Any:
        in_loop, at_once = looped, of_one
        for _ in matrices.shape[:-2]:
            in_loop, at_once = jax.vmap(in_loop), jax.vmap(at_once)
        return jax.lax.platform_dependent(matrices, cpu=in_loop, default=at_once)

    return jax.jit(of_all)


_cholesky = _decomposition(lambda matrix: jnp.linalg.cholesky(matrix, symmetrize_input=True))
_upper = _decomposition(lambda matrix: jnp.linalg.qr(matrix, mode="r"))
_inverse_triangular = _decomposition(_inverse_lower)
_inverse_and_log_determinant = _decomposition(_inverse_by_lu)
_eigenvalues = _decomposition(lambda matrix: jnp.linalg.eigvalsh(matrix))
_eigenvectors = _decomposition(lambda matrix: jnp.linalg.eigh(matrix)[1])


@jax.custom_jvp
def inverse_triangular(lower: Float[Array, "*k d d"]) -> Float[Array, "*k d d"]:
    """L⁻¹ of a lower triangular matrix."""
    return _inverse_triangular(lower)


@inverse_triangular.defjvp
def _inverse_triangular_jvp(primals, tangents):
    inverse_lower = inverse_triangular(*primals)
    return inverse_lower, -matmul(inverse_lower, matmul(jnp.tril(tangents[0]), inverse_lower))


@jax.custom_jvp
def cholesky(matrices: Float[Array, "*k d d"]) -> Float[Array, "*k d d"]:
    """L, lower triangular, with L Lᵀ = A."""
    return _cholesky(matrices)


@cholesky.defjvp
def _cholesky_jvp(primals, tangents):
    lower = cholesky(*primals)
    whiten = inverse_triangular(lower)
    change = 0.5 * (tangents[0] + transpose(tangents[0]))
    return lower, _change_of_factor(lower, matmul(whiten, matmul(change, transpose(whiten))))


def _change_of_factor(lower: Float[Array, "*k d d"], white_change: Float[Array, "*k d d"]) -> Float[Array, "*k d d"]:
    """dL = L · tril(L⁻¹ dA L⁻ᵀ), its diagonal halved."""
    inner = jnp.tril(white_change)
    half = (
        0.5
        * jnp.diagonal(inner, axis1=-2, axis2=-1)[..., None]
        * jnp.broadcast_to(jnp.eye(lower.shape[-1], dtype=lower.dtype), lower.shape)
    )
    return matmul(lower, inner - half)


@jax.custom_jvp
def cholesky_of_one_plus_square(matrices: Float[Array, "*k d d"]) -> Float[Array, "*k d d"]:
    """L, lower triangular, with L Lᵀ = I + M Mᵀ: Rᵀ of [Mᵀ; I] = QR.

    M is never squared, and what is smaller than its largest part by less than the resolution of the dtype is still there.
    """
    one = jnp.broadcast_to(jnp.eye(matrices.shape[-1], dtype=matrices.dtype), matrices.shape)
    upper = _upper(jnp.concatenate([transpose(matrices), one], axis=-2))
    return transpose(upper * jnp.sign(jnp.diagonal(upper, axis1=-2, axis2=-1))[..., None])


@cholesky_of_one_plus_square.defjvp
def _cholesky_of_one_plus_square_jvp(primals, tangents):
    lower = cholesky_of_one_plus_square(*primals)
    whiten = inverse_triangular(lower)
    half = matmul(matmul(whiten, tangents[0]), transpose(matmul(whiten, primals[0])))
    return lower, _change_of_factor(lower, half + transpose(half))


@jax.custom_jvp
def eigenvalues(matrices: Float[Array, "*k d d"]) -> Float[Array, "*k d"]:
    """Ascending eigenvalues of symmetric matrices A."""
    return _eigenvalues(matrices)


@eigenvalues.defjvp
def _eigenvalues_jvp(primals, tangents):
    """dλ = diag(Vᵀ dA V), finite where eigenvalues coincide."""
    vectors = _eigenvectors(*primals)
    change = 0.5 * (tangents[0] + transpose(tangents[0]))
    return eigenvalues(*primals), jnp.sum(vectors * matmul(change, vectors), axis=-2)


@jax.custom_jvp
def symmetric_root(matrices: Float[Array, "*k d d"]) -> Float[Array, "*k d d"]:
    """A^½, symmetric, of symmetric positive definite matrices A."""
    vectors = _eigenvectors(matrices)
    roots = jnp.sqrt(jnp.sum(vectors * matmul(matrices, vectors), axis=-2))
    return matmul(vectors * roots[..., None, :], transpose(vectors))


@symmetric_root.defjvp
def _symmetric_root_jvp(primals, tangents):
    """dR solves R dR + dR R = dA: Vᵀ dR V = (Vᵀ dA V)_ij/(√λ_i + √λ_j)."""
    root, vectors = symmetric_root(*primals), _eigenvectors(*primals)
    roots = jnp.sum(vectors * matmul(root, vectors), axis=-2)
    inner = matmul(transpose(vectors), matmul(tangents[0], vectors)) / (roots[..., None] + roots[..., None, :])
    return root, matmul(vectors, matmul(inner, transpose(vectors)))


@jax.custom_jvp
def inverse_and_log_determinant(
    matrices: Float[Array, "*k d d"],
) -> tuple[Float[Array, "*k d d"], Float[Array, "*k"]]:
    """A⁻¹ and log |det A|, from one LU decomposition."""
    return _inverse_and_log_determinant(matrices)


@inverse_and_log_determinant.defjvp
def _inverse_and_log_determinant_jvp(primals, tangents):
    inverse, log_determinant = inverse_and_log_determinant(*primals)
    relative = matmul(inverse, tangents[0])
    return (inverse, log_determinant), (-matmul(relative, inverse), jnp.trace(relative, axis1=-2, axis2=-1))
