"""What is sampled: densities of known log Z, most with exact draws, and on each of these one distance between weighted samples
and exact draws.

    mode TV          ½ Σ_k |ŵ_k − w_k| of the weights of known components
    well mass        root mean square over the wells of Σ_i w_i 1[x_i > 0] minus its exact value
    phase ratio      |log of the ratio of the weights of the two phases, minus its exact value|
    class TV         ½ Σ_c |ŵ_c − w_c| of the shares of the ten digits, exact for the kernels' own
    sliced KS        elsewhere, to fresh exact draws
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

import pidjax as pid
from pidjax import metrics, tempering, zoo

from ..cases import BANDWIDTH, digit_images, digits

Points = Float[Array, "n d"]
Distance = Callable[[Points, Float[Array, " n"] | None, Points], Float[Array, ""]]


@dataclass(frozen=True, eq=False)
class Target:
    """A density, in full.

    Attributes:
        density: what a sampler sees of it.
        log_z: the truth, to within `log_z_error`.
        draw: exact draws, by key and number, if there are any.
        quality: the name of the distance; and the distance of samples and log-weights from exact draws.
    """

    density: pid.Density
    log_z: float
    log_z_error: float = 0.0
    draw: Callable[[Key[Array, ""], int], Points] | None = None
    quality: str | None = None
    distance: Distance | None = None

    @property
    def dim(self) -> int:
        return self.density.dim

    def place(self) -> tuple[Float[Array, " d"], float]:
        """Mean and root mean square standard deviation: of 16,384 exact draws, else by Laplace at the best mode."""
        if self.draw is not None:
            draws = self.draw(jax.random.key(3), 2**14)
            return jnp.mean(draws, axis=0), float(jnp.sqrt(jnp.mean(jnp.var(draws, axis=0))))
        mixture = tempering.locate(jax.random.key(3), self.density).laplace(by_mass=True)
        best = jnp.argmax(mixture.weights)
        return mixture.means[best], float(jnp.sqrt(jnp.sum(mixture.factors[best] ** 2) / self.dim))

    def floor(self, number: int) -> metrics.Floor | None:
        """The distance between two sets of so many exact draws."""
        if self.draw is None or self.distance is None:
            return None
        distance = self.distance
        return metrics.floor(lambda one, other: distance(one, None, other), self.draw, jax.random.key(2), n=number)


def of(known: zoo.Known, log_z_error: float = 0.0) -> Target:
    """A target of the zoo, seen through its log-density alone."""
    target = known.target
    density = target if isinstance(target, pid.Density) else pid.Density(known.log_density, known.dim)
    assert known.log_z is not None
    if not isinstance(known, zoo.Drawable):
        return Target(density, known.log_z, log_z_error)
    name, distance = _distance(known)
    return Target(density, known.log_z, log_z_error, known.sample, name, distance)


def _distance(known: zoo.Drawable) -> tuple[str, Distance]:
    match known:
        case zoo.KnownMixture():
            return "mode TV", partial(_mode_tv, known)
        case zoo.Wells():
            return "well mass", partial(_well_mass, known)
        case zoo.Phi4():
            return "phase ratio", partial(_phase_ratio, known)
    return "sliced KS", _sliced_ks


def _mode_tv(known: zoo.KnownMixture, samples, log_weights, _):
    return metrics.mode_total_variation(samples, known.responsibilities, known.mode_weights, log_weights)


def _well_mass(known: zoo.Wells, samples, log_weights, _):
    density, middle = known.well_density, known.well_density.size // 2
    exact = (jnp.sum(density[middle + 1 :]) + 0.5 * density[middle]) / jnp.sum(density)
    shares = _weights(samples, log_weights) @ (samples > 0).astype(samples.dtype)
    return jnp.sqrt(jnp.mean((shares[known.wells] - exact) ** 2))


def _phase_ratio(known: zoo.Phi4, samples, log_weights, _):
    middle, weights = samples[:, 40:60], _weights(samples, log_weights)
    above, below = (jnp.sum(jnp.where(jnp.all(sign * middle > 0, axis=1), weights, 0)) for sign in (1, -1))
    return jnp.abs(jnp.log(above) - jnp.log(below) - known.log_phase_ratio)


def _sliced_ks(samples, log_weights, reference):
    return metrics.sliced_ks(samples, reference, jax.random.key(4), log_weights)


def _weights(samples, log_weights):
    return jax.nn.softmax(jnp.zeros(len(samples), samples.dtype) if log_weights is None else log_weights)


def _digits() -> Target:
    """The kernel density of the case `digits`."""
    case, (images, labels) = digits(4096), digit_images()
    half = len(images) // 2
    centres, classes = images[:half], jax.nn.one_hot(labels[:half], 10)

    def of_class(y):
        return jax.nn.softmax(-0.5 * jnp.sum((centres - y) ** 2, axis=1) / BANDWIDTH**2) @ classes

    def class_tv(samples, log_weights, _):
        return metrics.mode_total_variation(samples, of_class, jnp.mean(classes, axis=0), log_weights)

    return Target(pid.Density(case.log_density, case.dim), 0.0, 0.0, case.exact, "class TV", class_tv)


TARGETS: Mapping[str, Callable[[], Target]] = {
    "nine": lambda: of(zoo.nine()),
    "grid25": lambda: of(zoo.grid25()),
    "gmm40": lambda: of(zoo.gmm40()),
    "ada_regular": lambda: of(zoo.ada_regular()),
    "ada_perturbed_a": lambda: of(zoo.ada_perturbed_a()),
    "many_well 8": lambda: of(zoo.many_well(4)),
    "many_well 32": lambda: of(zoo.many_well(16)),
    "many_well 64": lambda: of(zoo.many_well(32)),
    "MW54": lambda: of(zoo.double_well(5, 5, 4.0)),
    "MW52": lambda: of(zoo.double_well(50, 5, 2.0)),
    "digits": _digits,
    **{f"phi4 {b:.4g}": partial(lambda b: of(zoo.phi4(b)), b) for b in (0.0, 0.025, 0.05, 0.075, 0.1)},
    **{f"gaussian_mixture {d}": partial(lambda d: of(zoo.gaussian_mixture(d)), d) for d in (10, 50, 200)},
    "student_mixture 20": lambda: of(zoo.student_mixture(20)),
    "spike_and_slab 10": lambda: of(zoo.spike_and_slab(10)),
    "two_modes 20": lambda: of(zoo.two_modes(20)),
    "funnel 3": lambda: of(zoo.funnel(3.0)),
    "funnel √3": lambda: of(zoo.funnel(3**0.5)),
}
"""Name → the target."""

FROM_FILES: Mapping[str, tuple[str, Callable[[Path], Target]]] = {
    "logistic_ionosphere": ("ionosphere.csv", lambda path: of(zoo.logistic_ionosphere(path), 0.003)),
    "logistic_credit": ("german_credit_numeric.txt", lambda path: of(zoo.logistic_credit(path), 0.0003)),
    "cox_pines": ("finnish_pines.csv", lambda path: of(zoo.cox_pines(path), 0.02)),
}
"""Name → the file that holds its data, and the target made of it."""

QUICK = ("nine", "many_well 8", "MW54", "logistic_ionosphere", "logistic_credit", "funnel √3")
TENFOLD = ("gmm40", "many_well 32", "MW52", "gaussian_mixture 50", "funnel √3")
"""Those that H-PID samples with ten times as many paths as well."""


def available(data: Path) -> dict[str, Callable[[], Target]]:
    """Name → the target, of all whose files are there; the others are told."""
    found = dict(TARGETS)
    for name, (file, make) in FROM_FILES.items():
        if (data / file).exists():
            found[name] = partial(make, data / file)
        else:
            print(f"{name} is skipped: there is no {data / file}", flush=True)
    return found
