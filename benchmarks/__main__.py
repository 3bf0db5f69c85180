"""`python -m benchmarks [core] [control] [data] [densities] [decisions] [neural] [weak] [protocols] [speed] [hostile] …`.

Other names are cases of `core` and targets of `coverage`.

See `--help`.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from . import (
    control,
    coverage,
    data,
    decisions,
    densities,
    figures,
    grade,
    hostile,
    neural,
    protocols,
    report,
    seeded,
    speed,
    two_modes,
    weak,
)
from .cases import CASES, QUICK
from .core import run_core
from .data.sets import CIFAR
from .ledger import Ledger
from .outcome import Budget

SUITES = {
    "speed": "speed.json",
    "protocols": "protocols.json",
    "control": "control.json",
    "decisions": "decisions.json",
    "data": "data.json",
    "densities": "densities.json",
    "neural": "neural.json",
    "weak": "weak.json",
    "hostile": "hostile.json",
    "seeded": "seeded.json",
    "two_modes": "two_modes.json",
    "coverage": "coverage.json",
    "core": "results.json",
}
"""Name of each suite → its ledger in OUT."""

FILES = ", ".join(file for file, _ in densities.FROM_FILES.values())


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="pidjax beside the Path Integral Sampler, BlackJAX and exact samples; its speed; and its honesty.",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"suites {tuple(SUITES)}, cases {tuple(CASES)} of core and targets {tuple(coverage.TARGETS)} of coverage",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("results"), help="where results and figures go; a stopped run goes on"
    )
    parser.add_argument("--quick", action="store_true", help="four cases, at smaller budgets")
    parser.add_argument(
        "--seeds",
        type=int,
        help="of every method; by default 2 in the quick form, else 5, fewer of PIS; 3 for weak, 1 for what is graded",
    )
    parser.add_argument("--runs", type=int, default=200, help="of coverage, by tens")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("data"),
        help=f"where {CIFAR}, for data, and {FILES}, for densities and coverage, are",
    )
    parser.add_argument("--fresh", action="store_true", help="start anew, without the rows that OUT holds already")
    parser.add_argument("--compare", type=Path, metavar="OLD.json", help="print ratios and differences to an older run")
    parser.add_argument("--report-only", action="store_true", help="table and summary again, from OUT/results.json")
    options = parser.parse_args(arguments)
    known = {"suites": SUITES, "cases": CASES, "targets": coverage.TARGETS}
    unknown = [name for name in options.names if not any(name in names for names in known.values())]
    if unknown:
        those = "; ".join(f"the {what} are {', '.join(names)}" for what, names in known.items())
        parser.error(f"unknown name {unknown[0]!r}; {those}")
    for name in ("seeds", "runs"):
        if (value := getattr(options, name)) is not None and value < 1:
            parser.error(f"--{name} is {value}; pass at least 1")
    if "credit" in options.names and not (options.data / coverage.CREDIT).exists():
        parser.error(f"--data is {options.data}, where no {coverage.CREDIT} is; pass the folder that has it")
    return options


def main(arguments: list[str]) -> int:
    options = parsed(arguments)
    old = json.loads(options.compare.read_text()) if options.compare else None
    options.out.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    results = json.loads((options.out / SUITES["core"]).read_text()) if options.report_only else run(options)
    if results is not None:
        (options.out / "table.md").write_text(report.markdown(results))
        if old is not None:
            print(report.comparison(results, old))
        print(f"\n{options.out / 'table.md'} and figures after {time.perf_counter() - begin:.0f} s.\n")
        print(report.summary(results))
    return 0


def run(options: argparse.Namespace) -> report.Results | None:
    """Every suite that is asked for; the results are those of `core`, if it is among them."""
    cases = [name for name in options.names if name in CASES]
    targets = [name for name in options.names if name in coverage.TARGETS]
    suites = {name for name in options.names if name in SUITES}
    if targets:
        suites.add("coverage")
    if cases or not suites:
        suites.add("core")
    budget = Budget.quick() if options.quick else Budget.full()
    if options.seeds is not None:
        budget = budget.with_seeds(options.seeds)
    asked = {"quick": options.quick}
    settings = {
        "speed": asked,
        "protocols": asked,
        "control": asked,
        "decisions": {**asked, "seeds": options.seeds},
        "data": asked,
        "densities": {**asked, "seeds": options.seeds},
        "neural": {**asked, "seeds": options.seeds},
        "weak": {},
        "hostile": {},
        "seeded": {},
        "two_modes": {},
        "coverage": {},
        "core": vars(budget),
    }
    ledgers = {suite: Ledger(options.out / SUITES[suite], settings[suite], options.fresh) for suite in suites}
    if "speed" in suites:
        speed.run_speed(ledgers["speed"], quick=options.quick)
    if "protocols" in suites:
        protocols.run_protocols(ledgers["protocols"], quick=options.quick)
    if "control" in suites:
        control.run_control(ledgers["control"], quick=options.quick)
    if "decisions" in suites:
        decisions.run_decisions(ledgers["decisions"], options.out, quick=options.quick, seeds=options.seeds)
    if "data" in suites:
        data.run_data(ledgers["data"], options.out, options.data, quick=options.quick)
    if "densities" in suites:
        densities.run_densities(
            ledgers["densities"], options.out, options.data, quick=options.quick, seeds=options.seeds
        )
    if "neural" in suites:
        neural.run_neural(ledgers["neural"], options.out, quick=options.quick, seeds=options.seeds)
    if "weak" in suites:
        weak.run_weak(ledgers["weak"], options.out, seeds=options.seeds or 3)
    graded = {"hostile": hostile.hostile, "seeded": seeded.questions, "two_modes": two_modes.questions}
    for suite, questions in graded.items():
        if suite in suites:
            grade.run_graded(questions(), ledgers[suite], options.out / f"{suite}.md", options.seeds or 1)
    if "coverage" in suites:
        has_credit = (options.data / coverage.CREDIT).exists()
        targets = targets or [name for name in coverage.TARGETS if name != "credit" or has_credit]
        coverage.run_coverage(targets, ledgers["coverage"], options.out / "coverage.md", options.runs, options.data)
    if "core" not in suites:
        return None
    cases = cases or (list(QUICK) if options.quick else list(CASES))
    run_core(cases, budget, ledgers["core"])
    results = ledgers["core"].results()
    figures.draw(results, cases, budget, options.out)
    return results


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
