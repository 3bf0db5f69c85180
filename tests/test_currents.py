"""Currents on cells: a vortex in a harmonic well in closed form; the equation of continuity."""

import jax.numpy as jnp
import numpy as np
import pytest

import pidjax as pid
from pidjax.general import Box, Cost, Process, currents, solve

TURN = jnp.array([[0.0, -1.0], [1.0, 0.0]])
STIFFNESS, VELOCITY = 1.0, 1.5
START = jnp.array([1.0, 0.5])


def square(cells):
    return Box([-4.0, -4.0], [4.0, 4.0], (cells, cells))


def test_a_vortex_in_a_harmonic_well():
    """x ~ N(m, s I), m = e^{−kt} R(ωt) x₀, 2ks = 1 − e^{−2kt}: J/p = (ωR − k)m + (ωR + 1/2s − k)(x − m), at second order."""
    vortex = Process(force=lambda t, x: VELOCITY * TURN @ x - STIFFNESS * x)
    variance = (1 - np.exp(-2 * STIFFNESS)) / (2 * STIFFNESS)
    square_mean = np.exp(-2 * STIFFNESS) * float(START @ START)
    circulation = VELOCITY * (square_mean + 2 * variance)
    spreading = VELOCITY**2 + (1 / (2 * variance) - STIFFNESS) ** 2
    production = 2 * ((VELOCITY**2 + STIFFNESS**2) * square_mean + 2 * variance * spreading)
    errors = []
    for cells in (24, 48):
        solved = solve(vortex, square(cells), Cost(lambda y: 0 * y[0]), start=START, num_steps=cells**2 // 12)
        found = currents(solved)
        errors.append([found.circulation[-1, 0, 1] - circulation, found.entropy_production[-1] - production])
        np.testing.assert_array_equal(found.circulation, -jnp.swapaxes(found.circulation, 1, 2))
    errors = np.abs(np.array(errors))
    assert (errors[1] < 0.02 * np.array([circulation, production])).all()
    assert (errors[1] < 0.35 * errors[0]).all()


@pytest.mark.extended
def test_what_flows_is_what_changes():
    """∂p/∂t = −∇·J at half time, under a control, with gauge and force: both errors fall with the steps."""
    process = Process(
        potential=lambda t, x: jnp.sum(x**4) / 4, force=lambda t, x: TURN @ x, gauge=lambda t, x: jnp.sin(x)
    )
    target = pid.GaussianMixture.isotropic(jnp.array([[-1.0, 1.0], [1.5, 0.0]]), 0.3)
    errors = []
    for cells in (32, 64):
        solved = solve(process, square(cells), target, num_steps=cells**2 // 16)
        flux, half = currents(solved).flux, solved.num_steps // 2
        step = solved.times[1]
        change = (solved.marginals[half + 1] - solved.marginals[half - 1]) / (2 * step * solved.box.volume)
        divergence = sum(jnp.gradient(flux[half, ..., axis], solved.box.spacing[axis], axis=axis) for axis in (0, 1))
        errors.append(float(jnp.max(jnp.abs(change + divergence)) / jnp.max(jnp.abs(change))))
    assert errors[1] < 0.35 * errors[0] < 0.2


def test_what_is_not_solved_is_told():
    with pytest.raises(ValueError, match=r"solved is a Box; pass what general.solve gives"):
        currents(square(4))
