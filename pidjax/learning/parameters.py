"""What is learned and what is not, and positive quantities as functions of free numbers.

    Positive    β = softplus(r) for a scalar or a diagonal; β = L Lᵀ for a matrix, softplus on the diagonal of L
    Fixed       what stays as it is: a leaf, or a whole module that asks for its value

A pytree may hold such nodes in the place of its leaves. `resolve` gives the plain tree, which is what losses see.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._doors.checks import as_floating, check_kind, check_symmetric, concrete
from .._doors.show import shown
from .._maths.small import cholesky, matmul, transpose
from ..process.protocol import Protocol


class Parameter(eqx.Module):
    """A node that stands for an array, whose shape and entries can be read."""

    @classmethod
    @abstractmethod
    def of(cls, value: Array) -> "Parameter":
        """The node whose value is this."""

    @property
    @abstractmethod
    def value(self) -> Array:
        """The array it stands for."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    def __getitem__(self, index) -> Array:
        return self.value[index]

    def __repr__(self):
        return shown(type(self).__name__, value=self.value)


class Fixed(Parameter):
    """What is not learned."""

    fixed: Any

    @classmethod
    def of(cls, value):
        return cls(value)

    @property
    def value(self):
        return self.fixed


class Positive(Parameter):
    """A positive stiffness on each of P pieces as a function of free numbers of the same shape.

    Args:
        free: r, shape (P,), (P, d) or (P, d, d), of which the lower triangle counts.

    Example:
        >>> positive = Positive.of(jnp.array([[[2.0, 1.0], [1.0, 3.0]]]))
        >>> positive.value.round(4)
        Array([[[2., 1.],
                [1., 3.]]], dtype=float32)
    """

    free: Float[Array, "P *map"]

    @classmethod
    def of(cls, value):
        """
        Raises:
            ValueError: a value that is not positive, or not a stack of positive definite matrices; not finite.
        """
        value = as_floating("value", value)
        if value.ndim > 3 or (value.ndim == 3 and value.shape[1] != value.shape[2]):
            raise ValueError(f"value has shape {value.shape}; pass positive numbers or matrices of shape (P, d, d)")
        if value.ndim == 3:
            check_symmetric("value", value)
        factor = cholesky(value) if value.ndim == 3 else value
        scale = jnp.diagonal(factor, axis1=1, axis2=2) if value.ndim == 3 else factor
        known = concrete(scale)
        if known is not None and not (known > 0).all():
            raise ValueError(
                f"value is {value}; pass positive numbers, or positive definite matrices as a stack of shape (P, d, d)"
            )
        free = scale + jnp.log(-jnp.expm1(-scale))
        return cls(free if value.ndim < 3 else jnp.tril(factor, -1) + _diagonal(free))

    @property
    def value(self):
        if self.free.ndim < 3:
            return jax.nn.softplus(self.free)
        scale = jax.nn.softplus(jnp.diagonal(self.free, axis1=1, axis2=2))
        factor = jnp.tril(self.free, -1) + _diagonal(scale)
        return matmul(factor, transpose(factor))


def _diagonal(values: Float[Array, "P d"]) -> Float[Array, "P d d"]:
    return values[..., None] * jnp.eye(values.shape[-1], dtype=values.dtype)[None]


def _is_parameter(node: Any) -> bool:
    """Whether it stands in the place of a leaf."""
    return isinstance(node, Parameter) and (not isinstance(node, Fixed) or jax.tree_util.all_leaves([node.fixed]))


def resolve(tree: Any) -> Any:
    """The tree with every node replaced by its value.

    Example:
        >>> resolve({"beta": Positive.of(jnp.array([2.0]))})
        {'beta': Array([2.], dtype=float32)}
    """
    return jax.tree.map(lambda node: node.value if _is_parameter(node) else node, tree, is_leaf=_is_parameter)


def is_learned(tree: Any) -> Any:
    """The tree with whether it is learned in the place of each leaf: floating arrays outside of `Fixed`."""

    def of(node):
        is_fixed = isinstance(node, Fixed)
        return jax.tree.map(lambda leaf: eqx.is_inexact_array(leaf) and not is_fixed, node)

    return jax.tree.map(of, tree, is_leaf=lambda node: isinstance(node, Fixed))


def only(where: Callable[[Any], Any], tree: Any) -> Any:
    """The tree with everything fixed but what `where` selects.

    Raises:
        ValueError: a selection that the tree does not have, as the force of a protocol without one.

    Example:
        >>> from pidjax import piecewise
        >>> tree = only(lambda protocol: protocol.beta, piecewise(jnp.array([1.0, 2.0])))
        >>> type(tree.beta).__name__, type(tree.edges).__name__
        ('ArrayImpl', 'Fixed')
    """

    def fix(node):
        return Fixed.of(node.value if _is_parameter(node) else node)

    check_kind("where", where, Callable, "a function of the tree, as `lambda tree: tree.beta`")
    chosen = where(tree)
    if any(part is None for part in (chosen if isinstance(chosen, tuple | list) else (chosen,))):
        absent = ", ".join(name for name, value in getattr(tree, "__dict__", {}).items() if value is None)
        raise ValueError(
            f"where selects None: this {type(tree).__name__} has no {absent or 'such value'}; pass one that has"
        )
    fixed = jax.tree.map(fix, tree, is_leaf=_is_parameter)
    return eqx.tree_at(where, fixed, chosen, is_leaf=_is_parameter)


def positive(protocol: Protocol) -> Protocol:
    """The protocol with its stiffness kept positive; one that is `Positive` or `Fixed` already stays as it is.

    Raises:
        ValueError: a stiffness that is not positive.

    Example:
        >>> from pidjax import harmonic
        >>> resolve(positive(harmonic(3.0))).beta.round(5)
        Array([3.], dtype=float32)
    """
    check_protocol(protocol)
    if _is_parameter(protocol.beta):
        return protocol
    return eqx.tree_at(lambda one: one.beta, protocol, Positive.of(protocol.beta))


def check_protocol(protocol: Any) -> None:
    """Raise unless the value is a protocol, whatever nodes it holds."""
    check_kind("protocol", protocol, Protocol, "harmonic(...), piecewise(...) or from_function(...)")


def refined(protocol: Protocol, factor: int = 2) -> Protocol:
    """`Protocol.refine` of a protocol that holds such nodes: the same process, with more to learn.

    Raises:
        ValueError: a value that is no protocol; a factor that is no integer ≥ 1.

    Example:
        >>> from pidjax import harmonic
        >>> resolve(refined(positive(harmonic(3.0)))).beta.round(5)
        Array([3., 3.], dtype=float32)
    """
    check_protocol(protocol)
    finer = resolve(protocol).refine(factor)
    return jax.tree.map(
        lambda node, leaf: node.of(leaf) if _is_parameter(node) else leaf, protocol, finer, is_leaf=_is_parameter
    )
