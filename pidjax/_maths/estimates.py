"""Means of weighted values, and their standard errors.

With weights W_i of N samples, E[W] = Z, in G islands that never exchange, w_i = W_i/ΣW and w_g = Σ_{i∈g} w_i:

    log Ẑ = log mean W,         s.e. = √( Σ_g (w_g − 1/G)² ),                  ESS = 1/Σ_i w_i²,
    E[f] ≈ Σ_i w_i f(y_i),      s.e. = √( Σ_g | Σ_{i∈g} w_i (f(y_i) − E[f]) |² ).

Samples that never meet are islands of their own, G = N.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Inexact, Shaped

from .._doors.show import shown

_UNLIKELY = 5.0


class Estimate(NamedTuple):
    """A mean, or a function of means, and its standard error; a format holds for both, as in f"{estimate:.3f}"."""

    value: Any
    standard_error: Any

    def __repr__(self):
        return shown("Estimate", **self._asdict())

    def __format__(self, form):
        return f"{self.value:{form}} ± {self.standard_error:{form}}"

    def is_below(self, other: "Estimate") -> bool:
        """By more than 0.01, and than both errors explain.

        Example:
            >>> Estimate(0.0, 0.01).is_below(Estimate(0.1, 0.01)), Estimate(0.0, 0.1).is_below(Estimate(0.1, 0.1))
            (True, False)
        """
        error = float(jnp.hypot(self.standard_error, other.standard_error))
        return float(other.value - self.value) > max(_UNLIKELY * error, 0.01)

    def disagrees(self, other: "Estimate") -> bool:
        """Whether one is below the other."""
        return self.is_below(other) or other.is_below(self)

    def hides(self, share: Array | float) -> bool:
        """Of log Z: whether it would not show that such a share of the mass is lost, being less than a quarter of the error.

        Example:
            >>> Estimate(0.0, 0.01).hides(0.001), Estimate(0.0, 0.01).hides(0.1)
            (True, False)
        """
        return bool(share == 0) or bool(share < 0.25 * self.standard_error)


@jax.jit
def effective_size(log_weights: Float[Array, " N"]) -> Float[Array, ""]:
    """(ΣW)²/ΣW², from 1 to N; NaN if every weight is zero.

    Example:
        >>> effective_size(jnp.array([0.0, 0.0, -jnp.inf])).item()
        2.0
    """
    return 1 / jnp.sum(jax.nn.softmax(log_weights) ** 2)


@partial(jax.jit, static_argnames="num_islands")
def log_evidence(log_weights: Float[Array, " N"], num_islands: int | None = None) -> Estimate:
    """log mean W and its standard error, √Σ_g (w_g − 1/G)².

    Example:
        >>> f"{log_evidence(jnp.log(jnp.array([1.0, 3.0]))):.3f}"
        '0.693 ± 0.354'
    """
    count = log_weights.shape[0]
    error = error_of_sum(jax.nn.softmax(log_weights) - 1 / count, num_islands)
    return Estimate(logsumexp(log_weights) - math.log(count), error)


@partial(jax.jit, static_argnames="num_islands")
def weighted_mean(
    values: Shaped[Array, "N ..."], weights: Float[Array, " N"], num_islands: int | None = None
) -> Estimate:
    """Σ_i w_i v_i and its standard error; where w_i = 0, v_i does not count.

    Example:
        >>> f"{weighted_mean(jnp.array([1.0, 3.0, jnp.nan]), jnp.array([0.5, 0.5, 0.0])):.3f}"
        '2.000 ± 0.707'
    """
    values = living(values, weights)
    values = values if jnp.issubdtype(values.dtype, jnp.inexact) else values.astype(weights.dtype)
    weights = weights.astype(values.real.dtype)
    first = jnp.where(jnp.isfinite(values[0]), values[0], 0)
    mean = first + weighted_sum(weights, values - first[None])
    return Estimate(mean, error_of_sum(_column(weights, values) * (values - mean[None]), num_islands))


def error_of_sum(terms: Inexact[Array, "N ..."], num_islands: int | None = None) -> Float[Array, "..."]:
    """√Σ_g |Σ_{i∈g} t_i|², the standard error of a sum of terms whose islands have mean zero; each its own if None.

    NaN of one island alone.

    Example:
        >>> error_of_sum(jnp.array([3.0, 1.0, 2.0, 1.0]), 2).item()
        5.0
    """
    if 1 in (num_islands, terms.shape[0]):
        return jnp.full(terms.shape[1:], jnp.nan, terms.real.dtype)
    if num_islands is not None:
        terms = jnp.sum(terms.reshape(num_islands, -1, *terms.shape[1:]), axis=1)
    return jnp.sqrt(jnp.sum(jnp.abs(terms) ** 2, axis=0))


@jax.jit
def living(values: Shaped[Array, "N ..."], weights: Float[Array, " N"]) -> Shaped[Array, "N ..."]:
    """Values, those of weight zero replaced by that of the heaviest: 0 · NaN never arises, nor in derivatives."""
    return jnp.where(_column(weights, values) > 0, values, values[jnp.argmax(weights)][None])


def weighted_sum(weights: Float[Array, " N"], values: Inexact[Array, "N ..."]) -> Inexact[Array, "..."]:
    """Σ_i w_i v_i, summed in pairs: a matrix product adds a million terms one after the other, and loses three digits.

    Example:
        >>> weighted_sum(jnp.full(1_000_000, 1e-6), jnp.ones(1_000_000)).round(4).item()
        1.0
    """
    return jnp.sum(_column(weights, values) * values, axis=0)


def _column(weights, values):
    """Weights along the first axis of values."""
    return weights.reshape(-1, *[1] * (values.ndim - 1))
