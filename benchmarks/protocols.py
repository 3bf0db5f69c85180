"""The suite `protocols`: what a general linear-Gaussian reference costs, against dimension, pieces and paths.

    prepare     kernels of all steps, composed, and the laws made of them
    forward     prepare and a rollout of all paths with `Euler`
    gradient    of the mean log-weight in every coefficient of the protocol, as a ratio to forward

and 300 steps of learning a corridor. The target is a mixture of four Gaussians; β, f₁ and A₁ are dense matrices.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import pidjax as pid
from pidjax.learning import descend

from . import corridor, measure
from .ledger import Ledger

DIMENSIONS, PIECES, PATHS = (2, 8, 32, 64), (1, 8, 64), (100, 1000)
GRADIENT_LIMIT = 4.0


def dense_protocol(dim: int, pieces: int) -> pid.Protocol:
    """Random matrices: β positive of norm about 4, f₁ and A₁ neither symmetric nor commuting, of norm about 1."""
    keys = jax.random.split(jax.random.key(dim + 1000 * pieces), 3)
    root, force, gauge = (jax.random.normal(key, (pieces, dim, dim)) / jnp.sqrt(dim) for key in keys)
    shift = jnp.zeros((pieces, dim))
    beta = root @ jnp.swapaxes(root, -1, -2)
    return pid.piecewise(beta, force=(force / 2, shift), gauge=(gauge / 4, shift + 0.1), noise_scale=1.0)


def target_of(dim: int) -> pid.GaussianMixture:
    means = jax.random.normal(jax.random.key(dim), (4, dim))
    return pid.GaussianMixture.isotropic(means, 0.3)


def run_protocols(ledger: Ledger, *, quick: bool) -> None:
    """All rows, printed as they come."""
    rounds = 3 if quick else 5
    dimensions, pieces, paths = (DIMENSIONS[:2], PIECES[:2], PATHS[:1]) if quick else (DIMENSIONS, PIECES, PATHS)
    cases = [(dim, 1, paths[-1]) for dim in dimensions]
    cases += [(dimensions[1], count, paths[-1]) for count in pieces[1:]]
    cases += [(dimensions[1], 1, count) for count in paths[:-1]]
    cases += [] if quick else [(64, 64, 1000)]
    for dim, count, number in cases:
        ledger.run("rows", lambda **sizes: shown(case(**sizes, rounds=rounds)), dim=dim, pieces=count, paths=number)
    ledger.run("rows", lambda learning: shown(learn(learning)), learning=300)


def shown(row: dict[str, Any]) -> list[dict[str, Any]]:
    words = (f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items())
    print("  ".join(words), flush=True)
    return [row]


def case(dim: int, pieces: int, paths: int, rounds: int, steps: int = 100) -> dict[str, Any]:
    """Seconds to compile and to run each of the three, and the gradient's ratio."""
    jax.clear_caches()
    protocol, target, grid, rule = dense_protocol(dim, pieces), target_of(dim), pid.uniform_grid(steps), pid.Euler()

    def prepared(protocol):
        return pid.Problem(target, protocol).prepare(grid)

    def forward(protocol):
        return jnp.mean(pid.rollout(prepared(protocol), rule, jax.random.key(0), jnp.arange(paths)).log_weights)

    functions: dict[str, Callable] = {"prepare": prepared, "forward": forward, "gradient": jax.grad(forward)}
    programs, row = {}, {"dim": dim, "pieces": pieces, "paths": paths, "steps": steps}
    for name, function in functions.items():
        begin = time.perf_counter()
        programs[name] = measure.Program(function, protocol)
        row[f"{name} compile s"] = time.perf_counter() - begin
    seconds = measure.interleaved({name: program.run for name, program in programs.items()}, rounds)
    row |= {f"{name} s": value for name, value in seconds.items()}
    ratio = seconds["gradient"] / seconds["forward"]
    verdict = f" (limit {GRADIENT_LIMIT:g}{', EXCEEDED' if ratio > GRADIENT_LIMIT else ''})"
    megabytes = (programs["gradient"].peak_bytes or 0) / 2**20
    return row | {"gradient / forward": f"{ratio:.2f}{verdict}", "gradient temporaries MiB": round(megabytes, 1)}


def learn(iterations: int) -> dict[str, Any]:
    """The corridor's shift and normal stiffness on ten pieces, by Adam: the first run, with compilation, and the second."""
    seconds = []
    for _ in range(2):
        begin = time.perf_counter()
        learned = descend(
            corridor.regularised_loss, corridor.published_start(), num_iterations=iterations, progress=False
        )
        jax.block_until_ready(learned.parameters)
        seconds.append(time.perf_counter() - begin)
    loss = float(corridor.loss(corridor.published(learned.parameters)))
    return {"learning": iterations, "first s": seconds[0], "again s": seconds[1], "corridor loss": loss}
