"""Short steps from samples without the neck of a funnel lead into it; from exact ones they lead to nothing new."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import EFFECTS, ERRORS, eight_schools
from jax.scipy.stats import norm

from benchmarks.seeded import seeded
from pidjax import Density, GaussianMixture, sample, supports, tempering, zoo
from pidjax.tempering.bases import shrunk_moments
from pidjax.tempering.edge import unevenness, walk_beyond
from pidjax.tempering.reach import _climbed, climb_from

KEY = jax.random.key(5)
NUMBER, MOUTH = 2048, -2.0
NINE = jax.random.normal(KEY, (9, 3))


@pytest.fixture(scope="module")
def funnel():
    known = zoo.funnel(3**0.5, dim=3)
    base = GaussianMixture(jnp.zeros((1, 3)), 20 * jnp.eye(3)[None])
    climbed = tempering.anneal(KEY, known.target, base, island_size=NUMBER // 8)

    def population(samples):
        return dataclasses.replace(
            climbed,
            samples=samples,
            slopes=jax.vmap(jax.grad(known.target.log_density))(samples),
            log_weights=jnp.zeros(NUMBER),
            island_log_z=jnp.zeros(climbed.num_islands),
            ancestors=jnp.arange(NUMBER),
        )

    return known, base, population


@pytest.mark.extended
def test_a_neck_that_samples_lack_is_found_by_short_steps(funnel):
    known, base, population = funnel
    draws = known.sample(KEY, 2 * NUMBER)
    entered = population(draws[:NUMBER])
    assert unevenness(entered.slopes) > 4
    found = walk_beyond(KEY, known.target, base, entered).missing
    assert abs(found.value) < 4 * found.standard_error

    outside = population(draws[draws[:, 0] > MOUTH][:NUMBER])
    found = walk_beyond(KEY, known.target, base, outside).missing
    inside = norm.cdf(MOUTH, scale=3**0.5)
    edge = walk_beyond(KEY, known.target, base, outside)
    wider = edge.widened(base)
    assert edge.missing.value > 2 * edge.missing.standard_error
    np.testing.assert_allclose(wider.weights, [1 - 4 * edge.beyond, 4 * edge.beyond, 0, 0, 0, 0], rtol=1e-6)
    assert wider.means[1, 0] < MOUTH
    assert jnp.all(jnp.diagonal(wider.factors[1]) > 0)
    assert edge.has_place
    for weight in (jnp.eye(1, 9)[0], jnp.zeros(9)):
        mean, factor = shrunk_moments(NINE, weight)
        assert not edge._replace(mean=mean, factor=factor).has_place
    assert edge.widened(wider).weights.tolist()[2:] == [4 * edge.beyond, 0, 0, 0]
    assert 4 * found.standard_error < found.value < inside / (1 - inside) + 4 * found.standard_error


@pytest.mark.extended
def test_a_climb_enters_the_neck_from_a_widened_base():
    """From a component for each of y₀ = −2, −1, …, 9, of a funnel with sd 3, which has 20 % of its mass below −2.5."""
    known = zoo.funnel(3.0)
    slices = jnp.arange(-2.0, 10.0)
    variances = jnp.concatenate([jnp.full((12, 1), 0.5), jnp.exp(slices)[:, None] * jnp.ones((1, 9))], axis=1)
    means = slices[:, None] * jnp.eye(1, 10)
    mouth = GaussianMixture(means, jax.vmap(jnp.diag)(variances), norm.pdf(slices, scale=3))
    modes = tempering.locate(KEY, known.target)
    first, _ = _climbed(KEY, known.target, mouth, "fitted", modes, 4096)
    assert first.leads_on
    assert first.problems() != []
    reached = climb_from(KEY, known.target, mouth, "fitted", modes, 4096)
    assert reached.problems() == []
    log_z = reached.population.log_z
    assert log_z.standard_error < 0.05
    assert abs(log_z.value) < 4 * log_z.standard_error


@pytest.mark.extended
def test_a_halo_is_widened_to_the_tips_of_a_bent_ridge():
    """Of an earlier list, in 13 dimensions: gradients are even, few particles effective; climbs missed a tenth of the mass."""
    known = seeded(20261211, 7, jnp.float32)[6]
    modes = tempering.locate(KEY, known.target)
    reached = climb_from(KEY, known.target, tempering.halo.halo(KEY, known.target, modes).mixture, "halo", modes, 4096)
    assert unevenness(reached.population.slopes) < 4
    assert reached.missing is not None
    assert not reached.leads_on
    log_z = reached.population.log_z
    assert abs(log_z.value - known.log_z) < 4 * log_z.standard_error < 0.4


@pytest.mark.extended
@pytest.mark.parametrize("seed", range(4))
def test_centred_eight_schools_are_never_wrong_in_silence(seed):
    effects, errors = jnp.array(EFFECTS), jnp.array(ERRORS)

    def log_density(model):
        mean, spread, schools = model["mean"], model["spread"], model["schools"]
        prior = norm.logpdf(mean, 0, 5) + jnp.log(2 / (math.pi * 5)) - jnp.log1p((spread / 5) ** 2)
        return prior + jnp.sum(norm.logpdf(schools, mean, spread)) + jnp.sum(norm.logpdf(effects, schools, errors))

    model = {"mean": jnp.zeros(()), "spread": supports.Positive(), "schools": jnp.zeros(8)}
    solution = sample(jax.random.key(seed), Density(log_density, model), progress=False)
    apart = solution.log_z.value - eight_schools()[2]
    assert solution.problems() or abs(apart) < 4 * solution.log_z.standard_error
