"""Losses of a controlled process: pure functions of (prepared, rule, key, indices) over a batch of its paths.

    relative_entropy   E[−log W]   = KL(controlled ‖ optimal) − log Z         differentiated through the paths
    log_variance       Var[log W]                                             on paths held fixed

Each is least where W is constant: −log Z and 0, at the optimal process.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..sampling.problem import Prepared
from ..sampling.rollout import given_log_weights, rollout
from ..sampling.rules import AbstractGaussianRule


def relative_entropy(
    prepared: Prepared, rule: AbstractGaussianRule, key: Key[Array, ""], indices: Int[Array, " n"]
) -> Float[Array, ""]:
    """E[−log W] = KL(controlled ‖ optimal) − log Z ≥ −log Z, as a mean over n paths; for any reference.

    It weighs where the controlled process goes, and is blind to a mode that it never reaches.

    Example:
        >>> from pidjax import Controlled, Density, Problem, harmonic, uniform_grid
        >>> target = Density(lambda y: -0.5 * jnp.sum(y**2), 1)
        >>> prepared = Problem(target, harmonic(beta=0.0, noise_scale=1.0)).prepare(uniform_grid(5))
        >>> uncontrolled = Controlled(lambda t, x: jnp.zeros_like(x))
        >>> round(float(relative_entropy(prepared, uncontrolled, jax.random.key(0), jnp.arange(10))), 4)
        -0.9189

    Source: Zhang & Chen, *Path Integral Sampler*, arXiv 2111.15141.
    """
    _check_paths(indices, 1, "mean")
    return -jnp.mean(rollout(prepared, rule, key, indices).log_weights)


def log_variance(
    prepared: Prepared, rule: AbstractGaussianRule, key: Key[Array, ""], indices: Int[Array, " n"]
) -> Float[Array, ""]:
    """Var[log W] over n ≥ 2 paths of the rule, which are held fixed: the gradient is that of their weights alone.

    Example:
        >>> from pidjax import Controlled, Density, Problem, harmonic, uniform_grid
        >>> target = Density(lambda y: -0.5 * jnp.sum(y**2), 1)
        >>> prepared = Problem(target, harmonic(beta=0.0, noise_scale=1.0)).prepare(uniform_grid(5))
        >>> uncontrolled = Controlled(lambda t, x: jnp.zeros_like(x))
        >>> float(log_variance(prepared, uncontrolled, jax.random.key(0), jnp.arange(10))) < 1e-6
        True

    Source: Richter et al., *VarGrad*, arXiv 2010.10436; for diffusion samplers, Richter & Berner, arXiv 2307.01198.
    """
    _check_paths(indices, 2, "variance")
    arrays, rest = eqx.partition(rule, eqx.is_array)
    fixed = eqx.combine(jax.lax.stop_gradient(arrays), rest)
    states = rollout(prepared, fixed, key, indices, save_states=True).states
    assert states is not None
    return jnp.var(given_log_weights(prepared, rule, key, indices, states), ddof=1)


def _check_paths(indices, least: int, of: str) -> None:
    if np.size(indices) < least:
        raise ValueError(f"indices has {np.size(indices)} paths; a {of} needs at least {least}")
