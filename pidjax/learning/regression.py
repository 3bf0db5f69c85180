"""Regression of a step rule on bridges to given end points: no path is simulated, none differentiated.

    x = M y + n + √Σ z,     y from a buffer,     x̂* = (I + CK)⁻¹ [ y + C (r + ∇log p̃(y)) ],     E[x̂* | x] = x̂(t, x)

    L = Σ_k E ½ | F_k⁻¹ ( m_k(x) − a_k(x, x̂*) ) |²

with K = AᵀA and r = Aᵀζ of the observation ζ = A y + noise that x makes of y, m_k and F_kF_kᵀ the mean and covariance of the
rule's step from x at t_k, and a_k(x, y) the mean of the exact one to the end point y. But for a constant, L is
KL(optimal ‖ controlled) along the grid, −log W on average over the optimal process: it sees every mode that the buffer has. It
is a loss of the means alone: F_k is held fixed.

C = 0 is denoising, C → ∞ matches the target's score; with the target's own covariance x̂* has no variance if that is Gaussian.
Modes of width w that lie far apart want C = w² I. So C = σ² I, and each step has the σ² by which its L is least at the start:
E[x̂*] is the same for all. The slope at an end point is found once, however often the point is drawn.

Source: Vincent, *Neural Computation* 2011; De Bortoli et al., *Target score matching*, arXiv 2402.08667; for samples of the
model itself, Havens et al., *Adjoint sampling*, arXiv 2504.11713.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from .._doors.checks import as_scalar, check_kind, concrete
from .._maths.maps import Map, adjoint, apply, inverse, inverse_factor, plus_identity, product
from .._maths.systematic import systematic
from ..process.bridge import Observation, observe
from ..sampling.problem import Prepared
from ..sampling.rules import AbstractGaussianRule
from ..targets.base import Tilted
from .buffer import Buffer
from .losses import AbstractLoss
from .refresh import AbstractRefresh, Points, Refresh

_VARIANCES = (0.0, *(4.0**power for power in range(-8, 3)))
_TRIED = 64
"""Bridges at each step by which variances are compared."""


class Memory(NamedTuple):
    """What the regression hands on: its points, σ² of each step, the step that the first bridge of the first iteration is at,
    the iterations so far, the rule at the last refresh.
    """

    points: Points
    variances: Float[Array, " K"]
    first: Int[Array, ""]
    iteration: Int[Array, ""]
    former: Any


class Regression(AbstractLoss):
    """The regression on bridges to the points of a buffer; NaN while none of its points has a weight.

    Args:
        buffer: end points with exact weights, as `Buffer.of(solution)`; without one, a `Refresh` gives the first ones.
        variance: σ² ≥ 0 of all steps, in the unit problem; 0 denoises. By default each step has its own of 0, 4⁻⁸, 4⁻⁷, … 4².
        refresh: new points on the way, by `Refresh` or `Turns`; by default the buffer is kept.
        damping: λ ≥ 0 of λ Σ_k E ½|F_k⁻¹(m_k − m'_k)|², m' the mean of the rule at the last refresh.

    Raises:
        ValueError: neither a buffer nor a refresh; a variance or damping below 0.

    Example:
        >>> from pidjax import Corrected, GaussianMixture, Moment, Problem, harmonic, log_snr_grid
        >>> target = GaussianMixture.isotropic(jnp.zeros((1, 2)), 1.0)
        >>> prepared = Problem(target, harmonic()).prepare(log_snr_grid(5))
        >>> loss = Regression(Buffer(target.sample(jax.random.key(0), 50)))
        >>> explicit, key = Corrected(Moment(), lambda t, x: jnp.zeros_like(x)), jax.random.key(1)
        >>> value, _ = loss(prepared, explicit, key, jnp.arange(10), loss.start(prepared, explicit, key))
        >>> bool(value < 1e-6)
        True
    """

    buffer: Buffer | None
    variance: Float[Array, ""] | None
    refresh: AbstractRefresh | None
    damping: Float[Array, ""] | None

    def __init__(
        self,
        buffer: Buffer | None = None,
        *,
        variance: float | Float[Array, ""] | None = None,
        refresh: AbstractRefresh | None = None,
        damping: float | None = None,
    ):
        if buffer is not None:
            check_kind("buffer", buffer, Buffer, "a Buffer")
        if refresh is not None:
            check_kind("refresh", refresh, AbstractRefresh, "Refresh(every, num_points) or Turns(every, num_points)")
        if buffer is None and not isinstance(refresh, Refresh):
            raise ValueError("no buffer is given; pass Buffer.of(solution), or a Refresh, whose first paths fill one")
        self.buffer, self.refresh = buffer, refresh
        self.variance = None if variance is None else _at_least_zero("variance", variance)
        self.damping = None if damping is None else _at_least_zero("damping", damping)

    def start(self, prepared, rule, key):
        if self.buffer is None:
            assert self.refresh is not None
            points = self.refresh(prepared, rule, key, None)
        else:
            ends = self.buffer.ends_in(prepared.unit)
            points = Points.of(prepared.target, ends, self.buffer.log_weights.astype(ends.dtype))
            if self.refresh is not None:
                chosen = systematic(key, jax.nn.softmax(points.log_weights), self.refresh.num_points)
                has_weight = jnp.max(points.log_weights) > -jnp.inf
                equal = jnp.full(chosen.size, jnp.where(has_weight, 0, -jnp.inf), ends.dtype)
                points = Points(points.ends[chosen], equal, points.slopes[chosen])
        former = None if self.damping is None else eqx.filter(rule, eqx.is_array)
        num_steps = prepared.step_laws.num_steps
        if self.variance is None:
            variances = self._best_variances(prepared, rule, key, points)
        else:
            variances = jnp.full(num_steps, self.variance, points.ends.dtype)
        first = jax.random.randint(jax.random.fold_in(key, 1), (), 0, num_steps)
        return Memory(points, variances, first, jnp.zeros((), int), former)

    def __call__(self, prepared, rule, key, indices, state):
        key_refresh, key = jax.random.split(key)
        if self.refresh is not None:
            every = self.refresh.every
            state = jax.lax.cond(
                (state.iteration > 0) & (state.iteration % every == 0),
                lambda: self._renewed(prepared, rule, key_refresh, state),
                lambda: state,
            )
        value = prepared.step_laws.num_steps * jnp.mean(self._errors(prepared, rule, key, indices, state))
        value = jnp.where(jnp.max(state.points.log_weights) > -jnp.inf, value, jnp.nan)
        return value, state._replace(iteration=state.iteration + 1)

    def _best_variances(self, prepared: Prepared, rule, key: Key[Array, ""], points: Points) -> Float[Array, " K"]:
        """For each step the σ² by which the sum of its errors over the same bridges is least."""
        num_steps, dtype = prepared.step_laws.num_steps, points.ends.dtype
        numbers, candidates = jnp.arange(_TRIED * num_steps), jnp.asarray(_VARIANCES, dtype)

        def tried(variance):
            none = jnp.zeros((), int)
            memory = Memory(points, jnp.full(num_steps, variance, dtype), none, none, None)
            return jnp.sum(self._errors(prepared, rule, key, numbers, memory).reshape(-1, num_steps), axis=0)

        return candidates[jnp.argmin(jax.lax.map(tried, candidates), axis=0)]

    def _errors(
        self, prepared: Prepared, rule: AbstractGaussianRule, key, indices, state: Memory
    ) -> Float[Array, " n"]:
        """½|F_k⁻¹(m_k − a_k)|² of a bridge for each number, at the step k that its place has by turns.

        Those of one step are together: what a network makes of the time is then made once for all of them.
        """
        key_choice, key_paths = jax.random.split(key)
        ends, log_weights, slopes = state.points
        num_steps, start, target = prepared.step_laws.num_steps, prepared.unit.start, prepared.target
        chosen = systematic(key_choice, jax.nn.softmax(log_weights), indices.size)
        others = None if state.former is None else eqx.combine(state.former, rule)

        def of_path(now, variance, index, place):
            end, slope = ends[place], slopes[place]
            key_bridge, key_law = jax.random.split(jax.random.fold_in(key_paths, index))
            x = now.observation.draw(key_bridge, start, end)
            seen = observe(now.observation, x, start)
            law = target.tilt(seen, key_law) if issubclass(rule.needs, Tilted) else None
            step = rule.proposal(law, now, x)
            aim = now.ahead.mean(x, estimate(seen, end, slope, variance))
            whiten = jax.lax.stop_gradient(inverse_factor(step.factor))
            error = 0.5 * jnp.sum(apply(whiten, step.mean - aim) ** 2)
            if others is None or self.damping is None:
                return error
            change = step.mean - jax.lax.stop_gradient(others.proposal(law, now, x).mean)
            return error + 0.5 * self.damping.astype(x.dtype) * jnp.sum(apply(whiten, change) ** 2)

        def of_step(turn, indices, chosen):
            k = (turn + state.first + state.iteration) % num_steps
            now = jax.tree.map(lambda leaf: leaf[k], prepared.step_laws)
            return jax.vmap(lambda index, place: of_path(now, state.variances[k], index, place))(indices, chosen)

        number, turns = indices.size, min(num_steps, indices.size)
        rounds = -(-number // turns)
        by_turns = (jnp.resize(numbers, (rounds, turns)).T for numbers in (indices, chosen))
        return jax.vmap(of_step)(jnp.arange(turns), *by_turns).T.ravel()[:number]

    def num_evaluations(self, num_iterations, batch_size, num_steps, per_step):
        spent = num_iterations * batch_size * per_step
        spent += 0 if self.variance is not None else _TRIED * num_steps * len(_VARIANCES) * per_step
        spent += 0 if self.buffer is None else len(self.buffer.ends)
        if self.refresh is not None:
            rounds = (num_iterations - 1) // self.refresh.every + (self.buffer is None)
            spent += rounds * self.refresh.num_evaluations(num_steps, per_step)
        return spent

    def _renewed(self, prepared, rule, key, state: Memory) -> Memory:
        former = None if state.former is None else jax.lax.stop_gradient(eqx.filter(rule, eqx.is_array))
        assert self.refresh is not None
        return state._replace(points=self.refresh(prepared, rule, key, state.points), former=former)


def estimate(
    seen: Observation, end: Float[Array, " d"], slope: Float[Array, " d"], variance: Float[Array, ""]
) -> Float[Array, " d"]:
    """x̂* = (I + σ²K)⁻¹ [ y + σ² (r + ∇log p̃(y)) ].

    Example:
        >>> seen = Observation(jnp.array(2.0), jnp.array([3.0]))
        >>> estimate(seen, jnp.array([1.0]), jnp.array([-1.0]), jnp.array(1.0)).tolist()
        [1.2000000476837158]
    """
    gain: Map = seen.gain
    score = apply(adjoint(gain), seen.value) + slope
    return apply(inverse(plus_identity(variance * product(adjoint(gain), gain))), end + variance * score)


def _at_least_zero(name: str, value: Any) -> Float[Array, ""]:
    value = as_scalar(name, value)
    known = concrete(value)
    if known is not None and not known >= 0:
        raise ValueError(f"{name} is {known:g}; pass a number >= 0")
    return value
