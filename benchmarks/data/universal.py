"""Universal harmonic importance sampling on the nine Gaussians, from their density alone: against β, steps and draws.

At each state and time the end points are drawn from the observation's own law, N(K⁻¹r, K⁻¹), and weighted by the density: the
tilted flat law, which is here cut off by a broad Gaussian, since it has no width at t = 0. Euler steps of equal length, β in
the problem that is rescaled by the target's spread. Ends are judged unweighted, as published.
"""

from typing import Any

import jax
import jax.numpy as jnp

import pidjax as pid
from pidjax import metrics, zoo

BROAD = 100.0
"""Variance of the Gaussian: twice as wide as the means are apart."""
NUM_PATHS = 1000
SWEEPS = (*((steps, 256) for steps in (10, 30, 100, 300)), *((100, draws) for draws in (16, 64, 1024)))
"""Steps and draws: over steps at 256 draws, and over draws at 100 steps."""


def swept(beta: float, num_steps: int, num_draws: int) -> list[dict[str, Any]]:
    """W2 of the ends, the share of them within three deviations of a mean, and the effective share of the paths: three keys."""
    known = zoo.nine()
    density = pid.Density(known.log_density, known.dim)
    broad = pid.GaussianMixture.isotropic(jnp.zeros((1, known.dim)), BROAD)
    target = pid.LocalDraws(density, broad, num_draws)
    scale = float(known.target.place().spread)
    floor = metrics.floor(metrics.wasserstein2, known.sample, jax.random.key(0), n=NUM_PATHS)
    found: dict[str, list[float]] = {"distance": [], "inside": [], "ess": []}
    for seed in range(3):
        key, key_exact = jax.random.split(jax.random.fold_in(jax.random.key(10), seed))
        solution = pid.sample(
            key,
            target,
            protocol=pid.harmonic(beta / scale**2, noise_scale=scale),
            num_samples=NUM_PATHS,
            rule=pid.Euler(),
            grid=pid.uniform_grid(num_steps),
            progress=False,
        )
        ends = solution.samples
        found["distance"].append(float(metrics.wasserstein2(ends, known.sample(key_exact, NUM_PATHS))))
        inside = metrics.fraction_within(ends, known.centres, known.standard_deviations)
        found["inside"].append(float(inside.value))
        found["ess"].append(float(solution.ess) / NUM_PATHS)
    print(f"universal · {beta:g} · {num_steps} · {num_draws}: {found}", flush=True)
    return [found | {"floor": [float(floor.mean), float(floor.standard_deviation)]}]
