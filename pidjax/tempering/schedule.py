"""What a ladder climbs by: levels 0 < λ_1 < … < λ_T = 1, and at each what its moves need.

Chosen by an adaptive run it is a value: given to another run, which adapts nothing, that run's Ẑ is unbiased, E[Ẑ] = Z.
"""

from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._doors.show import shown
from .._maths.once import compiled_once

_Tree = TypeVar("_Tree")


class Rung(eqx.Module):
    """One level; in a `Schedule` every attribute has an axis of levels in front.

    Attributes:
        level: λ.
        step: ε of Hamiltonian moves.
        num_jumps: one-coordinate jumps.
        factors: F of the metric, for each of G groups of particles, shape (G,), (G, d) or (G, d, d); None if the moves have
            their own, or need none.
        cloud: places whose differences are steps, for each group of particles; None if nothing steps by them.
    """

    level: Float[Array, "*T"]
    step: Float[Array, "*T"]
    num_jumps: Int[Array, "*T"]
    factors: Float[Array, "..."] | None
    cloud: Float[Array, "*T H m d"] | None

    @property
    def known_factors(self) -> Float[Array, "G *map"]:
        if self.factors is None:
            raise TypeError("a rung without a metric is used with moves that have none of their own")
        return self.factors

    @property
    def known_cloud(self) -> Float[Array, "H m d"]:
        if self.cloud is None:
            raise TypeError("a rung without a cloud is used with moves that step by its differences")
        return self.cloud

    def pooled(self) -> "Rung":
        """The same for one group: the mean of the groups' maps, which are triangular, and a part of each of their clouds."""
        factors = None if self.factors is None else jnp.mean(self.factors, axis=0, keepdims=True)
        cloud = self.cloud
        if cloud is not None:
            groups, size, dim = cloud.shape
            cloud = cloud[:, ::groups][:, : size // groups].reshape(1, -1, dim)
        return Rung(self.level, self.step, self.num_jumps, factors, cloud)


class Schedule(eqx.Module):
    """The rungs of a ladder, in order, and the moves that are made at each.

    Attributes:
        moves: `Hamiltonian` or `Differences`.
        rungs: every attribute of a `Rung` with an axis of T levels in front.
    """

    moves: Any
    rungs: Rung

    def __repr__(self):
        facts = {"levels": self.levels.shape[-1], "first": self.levels[..., 0], "last": self.levels[..., -1]}
        return shown("Schedule", **facts, moves=self.moves)

    @property
    def levels(self) -> Float[Array, " T"]:
        """λ_t."""
        return self.rungs.level

    @property
    def steps(self) -> Float[Array, " T"]:
        """ε_t."""
        return self.rungs.step

    def first(self, count: int) -> "Schedule":
        """The first so many levels; zeros beyond the last."""
        return Schedule(self.moves, with_length(self.rungs, count))


@compiled_once
def with_length(tree: _Tree, length: int) -> _Tree:
    """The leaves cut, or filled up with zeros, to this length of their first axis.

    Example:
        >>> with_length(jnp.array([1, 2]), 3).tolist(), with_length(jnp.array([1, 2]), 1).tolist()
        ([1, 2, 0], [1])
    """

    def of_leaf(leaf):
        missing = max(0, length - leaf.shape[0])
        return jnp.pad(leaf[:length], ((0, missing), *[(0, 0)] * (leaf.ndim - 1)))

    return jax.tree.map(of_leaf, tree)
