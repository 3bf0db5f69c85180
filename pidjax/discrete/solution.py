"""The answer to a decision problem, by the names of `pidjax.Solution`.

With weights W_i of N configurations, in G independent groups (each configuration its own, or the populations of a
particle method, whose members are not independent), E[W] = Z:

    log Ẑ = log mean W,      s.e.(log Ẑ) = √( Σ_g w_g² − 1/G ),             w_i = W_i/ΣW,  w_g = Σ_{i∈g} w_i,
    E[f] ≈ Σ_i w_i f(v_i),   s.e. = √( Σ_g | Σ_{i∈g} w_i (f(v_i) − E[f]) |² ),     ESS = 1/Σ_i w_i².
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._doors.show import brief, sheet
from .._maths.weighted import SamplingError, Weighted, weighted_sum


class Solution(Weighted):
    """Weighted configurations, with the evidence of how good they are.

    Attributes:
        samples: values, shape (N, n); the members of a group stand together.
        log_weights: log W, shape (N,); −inf for a configuration of no weight.
        num_groups: G, a divisor of N.
        num_energy_evaluations: full evaluations of the energy, or sweeps of local ones that cost the same.
        num_faulty_laws: decisions at which the prior gave a value no probability, or a law that does not sum to one, or
            NaN: then E[W] = Z fails.
    """

    samples: Int[Array, "N n"]
    log_weights: Float[Array, " N"]
    num_groups: int = eqx.field(static=True)
    num_energy_evaluations: int = eqx.field(static=True)
    num_faulty_laws: Int[Array, ""] | int = 0

    def __check_init__(self):
        if self.samples.ndim != 2 or self.log_weights.shape != self.samples.shape[:1]:
            raise ValueError(
                f"samples has shape {self.samples.shape} and log_weights {self.log_weights.shape}; pass (N, n) and (N,)"
            )
        if self.num_groups < 1 or self.num_samples % self.num_groups:
            raise ValueError(f"num_groups is {self.num_groups}; pass a divisor of {self.num_samples} configurations")

    @property
    def ess(self) -> Float[Array, ""]:
        """(ΣW)²/ΣW². Resampled members of a group share ancestors, which it does not see: the errors do."""
        return 1 / jnp.sum(self.weights**2)

    @property
    def log_z_error(self) -> Float[Array, ""]:
        """Standard error of log Ẑ, from the spread over groups; NaN of one group with several members."""
        if self.num_groups == 1 and self.num_samples > 1:
            return jnp.full((), jnp.nan, self.log_weights.dtype)
        groups = jnp.sum(self.weights.reshape(self.num_groups, -1), axis=1)
        return jnp.sqrt(jnp.maximum(jnp.sum(groups**2) - 1 / self.num_groups, 0))

    def expectation(self, function: Callable[[Int[Array, " n"]], Any]) -> tuple[Any, Any]:
        """E[f(v)] under the target, self-normalised, and its standard error.

        Args:
            function: of one configuration, to an array or a pytree of arrays.
        """
        weights = self.weights

        def moments(values):
            values = values.astype(weights.dtype)
            mean = weighted_sum(weights, values)
            terms = weights.reshape(-1, *[1] * mean.ndim) * (values - mean[None])
            groups = jnp.sum(terms.reshape(self.num_groups, -1, *mean.shape), axis=1)
            return mean, jnp.sqrt(jnp.sum(groups**2, axis=0))

        values = jax.vmap(function)(self.samples)
        pairs = jax.tree.map(moments, values)
        return jax.tree.transpose(jax.tree.structure(values), jax.tree.structure((0, 0)), pairs)

    def check(self, min_ess_fraction: float = 0.1) -> "Solution":
        """Return self if the run can be trusted as far as a run can tell; otherwise raise and say what to try.

        Raises:
            SamplingError: a prior without full support or not normalised, all weights zero, log-weights beyond the
                resolution of their dtype, or an ESS below `min_ess_fraction` of N.
        """
        if not 0 < min_ess_fraction <= 1:
            raise ValueError(f"min_ess_fraction is {min_ess_fraction}; pass a number in (0, 1]")
        problems = []
        if self.num_faulty_laws > 0:
            problems.append(
                f"at {int(self.num_faulty_laws)} of {self.samples.size} decisions the prior gave a value no probability, or "
                "a law that does not sum to one, or NaN: E[W] = Z fails, and log_z is not to be trusted. Give every value a "
                "positive probability, by log_softmax of finite numbers"
            )
        if not jnp.isfinite(self.log_z):
            problems.append(
                f"log_z is {float(self.log_z)}: every weight is zero, or one is not finite. Look at the energies and at the "
                "laws of the prior for NaN and infinity"
            )
        elif self.ess < min_ess_fraction * self.num_samples:
            problems.append(
                f"the effective sample size is {float(self.ess):.1f} of {self.num_samples}: a few configurations carry the "
                "weight. Use a better prior (Corrected by Cavity messages or by a fitted Table or Features), populations, or "
                "an exact sampler"
            )
        problems += self._blurred()
        if problems:
            raise SamplingError("; ".join(problems))
        return self

    def __repr__(self):
        if not isinstance(self.samples, jax.Array | np.ndarray) or self.samples.ndim != 2:
            return super().__repr__()
        number, sites = self.samples.shape
        rows = self._evidence()
        if self._holds_numbers():
            rows["E[v]"] = brief(self.expectation(lambda values: values)[0])
            if self.num_faulty_laws > 0:
                rows["faulty"] = f"{int(self.num_faulty_laws)} laws of the prior: see check()"
        if self.num_groups < number:
            rows["groups"] = f"{self.num_groups} populations of {number // self.num_groups}"
        return sheet(f"Solution: {number} configurations of {sites} sites, weighted", **rows)

    def to_dict(self) -> dict[str, Any]:
        """NumPy arrays and plain numbers by name: for saving, or for another library."""
        return {
            "samples": np.asarray(self.samples),
            "log_weights": np.asarray(self.log_weights),
            "log_z": float(self.log_z),
            "log_z_error": float(self.log_z_error),
            "ess": float(self.ess),
            "num_groups": self.num_groups,
            "num_energy_evaluations": self.num_energy_evaluations,
            "num_faulty_laws": int(self.num_faulty_laws),
        }
