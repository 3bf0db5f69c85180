"""Step rules: from x at t to x' at t', given the tilted law at (t, x) and the reference pinned at its end.

    Euler       x' ~ N( x + (f + u) dt, dt I ),  u = u*(t, x) + correction             exact as the step → 0
    Moment      x' ~ N( E[x'], left, Cov[x'] ) with the first two moments of the exact step   exact for a Gaussian, as step → 0
    Ancestral   y ~ q(·|t, x), then x' ~ the bridge to y                              exact, for any steps on any grid
    Controlled  x' ~ N( x + (f + u) dt, dt I ),  u = a given control(t, x)              nothing explicit: with a network, PIS

Each proposal q(x'|x) comes with the logarithm of what its step adds to the path weight,

    log b(x | x') − log q(x' | x),     b: the reference's noising kernel,

whose sum, plus the terminal log p̃(x_K), is log W, E[W] = Z exactly (telescoped: G(x→x')G(x₀→x)/G(x₀→x') = b). The exact
step has b/q = ψ(t', x')/ψ(t, x)·(…) which telescopes too: `Ancestral` adds nothing on the way and p̃/p̂ at the end.

The tilted law may be an estimate, of random points: it is realised once at each state, and what a step draws, what its density
is and the x̂ that is shown are all of that one law.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from .._doors.checks import check_kind
from .._doors.functions import in_words, outcome
from .._doors.show import shown_fields
from .._maths.maps import Factor, apply, cholesky, inverse_factor, lift, log_volume, sandwich
from ..process.bridge import StartLaws, StepLaws
from ..targets.base import (
    AbstractLaw,
    ExactlyTilted,
    Tilted,
    WithCovariance,
    WithDraws,
    WithMass,
    able,
)


class Proposal(eqx.Module):
    """A Gaussian proposal N(mean, L Lᵀ)."""

    mean: Float[Array, " d"]
    factor: Factor

    def draw(self, key: Key[Array, ""]) -> tuple[Float[Array, " d"], Float[Array, ""]]:
        """A draw and its log-density, from the same normal numbers."""
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return self.mean + apply(self.factor, noise), self._log_density(noise)

    def log_density(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        return self._log_density(apply(inverse_factor(self.factor), x - self.mean))

    def _log_density(self, noise):
        log_factor = log_volume(self.factor, noise.size)
        return -0.5 * (jnp.sum(noise**2) + noise.size * math.log(2 * math.pi)) - log_factor


class AbstractRule(eqx.Module):
    """How a step is taken. `now` holds the bridges of this one step (every leaf a scalar), `law` the tilted law at x.

    Attributes:
        needs: what the target must be able to: `Tilted`, `ExactlyTilted`, or anything for a rule that asks for no law.
        weighs_target_alone: whether E[W] is the target's own Z.
    """

    needs: ClassVar[type] = Tilted
    weighs_target_alone: ClassVar[bool] = True

    __repr__ = shown_fields

    @property
    def needs_law(self) -> tuple[type[AbstractLaw], ...]:
        """What the tilted laws must be able to, beside their mean."""
        return ()

    @property
    def start_rule(self) -> "AbstractRule":
        """The rule that draws a Gaussian start."""
        return Moment()

    def check(self, t: Float[Array, ""], x: Float[Array, " d"]) -> None:
        """Raise unless the user's own fields, if it has any, give a vector like x at one (t, x)."""

    def weighted_state(self, law: Any, now: StepLaws, x: Float[Array, " d"]) -> Float[Array, " d"]:
        """The x̂ that the step is taken with."""
        return law.mean

    @abstractmethod
    def step(
        self, law: Any, now: StepLaws | StartLaws, start: Float[Array, " d"], x: Float[Array, " d"], key: Key[Array, ""]
    ) -> tuple[Float[Array, " d"], Float[Array, ""]]:
        """x' and log b(x|x') − log q(x'|x)."""

    @abstractmethod
    def log_ratio(
        self,
        law: Any,
        now: StepLaws | StartLaws,
        start: Float[Array, " d"],
        x: Float[Array, " d"],
        after: Float[Array, " d"],
    ) -> Float[Array, ""]:
        """log b(x|x') − log q(x'|x) of a step that is given."""

    def log_twist(self, law: Any, now: StepLaws | StartLaws) -> Float[Array, ""]:
        """log ψ̂: what the rest of a path is expected to multiply its weight by, which resampling looks ahead with."""
        return jnp.zeros((), law.mean.dtype)

    @abstractmethod
    def finish(self, target: Any, ends: Float[Array, "n d"]) -> Float[Array, " n"]:
        """What the end points add to the log-weights: it sees those of all paths."""


class AbstractGaussianRule(AbstractRule):
    """A rule whose proposal is Gaussian."""

    def log_twist(self, law, now):
        check_law(law, (WithMass,), "resampling")
        return log_evidence(law, now)

    @abstractmethod
    def proposal(self, law: Any, now: Any, x: Float[Array, " d"]) -> Proposal:
        """q(·|x)."""

    def step(self, law, now, start, x, key):
        after, log_q = self.proposal(law, now, x).draw(key)
        return after, now.noising.log_density(x, start, after) - log_q

    def log_ratio(self, law, now, start, x, after):
        return now.noising.log_density(x, start, after) - self.proposal(law, now, x).log_density(after)

    def finish(self, target, ends):
        return jax.vmap(target.log_density)(ends)


class Euler(AbstractGaussianRule):
    """The Euler–Maruyama step along the optimal control, plus a correction(t, x) if one is given."""

    correction: Callable[[Float[Array, ""], Float[Array, " d"]], Float[Array, " d"]] | None = None

    def __check_init__(self):
        if self.correction is not None:
            check_kind("correction", self.correction, Callable, "a function of (t, x), or an Equinox module")

    def check(self, t, x):
        if self.correction is not None:
            check_field("correction", self.correction, t, x)

    def proposal(self, law: AbstractLaw, now: StepLaws, x):
        drift = now.drift(x, law.mean)
        if self.correction is not None:
            drift = drift + self.correction(now.t, x)
        return Proposal(x + drift * now.step, jnp.sqrt(now.step))


class Controlled(AbstractGaussianRule):
    """The Euler–Maruyama step along a given control(t, x), with nothing explicit beside it; both in the unit problem.

    A Gaussian start is drawn as it is, whatever the end.
    """

    control: Callable[[Float[Array, ""], Float[Array, " d"]], Float[Array, " d"]]

    needs: ClassVar[type] = object

    def __check_init__(self):
        check_kind("control", self.control, Callable, "a function of (t, x), or an Equinox module")

    def check(self, t, x):
        check_field("control", self.control, t, x)

    @property
    def start_rule(self):
        return Unconditioned()

    def proposal(self, law, now: StepLaws, x):
        drift = self.control(now.t, x)
        if now.force is not None:
            drift = drift + now.force(x)
        return Proposal(x + drift * now.step, jnp.sqrt(now.step))


class Unconditioned(AbstractGaussianRule):
    """The Gaussian start of the reference, not conditioned on the end."""

    needs: ClassVar[type] = object

    def proposal(self, law, now: StartLaws, x):
        return Proposal(now.mean, now.factor)


class Moment(AbstractGaussianRule):
    """The Gaussian with the mean and covariance of the exact step: left·x + right·x̂ + offset, Σ + right Cov(y|x) rightᵀ.

    Of a data set beyond 32 dimensions, with the variances of Cov(y|x) alone.
    """

    @property
    def needs_law(self):
        return (WithCovariance,)

    def proposal(self, law: WithCovariance, now: StepLaws | StartLaws, x):
        within, between = now.ahead.covariance, sandwich(now.ahead.right, law.step_covariance())
        rank = max(within.ndim, between.ndim)
        covariance = lift(within, rank, x.size) + lift(between, rank, x.size)
        return Proposal(now.ahead.mean(x, law.mean), cholesky(covariance))


class AbstractDrawingRule(AbstractRule):
    """A rule that draws from exact laws: where it starts as `Ancestral`, and an end point is corrected as there."""

    needs: ClassVar[type] = ExactlyTilted

    @property
    def needs_law(self):
        return (WithDraws,)

    @property
    def start_rule(self):
        return Ancestral()

    def finish(self, target, ends):
        return jax.vmap(target.log_correction)(ends)


class Ancestral(AbstractDrawingRule):
    """The exact step: an end point y from the tilted law, then a point of the bridge to it.

    The draw is discrete: differentiating through it raises a TypeError. Needs tilts in closed form (a mixture, a data
    set, a surrogate).
    """

    def step(self, law: WithDraws, now, start, x, key):
        key_end, key_bridge = jax.random.split(key)
        return now.ahead.draw(key_bridge, x, law.draw(key_end)), jnp.zeros((), x.dtype)

    def log_ratio(self, law, now, start, x, after):
        return jnp.zeros((), x.dtype)


class EndingOnDraw(AbstractRule):
    """A Gaussian rule whose last step is a draw from the tilted law: for targets without a density.

    The last step then adds the log of ∫ p(y) N(x; My + n, Σ) dy, and the end point nothing.
    """

    rule: AbstractGaussianRule

    needs: ClassVar[type] = ExactlyTilted

    @property
    def needs_law(self):
        return (*self.rule.needs_law, WithMass, WithDraws)

    def check(self, t, x):
        self.rule.check(t, x)

    def weighted_state(self, law, now, x):
        return self.rule.weighted_state(law, now, x)

    def step(self, law: Any, now, start, x, key):
        return jax.lax.cond(
            now.ahead.is_spread,
            lambda key: self.rule.step(law, now, start, x, key),
            lambda key: (law.draw(key), log_evidence(law, now)),
            key,
        )

    def log_ratio(self, law: Any, now, start, x, after):
        return jax.lax.cond(
            now.ahead.is_spread,
            lambda: self.rule.log_ratio(law, now, start, x, after),
            lambda: log_evidence(law, now),
        )

    def log_twist(self, law, now):
        return self.rule.log_twist(law, now)

    def finish(self, target, ends):
        return jax.vmap(target.log_correction)(ends)


class Unweighted(AbstractRule):
    """A rule whose steps are taken as if exact: for a target of which nothing but the mean of its laws is known.

    Every weight is one, and the samples are the target's as the step → 0 only.
    """

    rule: AbstractGaussianRule

    @property
    def needs_law(self):
        return self.rule.needs_law

    @property
    def start_rule(self):
        return Unweighted(self.rule.start_rule)  # pyright: ignore[reportArgumentType]

    def check(self, t, x):
        self.rule.check(t, x)

    def weighted_state(self, law, now, x):
        return self.rule.weighted_state(law, now, x)

    def step(self, law, now, start, x, key):
        return self.rule.step(law, now, start, x, key)[0], jnp.zeros((), x.dtype)

    def log_ratio(self, law, now, start, x, after):
        return jnp.zeros((), x.dtype)

    def finish(self, target, ends):
        return jnp.zeros(ends.shape[0], ends.dtype)


def log_evidence(law: Any, now: StepLaws | StartLaws) -> Float[Array, ""]:
    """log ∫ p(y) N(x; My + n, Σ) dy; the mass of p where x says nothing."""
    return law.log_mass - now.observation.log_normaliser(law.mean.size)


def check_law(law: AbstractLaw, needs: tuple[type[AbstractLaw], ...], of: str) -> None:
    """Raise unless a tilted law is able to do what is needed of it."""
    lacking = " and ".join(ability.__name__ for ability in needs if not able(law, ability))
    if lacking:
        kind = type(getattr(law, "given", law)).__name__
        raise ValueError(
            f"{of} needs tilted laws {lacking}, and those of the target are {kind}: take Euler(), which needs their mean "
            f"alone, or let the law inherit from {lacking}"
        )


def check_field(name: str, field: Callable, t: Float[Array, ""], x: Float[Array, " d"]) -> None:
    """Raise unless a field gives a vector like x at one (t, x)."""
    found = outcome(name, field, t, x, of="one time and point")
    if getattr(found, "shape", None) != x.shape or found.dtype != x.dtype:
        raise ValueError(
            f"{name} returns {in_words(found)} for one time and point, {in_words((t, x))}; return {in_words(x)}"
        )
