"""Paths of any V, f, A under any control, in any dimension, each with its exact weight.

    x_{k+1} = x_k + ( f + u )(t_k, x_k) h + √h ξ_k,
    log W = Σ_k log N(x_{k+1}; x_k + f h, h) − log N(x_{k+1}; x_k + (f + u) h, h)  −  h V̄_k − Ā_kᵀ(x_{k+1} − x_k)   − c(x_K)

with V̄ and Ā the means of both ends of a step: −log W is the path's cost, and what its control did to its likelihood. Whatever
the control, E[W] = Z of the process in steps of h, which differs from Z by O(h). Under u* the variance of log W is O(h).

From x at t the same paths give the value there, and the slope of each path's weight the optimal control,

    ψ(t, x) = E[W],      u*(t, x) = E[W ∇ₓ log W]/E[W] − A,

with no error of sampling but O(√h) if the paths already follow u*.

Source: Kappen & Ruiz, *Adaptive importance sampling for control and inference*, arXiv 1505.01874; for the slope Domingo-Enrich
et al., *Stochastic optimal control matching*, arXiv 2312.02027.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from .._doors.checks import as_floating, as_positive, as_scalar, check_count, check_key, check_kind, concrete
from .._doors.functions import check_scalar
from .._doors.show import sheet
from .._maths.estimates import Estimate, log_evidence, weighted_mean
from .._maths.outcomes import Outcome
from .._maths.weighted import SharedSample, Weighted
from ..sampling.rollout import keys_of_paths
from ..sampling.rules import check_field
from .cost import Cost
from .process import Process

Control = Callable[[Float[Array, ""], Float[Array, " d"]], Float[Array, " d"]]
"""u(t, x)."""


class Steered(Weighted):
    """Weighted paths of a process; under their weights they are those of the optimal one.

    Attributes:
        samples: end points x_K, shape (N, d).
        log_weights: log W, shape (N,); −inf of a path that is not finite.
        states: x_k, shape (N, K+1, d), if they were kept.
        times: t_k, shape (K+1,).
        num_nonfinite: paths with a NaN or infinite state or weight.
        num_energy_evaluations: of V, f and A.
    """

    samples: Float[Array, "N d"]
    log_weights: Float[Array, " N"]
    states: Float[Array, "N times d"] | None
    times: Float[Array, " times"]
    num_nonfinite: Array
    num_islands: int = eqx.field(static=True)
    num_energy_evaluations: int = eqx.field(static=True)
    shared: SharedSample | None = None

    def __repr__(self):
        number, dim = self.log_weights.shape[-1], self.samples.shape[-1]
        return sheet(
            f"Steered: {number} paths in dimension {dim}, {self.times.shape[-1] - 1} steps", **self._evidence()
        )

    def _problems(self):
        if not self.num_nonfinite > 0:
            return []
        text = (
            f"{int(self.num_nonfinite)} of {self.num_samples} paths were not finite: a field or the control returned NaN or −∞ "
            "there, or a step blew up. Take more steps"
        )
        return [(Outcome.NOT_FINITE, text)]

    def _advice(self):
        lost = "every weight is zero: no path ended where the cost is finite. Steer them there"
        return lost, "a few paths carry the weight. Take a better control, as that of a harmonic problem or of the grid"

    def _facts(self):
        kept = {} if self.states is None else {"states": np.asarray(self.states)}
        return {"times": np.asarray(self.times), "num_nonfinite": int(self.num_nonfinite), **kept}


def weighted(
    ends: Float[Array, "N d"],
    log_weights: Float[Array, " N"],
    times: Float[Array, " times"],
    states: Float[Array, "N times d"] | None,
) -> Steered:
    """Independent paths, those that are not finite without weight."""
    number, finite = len(ends), jnp.isfinite(ends).all(axis=-1) & (log_weights < jnp.inf)
    return Steered(
        samples=ends,
        log_weights=jnp.where(finite, log_weights, -jnp.inf),
        states=states,
        times=times,
        num_nonfinite=jnp.sum(~finite),
        num_islands=number,
        num_energy_evaluations=number * times.size,
    )


class Value(NamedTuple):
    """log ψ and u* at a point, with their standard errors."""

    log_psi: Estimate
    control: Estimate


def steer(
    key: Key[Array, ""],
    process: Process,
    control: Control | None,
    cost: Cost,
    *,
    start: ArrayLike,
    num_samples: int = 4096,
    num_steps: int = 200,
    horizon: ArrayLike = 1.0,
    since: ArrayLike = 0.0,
    save_paths: bool = False,
) -> Steered:
    """Paths of a process under a control, by Euler steps, weighted for its optimal process to a cost at the end.

    Pure: under jit, vmap and grad, in process, control, cost and start. Path i draws from fold_in(key, i).

    Args:
        key: a typed key.
        process: V, f and A.
        control: u(t, x), as `Solved.control`, `lambda t, x: problem.at(t, x).control` of a harmonic problem, or a network of
            your own; None lets the paths go.
        cost: at the end. A law p̃ has the cost log G(0, x₀ → T, y) − log p̃(y), which the grid knows: `Solved.cost`.
        start: x, where paths begin, shape (d,).
        num_samples: N.
        num_steps: K, of equal length.
        horizon: T.
        since: the time at which paths begin, from 0 to T.
        save_paths: keep x_k.

    Raises:
        ValueError: arguments of another kind, shape or dimension; fields that do not return what they should.

    Example:
        >>> well, cost = Process(potential=lambda t, x: 0.5 * x @ x), Cost(lambda y: jnp.sum((y - 1) ** 2))
        >>> steered = steer(jax.random.key(0), well, lambda t, x: 1 - x, cost, start=jnp.zeros(3), num_steps=20)
        >>> steered.samples.shape, bool(steered.check().ess > 1000)
        ((4096, 3), True)
    """
    check_key("key", key)
    run = _checked(process, control, cost, start, horizon, since)
    num_samples, num_steps = check_count("num_samples", num_samples), check_count("num_steps", num_steps)
    return _steered(key, *run, num_samples, num_steps, save_paths)


def path_integral(
    key: Key[Array, ""],
    process: Process,
    control: Control | None,
    cost: Cost,
    t: ArrayLike,
    x: ArrayLike,
    *,
    num_samples: int = 4096,
    num_steps: int = 200,
    horizon: ArrayLike = 1.0,
) -> Value:
    """log ψ and u* at a point, by paths from there: a feedback control that needs neither grid nor training.

    V, f, A, control and cost must have slopes: a jump in them is not seen. Where paths part, as on the top of a barrier, the
    slopes of their weights have heavy tails: look at the standard error, and take many.

    Args:
        key, process, control, cost, num_samples, num_steps, horizon: as of `steer`; the steps are from t to T.
        t: time in [0, T).
        x: state, shape (d,).

    Raises:
        ValueError: as `steer`; log ψ is not finite, and not traced.

    Example:
        >>> cost = Cost(lambda y: 0.5 * jnp.sum((y - 2) ** 2))
        >>> print(f"{path_integral(jax.random.key(0), Process(), None, cost, 0.0, jnp.zeros(1)).control.value[0]:.1f}")
        1.0
    """
    check_key("key", key)
    run = _checked(process, control, cost, x, horizon, t, names=("x", "t"))
    num_samples, num_steps = check_count("num_samples", num_samples), check_count("num_steps", num_steps)
    found = _value(key, *run, num_samples, num_steps)
    known = concrete(found.log_psi.value)
    if known is not None and not np.isfinite(known):
        raise ValueError(
            f"log ψ is {known:g}: a field, the control or the cost is NaN or −∞ on a path, or no path ends where the cost is "
            "finite"
        )
    return found


def _checked(process, control, cost, start, horizon, since, names=("start", "since")):
    check_kind("process", process, Process, "general.Process(potential=..., force=..., gauge=...)")
    check_kind("cost", cost, Cost, "general.Cost(function); of a law, the cost that Solved.cost gives")
    start = as_floating(names[0], start)
    if start.ndim != 1 or start.size == 0:
        raise ValueError(f"{names[0]} has shape {start.shape}; pass one point of shape (d,)")
    horizon, since = (one.astype(start.dtype) for one in (as_positive("horizon", horizon), as_scalar(names[1], since)))
    begin, end = concrete(since), concrete(horizon)
    if begin is not None and end is not None and not 0 <= begin < end:
        raise ValueError(f"paths begin at {begin:g}; pass a time from 0 to below the horizon, {end:g}")
    process.check(since, start)
    if control is not None:
        check_field("control", control, since, start)
    check_scalar("cost", cost.function, start)
    return process, control, cost, start, horizon, since


@eqx.filter_jit
def _steered(key, process, control, cost, start, horizon, since, num_samples: int, num_steps: int, save_paths: bool):
    step = (horizon - since) / num_steps
    run = partial(_path, process, control, cost, start, since, step, num_steps, save_paths)
    ends, log_weights, states = jax.vmap(run)(keys_of_paths(key, jnp.arange(num_samples)))
    times = since + step * jnp.arange(num_steps + 1).astype(step.dtype)
    return weighted(ends, log_weights, times, states)


@eqx.filter_jit
def _value(key, process, control, cost, x, horizon, t, num_samples: int, num_steps: int) -> Value:
    step = (horizon - t) / num_steps

    def log_weight(x, key):
        return _path(process, control, cost, x, t, step, num_steps, False, key)[1]

    log_weights, slopes = jax.vmap(jax.value_and_grad(log_weight), (None, 0))(
        x, keys_of_paths(key, jnp.arange(num_samples))
    )
    slope = weighted_mean(slopes, jax.nn.softmax(log_weights))
    return Value(log_evidence(log_weights), Estimate(slope.value - process.at(t, x).gauge, slope.standard_error))


def _path(process: Process, control, cost: Cost, start, since, step, num_steps: int, save_states: bool, key):
    """x_K, log W, and x_k if they are kept."""

    @jax.checkpoint
    def advance(carry, k):
        x, log_weight, now = carry
        number = k.astype(step.dtype)
        noise = jnp.sqrt(step) * jax.random.normal(jax.random.fold_in(key, k), x.shape, x.dtype)
        u = jnp.zeros_like(x) if control is None else control(since + number * step, x)
        move = (now.force + u) * step + noise
        after = x + move
        later = process.at(since + (number + 1) * step, after)
        log_weight = log_weight - u @ noise - 0.5 * step * u @ u
        log_weight = (
            log_weight - 0.5 * step * (now.potential + later.potential) - 0.5 * (now.gauge + later.gauge) @ move
        )
        return (after, log_weight, later), after if save_states else None

    carry = start, jnp.zeros((), start.dtype), process.at(since, start)
    (end, log_weight, _), after = jax.lax.scan(advance, carry, jnp.arange(num_steps))
    states = None if after is None else jnp.concatenate([start[None], after])
    return end, log_weight - cost.function(end), states
