"""Learned protocols: the descent itself, what is learned and how, and the objectives against summation and differentiation."""

import functools
import importlib
import subprocess
import sys
import textwrap
from contextlib import contextmanager

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_within, grid_quadrature, mean_and_error
from protocols import line_mixture

import pidjax as pid
from pidjax import GaussianMixture, exact, guides, harmonic, learning, piecewise, zoo

descend = importlib.import_module("pidjax.learning.descend")
KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def promotion():
    """optax itself raises Python floats to integer counts, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def test_descent_and_history(dtype):
    """Of a quadratic with a known minimum; every iteration is in the history, whatever the stretches."""
    middle = jnp.array([1.0, -2.0], dtype)
    learned = learning.descend(lambda x: jnp.sum((x - middle) ** 2), jnp.zeros(2, dtype), num_iterations=310)
    assert learned.history.shape == (310,)
    assert learned.history.dtype == dtype
    assert learned.parameters.dtype == dtype
    assert learned.history[0] == 5
    np.testing.assert_allclose(learned.parameters, middle, atol=1e-2)
    assert learned.outcome == learning.Outcome.COMPLETED
    learned.check()


def test_new_values_never_recompile():
    """The loss is traced again for no value of the parameters, of what it holds, or of the number of iterations."""
    traces = []

    def distance(middle, x):
        traces.append(None)
        return jnp.sum((x - middle) ** 2)

    for place, count in ((1.0, 30), (2.0, 60), (3.0, 7)):
        learning.descend(eqx.Partial(distance, jnp.full(2, place)), jnp.full(2, 5 * place), num_iterations=count)
    assert len(traces) <= 2


def test_any_optimiser():
    learned = learning.descend(
        lambda x: jnp.sum((x - 3) ** 2), jnp.zeros(2), optimiser=optax.lbfgs(), num_iterations=5, progress=False
    )
    np.testing.assert_allclose(learned.parameters, 3, rtol=1e-10)


def test_stopping_rule():
    learned = learning.descend(lambda x: (x - 1) ** 2, jnp.array(0.0), num_iterations=2000, tolerance=1e-6)
    assert learned.outcome == learning.Outcome.SETTLED
    assert learned.history.size < 1000
    np.testing.assert_allclose(learned.parameters, 1, atol=1e-2)


def test_values_that_are_not_finite():
    """√x beyond its domain: counted, explained, and the last finite parameters kept; at the start it is an error."""
    root = lambda x: jnp.sqrt(x) * jnp.where(x > 0, 1, jnp.nan)  # noqa: E731
    learned = learning.descend(root, jnp.array(0.05), num_iterations=100)
    assert learned.outcome == learning.Outcome.NOT_FINITE
    assert learned.history.size < 100
    with pytest.raises(learning.DescentError, match="not finite"):
        learned.check()
    with pytest.raises(ValueError, match="loss is nan at the parameters given"):
        learning.descend(root, jnp.array(-1.0))


@pytest.mark.parametrize("rate", [0.1, 1e200])
def test_iterations_that_are_not_finite_are_skipped_and_counted(rate):
    """One in four, at random: θ moves by `rate` at each of the others; where it has left the range nothing moves any more."""

    def loss(x, key):
        return jnp.where(jax.random.bernoulli(key, 0.25), jnp.nan, 1) * jnp.sum(jnp.where(x**2 < jnp.inf, x, jnp.nan))

    num_lost = sum(bool(jax.random.bernoulli(jax.random.fold_in(KEY, i), 0.25)) for i in range(60))
    learned = learning.descend(loss, jnp.zeros(1), optimiser=optax.sgd(rate), key=KEY, num_iterations=60)
    if rate < 1:
        assert (learned.outcome, learned.num_nonfinite) == (learning.Outcome.COMPLETED, num_lost)
        np.testing.assert_allclose(learned.parameters, -rate * (60 - num_lost), rtol=1e-12)
    else:
        assert (learned.outcome, learned.history.size) == (learning.Outcome.NOT_FINITE, 50)
        np.testing.assert_array_equal(learned.parameters, -rate)
    assert np.isnan(learned.history).sum() == learned.num_nonfinite
    with pytest.raises(learning.DescentError, match=f"{learned.num_nonfinite} of {learned.history.size} iterations"):
        learned.check()


LOSING = jax.random.key(3)


def lossy(x, key):
    """Not finite in three iterations of four, the first four of `LOSING` among them."""
    return jnp.where(jax.random.bernoulli(key, 0.75), jnp.nan, 1) * jnp.sum(x)


@pytest.mark.parametrize("decay", [0.5, 0.999])
def test_average_against_its_sum(dtype, decay):
    """θ_k = −0.1 k after the k-th finite iteration; the others do not enter. The first average is what there is."""
    options = {"optimiser": optax.sgd(0.1), "key": LOSING, "num_iterations": 90, "progress": False}
    start = {"x": jnp.zeros(2, dtype), "fixed": learning.Fixed(jnp.ones(1, dtype))}
    learned = learning.descend(lambda one, key: lossy(one["x"], key), start, average=decay, **options)
    k = np.arange(1, 91 - learned.num_nonfinite)
    weights = decay ** (k[-1] - k)
    average = learned.averaged["x"]
    np.testing.assert_allclose(average, -0.1 * (weights @ k) / weights.sum(), rtol=50 * jnp.finfo(dtype).eps)
    assert average.dtype == dtype
    np.testing.assert_array_equal(learned.averaged["fixed"], 1)
    first = learning.descend(jnp.sum, learning.Positive.of(jnp.ones(2, dtype)), average=decay, num_iterations=1)
    np.testing.assert_allclose(first.averaged, first.parameters, rtol=1e-6)
    with pytest.raises(ValueError, match="kept no average"):
        _ = learning.descend(jnp.sum, jnp.ones(2, dtype), num_iterations=1).averaged


@pytest.mark.parametrize("every", [1, 7, 30, 1000])
def test_reports_change_nothing(every, monkeypatch):
    """Bit for bit; each is of the parameters and the state of its iteration, and no random number is one of the loss's."""
    bars = []

    @contextmanager
    def bar(*arguments):
        yield lambda count, /, **shown: bars.append(shown)

    monkeypatch.setattr(descend, "progress_bar", bar)

    def loss(x, state, key):
        return lossy(x, key) + jax.random.uniform(key), state + 1

    def report(x, state, key):
        return {"x": x[0], "count": state, "uniform": jax.random.uniform(key), "is_below": x[0] < -1}

    def run(**options):
        options = {"optimiser": optax.sgd(0.1), "key": LOSING, "state": jnp.array(0), "num_iterations": 60} | options
        return learning.descend(loss, jnp.zeros(2), **options)

    without, learned = run(), run(report=report, report_every=every)
    assert np.isnan(without.history[0])
    np.testing.assert_array_equal(learned.history, without.history)
    assert eqx.tree_equal(learned.free, without.free)
    reports = learned.reports
    np.testing.assert_array_equal(reports["iteration"], np.unique([*range(0, 60, every), 60]))
    moves = np.append(0, np.cumsum(np.isfinite(without.history)))[reports["iteration"]]
    np.testing.assert_array_equal(reports["count"], moves)
    np.testing.assert_allclose(reports["x"], -0.1 * moves, rtol=1e-12)
    of_losses = jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(LOSING, i)))(jnp.arange(60))
    drawn = np.append(np.asarray(of_losses), reports["uniform"])
    assert np.unique(drawn).size == drawn.size
    assert reports["is_below"].dtype == bool
    assert bars[-1].keys() == {"loss", "x", "count", "uniform", "is_below"}
    assert without.reports == {}


OPTIMISERS = {
    "adam": learning.adam(),
    "accumulated": optax.MultiSteps(optax.adam(0.1), 4).gradient_transformation(),
    "scheduled": optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(optax.warmup_cosine_decay_schedule(1e-3, 0.1, 20, 90), weight_decay=0.01),
    ),
}


@pytest.mark.parametrize("name", ["accumulated", "scheduled"])
def test_optimisers_against_their_own_loop(name):
    def loss(x, key):
        return jnp.sum((x - jax.random.normal(key, (3,))) ** 2)

    @jax.jit
    def step(x, state, key):
        moved, state = OPTIMISERS[name].update(jax.grad(loss)(x, key), state, x)
        return optax.apply_updates(x, moved), state

    x = jnp.ones(3)
    learned = learning.descend(loss, x, optimiser=OPTIMISERS[name], key=KEY, num_iterations=90, progress=False)
    state = OPTIMISERS[name].init(x)
    for i in range(90):
        x, state = step(x, state, jax.random.fold_in(KEY, i))
    np.testing.assert_allclose(learned.parameters, x, rtol=1e-10)


class Interrupted(Exception):
    pass


def noisy(network, state, key):
    here, there = jax.random.normal(key, (2, 3))
    mean = 0.9 * state + 0.1 * there
    return jnp.sum((network["a"] @ here - mean) ** 2), mean


def largest(network, state, key):
    return {"largest": jnp.max(jnp.abs(network["a"] @ jax.random.normal(key, (3,)) - state)), "norm": jnp.sum(state**2)}


def of_network(num_iterations, **options):
    start = {"a": jnp.eye(3), "fixed": learning.Fixed(jnp.ones(2))}
    asked = {"average": 0.99, "report": largest, "report_every": 60}
    options = {"key": KEY, "state": jnp.zeros(3), "progress": False} | asked | options
    return learning.descend(noisy, start, num_iterations=num_iterations, **options)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_resumed_as_if_never_stopped(name, tmp_path, monkeypatch):
    """Bit for bit, of a loss with a state and a key, with average and reports: stopped while it runs, and at its end."""

    def run(num_iterations, **options):
        return of_network(num_iterations, optimiser=OPTIMISERS[name], **options)

    def stop_after(count):
        whole, calls = descend.keep, iter(range(count))

        def stopping(*arguments):
            whole(*arguments)
            if next(calls, None) is None:
                raise Interrupted

        monkeypatch.setattr(descend, "keep", stopping)

    whole, file = run(310), tmp_path / "run.npz"
    stop_after(2)
    with pytest.raises(Interrupted):
        run(310, checkpoint=file)
    monkeypatch.undo()
    np.testing.assert_array_equal(run(140, checkpoint=file).reports["iteration"], [0, 60, 120, 140])
    resumed, again = (run(310, checkpoint=file) for _ in range(2))
    for one in (resumed, again):
        assert eqx.tree_equal(one, whole)
    np.testing.assert_array_equal(whole.reports["iteration"], [0, 60, 120, 180, 240, 300, 310])


def test_checkpoints_of_another_descent(tmp_path):
    """The file is named, with what it holds and what is wanted."""
    file = tmp_path / "run.npz"
    of_network(30, checkpoint=file)
    other = lambda network, state, key: {"largest": jnp.max(network["a"])}  # noqa: E731
    for options, words in (
        ({"key": jax.random.key(5)}, "is of a descent with another key"),
        ({"state": jnp.zeros(1)}, r"holds .state float64\[3\] where this descent has .state float64\[1\]"),
        ({"optimiser": optax.sgd(0.1)}, "holds .optimiser.inner_state.*count int32.* where this descent has"),
        ({"average": None}, "holds an average of decay 0.99 where this descent has no average"),
        ({"average": 0.9}, "holds an average of decay 0.99 where this descent has an average of decay 0.9;"),
        ({"report": None}, "holds reports every 60 iterations of .* where this descent has no reports"),
        ({"report_every": 30}, "holds reports every 60 .* where this descent has reports every 30"),
        ({"report": other}, "holds .*'norm': float64.* where this descent has reports every 60 .*largest"),
    ):
        with pytest.raises(ValueError, match=f"{file} {words}"):
            of_network(60, checkpoint=file, **options)

    with pytest.raises(ValueError, match=f"num_iterations is 20 but {file} has 30 behind it; pass as many, or more"):
        of_network(20, checkpoint=file)

    def nearer(place, start):
        return learning.descend(
            eqx.Partial(lambda place, x: (x - place) ** 2, jnp.array(place)), jnp.array(start), num_iterations=3,
            checkpoint=tmp_path / "place.npz", progress=False,
        )  # fmt: skip

    nearer(2.0, 0.0)
    for place, start in ((-7.0, 0.0), (2.0, 1.0)):
        with pytest.raises(
            ValueError, match=r"holds a loss, first parameters and state of hash .* where this descent has a loss"
        ):
            nearer(place, start)

    def to_points(points, given, **options):
        loss = functools.partial(lambda given, x, state: (jnp.sum((x - state) ** 2) + given, state), given)
        options = {"num_iterations": 3, "checkpoint": tmp_path / "points.npz", "progress": False} | options
        return learning.descend(loss, jnp.array(0.0), state=jnp.array(points), **options)

    to_points([5.0, 4.0], 1.0)
    for points, given in (([-5.0, 4.0], 1.0), ([5.0, 4.0], 2.0)):
        with pytest.raises(ValueError, match=r"points.npz holds a loss, first parameters and state of hash"):
            to_points(points, given)

    class Plain:
        def loss(self, x):
            return x**2

    with pytest.raises(ValueError, match=r"cannot be told from others by a checkpoint: .*Plain.*; pass as the loss"):
        learning.descend(Plain().loss, jnp.array(1.0), num_iterations=3, checkpoint=tmp_path / "plain.npz")

    def train(width, **options):
        network = eqx.nn.MLP(2, "scalar", width, 1, key=KEY)
        loss = lambda network: network(jnp.ones(2)) ** 2  # noqa: E731
        return learning.descend(loss, network, num_iterations=3, checkpoint=tmp_path / "network.npz", **options)

    train(4)
    with pytest.raises(
        ValueError, match=r"network.npz holds .*weight float64\[4, 2\] where this descent has .*\[5, 2\]"
    ):
        train(5)
    with pytest.raises(
        ValueError, match=r"network.npz holds no average where this descent has an average of decay 0.9;"
    ):
        train(4, average=0.9)
    for size in (0, 500, file.stat().st_size - 1):
        file.write_bytes(file.read_bytes()[:size] if size else b"")
        with pytest.raises(ValueError, match=f"{file} .*damaged"):
            of_network(60, checkpoint=file)


@pytest.mark.extended
@pytest.mark.slow
def test_devices_do_not_change_the_descent():
    """Paths of a batch spread over four devices: the same history to rounding, one compilation, and it goes on from a file."""
    script = """
        import jax, jax.numpy as jnp, numpy as np, equinox as eqx, os, tempfile
        from jax.sharding import Mesh, NamedSharding, PartitionSpec
        from pidjax import learning
        jax.config.update("jax_enable_x64", True)
        assert len(jax.devices()) == 4
        compiled = []
        jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: compiled.append(name))

        def distances(indices, network, key):
            x = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, i), (2,)))(indices)
            return (jax.vmap(network)(x) - jnp.sin(x[:, 0])) ** 2

        def loss(indices, network, key):
            return jnp.mean(distances(indices, network, key))

        def report(indices, network, key):
            return {"worst": jnp.max(distances(indices, network, key))}

        def run(indices, num_iterations=80, **options):
            network = eqx.nn.MLP(2, "scalar", 8, 1, activation=jnp.tanh, key=jax.random.key(0))
            return learning.descend(
                eqx.Partial(loss, indices), network, key=jax.random.key(1), num_iterations=num_iterations, average=0.9,
                report=eqx.Partial(report, indices), report_every=40, progress=False, **options,
            )

        indices = jnp.arange(64)
        devices = Mesh(np.array(jax.devices()), ("paths",))
        spread = jax.device_put(indices, NamedSharding(devices, PartitionSpec("paths")))
        alone, _ = run(indices), run(spread, 25)
        count = compiled.count("/jax/core/compile/backend_compile_duration")
        together = run(spread)
        assert count == compiled.count("/jax/core/compile/backend_compile_duration") > 0
        assert len(jax.tree.leaves(together.parameters)[0].sharding.device_set) == 4
        for one in (lambda run: run.history, lambda run: run.averaged.layers[0].weight, lambda run: run.reports["worst"]):
            np.testing.assert_allclose(one(together), one(alone), rtol=1e-9)
        with tempfile.TemporaryDirectory() as folder:
            file = os.path.join(folder, "run.npz")
            run(spread, 40, checkpoint=file)
            resumed = run(spread, checkpoint=file)
        np.testing.assert_array_equal(resumed.history, together.history)
    """
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr


def test_objective_with_a_key():
    """An estimated objective: noise of mean zero; the same key gives the same descent.

    Steps of η(2(x − 2) + ε) settle to a law of variance η/4.
    """

    def noisy(x, key):
        return (x - 2) ** 2 + x * jax.random.normal(key)

    runs = [
        learning.descend(
            noisy, jnp.array(0.0), optimiser=learning.adam(1e-2), num_iterations=1500, key=jax.random.key(seed)
        )
        for seed in (0, 0, 1)
    ]
    assert runs[0].parameters == runs[1].parameters != runs[2].parameters
    assert_within([float(run.parameters) for run in runs], 2, np.sqrt(1e-2 / 4))


@pytest.mark.parametrize(
    "value", [jnp.array([0.01, 2.0, 300.0]), jnp.array([[0.5, 40.0]]), jnp.array([[[2.0, -0.9], [-0.9, 0.7]]])]
)
def test_positive(value):
    """A round trip, and any free numbers give a positive stiffness with finite derivatives."""
    np.testing.assert_allclose(learning.Positive.of(value).value, value, rtol=1e-12)
    free = 5 * jax.random.normal(jax.random.key(0), value.shape)
    somewhere = learning.Positive(free).value
    if value.ndim == 3:
        assert (np.linalg.eigvalsh(np.asarray(somewhere)) > 0).all()
    else:
        assert (somewhere > 0).all()
    slope = jax.jacrev(lambda free: learning.Positive(free).value)(free)
    assert jnp.isfinite(slope).all()
    with pytest.raises(ValueError, match="value is"):
        learning.Positive.of(-value)


def test_what_is_positive_or_fixed_stays_so():
    """Whatever comes first; and a protocol of such nodes can be asked for its pieces and horizon."""
    protocol = piecewise(jnp.array([1.0, 2.0]), centre=jnp.zeros((2, 1)), noise_scale=1.0)
    both = learning.positive(learning.positive(protocol))
    assert type(both.beta) is learning.Positive
    fixed = learning.positive(learning.only(lambda one: one.centre, protocol))
    assert type(fixed.beta) is learning.Fixed
    assert (fixed.num_pieces, fixed.horizon) == (2, 1)


@pytest.mark.slow
def test_only_what_is_selected_is_learned():
    target, protocol = line_mixture(), piecewise(jnp.array([1.0, 2.0]), centre=jnp.zeros((2, 1)), noise_scale=1.0)
    start = learning.only(lambda one: one.beta, learning.positive(protocol))
    objective = eqx.Partial(lambda target, protocol: exact.potential_cost(target, protocol), target)
    learned = learning.descend(objective, start, num_iterations=10, progress=False).parameters
    assert jnp.all(learned.beta < protocol.beta)
    for name in ("centre", "edges", "noise_scale"):
        np.testing.assert_array_equal(getattr(learned, name), getattr(protocol, name))


@pytest.mark.slow
def test_refining_keeps_the_process():
    target = line_mixture()
    start = learning.only(lambda one: (one.beta, one.centre), learning.positive(harmonic(3.0, centre=jnp.array([0.4]))))
    finer = learning.refined(start, 4)
    assert type(finer.beta) is learning.Positive
    assert type(finer.edges) is learning.Fixed
    coarse, fine = (exact.marginal(target, learning.resolve(one), 0.3) for one in (start, finer))
    np.testing.assert_allclose(fine.means, coarse.means, rtol=1e-12)
    np.testing.assert_allclose(fine.covariances, coarse.covariances, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.optimised
def test_learning_through_the_sampler():
    """The centre that brings the mean of simulated paths to 0.7 at half-time brings that of the exact law there."""
    target = GaussianMixture.isotropic(jnp.array([[1.0]]), 0.25)
    protocol = harmonic(8.0, centre=jnp.zeros(1), noise_scale=1.0)
    grid = pid.at_times(jnp.array([0.0, 0.25, 0.5, 1.0]))

    def objective(protocol, key):
        prepared = pid.Problem(target, protocol).prepare(grid)
        paths = pid.rollout(prepared, pid.Moment(), key, jnp.arange(256), save_states=True)
        return (jnp.mean(paths.states[:, 2]) - 0.7) ** 2

    learned = learning.descend(
        objective, learning.only(lambda one: one.centre, protocol), num_iterations=300, key=jax.random.key(0)
    )
    law = exact.marginal(target, learned.parameters, 0.5)
    standard_error = jnp.sqrt(law.covariance()[0, 0] / 256)
    assert abs(law.mean()[0] - 0.7) < 4 * standard_error


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.extended
def test_sharpness_of_simulated_paths():
    """S on the regular lattice at β = 6 from Â = E|x̂|²/E|x₁|² of 4,000 paths; its error from 20 groups of them."""
    target, protocol = zoo.ada_regular().target, harmonic(6.0, noise_scale=1.0)
    solution = pid.sample(
        jax.random.key(0), target, protocol=protocol, grid=pid.uniform_grid(199), num_samples=4000, save_paths=True
    )
    squared = np.sum(np.asarray(solution.weighted_states) ** 2, axis=-1).reshape(20, 200, 199)
    curves = np.append(squared.mean(axis=1) / 3.18, np.ones((20, 1)), axis=1)
    together = np.trapezoid(1 - np.abs(2 * curves.mean(axis=0) - 1), solution.times)
    _, error = mean_and_error(np.trapezoid(1 - np.abs(2 * curves - 1), solution.times, axis=1))
    assert_within(together, learning.sharpness(target, protocol, nodes=exact.lattice(2, 24)), error)


@pytest.mark.slow
def test_sharpness_of_what_starts_anywhere():
    """From N(0, 4) to N(0, 1) Â does not begin at 0: the trapezoids are of second order all the same."""
    target = GaussianMixture(jnp.zeros((1, 1)), jnp.ones((1, 1, 1)))
    protocol = harmonic(0.0, noise_scale=1.0, start=pid.GaussianStart(jnp.zeros(1), jnp.full(1, 4.0)))
    coarse, fine = (learning.sharpness(target, protocol, num_times=number) for number in (51, 401))
    assert abs(coarse - fine) < 5e-4


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.extended
def test_sharpness_of_refined_protocols():
    """The regular lattice with the penalty of late decisions: on two pieces below what coordinate descent found on eight."""
    target, nodes = zoo.ada_regular().target, exact.lattice(2, 12)

    def objective(protocol):
        return learning.sharpness(target, protocol, late_penalty=10.0, num_times=40, nodes=nodes)

    start = learning.only(lambda one: one.beta, learning.positive(harmonic(5.0, noise_scale=1.0)))
    options = {"num_levels": 3, "optimiser": learning.adam(0.2), "num_iterations": 75}
    levels = learning.descend_refining(objective, start, **options)
    assert [level.parameters.num_pieces for level in levels] == [1, 2, 4]
    first, second, third = (objective(level.parameters) for level in levels)
    assert third < second < 0.4006 < first <= objective(harmonic(6.0, noise_scale=1.0))


def test_each_level_goes_on_from_a_file_of_its_own(tmp_path):
    start = learning.only(lambda one: one.beta, learning.positive(harmonic(2.0, noise_scale=1.0)))
    options = {"num_levels": 3, "num_iterations": 5, "progress": False}

    def descended(**more):
        return learning.descend_refining(lambda protocol: jnp.sum((protocol.beta - 1) ** 2), start, **options, **more)

    levels = descended()
    for _ in range(2):
        again = descended(checkpoint=tmp_path / "levels")
        assert eqx.tree_equal([one.free for one in again], [one.free for one in levels])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["levels-1", "levels-2", "levels-3"]


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.parametrize("horizon", [pytest.param(1.0, marks=pytest.mark.extended), 2.0])
def test_control_gradient_by_differentiation(horizon):
    """‖∂u*/∂x‖² of the control itself, by forward differentiation, with force and gauge, at the same times and nodes."""
    target = GaussianMixture(
        jnp.array([[-1.0, 0.5], [1.2, -0.3]]), jnp.array([[[0.3, 0.1], [0.1, 0.2]], [[0.2, 0.0], [0.0, 0.5]]])
    )
    matrix, vector = jnp.array([[[0.2, 0.7], [-0.4, 0.1]]]), jnp.array([[0.3, -0.2]])
    edges = jnp.array([0.0, horizon])
    protocol = piecewise(
        jnp.array([2.0]), edges=edges, force=(matrix, vector), gauge=(2 * matrix, vector), noise_scale=1.0
    )
    shares, nodes = jnp.array([0.1, 0.5, 0.9]), exact.lattice(2, 8)

    def at(t):
        def squared(x):
            return jnp.sum(jax.jacfwd(lambda x: pid.Problem(target, protocol).at(t, x).control)(x) ** 2)

        return exact.expectation(exact.marginal(target, protocol, t), squared, nodes)

    truth = jnp.trapezoid(jax.lax.map(eqx.filter_jit(at), shares * horizon), shares)
    computed = learning.control_gradient(target, protocol, window=(0.1, 0.9), num_times=3, nodes=nodes)
    np.testing.assert_allclose(computed, truth, rtol=1e-8)


@pytest.mark.slow
def test_energy_by_summation():
    """β = 0 from the origin: x_t ~ Σ π_k N(tμ_k, t(1−t) + t²σ_k²), summed on a lattice at two times."""
    target = line_mixture()
    x, cell = grid_quadrature(-10, 10, 4001, 1)
    log_density = np.asarray(jax.vmap(target.log_density)(jnp.asarray(x)))
    values = []
    for t in (0.25, 0.75):
        spread = t * (1 - t) + t**2 * np.asarray(target.covariances[:, 0, 0])
        shape = np.exp(-((x - t * np.asarray(target.means[:, 0])) ** 2) / (2 * spread)) / np.sqrt(2 * np.pi * spread)
        values.append(-np.sum(shape @ np.asarray(target.weights) * log_density) * cell)
    protocol = harmonic(0.0, noise_scale=1.0)
    np.testing.assert_allclose(
        learning.energy(target, protocol, num_times=2, nodes=exact.lattice(1, 200)), np.mean(values), rtol=1e-10
    )
    np.testing.assert_allclose(learning.energy(target, protocol, num_times=2), np.mean(values), rtol=1e-3)


def test_bad_input_is_named():
    target, protocol = line_mixture(), harmonic(1.0, noise_scale=1.0)
    square = lambda x: jnp.sum(x**2)  # noqa: E731
    for call, words in (
        (lambda: learning.descend(square, jnp.arange(3)), "parameters holds nothing"),
        (lambda: learning.descend(square, learning.Fixed(jnp.ones(2))), "parameters holds nothing"),
        (lambda: learning.descend(square, jnp.ones(2), num_iterations=0), "num_iterations is 0"),
        (lambda: learning.descend(square, jnp.ones(2), tolerance=-1.0), "tolerance is -1.0"),
        (lambda: learning.descend_refining(square, protocol, num_levels=0), "num_levels is 0"),
        (lambda: learning.sharpness(target, protocol, num_times=2), "num_times is 2"),
        (lambda: guides.product_of_experts([target], [1, 2]), r"trust is \[1, 2\] for 1 experts"),
        (lambda: guides.product_of_experts([target], [0]), "trust is"),
        (lambda: guides.fuse_protocols([protocol], [1.0]), "centres"),
        (lambda: guides.mean_field.mean_field(target, target, jnp.ones(2), num_pieces=3), "num_pieces is 3"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
