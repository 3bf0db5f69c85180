"""A cost at the end in the place of a law: linearly solvable stochastic optimal control.

    minimise E[ ∫ ( |u|²/2σ² + V ) dt + ∫ Aᵀ∘dx + c(x_T) ]          ⟺          p̃(y) = e^{−c(y)} G(0, x₀ → T, y)

The optimal process ends on this law; its log Z = log ψ(0, x₀) is minus the least cost from x₀. Where the cost is quadratic the
law is Gaussian, and value and control are closed for every protocol.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, DTypeLike, Float

from .._doors.checks import as_dtype, as_floating, check_count, check_kind, check_symmetric, concrete
from .._doors.functions import check_scalar, evaluate
from .._maths.small import cholesky, eigenvalues, inverse_triangular, log_diagonal, matmul, matvec, transpose
from ..process.protocol import GaussianStart, Protocol
from ..process.unit import LogGreen, check_alone
from ..targets.density import Density
from ..targets.mixture import GaussianMixture


class EndedByCost(eqx.Module):
    """log p̃(y) = log G(0, x₀ → T, y) − c(y), in the user's units."""

    cost: Callable[[Float[Array, " d"]], Float[Array, ""]]
    log_green: LogGreen
    start: Float[Array, " d"]

    def __call__(self, y: Float[Array, " d"]) -> Float[Array, ""]:
        return self.log_green(self.start, y) - evaluate(self.cost, y)


class QuadraticEnd(NamedTuple):
    """The Gaussian law that the optimal process ends on, and log Z, minus the least cost from the start."""

    target: GaussianMixture
    log_z: Float[Array, ""]


def terminal_cost(cost: Callable, dim: int, protocol: Protocol, *, dtype: DTypeLike | None = None) -> Density:
    """The target whose optimal process has a cost at its end: for `sample`, with the same protocol.

    Args:
        cost: c, a function of one point, shape (d,), to a scalar, bounded below or growing more slowly than −log G.
        dim: d.
        protocol: with a start x₀ that is a point, and a `noise_scale`.
        dtype: JAX's default if left out.

    Raises:
        ValueError: a cost that gives no scalar; a protocol with a `GaussianStart` or without a `noise_scale`, or one that is
            wrong by itself.

    Example:
        >>> protocol = pid.harmonic(0.0, noise_scale=1.0)
        >>> target = terminal_cost(lambda y: 0.5 * jnp.sum((y - 2) ** 2), 1, protocol)
        >>> print(f"{target.log_density(jnp.zeros(1)):.3f}")  # log N(0; 0, 1) − 2
        -2.919
    """
    dim, dtype = check_count("dim", dim), as_dtype(dtype)
    _check(protocol, dim)
    check_scalar("cost", cost, jax.ShapeDtypeStruct((dim,), dtype))
    return Density(EndedByCost(cost, *_from_start(protocol, jnp.zeros(dim, dtype))), dim, dtype=dtype)


def quadratic_terminal_cost(matrix: ArrayLike, vector: ArrayLike, protocol: Protocol) -> QuadraticEnd:
    """The same for c(y) = ½ yᵀQy + qᵀy: a Gaussian target, whose value function and control are exact.

    Args:
        matrix: Q, shape (d, d), symmetric; Q − ∇∇ log G must be positive definite.
        vector: q, shape (d,).
        protocol: as of `terminal_cost`.

    Raises:
        ValueError: other shapes; a law that has no mass; as `terminal_cost`.

    Example:
        >>> protocol = pid.harmonic(0.0, noise_scale=1.0)
        >>> end = quadratic_terminal_cost(jnp.eye(1), -2 * jnp.ones(1), protocol)
        >>> print(f"{pid.Problem(end.target, protocol).at(0.0, jnp.zeros(1)).control[0]:.3f}")
        1.000
    """
    matrix, vector = as_floating("matrix", matrix), as_floating("vector", vector)
    if vector.ndim != 1 or matrix.shape != 2 * vector.shape:
        raise ValueError(f"matrix has shape {matrix.shape} and vector {vector.shape}; pass shapes (d, d) and (d,)")
    check_symmetric("matrix", matrix[None])
    _check(protocol, vector.size)
    precision, slope, log_height = _quadratic(matrix, vector, protocol)
    least = concrete(eigenvalues(precision))
    if least is not None and not least[0] > 0:
        raise ValueError(
            f"matrix makes a law without mass: Q − ∇∇ log G has the smallest eigenvalue {least[0]:g}; pass a larger matrix"
        )
    whiten = inverse_triangular(cholesky(precision))
    covariance = matmul(transpose(whiten), whiten)
    mean = matvec(covariance, slope)
    log_z = log_height + 0.5 * slope @ mean + 0.5 * vector.size * math.log(2 * math.pi) + log_diagonal(whiten)
    return QuadraticEnd(GaussianMixture(mean[None], covariance[None]), log_z)


@eqx.filter_jit
def _quadratic(matrix, vector, protocol: Protocol):
    """Q − ∇∇ log G, ∇ log G − q and log G, all at the origin."""
    origin = jnp.zeros_like(vector)

    log_green, start = _from_start(protocol, origin)

    def from_start(y):
        return log_green(start, y)

    return matrix - jax.hessian(from_start)(origin), jax.grad(from_start)(origin) - vector, from_start(origin)


@eqx.filter_jit
def _from_start(protocol: Protocol, origin: Float[Array, " d"]) -> tuple[LogGreen, Float[Array, " d"]]:
    """log G, and x₀, the origin if the protocol has none."""
    log_green = LogGreen.of(protocol, origin)
    return log_green, log_green.unit.from_unit(log_green.unit.start)


def _check(protocol: Protocol, dim: int) -> None:
    check_kind("protocol", protocol, Protocol, "harmonic(...), piecewise(...) or from_function(...)")
    if protocol.noise_scale is None:
        raise ValueError(
            "protocol has no noise_scale: its units are a target's, of which there is none yet; give it one"
        )
    if isinstance(protocol.start, GaussianStart):
        raise ValueError("protocol has a GaussianStart; pass a start that is a point, from which the cost is counted")
    protocol.check_dimension(dim)
    check_alone(protocol)
