"""Networks of (t, x; c): a context c tells the members of a family of targets apart, all of which one network controls.

    Given      u = N(t, x; c)      for one context c: `network.given(c)`

Time and context come in together, as e(t) + b(c) with a perceptron each. Under `vmap` over x at one time and context both are
evaluated once.
"""

import math
from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from .._doors.checks import as_floating, check_below, check_kind
from .._doors.functions import in_words
from .._doors.show import shown
from .layers import fourier_features, perceptron_of_time
from .parameters import Fixed


class Embedding(eqx.Module):
    """e(t) + b(c), of as many entries as the network is wide; e(t) alone if contexts have none."""

    of_time: eqx.nn.MLP
    of_context: eqx.nn.MLP | None
    context_dim: int = eqx.field(static=True)

    def __init__(self, key_time: Key[Array, ""], key_context: Key[Array, ""], width: int, context_dim: int, dtype):
        check_below("context_dim", context_dim, math.inf, "an integer >= 0")
        self.context_dim = int(context_dim)
        self.of_time = perceptron_of_time(key_time, width, width, dtype)
        self.of_context = None
        if self.context_dim:
            self.of_context = eqx.nn.MLP(self.context_dim, width, width, 1, jax.nn.silu, dtype=dtype, key=key_context)

    def __call__(self, t: Float[Array, ""], context: Float[Array, " context_dim"]) -> Float[Array, " width"]:
        embedded = self.of_time(fourier_features(t))
        return embedded if self.of_context is None else embedded + self.of_context(context)

    def as_context(self, context: ArrayLike | None) -> Float[Array, " context_dim"]:
        """The context as an array of the shape and dtype that the network is made for; empty if it is made without one."""
        made_for = jax.ShapeDtypeStruct((self.context_dim,), self.of_time.layers[-1].weight.dtype)
        if context is None and self.context_dim:
            raise ValueError(
                f"context is left out but the network is made for {in_words(made_for)}; call network(t, x, context), or pass "
                "network.given(context) on"
            )
        if context is None:
            return jnp.zeros(0, made_for.dtype)
        context = as_floating("context", context)
        if (context.dtype, context.shape) != (made_for.dtype, made_for.shape):
            wanted = f"for {in_words(made_for)}" if self.context_dim else "without one"
            raise ValueError(
                f"context is {in_words(context)} but the network is made {wanted}; build it with the dimension and dtype of "
                "the context"
            )
        return context


class AbstractNetwork(eqx.Module):
    """A field N(t, x; c), and for each context one of (t, x)."""

    embedding: eqx.AbstractVar[Embedding]

    @abstractmethod
    def __call__(self, t: ArrayLike, x: ArrayLike, context: ArrayLike | None = None) -> Float[Array, " d"]:
        """N(t, x; c)."""

    def given(self, context: ArrayLike) -> "Given":
        """This network for one context, as a function of (t, x): see `Given`."""
        return Given(self, context)


class Given(eqx.Module):
    """u(t, x) = N(t, x; c) for one context c, which is not trained; the network is.

    It is the correction of `Corrected` or `Euler`, or the control of `Controlled`, for one member of a family of targets. Other
    contexts of the same dimension are other numbers only: nothing compiles again.

    Args:
        network: one with a context.
        context: c, shape (context_dim,), of the network's dtype.

    Raises:
        ValueError: a context of another shape or dtype than the network is made for; one that is not finite.

    Example:
        >>> network = pid.learning.Network(jax.random.key(0), 2, context_dim=3)
        >>> rule = pid.Euler(correction=network.given([1.0, 0.0, 0.0]))
        >>> rule
        Euler(correction=Given(network=Network(dim=2, context_dim=3, width=64, depth=2), context=[1, 0, 0]))
        >>> rule.correction(0.5, [1.0, 1.0]).tolist()
        [0.0, 0.0]
    """

    network: AbstractNetwork
    bound: Fixed

    def __init__(self, network: AbstractNetwork, context: ArrayLike):
        check_kind("network", network, AbstractNetwork, "a Network made with context_dim")
        self.network = network
        self.bound = Fixed((network.embedding.as_context(context),))

    def __repr__(self):
        return shown("Given", network=self.network, context=self.context)

    @property
    def context(self) -> Float[Array, " context_dim"]:
        """The context c."""
        return self.bound.value[0]

    def __call__(self, t: ArrayLike, x: ArrayLike) -> Float[Array, " d"]:
        return self.network(t, x, self.context)
