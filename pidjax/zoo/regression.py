"""Bayesian logistic regression: the posterior of the coefficients w of labels y_i ∈ {0, 1} with features x_i,

    log p̃(w) = Σ_i [y_i x_iᵀw − log(1 + e^{x_iᵀw})] + log N(w; 0, s² I),

so that Z is the evidence. The data are read from where you keep them.
"""

import math
from os import PathLike

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float

from .._doors.checks import as_dtype, as_floating, as_positive, concrete
from .._maths.small import matmul
from ..targets.density import Density
from .known import Known


class LogisticLogDensity(eqx.Module):
    """Σ_i [y_i x_iᵀw − log(1 + e^{x_iᵀw})] + log N(w; 0, s² I)."""

    features: Float[Array, "n d"]
    labels: Float[Array, " n"]
    prior_standard_deviation: Float[Array, ""]

    def __call__(self, w: Float[Array, " d"]) -> Float[Array, ""]:
        logits = matmul(w, self.features.T)
        log_likelihood = jnp.sum(self.labels * logits - jax.nn.softplus(logits))
        quadratic = 0.5 * jnp.sum((w / self.prior_standard_deviation) ** 2)
        constant = w.size * (jnp.log(self.prior_standard_deviation) + 0.5 * math.log(2 * math.pi))
        return log_likelihood - quadratic - constant


def logistic(
    features,
    labels,
    prior_standard_deviation: float = 1.0,
    *,
    name: str = "logistic",
    log_z: float | None = None,
    dtype: DTypeLike | None = None,
) -> Known[Density]:
    """log p̃(w) = Σ_i [y_i x_iᵀw − log(1 + e^{x_iᵀw})] + log N(w; 0, s² I).

    Args:
        features: x, shape (n, d), taken as they are: for an intercept, pass a column of ones.
        labels: y, shape (n,), each 0 or 1.
        prior_standard_deviation: s.
        log_z: if you know it.

    Raises:
        ValueError: wrong shapes, NaN, labels other than 0 and 1, a prior standard deviation not positive.

    Example:
        >>> logistic([[1.0, 0.5], [1.0, -2.0]], [1, 0])
        Known(called=logistic, dim=2, entropy=None, log_z=None)
    """
    dtype = as_dtype(dtype)
    features, labels = as_floating("features", features).astype(dtype), as_floating("labels", labels).astype(dtype)
    scale = as_positive("prior_standard_deviation", prior_standard_deviation).astype(dtype)
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"features has shape {features.shape}; pass shape (n, d)")
    if labels.shape != features.shape[:1]:
        raise ValueError(f"labels has shape {labels.shape}; pass one for each row of features, {features.shape[:1]}")
    values = concrete(labels)
    if values is not None and not np.isin(values, (0, 1)).all():
        raise ValueError(f"labels holds {values[~np.isin(values, (0, 1))][0]:g}; pass 0 or 1 for each row of features")
    density = LogisticLogDensity(features, labels, scale)
    return Known(name, Density(density, features.shape[1], dtype=dtype), entropy=None, log_z=log_z)


def logistic_ionosphere(path: str | PathLike, dtype: DTypeLike | None = None) -> Known[Density]:
    """`logistic` on the ionosphere data of UCI, d = 35, s = 1. log Z = −111.614 ± 0.003.

    Features are standardised (a constant column keeps its scale), with an intercept first.

    Args:
        path: a file of comma-separated values, one line of names, then 351 rows of 34 features and the label, −1 or 1.

    Raises:
        ValueError: the file is of another shape.
    """
    table = _table(path, (351, 35), delimiter=",", skip_header=1)
    features, labels = table[:, :-1], table[:, -1] > 0
    scale = np.std(features, axis=0)
    features = _with_intercept((features - np.mean(features, axis=0)) / np.where(scale > 0, scale, 1))
    return logistic(features, labels, 1.0, name="logistic_ionosphere", log_z=-111.614, dtype=dtype)


def logistic_credit(path: str | PathLike, dtype: DTypeLike | None = None) -> Known[Density]:
    """`logistic` on the German credit data of UCI, d = 25, s = 10. log Z = −585.0982 ± 0.0003.

    Features are divided by their standard deviation and not centred, with an intercept first. log Z is by importance sampling
    with 8 million draws of a Student law of 30 degrees of freedom at the mode, in double precision: ESS/N 0.62.

    Args:
        path: the numeric file, without names: 1,000 rows of 24 features and the label, 1 or 2; 1 is y = 1.

    Raises:
        ValueError: the file is of another shape.
    """
    table = _table(path, (1000, 25))
    features, labels = table[:, :-1], table[:, -1] == 1
    features = _with_intercept(features / np.std(features, axis=0))
    return logistic(features, labels, 10.0, name="logistic_credit", log_z=-585.0982, dtype=dtype)


def _table(path: str | PathLike, shape: tuple[int, int], **form) -> np.ndarray:
    table = np.genfromtxt(path, **form)
    if table.shape != shape or not np.isfinite(table).all():
        raise ValueError(f"path leads to a table of shape {table.shape}; pass that of a file of {shape} numbers")
    return table


def _with_intercept(features: np.ndarray) -> np.ndarray:
    return np.concatenate([np.ones((len(features), 1)), features], axis=1)
