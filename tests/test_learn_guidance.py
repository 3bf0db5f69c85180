"""Guided transport: the corridor, tunnels and necks, fused experts, the mean field. Truths: published digits, closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_within

import pidjax as pid
from benchmarks import corridor
from pidjax import GaussianMixture, exact, guides, harmonic, learning, piecewise
from pidjax.guides import lines as guidance
from pidjax.guides.mean_field import mean_field


@pytest.fixture(autouse=True)
def promotion():
    """optax itself raises Python floats to integer counts, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stiffness", "loss"),
    [
        ((3.0, 3.0), 0.7024812),
        ((0.2, 15.0), 0.6322706),
        ((0.2, 48.0), 0.5153078),
    ],
)
def test_corridor_losses(stiffness, loss, dtype):
    computed = jax.jit(corridor.loss)(corridor.on_line(*stiffness, dtype))
    assert computed.dtype == dtype
    np.testing.assert_allclose(computed, loss, atol=6e-8 if dtype == jnp.float64 else 3e-6)


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.parametrize(
    "dtype", [pytest.param(jnp.dtype("float32"), marks=pytest.mark.extended), jnp.dtype("float64")], ids=str
)
@pytest.mark.extended
def test_learned_corridor(dtype):
    """300 steps of Adam at 3e-2 on the regularised loss: 0.4540."""
    learned = learning.descend(corridor.regularised_loss, corridor.published_start(dtype))
    learned.check()
    np.testing.assert_allclose(corridor.loss(corridor.published(learned.parameters)), 0.4540, atol=5e-5)


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.extended
def test_corridor_without_regularisation():
    """At most 0.43885 with the same parameters; below 0.40 with a matrix stiffness of the same bound."""
    for guide, start, bound in (
        (corridor.published, corridor.published_start(), 0.43885),
        (corridor.bounded, corridor.free_start(), 0.40),
    ):
        learned = learning.descend(
            lambda raw, guide=guide: corridor.loss(guide(raw)),
            start,
            optimiser=learning.adam(0.3, decay=3000),
            num_iterations=3000,
        )
        learned.check()
        assert corridor.loss(guide(learned.parameters)) <= bound


def crowd(d):
    """The published pair of laws: two modes, the starts' shifted by 1.5 and 4 in every coordinate."""
    z = jnp.sin(2 * jnp.pi * jnp.arange(d) / d)
    means, weights = jnp.stack([0.1 + 0.15 * z, 1.5 - 0.15 * z]), jnp.array([0.6, 0.4])
    starts = GaussianMixture.isotropic(means + jnp.array([[1.5], [4.0]]), jnp.array([0.25, 0.49]), weights)
    return starts, GaussianMixture.isotropic(means, jnp.array([0.04, 0.09]), weights)


BETA = 12 * 0.65 ** jnp.arange(8.0)


@pytest.mark.slow
@pytest.mark.extended
@pytest.mark.parametrize(("d", "guided", "unguided"), [(1, 12.8167, 16.8634), (8, 112.0536, 144.4300)])
def test_mean_field_energies(d, guided, unguided):
    """The published digits, the guide held at the middle of each of eight pieces; finer pieces approach the exact one."""
    starts, target = crowd(d)

    def energy(num_pieces):
        protocol = mean_field(starts, target, BETA, num_pieces=num_pieces)
        return 2 * exact.costs(target, protocol, starts=starts).kinetic

    np.testing.assert_allclose(energy(8), guided, atol=6e-5)
    np.testing.assert_allclose(guides.unguided_energy(starts, target, BETA), unguided, atol=6e-5)
    exactly = guides.mean_field_energy(starts, target, BETA)
    np.testing.assert_allclose(energy(64), exactly, rtol=1e-7)
    assert abs(exactly - guided) < 2e-3


@pytest.mark.slow
def test_mean_field_is_a_fixed_point():
    """The mean of the crowd is the guide, to the square of the pieces' length; and no other straight line is."""
    starts, target = crowd(2)
    times = jnp.linspace(0.1, 0.9, 5)
    line = (1 - times[:, None]) * starts.mean()[None] + times[:, None] * target.mean()[None]

    def error(num_pieces):
        protocol = mean_field(starts, target, BETA, num_pieces=num_pieces)
        laws = exact.marginals(target, protocol, times, starts=starts)
        return jnp.max(jnp.abs(jax.vmap(GaussianMixture.mean)(laws) - line))

    assert error(64) < 1e-4
    assert error(16) / error(64) > 8
    unguided = exact.marginals(target, piecewise(BETA, noise_scale=1.0), times, starts=starts)
    assert jnp.max(jnp.abs(jax.vmap(GaussianMixture.mean)(unguided) - line)) > 0.1


def experts():
    first = GaussianMixture(
        jnp.array([[-1.0, 0.0], [1.0, 0.0], [0.0, -2.5]]),
        jnp.array([[[0.3, 0.0], [0.0, 0.1]], [[0.1, 0.0], [0.0, 0.4]], [[0.2, 0.1], [0.1, 0.4]]]),
        jnp.array([0.5, 0.4, 0.1]),
    )
    covariances = jnp.array([[[0.6, 0.0], [0.0, 1.5]], [[0.2, 0.0], [0.0, 0.4]]])
    return first, GaussianMixture(jnp.array([[-1.5, -2.5], [1.5, -2.5]]), covariances)


@pytest.mark.parametrize(
    "trust", [(1, 2), *(pytest.param(trust, marks=pytest.mark.extended) for trust in ((1, 1), (2, 1), (0, 3)))]
)
@pytest.mark.slow
def test_product_of_experts(trust):
    """log p − Σ κ_i log p_i is one constant, and p has mass one by its type."""
    first, second = experts()
    fused = guides.product_of_experts([first, second], trust)
    points = 2 * jax.random.normal(jax.random.key(0), (50, 2))
    log = [jax.vmap(one.log_density)(points) for one in (fused, first, second)]
    gap = log[0] - trust[0] * log[1] - trust[1] * log[2]
    np.testing.assert_allclose(gap, jnp.full(50, gap[0]), rtol=1e-9)
    np.testing.assert_allclose(fused.weights.sum(), 1, rtol=1e-12)
    assert fused.weights.size == 3 ** trust[0] * 2 ** trust[1]


@pytest.mark.slow
def test_a_product_with_a_wide_expert_keeps_its_digits():
    wide, narrow = (GaussianMixture.isotropic(jnp.zeros((1, 2), jnp.float32), v) for v in (1e3, 1e-7))
    fused = [guides.product_of_experts(pair, (1, 1)).covariances for pair in ([wide, narrow], [narrow, wide])]
    np.testing.assert_allclose(fused, np.broadcast_to(1e-7 * np.eye(2), (2, 1, 2, 2)), rtol=1e-6)


@pytest.mark.slow
def test_published_product():
    first, second = experts()
    fused = guides.product_of_experts([first, second], (1, 1))
    published = [4.02e-5, 0.00832, 0.10633, 0.11687, 0.21327, 0.55517]
    np.testing.assert_allclose(jnp.sort(fused.weights), published, rtol=1e-3)
    np.testing.assert_allclose(fused.mean(), [-0.50718415, -1.0474275], atol=2e-7)
    fused = guides.product_of_experts([first, second], (1, 2))
    published = [0.2757, 0.2585, 0.2421, 0.2037, 0.0088, 0.0088]
    np.testing.assert_allclose(jnp.sort(fused.weights)[::-1][:6], published, atol=6e-5)


@pytest.mark.parametrize("is_matrix", [False, True])
@pytest.mark.slow
def test_fused_guides(is_matrix):
    """Σ κ_i V_i less the fused potential is one constant."""
    stiffness = jnp.array([[[2.0, 0.5], [0.5, 1.0]]]) if is_matrix else jnp.array([2.0])
    pair = [
        piecewise(scale * stiffness, centre=jnp.array([[place, 1.0]]), linear=linear, noise_scale=1.0)
        for scale, place, linear in ((1.0, -1.0, None), (3.0, 2.0, jnp.array([[0.3, -0.2]])))
    ]
    fused = guides.fuse_protocols(pair, [2.0, 0.5])

    def potential(protocol, x):
        offset, beta = x - protocol.centre[0], protocol.beta[0]
        slope = jnp.zeros(2) if protocol.linear is None else protocol.linear[0]
        return 0.5 * offset @ (beta @ offset if is_matrix else beta * offset) + slope @ x

    points = jax.random.normal(jax.random.key(1), (20, 2))
    gaps = jnp.stack([2 * potential(pair[0], x) + 0.5 * potential(pair[1], x) - potential(fused, x) for x in points])
    np.testing.assert_allclose(gaps, jnp.full(20, gaps[0]), rtol=1e-10)


def test_centre_lines():
    """All go from one end to the other; the S is odd about its middle, the bump even."""
    start, end = jnp.array([0.5, 1.0]), jnp.array([2.0, -1.0])
    lines = [
        guidance.straight(start, end),
        guidance.bend(start, end, 0.4),
        guidance.bend(start, end, 0.4, bumps=1),
        guidance.shoulder(start, end, 0.7),
    ]
    for line in lines:
        np.testing.assert_allclose(line(jnp.array(0.0)), start, atol=1e-12)
        np.testing.assert_allclose(line(jnp.array(1.0)), end, atol=1e-12)
    off = [[line(jnp.array(t)) - lines[0](jnp.array(t)) for t in (0.25, 0.5, 0.75)] for line in lines[1:]]
    np.testing.assert_allclose(off[0][0], -off[0][2], atol=1e-12)
    np.testing.assert_allclose(off[1][0], off[1][2], atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(off[1][1]), 0.4, rtol=1e-12)
    np.testing.assert_allclose(off[2][1], 0, atol=1e-12)


@pytest.mark.slow
def test_neck_and_tunnel():
    """Paths are narrow in the neck and near the line in the tunnel, while the law of the end is exact."""
    start = jnp.zeros(2)
    target = GaussianMixture.isotropic(jnp.array([[3.0, 0.7], [3.0, -0.7]]), 0.05, jnp.array([0.3, 0.7]))
    neck = guides.v_neck(start, target.mean(), stiffness=1.0, neck=200.0)
    spread = [jnp.trace(exact.marginal(target, neck, t).covariance()) for t in (0.2, 0.5)]
    free = jnp.trace(exact.marginal(target, harmonic(1.0, noise_scale=1.0), 0.5).covariance())
    assert spread[1] < 0.5 * spread[0]
    assert spread[1] < 0.3 * free
    tunnel = guides.s_tunnel(start, target.mean(), stiffness=300.0)
    line = guidance.bend(start, target.mean(), 0.4)
    bending, piece = 0.4 * (2 * np.pi) ** 2, 1 / tunnel.num_pieces
    lag = bending * (1 / 300 + piece**2 / 8)  # of x'' = β(x − ν), with ν held in pieces
    for t in (0.25, 0.75):
        np.testing.assert_allclose(exact.marginal(target, tunnel, t).mean(), line(jnp.array(t)), atol=lag)
    solution = pid.sample(jax.random.key(0), target, protocol=tunnel, num_samples=2000, num_steps=5)
    upper = jnp.mean(solution.samples[:, 1] > 0)
    assert_within(upper, 0.3, np.sqrt(0.3 * 0.7 / 2000))


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.extended
def test_learned_centre_line():
    """To keep paths on a bent line the centre leads in the bends: the learned one is closer to it than the line itself."""
    target = GaussianMixture.isotropic(jnp.array([[2.0, 0.5], [2.0, -0.5]]), 0.05)
    tunnel = guides.s_tunnel(jnp.zeros(2), target.mean(), stiffness=30.0, num_pieces=10)
    line = tunnel.centre

    def objective(protocol):
        return guides.following_cost(target, protocol, line, effort=1e-3, entropy=0.0)

    learned = learning.descend(objective, learning.only(lambda one: one.centre, tunnel), num_iterations=200)
    learned.check()
    before, after = (guides.following_cost(target, one, line) for one in (tunnel, learned.parameters))
    assert after < 0.9 * before
