"""Exact laws and correlations, against quadrature, summation and simulation."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import grid_quadrature
from protocols import line_mixture, plane_mixture, rich_protocol

import pidjax as pid
from pidjax import GaussianMixture, Samples, exact, harmonic, zoo


@pytest.mark.parametrize("kind", ["harmonic", "rescaled", pytest.param("rich", marks=pytest.mark.slow)])
def test_law_of_the_state(kind):
    """p_t(x) = G(0, x₀ → t, x) ψ(t, x), and ∇log p_t = ∇log G + u* + A."""
    target = plane_mixture()
    protocol = {
        "harmonic": harmonic(2.0, start=jnp.array([0.3, 0.1]), noise_scale=1.0),
        "rescaled": harmonic(2.0, horizon=3.0),
        "rich": rich_protocol(),
    }[kind]
    t, x = 0.6 * float(protocol.horizon), jnp.array([0.4, -0.7])
    unit = pid.Problem(target, protocol).unit
    instant = unit.reference.instant(jnp.array(0.6), jnp.array(0.4))
    jacobian = -2 * jnp.log(unit.scale)

    def log_density(x):
        return (
            instant.log_green(unit.start, unit.to_unit(x)) + pid.Problem(target, protocol).at(t, x).log_psi + jacobian
        )

    law = exact.marginal(target, protocol, t)
    value, slope = jax.jit(jax.value_and_grad(log_density))(x)
    np.testing.assert_allclose(law.log_density(x), value, rtol=1e-10)
    np.testing.assert_allclose(exact.score(target, protocol, t, x), slope, rtol=1e-8)
    together = exact.marginals(target, protocol, jnp.array([0.2, 0.6]) * protocol.horizon)
    np.testing.assert_allclose(together.means[1], law.means, rtol=1e-12)
    np.testing.assert_allclose(together.covariances[1], law.covariances, rtol=1e-10)


@pytest.mark.slow
def test_law_at_the_end_and_of_a_data_set():
    target, protocol = plane_mixture(), rich_protocol()
    end = exact.marginal(target, protocol, 1.0)
    np.testing.assert_allclose(end.means, target.means, rtol=1e-12)
    np.testing.assert_allclose(end.covariances, target.covariances, rtol=1e-10)
    points = Samples(target.means, target.weights)
    narrow = GaussianMixture.isotropic(target.means, 1e-12, target.weights)
    law, close = (exact.marginal(one, protocol, 0.3) for one in (points, narrow))
    np.testing.assert_allclose(law.means, close.means, rtol=1e-12)
    np.testing.assert_allclose(law.covariances, close.covariances, rtol=1e-10)


@pytest.mark.extended
@pytest.mark.slow
def test_starts_of_their_own():
    """Two narrow laws of starts: the mean of the costs from two points, and the mixture of the two laws."""
    target, points = plane_mixture(), jnp.array([[0.5, 1.0], [-0.7, 0.2]])
    shares = jnp.array([0.25, 0.75])
    starts = GaussianMixture.isotropic(points, 1e-13, shares)
    protocol = rich_protocol()
    alone = [eqx.tree_at(lambda one: one.start, protocol, point) for point in points]
    together = exact.costs(target, protocol, starts=starts, entropy=1.0)
    separate = [exact.costs(target, one, entropy=1.0) for one in alone]
    for part in exact.Costs._fields:
        truth = sum(share * getattr(costs, part) for share, costs in zip(shares, separate, strict=True))
        np.testing.assert_allclose(getattr(together, part), truth, rtol=1e-9)
    law, x = exact.marginal(target, protocol, 0.4, starts=starts), jnp.array([0.1, 0.2])
    densities = jnp.stack([jnp.exp(exact.marginal(target, one, 0.4).log_density(x)) for one in alone])
    np.testing.assert_allclose(jnp.exp(law.log_density(x)), shares @ densities, rtol=1e-9)


@pytest.mark.extended
@pytest.mark.slow
def test_entropy():
    """In one dimension by summation; in five, where only one coordinate is bimodal; and the two known lattices."""
    mixture = line_mixture()
    points, cell = grid_quadrature(-8, 8, 4001, 1)
    log_density = np.asarray(jax.vmap(mixture.log_density)(jnp.asarray(points)))
    truth = -np.sum(np.exp(log_density) * log_density) * cell
    np.testing.assert_allclose(exact.entropy(mixture), truth, rtol=1e-12)
    wide = GaussianMixture(
        jnp.pad(mixture.means, ((0, 0), (0, 4))),
        jax.vmap(lambda one: jnp.diag(jnp.concatenate([one[0], jnp.ones(4)])))(mixture.covariances),
        mixture.weights,
    )
    np.testing.assert_allclose(exact.entropy(wide), truth + 2 * (1 + np.log(2 * np.pi)), atol=2e-4)
    for known, value, digits in ((zoo.nine(), 3.8312, 1e-4), (zoo.grid25(), 4.853, 5e-4), (zoo.gmm40(), 6.85947, 5e-6)):
        np.testing.assert_allclose(exact.entropy(known.target), value, atol=digits)


@pytest.mark.parametrize("nodes", [exact.lattice(1, 40), exact.lattice(3, 16), exact.sobol(6, 1024)])
def test_nodes_have_the_moments_of_a_normal_law(nodes):
    d = nodes.points.shape[1]
    tolerance = 5e-3 if d > 3 else 1e-6
    np.testing.assert_allclose(jnp.sum(nodes.weights), 1, rtol=1e-12)
    np.testing.assert_allclose(nodes.weights @ nodes.points, np.zeros(d), atol=1e-12)
    np.testing.assert_allclose((nodes.weights[:, None] * nodes.points).T @ nodes.points, np.eye(d), atol=4 * tolerance)
    np.testing.assert_allclose(nodes.weights @ jnp.cos(nodes.points[:, 0]), np.exp(-0.5), atol=tolerance)


@pytest.mark.slow
def test_correlations_by_summation():
    """A and Â in one dimension, both integrals summed on a lattice, β = 4 from x₀ = 0.3."""
    target, beta, start = line_mixture(), 4.0, 0.3
    times = np.array([0.3, 0.8])
    y, cell = (lambda points, cell: (points[:, 0], cell))(*grid_quadrature(-7, 7, 1401, 1))
    x = y[:, None]
    end_density = np.exp(np.asarray(jax.vmap(target.log_density)(jnp.asarray(y)[:, None])))
    second = np.sum(end_density * y**2) * cell
    state, weighted = [], []
    for t in times:
        total, before, after = (np.sinh(2 * duration) / 2 for duration in (1, t, 1 - t))
        mean = before / total * y + after / total * start
        variance = before * after / total
        joint = end_density * np.exp(-((x - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
        state.append(np.sum(joint * x * y) * cell**2 / second)
        marginal = joint.sum(axis=1) * cell
        expected = np.divide(joint @ y * cell, marginal, out=np.zeros_like(y), where=marginal > 1e-200)
        weighted.append(np.sum(marginal * expected**2) * cell / second)
    protocol = harmonic(beta, start=jnp.array([start]), noise_scale=1.0)
    np.testing.assert_allclose(exact.correlation(target, protocol, jnp.asarray(times)), state, rtol=1e-9)
    computed = exact.weighted_state_correlation(target, protocol, jnp.asarray(times))
    np.testing.assert_allclose(computed, weighted, rtol=1e-8)


def test_transition_time():
    times = jnp.array([0.0, 0.25, 0.5, 1.0])
    np.testing.assert_allclose(exact.transition_time(times, jnp.array([0.0, 0.2, 0.7, 1.0])), 0.25 + 0.25 * 0.6)
    assert exact.transition_time(times, jnp.array([0.6, 0.7, 0.8, 1.0])) == 0
    assert exact.transition_time(times, jnp.full(4, 0.1)) == 1
    assert jnp.isfinite(jax.grad(lambda curve: exact.transition_time(times, curve))(jnp.full(4, 0.6))).all()


def test_bad_input_is_named():
    target, protocol = plane_mixture(), harmonic(1.0, noise_scale=1.0)
    drawn = harmonic(1.0, start=pid.GaussianStart(jnp.zeros(2), 1.0), noise_scale=1.0)
    density = pid.Density(lambda y: -jnp.sum(y**2), 2)
    for call, words in (
        (lambda: exact.marginal(target, protocol, 0.0), "t is 0"),
        (lambda: exact.marginal(Samples(target.means), protocol, 1.0), "t is 1"),
        (lambda: exact.marginals(target, protocol, jnp.array([0.5, 0.2])), "times is"),
        (lambda: exact.marginals(target, protocol, jnp.array([0.5, 1.0])), "times is"),
        (lambda: exact.marginal(density, protocol, 0.5), "target is a Density"),
        (lambda: exact.marginal(target, drawn, 0.5, starts=target), "starts is given"),
        (lambda: exact.costs(target, protocol, starts=line_mixture()), "starts has dimension 1"),
        (lambda: exact.quadratic_cost(target, protocol, jnp.ones(2), jnp.zeros((2, 2))), "stiffness has shape"),
        (lambda: exact.lattice(0, 10), "dim is 0"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
