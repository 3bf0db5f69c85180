"""What a climb reached: weighted points of a density, and what speaks against them.

A mode or ridge k of Laplace's mass M_k with hardly a sample near it is *lost* if

    ESS · q_k  ≥  10,      Σ_i W_i 1[|L_k⁻¹(y_i − m_k)|² < d + 4 √(2d) + 16]  <  q_k/20,      q_k = M_k/max(Ẑ, Σ_j M_j).

If importance weights, or a climb from another base, tell of clearly more mass than is here, or short steps from the points lead
to such, there is mass that the climb has not seen; if it started from modes, and those met by chance only once hold much, there
may be; if from a halo, and a hundredth of its points are where the widest Gaussians end, its base was too narrow for the tails.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int

from .._doors.show import shown
from .._maths.estimates import Estimate
from .._maths.maps import inverse_factor
from .._maths.outcomes import Outcome
from ..targets.mixture import GaussianMixture
from .bases import are_all
from .modes import Modes, Tops, shell, squares
from .population import Population

LEAST_SHARE = 0.15
"""Effective share of the particles with which a climb is content."""
_EXPECTED, _LEAST_NEAR = 10.0, 0.05
_MOST_UNSEEN = 0.05
_MOST_BEYOND = 0.01
_LIKELY, _UNLIKELY, _SMALL = 2.0, 4.0, 0.5
"""Of missing mass: its standard errors above which it seems to be there, and is for certain, and its share of that of log Z,
below which it is no matter."""


class Reached(eqx.Module):
    """Weighted points of a density, and how they were reached.

    Attributes:
        population: the points, their log Z and errors.
        pilot_log_z: of the adaptive climb, by fewer particles.
        base: where both climbed from, and `road` its name: "fitted", "modes", "halo" or "broad".
        modes: what was seen before.
        seen_log_z: the largest log Z by the importance weights of the halo and all climbs; too low rather than too high.
        missing: mass into which short steps from the points lead, in units of that found; None where none were made.
        beyond: the weight of points where the widest Gaussians of a halo end, if it was the base.
        num_lost: modes and ridges that were seen, and where no point is.
        num_energy_evaluations, num_gradient_evaluations: in all, of log p̃, and of these with the gradient.
    """

    population: Population
    pilot_log_z: Estimate
    base: GaussianMixture
    modes: Modes
    seen_log_z: Estimate | None
    missing: Estimate | None
    beyond: Float[Array, ""] | None
    num_lost: Int[Array, ""]
    num_energy_evaluations: Int[Array, ""]
    num_gradient_evaluations: Int[Array, ""]
    road: str = eqx.field(static=True)

    def __repr__(self):
        facts: dict[str, Any] = {"levels": self.population.schedule.levels.shape[-1], "modes": self.modes.num_modes}
        return shown("Reached", road=self.road, **facts, unseen=self.modes.unseen, lost=self.num_lost)

    @property
    def leads_on(self) -> bool:
        """Whether mass seems to be missing, into which short steps lead."""
        return self.missing is not None and bool(self.missing.value > _LIKELY * self.missing.standard_error)

    @property
    def missed(self) -> float:
        """The missing mass if it is there for certain, and more than the error of log Z covers; else 0."""
        if self.missing is None:
            return 0.0
        value, error = self.missing
        least = max(_UNLIKELY * error, _SMALL * self.population.log_z.standard_error)
        return float(value) if value > least else 0.0

    @property
    def is_thin(self) -> bool:
        """Whether few effective particles arrived."""
        return not bool(self.population.ess >= LEAST_SHARE * self.population.num_samples)

    @property
    def num_faults(self) -> int:
        """Problems, but for mass missed by short steps: where the error is large that is not seen, and not less."""
        return len(self.problems()) - (self.missed > 0)

    def is_better(self, other: "Reached") -> bool:
        """Whether it has fewer faults; if as many, is not thin, or found clearly more if both are, and missed no mass.

        Otherwise whether the error of log Z, to which missed mass is added, is less than half.
        """
        faults, others_faults = self.num_faults, other.num_faults
        if faults != others_faults:
            return faults < others_faults
        if self.is_thin != other.is_thin and self.missed == other.missed == 0:
            return other.is_thin
        own, others = self.population.log_z, other.population.log_z
        more, allowed = own.value - others.value, _LIKELY * jnp.hypot(own.standard_error, others.standard_error)
        if self.is_thin and other.is_thin and abs(more) > allowed:
            return bool(more > 0)
        error, others_error = (float(one.population.log_z.standard_error) + one.missed for one in (self, other))
        return error < 0.5 * others_error or math.isnan(others_error)

    def problems(self) -> list[tuple[Outcome, str]]:
        """What speaks against it: see `Outcome`."""
        found = self.population.problems()
        if self.num_lost > 0:
            text = (
                f"{int(self.num_lost)} of the modes and ridges that were located have mass, and hardly a sample near: they "
                "were lost on the way. Use more samples, or anneal from a base with a component for each"
            )
            found.append((Outcome.LOST_MODE, text))
        unseen = float(self.modes.unseen_mass)
        if self.road == "modes" and not are_all(self.modes) and unseen > _MOST_UNSEEN:
            text = (
                f"modes to which one start alone led hold {unseen:.0%} of the mass: others, to which none led, may hold as "
                "much. Pass starts near where mass may be, or repeat with other keys and compare"
            )
            found.append((Outcome.UNSEEN_MASS, text))
        one, other = self.population.log_z, self.pilot_log_z
        if one.disagrees(other):
            text = (
                f"two climbs gave log Z of {one:.4g} and {other:.4g}: the errors are too small. Use more samples, or a base "
                "nearer to the target"
            )
            found.append((Outcome.DISAGREEING, text))
        if self.missed > 0:
            text = (
                f"short steps from the samples led on to {self.missed:.1%} more mass, as far as they went: a narrow part that "
                "the climb did not enter (the neck of a funnel). Use another variable, as a hierarchy not centred"
            )
            found.append((Outcome.UNSEEN_MASS, text))
        if self.beyond is not None and self.beyond > _MOST_BEYOND:
            text = (
                f"{float(self.beyond):.1%} of the samples are where the widest Gaussians end from which the climb started: the "
                "tails go on, or there is no finite mass. Bound the density, or sample another variable"
            )
            found.append((Outcome.UNSEEN_MASS, text))
        seen = self.seen_log_z
        if seen is not None and one.is_below(seen):
            text = (
                f"importance weights around the modes and strays, or a climb from another base, gave log Z of {seen:.4g}, "
                f"this climb {one:.4g}: there is mass where no sample is (heavy tails, a wide part under a narrow top). Use a "
                "base that covers it"
            )
            found.append((Outcome.UNSEEN_MASS, text))
        return found


@eqx.filter_jit
def num_lost(population: Population, tops: Tops) -> Int[Array, ""]:
    """How many of them have mass, and hardly any sample near."""
    samples, reach = population.samples, shell(population.samples.shape[1])
    total = jnp.maximum(population.log_z.value, logsumexp(tops.log_masses))

    def is_lost(top):
        near = squares(inverse_factor(top.factors), samples - top.points[None]) < reach
        share = jnp.exp(top.log_masses - total)
        found = jnp.sum(jnp.where(near, population.weights, 0))
        return (population.ess * share >= _EXPECTED) & (found < _LEAST_NEAR * share)

    return jnp.sum(jax.lax.map(is_lost, tops))
