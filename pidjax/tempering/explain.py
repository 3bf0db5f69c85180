"""The modes to which the ends of many climbs belong, best first.

The best end that nothing explains yet is polished to its peak m. Ends y with |L⁻¹(y − m)|² < 4 + d/20, and with a height of
log p̃(m) − ½|L⁻¹(y − m)|² to within ½, belong to the mode that it leads to; above 2,048 dimensions by their distance alone.
It is *unexplained* if it leads to none. Ridges are kept, up to 16: samples must be near their tops, but no base is made of
them. Ends within a tenth of a standard deviation belong to them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..targets.base import WithDensity
from .modes import Tops, squares
from .peak import MOST_DENSE, polish, unit_factor

MOST_MODES = 64
_MOST_NUMBERS = 2**24
"""Of the factors of all modes."""
_MOST_RIDGES = 16
_SAME = 1.0
_AT_THE_TOP = 0.01


class Search(NamedTuple):
    """The modes so far, and the ridges, which ends are still open, and how many led to no mode, and of these to ridges."""

    modes: Tops
    counts: Int[Array, " K"]
    were_given: Bool[Array, " K"]
    num_modes: Int[Array, ""]
    open: Bool[Array, " n"]
    num_unexplained: Int[Array, ""]
    num_on_ridges: Int[Array, ""]
    ridges: Tops
    evaluations: Int[Array, ""]


def nothing_found(ends: Float[Array, "n d"], most: int) -> Search:
    """No modes yet, and no end that is open."""
    (number, dim), dtype = ends.shape, ends.dtype
    one, zero = unit_factor(dim, dtype), jnp.zeros((), int)

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
        num_on_ridges=zero,
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
        belongs = belongs & (peak.found | (peak.is_ridge & (distances < _AT_THE_TOP)))
        taken = search.open & (belongs | (jnp.arange(number) == best))

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
            search.num_on_ridges + jnp.where(peak.is_ridge, count, 0),
            put(search.ridges, num_ridges, is_new_ridge),
            search.evaluations + peak.evaluations,
        )

    return jax.lax.while_loop(lambda search: jnp.any(search.open) & (search.num_modes < most), explain, begun)


def most_modes(dim: int) -> int:
    """64, or as many as there is room for, but 4.

    Example:
        >>> most_modes(100), most_modes(1600)
        (64, 6)
    """
    return min(MOST_MODES, max(4, _MOST_NUMBERS // dim**2)) if dim <= MOST_DENSE else MOST_MODES
