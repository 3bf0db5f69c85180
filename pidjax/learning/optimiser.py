"""Adam as an optimiser by default: the same object for the same arguments."""

from functools import lru_cache

import optax

from .._doors.checks import as_positive, check_count


def adam(
    learning_rate: float = 3e-2, *, decay: int | None = None, clip: float | None = None
) -> optax.GradientTransformation:
    """Adam. The same arguments give the same object, so that descents which differ only in arrays share one compilation.

    Args:
        learning_rate: a number > 0.
        decay: iterations over which the rate falls to zero along half a cosine; it stays, if left out.
        clip: what longer gradients are cut to.

    Raises:
        ValueError: a rate or length that is not a finite number > 0, a count that is no integer ≥ 1.
    """
    as_positive("learning_rate", learning_rate)
    if clip is not None:
        as_positive("clip", clip)
    return _adam(
        float(learning_rate),
        None if decay is None else check_count("decay", decay),
        None if clip is None else float(clip),
    )


@lru_cache
def _adam(rate: float, decay: int | None, clip: float | None) -> optax.GradientTransformation:
    optimiser = optax.adam(rate if decay is None else optax.cosine_decay_schedule(rate, decay))
    return optimiser if clip is None else optax.chain(optax.clip_by_global_norm(clip), optimiser)
