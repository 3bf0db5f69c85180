"""The memory edge: the largest window that does not yet tell which datum it is of.

    k(K) = the largest k with ⟨H(i | x_Ω)⟩ ≥ f log n,     Ω a square of side k, x = y_j + N(0, I/K), y_j of the data

A window of more pixels, or under less noise, knows its datum: a denoiser that looks through it gives that datum back. Below the
edge its mean is of many data, and what it makes of an image is new. No network is needed to find it.
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from .._doors.checks import as_floating, check_count, check_key, check_kind
from ..process.bridge import Observation
from .images import Images
from .local import Local
from .windows import Squares


def window_entropies(
    key: Key[Array, ""],
    images: Images,
    ratios: Float[Array, " R"],
    sizes: Sequence[int],
    *,
    num_queries: int = 16,
) -> Float[Array, "R J"]:
    """⟨H(i | x_Ω)⟩ over all windows of side k of some data under noise, at each ratio K and side k.

    Args:
        ratios: K, of images as they are.
        sizes: k, odd.
        num_queries: data that are looked at, drawn at random.

    Raises:
        ValueError: arguments of another kind or out of range.

    Example:
        >>> images = Images(jax.random.uniform(jax.random.key(0), (20, 4, 4, 1)))
        >>> found = window_entropies(jax.random.key(1), images, jnp.array([1e-6, 1e6]), [1, 7])
        >>> bool(jnp.allclose(found[0], jnp.log(20), atol=1e-3)), bool(found[1, 1] < 1e-3)
        (True, True)
    """
    check_key("key", key)
    check_kind("images", images, Images, "Images")
    ratios, num_queries = as_floating("ratios", ratios), check_count("num_queries", num_queries)
    sides = Squares(sizes, np.arange(1.0, len(sizes))).sizes
    return _window_entropies(key, Local(images, Squares(1)), ratios.astype(images.dtype), sides, num_queries)


@eqx.filter_jit
def _window_entropies(key, local: Local, ratios, sizes, num_queries: int):
    key_choice, key_noise = jax.random.split(key)
    rows = jax.random.choice(key_choice, len(local.images), (num_queries,))
    points = local.images.points[rows].astype(ratios.dtype)
    noise = jax.random.normal(key_noise, points.shape, points.dtype)

    def at(pair):
        ratio, size = pair
        window = Squares(size[None]).at(ratio, local.images.shape)
        gain = jnp.sqrt(ratio)

        def of_query(query):
            point, noise = query
            return jnp.mean(local.sums(Observation(gain, gain * point + noise), window).law.entropy)

        return jnp.mean(jax.lax.map(of_query, (points, noise)))

    pairs = jnp.repeat(ratios, sizes.size), jnp.tile(sizes, ratios.size)
    return jax.lax.map(at, pairs).reshape(ratios.size, sizes.size)


def memory_edge(
    key: Key[Array, ""],
    images: Images,
    ratios: Float[Array, " R"],
    sizes: Sequence[int],
    *,
    fraction: float = 0.2,
    num_queries: int = 16,
) -> Squares:
    """The windows at the memory edge; the smallest side where even that is beyond it.

    Args:
        ratios: K, increasing, at which the edge is sought: below the first, windows are as there.
        sizes: k, odd. The smallest is taken at the end: the larger it is the less grain is left.
        fraction: f, of the entropy log n of all data.
        num_queries: data that the entropies are averaged over.

    Raises:
        ValueError: arguments of another kind or out of range.

    Example:
        >>> images = Images(jax.random.uniform(jax.random.key(0), (20, 4, 4, 1)))
        >>> memory_edge(jax.random.key(1), images, jnp.array([0.1, 10.0, 1e4]), [1, 3, 7]).sizes.tolist()
        [7, 3, 1]
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction is {fraction}; pass a number in (0, 1)")
    entropies = window_entropies(key, images, ratios, sizes, num_queries=num_queries)
    allowed = np.where(entropies >= fraction * np.log(len(images)), np.asarray(sizes)[None], min(sizes))
    largest = np.minimum.accumulate(allowed.max(axis=1))
    return Squares(largest, np.asarray(ratios)[1:])
