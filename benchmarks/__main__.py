"""`python -m benchmarks [core] [decisions] [protocols] [speed] [case …]`: see `--help`."""

import argparse
import json
import sys
import time
from pathlib import Path

from . import decisions, figures, protocols, report, speed
from .cases import CASES
from .core import run_core
from .outcome import Budget

SUITES = ("core", "decisions", "protocols", "speed")


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="pidjax beside the Path Integral Sampler, BlackJAX and exact samples; and its speed.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"suites {SUITES} and cases {tuple(CASES)}")
    parser.add_argument("--out", type=Path, default=Path("results"), help="where results and figures go")
    parser.add_argument("--quick", action="store_true", help="smaller budgets: some eleven minutes on two cores")
    parser.add_argument(
        "--seeds", type=int, help="of every method; by default 2 in the quick form, else 5, fewer of PIS"
    )
    parser.add_argument("--compare", type=Path, metavar="OLD.json", help="print ratios and differences to an older run")
    parser.add_argument("--report-only", action="store_true", help="table and summary again, from OUT/results.json")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in SUITES and name not in CASES]
    if unknown:
        parser.error(f"unknown name {unknown[0]!r}; the suites are {', '.join(SUITES)}, the cases {', '.join(CASES)}")
    if options.seeds is not None and options.seeds < 1:
        parser.error(f"--seeds is {options.seeds}; pass at least 1")
    return options


def main(arguments: list[str]) -> int:
    options = parsed(arguments)
    old = json.loads(options.compare.read_text()) if options.compare else None
    suites = [name for name in options.names if name in SUITES]
    cases = [name for name in options.names if name in CASES]
    if cases or not suites:
        suites.append("core")
    options.out.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    if "speed" in suites:
        ratios = speed.run_speed(quick=options.quick)
        (options.out / "speed.json").write_text(json.dumps(ratios, indent=1))
    if "protocols" in suites:
        rows = protocols.run_protocols(quick=options.quick)
        (options.out / "protocols.json").write_text(json.dumps(rows, indent=1))
    if "decisions" in suites:
        decisions.run_decisions(options.out, quick=options.quick, seeds=options.seeds)
    if "core" in suites:
        results = _core(options, cases or list(CASES))
        table = report.markdown(results)
        (options.out / "table.md").write_text(table)
        if old is not None:
            print(report.comparison(results, old))
        print(f"\n{options.out / 'table.md'} and figures after {time.perf_counter() - begin:.0f} s.\n")
        print(report.summary(results))
    return 0


def _core(options: argparse.Namespace, cases: list[str]) -> report.Results:
    path = options.out / "results.json"
    if options.report_only:
        return json.loads(path.read_text())
    budget = Budget.quick() if options.quick else Budget.full()
    if options.seeds is not None:
        budget = budget.with_seeds(options.seeds)
    results = run_core(cases, budget, lambda results: path.write_text(json.dumps(results, indent=1)))
    figures.draw(results, cases, budget, options.out)
    return results


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
