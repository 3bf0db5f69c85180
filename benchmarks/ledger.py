"""The rows of a suite in one file, from which a stopped suite goes on.

The file is a JSON object: environment, options, then sections of rows. A run is known by its identity, such as case,
method and seed, and gives one row or more. The file is replaced, whole, after each run; a run that is found in it without
an error is not done again.
"""

import json
import os
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from . import measure

Row = Mapping[str, Any]


class Ledger:
    """The rows in `path`. That they were made with other options or versions is an error, unless all start `fresh`."""

    def __init__(self, path: Path, options: Mapping[str, Any], fresh: bool = False):
        self._path = path
        self._head = json.loads(json.dumps({"environment": measure.environment(), "options": options}))
        self._sections: dict[str, dict[str, list[Row]]] = {}
        if path.exists() and not fresh:
            self._take(json.loads(path.read_text()))

    def _take(self, kept: dict[str, Any]) -> None:
        differences = []
        for part, now in self._head.items():
            then = kept.pop(part, {})
            changed = [name for name in {**then, **now} if then.get(name) != now.get(name)]
            differences += [f"  {part}, {name}: {then.get(name)} then, {now.get(name)} now" for name in changed]
        if differences:
            what = "\n".join(differences)
            raise SystemExit(f"{self._path} was made otherwise:\n{what}\nPass --fresh to start anew, or another --out.")
        for section, rows in kept.items():
            for row in rows:
                self._sections.setdefault(section, {}).setdefault(row["run"], []).append(row)
        print(f"{self._path}: {sum(map(len, kept.values()))} rows kept", flush=True)

    def run(self, section: str, make: Callable[..., Iterable[Row]], **identity: Any) -> list[Row]:
        """The rows of one run: those kept, else those of `make(**identity)`. A failure is a row too, with its error."""
        runs, name = self._sections.setdefault(section, {}), " · ".join(map(str, identity.values()))
        if name not in runs or any(row["error"] is not None for row in runs[name]):
            head = {"run": name, **identity, "error": None}
            try:
                runs[name] = [{**head, **row} for row in make(**identity)]
            except Exception as error:
                traceback.print_exc()
                runs[name] = [{**head, "error": f"{type(error).__name__}: {error}"}]
                print(f"{name}: FAILED", flush=True)
            self._save()
        return runs[name]

    def results(self) -> dict[str, Any]:
        """Environment, options, and the rows of each section in the order in which runs were first asked for."""
        rows = {section: [row for run in runs.values() for row in run] for section, runs in self._sections.items()}
        return {**self._head, **rows}

    def _save(self) -> None:
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.results(), indent=1))
        os.replace(temporary, self._path)
