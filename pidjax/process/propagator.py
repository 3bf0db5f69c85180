"""The Green function of a linear-Gaussian reference as a value.

The reference dx = (Fx + c) dt + dW, killed at the rate ½xᵀSx + ℓᵀx + k, has the Green function

    G(x → y) = exp( g − ½xᵀJx + ηᵀx ) N( y; Φx + b, Q ):

a linear-Gaussian transition times a quadratic weight. In this form values compose without loss of digits, as they do in
parallel Kalman smoothing; the precision form (the coefficients of the exponent) loses them all in float32.

    segment    constant coefficients, from the exponential of the Hamiltonian flow of (x, p)
    compose    Chapman–Kolmogorov: from x to z through any y
    condition  the reference pinned at both ends

Everything holds while Q_first⁻¹ + J_second > 0 wherever two meet: there is then no conjugate point.
"""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._maths.maps import (
    Map,
    adjoint,
    apply,
    cholesky,
    diagonal,
    identity,
    inverse,
    inverse_and_log_determinant,
    inverse_factor,
    log_volume,
    norm,
    plus_identity,
    product,
    sandwich,
    symmetric,
)  # fmt: skip
from .bridge import Bridge, LinearDrift

_HALVINGS = 14
"""Most doublings of a short segment: √‖S‖ τ + ‖F‖ τ up to 2¹⁴."""


class Generator(NamedTuple):
    """The coefficients F, c, S, ℓ, k of the reference; the three maps share one structure.

    Attributes:
        drift: F.
        push: c.
        stiffness: S, symmetric.
        slope: ℓ.
        rate: k.
    """

    drift: Map
    push: Float[Array, " d"]
    stiffness: Map
    slope: Float[Array, " d"]
    rate: Float[Array, ""]


class Propagator(eqx.Module):
    """exp( g − ½xᵀJx + ηᵀx ) N( y; Φx + b, Q ).

    Attributes:
        transition: Φ.
        offset: b.
        covariance: Q; zero for the identity.
        weight: J.
        slope: η.
        log_scale: g.
    """

    transition: Map
    offset: Float[Array, " d"]
    covariance: Map
    weight: Map
    slope: Float[Array, " d"]
    log_scale: Float[Array, ""]

    @classmethod
    def identity(cls, like: Map, vector: Float[Array, " d"]) -> "Propagator":
        """A duration of zero: Φ = I, all else 0."""
        zero, none = jnp.zeros_like(like), jnp.zeros_like(vector)
        return cls(identity(like), none, zero, zero, none, jnp.zeros((), vector.dtype))

    @classmethod
    def gaussian(cls, mean: Float[Array, " d"], covariance: Map) -> "Propagator":
        """A Gaussian start N(y; mean, covariance), put in front of all else: Φ = 0."""
        zero, none = jnp.zeros_like(covariance), jnp.zeros_like(mean)
        return cls(zero, mean, covariance, zero, none, jnp.zeros((), mean.dtype))

    @property
    def has_noise(self) -> Array:
        return jnp.any(self.covariance > 0)

    @property
    def _safe_covariance(self) -> Map:
        return jnp.where(self.has_noise, self.covariance, identity(self.covariance))

    def log(self, x: Float[Array, " d"], y: Float[Array, " d"]) -> Float[Array, ""]:
        """log G(x → y); without meaning for a duration of zero."""
        factor = cholesky(self._safe_covariance)
        white = apply(inverse_factor(factor), y - apply(self.transition, x) - self.offset)
        log_normaliser = log_volume(factor, x.size) + 0.5 * x.size * math.log(2 * math.pi)
        quadratic = 0.5 * jnp.sum(x * apply(self.weight, x)) - jnp.sum(self.slope * x)
        return self.log_scale - quadratic - 0.5 * jnp.sum(white**2) - log_normaliser

    def pull(self, ahead: Bridge) -> LinearDrift:
        """∇ log ψ at the start of a duration > 0, as a function of x and x̂: η − Jx + ΦᵀQ⁻¹(x̂ − Φx − b).

        Args:
            ahead: this propagator conditioned behind any other one of positive covariance; its law x | ·, y ~ N(My + n, Σ)
                holds the coupling of x and y, which is ΦᵀQ⁻¹ = Σ⁻¹M whatever came before.
        """
        to_end = product(adjoint(ahead.whitening), product(ahead.whitening, ahead.right))
        to_centre = symmetric(self.weight + product(to_end, self.transition))
        return LinearDrift(to_end, to_centre, self.slope - apply(to_end, self.offset))


def compose(first: Propagator, second: Propagator) -> Propagator:
    """∫ G₁(x → y) G₂(y → z) dy, with R = (I + Q₁J₂)⁻¹."""
    r, log_meeting = inverse_and_log_determinant(
        plus_identity(product(first.covariance, second.weight)), first.offset.size
    )
    slope = second.slope - apply(second.weight, first.offset)
    carried = apply(r, first.offset + apply(first.covariance, second.slope))
    forward = product(second.transition, r)
    tilt = (
        -0.5 * jnp.sum(first.offset * apply(second.weight, apply(r, first.offset)))
        + jnp.sum(second.slope * apply(r, first.offset))
        + 0.5 * jnp.sum(second.slope * apply(product(r, first.covariance), second.slope))
    )
    return Propagator(
        transition=product(forward, first.transition),
        offset=apply(second.transition, carried) + second.offset,
        covariance=symmetric(product(product(forward, first.covariance), adjoint(second.transition)))
        + second.covariance,
        weight=first.weight
        + symmetric(product(product(adjoint(first.transition), second.weight), product(r, first.transition))),
        slope=first.slope + apply(adjoint(first.transition), apply(adjoint(r), slope)),
        log_scale=first.log_scale + second.log_scale - 0.5 * log_meeting + tilt,
    )


def condition(first: Propagator, second: Propagator) -> Bridge:
    """The law of the point where two propagators meet, given both ends.

    With P = (Q₁⁻¹ + J₂)⁻¹ the covariance given the start, and Y = Q₂ + Φ₂PΦ₂ᵀ that of the end,

        right = PΦ₂ᵀY⁻¹,  left = (I − right Φ₂) R Φ₁,  covariance = (I − right Φ₂) P (I − right Φ₂)ᵀ + right Q₂ rightᵀ.

    Source: the update of a Kalman filter, in Joseph's form.
    """
    r = inverse(plus_identity(product(first.covariance, second.weight)))
    p = symmetric(product(r, first.covariance))
    begun, ends_later = first.has_noise, second.has_noise
    ahead = second.covariance + sandwich(second.transition, p)
    gain = product(product(p, adjoint(second.transition)), inverse(ahead))
    gain = jnp.where(ends_later, gain, identity(gain))
    remain = jnp.where(ends_later, identity(gain) - product(gain, second.transition), 0)
    free = apply(r, first.offset + apply(first.covariance, second.slope))
    return Bridge.of(
        left=product(product(remain, r), first.transition),
        right=gain,
        offset=apply(remain, free) - apply(gain, second.offset),
        covariance=sandwich(remain, p) + sandwich(gain, second.covariance),
        is_spread=begun & ends_later,
    )


def segments(generators: Generator, durations: Float[Array, " n"]) -> Propagator:
    """The propagators of n stretches of constant coefficients (every leaf of the generators has n in front).

    A stretch is halved until h(√‖S‖ + ‖F‖) ≤ 1 and no further, exponentiated, and doubled back.
    """
    speed = jax.vmap(lambda part: jnp.sqrt(norm(part.stiffness)) + norm(part.drift))(generators)
    halvings = jnp.clip(jnp.ceil(jnp.log2(jnp.maximum(jax.lax.stop_gradient(durations * speed), 1))), 0, _HALVINGS)
    short = jax.vmap(_short)(generators, durations / 2**halvings)

    def double(propagators):
        return jax.vmap(compose)(propagators, propagators)

    @jax.checkpoint
    def advance(propagators, number):
        def double_some(propagators):
            def choose(new, old):
                wanted = (number < halvings).reshape(-1, *[1] * (new.ndim - 1))
                return jnp.where(wanted, new, old)

            return jax.tree.map(choose, double(propagators), propagators)

        return jax.lax.cond(number < jnp.max(halvings), double_some, lambda same: same, propagators), None

    numbers = jnp.arange(_HALVINGS, dtype=durations.dtype)
    return jax.lax.scan(advance, short, numbers)[0]


def _short(generator: Generator, duration: Float[Array, ""]) -> Propagator:
    """The propagator from E = exp(τH) by Taylor's series, where the spectral radius of τH is at most two.

    H acts on (x, p, 1) as [[F, I, c], [S, −Fᵀ, ℓ], [0, 0, 0]]; w' = ℓᵀx − cᵀp is integrated with it.
    """
    drift, push, stiffness, slope, rate = generator
    drift, stiffness = duration * drift, duration * stiffness
    push, slope = duration * push, duration * slope
    terms = 14 if jnp.finfo(duration.dtype).bits <= 32 else 24

    def flow(x, p, times):
        """τH applied to a pair of columns; `times` multiplies them by a map."""
        return times(drift, x) + duration * p, times(stiffness, x) - times(adjoint(drift), p)

    def horner(blocks, k):
        """E ← I + τH E/k."""
        x_x, x_p, p_x, p_p = blocks
        (x_x, p_x), (x_p, p_p) = flow(x_x, p_x, product), flow(x_p, p_p, product)
        return (plus_identity(x_x / k), x_p / k, p_x / k, plus_identity(p_p / k)), None

    def accumulate(carry, k):
        """The series Σ (τH)ʲ/(j+1)! of the column (c, ℓ) and of the row (ℓ, −c), and their product's, one term on."""
        (v_x, v_p), (r_x, r_p), e_x, e_p, row_p, e_w = carry
        v_x, v_p = (part / (k + 1) for part in flow(v_x, v_p, apply))
        r_x, r_p = apply(adjoint(drift), r_x) + apply(stiffness, r_p), duration * r_x - apply(drift, r_p)
        r_x, r_p = r_x / (k + 1), r_p / (k + 1)
        e_w = e_w + (jnp.sum(slope * v_x) - jnp.sum(push * v_p)) / (k + 2)
        return ((v_x, v_p), (r_x, r_p), e_x + v_x, e_p + v_p, row_p + r_p, e_w), None

    orders = jnp.arange(1, terms + 1, dtype=duration.dtype)
    one, zero = identity(drift), jnp.zeros_like(drift)
    (_, x_p, p_x, p_p), _ = jax.lax.scan(horner, (one, zero, zero, one), orders[::-1])
    first = (push, slope), (slope, -push), push, slope, -push, jnp.zeros_like(duration)
    (_, _, e_x, e_p, row_p, e_w), _ = jax.lax.scan(accumulate, first, orders)
    dim = push.size
    trace = jnp.sum(diagonal(drift, dim))
    back, log_growth = inverse_and_log_determinant(p_p, dim)
    q = symmetric(product(x_p, back))
    pulled = apply(back, e_p)
    return Propagator(
        transition=adjoint(back),
        offset=e_x - apply(q, e_p),
        covariance=q,
        weight=symmetric(product(back, p_x)),
        slope=-pulled,
        log_scale=-0.5 * (log_growth + trace + e_w - jnp.sum(row_p * pulled)) - duration * rate,
    )
