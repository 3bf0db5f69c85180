"""What figures are made of, checked: lists that are not empty, arrays whose shapes fit together, images."""

from collections.abc import Sequence

import numpy as np

from .._doors.checks import check_kind


def check_some(name: str, values, of: type) -> None:
    """Raise unless a sequence of values of one kind is that, and not empty."""
    check_kind(name, values, Sequence | np.ndarray, f"a list of {of.__name__}")
    if not len(values):
        raise ValueError(f"{name} is empty; pass at least one")
    for number, value in enumerate(values):
        check_kind(f"{name}[{number}]", value, of, f"one {of.__name__}")


def check_shape(name: str, values, wanted: tuple) -> None:
    """Raise unless an array has the wanted shape, in which a name stands for any number from 1."""
    shape = np.shape(values)
    fits = len(shape) == len(wanted) and all(
        size == want or (isinstance(want, str) and size > 0) for size, want in zip(shape, wanted)
    )
    if not fits:
        raise ValueError(
            f"{name} has shape {shape}; pass shape ({', '.join(map(str, wanted))}{',' * (len(wanted) == 1)})"
        )


def check_images(name: str, images, before: tuple) -> None:
    """Raise unless an array holds images of one or of three channels, along axes that are given."""
    check_shape(name, images, (*before, "h", "w", "c"))
    if np.shape(images)[-1] not in (1, 3):
        raise ValueError(
            f"{name} has {np.shape(images)[-1]} channels; pass images of 1, shown in grey, or of 3, in colour"
        )
