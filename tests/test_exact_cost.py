"""Exact costs, against published digits, quadrature in time and space, simulation, and finite differences."""

from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_within, mean_and_error
from protocols import plane_mixture, rich_protocol

import pidjax as pid
from pidjax import GaussianMixture, Samples, exact, harmonic, piecewise, zoo

FIGURES = [  # target, beta, total, kinetic: 40-digit quadrature of the project's notes
    (zoo.ada_regular, 0.0, 0.846600, None),
    (zoo.ada_regular, 1.0, 1.505765, 0.881014),
    (zoo.ada_regular, 2.0, 2.101276, None),
    (zoo.ada_regular, 10.0, 5.618716, 2.066048),
    (zoo.ada_perturbed_a, 0.0, 0.706339, None),
    (zoo.ada_perturbed_a, 1.0, 1.389647, None),
    (zoo.ada_perturbed_a, 2.0, 2.006665, None),
    (zoo.ada_perturbed_a, 10.0, 5.646100, None),
]


def in_time(function, edges, num_nodes=12):
    """∫ f dt by Gauss's rule on each piece."""
    nodes, weights = np.polynomial.legendre.leggauss(num_nodes)
    total = 0.0
    for first, last in pairwise(edges):
        times = first + (last - first) * (nodes + 1) / 2
        total += (last - first) / 2 * np.sum(weights * np.asarray(jax.lax.map(function, jnp.asarray(times))))
    return total


def mean_square_control(target, protocol, nodes):
    """t ↦ E|u*(t, x_t)|², from the control at a point and the law at that time."""

    def at(t):
        law = exact.marginal(target, protocol, t)
        return exact.expectation(law, lambda x: jnp.sum(pid.Problem(target, protocol).at(t, x).control ** 2), nodes)

    return eqx.filter_jit(at)


@pytest.mark.parametrize(("target", "beta", "total", "kinetic"), FIGURES)
def test_published_costs(target, beta, total, kinetic):
    costs = jitted_costs(target().target, harmonic(beta, noise_scale=1.0))
    np.testing.assert_allclose(costs.total, total, atol=6e-7)
    if kinetic is not None:
        np.testing.assert_allclose(costs.kinetic, kinetic, atol=6e-7)


@eqx.filter_jit
def jitted_costs(target, protocol):
    return exact.costs(target, protocol)


@pytest.mark.parametrize("beta", [0.0, 10.0])
def test_published_costs_in_float32(beta):
    truth = {0.0: 0.846600, 10.0: 5.618716}[beta]
    protocol = harmonic(jnp.float32(beta), noise_scale=jnp.float32(1))
    costs = jitted_costs(zoo.ada_regular(jnp.float32).target, protocol)
    assert all(part.dtype == jnp.float32 for part in costs)
    np.testing.assert_allclose(costs.total, truth, rtol=2e-6)


@pytest.mark.slow
def test_relative_entropy_without_potential():
    """β = 0: C is the relative entropy of the target to N(x₀, I); here of one Gaussian, for a point and a Gaussian start."""
    mean, covariance, start = jnp.array([0.5, -1.0]), jnp.array([[0.5, 0.2], [0.2, 0.8]]), jnp.array([0.1, 0.3])
    target = GaussianMixture(mean[None], covariance[None])
    for protocol, spread in (
        (harmonic(0.0, start=start, noise_scale=1.0), 1.0),
        (harmonic(0.0, start=pid.GaussianStart(start, 0.7), noise_scale=1.0), 1.7),
    ):
        distance = np.sum((np.asarray(mean) - start) ** 2)
        truth = 0.5 * ((np.trace(covariance) + distance) / spread - 2 - np.log(np.linalg.det(covariance) / spread**2))
        np.testing.assert_allclose(exact.costs(target, protocol).total, truth, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("beta", [-5.0, 0.0, 30.0])
def test_costs_do_not_depend_on_the_pieces(beta):
    """The closed form of one piece, and two equal pieces by propagators, on either side of β = 0."""
    target, start = plane_mixture(), jnp.array([0.3, -0.2])
    one, two = (
        exact.costs(target, protocol, entropy=2.0)
        for protocol in (
            harmonic(beta, start=start, noise_scale=1.0),
            piecewise(jnp.full(2, beta), start=start, noise_scale=1.0),
        )
    )
    np.testing.assert_allclose(jnp.stack(two), jnp.stack(one), rtol=1e-10, atol=1e-12)


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.parametrize("until", [pytest.param(1.0, marks=pytest.mark.extended), 0.7])
@pytest.mark.extended
def test_kinetic_and_potential_cost_by_quadrature(until):
    """∫ ½E|u*|² dt and ∫ E V dt under the exact law, by Gauss's rule in time."""
    target, protocol, nodes = plane_mixture(), rich_protocol(), exact.lattice(2, 40)
    costs = exact.costs(target, protocol, until=until, nodes=exact.lattice(2, 96))
    edges = [0, 0.5, until]
    kinetic = 0.5 * in_time(mean_square_control(target, protocol, nodes), edges)
    np.testing.assert_allclose(costs.kinetic, kinetic, rtol=2e-6)

    def potential(t):
        k = (t >= 0.5).astype(int)

        def value(x):
            offset = x - protocol.centre[k]
            return 0.5 * offset @ protocol.beta[k] @ offset + protocol.linear[k] @ x + protocol.constant[k]

        return exact.expectation(exact.marginal(target, protocol, t), value, nodes)

    np.testing.assert_allclose(costs.potential, in_time(potential, edges), rtol=1e-8)
    np.testing.assert_allclose(exact.potential_cost(target, protocol, until=until), costs.potential, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.extended
def test_costs_of_simulated_paths():
    """Kinetic, potential and gauge cost of 4,000 ancestral paths: sums over 200 steps, ∘dx by the trapezoidal rule."""
    target, protocol = plane_mixture(), rich_protocol()
    solution = pid.sample(
        jax.random.key(0), target, protocol=protocol, grid=pid.uniform_grid(200), num_samples=4000, save_paths=True
    )
    states, times = np.asarray(solution.states), np.asarray(solution.times)
    piece = (times[:-1] >= 0.5).astype(int)
    beta, centre, linear, constant = (
        np.asarray(leaf)[piece] for leaf in (protocol.beta, protocol.centre, protocol.linear, protocol.constant)
    )
    matrix, vector = np.asarray(protocol.gauge.matrix)[piece], np.asarray(protocol.gauge.vector)[piece]

    def potential(x):
        offset = x - centre
        return 0.5 * np.einsum("nki,kij,nkj->nk", offset, beta, offset) + np.sum(linear * x, -1) + constant

    before, after = states[:, :-1], states[:, 1:]
    potentials = np.mean(0.5 * (potential(before) + potential(after)), axis=1)
    middle = np.einsum("kij,nkj->nki", matrix, 0.5 * (before + after)) + vector
    gauges = np.sum(middle * (after - before), axis=(1, 2))
    costs = exact.costs(target, protocol)
    for values, truth in ((potentials, costs.potential), (gauges, costs.gauge)):
        assert_within(*(lambda mean, error: (mean, truth, error))(*mean_and_error(values)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("noise_scale", "until"),
    [
        (None, 0.8),
        (0.8, None),
        pytest.param(None, None, marks=pytest.mark.extended),
        pytest.param(0.8, 0.8, marks=pytest.mark.extended),
    ],
)
def test_quadratic_cost_by_quadrature(noise_scale, until):
    """A matrix Q around its own centre, under a scalar β, on a horizon of two."""
    target, edges = plane_mixture(), jnp.array([0.0, 0.5, 2.0])
    protocol = piecewise(
        jnp.array([1.0, 4.0]), edges=edges, centre=jnp.array([[0.3, 0.1], [-0.2, 0.4]]), noise_scale=noise_scale
    )
    stiffness = jnp.array([[[2.0, 0.5], [0.5, 1.0]], [[1.0, -0.2], [-0.2, 0.7]]])
    centre = jnp.array([[1.0, -1.0], [0.5, 0.0]])

    def value(t):
        k = (t >= 0.5).astype(int)
        law = exact.marginal(target, protocol, t)
        offset = law.mean() - centre[k]
        return 0.5 * offset @ stiffness[k] @ offset + 0.5 * jnp.sum(stiffness[k] * law.covariance())

    end = 2.0 if until is None else until
    truth = in_time(value, [0, 0.5, end])
    np.testing.assert_allclose(exact.quadratic_cost(target, protocol, stiffness, centre, until=until), truth, rtol=1e-9)

    def distance(t):
        k = (t >= 0.5).astype(int)
        law = exact.marginal(target, protocol, t)
        return jnp.sum((law.mean() - protocol.centre[k]) ** 2) + jnp.trace(law.covariance())

    np.testing.assert_allclose(
        exact.guide_cost(target, protocol, until=until), in_time(distance, [0, 0.5, end]), rtol=1e-9
    )


@pytest.mark.slow
def test_costs_of_a_data_set():
    """Before the end a data set's cost is finite: its kinetic part is ∫ ½E|u*|² dt, its potential ∫ ½β E|x|² dt."""
    target = Samples(jnp.array([[-1.0], [0.2], [1.5]]), jnp.array([0.5, 0.2, 0.3]))
    protocol = harmonic(3.0, start=jnp.array([0.3]), noise_scale=1.0)
    costs = exact.costs(target, protocol, until=0.8)
    kinetic = 0.5 * in_time(mean_square_control(target, protocol, exact.lattice(1, 200)), [0, 0.8], 20)
    np.testing.assert_allclose(costs.kinetic, kinetic, rtol=1e-8)

    def second_moment(t):
        law = exact.marginal(target, protocol, t)
        return law.mean()[0] ** 2 + law.covariance()[0, 0]

    np.testing.assert_allclose(costs.potential, 1.5 * in_time(second_moment, [0, 0.8]), rtol=1e-10)
    np.testing.assert_allclose(
        exact.potential_cost(target, protocol), 1.5 * in_time(second_moment, [0, 1 - 1e-12]), rtol=1e-9
    )
    with pytest.raises(ValueError, match="entropy is −∞"):
        exact.costs(target, protocol)


@pytest.mark.slow
@pytest.mark.extended
def test_gradients_by_finite_differences():
    """Of the kinetic cost, in the stiffness, the centre and the target's means."""
    target, protocol = plane_mixture(), rich_protocol()
    nodes = exact.lattice(2, 24)
    pick = lambda pair: (pair[1].beta, pair[1].centre, pair[0].means)  # noqa: E731
    directions = [jnp.array([[[0.3, 0.1], [0.1, -0.2]], [[0.1, 0.2], [0.2, 0.5]]]), jnp.full((2, 2), 0.7), jnp.eye(2)]

    @eqx.filter_jit
    def kinetic(step):
        moved = [leaf + step * by for leaf, by in zip(pick((target, protocol)), directions, strict=True)]
        mixture, process = eqx.tree_at(pick, (target, protocol), tuple(moved))
        return exact.costs(mixture, process, nodes=nodes).kinetic

    slope = jax.grad(kinetic)(jnp.array(0.0))
    h = 1e-4
    difference = (kinetic(jnp.array(h)) - kinetic(jnp.array(-h))) / (2 * h)
    np.testing.assert_allclose(slope, difference, rtol=1e-6)


@pytest.mark.slow
def test_slopes_in_time_hold_at_the_end():
    """Of the cost until t and of the law at t, where the covariance of the bridge is zero and its slope is not."""
    target, protocol = plane_mixture(), harmonic(1.0, noise_scale=1.0)

    def cost(t):
        return exact.costs(target, protocol, until=t, entropy=1.0).total

    def variances(t):
        return exact.marginal(target, protocol, t).covariances

    for function, derivative in ((cost, jax.grad(cost)), (variances, jax.jacfwd(variances))):
        h, end = 1e-5, jnp.array(1.0)
        backward = (3 * function(end) - 4 * function(end - h) + function(end - 2 * h)) / (2 * h)
        np.testing.assert_allclose(derivative(end), backward, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_protocol_of_another_precision_and_the_slope_in_a_start():
    target = plane_mixture()
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), target)
    known = exact.guide_cost(target, harmonic(1.0, noise_scale=1.0))
    np.testing.assert_allclose(exact.guide_cost(single, harmonic(1.0, noise_scale=1.0)), known, rtol=1e-5)

    def cost(variance):
        start = pid.GaussianStart(jnp.zeros(2), variance)
        return exact.potential_cost(target, harmonic(-0.5, start=start, noise_scale=1.0))

    h, at = 1e-5, jnp.array(0.3)
    np.testing.assert_allclose(jax.grad(cost)(at), (cost(at + h) - cost(at - h)) / (2 * h), rtol=1e-7)
