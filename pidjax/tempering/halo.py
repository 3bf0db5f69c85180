"""Halos: Gaussians of modes and ridges at many widths, for heavy tails, and of places far from all, for mass that these hide.

    p̂(y) = Σ_kj α_kj N(y; m_k, 2^j L_kL_kᵀ),      j = 0 … J

to 32 widths, J = 10, or to 1,024, J = 20, if a hundredth of the mass is at the widest of the first, as in heavy tails.

The last (m, L) is of *strays*: ends of chains beyond the shells of all others. Under a narrow top that stands on a wide one
there is no second mode to find, and yet most of the chains may stay around it, and some on their way there from far: theirs are
the centre and the scatter of a Student t with one degree of freedom, of which one far end in ten moves little,

    m ← Σ_i u_i y_i,    L Lᵀ ← Σ_i u_i (y_i − m)(y_i − m)ᵀ,    u_i ∝ 1/(1 + |L⁻¹(y_i − m)|²),    Σ_i u_i = 1.

The weights are equal at first, and then twice

    α ← (1 − s) Σ_i w_i r_kj(y_i) + s α⁰,      w_i ∝ p̃(y_i)/p̂(y_i),      y_i ~ p̂,      s = 0.2,

with r_kj(y) the probability that y came from a component. The mean of p̃/p̂ over a third set of draws is unbiased, E[Ẑ] = Z,
whatever the halo is: if p̂ is poor it is too low, but too high by a factor c in no more than one run of c. So a climb that
finds much less has missed mass.

Source: Cappé, Douc, Guillin, Marin & Robert, *Adaptive importance sampling in general mixture classes*, arXiv 0710.4242; Kent,
Tyler & Vardi, *Communications in Statistics* 23 (1994), for the scatter.
"""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from .._maths.estimates import Estimate, log_evidence
from .._maths.maps import inverse_factor, log_volume
from .._maths.small import HIGHEST
from ..targets.base import WithDensity
from ..targets.fitting.energy import as_read
from ..targets.mixture import GaussianMixture
from .bases import shrunk_moments
from .modes import Modes, shell, squares

WIDTHS, MOST_WIDTHS = 11, 21
ROUNDS = 3
DRAWS = 4096
FEWEST_STRAYS = 16
"""Fewer tell nothing of a shape."""
_REWEIGHTED = 30
_EQUAL = 0.2
_NEGLIGIBLE = 1e-3
"""The weight of a component that is left out."""
_MOST_WIDEST = 0.01
"""Of the mass, at the widest."""


class Halo(NamedTuple):
    """Modes and ridges at many widths, and strays.

    Attributes:
        mixture: p̂ with its last weights.
        log_z: by the weights p̃/p̂.
        own_weight: of the modes' own Gaussians, α_k0.
        centres, factors, widest: m_k, L_k and 2^(J/2).
        evaluations: of log p̃.
    """

    mixture: GaussianMixture
    log_z: Estimate
    own_weight: Float[Array, ""]
    centres: Float[Array, "K d"]
    factors: Float[Array, "K d d"]
    widest: Float[Array, ""]
    evaluations: int

    @property
    def effective_share(self) -> Float[Array, ""]:
        """ESS/N of the weights."""
        return 1 / (1 + DRAWS * self.log_z.standard_error**2)

    def share_beyond(self, points: Float[Array, "n d"], weights: Float[Array, " n"]) -> Float[Array, ""]:
        """The weight of points farther than √d of the widest Gaussian's widths from each centre: half of its draws are."""
        all_count = jnp.ones(len(self.centres), bool)
        beyond = _are_beyond(points, self.centres, self.widest * self.factors, all_count, points.shape[1])
        return jnp.sum(jnp.where(beyond, weights, 0))


def halo(key: Key[Array, ""], target: WithDensity, modes: Modes) -> Halo:
    """The halo of modes, of which there is one at least, and ridges, with dense factors.

    Example:
        >>> target = pid.GaussianMixture.isotropic(jnp.zeros((2, 5)), jnp.array([0.01, 1.0]))
        >>> modes = pid.tempering.locate(jax.random.key(0), target)
        >>> found = halo(jax.random.key(1), target, modes)
        >>> int(modes.num_modes), bool(jnp.abs(found.log_z.value) < 0.1)
        (1, True)
    """
    tops = modes.tops
    known = (tops.log_masses > -jnp.inf).nonzero()[0]
    means, factors = tops.points[known], tops.factors[known]
    strays = are_strays(modes)
    if jnp.sum(strays) >= FEWEST_STRAYS:
        mean, factor = scatter(modes.pilot_points, strays)
        if jnp.all(jnp.isfinite(factor)):
            means, factors = jnp.concatenate([means, mean[None]]), jnp.concatenate([factors, factor[None]])

    def weighed(key, number):
        widths = 2 ** (0.5 * jnp.arange(number).astype(factors.dtype))
        return widths, *_weighed(key, target, means, factors, widths)

    (widths, weights, log_z), spent = weighed(key, WIDTHS), ROUNDS * DRAWS
    if jnp.sum(weights[:, -1]) > _MOST_WIDEST:
        (widths, weights, log_z), spent = weighed(jax.random.fold_in(key, 1), MOST_WIDTHS), 2 * spent
    kept = (weights > _NEGLIGIBLE).nonzero()
    centre, width = kept if kept[0].size else (weights >= 0).nonzero()
    chosen = weights[centre, width]
    stretched = widths[width][:, None, None] * factors[centre]
    mixture = GaussianMixture.of_factors(means[centre], stretched, chosen / jnp.sum(chosen))
    own_weight = jnp.sum(weights[: int(modes.num_modes), 0])
    return Halo(mixture, log_z, own_weight, means, factors, widths[-1], spent)


@jax.jit
def are_strays(modes: Modes) -> Bool[Array, " n"]:
    """Which chains ended in the support and beyond the shells of all modes and ridges."""
    points, factors, log_masses = modes.tops
    beyond = _are_beyond(modes.pilot_points, points, factors, log_masses > -jnp.inf, shell(points.shape[1]))
    return beyond & (modes.pilot_values > -jnp.inf)


@jax.jit
def scatter(points: Float[Array, "n d"], chosen: Bool[Array, " n"]) -> tuple[Float[Array, " d"], Float[Array, "d d"]]:
    """m and L of the chosen of the points, with correlations less by d/(count + d)."""
    count = jnp.sum(chosen).astype(points.dtype)

    def moments(weights):
        return shrunk_moments(points, weights, count)

    def reweighted(_, found):
        mean, factor = found
        return moments(counted / (1 + squares(inverse_factor(factor), points - mean[None])))

    counted = chosen.astype(points.dtype)
    return jax.lax.fori_loop(0, _REWEIGHTED, reweighted, moments(counted))


@eqx.filter_jit
def _weighed(
    key: Key[Array, ""],
    target: WithDensity,
    means: Float[Array, "K d"],
    factors: Float[Array, "K d d"],
    widths: Float[Array, " J"],
) -> tuple[Float[Array, "K J"], Estimate]:
    """The weights of the components, and log Z by those before."""
    (count, dim), dtype = means.shape, means.dtype
    whiten = jax.vmap(inverse_factor)(factors)
    log_heights = jax.vmap(lambda factor: log_volume(factor, dim))(whiten) - 0.5 * dim * math.log(2 * math.pi)
    log_heights = log_heights[:, None] - dim * jnp.log(widths)[None]
    equal = jnp.full((count, widths.size), 1 / (count * widths.size), dtype)

    def look(weights, key):
        key_component, key_noise = jax.random.split(key)
        components = jax.random.categorical(key_component, jnp.log(weights).ravel(), shape=(DRAWS,))
        centre, width = jnp.divmod(components, widths.size)
        noise = jax.random.normal(key_noise, (DRAWS, dim), dtype)
        offsets = jnp.einsum("kij,nj->nki", factors, noise, precision=HIGHEST)[jnp.arange(DRAWS), centre]
        draws = means[centre] + widths[width][:, None] * offsets

        squared = jax.vmap(lambda mean, whiten: squares(whiten, draws - mean[None]))(means, whiten)
        decay = 0.5 * squared[:, None] / widths[None, :, None] ** 2
        log_joint = (jnp.log(weights) + log_heights)[:, :, None] - decay
        log_density = jax.nn.logsumexp(log_joint, axis=(0, 1))
        log_weights = as_read(jax.vmap(target.log_density)(draws) - log_density)[0]
        shares = jnp.nan_to_num(jax.nn.softmax(log_weights))
        of_components = jnp.exp(log_joint - log_density[None, None])
        found = jnp.sum(shares[None, None] * of_components, axis=2)
        return (1 - _EQUAL) * found + _EQUAL * equal, (found, log_evidence(log_weights))

    _, (found, log_z) = jax.lax.scan(look, equal, jax.random.split(key, ROUNDS))
    return found[-1], jax.tree.map(lambda leaf: leaf[-1], log_z)


@jax.jit
def _are_beyond(
    points: Float[Array, "n d"],
    centres: Float[Array, "K d"],
    factors: Float[Array, "K *map"],
    counts: Bool[Array, " K"],
    least: float | Float[Array, ""],
) -> Bool[Array, " n"]:
    """Which have |L_k⁻¹(y − m_k)|² of that size at least for each k that counts."""

    def is_beyond(gaussian):
        centre, factor, does_count = gaussian
        return (squares(inverse_factor(factor), points - centre[None]) >= least) | ~does_count

    return jnp.all(jax.lax.map(is_beyond, (centres, factors, counts)), axis=0)
