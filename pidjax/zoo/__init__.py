"""Named targets with exact facts: one definition for tests, benchmarks and notebooks.

    >>> import jax
    >>> known = nine()
    >>> known.sample(jax.random.key(0), 5).shape, known.log_z, round(known.entropy, 4)
    ((5, 2), 0.0, 3.8311)

One name often means several densities in the literature, so each function states its density in full. Arrays are of the
`dtype` given, else of JAX's default.
"""

from .known import Drawable, Known, KnownMixture
from .neal import Funnel, funnel
from .planar import GMM40_STANDARD_DEVIATION, ada_perturbed_a, ada_regular, gmm40, grid25, nine

__all__ = [
    "GMM40_STANDARD_DEVIATION", "Drawable", "Funnel", "Known", "KnownMixture", "ada_perturbed_a", "ada_regular", "funnel",
    "gmm40", "grid25", "nine",
]  # fmt: skip
