"""The Schrödinger bridge of a protocol: from one law to another, at least cost.

    π(x₀, y) = φ₀(x₀) G(0, x₀ → T, y) φ₁(y),     ∫π dy = μ₀,   ∫π dx₀ = μ₁

Given its two ends the optimal process is the reference's bridge, so paths are drawn exactly: a pair from π, and a bridge. Given
x₀ alone it is the optimal process to the law π(y | x₀), and its control at (t, x) is the same whatever x₀ was.

    two Gaussians      B = ∂²log G/∂x∂y,  Σ₁' = BΣ₁Bᵀ,    Cov(x₀, y) = { Σ₀^½ (Σ₀^½ Σ₁' Σ₀^½ + ¼)^½ Σ₀^−½ − ½ } B⁻ᵀ
    two data sets      Sinkhorn's iteration with the cost −log G

Source: Teter, Wang & Halder 2024, for the quadratic state cost; Janati et al., arXiv 2006.02572, for Gaussians.
"""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from .._doors.checks import as_point, check_count, check_key, check_kind, concrete
from .._doors.extras import load
from .._doors.show import shown
from .._maths.small import (
    cholesky,
    inverse_and_log_determinant,
    inverse_triangular,
    matmul,
    matvec,
    symmetric_root,
    transpose,
)
from ..process.grids import AbstractGrid, uniform_grid
from ..process.protocol import Protocol
from ..process.unit import LogGreen, started
from ..targets.mixture import GaussianMixture
from ..targets.samples import Samples
from .point import Point
from .problem import Problem
from .rollout import backward_states

_THRESHOLD = 1e-5
_MOST_ITERATIONS = 100_000
_MOST_ERROR = 1e-3


class AbstractCoupling(eqx.Module):
    """The joint law π of both ends."""

    @abstractmethod
    def given(self, x: Float[Array, " d"]) -> GaussianMixture | Samples:
        """π(y | x₀), and where x₀ cannot lie the law to which the same process would lead from there."""

    @abstractmethod
    def draw(self, key: Key[Array, ""], count: int) -> tuple[Float[Array, "n d"], Float[Array, "n d"]]:
        """Pairs (x₀, y)."""


class GaussianCoupling(AbstractCoupling):
    """(x₀, y) jointly Gaussian, with `across` = Cov(x₀, y)."""

    start: GaussianMixture
    end: GaussianMixture
    across: Float[Array, "d d"]

    @property
    def gain(self) -> Float[Array, "d d"]:
        """∂E[y | x₀]/∂x₀."""
        return matmul(transpose(self.across), inverse_and_log_determinant(self.start.covariances[0])[0])

    def given(self, x):
        mean = self.end.means[0] + matvec(self.gain, x - self.start.means[0])
        return GaussianMixture(mean[None], (self.end.covariances[0] - matmul(self.gain, self.across))[None])

    def draw(self, key, count):
        key_start, key_end = jax.random.split(key)
        starts = self.start.sample(key_start, count)
        at_mean = self.given(self.start.means[0])
        noise = jax.random.normal(key_end, starts.shape, starts.dtype)
        moved = matmul(starts - self.start.means[0][None], transpose(self.gain))
        return starts, at_mean.means[0][None] + moved + matmul(noise, transpose(cholesky(at_mean.covariances[0])))


class DiscreteCoupling(AbstractCoupling):
    """Points x_i, y_j of two data sets: π(y_j | x) ∝ e^{h_j} G(x, y_j).

    Attributes:
        log_potential: h.
        error: Σ_j |Σ_i π_ij − w_j|; the first marginal is exact.
    """

    start: Samples
    end: Samples
    log_green: LogGreen
    log_potential: Float[Array, " m"]
    error: Float[Array, ""]

    def given(self, x):
        return Samples(self.end.points, self.weights(x))

    def weights(self, x: Float[Array, " d"]) -> Float[Array, " m"]:
        """π(y_j | x)."""
        return jax.nn.softmax(self.log_potential - _costs(x[None], self.end.points, self.log_green)[0])

    def draw(self, key, count):
        key_start, key_ends = jax.random.split(key)
        chosen = jax.random.choice(key_start, len(self.start.points), (count,), p=self.start.weights)
        starts = self.start.points[chosen]

        def end_of(pair):
            key, x = pair
            return self.end.points[jax.random.choice(key, len(self.end.points), p=self.weights(x))]

        return starts, jax.lax.map(end_of, (jax.random.split(key_ends, count), starts), batch_size=256)


class Bridge(eqx.Module):
    """The optimal process from one law to another, made by `schrodinger_bridge`.

    Attributes:
        protocol: the process.
        origin: the mean of the first law.
        coupling: the joint law of both ends.
    """

    protocol: Protocol
    origin: Float[Array, " d"]
    coupling: AbstractCoupling

    def __repr__(self):
        return shown("Bridge", coupling=type(self.coupling).__name__, protocol=self.protocol)

    def given(self, x: Float[Array, " d"]) -> Problem:
        """The problem of a path that starts at x₀ = x."""
        return Problem(self.coupling.given(x), started(self.protocol, x))

    def at(self, t: Any, x: Float[Array, " d"]) -> Point:
        """Value, weighted state and control at one point; as `Problem.at`.

        Example:
            >>> laws = [GaussianMixture.isotropic(jnp.full((1, 1), mean), 1.0) for mean in (-1.0, 1.0)]
            >>> bridge = schrodinger_bridge(*laws, pid.harmonic(0.0, noise_scale=1.0))
            >>> print(f"{bridge.at(0.0, jnp.array([-1.0])).control[0]:.2f}")
            2.00
        """
        x = as_point("x", x, self.origin.size)
        return self.given(jnp.where(jnp.asarray(t) > 0, self.origin, x)).at(t, x)

    def sample(self, key: Key[Array, ""], num_samples: int, grid: AbstractGrid) -> Float[Array, "n times d"]:
        """Paths of the optimal process at the times of a grid, exactly: x_k of each, from μ₀ to μ₁."""
        check_key("key", key)
        num_samples = check_count("num_samples", num_samples)
        check_kind("grid", grid, AbstractGrid, "log_snr_grid(...), uniform_grid(...) or at_times(...)")
        prepared = self.given(self.origin).prepare(grid)
        key_ends, key_paths = jax.random.split(key)
        return _paths(prepared, key_paths, *self.coupling.draw(key_ends, num_samples))


@eqx.filter_jit
def _paths(prepared, key, starts, ends) -> Float[Array, "n times d"]:
    unit = prepared.unit

    def path(number, start, end):
        own = eqx.tree_at(lambda one: one.unit.start, prepared, unit.to_unit(start))
        states = backward_states(own, key, number[None], unit.to_unit(end)[None])[0]
        return unit.from_unit(states).at[0].set(start)

    return jax.vmap(path)(jnp.arange(len(starts)), starts, ends)


def schrodinger_bridge(start: GaussianMixture | Samples, end: GaussianMixture | Samples, protocol: Protocol) -> Bridge:
    """The optimal process from one law to another.

    Args:
        start, end: μ₀ and μ₁: each one Gaussian, closed; or each `Samples`, by Sinkhorn's iteration, which needs ott-jax.
        protocol: with a `noise_scale`, and no start.

    Raises:
        ValueError: laws of other kinds, not of the same kind, or of two dimensions; a protocol with a start, or without a
            `noise_scale`; an iteration that does not settle.
        ImportError: ott-jax is missing.

    Example:
        >>> laws = [pid.Samples(jnp.array(points)) for points in ([[-1.0], [1.0]], [[-2.0], [2.0], [3.0]])]
        >>> bridge = schrodinger_bridge(*laws, pid.harmonic(1.0, noise_scale=1.0))
        >>> paths = bridge.sample(jax.random.key(0), 100, pid.uniform_grid(4))
        >>> sorted(set(paths[:, -1, 0].tolist()))
        [-2.0, 2.0, 3.0]
    """
    check_kind("protocol", protocol, Protocol, "harmonic(...), piecewise(...) or from_function(...)")
    if protocol.noise_scale is None or protocol.start is not None:
        raise ValueError("protocol must have a noise_scale, and no start: the first law is the start")
    are_gaussian = isinstance(start, GaussianMixture) and isinstance(end, GaussianMixture)
    if not (are_gaussian or (isinstance(start, Samples) and isinstance(end, Samples))):
        raise ValueError(
            f"start is a {type(start).__name__} and end a {type(end).__name__}; pass two GaussianMixtures of one component, "
            "or two data sets"
        )
    if start.dim != end.dim:
        raise ValueError(f"start has dimension {start.dim} but end {end.dim}")
    origin = start.place().mean
    Problem(end, started(protocol, origin)).prepare(uniform_grid(1))
    if isinstance(start, Samples) and isinstance(end, Samples):
        return Bridge(protocol, origin, _by_sinkhorn(start, end, LogGreen.of(protocol, origin)))
    assert isinstance(start, GaussianMixture)
    assert isinstance(end, GaussianMixture)
    for name, law in (("start", start), ("end", end)):
        if len(law.means) != 1:
            raise ValueError(f"{name} has {len(law.means)} components; pass one Gaussian, or samples of it")
    return Bridge(protocol, origin, GaussianCoupling(start, end, _across(start, end, protocol)))


@eqx.filter_jit
def _across(start: GaussianMixture, end: GaussianMixture, protocol: Protocol) -> Float[Array, "d d"]:
    """Cov(x₀, y), with Σ₀ = LLᵀ: Σ₀^½ (Σ₀^½ Σ₁' Σ₀^½ + ¼)^½ Σ₀^−½ = L (Lᵀ Σ₁' L + ¼)^½ L⁻¹."""
    origin = jnp.zeros_like(start.means[0])
    mixed = jax.jacfwd(jax.grad(LogGreen.of(protocol, origin)), argnums=1)(origin, origin)
    lower = cholesky(start.covariances[0])
    inner = matmul(matmul(matmul(transpose(lower), mixed), end.covariances[0]), matmul(transpose(mixed), lower))
    half = 0.5 * jnp.eye(origin.size, dtype=origin.dtype)
    root = symmetric_root(inner + 0.5 * half)
    scaled = matmul(matmul(lower, root - half), inverse_triangular(lower))
    return matmul(scaled, transpose(inverse_and_log_determinant(mixed)[0]))


def _by_sinkhorn(start: Samples, end: Samples, log_green: LogGreen) -> DiscreteCoupling:
    load("ott", user="schrodinger_bridge, for two data sets,", package="ott-jax", extra="metrics")
    from ott.geometry.geometry import Geometry
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn import Sinkhorn

    costs = _costs(start.points, end.points, log_green)
    solver = Sinkhorn(threshold=_THRESHOLD, max_iterations=_MOST_ITERATIONS)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        found = jax.jit(solver)(LinearProblem(Geometry(costs, epsilon=1.0), start.weights, end.weights))
    log_potential = found.g
    joint = start.weights[:, None] * jax.nn.softmax(log_potential[None] - costs, axis=1)
    error = jnp.sum(jnp.abs(jnp.sum(joint, axis=0) - end.weights))
    known = concrete(error)
    if known is not None and not known < _MOST_ERROR:
        raise ValueError(
            f"Sinkhorn's iteration ends {known:.2g} from the second law in total variation: the noise is small beside the "
            "distances between the laws; take a larger noise_scale"
        )
    return DiscreteCoupling(start, end, log_green, log_potential, error)


@eqx.filter_jit
def _costs(starts, ends, log_green: LogGreen) -> Float[Array, "n m"]:
    """−log G of each pair."""
    return -jax.vmap(lambda x: jax.vmap(lambda y: log_green(x, y))(ends))(starts)
