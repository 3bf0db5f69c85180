"""From methods to rows: Δ₁, Δ₂, log Z and ESS of each method, case, number and seed; and what exact sums cost."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from pidjax import decision as df

from . import figures, report
from .methods import CHAINS, EMPIRICAL, NUM_CHAINS, SWEEPS, Draws, ferromagnetic, methods

CASES: dict[str, Callable[[], df.Pairwise]] = {
    "glass 3×3": lambda: df.ising_glass(3),
    "glass 4×4": lambda: df.ising_glass(4),
    "glass 5×5": lambda: df.ising_glass(5),
    "glass 6×6": lambda: df.ising_glass(6),
    "glass 12×12": lambda: df.ising_glass(12),
    "glass 16×16": lambda: df.ising_glass(16),
    "ferromagnet 3×3": lambda: df.ising_grid(3),
    "ferromagnet 4×4": lambda: df.ising_grid(4),
    "ferromagnet 5×5": lambda: df.ising_grid(5),
    "ferromagnet 6×6": lambda: df.ising_grid(6),
    "ferromagnet 12×12": lambda: df.ising_grid(12),
    "ferromagnet 16×16": lambda: df.ising_grid(16),
    "SK 16": lambda: df.sherrington_kirkpatrick(jax.random.key(0), 16),
}
QUICK = ("glass 3×3", "glass 6×6", "glass 12×12", "ferromagnet 6×6", "ferromagnet 12×12", "SK 16")


def run_decisions(out: Path, *, quick: bool, seeds: int | None = None) -> None:
    """Write decisions.json, decisions.md and the figures of the suite into a folder."""
    numbers = (100, 1000, 10_000) if quick else (100, 1000, 10_000, 100_000)
    seeds = (4 if quick else 8) if seeds is None else seeds
    cases = QUICK if quick else tuple(CASES)
    rows = []
    for case in cases:
        rows += case_rows(case, numbers, seeds, iterations=200 if quick else 500)
        (out / "decisions.json").write_text(json.dumps({"rows": rows}, indent=1))
    results = {"rows": rows, "growth": growth(quick), "large": large(quick), "chains": correlation_times(cases)}
    (out / "decisions.json").write_text(json.dumps(results, indent=1))
    (out / "decisions.md").write_text(report.markdown(results))
    figures.draw(results, out)
    print(f"{out / 'decisions.md'} and figures")


def case_rows(case: str, numbers: tuple[int, ...], seeds: int, iterations: int) -> list[dict]:
    """All methods on one case."""
    model = CASES[case]()
    exact = df.exact(model)
    true, log_z = df.exact_moments(exact), float(exact.log_z)
    rows = []
    for name, method in methods(model, iterations).items():
        begin = time.perf_counter()
        for seed in range(seeds):
            try:
                draws = method(jax.random.key(seed), model, numbers[-1])
            except FloatingPointError as error:
                print(f"{case}: {name} failed: {error}")
                break
            for number in numbers:
                row = measured(name, draws, number, model, true, log_z)
                rows.append({"case": case, "method": name, "seed": seed, "number": number, **row})
        print(f"{case}: {name}, {(time.perf_counter() - begin) / seeds:.1f} s a seed", flush=True)
    return rows


def measured(name: str, draws: Draws, number: int, model: df.Pairwise, true, log_z: float) -> dict[str, float | None]:
    """The figures of the first `number` configurations; a chain drops its first tenth."""
    values = draws.values[number // 10 if name in CHAINS else 0 : number]
    weights = np.full(len(values), 1 / len(values))
    row: dict[str, float | None] = {"evaluations": float(number + draws.spent), "log_z": None, "ess": None}
    if draws.log_weights is not None:
        log_weights = draws.log_weights[:number].astype(float)
        peak = log_weights.max()
        weights = np.exp(log_weights - peak)
        if log_weights.any():
            row["log_z"] = float(peak + np.log(weights.mean()) - log_z)
        row["ess"] = float(weights.sum() ** 2 / (weights**2).sum() / number)
        weights = weights / weights.sum()
        if name == EMPIRICAL:
            weights = np.random.default_rng(number).multinomial(number, weights) / number
    spins = np.asarray(model.levels)[values]
    found = df.moments(spins, weights.astype(spins.dtype))
    return row | {key: float(value) for key, value in df.moment_errors(found, true)._asdict().items()}


def correlation_times(cases: Sequence[str], num_sweeps: int = 5000) -> list[dict]:
    """Integrated autocorrelation times, in sweeps, of the energy and of the sum of spins, from chains that start exact."""
    rows = []
    for case in cases:
        model = CASES[case]()
        start = df.exact(model).sample(jax.random.key(0), NUM_CHAINS).samples
        for name, sweep in SWEEPS.items():
            if name == "Swendsen–Wang" and not ferromagnetic(model):
                continue
            values = df.run(jax.random.key(1), sweep(model), num_chains=NUM_CHAINS, num_sweeps=num_sweeps, start=start)
            energy = df.autocorrelation_time(jax.vmap(jax.vmap(model.log_weight))(values))
            total = df.autocorrelation_time(model.spins(values).sum(axis=2))
            rows.append({"case": case, "method": name, "energy": list(map(float, energy))})
            rows[-1]["total"] = list(map(float, total))
    return rows


def growth(quick: bool) -> list[dict]:
    """Seconds of log Z, and of 1,000 samples, against the width of a lattice 32 long, and against its length at width 8."""
    widths = (4, 6, 8, 10, 12) if quick else (4, 6, 8, 10, 12, 14, 16)
    shapes = [(32, width) for width in widths] + [(length, 8) for length in (16, 64, 128)]
    return [{"length": length, "width": width, **timed(length, width, 1000)} for length, width in shapes]


def large(quick: bool) -> list[dict]:
    """Seconds for 10,000 samples, log Z and all magnetisations of large glasses."""
    shapes = ((16, 16),) if quick else ((16, 16), (20, 16), (64, 16))
    return [{"length": length, "width": width, **timed(length, width, 10_000)} for length, width in shapes]


def timed(length: int, width: int, num_samples: int) -> dict[str, float]:
    """Medians of three runs after the first."""
    random = np.random.default_rng(0)
    graph = df.lattice(length, width)
    model = df.ising(
        graph,
        random.uniform(-1, 1, len(graph.edges)).astype(np.float32),
        random.uniform(-1, 1, length * width).astype(np.float32),
    )
    transfer = df.Transfer(model)
    work = {
        "log_z_seconds": lambda: transfer.log_z,
        "gradient_seconds": lambda: transfer.magnetisations,
        "sample_seconds": lambda: transfer.sample(jax.random.key(0), num_samples).samples,
    }
    return {name: _median_seconds(function) for name, function in work.items()}


def _median_seconds(function) -> float:
    times = []
    for _ in range(4):
        begin = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - begin)
    return float(np.median(times[1:]))
