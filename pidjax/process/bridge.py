"""The reference pinned at both ends: the one law that the sampler is made of.

Conditioned to start at a and to end at b, the reference in between is Gaussian, affine in both ends:

    x | a, b  ~  N( left a + right b + offset,  L Lᵀ ).

It is used three ways:

    observation   x_t  | x₀, y      0 → t → 1      what the state says of the end point
    ahead         x_t' | x_t, y     t → t' → 1     a step, once the end point is known
    noising       x_t  | x₀, x_t'   0 → t → t'     the noising kernel, which weighs the path

At either end of its interval the law is a point, L = 0.
"""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from .._maths.maps import Factor, Map, apply, cholesky, identity, inverse_factor, log_volume, product


class Bridge(NamedTuple):
    """N( left · start + right · end + offset, L Lᵀ ).

    Attributes:
        left, right: linear maps: scalars, diagonals or matrices.
        offset: shape (d,), or a scalar zero.
        covariance: L Lᵀ, a map; unlike L it can be differentiated in time where it vanishes.
        factor, whitening: L and L⁻¹, lower triangular maps; both zero where the law is a point.
    """

    left: Map
    right: Map
    offset: Float[Array, "..."]
    covariance: Map
    factor: Factor
    whitening: Factor

    @classmethod
    def of(cls, left: Map, right: Map, offset: Float[Array, "..."], covariance: Map, is_spread: Array) -> "Bridge":
        """From the covariance, which is positive definite where `is_spread` and is taken for zero elsewhere."""
        factor = cholesky(jnp.where(is_spread, covariance, identity(covariance)))
        whitening = inverse_factor(factor)
        covariance = jnp.where(is_spread, covariance, covariance - jax.lax.stop_gradient(covariance))
        return cls(left, right, offset, covariance, jnp.where(is_spread, factor, 0), jnp.where(is_spread, whitening, 0))

    @property
    def is_spread(self) -> Array:
        """Whether the law is more than a point."""
        return jnp.any(self.factor > 0)

    def mean(self, start: Float[Array, " d"], end: Float[Array, " d"]) -> Float[Array, " d"]:
        return apply(self.left, start) + apply(self.right, end) + self.offset

    def draw(self, key: Key[Array, ""], start: Float[Array, " d"], end: Float[Array, " d"]) -> Float[Array, " d"]:
        """A draw of the state between."""
        return self.mean(start, end) + apply(self.factor, jax.random.normal(key, end.shape, end.dtype))

    def log_normaliser(self, dim: int) -> Float[Array, ""]:
        """½ log det 2πΣ; 0 where the law is a point."""
        safe = jnp.where(self.is_spread, self.factor, identity(self.factor))
        log_factor = log_volume(safe, dim)
        return jnp.where(self.is_spread, log_factor + 0.5 * dim * math.log(2 * math.pi), 0)

    def log_density(
        self, between: Float[Array, " d"], start: Float[Array, " d"], end: Float[Array, " d"]
    ) -> Float[Array, ""]:
        """log N(between; mean, L Lᵀ); 0 where the law is a point, which the state then is on."""
        white = apply(self.whitening, between - self.mean(start, end))
        return -0.5 * jnp.sum(white**2) - self.log_normaliser(between.size)


class Observation(NamedTuple):
    """The state as a noisy observation of the end point y, in units of its noise: value = gain · y + N(0, I).

    gainᵀ gain = K is the signal-to-noise ratio: 0 at the start of time. The pair is what a target is tilted by.
    """

    gain: Map
    value: Float[Array, " d"]


def observe(bridge: Bridge, x: Float[Array, " d"], start: Float[Array, " d"]) -> Observation:
    """The observation that the state x makes of the end point: ( L⁻¹ right, L⁻¹(x − left·x₀ − offset) ).

    At t = 0 the state is the start and says nothing; any other state there has no law, and gives NaN.
    """
    residual = x - apply(bridge.left, start) - bridge.offset
    is_start = jnp.abs(x - start) <= 8 * jnp.finfo(x.dtype).eps * jnp.abs(start)
    value = jnp.where(bridge.is_spread | is_start, apply(bridge.whitening, residual), jnp.nan)
    return Observation(product(bridge.whitening, bridge.right), value)


class Affine(NamedTuple):
    """The affine field x ↦ matrix · x + vector."""

    matrix: Map
    vector: Float[Array, "..."]

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, " d"]:
        return apply(self.matrix, x) + self.vector


class LinearDrift(NamedTuple):
    """A drift that is affine in the state and in the mean end point: to_end · x̂ − to_centre · x + push."""

    to_end: Map
    to_centre: Map
    push: Float[Array, "..."]

    def __call__(self, x: Float[Array, " d"], weighted_state: Float[Array, " d"]) -> Float[Array, " d"]:
        return apply(self.to_end, weighted_state) - apply(self.to_centre, x) + self.push


class StepLaws(eqx.Module):
    """All that the rollout needs of the reference along a grid; every leaf has the grid's K steps in front.

    Attributes:
        t, step: start and length of each step.
        observation, ahead, noising: the three laws.
        drift: f + u* as a function of x and x̂.
        force: f, or None for none.
    """

    t: Float[Array, " *K"]
    step: Float[Array, " *K"]
    observation: Bridge
    ahead: Bridge
    noising: Bridge
    drift: LinearDrift
    force: Affine | None

    @property
    def num_steps(self) -> int:
        return self.t.shape[0]


class StartLaws(NamedTuple):
    """What draws a Gaussian start x₀ of the reference.

    Attributes:
        observation, ahead, noising: the three laws of this first step, from nothing to x₀.
        mean, factor: m₀ and L₀ of the start N(m₀, L₀L₀ᵀ) itself, not conditioned on the end.
    """

    observation: Bridge
    ahead: Bridge
    noising: Bridge
    mean: Float[Array, " d"]
    factor: Factor


def stacked(trees: list) -> Any:
    """One tree with the trees along a new leading axis: one batch of matrices instead of several programs of them."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def unstacked(tree: Any) -> list:
    """The trees along the leading axis."""
    count = jax.tree.leaves(tree)[0].shape[0]
    return [jax.tree.map(lambda leaf: leaf[k], tree) for k in range(count)]  # noqa: B023
