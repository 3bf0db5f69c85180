"""Protocols: what the user may choose, and that the end law is exact whatever it is."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_within
from protocols import random_protocol

import pidjax as pid

KEY, ONE = jax.random.key(0), jnp.ones(())
TARGET = pid.GaussianMixture(
    jnp.array([[-1.0, 0.0], [1.5, 1.0]]),
    jnp.array([[[0.2, 0.0], [0.0, 0.2]], [[0.5, 0.2], [0.2, 0.3]]]),
    jnp.array([0.4, 0.6]),
)
RULES = pid.Moment(), pid.Euler()
START = pid.GaussianStart(jnp.array([0.2, -0.1]), jnp.array([[0.3, 0.1], [0.1, 0.2]]))


def cast(tree, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)


@eqx.filter_jit
def run(target, protocol, rule, grid, key, count, save_states=False):
    prepared = pid.Problem(target, protocol).prepare(grid)
    return prepared, pid.rollout(prepared, rule, key, jnp.arange(count), save_states=save_states)


def statistics(paths, target):
    """Weighted first and second moments and the share of the left mode, with errors; and the truths."""
    y, weights = np.array(paths.samples, dtype=float), np.exp(np.array(paths.log_weights, dtype=float))
    values = np.column_stack([y, y**2, y[:, :1] * y[:, 1:], y[:, 0] < 0.0])
    means = (weights[:, None] * values).sum(axis=0) / weights.sum()
    errors = np.sqrt((weights[:, None] ** 2 * (values - means) ** 2).sum(axis=0)) / weights.sum()
    second = target.covariance() + jnp.outer(target.mean(), target.mean())
    normal = np.array([0.5 * (1 + float(jax.lax.erf(-m / jnp.sqrt(2 * v)))) for m, v in ((-1.0, 0.2), (1.5, 0.5))])
    truths = [*target.mean(), *jnp.diag(second), second[0, 1], np.array([0.4, 0.6]) @ normal]
    return means, np.array(truths, dtype=float), errors


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "start", "dtype"),
    [
        pytest.param(
            rank,
            start,
            jnp.dtype(dtype),
            marks=[] if (rank, start, dtype) == (2, None, "float64") else [pytest.mark.extended],
            id=f"{rank}-{'point' if start is None else 'gaussian'}-{dtype}",
        )
        for rank in (0, 1, 2)
        for start in (None, START)
        for dtype in ("float32", "float64")
    ],
)
def test_the_end_law_is_exact_for_every_protocol(rank, start, dtype):
    """Ancestral at K = 5: moments and mode weights; Moment at K = 2 and 20: E[W] = Z too."""
    target = cast(TARGET, dtype)
    protocol = cast(random_protocol(7 + rank, rank, start=start), dtype)
    for rule, steps in [(pid.Ancestral(), 5), (pid.Moment(), 2), (pid.Moment(), 20)]:
        _, paths = run(target, protocol, rule, pid.log_snr_grid(steps), jax.random.key(1), 20_000)
        assert paths.samples.dtype == paths.log_weights.dtype == dtype
        assert_within(*statistics(paths, TARGET))
        weights = np.exp(np.array(paths.log_weights, dtype=float))
        assert_within(weights.mean(), 1, max(weights.std() / np.sqrt(weights.size), 1e-6))


@pytest.mark.slow
@pytest.mark.extended
def test_every_kind_of_target_takes_every_protocol():
    """A data set, a pool, local draws: through `sample`, with force, gauge, pieces and a Gaussian start."""
    protocol = random_protocol(3, 2, start=START)
    density = pid.Density(TARGET.log_density, 2)
    wider = pid.GaussianMixture(TARGET.means, 1.5 * TARGET.covariances)
    points = TARGET.sample(jax.random.key(5), 300)
    for target, exact in [
        (pid.Samples(points), points.mean(axis=0)),
        (pid.Surrogate(density, wider), TARGET.mean()),
        (pid.Pool.draw(jax.random.key(6), density, wider, 2000), TARGET.mean()),
        (pid.LocalDraws(density, wider, 50), TARGET.mean()),
    ]:
        solution = pid.sample(jax.random.key(2), target, protocol=protocol, num_samples=3000, num_steps=8)
        mean, error = solution.expectation(lambda y: y)
        assert_within(mean, exact, error)
        assert_within(solution.log_z.value, 0, jnp.maximum(solution.log_z.standard_error, 1e-9))


@pytest.mark.parametrize(
    "rule", [pid.Ancestral(), pid.Moment(), pytest.param(pid.Euler(), marks=pytest.mark.extended)], ids=repr
)
@pytest.mark.slow
def test_backward_paths_weigh_what_forward_paths_do(rule):
    """1/mean(W) over paths drawn backward is the forward ESS: for a small error of the rule it is near the reverse one."""
    protocol = random_protocol(4, 2, start=START)
    prepared, paths = run(TARGET, protocol, rule, pid.log_snr_grid(12), KEY, 4000)
    ends = TARGET.sample(jax.random.key(8), 4000)
    backward = np.exp(np.array(pid.backward_log_weights(prepared, rule, jax.random.key(9), ends), dtype=float))
    forward = np.exp(np.array(paths.log_weights, dtype=float))
    # E_Q[W] = E_P[W²] with Z = 1: two estimates of one number.
    errors = [values.std() / np.sqrt(values.size) for values in (backward, forward**2)]
    assert_within(backward.mean(), (forward**2).mean(), max(np.hypot(*errors), 1e-9))


@pytest.mark.slow
@pytest.mark.parametrize("rule", [pytest.param(pid.Ancestral(), marks=pytest.mark.extended), pid.Moment()], ids=repr)
def test_the_clock_of_every_scalar_protocol(rule):
    """On one grid of ratios (x − n)/√s and log W are the same for every β(t), F(t), c(t), ν(t) and start."""

    def chain(protocol):
        prepared, paths = run(TARGET, protocol, rule, pid.log_snr_grid(6, 0.2, 20.0), jax.random.key(3), 50, True)
        law, start = prepared.step_laws.observation, prepared.unit.start
        inner = [
            (paths.states[:, k] - law.left[k] * start[None] - law.offset[k][None]) * law.whitening[k]
            for k in range(1, 6)
        ]
        return jnp.stack(inner), paths.samples, paths.log_weights

    reference = chain(pid.piecewise(jnp.zeros(1), linear=jnp.zeros((1, 2)), noise_scale=1.0))
    slow = random_protocol(0, 0)
    for protocol in (slow, random_protocol(1, 0, stiffness=20.0), eqx.tree_at(lambda p: p.beta, slow, -slow.beta / 2)):
        for computed, expected in zip(chain(protocol), reference, strict=True):
            np.testing.assert_allclose(computed, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.slow
def test_a_gaussian_start_has_the_law_it_should():
    """x(0) ~ μ₀ ψ(0, ·)/Z, by quadrature in one dimension; the end law stays exact."""
    target = pid.GaussianMixture.isotropic(jnp.array([[-1.0], [1.5]]), 0.3, jnp.array([0.3, 0.7]))
    mean, variance = 0.4, 0.5
    start = pid.GaussianStart(jnp.array([mean]), jnp.array(variance))
    protocol = pid.harmonic(2.0, force=(jnp.array(0.5), jnp.array([0.3])), start=start, noise_scale=1.0)
    _, paths = run(target, protocol, pid.Ancestral(), pid.log_snr_grid(4), KEY, 20_000, True)
    nodes = jnp.linspace(-5, 6, 1101)[:, None]
    log_start = -((nodes[:, 0] - mean) ** 2) / (2 * variance)
    log_psi = jax.jit(jax.vmap(lambda x: pid.Problem(target, protocol).at(0.0, x).log_psi))
    density = np.exp(np.array(log_start + log_psi(nodes)))
    density /= density.sum()
    first = np.array(paths.states[:, 0, 0])
    for power in (1, 2, 3):
        exact = density @ np.array(nodes[:, 0]) ** power
        assert_within((first**power).mean(), exact, (first**power).std() / np.sqrt(first.size))
    last = np.array(paths.samples[:, 0])
    assert_within(last.mean(), target.mean()[0], last.std() / np.sqrt(last.size))


@pytest.mark.slow
def test_a_narrow_gaussian_start_is_a_point():
    point, narrow = (
        random_protocol(2, 2, start=start)
        for start in (jnp.array([0.2, 0.1]), pid.GaussianStart(jnp.array([0.2, 0.1]), 1e-12))
    )
    x = jnp.array([0.5, -0.4])
    at = eqx.filter_jit(lambda protocol: pid.Problem(TARGET, protocol).at(0.6, x))
    computed, expected = at(narrow), at(point)
    np.testing.assert_allclose(computed.weighted_state, expected.weighted_state, rtol=1e-8)
    np.testing.assert_allclose(computed.control, expected.control, rtol=1e-8)


@pytest.mark.slow
def test_units():
    """[0, T] with noise σ: values at t and x are those of the unit problem at t/T, with costs unchanged."""
    horizon, noise = 3.0, 0.7
    scale = noise * np.sqrt(horizon)
    unit = random_protocol(6, 2)
    users = pid.piecewise(
        unit.beta / (noise * horizon) ** 2,
        edges=unit.edges * horizon,
        centre=unit.centre * scale,
        force=(unit.force.matrix / horizon, unit.force.vector * scale / horizon),
        gauge=(unit.gauge.matrix / scale**2, unit.gauge.vector / scale),
        linear=unit.linear / (horizon * scale),
        constant=unit.constant / horizon,
        start=unit.start * scale,
        noise_scale=noise,
    )
    wider = pid.GaussianMixture(TARGET.means * scale, TARGET.covariances * scale**2, TARGET.weights)
    x = jnp.array([0.3, -0.8])
    at = eqx.filter_jit(lambda target, protocol, t, x: pid.Problem(target, protocol).at(t, x))
    expected, found = at(TARGET, unit, 0.6, x), at(wider, users, 0.6 * horizon, x * scale)
    np.testing.assert_allclose(found.log_psi, expected.log_psi, rtol=1e-10)
    np.testing.assert_allclose(found.control, expected.control * scale / horizon, rtol=1e-10)


@pytest.mark.slow
@pytest.mark.extended
def test_refining_changes_nothing_but_the_number_of_pieces():
    protocol = random_protocol(8, 2)
    finer = protocol.refine(3)
    assert finer.num_pieces == 3 * protocol.num_pieces
    x = jnp.array([0.3, -0.8])
    for t in (0.2, 0.55, 0.97):
        values = [pid.Problem(TARGET, one).at(t, x).log_psi for one in (protocol, finer)]
        np.testing.assert_allclose(*values, rtol=1e-11)


@pytest.mark.slow
@pytest.mark.extended
def test_a_smooth_protocol_converges_as_the_square_of_the_piece():
    """log ψ at successive halvings: the differences fall by four, to a tenth (their own order is the next, h⁴)."""

    @partial(jax.jit, static_argnames="pieces")
    def value(t, x, *, pieces):
        protocol = pid.from_function(
            pieces,
            beta=lambda t: jnp.array([[2.0, 0.0], [0.0, 1.0]]) * (1 + jnp.sin(3 * t)),
            centre=lambda t: jnp.stack([t, jnp.cos(2 * t)]),
            force=lambda t: (jnp.array([[0.0, 1.0], [-1.0, 0.0]]) * t, jnp.stack([t, t**2])),
            noise_scale=1.0,
        )
        return pid.Problem(TARGET, protocol).at(t, x).log_psi

    values = [float(value(0.5, jnp.array([0.3, -0.8]), pieces=pieces)) for pieces in (8, 16, 32, 64)]
    steps = np.diff(values)
    orders = np.log2(steps[:-1] / steps[1:])
    assert abs(orders[1] - 2) <= abs(orders[0] - 2) / 2 + 1e-3
    np.testing.assert_allclose(orders[1], 2, atol=0.02)


@pytest.mark.extended
@pytest.mark.slow
def test_gradients_through_the_sampler():
    """d E[−log W]/d(every coefficient of a matrix protocol), reverse mode against differences, Moment and Euler."""
    protocol = random_protocol(9, 2, start=START)
    rng = np.random.default_rng(1)
    direction = jax.tree.map(lambda leaf: jnp.array(rng.normal(size=leaf.shape)), protocol)
    edges = jnp.zeros_like(protocol.edges).at[1].set(1.0)
    direction = eqx.tree_at(lambda p: (p.edges, p.noise_scale), direction, (edges, jnp.zeros(())))
    direction = eqx.tree_at(
        lambda p: (p.beta, p.start.covariance), direction, replace_fn=lambda a: a + jnp.swapaxes(a, -1, -2)
    )

    @eqx.filter_jit
    @jax.value_and_grad
    def loss_and_slopes(protocol):
        prepared = pid.Problem(TARGET, protocol).prepare(pid.log_snr_grid(4))
        losses = [-jnp.mean(pid.rollout(prepared, rule, KEY, jnp.arange(20)).log_weights) for rule in RULES]
        return losses[0] + 2 * losses[1]

    slopes = loss_and_slopes(protocol)[1]
    along = sum(jnp.sum(a * b) for a, b in zip(jax.tree.leaves(slopes), jax.tree.leaves(direction), strict=True))
    before, after = (
        loss_and_slopes(jax.tree.map(lambda a, b: a + s * b, protocol, direction))[0]  # noqa: B023
        for s in (-1e-5, 1e-5)
    )
    np.testing.assert_allclose(along, (after - before) / 2e-5, rtol=2e-6)


@pytest.mark.slow
def test_new_values_do_not_recompile():
    traces = []

    @eqx.filter_jit
    def value(protocol):
        traces.append(None)
        return pid.Problem(TARGET, protocol).at(0.5, jnp.zeros(2)).log_psi

    for seed in range(3):
        value(random_protocol(seed, 2))
    assert len(traces) == 1


def test_conjugate_points_are_reported_with_their_time():
    """Two pieces, β = −ω² up to t = h and then free: x = sin ωt/ω, then straight, back at zero at h − tan(ωh)/ω."""
    omega, h = 5.0, 0.4
    time = h - np.tan(omega * h) / omega
    with pytest.raises(ValueError, match=f"conjugate point at t = {time:.4g}"):
        pid.piecewise(jnp.array([-(omega**2), 0.0]), edges=jnp.array([0.0, h, 1.0]), noise_scale=1.0)
    pid.piecewise(jnp.array([-(omega**2), 0.0]), edges=jnp.array([0.0, h, time - 1e-3]), noise_scale=1.0)
    field = jnp.array([[0.0, -3.2], [3.2, 0.0]])
    with pytest.raises(ValueError, match=f"conjugate point at t = {np.pi / 3.2:.4g}"):
        pid.harmonic(0.0, gauge=(field, jnp.zeros(2)), noise_scale=1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pid.harmonic(jnp.array([[1.0, 0.5], [0.0, 1.0]])), r"beta\[0\] is not symmetric"),
        (lambda: pid.harmonic(jnp.ones((2, 3))), r"beta has shape \(2, 3\)"),
        (lambda: pid.piecewise(jnp.zeros(0)), r"beta has shape \(0,\)"),
        (lambda: pid.piecewise(jnp.ones(2), edges=jnp.array([0.0, 0.7, 0.5])), "edges is .*increasing"),
        (lambda: pid.piecewise(jnp.ones(2), edges=jnp.array([0.0, 1.0])), r"edges has shape \(2,\)"),
        (lambda: pid.piecewise(jnp.ones(2), centre=jnp.ones((3, 2))), r"centre has shape \(3, 2\).*2 pieces"),
        (lambda: pid.harmonic(1.0, force=jnp.ones(2)), "force is"),
        (lambda: pid.harmonic(1.0, force=(jnp.ones((2, 3)), jnp.ones(2))), r"force has shape \(2, 3\)"),
        (lambda: pid.harmonic(1.0, gauge=(1.0, jnp.ones((2, 2)))), r"gauge has shape \(2, 2\)"),
        (lambda: pid.harmonic(jnp.ones(3), centre=jnp.zeros(2)), "has dimension"),
        (
            lambda: pid.harmonic(1.0, start=pid.GaussianStart(jnp.zeros(2), -1.0)),
            "covariance.* is not positive definite",
        ),
        (lambda: pid.GaussianStart(jnp.zeros(2), jnp.ones(3)), r"covariance \(3,\)"),
        (lambda: pid.from_function(0, beta=1.0), "num_pieces is 0"),
        (lambda: pid.sample(KEY, TARGET, protocol=pid.harmonic(1.0, centre=jnp.zeros(3))), r"centre has shape \(3,\)"),
        (lambda: pid.sample(KEY, TARGET, protocol=pid.harmonic(jnp.eye(3))), r"beta has shape \(3, 3\).*dimension 2"),
        (
            lambda: pid.sample(KEY, TARGET, protocol=pid.harmonic(1.0, force=(1.0, jnp.zeros(3)))),
            r"force has shape \(3,\)",
        ),
    ],
)
def test_bad_protocols(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_start_too_wide_for_a_negative_stiffness_is_refused():
    """From N(0, s²) the integral over the start is finite while 1/s² + ω cot ωt > 0, ω = √−β: here up to t = 0.8476."""
    with pytest.raises(ValueError, match=r"conjugate point at t = 0.8476.* a narrower start"):
        pid.harmonic(-4.0, noise_scale=1.0, start=pid.GaussianStart(jnp.zeros(2), 4.0))
    omega = 2.0
    assert abs(1 / 4 + omega / np.tan(omega * 0.8476)) < 1e-3
    pid.harmonic(-4.0, noise_scale=1.0, start=pid.GaussianStart(jnp.zeros(2), 0.5))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"start": jnp.full(2, 1e6)},
        {"centre": jnp.full(2, 1e6)},
        {"linear": jnp.full(2, 1e7)},
        {"force": (jnp.array(0.0), jnp.full(2, 1e6))},
        {"start": pid.GaussianStart(jnp.full(2, 1e7), 1.0)},
    ],
)
def test_what_float32_does_not_resolve_is_refused(options):
    means = jnp.array([[-1.0, 0.0], [1.0, 1.0]])
    with jax.enable_x64(False):
        target = pid.GaussianMixture.isotropic(means.astype("float32"), jnp.float32(0.3))
        protocol = jax.tree.map(lambda leaf: leaf.astype("float32"), pid.harmonic(**options))
        with pytest.raises(ValueError, match="noise widths away from the target"):
            pid.Problem(target, protocol).prepare(pid.uniform_grid(5))
    pid.Problem(pid.GaussianMixture.isotropic(means, 0.3), pid.harmonic(**options)).prepare(pid.uniform_grid(5))
