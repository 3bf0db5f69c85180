"""The optimal cost and its parts, without simulation.

With p the normalised target, the cost of the optimal control is the relative entropy of its paths to the reference's,

    C = E[ ∫ ( |u|²/2σ² + V ) dt + ∫ Aᵀ∘dx ] = E_p[ log p(y) − log G(0, x₀ → T, y) ],

an entropy and, log G being quadratic, two moments. G is a mean of exp(−∫V dt − ∫Aᵀ∘dx) over reference paths, so

    E ∫ V dt = −d/dλ E_p[ log G ] at V → λV,     E ∫ Aᵀ∘dx the same at A → λA,     E ∫ |u|²/2σ² dt the rest.

Any other quadratic running cost is a derivative in the same way, and all of it holds up to a time t < T, with the law of
x_t in the place of p.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from .._doors.checks import as_floating, as_scalar, check_symmetric
from .._maths.maps import apply, dense, lift, product, sandwich
from ..process.bridge import Affine
from ..process.protocol import Protocol
from ..sampling.problem import Problem
from ..targets.base import AbstractTarget
from ..targets.mixture import GaussianMixture
from ..targets.quadrature import Nodes, check_nodes
from ..targets.quadrature import entropy as entropy_of
from ..targets.samples import Samples
from .law import as_mixture, check_problem, checked_time, marginal


class Costs(NamedTuple):
    """The parts of the optimal cost C = kinetic + potential + gauge, in units of the cost |u|²/2σ² + V.

    Attributes:
        total: C. With a `GaussianStart` it includes the relative entropy of the law of x(0) to the start's.
        kinetic: E ∫ |u|²/2σ² dt, and that relative entropy.
        potential: E ∫ V dt.
        gauge: E ∫ Aᵀ∘dx.
    """

    total: Float[Array, ""]
    kinetic: Float[Array, ""]
    potential: Float[Array, ""]
    gauge: Float[Array, ""]


def costs(
    target: AbstractTarget,
    protocol: Protocol,
    *,
    until: ArrayLike | None = None,
    starts: GaussianMixture | None = None,
    entropy: ArrayLike | None = None,
    nodes: Nodes | None = None,
) -> Costs:
    """The optimal cost of a mixture, or of a data set up to a time before the end, and its parts.

    Deterministic; differentiable in the target and in the protocol.

    Args:
        target: a `GaussianMixture`; or `Samples`, whose entropy is −∞ and cost +∞ at T: give `until`.
        protocol: the process.
        until: the end t of the integrals, in (0, T]; T if left out.
        starts: law of the starts, if each path has its own, independent of its end, and is controlled for it.
        entropy: that of the law of x at `until` (given the start), if known; then no nodes are used.
        nodes: for the entropy, which has no closed form: from `lattice` or `sobol`; by default `default_nodes`.

    Raises:
        ValueError: a data set without `until` < T; as `marginal`.

    Example:
        >>> from pidjax import harmonic
        >>> target = GaussianMixture(jnp.ones((1, 1)), jnp.ones((1, 1, 1)))
        >>> print(f"{costs(target, harmonic(0.0, noise_scale=1.0)).total:.4f}")
        0.5000

    Source: Chertkov & Behjoo, arXiv 2512.11858, for the parts; the identity is Girsanov's.
    """
    if isinstance(target, Samples) and until is None:
        raise ValueError("target is a data set, whose entropy is −∞ and cost +∞; pass until < horizon, or a mixture")
    until = _check(target, protocol, until, starts, is_open=isinstance(target, Samples))
    entropy = None if entropy is None else as_scalar("entropy", entropy)
    check_nodes(nodes, target.dim)
    return _costs(target, protocol, until, starts, entropy, nodes)


@eqx.filter_jit
def _costs(target, protocol, until, starts, entropy, nodes) -> Costs:
    law = as_mixture(target) if until is None else marginal(target, protocol, until)
    log_scale = jnp.log(Problem(target, protocol).unit.scale)
    mean_log_green = _mean_log_green(target, protocol, until, starts)
    value, falling = jax.jvp(mean_log_green, (protocol,), (_potential(protocol),))
    own = entropy_of(law, nodes) if entropy is None else entropy.astype(value.dtype)
    total = law.dim * log_scale - own - value
    potential, gauge = -falling, jnp.zeros_like(total)
    if protocol.gauge is not None:
        gauge = -_derivative(target, protocol, _only(protocol, lambda one: one.gauge, protocol.gauge), until, starts)
    return Costs(total, total - potential - gauge, potential, gauge)


def potential_cost(
    target: AbstractTarget, protocol: Protocol, *, until: ArrayLike | None = None, starts: GaussianMixture | None = None
) -> Float[Array, ""]:
    """E ∫ V dt under the optimal control, of a mixture or a data set: it needs two moments only.

    Arguments as in `costs`.

    Example:
        >>> from pidjax import harmonic
        >>> target = GaussianMixture(jnp.zeros((1, 1)), jnp.ones((1, 1, 1)))
        >>> print(f"{potential_cost(target, harmonic(1e-6, noise_scale=1.0)) * 1e6:.4f}")
        0.2500
    """
    until = _check(target, protocol, until, starts)
    return -_derivative(target, protocol, _potential(protocol), until, starts)


def quadratic_cost(
    target: AbstractTarget,
    protocol: Protocol,
    stiffness: ArrayLike,
    centre: ArrayLike,
    *,
    until: ArrayLike | None = None,
    starts: GaussianMixture | None = None,
) -> Float[Array, ""]:
    """E ∫ ½ (x−c)ᵀ Q (x−c) dt under the optimal control, of a mixture or a data set.

    Args:
        target, protocol, until, starts: as in `costs`.
        stiffness: Q on each of the protocol's P pieces, shape (P,), (P, d) or (P, d, d), in the user's units.
        centre: c, shape (P, d).

    Raises:
        ValueError: another number of pieces than the protocol's, or dimension than the target's; a matrix that is not
            symmetric; as `potential_cost`.

    Example:
        >>> from pidjax import harmonic
        >>> target = GaussianMixture(jnp.zeros((1, 1)), jnp.ones((1, 1, 1)))
        >>> protocol = harmonic(0.0, noise_scale=1.0)
        >>> print(f"{quadratic_cost(target, protocol, jnp.full(1, 2.0), jnp.zeros((1, 1))):.4f}")
        0.5000
    """
    until = _check(target, protocol, until, starts)
    unit, pieces, dim = Problem(target, protocol).unit, protocol.num_pieces, target.dim
    stiffness, centre = (
        as_floating(name, value).astype(unit.start.dtype)
        for name, value in (("stiffness", stiffness), ("centre", centre))
    )
    if stiffness.shape not in ((pieces,), (pieces, dim), (pieces, dim, dim)) or centre.shape != (pieces, dim):
        raise ValueError(
            f"stiffness has shape {stiffness.shape} and centre {centre.shape}; pass one of each for every of the "
            f"protocol's {pieces} pieces, in dimension {dim}"
        )
    if stiffness.ndim == 3:
        check_symmetric("stiffness", stiffness)
    rank = max(stiffness.ndim, protocol.beta.ndim) - 1
    beta, stiffness = (jax.vmap(lambda a: lift(a, rank, dim))(stack) for stack in (protocol.beta, stiffness))
    dtype = stiffness.dtype
    zeros = jnp.zeros(centre.shape, dtype)
    own = zeros + unit.shift[None] if protocol.centre is None else protocol.centre
    lifted = eqx.tree_at(
        lambda one: (one.beta, one.linear, one.constant),
        protocol,
        (
            beta,
            zeros if protocol.linear is None else protocol.linear,
            zeros[:, 0] if protocol.constant is None else protocol.constant,
        ),
        is_leaf=lambda leaf: leaf is None,
    )

    def of_piece(stiffness, own, centre):
        """½(x−c)ᵀQ(x−c) as a stiffness around the protocol's own centre, a linear and a constant term."""
        slope = apply(stiffness, own - centre)
        return slope, 0.5 * jnp.sum(centre * apply(stiffness, centre)) - 0.5 * jnp.sum(own * apply(stiffness, own))

    linear, constant = jax.vmap(of_piece)(stiffness, own, centre)
    per_beta = unit.horizon * unit.scale**2 if protocol.noise_scale is None else jnp.ones((), dtype)
    direction = _only(
        lifted, lambda one: (one.beta, one.linear, one.constant), (per_beta * stiffness, linear, constant)
    )
    return -_derivative(target, lifted, direction, until, starts)


def guide_cost(
    target: AbstractTarget, protocol: Protocol, *, until: ArrayLike | None = None, starts: GaussianMixture | None = None
) -> Float[Array, ""]:
    """E ∫ |x − ν|² dt: how far paths keep from the centre line.

    Arguments as in `costs`.

    Example:
        >>> from pidjax import harmonic
        >>> target = GaussianMixture(jnp.zeros((1, 1)), jnp.ones((1, 1, 1)))
        >>> print(f"{guide_cost(target, harmonic(0.0, noise_scale=1.0)):.4f}")
        0.5000
    """
    check_problem(target, protocol, starts)
    mean = target.place().mean
    default = mean if protocol.noise_scale is None else jnp.zeros_like(mean)
    centre = jnp.broadcast_to(default, (protocol.num_pieces, target.dim))
    centre = centre if protocol.centre is None else protocol.centre
    twice = jnp.full(protocol.num_pieces, 2, mean.dtype)
    return quadratic_cost(target, protocol, twice, centre, until=until, starts=starts)


def _check(
    target: AbstractTarget,
    protocol: Protocol,
    until: ArrayLike | None,
    starts: GaussianMixture | None,
    *,
    is_open: bool = False,
) -> Float[Array, ""] | None:
    """`until` as a time; raise what can be said of concrete arguments, before they are traced."""
    check_problem(target, protocol, starts)
    unit = Problem(target, protocol).unit
    return None if until is None else checked_time("until", until, unit.horizon, is_open=is_open)


def _mean_log_green(
    target: AbstractTarget, protocol: Protocol, until: Float[Array, ""] | None, starts: GaussianMixture | None
) -> Callable[[Protocol], Float[Array, ""]]:
    """E[ log G(0, z → t, x_t) ] as a function of the reference, while the law of (z, x_t) stays the protocol's own."""
    mixture = as_mixture(target)
    unit = Problem(target, protocol).unit
    dim, scale = mixture.dim, unit.scale
    start = unit.start if starts is None else unit.to_unit(starts.mean())
    end, ends = unit.to_unit(mixture.mean()), mixture.covariance() / scale**2
    spread = jnp.zeros_like(ends) if starts is None else starts.covariance() / scale**2
    across = jnp.zeros_like(ends)
    t, remaining = jnp.ones_like(scale), jnp.zeros_like(scale)
    if until is not None:
        t = until / unit.horizon
        remaining = 1 - t
        observation = unit.reference.instant(t, remaining).observation
        end = observation.mean(start, end)
        across = product(observation.left, spread)
        ends = sandwich(observation.left, spread) + sandwich(observation.right, ends)
        ends = ends + dense(observation.covariance, dim)
    mean = jnp.concatenate([start, end])
    covariance = jnp.block([[spread, across.T], [across, ends]])

    def mean_log_green(protocol: Protocol):
        log_green = Problem(target, protocol).unit.reference.instant(t, remaining).log_green

        def of_pair(pair):
            return log_green(pair[:dim], pair[dim:])

        return of_pair(mean) + 0.5 * jnp.sum(jax.hessian(of_pair)(mean) * covariance)

    return mean_log_green


@eqx.filter_jit
def _derivative(target, protocol: Protocol, direction: Protocol, until, starts) -> Float[Array, ""]:
    return jax.jvp(_mean_log_green(target, protocol, until, starts), (protocol,), (direction,))[1]


def _only(protocol: Protocol, where, values) -> Protocol:
    """A direction in the space of protocols: these values there, zero elsewhere."""
    zeros = jax.tree.map(jnp.zeros_like, protocol)
    values = jax.tree.map(lambda value, zero: value.astype(zero.dtype), values, where(zeros))
    return eqx.tree_at(where, zeros, values, is_leaf=lambda leaf: leaf is None or isinstance(leaf, Affine))


def _potential(protocol: Protocol) -> Protocol:
    """The direction V → λV."""
    values = protocol.beta, protocol.linear, protocol.constant
    return _only(protocol, lambda one: (one.beta, one.linear, one.constant), values)
