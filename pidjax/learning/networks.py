"""Networks for the control u(t, x), in the coordinates of the unit problem: t in [0, 1], x = (user − shift)/scale.

    Network    u = N(t, x; c)                            corrects an explicit control: `Corrected(Moment(), network)`
    Guided     u = N(t, x − x₀) + g(t) · clip(∇log p̃(x))   the Path Integral Sampler: `Controlled(guided)`

The last layers of N and g are zero at first, so training starts at the reference, or at the control that is corrected.
"""

from numbers import Real

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, DTypeLike, Float, Key

from .._doors.checks import as_dtype, check_count, check_key, check_kind
from .._doors.show import shown
from ..process.protocol import Protocol
from ..sampling.problem import Problem
from ..targets.base import AbstractTarget, WithDensity, able
from .context import AbstractNetwork, Embedding
from .layers import as_point_for, fourier_features, perceptron_of_time, zero_last_layer
from .parameters import Fixed


class Network(AbstractNetwork):
    """N(t, x; c): a perceptron of x, to whose first layer the time and a context are added through perceptrons of theirs.

        N = A_out φ(… φ(A_in x + e(t) + b(c))),     φ(z) = z/(1 + exp(−z)),     A_out = 0 at first

    A context tells members of a family of targets apart, all of which one network corrects: a temperature, the data of an
    inference.

    Args:
        key: of the initial weights.
        dim: d, of x and of N.
        context_dim: of the vector c, whose entries are best of order one; there is none, and no b, if 0.
        width: of each of the `depth` hidden layers.
        dtype: of the weights; JAX's default if left out.

    Raises:
        ValueError: `dim`, `width` or `depth` not an integer ≥ 1, `context_dim` not one ≥ 0; a dtype that is neither float32
            nor float64; when called, an x or a context of another shape or dtype than the network is made for.

    Example:
        >>> network = Network(jax.random.key(0), 2)
        >>> network(0.5, [1.0, 1.0]).tolist()
        [0.0, 0.0]

    Source: the network of Zhang & Chen, *Path Integral Sampler*, arXiv 2111.15141, appendix.
    """

    embedding: Embedding
    of_state: eqx.nn.Linear
    rest: eqx.nn.MLP

    def __init__(
        self,
        key: Key[Array, ""],
        dim: int,
        *,
        context_dim: int = 0,
        width: int = 64,
        depth: int = 2,
        dtype: DTypeLike | None = None,
    ):
        check_key("key", key)
        dim, width, depth = (check_count(*pair) for pair in (("dim", dim), ("width", width), ("depth", depth)))
        dtype = as_dtype(dtype)
        key_time, key_state, key_rest = jax.random.split(key, 3)
        self.embedding = Embedding(key_time, jax.random.fold_in(key, 3), width, context_dim, dtype)
        self.of_state = eqx.nn.Linear(dim, width, use_bias=False, dtype=dtype, key=key_state)
        self.rest = zero_last_layer(eqx.nn.MLP(width, dim, width, depth - 1, jax.nn.silu, dtype=dtype, key=key_rest))

    def __repr__(self):
        context = {"context_dim": self.embedding.context_dim} if self.embedding.context_dim else {}
        sizes = {"width": self.rest.width_size, "depth": self.rest.depth + 1}
        return shown("Network", dim=self.of_state.in_features, **context, **sizes)

    def __call__(self, t: ArrayLike, x: ArrayLike, context: ArrayLike | None = None) -> Float[Array, " d"]:
        t, x = as_point_for(self.rest.layers[-1].bias, t, x)
        embedded = self.embedding(t, self.embedding.as_context(context))
        return self.rest(jax.nn.silu(self.of_state(x) + embedded))


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
        self.gate = zero_last_layer(perceptron_of_time(key_gate, "scalar", width, dtype))
        self.guide = Fixed((target.rescaled(unit.shift, unit.scale), unit.start))
        self.clip = float(clip)

    def __repr__(self):
        return shown("Guided", network=self.network, target=self.guide.value[0], clip=self.clip)

    def __call__(self, t: ArrayLike, x: ArrayLike) -> Float[Array, " d"]:
        target, start = self.guide.value
        t, x = as_point_for(start, t, x)
        score = clipped(jax.grad(target.log_density)(x), self.clip)
        return self.network(t, x - start) + self.gate(fourier_features(t)) * score


def clipped(vector: Float[Array, " d"], longest: float) -> Float[Array, " d"]:
    """v · min(1, c/|v|), with a finite derivative at v = 0, also where |v|² is too large for the dtype.

    Example:
        >>> [[round(float(part), 3) for part in clipped(jnp.array(one), 1.0)] for one in ([3e20, 4e20], [0.0, 0.5])]
        [[0.6, 0.8], [0.0, 0.5]]
    """
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(vector)))
    unit = vector / jnp.where(largest > 0, largest, 1)
    squared = jnp.sum(unit**2)
    long = jnp.sqrt(jax.lax.stop_gradient(squared)) * largest > longest
    return jnp.where(long, longest * unit / jnp.sqrt(jnp.where(long, squared, 1)), vector)
