"""Losses of a controlled process, each a pure function of (prepared, rule, key, indices) over a batch of paths.

    relative_entropy   E[−log W]  =  KL(controlled ‖ optimal) − log Z         pathwise gradient, through the whole rollout
    log_variance       Var[log W]   on paths held fixed                         no gradient through the paths or the score

Both are least, the second zero, where W is constant: at the optimal process.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from ..rollout import Prepared, rollout
from ..step import Gaussian


def relative_entropy(
    prepared: Prepared, rule: Gaussian, key: Key[Array, ""], indices: Int[Array, " n"]
) -> Float[Array, ""]:
    """E[−log W] = KL(controlled ‖ optimal) − log Z ≥ −log Z, as a mean over the paths of these indices.

    Source: Zhang & Chen, *Path Integral Sampler*, arXiv 2111.15141: its cost, for any reference.

    Example:
        >>> from pidjax import Controlled, Density, harmonic, prepare, uniform
        >>> target = Density(lambda y: -0.5 * jnp.sum(y**2), 1)
        >>> prepared = prepare(target, harmonic(0.0, noise_scale=1.0), uniform(5))
        >>> loss = relative_entropy(prepared, Controlled(lambda t, x: 0 * x), jax.random.key(0), jnp.arange(10))
        >>> round(float(loss), 4)
        -0.9189
    """
    return -jnp.mean(rollout(prepared, rule, key, indices).log_weights)


def log_variance(
    prepared: Prepared, rule: Gaussian, key: Key[Array, ""], indices: Int[Array, " n"]
) -> Float[Array, ""]:
    """Var[log W] over the paths of these indices, which are drawn by the rule and then held fixed.

    Source: Richter, Boustati, Nüsken, Ruiz & Akyildiz, *VarGrad*, arXiv 2010.10436; for diffusions arXiv 2307.01198.
    """
    arrays, rest = eqx.partition(rule, eqx.is_array)
    frozen = eqx.combine(jax.lax.stop_gradient(arrays), rest)
    states = rollout(prepared, frozen, key, indices, save_states=True).states
    assert states is not None
    target, bridges, start = prepared.target, prepared.bridges, prepared.unit.start

    def log_weight(index, path):
        key_path = jax.random.fold_in(key, index)

        def log_ratio(k, now, x, after):
            key_law, _ = jax.random.split(jax.random.fold_in(key_path, k))
            return rule.log_ratio(target, now, start, x, after, key_law)

        ratios = jax.vmap(log_ratio)(jnp.arange(bridges.num_steps), bridges, path[:-1], path[1:])
        return jnp.sum(ratios) + rule.log_terminal(target, path[-1])

    return jnp.var(jax.vmap(log_weight)(indices, states), ddof=1)
