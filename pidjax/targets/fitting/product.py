"""A product of Gaussian mixtures fitted to particles, block by block.

    p̂(y) = Π_b p̂_b(y_b),        p̂_b = argmax Σ_i w_i log p̂_b(y_{i,b})

It is found where one mixture of all coordinates is hopeless, as of a density with two modes in each of many coordinates: a
mixture needs a component for each of their combinations.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ..._doors.checks import check_key
from ..._doors.functions import evaluate
from ..._maths.small import inverse_triangular, matmul
from ...process.bridge import unstacked
from ..mixture import GaussianMixture
from ..product import Blocks, Product
from .blocks import as_population, independent_blocks
from .defence import DEFENCE, defended
from .energy import as_read
from .fit import in_coordinates_of, place_and_scale
from .gaussians import expectation_maximisation, seed

LARGEST = 4
PER_COORDINATE = 8
ITERATIONS = 30
ALL_DEFENCE = 0.1
"""The mass of what is drawn from a widened component in any block."""
DRAWS = 16384


def find_product(
    key: Key[Array, ""],
    points: Float[Array, "n d"],
    weights: Float[Array, " n"] | None = None,
    *,
    effective_size: Float[Array, ""] | float | None = None,
) -> Product | None:
    """The product over the blocks that look independent; None if there is but one, or one of more than four coordinates.

    Args and raises as `independent_blocks`.

    Example:
        >>> points = jax.random.normal(jax.random.key(0), (2000, 3))
        >>> find_product(jax.random.key(1), points)
        Product(blocks=3, largest=1, dim=3)
        >>> find_product(jax.random.key(1), points + points[:, :1]) is None
        True
    """
    blocks = independent_blocks(points, weights, effective_size=effective_size)
    if len(blocks) == 1 or max(map(len, blocks)) > LARGEST:
        return None
    return fit_product(key, points, blocks, weights, effective_size=effective_size)


def fit_product(
    key: Key[Array, ""],
    points: Float[Array, "n d"],
    blocks: Blocks,
    weights: Float[Array, " n"] | None = None,
    *,
    effective_size: Float[Array, ""] | float | None = None,
) -> Product:
    """For each block a mixture of eight components a coordinate, by expectation maximisation from D² seeding.

    Each has one more component, the last, twice as wide as it all: with 2% of the mass, or 10% over the number of blocks.

    Args:
        blocks: a partition of the coordinates, from `independent_blocks`.
        points, weights, effective_size: as there; they may be traced.

    Raises:
        ValueError: as there; blocks that are no partition of the coordinates.

    Example:
        >>> points = jax.random.normal(jax.random.key(0), (2000, 3))
        >>> fit_product(jax.random.key(1), points, ((0, 2), (1,)))
        Product(blocks=2, largest=2, dim=3)
    """
    check_key("key", key)
    points, weights, effective_size = as_population(points, weights, effective_size)
    if sorted(place for block in blocks for place in block) != list(range(points.shape[1])):
        raise ValueError(f"blocks is {blocks}; pass a partition of the {points.shape[1]} coordinates")
    ordered = sorted(blocks, key=len)
    sizes = np.array([len(block) for block in ordered])
    keys, share = jax.random.split(key, len(ordered)), min(DEFENCE, ALL_DEFENCE / len(ordered))
    mixtures = []
    for size in np.unique(sizes):
        columns = points.T[np.array([block for block in ordered if len(block) == size])]
        mixtures += unstacked(_fitted(keys[sizes == size], columns, weights * effective_size, share))
    return Product(ordered, mixtures)


@eqx.filter_jit
def _fitted(
    keys: Key[Array, " blocks"], points: Float[Array, "blocks b n"], counts: Float[Array, " n"], share: float
) -> GaussianMixture:
    """The mixtures of blocks of one size, stacked."""

    def of_block(key: Key[Array, ""], points: Float[Array, "b n"]):
        shift, scale = place_and_scale(points)
        white = matmul(inverse_triangular(scale), points - shift[:, None])
        mixture = jax.lax.fori_loop(
            0,
            ITERATIONS,
            lambda _, mixture: expectation_maximisation(mixture, white, counts),
            seed(key, white, PER_COORDINATE * white.shape[0]),
        )
        mixture = in_coordinates_of(shift, scale, defended(mixture, share))
        return GaussianMixture.of_factors(mixture.means, mixture.factors, jnp.exp(mixture.log_weights))

    return jax.vmap(of_block)(keys, points)


def refined(
    key: Key[Array, ""], log_density: Callable[[Float[Array, " d"]], Float[Array, ""]], product: Product
) -> Product:
    """The product fitted again, to 16,384 draws of its own weighted by p̃/p̂, where they are even enough to tell.

    They are more than the particles were, and have the masses of the modes right. No weight counts for more than √N mean
    weights.

    Args:
        log_density: log p̃ of one point of the product's space.

    Example:
        >>> points = jax.random.normal(jax.random.key(0), (2000, 3))
        >>> rough = fit_product(jax.random.key(1), points, ((0,), (1,), (2,)))
        >>> refined(jax.random.key(2), lambda y: -0.5 * jnp.sum(y**2), rough)
        Product(blocks=3, largest=1, dim=3)
    """
    key_draw, key_fit = jax.random.split(key)
    points, log_weights = _weighted_draws(key_draw, log_density, product)
    return fit_product(key_fit, points, product.blocks, jax.nn.softmax(log_weights))


@eqx.filter_jit
def _weighted_draws(
    key: Key[Array, ""], log_density: Callable, product: Product
) -> tuple[Float[Array, "n d"], Float[Array, " n"]]:
    points = product.sample(key, DRAWS)
    values, _ = as_read(jax.vmap(lambda y: evaluate(log_density, y).astype(y.dtype))(points))
    log_weights = values - jax.vmap(product.log_density)(points)
    return points, jnp.minimum(log_weights, jax.nn.logsumexp(log_weights) - 0.5 * jnp.log(DRAWS))
