"""Descent of a protocol of more and more pieces, each level from where the last one ended."""

import os
from collections.abc import Callable
from os import PathLike
from typing import Any

from .._doors.checks import check_count, check_kind
from .descend import descend
from .descent import Descent
from .parameters import check_protocol, refined


def descend_refining(
    loss: Callable[..., Any],
    parameters: Any,
    *,
    num_levels: int = 4,
    refine: Callable[[Any], Any] = refined,
    checkpoint: str | PathLike | None = None,
    **options,
) -> tuple[Descent, ...]:
    """Descend, cut each piece in two, descend again: 1 → 2 → 4 → 8 pieces in four levels, each from where the last ended.

    Args:
        loss: as in `descend`; it must take protocols of any number of pieces.
        parameters: a protocol, with `only` and `positive` as in `descend`.
        num_levels: ≥ 1.
        refine: what makes parameters finer.
        checkpoint: as of `descend`, with the number of the level behind its name.
        options: the others of `descend`.

    Returns:
        The end of each level.

    Raises:
        ValueError: fewer than one level; as `descend`.

    Example:
        >>> from pidjax import harmonic
        >>> from pidjax.learning import only, positive
        >>> start = only(lambda protocol: protocol.beta, positive(harmonic(1.0)))
        >>> levels = descend_refining(lambda protocol: (protocol.beta**2).sum(), start, num_levels=3, num_iterations=5)
        >>> [level.parameters.num_pieces for level in levels]
        [1, 2, 4]

    Source: Chertkov & Behjoo, *Adaptive Path Integral Diffusion*, arXiv 2512.11858.
    """
    num_levels = check_count("num_levels", num_levels)
    check_kind("refine", refine, Callable, "a function of the parameters")
    if refine is refined:
        check_protocol(parameters)
    levels: list[Descent] = []
    for number in range(num_levels):
        start = refine(levels[-1].free) if levels else parameters
        file = None if checkpoint is None else f"{os.fspath(checkpoint)}-{number + 1}"
        levels.append(descend(loss, start, checkpoint=file, **options))
    return tuple(levels)
