"""The modes among the ends of many climbs, best first, each with its Gaussian.

    m:  ∇log p̃(m) = 0,     H = −∇² log p̃(m) = (L Lᵀ)⁻¹,     log mass = log p̃(m) + ½ d log 2π + log det L        [Laplace]

The best end that nothing explains yet is polished by Newton's steps y + L Lᵀ∇log p̃. Ends y with |L⁻¹(y − m)|² < 4 + d/20, and
with a height of log p̃(m) − ½|L⁻¹(y − m)|² to within ½, belong to the mode that it leads to. It leads to none, and is
*unexplained*, if H has no Cholesky factor (saddles, plateaus), if the steps do not settle, or if log p̃ falls by more than 4,
in the place of ½, at one of the points m ± L e_j, a standard deviation away (*ridges*, straight ones where a zero of H is
positive by rounding, and bent ones). Samples must be near the tops of ridges, but no base is made of them.

Above 2,048 dimensions H is its diagonal alone: no Newton steps, no test by Cholesky, widths of one coordinate given the others,
and log masses that are too low, as det H ≤ Π H_jj. Ends there belong to a mode by their distance alone.
"""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import betainc
from jaxtyping import Array, Bool, Float, Int

from .._doors.checks import check_single, concrete
from .._doors.show import of_numbers, shown
from .._maths.maps import adjoint, apply, inverse_factor, log_volume
from .._maths.small import HIGHEST, cholesky, inverse_triangular, transpose
from ..targets.base import WithDensity
from ..targets.mixture import GaussianMixture
from .climb import value_and_slope

MOST_DENSE = 2048
"""The largest dimension with the whole Hessian; its diagonal above."""
MOST_MODES = 64
_MOST_NUMBERS = 2**24
"""Of the factors of all modes."""
_NEWTON_STEPS = 3
_SETTLED = 1e-4
"""|Lᵀ∇log p̃|², the squared distance to the mode in standard deviations, below which an end is there."""
_FALL = 4.0
_MOST_RIDGES = 16
_SAME = 1.0
_MET = 0.95
_BATCH = 64


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
        ridges: the best tops, at most 16, of which Laplace's Gaussian tells the place and, roughly, the mass.
        has_slopes: whether the gradients can be climbed by; without them there are no modes.
        evaluations: of log p̃, alone, with its gradient, or with a product of its Hessian and a vector.
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

        Of N(0, I) and N(a, ρ²I), ρ < 1, with |a| large, the second is higher in a ball that is seen from 0 under the half-angle
        arcsin ρ. A climb from afar goes to 0 unless it meets this ball: of directions at random in d dimensions a share

            P = ½ I_{ρ²}((d−1)/2, ½),      of n, at least one with probability 1 − (1 − P)ⁿ,

        with the regularised incomplete Beta function I. So ever fewer starts meet narrow modes as d grows, whatever they hold.

        Example:
            >>> modes = pid.tempering.locate(jax.random.key(0), lambda y: -jnp.sum(y**2), 5)
            >>> round(float(modes.narrowest), 2)
            0.43
        """
        dim = self.points.shape[-1]
        widths = jnp.linspace(0, 1, 1001, dtype=self.log_masses.dtype)
        shares = betainc((dim - 1) / 2, 0.5, widths**2) / 2 if dim > 1 else jnp.where(widths > 0, 0.5, 0.0)
        log_missed = self.num_starts[..., None].astype(widths.dtype) * jnp.log1p(-shares)
        return widths[jnp.argmax(log_missed <= math.log(1 - _MET), axis=-1)]

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
            >>> target = pid.GaussianMixture(jnp.array([[-9.0], [9.0]]), jnp.array([1.0, 4.0]), jnp.array([0.2, 0.8]))
            >>> modes = pid.tempering.locate(jax.random.key(0), target)
            >>> bool(jnp.allclose(jnp.sort(modes.laplace(by_mass=True).weights), jnp.array([0.2, 0.8]), atol=1e-3))
            True
        """
        check_single("the modes", self.points, 2)
        found = concrete(self.num_modes)
        if found is not None and found == 0:
            why = "no start ended at a peak that a Gaussian fits" if self.has_slopes else "gradients are of no use"
            raise ValueError(f"no modes were found: {why}. Take broad_base(modes.pilot_points, modes.pilot_values)")
        count = self.points.shape[0] if found is None else int(found)
        points, factors, log_masses = (leaf[:count] for leaf in (self.points, self.factors, self.log_masses))
        weights = jnp.exp(log_masses - jnp.max(log_masses)) if by_mass else (log_masses > -jnp.inf).astype(points.dtype)
        return GaussianMixture.of_factors(points, factors, weights / jnp.sum(weights))


class Peak(NamedTuple):
    """A mode, if `found`, or the top of a ridge: its L, L⁻¹, log mass and height log p̃; and what was spent on the way."""

    point: Float[Array, " d"]
    factor: Float[Array, "*map"]
    whiten: Float[Array, "*map"]
    log_mass: Float[Array, ""]
    height: Float[Array, ""]
    found: Bool[Array, ""]
    is_ridge: Bool[Array, ""]
    evaluations: Int[Array, ""]


class Search(NamedTuple):
    """The modes so far, and the ridges, and which ends are still open."""

    modes: Tops
    counts: Int[Array, " K"]
    were_given: Bool[Array, " K"]
    num_modes: Int[Array, ""]
    open: Bool[Array, " n"]
    num_unexplained: Int[Array, ""]
    ridges: Tops
    evaluations: Int[Array, ""]


def nothing_found(ends: Float[Array, "n d"], most: int) -> Search:
    """No modes yet, and no end that is open."""
    (number, dim), dtype = ends.shape, ends.dtype
    one, zero = _one(dim, dtype), jnp.zeros((), int)

    def padding(count: int) -> Tops:
        return Tops(
            jnp.zeros((count, dim), dtype), jnp.broadcast_to(one, (count, *one.shape)), jnp.full(count, -jnp.inf, dtype)
        )

    return Search(
        modes=padding(most),
        counts=jnp.zeros(most, int),
        were_given=jnp.zeros(most, bool),
        num_modes=zero,
        open=jnp.zeros(number, bool),
        num_unexplained=zero,
        ridges=padding(min(_MOST_RIDGES, most)),
        evaluations=zero,
    )


def find_modes(
    target: WithDensity,
    ends: Float[Array, "n d"],
    values: Float[Array, " n"],
    drawn: Bool[Array, " n"],
    given: Bool[Array, " n"],
    origins: Int[Array, " n"],
    begun: Search,
) -> Search:
    """The modes among the ends of climbs that are open, beside those before.

    Ends not drawn lead to modes but do not count, nor do those at the mode, numbered by `origins`, around which they started.
    """
    (number, dim), most = ends.shape, len(begun.counts)
    resolution = 32 * jnp.finfo(ends.dtype).eps
    dense = dim <= MOST_DENSE
    reach = 4 + 0.05 * dim

    def explain(search: Search) -> Search:
        best = jnp.argmax(jnp.where(search.open, values, -jnp.inf))
        peak = polish(target, ends[best])
        distances = squares(peak.whiten, ends - peak.point[None])
        belongs = distances < reach
        if dense:
            amiss = jnp.abs(values - peak.height + 0.5 * distances)
            belongs = belongs & (amiss < 0.5 + resolution * jnp.abs(peak.height))
        taken = search.open & (jnp.where(peak.found, belongs, False) | (jnp.arange(number) == best))

        def are_same(tops: Tops, within: float) -> Bool[Array, " R"]:
            return (tops.log_masses > -jnp.inf) & (squares(peak.whiten, tops.points - peak.point[None]) < within)

        def put(tops: Tops, slot: Int[Array, ""], wanted: Bool[Array, ""]) -> Tops:
            """With the peak in this place, if it is wanted and there is room."""
            slot, own = jnp.where(wanted, slot, len(tops.points)), Tops(peak.point, peak.factor, peak.log_mass)
            return jax.tree.map(lambda stack, value: stack.at[slot].set(value, mode="drop"), tops, own)

        same = are_same(search.modes, _SAME if dense else reach)
        again = jnp.any(same)
        is_new = peak.found & ~again
        slot = jnp.where(again, jnp.argmax(same), search.num_modes)
        count = jnp.sum(taken & drawn & ~(peak.found & (origins == slot)))
        num_ridges = jnp.sum(search.ridges.log_masses > -jnp.inf)
        is_new_ridge = peak.is_ridge & ~jnp.any(are_same(search.ridges, _SAME))

        return Search(
            put(search.modes, slot, is_new),
            search.counts.at[slot].add(jnp.where(peak.found, count, 0)),
            search.were_given.at[slot].max(peak.found & jnp.any(taken & given)),
            search.num_modes + is_new.astype(int),
            search.open & ~taken,
            search.num_unexplained + jnp.where(peak.found, 0, count),
            put(search.ridges, num_ridges, is_new_ridge),
            search.evaluations + peak.evaluations,
        )

    return jax.lax.while_loop(lambda search: jnp.any(search.open) & (search.num_modes < most), explain, begun)


class Look(NamedTuple):
    """An end on its way to the mode: L there, |Lᵀ∇log p̃|² and log p̃, and whether to go on."""

    point: Float[Array, " d"]
    factor: Float[Array, "*map"]
    gain: Float[Array, ""]
    height: Float[Array, ""]
    number: Int[Array, ""]
    going: Bool[Array, ""]


def polish(target: WithDensity, end: Float[Array, " d"]) -> Peak:
    """The mode that an end is near, if it is near one: after at most three of Newton's steps, none longer than √d."""
    dim, dtype = end.shape[0], end.dtype
    dense = dim <= MOST_DENSE
    newton_steps = _NEWTON_STEPS if dense else 0

    def step(look: Look) -> Look:
        factor = gaussian_factor(target, look.point)
        height, slope = value_and_slope(target, look.point)
        white_slope = apply(adjoint(factor), slope)
        gain = jnp.sum(white_slope**2)
        going = (gain >= _SETTLED) & (gain < dim) & (look.number < newton_steps)
        point = jnp.where(going, look.point + apply(factor, white_slope), look.point)
        return Look(point, factor, gain, height, look.number + 1, going)

    zero = jnp.zeros((), dtype)
    begun = Look(end, _one(dim, dtype), zero, zero, jnp.zeros((), int), jnp.ones((), bool))
    ended = jax.lax.while_loop(lambda look: look.going, step, begun)
    point, factor, height = ended.point, ended.factor, ended.height

    def fall(index):
        column = factor[:, index % dim] if dense else jnp.where(jnp.arange(dim) == index % dim, factor, 0)
        return height - value_and_slope(target, point + jnp.where(index < dim, column, -column))[0]

    falls = jax.lax.map(fall, jnp.arange(2 * dim), batch_size=_BATCH)
    settled = jnp.isfinite(height) & ((ended.gain < _SETTLED) if dense else jnp.isfinite(ended.gain))
    peaked, fits = settled & jnp.all(jnp.isfinite(factor)), jnp.all(falls < _FALL)
    left = 0.5 * ended.gain if dense else 0
    log_mass = height + left + 0.5 * dim * math.log(2 * math.pi) + log_volume(factor, dim)
    spent = ended.number * (dim + 1) + 2 * dim
    return Peak(point, factor, inverse_factor(factor), log_mass, height, peaked & fits, peaked & ~fits, spent)


def gaussian_factor(target: WithDensity, point: Float[Array, " d"]) -> Float[Array, "*map"]:
    """Lower triangular L with L Lᵀ = H⁻¹, by d products of the Hessian and a vector; not finite where H is indefinite.

    With J the reversal of coordinates and J H J = C Cᵀ it is L = J C⁻ᵀ J.

    Example:
        >>> target = pid.Density(lambda y: -2 * y[0] ** 2 - 0.5 * (y[1] - y[0]) ** 2, 2)
        >>> gaussian_factor(target, jnp.zeros(2)).tolist()
        [[0.5, 0.0], [0.5, 1.0]]
    """
    dim = point.shape[0]
    slope = jax.grad(target.log_density)

    def bend(index):
        return -jax.jvp(slope, (point,), (jax.nn.one_hot(index, dim, dtype=point.dtype),))[1]

    indices = jnp.arange(dim)
    if dim > MOST_DENSE:
        return 1 / jnp.sqrt(jax.lax.map(lambda index: bend(index)[index], indices, batch_size=_BATCH))
    reversed_hessian = jax.lax.map(bend, indices, batch_size=_BATCH)[::-1, ::-1]
    return transpose(inverse_triangular(cholesky(reversed_hessian)))[::-1, ::-1]


def most_modes(dim: int) -> int:
    """64, or as many as there is room for, but 4.

    Example:
        >>> most_modes(100), most_modes(1600)
        (64, 6)
    """
    return min(MOST_MODES, max(4, _MOST_NUMBERS // dim**2)) if dim <= MOST_DENSE else MOST_MODES


def _one(dim: int, dtype) -> Float[Array, "*map"]:
    return jnp.eye(dim, dtype=dtype) if dim <= MOST_DENSE else jnp.ones(dim, dtype)


def shell(dim: int) -> float:
    """The |L⁻¹(y − m)|² below which a point is near a mode: d + 4√(2d) + 16, four deviations of a Gaussian's, and more."""
    return dim + 4 * math.sqrt(2 * dim) + 16


def squares(whiten: Float[Array, "*map"], offsets: Float[Array, "n d"]) -> Float[Array, " n"]:
    """|L⁻¹ y|² of many y, given L⁻¹."""
    if whiten.ndim == 2:
        return jnp.sum(jnp.matmul(offsets, whiten.T, precision=HIGHEST) ** 2, axis=1)
    return jnp.sum((offsets * whiten[None]) ** 2, axis=1)
