"""The Schrödinger bridge of a protocol: from one law to another, at least cost.

    π(x₀, y) = φ₀(x₀) G(0, x₀ → T, y) φ₁(y),     ∫π dy = μ₀,   ∫π dx₀ = μ₁

Given its two ends the optimal process is the reference's bridge, so paths are drawn exactly: a pair from π, and a bridge. Given
x₀ alone it is the optimal process to the law π(y | x₀), and its control at (t, x) is the same whatever x₀ was.

    two Gaussians      B = ∂²log G/∂x∂y,  Σ₁' = BΣ₁Bᵀ,    Cov(x₀, y) = { Σ₀^½ (Σ₀^½ Σ₁' Σ₀^½ + ¼)^½ Σ₀^−½ − ½ } B⁻ᵀ
    others             Sinkhorn's iteration with the cost −log G, between data sets, or points drawn of a law that is none

A start that is drawn afresh is of μ₀, and its end one of the points, of μ₁ as far as the points of μ₀ tell. Then N paths have
weights with the denominator that all of them share,

    W_n = μ₁(y_n) / (1/N) Σ_k π(y_n | x_k),      E[W] = 1,

under which the ends are of μ₁. The duals f = log φ₀/μ₀ and g = log φ₁/μ₁ have log π/μ₀μ₁ = f(x₀) + log G + g(y), and

    E_μ₀ f + E_μ₁ g  =  E_π[ −log G ] + KL( π ‖ μ₀μ₁ )  =  the least cost + the entropy of μ₁.

Source: Teter, Wang & Halder, arXiv 2406.00503, for the quadratic state cost; Janati et al., arXiv 2006.02572, for Gaussians.
"""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
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
from ..targets.base import AbstractTarget
from ..targets.mixture import GaussianMixture
from ..targets.samples import Samples
from .point import Point
from .problem import Problem
from .rollout import backward_states
from .sample import sample

_THRESHOLD = 1e-5
_MOST_ITERATIONS = 100_000
_MOST_ERROR = 1e-3
_AT_ONCE = 256


class AbstractCoupling(eqx.Module):
    """The joint law π of both ends."""

    @abstractmethod
    def given(self, x: Float[Array, " d"]) -> GaussianMixture | Samples:
        """π(y | x₀), and where x₀ cannot lie the law to which the same process would lead from there."""

    @abstractmethod
    def draw(self, key: Key[Array, ""], count: int) -> tuple[Float[Array, "n d"], Float[Array, "n d"]]:
        """Pairs (x₀, y)."""

    @abstractmethod
    def duals(self, x: Float[Array, " d"], y: Float[Array, " d"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """f(x) and g(y)."""

    @property
    @abstractmethod
    def cost(self) -> Float[Array, ""]:
        """E_μ₀ f + E_μ₁ g."""

    def log_weights(self, starts: Float[Array, "n d"], ends: Float[Array, "n d"]) -> Float[Array, " n"]:
        """log W of drawn pairs; 0 where the ends are of μ₁ as they are."""
        return jnp.zeros(len(starts), starts.dtype)


class GaussianCoupling(AbstractCoupling):
    """(x₀, y) jointly Gaussian, with `across` = Cov(x₀, y)."""

    start: GaussianMixture
    end: GaussianMixture
    across: Float[Array, "d d"]
    log_green: LogGreen

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

    def duals(self, x, y):
        """With g = 0 at the mean of μ₁."""
        first, last = self.start.means[0], self.end.means[0]
        return self._sum(x, last), self._sum(first, y) - self._sum(first, last)

    def _sum(self, x, y) -> Float[Array, ""]:
        """f(x) + g(y)."""
        return self.given(x).log_density(y) - self.end.log_density(y) - self.log_green(x, y)

    @property
    def cost(self):
        first, last = self.start.means[0], self.end.means[0]
        bends = jax.hessian(self._sum, (0, 1))(first, last)
        within = jnp.sum(bends[0][0] * self.start.covariances[0]) + jnp.sum(bends[1][1] * self.end.covariances[0])
        return self._sum(first, last) + 0.5 * within


class DiscreteCoupling(AbstractCoupling):
    """Points x_i, y_j of two data sets: π(y_j | x) ∝ e^{h_j} G(x, y_j).

    Attributes:
        law: μ₀, which starts are drawn of: `start`, or a law that it holds points of.
        start, end: the points.
        log_potential: h.
        error: Σ_j |Σ_i π_ij − w_j|; the first marginal is exact.
    """

    law: GaussianMixture | Samples
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
        if isinstance(self.law, Samples):
            chosen = jax.random.choice(key_start, len(self.law.points), (count,), p=self.law.weights)
            starts = self.law.points[chosen]
        else:
            starts = self.law.sample(key_start, count)

        def end_of(pair):
            key, x = pair
            return self.end.points[jax.random.choice(key, len(self.end.points), p=self.weights(x))]

        return starts, jax.lax.map(end_of, (jax.random.split(key_ends, count), starts), batch_size=_AT_ONCE)

    def log_weights(self, starts, ends):
        if isinstance(self.law, Samples):
            return super().log_weights(starts, ends)
        return self._second(starts, jnp.zeros(len(starts), starts.dtype), ends) - self._second_of_points(ends)

    def duals(self, x, y):
        return self._first(x), self._second_of_points(y[None])[0]

    def _first(self, x) -> Float[Array, ""]:
        """f = −log Σ_j e^{h_j} G(x, y_j)."""
        return -logsumexp(self.log_potential - _costs(x[None], self.end.points, self.log_green)[0])

    def _second_of_points(self, ends) -> Float[Array, " n"]:
        """g, by the points of μ₀."""
        return self._second(self.start.points, jnp.log(self.start.weights), ends)

    def _second(self, starts, log_weights, ends) -> Float[Array, " n"]:
        """g = −log Σ_i w_i e^{f(x_i)} G(x_i, y) of each end, with the weights divided by their sum."""
        joint = log_weights + jax.lax.map(self._first, starts, batch_size=_AT_ONCE)
        log_norm = logsumexp(log_weights)

        def at(y):
            return log_norm - logsumexp(joint - _costs(starts, y[None], self.log_green)[:, 0])

        return jax.lax.map(at, ends, batch_size=_AT_ONCE)

    @property
    def cost(self):
        first = jax.lax.map(self._first, self.start.points, batch_size=_AT_ONCE)
        second = jnp.where(self.end.weights > 0, self.log_potential - jnp.log(self.end.weights), 0)
        return self.start.weights @ first + self.end.weights @ second


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
        """Paths of the optimal process at the times of a grid, exactly: x_k of each, from μ₀ to μ₁, or with `log_weights`."""
        check_key("key", key)
        num_samples = check_count("num_samples", num_samples)
        check_kind("grid", grid, AbstractGrid, "log_snr_grid(...), uniform_grid(...) or at_times(...)")
        prepared = self.given(self.origin).prepare(grid)
        key_ends, key_paths = jax.random.split(key)
        return _paths(prepared, key_paths, *_drawn(self.coupling, key_ends, num_samples))

    def log_weights(self, paths: Float[Array, "n times d"]) -> Float[Array, " n"]:
        """log W of the paths of one draw, under which their ends are of μ₁; 0 where they are so without.

        That is between two Gaussians, and from a data set or a density.
        """
        return _log_weights(self.coupling, paths[:, 0], paths[:, -1])

    def duals(self, x: Float[Array, " d"], y: Float[Array, " d"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """f(x) and g(y), up to a constant from one to the other."""
        dim = self.origin.size
        return self.coupling.duals(as_point("x", x, dim), as_point("y", y, dim))

    @property
    def cost(self) -> Float[Array, ""]:
        """E_π[ −log G ] + KL( π ‖ μ₀μ₁ ): the least cost is this less the entropy of μ₁, which is −∞ of a data set.

        Example:
            >>> laws = [GaussianMixture.isotropic(jnp.full((1, 1), mean), 1e-4) for mean in (-1.0, 1.0)]
            >>> bridge = schrodinger_bridge(*laws, pid.harmonic(0.0, noise_scale=1.0))
            >>> print(f"{bridge.cost:.2f}")  # 2²/2 + ½ log 2π
            2.92
        """
        return _cost(self.coupling)


_cost = eqx.filter_jit(lambda coupling: coupling.cost)
_drawn = eqx.filter_jit(lambda coupling, key, count: coupling.draw(key, count))
_log_weights = eqx.filter_jit(lambda coupling, starts, ends: coupling.log_weights(starts, ends))


@eqx.filter_jit
def _paths(prepared, key, starts, ends) -> Float[Array, "n times d"]:
    unit = prepared.unit

    def path(number, start, end):
        own = eqx.tree_at(lambda one: one.unit.start, prepared, unit.to_unit(start))
        states = backward_states(own, key, number[None], unit.to_unit(end)[None])[0]
        return unit.from_unit(states).at[0].set(start)

    return jax.vmap(path)(jnp.arange(len(starts)), starts, ends)


def schrodinger_bridge(
    start: AbstractTarget,
    end: AbstractTarget,
    protocol: Protocol,
    *,
    key: Key[Array, ""] | None = None,
    num_points: int = 2048,
) -> Bridge:
    """The optimal process from one law to another.

    Args:
        start, end: μ₀ and μ₁. Two Gaussians are closed. Else Sinkhorn's iteration, which needs ott-jax, between data sets, as
            they are, and points of other laws: a mixture is drawn from, a density is sampled.
        protocol: with a `noise_scale`, and no start.
        key: a typed key, for those points.
        num_points: of each such law.

    Raises:
        ValueError: laws that are no targets, or of two dimensions; no key where points are drawn; a protocol with a start, or
            without a `noise_scale`; an iteration that does not settle.
        SamplingError: a density whose points are not to be trusted.
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
    for name, law in (("start", start), ("end", end)):
        check_kind(name, law, AbstractTarget, "a GaussianMixture, Samples, a Density or another target")
    if start.dim != end.dim:
        raise ValueError(f"start has dimension {start.dim} but end {end.dim}")
    are_gaussian = all(isinstance(law, GaussianMixture) and len(law.means) == 1 for law in (start, end))
    first, last = (start, end) if are_gaussian else _points_of(start, end, key, check_count("num_points", num_points))
    origin = first.place().mean
    Problem(last, started(protocol, origin)).prepare(uniform_grid(1))
    log_green = LogGreen.of(protocol, origin)
    if isinstance(first, Samples) and isinstance(last, Samples):
        law = start if isinstance(start, GaussianMixture) else first
        return Bridge(protocol, origin, _by_sinkhorn(law, first, last, log_green))
    assert isinstance(first, GaussianMixture)
    assert isinstance(last, GaussianMixture)
    return Bridge(protocol, origin, GaussianCoupling(first, last, _across(first, last, protocol), log_green))


def _points_of(start, end, key, number: int) -> list[Samples]:
    """Both laws as data sets."""
    found = []
    for fold, (name, law) in enumerate((("start", start), ("end", end))):
        if isinstance(law, Samples):
            found.append(law)
            continue
        if key is None:
            raise ValueError(f"{name} is a {type(law).__name__}, of which points are drawn: pass a key")
        check_key("key", key)
        own = jax.random.fold_in(key, fold)
        if isinstance(law, GaussianMixture):
            found.append(Samples(law.sample(own, number)))
        else:
            solution = sample(own, law, num_samples=number, progress=False).check()
            found.append(Samples(solution.vectors, solution.weights))
    return found


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


def _by_sinkhorn(law, start: Samples, end: Samples, log_green: LogGreen) -> DiscreteCoupling:
    load("ott", user="schrodinger_bridge, but for two Gaussians,", package="ott-jax", extra="metrics")
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
    return DiscreteCoupling(law, start, end, log_green, log_potential, error)


@eqx.filter_jit
def _costs(starts, ends, log_green: LogGreen) -> Float[Array, "n m"]:
    """−log G of each pair."""
    return -jax.vmap(lambda x: jax.vmap(lambda y: log_green(x, y))(ends))(starts)
