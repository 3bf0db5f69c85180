"""Trained rules on disk."""

from os import PathLike

import equinox as eqx

from ..step import Rule


def save(path: str | PathLike, rule: Rule) -> None:
    """Write the arrays of a rule to a file.

    Example:
        >>> import tempfile, jax, pidjax
        >>> rule = pidjax.Euler(correction=pidjax.neural.Network(jax.random.key(0), 2))
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     save(file.name, rule)
        ...     same = restore(file.name, pidjax.Euler(correction=pidjax.neural.Network(jax.random.key(1), 2)))
        >>> bool(eqx.tree_equal(rule, same))
        True
    """
    with open(path, "wb") as file:
        eqx.tree_serialise_leaves(file, rule)


def restore(path: str | PathLike, like: Rule) -> Rule:
    """The rule that `save` wrote, given one made by the same code, from any key.

    Raises:
        RuntimeError: the file holds arrays of other shapes or dtypes than `like`.
    """
    with open(path, "rb") as file:
        return eqx.tree_deserialise_leaves(file, like)
