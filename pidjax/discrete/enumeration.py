"""Exact answers: log Z, its derivatives, which are the moments, and independent samples.

`exact(model)` picks the cheapest of three ways to sum over the sites not yet revealed (the Green function of revealing one
site at a time is this marginalisation):

    Enumeration    all qⁿ configurations
    Transfer       messages over the last w sites of an order, q^w numbers each: lattices of width w, any length
    Elimination    one variable after the other, tables of the treewidth: trees, sparse random graphs
"""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from .._doors.checks import check_count, check_key, concrete
from .._doors.show import shown
from .._maths.logs import log_sum, pick
from .model import Pairwise, as_model
from .solution import Solution

MAX_STATES = 2**20
"""The largest table that is built: messages of Transfer, cliques of Elimination, all configurations of Enumeration."""


class AbstractExact(eqx.Module):
    """A model, and a way to sum over all of its configurations."""

    model: eqx.AbstractVar[Pairwise]

    @abstractmethod
    def log_partition(self, model: Pairwise) -> Float[Array, ""]:
        """log Z of a model on the same graph, in a form that can be differentiated."""

    @abstractmethod
    def draw(self, key: Key[Array, ""], num_samples: int) -> Int[Array, "num_samples n"]:
        """Independent configurations; configuration i depends on fold_in(key, i)."""

    @property
    def log_z(self) -> Float[Array, ""]:
        return self._feasible(_log_z(self))

    @property
    def marginals(self) -> Float[Array, "n q"]:
        """P(v_i = a) = ∂ log Z / ∂ fields[i, a]."""
        return _gradient(self).fields

    @property
    def pair_marginals(self) -> Float[Array, "M q q"]:
        """P(v_i = a, v_j = b) = ∂ log Z / ∂ couplings[e, a, b] of each bond e = (i, j)."""
        return _gradient(self).couplings

    @property
    def magnetisations(self) -> Float[Array, " n"]:
        """E[level(v_i)]: one gradient."""
        return jnp.sum(self.marginals * self.model.levels[None, :], axis=1)

    @property
    def correlations(self) -> Float[Array, "n n"]:
        """E[level(v_i) level(v_j)] of all pairs: the Hessian of log Z in a field, and the product of its gradients."""
        return _correlations(self)

    @property
    def mean_log_density(self) -> Float[Array, ""]:
        """E[log p̃] = d log Z/dβ at β = 1, minus the mean energy."""
        model, gradient = self.model, _gradient(self)
        return jnp.sum(gradient.fields * model.fields) + jnp.sum(gradient.couplings * model.couplings)

    def sample(self, key: Key[Array, ""], num_samples: int) -> Solution:
        """Independent exact configurations, each of weight Z."""
        check_key("key", key)
        num_samples = check_count("num_samples", num_samples)
        values, log_z = _draw(self, key, num_samples)
        return Solution(values, jnp.broadcast_to(self._feasible(log_z), (num_samples,)), num_samples, num_samples)

    def _feasible(self, log_z):
        known = concrete(log_z)
        if known is not None and np.isneginf(known):
            raise ValueError("infeasible: no configuration has a positive weight under what the guide asks")
        if known is not None and not np.isfinite(known):
            raise ValueError(f"log Z is {known}: the guide's running weights hold NaN or +inf, or add up to it")
        return log_z


@eqx.filter_jit
def _log_z(exact: AbstractExact):
    return exact.log_partition(exact.model)


@eqx.filter_jit
def _gradient(exact: AbstractExact) -> Any:
    return eqx.filter_grad(exact.log_partition)(exact.model)


@eqx.filter_jit
def _correlations(exact: AbstractExact):
    model = exact.model
    field = jnp.zeros(model.num_sites, model.dtype)
    gradient = jax.grad(lambda field: exact.log_partition(model.in_field(field)))
    basis = jnp.eye(model.num_sites, dtype=model.dtype)
    mean, tangent = jax.linearize(gradient, field)
    covariances = jax.lax.map(tangent, basis)
    return covariances + mean[:, None] * mean[None, :]


@eqx.filter_jit
def _draw(exact: AbstractExact, key, num_samples: int):
    return exact.draw(key, num_samples), exact.log_partition(exact.model)


class Enumeration(AbstractExact):
    """All qⁿ configurations.

    Raises:
        ValueError: more than 2^20 of them.

    Example:
        >>> from pidjax.discrete import ising, lattice
        >>> round(float(Enumeration(ising(lattice(1, 2), 0.5)).log_z), 6)
        1.506409
    """

    model: Pairwise = eqx.field(converter=as_model)

    def __check_init__(self):
        if self.model.num_values**self.model.num_sites > MAX_STATES:
            raise ValueError(
                f"{self.model.num_values}^{self.model.num_sites} configurations are too many to enumerate, the limit is "
                f"{MAX_STATES}; use Transfer or Elimination"
            )

    def __repr__(self):
        return shown("Enumeration", model=self.model)

    @property
    def configurations(self) -> Int[Array, "states n"]:
        """All of them, the last site running fastest."""
        return digits(
            jnp.arange(self.model.num_values**self.model.num_sites), self.model.num_values, self.model.num_sites
        )

    @property
    def probabilities(self) -> Float[Array, " states"]:
        """Of each of `configurations`."""
        return jax.nn.softmax(self.log_densities(self.model))

    def log_densities(self, model: Pairwise) -> Float[Array, " states"]:
        return jax.lax.map(model.log_density, self.configurations, batch_size=2**14)

    def log_partition(self, model):
        return log_sum(self.log_densities(model), 0)

    def draw(self, key, num_samples):
        """The first half of the sites, then the others given them: one uniform is too coarse for a million states."""
        rows = self.model.num_values ** (self.model.num_sites // 2)
        log_joint = self.log_densities(self.model).reshape(rows, -1)
        log_rows = log_sum(log_joint, 1)

        def of_path(index):
            first, second = jax.random.uniform(jax.random.fold_in(key, index), (2,), log_rows.dtype)
            row = pick(log_rows, first)
            return row * log_joint.shape[1] + pick(log_joint[row], second)

        return self.configurations[jax.lax.map(of_path, jnp.arange(num_samples), batch_size=2**10)]


def digits(index: Int[Array, "*k"], base: int, count: int) -> Int[Array, "*k count"]:
    """The last `count` digits of numbers in a base, the highest first.

    Example:
        >>> digits(jnp.array(6), 2, 4).tolist()
        [0, 1, 1, 0]
    """
    powers = jnp.array([base**place for place in reversed(range(count))], index.dtype)
    return index[..., None] // powers.reshape((1,) * index.ndim + (count,)) % base
