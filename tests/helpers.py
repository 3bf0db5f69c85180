"""What several tests share: comparison within a standard error, an independent reference in many digits, quadrature."""

import contextlib
import itertools
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from scipy import special
from scipy.stats import halfcauchy, norm

from pidjax import GaussianMixture


@contextlib.contextmanager
def as_a_user():
    """JAX's own defaults in place of the tests' strictness."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def shared_data(name):
    """The path of a file of real data; the test is skipped where it is missing."""
    path = Path(os.environ.get("PIDJAX_DATA", Path(__file__).parents[2] / "shared" / "data")) / name
    if not path.exists():
        pytest.skip(f"{name} is not here; set PIDJAX_DATA to its folder")
    return path


def assert_within(estimate, truth, standard_error, sigmas=4):
    """Every |estimate − truth| is at most `sigmas` standard errors."""
    estimate, truth, standard_error = (np.asarray(value, dtype=float) for value in (estimate, truth, standard_error))
    distance = np.abs(estimate - truth)
    assert np.all(distance <= sigmas * standard_error), (
        f"estimate {estimate}, truth {truth}: {distance / standard_error} standard errors away, allowed {sigmas}"
    )


def mean_and_error(values):
    """The mean over the leading axis and its standard error."""
    values = np.asarray(values, dtype=float)
    return values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(len(values))


def exact_cosine(beta, duration):
    """C(β, τ) = cosh(√β τ) in 40 digits."""
    with mpmath.workdps(40):
        return mpmath.re(mpmath.cosh(mpmath.sqrt(mpmath.mpf(beta)) * duration))


def exact_sine(beta, duration):
    """S(β, τ) = sinh(√β τ)/√β in 40 digits."""
    with mpmath.workdps(40):
        beta = mpmath.mpf(beta)
        return (
            mpmath.mpf(duration)
            if beta == 0
            else mpmath.re(mpmath.sinh(mpmath.sqrt(beta) * duration) / mpmath.sqrt(beta))
        )


def exact_log_green(beta, x, y, duration):
    """log G(x → y; τ) in one dimension, in 40 digits."""
    with mpmath.workdps(40):
        sine, cosine = exact_sine(beta, duration), exact_cosine(beta, duration)
        x, y = mpmath.mpf(x), mpmath.mpf(y)
        return -mpmath.log(2 * mpmath.pi * sine) / 2 - (cosine * (x**2 + y**2) - 2 * x * y) / (2 * sine)


def grid_quadrature(low, high, count, dim):
    """Points (count^dim, dim) of a uniform lattice and the volume of its cell: exact for what vanishes at its edge."""
    axis = np.linspace(low, high, count)
    points = np.stack(np.meshgrid(*[axis] * dim, indexing="ij"), axis=-1).reshape(-1, dim)
    return points, (axis[1] - axis[0]) ** dim


EFFECTS, ERRORS = np.array([28.0, 8, -3, 7, -1, 1, 18, 12]), np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
"""Of Rubin's eight schools."""


def eight_schools():
    """(μ, log τ) on a lattice, log p̃ there with the schools integrated out, y_i ~ N(μ, σ_i² + τ²), and log Z."""
    points, cell = grid_quadrature(-30.0, 30.0, 1201, 2)
    mu, log_tau = points.T
    tau = np.exp(log_tau)
    log_p = norm.logpdf(mu, 0, 5) + halfcauchy.logpdf(tau, scale=5) + log_tau
    for effect, error in zip(EFFECTS, ERRORS):
        log_p += norm.logpdf(effect, mu, np.hypot(error, tau))
    return points, log_p, special.logsumexp(log_p) + np.log(cell)


def enumerated(model):
    """All configurations of a spin model and their log p̃, in NumPy, from the definition."""
    q, n = model.num_values, model.num_sites
    values = np.array(list(itertools.product(range(q), repeat=n)))
    fields, couplings = np.asarray(model.fields), np.asarray(model.couplings)
    log_weights = fields[np.arange(n)[None], values].sum(1)
    for e, (i, j) in enumerate(model.graph.edges):
        log_weights = log_weights + couplings[e][values[:, i], values[:, j]]
    return values, log_weights


def mixture_of(gaussians):
    """What a fit works with, as a target."""
    return GaussianMixture.of_factors(gaussians.means, gaussians.factors, jnp.exp(gaussians.log_weights))
