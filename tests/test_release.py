"""The wheel outside of the tree, with nothing but what it requires: what the README shows, and what a missing extra says."""

import ast
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {path: path.read_text() for path in (ROOT / "pidjax").rglob("*.py")}
REQUIRED = {"jax", "equinox", "optax", "jaxtyping", "numpy", "scipy"}
LOADED = {module.split(".")[0] for text in SOURCES.values() for module in re.findall(r'\bload\(\s*f?"([^"]+)"', text)}

README = """
    import re, sys
    for code in re.findall(r"```python\\n(.*?)```", open(sys.argv[1]).read(), re.DOTALL):
        exec(compile(code, "README.md", "exec"))
"""
WITHOUT_EXTRAS = """
    import importlib, json, pkgutil, jax, jax.numpy as jnp, pidjax as pid
    for room in pkgutil.walk_packages(pid.__path__, "pidjax."):
        importlib.import_module(room.name)
    points = jnp.arange(6.0).reshape(3, 2)
    solution = pid.sample(jax.random.key(0), pid.GaussianMixture.isotropic(points, 1.0), num_samples=500, batch_size=50)
    asked = []
    for call in (
        lambda: solution.pareto_k,
        lambda: pid.plot.space_time(jnp.arange(3.0), points, points, points[:, 0]),
        lambda: pid.metrics.sinkhorn_divergence(points, points, 1.0),
        lambda: pid.schrodinger_bridge(pid.Samples(points), pid.Samples(points), pid.harmonic(noise_scale=1.0)),
        lambda: pid.interop.numpyro_density(lambda: None),
        lambda: pid.images.digits(),
        lambda: pid.images.photographs(32),
    ):
        try:
            call()
        except ImportError as error:
            asked.append(str(error))
    print(json.dumps(asked))
"""


def test_what_is_imported_is_required_or_asked_for():
    """tqdm alone is only looked for: without it there is no bar."""
    for path, text in SOURCES.items():
        for node in ast.walk(ast.parse(text)):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            roots = {name.split(".")[0] for name in names} - sys.stdlib_module_names
            assert roots <= REQUIRED | LOADED | {"tqdm"}, path


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What a script prints in an empty folder, by a Python with the wheel and what it requires.

    The wheel is that of the variable PIDJAX_WHEEL, as a release sets it; by default one is built.
    """
    folder = tmp_path_factory.mktemp("alone")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*command):
        result = subprocess.run(list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return result.stdout

    wheel = os.environ.get("PIDJAX_WHEEL")
    if wheel is None:
        run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", "wheel", ROOT)
        (wheel,) = (folder / "wheel").iterdir()
    run(sys.executable, "-m", "venv", "venv")
    python = folder / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", Path(wheel).absolute())
    return lambda script, *arguments: run(python, "-c", textwrap.dedent(script), *arguments)


@pytest.mark.extended
def test_the_readme_by_the_wheel_alone(alone):
    shown = re.findall(r"<!-- printed -->\n```\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert alone(README, ROOT / "README.md") == "".join(shown)


@pytest.mark.extended
def test_what_a_missing_extra_says(alone):
    """Every room is imported, and every call that needs an extra names the package and the extra that brings it."""
    asked = json.loads(alone(WITHOUT_EXTRAS))
    found = {re.search(r"needs (\S+); install it with pip install pidjax\[(\w+)\]$", words).groups() for words in asked}
    wanted = {pair for text in SOURCES.values() for pair in re.findall(r'package="([^"]+)", extra="([^"]+)"', text)}
    assert len(asked) == 7
    assert found == wanted
