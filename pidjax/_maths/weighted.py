"""Weighted samples, continuous or discrete: their evidence, their errors, and what goes wrong with them.

Paths may share a weighted sample, as a pool, of size J and effective size J'. It adds its own errors to those of the weights:

    log Ẑ:   s.e.² + 1/J' − 1/J,          ESS:   1/ESS + 1/J',          E[f]:   r · s.e.,   r² = 1 + 1/(J' Σ_g w_g²)
"""

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Key, Shaped

from .._doors.checks import as_scalar, check_count, check_key
from .._doors.extras import load
from .._doors.functions import check_on_host, in_words, outcome
from .._doors.show import brief
from .estimates import Estimate, effective_size, error_of_sum, living, log_evidence, weighted_mean
from .outcomes import Outcome, SamplingError
from .systematic import systematic

_NEGLIGIBLE = 30.0
"""How far below the largest a log-weight no longer counts."""

_Kind = TypeVar("_Kind", bound="Weighted")


class SharedSample(eqx.Module):
    """A weighted sample that all paths share: its effective size J', and its size J."""

    ess: Float[Array, ""]
    size: int = eqx.field(static=True)


class Weighted(eqx.Module):
    """Samples, leading axis N, with log W, shape (N,); the members of an island stand together."""

    samples: eqx.AbstractVar[Any]
    log_weights: eqx.AbstractVar[Float[Array, " N"]]
    num_islands: eqx.AbstractVar[int]
    num_energy_evaluations: eqx.AbstractVar[Any]
    shared: eqx.AbstractVar[SharedSample | None]

    def __check_init__(self):
        if self.num_islands < 1 or self.log_weights.shape[-1] % self.num_islands:
            raise ValueError(
                f"num_islands is {self.num_islands}; pass a divisor of {self.log_weights.shape[-1]} samples"
            )

    @abstractmethod
    def _problems(self) -> list[tuple[Outcome, str]]:
        """What else than the weights is wrong."""

    @abstractmethod
    def _advice(self) -> tuple[str, str]:
        """What it is that every weight is zero, and what to do when a few samples carry the weight."""

    def _enough(self, least: float) -> float:
        """The effective sample size below which there is a problem, for the least share that is asked for."""
        return least * self.num_samples

    @abstractmethod
    def _facts(self) -> dict[str, Any]:
        """What else `to_dict` holds."""

    @property
    def num_samples(self) -> int:
        return self._alone.shape[0]

    @property
    def _alone(self) -> Float[Array, " N"]:
        """The log-weights of one solution."""
        if self.log_weights.ndim != 1:
            raise ValueError(
                f"log_weights has shape {self.log_weights.shape}: this is a batch of solutions; ask each of them, as "
                "jax.vmap(lambda one: one.log_z)(solutions), or take one, as jax.tree.map(lambda leaf: leaf[0], solutions)"
            )
        return self.log_weights

    def _holds_numbers(self) -> bool:
        """Whether these are the numbers of one solution: neither traced, nor shapes alone, nor a batch."""
        log_weights = self.log_weights
        return not isinstance(log_weights, Tracer | jax.ShapeDtypeStruct) and log_weights.ndim == 1

    def _check_numbers(self, method: str) -> None:
        if not self._holds_numbers():
            _ = self._alone
            check_on_host(f"{method}()", self.log_weights)

    @property
    def weights(self) -> Float[Array, " N"]:
        """W_i/ΣW: not negative, sum to one; NaN if every weight is zero."""
        return _softmax(self._alone)

    @property
    def ess(self) -> Float[Array, ""]:
        """(ΣW)²/ΣW², between 1 and N, with a shared sample's 1/J' added to its inverse.

        Resampled members of an island have ancestors in common, which it does not see: the errors do.
        """
        own = effective_size(self._alone)
        return own if self.shared is None else 1 / (1 / own + 1 / self.shared.ess)

    @property
    def log_z(self) -> Estimate:
        """log mean W, the logarithm of an unbiased estimate of Z, and its standard error: honest while the ESS is.

        The error of one island of several samples is NaN.
        """
        value, error = log_evidence(self._alone, self.num_islands)
        if self.shared is None:
            return Estimate(value, error)
        shared = jnp.maximum(1 / self.shared.ess - 1 / self.shared.size, 0)
        return Estimate(value, jnp.sqrt(error**2 + shared))

    @property
    def inflation(self) -> Float[Array, ""]:
        """r, by how much standard errors exceed those of independent islands, for the sake of a shared sample."""
        if self.shared is None:
            return jnp.ones((), self.log_weights.dtype)
        return jnp.sqrt(1 + 1 / (self.shared.ess * error_of_sum(self.weights, self.num_islands) ** 2))

    @property
    def pareto_k(self) -> Float[Array, ""]:
        """k̂, the shape of the Pareto tail of the weights: from 0.7 on the mean of W, and so log Z, is not to be trusted.

        Weights of a tail index k have moments of order below 1/k. +inf of fewer than 25 samples. Needs blackjax.

        Source: Vehtari, Simpson, Gelman, Yao & Gabry, *Pareto smoothed importance sampling*, arXiv 1507.02646.
        """
        diagnostics = load("blackjax.diagnostics", user="pareto_k", package="blackjax", extra="mcmc")
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            return diagnostics.psis_weights(self._alone)[1]

    def expectation(self, function: Callable[[Any], Any]) -> Estimate:
        """E[f(y)] under the target, self-normalised, and its standard error, each of the shape that f returns.

        Args:
            function: of one sample, to an array or a pytree of arrays.

        Raises:
            ValueError: it is no such function, or reads past the end of a sample.
        """
        weights = self.weights
        samples = jax.tree.map(partial(living, weights=weights), self.samples)
        found = outcome("function", function, jax.tree.map(lambda leaf: leaf[0], samples), of="one sample")
        if not jax.tree.leaves(found):
            raise ValueError(f"function returns {in_words(found)}; return an array, or a pytree of arrays")

        means = jax.tree.map(partial(self._mean, weights=weights), jax.vmap(function)(samples))
        return jax.tree.transpose(jax.tree.structure(found), jax.tree.structure(Estimate(0, 0)), means)

    def _mean(self, values: Shaped[Array, "N ..."], weights: Float[Array, " N"]) -> Estimate:
        """Σ_i w_i v_i, and its standard error."""
        value, error = weighted_mean(values, weights, self.num_islands)
        return Estimate(value, error if self.shared is None else self.inflation.astype(error.dtype) * error)

    def resample(self, key: Key[Array, ""], num_samples: int | None = None) -> Any:
        """Equally weighted samples, drawn with the weights by systematic resampling, in random order."""
        check_key("key", key)
        count = self.num_samples if num_samples is None else check_count("num_samples", num_samples)
        key_offset, key_order = jax.random.split(key)
        chosen = jax.random.permutation(key_order, systematic(key_offset, self.weights, count))
        return jax.tree.map(lambda leaf: leaf[chosen], self.samples)

    def problems(self, min_ess_fraction: float = 0.1) -> list[tuple[Outcome, str]]:
        """What a run can tell of what went wrong, each with its cause and what to try; see `check`."""
        self._check_numbers("problems")
        least = float(as_scalar("min_ess_fraction", min_ess_fraction))
        if not 0 < least <= 1:
            raise ValueError(f"min_ess_fraction is {least:g}; pass a number in (0, 1]")
        lost, advice = self._advice()
        ess, found = float(self.ess), self._problems()
        if not jnp.isfinite(self.log_z.value):
            found.append((Outcome.NO_WEIGHT, lost))
        elif ess < self._enough(least):
            text = (
                f"the effective sample size is {ess:.1f} of {self.num_samples} ({ess / self.num_samples:.2%}): {advice}"
            )
            found.append((Outcome.FEW_EFFECTIVE, text))
        counting = self.log_weights > jnp.max(self.log_weights) - _NEGLIGIBLE
        largest = float(jnp.max(jnp.where(counting & jnp.isfinite(self.log_weights), jnp.abs(self.log_weights), 0)))
        step = largest * float(jnp.finfo(self.log_weights.dtype).eps)
        if step >= 0.1:
            text = (
                f"log-weights of size {largest:.3g} are resolved to {step:.2g} only in {self.log_weights.dtype}: samples, "
                "log_z and errors are blurred. Take a constant off the log-density, term by term, or use float64"
            )
            found.append((Outcome.BLURRED, text))
        return found

    def check(self: _Kind, min_ess_fraction: float = 0.1) -> _Kind:
        """Return self if the run can be trusted as far as a run can tell; otherwise raise and say what to try.

        A reverse ESS is blind to a mode that no path found, and so is this check; only exact samples or another method can
        show that. For a `Density` that is a real danger: narrow modes far from wide ones are lost in more than a few dimensions
        (see `pidjax.tempering.locate`).

        Args:
            min_ess_fraction: in (0, 1]; an ESS below this share of N is a problem.

        Raises:
            SamplingError: with every `Outcome` that was found.
        """
        problems = self.problems(min_ess_fraction)
        if problems:
            raise SamplingError(*problems)
        return self

    def to_dict(self) -> dict[str, Any]:
        """NumPy arrays and plain numbers by name: for saving, or for another library."""
        self._check_numbers("to_dict")
        return {
            "samples": jax.tree.map(np.asarray, self.samples),
            **self._numbers(),
            "num_energy_evaluations": int(self.num_energy_evaluations),
            **self._facts(),
        }

    def _numbers(self) -> dict[str, Any]:
        """What `to_dict` holds of the weights."""
        return {
            "log_weights": np.asarray(self.log_weights),
            "log_z": float(self.log_z.value),
            "log_z_error": float(self.log_z.standard_error),
            "ess": float(self.ess),
            "num_islands": self.num_islands,
        }

    def _evidence(self) -> dict[str, str]:
        """What `repr` says of log Z and of the effective sample size."""
        if not self._holds_numbers():
            return {"log_W": brief(self.log_weights)}
        share = f"{self.ess:.1f} of {self.num_samples} ({self.ess / self.num_samples:.1%})"
        return {"log_Z": f"{self.log_z:.4f}", "ESS": share}


_softmax = jax.jit(jax.nn.softmax)
