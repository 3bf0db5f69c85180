"""What every metric does first: bring samples and log weights into one form, with checks at the door."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from .._doors.checks import as_floating, as_real, check_finite, concrete
from .._doors.functions import check_scalar


def checked_log_weights(log_weights: ArrayLike, forbidden: float = jnp.inf) -> Float[Array, " n"]:
    """Log weights of shape (n,), without NaN and without the `forbidden` infinity; not all are the other one."""
    log_weights = floating("log_weights", log_weights)
    if log_weights.ndim != 1 or log_weights.size == 0:
        raise ValueError(f"log_weights has shape {log_weights.shape}; pass shape (n,), n at least 1")
    allowed = log_weights == -forbidden
    check_finite("log_weights", jnp.where(allowed, 0, log_weights))
    if concrete(allowed) is not None and allowed.all():
        raise ValueError(f"log_weights are all {-forbidden}; no path counts")
    return log_weights


def weighted_samples(
    samples: ArrayLike, log_weights: ArrayLike | None, name: str = "samples"
) -> tuple[Float[Array, "n d"], Float[Array, " n"]]:
    """Samples, and weights that sum to one. A sample of weight zero is moved to the origin: 0 · NaN is then 0."""
    samples = floating(name, samples)
    if samples.ndim != 2 or samples.size == 0:
        raise ValueError(f"{name} has shape {samples.shape}; pass (number, dimension), both at least 1")
    if log_weights is None:
        weights = jnp.full(len(samples), 1 / len(samples), samples.dtype)
    else:
        log_weights = checked_log_weights(log_weights)
        if log_weights.shape != samples.shape[:1]:
            raise ValueError(f"log_weights has shape {log_weights.shape} but there are {len(samples)} {name}")
        weights = jax.nn.softmax(log_weights).astype(samples.dtype)
        samples = jnp.where(weights[:, None] > 0, samples, 0)
    check_finite(name, samples)
    return samples, weights


def sample_pair(
    samples: ArrayLike, reference: ArrayLike, log_weights: ArrayLike | None
) -> tuple[Float[Array, "n d"], Float[Array, " n"], Float[Array, "m d"]]:
    """Samples, their weights, and a reference of the same dimension and dtype."""
    samples, weights = weighted_samples(samples, log_weights)
    reference, _ = weighted_samples(reference, None, "reference")
    if samples.shape[1] != reference.shape[1]:
        raise ValueError(f"samples has dimension {samples.shape[1]} but reference has dimension {reference.shape[1]}")
    return samples, weights, reference.astype(samples.dtype)


def floating(name: str, values: ArrayLike) -> Array:
    """The values as an array of a floating dtype."""
    try:
        values = jnp.asarray(values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is a {type(values).__name__}; pass an array of real numbers") from error
    return as_real(name, values)


def positive(name: str, value: ArrayLike) -> Array:
    """Finite numbers, checked greater than 0."""
    value = as_floating(name, value)
    known = concrete(value)
    if known is not None and not (known > 0).all():
        raise ValueError(f"{name} holds {known.min():g}; pass numbers > 0")
    return value


def log_densities(
    log_density: Callable[[Float[Array, " d"]], Float[Array, ""]],
    points: Float[Array, "n d"],
    weights: Float[Array, " n"] | None = None,
) -> Float[Array, " n"]:
    """log p at the points, checked not NaN where the weights are not zero."""
    check_scalar("log_density", log_density, points[0])
    values = jnp.asarray(jax.vmap(log_density)(points), points.dtype)
    wrong = concrete(jnp.isnan(values) if weights is None else jnp.isnan(values) & (weights > 0))
    if wrong is not None and wrong.any():
        raise ValueError(
            f"log_density is NaN at {np.sum(wrong)} of {wrong.size} points, the first of number {np.argmax(wrong)}; return "
            "-inf outside the support"
        )
    return values
