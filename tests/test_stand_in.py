"""A fit is asked for modes that it overlooked, and the modes' own Gaussians stand in where their weights are the more even."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_within

import pidjax as pid
from pidjax.sampling.stand_in import are_overlooked, more_even
from pidjax.targets.fitting import Fit
from pidjax.tempering.modes import Modes, Tops

KEY = jax.random.key(5)
DIM = 6
NUM_MODES = 3
"""Rows of modes, the last of which is padding."""


@pytest.fixture(scope="module")
def target():
    """Two Gaussians, 12 apart, of widths 1 and ½, that hold .7 and .3."""
    means = jnp.stack([jnp.zeros(DIM), jnp.full(DIM, 12 / DIM**0.5)])
    return pid.GaussianMixture.isotropic(means, jnp.array([1.0, 0.25]), jnp.array([0.7, 0.3]))


def located(target, log_z=0.0) -> Modes:
    """The target's components as modes."""
    masses = jnp.append(jnp.log(target.weights) + log_z, -jnp.inf)
    points = jnp.concatenate([target.means, jnp.zeros((1, DIM))])
    factors = jnp.concatenate([jnp.sqrt(target.covariances), jnp.eye(DIM)[None]])
    counts = jnp.array([9, 9, 0])
    none = Tops(points[:1], factors[:1], jnp.full(1, -jnp.inf))
    numbers = dict(
        zip(
            ("num_modes", "num_starts", "num_unexplained", "num_left", "evaluations", "num_gradient_evaluations"),
            map(jnp.asarray, (2, 18, 0, 0, 0, 0)),
        )
    )
    flags = {"were_given": jnp.zeros(NUM_MODES, bool), "has_slopes": jnp.array(True)}
    return Modes(
        points, factors, masses, counts, ridges=none, pilot_points=points, pilot_values=masses, **numbers, **flags
    )


def fit_of(mixture, log_z) -> Fit:
    """A fit of one round."""
    none = jnp.zeros((), int)
    return Fit(
        mixture, jnp.array([log_z]), jnp.array([0.95]), none + 1, none, none, none, none, jnp.zeros(()), jnp.array(True)
    )


def test_a_fit_overlooks_what_it_has_next_to_nothing_of(target):
    """Whatever the units of log p̃, and not what holds less than a thousandth."""
    alone = pid.GaussianMixture(target.means[:1], jnp.eye(DIM)[None])
    for log_z in (0.0, -300.0):
        density = pid.Density(lambda y, log_z=log_z: target.log_density(y) + log_z, DIM)
        modes = located(target, log_z)
        assert are_overlooked(density, fit_of(alone, log_z + np.log(0.7)), modes).tolist() == [False, True, False]
        assert not are_overlooked(density, fit_of(target, log_z), modes).any()
    rare = pid.GaussianMixture.isotropic(target.means, jnp.array([1.0, 0.25]), jnp.array([0.9995, 0.0005]))
    density = pid.Density(rare.log_density, DIM)
    assert not are_overlooked(density, fit_of(alone, 0.0), located(rare)).any()


def test_gaussians_of_modes_stand_in_where_they_are_the_target(target):
    near = pid.GaussianMixture(target.means, 1.2 * target.covariances, target.weights)
    mixture, evaluations = more_even(KEY, pid.Density(target.log_density, DIM), near, located(target))
    np.testing.assert_allclose(mixture.means, target.means)
    np.testing.assert_allclose(mixture.weights, target.weights, rtol=1e-6)
    assert evaluations > 0


def test_the_fit_stands_in_where_gaussians_miss_a_part(target):
    """Modes that lack one: by their own draws nothing is missing, by the fit's a third is. And where there are none."""
    near = pid.GaussianMixture(target.means, 1.1 * target.covariances, target.weights)
    density = pid.Density(target.log_density, DIM)
    both = located(target)
    parts = both.log_masses.at[1].set(-jnp.inf), jnp.array(1)
    one = eqx.tree_at(lambda own: (own.log_masses, own.num_modes), both, parts)
    assert more_even(KEY, density, near, one)[0] is near
    none = eqx.tree_at(lambda own: own.num_modes, both, jnp.array(0))
    assert more_even(KEY, density, near, none) == (near, 0)


def test_a_density_that_closes_over_what_is_traced_is_refused():
    """Before anything is looked for, in few dimensions and in many."""
    for dim in (2, 14):

        def log_z(stiffness, dim=dim):
            density = pid.Density(lambda y: -0.5 * stiffness * jnp.sum(y**2), dim)
            return pid.sample(KEY, density, progress=False).log_z.value

        for traced in (jax.grad(log_z), lambda one: jax.vmap(log_z)(one[None])):
            with pytest.raises(
                ValueError, match="a Density cannot be sampled under jit or vmap, nor differentiated in"
            ):
                traced(jnp.array(1.0))


@pytest.mark.slow
def test_few_samples_of_a_climb_pass_and_its_problems_are_told_whatever_the_rule(as_users_have_it):
    """A Gaussian whose coordinates depend on each other, in 14 dimensions: a climb, and bridges to its end points."""
    precision = jnp.linalg.inv(0.5 * jnp.eye(14) + 0.5)
    density = pid.Density(lambda y: -0.5 * y @ precision @ y, 14)
    few = pid.sample(KEY, density, num_samples=7, progress=False).check()
    assert few.num_gradient_evaluations > 150_000, "chains and climbs follow gradients"
    moment = pid.sample(KEY, density, num_samples=256, rule=pid.Moment(), progress=False)
    text = dict(moment.problems())[pid.Outcome.NOT_FINITE]
    assert "Use rule Ancestral" in text
    lost = eqx.tree_at(lambda own: own.reached.num_lost, moment, jnp.array(3))
    assert pid.Outcome.LOST_MODE in dict(lost.problems())


def boxes(y):
    """Two, of volumes 1 and 9, without a slope anywhere: log Z = log 10."""
    inside = jnp.all(jnp.abs(y) < 0.5) | jnp.all(jnp.abs(y - 20) < 1.5)
    return jnp.where(inside, 0.0, -jnp.inf)


@pytest.mark.slow
@pytest.mark.parametrize("starts", [pytest.param(None, marks=pytest.mark.extended), jnp.array([[20.0, 20.0]])])
def test_a_support_in_pieces_is_found_without_slopes_and_from_a_start(as_users_have_it, starts):
    found = pid.sample(jax.random.key(1), pid.Density(boxes, 2), starts=starts, progress=False).check()
    assert_within(found.log_z.value, np.log(10), found.log_z.standard_error)
    share = found.expectation(lambda y: (y[0] > 10).astype(y.dtype))
    assert_within(share.value, 0.9, share.standard_error)


@pytest.mark.extended
@pytest.mark.slow
def test_a_start_in_a_support_without_the_origin_is_where_one_looks(as_users_have_it):
    """A cube of volume 8 around (3, 3, 3): from the origin none of its points is met."""
    cube = pid.Density(lambda y: jnp.where(jnp.all(jnp.abs(y - 3) < 1), 0.0, -jnp.inf), 3)
    found = pid.sample(KEY, cube, starts=jnp.full((1, 3), 3.0), progress=False).check()
    assert_within(found.log_z.value, np.log(8), found.log_z.standard_error)


@pytest.mark.extended
@pytest.mark.slow
def test_a_narrow_mode_is_kept_from_a_start(as_users_have_it):
    """Half the mass in three dimensions, 0.02 wide, 42 away: a chain's one end would be one point among thousands."""
    means = jnp.array([[0.0, 0.0, 0.0], [31.0, -17.0, 23.0]])
    mixture = pid.GaussianMixture.isotropic(means, jnp.array([1.0, 0.02**2]))
    density = pid.Density(mixture.log_density, 3)
    found = pid.sample(jax.random.key(2), density, starts=means[::-1], progress=False).check()
    assert_within(found.log_z.value, 0, found.log_z.standard_error + 1e-4)


@pytest.mark.extended
@pytest.mark.slow
def test_a_climb_without_mass_says_so(as_users_have_it):
    """The cube [0, 1]⁴⁰ has no gradients, and no broad Gaussian has a draw in it."""
    box = pid.Density(lambda y: jnp.where(jnp.all((y > 0) & (y < 1)), 0.0, -jnp.inf), 40)
    with pytest.raises(pid.SamplingError, match="every weight is zero: no particle was where") as raised:
        pid.sample(KEY, box, starts=jax.random.uniform(KEY, (64, 40)), progress=False)
    assert pid.Outcome.NO_WEIGHT in raised.value.outcomes
