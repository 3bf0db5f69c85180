"""Products of mixtures over blocks of coordinates: against the same law written out; the blocks, found from particles."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_within, mean_and_error

import pidjax as pid
from pidjax import GaussianMixture, Product
from pidjax.process.bridge import Observation
from pidjax.targets.fitting import find_product, fit_product, independent_blocks, refined

KEY = jax.random.key(17)
BLOCKS = [[2, 0], [1], [3]]
GAINS = {"nothing seen": 0.0, "scalar": 0.7, "diagonal": [0.3, 1.5, 0.0, 4.0]}

pytestmark = pytest.mark.slow


def factors(dtype):
    """Two of one kind and one of another: a correlated pair, two wells, a Gaussian."""
    pair = GaussianMixture(
        jnp.array([[-1.0, 0.5], [1.2, -0.3], [0.0, 1.0]], dtype),
        jnp.array([[[0.5, 0.2], [0.2, 0.3]], [[0.2, -0.1], [-0.1, 0.6]], [[1.0, 0.0], [0.0, 0.1]]], dtype),
        jnp.array([0.2, 0.5, 0.3], dtype),
    )
    wells = GaussianMixture(jnp.array([[-1.5], [1.5]], dtype), jnp.array([[[0.2]], [[0.1]]], dtype))
    line = GaussianMixture(jnp.array([[0.4], [0.4]], dtype), jnp.array([[[2.0]], [[0.5]]], dtype))
    return pair, wells, line


def product(dtype=jnp.float64):
    return Product(BLOCKS, factors(dtype))


def written_out(dtype=jnp.float64):
    """The same law as one mixture: a component for every combination."""
    pair, wells, line = (
        [np.asarray(leaf) for leaf in (one.means, one.covariances, one.weights)] for one in factors(dtype)
    )
    means, covariances, weights = [], [], []
    for i, j, k in itertools.product(range(3), range(2), range(2)):
        covariance = np.zeros((4, 4), dtype)
        covariance[np.ix_([2, 0], [2, 0])] = pair[1][i]
        covariance[1, 1], covariance[3, 3] = wells[1][j, 0, 0], line[1][k, 0, 0]
        covariances.append(covariance)
        means.append(np.array([pair[0][i, 1], wells[0][j, 0], pair[0][i, 0], line[0][k, 0]]))
        weights.append(pair[2][i] * wells[2][j] * line[2][k])
    return GaussianMixture(*(jnp.array(part, dtype) for part in (means, covariances, weights)))


def seen(gain, dtype=jnp.float64):
    gain = jnp.array(gain, dtype)
    return Observation(gain, gain * jnp.array([0.4, -1.3, 0.2, 0.9], dtype) + jnp.array([0.3, -0.8, 0.1, 1.1], dtype))


@eqx.filter_jit
def moments(target, observation):
    law = target.tilt(observation)
    return law.log_mass, law.mean, law.covariance()


def tolerance(dtype):
    return {"rtol": 1e-12, "atol": 1e-12} if dtype == jnp.float64 else {"rtol": 2e-5, "atol": 2e-5}


@pytest.mark.parametrize("gain", GAINS.values(), ids=GAINS)
def test_tilted_laws_are_those_of_the_mixture_written_out(gain, dtype):
    found, expected = (moments(target, seen(gain, dtype)) for target in (product(dtype), written_out(dtype)))
    for value, truth in zip(found, expected, strict=True):
        assert value.dtype == dtype
        np.testing.assert_allclose(value, truth, **tolerance(dtype))


def test_density_and_place_are_those_of_the_mixture_written_out(dtype):
    points = jax.random.normal(KEY, (20, 4), dtype)
    values_and_slopes = eqx.filter_jit(lambda target: jax.vmap(jax.value_and_grad(target.log_density))(points))
    (found, slopes), (expected, truths) = map(values_and_slopes, (product(dtype), written_out(dtype)))
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, **tolerance(dtype))
    np.testing.assert_allclose(slopes, truths, **tolerance(dtype))
    for value, truth in zip(product(dtype).place(), written_out(dtype).place(), strict=True):
        assert value is truth or np.allclose(value, truth, **tolerance(dtype))


def test_rescaled_is_the_mixture_written_out_rescaled():
    shift, scale, y = jnp.array([1.0, -2.0, 0.5, 3.0]), jnp.array(2.5), jnp.array([0.4, 0.9, -0.2, 0.1])
    moved, expected = (target.rescaled(shift, scale) for target in (product(), written_out()))
    np.testing.assert_allclose(moved.log_density(y), expected.log_density(y), rtol=1e-12)
    for value, truth in zip(moments(moved, seen(0.7)), moments(expected, seen(0.7)), strict=True):
        np.testing.assert_allclose(value, truth, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("gain", [*GAINS.values(), None], ids=[*GAINS, "not tilted"])
def test_draws_have_the_moments_of_the_law(gain):
    """Means and second moments of 20,000 draws; `None` are draws of the product itself."""
    _, mean, covariance = moments(written_out(), seen(0.0 if gain is None else gain))
    if gain is None:
        points = product().sample(KEY, 20_000)
    else:
        draw = eqx.filter_jit(lambda law, keys: jax.vmap(law.draw)(keys))
        points = draw(product().tilt(seen(gain)), jax.random.split(KEY, 20_000))
    estimate, error = mean_and_error(points)
    assert_within(estimate, mean, error)
    offsets = np.array(points) - np.array(mean)
    estimate, error = mean_and_error(offsets[:, :, None] * offsets[:, None, :])
    assert_within(estimate, covariance, error)


def test_a_batch_of_products_and_their_gradients():
    """Under vmap and jit a product is a pytree like others; log_mass differentiates in what it is made of."""
    scales = jnp.array([0.5, 2.0])
    batch = jax.vmap(lambda scale: product().rescaled(jnp.zeros(4), scale))(scales)
    masses = jax.jit(jax.vmap(lambda one: one.tilt(seen(0.7)).log_mass))(batch)

    @eqx.filter_jit
    def mass_and_slope(target, scale):
        return jax.value_and_grad(lambda scale: target.rescaled(jnp.zeros(4), scale).tilt(seen(0.7)).log_mass)(scale)

    alone = [mass_and_slope(product(), scale) for scale in scales]
    np.testing.assert_allclose(masses, [mass for mass, _ in alone], rtol=1e-12)
    np.testing.assert_allclose(alone[0][1], mass_and_slope(written_out(), scales[0])[1], rtol=1e-10)
    with pytest.raises(ValueError, match=r"product is a batch of shape \(2,\)"):
        batch.log_density(jnp.zeros(4))


@pytest.mark.slow
def test_paths_to_a_surrogate_that_factorises_weigh_z():
    """Of a density that does not: E[W] = Z within four standard errors, by exact steps and by moments, of either stiffness."""
    known = written_out()

    def log_density(y):
        return known.log_density(y) + 0.7 - 0.1 * (y[0] - y[1]) ** 2

    points = known.sample(KEY, 50_000)
    mass, error = mean_and_error(jnp.exp(0.7 - 0.1 * (points[:, 0] - points[:, 1]) ** 2))
    target = pid.Surrogate(pid.Density(log_density, 4), product())
    for beta, rule in ((jnp.array([0.5, 2.0, 1.0, 3.0]), pid.Ancestral()), (1.0, pid.Moment())):
        solution = pid.sample(KEY, target, protocol=pid.harmonic(beta), num_samples=4000, num_steps=15, rule=rule)
        both = np.hypot(solution.log_z.standard_error, error / mass)
        assert_within(solution.log_z.value, np.log(mass), both)


def test_a_product_is_saved_and_loaded(tmp_path):
    pid.save(tmp_path / "product.npz", product())
    again = pid.load(tmp_path / "product.npz")
    assert eqx.tree_equal(again, product())
    assert repr(again) == "Product(blocks=3, largest=2, dim=4)"
    assert again.blocks == ((1,), (2, 0), (3,))


def wells():
    return GaussianMixture(jnp.array([[-1.0], [1.0]]), jnp.array([0.1, 0.1]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Product([[0], [2]], [wells(), wells()]), "pass a partition"),
        (lambda: Product([[0], [0]], [wells(), wells()]), "pass a partition"),
        (lambda: Product([], []), "pass a partition"),
        (lambda: Product([[0], [1]], [wells()]), "1 mixtures for 2 blocks"),
        (lambda: Product([[0, 1]], [wells()]), r"mixtures\[0\] has dimension 1"),
        (lambda: product().tilt(Observation(jnp.eye(4), jnp.zeros(4))), "couples the blocks"),
        (lambda: product().log_density(jnp.zeros(3)), "pass one point of shape"),
        (lambda: pid.Surrogate(pid.Density(lambda y: -jnp.sum(y**2), 3), product()), "mixture has dimension 4"),
        (
            lambda: pid.sample(KEY, product(), protocol=pid.harmonic(jnp.eye(4) + 0.1), num_samples=4),
            "couples the blocks",
        ),
        (lambda: independent_blocks(jnp.zeros(3)), "points has shape"),
        (lambda: independent_blocks(jnp.zeros((9, 2))), "1 distinct values of coordinate 0"),
        (lambda: independent_blocks(jnp.ones((9, 2)).at[0, 0].set(jnp.nan)), "non-finite"),
        (lambda: jax.jit(independent_blocks)(jnp.ones((9, 2))), "outside of jit"),
        (lambda: fit_product(KEY, jnp.ones((9, 2)), ((0,),)), "pass a partition of the 2 coordinates"),
    ],
)
def test_bad_input_is_named(make, message, annotations_unchecked):
    with pytest.raises(ValueError, match=message):
        make()


def partition(points, **options):
    return independent_blocks(jnp.asarray(points), **options)


def singles(dim):
    return tuple((i,) for i in range(dim))


def test_independent_coordinates_are_told_apart_at_the_stated_rate():
    """1% of false alarms: of 100 populations in 16 dimensions at most 5, which has a chance of 0.05% to fail at 1%."""
    rng = np.random.default_rng(0)
    alarms = sum(partition(rng.standard_cauchy((500, 16)) ** 2) != singles(16) for _ in range(100))
    assert alarms <= 5


def test_weights_and_ancestors_count():
    """200 particles forty times each, or weighted, are worth 200: taken for 8,000 their accidents look like dependence."""
    rng = np.random.default_rng(1)
    few = rng.normal(size=(200, 10))
    repeated = np.repeat(few, 40, axis=0)
    assert partition(repeated, effective_size=200.0) == singles(10)
    assert partition(repeated) != singles(10)
    assert partition(repeated, effective_size=5.0) == singles(10)
    weights = np.concatenate([np.ones(200), np.full(5000, 1e-9)])
    padded = np.concatenate([few, np.cumsum(np.ones((5000, 10)), axis=0)])
    assert partition(padded, weights=jnp.asarray(weights)) == singles(10)


DEPENDENT = {
    "linear": lambda x, noise: 0.3 * x + noise,
    "even": lambda x, noise: 0.5 * x**2 + noise,
    "common scale": lambda x, noise: np.abs(x) * noise,
    "wells": lambda x, noise: np.sign(x) * (2 + 0.3 * noise) * np.where(noise > -0.5, 1, -1),
}


@pytest.mark.parametrize("kind", DEPENDENT)
def test_dependent_coordinates_are_one_block(kind):
    """A pair that depends in one way or another, and two coordinates that depend on each other through a third."""
    rng = np.random.default_rng(2)
    points = rng.normal(size=(4096, 8))
    points[:, 5] = DEPENDENT[kind](points[:, 2], points[:, 5])
    points[:, 7] += points[:, 0]
    points[:, 4] += points[:, 7]
    assert partition(points) == ((0, 4, 7), (1,), (2, 5), (3,), (6,))


def test_dependence_spread_over_many_pairs_is_seen():
    """A common part of correlation 0.05 in each of 2,016 pairs, 3 standard errors where 5 are the threshold of one pair."""
    rng = np.random.default_rng(3)
    points = rng.normal(size=(4096, 64)) + 0.05**0.5 * rng.normal(size=(4096, 1))
    assert partition(points) == (tuple(range(64)),)


@pytest.mark.slow
@pytest.mark.optimised
def test_targets_that_do_not_factorise_have_one_block():
    phi4, wells = pid.zoo.phi4(dtype=jnp.float32), pid.zoo.many_well(16)
    turn = np.linalg.qr(np.random.default_rng(4).normal(size=(32, 32)))[0]
    for points in (phi4.sample(KEY, 4096), wells.sample(KEY, 4096) @ turn):
        assert partition(points) == (tuple(range(points.shape[1])),)
        assert find_product(KEY, points) is None


def share(known, product, key):
    """ESS/N and log Z with its error, of 4,096 draws weighted by p̃/p̂."""
    points = product.sample(key, 4096)
    log_weights = jax.vmap(lambda y: known.log_density(y) - product.log_density(y))(points)
    weights = np.exp(np.asarray(log_weights, float) - known.log_z)
    mean, error = mean_and_error(weights)
    return float(mean**2 / np.mean(weights**2)), mean, error


@pytest.mark.extended
@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.parametrize(("num_pairs", "fitted", "again"), [(16, 0.75, 0.85), (32, 0.5, 0.7)])
def test_many_wells(num_pairs, fitted, again, dtype):
    """2^num_pairs modes from 4,096 particles: the blocks are the coordinates, the weights even, their mean Z."""
    known = pid.zoo.many_well(num_pairs, dtype=dtype)
    found = find_product(KEY, known.sample(KEY, 4096))
    assert found.blocks == singles(known.dim)
    ess, mean, error = share(known, found, KEY)
    assert ess >= fitted
    assert_within(mean, 1, error)
    ess, mean, error = share(known, refined(KEY, known.log_density, found), jax.random.key(1))
    assert ess >= again
    assert_within(mean, 1, error)


@pytest.mark.extended
@pytest.mark.slow
def test_refined_has_the_masses_of_the_modes_right():
    """Particles with the wells' masses exchanged: the weights put them right."""
    known = pid.zoo.many_well(2)
    particles = jnp.where(known.wells[None], -1, 1) * known.sample(KEY, 4096)
    product = find_product(KEY, particles)
    for number in range(3):
        product = refined(jax.random.key(number), known.log_density, product)
    ess, mean, error = share(known, product, KEY)
    assert ess >= 0.9
    assert_within(mean, 1, error)
