"""How far the states and the weighted states are, in energy, from a target of normalised density p.

    path cross-entropy     C(t) = E[ −log p(x_t) ],       P(t) = E[ −log p(x̂_t) ]
    energy efficiency      J = (1/T) ∫ C dt,              Ĵ = (1/T) ∫ P dt:      low if the energy is reached early

At the end both are the entropy of p. For the paths that end in a tail, condition first: `Ensemble.given_end`.
"""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array, Float

from ..metrics import Estimate
from .average import average, integrate
from .ensemble import Ensemble, along_paths, check_paths


class PathEnergies(NamedTuple):
    """One value for the states and one for the weighted states."""

    state: Estimate
    weighted_state: Estimate


def path_cross_entropies(
    paths: Ensemble, log_density: Callable[[Float[Array, " d"]], Float[Array, ""]]
) -> PathEnergies:
    """E[−log p(x(t_k))] and E[−log p(x̂(t_k))], each of shape (K+1,).

    Example:
        >>> import jax, jax.numpy as jnp, pidjax as pid
        >>> from pidjax.diagnostics import ensemble
        >>> target = pid.GaussianMixture(jnp.zeros((1, 1)), jnp.ones((1, 1, 1)))
        >>> paths = ensemble(pid.sample(jax.random.key(0), target, num_samples=99, save_paths=True))
        >>> print(f"{path_cross_entropies(paths, target.log_density).state.value[0]:.3f}")
        0.919

    Source: Chertkov & Behjoo, *AdaPID*, arXiv 2512.11858.
    """
    return PathEnergies(*(average(values, paths) for values in _energies(paths, log_density)))


def energy_efficiency(paths: Ensemble, log_density: Callable[[Float[Array, " d"]], Float[Array, ""]]) -> PathEnergies:
    """J and Ĵ, the means over time of the path cross-entropies, by the trapezoidal rule on the paths' grid.

    Source: Chertkov & Behjoo, *AdaPID*, arXiv 2512.11858, where J is also what a protocol is learned by.
    """
    energies = _energies(paths, log_density)
    means = (integrate(values, paths.times)[:, -1] / paths.times[-1] for values in energies)
    return PathEnergies(*(average(values, paths) for values in means))


def _energies(paths: Ensemble, log_density):
    check_paths(paths)
    return tuple(-along_paths(log_density, paths, points) for points in (paths.states, paths.weighted_states))
