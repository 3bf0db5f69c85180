"""What is sampled: five targets, each with exact samples, and the distances that are measured on it.

The handwritten digits are scikit-learn's (1,797 images of 8×8 pixels, divided by 16), cut at random into two halves. As
a data set the target is the first half. As a density it is Σ_i N(x_i, h² I) over that half, h = 0.14 the leave-one-out
maximum of the likelihood; it is smoother than the data. Either way the distances are to the *second* half, and the
floor is that of the first half to the second.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

import pidjax as pid
from pidjax import metrics, zoo

DIGITS_BANDWIDTH = 0.14
HUNGARIAN = 1000
"""The exact W2 is taken over this many samples: the assignment costs their number cubed."""

Distance = Callable[[Float[Array, "n d"], Float[Array, "m d"]], Float[Array, ""]]


@dataclass(frozen=True)
class Case:
    """A target, in full.

    Attributes:
        log_density: the normalised log p of one point (d,), so that log Z = 0.
        closed: the target in closed form or as a data set; `closed_note` says which.
        exact: exact samples, by key and number.
        reference: the same, or what the samples are compared with if that is something else.
        center, scale: exact mean, and root mean square standard deviation.
        entropy: E[−log p], exact or by a million draws.
        distances: name → distance between two sample sets of equal weight; zero only in the limit.
    """

    name: str
    dim: int
    log_density: Callable[[Float[Array, " d"]], Float[Array, ""]]
    closed: pid.GaussianMixture | pid.Samples
    closed_note: str
    exact: Callable[[Key[Array, ""], int], Float[Array, "n d"]]
    reference: Callable[[Key[Array, ""], int], Float[Array, "n d"]]
    center: Float[Array, " d"]
    scale: float
    entropy: float
    distances: Mapping[str, Distance]
    floors: Mapping[str, tuple[float, float]]

    def measured(self, samples: Float[Array, "n d"], key: Key[Array, ""]) -> dict[str, float]:
        """Every distance of these samples to as many of the reference."""
        reference = self.reference(key, len(samples))
        return {name: float(distance(samples, reference)) for name, distance in self.distances.items()}
