"""Mean field and belief propagation: cheap beliefs about each site, for product priors and for cavity corrections.

Mean field      b_i ∝ exp( h_i(v) + Σ_j Σ_u J_ij(v, u) b_j(u) )
Messages        m_{j→i}(v) ∝ Σ_u exp( h_j(u) + J_ij(v, u) ) Π_{k≠i} m_{k→j}(u),     b_i ∝ e^{h_i} Π_j m_{j→i}

Both are iterated from the uniform law with damping, the new logarithm mixed with the old. On a tree the messages are exact.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from .._doors.checks import as_scalar, check_count, check_kind, concrete
from .._doors.show import shown
from .._maths.logs import log_sum
from .graph import Graph
from .model import Pairwise, as_model
from .prior import AbstractValueEstimate, model_order


class Beliefs(eqx.Module):
    """What belief propagation found.

    Attributes:
        messages: log m_{j→i}(v), shape (2M, q), at `directed[i, ·]` of the graph those *into* i; each normalised.
        probabilities: b_i(v), shape (n, q).
        change: the largest change of a log-message in the last iteration; small if they have settled.
        graph: that of the model.
    """

    messages: Float[Array, "2M q"]
    probabilities: Float[Array, "n q"]
    change: Float[Array, ""]
    graph: Graph = eqx.field(static=True)

    def __repr__(self):
        return shown("Beliefs", probabilities=self.probabilities, change=self.change)


def mean_field(model: Pairwise, *, num_iterations: int = 200, damping: ArrayLike = 0.5) -> Float[Array, "n q"]:
    """Probabilities of each value of each site by damped mean field.

    Args:
        model: a pairwise model.
        num_iterations: at least 1.
        damping: in [0, 1), the share of the old logarithm that is kept.

    Raises:
        ValueError: a count below 1, a damping out of range.

    Example:
        >>> from pidjax.discrete import ising, lattice
        >>> round(float(mean_field(ising(lattice(1, 2), 0.0, jnp.array([0.5, 0.0])))[0, 1]), 3)
        0.731
    """
    return _mean_field(*_checked(model, num_iterations, damping))


@eqx.filter_jit
def _mean_field(model: Pairwise, num_iterations: int, damping: Float[Array, ""]) -> Float[Array, "n q"]:
    neighbours, directed = jnp.asarray(model.graph.neighbours), jnp.asarray(model.graph.directed)
    tables = jnp.where((neighbours >= 0)[:, :, None, None], model.directed_couplings[directed], 0)

    def iterate(_, log_law):
        law = jax.nn.softmax(log_law)
        field = model.fields + jnp.einsum("idvu,idu->iv", tables, law[neighbours])
        return damping * log_law + (1 - damping) * jax.nn.log_softmax(field)

    start = jnp.full_like(model.fields, -np.log(model.num_values))
    return jax.nn.softmax(jax.lax.fori_loop(0, num_iterations, iterate, start))


def belief_propagation(model: Pairwise, *, num_iterations: int = 200, damping: ArrayLike = 0.5) -> Beliefs:
    """Damped belief propagation; arguments as of `mean_field`. Whether it has settled, `Beliefs.change` tells.

    Raises:
        ValueError: a count below 1, a damping out of range.

    Example:
        >>> from pidjax.discrete import exact
        >>> from pidjax.discrete import ising
        >>> from pidjax.discrete import lattice
        >>> chain = ising(lattice(1, 5), 0.7, jnp.linspace(-1.0, 1.0, 5))
        >>> bool(jnp.allclose(belief_propagation(chain).probabilities, exact(chain).marginals, atol=1e-5))
        True
    """
    return _belief_propagation(*_checked(model, num_iterations, damping))


def _checked(model: Pairwise, num_iterations: int, damping: ArrayLike) -> tuple[Pairwise, int, Float[Array, ""]]:
    damping = as_scalar("damping", damping).astype(as_model(model).dtype)
    known = concrete(damping)
    if known is not None and not 0 <= known < 1:
        raise ValueError(f"damping is {known:g}; pass 0 <= damping < 1")
    return model, check_count("num_iterations", num_iterations), damping


@eqx.filter_jit
def _belief_propagation(model: Pairwise, num_iterations: int, damping: Float[Array, ""]) -> Beliefs:
    neighbours, directed = jnp.asarray(model.graph.neighbours), jnp.asarray(model.graph.directed)
    num_bonds = len(model.graph.edges)
    known = (neighbours >= 0)[:, :, None]
    couplings = model.directed_couplings
    first, second = model.graph.edges.T if num_bonds else np.zeros((2, 0), int)
    into = jnp.asarray(np.concatenate([first, second]))
    source = jnp.asarray(np.concatenate([second, first]))
    opposite = jnp.concatenate([jnp.arange(num_bonds) + num_bonds, jnp.arange(num_bonds)])

    def belief(messages):
        return model.fields + jnp.sum(jnp.where(known, messages[directed], 0), axis=1)

    def step(messages):
        cavity = belief(messages)[source] - messages[opposite]
        return jax.nn.log_softmax(log_sum(couplings + cavity[:, None, :], 2))

    def iterate(_, carry):
        messages, _ = carry
        new = step(messages)
        return damping * messages + (1 - damping) * new, jnp.max(jnp.abs(new - messages))

    if not num_bonds:
        messages, change = jnp.zeros((1, model.num_values), model.dtype), jnp.zeros((), model.dtype)
    else:
        start = jnp.full((len(into), model.num_values), -np.log(model.num_values), model.dtype)
        messages, change = jax.lax.fori_loop(0, num_iterations, iterate, (start, jnp.zeros((), model.dtype)))
    return Beliefs(messages, jax.nn.softmax(belief(messages)), change, model.graph)


class Cavity(AbstractValueEstimate):
    """ĝ_t(prefix) = Σ log m_{j→i}(v_i) over bonds between a revealed i and an unrevealed j: the unrevealed sites send the
    messages of belief propagation. Exact if all they say is independent: on a tree revealed outward from a root.

    Example:
        >>> from pidjax.discrete import Corrected
        >>> from pidjax.discrete import ising
        >>> from pidjax.discrete import lattice
        >>> from pidjax.discrete import sample
        >>> chain = ising(lattice(1, 9), 0.8, 0.3)
        >>> prior = Corrected(chain, Cavity(chain, belief_propagation(chain)))
        >>> float(sample(jax.random.key(0), chain, prior, num_samples=100).ess).__round__(2)
        100.0

    Raises:
        ValueError: beliefs of another model; an order that is no permutation.
    """

    messages: Float[Array, "2M q"]
    order: Int[Array, " n"]
    model: Pairwise

    def __init__(self, model: Pairwise, beliefs: Beliefs, order: ArrayLike | None = None):
        check_kind("beliefs", beliefs, Beliefs, "belief_propagation(model)")
        self.model, self.order, self.messages = model, model_order(model, order), beliefs.messages
        num_values = self.messages.shape[1]
        if beliefs.graph != model.graph or num_values != model.num_values:
            raise ValueError(
                f"beliefs are of another model, with {num_values} values on a {beliefs.graph}; this one has "
                f"{model.num_values} on a {model.graph}"
            )

    @property
    def orders(self):
        return (self.order,)

    def __repr__(self):
        return shown("Cavity", messages=self.messages)

    def increments(self, step, values):
        site = self.order[step]
        neighbours = jnp.asarray(self.model.graph.neighbours)[site]
        directed = jnp.asarray(self.model.graph.directed)[site]
        num_bonds = max(len(self.model.graph.edges), 1)
        found = values[neighbours]
        unknown = ((neighbours >= 0) & (found < 0))[:, None]
        gained = jnp.sum(jnp.where(unknown, self.messages[directed], 0), axis=0)
        out = self.messages[(directed + num_bonds) % (2 * num_bonds), jnp.maximum(found, 0)]
        return gained - jnp.sum(jnp.where((neighbours >= 0) & (found >= 0), out, 0))
