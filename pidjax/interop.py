"""Models and samples of other libraries.

numpyro_density     a numpyro model as a `Density` of its unconstrained sites
draws               a solution as arviz takes it: equally weighted samples by name, each with the axes (chain, draw)

Positions of a blackjax chain, a pytree with a leading axis, go into `sample(..., starts=positions)` as they are.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ._doors.checks import check_kind
from ._doors.extras import load
from ._maths.weighted import Weighted
from .targets.density import Density

__all__ = ["draws", "numpyro_density"]


def numpyro_density(model: Callable, *args: Any, **kwargs: Any) -> Density:
    """A numpyro model as a target: vectors are of its unconstrained sites, samples are dictionaries in the model's own space.

        log p̃(u) = log p(y(u), data) + log|dy/du|,    Z = ∫ p̃ du = p(data)

    so that log Z is the model's evidence. Samples have the deterministic sites too. The data are constants of the compiled
    program. Needs numpyro.

    Args:
        model: of numpyro's primitives, conditioned on its data.
        args, kwargs: of the model.

    Raises:
        ValueError: a model that is no function; one without a latent site, or with a discrete one.

    Example:
        >>> import numpyro
        >>> import numpyro.distributions as dist
        >>> def model(counts):
        ...     rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
        ...     numpyro.sample("counts", dist.Poisson(rate), obs=counts)
        >>> density = numpyro_density(model, jnp.array([1, 2, 0]))
        >>> density.point(jnp.zeros(1))
        {'rate': Array(1., dtype=float32)}
    """
    check_kind("model", model, Callable, "a function of numpyro's primitives")
    handlers, distributions, util = (
        load(f"numpyro.{room}", user="numpyro_density", package="numpyro", extra="numpyro")
        for room in ("handlers", "distributions", "infer.util")
    )

    def free() -> dict[str, Array]:
        sites = handlers.trace(handlers.seed(model, jax.random.key(0))).get_trace(*args, **kwargs)
        latent = {name: site for name, site in sites.items() if site["type"] == "sample" and not site["is_observed"]}
        discrete = [name for name, site in latent.items() if site["fn"].support.is_discrete]
        if not latent or discrete:
            found = f"the discrete latent sites {', '.join(discrete)}" if discrete else "no latent site"
            raise ValueError(
                f"model has {found}; pass one with latent sites, all of them continuous: sum the others out"
            )
        shapes = {
            name: distributions.biject_to(site["fn"].support).inverse_shape(jnp.shape(site["value"]))
            for name, site in latent.items()
        }
        return {name: jnp.zeros(shape, latent[name]["value"].dtype) for name, shape in shapes.items()}

    def log_joint(sites: dict[str, Array]) -> Float[Array, ""]:
        return -util.potential_energy(model, args, kwargs, sites)

    def view(sites: dict[str, Array]) -> dict[str, Array]:
        return util.constrain_fn(model, args, kwargs, sites, return_deterministic=True)

    log_joint.__name__ = getattr(model, "__name__", type(model).__name__)
    density = Density(log_joint, jax.eval_shape(free))
    return eqx.tree_at(lambda one: one.view, density, view, is_leaf=lambda leaf: leaf is None)


def draws(key: Key[Array, ""], solution: Weighted, num_samples: int | None = None) -> dict[str, np.ndarray]:
    """Equally weighted samples by name, of shape (1, N, …): one chain, as the `from_dict` of arviz takes a posterior.

    They repeat where weights are uneven, so that arviz's own effective sample size says nothing of them: `solution.ess` does.

    Args:
        num_samples: N; those of the solution if left out.

    Raises:
        ValueError: a value that is no solution.

    Example:
        >>> solution = pid.sample(jax.random.key(0), pid.GaussianMixture(jnp.zeros((1, 2)), jnp.eye(2)[None]), num_samples=5)
        >>> {name: array.shape for name, array in draws(jax.random.key(1), solution).items()}
        {'y': (1, 5, 2)}
    """
    check_kind("solution", solution, Weighted, "a Solution: the order is (key, solution)")
    leaves = jax.tree_util.tree_leaves_with_path(solution.resample(key, num_samples))
    return {
        jax.tree_util.keystr(path, simple=True, separator=".") or "y": np.asarray(leaf)[None] for path, leaf in leaves
    }
