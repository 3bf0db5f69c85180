"""A widened component, which bounds the weights of a mixture that is narrower than its target.

    p̂' = (1 − ε) p̂ + ε N(m, 2² Σ),      m and Σ the mean and covariance of p̂

Importance sampling wants it: p̃/p̂' has no heavy tail where p̂ falls off too soon. What averages log W does not: of the paths
one in 1/ε ends far out, where log p̃/p̂' is minus hundreds or thousands.

Source: Hesterberg, *Weighted average importance sampling and defensive mixture distributions*, Technometrics 37 (1995).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from ..._doors.checks import check_kind
from ..._maths.small import HIGHEST, cholesky
from ..mixture import GaussianMixture
from ..product import Product
from ..smoothed import Smoothed
from ..surrogate import Surrogate
from .gaussians import Gaussians

DEFENCE = 0.02
DEFENCE_WIDTH = 2.0


def defended(mixture: Gaussians, share: float = DEFENCE) -> Gaussians:
    """p̂' of p̂, ε the share: one more component, the last."""
    weights = jnp.exp(mixture.log_weights)
    mean = jnp.matmul(weights, mixture.means, precision=HIGHEST)
    residual = mixture.means - mean[None]
    within = jnp.einsum("k,kil,kjl->ij", weights, mixture.factors, mixture.factors, precision=HIGHEST)
    between = jnp.einsum("k,ki,kj->ij", weights, residual, residual, precision=HIGHEST)
    factor = DEFENCE_WIDTH * cholesky(within + between)
    return Gaussians(
        jnp.append(mixture.log_weights + jnp.log1p(-share), jnp.log(share)).astype(mean.dtype),
        jnp.concatenate([mixture.means, mean[None]]),
        jnp.concatenate([mixture.factors, factor[None]]),
    )


def undefended(surrogate: Surrogate) -> Surrogate:
    """p̂ of p̂': a fitted surrogate without its widened component, or components, where training starts from it.

    Args:
        surrogate: as a fit makes it, with a mixture or a product of mixtures, whose last components are the widened ones.

    Raises:
        ValueError: a mixture whose last component is not the widened one of a fit.

    Example:
        >>> means, covariances = jnp.array([[-1.0], [1.0], [0.0]]), jnp.array([[[0.5]], [[0.5]], [[6.0]]])
        >>> fitted = GaussianMixture(means, covariances, jnp.array([0.49, 0.49, 0.02]))  # as a fit leaves it
        >>> surrogate = Surrogate(pid.Density(lambda y: -0.5 * jnp.sum(jnp.abs(y) ** 3), 1), fitted)
        >>> undefended(surrogate).mixture.weights.tolist()
        [0.5, 0.5]
    """
    check_kind("surrogate", surrogate, Surrogate, "a Surrogate, as Solution.target of a fit")
    mixture = surrogate.mixture
    stacks = mixture.mixtures if isinstance(mixture, Product) else [jax.tree.map(lambda leaf: leaf[None], mixture)]
    if isinstance(mixture, Smoothed) or not all(
        stack.factors.ndim == 4 and jax.vmap(_is_defended)(stack).all() for stack in stacks
    ):
        raise ValueError(
            "the surrogate's last component is not the widened one of a fit: there is nothing to take away (as in a mixture of "
            "the modes' Gaussians, which pidjax.sample may find the better one); use it as it is"
        )
    cores = tuple(jax.vmap(_core)(stack) for stack in stacks)
    if isinstance(mixture, Product):
        return Surrogate(surrogate.density, eqx.tree_at(lambda own: own.mixtures, mixture, cores))
    return Surrogate(surrogate.density, jax.tree.map(lambda leaf: leaf[0], cores[0]))


def _core(mixture: GaussianMixture) -> GaussianMixture:
    weights = mixture.weights[:-1]
    return GaussianMixture.of_factors(mixture.means[:-1], mixture.factors[:-1], weights / jnp.sum(weights))


def _is_defended(mixture: GaussianMixture) -> Bool[Array, ""]:
    """Whether the last component has little weight, and the mean of the others for its own."""
    if len(mixture.weights) < 2:
        return jnp.asarray(False)
    offset = jnp.abs(_core(mixture).mean() - mixture.means[-1])
    is_centred = jnp.all(offset < 0.1 * jnp.linalg.norm(mixture.factors[-1], axis=-1))
    return is_centred & (mixture.weights[-1] < 2 * DEFENCE)
