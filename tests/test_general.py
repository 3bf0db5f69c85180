"""The top level on cells: against the closed form and a spectrum; orders, gauge invariance, symmetry breaking, walls."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from jaxtyping import Array, Float

import pidjax as pid
from pidjax.general import Box, Cost, Process, solve
from pidjax.general.generator import is_own

KEY = jax.random.key(5)
SKEWED = pid.GaussianMixture(jnp.array([[-1.0], [1.5]]), jnp.array([[[0.16]], [[0.64]]]), jnp.array([0.3, 0.7]))
PLANE = pid.GaussianMixture.isotropic(jnp.array([[-1.0, 1.0], [1.5, 0.0]]), 0.3)
TURN = jnp.array([[0.0, -1.5], [1.5, 0.0]])
GAUGE = jnp.array([[0.3, 0.2], [-0.4, 0.1]])
TURNING = Process(potential=lambda t, x: 0.5 * x @ x, force=lambda t, x: TURN @ x, gauge=lambda t, x: GAUGE @ x)
APART = Process(potential=lambda t, x: 0.5 * x @ x, force=lambda t, x: -(x**3) / 4)
SWAYING = Process(potential=lambda t, x: 0.5 * x @ x, force=lambda t, x: jnp.cos(6 * t) - x)


def square(cells, dim=2, **options):
    return Box([-5.0] * dim, [5.0] * dim, (cells,) * dim, **options)


def errors(solved, problem, x):
    """Of log ψ, x̂ and u* at half time, at the centre of the cell of x."""
    cell = solved.box.nearest(x)
    centre, half = solved.box.points[cell], solved.num_steps // 2
    point = problem.at(0.5, centre)
    at_cell = (half, *cell)
    found = solved.log_psi[at_cell], solved.weighted_states()[at_cell], solved.control(0.5, centre)
    known = point.log_psi, point.weighted_state, point.control
    return np.array([float(jnp.linalg.norm(jnp.atleast_1d(a - b))) for a, b in zip(found, known)])


@pytest.mark.slow
def test_the_closed_form_is_met_with_second_order():
    problem = pid.Problem(SKEWED, pid.harmonic(2.0, noise_scale=1.0))
    stiff = Process(potential=lambda t, x: x @ x)
    coarse, fine = (
        errors(solve(stiff, Box([-6.0], [6.0], (cells,)), SKEWED, num_steps=cells // 4), problem, jnp.array([0.3]))
        for cells in (216, 648)  # the centre of the cell is the same
    )
    assert (fine < 2e-4).all()
    assert (np.abs(coarse / fine - 9) < 0.5).all()


@pytest.mark.extended
@pytest.mark.slow
def test_a_vortex_with_a_gauge_is_met_with_first_order_in_time():
    protocol = pid.harmonic(jnp.eye(2), noise_scale=1.0, force=(TURN, jnp.zeros(2)), gauge=(GAUGE, jnp.zeros(2)))
    problem = pid.Problem(PLANE, protocol)
    x = jnp.array([0.25, -0.35])
    runs = [solve(TURNING, square(144), PLANE, num_steps=steps) for steps in (10, 20, 40, 80)]
    assert (errors(runs[-1], problem, x) < 0.01).all()
    cell = runs[0].box.nearest(x)
    values = np.array([run.log_psi[(run.num_steps // 2, *cell)] for run in runs])
    changes = np.abs(np.diff(values))
    assert (np.abs(changes[:-1] / changes[1:] - 2) < 0.3).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("process", "box"),
    [
        (APART, square(60, 1)),
        (SWAYING, square(60, 1)),
        (APART, square(24)),
        (TURNING, square(24)),
        (APART, square(24, inside=lambda x: (jnp.abs(x[0] - 0.6) > 0.3) | (jnp.abs(x[1]) < 0.7))),
        (APART, square(12, 3)),
    ],
    ids=["line", "line in time", "apart", "vortex", "slit", "space"],
)
def test_z_is_the_same_at_every_time_and_paths_have_the_marginals(process, box):
    """⟨φ_k, ψ_k⟩ = Z to rounding; and the cells of 4,000 paths at half time and at the end, by chi-square at 4 sigma."""
    target = pid.GaussianMixture.isotropic(jnp.zeros((2, box.dim)).at[:, 0].set(jnp.array([-1.5, 1.5])), 0.3)
    solved = solve(process, box, target, start=jnp.full(box.dim, 0.1), num_steps=20)
    np.testing.assert_allclose(solved.log_products, solved.log_z, atol=1e-12)
    inside = jnp.sum(
        jnp.where(
            box.are_inside, jnp.exp(jax.vmap(target.log_density)(box.points.reshape(-1, box.dim))).reshape(box.shape), 0
        )
    )
    np.testing.assert_allclose(solved.log_z, jnp.log(inside * box.volume), atol=1e-9)
    paths = solved.sample(KEY, 4000)
    assert paths.shape == (4000, 21, box.dim)
    for number in (10, 20):
        counts = np.zeros(box.shape)
        np.add.at(counts, tuple(np.asarray(index) for index in box.nearest(paths[:, number])), 1)
        expected = 4000 * np.asarray(solved.marginals[number])
        often = expected >= 5
        assert counts[~np.asarray(box.are_inside)].sum() == 0
        observed = np.append(counts[often], counts[~often].sum())
        wanted = np.append(expected[often], expected[~often].sum())
        kept = wanted > 1
        statistic = np.sum((observed - wanted)[kept] ** 2 / wanted[kept])
        freedom = kept.sum() - 1
        assert abs(statistic - freedom) < 4 * np.sqrt(2 * freedom)


def test_a_quartic_well_against_its_spectrum():
    """Z = ⟨x₀| e^{−H} |e^{−cost}⟩, H = −½∂² + x⁴/4 by central differences on 4,000 points."""
    points, spacing = np.linspace(-6, 6, 4001, retstep=True)
    energies, states = scipy.linalg.eigh_tridiagonal(
        1 / spacing**2 + points**4 / 4, np.full(4000, -0.5 / spacing**2), select="v", select_range=(-1, 60)
    )
    start = np.searchsorted(points, 0.5)
    truth = np.log(states[start] * np.exp(-energies) @ (states.T @ np.exp(-2 * (points - 1) ** 2)))
    well, cost = Process(potential=lambda t, x: jnp.sum(x**4) / 4), Cost(lambda y: 2 * jnp.sum((y - 1) ** 2))
    solved = solve(well, Box([-6.0], [6.0], (384,)), cost, start=points[[start]], num_steps=100)
    coarse, fine = float(solved.log_z) - truth, float(solved.refined().log_z) - truth
    assert abs(fine) < 2e-4
    assert abs(coarse / fine - 4) < 0.5


@pytest.mark.slow
def test_a_pure_gauge_changes_nothing():
    """A = ∇χ shifts the cost by χ(x_T) − χ(x₀), the same for all that end as the target does."""
    chi = Process(potential=APART.potential, gauge=lambda t, x: jnp.stack([jnp.cos(x[0]) + 0.5 * x[1], 0.5 * x[0]]))
    plain = Process(potential=APART.potential)
    change = [
        jnp.max(
            jnp.abs(
                jnp.subtract(
                    *(solve(one, square(cells), PLANE, num_steps=cells).marginals[cells // 2] for one in (chi, plain))
                )
            )
        )
        / jnp.max(solve(plain, square(cells), PLANE, num_steps=cells).marginals[cells // 2])
        for cells in (48, 96)
    ]
    assert change[1] < 0.6 * change[0] < 0.03


def test_the_choice_between_two_ends_falls_late():
    """Kappen: ends N(± a, v) under unit noise. log ψ has one top between them while T − t > a² − v, and two after."""
    a = 0.7
    narrow = pid.GaussianMixture.isotropic(jnp.array([[-a], [a]]), 0.02)
    box = Box([-4.0], [4.0], (801,))
    solved = solve(Process(), box, Cost(lambda y: -narrow.log_density(y)), num_steps=400)
    middle = 400
    bends = solved.log_psi[:-1, middle + 1] - 2 * solved.log_psi[:-1, middle] + solved.log_psi[:-1, middle - 1]
    last = float(solved.times[:-1][bends < 0][-1]) if bool((bends < 0).any()) else 0.0
    assert abs((1 - last) - (a**2 - 0.02)) < 2 / 400


class Turn(eqx.Module):
    matrix: Float[Array, "2 2"]

    def __call__(self, t, x):
        return self.matrix @ x


@pytest.mark.slow
@pytest.mark.parametrize("traced", ["implicit", "exact"])
def test_gradients_are_those_of_differences_and_new_values_compile_once(traced):
    traces = []

    @jax.jit
    def log_z(value):
        traces.append(None)
        force = Turn(value * TURN) if traced == "implicit" else lambda t, x: -value * x**3
        process = Process(potential=lambda t, x: value * x @ x, force=force)
        return solve(process, square(32), Cost(lambda y: 2 * jnp.sum((y - 1) ** 2)), num_steps=16).log_z

    value, step = jnp.array(0.5), 1e-5
    difference = (log_z(value + step) - log_z(value - step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(log_z)(value), difference, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(log_z)(jnp.array([0.5, 0.7])), [log_z(value), log_z(value + 0.2)], rtol=1e-12)
    before = len(traces)
    log_z(value + 0.3)
    assert len(traces) == before


@pytest.mark.parametrize(
    ("force", "own"),
    [
        (lambda t, x: -(x**3), (True, True)),
        (lambda t, x: jnp.stack([-x[1], x[0]]), (False, False)),
        (lambda t, x: jnp.stack([-x[0], x[0] + x[1]]), (True, False)),
        (lambda t, x: -t * x, (False, False)),
        (lambda t, x: jnp.where(x[::-1] > 100, x, -x), (False, False)),
        (lambda t, x: x * jnp.round(x[::-1]).astype(int).astype(x.dtype), (False, False)),
        (lambda t, x: jax.lax.cond(x[0] > 0, lambda x: x, lambda x: -x, x), (False, False)),
    ],
)
def test_which_axes_are_their_own(force, own):
    assert tuple(is_own(Process(force=force), square(8), axis) for axis in (0, 1)) == own
    assert not is_own(Process(force=force), square(8, inside=lambda x: x[0] < 1), 0)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_what_is_out_of_reach_is_told(dtype):
    far = pid.GaussianMixture.isotropic(jnp.full((1, 1), 30.0, dtype), 1.0)
    solved = solve(Process(), Box.around(far), far, num_steps=4)
    assert solved.log_z.dtype == dtype
    if dtype == jnp.float32:
        with pytest.raises(ValueError, match="or where the reference has none in float32"):
            solved.check()
    else:
        assert abs(solved.check().log_z) < 1e-6
    near = pid.GaussianMixture.isotropic(jnp.zeros((1, 1), dtype), 1.0)
    with pytest.raises(ValueError, match=r"the outermost cells hold .* take a larger box"):
        solve(Process(), Box(jnp.full(1, -1, dtype), jnp.ones(1, dtype), (10,)), near, num_steps=4).check()


@pytest.mark.parametrize(
    ("process", "end", "message"),
    [
        (
            Process(potential=lambda t, x: jnp.log(x[0])),
            PLANE,
            r"potential is NaN or infinite at x = \[-4.844, -4.844\] and t",
        ),
        (Process(potential=lambda t, x: jnp.where(x[0] > 2, -jnp.inf, 0)), PLANE, r"potential is .* at x = \[2.031, "),
        (Process(force=lambda t, x: jnp.sqrt(x)), PLANE, "force is NaN or infinite"),
        (Process(gauge=lambda t, x: jnp.log(x)), PLANE, "gauge is NaN or infinite"),
        (Process(potential=lambda t, x: -1e7 * x[0] ** 2), PLANE, "a potential is so negative"),
        (
            Process(),
            Cost(lambda y: jnp.where(y[0] > 0, -jnp.inf, 0)),
            r"the end is NaN or infinite at x = \[0.156, -4.844\]",
        ),
        (Process(), Cost(lambda y: y[0] + jnp.inf), "the end has no mass that paths in the box can reach"),
        (
            Process(),
            pid.GaussianMixture.isotropic(jnp.array([[0.0, 0.0], [20.0, 0.0]]), 0.3),
            "hold 0.5 of the target's mass",
        ),
        (Process(), pid.GaussianMixture.isotropic(jnp.zeros((1, 2)), 1e-3), "narrower than a cell; .* more cells"),
    ],
)
def test_what_cannot_be_solved_is_told(process, end, message):
    with pytest.raises(ValueError, match=message):
        solve(process, square(32), end, num_steps=4).check()


def test_a_target_in_a_wall_is_told():
    walled = square(32, inside=lambda x: x[0] < 0.25)
    with pytest.raises(ValueError, match=r"\d+.\d% of the target's mass is in walls"):
        solve(Process(), walled, PLANE, num_steps=4).check()


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Box([0.0], [0.0], (4,)), "upper is not above lower in every coordinate"),
        (lambda: Box([0.0] * 4, [1.0] * 4, (4,) * 4), "pass two corners in one to three dimensions"),
        (lambda: Box([0.0], [1.0], (1,)), r"shape is \(1,\); pass 1 counts of cells, each >= 2"),
        (lambda: Box([0.0], [1.0], (4, 4)), r"shape is \(4, 4\); pass 1 counts"),
        (lambda: square(8, inside=lambda x: x[0]), "inside does not return one truth value"),
        (lambda: square(8, inside=lambda x: x[0] > 7), "inside holds at no centre"),
        (lambda: solve(APART, square(8), SKEWED), "end has dimension 1 but the box 2"),
        (
            lambda: solve(APART, square(8), pid.Samples(jnp.ones((3, 2)))),
            "end is a Samples; pass a target with a density",
        ),
        (lambda: solve(APART, square(8), PLANE, start=[9.0, 0.0]), "start is .*, outside of the box"),
        (lambda: solve(APART, square(8, inside=lambda x: x[0] > 2), PLANE), "start is .*, inside a wall of the box"),
        (lambda: solve(APART, square(8), PLANE, num_steps=0), "num_steps is 0"),
        (
            lambda: solve(Process(potential=lambda t, x: x), square(8), PLANE),
            r"potential returns float64\[2\] .* return float64",
        ),
        (
            lambda: solve(Process(gauge=lambda t, x: x @ x), square(8), PLANE),
            r"gauge returns float64.. .* return float64\[2\]",
        ),
        (lambda: solve(APART, square(8), Cost(lambda y: y)), r"cost returns float64\[2\]"),
        (lambda: solve(APART, square(8), PLANE, num_steps=2).control(2.0, jnp.zeros(2)), "t is 2; pass a time from 0"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(ValueError, match=message):
        make()
