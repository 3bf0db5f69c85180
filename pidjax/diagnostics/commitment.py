"""When a path has decided, reliably, which class it will end in (its speciation): a component of a mixture, a label of data.

    posterior of a component      r_k(t, x) = P(k | x_t = x) ∝ π_k N( x; Mμ_k + n, Σ + MΣ_kMᵀ );   of a label, of its data
    label                         argmax_k r_k;   confidence  c = max_k r_k;   margin  D = c − second largest
    risk                          1 − E c,  the error of the best guess at t
    accuracy                      P( label at t = label at the end )

r is a martingale along the paths: E r_k(t) = π_k at every t. A path has decided at the first time, not before `earliest`,
at which the label has not changed over the last `window` and confidence, margin and entropy pass their thresholds. The
paper evaluates the target's own responsibilities at x̂ in place of r, which is no probability of anything: both are here.
"""

from typing import NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._doors.checks import as_floating, as_scalar, check_kind, concrete
from .._doors.show import shown
from ..metrics import Estimate
from ..process.protocol import Protocol
from ..sampling.problem import Problem
from ..sampling.rollout import default_batch
from ..targets.mixture import GaussianMixture
from ..targets.samples import Samples
from .average import average
from .ensemble import Ensemble, check_paths, check_process, check_target


class Reliability(NamedTuple):
    """When a decision counts, as fractions of the horizon and of probability; the entropy in nats.

    The defaults are those of the paper; .279 is the entropy of (.92, .08).
    """

    earliest: float = 0.5
    window: float = 0.05
    confidence: float = 0.92
    margin: float = 0.5
    entropy: float = 0.279


PUBLISHED = Reliability()


class Decisions(NamedTuple):
    """What `decisions` returns.

    Attributes:
        times: when each path decided, shape (N,); the horizon if it never did.
        mean_time: their mean.
        decided: P(decided by t_k), shape (K+1,).
        accuracy, risk: shape (K+1,).
    """

    times: Float[Array, " N"]
    mean_time: Estimate
    decided: Estimate
    accuracy: Estimate
    risk: Estimate

    def __repr__(self):
        return shown("Decisions", **self._asdict())


def responsibilities(target: GaussianMixture, y: Float[Array, " d"]) -> Float[Array, " k"]:
    """π_k N(y; μ_k, Σ_k) / p(y).

    Example:
        >>> mixture = GaussianMixture.isotropic(jnp.array([[-1.0], [1.0]]), 1.0)
        >>> responsibilities(mixture, jnp.zeros(1)).tolist()
        [0.5, 0.5]
    """
    _check_mixture(target)
    return target.responsibilities(as_floating("y", y).astype(target.means.dtype))


def class_probabilities(
    target: GaussianMixture | Samples, protocol: Protocol, paths: Ensemble
) -> Float[Array, "N times k"]:
    """r_k(t, x(t)) along the paths: the exact posterior of the class in which the path ends.

    Raises:
        ValueError: a target that is neither a mixture nor labelled data, or of another dimension than the paths; another
            protocol than they were sampled with (concrete values only).

    Example:
        >>> import pidjax as pid
        >>> from pidjax.diagnostics import ensemble
        >>> mixture = pid.GaussianMixture.isotropic(jnp.array([[-1.0], [1.0]]), 0.1)
        >>> paths = ensemble(pid.sample(jax.random.key(0), mixture, num_samples=99, save_paths=True))
        >>> class_probabilities(mixture, pid.harmonic(), paths)[0, 0].tolist()
        [0.5, 0.5]
    """
    if isinstance(target, Samples) and target.labels is None:
        raise ValueError("target has no labels; pass Samples(points, labels=labels)")
    if not isinstance(target, Samples):
        _check_mixture(target)
    check_process(paths, protocol, target)
    return _class_probabilities(Problem(target, protocol), paths.times, paths.states)


@eqx.filter_jit
def _class_probabilities(problem: Problem, times, states) -> Float[Array, "N times k"]:
    target, horizon = problem.target, times[-1]

    def at(t, x):
        law = problem.at(t, x, remaining=horizon - t).law
        return law.class_probabilities if isinstance(target, Samples) else jnp.exp(law.log_weights)

    def at_end(y):
        if isinstance(target, Samples):
            return jax.nn.one_hot(cast(Array, target.labels)[target.nearest(y)], target.num_classes, dtype=y.dtype)
        return responsibilities(cast(GaussianMixture, target), y)

    def along(path):
        return jnp.concatenate([jax.lax.map(lambda now: at(*now), (times[:-1], path[:-1])), at_end(path[-1])[None]])

    return jax.lax.map(along, states, batch_size=default_batch(target.numbers_per_tilt, len(states)))


def predicted_class_probabilities(target: GaussianMixture, paths: Ensemble) -> Float[Array, "N times k"]:
    """The responsibilities of the target at the weighted states x̂: the quantity of the paper."""
    _check_mixture(target)
    check_target(paths, target)
    return _responsibilities(target, paths.weighted_states)


@eqx.filter_jit
def _responsibilities(target: GaussianMixture, points) -> Float[Array, "N times k"]:
    return jax.vmap(jax.vmap(lambda y: responsibilities(target, y)))(points)


def decisions(
    paths: Ensemble, probabilities: Float[Array, "N times k"], reliability: Reliability = PUBLISHED
) -> Decisions:
    """Decision times, accuracy and risk from probabilities of the components along the paths.

    Raises:
        ValueError: probabilities of another shape than (N, K+1, k); that do not sum to one (concrete values only).

    Example:
        >>> import pidjax as pid
        >>> from pidjax.diagnostics import ensemble
        >>> mixture = pid.GaussianMixture.isotropic(jnp.array([[-1.0], [1.0]]), 0.1)
        >>> paths = ensemble(pid.sample(jax.random.key(0), mixture, num_samples=99, save_paths=True))
        >>> found = decisions(paths, class_probabilities(mixture, pid.harmonic(), paths))
        >>> found.risk.value[0].round(4).item()
        0.5

    Source: Chertkov & Behjoo, *AdaPID*, arXiv 2512.11858.
    """
    check_paths(paths)
    probabilities = as_floating("probabilities", probabilities)
    _check_probabilities(probabilities, paths.states.shape[:2], reliability)
    times = paths.times
    reliable = jax.vmap(lambda path: is_reliable(times, path, reliability))(probabilities)
    decided_at = jnp.where(jnp.any(reliable, axis=1), times[jnp.argmax(reliable, axis=1)], times[-1])
    labels = jnp.argmax(probabilities, axis=-1)
    correct = (labels == labels[:, -1:]).astype(times.dtype)
    by_now = jax.lax.cummax(reliable.astype(times.dtype), axis=1)
    return Decisions(
        times=decided_at,
        mean_time=average(decided_at, paths),
        decided=average(by_now, paths),
        accuracy=average(correct, paths),
        risk=average(1 - jnp.max(probabilities, axis=-1), paths),
    )


def is_reliable(
    times: Float[Array, " times"], probabilities: Float[Array, "times k"], reliability: Reliability = PUBLISHED
) -> Bool[Array, " times"]:
    """At which times one path's decision counts.

    Raises:
        ValueError: times that do not increase, or probabilities of another shape than (K+1, k) or that do not sum to one
            (concrete values only).

    Example:
        >>> certain = jnp.array([[0.5, 0.5], [0.99, 0.01], [0.99, 0.01]])
        >>> is_reliable(jnp.array([0.0, 0.5, 1.0]), certain).tolist()
        [False, True, True]
    """
    times, probabilities = as_floating("times", times), as_floating("probabilities", probabilities)
    if times.ndim != 1:
        raise ValueError(f"times has shape {times.shape}; pass shape (K+1,)")
    _check_probabilities(probabilities, times.shape, reliability)
    known = concrete(times)
    if known is not None and not (np.diff(known) > 0).all():
        raise ValueError(f"times is {known}; pass increasing times")
    horizon = times[-1]
    labels = jnp.argmax(probabilities, axis=-1)
    changed = jnp.concatenate([jnp.ones(1, bool), labels[1:] != labels[:-1]])
    label_since = jax.lax.cummax(jnp.where(changed, times, -jnp.inf))
    top = jax.lax.top_k(probabilities, min(2, probabilities.shape[-1]))[0]
    second = top[:, 1] if top.shape[-1] > 1 else jnp.zeros_like(times)
    entropy = jnp.sum(jax.scipy.special.entr(probabilities), axis=-1)
    return (
        (times >= reliability.earliest * horizon)
        & (times - label_since >= reliability.window * horizon)
        & (top[:, 0] >= reliability.confidence)
        & (top[:, 0] - second >= reliability.margin)
        & (entropy <= reliability.entropy)
    )


def _check_mixture(target) -> None:
    check_kind(
        "target", target, GaussianMixture, "a GaussianMixture, whose components are the classes, or labelled Samples"
    )


def _check_probabilities(probabilities, shape: tuple[int, ...], reliability) -> None:
    if not isinstance(reliability, Reliability):
        raise ValueError(f"reliability is {reliability!r}; pass a Reliability")
    for name, threshold in reliability._asdict().items():
        known = concrete(as_scalar(name, threshold))
        if known is not None and not (0 <= known and (known <= 1 or name == "entropy")):
            raise ValueError(f"{name} is {known:g}; pass a number in [0, 1], or of nats for the entropy")
    if probabilities.shape[:-1] != shape:
        wanted = f"({', '.join(map(str, shape))}, number of classes)"
        raise ValueError(f"probabilities has shape {probabilities.shape}; pass shape {wanted}")
    known = concrete(probabilities)
    if known is not None and not np.allclose(known.sum(axis=-1), 1, atol=1e-3):
        raise ValueError(f"probabilities sum to {known.sum(axis=-1).max():g}; pass probabilities that sum to one")
