"""Tilted laws against quadrature, brute-force sums and draws."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_within, grid_quadrature, mean_and_error

import pidjax as pid
from pidjax import Density, GaussianMixture, LocalDraws, Pool, Samples
from pidjax.process.bridge import Observation

KEY = jax.random.key(7)
GAINS = [0.0, 0.7, 5.0]


def mixture(dtype=jnp.float64):
    covariances = jnp.array([[[0.5, 0.2], [0.2, 0.3]], [[0.2, -0.1], [-0.1, 0.6]], [[1.0, 0.0], [0.0, 0.1]]], dtype)
    return GaussianMixture(
        jnp.array([[-1.0, 0.5], [1.2, -0.3], [0.0, 1.0]], dtype), covariances, jnp.array([0.2, 0.5, 0.3], dtype)
    )


def seen(gain, dtype=jnp.float64):
    """An observation near the target at this gain."""
    return Observation(jnp.array(gain, dtype), gain * jnp.array([0.4, 0.2], dtype) + jnp.array([0.3, -0.8], dtype))


@eqx.filter_jit
def moments(target, observation, key):
    law = target.tilt(observation, key)
    return law.log_mass, law.mean, law.covariance()


def draws(target, observation, count):
    @eqx.filter_jit
    def run(target, observation, keys):
        return jax.vmap(target.tilt(observation, KEY).draw)(keys)

    return run(target, observation, jax.random.split(KEY, count))


def tilted_by_quadrature(log_density, observation):
    """log-mass, mean and covariance of p̃(y) exp(−½|ζ − ay|²) by summation over a lattice."""
    points, cell = grid_quadrature(-7, 7, 351, 2)
    log_tilt = -0.5 * np.sum((np.array(observation.value) - float(observation.gain) * points) ** 2, axis=1)
    terms = np.exp(np.array(jax.jit(jax.vmap(log_density))(jnp.array(points))) + log_tilt) * cell
    mean = terms @ points / terms.sum()
    return np.log(terms.sum()), mean, np.einsum("n,ni,nj->ij", terms, points - mean, points - mean) / terms.sum()


@pytest.mark.parametrize("gain", GAINS)
def test_mixture(gain):
    computed = moments(mixture(), seen(gain), KEY)
    exact = tilted_by_quadrature(mixture().log_density, seen(gain))
    for got, truth in zip(computed, exact, strict=True):
        np.testing.assert_allclose(got, truth, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("gain", GAINS)
def test_mixture_in_float32(gain):
    single = moments(mixture(jnp.float32), seen(gain, jnp.float32), KEY)
    for ours, exact in zip(single, moments(mixture(), seen(gain), KEY), strict=True):
        assert ours.dtype == jnp.float32
        np.testing.assert_allclose(ours, exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("gain", GAINS)
def test_mixture_draws(gain):
    _, mean, covariance = moments(mixture(), seen(gain), KEY)
    points = draws(mixture(), seen(gain), 20_000)
    assert_within(*_interleave(mean_and_error(points), mean))
    offsets = np.array(points) - np.array(mean)
    assert_within(*_interleave(mean_and_error(offsets[:, :, None] * offsets[:, None, :]), covariance))


def _interleave(estimate_and_error, truth):
    return estimate_and_error[0], truth, estimate_and_error[1]


def test_a_component_of_weight_zero_is_not_there():
    target = mixture()
    without = GaussianMixture(target.means[:2], target.covariances[:2], target.weights[:2])
    emptied = GaussianMixture(target.means, target.covariances, target.weights.at[2].set(0))
    for got, expected in zip(moments(emptied, seen(0.7), KEY), moments(without, seen(0.7), KEY), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-13)
    slopes = jax.grad(lambda target: moments(target, seen(0.7), KEY)[0])(emptied)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))


@pytest.mark.parametrize("dim", [2, 20], ids=["squared distances", "matrix products"])
@pytest.mark.parametrize("count", [5, 2500], ids="n={}".format)
def test_samples(count, dim, dtype):
    """Softmax of the squared distances over all points at once, with weights, some of them zero."""
    rng = np.random.default_rng(0)
    points, weights = rng.normal(size=(count, dim)), rng.uniform(size=count)
    weights[::3] = 0
    gain, value = 1.3, 1.3 * points[1] + rng.normal(size=dim)
    computed = moments(
        Samples(jnp.array(points, dtype), jnp.array(weights, dtype)),
        Observation(jnp.array(gain, dtype), jnp.array(value, dtype)),
        KEY,
    )
    terms = weights / weights.sum() * np.exp(-0.5 * np.sum((value - gain * points) ** 2, axis=1))
    mean = terms @ points / terms.sum()
    exact = np.log(terms.sum()), mean, np.einsum("n,ni,nj->ij", terms, points - mean, points - mean) / terms.sum()
    rtol, atol = (1e-11, 1e-11) if dtype == jnp.float64 else (2e-5, 2e-5)
    for got, truth in zip(computed, exact, strict=True):
        assert got.dtype == dtype
        np.testing.assert_allclose(got, truth, rtol=rtol, atol=atol)


def test_samples_do_not_depend_on_the_chunks():
    points = jax.random.normal(KEY, (100, 2))
    whole = moments(Samples(points), seen(0.7), KEY)
    for size in [1, 7, 50]:
        for got, truth in zip(moments(Samples(points, chunk=size), seen(0.7), KEY), whole, strict=True):
            np.testing.assert_allclose(got, truth, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dim", [2, 20])
def test_samples_are_drawn_with_their_weights(dim):
    """Frequencies of the points over three chunks, the last one filled up; a point of weight zero is never drawn."""
    rng = np.random.default_rng(1)
    points, weights = rng.normal(size=(10, dim)), np.array([1, 2, 0, 1, 3, 1, 0, 2, 1, 1.0])
    value, count = 0.3 * points[3], 20_000
    target = Samples(jnp.array(points), jnp.array(weights), chunk=4)
    drawn = draws(target, Observation(jnp.array(0.3), jnp.array(value)), count)
    probabilities = weights * np.exp(-0.5 * np.sum((value - 0.3 * points) ** 2, axis=1))
    probabilities /= probabilities.sum()
    frequencies = np.mean(np.all(np.isclose(np.array(drawn)[:, None], points[None], rtol=1e-12), axis=2), axis=0)
    assert frequencies.sum() == pytest.approx(1)
    assert_within(frequencies, probabilities, np.sqrt(probabilities * (1 - probabilities) / count))


def test_float32_log_mass_far_from_the_origin():
    """Near a data point of norm 1e4 the squared distance of order one survives; an expanded one would be lost."""
    points = 1e4 + np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    value = points[0] + np.float32(0.5)
    computed = moments(Samples(jnp.array(points)), Observation(jnp.float32(1), jnp.array(value)), KEY)
    distances = np.sum((value.astype(float) - points.astype(float)) ** 2, axis=1)
    np.testing.assert_allclose(computed[0], np.log(np.mean(np.exp(-0.5 * distances))), rtol=1e-6)


def energy(y):
    """Unnormalised and not Gaussian: a quartic well in y₁, coupled; −∞ beyond y₂ = 2."""
    value = -((y[0] ** 2 - 1) ** 2) - 0.5 * (y[1] - 0.5 * y[0]) ** 2
    return jnp.where(y[1] < 2, value, -jnp.inf)


NAMES = ["pool", "local", "local and pool", "flat and pool"]


def estimator(name, key, size=64):
    density, wide = Density(energy, 2), GaussianMixture.isotropic(jnp.zeros((1, 2)), 2.0)
    pool = Pool.draw(key, density, wide, size)
    if name == "pool":
        return pool
    return LocalDraws(density, None if "flat" in name else wide, size, pool if "pool" in name else None)


@eqx.filter_jit
def estimates(name, observation, log_mass, keys):
    """Mass and first moment of independent estimates, in units of the true mass."""

    def one(key):
        key_pool, key_tilt = jax.random.split(key)
        law = estimator(name, key_pool).tilt(observation, key_tilt)
        mass = jnp.exp(law.log_mass - log_mass)
        return mass, mass * law.mean

    return jax.vmap(one)(keys)


@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("name", NAMES)
def test_estimated_laws_are_unbiased(name, gain):
    """exp(log-mass) and exp(log-mass) · mean, averaged over independent pools and draws, are the quadrature's."""
    log_mass, mean, _ = tilted_by_quadrature(energy, seen(gain))
    mass, moment = estimates(name, seen(gain), jnp.array(log_mass), jax.random.split(KEY, 2000))
    assert_within(*_interleave(mean_and_error(mass), 1))
    assert_within(*_interleave(mean_and_error(moment), mean))


@pytest.mark.parametrize("name", NAMES[1:])
def test_estimated_draws_and_covariance_are_those_of_the_weighted_points(name):
    target = eqx.filter_jit(estimator)(name, KEY)
    law, covariance = eqx.filter_jit(lambda: (law := target.tilt(seen(2.0), KEY), law.covariance()))()
    weights = np.exp(np.array(law.log_weights) - float(law.log_mass))
    points = np.array(law.points)
    mean = weights @ points
    np.testing.assert_allclose(law.mean, mean, rtol=1e-12)
    drawn = np.array(law.drawn_covariance)
    unseen = 2 * np.sum(weights**2) * (drawn if drawn.ndim == 2 else drawn * np.eye(2))
    scatter = np.einsum("n,ni,nj->ij", weights, points - mean, points - mean)
    np.testing.assert_allclose(covariance, scatter + unseen, rtol=1e-12)
    assert_within(*_interleave(mean_and_error(draws(target, seen(2.0), 5_000)), mean))


def test_density_of_a_pytree():
    """A vector of the raveled leaves; the Jacobian of a change of scale; −∞ passes through."""
    like = {"a": jnp.zeros(2), "b": jnp.zeros(())}
    target = Density(lambda point: jnp.where(point["b"] < 1, -jnp.sum(point["a"] ** 2), -jnp.inf), like)
    y = jnp.array([0.3, -0.5, 0.2])
    assert target.dim == 3
    assert target.point(y)["b"] == 0.2
    np.testing.assert_allclose(target.log_density(y), -0.34, rtol=1e-14)
    assert target.log_density(y + 1) == -jnp.inf
    moved = target.rescaled(jnp.ones(3), jnp.array(2.0))
    np.testing.assert_allclose(moved.log_density((y - 1) / 2), -0.34 + 3 * np.log(2), rtol=1e-14)


@pytest.mark.parametrize("name", ["mixture", *NAMES])
def test_rescaling_keeps_the_mass(name):
    """log p̃'(y') = log p̃(y) + d log(scale), and the tilted law of y' is that of y moved."""
    target = mixture() if name == "mixture" else eqx.filter_jit(estimator)(name, KEY)
    shift, scale = jnp.array([3.0, -1.0]), jnp.array(2.5)
    moved, y = target.rescaled(shift, scale), jnp.array([0.4, 0.9])
    np.testing.assert_allclose(
        moved.log_density((y - shift) / scale), target.log_density(y) + 2 * jnp.log(2.5), rtol=1e-13
    )
    gain, value = seen(0.7)
    back = Observation(gain * scale, value - gain * shift)
    before, after = moments(target, seen(0.7), KEY), moments(moved, back, KEY)
    np.testing.assert_allclose(after[0], before[0], rtol=1e-12)
    np.testing.assert_allclose(after[1] * scale + shift, before[1], rtol=1e-11)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianMixture(jnp.zeros(2), jnp.eye(2)[None]), "means has shape"),
        (lambda: GaussianMixture(jnp.zeros((1, 2)), jnp.eye(3)[None]), "covariances has shape"),
        (lambda: GaussianMixture(jnp.zeros((1, 2)), -jnp.eye(2)[None]), "positive definite"),
        (lambda: GaussianMixture(jnp.zeros((1, 2)), jnp.array([[[1.0, 0.5], [0.0, 1.0]]])), "symmetric"),
        (lambda: GaussianMixture(jnp.full((1, 2), jnp.nan), jnp.eye(2)[None]), "non-finite"),
        (lambda: GaussianMixture(jnp.zeros((1, 2)), jnp.eye(2)[None], jnp.array([-1.0])), "weights"),
        (lambda: Samples(jnp.zeros((0, 2))), "points|data"),
        (lambda: Samples(jnp.zeros((3, 2)), jnp.zeros(3)), "weights"),
        (lambda: Density(lambda y: y, 2), "one floating scalar"),
        (lambda: Density(energy, 0), "dimension"),
        (lambda: LocalDraws(Density(energy, 2), None, 3), "pool"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_scales_far_apart_are_kept():
    """A tilt by the sharpest observation that a grid asks for, of a narrow tilted ridge, in single precision."""
    angle, widths = 0.3, jnp.array([1e-2, 1e2], jnp.float32)
    turn = jnp.array([[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]], jnp.float32)
    ridge = GaussianMixture.of_factors(
        jnp.zeros((1, 2), jnp.float32), jnp.linalg.qr((turn * widths[None]).T)[1].T[None], jnp.ones(1, jnp.float32)
    )
    gain = jnp.float32(3e2)
    law = ridge.tilt(Observation(gain, gain * (turn @ widths)))
    factor = np.asarray(law.factors[0], np.float64)
    wide = np.asarray(turn, np.float64) * np.asarray(widths, np.float64)[None]
    exact = np.linalg.inv(np.linalg.inv(wide @ wide.T) + float(gain) ** 2 * np.eye(2))
    np.testing.assert_allclose(factor @ factor.T, exact, rtol=1e-2, atol=1e-3 * np.abs(exact).max())


@pytest.mark.parametrize("gain", [1e2, 1e4, 1e5])
@pytest.mark.parametrize("kind", ["mixture", "smoothed"])
def test_single_precision_stays_on_a_ridge(kind, gain):
    """Seen along a ridge a ten thousandth as wide as long, the end point is off it by no more than its width."""
    ridge = np.array([[0.5, 0.0], [0.5, 1e-4]])

    def law(dtype):
        factor = jnp.array(ridge, dtype)
        place = jnp.zeros((1, 2), dtype)
        target = (
            GaussianMixture.of_factors(place, factor[None], jnp.ones(1, dtype))
            if kind == "mixture"
            else pid.Smoothed(Samples(place), factor)
        )
        return target.tilt(Observation(jnp.asarray(gain, dtype), jnp.asarray([gain, gain + 1], dtype)))

    single, exact = law(jnp.float32), law(jnp.float64)
    covariance = np.linalg.inv(np.linalg.inv(ridge @ ridge.T) + gain**2 * np.eye(2))
    normal = np.array([1.0, -1.0]) / np.sqrt(2)
    width = np.sqrt(normal @ covariance @ normal)
    away = normal @ (np.asarray(single.mean, np.float64) - np.asarray(exact.mean))
    assert abs(away) < 0.02 * width + np.finfo(np.float32).eps
    draws = jax.vmap(single.draw)(jax.random.split(KEY, 1000))
    spread = np.std(np.asarray(draws, np.float64) @ normal)
    np.testing.assert_allclose(spread, width, rtol=4 / np.sqrt(2000))


@pytest.mark.slow
@pytest.mark.parametrize("num_draws", [1, 3, 5])
def test_few_local_draws_have_finite_weights(num_draws):
    """E[W] = Z however few the draws: a step has the width that so few points do not show."""
    proposal = GaussianMixture.isotropic(jnp.zeros((1, 2)), 2.0)
    target = LocalDraws(Density(mixture().log_density, 2), proposal, num_draws)
    solution = pid.sample(KEY, target, num_samples=4096, num_steps=50)
    assert_within(solution.log_z.value, 0.0, solution.log_z.standard_error)
    assert solution.ess > (0.01, 0.1, 0.2)[num_draws // 2] * 4096
