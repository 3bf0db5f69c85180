"""The reference process of the unit problem, and what a rollout needs of it along a grid of times.

    Harmonic    constant scalar or diagonal stiffness around one centre: closed form
    Piecewise   any stiffness, force and gauge, constant on each of P pieces: propagators, composed

In float32 a subtraction near t = 1 would cost digits of everything that follows, so τ = 1 − t is stored on its own.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._maths.maps import Map, adjoint, cholesky, diagonal, identity, log_determinant, norm, product
from .bridge import Affine, Bridge, LinearDrift, StartLaws, StepLaws
from .clock import time_at_snr
from .conjugate import regauging
from .green import Green, Pinned
from .propagator import Generator, Propagator, compose, condition, segments


class Times(eqx.Module):
    """A grid on the unit horizon: t_k and τ_k = 1 − t_k for k = 0 … K, and the K steps t_{k+1} − t_k."""

    t: Float[Array, " times"]
    remaining: Float[Array, " times"]
    step: Float[Array, " steps"]

    @classmethod
    def of(cls, t: Float[Array, " times"], remaining: Float[Array, " times"]) -> "Times":
        """The grid with each step taken from whichever of t and 1 − t is the smaller, hence the more exact."""
        early = t[1:] < 0.5
        return cls(t, remaining, jnp.where(early, jnp.diff(t), -jnp.diff(remaining)))


class Instant(NamedTuple):
    """The reference at one time t: the law of x_t given both ends, ∇log ψ as a pull, log G(x₀ → x_t), force, gauge."""

    observation: Bridge
    pull: LinearDrift
    log_green: Callable[[Float[Array, " d"], Float[Array, " d"]], Float[Array, ""]]
    force: Affine | None
    gauge: Affine | None


class AbstractReference(eqx.Module):
    """The reference process on the unit horizon."""

    @abstractmethod
    def step_laws(self, times: Times) -> StepLaws:
        """The three laws and the drift along a grid."""

    @abstractmethod
    def observations(self, times: Times) -> Bridge:
        """Of these, the law of x_t given both ends alone."""

    @abstractmethod
    def instant(self, t: Float[Array, ""], remaining: Float[Array, ""]) -> Instant:
        """The same at one time in [0, 1); at t = 1 only `log_green` has a meaning."""

    @abstractmethod
    def start_laws(self, dim: int) -> StartLaws | None:
        """The step that draws a Gaussian start, given the end; None for a point."""

    @abstractmethod
    def pieces(self) -> tuple[Float[Array, "P *map"], Float[Array, "P *map"], Float[Array, " ends"], Map | None]:
        """S and F of each piece, the ends of the pieces from 0 to 1, and the covariance of a Gaussian start.

        Its conjugate points follow from these.
        """

    @abstractmethod
    def reach(self) -> Float[Array, ""]:
        """How far from the origin centre, force, gauge and linear potential carry the process, to an order of magnitude."""

    @abstractmethod
    def times_at_snr(self, ratios: Float[Array, " n"], dim: int) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """(t, 1 − t) at which the geometric mean of the signal-to-noise ratios, det(K)^(1/d), is the given one."""


class Harmonic(AbstractReference):
    """Killing at the rate ½ Σ_i β_i (x − ν)_i², no force, no gauge, a point to start from."""

    green: Green
    centre: Float[Array, "..."]

    def _bridge(self, pinned: Pinned) -> Bridge:
        left, right, variance = pinned
        return Bridge.of(left, right, (1 - left - right) * self.centre, variance, jnp.any(variance > 0))

    def _pull(self, remaining) -> LinearDrift:
        to_end, to_centre = self.green.pull(remaining)
        return LinearDrift(to_end, to_centre, (to_centre - to_end) * self.centre)

    def step_laws(self, times):
        def along(t, step, remaining, after):
            return StepLaws(
                t=t,
                step=step,
                observation=self._bridge(self.green.pin(t, remaining)),
                ahead=self._bridge(self.green.pin(step, after)),
                noising=self._bridge(self.green.pin(t, step)),
                drift=self._pull(remaining),
                force=None,
            )

        return jax.vmap(along)(times.t[:-1], times.step, times.remaining[:-1], times.remaining[1:])

    def observations(self, times):
        return jax.vmap(lambda *now: self._bridge(self.green.pin(*now)))(times.t[:-1], times.remaining[:-1])

    def instant(self, t, remaining):
        begun, goes_on = t > 0, remaining > 0

        def log_green(start, x):
            return self.green.log(start - self.centre, x - self.centre, jnp.where(begun, t, 1))

        pull = self._pull(jnp.where(goes_on, remaining, 1))
        return Instant(self._bridge(self.green.pin(t, remaining)), pull, log_green, None, None)

    def start_laws(self, dim):
        return None

    def pieces(self):
        beta = self.green.beta[None]
        return beta, jnp.zeros_like(beta), jnp.arange(2, dtype=beta.dtype), None

    def reach(self):
        return jnp.max(jnp.abs(self.centre))

    def times_at_snr(self, ratios, dim):
        if self.green.beta.ndim == 0:
            return time_at_snr(self.green, ratios)
        return search_times(self, ratios, dim)


class Piecewise(AbstractReference):
    """Constant coefficients on each of P pieces; every leaf of the fields has P in front.

    Attributes:
        generator: F, c, S, ℓ, k, with the gauge `regauge` · x added, which changes no law.
        regauge: keeps the propagators valid up to the conjugate point; 0 where S ≥ 0.
        force, gauge: f and A; None for none.
        edges: the P − 1 inner ends of the pieces.
        start: the point, or the mean of a Gaussian start.
        start_covariance: of a Gaussian start; None for a point.
    """

    generator: Generator
    regauge: Float[Array, ""]
    force: Affine | None
    gauge: Affine | None
    edges: Float[Array, " inner"]
    start: Float[Array, " d"]
    start_covariance: Map | None

    @classmethod
    def of(cls, generator: Generator, force, gauge, edges, start, start_covariance) -> "Piecewise":
        """From the generator as it is."""
        c = regauging(*jax.lax.stop_gradient((generator.stiffness, generator.drift)))

        def add_gauge(part: Generator) -> Generator:
            one = identity(part.drift)
            return Generator(
                drift=part.drift - c * one,
                push=part.push,
                stiffness=part.stiffness + c * (part.drift + adjoint(part.drift)) - c**2 * one,
                slope=part.slope + c * part.push,
                rate=part.rate + 0.5 * c * start.size,
            )

        return cls(jax.vmap(add_gauge)(generator), c, force, gauge, edges, start, start_covariance)

    @property
    def _none(self) -> Propagator:
        return Propagator.identity(self.generator.drift[0], self.start)

    @property
    def _fuzzy(self) -> Propagator:
        """Unit noise: the end point's pull on the state is the same whatever came before, and this has a width."""
        return eqx.tree_at(lambda one: one.covariance, self._none, identity(self._none.covariance))

    @property
    def _beginning(self) -> Propagator:
        if self.start_covariance is None:
            return self._none
        gauge = eqx.tree_at(lambda one: one.weight, self._none, self.regauge * identity(self._none.weight))
        return compose(Propagator.gaussian(self.start, self.start_covariance), gauge)

    def _piece(self, t: Float[Array, "*n"]) -> Array:
        return jnp.searchsorted(self.edges, t, side="right")

    def _at(self, field, t):
        return jax.tree.map(lambda leaf: leaf[self._piece(t)], field)

    @eqx.filter_jit
    def propagators(self, times: Times) -> tuple[Propagator, Propagator, Propagator]:
        """0 → t_k, t_k → t_{k+1} and t_k → 1, for k = 0 … K−1, each with K in front: one scan over both directions."""
        num_steps, num_inner = times.step.size, self.edges.size
        t = jnp.concatenate([times.t[:-1], self.edges])
        order = jnp.argsort(t, stable=True)
        remaining = jnp.concatenate([times.remaining[:-1], 1 - self.edges])[order]
        nodes = Times.of(jnp.append(t[order], times.t[-1:]), jnp.append(remaining, times.remaining[-1:]))
        is_step = order < num_steps
        parts = segments(self._at(self.generator, nodes.t[:-1]), nodes.step)

        def advance(carry, indexed):
            before, since, after = carry
            begins, forward, backward = indexed
            since = jax.tree.map(lambda fresh, old: jnp.where(begins, fresh, old), self._none, since)
            firsts, seconds = [before, backward], [forward, after]
            if num_inner:
                firsts, seconds = [*firsts, since], [*seconds, forward]
            through, remaining, *stepped = _unstacked(jax.vmap(compose)(_stacked(firsts), _stacked(seconds)))
            since = stepped[0] if num_inner else forward
            return (through, since, remaining), (before, since, remaining)

        backwards = jax.tree.map(lambda leaf: leaf[::-1], parts)
        _, (before, since, after) = jax.lax.scan(
            jax.checkpoint(advance), (self._beginning, self._none, self._none), (is_step, parts, backwards)
        )
        begins = jnp.argsort(order, stable=True)[:num_steps]
        ends = jnp.append(begins[1:], order.size) - 1

        def pick(propagators, where):
            return jax.tree.map(lambda leaf: leaf[where], propagators)

        return pick(before, begins), pick(since, ends), pick(after, order.size - 1 - begins)

    def step_laws(self, times):
        before, step, after = self.propagators(times)
        later = jax.tree.map(lambda leaf, last: jnp.concatenate([leaf[1:], last[None]]), after, self._none)
        fuzzy = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (times.step.size, *leaf.shape)), self._fuzzy)
        pairs = [before, step, before, fuzzy], [after, later, step, after]
        observation, ahead, noising, coupling = _unstacked(jax.vmap(jax.vmap(condition))(*map(_stacked, pairs)))
        t = times.t[:-1]
        reference = self._at(Affine(self.generator.drift, self.generator.push), t)
        pull = jax.vmap(Propagator.pull)(after, coupling)
        return StepLaws(
            t=t,
            step=times.step,
            observation=observation,
            ahead=ahead,
            noising=noising,
            drift=LinearDrift(pull.to_end, pull.to_centre - reference.matrix, pull.push + reference.vector),
            force=self._at(self.force, t),
        )

    def observations(self, times):
        before, _, after = self.propagators(times)
        return jax.vmap(condition)(before, after)

    def instant(self, t, remaining):
        zero, one = jnp.zeros_like(t), jnp.ones_like(t)
        times = Times.of(jnp.stack([zero, t, one]), jnp.stack([one, remaining, zero]))
        before, _, after = jax.tree.map(lambda leaf: leaf[1], self.propagators(times))

        def log_green(start, x):
            from_start = 0 if self.start_covariance is not None else jnp.sum(start**2)
            return before.log(start, x) + 0.5 * self.regauge * (jnp.sum(x**2) - from_start)

        pairs = [before, self._fuzzy], [after, after]
        observation, ahead = _unstacked(jax.vmap(condition)(*map(_stacked, pairs)))
        to_end, to_centre, push = after.pull(ahead)
        pull = LinearDrift(to_end, to_centre + self.regauge * identity(to_centre), push)
        return Instant(observation, pull, log_green, self._at(self.force, t), self._at(self.gauge, t))

    def start_laws(self, dim):
        if self.start_covariance is None:
            return None
        zero, one = jnp.zeros_like(self.start[:1]), jnp.ones_like(self.start[:1])
        ends = jnp.concatenate([zero, one])
        whole = jax.tree.map(lambda leaf: leaf[0], self.propagators(Times(ends, ends[::-1], one))[2])
        pairs = [self._none, self._beginning, self._none], [whole, whole, self._beginning]
        observation, ahead, noising = _unstacked(jax.vmap(condition)(*map(_stacked, pairs)))
        return StartLaws(observation, ahead, noising, self.start, cholesky(self.start_covariance))

    def pieces(self):
        c, one = self.regauge, jax.vmap(identity)(self.generator.drift)
        drift = self.generator.drift + c * one
        stiffness = self.generator.stiffness - c * (drift + jax.vmap(adjoint)(drift)) + c**2 * one
        return stiffness, drift, jnp.pad(self.edges, 1, constant_values=(0, 1)), self.start_covariance

    def reach(self):
        def of(part: Generator):
            pushed = jnp.max(jnp.abs(part.push)) / (1 + norm(part.drift))
            return jnp.maximum(pushed, jnp.max(jnp.abs(part.slope)) / (1 + norm(part.stiffness)))

        return jnp.max(jax.vmap(of)(self.generator))

    def times_at_snr(self, ratios, dim):
        return search_times(self, ratios, dim)


def _stacked(trees: list) -> Any:
    """One tree with the trees along a new leading axis: one batch of matrices instead of several programs of them."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _unstacked(tree: Any) -> list:
    """The trees along the leading axis."""
    count = jax.tree.leaves(tree)[0].shape[0]
    return [jax.tree.map(lambda leaf: leaf[k], tree) for k in range(count)]  # noqa: B023


def log_snr_of(observation: Bridge, dim: int) -> Float[Array, ""]:
    """log det(K)/d with K = (L⁻¹ right)ᵀ L⁻¹ right."""
    return 2 * log_determinant(product(observation.whitening, observation.right), dim) / dim


def search_times(
    reference: AbstractReference, ratios: Float[Array, " n"], dim: int
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """The times at given ratios: a table in logit t, then Newton's steps with the slope t τ d log det K/dt = t τ tr Σ⁻¹.

    Differentiable, as an implicit function of the reference.
    """

    def at(reference, logit):
        t, remaining = jax.nn.sigmoid(logit), jax.nn.sigmoid(-logit)
        zero, one = jnp.zeros((1,), t.dtype), jnp.ones((1,), t.dtype)
        times = Times.of(jnp.concatenate([zero, t, one]), jnp.concatenate([one, remaining, zero]))
        observation = jax.tree.map(lambda leaf: leaf[1:], reference.observations(times))
        log_ratios = jax.vmap(lambda one: log_snr_of(one, dim))(observation)
        precision = jax.vmap(lambda one: _mean_square(one.whitening, dim))(observation)
        return log_ratios, precision * t * remaining

    @jax.custom_jvp
    def solve(reference, log_ratios):
        table = jnp.linspace(-15, 15, max(61, log_ratios.size), dtype=log_ratios.dtype)
        padding = (0, table.size - log_ratios.size)
        wanted = jnp.pad(log_ratios, padding, mode="edge")

        def improve(logit, number):
            found, slope = at(reference, logit)
            interpolated = jnp.interp(wanted, jnp.maximum(found, -200), logit)
            return jnp.where(number == 0, interpolated, logit + (wanted - found) / slope), None

        logit, _ = jax.lax.scan(improve, table, jnp.arange(5))
        return logit[: log_ratios.size]

    @solve.defjvp
    def solve_jvp(primals, tangents):
        (reference, log_ratios), (reference_dot, log_ratios_dot) = primals, tangents
        logit = solve(reference, log_ratios)
        (_, slope), (found_dot, _) = jax.jvp(lambda reference: at(reference, logit), (reference,), (reference_dot,))
        return logit, (log_ratios_dot - found_dot) / slope

    if ratios.size == 0:
        return ratios, ratios
    logit = solve(reference, jnp.log(ratios))
    return jax.nn.sigmoid(logit), jax.nn.sigmoid(-logit)


def _mean_square(a: Map, dim: int) -> Float[Array, ""]:
    """tr(A Aᵀ)/d."""
    return jnp.sum(a**2) / dim if a.ndim == 2 else jnp.mean(diagonal(a, dim) ** 2)
