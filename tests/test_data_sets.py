"""Data sets at full size: one copy of the data, sums over the whole set at once, proportions of draws, devices."""

import socket
import subprocess
import sys
import textwrap
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_within

import pidjax as pid
from pidjax.process.bridge import Observation

KEY = jax.random.key(11)


def digits_like(count, dim, dtype: type = np.float64, seed=0):
    """Points in clusters, weights of which a third are zero, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    points = rng.normal(size=(3, dim))[labels] + 0.7 * rng.normal(size=(count, dim))
    weights = rng.uniform(size=count)
    weights[::3] = 0
    return points.astype(dtype), weights.astype(dtype), labels


def posterior(points, weights, gain, value):
    """log-mass and p_i, by the sum over all points."""
    seen = points @ gain.T if np.ndim(gain) == 2 else gain * points
    with np.errstate(divide="ignore"):
        log_joint = np.log(weights / weights.sum()) - 0.5 * np.sum((value - seen) ** 2, axis=1)
    peak = log_joint.max()
    terms = np.exp(log_joint - peak)
    return peak + np.log(terms.sum()), terms / terms.sum()


@pytest.mark.parametrize(
    "gain", [0.0, 0.8, 40.0, np.diag(np.linspace(0.1, 1.5, 40))], ids=["start", "on", "end", "map"]
)
def test_answers_of_one_stream(gain):
    """Log-mass, mean, entropy, class probabilities and the step's variances, over chunks and in units of another problem."""
    points, weights, labels = digits_like(500, 40)
    shift, scale = np.linspace(-1, 1, 40), 1.7
    value = np.asarray(gain * points[1] if np.ndim(gain) < 2 else gain @ points[1]) + np.random.default_rng(1).normal(
        size=40
    )
    target = pid.Samples(jnp.array(points), jnp.array(weights), labels=labels, chunk=90)

    @eqx.filter_jit
    def answers(target, observation):
        law = target.rescaled(jnp.array(shift), jnp.array(scale)).tilt(observation)
        summed = law.log_mass, law.mean, law.entropy, law.class_probabilities, law.step_covariance()
        return *summed, law.agreement, law.nearest

    seen = Observation(jnp.array(gain) * scale, jnp.array(value - (gain @ shift if np.ndim(gain) else gain * shift)))
    got = answers(target, seen)
    log_mass, p = posterior(points, weights, np.array(gain), value)
    mean, positive = p @ points, p[p > 0]
    classes = np.array([p[labels == c].sum() for c in range(3)])
    truths = (
        log_mass, (mean - shift) / scale, -np.sum(positive * np.log(positive)), classes, p @ (points - mean) ** 2 / scale**2,
        np.sum(p**2), np.argmax(p),
    )  # fmt: skip
    for one, truth in zip(got, truths, strict=True):
        np.testing.assert_allclose(one, truth, rtol=1e-9, atol=1e-11)


def test_single_precision_from_the_start_of_time_to_its_end():
    """At every signal-to-noise ratio up to 10⁶, against double precision, in 3,000 points of 100 dimensions."""
    points, weights, labels = digits_like(3000, 100)
    points, weights = points.astype(np.float32), weights.astype(np.float32)
    rng = np.random.default_rng(2)
    target = pid.Samples(jnp.array(points), jnp.array(weights), labels=labels)

    @jax.jit
    def answers(gain, value):
        law = target.tilt(Observation(gain, value))
        return law.log_mass, law.mean, law.entropy, law.class_probabilities

    for ratio in (0.0, 1e-4, 0.03, 0.1, 0.3, 1.0, 1e3, 1e6):
        gain = np.float32(np.sqrt(ratio))
        value = (gain * points[1] + rng.normal(size=100)).astype(np.float32)
        log_mass, p = posterior(points.astype(float), weights.astype(float), float(gain), value.astype(float))
        classes = [p[labels == c].sum() for c in range(3)]
        truth = log_mass, p @ points.astype(float), -np.sum(p[p > 0] * np.log(p[p > 0])), classes
        # Logits are rounded at the size of |A y|² and |ζ|², the distance that the log-mass is made of at that of A y.
        rounding = (100 + 200 * min(ratio, 1) + 40 * ratio**0.5) * float(np.finfo(np.float32).eps)
        for one, exact in zip(answers(gain, jnp.array(value)), truth, strict=True):
            assert one.dtype == jnp.float32
            np.testing.assert_allclose(one, exact, rtol=rounding, atol=rounding)


def test_stored_in_half_precision():
    """bfloat16 points are those numbers exactly: sums, means and draws are as of the same points in float32."""
    points, weights, _ = digits_like(700, 30, np.float32)
    stored = jnp.array(points, jnp.bfloat16)
    same = jnp.array(stored, jnp.float32)
    value = 0.5 * same[2] + jnp.asarray(0.3, jnp.float32)

    def answers(points):
        target = pid.Samples(points, jnp.array(weights), chunk=200)
        law = target.tilt(Observation(jnp.asarray(0.5, jnp.float32), value))
        return law.log_mass, law.mean, target.place().mean, pid.sample(KEY, target, num_samples=20, num_steps=3).samples

    for one, other in zip(answers(stored), answers(same), strict=True):
        assert one.dtype == jnp.float32
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dim", [3, 30])
def test_slopes_by_finite_differences(dim):
    """Of log-mass, mean and entropy, in the observation, points, weights and change of units, over three chunks."""
    points, weights, _ = digits_like(50, dim)
    arguments = jnp.array(points), jnp.array(weights + 0.1), jnp.array(0.6), jnp.array(points[3] - 0.2), jnp.array(1.3)
    direction = jax.tree.map(lambda leaf: jax.random.normal(KEY, leaf.shape, leaf.dtype), arguments)

    @jax.jit
    def of(arguments):
        points, weights, gain, value, scale = arguments
        target = pid.Samples(points, weights, chunk=20).rescaled(0.1 * value, scale)
        law = target.tilt(Observation(gain, value))
        return law.log_mass + jnp.sum(jnp.sin(law.mean)) + law.entropy

    def moved(step):
        return of(jax.tree.map(lambda leaf, along: leaf + step * along, arguments, direction))

    h = 1e-3
    central = (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h)
    gradient = jax.jit(jax.grad(of))(arguments)
    reverse = sum(jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True))
    np.testing.assert_allclose(reverse, central, rtol=1e-7)


@pytest.mark.optimised
@pytest.mark.parametrize("num_steps", [pytest.param(1, marks=pytest.mark.extended), 4])
def test_data_come_out_in_their_proportions(num_steps):
    """Chi-square over 400 weighted points in blocks of several chunks, cells of fewer than five expected pooled."""
    points, weights, _ = digits_like(400, 2)
    target, count = pid.Samples(jnp.array(points), jnp.array(weights), chunk=70), 20_000
    samples = np.array(pid.sample(KEY, target, num_samples=count, num_steps=num_steps).samples)
    distances = np.sum((samples[:, None] - points[None]) ** 2, axis=2)
    assert distances.min(axis=1).max() < 1e-20
    seen = np.bincount(distances.argmin(axis=1), minlength=400)
    expected = count * weights / weights.sum()
    assert not seen[weights == 0].any()
    large = expected >= 5
    seen, expected = np.append(seen[large], seen[~large].sum()), np.append(expected[large], expected[~large].sum())
    chi_square = np.sum((seen - expected)[expected > 0] ** 2 / expected[expected > 0])
    freedom = np.sum(expected > 0) - 1
    assert_within(chi_square, freedom, np.sqrt(2 * freedom))


@pytest.mark.parametrize("rule", [pid.Euler(), pid.Moment()], ids=["euler", "moment"])
def test_gaussian_steps_end_on_data(rule):
    points, weights, _ = digits_like(60, 40)
    samples = pid.sample(KEY, pid.Samples(jnp.array(points), jnp.array(weights)), num_samples=50, rule=rule).samples
    distances = np.sum((np.array(samples)[:, None] - points[None, weights > 0]) ** 2, axis=2)
    assert distances.min(axis=1).max() < 1e-20


def test_the_data_are_there_once():
    points = jnp.array(digits_like(300, 8)[0])
    solution: Any = pid.sample(KEY, pid.Samples(points), num_samples=4, num_steps=2)
    point = pid.Problem(pid.Samples(points)).at(0.5, jnp.zeros(8))
    assert solution.target.points is points
    assert solution.prepared.target.rows.points is points
    assert point.law.data.rows.points is points


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.extended
@pytest.mark.parametrize("stored", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
def test_memory_beside_the_data(stored):
    """Compiled temporaries of preparing and of running each rule, beside 16,000 points of 2,000 dimensions: 128 or 64 MB."""
    points = jnp.zeros((16000, 2000), stored).at[:, 0].set(jnp.arange(16000.0).astype(stored))
    target = pid.Samples(points, chunk=250)

    def temporaries(function, argument):
        compiled: Any = eqx.filter_jit(function)
        return compiled.lower(argument).compile().compiled.memory_analysis().temp_size_in_bytes

    def prepare(target):
        prepared = pid.Problem(target).prepare(pid.log_snr_grid(3))
        return eqx.tree_at(lambda one: one.target.rows.points, prepared, None)

    assert temporaries(prepare, target) < points.nbytes / 4
    problem = pid.Problem(target)
    for rule in (pid.Ancestral(), pid.Moment(), pid.Euler()):
        plan = problem.plan(rule, num_steps=3)
        run = lambda prepared, plan=plan: pid.rollout(prepared, plan.rule, KEY, jnp.arange(32))  # noqa: E731
        assert temporaries(run, problem.prepare(plan.grid)) < points.nbytes / 4


@pytest.mark.extended
def test_data_on_several_devices_give_the_same_samples():
    """Over 1, 2, 4 and 8 devices, and no program gathers the data."""
    script = """
        import equinox as eqx, jax, jax.numpy as jnp, numpy as np
        import pidjax as pid
        from jax.sharding import Mesh, NamedSharding, PartitionSpec
        from pidjax.process.bridge import Observation
        points = np.random.default_rng(0).normal(size=(1600, 40)).astype(np.float32)
        found = []
        for count in (1, 2, 4, 8):
            mesh = Mesh(np.array(jax.devices()[:count]), ("data",))
            target = pid.Samples(jax.device_put(points, NamedSharding(mesh, PartitionSpec("data"))), chunk=60)
            assert target.shards == count
            solution = pid.sample(jax.random.key(5), target, num_samples=300, num_steps=4, save_paths=True)
            assert len(solution.prepared.target.rows.points.sharding.device_set) == count
            found.append([np.asarray(solution.samples), np.asarray(solution.weighted_states)])

        def look(target, value, key):
            law = target.tilt(Observation(jnp.float32(0.5), value))
            return law.mean, law.log_mass, law.entropy, law.draw(key)

        arguments = solution.prepared.target, jnp.ones((300, 40)), jax.random.split(jax.random.key(1), 300)
        program = eqx.filter_jit(jax.vmap(look, in_axes=(None, 0, 0))).lower(*arguments).compile().compiled
        assert "[200,40]" in program.as_text()
        assert "[1600" not in program.as_text()
        for other in found[1:]:
            same = np.isclose(found[0][0], other[0], rtol=1e-4, atol=1e-4).all(axis=1)
            assert same.mean() >= 0.99, same.mean()
            np.testing.assert_allclose(found[0][1][same], other[1][same], atol=2e-3)
    """
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.extended
def test_data_and_paths_over_devices_and_processes_give_the_same_samples(tmp_path):
    """One process of one device; of four, paths over two of them and data over the others; two such of two devices."""
    script = """
        import sys
        import equinox as eqx, jax, jax.numpy as jnp, numpy as np
        (process, processes, port), out = map(int, sys.argv[1:4]), sys.argv[4]
        if processes > 1:
            jax.distributed.initialize(f"localhost:{port}", processes, process)
        import pidjax as pid
        from jax.sharding import Mesh, NamedSharding, PartitionSpec
        points = np.random.default_rng(0).normal(size=(1600, 40)).astype(np.float32)
        mesh = Mesh(np.array(jax.devices()).reshape(-(-len(jax.devices()) // 2), -1), ("paths", "data"))

        def laid_out(values, axis):
            sharding = NamedSharding(mesh, PartitionSpec(axis))
            return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])

        target = pid.Samples(laid_out(points, "data"), chunk=60)
        solution = pid.sample(jax.random.key(5), target, num_samples=300, num_steps=4)

        prepared, indices = solution.prepared, laid_out(np.arange(300), "paths")
        run = eqx.filter_jit(lambda prepared, indices: pid.rollout(prepared, solution.rule, jax.random.key(5), indices))
        program = run.lower(prepared, indices).compile().compiled.as_text()
        rows, columns = mesh.devices.shape
        assert f"[{300 // rows},40]" in program and f"[{1600 // columns},40]" in program
        assert len(jax.devices()) == 1 or "[1600" not in program
        gather = jax.jit(lambda ends: ends, out_shardings=NamedSharding(mesh, PartitionSpec()))
        together = gather(run(prepared, indices).samples)
        if process == 0:
            np.savez(out, alone=solution.samples, together=together)
    """

    def run(processes, devices, name):
        environment = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "JAX_PLATFORMS": "cpu"}
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        arguments = [str(processes), str(port), str(tmp_path / name)]
        command = [sys.executable, "-c", textwrap.dedent(script)]
        started = [
            subprocess.Popen([*command, str(number), *arguments], env=environment, stderr=subprocess.PIPE, text=True)
            for number in range(processes)
        ]
        for process in started:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
        return np.load(tmp_path / f"{name}.npz")

    one = run(1, 1, "one")
    for other in (run(1, 4, "four"), run(2, 2, "two_processes")):
        for name in ("alone", "together"):
            assert np.isclose(one[name], other[name], rtol=1e-4, atol=1e-4).all(axis=1).mean() >= 0.99


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": [0, 1]}, r"labels is int.*\[2\]; pass integers >= 0 of shape \(3,\)"),
        ({"labels": [0, 1, -1]}, "labels has the minimum -1"),
        ({"labels": [0.5, 1, 2]}, "labels is float"),
        ({"chunk": 0}, "chunk is 0; pass an integer >= 1"),
        ({"weights": [1, -1, 1]}, "weights has the minimum -1"),
        ({"weights": [0, 0, 0]}, "weights has the minimum 0 and the maximum 0"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        pid.Samples(jnp.zeros((3, 2)), **arguments)


def test_a_data_set_can_be_made_while_something_else_is_traced():
    points = jnp.arange(6.0).reshape(3, 2)
    np.testing.assert_allclose(jax.jit(lambda shift: pid.Samples(points).place().mean + shift)(1.0), [3.0, 4.0])


def test_a_pool_steps_with_its_whole_covariance_where_data_take_variances():
    density, mixture = pid.Density(lambda y: -jnp.sum(y**2), 40), pid.GaussianMixture.isotropic(jnp.zeros((1, 40)), 1.0)
    pool = pid.Pool.draw(jax.random.key(0), density, mixture, 50)
    seen = Observation(jnp.array(0.5), jnp.ones(40))
    law, of_data = pool.tilt(seen), pid.Samples(pool.points, jax.nn.softmax(pool.log_ratios)).tilt(seen)
    np.testing.assert_allclose(law.step_covariance(), of_data.covariance(), atol=1e-12)
    np.testing.assert_allclose(of_data.step_covariance(), jnp.diagonal(law.step_covariance()), atol=1e-12)
