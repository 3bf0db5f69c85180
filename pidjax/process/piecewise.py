"""Any stiffness, force and gauge, constant on each of P pieces: the propagators of the pieces, composed.

    ∂G = ( ½ Δ − ∇·(Fx + c) − ½ xᵀSx − ℓᵀx − k ) G     on each piece

A gauge cx, which changes no law, keeps the propagators valid up to the conjugate point.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float

from .._maths.maps import Map, adjoint, cholesky, identity, norm
from .._maths.small import eigenvalues
from .bridge import Affine, LinearDrift, StartLaws, StepLaws, stacked, unstacked
from .propagator import Generator, Propagator, compose, condition, segments
from .reference import AbstractReference, Instant, Times
from .snr import search_times


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
            through, remaining, *stepped = unstacked(jax.vmap(compose)(stacked(firsts), stacked(seconds)))
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

    def laws(self, times):
        before, step, after = self.propagators(times)
        later = jax.tree.map(lambda leaf, last: jnp.concatenate([leaf[1:], last[None]]), after, self._none)
        fuzzy = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (times.step.size, *leaf.shape)), self._fuzzy)
        pairs = [before, step, before, fuzzy], [after, later, step, after]
        observation, ahead, noising, coupling = unstacked(jax.vmap(jax.vmap(condition))(*map(stacked, pairs)))
        t = times.t[:-1]
        reference = self._at(Affine(self.generator.drift, self.generator.push), t)
        pull = jax.vmap(Propagator.pull)(after, coupling)
        steps = StepLaws(
            t=t,
            step=times.step,
            observation=observation,
            ahead=ahead,
            noising=noising,
            drift=LinearDrift(pull.to_end, pull.to_centre - reference.matrix, pull.push + reference.vector),
            force=self._at(self.force, t),
        )
        whole = jax.tree.map(lambda leaf: leaf[0], after)
        return steps, self._start_laws(whole)

    def observations(self, times):
        before, _, after = self.propagators(times)
        return jax.vmap(condition)(before, after)

    def instant(self, t, remaining):
        zero, one = jnp.zeros_like(t), jnp.ones_like(t)
        times = Times.of(jnp.stack([zero, t, one]), jnp.stack([one, remaining, zero]))
        before, _, after = jax.tree.map(lambda leaf: leaf[1], self.propagators(times))
        regauge_start = self.regauge if self.start_covariance is None else jnp.zeros_like(self.regauge)
        log_green = Partial(_log_green, before, self.regauge, regauge_start)
        pairs = [before, self._fuzzy], [after, after]
        observation, ahead = unstacked(jax.vmap(condition)(*map(stacked, pairs)))
        to_end, to_centre, push = after.pull(ahead)
        pull = LinearDrift(to_end, to_centre + self.regauge * identity(to_centre), push)
        return Instant(observation, pull, log_green, self._at(self.force, t), self._at(self.gauge, t))

    def _start_laws(self, whole: Propagator) -> StartLaws | None:
        """From the propagator of the whole horizon."""
        if self.start_covariance is None:
            return None
        pairs = [self._none, self._beginning, self._none], [whole, whole, self._beginning]
        observation, ahead, noising = unstacked(jax.vmap(condition)(*map(stacked, pairs)))
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

    def times_at_snr(self, low, high, count, dim):
        return search_times(self, low, high, count, dim)


def _log_green(before: Propagator, regauge, regauge_start, start, x) -> Float[Array, ""]:
    """log G from `start` to x, the gauge taken back at both."""
    return before.log(start, x) + 0.5 * (regauge * jnp.sum(x**2) - regauge_start * jnp.sum(start**2))


def regauging(
    stiffness: Float[Array, "P d d"] | Float[Array, "P d"] | Float[Array, " P"],
    drift: Float[Array, "P d d"] | Float[Array, "P d"] | Float[Array, " P"],
) -> Float[Array, ""]:
    """A gauge cx that keeps the propagator form valid up to the conjugate point.

    The propagator form needs a positive C on its own, which β < −π²/4, or a gauge −∇φ with φ convex, denies it; a gauge adds
    c to it and changes nothing else. With F_s the symmetric part of F and S + F_s² ≥ −ω² I, c = λ_max(F_s) − ω cot ω is
    enough while the coefficients are constant. Where S ≥ 0 none is needed.
    """
    if stiffness.ndim == 3:
        symmetric = 0.5 * (drift + jnp.swapaxes(drift, -1, -2))
        smallest, fastest = (eigenvalues(a) for a in (stiffness + symmetric @ symmetric, symmetric))
        indefinite = jnp.min(eigenvalues(stiffness)) < -1e-6
    else:
        smallest, fastest = stiffness + drift**2, drift
        indefinite = jnp.min(stiffness) < -1e-6
    omega = jnp.sqrt(jnp.clip(-jnp.min(smallest), 1e-6, 9.6))
    needed = jnp.maximum(jnp.max(fastest), 0) + jnp.maximum(1 - omega / jnp.tan(omega), 0)
    return jnp.where(indefinite, needed, 0)
