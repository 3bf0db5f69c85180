"""Autoregressive priors: the law of each site's value given those revealed before it.

    p(v) = Π_t p_t(v_{o(t)} | v_{o(0)} … v_{o(t−1)}),    o: the order of revealing

Every prior is this one concept, so that its samples have exact weights W = p̃(v)/p(v). A prior may also bring an estimate ĝ
of the Green function, g_t(prefix) = log Σ_{completions} e^{energy still to come}: of it only the increments are asked. With

    p_t(v | prefix) ∝ exp( what v adds to log p̃ + ĝ_{t+1}(prefix, v) )

it is the decision that would be optimal if ĝ were g. On a configuration space in which every end has one path, the prior
drops out of that rule: it only matters for how ĝ is estimated.

    Uniform             every value alike
    Product             independent sites: `mean_field`, `belief_propagation`
    Boltzmann           ĝ = 0: the local Boltzmann law given the neighbours already known
    Corrected           ĝ = a product of cavity messages, or what was fitted to paths
    Autoregressive      any function of the user's
"""

from abc import abstractmethod
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from .._checks import as_floating, concrete
from .graph import checked_order
from .model import UNKNOWN, Pairwise


class Prior(eqx.Module):
    """A law of configurations, site by site.

    Attributes:
        order: o, the sites as they are revealed, shape (n,).
    """

    order: eqx.AbstractVar[Int[Array, " n"]]

    @property
    def num_sites(self) -> int:
        return self.order.shape[0]

    @abstractmethod
    def log_conditional(self, step: Int[Array, ""], values: Int[Array, " n"]) -> Float[Array, " q"]:
        """log p_t of each value of site o(t), given the values revealed before; those of other sites are −1."""

    def green_ratio(self, step: Int[Array, ""], values: Int[Array, " n"]) -> Float[Array, " q"]:
        """ĝ_{t+1}(prefix, v) − ĝ_t(prefix) for each v, with ĝ_n = 0; zero of a prior without an estimate."""
        return jnp.zeros_like(self.log_conditional(step, values))


class Uniform(Prior):
    """Every value with probability 1/q.

    Example:
        >>> from pidjax.decision import ising_grid
        >>> round(float(Uniform(ising_grid(2)).log_conditional(jnp.array(0), jnp.full(4, -1))[0]), 4)
        -0.6931
    """

    order: Int[Array, " n"]
    law: Float[Array, " q"]

    def __init__(self, model: Pairwise, order: ArrayLike | None = None):
        self.order = model_order(model, order)
        self.law = jnp.full(model.num_values, -jnp.log(model.num_values).astype(model.dtype))

    def log_conditional(self, step, values):
        return self.law


class Product(Prior):
    """Independent sites.

    Args:
        probabilities: of each value of each site, shape (n, q); see `mean_field` and `belief_propagation`.

    Raises:
        ValueError: a wrong shape, a negative entry, a row that does not sum to one.
    """

    order: Int[Array, " n"]
    probabilities: Float[Array, "n q"]

    def __init__(self, probabilities: ArrayLike, order: ArrayLike | None = None):
        self.probabilities = as_floating("probabilities", probabilities)
        known = concrete(self.probabilities)
        if self.probabilities.ndim != 2:
            raise ValueError(f"probabilities has shape {self.probabilities.shape}; pass (n, q)")
        if known is not None and not ((known >= 0).all() and (abs(known.sum(1) - 1) < 1e-4).all()):
            raise ValueError("probabilities has rows that are negative or do not sum to one")
        self.order = _order(self.probabilities.shape[0], order)

    def log_conditional(self, step, values):
        return jnp.log(self.probabilities[self.order[step]])


class Boltzmann(Prior):
    """Each site by its Boltzmann law given the neighbours that are known: ĝ = 0.

    Example:
        >>> from pidjax.decision import ising, lattice
        >>> prior = Boltzmann(ising(lattice(1, 2), 1.0))
        >>> round(float(jnp.exp(prior.log_conditional(jnp.array(1), jnp.array([1, -1]))[1])), 3)
        0.881
    """

    order: Int[Array, " n"]
    model: Pairwise

    def __init__(self, model: Pairwise, order: ArrayLike | None = None):
        self.model, self.order = model, model_order(model, order)

    def log_conditional(self, step, values):
        return jax.nn.log_softmax(self.model.local(self.order[step], values))


class Corrected(Prior):
    """The decision ∝ exp( what v adds to log p̃ + ĝ_{t+1}(prefix, v) ), for an estimate ĝ of the Green function.

    Args:
        model: a pairwise model.
        green: ĝ, an object with `ratio(step, values)`, see `Prior.green_ratio`: `Cavity`, `Table`, `Features`, a sum of them.
        order: by default the model's.
    """

    order: Int[Array, " n"]
    model: Pairwise
    green: "Green"

    def __init__(self, model: Pairwise, green: "Green", order: ArrayLike | None = None):
        self.model, self.green, self.order = model, green, model_order(model, order)

    def log_conditional(self, step, values):
        return jax.nn.log_softmax(self.model.local(self.order[step], values) + self.green.ratio(step, values))

    def green_ratio(self, step, values):
        return self.green.ratio(step, values)


class Autoregressive(Prior):
    """Any autoregressive sampler.

    Args:
        function: of (step, values) to unnormalised log-probabilities (q,) of the site order[step]; values (n,) are −1 at
            sites not yet revealed.
        order: the order of revealing, shape (n,).

    Example:
        >>> prior = Autoregressive(lambda step, values: jnp.array([0.0, 1.0]), order=jnp.arange(3))
    """

    order: Int[Array, " n"]
    function: Callable[[Int[Array, ""], Int[Array, " n"]], Float[Array, " q"]]

    def __init__(self, function: Callable, order: ArrayLike):
        self.function, self.order = function, _order(jnp.asarray(order).shape[0], order)

    def log_conditional(self, step, values):
        return jax.nn.log_softmax(self.function(step, values))


class Green(eqx.Module):
    """An estimate ĝ_t(prefix) of the logarithm of the Green function, with ĝ_n = 0."""

    @abstractmethod
    def ratio(self, step: Int[Array, ""], values: Int[Array, " n"]) -> Float[Array, " q"]:
        """ĝ_{t+1}(prefix, v) − ĝ_t(prefix) for each value v of the site revealed at this step."""

    def __add__(self, other: "Green") -> "Green":
        return _Sum(self, other)


class _Sum(Green):
    first: Green
    second: Green

    def ratio(self, step, values):
        return self.first.ratio(step, values) + self.second.ratio(step, values)


def hidden(prior: Prior, step: Int[Array, ""], values: Int[Array, " n"]) -> Int[Array, " n"]:
    """The values as they were before a step: −1 at sites that come at it or later."""
    later = jnp.zeros(prior.num_sites, bool).at[prior.order].set(jnp.arange(prior.num_sites) >= step)
    return jnp.where(later, UNKNOWN, values)


def log_probability(prior: Prior, values: Int[Array, " n"]) -> Float[Array, ""]:
    """log p of one configuration.

    Example:
        >>> from pidjax.decision import ising_grid
        >>> round(float(log_probability(Uniform(ising_grid(2)), jnp.zeros(4, int))), 4)
        -2.7726
    """

    def term(step):
        law = prior.log_conditional(step, hidden(prior, step, values))
        return law[values[prior.order[step]]]

    return jnp.sum(jax.vmap(term)(jnp.arange(prior.num_sites)))


def model_order(model: Pairwise, order: ArrayLike | None) -> Int[Array, " n"]:
    """The order, checked; the graph's own if None."""
    return jnp.asarray(model.graph.order) if order is None else _order(model.num_sites, order)


def _order(num_sites: int, order: ArrayLike | None) -> Int[Array, " n"]:
    known = None if order is None else concrete(jnp.asarray(order))
    if order is not None and known is None:
        return jnp.asarray(order)
    return jnp.asarray(checked_order(num_sites, known))
