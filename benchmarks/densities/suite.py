"""Every sampler on every target with every seed: H-PID first, as the others get what it spent; what takes long comes last.

Δ = log Ẑ − log Z,     normal score = Δ / √(its stated error² + the truth's error²)
"""

import functools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ..ledger import Ledger
from ..outcome import PIS, Budget, Outcome
from . import report
from .rivals import (
    FEW_DIMENSIONS,
    HPID,
    MOST_DIMENSIONS,
    NUM_SAMPLES,
    RIVALS,
    TENFOLD_HPID,
    Problem,
    Rival,
    path_integral_diffusion,
)
from .targets import QUICK, TENFOLD, Target, available

OUR_SEEDS, SEEDS, HIGH_DIMENSION = 20, 5, 256
"""Of H-PID up to so many dimensions, and of all else, in the full form."""
WITHOUT_HPID = 2**20
"""Evaluations of the other samplers where H-PID failed."""


def run_densities(ledger: Ledger, out: Path, data: Path, *, quick: bool, seeds: int | None) -> None:
    """The sections `targets`, with their floors, and `rows`; then densities.md in `out`."""
    targets = {name: make for name, make in available(data).items() if not quick or name in QUICK}
    for turn in (run_hpid, run_rivals) if quick else (run_hpid, run_rivals, run_long):
        for name, make in targets.items():
            turn(name, functools.cache(lambda make=make: Problem.of(make())), ledger, seeds or (1 if quick else None))
            (out / "densities.md").write_text(report.markdown(ledger.results()))
            jax.clear_caches()
    print(out / "densities.md")


def run_hpid(name: str, made: Callable[[], Problem], ledger: Ledger, seeds: int | None) -> None:
    """What is known of the target, which is made when the first run needs it; then H-PID with every seed."""

    def facts(target):
        known = made().target
        floor = known.floor(NUM_SAMPLES)
        yield {
            "dim": known.dim,
            "log_z": known.log_z,
            "quality": known.quality,
            "floor": None if floor is None else float(floor.mean),
            "floor_deviation": None if floor is None else float(floor.standard_deviation),
        }

    (about,) = ledger.run("targets", facts, target=name)
    if about["error"] is not None:
        return
    for seed in range(seeds or (OUR_SEEDS if about["dim"] <= HIGH_DIMENSION else SEEDS)):
        run_one(HPID, path_integral_diffusion(NUM_SAMPLES), made, ledger, name, seed, WITHOUT_HPID)


def run_rivals(name: str, made: Callable[[], Problem], ledger: Ledger, seeds: int | None) -> None:
    """Those that run on every target, with as many evaluations as H-PID."""
    for seed in range(seeds or SEEDS):
        spent = run_one(HPID, path_integral_diffusion(NUM_SAMPLES), made, ledger, name, seed, WITHOUT_HPID)
        for method, rival in RIVALS.items():
            run_one(method, rival, made, ledger, name, seed, spent)


def run_long(name: str, made: Callable[[], Problem], ledger: Ledger, seeds: int | None) -> None:
    """H-PID with ten times as many paths, and what is trained in few dimensions."""
    if name in TENFOLD:
        for seed in range(seeds or SEEDS):
            run_one(TENFOLD_HPID, path_integral_diffusion(10 * NUM_SAMPLES), made, ledger, name, seed, WITHOUT_HPID)
    if made().target.dim <= MOST_DIMENSIONS:
        for seed in range(seeds or Budget.full().pis_seeds):
            for method, rival in FEW_DIMENSIONS.items():
                run_one(method, rival, made, ledger, name, seed, WITHOUT_HPID)


def run_one(
    name: str, rival: Rival, made: Callable[[], Problem], ledger: Ledger, target: str, seed: int, evaluations: int
) -> int:
    """One row, and the evaluations that it took; those that it was given if it failed.

    The first seed's run is made twice, with another key, for its seconds without compilation; PIS trains once.
    """

    def rows(target, method, seed):
        problem, key = made(), jax.random.key(seed)
        outcome, first_seconds = _timed(rival, key, problem, evaluations)
        again_seconds = None
        if seed == 0 and method != PIS:
            _, again_seconds = _timed(rival, jax.random.fold_in(key, 1), problem, evaluations)
        row = measured(problem.target, outcome, jax.random.fold_in(key, 2))
        row |= {"given": evaluations, "first_seconds": first_seconds, "again_seconds": again_seconds}
        print(f"{time.strftime('%X')}  {target:20s} {method:30s} seed {seed}{report.words(row)}", flush=True)
        yield row

    (row,) = ledger.run("rows", rows, target=target, method=name, seed=seed)
    return evaluations if row["error"] is not None else row["energy_evaluations"] + row["gradient_evaluations"]


def _timed(rival: Rival, key, problem: Problem, evaluations: int) -> tuple[Outcome, float]:
    begin = time.perf_counter()
    outcome = rival(key, problem, evaluations)
    jax.block_until_ready(outcome.samples)
    return outcome, time.perf_counter() - begin


def measured(target: Target, outcome: Outcome, key) -> dict[str, Any]:
    """A row's columns. Samples of weight zero need not be finite."""
    alive = jnp.isfinite(outcome.samples).all(axis=1)
    if outcome.log_weights is not None:
        alive = alive | (outcome.log_weights == -jnp.inf)
    if not alive.all():
        raise FloatingPointError(f"{int((~alive).sum())} of {len(alive)} samples are not finite")
    row: dict[str, Any] = {"delta": None, "log_z_error": outcome.log_z_error, "score": None, "quality": None}
    if outcome.log_z is not None:
        row["delta"] = outcome.log_z - target.log_z
        deviation = math.hypot(outcome.log_z_error or 0.0, target.log_z_error)
        if outcome.log_z_error is not None and deviation > 0:
            row["score"] = row["delta"] / deviation
    if target.draw is not None and target.distance is not None:
        reference = target.draw(key, NUM_SAMPLES)
        row["quality"] = float(target.distance(outcome.samples, outcome.log_weights, reference))
    return row | {
        "ess": outcome.ess,
        "energy_evaluations": outcome.energy_evaluations,
        "gradient_evaluations": outcome.gradient_evaluations,
        "samples": len(outcome.samples),
        "outcomes": outcome.warning,
        "settings": outcome.budget,
    }
