"""The end of a descent: what was learned, by which losses, and whether every iteration was finite."""

from enum import StrEnum
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float

from .._doors.show import shown
from .parameters import resolve
from .reports import Reports


class DescentError(RuntimeError):
    """What `Descent.check` raises: what went wrong, and what to try."""


class Outcome(StrEnum):
    """How a descent ended: at the last iteration, by its stopping rule, or where nothing is finite any more."""

    COMPLETED = "completed"
    SETTLED = "settled"
    NOT_FINITE = "not finite"


class Descent(eqx.Module):
    """The end of a descent, and what it took.

    Attributes:
        free: the parameters with what `only` and `positive` put around them: pass them to `descend` again to go on.
        state: of the loss, if it has one.
        history: the loss at every iteration before its update, shape (n,).
        num_nonfinite: iterations whose loss or gradient was not finite.
        outcome: how it ended.
        num_evaluations: what the loss cost, in states at which the log-density or its gradient was asked for, where `fit` and
            `discrete.train` count them. What the backward pass computes again is not counted, nor is what reports cost.
        average: as `free`, with the averages of what is learned; None where none was asked for.
        reports: by name, one value for each entry of `reports["iteration"]`; empty where none were asked for.
    """

    free: Any
    state: Any
    history: Float[np.ndarray, " n"]
    num_nonfinite: int = eqx.field(static=True)
    outcome: Outcome = eqx.field(static=True)
    num_evaluations: int | None = eqx.field(static=True, default=None)
    average: Any = None
    reports: Reports = eqx.field(default_factory=dict)

    def __repr__(self):
        facts = {"num_nonfinite": self.num_nonfinite, "outcome": str(self.outcome)}
        return shown("Descent", iterations=self.history.size, loss=self.history[-1, ...], **facts)

    @property
    def parameters(self) -> Any:
        """The parameters as the loss sees them."""
        return resolve(self.free)

    @property
    def averaged(self) -> Any:
        """The parameters as the loss sees them, with the averages of what was learned in the place of its last values.

        Raises:
            ValueError: none was asked for.
        """
        if self.average is None:
            raise ValueError("this descent kept no average; ask for one, as descend(..., average=0.999)")
        return resolve(self.average)

    def check(self) -> None:
        """Raise `DescentError` if an iteration was not finite, saying what to try."""
        if self.num_nonfinite:
            raise DescentError(
                f"{self.num_nonfinite} of {self.history.size} iterations had a loss or gradient that is not finite and "
                "changed nothing. A step was too large, or crossed a bound or a conjugate point: take a smaller "
                "learning rate, a `positive` stiffness, more paths, or a reference whose scale is nearer the target's"
            )
