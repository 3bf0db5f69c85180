"""Bad input gets a clear error at the door: which argument, what it got, what it wants."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pidjax as pid

pytestmark = pytest.mark.usefixtures("annotations_unchecked")
KEY = jax.random.key(0)
TARGET = pid.GaussianMixture.isotropic(jnp.array([[-1.0, 0.0], [1.0, 1.0]]), 0.3)


def gaussian(y):
    return -0.5 * jnp.sum(y**2)


def conjugate():
    """A protocol past its conjugate point, made as learning makes one: past the constructor's checks."""
    return eqx.tree_at(lambda one: one.beta, pid.harmonic(1.0), jnp.array([-20.0]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pid.GaussianMixture(jnp.zeros(3), jnp.eye(3)), r"means has shape \(3,\)"),
        (
            lambda: pid.GaussianMixture(jnp.zeros((2, 3)), jnp.eye(3)),
            r"covariances has shape \(3, 3\).*pass \(2, 3, 3\)",
        ),
        (
            lambda: pid.GaussianMixture(jnp.zeros((1, 2)), -jnp.eye(2)[None]),
            r"covariances\[0\] is not positive definite",
        ),
        (lambda: pid.GaussianMixture(jnp.zeros((1, 2)), jnp.array([[[1.0, 0.5], [0.0, 1.0]]])), "not symmetric"),
        (lambda: pid.GaussianMixture(jnp.array([[np.nan]]), jnp.ones((1, 1, 1))), "means holds 1 non-finite"),
        (
            lambda: pid.GaussianMixture(jnp.zeros((1, 1)), jnp.ones((1, 1, 1)), jnp.array([-1.0])),
            "weights has the minimum -1",
        ),
        (lambda: pid.GaussianMixture(jnp.zeros((1, 1)), jnp.ones((1, 1, 1)), jnp.ones(2)), r"weights has shape \(2,\)"),
        (lambda: pid.GaussianMixture(jnp.zeros((1, 1), complex), jnp.ones((1, 1, 1))), "means holds complex numbers"),
        (lambda: pid.GaussianMixture(jnp.zeros((1, 1), jnp.bfloat16), jnp.ones((1, 1, 1))), "means is of bfloat16"),
        (lambda: pid.GaussianMixture.isotropic(jnp.zeros(2), 1.0), r"means has shape \(2,\) and variance \(\)"),
        (lambda: pid.GaussianMixture(jnp.zeros((1, 1)), jnp.ones((1, 1, 1)), jnp.zeros(1)), "the maximum 0"),
        (lambda: TARGET.sample(KEY, 2.0), r"num_samples is 2.0"),
        (
            lambda: pid.GaussianMixture(jnp.zeros((2, 2)), jnp.array([[1.0, 0.5], [0.5, 1.0]])),
            "are 2 diagonals, and look like one matrix",
        ),
        (
            lambda: pid.harmonic(1.0, gauge=(1e7, jnp.zeros(2)), noise_scale=1.0),
            "too large to look for conjugate points",
        ),
        (lambda: pid.Samples(jnp.zeros((0, 2))), r"points has shape \(0, 2\)"),
        (lambda: pid.Samples(jnp.zeros(3)), r"points has shape \(3,\)"),
        (lambda: pid.Samples(jnp.array([[0.0], [np.inf]])), r"points holds 1 non-finite.*\(1, 0\)"),
        (lambda: pid.Samples(jnp.zeros((2, 1)), jnp.zeros(2)), "weights has the minimum 0 and the maximum 0"),
        (lambda: pid.Density(lambda y: y, 2), r"log_density returns .*shape \(\)"),
        (lambda: pid.Density(gaussian, 0), "like is 0"),
        (lambda: pid.Density(gaussian, {"n": 1}), "pytree of floating arrays"),
        (lambda: pid.Density(gaussian, (2,)), r"like holds int.*pass a dimension, as 2"),
        (lambda: pid.Density(gaussian, True), "like is True"),
        (lambda: pid.Density(gaussian, 2.0), "like is 2.0; pass an integer dimension"),
        (lambda: pid.Density(gaussian, {}), "like is {}"),
        (lambda: pid.Density(gaussian, jnp.zeros(2, jnp.float16)), "like is of float16"),
        (lambda: pid.Density(gaussian, 2, dtype=jnp.float16), "dtype is float16"),
        (lambda: pid.Density(gaussian, 2, dtype=int), "dtype is int"),
        (lambda: pid.Density(3.0, 2), "log_density is a float"),
        (lambda: TARGET.sample(0, 5), "key is 0"),
        (lambda: pid.Samples("data.csv"), "points is 'data.csv'; pass numbers"),
        (
            lambda: pid.GaussianMixture([[0.0], [1.0, 2.0]], jnp.ones(2)),
            "means is .*; pass numbers, in an array of one shape",
        ),
        (lambda: pid.GaussianMixture(jnp.zeros((2, 1)), jnp.array([1.0, 0.0])), "covariances has the minimum 0"),
        (lambda: TARGET.log_density(jnp.zeros(3)), r"y has shape \(3,\)"),
        (lambda: pid.Density(lambda y: y[0] + y[2], 2), r"reads index \(2,\) of an array of shape \(2,\)"),
        (lambda: pid.Density(lambda y: y[jnp.array([0, -3])].sum(), 2), r"reads index \(-1,\)"),
        (lambda: pid.Density(lambda y: 0.0 if y[0] > 0 else 1.0, 2), "cannot be traced.*jnp.where"),
        (lambda: pid.Density(lambda y: -np.sum(np.asarray(y) ** 2), 2), "cannot be traced.*NumPy"),
        (lambda: pid.Surrogate(gaussian, TARGET), "density is a function; pass a Density"),
        (lambda: pid.harmonic(-9.87), "conjugate point at t = 1"),
        (lambda: pid.harmonic(-20.0, force=(0.0, jnp.zeros(2))), "conjugate point at t = 0.7025"),
        (
            lambda: pid.sample(KEY, TARGET, protocol=pid.harmonic(-20.0, gauge=(0.0, jnp.zeros(2)))),
            "conjugate point at t = 0.7025",
        ),
        (
            lambda: pid.learning.fit(KEY, TARGET, pid.Euler(lambda t, x: x), protocol=conjugate()),
            "conjugate point at t = 0.7025",
        ),
        (lambda: pid.harmonic(1 + 1j), "beta holds complex numbers"),
        (lambda: pid.harmonic(1.0).refine(1.5), "factor is 1.5"),
        (lambda: pid.Green(jnp.nan), "beta holds 1 non-finite"),
        (lambda: pid.log_snr_grid(5, jnp.ones(2), 2.0), r"low has shape \(2,\); pass a scalar"),
        (lambda: pid.harmonic(-4.0, horizon=2.0, noise_scale=1.0), "conjugate point at t = 1.571"),
        (lambda: pid.sample(KEY, TARGET, protocol=pid.harmonic(jnp.ones(3))), r"beta has shape \(3,\).*dimension 2"),
        (lambda: pid.harmonic(np.nan), "beta holds 1 non-finite"),
        (lambda: pid.harmonic(horizon=0.0), "horizon is 0"),
        (lambda: pid.harmonic(noise_scale=-1.0), "noise_scale is -1"),
        (lambda: pid.harmonic(start=jnp.zeros((1, 2))), r"start has shape \(1, 2\)"),
        (lambda: pid.uniform_grid(0), "num_steps is 0"),
        (lambda: pid.log_snr_grid(-1), "num_steps is -1"),
        (lambda: pid.log_snr_grid(5, low=2.0, high=1.0), "low < high"),
        (lambda: pid.log_snr_grid(5, low=-2.0), "low is -2"),
        (lambda: pid.at_times(jnp.array([0.0, 0.5, 0.5, 1.0])), "not increasing"),
        (lambda: pid.at_times(jnp.array([0.1, 1.0])), "starts at 0.1"),
        (lambda: pid.at_times(jnp.array([0.0])), r"times has shape \(1,\)"),
        (
            lambda: pid.sample(KEY, TARGET, grid=pid.at_times(jnp.array([0.0, 0.9]))),
            "times end at 0.9 but the horizon is 1",
        ),
        (lambda: pid.sample(KEY, TARGET, num_steps=0), "num_steps is 0"),
        (lambda: pid.sample(KEY, TARGET, num_samples=0), "num_samples is 0"),
        (lambda: pid.sample(KEY, TARGET, batch_size=0), "batch_size is 0"),
        (lambda: pid.sample(KEY, TARGET, num_steps=3, grid=pid.uniform_grid(3)), "pass one of them"),
        (lambda: pid.sample(0, TARGET), "key is 0; pass one typed key"),
        (lambda: pid.sample(jax.random.split(KEY, 3), TARGET), r"key is an array of key<fry>\[3\]"),
        (lambda: pid.sample(TARGET, KEY), "pass the key first"),
        (lambda: pid.sample(KEY, TARGET, rule=pid.Moment), "rule is Moment itself"),
        (lambda: pid.sample(KEY, TARGET, rule="moment"), "rule is a str"),
        (lambda: pid.sample(KEY, TARGET, num_samples=10.0), "num_samples is 10.0"),
        (lambda: pid.sample(KEY, TARGET, rule=pid.Euler(lambda t, x: x[:1])), r"correction returns float64\[1\]"),
        (lambda: pid.sample(KEY, TARGET, rule=pid.Controlled(lambda t, x: 0.0)), r"control returns float64\[\]"),
        (lambda: pid.learning.fit(KEY, TARGET, pid.Euler(lambda t, x: x), protocol=None), "protocol is a NoneType"),
        (lambda: pid.fit_surrogate(KEY, gaussian, 2.0), "dim is 2.0"),
        (
            lambda: pid.fit_surrogate(KEY, gaussian, 2, centre=jnp.array([jnp.nan, 0])),
            "centre holds 1 non-finite",
        ),
        (lambda: pid.sample(KEY, gaussian), "target is a function"),
        (lambda: pid.sample(KEY, TARGET, protocol=1.0), "protocol is a float"),
        (lambda: pid.sample(KEY, TARGET, grid=20), "grid is a int"),
        (
            lambda: pid.sample(KEY, TARGET, protocol=pid.harmonic(start=jnp.zeros(3))),
            r"start has shape \(3,\).*dimension 2",
        ),
        (lambda: pid.LocalDraws(pid.Density(gaussian, 2), None, 5), "flat"),
        (lambda: pid.LocalDraws(pid.Density(gaussian, 2), TARGET, 0), "num_draws is 0"),
        (lambda: pid.Pool.draw(KEY, pid.Density(gaussian, 2), TARGET, 0), "size is 0"),
        (lambda: pid.Surrogate(pid.Density(gaussian, 3), TARGET), "dimension 2.*dimension 3"),
        (
            lambda: pid.sample(KEY, pid.Pool.draw(KEY, pid.Density(gaussian, 2), TARGET, 9), rule=pid.Ancestral()),
            "rule is Ancestral but Pool",
        ),
        (lambda: pid.Problem(TARGET, pid.harmonic()).at(0.5, jnp.zeros(3)).control, r"x has shape \(3,\)"),
        (
            lambda: pid.Problem(pid.harmonic(), TARGET).at(0.5, jnp.zeros(2)).control,
            "target is a Protocol; pass a GaussianMixture.* in the order",
        ),
        (lambda: pid.Problem(TARGET, pid.harmonic()).prepare(20), "grid is a int; pass one of"),
        (lambda: pid.Problem(TARGET).at(0.5, jnp.full(2, 1e300)).log_psi, "log_psi is NaN at x"),
        (lambda: pid.Problem(TARGET).at(0.0, jnp.ones(2)).control, "control is NaN at x.* only the start has a law"),
        (lambda: pid.Problem(pid.Samples(jnp.eye(2))).at(1.0, jnp.ones(2)).control, "only a target with a density"),
        (
            lambda: pid.rollout(
                pid.Problem(pid.Samples(jnp.eye(2)), pid.harmonic()).prepare(pid.uniform_grid(2)),
                pid.Euler(),
                KEY,
                jnp.arange(2),
            ),
            "rule is Euler, which needs a density to weigh its end points with; take the rule that",
        ),
        (lambda: pid.save(None, TARGET), "path is a NoneType; pass the name of a file"),
        (lambda: pid.sample(KEY, TARGET, num_samples=10**12), "num_samples is 1000000000000; pass at most"),
        (
            lambda: pid.rollout(TARGET, pid.Moment(), KEY, jnp.arange(3)),
            "prepared is a GaussianMixture; pass what Problem",
        ),
        (lambda: pid.Controlled(None), "control is a NoneType; pass a function"),
        (lambda: pid.Euler(correction=3.0), "correction is a float; pass a function"),
        (
            lambda: pid.Problem(pid.Samples(jnp.zeros((1, 1), jnp.float32)), pid.harmonic(1.0, noise_scale=1e25)).unit,
            "not finite",
        ),
        (lambda: pid.harmonic(None), "beta is None; pass numbers"),
        (lambda: pid.Density(2, gaussian), "like is a function"),
        (lambda: pid.Density(lambda y: jnp.sum(y[y > 0]), 2), "cannot be traced"),
        (lambda: pid.Problem(TARGET, pid.harmonic()).at(2.0, jnp.zeros(2)).control, r"t is 2; pass a time in \[0, 1\]"),
        (
            lambda: pid.Problem(TARGET, pid.harmonic()).at(-1.0, jnp.zeros(2)).log_psi,
            r"t is -1; pass a time in \[0, 1\]",
        ),
        (lambda: pid.Problem(TARGET, pid.harmonic()).at(jnp.ones(2), jnp.zeros(2)).control, r"t has shape \(2,\)"),
        (
            lambda: pid.LocalDraws(pid.Density(gaussian, 3), TARGET, 5),
            "proposal has dimension 2 but density has dimension 3",
        ),
        (lambda: pid.Pool.draw(KEY, pid.Density(gaussian, 2), TARGET, 10.0), "size is 10.0"),
    ],
)
@pytest.mark.slow
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.parametrize(
    "value", [jnp.nan, *(pytest.param(value, marks=pytest.mark.extended) for value in (jnp.inf, -jnp.inf))]
)
@pytest.mark.extended
def test_a_log_density_that_is_nowhere_finite(value):
    with pytest.raises(ValueError, match=r"log_density was finite at none of the points"):
        pid.sample(KEY, pid.Density(lambda y: value + 0 * jnp.sum(y), 2))


def test_a_bare_density_has_no_tilted_law():
    with pytest.raises(TypeError, match="surrogate"):
        pid.Problem(pid.Density(gaussian, 2), pid.harmonic()).at(0.5, jnp.zeros(2))


@pytest.mark.slow
def test_nan_paths_are_counted_and_explained():
    density = pid.Density(lambda y: jnp.where(y[0] > 0, jnp.nan, gaussian(y)), 2)
    standard = pid.GaussianMixture(jnp.zeros((1, 2)), jnp.eye(2)[None])
    solution = pid.sample(KEY, pid.Surrogate(density, standard), num_samples=200)
    assert 60 < solution.num_nonfinite < 140
    assert jnp.isfinite(solution.log_z.value)
    assert jnp.isfinite(solution.expectation(lambda y: y)[0]).all()
    with pytest.raises(pid.SamplingError, match=r"of 200 paths were not finite.*Return -inf outside"):
        solution.check()


@pytest.mark.slow
def test_a_collapsed_run_is_explained():
    far = pid.GaussianMixture(jnp.full((1, 2), 6.0), 0.01 * jnp.eye(2)[None])
    standard = pid.GaussianMixture(jnp.zeros((1, 2)), jnp.eye(2)[None])
    solution = pid.sample(KEY, pid.Surrogate(pid.Density(far.log_density, 2), standard), num_samples=200)
    with pytest.raises(pid.SamplingError, match=r"effective sample size.*better surrogate"):
        solution.check()


@pytest.mark.slow
def test_a_run_outside_the_support_is_explained():
    nowhere = pid.Density(lambda y: jnp.where(y[0] > 100, 0.0, -jnp.inf), 2)
    standard = pid.GaussianMixture(jnp.zeros((1, 2)), jnp.eye(2)[None])
    solution = pid.sample(KEY, pid.Surrogate(nowhere, standard), num_samples=50)
    assert solution.num_nonfinite == 0
    with pytest.raises(pid.SamplingError, match="every weight is zero"):
        solution.check()


def test_whole_numbers_of_numpy_are_counts():
    solution = pid.sample(KEY, TARGET, num_samples=np.int64(6), num_steps=np.int32(2), batch_size=np.int64(3))
    assert solution.samples.shape == (6, 2)
    assert pid.Density(gaussian, np.int64(2)).dim == 2


def test_weights_of_extreme_size_are_normalised():
    for size in (3e38, 1e-37):
        weights = pid.GaussianMixture.isotropic(
            jnp.zeros((2, 1), jnp.float32), 1.0, jnp.full(2, size, jnp.float32)
        ).weights
        np.testing.assert_allclose(weights, 0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda solution: solution.forward_ess(KEY, jnp.full((5, 2), jnp.nan)), "exact holds 10 non-finite"),
        (lambda solution: solution.forward_ess(KEY, jnp.zeros((0, 2))), r"exact has shape \(0, 2\)"),
        (
            lambda solution: solution.forward_ess(KEY, jnp.zeros((5, 3))),
            r"exact has shape \(5, 3\); pass shape \(n, 2\)",
        ),
        (lambda solution: solution.forward_ess(KEY, jnp.zeros((5, 2)), jnp.nan), "log_z holds 1 non-finite"),
        (lambda solution: solution.check(2.0), "min_ess_fraction is 2"),
        (lambda solution: solution.resample(KEY, 0), "num_samples is 0"),
        (lambda solution: solution.resample(3), "key is 3"),
        (lambda solution: solution.expectation(None), "function is a NoneType"),
        (lambda solution: solution.expectation(lambda y: None), "function returns None"),
        (lambda solution: solution.expectation(lambda y: y[5]), r"function reads index \(5,\)"),
        (lambda solution: jax.jit(lambda one: one.check().log_z)(solution), "outside of them"),
    ],
)
def test_bad_questions_to_a_solution(call, message):
    with pytest.raises(ValueError, match=message):
        call(pid.sample(KEY, TARGET, num_samples=10, num_steps=2))


@pytest.mark.slow
def standard(dim, dtype=jnp.float32):
    return pid.GaussianMixture(jnp.zeros((1, dim), dtype), jnp.eye(dim, dtype=dtype)[None])


def test_log_weights_beyond_their_resolution():
    """A log-likelihood of −1e7 in single precision: blurred, said by `check`, and never more effective samples than samples."""
    shifted = pid.Density(lambda y: gaussian(y) - jnp.asarray(1e7, y.dtype), 2, dtype=jnp.float32)
    solution = pid.sample(KEY, pid.Surrogate(shifted, standard(2)), num_samples=500, num_steps=2)
    assert solution.ess <= 500 * (1 + 1e-5)
    with pytest.raises(pid.SamplingError, match=r"of size 1e\+07 are resolved to 1.2 only in float32"):
        solution.check()


def test_samples_over_too_many_decades():
    """What a fit to a density without finite mass ends on: p̂ as wide as it could become, with even weights."""
    means = 10.0 ** jnp.arange(0.0, 24.0, 2.0)[:, None]
    spread = pid.GaussianMixture(means, (0.1 * means[:, :, None]) ** 2)
    solution = pid.sample(KEY, pid.Surrogate(pid.Density(spread.log_density, 1), spread), num_samples=500, num_steps=2)
    with pytest.raises(pid.SamplingError, match="no finite mass"):
        solution.check()


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.parametrize(
    ("log_density", "dim", "message"),
    [
        pytest.param(lambda y: 0 * y[0], 2, "ran away", marks=pytest.mark.extended),
        pytest.param(
            lambda y: -2.5 * jnp.log(jnp.linalg.norm(y)) - 0.5 * jnp.sum(y**2),
            2,
            "narrower than float32 resolves",
            marks=pytest.mark.extended,
        ),
        pytest.param(
            lambda y: jnp.where((y[0] > 1000) & (y[0] < 1001), 0 * y[0], -jnp.inf),
            1,
            "finite at none of the points",
            marks=pytest.mark.extended,
        ),
    ],
    ids=["flat", "singular", "far and small"],
)
def test_a_density_that_no_surrogate_fits(log_density, dim, message):
    with pytest.raises(ValueError, match=message):
        pid.sample(KEY, pid.Density(log_density, dim, dtype=jnp.float32))


def test_samples_far_from_the_origin():
    far = pid.GaussianMixture(jnp.full((1, 1), 1e8, jnp.float32), jnp.ones(1, jnp.float32))
    with pytest.raises(pid.SamplingError, match=r"around 1e\+08 in coordinate 0 are resolved to 12 only in float32"):
        pid.sample(KEY, far, num_samples=200, num_steps=2).check()


def test_a_spread_of_samples_without_weight_does_not_hide_that_the_others_are_one_point():
    means = jnp.full((2, 1), 1e6, jnp.float32)
    mixture = pid.GaussianMixture.isotropic(means, jnp.array([1e-8, 1e4], jnp.float32), jnp.array([0.97, 0.03]))
    density = pid.Density(lambda y: -0.5 * ((y[0] - 1e6) / 0.02) ** 2, 1, dtype=jnp.float32)
    solution = pid.sample(KEY, pid.Surrogate(density, mixture), num_samples=500, num_steps=2)
    with pytest.raises(pid.SamplingError, match=r"around 1e\+06 in coordinate 0 are resolved to 0.12 only in float32"):
        solution.check()


def test_a_time_outside_of_the_horizon_while_traced():
    assert jnp.isnan(jax.jit(lambda t: pid.Problem(TARGET, pid.harmonic()).at(t, jnp.zeros(2)).control)(2.0)).all()
