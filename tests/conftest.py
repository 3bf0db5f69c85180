"""Strictness for every test: 64 bits, no silent promotion of ranks or dtypes, annotations checked at run time."""

import os
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

# The tests are many small programs, on cores that are all busy: half the time to compile each.
if "XLA_FLAGS" not in os.environ:
    flags = ["--xla_cpu_parallel_codegen_split_count=1", "--xla_cpu_prefer_vector_width=128"]
    if version("jaxlib").startswith(("0.9.", "0.10.")):
        flags.append("--xla_cpu_use_fusion_emitters=false")
    os.environ["XLA_FLAGS"] = " ".join(flags)

import jax
import jax.numpy as jnp
import jaxtyping
import pytest
from helpers import as_a_user
from jaxtyping import install_import_hook

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_traceback_in_locations_limit", 0)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_disable_most_optimizations", True)

# These are the doors: they must themselves say what is wrong with an argument, so their own annotations are not checked.
_DOORS = ("pidjax.sampling.sample", "pidjax.process.schedule")
_HOUSE = Path(__file__).parents[1] / "pidjax"
_MODULES = [".".join(path.relative_to(_HOUSE.parent).with_suffix("").parts) for path in _HOUSE.rglob("*.py")]
with install_import_hook([name for name in _MODULES if name not in _DOORS], "beartype.beartype"):
    import pidjax  # noqa: F401

_counted = time.monotonic()
_EXTRAS = ("PIL", "blackjax", "matplotlib", "numpyro", "ott", "sklearn", "tqdm")

collect_ignore = [] if find_spec("blackjax") else ["test_benchmarks.py", "test_hostile.py"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call():
    """Where only the core is installed, what needs an extra is skipped, and says which."""
    try:
        return (yield)
    except ImportError as error:
        cause = error.__cause__ if "pip install pidjax[" in str(error) else error
        if isinstance(cause, ModuleNotFoundError) and str(cause.name).split(".")[0] in _EXTRAS:
            pytest.skip(str(error))
        raise


@pytest.fixture(params=["float64", "float32"])
def dtype(request):
    """Both lanes: what is computed must be of the dtype that went in."""
    return jnp.dtype(request.param)


@pytest.fixture
def annotations_unchecked():
    """As a user has it: the doors must themselves say what is wrong with an argument."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def as_users_have_it(annotations_unchecked):
    """JAX's own defaults, and no annotation checked."""
    with as_a_user():
        yield


@pytest.fixture(autouse=True)
def quick_compilation(request):
    """Most tests run many small programs once: compile them in half the time, unoptimised, unless marked `optimised`.

    So are the programs of collection and of shared fixtures, which come before this.
    """
    jax.config.update("jax_disable_most_optimizations", request.node.get_closest_marker("optimised") is None)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(autouse=True)
def few_compiled_programs():
    """Dropped once they are many: they live in pieces of mapped memory, of which Linux lets a process have 65,530.

    Some hundred come each second; to count them takes tens of milliseconds, so not after every test.
    """
    global _counted
    yield
    maps = Path("/proc/self/maps")
    if time.monotonic() - _counted > 5 and maps.exists():
        if maps.read_bytes().count(b"\n") > 45_000:
            jax.clear_caches()
        _counted = time.monotonic()
