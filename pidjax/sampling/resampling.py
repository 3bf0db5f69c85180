"""Resampling between steps, in groups of paths that never exchange, with the weights that paths are expected to end with.

With log-weights log W and a guess ψ̂_k(x_k) of what W will still be multiplied by, a path is kept in proportion to W ψ̂_k(x_k),
and weighs mean(W ψ̂_k)/ψ̂_k(x_k) from there on. So E[W] stays Z, whatever the guess.

Source: Heng, Bishop, Deligiannidis & Doucet, *Controlled Sequential Monte Carlo*, arXiv 1708.08396, for the twisting.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int, Key

from .._doors.checks import check_count, check_kind
from .._doors.show import shown_fields
from .._maths.systematic import systematic
from ..targets.base import Tilted, discrete


class Resampling(eqx.Module):
    """Resample each group of paths, systematically, before a step at which its effective number falls below a half.

    Args:
        island_size: paths in a group, which never exchanges with another: the groups' estimates of Z are independent.
    """

    island_size: int = eqx.field(static=True)

    __repr__ = shown_fields

    def __init__(self, island_size: int = 256):
        self.island_size = check_count("island_size", island_size)

    def choose(
        self, keys: Key[Array, " islands"], log_weights: Float[Array, " n"], log_twists: Float[Array, " n"]
    ) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
        """Each path's parent, and its weight from there on.

        Args:
            keys: one for each group.
            log_weights, log_twists: log W and log ψ̂ of each path.
        """

        def of_island(key, log_weights, log_twists):
            log_expected = log_weights + log_twists
            log_expected = discrete(jnp.where(jnp.isnan(log_expected), -jnp.inf, log_expected))
            weights = jax.nn.softmax(log_expected)
            low = 1 < 0.5 * self.island_size * jnp.sum(weights**2)
            parents = jnp.where(low, systematic(key, weights, self.island_size), jnp.arange(self.island_size))
            log_mean = logsumexp(log_expected) - jnp.log(self.island_size)
            return parents, jnp.where(low, log_mean - log_twists[parents], log_weights)

        shape = keys.size, self.island_size
        parents, log_weights = jax.vmap(of_island)(keys, log_weights.reshape(shape), log_twists.reshape(shape))
        offsets = self.island_size * jnp.arange(keys.size)
        return (parents + offsets[:, None]).ravel(), log_weights.ravel()


def check_resampling(resampling, rule, count: int) -> None:
    """Raise unless so many paths under a rule can be resampled."""
    check_kind("resampling", resampling, Resampling, "Resampling(island_size)")
    if not issubclass(rule.needs, Tilted):
        raise ValueError(
            f"resampling needs tilted laws, which rule {type(rule).__name__} does not ask for; leave it out"
        )
    if count % resampling.island_size:
        raise ValueError(
            f"{count} paths are no multiple of the island_size {resampling.island_size}, which does not divide them; pass one "
            "that does"
        )
