"""What is sampled: five targets, each with exact samples, and the distances that are measured on it.

The handwritten digits are scikit-learn's (1,797 images of 8×8 pixels, divided by 16), cut at random into two halves. As
a data set the target is the first half. As a density it is the mean of N(x_i, h² I) over that half, with h = 0.14 the
maximum of the leave-one-out likelihood: smoother than the images. Either way distances are to the *second* half, which
no method sees. So there are two floors: draws with replacement from a random half of all images to the other half, and
exact draws of the density to the second half.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

import pidjax as pid
from pidjax import metrics, zoo

BANDWIDTH = 0.14
PAIRED = 1000
"""The exact W2 is that of so many samples: its assignment costs their number cubed."""
SINKHORN_EPSILON = 0.5
"""In units of squared pixel length, some 5 % of the mean squared distance of two images."""

Points = Float[Array, "n d"]
Distance = Callable[[Points, Points], Float[Array, ""]]


@dataclass(frozen=True, eq=False)
class Case:
    """A target, in full.

    Attributes:
        note: the target in words, and what its closed form is.
        log_density: log p of one point (d,), normalised: log Z = 0.
        closed: the target in closed form, or as a data set.
        exact: exact samples, by key and number.
        reference: what samples are compared with, by key and number.
        pairs: what the floors are measured on, two independent exact sample sets by key: of the "density", and of the
            "data" where these are another target.
        size: samples that are compared.
        center, scale: exact mean, and root mean square standard deviation of the coordinates.
        entropy: E[−log p].
        distances: name → distance of a sample set from a reference, both of equal weights.
    """

    name: str
    note: str
    log_density: Callable[[Float[Array, " d"]], Float[Array, ""]]
    closed: pid.GaussianMixture | pid.Samples
    exact: Callable[[Key[Array, ""], int], Points]
    reference: Callable[[Key[Array, ""], int], Points]
    pairs: Mapping[str, Callable[[Key[Array, ""]], tuple[Points, Points]]]
    size: int
    center: Float[Array, " d"]
    scale: float
    entropy: float
    distances: Mapping[str, Distance]

    @property
    def dim(self) -> int:
        return self.center.size

    def measured(self, key: Key[Array, ""], samples: Points) -> dict[str, float]:
        """Every distance of these samples, equally weighted, from the reference."""
        reference = self.reference(key, self.size)
        return {name: float(distance(samples, reference)) for name, distance in self.distances.items()}

    def floors(self, key: Key[Array, ""], repeats: int = 10) -> dict[str, dict[str, tuple[float, float]]]:
        """For each kind of pair, the mean and standard deviation of every distance between its exact sample sets."""
        keys = jax.random.split(key, repeats)
        return {kind: self._floors([pair(one) for one in keys]) for kind, pair in self.pairs.items()}

    def _floors(self, pairs):
        values = {name: [float(distance(*pair)) for pair in pairs] for name, distance in self.distances.items()}
        return {name: (float(np.mean(row)), float(np.std(row, ddof=1))) for name, row in values.items()}


def wasserstein2(samples: Points, reference: Points) -> Float[Array, ""]:
    return metrics.wasserstein2(samples[:PAIRED], reference[:PAIRED])


def mixture(known: zoo.KnownMixture, size: int) -> Case:
    """A mixture of Gaussians from the zoo."""

    @jax.jit
    def mode_weights(samples, reference):
        return metrics.mode_total_variation(samples, known.responsibilities, known.mode_weights)

    center, scale = known.target.place()[:2]
    return _case(
        known,
        f"Mixture of {len(known.mode_weights)} Gaussians; its closed form is the mixture itself.",
        known.target,
        size,
        center,
        float(scale),
        {"mode TV": mode_weights, f"W2, n = {min(size, PAIRED)}": wasserstein2},
    )


def funnel(size: int) -> Case:
    """Neal's funnel with s = 3 in 10 dimensions. It has no closed form: exact draws as a data set stand in."""
    known = zoo.funnel(3.0)
    data = known.sample(jax.random.key(1), 2048)
    scale = float(jnp.sqrt((9 + 9 * jnp.exp(4.5)) / 10))
    note = "Neal's funnel, s = 3. For a closed form, 2,048 exact draws as a data set: what comes out are those draws."
    project = jax.jit(lambda samples, reference: metrics.sliced_ks(samples, reference, jax.random.key(2)))
    return _case(known, note, pid.Samples(data), size, jnp.zeros(known.dim), scale, {"sliced KS": project})


def _case(known: zoo.Known, note: str, closed, size, center, scale, distances) -> Case:
    energy_ks = jax.jit(lambda samples, reference: metrics.energy_ks(samples, reference, known.log_density))

    def pair(key):
        one, two = jax.random.split(key)
        return known.sample(one, size), known.sample(two, size)

    return Case(
        name=known.name.split("(")[0],
        note=note,
        log_density=known.log_density,
        closed=closed,
        exact=known.sample,
        reference=known.sample,
        pairs={"density": pair},
        size=size,
        center=center,
        scale=scale,
        entropy=known.entropy,
        distances={**distances, "energy KS": energy_ks},
    )


def digit_images() -> tuple[jax.Array, jax.Array]:
    """scikit-learn's handwritten digits / 16, shuffled, shape (1797, 64), and their classes; the first half is sampled."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    return jnp.asarray(pixels[order] / 16, jnp.float32), jnp.asarray(labels[order])


def digits(size: int) -> Case:
    """Handwritten digits, as a data set and as a kernel density; `size` is at most half of the images."""
    images, labels = digit_images()
    half = len(images) // 2
    train, held_out, train_labels = images[:half], images[half:], labels[:half]
    size = min(size, half)
    half_norms = 0.5 * jnp.sum(train**2, axis=1)
    log_constant = -jnp.log(half) - images.shape[1] / 2 * jnp.log(2 * jnp.pi * BANDWIDTH**2)

    def log_density(x):
        return jax.nn.logsumexp((train @ x - half_norms - 0.5 * x @ x) / BANDWIDTH**2) + log_constant

    def exact(key, n):
        chosen, noise = jax.random.split(key)
        centres = train[jax.random.randint(chosen, (n,), 0, half)]
        return centres + BANDWIDTH * jax.random.normal(noise, centres.shape)

    def pair(key):
        shuffle, draw = jax.random.split(key)
        shuffled = jax.random.permutation(shuffle, images)
        return shuffled[jax.random.randint(draw, (size,), 0, half)], shuffled[half:]

    def digit_shares(samples):
        nearest = jnp.argmax(samples @ train.T - half_norms, axis=1)
        return jnp.mean(jax.nn.one_hot(train_labels[nearest], 10), axis=0)

    @jax.jit
    def minus_log_density(key):
        return -jnp.mean(jax.lax.map(log_density, exact(key, 2**17), batch_size=1024))

    note = (
        f"scikit-learn's 8×8 digits / 16, {half} images to sample and {len(held_out)} held out. H-PID's closed form "
        f"is the data set: what comes out are its images. For energies, the mean of N(x_i, {BANDWIDTH}² I) over the "
        f"{half}; its entropy is by Monte Carlo, ± 0.02. All distances are to the held-out images."
    )
    return Case(
        name="digits",
        note=note,
        log_density=log_density,
        closed=pid.Samples(train),
        exact=exact,
        reference=lambda key, n: held_out,
        pairs={"density": lambda key: (exact(key, size), held_out), "data": pair},
        size=size,
        center=jnp.mean(train, axis=0),
        scale=float(jnp.sqrt(jnp.mean(jnp.var(train, axis=0)) + BANDWIDTH**2)),
        entropy=float(minus_log_density(jax.random.key(0))),
        distances={
            "digit TV": jax.jit(lambda x, y: 0.5 * jnp.sum(jnp.abs(digit_shares(x) - digit_shares(y)))),
            "MMD²": jax.jit(metrics.mmd_squared),
            f"Sinkhorn, ε = {SINKHORN_EPSILON}": lambda x, y: metrics.sinkhorn_divergence(x, y, SINKHORN_EPSILON),
            "sliced KS": jax.jit(lambda x, y: metrics.sliced_ks(x, y, jax.random.key(2))),
        },
    )


CASES: Mapping[str, Callable[[int], Case]] = {
    "nine": lambda size: mixture(zoo.nine(), size),
    "grid25": lambda size: mixture(zoo.grid25(), size),
    "gmm40": lambda size: mixture(zoo.gmm40(), size),
    "funnel": funnel,
    "digits": digits,
}
"""Name → the case, comparing so many samples."""

QUICK = ("nine", "gmm40", "funnel", "digits")
