"""How much is spent on each run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """Training iterations of samplers from nothing and of corrections, paths in each; steps of the former; final samples."""

    sampler_iterations: int
    correction_iterations: int
    batch_size: int
    sampler_steps: int = 100
    num_samples: int = 4096

    @classmethod
    def quick(cls) -> "Budget":
        return cls(150, 100, 256)

    @classmethod
    def full(cls) -> "Budget":
        return cls(5000, 2000, 512)
