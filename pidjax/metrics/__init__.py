"""Figures of merit, as pure functions of (samples, reference samples, log weights).

Samples are (n, d) with log weights (n,), w_i ∝ exp(log_weights_i), equal if left out; a sample of log weight −inf does
not count, whatever its coordinates. The reference is (m, d), exact draws of equal weight: a weighted one is resampled
first. All but `wasserstein2` and `sinkhorn_divergence` run under `jit` and `vmap`.

**A distance means nothing without its floor**, the same distance between two exact sample sets of the same sizes:

    >>> import jax
    >>> from pidjax import metrics, zoo
    >>> lowest = metrics.floor(metrics.wasserstein2, zoo.nine().sample, jax.random.key(0), n=200)
    >>> bool(lowest.mean > 0.5)
    True

Every function raises `ValueError` for a wrong shape, an empty set, or NaN or infinity in what counts.
"""

from .._maths.estimates import Estimate
from .distances import Floor, energy_ks, floor, kolmogorov_smirnov, mmd_squared, sliced_ks
from .modes import cross_entropy, fraction_within, mode_shares, mode_total_variation, nearest
from .transport import sinkhorn_divergence, wasserstein2
from .weights import elbo, ess, eubo, forward_ess, log_z_error

__all__ = [
    "Estimate",
    "Floor",
    "cross_entropy",
    "elbo",
    "energy_ks",
    "ess",
    "eubo",
    "floor",
    "forward_ess",
    "fraction_within",
    "kolmogorov_smirnov",
    "log_z_error",
    "mmd_squared",
    "mode_shares",
    "mode_total_variation",
    "nearest",
    "sinkhorn_divergence",
    "sliced_ks",
    "wasserstein2",
]
