"""Networks for the control u(t, x), in the coordinates of the unit problem: t in [0, 1], x = (user − shift)/scale.

    Network    u = N(t, x)                               corrects an explicit control: `Euler(correction=network)`
    Guided     u = N(t, x − x₀) + g(t) · clip(∇log p̃(x))   the Path Integral Sampler: `Controlled(guided)`

The last layers of N and g are zero at first, so training starts at the reference, or at the control that is corrected.
"""

from numbers import Real

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, DTypeLike, Float, Key

from .._doors.checks import as_real, as_scalar, check_count, check_key, check_kind
from .._doors.functions import in_words
from .._doors.show import shown
from ..process.protocol import Protocol
from ..sampling.problem import Problem
from ..targets.base import AbstractTarget, WithDensity, able
from .parameters import Fixed

_NUM_FREQUENCIES = 64
_LOWEST_FREQUENCY, _HIGHEST_FREQUENCY = 0.1, 100.0


def fourier_features(t: Float[Array, ""]) -> Float[Array, " features"]:
    """(sin ω_j t, cos ω_j t) at 64 evenly spaced frequencies ω_j from 0.1 to 100."""
    frequencies = jnp.linspace(_LOWEST_FREQUENCY, _HIGHEST_FREQUENCY, _NUM_FREQUENCIES, dtype=t.dtype)
    return jnp.concatenate([jnp.sin(frequencies * t), jnp.cos(frequencies * t)])


def _perceptron_of_time(key, size, width: int, dtype) -> eqx.nn.MLP:
    return eqx.nn.MLP(2 * _NUM_FREQUENCIES, size, width, 1, jax.nn.silu, dtype=dtype, key=key)


def _zero_last_layer(perceptron: eqx.nn.MLP) -> eqx.nn.MLP:
    def last(perceptron):
        return perceptron.layers[-1].weight, perceptron.layers[-1].bias

    return eqx.tree_at(last, perceptron, replace_fn=jnp.zeros_like)


class Network(eqx.Module):
    """N(t, x): a perceptron of x, to whose first layer the time is added through a perceptron e of its features.

        N = A_out φ(… φ(A_in x + e(t))),     φ(z) = z/(1 + exp(−z)),     A_out = 0 at first

    Under `vmap` over x at one time, e(t) is evaluated once.

    Args:
        key: of the initial weights.
        dim: d, of x and of N.
        width: of each of the `depth` hidden layers.
        dtype: of the weights; JAX's default if left out.

    Raises:
        ValueError: `dim`, `width` or `depth` not an integer ≥ 1; a dtype that is neither float32 nor float64.

    Example:
        >>> network = Network(jax.random.key(0), 2)
        >>> network(0.5, [1.0, 1.0]).tolist()
        [0.0, 0.0]

    Source: the network of Zhang & Chen, *Path Integral Sampler*, arXiv 2111.15141, appendix.
    """

    of_time: eqx.nn.MLP
    of_state: eqx.nn.Linear
    rest: eqx.nn.MLP

    def __init__(
        self, key: Key[Array, ""], dim: int, *, width: int = 64, depth: int = 2, dtype: DTypeLike | None = None
    ):
        check_key("key", key)
        dim, width, depth = (check_count(*pair) for pair in (("dim", dim), ("width", width), ("depth", depth)))
        dtype = jnp.result_type(float) if dtype is None else jnp.dtype(dtype)
        if dtype not in (jnp.float32, jnp.float64):
            raise ValueError(f"dtype is {dtype}; pass float32 or float64")
        key_time, key_state, key_rest = jax.random.split(key, 3)
        self.of_time = _perceptron_of_time(key_time, width, width, dtype)
        self.of_state = eqx.nn.Linear(dim, width, use_bias=False, dtype=dtype, key=key_state)
        self.rest = _zero_last_layer(eqx.nn.MLP(width, dim, width, depth - 1, jax.nn.silu, dtype=dtype, key=key_rest))

    def __repr__(self):
        return shown("Network", dim=self.of_state.in_features, width=self.rest.width_size, depth=self.rest.depth + 1)

    def __call__(self, t: ArrayLike, x: ArrayLike) -> Float[Array, " d"]:
        t, x = _point(t, x, self.rest.layers[-1].bias)
        return self.rest(jax.nn.silu(self.of_state(x) + self.of_time(fourier_features(t))))


class Guided(eqx.Module):
    """u(t, x) = N(t, x − x₀) + g(t) s(x),   s = ∇log p̃ · min(1, c/|∇log p̃|): the Path Integral Sampler's control.

    Args:
        key: of the initial weights.
        target: whose log-density guides, in the user's units.
        protocol: the reference, in whose unit problem the control lives: train and sample with the same one.
        width, depth: of the network N.
        clip: c > 0, in the unit problem; of no effect on gradients below c/scale.

    Raises:
        ValueError: a target without a density; `clip` not positive; `width` or `depth` below 1.

    Example:
        >>> from pidjax import Controlled, Density, harmonic
        >>> target = Density(lambda y: -0.5 * jnp.sum((y - 1) ** 2), 2)
        >>> rule = Controlled(Guided(jax.random.key(0), target, harmonic(beta=0.0, noise_scale=2.0)))
        >>> rule.control(jnp.array(0.5), jnp.ones(2)).tolist()
        [0.0, 0.0]

    Source: Zhang & Chen, *Path Integral Sampler*, arXiv 2111.15141 ("PIS-Grad").
    """

    network: Network
    gate: eqx.nn.MLP
    guide: Fixed
    clip: float = eqx.field(static=True)

    def __init__(
        self,
        key: Key[Array, ""],
        target: AbstractTarget,
        protocol: Protocol,
        *,
        width: int = 64,
        depth: int = 2,
        clip: float = 100.0,
    ):
        check_key("key", key)
        check_kind("protocol", protocol, Protocol, "the one to train and sample with")
        if not (isinstance(target, AbstractTarget) and able(target, WithDensity)):
            raise ValueError(f"target is a {type(target).__name__}, without a log-density to guide by; pass a Density")
        check_kind("clip", clip, Real, "a number > 0")
        if not clip > 0:
            raise ValueError(f"clip is {clip}; pass a number > 0")
        unit = Problem(target, protocol).unit
        dtype = unit.start.dtype
        key_network, key_gate = jax.random.split(key)
        self.network = Network(key_network, target.dim, width=width, depth=depth, dtype=dtype)
        self.gate = _zero_last_layer(_perceptron_of_time(key_gate, "scalar", width, dtype))
        self.guide = Fixed((target.rescaled(unit.shift, unit.scale), unit.start))
        self.clip = float(clip)

    def __repr__(self):
        return shown("Guided", network=self.network, target=self.guide.value[0], clip=self.clip)

    def __call__(self, t: ArrayLike, x: ArrayLike) -> Float[Array, " d"]:
        target, start = self.guide.value
        t, x = _point(t, x, start)
        score = clipped(jax.grad(target.log_density)(x), self.clip)
        return self.network(t, x - start) + self.gate(fourier_features(t)) * score


def _point(t, x, made_for) -> tuple[Float[Array, ""], Float[Array, " d"]]:
    """One time and point as arrays of the network's dtype."""
    t, x = as_scalar("t", t).astype(made_for.dtype), as_real("x", x)
    if (x.dtype, x.shape) != (made_for.dtype, made_for.shape):
        raise ValueError(
            f"x is a point of {in_words(x)} but the network is made for {in_words(made_for)}; "
            "build it with the target's dim and dtype"
        )
    return t, x


def clipped(vector: Float[Array, " d"], longest: float) -> Float[Array, " d"]:
    """v · min(1, c/|v|), with a finite derivative at v = 0."""
    squared = jnp.sum(vector**2)
    long = squared > longest**2
    return vector * jnp.where(long, longest / jnp.sqrt(jnp.where(long, squared, 1)), 1)
