"""The composable Green function: against the Hamiltonian flow of all pieces together, closed forms, its differential
equation, its composition law, and simulation with Feynman–Kac weights."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_within, mean_and_error
from protocols import coefficients, log_green_by_flow, random_protocol

import pidjax as pid
from pidjax import Green
from pidjax._maths.maps import adjoint, dense, product
from pidjax.process.propagator import Generator, compose, segments
from pidjax.process.unit import unit_problem

ZERO, ONE = jnp.zeros(()), jnp.ones(())
X, Y = jnp.array([0.4, -0.3]), jnp.array([-0.6, 0.9])


def reference_of(protocol, dim=2):
    return unit_problem(protocol, jnp.zeros(dim, protocol.beta.dtype), jnp.ones((), protocol.beta.dtype)).reference


@eqx.filter_jit
def log_green(protocol, x, y):
    """log G(0, x → 1, y), whatever the protocol's own start."""
    protocol = eqx.tree_at(lambda p: p.start, protocol, x, is_leaf=lambda leaf: leaf is None)
    return reference_of(protocol).instant(ONE.astype(x.dtype), ZERO.astype(x.dtype)).log_green(x, y)


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize(
    "stiffness", [pytest.param(0.0, marks=pytest.mark.slow), pytest.param(1.0, marks=pytest.mark.slow), 30.0]
)
def test_the_flow_of_all_pieces_together(rank, stiffness):
    protocol = random_protocol(rank, rank, stiffness=stiffness)
    expected = log_green_by_flow(protocol, np.array(X), np.array(Y), 2)
    np.testing.assert_allclose(log_green(protocol, X, Y), expected, rtol=1e-8)


@pytest.mark.parametrize("beta", [-9.0, -4.0, -1.0, 0.0, 1.0, 100.0])
@pytest.mark.parametrize("structure", [(), (2,), (2, 2)], ids=["scalar", "diagonal", "matrix"])
@pytest.mark.slow
def test_pieces_of_one_stiffness_are_the_closed_form(beta, structure):
    """Beyond −π²/4 too, where the propagator form needs a change of gauge."""
    one = jnp.eye(2) if len(structure) == 2 else jnp.ones(structure)
    protocol = pid.piecewise(beta * jnp.stack([one] * 3), edges=jnp.array([0.0, 0.2, 0.7, 1.0]), noise_scale=1.0)
    np.testing.assert_allclose(log_green(protocol, X, Y), Green(jnp.array(beta)).log(X, Y, 1.0), rtol=1e-10)


@pytest.mark.slow
def test_a_matrix_stiffness_is_a_diagonal_one_in_its_own_frame():
    angle = 0.7
    frame = jnp.array([[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]])
    stiffness = jnp.array([3.0, 40.0])
    protocol = pid.harmonic(frame @ jnp.diag(stiffness) @ frame.T, noise_scale=1.0)
    expected = Green(stiffness).log(frame.T @ X, frame.T @ Y, 1.0)
    np.testing.assert_allclose(log_green(protocol, X, Y), expected, rtol=1e-11)


@pytest.mark.parametrize("rate", [-1.5, 0.8])
def test_a_linear_force_is_the_ornstein_uhlenbeck_process(rate):
    """dx = rate·x dt + dW: x(1) ~ N(e^rate x, (e^{2 rate} − 1)/(2 rate))."""
    protocol = pid.harmonic(0.0, force=(rate, jnp.zeros(2)), noise_scale=1.0)
    variance = (np.exp(2 * rate) - 1) / (2 * rate)
    expected = -np.sum((np.array(Y) - np.exp(rate) * np.array(X)) ** 2) / (2 * variance) - np.log(2 * np.pi * variance)
    np.testing.assert_allclose(log_green(protocol, X, Y), expected, rtol=1e-11)


@pytest.mark.parametrize("field", [0.5, 1.4, 2.9])
def test_a_magnetic_field_is_an_oscillator_in_a_rotating_frame(field):
    """A = field·Jx: the reference turns by −field and gains at the rate field²|x|²/2; infinite from field = π on."""
    turn = jnp.array([[0.0, -1.0], [1.0, 0.0]])
    protocol = pid.harmonic(0.0, gauge=(field * turn, jnp.zeros(2)), noise_scale=1.0)
    turned = jax.scipy.linalg.expm(-field * turn) @ X
    expected = Green(jnp.array(-(field**2))).log(turned, Y, 1.0)
    np.testing.assert_allclose(log_green(protocol, X, Y), expected, rtol=1e-9)


def test_a_gradient_gauge_changes_the_green_function_by_its_ends():
    """A = ∇φ, φ = xᵀHx/2 + hᵀx: G gains exp(φ(x) − φ(y)), and has no conjugate point though S = −H² < 0."""
    h1, h0 = jnp.array([[2.0, 0.5], [0.5, -3.0]]), jnp.array([0.3, -0.2])
    protocol = pid.harmonic(0.0, gauge=(h1, h0), noise_scale=1.0)

    def phi(x):
        return x @ h1 @ x / 2 + h0 @ x

    expected = Green(ZERO).log(X, Y, 1.0) + phi(X) - phi(Y)
    np.testing.assert_allclose(log_green(protocol, X, Y), expected, rtol=1e-10)


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.extended), 2])
@pytest.mark.parametrize("gaussian_start", [False, pytest.param(True, marks=pytest.mark.extended)])
@pytest.mark.slow
def test_the_value_function_solves_its_equation(rank, gaussian_start):
    """−∂tψ + Ṽψ + Ãᵀ∇ψ = ½Δψ by automatic differentiation in t and x, and u* = ∇log ψ − A."""
    start = pid.GaussianStart(jnp.array([0.2, -0.1]), jnp.array([[0.3, 0.1], [0.1, 0.2]])) if gaussian_start else None
    protocol = random_protocol(5, rank, start=start)
    target = pid.GaussianMixture(jnp.array([[-1.0, 0.0], [1.5, 1.0]]), jnp.stack([0.2 * jnp.eye(2), jnp.eye(2)]))

    @jax.jit
    def derivatives(t):
        def log_psi(t, x):
            return pid.Problem(target, protocol).at(t, x).log_psi

        slope, gradient = jax.grad(log_psi, (0, 1))(t, X)
        return slope, gradient, jax.hessian(log_psi, 1)(t, X), pid.Problem(target, protocol).at(t, X).control

    for piece, t in enumerate((protocol.edges[:-1] + protocol.edges[1:]) / 2):
        slope, gradient, hessian, control = derivatives(t)
        beta, centre, linear, constant, (f1, f0), (a1, a0) = coefficients(protocol, piece, 2)
        x, gradient = np.array(X), np.array(gradient)
        force, gauge = f1 @ x + f0, a1 @ x + a0
        potential = (x - centre) @ beta @ (x - centre) / 2 + linear @ x + constant
        effective = potential + np.trace(a1) / 2 + force @ gauge - gauge @ gauge / 2
        left = -slope + effective + (gauge - force) @ gradient
        np.testing.assert_allclose(left, 0.5 * (jnp.trace(hessian) + gradient @ gradient), rtol=1e-10)
        np.testing.assert_allclose(control, gradient - gauge, rtol=1e-10)


def random_segments(seed, count):
    rng = np.random.default_rng(seed)
    roots, drifts = rng.normal(size=(2, count, 3, 3))
    vectors = jnp.array(rng.normal(size=(2, count, 3)))
    stiffness = jnp.array(roots @ roots.transpose(0, 2, 1))
    generators = Generator(jnp.array(drifts), vectors[0], stiffness, vectors[1], jnp.array(rng.normal(size=count)))
    return jax.jit(segments)(generators, jnp.array(rng.uniform(0.1, 0.5, count)))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.slow
def test_composition_is_associative(seed):
    a, b, c = (jax.tree.map(lambda leaf: leaf[k], random_segments(seed, 3)) for k in range(3))  # noqa: B023
    left, right = compose(compose(a, b), c), compose(a, compose(b, c))
    for ours, theirs in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_chapman_kolmogorov_by_quadrature():
    """∫ G₁(x → z) G₂(z → y) dz over a grid, in one dimension with every coefficient."""
    coefficient = jnp.array([0.5, -0.8])
    vectors = jnp.array([[0.3], [-0.4]])
    generators = Generator(coefficient, vectors, jnp.array([3.0, 1.0]), 2 * vectors, jnp.array([0.1, 0.2]))
    first, second = (jax.tree.map(lambda leaf: leaf[k], segments(generators, jnp.array([0.4, 0.7]))) for k in (0, 1))  # noqa: B023
    between = jnp.linspace(-12, 12, 4001)[:, None]
    x, y = jnp.array([0.4]), jnp.array([-0.2])
    density = jax.vmap(lambda z: jnp.exp(first.log(x, z) + second.log(z, y)))(between)
    np.testing.assert_allclose(jnp.sum(density) * 24 / 4000, jnp.exp(compose(first, second).log(x, y)), rtol=1e-10)


@pytest.mark.extended
@pytest.mark.slow
@pytest.mark.optimised
def test_simulation_with_feynman_kac_weights():
    """E[exp(−∫Ṽ dt) exp(aᵀx(1))] along Euler paths of the reference, extrapolated in the step, is ∫ G(x → y) e^{aᵀy} dy."""
    protocol = random_protocol(11, 2, pieces=1)
    _, _, _, _, (f1, f0), (a1, a0) = parts = coefficients(protocol, 0, 2)
    beta, centre, linear, constant = parts[:4]
    tilt = jnp.array([0.5, -0.7])

    @jax.jit
    def estimate(key, x):
        def of_steps(steps, increments):
            def advance(carry, increment):
                x, exponent = carry
                force, gauge = f1 @ x + f0, a1 @ x + a0
                potential = (x - centre) @ beta @ (x - centre) / 2 + linear @ x + constant
                rate = potential + np.trace(a1) / 2 + force @ gauge - gauge @ gauge / 2
                return (x + (force - gauge) / steps + increment, exponent - rate / steps), None

            (end, exponent), _ = jax.lax.scan(advance, (x, jnp.zeros(())), increments)
            return jnp.exp(exponent + tilt @ end)

        fine = jax.random.normal(key, (200, 2)) / jnp.sqrt(200)
        return 2 * of_steps(200, fine) - of_steps(100, fine.reshape(100, 2, 2).sum(axis=1))

    start = protocol.start
    values = jax.lax.map(lambda key: estimate(key, start), jax.random.split(jax.random.key(0), 40_000), batch_size=4000)
    nodes = jnp.linspace(-9, 9, 361)
    points = jnp.stack(jnp.meshgrid(nodes, nodes), axis=-1).reshape(-1, 2)
    exact = sum(
        jnp.sum(jax.vmap(lambda y: jnp.exp(log_green(protocol, start, y) + tilt @ y))(part))
        for part in jnp.array_split(points, 9)
    )
    assert_within(*[mean_and_error(values)[0], exact * (18 / 360) ** 2, mean_and_error(values)[1]])


# -- what the rollout sees, in float32 -----------------------------------------------------------------------------------


def exact_ratio(beta, t, remaining):
    """K = S(t)/(S(1)S(τ)) at β ≥ 0, from logarithms in float64."""
    w = np.sqrt(beta)

    def log_s(duration):
        return np.log(duration) if beta == 0 else w * duration + np.log(-np.expm1(-2 * w * duration) / (2 * w))

    return np.exp(log_s(t) - log_s(t + remaining) - log_s(remaining))


def ratio_matrix(stiffness, t, remaining, pieces):
    """K of diag(stiffness), by the matrix algebra."""
    protocol = pid.piecewise(jnp.stack([jnp.diag(stiffness)] * pieces), noise_scale=jnp.ones((), stiffness.dtype))
    observation = reference_of(protocol).instant(t, remaining).observation
    gain = product(observation.whitening, observation.right)
    return dense(product(adjoint(gain), gain), 2)


@pytest.mark.parametrize("pieces", [pytest.param(1, marks=pytest.mark.extended), 8])
@pytest.mark.slow
def test_stiff_and_free_directions_together_in_float32(pieces):
    """β = diag(1e4, 0): K to 2e-4 at both ends of time, its slopes to 3e-3 of the largest they take."""
    stiffness = jnp.array([1e4, 0.0], jnp.float32)
    value = jax.jit(lambda *at: ratio_matrix(*at, pieces))
    slope = jax.jit(jax.jacrev(lambda *at: jnp.diag(ratio_matrix(*at, pieces))))
    for t, remaining in [(1e-6, 1 - 1e-6), (0.3, 0.7), (0.97, 0.03), (0.999, 1e-3), (1 - 1e-6, 1e-6)]:
        at = stiffness, jnp.float32(t), jnp.float32(remaining)
        t, remaining = float(at[1]), float(at[2])
        exact = np.array([exact_ratio(beta, t, remaining) for beta in (1e4, 0.0)])
        computed = value(*at)
        assert computed.dtype == jnp.float32
        computed = np.array(computed, dtype=float)
        assert abs(computed[0, 1]) <= 2e-4 * np.sqrt(exact.prod())
        for k in range(2):
            if exact[k] > 1e-30:
                np.testing.assert_allclose(computed[k, k], exact[k], rtol=2e-4)
        slopes = np.array(slope(*at))
        assert np.isfinite(slopes).all()
        moved = [(exact_ratio(1e4 * (1 + s), t, remaining), exact_ratio(s, t, remaining)) for s in (1e-6, 2e-6)]
        differences = [(moved[1][0] - moved[0][0]) / 1e-2, (moved[1][1] - moved[0][1]) / 1e-6]
        for k, scale in enumerate([exact[0] / 200, exact[1] / 6]):
            if exact[k] > 1e-30:
                assert abs(slopes[k, k] - differences[k]) <= 3e-3 * scale, (t, k)


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.slow
def test_gradients_of_the_green_function(rank):
    """Reverse mode against differences, in every coefficient of a random protocol."""
    protocol = random_protocol(3, rank)

    def value(protocol):
        return log_green(protocol, X, Y)

    slopes = eqx.filter_jit(jax.grad(value))(protocol)
    rng = np.random.default_rng(0)
    direction = jax.tree.map(lambda leaf: jnp.array(rng.normal(size=leaf.shape)), protocol)
    direction = eqx.tree_at(lambda p: (p.edges, p.start, p.noise_scale), direction, replace_fn=jnp.zeros_like)
    inner = jnp.zeros_like(protocol.edges).at[1].set(1.0)
    direction = eqx.tree_at(lambda p: p.edges, direction, inner)
    if rank == 2:
        direction = eqx.tree_at(lambda p: p.beta, direction, replace_fn=lambda b: b + jnp.swapaxes(b, -1, -2))
    along = sum(jnp.sum(a * b) for a, b in zip(jax.tree.leaves(slopes), jax.tree.leaves(direction), strict=True))
    step = 1e-5
    moved = [jax.tree.map(lambda a, b: a + s * b, protocol, direction) for s in (-step, step)]  # noqa: B023
    difference = (value(moved[1]) - value(moved[0])) / (2 * step)
    np.testing.assert_allclose(along, difference, rtol=1e-7)


@pytest.mark.slow
def test_gradients_at_a_multiple_of_the_identity_are_finite():
    """An eigendecomposition would give NaN there."""
    slope = jax.jit(jax.grad(lambda beta: log_green(pid.harmonic(beta, noise_scale=1.0), X, Y)))
    for beta in (0.0, 1.0, 1e4):
        assert jnp.isfinite(slope(beta * jnp.eye(2))).all(), beta
