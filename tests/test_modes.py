"""Climbs end on the known maxima, modes have the known Gaussians, and what has none is said to have none."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_within

import pidjax as pid
from benchmarks.seeded import seeded
from pidjax import Density, GaussianMixture, zoo
from pidjax.targets.fitting.energy import Energy
from pidjax.targets.fitting.pilot import Sizes, pilot_chains
from pidjax.tempering import Hamiltonian, anneal, broad_base, locate
from pidjax.tempering.bases import are_all
from pidjax.tempering.climb import climb
from pidjax.tempering.explain import find_modes, nothing_found
from pidjax.tempering.modes import FARTHEST, NEAREST
from pidjax.tempering.search import is_useful

KEY = jax.random.key(5)


def far_gaussians(dtype):
    """Three, of full covariances and unequal weights, 40 standard deviations apart at least."""
    means = jnp.array([[-30.0, 0.0, 5.0], [0.0, 20.0, 0.0], [30.0, 0.0, -5.0]], dtype)
    roots = jnp.array(
        [
            [[1.0, 0.0, 0.0], [0.8, 0.3, 0.0], [0.0, -0.5, 0.7]],
            [[0.1, 0.0, 0.0], [0.0, 0.5, 0.0], [0.3, 0.2, 0.1]],
            [[0.4, 0.0, 0.0], [0.2, 0.4, 0.0], [0.1, 0.3, 0.5]],
        ],
        dtype,
    )
    return GaussianMixture(means, jnp.einsum("kij,klj->kil", roots, roots), jnp.array([0.55, 0.35, 0.1], dtype))


def ring(y):
    return -200 * (jnp.sqrt(jnp.sum(y**2)) - 1) ** 2


@pytest.mark.slow
def test_climbs_end_on_the_maxima_of_many_well(dtype):
    """The maxima of ½x + 6x² − x⁴ solve 4x³ − 12x − ½ = 0; every climb ends on one of their 2⁴ combinations."""
    low, _, high = np.sort(np.roots([4, 0, -12, -0.5]).real)
    target = zoo.many_well(4, dtype=dtype).target
    starts = 3 * jax.random.normal(KEY, (200, 8), dtype)
    climbs = jax.jit(jax.vmap(lambda start: climb(target, start, jnp.ones((), dtype))))(starts)
    assert climbs.point.dtype == climbs.value.dtype == dtype
    wells = np.asarray(climbs.point[:, 0::2], float)
    assert np.abs(np.asarray(climbs.point[:, 1::2])).max() < 2e-3
    assert np.minimum(np.abs(wells - low), np.abs(wells - high)).max() < 1e-3
    assert len(np.unique(wells > 0, axis=0)) == 16
    assert jnp.max(climbs.evaluations) <= 300
    assert jnp.mean(climbs.evaluations) < 60


def test_a_climb_is_not_stopped_by_what_is_not_finite():
    """log y − y of y > 0 has its maximum at 1; from a start outside there is no way up."""
    target = Density(lambda y: jnp.where(y[0] > 0, jnp.log(y[0]) - y[0], jnp.nan), 1)
    up = climb(target, jnp.array([0.01]), jnp.array(100.0))
    np.testing.assert_allclose(up.point, [1.0], atol=1e-3)
    assert climb(target, jnp.array([-1.0]), jnp.array(1.0)).value == -jnp.inf


def test_a_climb_begins_where_the_square_of_the_slope_overflows():
    """Σ y − eʸ, with its maximum at 0, from slopes of −10³⁰ in float32."""
    target = Density(lambda y: jnp.sum(y - jnp.exp(y)), 2, dtype=jnp.float32)
    up = climb(target, jnp.array([70.0, 60.0], jnp.float32), jnp.ones((), jnp.float32))
    np.testing.assert_allclose(up.point, [0.0, 0.0], atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.extended)], indirect=True)
def test_far_gaussians_are_found_as_they_are(dtype):
    mixture = far_gaussians(dtype)
    target = Density(lambda y: mixture.log_density(y) + 7, 3, dtype=dtype)
    modes = locate(KEY, target)
    assert modes.num_modes == 3
    assert modes.has_slopes
    assert modes.num_unexplained == modes.num_left == 0
    assert modes.unseen == 0
    assert modes.num_starts == 176 + 18 * 256
    assert 176 + 18 * 128 < jnp.sum(modes.counts) < modes.num_starts
    order = jnp.argsort(modes.points[:3, 0])
    base = modes.laplace(by_mass=True)
    assert base.means.dtype == base.factors.dtype == base.weights.dtype == dtype
    tolerance = 1e-7 if dtype == jnp.float64 else 1e-3
    np.testing.assert_allclose(base.means[order], mixture.means, atol=1e-4)  # a climb ends at |L⁻¹(y − m)|² < 1e-8
    np.testing.assert_allclose(base.factors[order], mixture.factors, atol=tolerance)
    np.testing.assert_allclose(base.weights[order], mixture.weights, atol=tolerance)
    np.testing.assert_allclose(modes.log_masses[:3][order], 7 + jnp.log(mixture.weights), atol=tolerance)
    np.testing.assert_allclose(modes.laplace().weights, 1 / 3, rtol=1e-6)


def begun(ends, most):
    """A search of all these ends."""
    return nothing_found(ends, most)._replace(open=jnp.ones(len(ends), bool))


@pytest.mark.slow
def test_modes_met_once_and_starts_given():
    """Ends as a search leaves them: a mode met twice, one met once, one by a given start alone, one end that is nowhere.

    And one end at the first of these from around it, which is no meeting.
    """
    mixture = far_gaussians(jnp.float64)
    target = Density(mixture.log_density, 3)
    ends = jnp.concatenate([mixture.means[jnp.array([0, 0, 1, 2, 0])] + 1e-3, jnp.array([[0.0, 0.0, 0.0]])])
    values = jax.vmap(target.log_density)(ends)
    drawn = jnp.array([True, True, True, False, True, True])
    given = jnp.array([False, False, False, True, False, False])
    best_first = jnp.sum(values[2:4] > values[0])
    origins = jnp.full(6, -1).at[4].set(best_first)
    search = jax.jit(lambda *ends: find_modes(target, *ends, begun(ends[0], 8)))(ends, values, drawn, given, origins)
    found = search.modes.points[: int(search.num_modes)]
    counts = {round(float(point[0])): int(count) for point, count in zip(found, search.counts)}
    assert counts == {-30: 2, 0: 1, 30: 0}
    assert search.were_given[:3].tolist() == [round(float(point[0])) == 30 for point in found]
    assert search.num_unexplained == 1
    assert not search.open.any()
    few = jax.jit(lambda *ends: find_modes(target, *ends, begun(ends[0], 1)))(ends, values, drawn, given, origins)
    assert few.num_modes == 1
    assert few.open.any()


@pytest.mark.slow
def test_the_top_of_a_bent_ridge_has_its_mass():
    """A Gaussian of widths 3 and 0.1, bent by x₂ → x₂ + x₁²: no Gaussian fits, but bending keeps volume."""
    target = Density(lambda y: -0.5 * (y[0] / 3) ** 2 - 50 * (y[1] - y[0] ** 2) ** 2, 2)
    ends = jnp.array([[0.0, 0.0], [0.0, 1e-3]])
    values = jax.vmap(target.log_density)(ends)
    drawn, origins = jnp.ones(2, bool), jnp.full(2, -1)
    search = jax.jit(lambda *ends: find_modes(target, *ends, begun(ends[0], 4)))(ends, values, drawn, ~drawn, origins)
    assert (search.num_modes, jnp.sum(search.ridges.log_masses > -jnp.inf)) == (0, 1)
    assert search.num_unexplained == search.num_on_ridges == 2
    np.testing.assert_allclose(search.ridges.log_masses[0], jnp.log(2 * jnp.pi * 3 * 0.1), rtol=1e-5)
    assert jnp.all(search.ridges.log_masses[1:] == -jnp.inf)


@pytest.mark.extended
@pytest.mark.slow
def test_phases_of_a_field_and_the_wells_of_many():
    """Both phases of φ⁴, in 100 dimensions and float32, and all sixteen wells; masses of the phases to Laplace's accuracy."""
    known = zoo.phi4(0.025, dtype=jnp.float32)
    modes = locate(KEY, known.target)
    assert modes.num_modes == 2
    assert jnp.all(modes.counts[:2] > 10)
    assert modes.num_unexplained == 0
    assert modes.unseen == 0
    assert modes.points[0, 50] < -0.5
    assert modes.points[1, 50] > 0.5
    assert abs(float(modes.log_masses[1] - modes.log_masses[0]) - known.log_phase_ratio) < 0.5
    assert abs(float(modes.log_masses[0]) - known.log_z) < 1
    wells = locate(KEY, zoo.many_well(4).target)
    assert wells.num_modes == 16
    assert wells.num_unexplained == wells.num_left == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "scale"), [(jnp.float32, 1.0), pytest.param(jnp.float64, 1e-3, marks=pytest.mark.extended)]
)
def test_a_ring_is_unexplained(dtype, scale):
    modes = locate(KEY, Density(lambda y: ring(y / scale), 2, dtype=dtype))
    assert modes.has_slopes
    assert modes.num_modes == 0
    assert modes.num_unexplained == modes.num_starts
    rounds, rest = divmod(int(modes.num_starts) - 176, 256)
    assert rest == 0
    assert rounds == 7 or (0 < rounds < 7 and jnp.all(modes.ridges.log_masses > -jnp.inf))
    assert modes.unseen == 1
    with pytest.raises(ValueError, match="no modes were found: no start ended at a peak"):
        modes.laplace()
    base = broad_base(modes.pilot_points, modes.pilot_values)
    assert base.factors.shape == (1, 2)
    assert jnp.all((base.factors > scale) & (base.factors < 4 * scale))


@pytest.mark.slow
def test_a_density_in_steps_has_no_slopes():
    steps = Density(lambda y: -0.5 * jnp.sum(jnp.round(4 * y) ** 2) / 16, 2)
    modes = locate(KEY, steps)
    assert not modes.has_slopes
    assert modes.num_modes == 0
    assert modes.unseen == 1
    assert "has_slopes=False" in repr(modes)
    with pytest.raises(ValueError, match="gradients are of no use"):
        modes.laplace()


def test_gradients_that_are_wrong_are_of_no_use():
    def half_cut(y):
        return -jnp.sum(y[:1] ** 2) - jnp.sum(jax.lax.stop_gradient(y[1:]) ** 2)

    points, directions = jax.random.normal(KEY, (2, 40, 3))
    for log_density, least, most in ((half_cut, 0, 0.3), (lambda y: -jnp.sum(y**4), 1, 1)):
        useful = jax.vmap(partial(is_useful, Density(log_density, 3)))(points, directions)
        assert least <= jnp.mean(useful) <= most


@pytest.mark.extended
@pytest.mark.optimised
def test_above_2048_dimensions_with_the_diagonal():
    """Exact for independent coordinates."""
    dim = 2049
    sds = jnp.linspace(0.5, 2, dim)

    def log_density(y):
        return -0.5 * jnp.sum(((y - 3) / sds) ** 2)

    modes = locate(KEY, log_density, dim)
    assert modes.num_modes == 1
    assert modes.num_starts == modes.counts[0] == 8
    np.testing.assert_allclose(modes.points[0], 3.0, atol=1e-3)
    np.testing.assert_allclose(modes.factors[0], sds, rtol=1e-5)
    np.testing.assert_allclose(modes.log_masses[0], jnp.sum(jnp.log(sds)) + dim / 2 * jnp.log(2 * jnp.pi), rtol=1e-6)


@pytest.mark.slow
def test_given_starts_and_jit():
    """A mode too narrow to be met is found from a place in its basin; the same under jit, its padding of weight zero."""
    centres = jnp.concatenate([jnp.zeros((1, 10)), jnp.full((1, 10), 10.0)])
    target = pid.GaussianMixture.isotropic(centres, jnp.array([1.0, 0.02**2]))
    start = target.means[1:] + 0.01
    assert locate(KEY, target).num_modes == 1

    @jax.jit
    def located(key, target):
        modes = locate(key, target, starts=start)
        return modes, modes.laplace()

    modes, base = located(KEY, target)
    assert modes.num_modes == 2
    assert jnp.min(modes.counts[:2]) == 0
    assert jnp.max(modes.counts[:2]) > 175
    met_once = eqx.tree_at(lambda own: own.counts, modes, modes.counts.at[jnp.argmin(modes.counts[:2])].set(1))
    assert are_all(met_once)
    assert not are_all(eqx.tree_at(lambda own: own.were_given, met_once, jnp.zeros(64, bool)))
    assert base.weights.tolist() == [0.5, 0.5, *[0.0] * 62]
    place = jnp.ones(10)
    np.testing.assert_allclose(base.log_density(place), modes.laplace().log_density(place))
    assert repr(modes).startswith("Modes(dim=10, num_modes=2, num_starts=32807, num_unexplained=0, has_slopes=True")
    assert "float64[]" in repr(eqx.filter_eval_shape(lambda: modes))


@pytest.mark.slow
def test_narrowest_is_what_starts_at_random_meet():
    """By places at random, of log-uniform distance, that lie in the ball; on a line in closed form; of one start 1."""
    modes = locate(KEY, lambda y: -jnp.sum(y**2), 9)
    share = 1 - 0.05 ** (1 / int(modes.num_starts))
    rng, number = np.random.default_rng(0), 400_000
    for dim in (2, 5, 9):
        of_fewer = eqx.tree_at(lambda own: own.points, modes, modes.points[:, :dim])
        width = float(of_fewer.narrowest)
        directions = rng.normal(size=(number, dim))
        distances = np.exp(rng.uniform(np.log(NEAREST), np.log(FARTHEST), (number, 1)))
        places = distances * directions / np.linalg.norm(directions, axis=1, keepdims=True)
        ball = np.zeros(dim)
        ball[0] = 2 / (1 - width**2)
        inside = np.mean(np.linalg.norm(places - ball, axis=1) < 2 * width / (1 - width**2))
        assert_within(inside, share, np.sqrt(share / number))
    assert eqx.tree_at(lambda own: own.num_starts, modes, jnp.array(1)).narrowest == 1
    line = eqx.tree_at(lambda own: own.points, modes, modes.points[:, :1])
    np.testing.assert_allclose(line.narrowest, np.tanh(share * np.log(FARTHEST / NEAREST)), atol=1e-3)


@pytest.mark.slow
@pytest.mark.extended
@pytest.mark.parametrize("seed", range(4))
def test_modes_as_wide_as_is_said_are_met(seed):
    """One in a direction at random, 20 standard deviations away, a tenth wider than what is met in 95 of 100 searches."""
    narrowest = float(locate(KEY, lambda y: -jnp.sum(y**2), 9).narrowest)
    key_place, key = jax.random.split(jax.random.key(seed))
    place = jax.random.normal(key_place, (9,))
    centres = jnp.stack([jnp.zeros(9), 20 * place / jnp.linalg.norm(place)])
    target = pid.GaussianMixture.isotropic(centres, jnp.array([1.0, (1.1 * narrowest) ** 2]))
    assert locate(key, target).num_modes == 2


@pytest.mark.slow
@pytest.mark.parametrize("distance", [10.0, 50.0])
def test_a_narrow_mode_along_a_coordinate_is_met(distance):
    modes = locate(KEY, zoo.two_modes(10, distance=distance, width=0.1).target)
    assert modes.num_modes == 2
    np.testing.assert_allclose(jnp.sort(modes.points[:2, 0]), [0, distance], atol=1e-3)


@pytest.mark.slow
@pytest.mark.extended
@pytest.mark.parametrize("seed", range(3))
def test_modes_in_small_basins_are_met_from_around_the_others(seed):
    """Of six in 16 dimensions, the first two have 61 % of the mass and one in a hundred of the starts at all scales."""
    known = seeded(20261130)[20]
    modes = locate(jax.random.key(seed), known.target)
    distances = jnp.linalg.norm(modes.points[:, None] - known.target.function.centres[None], axis=2)
    counts = jax.ops.segment_sum(modes.counts, jnp.argmin(distances, axis=1), 6)
    assert jnp.all(counts[:2] >= 10)


@pytest.mark.slow
def test_one_chain_for_each_top_counts():
    """Numbers 0, 8, …, 376 begin at tops of their own, and 384, …, 511 anywhere but for eight each at two places
    that are given: by turns, and before all the others."""
    energy = Energy(zoo.nine().log_density, jnp.zeros(2), jnp.ones(()))
    chains = jax.jit(pilot_chains)(KEY, energy, jnp.full((2, 2), 5.0))
    assert chains.order[:6].tolist() == [0, 384, 8, 385, 16, 386]
    assert sorted(chains.order.tolist()) == list(range(512))
    assert chains.drawn[chains.order].tolist() == [True] * 160 + [False] * 352
    np.testing.assert_allclose(chains.points[:, -16:], 5, atol=3)
    assert Sizes.of(1600) == (2048, 6, 64)


def test_broad_base_is_of_the_better_points():
    points = jnp.concatenate([jax.random.normal(KEY, (300, 2)), 1000 + jnp.zeros((100, 2))])
    values = jnp.where(jnp.arange(400) < 300, -1.0, -jnp.inf).at[:75].set(-2.0)
    base = broad_base(points, values)
    kept = points[75:300]
    np.testing.assert_allclose(base.means, jnp.mean(kept, axis=0)[None])
    np.testing.assert_allclose(base.factors, 2.5 * jnp.std(kept, axis=0)[None])
    np.testing.assert_allclose(jax.jit(broad_base)(points, values).factors, base.factors)


def test_bad_input(annotations_unchecked):
    target = zoo.nine().target
    for call, message in [
        (lambda: locate(0, target), "key is 0; pass one typed key"),
        (lambda: locate(KEY, 3.0), "target is a float; pass a function of one point"),
        (lambda: locate(KEY, pid.Samples(jnp.zeros((2, 2)))), "target is a Samples; pass a function of one point"),
        (lambda: locate(KEY, lambda y: -y @ y), "dim is None; pass the dimension"),
        (lambda: locate(KEY, lambda y: -y @ y, 0), "dim is 0; pass an integer"),
        (lambda: locate(KEY, target, 3), "dim is 3 but target has dimension 2"),
        (lambda: locate(KEY, target, starts=jnp.zeros(2)), r"starts has shape \(2,\); pass s points of dimension 2"),
        (lambda: locate(KEY, target, starts=jnp.full((1, 2), jnp.nan)), "starts holds 2 non-finite"),
        (lambda: broad_base(jnp.zeros((3, 2)), jnp.zeros(2)), r"points has shape \(3, 2\) and values \(2,\)"),
        (lambda: broad_base(jnp.zeros((3, 2)), jnp.array([0.0, -jnp.inf, jnp.nan])), "values has 1 finite ones of 3"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.extended
@pytest.mark.slow
@pytest.mark.optimised
def test_a_ladder_from_the_modes_of_a_field():
    """φ⁴ in a field: log Z and the ratio of its phases, from two strata that never meet."""
    known = zoo.phi4(0.025, dtype=jnp.float32)
    base = locate(KEY, known.target).laplace()
    moves = Hamiltonian(1, 0, metric=base.factors)
    population = anneal(jax.random.key(1), known.target, base, moves=moves).check()
    log_z = population.log_z
    assert log_z.standard_error < 0.05
    assert_within(log_z.value, known.log_z, log_z.standard_error)
    assert population.num_strata == 2
