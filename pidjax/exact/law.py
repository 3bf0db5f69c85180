"""The exact law of the state at one time.

The reference pinned at both ends is Gaussian, x_t | y ~ N( M y + n, Σ ), and y ~ p whatever the protocol. So for a
mixture, and for a data set (a mixture of points),

    p_t = Σ_k π_k N( Mμ_k + n, Σ + MΣ_kMᵀ ).

Where each path has its own start z, independent of its end, x_t | z, y ~ N( left z + M y + n, Σ ), and p_t is a mixture
over pairs. Everything here is in the user's units and is differentiable in the protocol and in the target.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from .._doors.checks import as_floating, as_point, as_scalar, check_kind, concrete
from .._maths.maps import Map, adjoint, apply, cholesky, lift, product
from ..process.bridge import Bridge, observe
from ..process.protocol import GaussianStart, Protocol
from ..process.reference import Times
from ..process.unit import UnitProblem
from ..sampling.problem import Problem
from ..targets.base import AbstractTarget
from ..targets.mixture import GaussianMixture
from ..targets.samples import Samples


def marginal(
    target: AbstractTarget, protocol: Protocol, t: ArrayLike, *, starts: GaussianMixture | None = None
) -> GaussianMixture:
    """The law of x_t under the optimal control, a mixture with the target's weights.

    Args:
        target: a `GaussianMixture`, or `Samples`: one component a point.
        protocol: the process.
        t: time in (0, T]; at T the mixture itself. A data set has a density before T only.
        starts: law of the starts, if each path has its own, independent of its end, and is controlled for it.

    Raises:
        ValueError: another kind of target; a time out of range; `starts` beside a `GaussianStart`.

    Example:
        >>> from pidjax import harmonic
        >>> target = GaussianMixture.isotropic(jnp.array([[-1.0], [1.0]]), 0.1)
        >>> marginal(target, harmonic(0.0, noise_scale=1.0), 0.5).covariances.ravel().round(3)
        Array([0.275, 0.275], dtype=float32)

    Source: Behjoo & Chertkov, arXiv 2409.15166, for x₀ = 0.
    """
    check_problem(target, protocol, starts)
    unit = Problem(target, protocol).unit
    t = checked_time("t", t, unit.horizon, is_open=isinstance(target, Samples))
    return _at(as_mixture(target), unit, t, starts)


@eqx.filter_jit
def _at(
    mixture: GaussianMixture, unit: UnitProblem, t: Float[Array, ""], starts: GaussianMixture | None
) -> GaussianMixture:
    observation = unit.reference.instant(t / unit.horizon, 1 - t / unit.horizon).observation
    return _seen(mixture, unit, observation, starts)


def marginals(
    target: AbstractTarget,
    protocol: Protocol,
    times: ArrayLike,
    *,
    starts: GaussianMixture | None = None,
) -> GaussianMixture:
    """`marginal` at n increasing times inside (0, T), computed together: every leaf has n in front.

    Raises:
        ValueError: times not increasing or not inside (0, T); as `marginal`.

    Example:
        >>> from pidjax import harmonic
        >>> target = GaussianMixture.isotropic(jnp.array([[-1.0], [1.0]]), 0.1)
        >>> marginals(target, harmonic(0.0, noise_scale=1.0), jnp.array([0.25, 0.5])).means.shape
        (2, 2, 1)
    """
    unit, grid = inner_times(target, protocol, times, starts)
    return laws(as_mixture(target), unit, observations(unit, grid), starts)


def score(target: AbstractTarget, protocol: Protocol, t: ArrayLike, x: ArrayLike) -> Float[Array, " d"]:
    """∇ log p_t(x), the exact score of the law at time t; of a data set Σ⁻¹(M x̂ + n − x), streamed.

    Args:
        target, protocol, t: as in `marginal`.
        x: state, shape (d,).

    Raises:
        ValueError: x of another shape; as `marginal`.

    Example:
        >>> from pidjax import harmonic
        >>> target = GaussianMixture(jnp.zeros((1, 1)), jnp.ones((1, 1, 1)))
        >>> score(target, harmonic(0.0, noise_scale=1.0), 0.5, jnp.ones(1)).round(4)
        Array([-2.], dtype=float32)
    """
    x = as_point("x", x, target.dim)
    if isinstance(target, Samples):
        check_problem(target, protocol)
        unit = Problem(target, protocol).unit
        t = checked_time("t", t, unit.horizon, is_open=True)
        return _score_of_data(target, unit, t, x.astype(unit.start.dtype))
    law = marginal(target, protocol, t)
    return _score(law, x.astype(law.means.dtype))


@eqx.filter_jit
def _score(law: GaussianMixture, x: Float[Array, " d"]) -> Float[Array, " d"]:
    return jax.grad(law.log_density)(x)


@eqx.filter_jit
def _score_of_data(
    target: Samples, unit: UnitProblem, t: Float[Array, ""], x: Float[Array, " d"]
) -> Float[Array, " d"]:
    observation, x = unit.reference.instant(t / unit.horizon, 1 - t / unit.horizon).observation, unit.to_unit(x)
    expected = target.rescaled(unit.shift, unit.scale).tilt(observe(observation, x, unit.start)).mean
    white = apply(observation.whitening, observation.mean(unit.start, expected) - x)
    return apply(adjoint(observation.whitening), white) / unit.scale


def as_mixture(target: AbstractTarget) -> GaussianMixture:
    """The target as a mixture: a data set's components are points, of covariance zero."""
    if isinstance(target, Samples):
        return GaussianMixture.of_factors(target.points, jnp.zeros_like(target.weights), target.weights)
    if isinstance(target, GaussianMixture):
        return target
    raise without_exact_laws(target)


def without_exact_laws(target) -> ValueError:
    return ValueError(f"target is a {type(target).__name__}; exact laws are those of a GaussianMixture or Samples")


def inner_times(
    target: AbstractTarget, protocol: Protocol, times: ArrayLike, starts: GaussianMixture | None = None
) -> tuple[UnitProblem, Times]:
    """The unit problem, and the grid from 0 to 1 through n times inside (0, T); what is wrong with any of them raises."""
    check_problem(target, protocol, starts)
    unit = Problem(target, protocol).unit
    return unit, grid_through(unit, times)


def grid_through(unit: UnitProblem, times: ArrayLike) -> Times:
    """The grid from 0 to 1 through n times inside (0, T), in the user's units."""
    times = as_floating("times", times)
    if times.ndim != 1:
        raise ValueError(f"times has shape {times.shape}; pass shape (n,)")
    values, end = concrete(times), concrete(unit.horizon)
    if values is not None and end is not None:
        inside = values.size and values[0] > 0 and values[-1] < end and (values[1:] > values[:-1]).all()
        if not inside:
            raise ValueError(f"times is {values}; pass increasing times inside (0, {float(end):g})")
    zero, one = jnp.zeros_like(unit.start[:1]), jnp.ones_like(unit.start[:1])
    t = times.astype(zero.dtype) / unit.horizon
    return Times.of(jnp.concatenate([zero, t, one]), jnp.concatenate([one, 1 - t, zero]))


@eqx.filter_jit
def observations(unit: UnitProblem, grid: Times) -> Bridge:
    """The law of x_t given both ends, at the inner times of the grid."""
    return jax.tree.map(lambda leaf: leaf[1:], unit.reference.observations(grid))


@eqx.filter_jit
def laws(
    mixture: GaussianMixture, unit: UnitProblem, observations: Bridge, starts: GaussianMixture | None = None
) -> GaussianMixture:
    """The law of x_t from that given both ends, at n times: every leaf has n in front."""
    return jax.vmap(lambda observation: _seen(mixture, unit, observation, starts))(observations)


def _seen(
    mixture: GaussianMixture, unit: UnitProblem, observation: Bridge, starts: GaussianMixture | None
) -> GaussianMixture:
    """The law of x_t, in the user's units, for ends drawn from the mixture."""
    dim, noise = mixture.dim, unit.scale**2 * observation.covariance
    means = jax.vmap(lambda end: unit.from_unit(observation.mean(unit.start, unit.to_unit(end))))(mixture.means)
    spreads = _through(observation.right, mixture.factors)
    if starts is None:
        factors = jax.vmap(lambda spread: cholesky(_sum(dim, noise, spread)))(spreads)
        return GaussianMixture.of_factors(means, factors, mixture.weights)
    origin = unit.from_unit(unit.start)
    shifts = jax.vmap(lambda start: apply(observation.left, start - origin))(starts.means)
    own = _through(observation.left, starts.factors)
    of_pair = jax.vmap(jax.vmap(lambda one, two: cholesky(_sum(dim, noise, one, two)), (None, 0)), (0, None))
    factors = of_pair(spreads, own)
    return GaussianMixture.of_factors(
        (means[:, None] + shifts[None]).reshape(-1, dim),
        factors.reshape(-1, *factors.shape[2:]),
        (mixture.weights[:, None] * starts.weights[None]).ravel(),
    )


def _through(a: Map, factors: Float[Array, "k *map"]) -> Float[Array, "k *map"]:
    """A L Lᵀ Aᵀ of each factor L."""

    def of(factor):
        image = product(a, factor)
        return product(image, adjoint(image))

    return jax.vmap(of)(factors)


def _sum(dim: int, *maps: Map) -> Map:
    """The sum of maps of different structure."""
    rank = max(one.ndim for one in maps)
    return sum((lift(one, rank, dim) for one in maps[1:]), start=lift(maps[0], rank, dim))


def check_problem(target: AbstractTarget, protocol: Protocol, starts: GaussianMixture | None = None) -> None:
    """Raise unless there are exact laws of this target under this protocol, and of starts of their own if given."""
    if not isinstance(target, GaussianMixture | Samples):
        raise without_exact_laws(target)
    check_kind("protocol", protocol, Protocol, "harmonic(...), piecewise(...) or from_function(...)")
    if starts is None:
        return
    check_kind("starts", starts, GaussianMixture, "a GaussianMixture")
    if isinstance(protocol.start, GaussianStart):
        raise ValueError("starts is given while protocol.start is a GaussianStart; pass one of them")
    if starts.dim != target.dim:
        raise ValueError(f"starts has dimension {starts.dim} but the target has dimension {target.dim}")


def checked_time(name: str, t: ArrayLike, horizon: Float[Array, ""], *, is_open: bool) -> Float[Array, ""]:
    """The time as a scalar, checked in (0, T], or in (0, T)."""
    t = as_scalar(name, t).astype(horizon.dtype)
    value, end = concrete(t), concrete(horizon)
    if value is not None and end is not None and not (0 < value < end or (value == end and not is_open)):
        raise ValueError(f"{name} is {float(value):g}; pass a time in (0, {float(end):g}{')' if is_open else ']'}")
    return t
