"""The answer to a sampling problem, and the questions it answers.

With path weights W_i of N paths, E[W] = Z:

    log Ẑ = log mean W,    ESS = (ΣW)²/ΣW²,    s.e.(log Ẑ) = √( 1/ESS − 1/N ),
    E[f] ≈ Σ W_i f(y_i) / ΣW_i,    s.e. = √( Σ w_i² |f(y_i) − E[f]|² ),   w_i = W_i/ΣW_i.

A pool of J weighted points shared by all paths is itself a sample: its 1/ESS − 1/J adds to the variance.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Key

from .._doors.checks import as_floating, as_scalar, check_key, concrete
from .._doors.functions import in_words, outcome
from .._doors.show import brief, sheet
from .._maths.weighted import SamplingError, Weighted, weighted_sum
from ..targets.base import AbstractTarget
from ..targets.density import Density, Surrogate
from ..targets.pool import LocalDraws, Pool
from .rollout import Prepared, backward_log_weights
from .rules import AbstractRule

_OF_A_DENSITY = (Density, Surrogate, Pool, LocalDraws)
"""Targets whose log-density is the user's."""

_MOST_DECADES = 1e6
"""Largest ratio of the 99 % to the 50 % quantile of the distance from the median: 3e3 of a Lévy law, whose tail is x^(−½)."""


class Solution(Weighted):
    """Weighted samples of the target, with the evidence of how good they are.

    Attributes:
        samples: end points, leading axis N; of the kind the log-density takes.
        log_weights: log W, shape (N,); −inf for a path that was not finite or ended outside the support.
        states: x(t_k), shape (N, K+1, d), and weighted_states x̂(t_k; x_k), shape (N, K, d): if paths were saved.
        target: the target as it was sampled: for a density, with the surrogate that was fitted. Sample it again without
            a new fit.
        prepared: the unit problem that was solved; `prepared.unit` holds the shift, scale, horizon, reference and start.
        rule: the step rule that was used.
        num_nonfinite: paths with a NaN or infinite state or a NaN weight.
        num_energy_evaluations: calls of the log-density, those of a fit included.
        pool_ess, pool_size: of a pool shared by all paths; None without.
        choices: what was chosen, as pairs of name and value; `settings` is the same as a dictionary.
    """

    samples: Any
    log_weights: Float[Array, " N"]
    states: Float[Array, "N times d"] | None
    weighted_states: Float[Array, "N K d"] | None
    target: AbstractTarget
    prepared: Prepared
    rule: AbstractRule
    num_nonfinite: Array
    num_energy_evaluations: Array
    pool_ess: Float[Array, ""] | None
    pool_size: int | None = eqx.field(static=True)
    choices: tuple[tuple[str, Any], ...] = eqx.field(static=True)

    def __repr__(self):
        kind, steps = type(self.target).__name__, f"{self.settings['rule']} in {self.settings['num_steps']} steps"
        title = f"Solution: {self.log_weights.shape[-1]} samples of a {kind} in dimension {self.target.dim}, by {steps}"
        rows = self._evidence()
        if self._holds_numbers():
            rows |= {"mean": _brief_leaves(self._moment(1)), "sd": _brief_leaves(self._moment(2))}
        if self.states is not None:
            rows["paths"] = f"saved at {self.states.shape[1]} times"
        if "surrogate" in self.settings:
            rows["fitted"] = f"{self.settings['surrogate']}; a mode that the fit did not find is missing here"
        return sheet(title, **rows)

    def _moment(self, order: int) -> Any:
        """The weighted mean (1) or standard deviation (2) of each leaf of the samples, on the host."""
        weights = np.asarray(self.weights, np.float64)
        alive = weights != 0

        def of(leaf):
            values = np.asarray(leaf, np.float64)[alive]
            mean = np.tensordot(weights[alive], values, 1)
            return mean if order == 1 else np.sqrt(np.tensordot(weights[alive], (values - mean) ** 2, 1))

        return jax.tree.map(of, self.samples)

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.choices)

    @property
    def times(self) -> Float[Array, " times"]:
        """The grid, in the user's units."""
        return jnp.append(self.prepared.step_laws.t, 1) * self.prepared.unit.horizon

    @property
    def ess(self) -> Float[Array, ""]:
        """(ΣW)²/ΣW², between 1 and N, with a shared pool's 1/ESS added to its inverse."""
        inverse = jnp.sum(self.weights**2)
        if self.pool_ess is not None:
            inverse = inverse + 1 / self.pool_ess
        return 1 / inverse

    @property
    def log_z_error(self) -> Float[Array, ""]:
        """Standard error of log Ẑ, √(1/ESS − 1/N): honest while the ESS is."""
        variance = jnp.sum(self.weights**2) - 1 / self.num_samples
        if self.pool_ess is not None and self.pool_size is not None:
            variance = variance + 1 / self.pool_ess - 1 / self.pool_size
        return jnp.sqrt(jnp.maximum(variance, 0))

    @property
    def inflation(self) -> Float[Array, ""]:
        """By how much standard errors exceed those of independent paths, for the sake of a shared pool; 1 without."""
        return jnp.sqrt(1 / (self.ess * jnp.sum(self.weights**2)))

    def expectation(self, function: Callable[[Any], Any]) -> tuple[Any, Any]:
        """E[f(y)] under the target, self-normalised, and its standard error.

        Args:
            function: of one sample, to an array or a pytree of arrays.

        Returns:
            The estimate and its standard error, each of the shape `function` returns.
        """
        weights, inflation = self.weights, self.inflation

        def moments(values):
            values = jnp.asarray(values, jnp.result_type(values, weights))
            mean = values[0] + weighted_sum(weights, values - values[:1])
            return mean, inflation * jnp.sqrt(weighted_sum(weights**2, jnp.abs(values - mean[None]) ** 2))

        samples = jax.tree.map(self._where_weighted, self.samples)
        found = outcome("function", function, jax.tree.map(lambda leaf: leaf[0], samples), of="one sample")
        if not jax.tree.leaves(found):
            raise ValueError(f"function returns {in_words(found)}; return an array, or a pytree of arrays")
        values = jax.vmap(function)(samples)
        pairs = jax.tree.map(moments, values)
        return jax.tree.transpose(jax.tree.structure(values), jax.tree.structure((0, 0)), pairs)

    def _where_weighted(self, leaf):
        """The leaf with samples of weight zero replaced by the first of the heaviest, so that 0 · NaN never arises."""
        heavy = (self.log_weights > -jnp.inf).reshape(-1, *[1] * (leaf.ndim - 1))
        return jnp.where(heavy, leaf, leaf[jnp.argmax(self.log_weights)][None])

    def forward_ess(
        self, key: Key[Array, ""], exact: Float[Array, "n d"], log_z: float | None = None
    ) -> Float[Array, ""]:
        """ESS/N as the optimal process sees it: 1/mean(W/Z) over paths drawn backward from exact samples of the target.

        Unlike `ess` it falls when the sampler misses a mode.

        Args:
            exact: independent samples of the target, as vectors in the user's units, shape (n, d).
            log_z: the true log Z; this solution's estimate if left out.
        """
        check_key("key", key)
        exact = as_floating("exact", exact)
        if exact.ndim != 2 or exact.shape[0] == 0 or exact.shape[1] != self.target.dim:
            raise ValueError(f"exact has shape {exact.shape}; pass shape (n, {self.target.dim}), n at least 1")
        ends = self.prepared.unit.to_unit(exact)
        log_weights = eqx.filter_jit(backward_log_weights)(self.prepared, self.rule, key, ends)
        log_mean = logsumexp(log_weights) - jnp.log(exact.shape[0])
        return jnp.exp((self.log_z if log_z is None else as_scalar("log_z", log_z).astype(log_mean.dtype)) - log_mean)

    def check(self, min_ess_fraction: float = 0.1) -> "Solution":
        """Return self if the run can be trusted as far as a run can tell; otherwise raise and say what to try.

        A reverse ESS is blind to a mode that no path found, and so is this check; only exact samples or another method can
        show that. For a `Density` that is a real danger: a second mode beyond some 15 widths of a first one near the origin
        is lost, whatever its mass and width (see `fit_surrogate`).

        Args:
            min_ess_fraction: in (0, 1].

        Raises:
            SamplingError: non-finite paths, all weights zero, an ESS below `min_ess_fraction` of N, log-weights too large
                for their dtype, samples over more decades than a density of finite mass has, or too far from the origin for
                their dtype, a surrogate fit that did not settle.
        """
        if concrete(self.log_weights) is None:
            raise ValueError("check() looks at numbers, which jit and vmap do not have: call it outside of them")
        least = float(as_scalar("min_ess_fraction", min_ess_fraction))
        if not 0 < least <= 1:
            raise ValueError(f"min_ess_fraction is {least:g}; pass a number in (0, 1]")
        problems = []
        if self.num_nonfinite > 0:
            cause = (
                "the log-density returned NaN or +inf there, or a step blew up. Return -inf outside the support; use more steps"
                if isinstance(self.target, _OF_A_DENSITY)
                else "a state overflowed, a step blew up, or a control of your own returned NaN. Bring target, noise_scale "
                "and force to moderate scales; use more steps"
            )
            problems.append(
                f"{int(self.num_nonfinite)} of {self.num_samples} paths were not finite: {cause}, or float64"
            )
        fraction = float(self.ess) / self.num_samples
        if not jnp.isfinite(self.log_z):
            problems.append(
                "every weight is zero: no path ended where the log-density is finite. Check its support and units"
            )
        elif fraction < least:
            problems.append(
                f"the effective sample size is {float(self.ess):.1f} of {self.num_samples} ({fraction:.2%}): a few paths "
                "carry the weight, and log_z and its error are not to be trusted. Use more steps or rule Moment or "
                "Ancestral; for a density, a better surrogate (more components near its modes) or more samples"
            )
        problems += self._blurred() + self._spread_out() + self._coarse()
        if self.settings.get("surrogate non-finite evaluations"):
            problems.append(
                f"the log-density returned NaN or +inf {self.settings['surrogate non-finite evaluations']} times while its "
                "surrogate was fitted: return -inf outside the support"
            )
        if self.settings.get("surrogate converged") is False and fraction < 0.5:
            problems.append(
                "the surrogate's fit stopped before it settled. The density may have heavier tails, more modes or more "
                "dimensions than a Gaussian mixture holds; pass your own Surrogate, or learn a control"
            )
        if problems:
            raise SamplingError("; ".join(problems))
        return self

    def _spread_out(self) -> list[str]:
        """Whether the samples spread over more decades than those of a density of finite mass are likely to."""
        weights = np.asarray(self.weights, np.float64)
        if not (isinstance(self.target, _OF_A_DENSITY) and np.isfinite(weights).all()):
            return []
        values = np.asarray(self._vectors(), np.float64)[weights > 0]
        weights = weights[weights > 0]
        distances = np.abs(values - np.median(values, axis=0)).max(axis=1)
        order = np.argsort(distances)
        middle, far = distances[order][np.searchsorted(np.cumsum(weights[order]), [0.5, 0.99 * weights.sum()])]
        if not far > _MOST_DECADES * middle > 0:
            return []
        return [
            f"one sample in a hundred lies {far / middle:.1g} times as far out as the middle one: a density with such tails "
            "has no finite mass, or one that no finite number of samples shows. Bound it, or sample another variable"
        ]

    def _coarse(self) -> list[str]:
        """Whether the samples lie so far from the origin that their dtype does not resolve their spread."""
        values = self._vectors()
        middle, spread = np.abs(np.median(values, axis=0)), np.std(np.asarray(values, np.float64), axis=0)
        step = float(jnp.finfo(values.dtype).eps)
        coarse = (middle * step > 0.1 * spread) & np.isfinite(spread)
        if not (self.target.has_density and coarse.any()):
            return []
        first = int(np.argmax(coarse))
        return [
            f"samples around {middle[first]:.3g} in coordinate {first} are resolved to {middle[first] * step:.2g} only in "
            f"{values.dtype}, beside a spread of {spread[first]:.2g}: shift the target to the origin, or use float64"
        ]

    def _vectors(self) -> Float[Array, "N d"]:
        return jnp.concatenate([leaf.reshape(self.num_samples, -1) for leaf in jax.tree.leaves(self.samples)], axis=1)

    def to_dict(self) -> dict[str, Any]:
        """NumPy arrays and plain numbers by name: for saving, or for another library."""
        if concrete(self.log_weights) is None:
            raise ValueError("to_dict() takes numbers, which jit and vmap do not have: call it outside of them")
        arrays = {"log_weights": self.log_weights, "times": self.times}
        arrays |= {"states": self.states, "weighted_states": self.weighted_states}
        return {
            "samples": jax.tree.map(np.asarray, self.samples),
            **{name: np.asarray(array) for name, array in arrays.items() if array is not None},
            "log_z": float(self.log_z),
            "log_z_error": float(self.log_z_error),
            "ess": float(self.ess),
            "num_nonfinite": int(self.num_nonfinite),
            "num_energy_evaluations": int(self.num_energy_evaluations),
            "settings": self.settings,
        }


def _brief_leaves(tree: Any) -> str:
    """One value, or each of a pytree with its path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return ", ".join(f"{jax.tree_util.keystr(path, simple=True)} {brief(leaf)}".strip() for path, leaf in leaves)
