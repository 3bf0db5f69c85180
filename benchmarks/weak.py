"""The suite `weak`: what a network makes of a weak explicit control, at equal steps and equal energies a sample.

The surrogate is a mixture of eight Gaussians fitted to 200 exact draws of the target; the explicit rule takes K = 5 or 10
`Moment` steps to it. The corrected rule takes the same steps, its network trained by the regression on bridges, to the end
points of exact steps first and of its own paths nine times thereafter. Of each rule

    ESS/N = (Σ_i W_i)²/(N Σ_i W_i²)  of its paths,       forward Z/E[W]  of paths backward from exact draws,

log Z, and the time of a path; of the training its slopes and seconds.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.mixture import GaussianMixture as Fitted

import pidjax as pid
from pidjax import learning, zoo

from . import measure
from .densities.targets import Target, of
from .ledger import Ledger
from .neural.suite import bounds
from .page import page

TARGETS: Mapping[str, Callable[[], Target]] = {
    "nine": lambda: of(zoo.nine()),
    "many_well 4": lambda: of(zoo.many_well(2)),
    "many_well 8": lambda: of(zoo.many_well(4)),
    "gaussian_mixture 10": lambda: of(zoo.gaussian_mixture(10)),
    "student_mixture 10": lambda: of(zoo.student_mixture(10)),
    "funnel √3": lambda: of(zoo.funnel(3**0.5)),
}
STEPS = (5, 10)
COMPONENTS, DRAWS, RIDGE = 8, 200, 0.05
"""Of the surrogate: components, draws it is fitted to, and what is added to its variances, in their mean variance."""
NUM_SAMPLES, NUM_ENDS, ITERATIONS, ROUNDS = 4096, 16_384, 1000, 10
RULES = ("explicit", "corrected")
COLUMNS = ("exact_ess", *(f"{rule}_{what}" for rule in RULES for what in ("ess", "forward_ess", "seconds")))
"""Whose medians are shown."""
REPEATED = 20
"""Runs of each rule, by turns, of which the fastest is timed."""


def run_weak(ledger: Ledger, out: Path, *, seeds: int) -> None:
    """The section `rows`, one for each target, number of steps and seed; then weak.md in `out`."""
    for seed in range(seeds):
        for name in TARGETS:
            for num_steps in STEPS:
                ledger.run("rows", corrected, target=name, num_steps=num_steps, seed=seed)
            (out / "weak.md").write_text(markdown(ledger.results()))
            jax.clear_caches()
    print(out / "weak.md")


def weak(key, target: Target) -> pid.Surrogate:
    """The surrogate of a few draws."""
    draws = target.draw(key, DRAWS)
    ridge = RIDGE * float(jnp.mean(jnp.var(draws, axis=0)))
    found = Fitted(COMPONENTS, reg_covar=ridge, random_state=0).fit(np.asarray(draws, float))
    parts = (jnp.asarray(leaf, draws.dtype) for leaf in (found.means_, found.covariances_, found.weights_))
    return pid.Surrogate(target.density, pid.GaussianMixture(*parts))


def corrected(target: str, num_steps: int, seed: int) -> Iterator[dict[str, Any]]:
    """The row of one run."""
    known = TARGETS[target]()
    key_draws, key_ends, key_weights, key_fit, key_solve, key_back = jax.random.split(jax.random.key(seed), 6)
    surrogate, grid = weak(key_draws, known), pid.log_snr_grid(num_steps)
    exact = pid.sample(key_ends, surrogate, num_samples=NUM_ENDS, progress=False)
    begin = time.perf_counter()
    trained = learning.fit(
        key_fit,
        surrogate,
        pid.Corrected(pid.Moment(), learning.Network(key_weights, known.dim)),
        protocol=pid.harmonic(),
        grid=grid,
        loss=learning.Regression(learning.Buffer.of(exact), refresh=learning.Refresh(ITERATIONS, NUM_ENDS)),
        num_iterations=ROUNDS * ITERATIONS,
        batch_size=512,
        progress=False,
    )
    row = {"dim": known.dim, "seconds": time.perf_counter() - begin, "slopes": trained.num_evaluations}
    row["exact_ess"] = float(exact.ess) / NUM_ENDS
    programs = {}
    for name, rule in zip(RULES, (pid.Moment(), trained.parameters)):
        solution = pid.sample(key_solve, surrogate, rule=rule, grid=grid, num_samples=NUM_SAMPLES, progress=False)
        log_z = solution.log_z
        row |= {
            f"{name}_ess": float(solution.ess) / NUM_SAMPLES,
            f"{name}_forward_ess": bounds(solution, known, key_back)["forward_ess"],
            f"{name}_delta": float(log_z.value) - known.log_z,
            f"{name}_log_z_error": float(log_z.standard_error),
        }
        programs[name] = timed(solution, key_solve)
    for name, seconds in measure.interleaved(programs, REPEATED).items():
        row[f"{name}_seconds"] = seconds / NUM_SAMPLES
    print(
        f"{target:20s} K {num_steps:2d} seed {seed}  {row['explicit_ess']:.4f} → {row['corrected_ess']:.4f}", flush=True
    )
    yield row


def timed(solution: pid.Solution, key) -> Callable[[], Any]:
    """A run of the solution's paths, compiled."""
    indices = jnp.arange(NUM_SAMPLES)
    return measure.Program(lambda key: pid.rollout(solution.prepared, solution.rule, key, indices).log_weights, key).run


def markdown(results: Mapping[str, Any]) -> str:
    """Medians over the seeds."""
    groups = defaultdict(list)
    for row in results["rows"]:
        if row["error"] is None:
            groups[row["target"], row["num_steps"]].append(row)

    def line(name, num_steps, rows):
        median = {key: float(np.median([row[key] for row in rows])) for key in COLUMNS}
        gain = median["corrected_ess"] / median["explicit_ess"]
        cost = median["corrected_seconds"] / median["explicit_seconds"]
        shares = [f"{median[f'{rule}_ess']:.3f}, {median[f'{rule}_forward_ess']:.3f}" for rule in RULES]
        scores = ", ".join(f"{row['corrected_delta'] / row['corrected_log_z_error']:+.1f}" for row in rows)
        return [name, str(num_steps), f"{median['exact_ess']:.3f}", *shares, f"{gain:.1f}", f"{cost:.1f}", scores]

    header = [
        "target",
        "K",
        "exact steps",
        "explicit: ESS/N, forward",
        "corrected",
        "gain",
        "× time",
        "Δ/s.e. corrected",
    ]
    rows = [line(*group, rows) for group, rows in groups.items()]
    gains = [float(row[5]) for row in rows]
    among = f"{min(gains)} to {max(gains)} times as large, median {np.median(gains):.1f}"
    finding = f"At equal steps a network makes ESS/N {among}."
    return page("weak", results["environment"], finding, header, rows)
