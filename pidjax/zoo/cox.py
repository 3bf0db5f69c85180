"""A log-Gaussian Cox process: the posterior of the log-intensity x on a grid of m × m cells, given counts y of points,

    log p̃(x) = Σ_i [y_i x_i − e^{x_i}/m²] + log N(x; μ, C),
    μ = log 126 − 1.91/2,     C_ij = 1.91 exp(−|i − j|/(m/33)),   |i − j| in cells,

the likelihood without its log y!. With the Cholesky factor W⁻¹ of C, the quadratic form is |W(x − μ)|², a sum of squares that
float32 can carry.
"""

import math
from os import PathLike

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float

from .._doors.checks import as_dtype, as_floating, check_count
from .._maths.small import lower_matvec
from ..targets.density import Density
from .known import Known

_VARIANCE = 1.91
_MEAN = math.log(126) - _VARIANCE / 2


class CoxLogDensity(eqx.Module):
    """Σ_i [y_i x_i − e^{x_i}/d] − ½ |W(x − μ)|² + log |W| − (d/2) log 2π."""

    counts: Float[Array, " d"]
    mean: Float[Array, ""]
    whitening: Float[Array, "d d"]
    log_constant: Float[Array, ""]

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        log_likelihood = jnp.sum(self.counts * x - jnp.exp(x) / x.size)
        white = lower_matvec(self.whitening, x - self.mean)
        return log_likelihood - 0.5 * jnp.sum(white**2) + self.log_constant


def log_gaussian_cox(
    points,
    num_cells: int = 40,
    *,
    name: str = "log_gaussian_cox",
    log_z: float | None = None,
    dtype: DTypeLike | None = None,
) -> Known[Density]:
    """log p̃(x) = Σ_i [y_i x_i − e^{x_i}/m²] + log N(x; log 126 − 1.91/2, 1.91 exp(−|i − j|/(m/33))), d = m².

    Args:
        points: in the unit square, shape (n, 2). y counts them in cells min(⌊m · coordinate⌋, m − 1), first coordinate outer.
        num_cells: m, along one side.
        log_z: if you know it.

    Raises:
        ValueError: points of another shape, or outside the unit square.

    Example:
        >>> log_gaussian_cox([[0.2, 0.3], [0.2, 1.0]], num_cells=4).dim
        16
    """
    dtype, num_cells = as_dtype(dtype), check_count("num_cells", num_cells)
    points = np.asarray(as_floating("points", points), np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"points has shape {points.shape}; pass shape (n, 2)")
    if points.size and not (points.min() >= 0 and points.max() <= 1):
        raise ValueError(f"points lie in [{points.min():g}, {points.max():g}]; pass points of the unit square")
    cells = np.minimum(np.floor(num_cells * points).astype(int), num_cells - 1)
    counts = np.bincount(cells @ [num_cells, 1], minlength=num_cells**2)
    places = np.stack(np.divmod(np.arange(num_cells**2), num_cells), axis=1)
    distances = np.linalg.norm(places[:, None] - places[None], axis=-1)
    factor = np.linalg.cholesky(_VARIANCE * np.exp(-distances / (num_cells / 33)))
    log_constant = -np.sum(np.log(np.diag(factor))) - len(places) / 2 * math.log(2 * math.pi)
    density = CoxLogDensity(
        *(jnp.asarray(value, dtype) for value in (counts, _MEAN, np.tril(np.linalg.inv(factor)), log_constant))
    )
    return Known(name, Density(density, len(places), dtype=dtype), entropy=None, log_z=log_z)


def cox_pines(path: str | PathLike, dtype: DTypeLike | None = None) -> Known[Density]:
    """`log_gaussian_cox` of 126 Finnish pines on 40 × 40 cells, d = 1600. log Z = 501.79 ± 0.02.

    The 512.6 of some papers belongs to another file of points.

    Args:
        path: a file of comma-separated values, one line of names, then 126 rows of two coordinates.

    Raises:
        ValueError: the file is of another shape.

    Source: Møller, Syversveen & Waagepetersen, *Log Gaussian Cox processes*, Scandinavian Journal of Statistics 1998; the file
    is that of Arbel, Matthews & Doucet, *Annealed flow transport Monte Carlo*, arXiv 2102.07501.
    """
    points = np.genfromtxt(path, delimiter=",", skip_header=1)
    if points.shape != (126, 2):
        raise ValueError(f"path leads to a table of shape {points.shape}; pass that of a file of (126, 2) numbers")
    return log_gaussian_cox(points, 40, name="cox_pines", log_z=501.79, dtype=dtype)
