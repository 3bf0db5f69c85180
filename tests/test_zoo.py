"""The facts of the zoo, each derived again by another route than the one that made the constant."""

import math
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pidjax import metrics, zoo

MIXTURES = [zoo.nine, zoo.grid25, zoo.gmm40, zoo.ada_regular, zoo.ada_perturbed_a]
SHARED_DATA = Path(os.environ.get("PIDJAX_DATA", Path(__file__).parents[2] / "shared" / "data"))


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
    path = SHARED_DATA / "gmm40_fab_means.csv"
    if not path.exists():
        pytest.skip("gmm40_fab_means.csv is not here; set PIDJAX_DATA to its folder")
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
