"""How sensitive the control is to the state, along paths.

Ω = ∂u*/∂x = −J_xx − A₁ + B Cov(y|t,x) Bᵀ
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from .._maths.small import eigenvalues, matmul, matvec
from ..metrics import Estimate
from ..process.protocol import Protocol
from ..sampling.problem import Problem
from ..sampling.rollout import default_batch
from ..targets.base import AbstractTarget
from .average import average
from .ensemble import Ensemble, check_process


class Sensitivity(NamedTuple):
    """What `sensitivity` returns: means over the paths at each time but the last, shape (K,).

    Attributes:
        norm: E ‖Ω‖₂, the largest singular value of Ω = ∂u*/∂x.
        frobenius_squared: E ‖Ω‖²_F.
        trace: E tr Ω, the divergence of the control.
        largest, smallest: extreme eigenvalues of ½(Ω + Ωᵀ), the rates at which neighbouring paths part.
        radial: E eᵀΩe, with e the direction from the start to the state; positive if the control drives outward.
        radial_gain: E eᵀ(∂x̂/∂x)e.
    """

    norm: Estimate
    frobenius_squared: Estimate
    trace: Estimate
    largest: Estimate
    smallest: Estimate
    radial: Estimate
    radial_gain: Estimate


def sensitivity(target: AbstractTarget, protocol: Protocol, paths: Ensemble) -> Sensitivity:
    """Means of the Jacobian's size along the paths, for a target whose tilted laws are exact.

    At the start itself the radial parts have no direction: they are zero there.

    Raises:
        ValueError: a target of another dimension than the paths; another protocol than they were sampled with (concrete
            values only).

    Example:
        >>> import pidjax as pid
        >>> from pidjax.diagnostics import ensemble
        >>> target = pid.GaussianMixture(jnp.zeros((1, 1)), 4 * jnp.ones((1, 1, 1)))
        >>> protocol = pid.harmonic(0.0, noise_scale=1.0)
        >>> solution = pid.sample(jax.random.key(0), target, protocol=protocol, num_samples=9, save_paths=True)
        >>> sensitivity(target, protocol, ensemble(solution)).trace.value[0].round(4).item()
        3.0

    Source: Chertkov & Behjoo, *AdaPID*, arXiv 2512.11858: the norm, and the squared Frobenius norm, are its control gradient.
    """
    check_process(paths, protocol, target)
    return _sensitivity(Problem(target, protocol), paths)


@eqx.filter_jit
def _sensitivity(problem: Problem, paths: Ensemble) -> Sensitivity:
    def at(t, remaining, x):
        point = problem.at(t, x, remaining=remaining)
        omega, gain = point.control_jacobian, point.weighted_state_jacobian
        rates = eigenvalues(0.5 * (omega + omega.T))
        offset = x - paths.start
        length = jnp.linalg.norm(offset)
        direction = jnp.where(length > 0, offset / jnp.where(length > 0, length, 1), 0)
        norm = jnp.sqrt(eigenvalues(matmul(omega.T, omega))[-1])

        def along(matrix):
            return jnp.sum(direction * matvec(matrix, direction))

        return norm, jnp.sum(omega**2), jnp.trace(omega), rates[-1], rates[0], along(omega), along(gain)

    t = paths.times[:-1]
    numbers = problem.target.numbers_per_tilt * paths.start.size
    values = jax.lax.map(
        lambda path: jax.lax.map(lambda now: at(*now), (t, paths.times[-1] - t, path)),
        paths.states[:, :-1],
        batch_size=default_batch(numbers, len(paths.states)),
    )
    return Sensitivity(*(average(value, paths) for value in values))
