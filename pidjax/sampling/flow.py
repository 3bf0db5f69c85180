"""The probability flow: paths without noise whose states have the laws of the process, time by time.

    x = M y + n + L z     →     x' = M' x̂ + n' + L' ẑ,        ẑ = L⁻¹(x − M x̂ − n)

The end point and the noise that the state is expected to be made of are held over a step, and made into a state at t'. As the
step → 0 this is dx/dt = v − ½σ²∇log p_t, with v the drift of the process: in score-based diffusion the flow of its ordinary
differential equation, and the step that of implicit models.
"""

import jax
import jax.numpy as jnp

from .._maths.maps import apply, cholesky, identity, sandwich
from ..process.bridge import StartLaws, StepLaws
from .rules import AbstractDrawingRule, Ancestral


class Flow(AbstractDrawingRule):
    """The step of the probability flow, exact as the step → 0; every weight is that of its end point alone.

    From a point nothing flows: the first step is drawn, as `Ancestral` does, and so is a Gaussian start. The last goes to x̂.

    Example:
        >>> target = pid.GaussianMixture.isotropic(jnp.array([[-1.0], [2.0]]), 0.1)
        >>> solution = pid.sample(jax.random.key(0), target, rule=Flow(), num_steps=100)
        >>> share, error = solution.expectation(lambda y: (y[0] > 0.5).astype(float))
        >>> bool(abs(share - 0.5) < 4 * error)
        True

    Source: Song et al., arXiv 2011.13456; Song, Meng & Ermon, *Denoising Diffusion Implicit Models*, arXiv 2010.02502.
    """

    def step(self, law, now, start, x, key):
        def flown(_):
            seen, ahead = now.observation, now.ahead
            expected = seen.mean(start, law.mean)
            noise = apply(seen.whitening, x - expected)
            return ahead.mean(expected, law.mean) + apply(_factor_ahead(now), noise)

        drawn = Ancestral().step
        after = jax.lax.cond(now.observation.is_spread, flown, lambda key: drawn(law, now, start, x, key)[0], key)
        return after, jnp.zeros((), x.dtype)

    def log_ratio(self, law, now, start, x, after):
        return jnp.zeros((), x.dtype)


def _factor_ahead(now: StepLaws | StartLaws):
    """L' of the observation at the end of the step, zero at the end of time."""
    is_spread = now.ahead.is_spread
    covariance = sandwich(now.ahead.left, now.observation.covariance) + now.ahead.covariance
    return jnp.where(is_spread, cholesky(jnp.where(is_spread, covariance, identity(covariance))), 0)
