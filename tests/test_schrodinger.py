"""Bridges between two laws: the closed form by its equation and its limit, Sinkhorn's by its marginals, both by paths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from helpers import assert_within

import pidjax as pid
from pidjax.process.unit import LogGreen

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


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((FIRST, LAST, pid.harmonic()), "protocol must have a noise_scale, and no start"),
        (
            (FIRST, LAST, pid.harmonic(noise_scale=1.0, start=jnp.zeros(3))),
            "protocol must have a noise_scale, and no start",
        ),
        ((FIRST, pid.Samples(jnp.ones((2, 3))), RICH), "start is a GaussianMixture and end a Samples; pass two"),
        ((FIRST, pid.GaussianMixture.isotropic(jnp.zeros((1, 2)), 1.0), RICH), "start has dimension 3 but end 2"),
        (
            (FIRST, pid.GaussianMixture.isotropic(jnp.zeros((2, 3)), 1.0), RICH),
            "end has 2 components; pass one Gaussian",
        ),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(ValueError, match=message):
        pid.schrodinger_bridge(*arguments)
