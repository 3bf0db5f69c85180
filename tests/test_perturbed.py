"""Perturbed harmonic processes: the chain of their steps by quadrature in two dimensions, and ten; closed forms; the grid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from helpers import assert_within, grid_quadrature

import pidjax as pid
from pidjax.general import Box, Cost, Perturbed, Process, bridges, nearest_harmonic, solve, steer
from pidjax.process.unit import LogGreen

KEY = jax.random.key(4)
STEPS = 3
WIENER = pid.harmonic(0.0, noise_scale=1.0)
STIFF = pid.harmonic(1.0, noise_scale=1.0)
ENDS = jnp.array([1.0, 0.5])
CHANGE = jnp.linalg.qr(jax.random.normal(KEY, (10, 10)))[0]
SWIRL = Process(
    potential=lambda t, x: (1 + t) * jnp.sum(x**4) / 4,
    force=lambda t, x: jnp.stack([jnp.sin(x[1]), x[0] * x[1]]),
    gauge=lambda t, x: jnp.stack([0.3 * x[0] * x[1], jnp.cos(x[0])]),
)


ORDERS = {
    "potential": (Process(potential=lambda t, x: jnp.sum(x**4) / 4 + 0.5 * jnp.sum(x**3)), 2),
    "gradients": (Process(force=lambda t, x: jnp.sin(2 * x), gauge=lambda t, x: jnp.cos(x)), 2),
    "vortex": (Process(force=lambda t, x: jnp.stack([-x[1], x[0]]) * 2 * jnp.exp(-x @ x / 4)), 1),
}


def five(field):
    """Five independent copies in coordinates that mix all of them."""
    return lambda t, x: CHANGE.T @ jax.vmap(lambda part: field(t, part))((CHANGE @ x).reshape(5, 2)).ravel()


def exact_log_z(points):
    """log Z of the chain of three steps from the origin to |y − ENDS|², by quadrature, with divergences by hand."""
    x, volume = grid_quadrature(-3.5, 3.5, points, 2)
    x = np.concatenate([x, np.zeros((1, 2))])
    step, between = 1 / STEPS, 0.5 * (x[:, None] + x[None])
    squares = np.sum(x**2, -1)
    log_green = 2 * x @ x.T - np.cosh(step) * (squares[:, None] + squares[None])
    log_green = log_green / (2 * np.sinh(step)) - np.log(2 * np.pi * np.sinh(step))

    def force(x):
        return np.stack([np.sin(x[..., 1]), x[..., 0] * x[..., 1]], -1)

    def drift(x):
        return force(x) - np.stack([0.3 * x[..., 0] * x[..., 1], np.cos(x[..., 0])], -1)

    def rate(t):
        excess = (1 + t) * np.sum(x**4, -1) / 4 - 0.5 * np.sum(x**2, -1)
        return excess + 0.5 * x[:, 0] + 0.5 * np.sum(force(x) ** 2, -1)

    mean_drift = (drift(x)[:, None] + 4 * drift(between) + drift(x)[None]) / 6
    along = np.sum(mean_drift * (x[None] - x[:, None]), -1)
    values = np.exp(-np.sum((x - np.array(ENDS)) ** 2, -1))
    for k in reversed(range(STEPS)):
        killed = 0.5 * step * (rate(k * step)[:, None] + rate((k + 1) * step)[None])
        values = np.exp(log_green + along - killed)[:, :-1] @ values[:-1] * volume
    return np.log(values[-1])


@pytest.fixture(scope="module")
def truth():
    found = exact_log_z(21)
    np.testing.assert_allclose(found, exact_log_z(25), atol=1e-3)
    return found


@pytest.mark.parametrize(
    ("copies", "resampling"),
    [pytest.param(1, None, marks=pytest.mark.extended), (5, pid.Resampling(250))],
    ids=["plane", "ten-resampled"],
)
def test_weights_are_exact_for_the_process_in_steps(copies, resampling, truth):
    """Quartic V, vortex and gauge: E[W] = Z at 4 s.e."""
    process, ends = SWIRL, ENDS
    if copies == 5:
        process = Process(
            potential=lambda t, x: SWIRL.potential(t, CHANGE @ x), force=five(SWIRL.force), gauge=five(SWIRL.gauge)
        )
        ends = CHANGE.T @ jnp.tile(ENDS, 5)
    end = pid.quadratic_terminal_cost(2 * jnp.eye(ends.size), -2 * ends, STIFF)
    run = {"rule": Perturbed(process, STIFF), "grid": pid.uniform_grid(STEPS), "num_samples": 20_000}
    solution = pid.sample(KEY, end.target, protocol=STIFF, resampling=resampling, **run)
    assert solution.log_z.standard_error < 0.1
    log_z = solution.log_z.value + end.log_z - ends @ ends
    assert_within(log_z, copies * truth, solution.log_z.standard_error)


PIECES = pid.piecewise(
    jnp.array([[[2.0, 0.3], [0.3, 1.0]], [[1.0, 0.0], [0.0, 3.0]]]),
    linear=jnp.array([[0.2, -0.1], [0.0, 0.4]]),
    constant=jnp.array([0.5, -0.2]),
    force=(jnp.array([[[-0.2, 1.0], [-1.0, 0.1]], jnp.eye(2)]), jnp.array([[0.1, 0.2], [-0.3, 0.0]])),
    gauge=(jnp.array([[[0.3, 0.2], [-0.4, 0.1]], 0.5 * jnp.eye(2)]), jnp.array([[0.0, 0.1], [0.2, 0.0]])),
    noise_scale=1.0,
)


def test_a_harmonic_process_is_its_own():
    """Nothing is left to weigh by, and it is the nearest to itself, on each piece."""
    target = pid.GaussianMixture.isotropic(jnp.array([[-1.0, 1.0], [1.5, 0.0]]), 0.3)
    whole = pid.harmonic(2.0, force=(-1.0, ENDS), gauge=(0.5, ENDS), linear=ENDS, horizon=2.0, noise_scale=1.0)
    run = {"protocol": whole, "grid": pid.uniform_grid(4), "num_samples": 9}
    solution = pid.sample(KEY, target, rule=Perturbed(Process.of(whole), whole), **run)
    np.testing.assert_allclose(solution.log_weights, 0, atol=1e-12)
    process = Process.of(PIECES)
    paths = steer(KEY, process, None, Cost(jnp.sum), start=jnp.zeros(2), num_steps=4, num_samples=50, save_paths=True)
    found = nearest_harmonic(process, paths, 2)
    for name in ("beta", "linear", "constant", "force", "gauge"):
        for one, other in zip(jax.tree.leaves(getattr(found, name)), jax.tree.leaves(getattr(PIECES, name))):
            np.testing.assert_allclose(one, other, atol=1e-12)


@pytest.mark.extended
def test_bridges_of_a_wiener_process_have_the_green_function_of_another():
    """β = 2, a vortex and a gauge: closed, at 4 s.e., the error of first order extrapolated."""
    other = pid.harmonic(2 * jnp.eye(2), force=(jnp.array([[0.0, -1.0], [1.0, 0.0]]), ENDS), noise_scale=1.0)
    y = jnp.array([0.8, -0.4])
    run = {"num_samples": 4000}
    few, many = (bridges(KEY, Process.of(other), WIENER, y, num_steps=steps, **run) for steps in (20, 40))
    extrapolated = 2 * many.log_z.value - few.log_z.value
    error = np.hypot(2 * many.log_z.standard_error, few.log_z.standard_error)
    assert_within(extrapolated, LogGreen.of(other, y)(jnp.zeros(2), y), error)


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Perturbed(3, STIFF), "process is a int; pass general.Process"),
        (lambda: Perturbed(SWIRL, pid.harmonic()), "protocol has noise_scale None; pass one with noise_scale=1.0"),
        (lambda: Perturbed(SWIRL, pid.harmonic(noise_scale=0.5)), "protocol has noise_scale 0.5; pass one"),
        (lambda: bridges(KEY, SWIRL, STIFF, 1.0), r"end has shape \(\); pass one point"),
        (lambda: nearest_harmonic(SWIRL, 3), "paths is a int; pass what sample"),
        (
            lambda: nearest_harmonic(SWIRL, steer(KEY, SWIRL, None, Cost(jnp.sum), start=ENDS, num_steps=1)),
            "paths have no states; pass save_paths=True",
        ),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.extended
@pytest.mark.parametrize(("process", "order"), ORDERS.values(), ids=ORDERS)
def test_the_order_in_the_steps(process, order):
    """log Z of the chain of 4, 8 and 16 steps by quadrature, with no error of sampling: the changes fall by 2^order."""
    dim = 2 if order == 1 else 1
    x, volume = grid_quadrature(-4.5, 4.5, 41 if dim == 2 else 301, dim)
    x, rule = jnp.array(np.concatenate([x, np.zeros((1, dim))])), Perturbed(process, STIFF)
    log_z = []
    for steps in (4, 8, 16):
        log_green = LogGreen.of(pid.harmonic(1.0, noise_scale=1.0, horizon=1 / steps), x[0])

        @jax.jit
        def recede(values, now, log_green=log_green):
            def at(x, y):
                return log_green(x, y) + rule.log_factor(now, x, y)

            kernel = jax.lax.map(lambda one: jnp.exp(jax.vmap(lambda y: at(one, y))(x)), x, batch_size=256)
            return kernel[:, :-1] @ values[:-1] * volume

        values = jnp.exp(-jnp.sum((x - 1) ** 2, -1))
        laws = pid.Problem(pid.Samples(x[:1]), STIFF).prepare(pid.uniform_grid(steps)).step_laws
        for k in reversed(range(steps)):
            values = recede(values, jax.tree.map(lambda leaf, k=k: leaf[k], laws))
        log_z.append(np.log(values[-1]))
    change, next_change = np.diff(log_z)
    assert abs(np.log2(change / next_change) - order) < 0.15


def difference(process, protocol, box, steps, truth):
    """log Z − the grid's, and its error."""
    target = pid.terminal_cost(lambda y: jnp.sum((y - 1) ** 2), box.dim, protocol)
    run = {"protocol": protocol, "rule": Perturbed(process, protocol), "grid": pid.uniform_grid(steps)}
    found = pid.sample(KEY, target, num_samples=100_000, progress=False, **run).check().log_z
    return float(found.value) - truth, float(found.standard_error)


@pytest.mark.extended
@pytest.mark.parametrize(("process", "order"), ORDERS.values(), ids=ORDERS)
def test_the_grid_is_met(process, order):
    """Extrapolated with its order in the steps, at 4 s.e."""
    dim = 2 if order == 1 else 1
    box = Box([-4.5] * dim, [4.5] * dim, (128 if dim == 2 else 400,) * dim)
    coarse = solve(process, box, Cost(lambda y: jnp.sum((y - 1) ** 2)), num_steps=200)
    truth = 2 * float(coarse.refined().log_z) - float(coarse.log_z)
    few, many = (difference(process, STIFF, box, steps, truth) for steps in ((4, 8) if order == 2 else (16, 32)))
    factor = 2**order
    extrapolated = (factor * many[0] - few[0]) / (factor - 1)
    assert_within(extrapolated, 0, np.hypot(factor * many[1], few[1]) / (factor - 1))


@pytest.mark.extended
def test_the_nearest_harmonic_process_evens_the_weights():
    """Ten dimensions, five vortices in quartic wells that the coordinates mix: log Z of the grid, and an ESS that was lost."""
    plane = Process(potential=lambda t, x: jnp.sum(x**4) / 2, force=lambda t, x: jnp.stack([-x[1], x[0]]))
    process = Process(potential=lambda t, x: plane.potential(t, CHANGE @ x), force=five(plane.force))
    ends = CHANGE.T @ jnp.tile(ENDS, 5)

    def paths(protocol, steps):
        end = pid.quadratic_terminal_cost(2 * jnp.eye(10), -2 * ends, protocol)
        run = {"grid": pid.uniform_grid(steps), "num_samples": 20_000, "save_paths": True, "progress": False}
        found = pid.sample(KEY, end.target, protocol=protocol, rule=Perturbed(process, protocol), **run)
        return found, found.log_z.value + end.log_z - ends @ ends

    first = paths(WIENER, 20)[0]
    nearest = nearest_harmonic(process, first, 4)
    (few, log_few), (many, log_many) = (paths(nearest, steps) for steps in (8, 16))
    assert many.ess > max(10 * first.ess, 0.8 * 20_000)
    box = Box([-3.5, -3.5], [3.5, 3.5], (100, 100))
    coarse = solve(plane, box, Cost(lambda y: jnp.sum((y - ENDS) ** 2)), num_steps=100)
    truth = 5 * (2 * coarse.refined().log_z - coarse.log_z)
    error = np.hypot(4 * many.log_z.standard_error, few.log_z.standard_error) / 3
    assert_within((4 * log_many - log_few) / 3, truth, error + 0.005)


@pytest.mark.extended
def test_bridges_to_a_law_are_the_process_to_it():
    """The mean of x and x² at half time, of paths to draws of the target, against the grid's marginal."""
    target = pid.GaussianMixture(jnp.array([[-1.0], [1.5]]), jnp.array([[[0.16]], [[0.64]]]), jnp.array([0.3, 0.7]))
    well = Process(potential=lambda t, x: jnp.sum(x**4) / 4, force=lambda t, x: jnp.sin(2 * x))
    solved = solve(well, Box([-6.0], [6.0], (600,)), target, num_steps=200)
    ends = target.sample(KEY, 4000)
    run = {"num_samples": 200, "num_steps": 32}
    keys = jax.random.split(KEY, len(ends))
    found = jax.jit(jax.vmap(lambda key, y: bridges(key, well, WIENER, y, **run)))(keys, ends)
    weights = scipy.special.softmax(np.array(found.log_weights), axis=1)
    middle = np.array(found.states[:, :, 16, 0])
    for power in (1, 2):
        means = np.sum(weights * middle**power, axis=1)
        known = jnp.sum(solved.marginals[100] * solved.box.points[:, 0] ** power)
        assert_within(means.mean(), known, means.std() / np.sqrt(len(means)))
    finer = Box([-6.0], [6.0], (1200,))
    y = jnp.array([1.0])
    masses = solve(well, finer, target, num_steps=400)
    known = jnp.log(finer.interpolated(masses.forward[-1], y) / finer.volume) + masses.log_forward[-1]
    green = bridges(KEY, well, WIENER, y, num_samples=20_000, num_steps=64).log_z
    assert_within(green.value, known, green.standard_error)
