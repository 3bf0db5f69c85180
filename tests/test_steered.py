"""Paths under any control: the chain of Euler steps by quadrature in one and two dimensions, and ten; the grid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_within, grid_quadrature

import pidjax as pid
from benchmarks import control
from pidjax.general import Box, Cost, Process, path_integral, solve, steer

KEY = jax.random.key(3)
STEPS = 5
TURN = jnp.array([[-0.4, -1.5], [1.5, -0.4]])
GAUGE = jnp.array([[0.3, 0.2], [-0.4, 0.1]])
ENDS = jnp.array([1.0, 0.5])
LINE = Process(
    potential=lambda t, x: (1 + t) * jnp.sum(x**4) / 4, force=lambda t, x: jnp.sin(2 * x), gauge=lambda t, x: jnp.cos(x)
)
PLANE = Process(
    potential=lambda t, x: (1 + t) * jnp.sum(x**4) / 4, force=lambda t, x: TURN @ x, gauge=lambda t, x: GAUGE @ x
)


def cost_of(dim):
    return Cost(lambda y: jnp.sum((y - ENDS[:dim]) ** 2))


CHANGE = jnp.linalg.qr(jax.random.normal(KEY, (10, 10)))[0]


def five(field):
    """Five independent copies in coordinates that mix all of them."""
    return lambda t, x: jax.vmap(lambda part: field(t, part))((CHANGE @ x).reshape(5, 2))


def turned(field):
    return lambda t, x: CHANGE.T @ five(field)(t, x).ravel()


def steering(t, x):
    """The optimal control to the same cost without V, f and A."""
    return 2 * (ENDS[: x.size] - x) / (3 - 2 * t)


def exact_log_z(process, dim, points):
    """log Z of the chain of Euler steps from 0.2, by quadrature of its kernel."""
    x, volume = grid_quadrature(-3.5, 3.5, points, dim)
    x = jnp.array(np.concatenate([x, np.full((1, dim), 0.2)]))
    step, values = 1 / STEPS, np.exp(-np.array(jax.vmap(cost_of(dim).function)(x)))
    fields = [jax.tree.map(np.array, jax.vmap(process.at, (None, 0))(k * step, x)) for k in range(STEPS + 1)]
    moves = np.array(x)[None] - np.array(x)[:, None]
    for now, later in zip(fields[-2::-1], fields[:0:-1]):
        log_kernel = -np.sum((moves - step * now.force[:, None]) ** 2, -1) / (2 * step)
        log_kernel -= 0.5 * step * (now.potential[:, None] + later.potential[None])
        log_kernel -= 0.5 * np.sum((now.gauge[:, None] + later.gauge[None]) * moves, -1)
        values = np.exp(log_kernel - dim / 2 * np.log(2 * np.pi * step))[:, :-1] @ values[:-1] * volume
    return np.log(values[-1])


@pytest.fixture(scope="module")
def truths():
    plane = exact_log_z(PLANE, 2, 25)
    np.testing.assert_allclose(plane, exact_log_z(PLANE, 2, 29), atol=1e-4)
    return {1: exact_log_z(LINE, 1, 200), 2: plane, 10: 5 * plane}


@pytest.mark.parametrize("dim", [pytest.param(1, marks=pytest.mark.extended), 2, 10])
def test_weights_are_exact_for_the_process_in_steps(dim, truths):
    """Quartic V, vortex and gauge: E[W] = Z at 4 s.e., with no control where that leaves an effective sample, and with one."""
    process, cost, start, control = LINE if dim == 1 else PLANE, cost_of(dim), jnp.full(dim, 0.2), steering
    if dim == 10:
        process = Process(
            potential=lambda t, x: jnp.sum(five(PLANE.potential)(t, x)),
            force=turned(PLANE.force),
            gauge=turned(PLANE.gauge),
        )
        cost = Cost(lambda y: jnp.sum(five(lambda t, part: cost_of(2).function(part))(0.0, y)))
        start, control = CHANGE.T @ start, turned(steering)
    for one in (control,) if dim == 10 else (None, control):
        steered = steer(KEY, process, one, cost, start=start, num_steps=STEPS, num_samples=20_000)
        assert steered.ess > 400
        assert_within(steered.log_z.value, truths[dim], steered.log_z.standard_error)


@pytest.fixture(scope="module")
def solved():
    return solve(PLANE, Box([-4.0, -4.0], [4.0, 4.0], (96, 96)), cost_of(2), num_steps=96)


@pytest.mark.extended
def test_under_the_grids_control_weights_grow_even_with_the_steps(solved):
    """Var log W falls as h, and log Z, of first order in h on both sides, meets the grid's."""
    finer = solved.refined()
    truth = 2 * finer.log_z - solved.log_z
    few, more = (
        steer(KEY, PLANE, finer.control, cost_of(2), start=jnp.zeros(2), num_steps=number) for number in (40, 80)
    )
    spread = [float(jnp.var(one.log_weights)) for one in (few, more)]
    assert abs(np.log2(spread[0] / spread[1]) - 1) < 0.3
    assert few.ess > 0.95 * 4096
    extrapolated = 2 * more.log_z.value - few.log_z.value
    error = np.hypot(2 * more.log_z.standard_error, few.log_z.standard_error)
    assert_within(extrapolated, truth, error)


@pytest.mark.extended
def test_a_point_has_value_and_control_of_the_grid(solved):
    t, x = 0.25, solved.box.points[52, 44]
    value = path_integral(KEY, PLANE, solved.control, cost_of(2), t, x, num_samples=256, num_steps=300)
    finer = path_integral(KEY, PLANE, None, cost_of(2), t, x, num_samples=20_000, num_steps=100)
    assert value.control.standard_error.max() < 0.2 * finer.control.standard_error.max()
    known = solved.log_psi[24, 52, 44]
    at_step = solve(PLANE, solved.box, cost_of(2), num_steps=48).log_psi[12, 52, 44]
    for found in (value, finer):
        assert_within(found.log_psi.value, 2 * known - at_step, found.log_psi.standard_error + 0.002)
        assert_within(found.control.value, solved.control(t, x), found.control.standard_error + 0.002)


@pytest.mark.extended
def test_a_law_is_met_by_its_cost():
    """Means of the end of weighted paths are the target's."""
    target = pid.GaussianMixture(jnp.array([[-1.0], [1.5]]), jnp.array([[[0.16]], [[0.64]]]), jnp.array([0.3, 0.7]))
    solved = solve(LINE, Box([-6.0], [6.0], (300,)), target, num_steps=300)
    steered = steer(KEY, LINE, solved.control, solved.cost, start=jnp.zeros(1), num_steps=300).check(0.9)
    share = steered.expectation(lambda y: (y[0] < 0).astype(float))
    truth = jnp.sum(jnp.where(solved.box.points[:, 0] < 0, solved.marginals[-1], 0))
    assert_within(share.value, truth, share.standard_error)


@pytest.mark.extended
def test_the_control_of_a_harmonic_problem_leaves_little_to_weigh():
    """In d = 10, closed: log Z of first order in the steps, and u* at the start with errors below a fiftieth of it."""
    ones = jnp.ones(10)
    stiff = pid.harmonic(2 * jnp.eye(10), force=(0.3 * jnp.eye(10), 0 * ones), noise_scale=1.0)
    end = pid.quadratic_terminal_cost(jnp.eye(10), -ones, stiff)
    problem, cost = pid.Problem(end.target, stiff), Cost(lambda y: 0.5 * y @ y - jnp.sum(y))
    run = KEY, Process.of(stiff), lambda t, x: problem.at(t, x).control, cost
    few, more = (steer(*run, start=0 * ones, num_steps=steps, num_samples=1000).check(0.7) for steps in (50, 100))
    error = np.hypot(2 * more.log_z.standard_error, few.log_z.standard_error)
    assert_within(2 * more.log_z.value - few.log_z.value, end.log_z, error)
    found = path_integral(*run, 0.0, 0 * ones, num_samples=100, num_steps=50).control
    known = problem.at(0.0, 0 * ones).control
    assert (found.standard_error < known / 50).all()
    assert_within(found.value, known, found.standard_error + known / 50)


@pytest.mark.extended
@pytest.mark.optimised
def test_a_double_well_in_ten_dimensions_not_told_that_it_factorises():
    """Against ten grids on the line, whose control is within 1 % of that of half the cells and steps: by 4,096 free paths a
    point a squared error below a tenth, log Z within 0.05."""
    grids = control.of_grids()
    assert grids["squared error"] < 0.01**2
    assert abs(grids["log Z error"]) < 1e-3
    paths = control.of_paths(4096)
    assert paths["squared error"] < 0.1
    assert abs(paths["log Z error"]) < 0.05


@pytest.mark.extended
@pytest.mark.optimised
def test_controllers_pay_what_they_must():
    """Under u* the least, at 4 s.e. and to O(h); nobody less; the rival less than who knows neither vortex nor obstacle."""
    rows = {row["method"]: row for row in control.of_controllers(64, 64)}
    costs = {name: (row["cost beyond the least"], row["s.e."]) for name, row in rows.items()}
    best, path, rival, blind = costs.values()
    assert abs(best[0]) < 4 * best[1] + 0.05
    assert all(cost > -4 * error - 0.05 for cost, error in costs.values())
    assert max(path[0], rival[0]) < blind[0]


def test_transformations():
    """jit is eager, vmap a loop, the slope that of differences, and no new values compile again."""
    traces = []

    def log_z(value, start):
        traces.append(None)
        process = Process(potential=lambda t, x: value * x @ x)
        return steer(KEY, process, None, cost_of(2), start=start, num_samples=20, num_steps=3).log_z.value

    start, compiled = jnp.array([0.1, 0.2]), jax.jit(log_z)
    np.testing.assert_allclose(compiled(0.5, start), log_z(0.5, start), rtol=1e-12)
    several = jax.jit(jax.vmap(log_z, (0, None)))(jnp.array([0.5, 0.7]), start)
    np.testing.assert_allclose(several, [compiled(0.5, start), compiled(0.7, start)], rtol=1e-12)
    slope, along = jax.jit(jax.grad(log_z, (0, 1)))(0.5, start)
    step = 1e-5
    np.testing.assert_allclose(
        slope, (compiled(0.5 + step, start) - compiled(0.5 - step, start)) / (2 * step), rtol=1e-6
    )
    moved = [compiled(0.5, start.at[0].add(shift)) for shift in (step, -step)]
    np.testing.assert_allclose(along[0], (moved[0] - moved[1]) / (2 * step), rtol=1e-6)
    before = len(traces)
    compiled(0.9, start)
    assert len(traces) == before


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"process": 3}, "process is a int; pass general.Process"),
        ({"cost": lambda y: y @ y}, "cost is a function; pass general.Cost"),
        ({"cost": Cost(lambda y: y)}, r"cost returns float64\[2\]"),
        ({"start": 1.0}, r"start has shape \(\); pass one point"),
        ({"since": 1.0}, "paths begin at 1; pass a time from 0 to below the horizon, 1"),
        ({"control": lambda t, x: x @ x}, r"control returns float64\[\]"),
        ({"num_steps": 0}, "num_steps is 0"),
        ({"key": 0}, "key is 0; pass one typed key"),
    ],
)
def test_mistakes(change, message):
    given = {"key": KEY, "process": PLANE, "control": None, "cost": cost_of(2), "start": jnp.zeros(2)} | change
    with pytest.raises(ValueError, match=message):
        steer(**given)


def test_paths_that_blow_up_are_told():
    broken = Process(force=lambda t, x: jnp.where(x > 1, jnp.nan, 0))
    steered = steer(KEY, broken, None, cost_of(1), start=jnp.zeros(1), num_steps=4, num_samples=64, save_paths=True)
    assert steered.states.shape == (64, 5, 1)
    with pytest.raises(pid.SamplingError, match=r"paths were not finite: .* Take more steps"):
        steered.check()
    assert steered.to_dict()["num_nonfinite"] == steered.num_nonfinite > 0
    with pytest.raises(ValueError, match=r"log ψ is nan: a field, the control or the cost is NaN or −∞ on a path"):
        path_integral(KEY, broken, None, cost_of(1), 0.0, jnp.zeros(1), num_samples=64, num_steps=4)
