"""A run that was killed goes on from what is in its folder, and ends as one that was not; of another run it takes nothing."""

import importlib
import os
import signal
import subprocess
import sys
import textwrap
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pidjax as pid
from pidjax.sampling.checkpoint import Checkpoint

KEY = jax.random.key(3)
MIXTURE = pid.GaussianMixture.isotropic(jnp.array([[-1.0, 0.0], [1.0, 0.5]]), 0.3)
SAMPLE = importlib.import_module("pidjax.sampling.sample")


class Killed(Exception):
    pass


def killed_in_chunk(count, monkeypatch, run):
    """Run until chunk `count` begins; then nothing is done any more."""
    whole, calls = SAMPLE._run_chunk, iter(range(count))

    def until(*arguments):
        if next(calls, None) is None:
            raise Killed
        return whole(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(SAMPLE, "_run_chunk", until)
        with pytest.raises(Killed):
            run()


def assert_same(one, other):
    """Bit for bit."""
    jax.tree.map(np.testing.assert_array_equal, *(eqx.filter(solution, eqx.is_array_like) for solution in (one, other)))
    assert one.settings == other.settings


def test_a_killed_run_goes_on(tmp_path, monkeypatch):
    folder = tmp_path / "a" / "run"
    plan = {"num_samples": 64, "num_steps": 3, "batch_size": 16, "rule": pid.Moment(), "resampling": pid.Resampling(8)}

    def run(**options):
        return pid.sample(KEY, MIXTURE, save_paths=True, progress=False, **plan, **options)

    killed_in_chunk(2, monkeypatch, lambda: run(checkpoint=folder))
    assert sorted(path.name for path in folder.iterdir()) == ["chunk-0.npz", "chunk-1.npz", "run.npz"]
    (folder / "chunk-2.npz.unfinished").write_bytes(b"half")
    killed_in_chunk(1, monkeypatch, lambda: run(checkpoint=folder))
    resumed = run(checkpoint=folder)
    assert len(list(folder.glob("chunk-*.npz"))) == 4
    monkeypatch.setattr(SAMPLE, "_run_chunk", pytest.fail)
    again = run(checkpoint=folder)
    monkeypatch.undo()
    whole = run()
    assert_same(resumed, whole)
    assert_same(again, whole)


def test_a_folder_of_another_run(tmp_path):
    """What differs is named; a target's numbers, and what its function returns, are part of what it is."""
    plan = {"num_samples": 8, "num_steps": 3, "progress": False, "checkpoint": tmp_path / "run"}

    def run(key=KEY, target=MIXTURE, **options):
        return pid.sample(key, target, **plan | options)

    run()
    moved = eqx.tree_at(lambda mixture: mixture.means, MIXTURE, replace_fn=lambda means: means + 1e-9)
    for options, words in (
        ({"key": jax.random.key(4)}, "key"),
        ({"target": moved}, "target"),
        ({"protocol": pid.harmonic(2.0)}, "protocol"),
        ({"rule": pid.Moment()}, "rule"),
        ({"num_steps": 4}, "grid"),
        ({"num_samples": 9}, "num_samples"),
        ({"batch_size": 4}, "batch_size"),
        ({"save_paths": True}, "save_paths"),
        ({"rule": pid.Moment(), "resampling": pid.Resampling(8)}, "rule, resampling"),
        ({"key": jax.random.key(4), "num_samples": 9}, "key, num_samples"),
    ):
        with pytest.raises(ValueError, match=f"run is of a run with another {words}; pass what that run had"):
            run(**options)

    def of_width(width):
        def log_density(y):
            return -0.5 * jnp.sum(y**2) / width

        return Checkpoint(tmp_path / "bowl", pid.Density(log_density, 2))

    of_width(2.0)
    of_width(2.0)
    with pytest.raises(ValueError, match=r"another target .its log-density has other values"):
        of_width(2.01)


def test_what_is_no_checkpoint(tmp_path):
    def run(folder, target=MIXTURE):
        return pid.sample(KEY, target, num_samples=8, num_steps=3, progress=False, checkpoint=folder)

    run(tmp_path / "run")
    for name in ("chunk-0.npz", "run.npz"):
        file = tmp_path / "run" / name
        file.write_bytes(file.read_bytes()[:-1])
        with pytest.raises(ValueError, match=f"{name} is no file of pidjax's, or is damaged"):
            run(tmp_path / "run")
    with pytest.raises(ValueError, match=r"is the file .*; pass the name of a folder"):
        run(file)
    with pytest.raises(ValueError, match="checkpoint is a int; pass the name of a folder"):
        run(3)
    pid.save(tmp_path / "mixture.npz", MIXTURE)
    with pytest.raises(ValueError, match="holds other files; pass a new folder"):
        run(tmp_path)
    with pytest.raises(ValueError, match="a checkpoint takes numbers, which jit and vmap do not have"):
        jax.jit(lambda means: run(tmp_path / "traced", pid.GaussianMixture.isotropic(means, 0.3)).samples)(
            MIXTURE.means
        )


def ring(y):
    return -2 * (jnp.linalg.norm(y[:2]) - 2) ** 2 - 0.5 * jnp.sum(y[2:] ** 2)


def chained(y):
    """Neighbours are bound: no product of blocks is like it."""
    return -jnp.sum((y**2 - 1) ** 2) - 0.5 * jnp.sum((y - jnp.roll(y, 1)) ** 2)


@pytest.mark.extended
@pytest.mark.optimised
@pytest.mark.parametrize(("log_density", "dim"), [(ring, 2), (ring, 14), (chained, 16)])
def test_what_stands_in_is_found_once(log_density, dim, tmp_path, monkeypatch, as_users_have_it):
    """A fitted mixture, a product, and the end points of a climb."""

    def run(**options):
        density = pid.Density(log_density, dim)
        return pid.sample(KEY, density, num_samples=1000, batch_size=250, progress=False, **options)

    killed_in_chunk(2, monkeypatch, lambda: run(checkpoint=tmp_path))
    assert len(list(tmp_path.iterdir())) == 4
    monkeypatch.setattr(SAMPLE, "stand_in", pytest.fail)
    resumed = run(checkpoint=tmp_path)
    monkeypatch.undo()
    whole = run()
    assert_same(resumed, whole)
    assert repr(resumed) == repr(whole)
    assert resumed.log_z == whole.log_z


@pytest.mark.extended
def test_a_process_that_was_killed(tmp_path):
    """By SIGKILL, at whatever it was doing once half of the chunks were there; the next process ends as one never killed."""
    script = """
        import sys, jax, jax.numpy as jnp, numpy as np, pidjax as pid
        def ring(y):
            return -2 * (jnp.linalg.norm(y) - 2) ** 2
        folder, file = sys.argv[1:]
        options = {"num_samples": 200_000, "batch_size": 1000, "progress": False}
        solution = pid.sample(jax.random.key(3), pid.Density(ring, 2), checkpoint=folder or None, **options)
        np.savez(file, samples=solution.samples, log_weights=solution.log_weights, log_z=np.array(solution.log_z))
    """

    def start(folder, file):
        command = [sys.executable, "-c", textwrap.dedent(script), folder, file]
        return subprocess.Popen(command, env=os.environ | {"JAX_PLATFORMS": "cpu"})

    folder = tmp_path / "run"
    first = start(folder, tmp_path / "first.npz")
    while len(list(folder.glob("chunk-*.npz"))) < 100:
        assert first.poll() is None
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    assert 100 <= len(list(folder.glob("chunk-*.npz"))) < 200
    for where, name in ((folder, "resumed.npz"), ("", "whole.npz")):
        assert start(where, tmp_path / name).wait() == 0
    with np.load(tmp_path / "resumed.npz") as resumed, np.load(tmp_path / "whole.npz") as whole:
        for name in whole:
            np.testing.assert_array_equal(resumed[name], whole[name])
