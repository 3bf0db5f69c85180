"""Where what is learned lies: whole on every device, if a loss holds data that are spread over several."""

from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec


def is_spread(leaf: Any) -> bool:
    """Whether it is an array on several devices."""
    return isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) > 1


def beside(data: Any, tree: Any) -> Any:
    """The tree with its arrays on the devices of the data, so that an iteration finds them where the one before left them.

    What is spread already stays as it is.
    """
    spread = [leaf.sharding for leaf in jax.tree.leaves(data) if is_spread(leaf)]
    meshes = [sharding.mesh for sharding in spread if isinstance(sharding, NamedSharding)]
    if not meshes:
        return tree
    everywhere = NamedSharding(meshes[0], PartitionSpec())
    return jax.tree.map(lambda leaf: leaf if is_spread(leaf) else jax.device_put(leaf, everywhere), tree)
