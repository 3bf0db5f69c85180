"""Mean-field guidance: the crowd's own mean is the centre line of everyone's potential.

    V = ½ β_t |x − ν_t|²  with  ν_t = E x_t,     each path a bridge from its own start z to an end independent of it.

Given both ends, the mean path solves ẍ = β_t(x − ν_t); averaged over ends, E x_t − ν_t = 0 is a solution if and only if ν̈ = 0:

    ν_t = (1−t) E z + t E y      exactly, for every β_t and all laws of the ends.

Around that line, w = x − ν_t, it is the problem with potential ½β_t|w|² and the constant force −ν̇: constant on each piece of β.

Source: Chertkov, *Mean-Field Path Integral Diffusion*, arXiv 2605.00007.
"""

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from .._doors.checks import as_floating, check_count, check_kind
from ..exact.cost import costs
from ..process.protocol import Protocol
from ..process.schedule import from_function, piecewise
from ..targets.mixture import GaussianMixture


def mean_field(starts: GaussianMixture, target: GaussianMixture, beta: ArrayLike, *, num_pieces: int) -> Protocol:
    """The protocol guided by the fixed point, held at its value in the middle of each of `num_pieces` equal pieces.

    Args:
        starts, target: laws of the two ends, of one dimension.
        beta: stiffness on each of P equal pieces of [0, 1], shape (P,).
        num_pieces: a multiple of P.

    Raises:
        ValueError: `num_pieces` that is no multiple of P; ends that are not two mixtures of one dimension; β of another
            shape.

    Example:
        >>> ends = [GaussianMixture.isotropic(jnp.full((1, 1), place), 1.0) for place in (0.0, 1.0)]
        >>> mean_field(*ends, jnp.array([1.0]), num_pieces=2).centre.ravel()
        Array([0.25, 0.75], dtype=float32)
    """
    beta = _checked(starts, target, beta)
    num_pieces = check_count("num_pieces", num_pieces)
    if num_pieces < beta.size or num_pieces % beta.size:
        raise ValueError(f"num_pieces is {num_pieces}; pass a multiple of the {beta.size} pieces of beta")
    before, after = starts.mean(), target.mean()
    return from_function(
        num_pieces,
        beta=lambda t: beta[jnp.minimum((t * beta.size).astype(int), beta.size - 1)],
        centre=lambda t: (1 - t) * before + t * after,
        start=before,
        noise_scale=1.0,
    )


def mean_field_energy(starts: GaussianMixture, target: GaussianMixture, beta: ArrayLike) -> Float[Array, ""]:
    """E ∫ |u|² dt under the guide ν_t = E x_t, exactly.

    Arguments as in `mean_field`.

    Example:
        >>> ends = [GaussianMixture.isotropic(jnp.full((1, 1), place), 1.0) for place in (0.0, 2.0)]
        >>> print(f"{mean_field_energy(*ends, jnp.array([0.0])):.4f}")
        5.0000
    """
    beta = _checked(starts, target, beta)
    before, after = starts.mean(), target.mean()
    none = jnp.zeros_like(beta)
    drift = jnp.broadcast_to(before - after, (beta.size, target.dim))
    protocol = piecewise(beta, force=(none, drift), start=jnp.zeros_like(before), noise_scale=jnp.ones_like(beta[0]))
    return 2 * costs(_moved(target, after), protocol, starts=_moved(starts, before)).kinetic


def unguided_energy(starts: GaussianMixture, target: GaussianMixture, beta: ArrayLike) -> Float[Array, ""]:
    """E ∫ |u|² dt with the potential ½β_t|x|² around the origin.

    Arguments as in `mean_field`.

    Example:
        >>> ends = [GaussianMixture.isotropic(jnp.full((1, 1), place), 1.0) for place in (0.0, 2.0)]
        >>> print(f"{unguided_energy(*ends, jnp.array([0.0])):.4f}")
        5.0000
    """
    beta = _checked(starts, target, beta)
    protocol = piecewise(beta, start=jnp.zeros_like(target.mean()), noise_scale=jnp.ones_like(beta[0]))
    return 2 * costs(target, protocol, starts=starts).kinetic


def _checked(starts: GaussianMixture, target: GaussianMixture, beta: ArrayLike) -> Float[Array, " P"]:
    """β of shape (P,), for ends that are two mixtures of one dimension."""
    for name, end in (("starts", starts), ("target", target)):
        check_kind(name, end, GaussianMixture, "a GaussianMixture")
    if starts.dim != target.dim:
        raise ValueError(f"starts has dimension {starts.dim} but the target has dimension {target.dim}")
    beta = as_floating("beta", beta).astype(target.means.dtype)
    if beta.ndim != 1 or beta.size == 0:
        raise ValueError(f"beta has shape {beta.shape}; pass shape (P,), P at least 1")
    return beta


def _moved(mixture: GaussianMixture, by: Float[Array, " d"]) -> GaussianMixture:
    return eqx.tree_at(lambda one: one.means, mixture, mixture.means - by[None])
