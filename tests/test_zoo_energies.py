"""Energies of wells, particles and fields: log Z and moments by quadrature and importance sampling."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_within as within
from helpers import mean_and_error
from scipy import integrate, stats

from pidjax import zoo
from pidjax.learning import centred_basis
from pidjax.zoo.particles import integrals


@pytest.mark.parametrize(
    ("known", "printed"),
    [
        (lambda: zoo.double_well(5, 5, 4.0), -0.5410555),
        (lambda: zoo.double_well(50, 5, 2.0), 5 * math.log(1.3404451) + 22.5 * math.log(2 * math.pi)),
        (lambda: zoo.double_well(7, 3, 3.0), 3 * math.log(1.0482476) + 2 * math.log(2 * math.pi)),
        (lambda: zoo.many_well(16), 164.69568),
    ],
)
def test_wells_have_the_printed_log_z(known, printed):
    assert known().log_z == pytest.approx(printed, abs=6e-6)


def test_wells_by_adaptive_quadrature():
    for known, log_well, reach in (
        (zoo.double_well(1, 1, 2.5), lambda x: -((x**2 - 2.5) ** 2), 4.0),
        (zoo.many_well(1), lambda x: x / 2 + 6 * x**2 - x**4, 5.0),
    ):
        mass, moment = (
            integrate.quad(lambda x, f=f, w=log_well: f(w(x)) * math.exp(w(x)), -reach, reach, epsabs=1e-12, limit=500)[
                0
            ]
            for f in (lambda value: 1.0, lambda value: value)
        )
        rest = known.dim - 1
        assert known.log_z == pytest.approx(math.log(mass) + rest / 2 * math.log(2 * math.pi), abs=1e-9)
        entropy = math.log(mass) - moment / mass + rest / 2 * math.log(2 * math.pi * math.e)
        assert known.entropy == pytest.approx(entropy, abs=1e-9)


def test_many_well_draws_have_the_printed_moments():
    samples = zoo.many_well(16).sample(jax.random.key(7), 5_000)[:, ::2].ravel()
    for values, truth in ((samples > 0, 0.8443071), (samples, 1.18796), ((samples - 1.18796) ** 2, 1.54855)):
        mean, error = mean_and_error(values)
        within(mean, truth, error)


def pairs_written_out(positions):
    """Σ_{i<j} 4 (r_ij − 4)² − 0.9 (r_ij − 4)⁴ of positions, shape (…, 4, 2)."""
    distances = np.linalg.norm(positions[..., :, None, :] - positions[..., None, :, :], axis=-1)
    return np.sum((4 * (distances - 4) ** 2 - 0.9 * (distances - 4) ** 4)[..., *np.triu_indices(4, 1)], axis=-1)


def test_particles_are_those_of_the_formula_and_turn_and_are_renumbered():
    known, basis, rng = zoo.double_well_particles(), np.asarray(centred_basis(4)), np.random.default_rng(0)
    log_density = eqx.filter_jit(known.log_density)
    for positions in rng.normal(0, 3, (3, 4, 2)):
        turn = stats.ortho_group.rvs(2, random_state=rng)
        for same in (positions, positions @ turn.T, positions[[2, 0, 3, 1]]):
            z = jnp.asarray((basis.T @ same).ravel())
            assert float(log_density(z)) == pytest.approx(pairs_written_out(positions), rel=1e-9)


def test_particles_may_coincide():
    known = zoo.double_well_particles()
    for z in (jnp.zeros(6), jnp.asarray(centred_basis(4).T @ jnp.array([[0.0, 0], [0, 0], [3, 1], [1, 4]])).ravel()):
        value, slope = jax.jit(jax.value_and_grad(known.log_density))(z)
        assert jnp.isfinite(value)
        assert jnp.isfinite(slope).all()


def test_particles_log_z_by_importance_sampling():
    """Places beside the first particle, of distances from two Gaussians and directions at random: dz = da db dc/4."""
    rng, number = np.random.default_rng(0), 400_000
    nearer = rng.integers(2, size=(number, 3))
    distances = np.abs(np.where(nearer, 2.51, 5.49) + 0.4 * rng.normal(size=nearer.shape))
    angles = rng.uniform(0, 2 * math.pi, nearer.shape)
    others = distances[..., None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    by_distance = (stats.norm.pdf(distances, 2.51, 0.4) + stats.norm.pdf(distances, 5.49, 0.4)) / 2
    log_proposal = np.sum(np.log(by_distance / (2 * math.pi * distances)), axis=1)
    log_density = pairs_written_out(np.concatenate([np.zeros((number, 1, 2)), others], axis=1))
    mean, error = mean_and_error(np.exp(log_density - log_proposal - math.log(4) - zoo.double_well_particles().log_z))
    assert error < 0.03
    within(mean, 1, error)


def test_particles_integrals_are_those_of_a_finer_grid():
    np.testing.assert_allclose(integrals(), integrals(0.1, 0.08), atol=1e-9)


PHI4 = {0.0: (-196.912221, 0.0), 0.025: (-193.664446, -7.79175), 0.05: (-189.641034, -15.57006),
        0.075: (-185.538805, -23.31944), 0.1: (-181.362334, -31.01099)}  # fmt: skip


@pytest.mark.parametrize("b", PHI4)
def test_phi4_has_the_printed_truths(b):
    known = zoo.phi4(b)
    assert (known.log_z, known.log_phase_ratio) == pytest.approx(PHI4[b], abs=6e-6)


def test_phi4_log_z_by_importance_sampling():
    """At b = 0.1 one phase has all the mass but e^−31: a Gaussian at its mode, from the formula as printed."""
    rng, b = np.random.default_rng(0), 0.1

    def log_density(x):
        path = np.pad(x, [*[(0, 0)] * (x.ndim - 1), (1, 1)])
        return -20 * (5 * np.sum(np.diff(path) ** 2, -1) + 0.1 * np.sum((1 - x**2) ** 2 / 4 + b * x, -1))

    springs = 200 * (2 * np.eye(100) - np.eye(100, k=1) - np.eye(100, k=-1))
    mode = -np.ones(100)
    for _ in range(50):
        precision = springs + np.diag(2 * (3 * mode**2 - 1))
        step = np.linalg.solve(springs + np.diag(4 * mode**2), springs @ mode - 2 * (1 - mode**2) * mode + 2 * b)
        mode = mode - step
    factor = np.linalg.cholesky(np.linalg.inv(precision))
    noise = rng.normal(size=(5_000, 100))
    samples = mode + noise @ factor.T
    log_proposal = stats.norm.logpdf(noise).sum(1) - np.log(np.diag(factor)).sum()
    log_weights = log_density(samples) - log_proposal
    known = zoo.phi4(b)
    np.testing.assert_allclose(
        jax.vmap(known.log_density)(jnp.asarray(samples[:5])), log_density(samples[:5]), atol=1e-9
    )
    mean, error = mean_and_error(np.exp(log_weights - known.log_z))
    assert error < 0.05
    within(mean, 1, error)


@pytest.mark.slow
def test_phi4_draws_have_the_phase_ratio():
    known = zoo.phi4(0.005)
    middle = known.sample(jax.random.key(8), 4_000)[:, 40:60]
    up, down = jnp.mean(jnp.all(middle > 0, axis=1)), jnp.mean(jnp.all(middle < 0, axis=1))
    within(jnp.log(up / down), known.log_phase_ratio, math.sqrt((1 / up + 1 / down) / 4_000))
