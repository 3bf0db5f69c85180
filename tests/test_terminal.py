"""Costs at the end: Riccati's equation, the exponential of a matrix, quadrature, the grid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg

import pidjax as pid
from pidjax import general

WIENER = pid.harmonic(0.0, noise_scale=1.0)


@pytest.mark.parametrize(("drift", "running", "last"), [(0.2, 0.2, 0.1), (1.0, 1.0, 0.5)], ids=["easy", "hard"])
def test_the_quadratic_regulator_is_exact(drift, running, last):
    """dx = (a x + u) dt + dW, cost ½|u|² + p|x|², at the end q|x|²: u* = −2 F(t) x, −F' = 2aF − 2F² + p, in d = 20.

    Source: Domingo-Enrich et al., *Stochastic optimal control matching*, arXiv 2312.02027, quadratic Ornstein–Uhlenbeck.
    """
    dim, rng = 20, np.random.default_rng(0)
    start = 0.5 * rng.normal(size=dim)
    force = drift * jnp.eye(dim), jnp.zeros(dim)
    protocol = pid.harmonic(2 * running, noise_scale=1.0, force=force, start=start)
    end = pid.quadratic_terminal_cost(2 * last * jnp.eye(dim), jnp.zeros(dim), protocol)
    problem = pid.Problem(end.target, protocol)
    riccati = scipy.integrate.solve_ivp(
        lambda _, y: [2 * drift * y[0] - 2 * y[0] ** 2 + running, y[0]],
        (0, 1),
        [last, 0.0],
        rtol=1e-13,
        atol=1e-15,
        dense_output=True,
    ).sol
    value, constant = riccati(1.0)
    assert end.log_z == pytest.approx(-(value * start @ start + dim * constant), abs=1e-10)
    for t in (0.0, 0.3, 0.9):
        x = rng.normal(size=dim) if t > 0 else start
        np.testing.assert_allclose(problem.at(t, jnp.array(x)).control, -2 * riccati(1 - t)[0] * x, atol=1e-10)


def test_a_linear_cost_under_a_linear_drift_is_exact():
    """dX = (A X + S u) dt + S dW, cost ωᵀX at the end: u* = −Sᵀ e^{Aᵀ(1−t)} ω, in d = 10, here of z = S⁻¹X.

    Source: as before, linear Ornstein–Uhlenbeck.
    """
    dim, rng = 10, np.random.default_rng(1)
    change = 0.1 * rng.normal(size=(dim, dim))
    drift, noise, cost = change - np.eye(dim), change + np.eye(dim), np.ones(dim)
    force = np.linalg.solve(noise, drift @ noise), np.zeros(dim)
    protocol = pid.harmonic(0.0, noise_scale=1.0, force=force)
    end = pid.quadratic_terminal_cost(jnp.zeros((dim, dim)), noise.T @ cost, protocol)
    problem = pid.Problem(end.target, protocol)
    for t in (0.0, 0.5, 0.95):
        x = rng.normal(size=dim) if t > 0 else np.zeros(dim)
        known = -noise.T @ scipy.linalg.expm(drift.T * (1 - t)) @ cost
        np.testing.assert_allclose(problem.at(t, jnp.array(x)).control, known, atol=1e-10)


def test_any_cost_in_other_units_against_a_normal_law_and_the_grid():
    """From x₀ = ½ over T = 2 with noise 0.7: Z = E e^{−c(x_T)}, x_T normal; with a stiffness, as `general.solve` has it."""

    def cost(y):
        return jnp.sum((y**2 - 1) ** 2) + 0.3 * jnp.sum(y)

    def mass(protocol):
        target = pid.terminal_cost(cost, 1, protocol)
        return np.trapezoid(jnp.exp(jax.vmap(target.log_density)(y[:, None])), y)

    y, width = np.linspace(-6, 6, 4001), 0.7 * np.sqrt(2)
    law = np.exp(-((y**2 - 1) ** 2) - 0.3 * y - 0.5 * ((y - 0.5) / width) ** 2) / (width * np.sqrt(2 * np.pi))
    free = pid.harmonic(0.0, noise_scale=0.7, horizon=2.0, start=jnp.array([0.5]))
    np.testing.assert_allclose(mass(free), np.trapezoid(law, y), rtol=1e-12)

    stiff = pid.harmonic(2.0, noise_scale=1.0, start=jnp.array([0.5]))
    process, box = general.Process(potential=lambda t, x: x @ x), general.Box([-5.0], [5.0], (400,))
    grid = general.solve(process, box, general.Cost(cost), start=jnp.array([0.5]), num_steps=100)
    np.testing.assert_allclose(mass(stiff), jnp.exp(grid.log_z), rtol=1e-3)


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pid.terminal_cost(lambda y: y, 2, WIENER), r"cost returns float64\[2\]"),
        (lambda: pid.terminal_cost(jnp.sum, 2, pid.harmonic()), "protocol has no noise_scale"),
        (
            lambda: pid.terminal_cost(
                jnp.sum, 2, pid.harmonic(noise_scale=1.0, start=pid.GaussianStart(jnp.zeros(2), jnp.eye(2)))
            ),
            "protocol has a GaussianStart",
        ),
        (lambda: pid.terminal_cost(jnp.sum, 3, pid.harmonic(jnp.eye(2), noise_scale=1.0)), "dimension"),
        (
            lambda: pid.quadratic_terminal_cost(jnp.eye(2), jnp.zeros(3), WIENER),
            r"matrix has shape \(2, 2\) and vector \(3,\)",
        ),
        (lambda: pid.quadratic_terminal_cost(jnp.array([[0, 1.0], [0, 0]]), jnp.zeros(2), WIENER), "not symmetric"),
        (
            lambda: pid.quadratic_terminal_cost(-2 * jnp.eye(2), jnp.zeros(2), WIENER),
            "a law without mass: .* eigenvalue -1",
        ),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(ValueError, match=message):
        make()
