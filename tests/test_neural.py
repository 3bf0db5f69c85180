"""The learned controls, against a target whose optimal control is known.

p̃ = Z N(μ, I) under the Brownian reference of unit scale from the origin: u* = μ, a constant, for which the Euler
chain is exact on any grid and log W = log Z on every path.
"""

import importlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pidjax as pid
from pidjax import learning

LOG_Z = 1.3
MEAN = jnp.array([1.5, -0.5])
PROTOCOL = pid.harmonic(beta=0.0, noise_scale=1.0)
MIXTURE = pid.GaussianMixture.isotropic(jnp.array([[-1.0], [1.0]]), 0.3)


class Shifted(eqx.Module):
    """log of Z N(mean, width² I)."""

    mean: jax.Array
    width: jax.Array

    def __call__(self, y):
        squared = jnp.sum(((y - self.mean) / self.width) ** 2)
        return LOG_Z - 0.5 * squared - y.size * (0.5 * np.log(2 * np.pi) + jnp.log(self.width))


def shifted(mean=MEAN, width=1.0):
    return pid.Density(Shifted(mean, jnp.asarray(width, mean.dtype)), mean.size, dtype=mean.dtype)


@pytest.fixture(autouse=True)
def promotion():
    """optax itself raises Python floats to integer counts, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def target():
    return shifted()


def guided(target, seed=0, **options):
    return pid.Controlled(learning.Guided(jax.random.key(seed), target, PROTOCOL, width=16, **options))


def disturbed(rule, seed=1, size=0.3):
    """The rule with noise on every trainable array: a control that is neither zero nor trained."""
    learned, fixed = eqx.partition(rule, learning.is_learned(rule))
    leaves, structure = jax.tree.flatten(learned)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    noisy = [leaf + size * jax.random.normal(key, leaf.shape, leaf.dtype) for leaf, key in zip(leaves, keys)]
    return eqx.combine(structure.unflatten(noisy), fixed)


def fast(num_iterations):
    """For a few iterations on an easy target."""
    return learning.adam(5e-3, decay=num_iterations, clip=1.0)


def standard_error(log_weights):
    return float(jnp.std(log_weights, ddof=1)) / log_weights.size**0.5


@eqx.filter_jit
def log_weights_of(rule, target, num_steps=5):
    prepared = pid.Problem(target, PROTOCOL).prepare(pid.uniform_grid(num_steps))
    return pid.rollout(prepared, rule, jax.random.key(0), jnp.arange(4000)).log_weights


@eqx.filter_jit
def loss_of(loss, rule, target):
    prepared = pid.Problem(target, PROTOCOL).prepare(pid.uniform_grid(5))
    return loss(prepared, rule, jax.random.key(0), jnp.arange(4000), ())[0]


@pytest.mark.slow
@pytest.mark.parametrize("loss", [learning.RelativeEntropy(), learning.LogVariance()])
def test_training_finds_the_known_optimal_control(target, loss):
    options = {"protocol": PROTOCOL, "grid": pid.uniform_grid(8)}
    budget = {"num_iterations": 150, "batch_size": 128, "optimiser": fast(150), "progress": False}
    trained = learning.fit(jax.random.key(1), target, guided(target), loss=loss, **options, **budget)
    solution = pid.sample(jax.random.key(2), target, rule=trained.parameters, num_samples=2000, **options)
    gap = LOG_Z - jnp.mean(solution.log_weights)
    assert -4 * standard_error(solution.log_weights) <= gap < 0.02
    assert abs(solution.log_z.value - LOG_Z) < 4 * solution.log_z.standard_error + 1e-6
    assert solution.ess > 0.95 * solution.num_samples
    points = jax.random.normal(jax.random.key(3), (200, target.dim)) + MEAN[None] / 2
    learned = jax.vmap(trained.parameters.control, in_axes=(None, 0))(jnp.array(0.5), points)
    optimal = jnp.broadcast_to(MEAN, learned.shape)
    assert jnp.sqrt(jnp.mean((learned - optimal) ** 2)) < 0.2


@pytest.mark.slow
def test_relative_entropy_is_the_known_divergence_without_control(target):
    """With u = 0 the loss is KL(N(0, I) ‖ N(μ, I)) − log Z = |μ|²/2 − log Z."""
    log_weights = log_weights_of(guided(target), target)
    loss = loss_of(learning.RelativeEntropy(), guided(target), target)
    truth = 0.5 * jnp.sum(MEAN**2) - LOG_Z
    assert jnp.allclose(loss, -jnp.mean(log_weights), rtol=1e-12)
    assert abs(loss - truth) < 4 * standard_error(log_weights)


@pytest.mark.slow
def test_log_variance_is_that_of_the_rollout(target):
    rule = disturbed(guided(target))
    expected = jnp.var(log_weights_of(rule, target), ddof=1)
    assert jnp.allclose(loss_of(learning.LogVariance(), rule, target), expected, rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(("dim", "num_steps"), [(1, 50), (2, 5), (2, 50)])
def test_weights_are_unbiased_under_an_untrained_network(dim, num_steps):
    """E[W] = Z. W has finite variance: the target is narrower than √2 of the reference, and g is small at t = 1."""
    narrow = shifted(MEAN[:dim], 0.7)
    rule = disturbed(guided(narrow), size=0.1)
    assert jnp.max(jnp.abs(rule.control(jnp.array(0.5), jnp.ones(dim)))) > 0.01
    weights = jnp.exp(log_weights_of(rule, narrow, num_steps) - LOG_Z)
    assert abs(jnp.mean(weights) - 1) < 4 * jnp.std(weights, ddof=1) / weights.size**0.5


@pytest.mark.slow
def test_gradient_against_finite_differences(target):
    prepared = pid.Problem(target, PROTOCOL).prepare(pid.uniform_grid(4))
    rule = disturbed(guided(target))
    learned, fixed = eqx.partition(rule, learning.is_learned(rule))
    direction = jax.tree.map(lambda leaf: jnp.cos(jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape), learned)

    @jax.jit
    @jax.value_and_grad
    def along(step):
        moved = jax.tree.map(lambda leaf, towards: leaf + step * towards, learned, direction)
        rule = eqx.combine(moved, fixed)
        return learning.RelativeEntropy()(prepared, rule, jax.random.key(0), jnp.arange(8), ())[0]

    derivative = along(0.0)[1]
    difference = (along(1e-5)[0] - along(-1e-5)[0]) / 2e-5
    assert abs(derivative - difference) < 1e-7 * max(1, abs(derivative))


@pytest.mark.slow
@pytest.mark.extended
def test_correction_starts_at_the_explicit_sampler_and_mends_a_displaced_surrogate():
    centres = jnp.array([[-2.0], [2.0]])
    mixture = pid.GaussianMixture.isotropic(centres, 0.3)
    target = pid.Surrogate(pid.Density(pid.GaussianMixture.isotropic(centres + 0.8, 0.3).log_density, 1), mixture)
    rule = pid.Euler(correction=learning.Network(jax.random.key(0), 1, width=16))
    options = {"protocol": pid.harmonic(beta=1.0), "grid": pid.uniform_grid(10)}
    plain = pid.sample(jax.random.key(1), target, rule=pid.Euler(), num_samples=500, **options)
    corrected = pid.sample(jax.random.key(1), target, rule=rule, num_samples=500, **options)
    assert jnp.allclose(plain.samples, corrected.samples, rtol=0, atol=1e-13)
    assert jnp.allclose(plain.log_weights, corrected.log_weights, rtol=0, atol=1e-11)

    budget = {"num_iterations": 100, "batch_size": 128, "optimiser": fast(100), "progress": False}
    trained = learning.fit(jax.random.key(2), target, rule, **options, **budget)
    after = pid.sample(jax.random.key(1), target, rule=trained.parameters, num_samples=500, **options)
    gain = after.log_weights - plain.log_weights
    assert jnp.mean(gain) > 4 * standard_error(gain)
    assert after.ess > plain.ess
    assert trained.num_evaluations == 100 * 128


@pytest.mark.slow
def test_training_leaves_what_is_fixed_and_repeats(target):
    rule = guided(target)
    options = {"protocol": PROTOCOL, "grid": pid.uniform_grid(3), "batch_size": 16, "progress": False}
    trained = learning.fit(jax.random.key(1), target, rule, num_iterations=23, **options)
    again = learning.fit(jax.random.key(1), target, rule, num_iterations=23, **options)
    assert eqx.tree_equal(trained.parameters.control.guide, rule.control.guide)
    assert eqx.tree_equal(trained.parameters, again.parameters)
    assert trained.history.shape == (23,)
    assert np.isfinite(trained.history).all()
    assert trained.num_evaluations == 23 * 16 * (3 + 1)


@pytest.mark.slow
def test_single_precision():
    target = shifted(MEAN.astype(jnp.float32))
    options = {"protocol": PROTOCOL, "grid": pid.uniform_grid(3), "batch_size": 16, "progress": False}
    rule = pid.Controlled(learning.Network(jax.random.key(0), 2, width=16, dtype=jnp.float32))
    trained = learning.fit(jax.random.key(0), target, rule, num_iterations=2, **options)
    assert {leaf.dtype for leaf in jax.tree.leaves(eqx.filter(trained.parameters, eqx.is_array))} == {
        jnp.dtype("float32")
    }
    assert trained.history.dtype == np.float32


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_reference_covers_a_target_of_unknown_scale(scale):
    target = pid.Density(lambda y: -0.5 * jnp.sum((y / scale) ** 2), 2)
    protocol = learning.brownian(jax.random.key(0), target, horizon=4.0)
    assert 0.5 * scale < protocol.noise_scale * 2 < 2 * scale
    mixture = pid.GaussianMixture.isotropic(jnp.array([[scale, 0.0], [3 * scale, 0.0]]), scale**2)
    mean, spread = mixture.place()[:2]
    protocol = learning.brownian(jax.random.key(0), mixture)
    assert jnp.allclose(protocol.noise_scale, spread)
    assert jnp.allclose(protocol.start, mean)


@pytest.mark.slow
def test_clipped_gradient_is_no_longer_than_asked(target):
    far = jnp.full(target.dim, 1e3)
    control = disturbed(guided(target, clip=2.0)).control
    unclipped = disturbed(guided(target, clip=1e6)).control
    network = control.network(jnp.array(0.5), far)
    gate = control.gate(importlib.import_module("pidjax.learning.networks").fourier_features(jnp.array(0.5)))
    guidance = control(jnp.array(0.5), far) - network
    assert jnp.allclose(jnp.linalg.norm(guidance), 2 * jnp.abs(gate))
    assert jnp.allclose(unclipped(jnp.array(0.5), far) - network, gate * (target.function.mean - far))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": 0}, r"key is 0; pass one typed key"),
        ({"target": pid.Samples(jnp.ones((3, 1)))}, r"target is a Samples, which has no log-density"),
        ({"rule": pid.Ancestral()}, r"rule is a Ancestral; pass Controlled"),
        ({"rule": pid.Euler()}, r"target is a Density, which has no tilted laws for the rule Euler"),
        ({"target": MIXTURE, "rule": pid.Euler()}, r"rule has nothing to train"),
        ({"num_iterations": 0}, r"num_iterations is 0; pass an integer >= 1"),
        ({"batch_size": 1.5}, r"batch_size is 1.5; pass an integer >= 1"),
        (
            {
                "target": MIXTURE,
                "rule": pid.Euler(correction=learning.Network(jax.random.key(0), 1, dtype=jnp.float32)),
            },
            r"rule has arrays of float32 but the target is of float64",
        ),
    ],
)
def test_fit_refuses(change, message):
    target = shifted(jnp.ones(1))
    arguments = {"key": jax.random.key(0), "target": target, "rule": guided(target), "protocol": PROTOCOL} | change
    with pytest.raises(ValueError, match=message):
        learning.fit(arguments.pop("key"), arguments.pop("target"), arguments.pop("rule"), **arguments)


def test_other_refusals(target):
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="dim is 0; pass an integer >= 1"):
        learning.Network(key, 0)
    with pytest.raises(ValueError, match="depth is 0"):
        learning.Network(key, 1, depth=0)
    with pytest.raises(ValueError, match="target is a Samples, without a log-density"):
        learning.Guided(key, pid.Samples(jnp.ones((3, 1))), PROTOCOL)
    with pytest.raises(ValueError, match="clip is 0"):
        learning.Guided(key, target, PROTOCOL, clip=0.0)
    with pytest.raises(ValueError, match="scale is -1; pass a number > 0"):
        learning.brownian(key, target, scale=-1.0)
    with pytest.raises(ValueError, match=r"start has shape \(3,\) but the target has dimension"):
        learning.brownian(key, target, start=jnp.zeros(3))


@pytest.mark.slow
def test_fit_says_when_the_loss_is_not_finite(target):
    broken = shifted(MEAN * jnp.nan)
    options = {"protocol": PROTOCOL, "grid": pid.uniform_grid(3), "batch_size": 16, "progress": False}
    with pytest.raises(ValueError, match="loss is nan at the parameters given"):
        learning.fit(jax.random.key(0), broken, guided(target), num_iterations=23, **options)
