"""The modes that a search found, each with its Gaussian, and what the search tells of those that it did not find."""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._doors.checks import check_single, concrete
from .._doors.show import of_numbers, shown
from .._maths.small import HIGHEST
from ..targets.mixture import GaussianMixture

NEAREST, FARTHEST = 0.25, 16.0
"""How far from the modes so far, in their spread, climbs start again."""
_MET = 0.95
_NODES = 64


class Tops(NamedTuple):
    """Places with a Gaussian each; rows that are padding have log mass −∞."""

    points: Float[Array, "R d"]
    factors: Float[Array, "R *map"]
    log_masses: Float[Array, " R"]


def together(one: Tops, other: Tops) -> Tops:
    """All of both."""
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), one, other)


class Modes(eqx.Module):
    """Modes, in the order in which they were found, with what the search for them tells of those that it did not find.

    Rows beyond `num_modes` are padding: of log mass −∞ and count 0, with the points zero and the factors one.

    Attributes:
        points: m, shape (K, d).
        factors: lower triangular L, shape (K, d, d), of the covariances L Lᵀ = H⁻¹; above 2,048 dimensions standard deviations
            1/√H_jj, shape (K, d).
        log_masses: log of p̃(m) (2π)^{d/2} det L, Laplace's estimate of the mode's part of Z.
        counts: of the starts that were drawn, but for those around it, those that ended at the mode; 0 if only others did.
        were_given: whether a start that was given ended there.
        num_modes: how many there are.
        num_starts: starts drawn from which a climb ended at a finite log p̃.
        num_unexplained: of these, those that ended where no mode is.
        num_left: of these, those that were still to be looked at when K modes were found.
        ridges: the first tops, at most 16, of which Laplace's Gaussian tells the place and, roughly, the mass.
        has_slopes: whether the gradients can be climbed by; without them there are no modes.
        evaluations: of log p̃, alone, with its gradient, or with a product of its Hessian and a vector.
        num_gradient_evaluations: of these, all but those of log p̃ alone.
        pilot_points, pilot_values: the ends of the chains that all this started from, shape (n, d), and log p̃ there, for a
            `broad_base`.
    """

    points: Float[Array, "K d"]
    factors: Float[Array, "K *map"]
    log_masses: Float[Array, " K"]
    counts: Int[Array, " K"]
    were_given: Bool[Array, " K"]
    num_modes: Int[Array, ""]
    num_starts: Int[Array, ""]
    num_unexplained: Int[Array, ""]
    num_left: Int[Array, ""]
    ridges: Tops
    has_slopes: Bool[Array, ""]
    evaluations: Int[Array, ""]
    num_gradient_evaluations: Int[Array, ""]
    pilot_points: Float[Array, "n d"]
    pilot_values: Float[Array, " n"]

    def __repr__(self):
        names = ("num_modes", "num_starts", "num_unexplained", "has_slopes")
        facts: dict[str, Any] = {name: getattr(self, name) for name in names}
        return shown("Modes", dim=self.points.shape[-1], **facts, unseen=of_numbers(lambda own: own.unseen, self))

    @property
    def unseen(self) -> Float[Array, ""]:
        """The share of *starts* whose basin was not met: Good and Turing's (modes met once)/(starts).

        Another start, drawn as these were, would lead to a new mode with about this probability. It is no share of mass, and
        a basin that such starts never meet stays invisible. Drawn are the starts at random, near modes or at all scales, and
        one for each top that scouts saw; as tops are chosen far apart, those of rare modes more often, the share is rather too
        large. Starts that were left when the modes were as many as there is room for count as met once; 1 if no mode was met.
        """
        once = jnp.sum(self.counts == 1, axis=-1) + self.num_left
        share = once / jnp.maximum(self.num_starts, 1)
        return jnp.where(jnp.any(self.counts > 0, axis=-1), share, 1).astype(self.log_masses.dtype)

    @property
    def met_once(self) -> Bool[Array, " K"]:
        """To which chance led one start alone; one that a given start led to was no matter of chance."""
        return (self.counts == 1) & ~self.were_given

    @property
    def unseen_mass(self) -> Float[Array, ""]:
        """Σ_k M_k 1[met once] / Σ_k M_k, with Laplace's masses M_k: what modes hold that chance led only one start to.

        A basin to which one start leads on average is met once as often as not at all, with probability 1/e. So modes that
        were not met may hold as much. `unseen`, of starts, knows nothing of mass: narrow modes hold much and are met seldom.
        """
        return jnp.sum(jnp.where(self.met_once, jax.nn.softmax(self.log_masses), 0))

    @property
    def narrowest(self) -> Float[Array, ""]:
        """ρ: of a round mode far from all others, ρ times as wide as the widest, 95 of 100 such searches meet the basin.

        Of N(0, I) and N(a, ρ²I), ρ < 1, with |a| large, the second is higher in the ball of radius ρ|a|/(1 − ρ²) around
        a/(1 − ρ²). A climb goes to 0 unless it starts in there. In a direction at random, at the angle θ to a, and from a
        distance whose logarithm is uniform on a range of length ℓ, it does with probability

            P = E_θ[ min(2 artanh(√(ρ² − sin²θ)/cos θ)/ℓ, 1) ; θ < arcsin ρ ],      one of n with probability 1 − (1 − P)ⁿ,

        if |a| is in this range, ¼ to 16 times the spread of what was found: so ever fewer as d grows, whatever the mode holds.
        1 where starts are too few to meet any.

        Example:
            >>> target = pid.GaussianMixture(9 * jnp.eye(2, 5), jnp.array([1.0, 4.0]), jnp.array([0.2, 0.8]))
            >>> modes = pid.tempering.locate(jax.random.key(0), target)
            >>> int(modes.num_starts), round(float(modes.narrowest), 2)
            (32688, 0.28)
        """
        widths = jnp.linspace(0, 1, 1001, dtype=self.log_masses.dtype)
        met = are_met(widths, self.points.shape[-1], self.num_starts)
        return jnp.where(met[..., -1], widths[jnp.argmax(met, axis=-1)], 1)

    @property
    def why_none(self) -> str:
        """Why there are no modes, where there are none."""
        return "no start ended at a peak that a Gaussian fits" if self.has_slopes else "gradients are of no use"

    @property
    def tops(self) -> Tops:
        """Modes and ridges together."""
        return together(Tops(self.points, self.factors, self.log_masses), self.ridges)

    def laplace(self, *, by_mass: bool = False) -> GaussianMixture:
        """p̂ = Σ_k α_k N(m_k, L_kL_kᵀ): a base with a component for each mode.

        With equal weights α, the default, a mode whose mass Laplace's estimate gets wrong by orders of magnitude is still
        reached by particles that start in it, and the ladder's log Z does not depend on α as long as the modes are far apart:
        stratum k gives α_k · Z_k/α_k. Under a transformation the padding is kept, in components of weight zero.

        Args:
            by_mass: α ∝ Laplace's masses: the best single Gaussian mixture, to draw from or to weigh by.

        Raises:
            ValueError: there are no modes.

        Example:
            >>> target = pid.GaussianMixture(9 * jnp.eye(2, 5), jnp.array([1.0, 4.0]), jnp.array([0.2, 0.8]))
            >>> modes = pid.tempering.locate(jax.random.key(0), target)
            >>> bool(jnp.allclose(jnp.sort(modes.laplace(by_mass=True).weights), jnp.array([0.2, 0.8]), atol=1e-3))
            True
        """
        check_single("the modes", self.points, 2)
        found = concrete(self.num_modes)
        if found is not None and found == 0:
            raise ValueError(
                f"no modes were found: {self.why_none}. Take broad_base(modes.pilot_points, modes.pilot_values)"
            )
        count = self.points.shape[0] if found is None else int(found)
        points, factors, log_masses = (leaf[:count] for leaf in (self.points, self.factors, self.log_masses))
        weights = jnp.exp(log_masses - jnp.max(log_masses)) if by_mass else (log_masses > -jnp.inf).astype(points.dtype)
        return GaussianMixture.of_factors(points, factors, weights / jnp.sum(weights))


def are_met(widths: Float[Array, " k"], dim: int, num_starts: Int[Array, "*batch"]) -> Bool[Array, "*batch k"]:
    """Of which ρ so many starts meet the basin; see `Modes.narrowest`."""
    log_missed = num_starts[..., None].astype(widths.dtype) * jnp.log1p(-share_met(widths, dim))
    return log_missed <= math.log(1 - _MET)


def share_met(widths: Float[Array, " k"], dim: int) -> Float[Array, " k"]:
    """P of each ρ, by quadrature in φ, sin θ = ρ sin φ; in one dimension half of the starts have θ = 0."""
    length = math.log(FARTHEST / NEAREST)

    def seen(tangent):
        return jnp.minimum(2 * jnp.arctanh(jnp.minimum(tangent, 1)) / length, 1)

    if dim == 1:
        return seen(widths) / 2
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    angles = jnp.asarray((nodes + 1) * math.pi / 4, widths.dtype)[:, None]
    sines = widths[None] * jnp.sin(angles)
    stretched = widths[None] * jnp.cos(angles) / jnp.sqrt(1 - sines**2)
    highest = math.exp(math.lgamma(dim / 2) - math.lgamma((dim - 1) / 2)) / math.sqrt(math.pi)
    density = highest * sines ** (dim - 2) * stretched
    return jnp.asarray(weights * math.pi / 4, widths.dtype) @ (density * seen(stretched))


def shell(dim: int) -> float:
    """The |L⁻¹(y − m)|² below which a point is near a mode: d + 4√(2d) + 16, four deviations of a Gaussian's, and more."""
    return dim + 4 * math.sqrt(2 * dim) + 16


def squares(whiten: Float[Array, "*map"], offsets: Float[Array, "n d"]) -> Float[Array, " n"]:
    """|L⁻¹ y|² of many y, given L⁻¹."""
    if whiten.ndim == 2:
        return jnp.sum(jnp.matmul(offsets, whiten.T, precision=HIGHEST) ** 2, axis=1)
    return jnp.sum((offsets * whiten[None]) ** 2, axis=1)
