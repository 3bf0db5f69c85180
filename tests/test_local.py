"""Denoisers that are no law, against sums over all data and windows written out, and against laws where they are ones."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pidjax as pid
from pidjax.images import EquivariantLocal, Golden, Images, Local, Squares, WienerWindows, memory_edge, window_entropies
from pidjax.process.bridge import Observation
from pidjax.targets.base import AbstractLaw, AbstractTarget, Tilted

KEY = jax.random.key(17)
EXTENDED = pytest.mark.extended


def images_and_view(gain, shape=(4, 5, 2), count=23, seed=0, dtype: type = np.float64):
    """Data with likenesses between neighbours, and one of them under noise."""
    rng = np.random.default_rng(seed)
    pixels = rng.uniform(size=(count, *shape))
    pixels[1:, :2] = pixels[:-1, :2]
    value = (gain * pixels[3] + rng.normal(size=shape)).astype(dtype)
    return Images(jnp.asarray(pixels, dtype)), Observation(jnp.asarray(gain, dtype), jnp.asarray(value.ravel()))


def mean_and_entropy(log_joint, values):
    terms = np.exp(log_joint - np.max(log_joint))
    p = terms / terms.sum()
    return p @ values, -np.sum(p[p > 0] * np.log(p[p > 0]))


def written_out(pixels, value, gain, members):
    """x̂ and entropies by loops; `members(p)` is a mask of the image for the pixel and channel p."""
    means, entropies = np.empty(pixels.shape[1:]), np.empty(pixels.shape[1:])
    for p in np.ndindex(*pixels.shape[1:]):
        distances = np.sum(((value - gain * pixels) ** 2)[:, members(p)], axis=1)
        means[p], entropies[p] = mean_and_entropy(-0.5 * distances, pixels[(slice(None), *p)])
    return means, entropies


def square(shape, size):
    def members(p):
        near = [np.abs(np.arange(length) - at) <= size // 2 for length, at in zip(shape[:2], p)]
        return np.broadcast_to((near[0][:, None] & near[1][None])[..., None], shape)

    return members


@pytest.mark.parametrize("gain", [pytest.param(0.0, marks=EXTENDED), 1.5, pytest.param(60.0, marks=EXTENDED)])
def test_squares_as_written_out(gain):
    """Of every side, one pixel and the whole image among them; the side that goes with the ratio; in chunks that overlap."""
    images, observation = images_and_view(gain)
    pixels, value = np.array(images.pixels), np.array(observation.value).reshape(images.shape)
    tilt = jax.jit(lambda windows: Local(images, windows, chunk=7).tilt(observation))
    for sizes in ([1], [3], [9]):
        means, entropies = written_out(pixels, value, gain, square(images.shape, sizes[0]))
        law = tilt(Squares(sizes))
        np.testing.assert_allclose(law.mean, means.ravel(), rtol=1e-9)
        np.testing.assert_allclose(law.entropy[..., 0], entropies[..., 0], rtol=1e-7, atol=1e-9)
        of_many = tilt(Squares([9, sizes[0], 5], [0.999 * max(gain**2, 1e-9), 1.001 * gain**2 + 1]))
        if gain:
            np.testing.assert_allclose(of_many.mean, law.mean, rtol=1e-9)
    whole = images.samples.tilt(observation)
    np.testing.assert_allclose(law.mean, whole.mean, rtol=1e-9)
    np.testing.assert_allclose(law.entropy, jnp.broadcast_to(whole.entropy, law.entropy.shape), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("gain", [pytest.param(0.3, marks=EXTENDED), 4.0])
def test_equivariant_as_written_out(gain):
    """All patches of all images that have the pixels of the window, for each pixel, by loops."""
    images, observation = images_and_view(gain, shape=(4, 3, 2), count=5)
    pixels, value = np.array(images.pixels), np.array(observation.value).reshape(images.shape)
    h, w, _ = images.shape
    for size in (1, 3, 7):
        steps = list(itertools.product(range(-(size // 2), size // 2 + 1), repeat=2))
        truth = np.empty(images.shape)
        for i, j in np.ndindex(h, w):
            inside = [(a, b) for a, b in steps if 0 <= i + a < h and 0 <= j + b < w]
            log_joint, values = [], []
            for image, (k, l) in itertools.product(pixels, np.ndindex(h, w)):
                if all(0 <= k + a < h and 0 <= l + b < w for a, b in inside):
                    misfit = [value[i + a, j + b] - gain * image[k + a, l + b] for a, b in inside]
                    log_joint.append(-0.5 * np.sum(np.square(misfit)))
                    values.append(image[k, l])
            truth[i, j] = mean_and_entropy(np.array(log_joint), np.array(values))[0]
        law = EquivariantLocal(images, Squares(size), chunk=2).tilt(observation)
        np.testing.assert_allclose(law.mean, truth.ravel(), rtol=1e-8)


def test_wiener_windows_of_independent_parts_give_the_posterior():
    """Data of all pairings of two independent halves: W has the blocks of these, and the local mean is that of the law."""
    rng = np.random.default_rng(1)
    left, right = rng.uniform(size=(6, 4, 2, 1)), rng.uniform(size=(5, 4, 3, 1))
    pixels = np.array([np.concatenate(pair, axis=1) for pair in itertools.product(left, right)])
    images = Images(jnp.array(pixels))
    windows = WienerWindows.of(images, 1e-9)
    gain = jnp.asarray(2.0)
    members = np.array(windows.at(gain**2, images.shape).members)
    halves = np.arange(5) >= 2
    np.testing.assert_array_equal(
        members[:, :, 0, :, :, 0], np.broadcast_to((halves[:, None] == halves)[None, :, None], (4, 5, 4, 5))
    )
    observation = Observation(gain, gain * images.points[7] + jax.random.normal(KEY, (20,)))
    np.testing.assert_allclose(
        Local(images, windows).tilt(observation).mean, images.samples.tilt(observation).mean, rtol=1e-9
    )


def test_wiener_filter_is_that_of_a_gaussian():
    """x̂ = μ + W(x − μ) of the mixture of one component with the data's mean and covariance; the sets are those of W."""
    images, observation = images_and_view(1.3, count=60)
    points = np.array(images.points)
    gaussian = pid.GaussianMixture(points.mean(axis=0)[None], np.cov(points.T, bias=True)[None])
    windows = WienerWindows.of(images, 0.05)
    ratio = observation.gain**2
    x = observation.value / observation.gain
    wiener = np.array(windows.filter(ratio) * ratio)
    np.testing.assert_allclose(
        points.mean(axis=0) + wiener @ (x - points.mean(axis=0)), gaussian.tilt(observation).mean, rtol=1e-7
    )
    sets = (np.abs(wiener) >= 0.05 * np.diag(wiener)[:, None]).reshape(*images.shape, *images.shape)
    value = np.array(observation.value).reshape(images.shape)
    means, entropies = written_out(np.array(images.pixels), value, 1.3, lambda p: sets[p])
    law = Local(images, windows).tilt(observation)
    np.testing.assert_allclose(law.mean, means.ravel(), rtol=1e-9)
    np.testing.assert_allclose(law.entropy, entropies, rtol=1e-7)
    assert 2 < sets.reshape(40, 40).sum(axis=1).mean() < 38


@pytest.mark.parametrize("kind", ["squares", pytest.param("sets", marks=EXTENDED)])
def test_mass_that_a_golden_subset_misses_is_bounded(kind):
    """Exact masses of what was left out, and the change of x̂, never exceed the bound, which falls to nothing.

    But for windows that shrink to a pixel: in these no block lies as a whole.
    """
    images = images_and_view(1.0, shape=(6, 4, 2), count=60)[0]
    windows = Squares(7) if kind == "squares" else WienerWindows.of(images, 0.05)
    local = Local(images, windows)
    golden = Golden(local, 8, 2)
    noise = np.random.default_rng(5).normal(size=images.points[3].shape)
    bounds = []
    for ratio in (0.1, 3.0, 30.0, 300.0, 3000.0):
        gain = np.sqrt(ratio)
        x = np.array(images.points[3]) + noise / gain
        observation = Observation(jnp.asarray(gain), jnp.asarray(gain * x))
        window = windows.at(jnp.asarray(ratio), images.shape)
        log_joint = np.array(local.log_joint(images.pixels, observation, window))
        masses = np.array(jax.nn.softmax(log_joint, axis=0))
        missed = 1 - masses[np.array(golden.kept(observation))].sum(axis=0)
        mass, bound = map(np.array, golden.missed(jnp.asarray(x), ratio))
        np.testing.assert_allclose(mass, missed, atol=1e-9)
        assert (missed <= bound + 1e-12).all()
        off = np.abs(local.tilt(observation).mean - golden.tilt(observation).mean).reshape(images.shape)
        assert (off <= bound * np.ptp(np.array(images.pixels), axis=0) + 1e-12).all()
        bounds.append(bound.max())
    assert bounds[0] > 0.5
    assert bounds[-1] < 1e-6 or kind == "sets"
    whole = Golden(local, 60, 2)
    np.testing.assert_allclose(whole.tilt(observation).mean, local.tilt(observation).mean, rtol=1e-12)
    assert float(whole.missed(jnp.asarray(x), 1.0).bound.max()) == 0


class PosteriorMean(AbstractLaw):
    mean: jax.Array


class Denoiser(AbstractTarget, Tilted):
    """A data set, known by its posterior means alone."""

    samples: pid.Samples

    def tilt(self, observation, key=None):
        return PosteriorMean(self.samples.tilt(observation).mean)

    def place(self):
        return self.samples.place()


@pytest.mark.extended
def test_steps_are_those_of_the_posterior_mean():
    """With a window of the whole image the paths are the data set's; with less of it they end elsewhere."""
    images = images_and_view(1.0)[0]
    options = {
        "num_samples": 20,
        "grid": pid.uniform_grid(25),
        "protocol": pid.harmonic(1.0, noise_scale=0.3),
        "save_paths": True,
    }
    found = pid.sample(KEY, Local(images, Squares(9)), **options)
    expected = pid.sample(KEY, Denoiser(images.samples), **options)
    np.testing.assert_allclose(found.states, expected.states, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(found.weighted_states, expected.weighted_states, rtol=1e-7, atol=1e-9)
    other = pid.sample(KEY, Local(images, Squares(3)), **options)
    off = lambda paths: np.linalg.norm(paths.weighted_states[:, -1, None] - images.points[None], axis=2).min(axis=1)  # noqa: E731
    assert np.median(off(found)) < 0.01 < 0.1 < np.median(off(other))


def test_single_precision_and_slopes():
    """float32 to rounding at high signal-to-noise, and the derivative of x̂ by finite differences, over chunks."""
    images, observation = images_and_view(40.0)
    single, seen = images_and_view(40.0, dtype=np.float32)
    for windows in (Squares(3), Squares(9)):
        law = Local(single, windows).tilt(seen)
        assert law.mean.dtype == jnp.float32
        np.testing.assert_allclose(law.mean, Local(images, windows).tilt(observation).mean, atol=2e-4)
    local = Local(images, Squares(3), chunk=9)
    mean = jax.jit(lambda value: local.tilt(Observation(jnp.asarray(2.0), value)).mean)
    along = jax.random.normal(KEY, observation.value.shape)
    slope = jax.jvp(mean, (observation.value / 20,), (along,))[1]
    h = 1e-5
    central = (mean(observation.value / 20 + h * along) - mean(observation.value / 20 - h * along)) / (2 * h)
    np.testing.assert_allclose(slope, central, atol=1e-7)


def test_memory_edge_by_entropies_written_out():
    """The entropies of one query are those of its windows; the edge is where they fall below the fraction."""
    images = images_and_view(1.0, shape=(5, 5, 1))[0]
    ratios = jnp.array([0.5, 30.0, 4000.0])
    found = np.array(window_entropies(KEY, images, ratios, [1, 3, 9], num_queries=1))
    key_choice, key_noise = jax.random.split(KEY)
    point = images.points[jax.random.choice(key_choice, len(images), (1,))]
    noise = np.array(jax.random.normal(key_noise, point.shape))
    for ratio, entropies in zip(np.array(ratios), found, strict=True):
        value = (np.sqrt(ratio) * np.array(point) + noise).reshape(images.shape)
        for size, entropy in zip((1, 3, 9), entropies, strict=True):
            truth = written_out(np.array(images.pixels), value, np.sqrt(ratio), square(images.shape, size))[1].mean()
            np.testing.assert_allclose(entropy, truth, rtol=1e-7, atol=1e-9)
    edge = memory_edge(KEY, images, ratios, [1, 3, 9], num_queries=1)
    allowed = [max([1, *(k for k, entropy in zip((1, 3, 9), row) if entropy >= 0.5 * np.log(23))]) for row in found]
    assert np.array(edge.sizes).tolist() == allowed
    assert len(set(allowed)) > 1


def test_bad_input_is_named():
    images, observation = images_and_view(1.0)
    for message, wrong in [
        (r"sizes is \[2\]; pass odd integers", lambda: Squares([2])),
        ("of 2 sizes; pass one ratio less", lambda: Squares([3, 1])),
        ("pass signal-to-noise ratios > 0, increasing", lambda: Squares([5, 3, 1], [2.0, 1.0])),
        ("threshold is 0; pass a number > 0", lambda: WienerWindows.of(images, 0.0)),
        ("images is a Samples; pass Images", lambda: Local(images.samples, Squares(3))),
        ("windows is a int; pass Squares", lambda: Local(images, 3)),
        ("size is 24, of 23 images", lambda: Golden(Local(images, Squares(3)), 24, 1)),
        (r"side is 2, of images of shape \(4, 5, 2\)", lambda: Golden(Local(images, Squares(3)), 5, 2)),
        ("fraction is 1.5", lambda: memory_edge(KEY, images, jnp.ones(1), [1], fraction=1.5)),
        (
            "pass a protocol whose stiffness is a scalar",
            lambda: Local(images, Squares(3)).tilt(Observation(jnp.ones(40), observation.value)),
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            wrong()
