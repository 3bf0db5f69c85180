"""The transitions of generation: what the state has told of the end point, at each time and signal-to-noise ratio K.

With q(·|x) the tilted law, of which datum i and of which class c (a label, a component) the path ends in,

    entropies        E H(i|x),   E H(c|x)                 in nats; E e^{H(i|x)} is the effective number of data
    agreement        E Σ_i q_i²,   E Σ_c q_c²             that two paths from x end in the same datum, in the same class
    autocorrelation  E[ (x − μ)·(y − μ) ] / E|y − μ|²,   E[ (x̂ − μ)·(y − μ) ] / E|y − μ|²,     μ the target's mean
    error            E|y − x̂|²,                           of which dI(y; x)/dK is the half

Datum and class are decided where their agreement is half way from its value at the start, Σ_i w_i² or Σ_c π_c², to one: the
memorisation and the speciation. Theory of both is in `pidjax.exact`, which also turns K into the time of a protocol.

Nothing is kept but these numbers: paths are drawn and looked at in batches, a time after the other, and the data in chunks.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from .._doors.checks import as_points, check_key
from .._doors.show import shown
from .._maths.weighted import Weighted
from ..exact import transition_time
from ..metrics import Estimate
from ..process.bridge import Observation, StepLaws, observe
from ..process.grids import AbstractGrid
from ..process.protocol import Protocol
from ..process.snr import log_snr_of
from ..sampling.problem import Prepared, Problem
from ..sampling.rollout import default_batch
from ..sampling.solution import Solution
from ..targets.base import AbstractTarget
from ..targets.mixture import GaussianMixture, TiltedMixture
from ..targets.samples import Samples
from ..targets.streamed import TiltedSamples
from .average import average
from .ensemble import saved_paths


class Transitions(NamedTuple):
    """What `transitions` and `path_transitions` return; each estimate of shape (K−1,), but for the last two.

    Attributes:
        times, snr: of the inner times of the grid; K in the user's units.
        datum_entropy, effective_data, datum_agreement: of a data set; None of a mixture.
        class_entropy, class_agreement: of a mixture, or of labelled data; else None.
        state, weighted_state: the autocorrelations of x and x̂ with the end.
        error: E|y − x̂|².
        memorisation, speciation: the K at which datum, and class, are decided; NaN where the grid does not reach it.
    """

    times: Float[Array, " times"]
    snr: Float[Array, " times"]
    datum_entropy: Estimate | None
    effective_data: Estimate | None
    datum_agreement: Estimate | None
    class_entropy: Estimate | None
    class_agreement: Estimate | None
    state: Estimate
    weighted_state: Estimate
    error: Estimate
    memorisation: Estimate | None
    speciation: Estimate | None

    def __repr__(self):
        found = {"memorisation": self.memorisation, "speciation": self.speciation}
        found = {name: one.value for name, one in found.items() if one is not None}
        return shown("Transitions", times=self.times, snr=self.snr, **found)


class Said(NamedTuple):
    """What one tilted law says of datum or class: entropy, and the probability that two draws are of one."""

    entropy: Float[Array, "..."]
    agreement: Float[Array, "..."]


class Seen(NamedTuple):
    """What is seen at one state of a path of known end, of shape (N, K−1) for all."""

    datum: Said | None
    label: Said | None
    state: Float[Array, "..."]
    weighted_state: Float[Array, "..."]
    error: Float[Array, "..."]


def transitions(
    key: Key[Array, ""],
    target: AbstractTarget,
    points: Float[Array, "N d"],
    *,
    protocol: Protocol | None = None,
    grid: AbstractGrid | None = None,
) -> Transitions:
    """The transitions of the process itself: of paths drawn backward from its end points.

    Args:
        target: `Samples`, with labels for the classes, or a `GaussianMixture`.
        points: y, shape (N, d): samples of the target, one path each.
        protocol: β = 1 in the rescaled problem by default, as in `sample`.
        grid: of two steps at least; by default `log_snr_grid(20)`.

    Raises:
        ValueError: another kind of target; points of another shape; a grid without inner times.

    Example:
        >>> two = pid.GaussianMixture.isotropic(jnp.array([[-1.0], [1.0]]), 0.01)
        >>> grid = pid.log_snr_grid(10, low=0.01, high=100.0)
        >>> found = transitions(jax.random.key(0), two, two.sample(jax.random.key(1), 500), grid=grid)
        >>> bool(abs(found.speciation.value - 0.9) < 4 * found.speciation.standard_error)
        True

    Source: Biroli, Bonnaire, de Bortoli & Mézard, *Dynamical regimes of diffusion models*, Nature Communications 15 (2024).
    """
    check_key("key", key)
    _check_target(target)
    problem = Problem(target, protocol)
    points = as_points("points", points, target.dim)
    prepared = problem.prepare(problem.plan(grid=grid).grid)
    _check_steps(prepared)
    at_once = default_batch(target.numbers_per_tilt, len(points))
    points = points.astype(prepared.unit.start.dtype)
    seen = _back_from(prepared, key, points, _centre(target), at_once)
    return _of(seen, points, prepared, target, jnp.zeros(len(points), points.dtype))


def path_transitions(solution: Solution) -> Transitions:
    """The transitions of the paths that a solution took, by whatever rule, under their weights.

    Correlations and error are those with the path's own end, which a path of `Flow` determines: they are above the process's.

    Raises:
        ValueError: the solution has no paths; a target that is neither `Samples` nor a `GaussianMixture`; a grid without inner
            times.

    Example:
        >>> data = pid.Samples(jnp.array([[-1.0], [0.0], [5.0]]))
        >>> found = path_transitions(pid.sample(jax.random.key(0), data, num_samples=50, save_paths=True))
        >>> found.datum_agreement.value.shape
        (19,)
    """
    states, _ = saved_paths(solution)
    _check_target(solution.target)
    _check_steps(solution.prepared)
    at_once = default_batch(solution.target.numbers_per_tilt, len(states))
    seen = _along(solution.prepared, states, _centre(solution.target), at_once)
    return _of(seen, states[:, -1], solution.prepared, solution.target, solution)


def _check_target(target) -> None:
    if not isinstance(target, Samples | GaussianMixture):
        raise ValueError(
            f"target is a {type(target).__name__}; transitions are those of Samples or of a GaussianMixture"
        )


def _check_steps(prepared: Prepared) -> None:
    if prepared.step_laws.num_steps < 2:
        raise ValueError("grid has one step, and no time between start and end; pass two steps at least")


@eqx.filter_jit
def _centre(target) -> Float[Array, " d"]:
    return target.place().mean


def _inner(prepared: Prepared) -> StepLaws:
    """The laws at the inner times."""
    return jax.tree.map(lambda leaf: leaf[1:], prepared.step_laws)


@eqx.filter_jit
def _back_from(prepared: Prepared, key, points, centre, at_once: int) -> Seen:
    """Along bridges from the end points back to the start."""
    unit = prepared.unit
    steps = _inner(prepared)

    def of_path(numbered):
        number, end = numbered
        keys = jax.random.split(jax.random.fold_in(key, number), steps.num_steps)

        def recede(after, now_and_key):
            now, key = now_and_key
            x = now.noising.draw(key, unit.start, after)
            return x, _look(prepared, now, x, end, centre)

        return jax.lax.scan(recede, unit.to_unit(end), (steps, keys), reverse=True)[1]

    return jax.lax.map(of_path, (jnp.arange(len(points)), points), batch_size=at_once)


@eqx.filter_jit
def _along(prepared: Prepared, states, centre, at_once: int) -> Seen:
    """Along given paths, in the user's units."""
    steps, unit = _inner(prepared), prepared.unit

    def of_path(path):
        def look(_, now_and_state):
            now, x = now_and_state
            return None, _look(prepared, now, unit.to_unit(x), path[-1], centre)

        return jax.lax.scan(look, None, (steps, path[1:-1]))[1]

    return jax.lax.map(of_path, states, batch_size=at_once)


def _look(prepared: Prepared, now: StepLaws, x, end, centre) -> Seen:
    """At a state in the unit problem, of a path to an end point in the user's units."""
    unit = prepared.unit
    law = prepared.target.tilt(observe(now.observation, x, unit.start))
    expected, towards = unit.from_unit(law.mean), end - centre
    return Seen(
        *_said(law),
        state=jnp.sum((unit.from_unit(x) - centre) * towards),
        weighted_state=jnp.sum((expected - centre) * towards),
        error=jnp.sum((end - expected) ** 2),
    )


def _said(law: TiltedSamples | TiltedMixture) -> tuple[Said | None, Said | None]:
    """Of datum and of class."""
    if isinstance(law, TiltedMixture):
        datum, classes = None, jnp.exp(law.log_weights)
    else:
        datum, classes = Said(law.entropy, law.agreement), law.class_probabilities
    return datum, None if classes is None else Said(jnp.sum(jax.scipy.special.entr(classes)), jnp.sum(classes**2))


@eqx.filter_jit
def _said_at_first(target) -> tuple[Said | None, Said | None]:
    """Before anything is seen."""
    zero = jnp.zeros(target.dim, target.weights.dtype)
    return _said(target.tilt(Observation(zero[0], zero)))


@eqx.filter_jit
def _clock(prepared: Prepared) -> tuple[Float[Array, " times"], Float[Array, " times"]]:
    steps, unit = _inner(prepared), prepared.unit
    log_snr = jax.vmap(lambda one: log_snr_of(one, unit.start.size))(steps.observation)
    return steps.t * unit.horizon, log_snr - 2 * jnp.log(unit.scale)


def _of(seen: Seen, ends, prepared: Prepared, target, paths: Weighted | Float[Array, " N"]) -> Transitions:
    times, log_snr = _clock(prepared)
    squares = jnp.sum((ends - _centre(target)[None]) ** 2, axis=-1)
    datum, label = (
        None if said is None or at_first is None else _decided(said, at_first, log_snr, paths)
        for said, at_first in zip((seen.datum, seen.label), _said_at_first(target), strict=True)
    )

    def correlation(products):
        return average((products, squares), paths, lambda means: means[0] / means[1])

    return Transitions(
        times=times,
        snr=jnp.exp(log_snr),
        datum_entropy=None if datum is None else datum.entropy,
        effective_data=None if seen.datum is None else average(jnp.exp(seen.datum.entropy), paths),
        datum_agreement=None if datum is None else datum.agreement,
        class_entropy=None if label is None else label.entropy,
        class_agreement=None if label is None else label.agreement,
        state=correlation(seen.state),
        weighted_state=correlation(seen.weighted_state),
        error=average(seen.error, paths),
        memorisation=None if datum is None else datum.at_snr,
        speciation=None if label is None else label.at_snr,
    )


class Decided(NamedTuple):
    """Means of entropy and agreement at each time, and the K at which the agreement is half way to one."""

    entropy: Estimate
    agreement: Estimate
    at_snr: Estimate


def _decided(said: Said, at_first: Said, log_snr: Float[Array, " times"], paths) -> Decided:
    def half_way(agreement):
        share = (agreement - at_first.agreement) / (1 - at_first.agreement)
        inside = (share[0] < 0.5) & (share[-1] >= 0.5)
        return jnp.where(inside, jnp.exp(transition_time(log_snr, share)), jnp.nan)

    return Decided(
        average(said.entropy, paths), average(said.agreement, paths), average(said.agreement, paths, half_way)
    )
