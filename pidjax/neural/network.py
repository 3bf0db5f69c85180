"""Networks for the control field u(t, x), in the coordinates of the unit problem: t in [0, 1], x = (user − shift)/scale.

    Network    u = N(t, x)                               a correction: `Euler(correction=network)`
    Guided     u = N(t, x) + g(t) · clip(∇ log p̃(x))      the Path Integral Sampler: `Controlled(control)`

The last layers of N and g are zero at first, so that training starts at the reference, or at the control that is corrected.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, Key

from ..protocol import Harmonic
from ..targets.base import Target

_NUM_FREQUENCIES = 64
_SMALLEST_FREQUENCY, _LARGEST_FREQUENCY = 0.1, 100.0


class Constant(eqx.Module):
    """A value within a rule that training leaves as it is."""

    value: Any


def fourier(t: Float[Array, ""]) -> Float[Array, " features"]:
    """(sin ω_j t, cos ω_j t), 64 frequencies ω from 0.1 to 100, evenly spaced."""
    frequencies = jnp.linspace(_SMALLEST_FREQUENCY, _LARGEST_FREQUENCY, _NUM_FREQUENCIES, dtype=t.dtype)
    return jnp.concatenate([jnp.sin(frequencies * t), jnp.cos(frequencies * t)])


def _of_time(size, width, key, dtype) -> eqx.nn.MLP:
    return eqx.nn.MLP(2 * _NUM_FREQUENCIES, size, width, 1, jax.nn.silu, dtype=dtype, key=key)


def _last_zero(network: eqx.nn.MLP) -> eqx.nn.MLP:
    last = network.layers[-1]
    zeros = jnp.zeros_like(last.weight), jnp.zeros_like(last.bias)
    return eqx.tree_at(lambda network: (network.layers[-1].weight, network.layers[-1].bias), network, zeros)


class Network(eqx.Module):
    """N(t, x) = M( φ(A x + e(t)) ): a perceptron of `depth` hidden layers, to whose first the time is added.

    e is itself a perceptron of Fourier features of t; over many x at one t it is evaluated once. φ is the SiLU.

    Args:
        key: of the initial weights.
        dim: d.
        width, depth: of the hidden layers, of which there are `depth` ≥ 1.
        dtype: of the weights; JAX's default if left out.

    Raises:
        ValueError: a dimension, width or depth below 1.

    Example:
        >>> network = Network(jax.random.key(0), 2)
        >>> network(jnp.array(0.5), jnp.ones(2)).tolist()
        [0.0, 0.0]

    Source: the network of the Path Integral Sampler, arXiv 2111.15141, appendix.
    """

    of_time: eqx.nn.MLP
    of_state: eqx.nn.Linear
    rest: eqx.nn.MLP

    def __init__(
        self, key: Key[Array, ""], dim: int, *, width: int = 64, depth: int = 2, dtype: DTypeLike | None = None
    ):
        for name, value in (("dim", dim), ("width", width), ("depth", depth)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}; pass an integer >= 1")
        key_time, key_state, key_rest = jax.random.split(key, 3)
        self.of_time = _of_time(width, width, key_time, dtype)
        self.of_state = eqx.nn.Linear(dim, width, use_bias=False, dtype=dtype, key=key_state)
        self.rest = _last_zero(eqx.nn.MLP(width, dim, width, depth - 1, jax.nn.silu, dtype=dtype, key=key_rest))

    def __call__(self, t: Float[Array, ""], x: Float[Array, " d"]) -> Float[Array, " d"]:
        return self.rest(jax.nn.silu(self.of_state(x) + self.of_time(fourier(t))))


class Guided(eqx.Module):
    """u(t, x) = N(t, x − x₀) + g(t) s(x),  s = ∇ log p̃(x) · min(1, c/|∇ log p̃(x)|): what the Path Integral Sampler learns.

    Args:
        key: of the initial weights.
        target: whose log-density guides, in the user's units.
        protocol: the reference: the control lives in its unit problem.
        width, depth: as for `Network`.
        clip: c > 0, the longest gradient that is let through, in units of the reference's end scale.

    Raises:
        ValueError: a target without a density; `clip` not positive; what `Network` raises.

    Example:
        >>> from pidjax import Controlled, Density
        >>> target = Density(lambda y: -0.5 * jnp.sum((y - 1) ** 2), 2)
        >>> rule = Controlled(Guided(jax.random.key(0), target, brownian(2.0)))

    Source: Zhang & Chen, *Path Integral Sampler*, arXiv 2111.15141, eq. 13.
    """

    network: Network
    gate: eqx.nn.MLP
    target: Constant
    start: Constant
    clip: float = eqx.field(static=True)

    def __init__(
        self,
        key: Key[Array, ""],
        target: Target,
        protocol: Harmonic,
        *,
        width: int = 64,
        depth: int = 2,
        clip: float = 100.0,
    ):
        if not target.has_density:
            raise ValueError(f"target is a {type(target).__name__}, which has no log-density to guide by; pass a Density")
        if not clip > 0:
            raise ValueError(f"clip is {clip}; pass a number > 0")
        key_network, key_gate = jax.random.split(key)
        unit = protocol.unit(*target.location())
        dtype = unit.start.dtype
        self.network = Network(key_network, target.dim, width=width, depth=depth, dtype=dtype)
        self.gate = _last_zero(_of_time("scalar", width, key_gate, dtype))
        self.target, self.start = Constant(target.rescaled(unit.shift, unit.scale)), Constant(unit.start)
        self.clip = clip

    def __call__(self, t: Float[Array, ""], x: Float[Array, " d"]) -> Float[Array, " d"]:
        score = jax.grad(self.target.value.log_density)(x)
        squared = jnp.sum(score**2)
        long = squared > self.clip**2
        score = score * jnp.where(long, self.clip / jnp.sqrt(jnp.where(long, squared, 1)), 1)
        return self.network(t, x - self.start.value) + self.gate(fourier(t)) * score
