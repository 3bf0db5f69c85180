"""The cheapest exact way for a model."""

from .elimination import Elimination
from .enumeration import AbstractExact, Enumeration
from .model import Pairwise, as_model
from .transfer import Transfer


def exact(model: Pairwise) -> AbstractExact:
    """Enumeration up to 2^10 configurations, else Transfer along the graph's order, or Elimination if it is much narrower.

    Raises:
        ValueError: neither order has tables of at most 2^20 numbers; both widths are told.

    Example:
        >>> from pidjax.discrete import ising_grid
        >>> round(float(exact(ising_grid(6)).log_z), 4)
        30.1541
    """
    if as_model(model).num_values ** model.num_sites <= 2**10:
        return Enumeration(model)
    ways, reasons = [], []
    for way in (Transfer, Elimination):
        try:
            ways.append(way(model))
        except ValueError as error:
            reasons.append(str(error))
    if not ways:
        raise ValueError(". And ".join(reasons))
    if len(ways) == 2 and ways[1].width < ways[0].window // 2:
        return ways[1]
    return ways[0]
