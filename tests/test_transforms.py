"""The mathematics under jit, vmap, grad, chunks and sharding, and on new values without recompiling."""

import subprocess
import sys
import textwrap

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_within

import pidjax as pid

MEANS = jnp.array([[-1.0, 0.5], [1.5, -0.5], [0.0, 2.0]])
COVARIANCES = jnp.array([[[0.3, 0.1], [0.1, 0.5]], [[0.6, 0.0], [0.0, 0.2]], [[0.4, -0.2], [-0.2, 0.4]]])
WEIGHTS = jnp.array([0.2, 0.3, 0.5])


def mixture():
    return pid.GaussianMixture(MEANS, COVARIANCES, WEIGHTS)


def statistic(target, beta, start, times, rule, num_paths=8, segments=None):
    """A function of samples and weights, as a user might differentiate."""
    protocol = pid.harmonic(beta, start=start, noise_scale=1.3)
    paths = pid.rollout(
        pid.Problem(target, protocol).prepare(pid.at_times(times)),
        rule,
        jax.random.key(3),
        jnp.arange(num_paths),
        segments=segments,
    )
    return jnp.mean(jnp.sum(jnp.sin(paths.samples), axis=-1)) + 0.1 * jnp.mean(paths.log_weights)


TIMES = jnp.array([0.0, 0.2, 0.55, 0.9, 1.0])
START = jnp.array([0.3, -0.2])


@pytest.mark.slow
@pytest.mark.parametrize(
    "rule", [pytest.param(pid.Euler(), marks=pytest.mark.extended), pid.Moment()], ids=["euler", "moment"]
)
def test_gradients_agree_with_finite_differences_in_both_modes(rule):
    """In every parameter at once, along one direction, at β below, at and above zero, and stiff."""

    def of(parameters):
        means, covariances, weights, beta, start, inner = parameters
        target = pid.GaussianMixture(means, covariances, weights)
        times = jnp.concatenate([jnp.zeros(1), inner, jnp.ones(1)])
        return statistic(target, beta, start, times, rule)

    value = jax.jit(of)
    both = jax.jit(
        lambda parameters, direction: (jax.jvp(of, (parameters,), (direction,))[1], jax.grad(of)(parameters))
    )
    shapes = MEANS, COVARIANCES, WEIGHTS, jnp.asarray(0.0), START, TIMES[1:-1]
    direction = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(7), leaf.shape, leaf.dtype), shapes)
    direction = (direction[0], direction[1] + jnp.swapaxes(direction[1], -1, -2), *direction[2:])
    h = 1e-4
    for beta in (-2.0, 0.0, 1.0, 40.0):
        parameters = MEANS, COVARIANCES, WEIGHTS, jnp.asarray(beta), START, TIMES[1:-1]

        def moved(step, parameters=parameters):
            return value(jax.tree.map(lambda p, along: p + step * along, parameters, direction))

        forward, gradient = both(parameters, direction)
        reverse = sum(jnp.vdot(g, v) for g, v in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction)))
        central = (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h)
        np.testing.assert_allclose(forward, reverse, rtol=1e-9)
        np.testing.assert_allclose(forward, central, rtol=1e-6)


@pytest.mark.slow
def test_gradient_returns_a_target_and_is_the_same_in_segments():
    @eqx.filter_jit
    @eqx.filter_grad
    def gradient(target, segments):
        return statistic(target, 1.0, START, TIMES, pid.Moment(), segments=segments)

    whole = gradient(mixture(), None)
    assert isinstance(whole, pid.GaussianMixture)
    for segments in (1, 3):
        parts = gradient(mixture(), segments)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), whole, parts)


def gradient_temporaries(num_steps, segments=None, num_paths=200, means=MEANS):
    """Bytes of temporaries of the gradient of a rollout, as the compiler reports them."""

    def of(means):
        target = pid.GaussianMixture.isotropic(means, 0.3)
        prepared = pid.Problem(target, pid.harmonic(1.0)).prepare(pid.uniform_grid(num_steps))
        paths = pid.rollout(prepared, pid.Euler(), jax.random.key(0), jnp.arange(num_paths), segments=segments)
        return jnp.mean(paths.log_weights)

    return jax.jit(jax.grad(of)).lower(means).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.slow
@pytest.mark.optimised
def test_gradient_memory_grows_by_the_state_only():
    """A plain scan would keep every intermediate of a step, here some 40 numbers a path; the state and weight are 3."""
    growth = (gradient_temporaries(1000) - gradient_temporaries(100)) / 900
    assert growth < 2 * 200 * 3 * 8


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.extended
def test_gradient_memory_in_segments():
    """Memory grows by the states between 32 segments, not 10, and within one by states and noise of 32 steps, not 10."""
    dim, num_paths, bytes_each = 8, 1000, 4
    means = jax.random.normal(jax.random.key(0), (8, dim), jnp.float32)
    growth = gradient_temporaries(1000, 32, num_paths, means) - gradient_temporaries(100, 10, num_paths, means)
    between, within = dim + 1, 2 * dim + 1
    assert growth < 1.25 * (32 - 10) * (between + within) * num_paths * bytes_each


@pytest.mark.slow
def test_discrete_draws_raise_when_differentiated():
    with pytest.raises(TypeError, match=r"discrete draw.*Moment"):
        jax.grad(lambda means: statistic(pid.GaussianMixture(means, COVARIANCES), 1.0, START, TIMES, pid.Ancestral()))(
            MEANS
        )
    data = pid.Samples(jnp.arange(10.0)[:, None])
    with pytest.raises(TypeError, match="discrete draw"):
        jax.grad(lambda beta: statistic(data, beta, None, TIMES, pid.Ancestral()))(1.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "rule",
    [pid.Euler(), pytest.param(pid.Moment(), marks=pytest.mark.extended), pid.Ancestral()],
    ids=["euler", "moment", "ancestral"],
)
def test_jit_equals_eager_and_vmap_equals_a_loop(rule):
    prepared = pid.Problem(mixture(), pid.harmonic(1.0)).prepare(pid.log_snr_grid(4))
    key = jax.random.key(1)
    together = pid.rollout(prepared, rule, key, jnp.arange(3))
    compiled = eqx.filter_jit(pid.rollout)(prepared, rule, key, jnp.arange(3))
    for i in (0, 2):
        alone = pid.rollout(prepared, rule, key, jnp.arange(i, i + 1))
        np.testing.assert_allclose(alone.samples[0], together.samples[i], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(compiled.log_weights[i], together.log_weights[i], rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_vmap_over_problems():
    @jax.jit
    def mean_end(beta):
        prepared = pid.Problem(mixture(), pid.harmonic(beta)).prepare(pid.uniform_grid(5))
        return jnp.mean(pid.rollout(prepared, pid.Moment(), jax.random.key(0), jnp.arange(4)).samples)

    betas = jnp.array([0.0, 1.0, 10.0])
    np.testing.assert_allclose(jax.vmap(mean_end)(betas), jnp.stack([mean_end(b) for b in betas]), rtol=1e-9)


@pytest.mark.optimised
def test_many_rows_compile_to_the_right_numbers():
    """A version of XLA miscompiled small quadratic forms over more than 16,000 rows in three dimensions."""
    target = pid.GaussianMixture(jnp.ones((1, 3)), jnp.array([[[1.0, 0.2, 0], [0.2, 2, 0], [0, 0, 0.5]]]))
    points = jax.random.normal(jax.random.key(0), (40_000, 3))
    precision = jnp.linalg.inv(target.covariances[0])
    quadratic = np.einsum("ni,ij,nj->n", *(np.asarray(a) for a in (points - 1, precision, points - 1)))
    expected = -0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * np.asarray(target.covariances[0]))[1])
    np.testing.assert_allclose(jax.jit(jax.vmap(target.log_density))(points), expected, rtol=1e-10)


def test_new_values_do_not_recompile():
    traces = 0

    @eqx.filter_jit
    def run(target, protocol, grid):
        nonlocal traces
        traces += 1
        return pid.rollout(
            pid.Problem(target, protocol).prepare(grid), pid.Moment(), jax.random.key(0), jnp.arange(4)
        ).samples

    for shift, beta, middle in ((0.0, 0.0, 0.5), (1.0, -3.0, 0.4), (2.0, 1e4, 0.9)):
        target = pid.GaussianMixture(MEANS + shift, COVARIANCES * (1 + shift))
        run(target, pid.harmonic(beta), pid.at_times(jnp.array([0.0, middle, 1.0])))
    assert traces == 1


@pytest.mark.slow
def test_chunks_do_not_change_the_paths():
    whole = pid.sample(jax.random.key(5), mixture(), num_samples=50, num_steps=4, rule=pid.Moment())
    parts = pid.sample(jax.random.key(5), mixture(), num_samples=50, num_steps=4, rule=pid.Moment(), batch_size=16)
    np.testing.assert_allclose(whole.samples, parts.samples, rtol=1e-9)
    np.testing.assert_allclose(whole.log_weights, parts.log_weights, rtol=1e-9, atol=1e-12)


@pytest.mark.extended
@pytest.mark.parametrize(
    ("num_samples", "dim", "kind"), [(10**6, 2, "mixture"), (10**5, 64, "mixture"), (10**6, 2, "energy")]
)
def test_memory_does_not_grow_with_the_paths(num_samples, dim, kind):
    """The process grows by thrice the result (chunks, joined, in the user's units) and eight times a chunk's 16 MB at most."""
    script = f"""
        import resource, jax, pidjax as pid
        target = pid.GaussianMixture.isotropic(3 * jax.random.normal(jax.random.key(9), (9, {dim})), 0.3)
        if "{kind}" == "energy":
            target = pid.Density(target.log_density, {dim})
        def largest(num_samples):
            solution = pid.sample(jax.random.key(0), target, num_samples=num_samples, progress=False)
            jax.block_until_ready(solution.samples)
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(-largest(4096) + largest({num_samples}))
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stderr
    size = num_samples * (dim + 1) * 4
    assert int(result.stdout) < 3 * size + 8 * 2**24


@pytest.mark.slow
def test_devices_do_not_change_the_paths():
    script = """
        import jax, jax.numpy as jnp, numpy as np
        import pidjax as pid
        assert len(jax.devices()) == 2
        target = pid.GaussianMixture.isotropic(jnp.array([[-1.0, 0.0], [1.0, 1.0]]), 0.3)
        spread = pid.sample(jax.random.key(5), target, num_samples=1000)
        assert len(spread.samples.sharding.device_set) == 2
        prepared = spread.prepared
        alone = pid.rollout(prepared, spread.rule, jax.random.split(jax.random.key(5))[1], jnp.arange(1000))
        same = np.isclose(prepared.unit.from_unit(alone.samples), spread.samples, rtol=1e-4, atol=1e-5).all(axis=1)
        assert same.mean() >= 0.999, same.mean()
        chunked = pid.sample(jax.random.key(5), pid.GaussianMixture.isotropic(jnp.ones((8192, 2)), 0.3), num_samples=500)
        assert chunked.settings["batch_size"] == 256
        assert len(chunked.samples.sharding.device_set) == 2
    """
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_dtype_follows_the_input(dtype):
    same = pid.GaussianMixture(MEANS.astype(dtype), COVARIANCES.astype(dtype))
    for target in (
        same,
        pid.Samples(MEANS.astype(dtype)),
        pid.Surrogate(pid.Density(lambda y: -0.5 * jnp.sum(y**2), 2, dtype=dtype), same),
    ):
        solution = pid.sample(jax.random.key(0), target, num_samples=8, num_steps=2, save_paths=True)
        for array in (
            solution.samples,
            solution.log_weights,
            solution.states,
            solution.weighted_states,
            solution.times,
        ):
            assert array.dtype == dtype


@pytest.mark.slow
def test_gradients_through_sample_itself():
    """In the stiffness, the target and the parameters of a density, against finite differences with the surrogate held."""

    def of(beta, target):
        run = pid.sample(
            jax.random.key(0),
            target,
            protocol=pid.harmonic(beta),
            rule=pid.Moment(),
            num_samples=16,
            grid=pid.uniform_grid(4),
        )
        return jnp.mean(jnp.sin(run.samples)) + 0.1 * run.log_z.value

    def along(function, at, step):
        return (function(at + step) - function(at - step)) / (2 * step)

    beta, target = jnp.array(2.0), mixture()
    by_beta, by_target = jax.grad(of, argnums=(0, 1))(beta, target)
    np.testing.assert_allclose(by_beta, along(lambda value: of(value, target), beta, 1e-4), rtol=1e-5)

    def moved(shift):
        return of(beta, eqx.tree_at(lambda one: one.means, target, MEANS + shift))

    np.testing.assert_allclose(jnp.sum(by_target.means), along(moved, 0.0, 1e-4), rtol=1e-5)


class Bowl(eqx.Module):
    curvature: jax.Array

    def __call__(self, y):
        return -0.5 * self.curvature * jnp.sum(y**2)


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.extended
def test_gradient_of_log_z_in_the_parameters_of_a_density():
    """d log Z/da of exp(−a|y|²/2) in the plane is −1/a; the estimate is a weighted mean of −|y|²/2."""

    def log_z(curvature):
        run = pid.sample(jax.random.key(0), pid.Density(Bowl(curvature), 2), rule=pid.Moment(), num_samples=2000)
        return run.log_z.value

    slope = jax.grad(log_z)(jnp.array(2.0))
    assert_within(slope, -0.5, 0.5 / np.sqrt(0.8 * 2000))


def test_sample_under_jit():
    jitted = jax.jit(lambda target: pid.sample(jax.random.key(0), target, num_samples=8, num_steps=2).samples)
    eager = pid.sample(jax.random.key(0), mixture(), num_samples=8, num_steps=2).samples
    np.testing.assert_allclose(jitted(mixture()), eager, rtol=1e-9)
    with pytest.raises(ValueError, match=r"cannot be sampled under jit or vmap.*use Problem and"):
        jax.jit(lambda a: pid.sample(jax.random.key(0), pid.Density(Bowl(a), 2)).log_z)(jnp.array(2.0))


@pytest.mark.slow
@pytest.mark.extended
def test_second_derivatives_through_the_rollout():
    """The Hessian, reverse over forward, against differences of the gradient."""

    def loss(beta):
        return statistic(mixture(), beta, START, TIMES, pid.Moment(), num_paths=4)

    curvature = jax.jit(jax.hessian(loss))(jnp.array(2.0))
    slope = jax.jit(jax.grad(loss))
    np.testing.assert_allclose(curvature, (slope(2.0 + 1e-4) - slope(2.0 - 1e-4)) / 2e-4, rtol=1e-5)
