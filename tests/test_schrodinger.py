"""Bridges between two laws: the closed form by its equation and its limits, Sinkhorn's by others' iterations, both by paths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from helpers import assert_within, mean_and_error

import pidjax as pid
from pidjax.process.unit import LogGreen, started

KEY = jax.random.key(9)
DIM = 3
TURN = jnp.array([[0.0, 0.8, 0.1], [-0.5, 0.3, 0.0], [0.2, 0.0, -0.4]])
RICH = pid.harmonic(
    jnp.diag(jnp.array([0.5, 1.0, 2.0])), noise_scale=0.8, horizon=1.3, force=(TURN, jnp.array([0.3, 0.0, -0.2]))
)
FIRST = pid.GaussianMixture(jnp.ones((1, DIM)), (jnp.eye(DIM) + 0.3)[None])
LAST = pid.GaussianMixture(-jnp.ones((1, DIM)), (jnp.diag(jnp.array([0.3, 1.0, 2.0])) + 0.1)[None])


def joint(bridge):
    across = bridge.coupling.across
    return jnp.block([[FIRST.covariances[0], across], [across.T, LAST.covariances[0]]])


@pytest.mark.extended
def test_the_gaussian_coupling_is_phi_g_phi():
    """log π = log φ₀ + log G + log φ₁: −(the joint precision's corner) is ∂²log G/∂x∂y; and the joint law is positive."""
    bridge = pid.schrodinger_bridge(FIRST, LAST, RICH)
    mixed = jax.jacfwd(jax.grad(LogGreen.of(RICH, jnp.zeros(DIM))), argnums=1)(jnp.zeros(DIM), jnp.zeros(DIM))
    covariance = joint(bridge)
    np.testing.assert_allclose(-jnp.linalg.inv(covariance)[:DIM, DIM:], mixed, atol=1e-12)
    assert jnp.linalg.eigvalsh(covariance)[0] > 0


def test_without_noise_it_is_optimal_transport():
    """β = 0, σ → 0: Cov(x₀, y) → Σ₀ T, T = Σ₀^−½ (Σ₀^½ Σ₁ Σ₀^½)^½ Σ₀^−½."""
    bridge = pid.schrodinger_bridge(FIRST, LAST, pid.harmonic(0.0, noise_scale=1e-4))
    root = scipy.linalg.sqrtm(np.asarray(FIRST.covariances[0]))
    inner = scipy.linalg.sqrtm(root @ np.asarray(LAST.covariances[0]) @ root)
    np.testing.assert_allclose(bridge.coupling.across, root @ inner @ np.linalg.inv(root), atol=1e-6)


@pytest.mark.extended
@pytest.mark.slow
def test_gaussian_paths_have_both_laws_and_the_control_leads_along_them():
    """Moments at both ends at 4 sigma; and E[x_{t+dt} − x_t | x_t] = (f + u*) dt, regressed on x_t with the control's slope."""
    bridge = pid.schrodinger_bridge(FIRST, LAST, RICH)
    number = 20_000
    paths = bridge.sample(KEY, number, pid.uniform_grid(200))
    for states, law in ((paths[:, 0], FIRST), (paths[:, -1], LAST)):
        white = jnp.linalg.solve(law.factors[0], (states - law.means[0][None]).T).T
        assert_within(jnp.mean(white, axis=0), 0, 1 / np.sqrt(number))
        assert_within(white.T @ white / number, jnp.eye(DIM), np.sqrt((1 + np.eye(DIM)) / number))
    step, k = 1.3 / 200, 90
    now, change = paths[:, k], (paths[:, k + 1] - paths[:, k]) / step
    drift = jax.vmap(lambda x: bridge.at(k * step, x).control + TURN @ x + jnp.array([0.3, 0.0, -0.2]))(now)
    residual = change - drift
    for weight in (jnp.ones(number), *scipy.stats.zscore(np.asarray(now)).T):
        terms = residual * weight[:, None]
        assert_within(jnp.mean(terms, axis=0), 0, jnp.std(terms, axis=0) / np.sqrt(number) + 0.5 * step)


@pytest.mark.slow
def test_data_at_both_ends():
    """Both marginals exactly, by chi-square at 4 sigma; the coupling is a fixed point; x̂ at a start is its row's mean."""
    first = pid.zoo.nine().sample(jax.random.key(1), 60)
    last = 2 * jax.random.normal(jax.random.key(2), (40, 2)) + jnp.array([[1.0, 0.0]])
    weights = jnp.linspace(1.0, 2.0, 40)
    protocol = pid.harmonic(0.1, noise_scale=3.0)
    bridge = pid.schrodinger_bridge(pid.Samples(first), pid.Samples(last, weights), protocol)
    coupling = bridge.coupling
    assert coupling.error < 1e-4
    log_green = LogGreen.of(protocol, first[0])
    costs = -jax.vmap(lambda x: jax.vmap(lambda y: log_green(x, y))(last))(first)
    kernel = np.exp(-np.asarray(costs - jnp.min(costs)))
    left, right = np.full(60, 1 / 60), np.asarray(weights / jnp.sum(weights))
    scale = np.ones(40)
    for _ in range(1000):
        other = left / (kernel @ scale)
        scale = right / (kernel.T @ other)
    known = other[:, None] * kernel * scale
    rows = jax.vmap(lambda x: coupling.weights(x))(first)
    np.testing.assert_allclose(rows / 60, known, atol=1e-6)
    np.testing.assert_allclose(bridge.at(0.0, first[7]).weighted_state, rows[7] @ last, atol=1e-5)
    paths = bridge.sample(KEY, 4000, pid.uniform_grid(5))
    for states, points, shares in ((paths[:, 0], first, left), (paths[:, -1], last, right)):
        nearest = np.argmin(np.sum((np.asarray(states)[:, None] - np.asarray(points)[None]) ** 2, axis=2), axis=1)
        np.testing.assert_allclose(states, points[nearest], atol=1e-9)
        counts = np.bincount(nearest, minlength=len(points))
        statistic, freedom = np.sum((counts - 4000 * shares) ** 2 / (4000 * shares)), len(points) - 1
        assert abs(statistic - freedom) < 4 * np.sqrt(2 * freedom)


def test_the_cost_of_gaussians_is_the_mean_of_that_from_each_start():
    """E_μ₀ C(x₀) of a quadratic C, by points with the moments of μ₀; and the duals are what the densities leave."""
    bridge = pid.schrodinger_bridge(FIRST, LAST, RICH)
    moves = np.sqrt(DIM) * FIRST.factors[0].T
    starts = jnp.concatenate([FIRST.means + moves, FIRST.means - moves])

    def cost_from(x):
        return pid.exact.costs(bridge.coupling.given(x), started(RICH, x)).total

    costs = jax.vmap(cost_from)(starts)
    entropy = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * np.asarray(LAST.covariances[0]))[1]
    np.testing.assert_allclose(bridge.cost - entropy, np.mean(costs), atol=1e-9)
    x, y = jnp.array([0.3, 2.0, -1.0]), jnp.array([-2.0, 0.1, 0.4])
    pair = np.concatenate([x - FIRST.means[0], y - LAST.means[0]])
    whole = scipy.stats.multivariate_normal(cov=joint(bridge)).logpdf(pair)
    left = whole - FIRST.log_density(x) - LAST.log_density(y) - LogGreen.of(RICH, x)(x, y)
    np.testing.assert_allclose(sum(bridge.duals(x, y)), left, atol=1e-9)


def blend_of_normals(x):
    return 0.3 * np.exp(-0.5 * ((x + 1.5) / 0.4) ** 2) / 0.4 + 0.7 * np.exp(-0.5 * ((x - 1) / 0.6) ** 2) / 0.6


@pytest.mark.extended
def test_a_quadratic_state_cost_between_densities_on_a_lattice():
    """Teter, Wang & Halder: their kernel and recursion, in NumPy, beside the data set of the lattice's points."""
    stiffness = np.array([[2.0, 0.7], [0.7, 1.0]])
    root = scipy.linalg.sqrtm(stiffness)
    axis = np.linspace(-3, 3, 19)
    points = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    first = blend_of_normals(points[:, 0]) * np.exp(-0.5 * (points[:, 1] - 0.5 * points[:, 0]) ** 2)
    last = np.exp(-3 * (np.linalg.norm(points, axis=1) - 1.5) ** 2)
    first, last = first / first.sum(), last / last.sum()

    def kernel(x, y, time):
        sinh, cosh = scipy.linalg.sinhm(root * time), scipy.linalg.coshm(root * time)
        within, across = root @ cosh @ np.linalg.inv(sinh), root @ np.linalg.inv(sinh)
        quadratic = np.einsum("ni,ij,nj->n", x, within, x)[:, None] + np.einsum("ni,ij,nj->n", y, within, y)[None]
        scale = np.sqrt(np.linalg.det(across)) / (2 * np.pi)
        return scale * np.exp(x @ across @ y.T - 0.5 * quadratic)

    whole, backward = kernel(points, points, 1.0), np.ones(len(points))
    for _ in range(2000):
        forward = first / (whole @ backward)
        backward = last / (whole.T @ forward)
    bridge = pid.schrodinger_bridge(
        pid.Samples(jnp.array(points), jnp.array(first)),
        pid.Samples(jnp.array(points), jnp.array(last)),
        pid.harmonic(jnp.array(stiffness), noise_scale=1.0),
    )
    for t, x in ((0.0, [-1.0, -1.0]), (0.4, [0.3, -0.8]), (0.9, [-1.2, 0.5])):
        step = 1e-4 * np.eye(2)
        places = np.concatenate([x + step, x - step])
        log_psi = np.log(kernel(places, points, 1 - t) @ backward)
        np.testing.assert_allclose(bridge.at(t, jnp.array(x)).control, (log_psi[:2] - log_psi[2:]) / 2e-4, atol=1e-4)
    shares = forward[:, None] * whole * backward
    costs = shares * (np.log(shares / np.outer(first, last)) - np.log(whole))
    np.testing.assert_allclose(bridge.cost, costs.sum(), atol=1e-4)


@pytest.mark.extended
def test_without_stiffness_it_is_entropic_transport():
    """ott-jax by itself: −log G = |x − y|²/2σ²T + (d/2) log 2πσ²T, at ε = 2σ²T; its entropy is to the counting measure."""
    from ott.geometry.pointcloud import PointCloud
    from ott.solvers import linear

    first, last = (jax.random.normal(key, (40, 2)) for key in jax.random.split(KEY))
    bridge = pid.schrodinger_bridge(pid.Samples(first), pid.Samples(last), pid.harmonic(0.0, noise_scale=0.7))
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        found = linear.solve(PointCloud(first, last, epsilon=2 * 0.7**2), threshold=1e-7, max_iterations=100_000)
        known, value = found.matrix, found.ent_reg_cost / (2 * 0.7**2)
    rows = jax.vmap(bridge.coupling.weights)(first)
    np.testing.assert_allclose(rows / 40, known, atol=1e-7)
    np.testing.assert_allclose(bridge.cost, value + 2 * np.log(40) + np.log(2 * np.pi * 0.7**2), atol=1e-5)


@pytest.mark.extended
def test_mixtures_in_one_dimension_against_a_lattice():
    """Cost, duals and control, as means over eight draws of points, at 4 s.e.; a mixture, and the same as a density."""
    points = np.linspace(-6, 6, 801)[:, None]
    blend = pid.GaussianMixture.isotropic(jnp.array([[-1.5], [1.0]]), jnp.array([0.16, 0.36]), jnp.array([0.3, 0.7]))
    wide = pid.GaussianMixture.isotropic(jnp.array([[-2.0], [2.0]]), 0.5)
    laws = [np.exp(jax.vmap(law.log_density)(jnp.array(points))) for law in (blend, wide)]
    weights = [law / law.sum() for law in laws]
    protocol = pid.harmonic(1.0, noise_scale=1.0)
    lattice = pid.schrodinger_bridge(*(pid.Samples(jnp.array(points), jnp.array(one)) for one in weights), protocol)
    x, y = jnp.array([0.4]), jnp.array([1.7])

    def facts(bridge):
        return jnp.stack([bridge.cost, sum(bridge.duals(x, y)), bridge.at(0.5, x).control[0]])

    keys = jax.random.split(KEY, 8)
    for start in (blend, pid.Density(lambda y: blend.log_density(y) + 3, 1)):
        found = [facts(pid.schrodinger_bridge(start, wide, protocol, key=key, num_points=800)) for key in keys]
        mean, error = mean_and_error(found)
        assert_within(mean, facts(lattice), error)
        assert (error < 0.1).all()


@pytest.mark.extended
def test_weights_mend_the_ends_of_fresh_starts():
    """Few points of μ₀ make a poor π, whose ends miss the second law: by more than 6 s.e. alone, by less than 4 weighted."""
    first = pid.GaussianMixture.isotropic(jnp.array([[-1.5], [1.5]]), 0.3)
    last, number = pid.Samples(jnp.linspace(-2, 2, 30)[:, None]), 4000
    bridge = pid.schrodinger_bridge(first, last, pid.harmonic(0.0, noise_scale=1.0), key=KEY, num_points=6)
    paths = bridge.sample(KEY, number, pid.uniform_grid(2))
    starts, ends = paths[:, 0, 0], paths[:, -1, 0]
    modes = scipy.stats.norm([-1.5, 1.5], np.sqrt(0.3))
    assert scipy.stats.kstest(starts, lambda x: modes.cdf(x[:, None]).mean(1)).pvalue > 1e-4
    error = np.std(ends) / np.sqrt(number)
    assert abs(np.mean(ends)) > 6 * error
    weights = jax.nn.softmax(bridge.log_weights(paths))
    assert 1 / jnp.sum(weights**2) > number / 2
    assert_within(weights @ ends, 0, error)
    other = pid.schrodinger_bridge(last, first, pid.harmonic(0.0, noise_scale=1.0), key=KEY, num_points=6)
    np.testing.assert_array_equal(other.log_weights(other.sample(KEY, 10, pid.uniform_grid(2))), 0)


@pytest.mark.extended
@pytest.mark.optimised
@pytest.mark.parametrize("kind", ["data", "mixture"])
def test_nine_to_two_moons(kind):
    """Ends by chi-square on twenty cells at 4 sigma; W2 to held-out data is that of the data drawn again, at 4 s.e."""
    datasets = pytest.importorskip("sklearn.datasets")

    def moons(seed):
        return jnp.array(3 * datasets.make_moons(1500, noise=0.08, random_state=seed)[0]) - 1

    nine, data, number = pid.zoo.nine().target, moons(0), 500
    start = pid.Samples(nine.sample(KEY, 1500)) if kind == "data" else nine
    protocol = pid.harmonic(0.5, noise_scale=2.0)
    bridge = pid.schrodinger_bridge(start, pid.Samples(data), protocol, key=KEY, num_points=1500)
    paths = bridge.sample(KEY, 4000, pid.uniform_grid(4))
    weights = jax.nn.softmax(bridge.log_weights(paths))
    assert 1 / jnp.sum(weights**2) > 0.95 * len(paths)
    edges = jnp.quantile(data[:, 0], jnp.linspace(0, 1, 21)[1:-1])
    counts = 4000 * np.bincount(jnp.digitize(paths[:, -1, 0], edges), weights=np.asarray(weights), minlength=20)
    statistic = np.sum((counts - 200) ** 2 / 200)
    assert statistic < 19 + 4 * np.sqrt(2 * 19)
    if kind == "mixture":
        parts = np.bincount(jax.vmap(lambda x: jnp.argmax(nine.log_joint(x)))(paths[:, 0]), minlength=9)
        shares = 4000 * np.asarray(nine.weights)
        assert np.sum((parts - shares) ** 2 / shares) < 8 + 4 * np.sqrt(2 * 8)
    differences = []
    for seed, key in enumerate(jax.random.split(KEY, 6)):
        fresh = moons(seed + 1)[:number]
        key_paths, key_data = jax.random.split(key)
        drawn = paths[jax.random.choice(key_paths, 4000, (number,), p=weights), -1]
        again = data[jax.random.choice(key_data, len(data), (number,))]
        differences.append(pid.metrics.wasserstein2(drawn, fresh) - pid.metrics.wasserstein2(again, fresh))
    assert_within(*mean_and_error(differences)[:1], 0, mean_and_error(differences)[1])


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((FIRST, LAST, pid.harmonic()), "protocol must have a noise_scale, and no start"),
        (
            (FIRST, LAST, pid.harmonic(noise_scale=1.0, start=jnp.zeros(3))),
            "protocol must have a noise_scale, and no start",
        ),
        (
            (FIRST, pid.Samples(jnp.ones((2, 3))), RICH),
            "start is a GaussianMixture, of which points are drawn: pass a key",
        ),
        ((FIRST, 3, RICH), "end is a int; pass a GaussianMixture"),
        ((FIRST, pid.GaussianMixture.isotropic(jnp.zeros((1, 2)), 1.0), RICH), "start has dimension 3 but end 2"),
        (
            (FIRST, pid.GaussianMixture.isotropic(jnp.zeros((2, 3)), 1.0), RICH),
            "start is a GaussianMixture, of which points are drawn: pass a key",
        ),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(ValueError, match=message):
        pid.schrodinger_bridge(*arguments)
