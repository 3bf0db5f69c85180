"""A product of Gaussian mixtures over blocks of coordinates: tilted, it is such a product again.

    p̂(y) = Π_b p̂_b(y_b),        q(y | ζ) = Π_b q_b(y_b | ζ_b)    where the gain is a scalar or a diagonal

Of n blocks with K components each it has the Kⁿ modes of their combinations, and stores n K. Blocks of one kind (as many
coordinates, as many components) are stacked, and each kind is one `vmap`.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from .._doors.checks import as_point, check_count, check_key, check_kind, check_single
from .._doors.show import shown
from ..process.bridge import Observation, stacked
from .base import AbstractTarget, ExactlyTilted, Place, WithCovariance, WithDensity, WithDraws, WithMass
from .mixture import GaussianMixture, TiltedMixture

Blocks = tuple[tuple[int, ...], ...]
"""The coordinates of each block."""


class TiltedProduct(WithMass, WithCovariance, WithDraws):
    """A product of Gaussian mixtures as a law: for each kind of block the coordinates, and the stacked laws."""

    log_mass: Float[Array, ""]
    mean: Float[Array, " d"]
    kinds: tuple[Blocks, ...] = eqx.field(static=True)
    laws: tuple[TiltedMixture, ...]

    def covariance(self):
        covariance = jnp.zeros((self.mean.size, self.mean.size), self.mean.dtype)
        for blocks, law in zip(self.kinds, self.laws, strict=True):
            places = np.array(blocks)
            of_blocks = jax.vmap(TiltedMixture.covariance)(law)
            covariance = covariance.at[places[:, :, None], places[:, None, :]].set(of_blocks)
        return covariance

    def draw(self, key):
        laws_and_keys = zip(self.laws, _keys(key, self.kinds), strict=True)
        return _joined(self.kinds, [jax.vmap(TiltedMixture.draw)(law, keys) for law, keys in laws_and_keys])


def _joined(kinds: tuple[Blocks, ...], parts: list[Array]) -> Float[Array, " d"]:
    """The vector whose coordinates the blocks of each kind hold, parts of shape (blocks, b)."""
    places = np.concatenate([np.ravel(blocks) for blocks in kinds])
    return jnp.concatenate([jnp.ravel(part) for part in parts])[np.argsort(places)]


def _keys(key: Key[Array, ""], kinds: tuple[Blocks, ...]) -> list[Key[Array, " blocks"]]:
    """A key for each block of each kind."""
    ends = np.cumsum([len(blocks) for blocks in kinds])
    return jnp.split(jax.random.split(key, int(ends[-1])), ends[:-1])


class Product(AbstractTarget, ExactlyTilted, WithDensity):
    """The product Π_b p̂_b(y_b) of Gaussian mixtures over blocks of coordinates, normalised.

    Args:
        blocks: the coordinates of each block, counted from 0; each of the d coordinates is in one.
        mixtures: p̂_b, of as many dimensions as its block has coordinates.

    Its tilted laws are products only if the observation does not couple the blocks: with protocols whose coefficients, and
    whose start, are scalars or diagonals.

    Raises:
        ValueError: blocks that are no partition of 0, …, d − 1, or mixtures that do not fit them; at use, a matrix-valued
            protocol.

    Example:
        >>> two_wells = GaussianMixture(jnp.array([[-1.0], [1.0]]), jnp.array([0.1, 0.1]))
        >>> product = Product([[0], [1], [2]], 3 * [two_wells])
        >>> product
        Product(blocks=3, largest=1, dim=3)
        >>> product.sample(jax.random.key(0), 5).shape
        (5, 3)

    Source: a law of independent parts, seen through independent noise, keeps its parts independent.
    """

    kinds: tuple[Blocks, ...] = eqx.field(static=True)
    mixtures: tuple[GaussianMixture, ...]

    def __init__(self, blocks: Sequence[Sequence[int]], mixtures: Sequence[GaussianMixture]):
        owned = tuple(tuple(int(place) for place in block) for block in blocks)
        places = sorted(chain.from_iterable(owned))
        if not all(owned) or not places or places != list(range(len(places))):
            raise ValueError(f"blocks is {blocks}; pass a partition of the coordinates 0, …, d − 1, as [[0], [1, 2]]")
        if len(mixtures) != len(owned):
            raise ValueError(f"mixtures holds {len(mixtures)} mixtures for {len(owned)} blocks; pass one for each")
        by_kind: dict[Any, list[int]] = {}
        for index, (block, mixture) in enumerate(zip(owned, mixtures)):
            check_kind(f"mixtures[{index}]", mixture, GaussianMixture, "a GaussianMixture")
            if mixture.dim != len(block):
                raise ValueError(
                    f"mixtures[{index}] has dimension {mixture.dim} but its block is {block}; pass equal ones"
                )
            shapes = tuple((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(mixture))
            by_kind.setdefault(shapes, []).append(index)
        self.kinds = tuple(tuple(owned[index] for index in own) for own in by_kind.values())
        self.mixtures = tuple(stacked([mixtures[index] for index in own]) for own in by_kind.values())

    def __repr__(self):
        blocks = self.blocks
        return shown("Product", blocks=len(blocks), largest=max(map(len, blocks)), dim=self.dim)

    @property
    def blocks(self) -> Blocks:
        """The coordinates of each block."""
        return tuple(sorted(chain.from_iterable(self.kinds)))

    @property
    def dim(self) -> int:
        return sum(map(len, self.blocks))

    @property
    def numbers_per_tilt(self) -> int:
        return sum(mixture.means.size for mixture in self.mixtures)

    def _of_blocks(self, function: Callable, *vectors: Float[Array, " d"]) -> list:
        """For each kind a function of the mixtures, and of the blocks' parts of vectors."""
        check_single("the product", self.mixtures[0].means, 3)
        return [
            jax.vmap(function)(mixture, *(vector[np.array(blocks)] for vector in vectors))
            for blocks, mixture in zip(self.kinds, self.mixtures, strict=True)
        ]

    def tilt(self, observation: Observation, key=None) -> TiltedProduct:
        gain, value = observation
        if gain.ndim == 2:
            raise ValueError(
                f"the observation's gain is a matrix of shape {gain.shape}, which couples the blocks of a Product; pass a "
                "protocol whose coefficients and start are scalar or diagonal, or a GaussianMixture as the surrogate"
            )

        def tilted(mixture, value, gain=gain):
            return mixture.tilt(Observation(gain, value))

        laws = self._of_blocks(tilted, value, *[gain] * gain.ndim)
        log_mass = jnp.sum(jnp.concatenate([law.log_mass for law in laws]))
        return TiltedProduct(log_mass, _joined(self.kinds, [law.mean for law in laws]), self.kinds, tuple(laws))

    def log_density(self, y):
        y = as_point("y", y, self.dim)
        return jnp.sum(jnp.concatenate(self._of_blocks(GaussianMixture.log_density, y)))

    def place(self):
        places = self._of_blocks(GaussianMixture.place)
        squares = sum(jnp.sum(place.spread**2) * place.mean.shape[-1] for place in places)
        narrowest = jnp.min(jnp.concatenate([place.narrowest for place in places]))
        mean = _joined(self.kinds, [place.mean for place in places])
        return Place(mean, jnp.sqrt(squares / self.dim), narrowest=narrowest)

    def rescaled(self, shift, scale):
        mixtures = self._of_blocks(lambda mixture, shift: mixture.rescaled(shift, scale), shift)
        return eqx.tree_at(lambda product: product.mixtures, self, tuple(mixtures))

    def sample(self, key: Key[Array, ""], num_samples: int) -> Float[Array, "n d"]:
        """Exact independent draws, shape (num_samples, d)."""
        check_single("the product", self.mixtures[0].means, 3)
        check_key("key", key)
        num_samples = check_count("num_samples", num_samples)
        parts = [
            jax.vmap(lambda mixture, key: mixture.sample(key, num_samples))(mixture, keys)
            for mixture, keys in zip(self.mixtures, _keys(key, self.kinds), strict=True)
        ]
        return jax.vmap(lambda *of_one: _joined(self.kinds, list(of_one)), in_axes=1)(*parts)
