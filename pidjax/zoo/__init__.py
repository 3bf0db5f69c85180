"""Named targets with exact facts: one definition for tests, benchmarks and notebooks.

    nine, grid25, gmm40, ada_regular, ada_perturbed_a    mixtures in the plane
    gaussian_mixture, student_mixture                    components at random, of full covariances
    two_modes, spike_and_slab                            two Gaussians of unequal width
    funnel                                               one coordinate sets the width of the others
    double_well, many_well                               2^m modes
    double_well_particles                                four particles in the plane
    phi4                                                 a field of two phases
    logistic, logistic_ionosphere, logistic_credit       posteriors of data that you have
    log_gaussian_cox, cox_pines

    >>> import jax
    >>> known = nine()
    >>> known.sample(jax.random.key(0), 5).shape, known.log_z, round(known.entropy, 4)
    ((5, 2), 0.0, 3.8311)

One name often means several densities in the literature, so each function states its density in full. Arrays are of the
`dtype` given, else of JAX's default. What can be drawn from is `Drawable`.
"""

from .cox import cox_pines, log_gaussian_cox
from .known import Drawable, Known, KnownMixture
from .lattice_field import Phi4, phi4
from .neal import Funnel, funnel
from .particles import DoubleWellParticles, double_well_particles
from .planar import GMM40_STANDARD_DEVIATION, ada_perturbed_a, ada_regular, gmm40, grid25, nine
from .regression import logistic, logistic_credit, logistic_ionosphere
from .scattered import StudentMixture, gaussian_mixture, student_mixture
from .unequal import spike_and_slab, two_modes
from .wells import Wells, double_well, many_well

__all__ = [
    "GMM40_STANDARD_DEVIATION", "DoubleWellParticles", "Drawable", "Funnel", "Known", "KnownMixture", "Phi4", "StudentMixture",
    "Wells", "ada_perturbed_a", "ada_regular", "cox_pines", "double_well", "double_well_particles", "funnel",
    "gaussian_mixture", "gmm40", "grid25", "log_gaussian_cox", "logistic", "logistic_credit", "logistic_ionosphere",
    "many_well", "nine", "phi4", "spike_and_slab", "student_mixture", "two_modes",
]  # fmt: skip
