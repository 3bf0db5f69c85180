"""Weighted samples, continuous or discrete, and what holds of all of them.

With weights W_i of N samples, E[W] = Z:

    log Ẑ = log mean W,     w_i = W_i/ΣW.
"""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int, Key

from .._doors.checks import check_count, check_key
from .._doors.show import brief


class SamplingError(RuntimeError):
    """What `check` raises: what went wrong, and what to try."""


class Weighted(eqx.Module):
    """Samples, leading axis N, with log W, shape (N,)."""

    samples: eqx.AbstractVar[Any]
    log_weights: eqx.AbstractVar[Float[Array, " N"]]

    @property
    @abstractmethod
    def ess(self) -> Float[Array, ""]:
        """The effective number of samples."""

    @property
    @abstractmethod
    def log_z_error(self) -> Float[Array, ""]:
        """Standard error of log Ẑ."""

    @property
    def num_samples(self) -> int:
        self._check_alone()
        return self.log_weights.shape[0]

    @property
    def weights(self) -> Float[Array, " N"]:
        """W_i/ΣW: not negative, sum to one; NaN if every weight is zero."""
        self._check_alone()
        return jax.nn.softmax(self.log_weights)

    def _holds_numbers(self) -> bool:
        """Whether these are the numbers of one solution: neither traced, nor shapes alone, nor a batch."""
        log_weights = self.log_weights
        return not isinstance(log_weights, Tracer | jax.ShapeDtypeStruct) and log_weights.ndim == 1

    def _check_alone(self) -> None:
        if self.log_weights.ndim != 1:
            raise ValueError(
                f"log_weights has shape {self.log_weights.shape}: this is a batch of solutions; ask each of them, as "
                "jax.vmap(lambda one: one.log_z)(solutions)"
            )

    @property
    def log_z(self) -> Float[Array, ""]:
        """log mean W, the logarithm of an unbiased estimate of Z."""
        return logsumexp(self.log_weights) - jnp.log(self.num_samples).astype(self.log_weights.dtype)

    def _evidence(self) -> dict[str, str]:
        """What `repr` says of log Z and of the effective sample size."""
        if not self._holds_numbers():
            return {"log_W": brief(self.log_weights)}
        share = f"{float(self.ess):.1f} of {self.num_samples} ({self.ess / self.num_samples:.1%})"
        return {"log_Z": f"{float(self.log_z):.4f} ± {float(self.log_z_error):.4f}", "ESS": share}

    def _blurred(self) -> list[str]:
        """What `check` says of log-weights so large that their dtype does not resolve what differs between them."""
        finite = jnp.where(jnp.isfinite(self.log_weights), jnp.abs(self.log_weights), 0)
        largest, step = float(jnp.max(finite)), jnp.finfo(self.log_weights.dtype).eps
        if largest * step < 0.1:
            return []
        return [
            f"log-weights of size {largest:.3g} are resolved to {largest * step:.2g} only in {self.log_weights.dtype}: "
            "samples, log_z and errors are blurred. Take a constant off the log-density, term by term, or use float64"
        ]

    def resample(self, key: Key[Array, ""], num_samples: int | None = None) -> Any:
        """Equally weighted samples, drawn with the weights by systematic resampling, in random order."""
        check_key("key", key)
        count = self.num_samples if num_samples is None else check_count("num_samples", num_samples)
        key_offset, key_order = jax.random.split(key)
        chosen = jax.random.permutation(key_order, systematic(key_offset, self.weights, count))
        return jax.tree.map(lambda leaf: leaf[chosen], self.samples)


def weighted_sum(weights: Float[Array, " N"], values: Float[Array, "N ..."]) -> Float[Array, "..."]:
    """Σ_i w_i v_i, summed in pairs: a matrix product adds a million terms one after the other, and loses three digits.

    Example:
        >>> weighted_sum(jnp.full(1_000_000, 1e-6), jnp.ones(1_000_000)).round(4).item()
        1.0
    """
    return jnp.sum(weights.reshape(-1, *[1] * (values.ndim - 1)) * values, axis=0)


def systematic(key: Key[Array, ""], weights: Float[Array, " n"], count: int) -> Int[Array, " count"]:
    """`count` indices in ascending order, index i on average count·w_i times, by one uniform offset.

    Example:
        >>> systematic(jax.random.key(0), jnp.array([0.0, 0.5, 0.5]), 4).tolist()
        [1, 1, 2, 2]
    """
    cumulative = jnp.cumsum(weights)
    offset = jax.random.uniform(key, (), weights.dtype)
    positions = (jnp.arange(count, dtype=weights.dtype) + offset) / count * cumulative[-1]
    last = jnp.max(jnp.where(weights > 0, jnp.arange(len(weights)), 0))
    return jnp.minimum(jnp.searchsorted(cumulative, positions, side="right").astype(int), last)
