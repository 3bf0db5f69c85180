"""U-turns: from end points back to a time t of the process, and forward again to other end points.

    y  →  x ~ N(x; M y + n, Σ) of t  →  y' ~ q(·|x),        taken with probability min(1, w(y')/w(y)),    w = p̃/p̂

q is the tilted law of p̂, the target itself or what stands in for it. The tilts of the two ways cancel, so that samples of the
target stay samples of the target, whatever t is. Late turns return to where they came from; the earlier one turns, the more
is forgotten: the datum first, then the class, and at t = 0 all, where y' is an independent draw of p̂.

Source: Sclocchi, Favero & Wyart, *A phase transition in diffusion models reveals the hierarchical nature of data*, PNAS 122
(2025), for the experiment; for a Gaussian p̂ it is the preconditioned Crank–Nicolson step.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Key

from .._doors.checks import as_points, as_scalar, check_key
from ..process.bridge import Bridge, observe
from ..process.protocol import Protocol
from ..targets.base import AbstractTarget, ExactlyTilted, able
from .problem import Problem, check_time
from .rollout import default_batch


class Turned(eqx.Module):
    """End points after a U-turn, of one point or of n.

    Attributes:
        samples: y' where it was taken, else y, shape (n, d).
        states: x(t), where the paths turned.
        taken: whether y' was; always before the horizon, where q is the target's own.
    """

    samples: Float[Array, "*n d"]
    states: Float[Array, "*n d"]
    taken: Bool[Array, " *n"]


def uturn(
    key: Key[Array, ""],
    target: AbstractTarget,
    points: Float[Array, "n d"],
    t: ArrayLike,
    *,
    protocol: Protocol | None = None,
) -> Turned:
    """One U-turn of each point, at time t.

    Args:
        target: with exact tilted laws: a mixture, data, a product, or a surrogate of a density, whose weights decide.
        points: y, shape (n, d), in the user's units: samples of the target, where they are to remain such.
        t: in [0, horizon]; at the horizon nothing moves.
        protocol: β = 1 in the rescaled problem by default, as in `sample`.

    Raises:
        ValueError: a target whose tilted laws are estimated, as a bare `Density`; points of another shape; a time outside of
            the horizon.

    Example:
        >>> data = pid.Samples(jnp.array([[-1.0], [0.0], [5.0]]))
        >>> for t in (0.0, 0.3, 0.95):
        ...     turned = uturn(jax.random.key(0), data, jnp.full((500, 1), 5.0), t)
        ...     print(round(float(jnp.mean(turned.samples > 4)), 1))
        0.3
        0.5
        1.0
    """
    check_key("key", key)
    problem = Problem(target, protocol)
    if not able(target, ExactlyTilted):
        raise ValueError(
            f"target is a {type(target).__name__}, whose tilted laws are not known exactly; pass a mixture, Samples, a "
            "Product, or the Surrogate that pidjax.sample(key, density).target is"
        )
    points, t = as_points("points", points, target.dim), as_scalar("t", t)
    check_time(t, None, problem.protocol.horizon)
    return _turned(problem, problem.unit, key, points, t)


@eqx.filter_jit
def _turned(problem: Problem, unit, key, points, t) -> Turned:
    dtype = unit.start.dtype
    share = t.astype(dtype) / unit.horizon
    observation = unit.reference.instant(share, 1 - share).observation
    target = problem.target.rescaled(unit.shift, unit.scale)

    def of_point(numbered):
        number, end = numbered
        turned = turn(jax.random.fold_in(key, number), target, observation, unit.start, end)
        return eqx.tree_at(lambda own: own.taken, turned, turned.taken & (share < 1))

    ends = unit.to_unit(points.astype(dtype))
    at_once = default_batch(problem.target.numbers_per_tilt, len(points))
    turned = jax.lax.map(of_point, (jnp.arange(len(points)), ends), batch_size=at_once)
    samples = jnp.where(turned.taken[:, None], unit.from_unit(turned.samples), points)
    return Turned(samples, unit.from_unit(turned.states), turned.taken)


def turn(
    key: Key[Array, ""], target: Any, observation: Bridge, start: Float[Array, " d"], end: Float[Array, " d"]
) -> Turned:
    """The U-turn of one end point in the unit problem, by the law of x(t) given both ends."""
    key_state, key_end, key_accept = jax.random.split(key, 3)
    x = observation.draw(key_state, start, end)
    other = target.tilt(observe(observation, x, start)).draw(key_end)
    log_ratio = target.log_correction(other) - target.log_correction(end)
    taken = jnp.log(jax.random.uniform(key_accept, (), x.dtype)) < log_ratio
    return Turned(jnp.where(taken, other, end), x, taken)
