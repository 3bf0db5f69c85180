"""The cheapest exact way for a model."""

from .elimination import Elimination
from .exact import Enumeration, Exact
from .model import Pairwise
from .transfer import Transfer


def exact(model: Pairwise) -> Exact:
    """Enumeration up to 2^10 configurations, else Transfer along the graph's order, else Elimination.

    Raises:
        ValueError: neither order has tables of at most 2^20 numbers; both widths are told.

    Example:
        >>> from pidjax.decision import ising_grid
        >>> round(float(exact(ising_grid(6)).log_z), 4)
        30.1541
    """
    if model.num_values**model.num_sites <= 2**10:
        return Enumeration(model)
    try:
        transfer = Transfer(model)
    except ValueError as error:
        try:
            return Elimination(model)
        except ValueError as other:
            raise ValueError(f"{error}. And {other}") from None
    narrow = 2**10
    if model.num_values**transfer.window > narrow:
        try:
            elimination = Elimination(model)
        except ValueError:
            return transfer
        if elimination.width < transfer.window // 2:
            return elimination
    return transfer
