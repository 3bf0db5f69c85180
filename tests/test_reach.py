"""A climb that has missed mass is accused, and one that has not is left alone."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pidjax import Density, GaussianMixture, Outcome, sample, zoo
from pidjax._maths.estimates import Estimate
from pidjax.tempering import locate
from pidjax.tempering.halo import DRAWS, ROUNDS, are_strays, halo, scatter
from pidjax.tempering.reach import climb_from, reach

KEY = jax.random.key(7)


def slab_of_unequal_widths(dim: int) -> GaussianMixture:
    """½N(0, 0.1² I) + ½N(0, Σ), the widths of Σ from 0.5 to 2 along turned axes: one top."""
    axes = np.linalg.qr(np.random.default_rng(0).normal(size=(dim, dim)))[0]
    slab = axes @ np.diag(np.geomspace(0.25, 4, dim)) @ axes.T
    return GaussianMixture(jnp.zeros((2, dim)), jnp.asarray(np.stack([0.01 * np.eye(dim), slab])))


@pytest.mark.slow
def test_strays_are_the_chains_beyond_the_shells_of_all_modes():
    target = Density(lambda y: -0.5 * jnp.sum(y**2), 3)
    modes = locate(KEY, target)
    assert jnp.sum(are_strays(modes)) == 0
    ends = jnp.array([[6.0, 0.0, 0.0], [5.0, 0.0, 0.0], [40.0, 0.0, 0.0]])
    moved = dataclasses.replace(modes, pilot_points=ends, pilot_values=jnp.array([-18.0, -12.5, -jnp.inf]))
    assert are_strays(moved).tolist() == [True, False, False]


def test_scatter_is_that_of_the_chosen_but_for_those_far_away():
    """Of 4,000 draws of a Gaussian, one in ten thirty times as far: every axis to 15 % (7 % by chance), not ninefold.

    Points that are not chosen, more and farther, do not matter, and it is where Student's equations have their solution.
    """
    key_noise, key_turn = jax.random.split(KEY)
    root = jax.random.orthogonal(key_turn, 10) * jnp.geomspace(0.5, 2, 10)[None]
    noise = jax.random.normal(key_noise, (8000, 10))
    points = jnp.where(jnp.arange(8000)[:, None] % 10 == 0, 30 * noise, noise) @ root.T + 5
    points, chosen = points.at[4000:].mul(100), jnp.arange(8000) < 4000
    mean, factor = scatter(points, chosen)
    widths = jnp.linalg.svd(jnp.linalg.solve(root, factor), compute_uv=False)
    assert 0.85 < widths.min() < widths.max() < 1.15
    assert jnp.linalg.norm(jnp.linalg.solve(root, mean - 5)) < 0.1
    white = jnp.linalg.solve(factor, (points[:4000] - mean[None]).T)
    weights = 1 / (1 + jnp.sum(white**2, axis=0))
    np.testing.assert_allclose(white @ weights, jnp.zeros(10), atol=1e-3 * weights.sum())
    np.testing.assert_allclose((weights[None] * white) @ white.T / weights.sum(), jnp.eye(10), atol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    "target",
    [
        pytest.param(zoo.student_mixture(10, degrees_of_freedom=3.0), marks=pytest.mark.extended),
        slab_of_unequal_widths(10),
    ],
    ids=["student", "slab"],
)
def test_the_halo_of_the_modes_has_all_the_mass(target):
    modes = locate(KEY, Density(target.log_density, target.dim))
    found = halo(KEY, Density(target.log_density, target.dim), modes)
    assert found.evaluations == ROUNDS * DRAWS
    assert found.log_z.standard_error < 0.03
    assert abs(found.log_z.value) < 4 * found.log_z.standard_error


@pytest.mark.extended
@pytest.mark.slow
def test_the_halo_has_the_mass_of_tops_at_a_wall():
    """N(0, I) and four halves of 2 N(± 20 e_i, I), cut through their tops: no Gaussian fits there, and log Z = log 5."""

    def log_density(y):
        faces, squares = jnp.concatenate([y[:2], -y[:2]]), jnp.sum(y**2)
        halves = jnp.where(faces >= 20, math.log(2) - 0.5 * (squares - 40 * faces + 400), -jnp.inf)
        return jax.nn.logsumexp(jnp.append(halves, -0.5 * squares)) - 5 * math.log(2 * math.pi)

    target = Density(log_density, 10)
    modes = locate(KEY, target)
    assert (modes.num_modes, jnp.sum(modes.ridges.log_masses > -jnp.inf)) == (1, 4)
    assert modes.num_starts > 64 * 256
    found = halo(KEY, target, modes)
    assert found.log_z.standard_error < 0.05
    assert abs(found.log_z.value - math.log(5)) < 4 * found.log_z.standard_error


@pytest.mark.slow
@pytest.mark.extended
@pytest.mark.parametrize("target", [zoo.spike_and_slab(10), slab_of_unequal_widths(10)], ids=["round", "unequal"])
def test_a_slab_under_a_spike_is_told_of_and_reached(target):
    density = Density(target.log_density, 10)
    reached = reach(KEY, density, 1024, progress=False)
    assert (reached.road, reached.problems()) == ("halo", [])
    assert int(reached.modes.num_modes) == 1
    log_z = reached.population.log_z
    assert abs(log_z.value) < max(4 * log_z.standard_error, 0.01)

    missed = climb_from(KEY, density, reached.modes.laplace(), "modes", reached.modes, 1024)
    assert missed.problems() == []
    missed = dataclasses.replace(missed, seen_log_z=reached.seen_log_z)
    assert [found for found, _ in missed.problems()] == [Outcome.UNSEEN_MASS]


@pytest.mark.extended
@pytest.mark.slow
def test_a_halo_goes_on_where_tails_do():
    for degrees, widest in (3.0, 32), (1.0, 1024):
        known = zoo.student_mixture(5, degrees_of_freedom=degrees)
        target = Density(known.log_density, 5)
        found = halo(KEY, target, locate(KEY, target))
        assert (found.widest, found.evaluations) == (widest, ROUNDS * DRAWS * (1 + (widest > 32)))
        assert abs(found.log_z.value) < 4 * found.log_z.standard_error
        assert found.share_beyond(known.sample(KEY, 4096), jnp.full(4096, 1 / 4096)) < 0.005


@pytest.mark.extended
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_climb_to_no_finite_mass_is_told(seed):
    reached = reach(jax.random.key(seed), Density(lambda y: -jnp.log1p(jnp.sum(y**2)), 2), 1024, progress=False)
    told = [found for found, _ in reached.problems()]
    assert Outcome.UNSEEN_MASS in told
    if reached.road == "halo":
        assert reached.beyond > 0.01


def gaussian_of_many_widths(y):
    return -0.5 * jnp.sum((y / jnp.logspace(0, 2, 20)) ** 2)


@pytest.mark.slow
@pytest.mark.extended
@pytest.mark.parametrize("seed", range(4))
def test_no_mass_is_missed_where_none_is(seed):
    reached = reach(jax.random.key(seed), Density(gaussian_of_many_widths, 20), 1024, progress=False)
    assert (reached.road, reached.problems()) == ("modes", [])
    assert reached.seen_log_z is not None
    assert reached.seen_log_z.standard_error < 0.03


@pytest.mark.extended
@pytest.mark.slow
def test_heavy_tails_are_climbed_to_from_the_halo():
    known = zoo.student_mixture(10, degrees_of_freedom=3.0)
    reached = reach(KEY, Density(known.log_density, 10), 1024, progress=False)
    assert (reached.road, reached.problems()) == ("halo", [])
    log_z = reached.population.log_z
    assert reached.population.ess > 0.8 * reached.population.num_samples
    assert abs(log_z.value) < 4 * log_z.standard_error


@pytest.mark.extended
@pytest.mark.slow
def test_sample_climbs_from_a_halo():
    target = Density(zoo.spike_and_slab(20).log_density, 20)
    solution = sample(KEY, target, num_samples=1024, num_steps=8, progress=False)
    assert solution.check().settings["road"] == "a climb from a halo of the modes"
    assert abs(solution.log_z.value) < 4 * solution.log_z.standard_error


@pytest.mark.slow
def test_a_climb_that_does_not_arrive_says_so(monkeypatch):
    """Ten levels are too few to get to the top of N(0, 1) from 10⁶ away: the particles are the pilot's."""
    monkeypatch.setattr("pidjax.tempering.ladder.MOST_LEVELS", 10)
    modes = locate(jax.random.key(0), lambda y: -jnp.sum(y**2), 2)
    far = Density(lambda y: -0.5 * jnp.sum((y - 1e6) ** 2), 2)
    base = GaussianMixture.isotropic(jnp.zeros((1, 2)), 1.0)
    reached = climb_from(jax.random.key(1), far, base, "fitted", modes, 1000)
    assert Outcome.UNFINISHED in [outcome for outcome, _ in reached.problems()]


@pytest.mark.slow
def test_of_two_climbs_the_more_certain_is_taken():
    """Little mass that is missing for certain does less harm than an error that would hide it; much of it more."""
    modes = locate(KEY, lambda y: -0.5 * jnp.sum(y**2), 2)
    density = Density(lambda y: -0.5 * jnp.sum(y**2), 2)
    fine = climb_from(KEY, density, GaussianMixture.isotropic(jnp.zeros((1, 2)), 1.5), "fitted", modes, 8192)
    few = dataclasses.replace(fine.population, ancestors=fine.population.ancestors // 64 * 64)
    rough = dataclasses.replace(fine, population=few)
    error = float(rough.population.log_z.standard_error)
    assert fine.problems() == rough.problems() == []

    def missing(share):
        return dataclasses.replace(fine, missing=Estimate(jnp.array(share), jnp.array(0.001)))

    assert fine.is_better(rough)
    assert missing(0.3 * error).is_better(rough)
    assert rough.is_better(missing(3 * error))
    assert not fine.is_better(fine)
    assert [found for found, _ in missing(0.3 * error).problems()] == [Outcome.UNSEEN_MASS]
    lost = dataclasses.replace(fine, num_lost=jnp.array(1))
    assert rough.is_better(lost)
    assert not lost.is_better(rough)

    def found(more):
        return dataclasses.replace(rough, population=dataclasses.replace(few, log_weights=few.log_weights + more))

    assert rough.is_thin
    assert not fine.is_thin
    assert found(3 * error).is_better(rough)
    assert not rough.is_better(found(3 * error))
    assert not found(error).is_better(rough)
    assert fine.is_better(found(3 * error))
    assert not found(3 * error).is_better(fine)


@pytest.mark.slow
@pytest.mark.parametrize(("others_lost", "kept"), [pytest.param(True, 0, marks=pytest.mark.extended), (False, 1)])
def test_what_a_later_climb_saw_is_held_against_the_first(monkeypatch, others_lost, kept):
    """The first has no problem but few ancestors; the others, of more mass, have two problems, or none."""
    climbs = []

    def climbed(*arguments, **options):
        reached = climb_from(*arguments, **options)
        own = reached.population
        if climbs:
            faults = jnp.array(int(others_lost))
            heavier = dataclasses.replace(own, log_weights=own.log_weights + 1, num_nonfinite=faults)
            reached = dataclasses.replace(reached, population=heavier, pilot_log_z=heavier.log_z, num_lost=faults)
        else:
            reached = dataclasses.replace(
                reached, population=dataclasses.replace(own, ancestors=own.ancestors // 8 * 8)
            )
        climbs.append(reached)
        return reached

    monkeypatch.setattr("pidjax.tempering.reach.climb_from", climbed)
    reached = reach(KEY, Density(lambda y: -0.5 * jnp.sum(y**2), 3), 1024, progress=False)
    assert len(climbs) > 1
    assert not climbs[0].problems()
    assert reached.population is climbs[kept].population
    assert [outcome for outcome, _ in reached.problems()] == ([Outcome.UNSEEN_MASS] if others_lost else [])
