"""An unnormalised log-density alone: it has no tilted law.

A learned control (the Path Integral Sampler) works with it as it is; `sample` fits a surrogate to it, which has one.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from .._doors.checks import as_dtype, as_point, check_single
from .._doors.functions import check_scalar, evaluate, in_words
from ..supports import OfFree, Supports, is_support
from .base import AbstractTarget, Place, WithDensity


class Density(AbstractTarget, WithDensity):
    """The target p ∝ exp(log_density).

    Args:
        log_density: the unnormalised log-density of one point; a function, or an Equinox module whose arrays are then
            parameters to differentiate. May return −inf outside the support.
        like: what a point is: an integer d for a vector of shape (d,), or an example pytree of floating arrays, in which
            supports (`pidjax.supports`) may stand in the place of arrays.
        dtype: of a vector, and of supports; JAX's default if left out.

    With supports the target is the law of the free numbers, its Jacobian included: vectors are of free numbers, points and
    samples lie where the supports say, and log Z is the user's.

    `sample` finds what stands in for it; see `pidjax.tempering.locate` for what is found and what is missed.

    Raises:
        ValueError: `log_density` does not return one floating scalar for one point, reads past the end of one, or is not
            made of `jax.numpy`; an empty or non-floating `like`.

    Example:
        >>> Density(lambda y: -0.5 * jnp.sum(y**2), 2).dim
        2
    """

    function: Callable[[Any], Float[Array, ""]]
    shift: Float[Array, " d"]
    scale: Float[Array, ""]
    view: Callable[[Any], Any] | None
    like: Any = eqx.field(static=True)

    def __init__(self, log_density, like, *, dtype=None):
        self.view = None
        if any(map(is_support, jax.tree.leaves(like, is_leaf=is_support))):
            self.view = Supports(like)
            log_density, like = OfFree(log_density, self.view), _free(like, as_dtype(dtype))
        like = _example(like, dtype)
        leaves, structure = jax.tree.flatten(like)
        self.function, self.like = log_density, (structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
        flat = jax.eval_shape(lambda point: ravel_pytree(point)[0], like)
        self.shift, self.scale = jnp.zeros(flat.shape, flat.dtype), jnp.ones((), flat.dtype)
        self.check()

    def check(self) -> None:
        """Raise unless the function takes one point to one floating scalar; as the constructor."""
        structure, leaves = self.like
        function, like = self.function, structure.unflatten([jax.ShapeDtypeStruct(*leaf) for leaf in leaves])
        if isinstance(function, OfFree):
            function, like = function.log_density, jax.eval_shape(function.supports, like)
        check_scalar("log_density", function, like, where="pass the dimension that log_density means")

    def __repr__(self):
        function = self.function.log_density if isinstance(self.function, OfFree) else self.function
        return f"Density({getattr(function, '__name__', type(function).__name__)}, dim={self.dim})"

    @property
    def dim(self) -> int:
        return self.shift.shape[-1]

    def point(self, y):
        """The vector as a point of the kind the log-density takes."""
        free = self.free(y)
        return free if self.view is None else self.view(free)

    @property
    def of_pytree(self) -> bool:
        """Whether a point is made of several arrays."""
        return not jax.tree_util.treedef_is_leaf(self.like[0])

    def free(self, y: Float[Array, " d"]) -> Any:
        """The vector as a pytree of free numbers: the point itself where no support binds them."""
        structure, leaves = self.like
        if not self.of_pytree and leaves[0][0] == self.shift.shape:
            return jnp.asarray(y)
        example = structure.unflatten([jnp.zeros(shape, dtype) for shape, dtype in leaves])
        return ravel_pytree(example)[1](y)

    def vectors(self, name: str, free: Any) -> Float[Array, "n d"]:
        """The opposite of `free`, of n pytrees in one, whose leaves have a leading axis.

        Raises:
            ValueError: a pytree of another structure, or of other shapes.
        """
        structure, leaves = self.like
        arrays, found = jax.tree.flatten(free)
        number = jnp.shape(arrays[0])[:1] if arrays else ()
        if (
            not number
            or found != structure
            or any(jnp.shape(array) != number + shape for array, (shape, _) in zip(arrays, leaves))
        ):
            wanted = structure.unflatten([jax.ShapeDtypeStruct(*leaf) for leaf in leaves])
            raise ValueError(f"{name} holds {in_words(free)}; pass {in_words(wanted)}, with one leading axis in front")
        return jax.vmap(lambda one: ravel_pytree(one)[0])(jax.tree.map(jnp.asarray, free))

    def log_density(self, y):
        y = as_point("y", y, self.dim)
        value = evaluate(self.function, self.free(self.shift + self.scale * y))
        return jnp.asarray(value, y.dtype) + self.dim * jnp.log(self.scale)

    def rescaled(self, shift, scale):
        return eqx.tree_at(
            lambda density: (density.shift, density.scale), self, (self.shift + self.scale * shift, self.scale * scale)
        )

    def place(self):
        check_single("the density", self.shift, 1)
        one = jnp.ones_like(self.scale)
        return Place(jnp.zeros_like(self.shift), one, widest=3**0.5 * one, narrowest=0.003**0.5 * one)


def _free(like, dtype) -> Any:
    """The pytree with the shape of its free numbers in the place of each support."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype) if is_support(leaf) else leaf, like, is_leaf=is_support
    )


def _example(like, dtype) -> Any:
    """What a point is, as a pytree of shapes and dtypes."""
    if not jax.tree.leaves(like) or isinstance(like, bool):
        raise ValueError(f"like is {like!r}; pass a dimension, or an example point")
    if isinstance(like, float):
        raise ValueError(f"like is {like}; pass an integer dimension, or jnp.zeros(()) for a scalar point")
    if isinstance(like, int | np.integer):
        if like < 1:
            raise ValueError(f"like is {like}; pass a dimension >= 1, or an example point")
        like = jax.ShapeDtypeStruct((int(like),), as_dtype(dtype))

    def described(leaf):
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic | float | int | complex):
            raise ValueError(f"like is a {type(like).__name__}; pass a dimension, or an example point of numbers")
        return jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf))

    example = jax.tree.map(described, like)
    for leaf in jax.tree.leaves(example):
        if not jnp.issubdtype(leaf.dtype, jnp.floating) or 0 in leaf.shape:
            raise ValueError(
                f"like holds {leaf.dtype}{list(leaf.shape)}; pass a dimension, as 2, or an example point: a floating array, "
                "as jnp.zeros((2,)), or a pytree of floating arrays"
            )
        if leaf.dtype in (jnp.float16, jnp.bfloat16):
            raise ValueError(f"like is of {leaf.dtype}, too coarse to sample with; pass float32 or float64")
    return example
