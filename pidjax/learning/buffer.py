"""Weighted end points to learn from: Σ_i w_i f(y_i) ≈ E_p[f], of any samples with exact weights."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._doors.checks import as_floating, as_real, check_kind, concrete
from .._doors.show import shown
from ..process.unit import UnitProblem
from ..sampling.solution import Solution


class Buffer(eqx.Module):
    """End points y_i in the user's units, and their log-weights, up to a constant.

    Args:
        ends: shape (n, d).
        log_weights: shape (n,); equal, if left out.

    Raises:
        ValueError: other shapes; a point that has weight and is not finite; no point that has any.

    Example:
        >>> solution = pid.sample(jax.random.key(0), pid.GaussianMixture.isotropic(jnp.zeros((1, 2)), 1.0), num_samples=100)
        >>> Buffer.of(solution)
        Buffer(points=100, dim=2, ess=100)
    """

    ends: Float[Array, "n d"]
    log_weights: Float[Array, " n"]

    def __init__(self, ends: Float[Array, "n d"], log_weights: Float[Array, " n"] | None = None):
        ends = as_floating("ends", ends)
        if ends.ndim != 2 or not len(ends):
            raise ValueError(f"ends has shape {ends.shape}; pass n points of dimension d, shape (n, d)")
        if log_weights is None:
            log_weights = jnp.zeros(len(ends), ends.dtype)
        self.ends, self.log_weights = ends, as_real("log_weights", log_weights).astype(ends.dtype)
        if self.log_weights.shape != ends.shape[:1]:
            raise ValueError(
                f"log_weights has shape {self.log_weights.shape} but ends {ends.shape}; pass one for each point"
            )
        weights, points = concrete(self.log_weights), concrete(ends)
        if weights is not None and points is not None:
            alive = ~(weights == -jnp.inf)
            if not alive.any() or not (weights[alive] < jnp.inf).all():
                raise ValueError(
                    "log_weights has NaN, +inf, or -inf alone; pass numbers, -inf for points that do not count"
                )
            if not jnp.isfinite(points[alive]).all():
                raise ValueError("ends has points of some weight that are not finite; leave them out")

    @classmethod
    def of(cls, solution: Solution) -> "Buffer":
        """The samples of a solution, with its weights."""
        check_kind("solution", solution, Solution, "what pidjax.sample gives")
        return cls(solution.vectors, solution.log_weights)

    def __repr__(self):
        ess = 1 / jnp.sum(self.weights**2)
        return shown("Buffer", points=self.ends.shape[-2], dim=self.ends.shape[-1], ess=ess)

    def ends_in(self, unit: UnitProblem, chosen: Int[Array, " m"] | slice = slice(None)) -> Float[Array, "m d"]:
        """The points, or those chosen, in a unit problem, in its dtype.

        Raises:
            ValueError: they are of another dimension.
        """
        if self.ends.shape[1:] != unit.start.shape:
            raise ValueError(
                f"buffer has points of dimension {self.ends.shape[1]} but target has dimension {unit.start.size}; pass samples "
                "of the target"
            )
        return unit.to_unit(self.ends[chosen].astype(unit.start.dtype))

    @property
    def weights(self) -> Float[Array, " n"]:
        """w_i, of sum one."""
        return jax.nn.softmax(self.log_weights)
