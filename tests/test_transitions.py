"""The transitions of generation against closed forms, quadrature and published numbers; score-based diffusion on one clock."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_within
from numpy.polynomial.hermite_e import hermegauss
from scipy.optimize import brentq
from scipy.special import expit, ndtr

import pidjax as pid
from pidjax import diagnostics, exact, plot
from pidjax.process.bridge import Observation

KEY = jax.random.key(4)
BROWNIAN = pid.harmonic(0.0, noise_scale=1.0)
"""K = t/(1 − t)."""


def expected(function):
    """E f(z) of a standard normal z."""
    nodes, weights = hermegauss(150)
    return weights @ function(nodes) / np.sqrt(2 * np.pi)


def same_class(ratio, distance, variance):
    c = np.sqrt(distance**2 * ratio / (1 + ratio * variance))
    return expected(lambda z: expit(2 * c * (c + z)))


def test_speciation_and_collapse_by_theory():
    """The published values; the ratio in the time of an Ornstein–Uhlenbeck process, e^{2t} = 1 + 1/K, to 1e-5."""
    values = ((4660, 3072, 2.60295), (20_000, 256, 1.298790), (20_000, 1024, 1.977547), (50_000, 3072, 2.479540))
    for count, dim, time in values:
        ratio = exact.collapse_snr(jnp.full(dim, 2.5), count)
        assert ratio == pytest.approx((count ** (2 / dim) - 1) / 2.5, rel=1e-10)
        assert np.log1p(1 / (2.5 * float(ratio))) / 2 == pytest.approx(time, abs=1e-5)
    variances = np.geomspace(1e-6, 40, 70)
    root = brentq(lambda k: np.log1p(k * variances).sum() / 2 - np.log(900), 1e-9, 1e9, xtol=1e-14)
    slope = jax.grad(exact.collapse_snr)(jnp.array(variances), 900.0)
    change = -root / (1 + root * variances) / np.sum(variances / (1 + root * variances))
    assert exact.collapse_snr(jnp.array(variances), 900) == pytest.approx(root, rel=1e-9)
    np.testing.assert_allclose(slope, change, rtol=1e-7)
    assert exact.speciation_snr(jnp.array(variances)) == pytest.approx(1 / 40)


def test_spectra_of_weighted_data():
    rng = np.random.default_rng(0)
    points, weights, labels = rng.normal(size=(300, 20)), rng.uniform(size=300), rng.integers(0, 4, 300)
    points[labels == 2] += 3
    weights[::4] = 0
    data = pid.Samples(jnp.array(points), jnp.array(weights), labels=labels, chunk=70)
    w = weights / weights.sum()
    mean = w @ points
    total = (points - mean).T @ (w[:, None] * (points - mean))
    means = np.stack([w[labels == c] @ points[labels == c] / w[labels == c].sum() for c in range(4)])
    masses = np.array([w[labels == c].sum() for c in range(4)])
    between = (means - mean).T @ (masses[:, None] * (means - mean))
    np.testing.assert_allclose(exact.spectrum(data), np.linalg.eigvalsh(total), atol=1e-12)
    np.testing.assert_allclose(exact.spectrum(data, between_classes=True), np.linalg.eigvalsh(between)[-4:], atol=1e-12)


@pytest.mark.extended
@pytest.mark.parametrize("dim", [16, 64, 256, 1024, 4096])
def test_two_gaussians_in_any_dimension(dim):
    """P(same class) and the entropy of the class along the path, against one-dimensional quadrature."""
    mean = jax.random.normal(KEY, (1, dim)) * 1.5 / np.sqrt(dim)
    distance, variance, ratios = float(jnp.linalg.norm(mean)), 0.6, np.array([0.1, 0.5, 2.0, 8.0])
    target = pid.GaussianMixture.isotropic(jnp.concatenate([mean, -mean]), variance)
    points = target.sample(jax.random.key(1), 4000)
    found = diagnostics.transitions(
        KEY, target, points, protocol=BROWNIAN, grid=pid.at_times(jnp.array([0, *(ratios / (1 + ratios)), 1.0]))
    )
    np.testing.assert_allclose(found.snr, ratios, rtol=1e-10)
    truth = np.array([same_class(k, distance, variance) for k in ratios])
    np.testing.assert_allclose(exact.two_gaussians(jnp.array(ratios), distance, variance), truth, atol=1e-9)
    assert_within(found.class_agreement.value, truth, found.class_agreement.standard_error)
    c = np.sqrt(distance**2 * ratios / (1 + ratios * variance))
    entropy = [expected(lambda z, c=c: -np.log(expit(2 * c * (c + z)))) for c in c]
    assert_within(found.class_entropy.value, entropy, found.class_entropy.standard_error)


def test_formula_at_one():
    assert jax.grad(lambda ratio: exact.two_gaussians(ratio, 2.0, 3.0))(0.0) == pytest.approx(2.0, rel=1e-9)
    assert exact.two_gaussians(1.0, 1.0, 1e-30) == pytest.approx(0.775200, abs=5e-7)


def test_two_points_of_data():
    """Everything that is seen of y = ±1 as x moves: the agreement is that of two Gaussians without width."""
    data = pid.Samples(jnp.array([[-1.0], [1.0]]), labels=np.array([0, 1]))
    points = jnp.tile(data.points, (4000, 1))
    grid = pid.log_snr_grid(40, low=0.02, high=4.0)
    found = diagnostics.transitions(KEY, data, points, protocol=BROWNIAN, grid=grid)
    truth = np.array([same_class(k, 1.0, 0.0) for k in np.asarray(found.snr)])
    for agreement in (found.datum_agreement, found.class_agreement):
        assert_within(agreement.value, truth, agreement.standard_error)
    assert_within(found.weighted_state.value, 2 * truth - 1, found.weighted_state.standard_error)
    assert_within(found.error.value, 2 - 2 * truth, found.error.standard_error)
    assert_within(found.state.value, found.times, found.state.standard_error)
    half_way = brentq(lambda k: same_class(k, 1.0, 0.0) - 0.75, 0.1, 8.0)
    for crossing in (found.memorisation, found.speciation):
        assert_within(crossing.value, half_way, crossing.standard_error)
    assert found.effective_data.value[0] > 1.95


def test_information_grows_by_half_the_error():
    """dI/dK = ½E|y − x̂|², both by quadrature over the law of the observation, of weighted points in one dimension."""
    data = pid.Samples(jnp.array([[-1.5], [0.2], [0.5], [2.0]]), jnp.array([0.1, 0.4, 0.2, 0.3]))
    nodes, weights = hermegauss(100)
    weights = jnp.array(weights / weights.sum())

    def mean_of(function, ratio):
        def of_datum(y):
            values = jax.vmap(lambda z: function(y, data.tilt(Observation(jnp.sqrt(ratio), jnp.sqrt(ratio) * y + z))))
            return weights @ values(jnp.array(nodes)[:, None])

        return data.weights @ jax.vmap(of_datum)(data.points)

    left = jax.jit(jax.grad(lambda ratio: mean_of(lambda y, law: law.entropy, ratio)))
    error = jax.jit(lambda ratio: mean_of(lambda y, law: jnp.sum((y - law.mean) ** 2), ratio))
    for ratio in (0.1, 1.0, 3.0):
        assert left(ratio) == pytest.approx(-0.5 * float(error(ratio)), rel=1e-5)


def clustered(count=300, dim=20):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, count)
    points = rng.normal(size=(3, dim))[labels] + 0.5 * rng.normal(size=(count, dim))
    return pid.Samples(jnp.array(points), labels=labels)


PROTOCOLS = {
    "stiff": pid.harmonic(30.0, noise_scale=1.0),
    "diagonal": pid.harmonic(jnp.linspace(0, 3, 20), noise_scale=1.0),
    "pieces": pid.piecewise(jnp.array([1.0, 20.0, 3.0])),
    "preserving": pid.variance_preserving(jnp.zeros(20), variance=1.3, horizon=4.0),
    "exploding": pid.variance_exploding(jnp.zeros(20), 30.0),
}


@pytest.mark.parametrize(
    "name", [name if name == "preserving" else pytest.param(name, marks=pytest.mark.extended) for name in PROTOCOLS]
)
def test_the_clock_and_its_inverse(name):
    data, ratios = clustered(), jnp.array([[0.01, 0.3], [2.0, 70.0]])
    times = exact.time_at_snr(data, PROTOCOLS[name], ratios)
    np.testing.assert_allclose(
        exact.snr(data, PROTOCOLS[name], times.ravel()).reshape(2, 2), ratios, rtol=1e-6 if name == "stiff" else 1e-4
    )


def test_clocks_of_score_based_diffusion():
    """K = 1/(v(e^{2s} − 1)); K = 1/(σ²(1 − t)), too small by a share of at most σ²/S², as is said."""
    data, left = clustered(), jnp.array([3.0, 1.0, 0.2])
    ratios = exact.snr(data, PROTOCOLS["preserving"], 4 - left)
    np.testing.assert_allclose(ratios, 1 / (1.3 * np.expm1(2 * left)), rtol=1e-9)
    times = jnp.array([0.1, 0.5, 0.9])
    ratios = np.asarray(exact.snr(data, PROTOCOLS["exploding"], times)) * 900 * (1 - times)
    assert ((1 - 1e-4 < ratios) & (ratios < 1)).all()
    np.testing.assert_allclose(ratios, 1 - (1 - times) / (1e4 + 1), rtol=1e-9)


@pytest.mark.extended
def test_every_beta_decides_at_one_ratio():
    """The same K for every β, at a time that rises with β."""
    data, betas = clustered(), (0.0, 0.1, 1.0, 10.0, 100.0)
    found, times = [], []
    for number, beta in enumerate(betas):
        protocol = pid.harmonic(beta)
        one = diagnostics.transitions(
            jax.random.key(number), data, data.points, protocol=protocol, grid=pid.log_snr_grid(25, 0.01, 300.0)
        )
        found.append((one.speciation, one.memorisation))
        times.append([exact.time_at_snr(data, protocol, crossing.value) for crossing in found[-1]])
    assert (np.diff(np.array(times), axis=0) > 0).all()
    values, errors = (np.array([[crossing[part] for crossing in one] for one in found]) for part in (0, 1))
    assert_within(values[1:], values[:1], np.sqrt(errors[1:] ** 2 + errors[:1] ** 2))


@pytest.mark.extended
@pytest.mark.parametrize(
    ("rule", "finer"),
    [(pid.Ancestral(), 1), (pid.Flow(), 16)],
    ids=["reverse process", "probability flow"],
)
def test_score_based_diffusion_and_harmonic_on_one_clock(rule, finer):
    """Paths simulated by either have the order parameters of the process at each K, at 4 sigma.

    A path without noise begins at an early K, for its first step is the longest; it determines its end, and x̂ resembles that
    more than the process's.
    """
    fields, earlier, low, high = ["datum_entropy", "datum_agreement", "class_entropy", "class_agreement"], 0, 0.004, 4.0
    if isinstance(rule, pid.Flow):
        low, earlier = 4e-5, 4 * finer
    else:
        fields += ["weighted_state", "error"]
    data = clustered()
    points = data.points[jax.random.randint(jax.random.key(9), (4000,), 0, 300)]
    spread = data.place().spread
    truth = diagnostics.transitions(KEY, data, points, grid=pid.log_snr_grid(8, 0.004 * spread**2, 4 * spread**2))
    preserving = pid.variance_preserving(data.place().mean, horizon=6.0)
    for number, (protocol, unit) in enumerate(((pid.harmonic(3.0), spread**2), (preserving, 2 * 6.0))):
        grid = pid.log_snr_grid(earlier + 6 * finer + 2, low * unit, high * unit)
        solution = pid.sample(
            jax.random.key(number), data, protocol=protocol, num_samples=2000, rule=rule, grid=grid, save_paths=True
        )
        found = diagnostics.path_transitions(solution)
        np.testing.assert_allclose(found.snr[earlier::finer], truth.snr, rtol=1e-6)
        for field in fields:
            one, other = getattr(found, field), getattr(truth, field)
            errors = np.hypot(one.standard_error[earlier::finer], other.standard_error)
            assert_within(one.value[earlier::finer], other.value, errors)


@pytest.mark.extended
def test_transitions_of_digits():
    """The table of scikit-learn's digits, made with 600 queries (standard errors .02 of the shares, .01 of entropies)."""
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    points = digits.data / 16
    data = pid.Samples(jnp.array(points - points.mean(axis=0)), labels=digits.target)
    assert exact.spectrum(data)[-1] == pytest.approx(0.69886, abs=5e-6)
    chosen = jax.random.choice(KEY, data.points, (600,), replace=False)
    found = diagnostics.transitions(KEY, data, chosen, protocol=BROWNIAN, grid=pid.log_snr_grid(5, 1.0, 8.0))
    table = {
        "datum_agreement": (0.013, 0.061, 0.243, 0.575),
        "class_agreement": (0.341, 0.543, 0.810, 0.967),
        "datum_entropy": np.log(1797) * np.array([0.737, 0.556, 0.328, 0.141]),
    }
    for field, published in table.items():
        one = getattr(found, field)
        assert_within(one.value, published, np.sqrt(2) * np.asarray(one.standard_error))


def test_the_score_of_data():
    """∇ log p_t of points under a rescaled stiff process, against the gradient of the mixture of bridges."""
    data, protocol, x = clustered(), pid.harmonic(4.0), jnp.linspace(-1, 1, 20)
    score = exact.score(data, protocol, 0.7, x)
    np.testing.assert_allclose(score, jax.grad(exact.marginal(data, protocol, 0.7).log_density)(x), rtol=1e-9)


@pytest.mark.parametrize("protocol", ["harmonic", pytest.param("preserving", marks=pytest.mark.extended)])
def test_the_flow_keeps_quantiles(protocol):
    """In one dimension a path without noise stays at its quantile; the error falls as the step."""
    target = pid.GaussianMixture.isotropic(jnp.array([[-1.0], [2.0], [2.5]]), jnp.array([0.1, 0.3, 0.05]))
    process = pid.harmonic(2.0) if protocol == "harmonic" else pid.variance_preserving(jnp.zeros(1), horizon=3.0)

    def shares(law, x):
        normal = jax.scipy.special.ndtr((x - law.means[None, :, 0]) / jnp.sqrt(law.covariances[None, :, 0, 0]))
        return normal @ law.weights

    def error(num_steps):
        grid = pid.log_snr_grid(num_steps, 0.05, 5e4)
        run = pid.sample(KEY, target, protocol=process, num_samples=400, rule=pid.Flow(), grid=grid, save_paths=True)
        begun = shares(exact.marginal(target, process, run.times[1]), run.states[:, 1])
        return float(jnp.sqrt(jnp.mean((shares(target, run.samples) - begun) ** 2)))

    coarse, fine = error(100), error(200)
    assert coarse < 0.02
    assert coarse / fine == pytest.approx(2, abs=0.3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: diagnostics.transitions(KEY, pid.Density(jnp.sum, 2), jnp.zeros((3, 2))), "target is a Density"),
        (lambda: diagnostics.transitions(KEY, clustered(), jnp.zeros((3, 2))), r"points has shape \(3, 2\)"),
        (
            lambda: diagnostics.transitions(KEY, clustered(), jnp.zeros((3, 20)), grid=pid.log_snr_grid(1)),
            "grid has one step",
        ),
        (lambda: diagnostics.path_transitions(None), "solution is a NoneType; pass one from"),
        (lambda: exact.collapse_snr(jnp.ones(3), 1), "count is 1; pass more than one datum"),
        (lambda: exact.collapse_snr(jnp.zeros(3), 5), "variances has the maximum 0"),
        (lambda: exact.speciation_snr(1.0), r"variances has shape \(\)"),
        (lambda: exact.spectrum(pid.Density(jnp.sum, 2)), "target is a Density"),
        (lambda: exact.spectrum(pid.Samples(jnp.ones((2, 1))), between_classes=True), "target has no labels"),
        (lambda: exact.two_gaussians(-1.0, 1.0, 1.0), "ratio holds -1"),
        (lambda: exact.time_at_snr(clustered(), BROWNIAN, 0.0), "ratios holds 0; pass"),
        (lambda: exact.time_at_snr(clustered(), PROTOCOLS["preserving"], 3e-4), "from a Gaussian start the ratio is 0.000258"),
        (lambda: pid.variance_preserving(0.0), "mean has shape"),
        (lambda: pid.variance_exploding(jnp.zeros(2), 0.0), "deviation is 0"),
        (lambda: clustered().nearest(jnp.zeros(2)), "y has shape"),
        (lambda: diagnostics.uturns(KEY, clustered(), jnp.zeros((3, 20)), 1.0), r"ratios has shape \(\)"),
        (lambda: diagnostics.predictions(None), "solution is a NoneType; pass one from"),
        (lambda: plot.order_parameters([]), "panes is empty"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.extended
def test_turns_and_exits_agree_with_the_laws():
    """U-turns of data, and ends predicted from x̂, against what `transitions` and the posterior of two points say of them."""
    data = pid.Samples(jnp.array([[-1.0], [1.0]]), labels=np.array([0, 1]))
    points, ratios = jnp.tile(data.points, (4000, 1)), jnp.array([0.1, 1.0, 3.0])
    truth = np.array([same_class(k, 1.0, 0.0) for k in ratios])
    turned = diagnostics.uturns(KEY, data, points, ratios, protocol=BROWNIAN)
    np.testing.assert_allclose(turned.times, ratios / (1 + ratios), rtol=1e-12)
    for share in (turned.datum, turned.label):
        assert_within(share.value, truth, share.standard_error)
    assert_within(turned.change.value, 4 - 4 * truth, turned.change.standard_error)

    grid = pid.at_times(jnp.array([0.0, *(ratios / (1 + ratios)), 1.0]))
    solution = pid.sample(KEY, data, protocol=BROWNIAN, num_samples=4000, grid=grid, save_paths=True)
    found = diagnostics.predictions(solution)
    right = ndtr(np.sqrt(np.array([0.0, *ratios])))
    for share in (found.datum, found.label):
        assert_within(share.value, right, share.standard_error)
    assert_within(found.error.value, 4 - 4 * right, found.error.standard_error)

    paths = diagnostics.ensemble(solution)
    probabilities = diagnostics.class_probabilities(data, BROWNIAN, paths)
    decided = diagnostics.decisions(paths, probabilities)
    assert_within(decided.accuracy.value[1:-1], right[1:], decided.accuracy.standard_error[1:-1])
    np.testing.assert_allclose(probabilities.sum(axis=2), 1, atol=1e-12)
