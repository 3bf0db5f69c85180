"""Step rules: what is exact is exact, the order of what is not, and the figures the three mixtures must reach."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_within, mean_and_error

from pidjax import (
    Ancestral,
    Euler,
    GaussianMixture,
    Moment,
    Problem,
    harmonic,
    log_snr_grid,
    rollout,
    uniform_grid,
    zoo,
)
from pidjax.process.bridge import observe

KEY = jax.random.key(17)
UNIT = harmonic(1.0, start=jnp.zeros(2), noise_scale=1.0)


def mixture():
    covariances = jnp.array([[[0.3, 0.1], [0.1, 0.2]], [[0.6, 0.0], [0.0, 0.1]]])
    return GaussianMixture(jnp.array([[-1.2, 0.0], [1.0, 0.7]]), covariances, jnp.array([0.3, 0.7]))


@eqx.filter_jit
def run(target, protocol, grid, rule, count):
    prepared = Problem(target, protocol).prepare(grid)
    paths = rollout(prepared, rule, KEY, jnp.arange(count))
    return prepared.unit.from_unit(paths.samples), paths.log_weights


def step_at(bridges, k):
    return jax.tree.map(lambda leaf: leaf[k], bridges)


def proposal_at(rule, prepared, now, x):
    law = prepared.target.tilt(observe(now.observation, x, prepared.unit.start))
    return rule.proposal(law, now, x)


@pytest.mark.slow
def test_euler_moves_along_the_control():
    prepared = Problem(mixture(), UNIT).prepare(uniform_grid(4))
    now, x = step_at(prepared.step_laws, 1), jnp.array([0.3, -0.2])
    proposal = proposal_at(Euler(), prepared, now, x)
    np.testing.assert_allclose(proposal.mean, x + 0.25 * Problem(mixture(), UNIT).at(0.25, x).control, rtol=1e-12)
    np.testing.assert_allclose(proposal.factor, 0.5, rtol=1e-15)


@pytest.mark.slow
@pytest.mark.parametrize("rule", [Euler(), Moment()], ids=repr)
def test_a_draw_comes_with_its_density(rule):
    prepared = Problem(mixture(), UNIT).prepare(uniform_grid(4))
    proposal = proposal_at(rule, prepared, step_at(prepared.step_laws, 1), jnp.array([0.3, -0.2]))
    after, log_density = proposal.draw(KEY)
    covariance = np.eye(2) * proposal.factor**2 if proposal.factor.ndim == 0 else proposal.factor @ proposal.factor.T
    residual = np.array(after - proposal.mean)
    exact = -0.5 * (residual @ np.linalg.solve(covariance, residual) + np.linalg.slogdet(2 * np.pi * covariance)[1])
    np.testing.assert_allclose([log_density, proposal.log_density(after)], exact, rtol=1e-12)


@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_ancestral_is_exact(num_steps):
    """Mean, covariance and component weights of the target in any number of steps; log W = 0 for each path."""
    target = mixture()
    samples, log_weights = run(target, UNIT, uniform_grid(num_steps), Ancestral(), 10_000)
    assert jnp.all(log_weights == 0)
    mean, error = mean_and_error(samples)
    assert_within(mean, target.mean(), error)
    offsets = np.array(samples) - np.array(target.mean())
    covariance, error = mean_and_error(offsets[:, :, None] * offsets[:, None, :])
    assert_within(covariance, target.covariance(), error)
    weights, error = mean_and_error(eqx.filter_jit(jax.vmap(responsibilities, (None, 0)))(target, samples))
    assert_within(weights, target.weights, error)


def responsibilities(target, y):
    log_normal = jax.scipy.stats.multivariate_normal.logpdf
    log_joint = jnp.stack(
        [log_normal(y, mean, cov) for mean, cov in zip(target.means, target.covariances, strict=True)]
    )
    return jax.nn.softmax(jnp.log(target.weights) + log_joint)


@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_moment_is_exact_for_a_gaussian(num_steps):
    """log W is zero, path by path, not on average."""
    gaussian = GaussianMixture(mixture().means[:1], mixture().covariances[:1])
    _, log_weights = run(gaussian, UNIT, uniform_grid(num_steps), Moment(), 100)
    np.testing.assert_allclose(log_weights, 0, atol=1e-11)


@pytest.mark.slow
def test_weak_order_of_euler():
    """For a Gaussian target the chain is linear, x' = A x + B + √dt z, so its end variance is known without sampling.

    Its error is c₁/K + c₂/K² + c₃/K³ + …, so the order p_K seen between K and 2K is 1 + s/(2 ln 2) + O(s²), with
    s = c₂/(c₁K). Hence p_K − p_2K = s/(4 ln 2), and 2p_2K − p_K = 1 up to s²(9/16)/ln 2 = 9 ln 2 (p_K − p_2K)² if
    |c₁c₃| ≤ c₂². The rate c₂/c₁ is at most 1/0.3, which is steeper than the control of this target ever is.
    """
    gaussian = GaussianMixture.isotropic(jnp.array([[0.7]]), 0.3)
    protocol = harmonic(1.0, start=jnp.zeros(1), noise_scale=1.0)

    @eqx.filter_jit
    def error(grid):
        prepared = Problem(gaussian, protocol).prepare(grid)

        def after(now, x):
            return proposal_at(Euler(), prepared, now, x)

        def recede(variance, now):
            slope = jax.jacfwd(lambda x: after(now, x).mean)(jnp.full(1, 0.2))[0, 0]
            return slope**2 * variance + after(now, jnp.full(1, 0.2)).factor ** 2, None

        first = step_at(prepared.step_laws, 0)
        variance = after(first, prepared.unit.start).factor ** 2
        rest = jax.tree.map(lambda leaf: leaf[1:], prepared.step_laws)
        return jax.lax.scan(recede, variance, rest)[0] - 0.3

    numbers = np.array([40, 80, 160, 320])
    errors = np.abs([error(uniform_grid(int(num_steps))) for num_steps in numbers])
    orders = np.log2(errors[:-1] / errors[1:])
    limits, differences = 2 * orders[1:] - orders[:-1], orders[:-1] - orders[1:]
    assert np.all(np.abs(limits - 1) <= 9 * np.log(2) * differences**2), (orders, limits)
    assert np.all(np.abs(differences) <= 1 / 0.3 / numbers[:2] / (4 * np.log(2))), orders


@pytest.mark.slow
def test_entropy_order_of_euler():
    """KL(controlled ‖ optimal) = −E log W = ½∫E|u_K − u*|²dt falls as 1/K: along a path u* is Hölder of order ½."""
    losses = [
        mean_and_error(-run(mixture(), UNIT, uniform_grid(num_steps), Euler(), 4000)[1]) for num_steps in (16, 64)
    ]
    (coarse, coarse_error), (fine, fine_error) = losses
    assert_within(np.log(coarse / fine) / np.log(4), 1, np.hypot(coarse_error / coarse, fine_error / fine) / np.log(4))


@pytest.mark.slow
def test_a_discrete_draw_has_no_derivative():
    def loss(mean):
        target = GaussianMixture.isotropic(mean[None], 0.3)
        return rollout(Problem(target, UNIT).prepare(uniform_grid(2)), Ancestral(), KEY, jnp.arange(2)).samples.sum()

    with pytest.raises(TypeError, match="discrete draw"):
        jax.grad(loss)(jnp.zeros(2))


KNOWN = {"nine": zoo.nine, "grid25": zoo.grid25, "gmm40": zoo.gmm40}


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.slow
def test_ancestral_is_at_the_floor_with_five_steps(name):
    """Component weights and E[−log p] of 4,000 samples are as near to the truth as those of exact ones."""
    known, count = KNOWN[name](), 4000
    samples, log_weights = run(known.target, harmonic(), log_snr_grid(5), Ancestral(), count)

    @eqx.filter_jit
    def distance(known, y):
        shares = jnp.mean(jax.vmap(known.responsibilities)(y), axis=0)
        return 0.5 * jnp.sum(jnp.abs(shares - known.mode_weights)), -jax.vmap(known.log_density)(y)

    floors = [distance(known, known.sample(jax.random.key(seed), count))[0] for seed in range(12)]
    reached, energies = distance(known, samples)
    assert jnp.all(log_weights == 0)
    assert reached <= np.mean(floors) + 4 * np.std(floors, ddof=1)
    mean, error = mean_and_error(energies)
    assert_within(mean, known.entropy, error)


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.slow
def test_moment_on_twenty_steps(name):
    """ESS/N ≥ 0.8 and the weighted E[−log p] within 0.05 of the entropy, on the default log-SNR grid."""
    known, count = KNOWN[name](), 4000
    samples, log_weights = run(known.target, harmonic(), log_snr_grid(20), Moment(), count)
    weights = np.array(jax.nn.softmax(log_weights))
    energies = -np.array(jax.jit(jax.vmap(known.log_density))(samples))
    assert 1 / np.sum(weights**2) >= 0.8 * count
    assert abs(weights @ energies - known.entropy) <= 0.05
