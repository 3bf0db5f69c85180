"""The ladder: moves that keep their law, E[Ẑ] = Z, strata that never meet, errors that hold; truths from closed forms."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_within, mean_and_error

import pidjax as pid
from pidjax import Density, GaussianMixture, Outcome, SamplingError
from pidjax.tempering import Differences, Hamiltonian, Population, Schedule, anneal
from pidjax.tempering import moves as moves_module
from pidjax.tempering.metric import Metric, fisher_factors
from pidjax.tempering.moves import by_differences, hamiltonian
from pidjax.tempering.path import Base, Path
from pidjax.tempering.schedule import Rung

KEY = jax.random.key(3)
LOG_Z = 1.3
MANY_WELL = 10.293479707
"""log Z of a pair of coordinates."""


def mixture(dtype=jnp.float64):
    """Skewed, of two widths."""
    means = jnp.array([[-1.0, 0.0], [1.5, 0.6]], dtype)
    return GaussianMixture(means, jnp.array([[0.4, 0.1], [0.3, 1.2]], dtype), jnp.array([0.35, 0.65], dtype))


def density(dtype=jnp.float64):
    return Density(lambda y: mixture(dtype).log_density(y) + jnp.asarray(LOG_Z, dtype), 2, dtype=dtype)


def wide(dim, sd=3.0, dtype=jnp.float64):
    return GaussianMixture.isotropic(jnp.zeros((1, dim), dtype), sd**2)


def test_a_pooled_cloud_has_places_of_every_stratum():
    """Two groups of four islands, strata 0 … 3 in turn: each keeps half of its places, of every island."""
    islands = jnp.repeat(jnp.arange(8.0), 16).reshape(2, 64, 1)
    one = jnp.ones(())
    pooled = Rung(one, one, jnp.zeros((), int), None, islands).pooled()
    assert pooled.known_cloud.shape == (1, 64, 1)
    assert jnp.unique_counts(pooled.known_cloud).counts.tolist() == 8 * [8]


def many_well(y):
    return jnp.sum(0.5 * y[0::2] + 6 * y[0::2] ** 2 - y[0::2] ** 4 - 0.5 * y[1::2] ** 2)


def poor_schedule(moves):
    """Few levels, steps that are mostly rejected, one bad metric, a cloud far too wide."""
    levels = jnp.array([0.2, 0.6, 1.0])
    with_gradients = isinstance(moves, Hamiltonian)
    factors = jnp.broadcast_to(jnp.array([[1.0, 0.0], [0.7, 0.3]]), (3, 1, 2, 2)) if with_gradients else None
    cloud = 3 * jax.random.normal(KEY, (3, 1, 6, 2))
    return Schedule(moves, Rung(levels, jnp.array([2.5, 1.4, 0.9]), jnp.array([2, 0, 3]), factors, cloud))


@pytest.mark.slow
@pytest.mark.parametrize("moves", [Hamiltonian(1, 3), Differences(1)], ids=["hamiltonian", "differences"])
def test_a_frozen_ladder_is_unbiased_whatever_its_moves(moves):
    """E[Ẑ] = Z over 6,000 runs of two islands of 8."""
    schedule, keys = poor_schedule(moves), jax.random.split(KEY, 6000)

    @jax.jit
    @jax.vmap
    def ratios(key):
        run = anneal(key, density(), wide(2), schedule=schedule, num_islands=2, island_size=8)
        return jnp.exp(run.island_log_z - LOG_Z), jnp.exp(run.log_z.value - LOG_Z), run.acceptance

    of_islands, together, acceptance = ratios(keys)
    assert jnp.mean(acceptance) < 0.7
    estimate, error = mean_and_error(together)
    assert 0.002 < error < 0.03
    assert_within(estimate, 1, error)
    product, error = mean_and_error(of_islands[:, 0] * of_islands[:, 1])
    assert_within(product, 1, error)


def step_of(kind, density, cloud):
    metric = Metric(jnp.array([[[0.8, 0.0], [0.5, 0.6]], [[1.5, 0.0], [0.0, 0.5]]]), 2)

    def move(keys, particles):
        if kind == "hamiltonian":
            return hamiltonian(keys, density, particles, metric, jnp.array(1.5))[0]
        return by_differences(keys, density, particles, cloud, only_jumps=kind == "jumps")[0]

    return move


def moments(y):
    return np.concatenate([y, y**2, y**3, y[:, :1] * y[:, 1:], np.abs(y - 0.5)], axis=1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hamiltonian", "jumps", "differences"])
def test_moves_keep_their_law(kind, monkeypatch):
    """From exact samples, at a λ between p and p: no moment changes; with a wrong acceptance they do."""
    places = mixture().sample(KEY, 40_000)
    here = Path(density(), Base.of(mixture())).at(jnp.array(0.4))
    cloud = 1.5 * jax.random.normal(jax.random.key(1), (2, 9, 2))

    def change():
        @jax.jit
        def moved(places, keys):
            particles, _ = here.place(places, with_slopes=kind == "hamiltonian")
            return step_of(kind, here, cloud)(keys, particles).places

        after = places
        for seed in range(3):
            after = moved(after, jax.random.split(jax.random.key(20 + seed), places.shape[0]))
        assert jnp.mean(jnp.any(after != places, axis=1)) > 0.3
        return mean_and_error(moments(np.asarray(after)) - moments(np.asarray(places)))

    difference, error = change()
    assert_within(difference, 0, error)

    def lenient(uniforms, log_ratio):
        return uniforms < jnp.exp(jnp.minimum(0.3 * log_ratio, 0)), jnp.ones(())

    monkeypatch.setattr(moves_module, "metropolis", lenient)
    difference, error = change()
    assert np.max(np.abs(difference) / error) > 8


def test_the_metric_of_a_half_is_the_other_halfs():
    slopes = jax.random.normal(KEY, (4000, 2)) @ jnp.array([[2.0, 1.0], [0.0, 0.5]])
    slopes = slopes.at[2000:].multiply(10.0)
    factors = fisher_factors(slopes)
    for half, others in enumerate([slopes[2000:], slopes[:2000]]):
        whitened = others @ factors[half]
        assert_within(whitened.T @ whitened / 2000, jnp.eye(2), 0.01)


@pytest.mark.slow
def test_many_well_of_two_pairs():
    target = Density(many_well, 4, dtype=jnp.float32)
    population = anneal(KEY, target, wide(4, dtype=jnp.float32), island_size=256).check()
    arrays = population.samples, population.log_weights, population.log_z.standard_error, population.acceptance
    assert {leaf.dtype for leaf in arrays} == {jnp.dtype("float32")}
    assert_within(population.log_z.value, 2 * MANY_WELL, population.log_z.standard_error)
    assert 0.005 < population.log_z.standard_error < 0.1
    right = population.expectation(lambda y: y[0::2] > 0)
    assert_within(right.value, 0.8443071, right.standard_error)
    mean = population.expectation(lambda y: y)
    assert_within(mean.value, [1.18796, 0, 1.18796, 0], mean.standard_error)
    assert population.schedule.levels[-1] == 1
    assert population.degrees_of_freedom == 7
    assert population.num_energy_evaluations > population.num_gradient_evaluations > 0
    assert np.all(np.asarray(population.ancestors) // 256 == np.arange(2048) // 256)


@pytest.mark.slow
def test_cross_fitted_moves_are_not_biased():
    """A Gaussian of twenty widths, 20 runs; and their errors are of the size that they claim."""
    sds = jnp.linspace(0.2, 3.0, 20)
    target = Density(lambda y: -0.5 * jnp.sum((y / sds) ** 2), 20)
    truth = jnp.sum(jnp.log(sds)) + 10 * jnp.log(2 * jnp.pi)
    runs = [
        anneal(jax.random.key(seed), target, wide(20, 4.0), moves=Hamiltonian(2, 0), num_islands=4, island_size=128)
        for seed in range(20)
    ]
    deviations = np.array([float(run.log_z.value - truth) for run in runs])
    claimed = np.array([float(run.log_z_errors.lines) for run in runs])
    # E[Ẑ] = Z, so that log Ẑ is low by half of its variance.
    estimate, error = mean_and_error(deviations + 0.5 * claimed**2)
    assert_within(estimate, 0, error)
    assert 0.6 < np.sqrt(np.mean((deviations / claimed) ** 2)) < 1.6


@pytest.mark.slow
def test_strata_keep_the_weights_of_modes_that_never_meet():
    """Masses .25 and .75 at ±20 under a base that gives .6 and .4, of other widths, and 4 islands for each."""
    means = jnp.array([[-20.0] * 3, [20.0] * 3])
    target = GaussianMixture(means, jnp.array([0.3, 1.0]), jnp.array([0.25, 0.75]))
    base = GaussianMixture(means + 0.3, jnp.array([0.5, 0.8]), jnp.array([0.6, 0.4]))
    moves = Hamiltonian(1, 0, base.factors)
    population = anneal(KEY, target, base, moves=moves, island_size=256).check()
    assert population.num_strata == 2
    assert np.all((np.asarray(population.samples[:, 0]) > 0) == (np.arange(2048) // 256 % 2 == 1))
    assert_within(population.log_z.value, 0, population.log_z.standard_error)
    right = population.expectation(lambda y: (y[0] > 0).astype(float))
    assert_within(right.value, 0.75, right.standard_error)
    assert 0.001 < right.standard_error < 0.03
    again = anneal(jax.random.key(4), target, base, schedule=population.schedule, num_islands=4, island_size=256)
    assert_within(again.log_z.value, 0, again.log_z.standard_error)


@pytest.mark.slow
def test_no_gradients_are_needed():
    """1 and 2 on two unit squares, 0 outside: Z = 3, and 2/3 of it on the right."""

    def log_density(y):
        inside = (y[1] > 0) & (y[1] < 1) & (y[0] > -1) & (y[0] < 1)
        return jnp.where(inside, jnp.where(y[0] > 0, jnp.log(2.0), 0), -jnp.inf)

    population = anneal(KEY, Density(log_density, 2), wide(2, 1.0), moves=Differences(8), island_size=256).check()
    assert population.num_gradient_evaluations == 0
    assert_within(population.log_z.value, jnp.log(3.0), population.log_z.standard_error)
    right = population.expectation(lambda y: (y[0] > 0).astype(float))
    assert_within(right.value, 2 / 3, right.standard_error)
    mean = population.expectation(lambda y: y)
    assert_within(mean.value, [1 / 6, 0.5], mean.standard_error)


@pytest.mark.slow
def test_a_frozen_run_is_pure(tmp_path):
    """vmap = loop, a schedule outlives its run, and a schedule is not chosen where nothing is known."""
    small = {"num_islands": 4, "island_size": 16}
    pid.save(tmp_path / "schedule.npz", poor_schedule(Differences(1)))
    schedule = pid.load(tmp_path / "schedule.npz")
    keys = jax.random.split(KEY, 3)

    def run(key):
        return anneal(key, density(), wide(2), schedule=schedule, **small)

    one, batch = run(keys[1]), jax.vmap(run)(keys)
    other = jax.tree.map(lambda leaf: leaf[1], batch)
    assert jnp.allclose(one.island_log_z, other.island_log_z, atol=1e-8)
    assert jnp.mean(jnp.all(jnp.abs(one.samples - other.samples) < 1e-8, axis=1)) > 0.9
    assert repr(one).startswith("Population: 64 samples in dimension 2, after 3 levels")
    assert repr(schedule).startswith("Schedule(levels=3")
    assert one.to_dict()["num_strata"] == 1


@pytest.mark.extended
@pytest.mark.slow
def test_white_coordinates_change_nothing(monkeypatch):
    """Adaptive or frozen, a climb from a Gaussian by its own metric is the one that takes no coordinates of it."""
    base = GaussianMixture(jnp.array([[1.0, 2.0]]), jnp.array([[[4.0, 1.0], [1.0, 2.0]]]))
    small = {"num_islands": 4, "island_size": 16}

    def both():
        first = anneal(KEY, density(), base, moves=Hamiltonian(1, 0, base.factors), **small)
        return first, anneal(KEY, density(), base, schedule=first.schedule, **small)

    white = both()
    monkeypatch.setattr(pid.tempering.annealing, "is_white", lambda base, moves: False)
    plain = both()
    assert jax.tree.structure(white) == jax.tree.structure(plain)
    for one, other in zip(jax.tree.leaves(white), jax.tree.leaves(plain), strict=True):
        assert jnp.allclose(one, other, atol=1e-6)


@pytest.mark.slow
def test_a_base_of_many_components_without_strata():
    """The base is the target: one level, and every weight is Z."""
    base = mixture()
    population = anneal(KEY, density(), base, moves=Differences(1), num_islands=2, stratified=False).check()
    assert population.schedule.levels.size == 1
    assert_within(population.log_weights, LOG_Z, 1e-9)
    mean = population.expectation(lambda y: y)
    assert_within(mean.value, base.mean(), mean.standard_error)
    with pytest.raises(ValueError, match="schedule is None"):
        jax.jit(lambda key: anneal(key, density(), wide(2), moves=Differences(1)).log_weights)(KEY)


@pytest.mark.extended
@pytest.mark.optimised
@pytest.mark.parametrize("base", ["broad", "laplace"])
def test_hundreds_of_dimensions(base):
    """A Gaussian with neighbours correlated by .5, from a broad one by diagonal metrics, or from one 2 % too wide."""
    dim = 400
    distance = np.abs(np.arange(dim)[:, None] - np.arange(dim)[None])
    covariance = jnp.asarray(0.5**distance, jnp.float32)
    if base == "broad":
        start, moves = wide(dim, 2.0, jnp.float32), Hamiltonian(2, 0)
    else:
        start = GaussianMixture(jnp.full((1, dim), 0.02, jnp.float32), 1.02**2 * covariance[None])
        moves = Hamiltonian(1, 0, start.factors)
    factor = jnp.asarray(np.linalg.inv(np.linalg.cholesky(np.asarray(covariance, np.float64))), jnp.float32)
    log_height = jnp.sum(jnp.log(jnp.diag(factor))) - 0.5 * dim * jnp.log(2 * jnp.pi).astype(jnp.float32)
    target = Density(lambda y: log_height - 0.5 * jnp.sum((factor @ y) ** 2), dim, dtype=jnp.float32)
    population = anneal(KEY, target, start, moves=moves, island_size=128)
    assert Outcome.DISAGREEING not in [outcome for outcome, _ in population.problems()]
    assert_within(population.log_z.value, 0, population.log_z.standard_error)
    assert population.log_z.standard_error < (1 if base == "broad" else 0.1)


def checked(**changed):
    """A population of 4 islands of 32, and what is wrong with it."""
    number, samples = jnp.arange(128), jax.random.normal(KEY, (128, 1))
    given = {
        "samples": samples, "slopes": -samples, "walled": jnp.array(False),
        "log_weights": jnp.zeros(128), "island_log_z": jnp.zeros(4),
        "ancestors": number // 2 * 2, "acceptance": jnp.array([0.8]), "num_gradient_evaluations": jnp.array(1),
        "num_energy_evaluations": jnp.array(1), "num_nonfinite": jnp.array(0), "num_islands": 4, "num_strata": 1,
        "schedule": poor_schedule(Differences(1)),
    }  # fmt: skip
    return Population(**(given | changed))


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({}, None),
        ({"num_nonfinite": jnp.array(3)}, Outcome.NOT_FINITE),
        ({"ancestors": jnp.arange(128).at[:32].set(5)}, Outcome.COLLAPSED),
        ({"log_weights": jnp.repeat(jnp.array([0.0, 3.0, 0.0, 0.0]), 32)}, Outcome.DISAGREEING),
        ({"log_weights": jnp.full(128, -jnp.inf)}, Outcome.NO_WEIGHT),
        ({"schedule": poor_schedule(Differences(1)).first(2)}, Outcome.UNFINISHED),
        ({"slopes": jax.random.normal(KEY, (128, 1))}, Outcome.UNBALANCED),
    ],
    ids=["sound", "nonfinite", "collapsed", "disagreeing", "no weight", "unfinished", "unbalanced"],
)
def test_what_check_finds(changed, found):
    population = checked(**changed)
    if found is None:
        assert population.check() is population
        return
    with pytest.raises(SamplingError) as caught:
        population.check()
    assert found in caught.value.outcomes


class Holed(eqx.Module):
    """A Gaussian, NaN beyond an edge."""

    edge: jax.Array

    def __call__(self, y):
        return jnp.where(y[0] > self.edge, jnp.nan, -0.5 * jnp.sum(y**2))


def test_a_density_without_mass_or_with_nan():
    def run(edge):
        target = Density(Holed(jnp.array(edge)), 2)
        return anneal(KEY, target, wide(2), moves=Differences(1), num_islands=2, island_size=32)

    nowhere = run(-jnp.inf)
    assert nowhere.log_z.value == -jnp.inf
    assert Outcome.NO_WEIGHT in [outcome for outcome, _ in nowhere.problems()]
    population = run(2.0)
    assert population.num_nonfinite > 0
    assert jnp.isfinite(population.log_z.value)
    assert jnp.all(population.samples[:, 0] <= 2)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"key": 3}, "key is 3"),
        ({"target": many_well}, "target is a function, without a log-density"),
        ({"target": Density(many_well, 4)}, "target has dimension 4 but base has dimension 2"),
        ({"base": None}, "base is a NoneType; pass a GaussianMixture"),
        ({"moves": "hmc"}, r"moves is a str; pass Hamiltonian\(\)"),
        ({"moves": Hamiltonian(metric=jnp.ones((1, 3)))}, r"metric has shape \(1, 3\); pass one of \(1,\)"),
        ({"moves": Differences(), "schedule": poor_schedule(Differences(1))}, "the schedule has its own"),
        ({"schedule": 3}, "schedule is a int"),
        ({"schedule": poor_schedule(Differences(1)).first(2)}, "pass levels that rise from above 0 to 1"),
        ({"base": wide(4), "target": Density(many_well, 4), "schedule": poor_schedule(Differences(1))}, "of dimension 2"),
        ({"num_islands": 3}, "num_islands is 3 and base has 1 strata; pass at least 2, and even"),
        ({"base": mixture(), "num_islands": 2}, "pass a multiple of 2, at least 4"),
        ({"island_size": 1}, "island_size is 1"),
        ({"stratified": 1}, "stratified is a int"),
    ],
)  # fmt: skip
def test_bad_input(changed, match, annotations_unchecked):
    given = {"key": KEY, "target": density(), "base": wide(2)} | changed
    with pytest.raises(ValueError, match=match):
        anneal(given.pop("key"), given.pop("target"), given.pop("base"), **given)


@pytest.mark.parametrize("given", [{"num_moves": 0}, {"num_jumps": -1}, {"metric": jnp.zeros(())}], ids=str)
def test_bad_moves(given):
    with pytest.raises(ValueError, match=next(iter(given))):
        Hamiltonian(**given)
