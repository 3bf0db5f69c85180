"""Step rules: from x at t to x' at t', given the tilted law at (t, x) and the reference pinned at its end.

    Euler       x' ~ N( x + u dt, dt I ),  u = u*(t, x) + correction                   exact as the step → 0
    Moment      x' ~ N( E[x'], left, Cov[x'] ) with the first two moments of the exact step   exact for a Gaussian, as step → 0
    Ancestral   y ~ q(·|t, x), then x' ~ the bridge to y                              exact, for any steps on any grid
    Controlled  x' ~ N( x + u dt, dt I ),  u = a given control(t, x)                    nothing explicit: with a network, PIS

Each proposal q(x'|x) comes with the logarithm of what its step adds to the path weight,

    log b(x | x') − log q(x' | x),     b: the reference's noising kernel,

whose sum, plus the terminal log p̃(x_K), is log W, E[W] = Z exactly (telescoped: G(x→x')G(x₀→x)/G(x₀→x') = b). The exact
step has b/q = ψ(t', x')/ψ(t, x)·(…) which telescopes too: `Ancestral` adds nothing on the way and p̃/p̂ at the end.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ._linear import inverse_triangular, log_diagonal, matvec
from .bridge import Bridges, observe
from .targets.base import Law, Tiltable


class Proposal(eqx.Module):
    """A Gaussian proposal N(mean, L Lᵀ); `factor` is the scalar √variance or the lower triangle L."""

    mean: Float[Array, " d"]
    factor: Float[Array, ""] | Float[Array, "d d"]

    def draw(self, key: Key[Array, ""]) -> tuple[Float[Array, " d"], Float[Array, ""]]:
        """A draw and its log-density, from the same normal numbers."""
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        moved = self.factor * noise if self.factor.ndim == 0 else matvec(self.factor, noise)
        return self.mean + moved, self._log_density(noise)

    def log_density(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        residual = x - self.mean
        if self.factor.ndim == 0:
            return self._log_density(residual / self.factor)
        return self._log_density(matvec(inverse_triangular(self.factor), residual))

    def _log_density(self, noise):
        if self.factor.ndim == 0:
            log_factor = noise.size * jnp.log(self.factor)
        else:
            log_factor = log_diagonal(self.factor)
        return -0.5 * (jnp.sum(noise**2) + noise.size * jnp.log(2 * jnp.pi).astype(noise.dtype)) - log_factor


class Rule(eqx.Module):
    """How a step is taken. `now` holds the bridges of this one step (every leaf a scalar)."""

    needs_tilt: ClassVar[bool] = True
    """Whether it asks the target for tilted laws; a bare `Density` has none."""

    @abstractmethod
    def step(
        self, target: Tiltable, now: Bridges, start: Float[Array, " d"], x: Float[Array, " d"], key: Key[Array, ""]
    ) -> tuple[Float[Array, " d"], Float[Array, ""]]:
        """x' and log b(x|x') − log q(x'|x)."""

    @abstractmethod
    def log_ratio(
        self,
        target: Tiltable,
        now: Bridges,
        start: Float[Array, " d"],
        x: Float[Array, " d"],
        after: Float[Array, " d"],
        key: Key[Array, ""],
    ) -> Float[Array, ""]:
        """log b(x|x') − log q(x'|x) of a step that is given."""

    @abstractmethod
    def log_terminal(self, target: Tiltable, x: Float[Array, " d"]) -> Float[Array, ""]:
        """What the end point adds to the log-weight."""


class Gaussian(Rule):
    """A rule whose proposal is Gaussian."""

    @abstractmethod
    def proposal(self, target: Tiltable, now: Bridges, start, x, key) -> Proposal:
        """q(·|x)."""

    def step(self, target, now, start, x, key):
        key_law, key_draw = jax.random.split(key)
        after, log_q = self.proposal(target, now, start, x, key_law).draw(key_draw)
        return after, now.back.log_density(x, start, after) - log_q

    def log_ratio(self, target, now, start, x, after, key):
        return now.back.log_density(x, start, after) - self.proposal(target, now, start, x, key).log_density(after)

    def log_terminal(self, target, x):
        return target.log_density(x)


class Euler(Gaussian):
    """The Euler–Maruyama step along the optimal control, plus a correction(t, x) if one is given."""

    correction: Callable[[Float[Array, ""], Float[Array, " d"]], Float[Array, " d"]] | None = None

    def proposal(self, target, now, start, x, key):
        law = target.tilt(observe(now.observation, x, start), key)
        control = now.to_end * law.mean - now.to_centre * x
        if self.correction is not None:
            control = control + self.correction(now.t, x)
        return Proposal(x + control * now.step, jnp.sqrt(now.step))


class Controlled(Gaussian):
    """The Euler–Maruyama step along a given control(t, x), with nothing explicit beside it; both in the unit problem."""

    control: Callable[[Float[Array, ""], Float[Array, " d"]], Float[Array, " d"]]

    needs_tilt: ClassVar[bool] = False

    def proposal(self, target, now, start, x, key):
        return Proposal(x + self.control(now.t, x) * now.step, jnp.sqrt(now.step))


class Moment(Gaussian):
    """The Gaussian with the mean and covariance of the exact step: left·x + right·x̂, variance·I + right² Cov(y|x)."""

    def proposal(self, target, now, start, x, key):
        law = target.tilt(observe(now.observation, x, start), key)
        identity = jnp.eye(x.size, dtype=x.dtype)
        covariance = now.toward.variance * identity + now.toward.right**2 * law.covariance()
        return Proposal(now.toward.mean(x, law.mean), jnp.linalg.cholesky(covariance))


class Ancestral(Rule):
    """The exact step: an end point y from the tilted law, then a point of the bridge to it.

    The draw is discrete: differentiating through it raises a TypeError. Needs tilts in closed form (a mixture, a data
    set, a surrogate).
    """

    def step(self, target, now, start, x, key):
        key_law, key_end, key_bridge = jax.random.split(key, 3)
        end = target.tilt(observe(now.observation, x, start), key_law).draw(key_end)
        noise = jax.random.normal(key_bridge, x.shape, x.dtype)
        return now.toward.mean(x, end) + jnp.sqrt(now.toward.variance) * noise, jnp.zeros((), x.dtype)

    def log_ratio(self, target, now, start, x, after, key):
        return jnp.zeros((), x.dtype)

    def log_terminal(self, target, x):
        return target.log_weight(x)


class EndingOnDraw(Rule):
    """A Gaussian rule whose last step is a draw from the tilted law: for targets without a density.

    The last step then adds the log of ∫ p(y) N(x; my + n, s) dy, and the end point nothing.
    """

    rule: Gaussian

    def step(self, target, now, start, x, key):
        def draw(key):
            law = target.tilt(observe(now.observation, x, start), key)
            return law.draw(key), _log_evidence(law, now)

        return jax.lax.cond(now.toward.variance > 0, lambda key: self.rule.step(target, now, start, x, key), draw, key)

    def log_ratio(self, target, now, start, x, after, key):
        return jax.lax.cond(
            now.toward.variance > 0,
            lambda key: self.rule.log_ratio(target, now, start, x, after, key),
            lambda key: _log_evidence(target.tilt(observe(now.observation, x, start), key), now),
            key,
        )

    def log_terminal(self, target, x):
        return target.log_weight(x)


def _log_evidence(law: Law, now: Bridges) -> Float[Array, ""]:
    """log ∫ p(y) N(x; m y + n, s I) dy; the mass of p at t = 0, where x says nothing."""
    variance = jnp.where(now.t > 0, now.observation.variance, 1 / (2 * jnp.pi))
    return law.log_mass - 0.5 * law.mean.size * jnp.log(2 * jnp.pi * variance)
