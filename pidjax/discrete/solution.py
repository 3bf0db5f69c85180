"""The answer to a decision problem: weighted configurations, and the questions of `Weighted`."""

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, Int

from .._doors.show import brief, sheet
from .._maths.outcomes import Outcome
from .._maths.weighted import SharedSample, Weighted


class Solution(Weighted):
    """Weighted configurations, with the evidence of how good they are.

    Attributes:
        samples: values, shape (N, n); the members of an island stand together.
        log_weights: log W, shape (N,); −inf for a configuration of no weight.
        num_islands: G, a divisor of N: each configuration its own, or the populations of a particle method.
        num_energy_evaluations: full evaluations of the energy, or sweeps of local ones that cost the same.
        shared: a weighted sample that all of them share, if there is one.
        num_faulty_laws: decisions at which the prior gave a value no probability, or a law that does not sum to one, or
            NaN: then E[W] = Z fails.
    """

    samples: Int[Array, "N n"]
    log_weights: Float[Array, " N"]
    num_islands: int = eqx.field(static=True)
    num_energy_evaluations: int = eqx.field(static=True)
    shared: SharedSample | None = None
    num_faulty_laws: Int[Array, ""] | int = 0

    def __check_init__(self):
        if self.samples.ndim != 2 or self.log_weights.shape != self.samples.shape[:1]:
            raise ValueError(
                f"samples has shape {self.samples.shape} and log_weights {self.log_weights.shape}; pass (N, n) and (N,)"
            )

    def _problems(self):
        if not self.num_faulty_laws > 0:
            return []
        text = (
            f"at {int(self.num_faulty_laws)} of {self.samples.size} decisions the prior gave a value no probability, or "
            "a law that does not sum to one, or NaN: E[W] = Z fails, and log_z is not to be trusted. Give every value a "
            "positive probability, by log_softmax of finite numbers"
        )
        return [(Outcome.FAULTY_LAWS, text)]

    def _advice(self):
        lost = (
            f"log_z is {float(self.log_z.value)}: every weight is zero, or one is not finite. Look at the energies and at the "
            "laws of the prior for NaN and infinity"
        )
        return lost, (
            "a few configurations carry the weight. Use a better prior (Corrected by Cavity messages or by a fitted Table or "
            "Features), populations, or an exact sampler"
        )

    def _facts(self):
        return {"num_faulty_laws": int(self.num_faulty_laws)}

    def __repr__(self):
        if not isinstance(self.samples, jax.Array | np.ndarray) or self.samples.ndim != 2:
            return super().__repr__()
        number, sites = self.samples.shape
        rows = self._evidence()
        if self._holds_numbers():
            rows["E[v]"] = brief(self.expectation(lambda values: values).value)
            if self.num_faulty_laws > 0:
                rows["faulty"] = f"{int(self.num_faulty_laws)} laws of the prior: see check()"
        if self.num_islands < number:
            rows["islands"] = f"{self.num_islands} populations of {number // self.num_islands}"
        return sheet(f"Solution: {number} configurations of {sites} sites, weighted", **rows)
