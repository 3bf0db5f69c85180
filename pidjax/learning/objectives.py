"""What a protocol may be chosen for: objectives without simulation, differentiable in protocol and target.

    sharpness          ∫ ( 1 − |2Â(t) − 1| ) dt          small where the weighted state decides all at once
    control_gradient   ∫ E‖∂u*/∂x‖² dt                   small where the control is smooth: easy to learn, large steps
    energy             ∫ E[ −log p(x_t) ] dt             small where paths keep to where the target is

The Jacobian of the control is exact: ∂u*/∂x = −J_xx − A₁ + B Cov(y | t, x) Bᵀ, with ∇log ψ = B x̂ − J_xx x + …
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from .._doors.checks import as_scalar, check_count, concrete
from .._maths.maps import dense
from .._maths.small import matmul
from ..exact.correlation import transition_time, weighted_state_correlation
from ..exact.law import as_mixture, check_problem, inner_times, laws, marginals
from ..process.bridge import observe
from ..process.protocol import GaussianStart, Protocol
from ..process.reference import Times
from ..process.unit import UnitProblem
from ..targets.base import AbstractTarget
from ..targets.mixture import GaussianMixture
from ..targets.quadrature import Nodes, check_nodes, default_nodes, expectation, lattice

_EARLIEST = 1e-4
"""The share of the horizon at which what starts anywhere is looked at first."""


def sharpness(
    target: AbstractTarget,
    protocol: Protocol,
    *,
    late_penalty: ArrayLike = 0.0,
    num_times: int = 200,
    nodes: Nodes | None = None,
) -> Float[Array, ""]:
    """S = ∫ ( 1 − |2Â(t) − 1| ) dt/T + λ (t*−½)₊², t* the share of T at which Â reaches ½.

    By the trapezoidal rule at equal times from 0 to T; the sharper the transition, the smaller.

    Args:
        target: a `GaussianMixture` or `Samples`.
        protocol: the process.
        late_penalty: λ.
        num_times: ≥ 3.
        nodes: for the law of x_t, from `lattice` or `sobol`; by default 24 an axis in up to two dimensions, which give these
            smooth integrals to six digits, and `default_nodes` beyond.

    Raises:
        ValueError: fewer than three times; a penalty below 0; nodes of another dimension; as `marginals`.

    Example:
        >>> from pidjax import harmonic
        >>> target = GaussianMixture(jnp.zeros((1, 1)), jnp.ones((1, 1, 1)))
        >>> print(f"{sharpness(target, harmonic(0.0, noise_scale=1.0)):.3f}")
        0.500

    Source: Chertkov & Behjoo, arXiv 2512.11858.
    """
    check_problem(target, protocol)
    num_times = _count(num_times, 3)
    mixture = as_mixture(target)
    late_penalty = as_scalar("late_penalty", late_penalty).astype(mixture.means.dtype)
    known = concrete(late_penalty)
    if known is not None and known < 0:
        raise ValueError(f"late_penalty is {known:g}; pass a number >= 0")
    mean, covariance = mixture.mean(), mixture.covariance()
    shares = jnp.linspace(0, 1, num_times, dtype=mean.dtype)
    if isinstance(protocol.start, GaussianStart):
        early, first = jnp.array([_EARLIEST], mean.dtype), jnp.zeros(0, mean.dtype)
    else:
        early, first = shares[:0], jnp.sum(mean**2)[None] / (jnp.trace(covariance) + jnp.sum(mean**2))
    times = jnp.concatenate([early, shares[1:-1]]) * protocol.horizon
    inner = weighted_state_correlation(target, protocol, times, nodes=_nodes(nodes, target))
    curve = jnp.concatenate([first, inner, jnp.ones((1,), mean.dtype)])
    late = jnp.maximum(transition_time(shares, curve) - 0.5, 0)
    return jnp.trapezoid(1 - jnp.abs(2 * curve - 1), shares) + late_penalty * late**2


def control_gradient(
    target: AbstractTarget,
    protocol: Protocol,
    *,
    window: tuple[float, float] = (0.05, 0.95),
    num_times: int = 24,
    nodes: Nodes | None = None,
) -> Float[Array, ""]:
    """J = ∫ E‖∂u*/∂x‖² dt/T, Frobenius norm, by the trapezoidal rule at equal times of a window of [0, T].

    Near T the norm grows as 1/(T − t)² whatever the protocol: the window matters.

    Args:
        target, protocol, nodes: as in `sharpness`.
        window: its ends, as shares of T, inside (0, 1).
        num_times: ≥ 2.

    Raises:
        ValueError: a window that is not two increasing shares inside (0, 1); fewer than two times; as `sharpness`.

    Example:
        >>> from pidjax import harmonic
        >>> target = GaussianMixture(jnp.zeros((1, 1)), 0.5 * jnp.ones((1, 1, 1)))
        >>> print(f"{control_gradient(target, harmonic(0.0, noise_scale=1.0)):.4f}")
        0.4397

    Source: Chertkov & Behjoo, arXiv 2512.11858; the expectation there is a sum over the components' means.
    """
    check_problem(target, protocol)
    num_times = _count(num_times, 2)
    if np.shape(window) != (2,) or not 0 < window[0] < window[1] < 1:
        raise ValueError(f"window is {window}; pass two increasing shares inside (0, 1)")
    shares = jnp.linspace(*window, num_times, dtype=target.place().mean.dtype)
    times = shares * protocol.horizon
    unit, grid = inner_times(target, protocol, times)
    norms = _squared_jacobians(target, unit, grid, _nodes(nodes, target))
    return jnp.trapezoid(norms, shares) / unit.horizon**2


@eqx.filter_jit
def _squared_jacobians(target: AbstractTarget, unit: UnitProblem, grid: Times, nodes: Nodes) -> Float[Array, " n"]:
    """E‖∂u*/∂x‖² on the unit horizon, at the inner times of the grid."""
    mixture = as_mixture(target)
    bridges = jax.tree.map(lambda leaf: leaf[1:], unit.reference.laws(grid)[0])
    tilted = target.rescaled(unit.shift, unit.scale)
    force = jnp.zeros_like(grid.t[1:-1]) if bridges.force is None else bridges.force.matrix
    fields = bridges.observation, bridges.drift.to_end, bridges.drift.to_centre, force

    def at(pair):
        (observation, to_end, to_centre, force), law = pair
        b = dense(to_end, target.dim)
        falling = dense(to_centre, target.dim) + dense(force, target.dim)

        def squared_norm(x):
            tilt = tilted.tilt(observe(observation, unit.to_unit(x), unit.start))
            return jnp.sum((matmul(matmul(b, tilt.covariance()), b.T) - falling) ** 2)

        return expectation(law, squared_norm, nodes)

    return jax.lax.map(at, (fields, laws(mixture, unit, bridges.observation)))


def energy(
    target: GaussianMixture, protocol: Protocol, *, num_times: int = 200, nodes: Nodes | None = None
) -> Float[Array, ""]:
    """J = ∫ E[−log p(x_t)] dt/T at the middles of `num_times` equal steps, p the target.

    Args:
        target, protocol, nodes: as in `sharpness`.
        num_times: ≥ 1.

    Raises:
        ValueError: a target without a density; as `sharpness`.

    Example:
        >>> from pidjax import harmonic
        >>> target = GaussianMixture(jnp.zeros((1, 1)), jnp.ones((1, 1, 1)))
        >>> print(f"{energy(target, harmonic(0.0, noise_scale=1.0)):.4f}")
        1.1689

    Source: Chertkov & Behjoo, arXiv 2512.11858.
    """
    check_problem(target, protocol)
    if not isinstance(target, GaussianMixture):
        raise ValueError(f"target is a {type(target).__name__}, which has no density; pass a GaussianMixture")
    num_times = _count(num_times, 1)
    half = 0.5 / num_times
    shares = jnp.linspace(half, 1 - half, num_times, dtype=target.means.dtype)
    laws = marginals(target, protocol, shares * protocol.horizon)
    return jnp.mean(_energies(target, laws, _nodes(nodes, target)))


@eqx.filter_jit
def _energies(target: GaussianMixture, laws: GaussianMixture, nodes: Nodes) -> Float[Array, " n"]:
    """E[−log p(x)] under each law."""
    return jax.lax.map(lambda law: expectation(law, lambda x: -target.log_density(x), nodes), laws)


def _count(num_times, least: int) -> int:
    count = check_count("num_times", num_times)
    if count < least:
        raise ValueError(f"num_times is {count}; pass an integer >= {least}")
    return count


def _nodes(nodes: Nodes | None, target: AbstractTarget) -> Nodes:
    check_nodes(nodes, target.dim)
    if nodes is not None:
        return nodes
    dtype = target.place().mean.dtype
    return lattice(target.dim, 24, dtype) if target.dim <= 2 else default_nodes(target.dim, dtype)
