"""The suite `speed`: each inner loop as a ratio to the least it must do, both measured interleaved in one process.

posterior over a data set     tilted laws of 256 states over 4,660 points in 3,072 dimensions / two bare products
steps on a data set           50 steps of 256 paths, in seconds
scaling of a data set         exponents of the seconds of a posterior in particles, data and dimension; several devices / one
memory of a data set          temporaries beside 50,000 points in 3,072 dimensions, of preparing and of each rule / the data
posterior over a mixture      tilted laws of 4,096 states over 40 components / as many bare exponentials
gradient of a rollout         1,000 steps of 1,000 paths in 8 dimensions / the rollout; a plain scan's memory
grids                         a process solved on 256² cells in 200 steps / the bare products, and on 64³; gradients / values
training                      gradients of losses / the network's own, forward and backward, at as many states
import                        of pidjax on top of jax, equinox and optax
"""

import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import pidjax as pid
from pidjax import learning, zoo
from pidjax._maths.small import matmul
from pidjax.general import Box, Cost, Process, solve
from pidjax.process.bridge import Observation, observe

from . import measure
from .ledger import Ledger


class Ratio(NamedTuple):
    """A measured ratio, what it must not exceed (or None), and the two quantities it is made of."""

    name: str
    value: float
    limit: float | None
    detail: str

    def __str__(self) -> str:
        exceeded = self.limit is not None and self.value > self.limit
        verdict = "" if self.limit is None else f" (limit {self.limit:g}{', EXCEEDED' if exceeded else ''})"
        return f"{self.name:62s} {self.value:8.3f}{verdict}   {self.detail}"


def run_speed(ledger: Ledger, *, quick: bool) -> None:
    """All ratios, printed as they come."""
    of_data = data_set, data_steps, data_scaling, data_memory
    parts = {part.__name__: part for part in (*of_data, mixture, gradient, grids, training, imports)}

    def rows(part):
        for ratio in parts[part](3 if quick else 7):
            print(ratio, flush=True)
            yield ratio._asdict()

    for part in parts:
        ledger.run("rows", rows, part=part)
        jax.clear_caches()


def _ratios(programs: dict[str, measure.Program], rounds: int, limits: dict[str, float | None]) -> list[Ratio]:
    """Seconds of each program named in `limits` over those of the first program."""
    seconds = measure.interleaved({name: program.run for name, program in programs.items()}, rounds)
    base, least = next(iter(seconds.items()))
    return [
        Ratio(f"{name} / {base}", seconds[name] / least, limit, f"{seconds[name]:.4f} s / {least:.4f} s")
        for name, limit in limits.items()
    ]


def data_set(rounds: int, states: int = 256, points: int = 4660, dim: int = 3072) -> list[Ratio]:
    """Log-mass and mean, without and with a draw, over random data; the bare products are X Yᵀ and P Y, in full precision.

    The data are as the rollout has them: their norms computed, once for all steps.
    """
    key_data, key_states, key_draw = jax.random.split(jax.random.key(0), 3)
    data = jax.random.normal(key_data, (points, dim))
    observed = 0.5 * data[:states] + jax.random.normal(key_states, (states, dim))
    chances = jnp.full((states, points), 1 / points)
    target = pid.Samples(data).rescaled(jnp.zeros(dim), jnp.ones(()))
    keys = jax.random.split(key_draw, states)

    programs = {
        "two bare products": measure.Program(lambda x, y, p: (matmul(x, y.T), matmul(p, y)), observed, data, chances),
        "posterior over a data set": measure.Program(posterior_over_data, target, observed),
        "posterior over a data set with a draw": measure.Program(posterior_with_draw, target, observed, keys),
    }
    limits = {"posterior over a data set": 1.15, "posterior over a data set with a draw": 1.6}
    return _ratios(programs, rounds, limits)


def _seen(target, value):
    return target.tilt(Observation(jnp.asarray(0.5), value), None)


def posterior_over_data(target, observed):
    law = jax.vmap(lambda value: _seen(target, value))(observed)
    return law.log_mass, law.mean


def posterior_with_draw(target, observed, keys):
    def both(value, key):
        law = _seen(target, value)
        return law.log_mass, law.mean, law.draw(key)

    return jax.vmap(both)(observed, keys)


def data_steps(rounds: int, states: int = 256, points: int = 4660, dim: int = 3072, steps: int = 50) -> list[Ratio]:
    """`sample` on random data, compiled before: seconds, and over the one product that each step must make."""
    key_data, key_states = jax.random.split(jax.random.key(0))
    data = jax.random.normal(key_data, (points, dim))
    observed = jax.random.normal(key_states, (states, dim))
    target, bare = pid.Samples(data), measure.Program(lambda x, y: matmul(x, y.T), observed, data)

    def draw():
        return pid.sample(jax.random.key(1), target, num_samples=states, num_steps=steps, progress=False).samples

    seconds = measure.interleaved({"product": bare.run, "sample": draw}, max(rounds // 2, 1))
    detail = f"{seconds['sample'] / (steps * seconds['product']):.2f} of {steps} bare products"
    return [Ratio(f"seconds: {states} particles × {steps} steps on a data set", seconds["sample"], 10.0, detail)]


def data_scaling(rounds: int, states: int = 64, points: int = 4096, dim: int = 768, doublings: int = 3) -> list[Ratio]:
    """Tilted laws with a draw: log seconds against log size, by least squares, as one size doubles and doubles again.

    Where there are several devices the data lie over two of them, four, …; the ratio is to one.
    """

    def program(states: int, points: int, dim: int, devices: int = 1) -> measure.Program:
        mesh = jax.sharding.Mesh(np.array(jax.devices()[:devices]), ("data",))
        data = jax.random.normal(jax.random.key(0), (points, dim))
        data = jax.device_put(data, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data")))
        target = pid.Samples(data).rescaled(jnp.zeros(dim), jnp.ones(()))
        keys = jax.random.split(jax.random.key(1), states)
        return measure.Program(posterior_with_draw, target, jnp.zeros((states, dim)), keys)

    ratios, sizes = [], {"particles": states, "data": points, "dimension": dim}
    for name, size in sizes.items():
        grown = [size * 2**number for number in range(doublings + 1)]
        programs = {str(own): program(*{**sizes, name: own}.values()).run for own in grown}
        seconds = list(measure.interleaved(programs, rounds).values())
        slope = np.polyfit(np.log(grown), np.log(seconds), 1)[0]
        detail = ", ".join(f"{own}: {second:.4f} s" for own, second in zip(grown, seconds, strict=True))
        ratios.append(Ratio(f"exponent of a posterior over a data set in {name}", float(slope), None, detail))
    counts = [2**number for number in range(jax.device_count().bit_length())]
    on_devices = {
        f"posterior over a data set, devices: {count}": program(*sizes.values(), devices=count) for count in counts
    }
    return ratios + _ratios(on_devices, rounds, dict.fromkeys(list(on_devices)[1:]))


def data_memory(rounds: int, states: int = 256, points: int = 50_000, dim: int = 3072) -> list[Ratio]:
    """Temporaries as the compiler counts them, of programs that are not run: the data need not be there."""

    def described(*shape: int, dtype=jnp.float32):
        return jax.ShapeDtypeStruct(shape, dtype)

    def prepare(target):
        return pid.Problem(target).prepare(pid.log_snr_grid(50))

    def beside_the_data(target):
        return eqx.tree_at(lambda own: own.target.rows.points, prepare(target), None)

    def run(prepared, rule):
        return pid.rollout(prepared, rule, jax.random.key(0), jnp.arange(states)).samples

    ratios = []
    for dtype in (jnp.float32, jnp.bfloat16):
        data, one = described(points, dim, dtype=dtype), pid.Samples(jnp.zeros((1, dim), dtype))
        target = eqx.tree_at(lambda own: (own.points, own.weights), one, (data, described(points)))
        problem, prepared = pid.Problem(target), jax.eval_shape(prepare, target)
        rules = [problem.plan(rule).rule for rule in (pid.Ancestral(), pid.Moment(), pid.Euler())]
        programs = {"prepare": jax.jit(beside_the_data).lower(target)}
        programs |= {str(rule): jax.jit(partial(run, rule=rule)).lower(prepared) for rule in rules}
        size = points * dim * jnp.dtype(dtype).itemsize
        for name, program in programs.items():
            taken = measure.temporaries(program.compile())
            value = float("nan") if taken is None else taken / size
            detail = f"{value * size / 2**20:.0f} MiB / {size / 2**20:.0f} MiB"
            ratios.append(Ratio(f"temporaries: {name} / data in {jnp.dtype(dtype)}", value, 0.25, detail))
    return ratios


def mixture(rounds: int, states: int = 4096, repeats: int = 20) -> list[Ratio]:
    """Log-mass and mean of `gmm40` tilted, and the rollout's steps, against exponentials of as many numbers."""
    target = zoo.gmm40().target
    values = jax.random.normal(jax.random.key(0), (repeats, states, target.dim))
    exponents = -jnp.abs(jax.random.normal(jax.random.key(1), (repeats, states, len(target.means))))

    def bare(exponents):
        return jax.lax.map(lambda batch: jnp.sum(jnp.exp(batch), axis=-1), exponents)

    def posterior(target, values):
        def one(value):
            law = target.tilt(Observation(jnp.asarray(0.5), value), None)
            return law.log_mass, law.mean

        return jax.lax.map(jax.vmap(one), values)

    programs = {
        "bare exponentials": measure.Program(bare, exponents),
        "posterior over a mixture of 40": measure.Program(posterior, target, values),
    }
    return _ratios(programs, rounds, {"posterior over a mixture of 40": None})


def gradient(rounds: int, num_steps: int = 1000, dim: int = 8, components: int = 16) -> list[Ratio]:
    """Gradient of the mean log-weight of Euler paths in the means of a mixture, with full covariances."""
    means = jax.random.normal(jax.random.key(0), (components, dim))
    covariances = jnp.broadcast_to(0.1 * jnp.eye(dim), (components, dim, dim))
    indices, key = jnp.arange(1000), jax.random.key(1)

    def loss(means, run: Callable, num_steps: int = num_steps):
        target = pid.GaussianMixture(means, covariances)
        prepared = pid.Problem(target, pid.harmonic(noise_scale=1.0)).prepare(pid.uniform_grid(num_steps))
        return jnp.mean(run(prepared))

    def checkpointed(prepared):
        return pid.rollout(prepared, pid.Euler(), key, indices).log_weights

    def two_level(prepared):
        return pid.rollout(prepared, pid.Euler(), key, indices, segments=32).log_weights

    def plain(prepared):
        return jax.vmap(lambda index: plain_log_weight(prepared, jax.random.fold_in(key, index)))(indices)

    forward = measure.Program(lambda means: loss(means, checkpointed), means)
    reverse = measure.Program(jax.grad(lambda means: loss(means, checkpointed)), means)
    segmented = measure.Program(jax.grad(lambda means: loss(means, two_level)), means)
    short = measure.Program(jax.grad(lambda means: loss(means, two_level, 100)), means)
    unsaved = measure.Program(jax.grad(lambda means: loss(means, plain)), means)
    programs = {
        f"rollout of {num_steps} steps": forward,
        "its gradient": reverse,
        "its gradient, two-level checkpoints": segmented,
    }
    limits = {"its gradient": 4.5, "its gradient, two-level checkpoints": 6.0}
    return [
        *_ratios(programs, max(rounds // 2, 1), limits),
        _bytes("temporaries: gradient / plain scan's gradient", reverse, unsaved, 1 / 20),
        _bytes(f"temporaries: two-level gradient, {num_steps} steps / 100 steps", segmented, short, 2.0),
    ]


def grids(rounds: int, cells: int = 256, steps: int = 200, cells_in_space: int = 64) -> list[Ratio]:
    """Both passes, forward and backward, with a drift on each axis of its own, by dense exponentials, and with a vortex."""

    def apart(x):
        return -(x**3) / 4

    def vortex(x):
        return jnp.stack([-x[1], x[0], *x[2:]])

    def solved(strength, force, dim: int, cells: int):
        process = Process(potential=lambda t, x: 0.5 * strength * x @ x, force=lambda t, x: strength * force(x))
        box = Box([-5.0] * dim, [5.0] * dim, (cells,) * dim)
        return solve(process, box, Cost(lambda y: jnp.sum((y - 1) ** 2)), num_steps=steps)

    def passes(strength, force, dim, cells):
        found = solved(strength, force, dim, cells)
        return found.forward, found.backward

    def log_z(strength, force):
        return solved(strength, force, 2, cells).log_z

    def products(matrix, values):
        def step(values, _):
            values = matrix @ values @ matrix
            return values, values

        return [jax.lax.scan(step, one, length=steps)[1] for one in (values, values.T)]

    strength, matrix = jnp.array(0.5), jnp.full((cells, cells), 1 / cells)
    programs = {"bare products": measure.Program(products, matrix, matrix)}
    for name, force, dim, number in (
        ("apart", apart, 2, cells),
        ("vortex", vortex, 2, cells),
        ("apart in space", apart, 3, cells_in_space),
        ("vortex in space", vortex, 3, cells_in_space),
    ):
        both = partial(passes, force=force, dim=dim, cells=number)
        programs[name] = measure.Program(both, strength)
    seconds = measure.interleaved({name: program.run for name, program in programs.items()}, max(rounds // 2, 1))
    limits = {"apart": 0.4, "vortex": 4.0, "apart in space": None, "vortex in space": None}
    ratios = [Ratio(f"seconds: grid, {name}", seconds[name], limit, f"{steps} steps") for name, limit in limits.items()]
    detail = f"{seconds['apart']:.4f} s / {seconds['bare products']:.4f} s"
    ratios.append(Ratio("grid, apart / bare products", seconds["apart"] / seconds["bare products"], 1.5, detail))
    for name, force in (("apart", apart), ("vortex", vortex)):
        value = partial(log_z, force=force)
        pair = {
            f"log Z of a grid, {name}": measure.Program(value, strength),
            "its gradient": measure.Program(jax.grad(value), strength),
        }
        ratios += _ratios(pair, max(rounds // 2, 1), {"its gradient": 4.0})
    return ratios


def training(rounds: int, num_paths: int = 512, num_steps: int = 100) -> list[Ratio]:
    """Gradients of losses on MW54, a perceptron the control, against the perceptron's own at as many states and times."""
    known = zoo.double_well(5, 5, 4.0)
    prepared = pid.Problem(known.target, pid.harmonic(0.0, noise_scale=1.0)).prepare(pid.uniform_grid(num_steps))
    network = learning.Network(jax.random.key(0), known.dim)
    ends = learning.Buffer(known.sample(jax.random.key(1), 4096))
    states = jax.random.normal(jax.random.key(2), (num_steps, num_paths, known.dim))
    key, indices = jax.random.key(3), jnp.arange(num_paths)
    parameters, rest = eqx.partition(network, eqx.is_array)

    def at_one_time(parameters, t, states):
        return jnp.sum(jax.vmap(eqx.combine(parameters, rest), in_axes=(None, 0))(t, states) ** 2)

    def along_paths(parameters, states):
        def add(total, indexed):
            return jax.tree.map(jnp.add, total, jax.grad(at_one_time)(parameters, *indexed)), None

        return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, parameters), (prepared.step_laws.t, states))[0]

    def at_many_times(parameters, states, key):
        times = jax.random.uniform(key, (num_paths,))
        return jnp.sum(jax.vmap(eqx.combine(parameters, rest))(times, states) ** 2)

    def value(parameters, loss, state, key):
        return loss(prepared, pid.Controlled(eqx.combine(parameters, rest)), key, indices, state)[0]

    def step(loss: learning.AbstractLoss) -> measure.Program:
        return measure.Program(
            jax.grad(value), parameters, loss, loss.start(prepared, pid.Controlled(network), key), key
        )

    def steps(slope: Callable, *arguments) -> measure.Program:
        """As many as the paths have, one after the other as in training."""

        def descended(parameters, *arguments):
            def move(parameters, number):
                change = slope(parameters, *arguments, jax.random.fold_in(key, number))
                return jax.tree.map(lambda old, new: old - 1e-9 * new, parameters, change), None

            return jax.lax.scan(move, parameters, jnp.arange(num_steps))[0]

        return measure.Program(descended, parameters, *arguments)

    on_paths = {
        "network along paths, forward and backward": measure.Program(along_paths, parameters, states),
        "relative entropy": step(learning.RelativeEntropy()),
        "log-variance": step(learning.LogVariance()),
    }
    regression = learning.Regression(ends, variance=0.1)
    memory = regression.start(prepared, pid.Controlled(network), key)
    on_bridges = {
        "network at many times, forward and backward": steps(jax.grad(at_many_times), states[0]),
        "regression on bridges": steps(jax.grad(value), regression, memory),
    }
    return [
        ratio
        for programs in (on_paths, on_bridges)
        for ratio in _ratios(programs, rounds, dict.fromkeys(list(programs)[1:], 1.5))
    ]


def plain_log_weight(prepared, key):
    """log W of one Euler path by a scan that keeps everything: what `rollout` is measured against."""
    target, bridges, start = prepared.target, prepared.step_laws, prepared.unit.start
    rule = pid.Euler()

    def advance(carry, indexed):
        x, log_weight = carry
        k, now = indexed
        law = target.tilt(observe(now.observation, x, start))
        x, log_ratio = rule.step(law, now, start, x, jax.random.fold_in(key, k))
        return (x, log_weight + log_ratio), None

    steps = jnp.arange(bridges.num_steps), bridges
    (x, log_weight), _ = jax.lax.scan(advance, (start, jnp.zeros((), start.dtype)), steps)
    return log_weight + rule.finish(target, x[None])[0]


def _bytes(name: str, one: measure.Program, other: measure.Program, limit: float) -> Ratio:
    if not (one.peak_bytes and other.peak_bytes):
        return Ratio(name, float("nan"), limit, "not reported by this backend")
    detail = f"{one.peak_bytes / 2**20:.2f} MiB / {other.peak_bytes / 2**20:.2f} MiB"
    return Ratio(name, one.peak_bytes / other.peak_bytes, limit, detail)


def imports(rounds: int) -> list[Ratio]:
    """Seconds that `import pidjax` adds to `import jax, equinox, optax`, in fresh processes taking turns."""
    before, added = "import jax, equinox, optax", "import jax, equinox, optax, pidjax"
    seconds: dict[str, list[float]] = {before: [], added: []}
    for _ in range(max(rounds, 3)):
        for statement, values in seconds.items():
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", statement], check=True)
            values.append(time.perf_counter() - begin)
    least = {statement: min(values) for statement, values in seconds.items()}
    detail = f"{least[added]:.3f} s − {least[before]:.3f} s"
    return [Ratio("seconds that importing pidjax adds", least[added] - least[before], 0.2, detail)]
