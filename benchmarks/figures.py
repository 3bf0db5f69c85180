"""The figures of the suite `core`: what H-PID does in time, how it converges, and quality against cost."""

from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import pidjax as pid
from pidjax import metrics, plot, zoo

from . import report
from .outcome import CLOSED, EXACT, Budget

BETAS = (0.0, 0.1, 1.0, 10.0, 100.0)
TIMES = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
STEPS = (2, 5, 10, 20, 50, 100)
RULES = {"euler": pid.Euler(), "moment": pid.Moment(), "ancestral": pid.Ancestral()}


def draw(results: report.Results, cases: Sequence[str], budget: Budget, out: Path) -> list[Path]:
    """Every figure as a PNG in `out`; those of a mixture only if it is among the cases."""
    mixtures = [name for name in cases if name in ("nine", "grid25", "gmm40")]
    makers: dict[str, Callable] = {
        "quality-seconds": lambda: quality_cost(
            results, (CLOSED, *report.ENERGY_ONLY), seconds, "seconds, compilation and training included"
        ),
        "quality-evaluations": lambda: quality_cost(
            results, report.ENERGY_ONLY, evaluations, "evaluations of the energy and of its gradient"
        ),
    }
    if mixtures:
        known = getattr(zoo, mixtures[0])()
        makers |= {
            "evolution": lambda: evolution(known),
            "space-time": lambda: space_time(known),
            "convergence": lambda: convergence(known, budget),
        }
    paths = []
    for name, make in makers.items():
        figure = make()
        if figure is not None:
            paths.append(out / f"{name}.png")
            figure.savefig(paths[-1])
            print(f"figure {paths[-1]}", flush=True)
    return paths


def evolution(known: zoo.KnownMixture, num_samples: int = 1000):
    """Exact samples, x(t) and x̂(t; x(t)) at chosen times, one row for each stiffness β of the rescaled problem."""
    grid = pid.at_times(jnp.array((0.0, *TIMES)))
    rows = []
    for beta in BETAS:
        solution = pid.sample(
            jax.random.key(0),
            known.target,
            protocol=pid.harmonic(beta),
            num_samples=num_samples,
            grid=grid,
            save_paths=True,
        )
        states = np.moveaxis(np.asarray(solution.states), 1, 0)
        expected = np.moveaxis(np.asarray(solution.weighted_states), 1, 0)
        rows.append(plot.Evolution(rf"$\beta$ = {beta:g}", states[1:], np.concatenate([expected[1:], states[-1:]])))
    return plot.evolution(rows, TIMES, np.asarray(known.sample(jax.random.key(1), num_samples)))


def space_time(known: zoo.KnownMixture, num_samples: int = 2000):
    """Paths and weighted states in the first coordinate, on a uniform grid at β = 1."""
    solution = pid.sample(
        jax.random.key(0), known.target, num_samples=num_samples, grid=pid.uniform_grid(200), save_paths=True
    )
    states = np.asarray(solution.states)[:, :, 0].T
    expected = np.concatenate([np.asarray(solution.weighted_states)[:, :, 0].T, states[-1:]])
    exact = np.asarray(known.sample(jax.random.key(1), 4 * num_samples))[:, 0]
    return plot.space_time(np.asarray(solution.times), states, expected, exact, title=rf"{known.name}, $\beta$ = 1")


def convergence(known: zoo.KnownMixture, budget: Budget):
    """In steps: energy KS distance and ESS of each rule at K steps. In draws: the error of log Z over n paths."""
    seeds, count = max(budget.seeds, 3), budget.num_samples
    keys = jax.random.split(jax.random.key(0), seeds)
    reference = known.sample(jax.random.key(1), count)

    def energy_ks(samples):
        return metrics.energy_ks(samples, reference, known.log_density)

    pairs = jax.vmap(lambda key: known.sample(key, count))(jax.random.split(jax.random.key(2), 10))
    floor = jax.vmap(energy_ks)(pairs)
    distances, efficiencies, log_weights = {}, {}, {}
    for num_steps in STEPS:

        @jax.jit
        def sweep(keys, num_steps=num_steps):
            prepared = pid.Problem(known.target, pid.harmonic()).prepare(pid.log_snr_grid(num_steps))

            def one(key, rule):
                paths = pid.rollout(prepared, rule, key, jnp.arange(count))
                return energy_ks(prepared.unit.from_unit(paths.samples)), paths.log_weights

            return {name: jax.lax.map(lambda key, rule=rule: one(key, rule), keys) for name, rule in RULES.items()}

        swept = sweep(keys)
        for name in RULES:
            distance, log_weight = swept[name]
            distances.setdefault(name, []).append(distance)
            efficiencies.setdefault(name, []).append(jax.vmap(metrics.ess)(log_weight) / count)
            log_weights[name, num_steps] = log_weight.ravel()
    steps = np.array(STEPS)
    errors = {name: _log_z_errors(log_weights[name, k]) for name, k in (("euler", 100), ("moment", 20))}
    return plot.convergence([
        plot.Panel(
            f"{known.name}: samples",
            "steps $K$",
            "energy KS distance",
            {name: _spread(steps, values) for name, values in distances.items()},
            (float(floor.mean()), float(floor.std(ddof=1))),
        ),
        plot.Panel(
            f"{known.name}: weights",
            "steps $K$",
            "ESS / N",
            {name: _spread(steps, values) for name, values in efficiencies.items()},
        ),
        plot.Panel(
            f"{known.name}: euler K = 100, moment K = 20",
            "paths $n$",
            r"root mean square of $\Delta\,\log Z$",
            errors,
        ),
    ])  # fmt: skip


def _spread(x, values) -> plot.Curve:
    values = np.asarray(jnp.stack(values))
    return plot.Curve(x, np.median(values, 1), values.min(1), values.max(1))


def _log_z_errors(log_weights) -> plot.Curve:
    """Root mean square of log Ẑ over groups of n paths, with its spread as that of a χ² of as many groups."""
    sizes = [n for n in (16, 32, 64, 128, 256, 512) if log_weights.size // n >= 8]
    middle, deviation = [], []
    for n in sizes:
        groups = log_weights[: log_weights.size // n * n].reshape(-1, n)
        squares = np.asarray(jax.vmap(metrics.log_z_error)(groups).value) ** 2
        middle.append(np.sqrt(squares.mean()))
        deviation.append(squares.std(ddof=1) / np.sqrt(len(squares)) / (2 * middle[-1]))
    middle, deviation = np.array(middle), np.array(deviation)
    return plot.Curve(np.array(sizes), middle, np.maximum(middle - deviation, 0.2 * middle), middle + deviation)


def seconds(rows: Sequence[report.Row]) -> float | None:
    run = report.middle(rows, "run_seconds")
    return None if run is None else run + report.largest(rows, "compile_seconds")


def evaluations(rows: Sequence[report.Row]) -> float | None:
    total = (report.middle(rows, "energy_evaluations") or 0) + (report.middle(rows, "gradient_evaluations") or 0)
    return total or None


def quality_cost(results: report.Results, methods: Sequence[str], cost: Callable, label: str):
    """The largest distance over its floor against its cost, a pane for each case; exact samples are below the line."""
    points: dict[str, dict[str, tuple[float, float]]] = {}
    order = list(dict.fromkeys(row["method"] for row in results["rows"] if row["method"] != EXACT))
    for (case, method), rows in report.groups(results["rows"]).items():
        spent, worst = cost(rows), report.middle(rows, "worst")
        if method in methods and spent is not None and worst is not None:
            points.setdefault(case, {})[method] = (spent, worst)
    if not points:
        return None
    return plot.quality_cost(points, order, xlabel=label, ylabel="largest distance / floor", floor=1.0)
