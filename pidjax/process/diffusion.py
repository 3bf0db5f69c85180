"""Score-based diffusion as protocols: the noising processes of the literature, run backward in their time.

    variance preserving    dx = −(x − ν) dt + √(2v) dW from N(ν, v I):    x(T − s) = ν + e^{−s}(y − ν) + √(v(1 − e^{−2s})) z
    variance exploding     dx = σ dW from a flat law:                      x(t) = y + σ√(1 − t/T) z

Both references are bridges of the same kind as any other, without a potential, and only their clocks are their own:

    K = 1/(v(e^{2s} − 1)),        K = 1/(σ²(1 − t/T)).

A noise schedule of the literature is a change of time: the same process on another grid. The controlled process is the reverse
one, its score `pidjax.exact.score`, its probability flow the rule `Flow`; all from the tilted laws of the target.
"""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from .._doors.checks import as_floating, as_positive
from .protocol import GaussianStart, Protocol
from .schedule import harmonic


def variance_preserving(mean: ArrayLike, *, variance: ArrayLike = 1.0, horizon: ArrayLike = 5.0) -> Protocol:
    """The Ornstein–Uhlenbeck process of score-based diffusion, run backward: exact from its start N(ν, v I).

    Args:
        mean: ν, shape (d,).
        variance: v, that of the noise which the process starts as.
        horizon: T, the time of noising. At the start K = 1/(v(e^{2T} − 1)), and x(0) has the law of the noised target, which is
            N(ν, v I) in the limit only.

    Raises:
        ValueError: a mean that is not one point; a variance or horizon that is not positive.

    Example:
        >>> protocol = variance_preserving(jnp.zeros(2))
        >>> target = pid.GaussianMixture.isotropic(jnp.ones((1, 2)), 0.1)
        >>> [f"{ratio:.4f}" for ratio in pid.exact.snr(target, protocol, 5 - jnp.array([2.0, 0.5]))]
        ['0.0187', '0.5820']

    Source: Song et al., *Score-Based Generative Modeling through Stochastic Differential Equations*, arXiv 2011.13456.
    """
    mean, variance = _mean(mean), as_positive("variance", variance)
    variance = variance.astype(mean.dtype)
    start = GaussianStart(mean, variance)
    force = (-jnp.ones_like(variance), mean)
    return harmonic(0.0, force=force, start=start, horizon=horizon, noise_scale=jnp.sqrt(2 * variance))


def variance_exploding(
    mean: ArrayLike, deviation: ArrayLike, *, width: ArrayLike | None = None, horizon: ArrayLike = 1.0
) -> Protocol:
    """Noise of deviation σ added to the end point, taken away at a constant rate of its square.

    A flat start has no law. From N(ν, S²I), x(t) = M y + (1 − M) ν + σ√(M(1 − t/T)) z with M = 1 − σ²(1 − t/T)/(S² + σ²): M
    and K are too small by a share of at most σ²/S².

    Args:
        mean: ν, shape (d,), near the target.
        deviation: σ; larger than the target is wide, for the start to know nothing of the end.
        width: S; 100 σ by default, with an error of 1e-4.
        horizon: T.

    Raises:
        ValueError: a mean that is not one point; a deviation, width or horizon that is not positive.

    Example:
        >>> target = pid.GaussianMixture.isotropic(jnp.ones((1, 2)), 0.1)
        >>> pid.exact.snr(target, variance_exploding(jnp.zeros(2), 10.0), jnp.array([0.5, 0.99])).round(4)
        Array([0.02, 1.  ], dtype=float32)

    Source: Song et al., *Score-Based Generative Modeling through Stochastic Differential Equations*, arXiv 2011.13456.
    """
    mean, deviation = _mean(mean), as_positive("deviation", deviation)
    deviation = deviation.astype(mean.dtype)
    width = 100 * deviation if width is None else as_positive("width", width).astype(mean.dtype)
    scale = deviation / jnp.sqrt(as_positive("horizon", horizon)).astype(mean.dtype)
    return harmonic(0.0, start=GaussianStart(mean, width**2), horizon=horizon, noise_scale=scale)


def _mean(mean: ArrayLike) -> Float[Array, " d"]:
    mean = as_floating("mean", mean)
    if mean.ndim != 1 or mean.size == 0:
        raise ValueError(f"mean has shape {mean.shape}; pass one point of shape (d,)")
    return mean
