"""Published figures of schedules on the 3 × 3 grids, from our paths, exactly, and as printed: within their sampling errors."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_within

import pidjax as pid
from pidjax import diagnostics, exact, learning, zoo

pytestmark = [pytest.mark.slow, pytest.mark.optimised]

KEY = jax.random.key(0)
NODES = exact.lattice(2, 28)


def perturbed_b():
    """The grid perturbed as `zoo.ada_perturbed_a`, from seed 20241006."""
    rng = np.random.default_rng(20241006)
    lattice = zoo.ada_regular().target.means + rng.uniform(-0.5, 0.5, (9, 2))
    deviations, weights = 0.3 * rng.uniform(0.5, 2, 9), rng.uniform(0.5, 1.5, 9)
    return pid.GaussianMixture.isotropic(lattice, jnp.asarray(deviations**2), jnp.asarray(weights))


TARGETS = {
    "regular": lambda: zoo.ada_regular().target,
    "perturbed A": lambda: zoo.ada_perturbed_a().target,
    "perturbed B": perturbed_b,
}


def pieces(*betas):
    """Eight equal pieces of [0, 1]."""
    return pid.piecewise(jnp.repeat(jnp.array(betas), 8 // len(betas)), noise_scale=1.0)


@functools.cache
def paths_to(name, beta):
    """2000 paths at constant β, as many as the published figures are from."""
    protocol = pid.harmonic(beta, noise_scale=1.0)
    return diagnostics.ensemble(
        pid.sample(
            KEY, TARGETS[name](), protocol=protocol, num_samples=2000, grid=pid.uniform_grid(200), save_paths=True
        )
    )


def regular_weighted_state_correlation(beta, t):
    """Â(t) on the regular grid, a product of two equal mixtures on the line: 1-d quadrature at the signal-to-noise ratio K."""
    root = np.sqrt(beta)
    snr = root * np.sinh(root * t) / (np.sinh(root) * np.sinh(root * (1 - t)))
    means, mode_variance = np.array([-1.5, 0.0, 1.5]), 0.09
    seen_variance = mode_variance + 1 / snr
    x = np.linspace(-1.5 - 10 * np.sqrt(seen_variance), 1.5 + 10 * np.sqrt(seen_variance), 4001)
    densities = np.exp(-((x[:, None] - means) ** 2) / (2 * seen_variance)) / np.sqrt(2 * np.pi * seen_variance) / 3
    component_means = means + mode_variance / seen_variance * (x[:, None] - means)
    density = densities.sum(axis=1)
    weighted_state = (densities * component_means).sum(axis=1) / np.maximum(density, 1e-300)
    return np.trapezoid(density * weighted_state**2, x) / (1.5 + mode_variance)


@pytest.mark.parametrize("beta", [2.0, 6.0])
def test_sharpness_by_quadrature_on_the_line(beta):
    times = np.linspace(0, 1, 201)
    curve = np.array([0.0, *(regular_weighted_state_correlation(beta, t) for t in times[1:-1]), 1.0])
    found = diagnostics.autocorrelations(paths_to("regular", beta))
    truth = np.trapezoid(1 - np.abs(2 * curve - 1), times)
    assert_within(found.sharpness.value, truth, found.sharpness.standard_error)
    assert_within(found.transition_time.value, np.interp(0.5, curve, times), found.transition_time.standard_error)


def test_published_sharpness():
    """S + 10 (t* − ½)₊² of constant and learned protocols, within the sampling error of 2000 paths at constant β = 6."""
    paths = paths_to("regular", 6.0)
    square = jnp.sum(paths.weighted_states**2, axis=-1)

    def objective(means):
        curve = means[0] / means[1]
        late = jnp.maximum(exact.transition_time(paths.times, curve) - 0.5, 0)
        return jnp.trapezoid(1 - jnp.abs(2 * curve - 1), paths.times) + 10 * late**2

    found = diagnostics.average((square, square[:, -1]), paths, objective)
    known = eqx.filter_jit(
        lambda target, protocol: learning.sharpness(target, protocol, late_penalty=10.0, nodes=NODES)
    )
    assert_within(found.value, known(TARGETS["regular"](), pieces(6.0)), found.standard_error)
    published = {
        "regular": {(6.0,): 0.4127, (5.0,): 0.4113, (7.25, 4.5): 0.4013, (7.25, 7.25, 4.5, 4.25): 0.4006},
        "perturbed A": {
            (6.0,): 0.4157,
            (5.5,): 0.4160,
            (7.5, 5.0): 0.4067,
            (7.5, 8.5, 6.5, 2.0): 0.3957,
            (7.5, 7.5, 9.5, 9.5, 9.0, 6.5, 0.001, 2.0): 0.3873,
        },
        "perturbed B": {
            (6.0,): 0.4060,
            (5.5,): 0.4056,
            (7.25, 4.5): 0.3968,
            (7.25, 8.0, 6.0, 1.5): 0.3868,
            (7.25, 7.25, 9.5, 10.0, 10.0, 6.0, 0.001, 1.0): 0.3744,
        },
    }
    for name, rows in published.items():
        for betas, value in rows.items():
            assert_within(value, known(TARGETS[name](), pieces(*betas)), found.standard_error)


@pytest.mark.parametrize(("name", "published"), [("regular", 3.048), ("perturbed A", 2.999), ("perturbed B", 3.159)])
def test_published_energy_efficiency(name, published):
    """∫ E[−log p(x_t)] dt at β = 12."""
    target = TARGETS[name]()
    found = diagnostics.energy_efficiency(paths_to(name, 12.0), target.log_density).state
    known = learning.energy(target, pid.harmonic(12.0, noise_scale=1.0), nodes=NODES)
    assert_within(found.value, known, found.standard_error)
    assert_within(published, known, found.standard_error)


@pytest.mark.extended
def test_control_gradient():
    """∫ E‖∂u*/∂x‖² dt over the window [.05, .95] from the paths, against quadrature under the exact law."""
    target, protocol = TARGETS["perturbed A"](), pid.harmonic(3.0, noise_scale=1.0)
    paths = diagnostics.ensemble(
        pid.sample(KEY, target, protocol=protocol, num_samples=2000, grid=pid.uniform_grid(20), save_paths=True)
    )
    found = diagnostics.sensitivity(target, protocol, paths).frobenius_squared
    window = paths.times[1:-1]
    known = learning.control_gradient(target, protocol, num_times=19, nodes=exact.lattice(2, 60))
    # The errors at different times are correlated in an unknown way: added, they bound the error of the integral.
    error = jnp.trapezoid(found.standard_error[1:], window)
    assert_within(jnp.trapezoid(found.value[1:], window), known, error)
