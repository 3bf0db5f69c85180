"""What can go wrong with samples, and the error that says so."""

from enum import Enum


class Outcome(Enum):
    """What `check` can find."""

    NOT_FINITE = "paths with a NaN or infinite state, or such a weight"
    FAULTY_LAWS = "laws of a prior without full support, or not normalised"
    NO_WEIGHT = "every weight is zero, or log Z is not finite"
    FEW_EFFECTIVE = "a few samples carry the weight"
    BLURRED = "log-weights too large for their dtype"
    SPREAD_OUT = "samples over more decades than a density of finite mass has"
    COARSE = "samples too far from the origin for their dtype"
    FIT_NOT_FINITE = "a log-density of NaN or +inf while its surrogate was fitted"
    COLLAPSED = "an island of particles that descend from a few"
    DISAGREEING = "estimates that differ by more than their own errors"
    UNFINISHED = "a ladder that did not reach its top"
    UNBALANCED = "gradients whose means are not those under the target"
    LOST_MODE = "a mode, or a ridge, that was seen, and where hardly a sample is"
    UNSEEN_MASS = (
        "mass where no sample is: weights, another climb or short steps tell of it, or modes met once that hold much"
    )
    NO_LAW = "paths led by means that belong to no law, which no weight corrects"


class SamplingError(RuntimeError):
    """What `check` raises: what went wrong, and what to try. Its arguments are pairs of an `Outcome` and a text."""

    def __str__(self):
        return "; ".join(text for _, text in self.args)

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        return tuple(found for found, _ in self.args)
