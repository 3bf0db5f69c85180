"""The house itself: imports point one way, nothing happens on import, and what the documentation shows is what happens."""

import ast
import contextlib
import doctest
import importlib
import io
import pkgutil
import re
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import as_a_user

import pidjax

ROOT = Path(__file__).parents[1]
ORDER = ["_doors", "storage", "_maths", "process", "supports", "targets", "tempering", "sampling", "exact", "general",
         "metrics", "diagnostics", "images", "learning", "guides", "zoo", "discrete", "plot", "interop"]  # fmt: skip
NOTEBOOKS = [pytest.param(path, marks=[pytest.mark.extended]) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
PAGES = [ROOT / "README.md"] + [
    pytest.param(path, marks=[pytest.mark.extended])
    for path in sorted((ROOT / "docs").glob("*.md"))
    if "```python" in path.read_text()
]
SLOW_ROOMS = ("diagnostics", "discrete", "exact", "guides", "learning", "tempering")
MODULES = [
    pytest.param(name, marks=[pytest.mark.slow] if name.split(".")[1] in SLOW_ROOMS or ".fitting." in name else [])
    for _, name, _ in pkgutil.walk_packages(pidjax.__path__, "pidjax.")
]


def imported_rooms(path: Path) -> set[str]:
    """The rooms of pidjax (files or folders just below it) that a file imports."""
    package = ["pidjax", *path.relative_to(ROOT / "pidjax").parts[:-1]]
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            names += [f"{prefix}.{alias.name}" for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("pidjax.") and name.split(".")[1] in ORDER}


@pytest.mark.parametrize("path", sorted((ROOT / "pidjax").rglob("*.py")), ids=lambda path: path.stem)
def test_imports_point_one_way(path):
    room = path.relative_to(ROOT / "pidjax").parts[0].removesuffix(".py")
    if room == "__init__":
        return
    assert room in ORDER, f"{room} has no place in the order of imports"
    assert all(ORDER.index(other) <= ORDER.index(room) for other in imported_rooms(path))


def test_only_public_jax():
    for path in (ROOT / "pidjax").rglob("*.py"):
        assert "jax._src" not in path.read_text(), path


def test_decompositions_go_through_one_room():
    """All but norms, and what NumPy does on the host: two batches at once can wait for each other for ever on a CPU."""
    forbidden = re.compile(r"jnp\.linalg\.(?!norm\b)|jax\.numpy\.linalg|lax\.linalg|jax\.scipy\.linalg|jsp?\.linalg")
    for path in (ROOT / "pidjax").rglob("*.py"):
        if path.name != "small.py":
            assert not forbidden.search(path.read_text()), path


def test_every_room_is_an_attribute():
    for name in pidjax._ROOMS:
        assert getattr(pidjax, name).__name__ == f"pidjax.{name}"
    assert set(dir(pidjax)) == {*pidjax.__all__, *pidjax._ROOMS, "__version__"}
    assert not hasattr(pidjax, "no_such_room")


@pytest.mark.parametrize("traced", [False, True])
def test_values_read_in_a_line(traced):
    """Of concrete and of traced values, and of a protocol and a target with everything in them."""
    seen = []

    def show(scale):
        means = scale * jnp.array([[-1.0, 0.0], [1.0, 1.0]])
        mixture = pidjax.GaussianMixture.isotropic(means, 0.3)
        density = pidjax.Density(mixture.log_density, 2)
        start = pidjax.GaussianStart(jnp.zeros(2), jnp.eye(2))
        pool = pidjax.Pool.draw(jax.random.key(0), density, mixture, 5)
        seen.extend(
            map(
                repr,
                [
                    mixture, pidjax.Samples(means), density, pidjax.Surrogate(density, mixture), pool,
                    pidjax.LocalDraws(density, mixture, 3, pool), start, pidjax.harmonic(scale),
                    pidjax.piecewise(scale * jnp.ones((3, 2)), force=(jnp.zeros(3), jnp.zeros((3, 2))), start=start),
                    pidjax.sample(jax.random.key(0), mixture, num_samples=4, num_steps=2),
                ],
            )
        )  # fmt: skip
        return scale

    (jax.jit(show) if traced else show)(jnp.array(2.0))
    for text in seen[:-1]:
        assert "\n" not in text
        assert len(text) < 300
    assert len(seen[-1].splitlines()) < 8
    if not traced:
        assert seen[0] == "GaussianMixture(components=2, dim=2, mean=[0, 1], sd=[2.074, 1.14])"
        assert seen[-1].splitlines()[2].split() == ["ESS", "4.0", "of", "4", "(100.0%)"]


def test_import_changes_no_configuration_and_loads_no_extra():
    script = """
import sys, jax
before = dict(jax.config.values)
import pidjax, pidjax.interop, pidjax.metrics, pidjax.zoo, pidjax.learning, pidjax.guides, pidjax.discrete, pidjax.diagnostics
import pidjax.plot
assert {name: jax.config.values[name] for name in before} == before
for extra in ("matplotlib", "scipy.optimize", "ott", "blackjax", "numpyro", "tqdm", "sklearn"):
    assert extra not in sys.modules, extra
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


class Runner(doctest.DocTestRunner):
    """One that leaves it to pytest when an extra is missing."""

    def report_unexpected_exception(self, out, test, example, exc_info):
        if isinstance(exc_info[1], ImportError):
            raise exc_info[1]
        super().report_unexpected_exception(out, test, example, exc_info)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    module = importlib.import_module(name)
    names = {"jax": jax, "jnp": jnp, "np": np, "pid": pidjax, **vars(module)}
    finder, runner = doctest.DocTestFinder(exclude_empty=True), Runner(optionflags=doctest.NORMALIZE_WHITESPACE)
    output = io.StringIO()
    for example in finder.find(module, name, globs=names):
        with as_a_user():
            runner.run(example, out=output.write)
    assert not runner.failures, output.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_page_prints_what_it_says(path, monkeypatch, tmp_path):
    """The Python blocks of a page, one after the other: what they print is what is shown as printed."""
    text = path.read_text()
    monkeypatch.chdir(tmp_path)
    printed, names = io.StringIO(), {}
    with as_a_user(), contextlib.redirect_stdout(printed):
        for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
            exec(compile(code, path.name, "exec"), names)
    assert printed.getvalue() == "".join(re.findall(r"<!-- printed -->\n```\n(.*?)```", text, re.DOTALL))


def test_every_public_name_has_a_docstring():
    for name in pidjax.__all__:
        assert getattr(pidjax, name).__doc__, name


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, monkeypatch):
    """A notebook from the first to the last cell, with few paths."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PIDJAX_NOTEBOOK_PATHS", "200")
    notebook = nbformat.read(path, as_version=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
