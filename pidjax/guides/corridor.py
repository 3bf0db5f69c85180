"""A corridor: a soft tube around a line, seen at given times.

    L = mean over times of  1 − E[ exp(−½ |A_k (x − m_k)|²) ],     x ~ p_{t_k}:

the mass outside of a Gaussian window, in closed form: under a mixture the window is an observation of x.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._doors.checks import as_floating, check_kind
from .._doors.show import shown
from .._maths.small import matvec
from ..exact.law import marginals
from ..process.bridge import Observation
from ..process.protocol import Protocol
from ..targets.base import AbstractTarget


class Corridor(eqx.Module):
    """Windows exp(−½|A(x − m)|²) at n times.

    Attributes:
        times: increasing, inside (0, T), shape (n,).
        centres: m, shape (n, d).
        whitenings: A, shape (n, d, d): its rows are the axes of the window divided by their widths.
    """

    times: Float[Array, " n"]
    centres: Float[Array, "n d"]
    whitenings: Float[Array, "n d d"]

    def __repr__(self):
        return shown("Corridor", times=self.times, dim=self.centres.shape[-1])


def corridor_loss(target: AbstractTarget, protocol: Protocol, corridor: Corridor) -> Float[Array, ""]:
    """The mean mass outside of the corridor, between 0 and 1, under the exact law of the state.

    Args:
        target: a `GaussianMixture` or `Samples`.
        protocol: the process.
        corridor: the windows.

    Raises:
        ValueError: a corridor of another dimension than the target, or of shapes that do not fit; as `marginals`.

    Example:
        >>> from pidjax import GaussianMixture, harmonic
        >>> target = GaussianMixture(jnp.zeros((1, 1)), jnp.ones((1, 1, 1)))
        >>> corridor = Corridor(jnp.array([0.5]), jnp.zeros((1, 1)), jnp.ones((1, 1, 1)))
        >>> print(f"{corridor_loss(target, harmonic(0.0, noise_scale=1.0), corridor):.4f}")
        0.1835

    Source: the task "corridor" of the LQ-GM-PID code that accompanies arXiv 2512.11859.
    """
    check_kind("corridor", corridor, Corridor, "a Corridor")
    laws = marginals(target, protocol, corridor.times)
    n, d = len(corridor.times), target.dim
    centres, whitenings = (
        as_floating(name, leaf).astype(laws.means.dtype)
        for name, leaf in (("centres", corridor.centres), ("whitenings", corridor.whitenings))
    )
    for name, leaf, shape in (("centres", centres, (n, d)), ("whitenings", whitenings, (n, d, d))):
        if leaf.shape != shape:
            raise ValueError(f"{name} has shape {leaf.shape}; pass shape {shape}")

    def inside(law, centre, whitening):
        return jnp.exp(law.tilt(Observation(whitening, matvec(whitening, centre))).log_mass)

    return 1 - jnp.mean(jax.vmap(inside)(laws, centres, whitenings))
