"""An unnormalised log-density, alone or with a Gaussian mixture standing in for it.

    Density      log p̃ alone: no tilted law. What a learned control (the Path Integral Sampler) works with.
    Surrogate    a Gaussian mixture p̂ tilts in closed form; the end point is weighted by p̃/p̂.

The surrogate's own chain, drawn exactly (`Ancestral`), has a path weight that telescopes to p̃(y)/p̂(y) at its end point.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from .base import Target
from .mixture import GaussianMixture


class Density(Target):
    """The target p ∝ exp(log_density).

    Args:
        log_density: the unnormalised log-density of one point; a function, or an Equinox module whose arrays are then
            parameters to differentiate. May return −inf outside the support.
        like: what a point is: an integer d for a vector of shape (d,), or an example pytree of floating arrays.
        dtype: of a vector; JAX's default if left out.

    Raises:
        ValueError: `log_density` does not return one floating scalar for one point; an empty or non-floating `like`.

    Example:
        >>> Density(lambda y: -0.5 * jnp.sum(y**2), 2).dim
        2
    """

    function: Callable[[Any], Float[Array, ""]]
    shift: Float[Array, " d"]
    scale: Float[Array, ""]
    like: Any = eqx.field(static=True)

    has_density: ClassVar[bool] = True
    closed_form: ClassVar[bool] = False

    def __init__(self, log_density, like, *, dtype=None):
        if isinstance(like, int):
            if like < 1:
                raise ValueError(f"like is {like}; pass a dimension >= 1, or an example point")
            like = jax.ShapeDtypeStruct((like,), jnp.result_type(float) if dtype is None else dtype)
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)), like)
        leaves = jax.tree.leaves(like)
        if not leaves or not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves):
            raise ValueError(f"like is {like}; pass a dimension, or a pytree of floating arrays")
        result = jax.tree.leaves(eqx.filter_eval_shape(log_density, like))
        if len(result) != 1 or result[0].shape != () or not jnp.issubdtype(result[0].dtype, jnp.floating):
            raise ValueError(
                f"log_density returns {result} for one point {like}; return one floating scalar, of shape ()"
            )
        leaves, structure = jax.tree.flatten(like)
        self.function, self.like = log_density, (structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
        flat = jax.eval_shape(lambda point: ravel_pytree(point)[0], like)
        self.shift, self.scale = jnp.zeros(flat.shape, flat.dtype), jnp.ones((), flat.dtype)

    @property
    def dim(self) -> int:
        return self.shift.shape[0]

    def unravel(self, y: Float[Array, " d"]) -> Any:
        """The vector as a point of the kind the log-density takes."""
        structure, leaves = self.like
        example = structure.unflatten([jnp.zeros(shape, dtype) for shape, dtype in leaves])
        return ravel_pytree(example)[1](y)

    def log_density(self, y):
        return self.function(self.unravel(self.shift + self.scale * y)).astype(y.dtype) + self.dim * jnp.log(self.scale)

    def rescaled(self, shift, scale):
        return eqx.tree_at(
            lambda density: (density.shift, density.scale), self, (self.shift + self.scale * shift, self.scale * scale)
        )

    def tilt(self, observation, key=None):
        raise TypeError(
            "a bare Density has no tilted law: call pidjax.sample, which fits a surrogate to it, or wrap it in "
            "Surrogate, Pool or LocalDraws; only the rule Controlled works without"
        )

    def log_weight(self, y):
        return self.log_density(y)

    def location(self):
        return jnp.zeros_like(self.shift), jnp.ones_like(self.scale)

    def snr_range(self):
        return jnp.full_like(self.scale, 0.1), jnp.full_like(self.scale, 1000)


class Surrogate(Target):
    """A density with a Gaussian mixture p̂ in its place: the tilts are p̂'s, the end point is weighted by p̃/p̂."""

    density: Density
    mixture: GaussianMixture

    has_density: ClassVar[bool] = True
    closed_form: ClassVar[bool] = True

    def __check_init__(self):
        if self.mixture.dim != self.density.dim:
            raise ValueError(
                f"mixture has dimension {self.mixture.dim} but density has dimension {self.density.dim}; pass equal ones"
            )

    @property
    def dim(self) -> int:
        return self.density.dim

    def tilt(self, observation, key=None):
        return self.mixture.tilt(observation)

    def log_density(self, y):
        return self.density.log_density(y)

    def log_weight(self, y):
        return self.density.log_density(y) - self.mixture.log_density(y)

    def location(self):
        return self.mixture.location()

    def snr_range(self):
        return self.mixture.snr_range()

    def rescaled(self, shift, scale):
        return Surrogate(self.density.rescaled(shift, scale), self.mixture.rescaled(shift, scale))
