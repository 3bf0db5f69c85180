"""The empirical algorithm, as published: K paths of a prior, their weights, and the chain that these weights make.

    Ĝ-weighted transitions      q̂_t(v | prefix) ∝ Σ_{k: path k begins with (prefix, v)} W_k,      W_k = p̃(v_k)/p(v_k)

With weights over complete paths, the end of a path of this chain is path k with probability W_k/ΣW: **in law it is
importance resampling**, and makes no configuration that was not among the K. It is kept as the reference. What goes beyond
it pools over states or features (`fit`) or resamples on the way (`sample` with populations); these make new configurations,
with exact weights. As a prior it gives mass to its own paths only, so that E[W] = Z fails for it, as `check` of a `sample`
from it says: log Ẑ is that of the paths.

Source: Chertkov, Ahn & Behjoo, *Sampling Decisions*, arXiv 2503.14549.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from .._doors.checks import check_count, check_key
from .._doors.show import shown
from .model import Pairwise
from .prior import AbstractPrior
from .revealing import reveal, sample
from .solution import Solution


class Empirical(AbstractPrior):
    """The chain of K weighted paths.

    Attributes:
        paths: the prior's paths as a Solution: their log Ẑ and its error are the algorithm's.

    Example:
        >>> from pidjax.discrete import Uniform, ising_grid
        >>> model = ising_grid(3)
        >>> chain = Empirical.from_prior(jax.random.key(0), model, Uniform(model), num_paths=500)
        >>> chain.sample(jax.random.key(1), 100).shape
        (100, 9)
    """

    order: Int[Array, " n"]
    paths: Solution
    num_values: int = eqx.field(static=True)

    @classmethod
    def from_prior(cls, key: Key[Array, ""], target: Pairwise, prior: AbstractPrior, *, num_paths: int) -> "Empirical":
        """K independent paths of a prior, weighted."""
        paths = sample(key, target, prior, num_samples=check_count("num_paths", num_paths))
        return cls(prior.order, paths, target.num_values)

    def log_conditional(self, step, values):
        consistent = jnp.all((values < 0)[None, :] | (values[None, :] == self.paths.samples), axis=1)
        next_values = self.paths.samples[:, self.order[step]]
        weights = jnp.where(consistent, self.paths.weights, 0)
        masses = jax.ops.segment_sum(weights, next_values, self.num_values)
        total = jnp.sum(masses)
        return jnp.where(total > 0, jnp.log(masses) - jnp.log(total), -jnp.inf)

    def sample(self, key: Key[Array, ""], num_samples: int) -> Int[Array, "num_samples n"]:
        """Equally weighted configurations, decided site by site; dependent, for they share the K paths."""
        check_key("key", key)
        return self._configurations(key, check_count("num_samples", num_samples))

    @eqx.filter_jit
    def _configurations(self, key, num_samples: int):
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(num_samples))
        return jax.lax.map(lambda key: reveal(key, self, 1)[0][0], keys, batch_size=64)

    def __repr__(self):
        return shown("Empirical", order=self.order, num_paths=self.paths.num_samples)
