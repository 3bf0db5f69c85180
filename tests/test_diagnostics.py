"""Diagnostics along paths against closed forms: for one Gaussian target everything is known."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_within, mean_and_error

import pidjax as pid
from pidjax import diagnostics, exact, metrics, zoo

KEY = jax.random.key(0)
SPREAD, DIM = 1.7, 2
GAUSSIAN = pid.GaussianMixture.isotropic(jnp.zeros((1, DIM)), SPREAD**2)
BROWNIAN = pid.harmonic(0.0, noise_scale=1.0)
TIMES = np.arange(41) / 40
costs = eqx.filter_jit(exact.costs)


@functools.cache
def gaussian_paths():
    """2000 paths to N(0, s²I) from the origin at β = 0."""
    return diagnostics.ensemble(
        pid.sample(KEY, GAUSSIAN, protocol=BROWNIAN, num_samples=2000, grid=pid.uniform_grid(40), save_paths=True)
    )


def variance(t):
    """Var x_t = t²s² + t(1−t), per coordinate."""
    return t**2 * SPREAD**2 + t * (1 - t)


def slope(t):
    """u* = slope · x: (gain of x̂ − 1)/(1 − t) with x̂ = s² x/(1 − t + ts²)."""
    return (SPREAD**2 - 1) / (1 - t + t * SPREAD**2)


def rich_protocol():
    """Two pieces, a matrix stiffness, force, gauge, centre, linear and constant terms, horizon and noise not one."""
    beta = jnp.array([[[3.0, 0.4], [0.4, 1.0]], [[0.5, 0.1], [0.1, 2.0]]])
    return pid.piecewise(
        beta,
        edges=jnp.array([0.0, 0.8, 2.0]),
        centre=jnp.array([[0.3, 0.1], [0.5, -0.2]]),
        force=(jnp.array([[[0.1, -0.5], [0.6, 0.2]]] * 2), jnp.array([[0.2, -0.1]] * 2)),
        gauge=(jnp.array([[[0.3, 0.8], [-0.5, 0.1]]] * 2), jnp.array([[0.1, 0.4]] * 2)),
        linear=jnp.array([[0.2, 0.1], [-0.1, 0.3]]),
        constant=jnp.array([0.7, -0.3]),
        start=jnp.array([0.2, -0.4]),
        noise_scale=0.8,
    )


def two_modes():
    covariances = jnp.array([[[0.3, 0.1], [0.1, 0.2]], [[0.1, 0.0], [0.0, 0.5]]])
    return pid.GaussianMixture(jnp.array([[1.0, 0.5], [-1.0, 0.2]]), covariances, jnp.array([0.3, 0.7]))


def test_average_of_a_ratio_has_the_spread_of_its_replicates():
    """Self-normalised weights and a ratio of means: the standard error is the deviation over independent replicates."""

    def replicate(key):
        x = jax.random.normal(key, (400,))
        log_weights = 0.5 * x
        return diagnostics.average((x**2, x + 3), log_weights, lambda means: means[0] / means[1])

    found = jax.jit(jax.vmap(replicate))(jax.random.split(KEY, 2000))
    # Under the weights x ~ N(½, 1), whence E x² = 1.25 and E(x + 3) = 3.5.
    mean, error = mean_and_error(found.value)
    assert_within(mean, 1.25 / 3.5, error + 1 / 400)
    deviation = np.std(found.value)
    assert_within(np.mean(found.standard_error), deviation, deviation * (1 / np.sqrt(2 * 2000) + 1 / 400))


def test_average_ignores_a_dead_path():
    values, log_weights = jnp.array([1.0, jnp.nan, 3.0]), jnp.array([0.0, -jnp.inf, 0.0])
    found = diagnostics.average(values, log_weights)
    assert found.value == 2
    assert found.standard_error == pytest.approx(np.sqrt(0.5))


@pytest.mark.parametrize("is_local", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_errors_count_a_shared_pool(is_local):
    """Of every estimate, as in `Solution.expectation`; a region has its share of the paths and of the pool."""
    density = pid.Density(two_modes().log_density, 2)
    target = pid.Pool.draw(KEY, density, GAUSSIAN, 60)
    target = pid.LocalDraws(density, GAUSSIAN, 2, target) if is_local else target
    solution = pid.sample(KEY, target, protocol=BROWNIAN, num_samples=200, num_steps=3, save_paths=True)
    paths = diagnostics.ensemble(solution)
    alone = eqx.tree_at(lambda one: one.inflation, paths, jnp.ones(()))
    value, error = solution.expectation(lambda y: y)
    found = diagnostics.average(paths.states[:, -1], paths)
    assert jnp.allclose(found.value, value, rtol=1e-10)
    assert jnp.allclose(found.standard_error, error, rtol=1e-10)
    assert paths.inflation > 1.3

    @eqx.filter_jit
    def all_errors(one):
        spent, correlations = diagnostics.path_costs(one, BROWNIAN), diagnostics.autocorrelations(one)
        energies = diagnostics.path_cross_entropies(one, two_modes().log_density)
        right = diagnostics.average(one.states[:, 1], one.given_end(lambda x: x[0] > 0))
        return [found.standard_error for found in (*spent, *correlations, *energies, right)]

    for with_pool, without in zip(all_errors(paths), all_errors(alone), strict=True):
        assert jnp.allclose(with_pool, paths.inflation * without, rtol=1e-10)


def test_paths_of_their_own_are_independent():
    assert gaussian_paths().inflation == pytest.approx(1, abs=1e-12)


@pytest.mark.slow
def test_controls_are_those_of_control():
    protocol, target = rich_protocol(), two_modes()
    solution = pid.sample(KEY, target, protocol=protocol, num_samples=5, num_steps=6, save_paths=True)
    paths = diagnostics.ensemble(solution)
    problem = pid.Problem(target, protocol)
    pointwise = jax.vmap(jax.vmap(lambda t, x: problem.at(t, x).control), in_axes=(None, 0))
    assert jnp.allclose(paths.controls, jax.jit(pointwise)(paths.times, paths.states), rtol=1e-7, atol=1e-9)
    matrix, vector = protocol.force.matrix[0], protocol.force.vector[0]
    assert jnp.allclose(paths.forces, paths.states @ matrix.T + vector[None, None])
    assert paths.noise_scale == pytest.approx(0.8)
    assert jnp.allclose(paths.start, protocol.start)


@pytest.mark.slow
def test_autocorrelations_of_a_gaussian():
    """From the origin A(t) = t, and Â(t) = ts²/(1 − t + ts²); Â = ½ at t = 1/(1 + s²)."""
    found = diagnostics.autocorrelations(gaussian_paths())
    curve = TIMES * SPREAD**2 / (1 - TIMES + TIMES * SPREAD**2)
    assert_within(found.state.value[1:-1], TIMES[1:-1], found.state.standard_error[1:-1])
    assert_within(found.weighted_state.value[1:-1], curve[1:-1], found.weighted_state.standard_error[1:-1])
    assert found.weighted_state.value[0] == pytest.approx(0)
    assert found.weighted_state.value[-1] == pytest.approx(1)
    assert_within(found.transition_time.value, 1 / (1 + SPREAD**2), found.transition_time.standard_error + 1e-4)
    assert_within(found.sharpness.value, np.trapezoid(1 - np.abs(2 * curve - 1), TIMES), found.sharpness.standard_error)


@pytest.mark.slow
def test_path_cross_entropies_and_energy_efficiency():
    paths = gaussian_paths()
    found = diagnostics.path_cross_entropies(paths, GAUSSIAN.log_density)
    constant = np.log(2 * np.pi * SPREAD**2)
    mean_gain = SPREAD**2 / (1 - TIMES + TIMES * SPREAD**2)
    energies = constant + variance(TIMES) / SPREAD**2, constant + mean_gain**2 * variance(TIMES) / SPREAD**2
    efficiency = diagnostics.energy_efficiency(paths, GAUSSIAN.log_density)
    for estimate, truth, integral in zip(found, energies, efficiency, strict=True):
        assert_within(estimate.value, truth, estimate.standard_error + 1e-12)
        assert_within(integral.value, np.trapezoid(truth, TIMES), integral.standard_error)


@pytest.mark.slow
def test_conditioning_on_the_end():
    """Given |x_1|² > 2s² log 2 (half of the paths), E|x_1|² = 2s²(1 + log 2), and E[x_t] stays at the origin."""
    threshold = 2 * SPREAD**2 * np.log(2)
    outer = gaussian_paths().given_end(lambda x: jnp.sum(x**2) > threshold)
    assert_within(jnp.mean(outer.log_weights == 0), 0.5, np.sqrt(0.25 / 2000))
    square = diagnostics.average(jnp.sum(outer.states[:, -1] ** 2, axis=-1), outer)
    assert_within(square.value, threshold + 2 * SPREAD**2, square.standard_error)
    mean = diagnostics.average(outer.states[:, 20], outer)
    assert_within(mean.value, 0, mean.standard_error)


def test_drift_diffusion_of_a_gaussian():
    """d/dt E|x|² = d(1 + growth) with E|x|² = d Var x_t; the drift is along x."""
    found = diagnostics.drift_diffusion(gaussian_paths())
    growth = 2 * TIMES * SPREAD**2 + 1 - 2 * TIMES - 1
    assert_within(found.growth.value, growth, found.growth.standard_error + 1e-12)
    strength = np.abs(slope(TIMES)) * np.sqrt(variance(TIMES))
    assert_within(found.strength.value, strength, found.strength.standard_error + 1e-12)
    assert jnp.allclose(found.alignment.value[1:], 1)
    assert jnp.all(jnp.isfinite(found.strength.standard_error))


@pytest.mark.slow
def test_langevin_mismatch_of_a_gaussian():
    """Both drifts are along x: every path has the same mismatch, cosine and ratio, but at the start, where both vanish."""
    found = diagnostics.langevin_mismatch(gaussian_paths(), GAUSSIAN.log_density)
    control, langevin = slope(TIMES[1:]), -1 / (2 * SPREAD**2)
    expected = np.abs(control - langevin) / (np.abs(control) + np.abs(langevin)), -1, np.abs(control / langevin)
    for estimate, truth in zip(found, expected, strict=True):
        assert jnp.allclose(estimate.value[1:], truth)
        assert estimate.value[0] == 0
    at_rest = diagnostics.ensemble(
        pid.sample(
            KEY,
            pid.GaussianMixture.isotropic(jnp.zeros((1, 2)), 1.0),
            protocol=BROWNIAN,
            save_paths=True,
            num_samples=9,
        )
    )
    assert jnp.all(jnp.isfinite(diagnostics.drift_diffusion(at_rest).strength.standard_error))


@pytest.mark.parametrize(("beta", "total", "kinetic"), [(1.0, 1.505765, 0.881014), (10.0, 5.618716, 2.066048)])
@pytest.mark.slow
def test_costs_of_the_regular_grid(beta, total, kinetic):
    """Against the exact figures, and the potential cost accumulated to half time against the exact second moment."""
    target, protocol = zoo.ada_regular().target, pid.harmonic(beta, noise_scale=1.0)
    solution = pid.sample(KEY, target, protocol=protocol, num_samples=3000, grid=pid.uniform_grid(150), save_paths=True)
    found = diagnostics.path_costs(diagnostics.ensemble(solution), protocol)
    for estimate, truth in ((found.total, total), (found.kinetic, kinetic), (found.potential, total - kinetic)):
        assert_within(estimate.value[-1], truth, estimate.standard_error[-1])
    assert jnp.allclose(found.guide.value, 2 / beta * found.potential.value)
    assert jnp.all(found.gauge.value == 0)


@pytest.mark.extended
@pytest.mark.slow
def test_costs_of_a_rich_protocol():
    """Every part against its exact value: the derivative of a closed form, which knows nothing of paths."""
    target, protocol = two_modes(), rich_protocol()
    solution = pid.sample(KEY, target, protocol=protocol, num_samples=2000, grid=pid.uniform_grid(120), save_paths=True)
    found = diagnostics.path_costs(diagnostics.ensemble(solution), protocol)
    truth = costs(target, protocol)
    for name in ("total", "kinetic", "potential", "gauge"):
        estimate = getattr(found, name)
        assert_within(estimate.value[-1], getattr(truth, name), estimate.standard_error[-1])
    assert_within(found.guide.value[-1], exact.guide_cost(target, protocol), found.guide.standard_error[-1])


@pytest.mark.slow
def test_costs_in_rescaled_units():
    """The default protocol's β is meant in the unit problem; the cost is the same number in either unit."""
    target = pid.GaussianMixture.isotropic(jnp.array([[35.0, 40.0], [47.0, 44.0]]), 4.0)
    for protocol in (pid.harmonic(2.0), pid.harmonic(2.0, centre=jnp.array([40.0, 44.0]), horizon=3.0)):
        solution = pid.sample(
            KEY, target, protocol=protocol, num_samples=3000, grid=pid.uniform_grid(100), save_paths=True
        )
        found, truth = diagnostics.path_costs(diagnostics.ensemble(solution), protocol), costs(target, protocol)
        for name in ("total", "kinetic", "potential"):
            estimate = getattr(found, name)
            assert_within(estimate.value[-1], getattr(truth, name), estimate.standard_error[-1])


@pytest.mark.slow
def test_weights_are_respected():
    """A crude rule with weights: E x_t = sinh(t)/sinh(1) E y at β = 1, and the cross-entropy at the end that of `metrics`."""
    target, protocol = two_modes(), pid.harmonic(1.0, noise_scale=1.0)
    solution = pid.sample(
        KEY, target, protocol=protocol, rule=pid.Euler(), num_samples=20_000, grid=pid.uniform_grid(12), save_paths=True
    )
    paths = diagnostics.ensemble(solution)
    found = diagnostics.average(paths.states[:, 6], paths)
    assert_within(found.value, np.sinh(0.5) / np.sinh(1) * target.mean(), found.standard_error)
    energy = diagnostics.path_cross_entropies(paths, target.log_density).state
    plain = metrics.cross_entropy(solution.samples, target.log_density, solution.log_weights)
    assert energy.value[-1] == pytest.approx(float(plain.value), rel=1e-10)
    assert energy.standard_error[-1] == pytest.approx(float(plain.standard_error), rel=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(
    "dtype", [jnp.dtype("float32"), pytest.param(jnp.dtype("float64"), marks=pytest.mark.extended)], ids=str
)
def test_dtypes(dtype):
    """Single precision stays single."""
    target = pid.GaussianMixture.isotropic(jnp.array([[-1.0, 0.0], [1.0, 0.5]], dtype), jnp.asarray(0.2, dtype))
    protocol = pid.harmonic(jnp.asarray(1.0, dtype))
    paths = diagnostics.ensemble(pid.sample(KEY, target, protocol=protocol, num_samples=20, save_paths=True))
    results = (
        diagnostics.autocorrelations(paths),
        diagnostics.path_costs(paths, protocol),
        diagnostics.path_cross_entropies(paths, target.log_density),
        diagnostics.drift_diffusion(paths),
        diagnostics.langevin_mismatch(paths, target.log_density),
        diagnostics.sensitivity(target, protocol, paths),
        diagnostics.decisions(paths, diagnostics.class_probabilities(target, protocol, paths)),
    )
    for leaf in jax.tree.leaves(results):
        assert leaf.dtype == dtype
        assert jnp.all(jnp.isfinite(leaf))


def test_errors_name_the_argument():
    solution = pid.sample(KEY, GAUSSIAN, protocol=BROWNIAN, num_samples=4, num_steps=2)
    with pytest.raises(ValueError, match="solution has no paths"):
        diagnostics.ensemble(solution)
    with pytest.raises(ValueError, match="solution has no paths"):
        diagnostics.early_exit(KEY, solution, GAUSSIAN.sample, [0], 4)
    with pytest.raises(ValueError, match=r"beta has shape \(3,\)"):
        diagnostics.path_costs(gaussian_paths(), pid.harmonic(jnp.ones(3), noise_scale=1.0))
    far = diagnostics.ball(jnp.full(2, 100.0), 1.0)
    with pytest.raises(ValueError, match="region holds 0 of 4 samples"):
        diagnostics.restricted_wasserstein2(solution.samples, solution.samples, far)
