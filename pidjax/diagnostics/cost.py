"""What the paths cost on the way, part by part, from the start to each time of the grid:

    kinetic     E ∫ |u|²/2σ² dt
    potential   E ∫ V dt,    V = ½ (x−ν)ᵀβ(x−ν) + V₁ᵀx + V₀
    gauge       E ∫ Aᵀ∘dx    (Stratonovich: the mean of A at both ends of a step)
    guide       E ∫ |x−ν|² dt, no part of the others: how far the paths keep from the centre line

Their total (kinetic + potential + gauge) at the end is what the process minimises. Exact values without simulation:
`pidjax.exact.costs`.
Integrals are trapezoidal on the paths' grid, with each step's coefficients those at its middle: put the ends of the
pieces on the grid.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from .._maths.maps import apply
from ..metrics import Estimate
from ..process.protocol import Protocol
from .average import average, integrate
from .ensemble import Ensemble, check_process


class PathCosts(NamedTuple):
    """What `path_costs` returns: each from the start to t_k, of shape (K+1,)."""

    total: Estimate
    kinetic: Estimate
    potential: Estimate
    gauge: Estimate
    guide: Estimate


def path_costs(paths: Ensemble, protocol: Protocol) -> PathCosts:
    """The parts of the cost along the paths, accumulated, each with its standard error.

    Args:
        paths: from `ensemble`.
        protocol: the one that the paths were sampled with.

    Raises:
        ValueError: a protocol of another dimension than the paths, or (concrete values only) another one than they were
            sampled with.

    Example:
        >>> import jax, pidjax as pid
        >>> from pidjax.diagnostics import ensemble
        >>> target, protocol = pid.GaussianMixture(jnp.ones((1, 1)), jnp.ones((1, 1, 1))), pid.harmonic(0.0, noise_scale=1.0)
        >>> solution = pid.sample(jax.random.key(0), target, protocol=protocol, num_samples=99, save_paths=True)
        >>> path_costs(ensemble(solution), protocol).kinetic.value[-1].round(3).item()
        0.5

    Source: Behjoo & Chertkov, arXiv 2409.15166; Chertkov & Behjoo, *AdaPID*, arXiv 2512.11858.
    """
    check_process(paths, protocol)
    return _path_costs(paths, protocol)


@eqx.filter_jit
def _path_costs(paths: Ensemble, protocol: Protocol) -> PathCosts:
    times, middles = paths.times, (paths.times[1:] + paths.times[:-1]) / 2
    piece = jnp.searchsorted(protocol.edges[1:-1].astype(times.dtype), middles, side="right")

    def on_steps(leaf):
        return leaf[piece].astype(paths.states.dtype)

    beta = on_steps(protocol.beta)
    if protocol.noise_scale is None:
        beta = beta / (paths.unit.horizon * paths.unit.scale**2)
    centre = jnp.broadcast_to(paths.unit.shift, (piece.size, paths.dim))
    centre = centre if protocol.centre is None else on_steps(protocol.centre)
    linear = jnp.zeros_like(centre) if protocol.linear is None else on_steps(protocol.linear)
    constant = jnp.zeros_like(middles) if protocol.constant is None else on_steps(protocol.constant)

    def potential(beta, centre, linear, constant, x):
        return 0.5 * jnp.sum((x - centre) * apply(beta, x - centre)) + jnp.sum(linear * x) + constant

    def accumulated(function, x, *coefficients):
        """The running sum of step · mean of the values at both ends."""
        ends = (jax.vmap(function)(*coefficients, points) for points in (x[:-1], x[1:]))
        return jnp.pad(jnp.cumsum(0.5 * sum(ends) * jnp.diff(times)), (1, 0))

    def along(x, u):
        kinetic = integrate(0.5 * jnp.sum(u**2, axis=-1) / paths.noise_scale**2, times)
        stored = accumulated(potential, x, beta, centre, linear, constant)
        gauge = jnp.zeros_like(kinetic)
        if protocol.gauge is not None:
            matrix, vector = jax.tree.map(on_steps, protocol.gauge)
            middle = jax.vmap(apply)(matrix, (x[1:] + x[:-1]) / 2) + vector
            gauge = jnp.pad(jnp.cumsum(jnp.sum(middle * jnp.diff(x, axis=0), axis=-1)), (1, 0))
        guide = accumulated(lambda centre, x: jnp.sum((x - centre) ** 2), x, centre)
        return kinetic + stored + gauge, kinetic, stored, gauge, guide

    parts = jax.vmap(along)(paths.states, paths.controls)
    return PathCosts(*(average(part, paths) for part in parts))
