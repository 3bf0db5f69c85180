"""The learned controls, against a target whose optimal control is known.

p̃ = Z N(μ, I) under the Brownian reference of unit scale from the origin: u* = μ, a constant, for which the Euler chain is
exact on any grid and log W = log Z on every path.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pidjax as pid
from pidjax import neural

LOG_Z = 1.3
PROTOCOL = pid.harmonic(beta=0.0, noise_scale=1.0)


class Shifted(eqx.Module):
    """log of Z N(mean, width² I)."""

    mean: jax.Array
    width: float = 1.0

    def __call__(self, y):
        normal = -0.5 * jnp.sum(((y - self.mean) / self.width) ** 2)
        return LOG_Z + normal - y.size * (0.5 * np.log(2 * np.pi) + np.log(self.width))


@pytest.fixture(params=[1, 2])
def target(request):
    return pid.Density(Shifted(jnp.array([1.5, -0.5])[: request.param]), request.param)


def guided(target, seed=0, **options):
    return pid.Controlled(neural.Guided(jax.random.key(seed), target, PROTOCOL, width=16, **options))


def disturbed(rule, seed=1, size=0.3):
    """The rule with noise on every trainable array: a control that is neither zero nor trained."""
    learned, fixed = eqx.partition(rule, neural.trainable(rule))
    leaves, structure = jax.tree.flatten(learned)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    noisy = [leaf + size * jax.random.normal(key, leaf.shape, leaf.dtype) for leaf, key in zip(leaves, keys)]
    return eqx.combine(structure.unflatten(noisy), fixed)


def standard_error(log_weights):
    return float(jnp.std(log_weights, ddof=1)) / log_weights.size**0.5


@pytest.mark.parametrize("loss", [neural.relative_entropy, neural.log_variance])
def test_training_finds_the_known_optimal_control(target, loss):
    grid = pid.uniform(8)
    trained = neural.fit(
        jax.random.key(1),
        target,
        guided(target),
        protocol=PROTOCOL,
        grid=grid,
        num_iterations=150,
        batch_size=128,
        loss=loss,
        progress=False,
    )
    solution = pid.sample(jax.random.key(2), target, protocol=PROTOCOL, grid=grid, rule=trained.rule, num_samples=2000)
    gap = LOG_Z - jnp.mean(solution.log_weights)
    assert -4 * standard_error(solution.log_weights) <= gap < 0.02
    assert abs(solution.log_z - LOG_Z) < 4 * solution.log_z_error + 1e-6
    assert solution.ess > 0.95 * solution.num_samples
    points = jax.random.normal(jax.random.key(3), (200, target.dim)) + target.function.mean / 2
    learned = jax.vmap(trained.rule.control, in_axes=(None, 0))(jnp.array(0.5), points)
    optimal = jnp.broadcast_to(target.function.mean, learned.shape)
    assert jnp.sqrt(jnp.mean((learned - optimal) ** 2)) < 0.2


def test_relative_entropy_is_the_known_divergence_without_control(target):
    """With u = 0 the loss is KL(N(0, I) ‖ N(μ, I)) − log Z = |μ|²/2 − log Z."""
    prepared = pid.prepare(target, PROTOCOL, pid.uniform(5))
    paths = pid.rollout(prepared, guided(target), jax.random.key(0), jnp.arange(4000))
    loss = neural.relative_entropy(prepared, guided(target), jax.random.key(0), jnp.arange(4000))
    truth = 0.5 * jnp.sum(target.function.mean**2) - LOG_Z
    assert jnp.allclose(loss, -jnp.mean(paths.log_weights), rtol=1e-12)
    assert abs(loss - truth) < 4 * standard_error(paths.log_weights)


def test_log_variance_is_that_of_the_rollout(target):
    prepared = pid.prepare(target, PROTOCOL, pid.uniform(5))
    rule, key, indices = disturbed(guided(target)), jax.random.key(0), jnp.arange(100)
    variance = neural.log_variance(prepared, rule, key, indices)
    expected = jnp.var(pid.rollout(prepared, rule, key, indices).log_weights, ddof=1)
    assert jnp.allclose(variance, expected, rtol=1e-10)


@pytest.mark.parametrize("num_steps", [5, 50])
def test_weights_are_unbiased_under_an_untrained_network(target, num_steps):
    """E[W] = Z. W has finite variance: the target is narrower than √2 of the reference, and g is small at t = 1."""
    narrow = pid.Density(Shifted(target.function.mean, 0.7), target.dim)
    rule = disturbed(guided(narrow), size=0.1)
    solution = pid.sample(
        jax.random.key(2), narrow, protocol=PROTOCOL, grid=pid.uniform(num_steps), rule=rule, num_samples=8000
    )
    weights = jnp.exp(solution.log_weights - LOG_Z)
    assert jnp.max(jnp.abs(rule.control(jnp.array(0.5), jnp.ones(target.dim)))) > 0.01
    assert abs(jnp.mean(weights) - 1) < 4 * jnp.std(weights, ddof=1) / weights.size**0.5


def test_gradient_against_finite_differences(target):
    prepared = pid.prepare(target, PROTOCOL, pid.uniform(4))
    rule = disturbed(guided(target))
    learned, fixed = eqx.partition(rule, neural.trainable(rule))
    direction = jax.tree.map(lambda leaf: jnp.cos(jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape), learned)

    def along(step):
        moved = jax.tree.map(lambda leaf, towards: leaf + step * towards, learned, direction)
        return neural.relative_entropy(prepared, eqx.combine(moved, fixed), jax.random.key(0), jnp.arange(8))

    derivative = jax.grad(along)(0.0)
    difference = (along(1e-5) - along(-1e-5)) / 2e-5
    assert abs(derivative - difference) < 1e-7 * max(1, abs(derivative))


def test_correction_starts_at_the_explicit_sampler_and_trains():
    mixture = pid.GaussianMixture.isotropic(jnp.array([[-2.0, 0.0], [2.0, 1.0]]), 0.3)
    protocol, grid = pid.harmonic(beta=1.0), pid.uniform(10)
    rule = pid.Euler(correction=neural.Network(jax.random.key(0), 2, width=16))
    options = {"protocol": protocol, "grid": grid, "num_samples": 500}
    plain = pid.sample(jax.random.key(1), mixture, rule=pid.Euler(), **options)
    corrected = pid.sample(jax.random.key(1), mixture, rule=rule, **options)
    assert jnp.allclose(plain.samples, corrected.samples, rtol=0, atol=1e-13)
    assert jnp.allclose(plain.log_weights, corrected.log_weights, rtol=0, atol=1e-11)

    trained = neural.fit(
        jax.random.key(2),
        mixture,
        rule,
        protocol=protocol,
        grid=grid,
        num_iterations=100,
        batch_size=128,
        progress=False,
    )
    after = pid.sample(jax.random.key(1), mixture, rule=trained.rule, **options)
    gain = after.log_weights - plain.log_weights
    assert jnp.mean(gain) > 4 * standard_error(gain)


def test_save_and_restore(target, tmp_path):
    rule = disturbed(guided(target))
    neural.save(tmp_path / "rule.eqx", rule)
    restored = neural.restore(tmp_path / "rule.eqx", guided(target, seed=7))
    assert eqx.tree_equal(rule, restored)
    with pytest.raises(RuntimeError):
        neural.restore(
            tmp_path / "rule.eqx", pid.Controlled(neural.Guided(jax.random.key(0), target, PROTOCOL, width=8))
        )


def test_training_leaves_constants_alone_and_repeats(target):
    rule = guided(target)
    options = {"protocol": PROTOCOL, "grid": pid.uniform(3), "batch_size": 16, "progress": False}
    trained = neural.fit(jax.random.key(1), target, rule, num_iterations=23, **options)
    again = neural.fit(jax.random.key(1), target, rule, num_iterations=23, **options)
    assert eqx.tree_equal(trained.rule.control.target, rule.control.target)
    assert eqx.tree_equal(trained.rule.control.start, rule.control.start)
    assert eqx.tree_equal(trained.rule, again.rule)
    assert trained.history.shape == (23,)
    assert np.isfinite(trained.history).all()
    assert trained.num_gradient_evaluations == 23 * 16 * (3 + 1)


def test_single_precision():
    target = pid.Density(Shifted(jnp.ones(2, jnp.float32)), 2, dtype=jnp.float32)
    protocol = neural.brownian(jax.random.key(0), target)
    rule = pid.Controlled(neural.Guided(jax.random.key(0), target, protocol, width=8))
    trained = neural.fit(
        jax.random.key(0), target, rule, protocol=protocol, grid=pid.uniform(3), num_iterations=2, batch_size=8
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(eqx.filter(trained.rule, eqx.is_array))} == {jnp.dtype("float32")}
    assert trained.history.dtype == np.float32


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_reference_covers_a_target_of_unknown_scale(scale):
    target = pid.Density(lambda y: -0.5 * jnp.sum((y / scale) ** 2), 2)
    protocol = neural.brownian(jax.random.key(0), target, horizon=4.0)
    assert 0.5 * scale < protocol.noise_scale * 2 < 2 * scale
    mixture = pid.GaussianMixture.isotropic(jnp.array([[scale, 0.0], [3 * scale, 0.0]]), scale**2)
    mean, spread = mixture.location()
    protocol = neural.brownian(jax.random.key(0), mixture)
    assert jnp.allclose(protocol.noise_scale, spread)
    assert jnp.allclose(protocol.start, mean)


def test_clipped_gradient_is_no_longer_than_asked(target):
    far = jnp.full(target.dim, 1e3)
    control = disturbed(guided(target, clip=2.0)).control
    unclipped = disturbed(guided(target, clip=1e6)).control
    network = control.network(jnp.array(0.5), far)
    gate = control.gate(neural.network.fourier_features(jnp.array(0.5)))
    guidance = control(jnp.array(0.5), far) - network
    assert jnp.allclose(jnp.linalg.norm(guidance), 2 * jnp.abs(gate))
    assert jnp.allclose(unclipped(jnp.array(0.5), far) - network, gate * (target.function.mean - far))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": 0}, r"key is 0; pass one typed key"),
        ({"target": pid.Samples(jnp.ones((3, 1)))}, r"target is a Samples, which has no log-density"),
        ({"rule": pid.Ancestral()}, r"rule is a Ancestral; pass Controlled"),
        ({"rule": pid.Euler()}, r"rule has nothing to train"),
        ({"num_iterations": 0}, r"num_iterations is 0; pass an integer >= 1"),
        ({"batch_size": 1.5}, r"batch_size is 1.5; pass an integer >= 1"),
        (
            {"rule": pid.Euler(correction=neural.Network(jax.random.key(0), 1, dtype=jnp.float32))},
            r"rule has arrays of float32 but the target is of float64",
        ),
    ],
)
def test_fit_refuses(change, message):
    target = pid.Density(Shifted(jnp.ones(1)), 1)
    arguments = {"key": jax.random.key(0), "target": target, "rule": guided(target), "protocol": PROTOCOL} | change
    with pytest.raises(ValueError, match=message):
        neural.fit(arguments.pop("key"), arguments.pop("target"), arguments.pop("rule"), **arguments)


def test_other_refusals(target):
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="dim is 0; pass an integer >= 1"):
        neural.Network(key, 0)
    with pytest.raises(ValueError, match="depth is 0"):
        neural.Network(key, 1, depth=0)
    with pytest.raises(ValueError, match="target is a Samples, without a log-density"):
        neural.Guided(key, pid.Samples(jnp.ones((3, 1))), PROTOCOL)
    with pytest.raises(ValueError, match="clip is 0"):
        neural.Guided(key, target, PROTOCOL, clip=0.0)
    with pytest.raises(ValueError, match="scale is -1; pass a number > 0"):
        neural.brownian(key, target, scale=-1.0)
    with pytest.raises(ValueError, match=r"start has shape \(3,\) but the target has dimension"):
        neural.brownian(key, target, start=jnp.zeros(3))


def test_fit_says_when_the_loss_is_not_finite():
    half_line = pid.Density(lambda y: jnp.where(y[0] > 0, -0.5 * jnp.sum(y**2), -jnp.inf), 1)
    with pytest.raises(neural.TrainingError, match="the loss is inf at iteration 0"):
        neural.fit(
            jax.random.key(0),
            half_line,
            guided(half_line),
            protocol=PROTOCOL,
            grid=pid.uniform(2),
            num_iterations=1,
            batch_size=32,
        )
