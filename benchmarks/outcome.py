"""What is asked of a sampler, and what it came to."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from jaxtyping import Array, Float

from . import measure

CLOSED = "H-PID, closed form"
ENERGY = "H-PID, energy alone"
SURROGATE = "importance sampling from its surrogate"
PIS = "PIS"
FOLLMER = "BlackJAX Schrödinger–Föllmer"
TEMPERED = "BlackJAX tempered SMC"
EXACT = "exact samples"


@dataclass(frozen=True)
class Budget:
    """How much is spent: paths of each run; seeds of each method, of PIS, and of every method on the digits; training
    iterations of PIS on `nine` and elsewhere, and paths in each; draws a particle and step of Schrödinger–Föllmer (a quarter of
    them on the digits)."""

    num_samples: int
    seeds: int
    pis_iterations_on_nine: int
    pis_iterations: int
    pis_batch: int
    pis_seeds: int
    digits_seeds: int
    follmer_draws: int

    @classmethod
    def quick(cls) -> "Budget":
        return cls(2048, 2, 1000, 150, pis_batch=300, pis_seeds=1, digits_seeds=1, follmer_draws=128)

    @classmethod
    def full(cls) -> "Budget":
        return cls(4096, 5, 4000, 4000, pis_batch=512, pis_seeds=2, digits_seeds=5, follmer_draws=256)

    def pis_iterations_on(self, case: str) -> int:
        return self.pis_iterations_on_nine if case == "nine" else self.pis_iterations

    def seeds_of(self, method: str, case: str) -> int:
        most = self.digits_seeds if case == "digits" else self.seeds
        return min(most, self.pis_seeds if method == PIS else self.seeds)

    def with_seeds(self, seeds: int) -> "Budget":
        return replace(self, seeds=seeds, pis_seeds=seeds, digits_seeds=seeds)


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        budget: what was spent, in words.
        samples: (N, d); log_weights: (N,) or None.
        weighted: whether the distances are of the weighted samples, else of the samples as they came.
        has_density: False if the target was a data set, which has neither log Z nor energies.
        log_z, log_z_error, ess, forward_ess: where the method has them; ESS over N.
        temporaries: asks the compiler for the bytes of temporaries, if `cost` does not say.
        warning: what `Solution.check` says against the run.
    """

    budget: str
    samples: Float[Array, "n d"]
    cost: measure.Cost | None
    log_weights: Float[Array, " n"] | None = None
    weighted: bool = True
    has_density: bool = True
    log_z: float | None = None
    log_z_error: float | None = None
    ess: float | None = None
    forward_ess: float | None = None
    energy_evaluations: int = 0
    gradient_evaluations: int = 0
    temporaries: Callable[[], int | None] | None = None
    warning: str | None = None
