"""The Schrödinger bridge of a protocol: from one law to another, at least cost.

    π(x₀, y) = φ₀(x₀) G(0, x₀ → T, y) φ₁(y),     ∫π dy = μ₀,   ∫π dx₀ = μ₁

Given its two ends the optimal process is the reference's bridge, so paths are drawn exactly: a pair from π, and a bridge. Given
x₀ alone it is the optimal process to the law π(y | x₀), and its control at (t, x) is the same whatever x₀ was.

Between Gaussians π is closed; else Sinkhorn's iteration finds it, between data sets, or points drawn of a law that is none. A
start that is drawn afresh is of μ₀, and its end one of the points, of μ₁ as far as the points of μ₀ tell. Then N paths have
weights with the denominator that all of them share,

    W_n = μ₁(y_n) / (1/N) Σ_k π(y_n | x_k),      E[W] = 1,

under which the ends are of μ₁. The duals f = log φ₀/μ₀ and g = log φ₁/μ₁ have log π/μ₀μ₁ = f(x₀) + log G + g(y), and

    E_μ₀ f + E_μ₁ g  =  E_π[ −log G ] + KL( π ‖ μ₀μ₁ )  =  the least cost + the entropy of μ₁.

Source: Teter, Wang & Halder, arXiv 2406.00503, for the quadratic state cost.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from .._doors.checks import as_point, check_count, check_key, check_kind
from .._doors.show import shown
from ..process.grids import AbstractGrid, uniform_grid
from ..process.protocol import Protocol
from ..process.unit import LogGreen, started
from ..targets.base import AbstractTarget
from ..targets.mixture import GaussianMixture
from ..targets.samples import Samples
from .coupling import AbstractCoupling, GaussianCoupling, by_sinkhorn, covariance_across
from .point import Point
from .problem import Problem
from .rollout import backward_states
from .sample import sample


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
        return Bridge(protocol, origin, by_sinkhorn(law, first, last, log_green))
    assert isinstance(first, GaussianMixture)
    assert isinstance(last, GaussianMixture)
    return Bridge(protocol, origin, GaussianCoupling(first, last, covariance_across(first, last, protocol), log_green))


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
