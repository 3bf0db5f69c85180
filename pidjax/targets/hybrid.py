"""Samples and an energy together, where neither is exact: a law between them.

    p_λ  ∝  p̂^(1−λ) p̃^λ,         λ = 0: the law p̂ of the samples,     λ = 1: the energy's p̃

The path is that of p̂, and its weight (p̃/p̂)^λ. λ is the one under which held-out data are likeliest,

    max over λ of  λ ⟨r⟩_held − log E_p̂ e^{λ r},       r = log p̃ − log p̂,

concave, so that it is where ⟨r⟩_held is the mean of r under p_λ, or an end: 1 where the energy is right, 0 where it tells
nothing.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key

from .._doors.checks import as_floating, as_points, check_count, check_key, check_kind, concrete
from .density import Density
from .mixture import GaussianMixture
from .product import Product
from .smoothed import Smoothed
from .surrogate import Surrogate

_HALVINGS = 40


class Blend(eqx.Module):
    """(1 − λ) log p̂ + λ log p̃ of a point."""

    function: Callable[[Any], Float[Array, ""]]
    law: GaussianMixture | Product | Smoothed
    share: Float[Array, ""]

    def __call__(self, point: Any) -> Float[Array, ""]:
        y = ravel_pytree(point)[0]
        return (1 - self.share) * self.law.log_density(y) + self.share * self.function(point)


def blend(density: Density, law: GaussianMixture | Product | Smoothed, share: Float[Array, ""] | float) -> Surrogate:
    """p_λ as a target: `sample` draws from p̂ and weighs by (p̃/p̂)^λ.

    Args:
        density: p̃.
        law: p̂, as `fit_kernel` or `fit_local_gaussians` make it of samples.
        share: λ in [0, 1], as from `energy_share`. With λ = 1 it is `Surrogate(density, law)`.

    Raises:
        ValueError: arguments of another kind; a share outside of [0, 1].

    Example:
        >>> law = GaussianMixture.isotropic(jnp.zeros((1, 1)), 1.0)
        >>> density = Density(lambda y: -0.5 * jnp.sum((y - 1) ** 2), 1)
        >>> solution = pid.sample(jax.random.key(0), blend(density, law, 0.25), num_samples=20_000)
        >>> bool(jnp.abs(solution.expectation(lambda y: y[0]).value - 0.25) < 0.05)
        True
    """
    check_kind("density", density, Density, "a Density")
    share = as_floating("share", share)
    known = concrete(share)
    if share.shape != () or (known is not None and not 0 <= known <= 1):
        raise ValueError(f"share is {known}; pass a number from 0, the samples, to 1, the energy")
    blended = Blend(density.function, law, share.astype(density.scale.dtype))
    return Surrogate(eqx.tree_at(lambda own: own.function, density, blended), law)


def energy_share(
    key: Key[Array, ""],
    density: Density,
    law: GaussianMixture | Product | Smoothed,
    held_out: Float[Array, "m d"],
    *,
    num_draws: int = 4096,
) -> Float[Array, ""]:
    """λ, how far the energy is to be believed beside the samples, by held-out data.

    Args:
        held_out: points of the target that p̂ was not made of, shape (m, d).
        num_draws: of p̂, by which the normalisers are estimated.

    Raises:
        ValueError: arguments of another kind or shape.

    Example:
        >>> points = jax.random.normal(jax.random.key(0), (1000, 1))
        >>> law = GaussianMixture.isotropic(jnp.zeros((1, 1)), 4.0)
        >>> right, flat = Density(lambda y: -0.5 * jnp.sum(y**2), 1), Density(lambda y: 0.0 * jnp.sum(y), 1)
        >>> [round(float(energy_share(jax.random.key(1), one, law, points)), 1) for one in (right, flat)]
        [1.0, 0.0]
    """
    check_key("key", key)
    check_kind("density", density, Density, "a Density")
    held_out = as_points("held_out", held_out, density.dim)
    draws = law.sample(key, check_count("num_draws", num_draws))
    return _energy_share(Surrogate(density, law), held_out.astype(draws.dtype), draws)


@eqx.filter_jit
def _energy_share(surrogate: Surrogate, held_out: Float[Array, "m d"], draws: Float[Array, "n d"]) -> Float[Array, ""]:
    of_held, of_draws = (jax.lax.map(surrogate.log_correction, points, batch_size=64) for points in (held_out, draws))
    mean = jnp.mean(of_held)

    def halve(_, ends):
        low, high = ends
        middle = 0.5 * (low + high)
        weights = jax.nn.softmax(middle * of_draws)
        excess = jnp.sum(weights * jnp.where(weights > 0, of_draws, 0))
        return jnp.where(excess < mean, middle, low), jnp.where(excess < mean, high, middle)

    zero, one = jnp.zeros((), draws.dtype), jnp.ones((), draws.dtype)
    low, high = jax.lax.fori_loop(0, _HALVINGS, halve, (zero, one))
    return 0.5 * (low + high)
