"""Posteriors of real data: the density written out, and the evidence by importance sampling."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_within as within
from helpers import mean_and_error, shared_data
from scipy import stats

from pidjax import zoo


def test_log_gaussian_cox_is_the_density_written_out():
    places = np.random.default_rng(1).uniform(size=(30, 2))
    counts = np.histogram2d(*places.T, bins=5, range=[[0, 1], [0, 1]])[0].ravel()
    index = np.array([(i, j) for i in range(5) for j in range(5)])
    covariance = 1.91 * np.exp(-np.linalg.norm(index[:, None] - index, axis=-1) / (5 / 33))
    prior = stats.multivariate_normal(np.full(25, math.log(126) - 0.955), covariance)
    x = prior.rvs(3, random_state=0)
    expected = prior.logpdf(x) + x @ counts - np.exp(x).sum(1) / 25
    np.testing.assert_allclose(jax.vmap(zoo.log_gaussian_cox(places, 5).log_density)(x), expected, atol=1e-9)


def test_log_gaussian_cox_keeps_the_far_edge():
    counts = zoo.log_gaussian_cox([[1.0, 0.0], [0.0, 1.0], [0.0, 0.99]], 4).target.function.counts
    assert counts[12] == 1
    assert counts[3] == 2


def importance_sampled(known, centre, factor, noise, log_noise):
    """Draws centre + factor · noise, and their p̃/(q Z)."""
    samples = centre + noise @ factor.T
    log_weights = np.asarray(jax.lax.map(known.log_density, jnp.asarray(samples), batch_size=500))
    log_weights = log_weights - log_noise + np.linalg.slogdet(factor)[1]
    return samples, np.exp(log_weights - known.log_z)


@pytest.mark.extended
@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.parametrize(
    ("make", "name"),
    [(zoo.logistic_ionosphere, "ionosphere.csv"), (zoo.logistic_credit, "german_credit_numeric.txt")],
)
def test_logistic_evidence_by_importance_sampling(make, name):
    """From a Student t: at the mode with its curvature, then with the moments found."""
    known, degrees = make(shared_data(name)), 30
    mode, curvature = np.zeros(known.dim), jax.jit(jax.hessian(known.log_density))
    for _ in range(20):
        mode = mode - np.linalg.solve(curvature(jnp.asarray(mode)), jax.grad(known.log_density)(jnp.asarray(mode)))
    centre, covariance = mode, np.linalg.inv(-np.asarray(curvature(jnp.asarray(mode))))
    law = stats.multivariate_t(np.zeros(known.dim), np.eye(known.dim), df=degrees, seed=0)
    for _ in range(3):
        noise = law.rvs(50_000)
        samples, weights = importance_sampled(known, centre, np.linalg.cholesky(covariance), noise, law.logpdf(noise))
        centre, covariance = np.average(samples, axis=0, weights=weights), np.cov(samples.T, aweights=weights)
    mean, error = mean_and_error(weights)
    assert error < 0.01
    within(mean, 1, math.hypot(error, 0.003 / 4))


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.extended
def test_cox_evidence_by_importance_sampling():
    """From the Gaussian of least KL(q ‖ p): precision C⁻¹ + diag λ, with the mean intensity λ = e^{m + v/2}/d under q."""
    known = zoo.cox_pines(shared_data("finnish_pines.csv"))
    density = known.target.function
    whitening, prior_mean = np.asarray(density.whitening), float(density.mean)
    prior, counts = whitening.T @ whitening, np.asarray(density.counts)
    mean, variance = np.full(known.dim, prior_mean), np.zeros(known.dim)
    for _ in range(12):
        intensity = np.exp(mean + variance / 2) / known.dim
        covariance = np.linalg.inv(prior + np.diag(intensity))
        mean = mean + covariance @ (counts - intensity - prior @ (mean - prior_mean))
        variance = np.diag(covariance)
    noise = np.random.default_rng(0).normal(size=(10_000, known.dim))
    log_noise = stats.norm.logpdf(noise).sum(1)
    weights = importance_sampled(known, mean, np.linalg.cholesky(covariance), noise, log_noise)[1]
    mean_weight, error = mean_and_error(weights)
    assert error < 0.1
    within(mean_weight, 1, math.hypot(error, 0.02 / 4))
