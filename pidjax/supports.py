"""Quantities that are not free to take any value, as maps of free numbers u with their log-Jacobian.

    Positive           y = eᵘ                              log|dy/du| = u
    Interval(a, b)     y = a + (b − a) σ(u)                log|dy/du| = log(b − a) + log σ(u) + log σ(−u)
    Simplex(k)         y = softmax(z), Σz = 0              log|dy/du| = ½ log k + Σ log y_i
                       z = (u − s/(k − √k), s/√k)          s = Σu; an isometry, so that no entry is preferred
    Real               y = u

The law of u has the density p̃(y(u)) |dy/du|, and the same Z. A `Density` takes them in the place of arrays:

    >>> like = {"scale": Positive(), "share": Interval(0, 1)}
    >>> density = pid.Density(lambda at: -at["scale"] + jnp.log(2 * at["share"]), like)
    >>> density.dim, density.point(jnp.zeros(2))
    (2, {'scale': Array(1., dtype=float32), 'share': Array(0.5, dtype=float32)})
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._doors.checks import as_floating, check_count, concrete

__all__ = ["Interval", "Positive", "Real", "Simplex", "Support"]


class Support(eqx.Module):
    """Where a quantity lies.

    Attributes:
        shape: of the free numbers.
    """

    shape: eqx.AbstractVar[tuple[int, ...]]

    @abstractmethod
    def value(self, free: Float[Array, "..."]) -> Float[Array, "..."]:
        """y of u, strictly inside."""

    @abstractmethod
    def log_jacobian(self, free: Float[Array, "..."]) -> Float[Array, ""]:
        """log|dy/du|."""


class Real(Support):
    """Any number: what an array in its place means too.

    Args:
        shape: of the quantity, an integer or a tuple of them.
    """

    shape: tuple[int, ...] = eqx.field(static=True, converter=lambda shape: _as_shape(shape), default=())

    def value(self, free):
        return free

    def log_jacobian(self, free):
        return jnp.zeros((), free.dtype)


class Positive(Support):
    """Numbers above 0: those that the dtype holds with room for squares, from e⁻⁷⁸ to e⁴⁴ in float32; the others are outside.

    Args:
        shape: of the quantity, an integer or a tuple of them.

    Raises:
        ValueError: a shape that is none.

    Example:
        >>> Positive(2).value(jnp.array([0.0, -200.0])) > 0
        Array([ True,  True], dtype=bool)
    """

    shape: tuple[int, ...] = eqx.field(static=True, converter=lambda shape: _as_shape(shape), default=())

    def value(self, free):
        return jnp.exp(jnp.clip(free, *_exponents(free.dtype)))

    def log_jacobian(self, free):
        low, high = _exponents(free.dtype)
        return jnp.sum(jnp.where((free >= low) & (free <= high), free, -jnp.inf))


class Interval(Support):
    """Numbers between two others, four roundings away from them at least.

    Args:
        low, high: a and b > a, numbers or arrays.
        shape: of the quantity; that of low and high together if left out.

    Raises:
        ValueError: ends that are not finite, or not in order; a shape that they do not fit.

    Example:
        >>> Interval(jnp.array([0.0, 1.0]), 3.0).value(jnp.zeros(2))
        Array([1.5, 2. ], dtype=float32)
    """

    low: Float[Array, "*shape"]
    high: Float[Array, "*shape"]
    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, low, high, shape=None):
        low, high = as_floating("low", low), as_floating("high", high)
        try:
            shape = jnp.broadcast_shapes(low.shape, high.shape, _as_shape(() if shape is None else shape))
            self.low, self.high = jnp.broadcast_to(low, shape), jnp.broadcast_to(high, shape)
        except ValueError as error:
            raise ValueError(f"low has shape {low.shape}, high {high.shape}, and shape is {shape}: {error}") from error
        self.shape = shape
        below, above = concrete(self.low), concrete(self.high)
        if below is not None and above is not None:
            rounding = 16 * max(jnp.finfo(part.dtype).eps for part in (low, high)) * np.maximum(abs(below), abs(above))
            if not (above - below > rounding).all():
                raise ValueError(f"low is {low} and high is {high}; pass low < high, told apart by their dtype")

    def value(self, free):
        low, high, limits = self.low.astype(free.dtype), self.high.astype(free.dtype), jnp.finfo(free.dtype)
        above, below = (jnp.maximum(4 * limits.eps * jnp.abs(end), limits.tiny) for end in (low, high))
        return jnp.clip(low + (high - low) * jax.nn.sigmoid(free), low + above, high - below)

    def log_jacobian(self, free):
        width = (self.high - self.low).astype(free.dtype)
        return jnp.sum(jnp.log(width) + jax.nn.log_sigmoid(free) + jax.nn.log_sigmoid(-free))


class Simplex(Support):
    """k positive numbers whose sum is 1, with the volume of the first k − 1 of them, as in Dirichlet's density.

    Args:
        k: how many, at least 2.

    Raises:
        ValueError: k that is no such integer.

    Example:
        >>> Simplex(4).value(jnp.zeros(3))
        Array([0.25, 0.25, 0.25, 0.25], dtype=float32)
    """

    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, k):
        if check_count("k", k) < 2:
            raise ValueError(f"k is {k}; pass an integer >= 2: the only number of a simplex of one is 1")
        self.shape = (check_count("k", k) - 1,)

    def value(self, free):
        return jnp.maximum(jax.nn.softmax(self._centred(free)), math.exp(_exponents(free.dtype)[0]))

    def log_jacobian(self, free):
        return 0.5 * math.log(self.shape[0] + 1) + jnp.sum(jax.nn.log_softmax(self._centred(free)))

    def _centred(self, free):
        k, total = self.shape[0] + 1, jnp.sum(free)
        return jnp.append(free - total / (k - math.sqrt(k)), total / math.sqrt(k))


class Supports(eqx.Module):
    """Supports in a pytree, as one map of the pytree of their free numbers.

    Args:
        tree: with a `Support` or an array in the place of each leaf.
    """

    tree: Any

    def __init__(self, tree):
        self.tree = jax.tree.map(
            lambda leaf: leaf if isinstance(leaf, Support) else Real(jnp.shape(leaf)), tree, is_leaf=is_support
        )

    def __call__(self, free: Any) -> Any:
        return jax.tree.map(lambda support, u: support.value(u), self.tree, free, is_leaf=is_support)

    def log_jacobian(self, free: Any) -> Float[Array, ""]:
        parts = jax.tree.map(lambda support, u: support.log_jacobian(u), self.tree, free, is_leaf=is_support)
        return jnp.sum(jnp.stack(jax.tree.leaves(parts)))


class OfFree(eqx.Module):
    """log p̃(y(u)) + log|dy/du|, as a function of u; −∞ where y is outside."""

    log_density: Callable[[Any], Float[Array, ""]]
    supports: Supports

    def __call__(self, free: Any) -> Float[Array, ""]:
        log_jacobian = self.supports.log_jacobian(free)
        value = jnp.asarray(self.log_density(self.supports(free)), log_jacobian.dtype)
        return jnp.where(log_jacobian > -jnp.inf, value + log_jacobian, -jnp.inf)


def is_support(node: Any) -> bool:
    return isinstance(node, Support)


def _as_shape(shape: Any) -> tuple[int, ...]:
    sizes = shape if isinstance(shape, tuple | list) else (shape,)
    return tuple(check_count("shape", size) for size in sizes)


def _exponents(dtype) -> tuple[float, float]:
    """Between which u the dtype holds eᵘ, its square above and its inverse below, with room for factors."""
    return 0.9 * math.log(float(jnp.finfo(dtype).tiny)), 0.5 * math.log(float(jnp.finfo(dtype).max))
