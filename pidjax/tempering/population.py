"""What a ladder ends with: samples whose islands carry their own estimates of Z, and two errors of everything said of them.

    log Ẑ = log Σ_k α_k mean_{i ∈ k} Ẑ_i,           strata k, islands i that start in one component of the base

A weighted sum Σ_j t_j over particles falls into parts T_c of independent clusters c, n of them in each stratum, hence

    s.e.² = Σ_k n/(n − 1) Σ_{c ∈ k} (T_c − mean_k T)².

The clusters are the first ancestors' lines (n large, but particles of one level met under one metric and step), and the
islands (independent, but few). The larger of the two is the error.

Whether the particles have reached the target between its modes and within, their gradients g = ∇log p̃ tell (Stein): under p

    E[g_j] = 0,      E[1 + (y_j − E y_j) g_j] = 0

for each coordinate j. A funnel whose neck the particles did not enter is out of balance by many errors.

Sources: Lee & Whiteley, *Variance estimation in the particle filter*, arXiv 1509.00394; Olsson & Douc, arXiv 1701.01001;
Gorham & Mackey, *Measuring sample quality with Stein's method*, arXiv 1506.03039.
"""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact, Int, Shaped

from .._doors.show import brief, sheet
from .._maths.estimates import Estimate, weighted_mean
from .._maths.once import compiled_once
from .._maths.outcomes import Outcome
from .._maths.weighted import SharedSample, Weighted
from .schedule import Schedule

FEWEST_LINES = 5
"""Effective first ancestors of an island, below which errors are skewed."""
FEWEST = 50
"""Effective first ancestors in all."""
MOST_UNBALANCED = 6.0
"""Standard errors that a mean of the gradient may be away from its value under the target."""
_UNLIKELY = 4.0
"""Standard deviations of a normal law beyond which the islands' spread is no accident."""
_NEGLIGIBLE = 0.01


class Errors(NamedTuple):
    """The standard error from the lines of the first ancestors, and from the islands; NaN of one island a stratum."""

    lines: Array
    islands: Array

    @property
    def larger(self) -> Array:
        return jnp.fmax(self.lines, self.islands)


class Population(Weighted):
    """Samples at λ = 1, with what the climb tells of Z and of its error.

    Attributes:
        samples: as vectors, shape (N, d); the members of an island stand together, and have one weight.
        log_weights: log of Ẑ_i α_k K, shape (N,), for the island i and the component k that it started in.
        island_log_z: log Ẑ_i, shape (islands,); island i belongs to stratum i mod `num_strata`.
        ancestors: the number of the particle, at the start, that each descends from.
        slopes: ∇log p̃ at the samples, shape (N, d); None of moves without gradients.
        walled: whether log p̃ was −∞ anywhere on the way: then Stein's identities may fail at its walls.
        acceptance: mean acceptance of the moves at each level.
        schedule: the levels, steps and metrics: pass it to `anneal` for a run that adapts nothing.
        num_gradient_evaluations, num_energy_evaluations: of ∇ log p̃, and of log p̃, alone or with its gradient.
        num_nonfinite: log-densities of NaN or +∞, or without a finite gradient, which were taken for −∞, or 0.
        num_strata: groups of islands, one for each component of the base; 1 if islands start anywhere in it.
    """

    samples: Float[Array, "N d"]
    log_weights: Float[Array, " N"]
    island_log_z: Float[Array, " islands"]
    ancestors: Int[Array, " N"]
    slopes: Float[Array, "N d"] | None
    walled: Bool[Array, ""]
    acceptance: Float[Array, " T"]
    schedule: Schedule
    num_gradient_evaluations: Int[Array, ""]
    num_energy_evaluations: Int[Array, ""]
    num_nonfinite: Int[Array, ""]
    num_islands: int = eqx.field(static=True)
    num_strata: int = eqx.field(static=True)
    shared: SharedSample | None = None

    def __repr__(self):
        dim, levels = self.samples.shape[-1], self.schedule.levels.shape[-1]
        title = f"Population: {self.log_weights.shape[-1]} samples in dimension {dim}, after {levels} levels"
        rows = self._evidence()
        rows["islands"] = f"{self.num_islands}" + (f" in {self.num_strata} strata" if self.num_strata > 1 else "")
        if self._holds_numbers():
            rows["mean"] = brief(self.expectation(lambda y: y).value)
        return sheet(title, **rows)

    @property
    def log_z(self) -> Estimate:
        """log Ẑ, and the larger of the two errors."""
        return Estimate(super().log_z.value, self.log_z_errors.larger)

    @property
    def log_z_errors(self) -> Errors:
        """The two errors of log Ẑ."""
        return self._errors(self.weights)

    @property
    def degrees_of_freedom(self) -> int:
        """Of the islands' spread: an interval from it is one of Student's t."""
        return self.num_islands - self.num_strata

    @property
    def ess(self) -> Float[Array, ""]:
        """1/Σ_e W_e² over the first ancestors e and the weight of their descendants: a pessimistic sample size."""
        return 1 / jnp.sum(line_sums(self.weights, self.ancestors) ** 2)

    @property
    def imbalance(self) -> Float[Array, "2 d"]:
        """The means of g_j, and of 1 + (y_j − E y_j) g_j, in standard errors; normal where the particles are the target's.

        Raises:
            ValueError: the moves followed no gradients.
        """
        if self.slopes is None:
            raise ValueError("the moves followed no gradients, whose means would tell; take Hamiltonian()")
        return _imbalance(self.samples, self.slopes, self.weights, self.ancestors, self.num_islands, self.num_strata)

    def _enough(self, least):
        return min(float(FEWEST), super()._enough(least))

    @property
    def lines_of_islands(self) -> Float[Array, " islands"]:
        """The effective number of first ancestors of each island, between 1 and its size."""
        size = self.num_samples // self.num_islands
        shares = line_sums(jnp.full(self.num_samples, 1 / size, self.log_weights.dtype), self.ancestors)
        return 1 / jnp.sum(shares.reshape(self.num_islands, size) ** 2, axis=1)

    def _errors(self, terms: Inexact[Array, "N ..."]) -> Errors:
        """The two standard errors of a sum over all particles."""
        return errors_of_sum(terms, self.ancestors, self.num_islands, self.num_strata)

    def _mean(self, values: Shaped[Array, "N ..."], weights: Float[Array, " N"]) -> Estimate:
        values = values if jnp.issubdtype(values.dtype, jnp.inexact) else values.astype(weights.dtype)
        return _mean(values, weights, self.ancestors, self.num_islands, self.num_strata)

    def _problems(self):
        problems = []
        if self.num_nonfinite > 0:
            text = (
                f"the log-density was NaN or +inf, or had no finite gradient, {int(self.num_nonfinite)} times of "
                f"{int(self.num_energy_evaluations)}: no particle stays there. Return -inf outside the support; make the "
                "gradient finite (jnp.where inside of what diverges)"
            )
            problems.append((Outcome.NOT_FINITE, text))
        if not self.schedule.levels[-1] >= 1:
            text = (
                f"the ladder ended at level {float(self.schedule.levels[-1]):.3g} after {self.schedule.levels.size} levels: "
                "the base is too far from the target. Pass a base nearer to it, or scale the target"
            )
            problems.append((Outcome.UNFINISHED, text))
        carrying = self.log_weights.reshape(self.num_islands, -1)[:, 0] > -jnp.inf
        lines = jnp.where(carrying, self.lines_of_islands, jnp.inf)
        if jnp.min(lines) < min(FEWEST_LINES, self.num_samples // self.num_islands / 2):
            text = (
                f"the particles of an island descend from {float(jnp.min(lines)):.1f} effective ones at the start: errors are "
                "too small. Use larger islands, more moves, or a base nearer to the target"
            )
            problems.append((Outcome.COLLAPSED, text))
        if self.slopes is not None and not self.walled:
            largest = float(jnp.max(jnp.abs(self.imbalance)))
            if not largest <= MOST_UNBALANCED:
                text = (
                    f"a mean of the gradient is {largest:.1f} standard errors from its value under the target: the particles "
                    "have not reached all of it (a narrow neck, heavy tails), or the gradient is not that of the log-density "
                    "everywhere (jumps). Use more moves, a base nearer to the target, or another variable"
                )
                problems.append((Outcome.UNBALANCED, text))
        errors, freedom = self.log_z_errors, self.degrees_of_freedom
        if freedom > 0 and errors.islands > max(_NEGLIGIBLE, math.sqrt(_largest(freedom)) * float(errors.lines)):
            text = (
                f"the islands' estimates of log Z spread as for an error of {float(errors.islands):.3g}, while the lines "
                f"within them claim {float(errors.lines):.3g}: islands found different modes, or the moves do not mix. Use "
                "more moves, a wider base, or one with a component for each mode"
            )
            problems.append((Outcome.DISAGREEING, text))
        return problems

    def _advice(self):
        return (
            "every weight is zero: no particle was where the log-density is finite. Check its support and units, give a "
            "bounded variable its range by pidjax.supports, or anneal from a base that covers it"
        ), "the particles descend from few of the first. Use larger islands, more moves, or a base nearer to the target"

    def _facts(self) -> dict[str, Any]:
        arrays = ("island_log_z", "ancestors", "acceptance")
        return {
            **{name: np.asarray(getattr(self, name)) for name in arrays},
            "levels": np.asarray(self.schedule.levels),
            "steps": np.asarray(self.schedule.steps),
            "num_gradient_evaluations": int(self.num_gradient_evaluations),
            "num_nonfinite": int(self.num_nonfinite),
            "num_strata": self.num_strata,
        }


def line_sums(terms: Inexact[Array, "N ..."], ancestors: Int[Array, " N"]) -> Inexact[Array, "N ..."]:
    """The sums over the descendants of each first ancestor."""
    return jax.ops.segment_sum(terms, ancestors, len(ancestors))


@compiled_once
def errors_of_sum(
    terms: Inexact[Array, "N ..."], ancestors: Int[Array, " N"], num_islands: int, num_strata: int
) -> Errors:
    """The two standard errors of a sum over all particles.

    Example:
        >>> errors_of_sum(jnp.array([1.0, 1.0, 1.0, 3.0]), jnp.array([0, 1, 2, 2]), 2, 1).islands.item()
        2.0
    """
    shape = num_islands // num_strata, num_strata, len(terms) // num_islands

    def error(sums: Inexact[Array, "strata n ..."]) -> Array:
        count = sums.shape[1]
        apart = sums - jnp.mean(sums, axis=1, keepdims=True)
        scale = count / (count - 1) if count > 1 else math.nan
        return jnp.sqrt(scale * jnp.sum(jnp.abs(apart) ** 2, axis=(0, 1)))

    def by_stratum(sums):
        return jnp.swapaxes(sums.reshape(*shape, *terms.shape[1:]), 0, 1)

    lines = by_stratum(line_sums(terms, ancestors)).reshape(num_strata, -1, *terms.shape[1:])
    return Errors(error(lines), error(jnp.sum(by_stratum(terms), axis=2)))


@compiled_once
def _mean(
    values: Inexact[Array, "N ..."],
    weights: Float[Array, " N"],
    ancestors: Int[Array, " N"],
    num_islands: int,
    num_strata: int,
) -> Estimate:
    mean = weighted_mean(values, weights).value
    columns = weights.astype(mean.real.dtype).reshape(-1, *[1] * (values.ndim - 1))
    errors = errors_of_sum(columns * (values - mean[None]), ancestors, num_islands, num_strata)
    return Estimate(mean, errors.larger)


@compiled_once
def _imbalance(
    samples: Float[Array, "N d"],
    slopes: Float[Array, "N d"],
    weights: Float[Array, " N"],
    ancestors: Int[Array, " N"],
    num_islands: int,
    num_strata: int,
) -> Float[Array, "2 d"]:
    offsets = samples - weighted_mean(samples, weights).value[None]
    values = jnp.stack([slopes, 1 + offsets * slopes], axis=1)
    mean, error = _mean(values, weights, ancestors, num_islands, num_strata)
    return jnp.where(mean == 0, 0, mean / error)


def _largest(freedom: int) -> float:
    """The value of χ²/ν that ν degrees of freedom exceed as rarely as a normal variable exceeds 4 (Wilson and Hilferty)."""
    width = 2 / (9 * freedom)
    return (1 - width + _UNLIKELY * math.sqrt(width)) ** 3
