"""A density of many dimensions: end points reached by a climb, exact bridges to them, and what is said of both."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_within, mean_and_error
from jaxtyping import Array, Float

import pidjax as pid
from pidjax import Outcome, zoo
from pidjax.targets.ends import Ends
from pidjax.tempering.reach import candidates, reach
from pidjax.tempering.reached import num_lost

KEY = jax.random.key(11)
DIM = 14
LIGHTER = jnp.array([0.0, -1.0], jnp.float32)

pytestmark = pytest.mark.slow


class TwoGaussians(eqx.Module):
    """Masses e^a, of equal shape, apart by 6 in every coordinate: log Z = log Σ e^a, mean 6 softmax(a)₂."""

    log_masses: Float[Array, " 2"]

    def __call__(self, y):
        widths = jnp.linspace(0.5, 2.0, DIM, dtype=y.dtype)
        centres = jnp.stack([jnp.zeros(DIM, y.dtype), jnp.full(DIM, 6.0, y.dtype)])
        squares = jnp.sum(((y[None] - centres) / widths[None]) ** 2, axis=1)
        constant = jnp.sum(jnp.log(widths)) + 0.5 * DIM * jnp.log(2 * jnp.pi).astype(y.dtype)
        return jax.nn.logsumexp(self.log_masses - 0.5 * squares) - constant


def density(log_masses):
    return pid.Density(TwoGaussians(log_masses), DIM, dtype=jnp.float32)


def sampled(target, **options):
    return pid.sample(KEY, target, num_samples=1024, num_steps=8, progress=False, **options)


@pytest.fixture(scope="module")
def solution():
    return sampled(density(LIGHTER), save_paths=True)


def test_log_z_and_mean_are_those_of_the_density(solution):
    assert solution.check() is solution
    assert solution.settings["road"] == "a climb from the modes"
    assert_within(solution.log_z.value, jnp.logaddexp(*LIGHTER), solution.log_z.standard_error + 1e-4)
    mean = solution.expectation(lambda y: y)
    assert_within(mean.value, 6 * jax.nn.softmax(LIGHTER)[1], mean.standard_error)
    assert "2 located; a further start would meet a new one with a chance of 0.0%" in repr(solution)


def test_paths_are_bridges_of_the_optimal_process(solution):
    """They end on the points, and x̂ is a martingale: its mean is that of the end points at every time."""
    np.testing.assert_allclose(solution.states[:, -1], solution.samples, rtol=1e-5, atol=1e-5)
    ends = mean_and_error(solution.samples[:, 0])
    for k in (1, 4, 7):
        mean, error = mean_and_error(solution.weighted_states[:, k, 0])
        assert_within(mean, ends[0], np.hypot(error, ends[1]))
    nearest = jnp.linalg.norm(solution.weighted_states[:, -1] - solution.samples, axis=1)
    assert jnp.median(nearest) < 0.5


def test_the_gradient_of_log_z_and_of_a_mean():
    """∂ log Z/∂a = softmax(a), and ∂E[y₁]/∂a₂ = 6 w₁ w₂, by exact weights."""

    def values(log_masses):
        found = sampled(density(log_masses))
        return jnp.stack([found.log_z.value, found.expectation(lambda y: y[0]).value])

    slopes = jax.jacrev(values)(LIGHTER)
    weights = jax.nn.softmax(LIGHTER)
    np.testing.assert_allclose(slopes[0], weights, atol=1e-3)
    product = 6 * weights[0] * weights[1]
    # 6 is the distance of two means, each of 512 particles that count for 400 at least, of standard deviation 0.5.
    error = float(product) / 6 * 0.5 * (2 / 400) ** 0.5
    assert_within(slopes[1], jnp.stack([-product, product]), error)


def test_the_end_points_can_be_sampled_again(solution):
    """By the rollout: every path weighs Ẑ, and their number does not make the error smaller."""
    target = eqx.tree_at(lambda own: own.log_z.standard_error, solution.target, jnp.array(0.05, jnp.float32))
    again = pid.sample(jax.random.key(1), target, num_samples=3000, num_steps=4)
    np.testing.assert_allclose(again.log_weights, solution.log_z.value, atol=1e-5)
    np.testing.assert_allclose(again.log_z.standard_error, 0.05, rtol=1e-3)
    distances = jnp.abs(again.samples[:, None] - solution.samples[None]).max(axis=-1).min(axis=1)
    assert jnp.max(distances) < 1e-3
    assert repr(solution.target).startswith("Ends(density=Density(TwoGaussians, dim=14), points=1024")


def test_another_number_of_samples_and_another_rule(solution):
    few = pid.sample(KEY, density(LIGHTER), num_samples=100, num_steps=3, progress=False)
    assert few.samples.shape == (100, DIM)
    assert few.num_islands == 1
    assert few.ess == 100
    np.testing.assert_allclose(few.log_weights, few.log_z.value, atol=1e-5)
    np.testing.assert_allclose(few.expectation(lambda y: y).value, solution.expectation(lambda y: y).value, atol=1e-4)
    stepped = sampled(density(LIGHTER), rule=pid.Euler())
    assert not stepped.pinned
    assert Outcome.FEW_EFFECTIVE in [outcome for outcome, _ in stepped.problems()]


def test_a_solution_is_stored(solution, tmp_path):
    pid.save(tmp_path / "solution.npz", solution)
    read = pid.load(tmp_path / "solution.npz", TwoGaussians=TwoGaussians)
    np.testing.assert_array_equal(read.samples, solution.samples)
    assert read.log_z == solution.log_z


@pytest.mark.extended
@pytest.mark.slow
def test_starts_find_what_is_too_narrow_to_be_met():
    """A mode 0.02 as wide, 30 away and off the coordinate lines: missed without a start in its basin."""
    centres = jnp.stack([jnp.zeros(DIM), jnp.full(DIM, 30.0 / DIM**0.5)]).astype(jnp.float32)
    target = pid.GaussianMixture.isotropic(centres, jnp.array([1.0, 0.02**2], jnp.float32))
    found = sampled(pid.Density(target.log_density, DIM, dtype=jnp.float32), starts=centres[1:] + 0.01)
    assert_within(found.check().log_z.value, 0, found.log_z.standard_error + 1e-4)
    assert int(found.reached.modes.num_modes) == 2


@pytest.mark.extended
def test_coordinates_that_are_independent_are_told_apart():
    """Four pairs of wells, 16 modes: a product of mixtures, of even weights, where end points would be few."""
    known = zoo.many_well(4, dtype=jnp.float32)
    found = pid.sample(KEY, known.target, num_samples=2048, progress=False).check()
    assert isinstance(found.target, pid.Surrogate)
    assert isinstance(found.target.mixture, pid.Product)
    assert found.ess > 0.85 * 2048
    assert_within(found.log_z.value, known.log_z, found.log_z.standard_error)
    turned = pid.sample(KEY, known.target, num_samples=1024, protocol=pid.harmonic(jnp.eye(8)), progress=False)
    assert isinstance(turned.target, Ends)


def test_a_mode_without_samples_is_lost(solution):
    population, modes = solution.reached.population, solution.reached.modes
    assert num_lost(population, modes.tops) == 0
    near_one = jnp.where(population.samples[:, :1] > 3, 0, population.samples)
    assert num_lost(dataclasses.replace(population, samples=near_one), modes.tops) == 1


def test_modes_met_once_are_climbed_from_last(solution):
    """With a mode met only once there are others; but if no other base reaches all that was seen, these do."""

    def roads(modes):
        return [road for road, _ in candidates(KEY, density(LIGHTER), modes, None, None)]

    modes = solution.reached.modes
    assert roads(modes) == ["modes", "broad"]
    assert roads(eqx.tree_at(lambda own: own.counts, modes, jnp.minimum(modes.counts, 1))) == ["broad", "modes"]


def test_mass_of_modes_met_once_is_told(solution):
    reached = solution.reached
    assert reached.modes.unseen_mass == 0
    lighter = jnp.argmin(jnp.where(reached.modes.log_masses > -jnp.inf, reached.modes.log_masses, jnp.inf))
    once = eqx.tree_at(lambda own: own.counts, reached.modes, reached.modes.counts.at[lighter].set(1))
    np.testing.assert_allclose(once.unseen_mass, jax.nn.softmax(LIGHTER).min(), rtol=1e-3)
    told = dataclasses.replace(reached, modes=once)
    assert [found for found, _ in told.problems()] == [pid.Outcome.UNSEEN_MASS]


def test_without_gradients():
    """A staircase of the energy, flat nearly everywhere: −½|y|² in steps of a tenth."""

    def stairs(y):
        return jnp.floor(-5 * jnp.sum(y**2)) / 10

    found = reach(KEY, pid.Density(stairs, 13, dtype=jnp.float32), 1024, progress=False)
    assert found.road == "broad"
    assert not found.modes.has_slopes
    truth = 6.5 * np.log(2 * np.pi) + np.log(0.1 / (np.exp(0.1) - 1))
    assert_within(found.population.log_z.value, truth, found.population.log_z.standard_error)


def test_what_needs_a_density_of_the_end_points(solution):
    with pytest.raises(ValueError, match="which have no density beside the target's"):
        solution.forward_ess(KEY, solution.samples)


def test_bad_starts():
    with pytest.raises(ValueError, match="starts are for a Density, and target is a Samples; leave them out"):
        pid.sample(KEY, pid.Samples(jnp.zeros((3, 2))), starts=jnp.zeros((1, 2)))
    with pytest.raises(ValueError, match=r"starts has shape \(2,\); pass s points of dimension 14"):
        sampled(density(LIGHTER), starts=jnp.zeros(2))
