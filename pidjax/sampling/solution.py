"""The answer to a sampling problem, and the questions it answers: those of `Weighted`, and of the paths."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Key

from .._doors.checks import as_points, as_scalar, check_key
from .._doors.show import brief, sheet
from .._maths.estimates import Estimate
from .._maths.outcomes import Outcome
from .._maths.weighted import SharedSample, Weighted
from ..targets.base import AbstractTarget, WithDensity, able
from ..targets.density import Density
from ..targets.ends import Ends
from ..targets.fitting import Fit
from ..targets.fitting.rounds import DRAWS
from ..targets.local import LocalDraws
from ..targets.mixture import GaussianMixture
from ..targets.pool import Pool
from ..targets.surrogate import Surrogate
from ..tempering.modes import Modes
from ..tempering.population import Population
from ..tempering.reached import Reached
from .problem import Prepared
from .rollout import backward_log_weights
from .rules import AbstractRule, Unweighted

_MOST_DECADES = 1e6
"""Largest ratio of the 99 % to the 50 % quantile of the distance from the median: 3e3 of a Lévy law, whose tail is x^(−½)."""


class Solution(Weighted):
    """Weighted samples of the target, with the evidence of how good they are.

    Attributes:
        samples: end points, leading axis N; of the kind the log-density takes.
        vectors: the same as vectors, shape (N, d): of free numbers, where supports bind the samples.
        log_weights: log W, shape (N,); −inf for a path that was not finite or ended outside the support. Of a target known by
            means alone zeros, which stand for none: `weights`, `ess`, `log_z` and `expectation` then raise a ValueError.
        num_islands: groups of paths that never exchange: N but for paths that were resampled.
        shared: the size of a pool that all paths share; None without.
        states: x(t_k), shape (N, K+1, d), and weighted_states x̂(t_k; x_k), shape (N, K, d): if paths were saved.
        target: the target as it was sampled: for a density, with the surrogate that was fitted. Sample it again without
            a new fit.
        prepared: the unit problem that was solved; `prepared.unit` holds the shift, scale, horizon, reference and start.
        rule: the step rule that was used.
        num_nonfinite: paths with a NaN or infinite state or a NaN weight.
        num_energy_evaluations: calls of the log-density, those of a fit included, up to 2³¹ − 1.
        fit: how the surrogate was found, if one was fitted.
        reached: how end points were reached by a climb, if one was made.
        located: modes that a search found in 5 to 12 dimensions, of which the fit had overlooked none. `modes` are these, or
            the climb's.
        pinned: the paths are bridges to its end points: log Z, expectations and their errors are those of its population, and
            `ess` counts first ancestors.
        choices: what was chosen, as pairs of name and value; `settings` is the same as a dictionary.
    """

    samples: Any
    vectors: Float[Array, "N d"]
    log_weights: Float[Array, " N"]
    states: Float[Array, "N times d"] | None
    weighted_states: Float[Array, "N K d"] | None
    target: AbstractTarget
    prepared: Prepared
    rule: AbstractRule
    num_nonfinite: Array
    num_energy_evaluations: Array
    shared: SharedSample | None
    fit: Fit | None
    reached: Reached | None
    located: Modes | None
    num_islands: int = eqx.field(static=True)
    pinned: bool = eqx.field(static=True)
    choices: tuple[tuple[str, Any], ...] = eqx.field(static=True)

    def __repr__(self):
        kind = "Density" if isinstance(self.target, Ends) else type(self.target).__name__
        steps = f"{self.settings['rule']} in {self.settings['num_steps']} steps"
        title = f"Solution: {self.log_weights.shape[-1]} samples of a {kind} in dimension {self.target.dim}, by {steps}"
        rows = {"weights": "none: the target is known by means alone"} if self._is_unweighted else self._evidence()
        if self._holds_numbers() and not self._is_unweighted:
            mean = self.expectation(lambda y: y).value
            variance = self.expectation(lambda y: jax.tree.map(lambda leaf, m: (leaf - m) ** 2, y, mean)).value
            rows |= {"mean": _brief_leaves(mean), "sd": _brief_leaves(jax.tree.map(jnp.sqrt, variance))}
        if self.states is not None:
            rows["paths"] = f"saved at {self.states.shape[1]} times"
        if self.reached is not None:
            rows["reached"] = (
                f"by {self.settings['road']}, in {self.reached.population.schedule.levels.shape[-1]} levels"
            )
        elif self.fit is not None:
            told = "; a mode that the fit did not find is missing here" if self.located is None else ""
            if self._holds_numbers() and self.fit.non_finite > 0:
                told += (
                    f"; the log-density was NaN or +inf {int(self.fit.non_finite)} times, mostly far out, read as -inf"
                )
            rows["fitted"] = f"a surrogate, from the energy alone{told}"
        if self._holds_numbers() and self.modes is not None:
            rows["modes"] = _how_located(self.modes)
        return sheet(title, **rows)

    @property
    def modes(self) -> Modes | None:
        """Those that a search located; None if there was none."""
        return self.located if self.reached is None else self.reached.modes

    @property
    def _population(self) -> Population | None:
        """Whose log Z and expectations these are, if not those of weighted paths."""
        return self.reached.population if self.pinned and self.reached is not None else None

    @property
    def _is_unweighted(self) -> bool:
        return isinstance(self.rule, Unweighted)

    def _check_weighted(self, what: str) -> None:
        if self._is_unweighted:
            raise ValueError(
                f"there is no {what}: the laws of the target are known by their means alone, so that its paths have no weights "
                "and its samples no likelihood. Average over solution.samples as they are; for log Z and weights take a target "
                "with a law, as Samples or Smoothed"
            )

    @property
    def weights(self) -> Float[Array, " N"]:
        self._check_weighted("weight")
        return super().weights

    @property
    def pareto_k(self) -> Float[Array, ""]:
        self._check_weighted("tail of weights")
        return super().pareto_k

    @property
    def ess(self) -> Float[Array, ""]:
        self._check_weighted("effective sample size")
        return super().ess if self._population is None else jnp.minimum(self._population.ess, self.num_samples)

    @property
    def log_z(self) -> Estimate:
        self._check_weighted("log Z")
        return super().log_z if self._population is None else self._population.log_z

    @property
    def degrees_of_freedom(self) -> float:
        """Of the standard errors: those of the islands' spread where end points were reached, else infinitely many."""
        return math.inf if self._population is None else self._population.degrees_of_freedom

    def expectation(self, function):
        if self._population is None:
            return super().expectation(function)
        return self._population.expectation(lambda y: function(self.target.point(y)))

    def _enough(self, least):
        enough = super()._enough(least)
        return enough if self._population is None else min(self._population._enough(least), enough)

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.choices)

    @property
    def num_gradient_evaluations(self) -> int:
        """Of the evaluations, those with the gradient, by which what stands in for a density was found."""
        parts = self.fit, self.located, self.reached
        return sum(int(part.num_gradient_evaluations) for part in parts if part is not None)

    @property
    def times(self) -> Float[Array, " times"]:
        """The grid, in the user's units."""
        return jnp.append(self.prepared.step_laws.t, 1) * self.prepared.unit.horizon

    def forward_ess(
        self, key: Key[Array, ""], exact: Float[Array, "n d"], log_z: float | None = None
    ) -> Float[Array, ""]:
        """ESS/N as the optimal process sees it: 1/mean(W/Z) over paths drawn backward from exact samples of the target.

        Unlike `ess` it falls when the sampler misses a mode.

        Args:
            exact: independent samples of the target, as vectors in the user's units, shape (n, d).
            log_z: the true log Z; this solution's estimate if left out.

        Raises:
            ValueError: points of another shape; paths pinned to end points, which have no density to weigh by.
        """
        check_key("key", key)
        if isinstance(self.target, Ends):
            raise ValueError(
                "the paths end on points that a climb reached, which have no density beside the target's: compare samples with "
                "exact ones by pidjax.metrics"
            )
        exact = as_points("exact", exact, self.target.dim)
        ends = self.prepared.unit.to_unit(exact)
        log_weights = eqx.filter_jit(backward_log_weights)(self.prepared, self.rule, key, ends)
        log_mean = logsumexp(log_weights) - jnp.log(exact.shape[0])
        return jnp.exp(
            (self.log_z.value if log_z is None else as_scalar("log_z", log_z).astype(log_mean.dtype)) - log_mean
        )

    def problems(self, min_ess_fraction: float = 0.1) -> list[tuple[Outcome, str]]:
        if not self._is_unweighted:
            return super().problems(min_ess_fraction)
        self._check_numbers("problems")
        text = (
            "the target is known by means alone, which need not be those of any law: no weights tell whether its samples are "
            "right. Compare them with data by pidjax.metrics"
        )
        return [(Outcome.NO_LAW, text), *self._problems()]

    def _numbers(self):
        return {} if self._is_unweighted else super()._numbers()

    def _problems(self):
        problems = self._spread_out() + self._coarse() + self._disagreeing()
        if self.reached is not None:
            own = (Outcome.NO_WEIGHT, Outcome.FEW_EFFECTIVE, Outcome.BLURRED)
            problems += [found for found in self.reached.problems() if found[0] not in own]
        if self._population is not None:
            return problems
        if self.num_nonfinite > 0:
            cause = (
                "a state overflowed, a step blew up, or a control of your own returned NaN. Bring target, noise_scale "
                "and force to moderate scales; use more steps"
            )
            if isinstance(self.target, Ends):
                cause = "late in time the few end points of a climb near a state have no width. Use rule Ancestral"
            elif self._has_users_density:
                cause = (
                    "the log-density returned NaN or +inf there, a field of the rule was not finite, or a step blew up. Return "
                    "-inf outside the support; use more steps"
                )
            text = f"{int(self.num_nonfinite)} of {self.num_samples} paths were not finite: {cause}, or float64"
            problems.insert(0, (Outcome.NOT_FINITE, text))
        fit = self.fit if self.reached is None else None
        if fit is not None and not fit.last_log_z.hides(fit.non_finite_near / DRAWS):
            text = (
                f"the log-density returned NaN or +inf at {int(fit.non_finite_near)} of the last {DRAWS} places where its "
                "surrogate was fitted, which were read as -inf: return -inf outside the support, and keep what overflows far "
                "out, as an exponential, from being NaN"
            )
            problems.append((Outcome.FIT_NOT_FINITE, text))
        return problems

    def _advice(self):
        lost = "no path ended where the log-density is finite. Check its support and units"
        cures = "Use more steps or rule Moment or Ancestral"
        if self._population is not None:
            return self._population._advice()
        if isinstance(self.target, Pool | LocalDraws):
            cures = "Use more steps, a larger pool or more draws, a mixture nearer to the density, or a Surrogate"
        elif isinstance(self.target, Surrogate):
            cures += "; a better surrogate (more components near its modes) or more samples"
        elif isinstance(self.target, Density):
            cures = "Use more steps, a better control, or a Surrogate"
        else:
            lost = "no path stayed finite. Bring target, noise_scale and force to moderate scales"
        return f"every weight is zero: {lost}", (
            f"a few paths carry the weight, and log_z and its error are not to be trusted. {cures}"
        )

    @property
    def _has_users_density(self) -> bool:
        """Whether the weights are those of a density that may be NaN, or have no finite mass."""
        return able(self.target, WithDensity) and not isinstance(self.target, GaussianMixture)

    def _spread_out(self) -> list[tuple[Outcome, str]]:
        """Whether the samples spread over more decades than those of a density of finite mass are likely to."""
        if not self._has_users_density:
            return []
        weights = np.asarray(self.weights, np.float64)
        if not np.isfinite(weights).all():
            return []
        values = np.asarray(self.vectors, np.float64)[weights > 0]
        weights = weights[weights > 0]
        distances = np.abs(values - np.median(values, axis=0)).max(axis=1)
        order = np.argsort(distances)
        middle, far = distances[order][np.searchsorted(np.cumsum(weights[order]), [0.5, 0.99 * weights.sum()])]
        if not far > _MOST_DECADES * middle > 0:
            return []
        text = (
            f"one sample in a hundred lies {far / middle:.1g} times as far out as the middle one: a density with such tails "
            "has no finite mass, or one that no finite number of samples shows. Bound it, or sample another variable"
        )
        return [(Outcome.SPREAD_OUT, text)]

    def _coarse(self) -> list[tuple[Outcome, str]]:
        """Whether the samples lie so far from the origin that their dtype does not resolve their spread."""
        if not (able(self.target, WithDensity) and self.num_samples > 1):
            return []
        step, counting = float(jnp.finfo(self.vectors.dtype).eps), np.asarray(self.weights) > 0
        values, weights = (np.asarray(array, np.float64)[counting] for array in (self.vectors, self.weights))
        middle = np.abs(weights @ values)
        spread = np.sqrt(weights @ (values - weights @ values) ** 2)
        coarse = (middle * step > 0.1 * spread) & np.isfinite(spread)
        if not coarse.any():
            return []
        first = int(np.argmax(coarse))
        text = (
            f"samples around {middle[first]:.3g} in coordinate {first} are resolved to {middle[first] * step:.2g} only in "
            f"{self.vectors.dtype}, beside a spread of {spread[first]:.2g}: shift the target to the origin, or use float64"
        )
        return [(Outcome.COARSE, text)]

    def _disagreeing(self) -> list[tuple[Outcome, str]]:
        """Whether paths to a surrogate give another log Z than its own draws did, or the climb that it was made from."""
        if self.pinned or not isinstance(self.target, Surrogate) or not self.rule.weighs_target_alone:
            return []
        if self.reached is not None:
            found, by = self.reached.population.log_z, "the climb"
        elif self.fit is not None:
            found, by = self.fit.last_log_z, "draws of the surrogate"
        else:
            return []
        own = self.log_z
        if not own.disagrees(found):
            return []
        text = (
            f"the paths gave log Z of {own:.4g}, {by} {found:.4g}: the steps do not end where the surrogate is (too few "
            "of them for this rule, or a target that its dtype does not resolve), or errors are too small (a heavy tail). "
            "Use rule Ancestral, more steps, or float64"
        )
        return [(Outcome.DISAGREEING, text)]

    def _facts(self):
        arrays = {"times": self.times, "states": self.states, "weighted_states": self.weighted_states}
        return {
            **{name: np.asarray(array) for name, array in arrays.items() if array is not None},
            "num_nonfinite": int(self.num_nonfinite),
            "num_gradient_evaluations": self.num_gradient_evaluations,
            "settings": self.settings,
        }


def _brief_leaves(tree: Any) -> str:
    """One value, or each of a pytree with its path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return ", ".join(f"{jax.tree_util.keystr(path, simple=True)} {brief(leaf)}".strip() for path, leaf in leaves)


def _how_located(modes: Modes) -> str:
    number = int(modes.num_modes)
    if number == 0:
        return f"none located: {modes.why_none}"
    known = f"{number} located; a further start would meet a new one with a chance of {float(modes.unseen):.1%}"
    if modes.unseen_mass > 0:
        known += f" (those met once hold {float(modes.unseen_mass):.0%} of the mass, and so may others)"
    if modes.num_unexplained > 0:
        known += f", one of {float(modes.num_unexplained / modes.num_starts):.0%} ended where no Gaussian fits"
    if modes.narrowest > 0:
        known += (
            f"; one far away that is less than {float(modes.narrowest):.2g} times as wide as the widest may be missed"
        )
    return known
