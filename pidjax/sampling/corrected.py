"""A correction of the weighted state, which a network may learn: what the explicit control gets wrong, and no more.

    x̂'(t, x) = x̂(t, x) + (1/σ² + K(t))^{−1/2} c(t, x),      K = Aᵀ A,  A the gain of the observation ζ = A y + noise

(1/σ² + K)⁻¹ is the variance of an end point of variance σ² once it is seen through the noise: a correction c of size one is
one standard deviation, at any time, and dies out as t → 1. Where c = 0 the rule is the explicit one, path by path. Whatever
c is, E[W] = Z.
"""

import math
from collections.abc import Callable
from numbers import Real

import equinox as eqx
from jaxtyping import Array, Float

from .._doors.checks import check_kind
from .._maths.maps import adjoint, apply, cholesky_of_one_plus_square, inverse_factor, product
from ..process.bridge import StepLaws
from ..targets.base import AbstractLaw, Tilted, WithCovariance
from .rules import AbstractGaussianRule, check_field


class CorrectedLaw(WithCovariance):
    """A tilted law with another mean."""

    mean: Float[Array, " d"]
    given: AbstractLaw

    def covariance(self):
        assert isinstance(self.given, WithCovariance)
        return self.given.covariance()

    def step_covariance(self):
        assert isinstance(self.given, WithCovariance)
        return self.given.step_covariance()


class Corrected(AbstractGaussianRule):
    """The steps of a Gaussian rule toward x̂ + (1/σ² + K)^{−1/2} c(t, x), in the unit problem.

    Args:
        rule: `Moment()`, `Euler()`, or another Gaussian rule that asks for tilted laws.
        correction: c, a function of (t, x) to a vector like x; an Equinox module, as `learning.Network`, can be trained.
        deviation: σ > 0, the target's standard deviation in the unit problem: 1 with the default protocol.

    Raises:
        ValueError: a rule that is not Gaussian or asks for no law; no function; a deviation that is not positive.

    Example:
        >>> target = pid.GaussianMixture.isotropic(jnp.array([[-1.0], [1.0]]), 0.1)
        >>> rule = Corrected(pid.Moment(), lambda t, x: jnp.zeros_like(x))
        >>> plain, corrected = (pid.sample(jax.random.key(0), target, rule=one, num_samples=9) for one in (pid.Moment(), rule))
        >>> bool(jnp.allclose(plain.samples, corrected.samples))
        True
    """

    rule: AbstractGaussianRule
    correction: Callable[[Float[Array, ""], Float[Array, " d"]], Float[Array, " d"]]
    deviation: float = eqx.field(static=True)

    def __init__(self, rule, correction, *, deviation: float = 1.0):
        check_kind("rule", rule, AbstractGaussianRule, "Moment(), Euler() or another Gaussian rule")
        if not issubclass(rule.needs, Tilted):
            raise ValueError(
                f"rule is {type(rule).__name__}, which asks for no tilted law to correct; train its own control"
            )
        check_kind("correction", correction, Callable, "a function of (t, x), or an Equinox module")
        self.rule, self.correction = rule, correction
        check_kind("deviation", deviation, Real, "a number > 0")
        if not 0 < deviation < math.inf:
            raise ValueError(f"deviation is {deviation}; pass a number > 0")
        self.deviation = float(deviation)

    @property
    def needs_law(self):
        return self.rule.needs_law

    @property
    def start_rule(self):
        return self.rule.start_rule

    def check(self, t, x):
        self.rule.check(t, x)
        check_field("correction", self.correction, t, x)

    def weighted_state(self, law: AbstractLaw, now: StepLaws, x):
        gain = product(now.observation.whitening, now.observation.right)
        root = inverse_factor(cholesky_of_one_plus_square(adjoint(self.deviation * gain)))
        return law.mean + self.deviation * apply(adjoint(root), self.correction(now.t, x))

    def proposal(self, law: AbstractLaw, now: StepLaws, x):
        return self.rule.proposal(CorrectedLaw(self.weighted_state(law, now, x), law), now, x)
