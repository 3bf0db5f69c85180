"""Any V, f, A in any dimension, as a perturbation of a harmonic process whose steps are exact.

    G(x → x') ≈ G_h(x → x') e^{S − S_h},      S = ∫ b ∘ dx − ∫ ( V + ½∇·f + ½|f|² ) dt,    b = f − A

with S_h the same of the harmonic process; along the straight line of a step, the first integral by Simpson's rule, the second
by the trapezoidal one. Chained along the exact harmonic paths to p̃ = e^{−c} G_h(0, x₀ → T, ·), with their log W,

    log W + Σ_k (S − S_h),      E[W] = Z of the process in steps,

which differs from Z by O(step²) where b is the harmonic one or differs from it by a gradient, and by O(step) elsewhere. Between
steps paths may be resampled. Given both ends the same is the Green function by bridges,

    log G = log G_h + log E_bridge[ e^{Σ (S − S_h)} ].

The nearest harmonic process has, on each piece of time, the coefficients of least squares under a Gaussian,

    β = E ∇∇V,   V₁ = E ∇V − β E x,   V₀ = E[V − ½xᵀβx − V₁ᵀx],      f₁ = E ∇f,   f₀ = E f − f₁ E x,     A likewise

with the means over points of the running marginal.
"""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from .._doors.checks import as_floating, check_count, check_key, check_kind
from .._maths.estimates import living, weighted_sum
from .._maths.small import matvec
from ..process.bridge import StepLaws
from ..process.grids import uniform_grid
from ..process.protocol import GaussianStart, Protocol
from ..process.schedule import even_edges, piecewise
from ..process.unit import LogGreen
from ..sampling.problem import Prepared, Problem
from ..sampling.rollout import backward_states
from ..sampling.rules import AbstractDrawingRule, Ancestral
from ..sampling.solution import Solution
from ..targets.samples import Samples
from .process import Process
from .steered import Steered, weighted


class Perturbed(AbstractDrawingRule):
    """The exact steps of a harmonic process, weighed for another one.

    For `sample`, of `terminal_cost(cost, dim, protocol)` with the same protocol: log Z and weights are then those of the
    process, to that cost at the end.

    Args:
        process: V, f and A.
        protocol: the harmonic process, of noise_scale 1; its pieces end on the grid.

    Raises:
        ValueError: arguments of another kind; another noise; while sampling, fields that do not return what they should.

    Example:
        >>> protocol = pid.harmonic(1.0, noise_scale=1.0)
        >>> target = pid.GaussianMixture.isotropic(jnp.zeros((1, 2)), 0.5)
        >>> stiffer = Perturbed(Process(potential=lambda t, x: 0.5 * x @ x + 1.0), protocol)
        >>> solution = pid.sample(jax.random.key(0), target, protocol=protocol, rule=stiffer, num_samples=100)
        >>> print(f"{solution.log_z.value:.3f}")  # e^{−1} of what it was
        -1.000
    """

    process: Process
    harmonic: Process
    horizon: Float[Array, ""]

    weighs_target_alone: ClassVar[bool] = False

    def __init__(self, process: Process, protocol: Protocol):
        check_kind("process", process, Process, "general.Process(potential=..., force=..., gauge=...)")
        check_kind("protocol", protocol, Protocol, "harmonic(...), piecewise(...) or from_function(...)")
        self.process, self.harmonic, self.horizon = process, Process.of(protocol), protocol.horizon

    def check(self, t, x):
        self.process.check(t, x)

    def step(self, law, now: Any, start, x, key):
        after, _ = Ancestral().step(law, now, start, x, key)
        return after, self.log_ratio(law, now, start, x, after)

    def log_ratio(self, law, now: Any, start, x, after):
        return self.log_factor(now, x, after)

    def log_factor(self, now: StepLaws, x: Float[Array, " d"], after: Float[Array, " d"]) -> Float[Array, ""]:
        """S − S_h of a step, with its ends in the unit problem."""
        horizon = self.horizon.astype(x.dtype)
        scale, begin, step = jnp.sqrt(horizon), horizon * now.t, horizon * now.step
        ends, middle = (scale * x, scale * after), begin + 0.5 * step
        own = _log_factor(self.process, step, (begin, begin + step), ends)
        return own - _log_factor(self.harmonic, step, (middle, middle), ends)


def bridges(
    key: Key[Array, ""],
    process: Process,
    protocol: Protocol,
    end: ArrayLike,
    *,
    num_samples: int = 1024,
    num_steps: int = 50,
) -> Steered:
    """Weighted paths of a process from the protocol's start to one end point; their mean weight is its Green function.

    Paths to a law p̃: y ~ p̃, and the bridges to each, with the weights of one sum to one, are the optimal process. The Green
    function that each weight is divided by is then the mean over all N, its own path included, so its mean is one exactly.

    Args:
        key: a typed key.
        process: V, f and A.
        protocol: the harmonic process, of noise_scale 1, from a point x₀ over the horizon T.
        end: y, shape (d,).
        num_samples: N bridges.
        num_steps: of equal length.

    Raises:
        ValueError: arguments of another kind, shape or dimension; fields that do not return what they should.

    Example:
        >>> found = bridges(jax.random.key(0), Process(), pid.harmonic(0.0, noise_scale=1.0), jnp.zeros(1))
        >>> print(f"{found.log_z.value:.3f}")  # log N(0; 0, 1)
        -0.919
    """
    check_key("key", key)
    rule, end = Perturbed(process, protocol), as_floating("end", end)
    if end.ndim != 1 or end.size == 0:
        raise ValueError(f"end has shape {end.shape}; pass one point of shape (d,)")
    if isinstance(protocol.start, GaussianStart):
        raise ValueError("protocol has a GaussianStart; pass a start that is a point")
    process.check(jnp.zeros((), end.dtype), end)
    prepared = Problem(Samples(end[None]), protocol).prepare(uniform_grid(check_count("num_steps", num_steps)))
    return _bridges(key, rule, prepared, LogGreen.of(protocol, end), end, check_count("num_samples", num_samples))


@eqx.filter_jit
def _bridges(key, rule: Perturbed, prepared: Prepared, log_green: LogGreen, end, num_samples: int) -> Steered:
    unit, steps, indices = prepared.unit, prepared.step_laws, jnp.arange(num_samples)
    ends = jnp.broadcast_to(unit.to_unit(end), (num_samples, end.size))
    states = backward_states(prepared, key, indices, ends)

    def log_weight(states):
        return jnp.sum(jax.vmap(rule.log_factor)(steps, states[:-1], states[1:]))

    log_weights = log_green(unit.from_unit(unit.start), end) + jax.vmap(log_weight)(states)
    states = unit.from_unit(states)
    return weighted(states[:, -1], log_weights, jnp.append(steps.t, 1) * unit.horizon, states)


def nearest_harmonic(process: Process, paths: Solution | Steered, num_pieces: int = 1) -> Protocol:
    """The harmonic process nearest to another one, where its weighted paths are.

    Start from paths of any harmonic process under `Perturbed`, or from those that `steer` gives, and repeat.

    Args:
        process: V, f and A, with slopes, and V with curvature.
        paths: with `save_paths`; those in the middle of a piece stand for all of it.
        num_pieces: of equal length.

    Raises:
        ValueError: paths that were not kept; a potential so concave there that the process has a conjugate point.

    Example:
        >>> from pidjax.general import Cost, steer
        >>> well = Process(potential=lambda t, x: jnp.sum(x**4))
        >>> paths = steer(jax.random.key(0), well, None, Cost(jnp.sum), start=jnp.zeros(1), save_paths=True)
        >>> bool(nearest_harmonic(well, paths).beta[0, 0, 0] > 0)
        True
    """
    check_kind("process", process, Process, "general.Process(potential=..., force=..., gauge=...)")
    check_kind("paths", paths, Solution | Steered, "what sample, or general.steer, gives with save_paths=True")
    if paths.states is None:
        raise ValueError("paths have no states; pass save_paths=True where they are made")
    horizon, number = paths.times[-1], check_count("num_pieces", num_pieces)
    edges = even_edges(number, horizon)
    middles = (edges[:-1] + edges[1:]) / 2
    nearest = jnp.argmin(jnp.abs(paths.times[None] - middles[:, None]), axis=1)
    points = jnp.swapaxes(living(paths.states[:, nearest], paths.weights), 0, 1)
    beta, linear, constant, force, gauge = _coefficients(process, middles, points, paths.weights)
    start = paths.states[0, 0]
    return piecewise(
        beta, edges=edges, linear=linear, constant=constant, force=force, gauge=gauge, start=start, noise_scale=1.0
    )


@eqx.filter_jit
def _coefficients(process: Process, times, points, weights):
    """β, V₁, V₀, (f₁, f₀) and (A₁, A₀) on each piece."""

    def on_piece(piece):
        t, points = piece

        def mean(function):
            return weighted_sum(weights, jax.vmap(function)(points))

        centre = mean(lambda x: x)

        def affine(field):
            if field is None:
                return None
            slope = mean(lambda x: jax.jacfwd(field, argnums=1)(t, x))
            return slope, mean(lambda x: field(t, x)) - matvec(slope, centre)

        def potential(x):
            return process.at(t, x).potential

        beta = mean(jax.hessian(potential))
        linear = mean(jax.grad(potential)) - matvec(beta, centre)
        constant = mean(lambda x: potential(x) - 0.5 * x @ matvec(beta, x) - linear @ x)
        return beta, linear, constant, affine(process.force), affine(process.gauge)

    return jax.lax.map(on_piece, (times, points))


def _log_factor(process: Process, step, times, ends) -> Float[Array, ""]:
    """S of a step between two states."""
    (rate, drift), (rate_after, drift_after) = (_rate_and_drift(process, t, x) for t, x in zip(times, ends))
    between = process.drift(0.5 * (times[0] + times[1]), 0.5 * (ends[0] + ends[1]))
    along = (drift + 4 * between + drift_after) @ (ends[1] - ends[0]) / 6
    return along - 0.5 * step * (rate + rate_after)


def _rate_and_drift(process: Process, t, x) -> tuple[Float[Array, ""], Float[Array, " d"]]:
    """V + ½∇·f + ½|f|², and f − A."""
    at = process.at(t, x)
    if process.force is None:
        return at.potential, -at.gauge
    divergence = jnp.trace(jax.jacfwd(process.force, argnums=1)(t, x))
    return at.potential + 0.5 * divergence + 0.5 * at.force @ at.force, at.force - at.gauge
