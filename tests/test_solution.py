"""What a Solution answers, against direct formulas and known truths; and what `sample` chooses."""

import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_within

import pidjax as pid
from pidjax.targets.fitting import Fit

TARGET = pid.GaussianMixture(
    jnp.array([[-1.0, 0.0], [1.0, 1.0]]), jnp.array([0.3, 0.5])[:, None, None] * jnp.eye(2)[None]
)
SCALED = pid.Surrogate(
    pid.Density(lambda y: TARGET.log_density(y) + 2.0, 2),
    pid.GaussianMixture(jnp.array([[0.0, 0.4]]), jnp.array([[[1.8, 0.5], [0.5, 0.9]]])),
)


@pytest.fixture(scope="module")
def solution():
    return pid.sample(jax.random.key(0), SCALED, num_samples=4000, save_paths=True)


@pytest.mark.slow
def test_log_z_and_expectations_within_their_errors(solution):
    assert_within(solution.log_z.value, 2.0, solution.log_z.standard_error)
    mean, error = solution.expectation(lambda y: {"y": y, "square": y**2})
    assert_within(mean["y"], TARGET.mean(), error["y"])
    second = jnp.diag(TARGET.covariance()) + TARGET.mean() ** 2
    assert_within(mean["square"], second, error["square"])


@pytest.mark.slow
def test_reported_errors_are_the_spread_over_repetitions():
    """The ratio of the standard deviation over 64 runs to the mean reported error; its own s.e. is about 1/√126."""
    runs = [pid.sample(jax.random.key(i), SCALED, num_samples=500, num_steps=2) for i in range(64)]
    for estimate, error in (
        (np.array([run.log_z.value for run in runs]), np.array([run.log_z.standard_error for run in runs])),
        *zip(*(np.array([run.expectation(lambda y: y)[k] for run in runs]).T for k in (0, 1))),
    ):
        assert abs(estimate.std(ddof=1) / error.mean() - 1) < 4 / np.sqrt(2 * 63)


def test_ess_is_its_formula(solution):
    weights = np.exp(np.asarray(solution.log_weights, float))
    np.testing.assert_allclose(solution.ess, weights.sum() ** 2 / (weights**2).sum(), rtol=1e-10)
    np.testing.assert_allclose(solution.weights.sum(), 1, rtol=1e-12)


def test_resampling_keeps_each_weight_to_within_one_copy(solution):
    resampled = np.asarray(solution.resample(jax.random.key(1), 3000))
    assert resampled.shape == (3000, 2)
    _, copies = np.unique(np.concatenate([np.asarray(solution.samples), resampled]), axis=0, return_counts=True)
    order = np.lexsort(np.asarray(solution.samples).T[::-1])
    assert np.abs(copies - 1 - 3000 * np.asarray(solution.weights)[order]).max() < 1


@pytest.mark.slow
def test_a_shared_pool_counts_in_the_ess():
    density = pid.Density(TARGET.log_density, 2)
    wide = pid.GaussianMixture(jnp.zeros((1, 2)), 4 * jnp.eye(2)[None])
    pool = pid.Pool.draw(jax.random.key(2), density, wide, 300)
    solution = pid.sample(jax.random.key(3), pid.LocalDraws(density, wide, 4, pool), num_samples=500, num_steps=3)
    ratios = np.exp(np.asarray(jax.vmap(lambda y: density.log_density(y) - wide.log_density(y))(pool.points)))
    pool_ess = ratios.sum() ** 2 / (ratios**2).sum()
    alone = 1 / jnp.sum(solution.weights**2)
    np.testing.assert_allclose(1 / solution.ess, 1 / alone + 1 / pool_ess, rtol=1e-8)
    np.testing.assert_allclose(
        solution.log_z.standard_error**2, 1 / alone - 1 / 500 + 1 / pool_ess - 1 / 300, rtol=1e-8
    )


@pytest.mark.slow
def test_forward_ess_sees_a_missing_mode():
    exact = TARGET.sample(jax.random.key(4), 2000)
    one = pid.GaussianMixture(TARGET.means[:1], TARGET.covariances[:1])
    blind = pid.sample(jax.random.key(0), pid.Surrogate(pid.Density(TARGET.log_density, 2), one), num_samples=2000)
    whole = pid.sample(jax.random.key(0), TARGET, num_samples=2000, rule=pid.Moment())
    assert blind.forward_ess(jax.random.key(5), exact, 0.0) < 0.05
    assert whole.forward_ess(jax.random.key(5), exact, 0.0) > 0.8


def test_saved_paths_begin_and_end_where_they_should(solution):
    assert solution.states.shape == (4000, 21, 2)
    assert solution.weighted_states.shape == (4000, 20, 2)
    np.testing.assert_allclose(solution.states[:, -1], solution.samples, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(solution.states[:, 0], jnp.broadcast_to(SCALED.mixture.mean(), (4000, 2)), atol=1e-12)
    np.testing.assert_allclose(solution.times[jnp.array([0, -1])], [0, 1])


def test_units_only_change_the_units():
    """Horizon and noise scale with β' = β σ² T² make the same unit problem, hence the same samples."""
    unit = pid.sample(jax.random.key(6), TARGET.rescaled(jnp.zeros(2), jnp.asarray(3.4)), num_samples=20,
                      protocol=pid.harmonic(2.0, noise_scale=1.0), grid=pid.uniform_grid(7), rule=pid.Euler())  # fmt: skip
    user = pid.sample(jax.random.key(6), TARGET, num_samples=20, grid=pid.at_times(jnp.linspace(0.0, 4.0, 8)),
                      protocol=pid.harmonic(2 / (1.7 * 4) ** 2, noise_scale=1.7, horizon=4.0), rule=pid.Euler())  # fmt: skip
    np.testing.assert_allclose(user.samples, 3.4 * unit.samples, rtol=1e-9)
    np.testing.assert_allclose(user.log_weights, unit.log_weights, rtol=1e-9)


@pytest.mark.slow
def test_pytree_samples_and_plain_dictionary():
    density = pid.Density(lambda p: -0.5 * jnp.sum(p["a"] ** 2) - 0.5 * p["b"] ** 2, {"a": jnp.zeros((2, 2)), "b": 0.0})
    standard = pid.GaussianMixture(jnp.zeros((1, 5)), jnp.eye(5)[None])
    solution = pid.sample(jax.random.key(0), pid.Surrogate(density, standard), num_samples=10)
    assert solution.samples["a"].shape == (10, 2, 2)
    assert solution.samples["b"].shape == (10,)
    plain = solution.check().to_dict()
    assert isinstance(plain["samples"]["b"], np.ndarray)
    np.testing.assert_allclose(plain["log_z"], 2.5 * np.log(2 * np.pi), rtol=1e-6)


@pytest.mark.slow
def test_settings_say_what_was_chosen():
    exact = pid.sample(jax.random.key(0), TARGET, num_samples=10).settings
    assert (exact["rule"], exact["grid"], exact["num_steps"], exact["rescaled"]) == (
        "Ancestral",
        "LogSNRGrid",
        20,
        True,
    )
    data = pid.sample(jax.random.key(0), pid.Samples(TARGET.means), num_samples=10, rule=pid.Moment()).settings
    assert data["rule"] == "Moment, last step drawn"


@pytest.mark.slow
def test_data_come_back_as_data():
    points = jax.random.normal(jax.random.key(0), (30, 20))
    solution = pid.sample(jax.random.key(1), pid.Samples(points), num_samples=40)
    distances = jnp.min(jnp.sum((solution.samples[:, None] - points[None]) ** 2, axis=-1), axis=1)
    assert jnp.max(distances) < 1e-20
    np.testing.assert_allclose(solution.ess, 40, rtol=1e-12)


@pytest.mark.slow
def test_means_of_many_samples_in_single_precision():
    """Of a million: constants come out as they are, and a mean far from the origin within its error."""
    target = pid.GaussianMixture(jnp.full((1, 1), 100.0, jnp.float32), jnp.ones(1, jnp.float32))
    solution = pid.sample(jax.random.key(0), target, num_samples=1_000_000, num_steps=1)
    one, _ = solution.expectation(lambda y: jnp.ones((), y.dtype))
    mean, error = solution.expectation(lambda y: y[0])
    np.testing.assert_allclose(one, 1, rtol=1e-5)
    assert_within(mean, 100, error)


def test_a_batch_of_solutions_is_asked_one_by_one():
    solutions = jax.vmap(lambda key: pid.sample(key, TARGET, num_samples=4, num_steps=2))(
        jax.random.split(jax.random.key(0), 3)
    )
    np.testing.assert_allclose(jax.vmap(lambda one: one.log_z.value)(solutions), 0, atol=1e-12)
    for question in ("log_z", "ess", "num_samples", "pareto_k", "check", "problems", "to_dict"):
        with pytest.raises(ValueError, match="a batch of solutions"):
            getattr(solutions, question)()
    assert jax.tree.map(lambda leaf: leaf[1], solutions).check().to_dict()["num_islands"] == 4


def islands(key, num_islands=5, members=8):
    """Configurations of one value, in islands that share a factor of their weights and their values."""
    common, own = jax.random.normal(key, (2, num_islands, 1)), jax.random.normal(key, (num_islands, members))
    values = (common[0] + 0.3 * own > 0).astype(int).reshape(-1, 1)
    log_weights = (0.3 * common[1] + 0.1 * own).ravel()
    return pid.discrete.Solution(values, log_weights, num_islands, num_islands * members)


def test_errors_by_islands_are_the_spread_over_repetitions():
    """Over 2,000 repetitions of 50 islands: the standard deviation against the mean error, s.e. of their ratio 1/√4000."""
    keys = jax.random.split(jax.random.key(8), 2000)

    def told(key):
        one = islands(key, 50)
        return one.log_z, one.expectation(lambda v: v[0])

    for value, error in jax.vmap(told)(keys):
        assert abs(value.std() / error.mean() - 1) < 4 / np.sqrt(2 * 2000) + 2 / 50
    alone = islands(jax.random.key(0), 1)
    assert jnp.isnan(alone.log_z.standard_error)
    assert jnp.isnan(alone.expectation(lambda v: v[0]).standard_error)


@pytest.mark.slow
def test_pareto_tail_of_weights_that_have_one():
    """W = U^(−k) has the tail index k; over 10,000 weights k̂ has the standard error (1 + k)/√M, of M = 3√N in the tail."""
    uniform = jax.random.uniform(jax.random.key(9), (10_000,))
    for k in (0.3, 0.9):
        solution = pid.discrete.Solution(jnp.zeros((10_000, 1), int), -k * jnp.log(uniform), 10_000, 10_000)
        assert_within(solution.pareto_k, k, (1 + k) / np.sqrt(300))
    np.testing.assert_allclose(jax.jit(lambda one: one.pareto_k)(solution), solution.pareto_k, rtol=1e-9)


def test_paths_that_disagree_with_the_draws_of_their_surrogate_are_told(solution):
    """The fit has log Z by 6,554 of 8,192 draws, of this effective share: by the paths the same, or not."""

    def fitted(log_z, ess):
        none = jnp.array(0)
        fit = Fit(
            SCALED.mixture, jnp.array([log_z, jnp.nan]), jnp.array([ess, jnp.nan]), none + 1, none, none, none, none, 0.0,
            none > 0,
        )  # fmt: skip
        return eqx.tree_at(lambda one: one.fit, solution, fit, is_leaf=lambda leaf: leaf is None)

    error = jnp.sqrt((1 / 0.7 - 1) / 6554)
    assert_within(fitted(2.0, 0.7).fit.last_log_z.standard_error, error, 1e-12)
    fitted(2.0, 0.7).check()
    away = 5.1 * jnp.hypot(error, solution.log_z.standard_error)
    for log_z in (solution.log_z.value + away, solution.log_z.value - away):
        with pytest.raises(pid.SamplingError, match="draws of the surrogate") as found:
            fitted(log_z, 0.7).check()
        assert found.value.outcomes == (pid.Outcome.DISAGREEING,)


@pytest.mark.slow
def test_a_log_density_that_is_nan_far_out_is_told_only_where_mass_may_lie():
    """A Gaussian that is NaN beyond 50 widths is right; beyond one it is not, and both are read as −∞."""
    far, near = (
        pid.sample(jax.random.key(0), pid.Density(eqx.Partial(_nan_beyond, jnp.array(edge)), 1), progress=False)
        for edge in (50.0, 1.0)
    )
    assert far.fit.non_finite > 0
    assert "mostly far out" in repr(far)
    assert_within(far.check().log_z.value, 0.5 * jnp.log(2 * jnp.pi), far.log_z.standard_error)
    with pytest.raises(pid.SamplingError, match=r"NaN or \+inf at \d+ of the last 8192 places") as error:
        near.check()
    assert pid.Outcome.FIT_NOT_FINITE in error.value.outcomes


def _nan_beyond(edge, y):
    return jnp.where(y[0] > edge, jnp.nan, -0.5 * y[0] ** 2)


def test_what_went_wrong_is_an_outcome_and_a_text_of_its_target():
    """Paths that are not finite, of targets that have no log-density of the user's and of some that have no exact tilt."""
    density = pid.Density(TARGET.log_density, 2)
    wide = pid.GaussianMixture(jnp.zeros((1, 2)), 4 * jnp.eye(2)[None])
    pool = pid.Pool.draw(jax.random.key(2), density, wide, 30)
    for target, found, missing in (
        (pid.Samples(TARGET.means), "moderate scales", "density"),
        (pool, "larger pool", "Ancestral"),
    ):
        solution = pid.sample(jax.random.key(3), target, num_samples=20, num_steps=2)
        dead = jnp.full(20, -jnp.inf).at[0].set(0.0 if target is pool else -jnp.inf)
        solution = eqx.tree_at(lambda one: (one.log_weights, one.num_nonfinite), solution, (dead, jnp.array(20)))
        with pytest.raises(pid.SamplingError, match=found) as error:
            solution.check(1.0)
        last = pid.Outcome.FEW_EFFECTIVE if target is pool else pid.Outcome.NO_WEIGHT
        assert error.value.outcomes[0] is pid.Outcome.NOT_FINITE
        assert last in error.value.outcomes
        assert missing not in str(error.value)
        assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)
