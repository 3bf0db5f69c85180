"""Named targets with exact facts: one definition for tests, benchmarks and notebooks.

    >>> import jax
    >>> known = nine()
    >>> known.sample(jax.random.key(0), 5).shape, known.log_z, round(known.entropy, 4)
    ((5, 2), 0.0, 3.8311)

One name often means several densities in the literature, so each function states its density in full. Arrays are of the
`dtype` given, else of JAX's default.
"""

import math
from abc import abstractmethod
from typing import Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float, Key

from ._doors.checks import as_dtype, as_positive, check_count, check_key
from ._doors.show import shown
from .targets.base import AbstractTarget, WithDensity
from .targets.density import Density
from .targets.mixture import GaussianMixture

GMM40_STANDARD_DEVIATION = math.log1p(math.e)
"""softplus(1) = 1.3132617."""


Kind = TypeVar("Kind", bound=AbstractTarget)


class Known(eqx.Module, Generic[Kind]):
    """A target of which the truth is known.

    Attributes:
        name: as benchmarks print it.
        target: what `pidjax.sample` takes.
        entropy: −∫ p log p of the normalised density, or None if nobody knows it.
        log_z: log ∫ p̃.
    """

    name: str = eqx.field(static=True)
    target: Kind
    entropy: float | None = eqx.field(static=True)
    log_z: float = eqx.field(static=True)

    def __repr__(self):
        return shown(type(self).__name__, called=self.name, dim=self.dim, entropy=self.entropy, log_z=self.log_z)

    @property
    def dim(self) -> int:
        return self.target.dim

    def log_density(self, y: Float[Array, " d"]) -> Float[Array, ""]:
        """log p̃(y) of one point."""
        assert isinstance(self.target, WithDensity)
        return self.target.log_density(y)

    def sample(self, key: Key[Array, ""], num_samples: int) -> Float[Array, "n d"]:
        """Exact independent draws, shape (num_samples, d)."""
        check_key("key", key)
        return self._draw(key, check_count("num_samples", num_samples))

    @abstractmethod
    def _draw(self, key: Key[Array, ""], num_samples: int) -> Float[Array, "n d"]: ...


class KnownMixture(Known[GaussianMixture]):
    """A mixture of isotropic Gaussians Σ_k w_k N(μ_k, σ_k² I): its modes are known as well."""

    @property
    def centres(self) -> Float[Array, "k d"]:
        """μ_k."""
        return self.target.means

    @property
    def standard_deviations(self) -> Float[Array, " k"]:
        """σ_k."""
        return self.target.factors

    @property
    def mode_weights(self) -> Float[Array, " k"]:
        """w_k."""
        return self.target.weights

    def responsibilities(self, y: Float[Array, " d"]) -> Float[Array, " k"]:
        """w_k N(y; μ_k, σ_k² I) / p(y): the probability that y came from each component; w is its mean under p."""
        return self.target.responsibilities(y)

    def _draw(self, key, num_samples):
        return self.target.sample(key, num_samples)


class FunnelLogDensity(eqx.Module):
    """log N(x₁; 0, s²) + Σ_{i≥2} log N(x_i; 0, e^{x₁})."""

    scale: float = eqx.field(static=True)

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        neck, rest = x[0], x[1:]
        constant = math.log(self.scale) + x.size / 2 * math.log(2 * math.pi)
        quadratic = (neck / self.scale) ** 2 + jnp.sum((jnp.exp(-neck / 2) * rest) ** 2)
        return -0.5 * (quadratic + rest.size * neck) - constant


class Funnel(Known[Density]):
    """Neal's funnel; made by `funnel`."""

    scale: float = eqx.field(static=True)

    def _draw(self, key, num_samples):
        noise = jax.random.normal(key, (num_samples, self.dim), self.target.shift.dtype)
        neck = self.scale * noise[:, :1]
        return jnp.concatenate([neck, jnp.exp(neck / 2) * noise[:, 1:]], axis=1)


def nine(dtype: DTypeLike | None = None) -> KnownMixture:
    """Σ N(m, 0.3 I)/9 over m ∈ {−5, 0, 5}². P(within 3 sd of the nearest mean) = 0.98889.

    Example:
        >>> nine().centres.shape
        (9, 2)
    """
    return _mixture("nine", _lattice([-5, 0, 5]), math.sqrt(0.3), None, 3.831108867, dtype)


def grid25(dtype: DTypeLike | None = None) -> KnownMixture:
    """Σ N(m, 0.3 I)/25 over m ∈ {−10, −5, 0, 5, 10}².

    Example:
        >>> grid25().centres.shape
        (25, 2)
    """
    return _mixture("grid25", _lattice([-10, -5, 0, 5, 10]), math.sqrt(0.3), None, 4.852756120, dtype)


def gmm40(dtype: DTypeLike | None = None) -> KnownMixture:
    """Σ_k N(m_k, softplus(1)² I)/40 with m_k = 80 ((u & 0xFFFFFF)/2²⁴ − ½), u the raw 32-bit draws of MT19937, seed 0.

    Example:
        >>> gmm40().centres[0].tolist()
        [-0.2994728088378906, 21.457744598388672]

    Source: Midgley, Stimper, Simm, Schölkopf & Hernández-Lobato, *Flow annealed importance sampling bootstrap*, arXiv
    2208.01893, whose means are those of torch.rand after manual_seed(0).
    """
    raw = np.random.RandomState(0).randint(0, 2**32, size=(40, 2), dtype=np.uint32)
    uniform = (raw & 0xFFFFFF).astype(np.float32) / np.float32(2**24)
    means = (uniform - np.float32(0.5)) * np.float32(80)
    return _mixture("gmm40", means, GMM40_STANDARD_DEVIATION, None, 6.859468829, dtype)


def ada_regular(dtype: DTypeLike | None = None) -> KnownMixture:
    """Σ N(m, 0.3² I)/9 over m ∈ {−1.5, 0, 1.5}².

    Example:
        >>> round(ada_regular().entropy, 3)
        2.581

    Source: Chertkov & Behjoo, *AdaPID*, arXiv 2512.11858.
    """
    return _mixture("ada_regular", _lattice([-1.5, 0, 1.5]), 0.3, None, 2.581277093, dtype)


def ada_perturbed_a(dtype: DTypeLike | None = None) -> KnownMixture:
    """`ada_regular` perturbed, no symmetry left: Σ_k w_k N(m_k, σ_k² I). With numpy's default_rng(20241005), in turn

        m += U(−½, ½)^(9×2),   σ = 0.3 · U(½, 2)^9,   w ∝ U(½, 3/2)^9.

    Example:
        >>> bool(ada_perturbed_a().standard_deviations.max() > 0.59)
        True

    Source: Chertkov & Behjoo, *AdaPID*, arXiv 2512.11858.
    """
    rng = np.random.default_rng(20241005)
    means = _lattice([-1.5, 0, 1.5]) + rng.uniform(-0.5, 0.5, (9, 2))
    standard_deviations = 0.3 * rng.uniform(0.5, 2, 9)
    weights = rng.uniform(0.5, 1.5, 9)
    return _mixture("ada_perturbed_a", means, standard_deviations, weights, 2.798665099, dtype)


def funnel(scale: float = 3.0, dim: int = 10, dtype: DTypeLike | None = None) -> Funnel:
    """x₁ ~ N(0, s²), x_i ~ N(0, e^{x₁}) for i = 2…d. Entropy (d/2) log 2πe + log s, as E x₁ = 0.

    s = 3 in most papers, √3 in SLIPS and RDSMC, 1 in PIS: the scale must be named with the figure.

    Raises:
        ValueError: scale not positive, or dim below 2.

    Example:
        >>> round(funnel(scale=3.0).entropy, 4)
        15.288

    Source: Neal, *Slice sampling*, Annals of Statistics 2003, section 8, there with s = 3, d = 10.
    """
    as_positive("scale", scale)
    dim = check_count("dim", dim)
    if dim < 2:
        raise ValueError(f"dim is {dim}; pass at least 2")
    return Funnel(
        name=f"funnel({scale:.4g})",
        target=Density(FunnelLogDensity(scale), dim, dtype=dtype),
        entropy=dim / 2 * math.log(2 * math.pi * math.e) + math.log(scale),
        log_z=0.0,
        scale=scale,
    )


def _lattice(axis: list[float]) -> np.ndarray:
    """The square lattice axis × axis, second coordinate outer, shape (len(axis)², 2)."""
    first, second = np.meshgrid(axis, axis)
    return np.stack([first.ravel(), second.ravel()], axis=1)


def _mixture(name, means, standard_deviations, weights, entropy, dtype) -> KnownMixture:
    means, variances = jnp.asarray(means, as_dtype(dtype)), np.square(standard_deviations)
    return KnownMixture(name, GaussianMixture.isotropic(means, variances, weights), entropy, log_z=0.0)
