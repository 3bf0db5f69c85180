"""Networks for families of targets, told apart by a context, and for particles, whose symmetries they keep exactly."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pidjax as pid
from pidjax import learning

PROTOCOL = pid.harmonic(beta=0.0, noise_scale=1.0)


def key(seed=0):
    return jax.random.key(seed)


def disturbed(module, seed=1, size=0.3):
    """The module with noise on every trainable array: neither zero nor trained."""
    learned, fixed = eqx.partition(module, learning.is_learned(module))
    leaves, structure = jax.tree.flatten(learned)
    keys = jax.random.split(key(seed), len(leaves))
    noisy = [leaf + size * jax.random.normal(one, leaf.shape, leaf.dtype) for leaf, one in zip(leaves, keys)]
    return eqx.combine(structure.unflatten(noisy), fixed)


def family(**options):
    return learning.Network(key(), 2, context_dim=3, width=8, **options)


def particles(num_particles=4, space_dim=3, **options):
    return learning.ParticleNetwork(key(), num_particles, space_dim, width=8, **options)


def points_of(network, seed=2):
    return jax.random.normal(key(seed), (network.dim,))


def orthogonal(dim, determinant, seed=3):
    """A rotation, or one with a reflection."""
    matrix = np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, dim)))[0]
    matrix[:, 0] *= determinant * np.linalg.det(matrix)
    return jnp.asarray(matrix)


def in_space(network, x):
    """Positions, (n, s)."""
    rows = x.reshape(-1, network.space_dim)
    return learning.centred_basis(network.num_particles, dtype=x.dtype) @ rows if network.centred else rows


def in_coordinates(network, positions):
    basis = learning.centred_basis(network.num_particles, dtype=positions.dtype)
    return (basis.T @ positions if network.centred else positions).reshape(-1)


def test_no_context_is_the_network_as_it_was():
    """Numbers of the version before contexts, in single precision."""
    network = learning.Network(key(3), 2, width=4, dtype=jnp.float32)
    squares = [float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(eqx.filter(network, eqx.is_array))]
    before = [1.3276179, 0.00522366, 1.4035544, 0.0858920, 0.8516590, 1.0232314, 0.2432746, 0.0, 0.0]
    np.testing.assert_allclose(squares, before, rtol=1e-5)


@pytest.mark.parametrize(
    "correction",
    [
        lambda: family().given([1.0, -2.0, 0.5]),
        lambda: particles(2, 1),
        lambda: particles(3, 1, centred=True),
        lambda: particles(2, 2, centred=True, depth=3),
    ],
)
def test_zero_at_first_but_not_without_slope(correction):
    field = correction()
    x = jnp.array([0.3, -1.7])[: getattr(field, "dim", 2)]

    def along(field):
        value = field(0.3, x)
        return jnp.sum(value * jnp.arange(1.0, 1 + x.size)), value

    slope, value = eqx.filter_jit(eqx.filter_grad(along, has_aux=True))(field)
    assert value.tolist() == [0.0] * x.size
    assert any(jnp.any(leaf != 0) for leaf in jax.tree.leaves(eqx.filter(slope, eqx.is_array)))


@pytest.mark.parametrize("num_particles", [2, 5, 13])
def test_centred_basis_is_orthonormal_and_has_no_centre(num_particles, dtype):
    basis = learning.centred_basis(num_particles, dtype=dtype)
    assert basis.dtype == dtype
    tolerance = 8 * jnp.finfo(dtype).eps
    projection = np.eye(num_particles) - 1 / num_particles
    np.testing.assert_allclose(basis.T @ basis, np.eye(num_particles - 1), atol=tolerance)
    np.testing.assert_allclose(basis @ basis.T, projection, atol=tolerance)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize(("num_particles", "space_dim"), [(4, 3), (5, 2), (3, 1)])
def test_particles_turn_mirror_and_renumber_to_rounding(num_particles, space_dim, centred):
    network = disturbed(particles(num_particles, space_dim, centred=centred, depth=3))
    field = jax.jit(lambda x: network(0.4, x))
    x = points_of(network)
    positions, force = in_space(network, x), in_space(network, field(x))
    assert jnp.max(jnp.abs(force)) > 0.1
    np.testing.assert_allclose(force.sum(0), 0, atol=1e-13)
    order = np.r_[1, 2, 0, 3:num_particles]
    for determinant in (1, -1):
        turn = orthogonal(space_dim, determinant)
        moved = in_space(network, field(in_coordinates(network, (positions @ turn.T)[order])))
        np.testing.assert_allclose(moved, (force @ turn.T)[order], atol=1e-12)
    if not centred:
        shifted = positions + jnp.arange(1.0, 1 + space_dim)[None]
        np.testing.assert_allclose(field(shifted.reshape(-1)).reshape(force.shape), force, atol=1e-12)


def test_centred_particles_are_particles_in_other_coordinates():
    free, centred = (disturbed(particles(centred=centred)) for centred in (False, True))
    z = points_of(centred)
    force = free(0.4, in_space(centred, z).reshape(-1)).reshape(-1, centred.space_dim)
    np.testing.assert_allclose(centred(0.4, z), in_coordinates(centred, force), atol=1e-13)


@pytest.mark.slow
def test_particles_are_told_apart_by_more_than_their_nearest_pairs():
    """Neither a pair force (a third particle changes what two do to each other) nor the same at all times."""
    network = disturbed(particles(3, 2))
    x = points_of(network)
    mixed = jax.jacfwd(jax.jacfwd(lambda x: network(0.4, x)[:2]))(x)[:, 2:4, 4:6]
    assert jnp.max(jnp.abs(mixed)) > 1e-3
    assert jnp.max(jnp.abs(network(0.4, x) - network(0.6, x))) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("centred", [False, True])
def test_coincident_particles_are_finite(centred, dtype):
    network = disturbed(particles(3, 2, centred=centred, dtype=dtype))

    @eqx.filter_jit
    def value_and_slopes(network, x):
        weights = eqx.filter_grad(lambda network: jnp.sum(network(0.5, x) ** 2))(network)
        return network(0.5, x), jax.jacfwd(lambda x: network(0.5, x))(x), weights

    pair = jnp.array([[1.0, 2.0], [1.0, 2.0], [-2.0, -4.0]], dtype)
    for positions in (pair, jnp.zeros_like(pair), 1e6 * pair):
        found = value_and_slopes(network, in_coordinates(network, positions))
        assert found[0].dtype == dtype
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(eqx.filter(found, eqx.is_array)))


@pytest.mark.parametrize("network", [family, lambda: particles(3, 1, centred=True, context_dim=3)])
def test_context_changes_the_control_and_compiles_once(network):
    network, x = disturbed(network()), jnp.array([0.5, -1.0])
    prepared = pid.Problem(pid.Density(lambda y: -0.5 * jnp.sum(y**2), 2), PROTOCOL).prepare(pid.uniform_grid(2))
    traces = []

    @eqx.filter_jit
    def log_weights_of(rule):
        traces.append(None)
        return pid.rollout(prepared, rule, key(), jnp.arange(3)).log_weights

    contexts = jnp.eye(3)
    runs = [log_weights_of(pid.Controlled(network.given(context))) for context in contexts]
    assert len(traces) == 1
    assert jnp.min(jnp.std(jnp.stack(runs), axis=0)) > 1e-3
    controls = jax.vmap(network, in_axes=(None, None, 0))(jnp.array(0.5), x, contexts)
    for context, control in zip(contexts, controls):
        np.testing.assert_allclose(network.given(context)(0.5, x), control, atol=1e-14)
    assert jnp.min(jnp.std(controls, axis=0)) > 1e-3


@pytest.mark.slow
def test_training_moves_the_network_and_not_the_context():
    target = pid.Density(lambda y: -0.5 * jnp.sum((y - 1) ** 2), 2)
    rule = pid.Controlled(family().given([1.0, -2.0, 0.5]))
    budget = {"num_iterations": 2, "batch_size": 4, "progress": False, "grid": pid.uniform_grid(2)}
    with jax.numpy_dtype_promotion("standard"):
        once = learning.fit(key(1), target, rule, protocol=PROTOCOL, **budget).parameters
        twice = learning.fit(key(2), target, once, protocol=PROTOCOL, **budget).parameters
    for before, after in ((rule, once), (once, twice)):
        assert after.control.context.tolist() == [1.0, -2.0, 0.5]
        assert not eqx.tree_equal(before.control.network, after.control.network)


@pytest.mark.slow
@pytest.mark.parametrize("correction", [lambda: family().given([1.0, 0.0, 0.0]), lambda: particles(3, 1, centred=True)])
def test_correction_of_the_explicit_sampler(correction):
    """Nothing at first; disturbed, another path with E[W] = Z: the mixture's mass is one."""
    target = pid.GaussianMixture.isotropic(jnp.array([[-1.0, 0.0], [1.0, 0.0]]), 0.5)
    options = {"protocol": pid.harmonic(beta=1.0), "num_steps": 4, "num_samples": 2000}
    plain, first, later = (
        pid.sample(key(1), target, rule=pid.Euler(correction=field), **options)
        for field in (None, correction(), disturbed(correction(), size=0.1))
    )
    assert jnp.allclose(plain.samples, first.samples, rtol=0, atol=1e-13)
    assert jnp.max(jnp.abs(plain.samples - later.samples)) > 1e-3
    assert abs(later.log_z.value) < 4 * later.log_z.standard_error


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: family(dtype="float16"), "dtype is float16; pass float32 or float64"),
        (lambda: learning.Network(key(), 2, context_dim=-1), "context_dim is -1; pass an integer >= 0"),
        (lambda: learning.Network(key(), 2, context_dim=1.5), "context_dim is 1.5; pass an integer >= 0"),
        (lambda: family()(0.5, jnp.ones(2)), r"context is left out but the network is made for float64\[3\]; call network"),
        (lambda: family().given(None), r"context is left out but the network is made for float64\[3\]"),
        (lambda: family()(0.5, jnp.ones(2), jnp.ones(2)), r"context is float64\[2\] but .* made for float64\[3\]; build"),
        (lambda: family().given(jnp.ones((2, 3))), r"context is float64\[2, 3\] but .* made for float64\[3\]"),
        (lambda: family().given(jnp.ones(3, "float32")), r"context is float32\[3\] but .* made for float64\[3\]"),
        (lambda: family().given([jnp.nan, 0, 0]), "context holds 1 non-finite values of 3"),
        (lambda: particles(context_dim=3).given([1.0]), r"context is float64\[1\] but .* made for float64\[3\]; build"),
        (lambda: family().given("warm"), "context is 'warm'; pass numbers"),
        (lambda: learning.Network(key(), 2).given([1.0]), r"context is float64\[1\] but the network is made without one"),
        (lambda: learning.Given(jnp.sin, [1.0]), "network is a .*; pass a Network made with context_dim"),
        (
            lambda: pid.Euler(correction=family()).check(jnp.array(0.5), jnp.ones(2)),
            "correction fails for one time and point.* context is left out",
        ),
        (lambda: learning.centred_basis(1), "num_particles is 1; pass an integer >= 2"),
        (lambda: learning.centred_basis(2.5), "num_particles is 2.5; pass an integer >= 1"),
        (lambda: particles(1, 3), "num_particles is 1; pass an integer >= 2"),
        (lambda: particles(3, 0), "space_dim is 0; pass an integer >= 1"),
        (lambda: particles(depth=0), "depth is 0; pass an integer >= 1"),
        (lambda: particles(dtype="float16"), "dtype is float16; pass float32 or float64"),
        (lambda: particles(4, 3, centred=True)(0.5, jnp.ones(12)), r"float64\[12\] but the network is made for float64\[9\]"),
        (lambda: particles(4, 3)(0.5, jnp.ones((4, 3))), r"float64\[4, 3\] but the network is made for float64\[12\]"),
        (lambda: particles(4, 3)([0.5], jnp.ones(12)), r"t has shape \(1,\); pass a scalar"),
        (lambda: particles(4, 3)(0.5, jnp.ones(12, "float32")), r"x is a point of float32\[12\] but .* float64\[12\]"),
    ],
)  # fmt: skip
def test_refusals_name_what_was_given_and_what_is_wanted(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_they_are_kept_and_come_back(tmp_path):
    for number, rule in enumerate(
        [pid.Euler(family().given([1.0, 0.0, 0.0])), pid.Euler(particles(3, 2, centred=True))]
    ):
        pid.save(tmp_path / f"{number}.npz", rule)
        again = pid.load(tmp_path / f"{number}.npz")
        assert eqx.tree_equal(rule, again)
        assert repr(rule) == repr(again)
