"""From methods to rows: Δ₁, Δ₂, log Z and ESS of each method, case, number and seed; and what exact sums cost."""

import functools
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from pidjax import discrete as df

from ..ledger import Ledger
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
SECTIONS = ("rows", "growth", "large", "chains")
QUICK = ("glass 3×3", "glass 6×6", "glass 12×12", "ferromagnet 6×6", "ferromagnet 12×12", "SK 16")


def run_decisions(ledger: Ledger, out: Path, *, quick: bool, seeds: int | None = None) -> None:
    """The sections `rows`, `growth`, `large` and `chains`; then decisions.md and the figures of the suite in `out`."""
    seeds = (4 if quick else 8) if seeds is None else seeds
    cases = QUICK if quick else tuple(CASES)
    for case in cases:
        run_case(case, ledger, quick, seeds)
    for length, width in growth(quick):
        ledger.run("growth", timed, length=length, width=width, num_samples=1000)
    for length, width in large(quick):
        ledger.run("large", timed, length=length, width=width, num_samples=10_000)
    for case in cases:
        ledger.run("chains", correlation_times, case=case)
    results = ledger.results()
    finished = {part: [row for row in results[part] if row["error"] is None] for part in SECTIONS}
    (out / "decisions.md").write_text(report.markdown(finished))
    figures.draw(finished, out)
    print(f"{out / 'decisions.md'} and figures")


def run_case(name: str, ledger: Ledger, quick: bool, seeds: int) -> None:
    """All methods and seeds on one case, whose exact moments are found when the first run needs them."""
    numbers = (100, 1000, 10_000) if quick else (100, 1000, 10_000, 100_000)
    model = CASES[name]()
    known = methods(model, iterations=200 if quick else 500)

    @functools.cache
    def truth():
        exact = df.exact(model)
        return df.exact_moments(exact), float(exact.log_z)

    def rows(case, method, seed):
        begin = time.perf_counter()
        draws = known[method](jax.random.key(seed), model, numbers[-1])
        for number in numbers:
            yield {"number": number, **measured(method, draws, number, model, *truth())}
        print(f"{case}: {method}, seed {seed}, {time.perf_counter() - begin:.1f} s", flush=True)

    for method in known:
        for seed in range(seeds):
            ledger.run("rows", rows, case=name, method=method, seed=seed)


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


def correlation_times(case: str, num_sweeps: int = 5000) -> list[dict]:
    """Integrated autocorrelation times, in sweeps, of the energy and of the sum of spins, from chains that start exact."""
    model = CASES[case]()
    start = df.exact(model).sample(jax.random.key(0), NUM_CHAINS).samples
    rows = []
    for name, sweep in SWEEPS.items():
        if name == "Swendsen–Wang" and not ferromagnetic(model):
            continue
        values = df.run(jax.random.key(1), sweep(model), num_chains=NUM_CHAINS, num_sweeps=num_sweeps, start=start)
        energy = df.autocorrelation_time(jax.vmap(jax.vmap(model.log_density))(values))
        total = df.autocorrelation_time(model.spins(values).sum(axis=2))
        rows.append({"method": name, "energy": list(map(float, energy)), "total": list(map(float, total))})
    return rows


def growth(quick: bool) -> list[tuple[int, int]]:
    """Length and width: widths of a lattice 32 long, then lengths at width 8."""
    widths = (4, 6, 8, 10, 12) if quick else (4, 6, 8, 10, 12, 14, 16)
    return [(32, width) for width in widths] + [(length, 8) for length in (16, 64, 128)]


def large(quick: bool) -> list[tuple[int, int]]:
    return [(16, 16)] if quick else [(16, 16), (20, 16), (64, 16)]


def timed(length: int, width: int, num_samples: int) -> list[dict[str, float]]:
    """Seconds of log Z, of all magnetisations and of samples of a glass: medians of three runs after the first."""
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
    return [{name: _median_seconds(function) for name, function in work.items()}]


def _median_seconds(function) -> float:
    times = []
    for _ in range(4):
        begin = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - begin)
    return float(np.median(times[1:]))
