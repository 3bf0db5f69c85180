"""The facts of the zoo, each derived again by another route than the one that made the constant."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_within as within
from helpers import mean_and_error, shared_data
from scipy import integrate, special, stats

from pidjax import metrics, zoo

MIXTURES = [zoo.nine, zoo.grid25, zoo.gmm40, zoo.ada_regular, zoo.ada_perturbed_a]


def assert_within(estimate: metrics.Estimate, truth: float, sigmas: float = 4):
    assert abs(float(estimate.value) - truth) < sigmas * float(estimate.standard_error)


@pytest.fixture(params=[*MIXTURES, zoo.funnel, lambda: zoo.funnel(3**0.5), lambda: zoo.funnel(1.0)])
def known(request):
    return request.param()


def plane_density(known, step_of_smallest_width: float = 0.3):
    """Density, written out in float64 numpy, on a grid that covers 8 standard deviations around every mode."""
    centres, widths, weights = (
        np.asarray(value, np.float64) for value in (known.centres, known.standard_deviations, known.mode_weights)
    )
    step = step_of_smallest_width * widths.min()
    low, high = centres.min(0) - 8 * widths.max(), centres.max(0) + 8 * widths.max()
    axes = [np.arange(low[i], high[i] + step, step) for i in range(2)]
    first, second = (
        np.exp(-0.5 * ((axes[i] - centres[:, i, None]) / widths[:, None]) ** 2)
        / (widths[:, None] * math.sqrt(2 * math.pi))
        for i in range(2)
    )
    return axes, np.einsum("k,ki,kj->ij", weights, first, second), step**2


@pytest.mark.parametrize("make", MIXTURES)
def test_mixture_log_z_and_entropy_by_quadrature(make):
    known = make()
    _, density, cell = plane_density(known)
    entropy = -np.sum(density * np.log(np.where(density > 0, density, 1))) * cell
    assert np.sum(density) * cell == pytest.approx(math.exp(known.log_z), abs=1e-6)
    assert entropy == pytest.approx(known.entropy, abs=2e-6)


@pytest.mark.parametrize("make", MIXTURES)
def test_log_density_is_the_density_written_out(make):
    known = make()
    (first, second), density, _ = plane_density(known, step_of_smallest_width=1.7)
    rows, columns = np.nonzero(density > 1e-12)
    points = jnp.asarray(np.stack([first[rows], second[columns]], axis=1), known.centres.dtype)
    log_density = jax.jit(jax.vmap(known.log_density))(points)
    np.testing.assert_allclose(
        log_density, np.log(density[rows, columns]), atol=2e-3 if points.dtype == "float32" else 1e-9
    )


@pytest.mark.parametrize(("make", "printed"), [(zoo.nine, 3.8312), (zoo.grid25, 4.853), (zoo.gmm40, 6.85947)])
def test_entropy_is_the_published_figure(make, printed):
    assert make().entropy == pytest.approx(printed, abs=3e-4)


@pytest.mark.parametrize(("make", "cost"), [(zoo.ada_regular, 0.846600), (zoo.ada_perturbed_a, 0.706339)])
def test_entropy_gives_the_optimal_cost_without_stiffness(make, cost):
    """At β = 0 the least cost is KL(p ‖ N(0, I)) = −H + log 2π + ½ E|y|², tabulated independently."""
    known = make()
    second_moment = jnp.sum(known.mode_weights * (jnp.sum(known.centres**2, 1) + 2 * known.standard_deviations**2))
    assert -known.entropy + math.log(2 * math.pi) + float(second_moment) / 2 == pytest.approx(cost, abs=2e-6)


@pytest.mark.slow
def test_entropy_and_exact_draws_agree(known):
    samples = known.sample(jax.random.key(1), 20_000)
    assert samples.shape == (20_000, known.dim)
    assert_within(metrics.cross_entropy(samples, known.log_density), known.entropy)


def test_exact_draws_have_the_moments_of_the_target(known):
    samples = known.sample(jax.random.key(2), 20_000)
    if isinstance(known, zoo.Funnel):
        neck = samples[:, 0]
        moments = [(neck, 0.0), (neck**2, known.scale**2), (samples[:, 1] ** 2 * jnp.exp(-neck), 1.0)]
    else:
        weights, centres = known.mode_weights, known.centres
        second = weights @ (jnp.sum(centres**2, 1) + 2 * known.standard_deviations**2)
        moments = [(samples[:, i], float(weights @ centres[:, i])) for i in range(2)]
        moments.append((jnp.sum(samples**2, axis=1), float(second)))
    for values, truth in moments:
        assert_within(metrics.Estimate(jnp.mean(values), jnp.std(values) / math.sqrt(len(values))), truth)


@pytest.mark.parametrize("make", MIXTURES)
def test_responsibilities_have_the_mode_weights_as_their_mean(make):
    known = make()
    responsibilities = jax.vmap(known.responsibilities)(known.sample(jax.random.key(3), 20_000))
    np.testing.assert_allclose(jnp.sum(responsibilities, 1), 1, atol=1e-5)
    error = jnp.std(responsibilities, axis=0) / math.sqrt(20_000)
    assert jnp.all(jnp.abs(jnp.mean(responsibilities, axis=0) - known.mode_weights) < 4.5 * error)


def test_responsibilities_are_the_gradient_of_the_log_density_in_the_log_weights():
    known = zoo.ada_perturbed_a()
    y = jnp.array([0.4, -0.7], known.centres.dtype)

    def log_density(log_weights):
        weights = jnp.exp(log_weights)
        squared = jnp.sum((y[None] - known.centres) ** 2, 1) / known.standard_deviations**2
        return jnp.log(jnp.sum(weights * jnp.exp(-squared / 2) / known.standard_deviations**2))

    expected = jax.grad(log_density)(jnp.log(known.mode_weights))
    np.testing.assert_allclose(known.responsibilities(y), expected, atol=1e-5)


def test_nine_within_three_standard_deviations():
    known = zoo.nine()
    samples = known.sample(jax.random.key(4), 50_000)
    within = metrics.fraction_within(samples, known.centres, known.standard_deviations)
    assert 1 - math.exp(-4.5) == pytest.approx(0.98889, abs=5e-6)
    assert_within(within, 1 - math.exp(-4.5))


@pytest.mark.parametrize("scale", [3.0, 3**0.5, 1.0])
def test_funnel_log_z_by_nested_quadrature(scale):
    """The 9 inner integrals are equal given x₁, so log Z = log ∫ p(x₁, 0) (∫ p(x₁, t e)/p(x₁, 0) dt)^9 dx₁."""
    known = zoo.funnel(scale)
    necks = np.linspace(-6 * scale, 6 * scale, 61)
    unit = np.linspace(-9, 9, 181)

    def along(neck):
        width = jnp.exp(neck / 2)
        line = jax.vmap(lambda t: known.log_density(jnp.zeros(10, neck.dtype).at[0].set(neck).at[1].set(width * t)))
        centre = known.log_density(jnp.zeros(10, neck.dtype).at[0].set(neck))
        inner = jnp.sum(jnp.exp(line(jnp.asarray(unit, neck.dtype)) - centre)) * (unit[1] - unit[0]) * width
        return centre + 9 * jnp.log(inner)

    logs = jax.vmap(along)(jnp.asarray(necks, known.target.shift.dtype))
    assert float(jax.nn.logsumexp(logs)) + math.log(necks[1] - necks[0]) == pytest.approx(known.log_z, abs=2e-4)


def test_funnel_log_density_is_finite_far_out():
    known = zoo.funnel()
    far = jnp.zeros(10).at[0].set(-60.0)
    assert jnp.isfinite(known.log_density(far))
    assert jnp.all(jnp.isfinite(jax.grad(known.log_density)(far)))


def test_gmm40_means_are_those_of_the_file():
    path = shared_data("gmm40_fab_means.csv")
    np.testing.assert_allclose(zoo.gmm40().centres, np.loadtxt(path, delimiter=","), atol=2e-6)


def test_gmm40_does_not_touch_the_global_random_state():
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    zoo.gmm40()
    np.testing.assert_array_equal(state, np.random.get_state()[1])  # noqa: NPY002


def test_ada_grid_has_its_second_coordinate_outer():
    np.testing.assert_allclose(zoo.ada_regular().centres[:4], [[-1.5, -1.5], [0, -1.5], [1.5, -1.5], [-1.5, 0]])


@pytest.mark.slow
@pytest.mark.parametrize("make", [*MIXTURES, zoo.funnel])
def test_dtype(make):
    for known, dtype in [(make(), jnp.zeros(()).dtype), (make(dtype=jnp.float32), jnp.float32)]:
        samples = known.sample(jax.random.key(0), 2)
        assert samples.dtype == known.log_density(samples[0]).dtype == dtype


def test_known_is_a_pytree_that_compiles(known):
    y = jnp.ones(known.dim)
    assert jax.jit(lambda k: k.log_density(y))(known) == pytest.approx(float(known.log_density(y)), rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"scale": 0.0}, "scale is 0"), ({"scale": math.nan}, "scale holds 1 non-finite"), ({"dim": 1}, "dim is 1")],
)
def test_funnel_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        zoo.funnel(**arguments)


DRAWABLE = {
    "MW54": lambda **kind: zoo.double_well(5, 5, 4.0, **kind),
    "MW52": lambda **kind: zoo.double_well(50, 5, 2.0, **kind),
    "many_well": lambda **kind: zoo.many_well(4, **kind),
    "particles": zoo.double_well_particles,
    "phi4": lambda **kind: zoo.phi4(0.05, **kind),
    "gaussians": lambda **kind: zoo.gaussian_mixture(5, **kind),
    "students": lambda **kind: zoo.student_mixture(5, **kind),
    "two_modes": lambda **kind: zoo.two_modes(6, 4.0, **kind),
    "spike_and_slab": lambda **kind: zoo.spike_and_slab(10, **kind),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.extended if name in ("particles", "phi4") else []) for name in DRAWABLE],
)
@pytest.mark.slow
def test_draws_and_density_are_of_one_law(name):
    """E ∂_i log p = 0 and E[y · ∇ log p] = −d by parts, for any smooth density; and E[−log p] is the entropy."""
    known = DRAWABLE[name]()
    samples = known.sample(jax.random.key(5), 5_000)
    assert samples.shape == (5_000, known.dim)
    log_density, scores = jax.jit(jax.vmap(jax.value_and_grad(known.log_density)))(samples)
    virial, error = mean_and_error(jnp.sum(samples * scores, axis=1))
    within(virial, -known.dim, error)
    within(mean_and_error(scores)[0], 0, mean_and_error(scores)[1])
    if known.entropy is not None:
        mean, error = mean_and_error(log_density)
        within(known.log_z - mean, known.entropy, error)


@pytest.mark.slow
@pytest.mark.parametrize("make", [zoo.gaussian_mixture, zoo.student_mixture, lambda dim: zoo.two_modes(dim, 4.0)])
def test_draws_have_the_mean_of_their_components(make):
    known = make(3)
    mean, error = mean_and_error(known.sample(jax.random.key(6), 20_000))
    within(mean, known.mode_weights @ known.centres, error)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*DRAWABLE, "cox"])
def test_log_density_in_single_precision(name):
    if name == "cox":
        places = np.random.default_rng(0).uniform(size=(126, 2))
        double, single = (zoo.log_gaussian_cox(places, 20, dtype=dtype) for dtype in ("float64", "float32"))
        samples = 3.9 + jax.random.normal(jax.random.key(9), (20, 400))
    else:
        double, single = (DRAWABLE[name](dtype=dtype) for dtype in ("float64", "float32"))
        samples = single.sample(jax.random.key(9), 50).astype("float64")
    rounded = samples.astype("float32")
    given, exact = jax.vmap(single.log_density)(rounded), jax.vmap(double.log_density)(rounded.astype("float64"))
    assert given.dtype == jnp.float32
    np.testing.assert_allclose(given, exact, atol=1e-3, rtol=1e-6)


@pytest.mark.slow
def test_mixtures_are_those_of_scipy():
    gaussians, students = zoo.gaussian_mixture(3), zoo.student_mixture(3, degrees_of_freedom=2.5)
    covariances, means = np.asarray(gaussians.target.covariances), np.asarray(gaussians.centres)
    samples = np.asarray(students.sample(jax.random.key(10), 20))
    for known, of_one in (
        (gaussians, lambda k: stats.multivariate_normal(means[k], covariances[k])),
        (students, lambda k: stats.multivariate_t(means[k], covariances[k], df=2.5)),
    ):
        logs = np.stack([math.log((k + 1) / 10) + of_one(k).logpdf(samples) for k in range(4)])
        np.testing.assert_allclose(jax.vmap(known.log_density)(samples), special.logsumexp(logs, axis=0), atol=1e-9)


def test_unequal_widths_are_those_of_scipy():
    points = np.random.default_rng(0).normal(size=(10, 4))
    beside = 0.5 * stats.multivariate_normal(np.zeros(4)).pdf(points) + 0.5 * stats.multivariate_normal(
        [2, 0, 0, 0], 0.25
    ).pdf(points)
    inside = 0.3 * stats.multivariate_normal(np.zeros(4), 0.04).pdf(points) + 0.7 * stats.multivariate_normal(
        np.zeros(4), 4.0
    ).pdf(points)
    for known, density in ((zoo.two_modes(4, 2.0, 0.5), beside), (zoo.spike_and_slab(4, 0.2, 2.0, 0.3), inside)):
        np.testing.assert_allclose(jax.vmap(known.log_density)(points), np.log(density), atol=1e-9)


def test_spike_and_slab_entropy_on_a_line():
    def density(x):
        return 0.3 * stats.norm.pdf(x, scale=0.1) + 0.7 * stats.norm.pdf(x, scale=2.0)

    entropy = integrate.quad(lambda x: -density(x) * math.log(density(x)), 0, 30, points=[0.2, 0.5, 1], epsabs=1e-12)
    assert zoo.spike_and_slab(1, 0.1, 2.0, 0.3).entropy == pytest.approx(2 * entropy[0], abs=1e-8)


def test_new_data_compile_nothing():
    traces = []

    @eqx.filter_jit
    def evaluate(target):
        traces.append(target)
        return target.log_density(jnp.ones(target.dim))

    rng = np.random.default_rng(2)
    for number in range(2):
        features, labels = rng.normal(size=(10, 3)), rng.integers(2, size=10)
        for known in (
            zoo.logistic(features, labels, 1.0 + number),
            zoo.log_gaussian_cox(rng.uniform(size=(9, 2)), 3),
            zoo.double_well(3, 2, 2.0 + number),
            zoo.phi4(0.1 * number),
            zoo.student_mixture(2, seed=number),
        ):
            assert jnp.isfinite(evaluate(known.target))
    assert len(traces) == 5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: zoo.double_well(3, 4), "num_wells is 4; pass at most dim, 3"),
        (lambda: zoo.double_well(3, 2, -1.0), "depth is -1"),
        (lambda: zoo.many_well(0), "num_pairs is 0"),
        (lambda: zoo.phi4(math.nan), "b holds 1 non-finite"),
        (lambda: zoo.phi4(2.0), "b is 2"),
        (lambda: zoo.logistic([1.0, 2.0], [0, 1]), r"features has shape \(2,\)"),
        (lambda: zoo.logistic([[1.0], [2.0]], [0, 1, 1]), r"labels has shape \(3,\)"),
        (lambda: zoo.logistic([[1.0], [2.0]], [-1, 1]), "labels holds -1"),
        (lambda: zoo.logistic([[1.0]], [1], 0.0), "prior_standard_deviation is 0"),
        (lambda: zoo.log_gaussian_cox([0.1, 0.2]), r"points has shape \(2,\)"),
        (lambda: zoo.log_gaussian_cox([[0.1, 1.2]]), r"points lie in \[0.1, 1.2\]"),
        (lambda: zoo.gaussian_mixture(2, separation=-1.0), "separation is -1"),
        (lambda: zoo.student_mixture(2, degrees_of_freedom=0.0), "degrees_of_freedom is 0"),
        (lambda: zoo.two_modes(2, -1.0), "distance is -1"),
        (lambda: zoo.two_modes(2, 1.0, 0.0), "width is 0"),
        (lambda: zoo.spike_and_slab(2, spike_weight=1.0), "spike_weight is 1"),
    ],
)
@pytest.mark.usefixtures("annotations_unchecked")
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("load", [zoo.logistic_ionosphere, zoo.logistic_credit, zoo.cox_pines])
def test_a_file_of_another_shape(load, tmp_path):
    (tmp_path / "other").write_text("a b\n1 2\n3 4\n")
    with pytest.raises(ValueError, match="path leads to a table of shape"):
        load(tmp_path / "other")
