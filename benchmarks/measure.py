"""What a run costs: seconds to compile and to run, bytes of temporaries, and the versions it was seen with."""

import contextlib
import hashlib
import os
import platform
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax

import pidjax


class Cost(NamedTuple):
    """Seconds spent tracing, lowering and compiling; seconds of everything else; peak bytes of temporaries."""

    compile_seconds: float
    run_seconds: float
    peak_bytes: int | None


@contextlib.contextmanager
def compilation() -> Iterator[list[float]]:
    """A list to which every trace, lowering and compilation within the block appends its seconds."""
    seconds: list[float] = []

    def listen(event: str, duration: float, **_: Any) -> None:
        if event.startswith("/jax/core/compile/"):
            seconds.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seconds
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


class Program:
    """A function as one compiled program, the compiler's own count of its temporaries with it.

    The first call of `measured` is charged with the compilation, which is done when the program is made.
    """

    def __init__(self, function: Callable, *example: Any):
        begin = time.perf_counter()
        self._example = example
        self._program = jax.jit(function).lower(*example).compile()
        self._uncharged_seconds = time.perf_counter() - begin
        self.peak_bytes = temporaries(self._program)

    def run(self) -> Any:
        """The value at the example."""
        return self._program(*self._example)

    def measured(self, *arguments: Any) -> tuple[Any, Cost]:
        """The value at the arguments, and what it cost."""
        begin = time.perf_counter()
        value = jax.block_until_ready(self._program(*arguments))
        cost = Cost(self._uncharged_seconds, time.perf_counter() - begin, self.peak_bytes)
        self._uncharged_seconds = 0.0
        return value, cost


def driven(call: Callable[[], Any]) -> tuple[Any, Cost]:
    """`call()`, a driver that compiles programs of its own: its value and its cost, temporaries unknown."""
    with compilation() as seconds:
        begin = time.perf_counter()
        value = jax.block_until_ready(call())
        wall = time.perf_counter() - begin
    return value, Cost(sum(seconds), wall - sum(seconds), None)


def temporaries(program: Any) -> int | None:
    """Bytes of temporaries of a compiled program, None where the backend does not report them."""
    analysis = program.memory_analysis()
    return None if analysis is None else int(analysis.temp_size_in_bytes)


def interleaved(programs: dict[str, Callable[[], Any]], rounds: int = 7) -> dict[str, float]:
    """Least seconds of each program over `rounds` rounds, the programs taking turns so that a slow spell hits all."""
    for program in programs.values():
        jax.block_until_ready(program())
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            begin = time.perf_counter()
            jax.block_until_ready(program())
            seconds[name].append(time.perf_counter() - begin)
    return {name: min(values) for name, values in seconds.items()}


def environment() -> dict[str, str]:
    """Versions, a digest of the source of `pidjax` and the benchmarks, and device, as the results file records them."""
    names = ("pidjax", "jax", "jaxlib", "equinox", "optax", "blackjax", "numpy", "scikit-learn")
    versions = {}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    device = jax.devices()[0]
    return {
        **versions,
        "source": _digest(Path(pidjax.__file__).parent, Path(__file__).parent),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device": f"{device.platform}: {device.device_kind}",
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "x64": str(jax.config.jax_enable_x64),
    }


def _digest(*folders: Path) -> str:
    files = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]
