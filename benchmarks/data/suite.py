"""From data sets to rows: where class and datum are decided, by simulation and by theory, and what it takes to see it.

Runs that are compared are of keys of their own, so that their standard errors are those of independent runs.
"""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import pidjax as pid
from pidjax import diagnostics, exact, zoo

from ..ledger import Ledger
from . import figures, report
from .generated import Generation, generated, generations, usual
from .sets import DataSet, data_sets
from .universal import SWEEPS, swept

SECTIONS = (
    "theory", "betas", "curves", "uturns", "exits", "films", "gaussians", "pairs", "nine", "universal", "speed", "generated",
)  # fmt: skip
BETAS = (0.0, 0.1, 1.0, 10.0, 100.0)
CURVES = (
    "datum_entropy", "effective_data", "datum_agreement", "class_entropy", "class_agreement", "state", "weighted_state",
)  # fmt: skip
BRIDGES, HARMONIC, PRESERVING = "bridges", "H-PID", "score-based"
"""Paths drawn back from the data; simulated by H-PID at β = 1; by the reverse of a variance-preserving diffusion."""
NUM_STEPS = 33
HORIZON = 7.0
"""Of the variance-preserving diffusion: K = 8e-7/v at its start."""


def run_data(ledger: Ledger, out: Path, folder: Path, *, quick: bool) -> None:
    """All sections; then data.md and the figures of the suite in `out`."""
    for name, make in data_sets(folder, quick).items():
        run_set(name, functools.cache(make), ledger)
        jax.clear_caches()
    for dim, count in gaussians(quick):
        ledger.run("gaussians", gaussian, dim=dim, count=count)
    for dim in (16, 256) if quick else (16, 64, 256, 1024, 4096):
        ledger.run("pairs", pair, dim=dim)
    for rescaled in (False, True):
        ledger.run("nine", nine, rescaled=rescaled)
    for num_steps, num_draws in SWEEPS[1:3] if quick else SWEEPS:
        for beta in BETAS:
            ledger.run("universal", swept, beta=beta, num_steps=num_steps, num_draws=num_draws)
    for name, make in generations(folder, quick).items():
        run_generation(name, make(), ledger)
        jax.clear_caches()
    results = ledger.results()
    finished = {part: [row for row in results[part] if row["error"] is None] for part in SECTIONS}
    (out / "data.md").write_text(report.markdown(finished, results["environment"]))
    figures.draw(finished, out)
    print(f"{out / 'data.md'} and figures")


def run_set(name: str, make: Callable[[], DataSet], ledger: Ledger) -> None:
    """All that is asked of one data set."""

    def said(function):
        def rows(**identity):
            begin = time.perf_counter()
            made = function(make(), **{key: value for key, value in identity.items() if key != "data"})
            print(f"{' · '.join(map(str, identity.values()))}: {time.perf_counter() - begin:.1f} s", flush=True)
            return [made]

        return rows

    ledger.run("theory", said(theory), data=name)
    for beta in BETAS:
        ledger.run("betas", said(at_beta), data=name, beta=beta)
    for process in (BRIDGES, HARMONIC, PRESERVING):
        ledger.run("curves", said(curves), data=name, process=process)
    ledger.run("uturns", said(turns), data=name)
    ledger.run("exits", said(exits), data=name)
    for beta in (0.1, 10.0):
        ledger.run("films", said(film), data=name, beta=beta)
    ledger.run("speed", said(speed), data=name)


def run_generation(name: str, about: Generation, ledger: Ledger) -> None:
    """Every method on one set of images."""

    of_held_out = functools.cache(lambda: usual(about))

    def rows(data, method):
        row = generated(about, method, of_held_out())
        print(f"{data} · {method}: distance {row['distance']:.2f}, patches {row['patches']:.3f}", flush=True)
        return [row]

    for method in about.makers:
        ledger.run("generated", rows, data=name, method=method)


def theory(data: DataSet) -> dict[str, Any]:
    """Spectra, and the ratios that they make."""
    target = data.target
    total, between = exact.spectrum(target), exact.spectrum(target, between_classes=True)
    count = len(target.points)
    mean_variance = jnp.full_like(total, jnp.mean(total))
    return {
        "count": count,
        "dim": target.dim,
        "classes": target.num_classes,
        "largest": float(total[-1]),
        "largest_between": float(between[-1]),
        "speciation": float(exact.speciation_snr(total)),
        "speciation_between": float(exact.speciation_snr(between)),
        "collapse": float(exact.collapse_snr(total, count)),
        "collapse_gaussian": float(exact.collapse_snr(mean_variance, count)),
    }


def at_beta(data: DataSet, beta: float) -> dict[str, Any]:
    """The ratios at which class and datum are decided and at which Â is ½, and their times."""
    key, key_ends = jax.random.split(jax.random.fold_in(jax.random.key(1), BETAS.index(beta)))
    target, protocol = data.target, pid.harmonic(beta)
    grid = data.grid(target.place().spread ** 2, NUM_STEPS)
    found = diagnostics.transitions(key, target, data.ends(key_ends, data.num_paths), protocol=protocol, grid=grid)
    half = float(np.exp(exact.transition_time(jnp.log(found.snr), found.weighted_state.value)))
    ratios = {"speciation": found.speciation, "memorisation": found.memorisation}
    row = {name: numbers(ratio) for name, ratio in ratios.items()} | {"half": half}
    row |= {f"{name}_time": time_of(target, protocol, *numbers(ratio)) for name, ratio in ratios.items()}
    return row | {"half_time": float(exact.time_at_snr(target, protocol, half))}


def time_of(target: pid.Samples, protocol: pid.Protocol, ratio: float, error: float) -> list[float]:
    """The time of a ratio, and half of what its standard error spans there."""
    low, middle, high = exact.time_at_snr(target, protocol, jnp.array([ratio - error, ratio, ratio + error])).tolist()
    return [middle, (high - low) / 2]


def numbers(estimate: Any) -> list[Any]:
    """A value and its standard error, as lists."""
    return [np.asarray(part, float).tolist() for part in estimate]


def curves(data: DataSet, process: str) -> dict[str, Any]:
    """The order parameters against K: along bridges from the data, or along paths that are simulated."""
    key, key_ends = jax.random.split(jax.random.key(2 + (BRIDGES, HARMONIC, PRESERVING).index(process)))
    target, spread = data.target, data.target.place().spread
    if process == BRIDGES:
        ends, grid = data.ends(key_ends, data.num_paths), data.grid(spread**2, NUM_STEPS)
        found = diagnostics.transitions(key, target, ends, grid=grid)
    else:
        protocol, unit = pid.harmonic(1.0), spread**2
        if process == PRESERVING:
            protocol = pid.variance_preserving(jnp.zeros(target.dim), variance=spread**2, horizon=HORIZON)
            unit = 2 * HORIZON * spread**2
        solution = pid.sample(
            key,
            target,
            protocol=protocol,
            num_samples=data.num_paths,
            grid=data.grid(unit, NUM_STEPS),
            save_paths=True,
            progress=False,
        )
        found = diagnostics.path_transitions(solution)
    times = {"times": np.asarray(found.times, float).tolist(), "snr": np.asarray(found.snr, float).tolist()}
    crossings = {name: numbers(getattr(found, name)) for name in ("speciation", "memorisation")}
    squares = {"squared_error": numbers(found.error)}
    return times | {name: numbers(getattr(found, name)) for name in CURVES} | squares | crossings


def turns(data: DataSet) -> dict[str, Any]:
    """U-turns at ten ratios."""
    key, key_ends = jax.random.split(jax.random.key(6))
    ratios = jnp.geomspace(data.low, data.high, 10)
    found = diagnostics.uturns(key, data.target, data.ends(key_ends, data.num_paths), ratios)
    made = {"snr": np.asarray(found.snr, float).tolist(), "times": np.asarray(found.times, float).tolist()}
    return made | {name: numbers(getattr(found, name)) for name in ("datum", "label", "change")}


def exits(data: DataSet) -> dict[str, Any]:
    """How often the end, or its class, is told from x̂ at each time."""
    target = data.target
    grid = data.grid(target.place().spread ** 2, NUM_STEPS)
    solution = pid.sample(
        jax.random.key(7), target, num_samples=data.num_paths, grid=grid, save_paths=True, progress=False
    )
    found = diagnostics.predictions(solution)
    snr = exact.snr(target, pid.harmonic(), found.times[1:])
    variance = float(target.place().spread ** 2 * target.dim)
    made = {"snr": np.asarray(snr, float).tolist(), "times": np.asarray(found.times[1:], float).tolist()}
    parts = {"datum": found.datum, "label": found.label, "change": found.error}
    scales = {"datum": 1.0, "label": 1.0, "change": 1 / variance}
    return made | {
        name: [(np.asarray(part, float)[1:] * scales[name]).tolist() for part in estimate]
        for name, estimate in parts.items()
    }


def film(data: DataSet, beta: float) -> dict[str, Any]:
    """One path, x̂ and x at eight times, as images: the slides' figure."""
    times = jnp.array([0.0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0])
    solution = pid.sample(
        jax.random.key(8),
        data.target,
        protocol=pid.harmonic(beta),
        num_samples=1,
        grid=pid.at_times(times),
        save_paths=True,
        progress=False,
    )
    paths = {"states": solution.states[0, 1:], "weighted_states": solution.weighted_states[0, 1:]}
    paths["weighted_states"] = jnp.concatenate([paths["weighted_states"], paths["states"][-1:]])
    made = {
        name: np.round(np.asarray(path + data.mean, float), 3).reshape(-1, *data.shape).tolist()
        for name, path in paths.items()
    }
    return {"times": times[1:].tolist(), **made}


def gaussians(quick: bool) -> Sequence[tuple[int, int]]:
    """Dimension and number of points: over dimensions, then over numbers."""
    if quick:
        return [(16, 1024), (64, 1024), (256, 1024), (64, 256), (64, 4096)]
    over_dimensions = [(dim, 4096) for dim in (16, 32, 64, 128, 256, 512, 1024)]
    return [*over_dimensions, *((dim, count) for dim in (16, 256) for count in (64, 256, 1024, 16384))]


def gaussian(dim: int, count: int) -> list[dict[str, Any]]:
    """Where the datum is decided among points of N(0, I), over what the collapse says; five sets of points.

    At the collapse the other points are a random energy model at its critical temperature, whose sum is typically half of its
    mean: log n is exceeded by log 2 less, at a log K smaller by log 2 / (dI/d log K). That is what is `expected`.
    """
    variances = jnp.ones(dim)
    collapse = exact.collapse_snr(variances, count)
    sets = []
    for number in range(5):
        key, key_points = jax.random.split(jax.random.fold_in(jax.random.key(dim), number))
        points = jax.random.normal(key_points, (count, dim))
        ends = points[:1024] if count >= 1024 else jnp.tile(points, (1024 // count, 1))
        sets.append(
            diagnostics.transitions(
                key,
                pid.Samples(points),
                ends,
                protocol=pid.harmonic(0.0, noise_scale=1.0),
                grid=pid.log_snr_grid(26, collapse / 10, collapse * 6),
            ).memorisation.value
        )
    ratios = np.array(sets, float) / float(collapse)
    seen = float(collapse) / (1 + float(collapse))
    print(f"Gaussian data, d = {dim}, n = {count}: {ratios.mean():.3f}", flush=True)
    return [
        {
            "collapse": float(collapse),
            "ratio": [float(ratios.mean()), float(ratios.std(ddof=1) / np.sqrt(len(ratios)))],
            "expected": float(np.exp(-np.log(2) / (0.5 * dim * seen))),
        }
    ]


def pair(dim: int) -> list[dict[str, Any]]:
    """Two Gaussians ±μ of variance 1, |μ|² = 3: the agreement of class less the formula, in standard errors."""
    key, key_mean, key_ends = jax.random.split(jax.random.key(dim), 3)
    mean = jax.random.normal(key_mean, (dim,))
    mean = 3**0.5 * mean / jnp.linalg.norm(mean)
    target = pid.GaussianMixture.isotropic(jnp.stack([mean, -mean]), 1.0)
    found = diagnostics.transitions(
        key,
        target,
        target.sample(key_ends, 4096),
        protocol=pid.harmonic(0.0, noise_scale=1.0),
        grid=pid.log_snr_grid(12, 0.03, 30.0),
    )
    formula = exact.two_gaussians(found.snr, 3**0.5, 1.0)
    value, error = found.class_agreement
    row = {"snr": found.snr, "formula": formula, "score": (value - formula) / error}
    row = {name: np.asarray(part, float).tolist() for name, part in row.items()}
    return [row | {"agreement": numbers(found.class_agreement), "speciation": numbers(found.speciation)}]


def nine(rescaled: bool) -> list[dict[str, Any]]:
    """Of the nine Gaussians, by quadrature: when Â is ½, at which ratio, and how long it takes from 0.1 to 0.9."""
    target, rows = zoo.nine().target, []
    times = jnp.linspace(0.002, 0.998, 499)
    for beta in (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0):
        protocol = pid.harmonic(beta, noise_scale=None if rescaled else 1.0)
        curve = exact.weighted_state_correlation(target, protocol, times)
        low, half, high = (exact.transition_time(times, curve, level) for level in (0.1, 0.5, 0.9))
        rows.append(
            {
                "beta": beta,
                "time": float(half),
                "snr": float(exact.snr(target, protocol, half[None])[0]),
                "duration": float(high - low),
                "sharpness": float(np.trapezoid(1 - np.abs(2 * np.asarray(curve) - 1), np.asarray(times))),
                "curve": np.asarray(curve[::4], float).tolist(),
                "times": np.asarray(times[::4], float).tolist(),
            }
        )
    return rows


def speed(data: DataSet) -> dict[str, Any]:
    """Seconds after compilation: the transitions, and 50 steps of 256 paths, with nothing kept."""
    target = data.target
    ends = data.ends(jax.random.key(9), 256)
    grid = data.grid(target.place().spread ** 2, 50)
    work: Mapping[str, Callable[[], Any]] = {
        "transitions": lambda: diagnostics.transitions(jax.random.key(0), target, ends, grid=grid).error.value,
        "sampling": lambda: pid.sample(jax.random.key(0), target, num_samples=256, grid=grid, progress=False).samples,
        "uturn": lambda: pid.uturn(jax.random.key(0), target, ends, 0.5).samples,
    }
    return {name: warm_seconds(function) for name, function in work.items()}


def warm_seconds(function: Callable[[], Any]) -> list[float]:
    """The first run's seconds, with compilation, and the least of two more."""
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        jax.block_until_ready(function())
        seconds.append(time.perf_counter() - begin)
    return [seconds[0], min(seconds[1:])]
