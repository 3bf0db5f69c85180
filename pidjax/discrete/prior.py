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
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from .._doors.checks import as_floating, check_kind, concrete
from .._doors.functions import check_gives, outcome
from .._doors.show import shown
from .graph import checked_order
from .model import UNKNOWN, Pairwise, are_values, as_model, as_values


class AbstractPrior(eqx.Module):
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

    def value_increments(self, step: Int[Array, ""], values: Int[Array, " n"]) -> Float[Array, " q"]:
        """ĝ_{t+1}(prefix, v) − ĝ_t(prefix) for each v, with ĝ_n = 0; zero of a prior without an estimate."""
        return jnp.zeros_like(self.log_conditional(step, values))

    def check_support(self) -> None:
        """Raise if it is known, before anything runs, to give a value no probability: then E[W] < Z."""

    def __repr__(self):
        return shown(type(self).__name__, order=self.order)


class Uniform(AbstractPrior):
    """Every value with probability 1/q.

    Example:
        >>> from pidjax.discrete import ising_grid
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


class Product(AbstractPrior):
    """Independent sites.

    Args:
        probabilities: of each value of each site, shape (n, q); see `mean_field` and `belief_propagation`. Rows are scaled
            to sum to one to rounding.
        order: the order of revealing; by default that of the numbers.

    Raises:
        ValueError: a wrong shape, a negative entry, a row whose sum is further than 1e-4 from one.
    """

    order: Int[Array, " n"]
    probabilities: Float[Array, "n q"]

    def __init__(self, probabilities: ArrayLike, order: ArrayLike | None = None):
        probabilities = as_floating("probabilities", probabilities)
        known = concrete(probabilities)
        if probabilities.ndim != 2 or probabilities.shape[0] < 1 or probabilities.shape[1] < 2:
            raise ValueError(f"probabilities has shape {probabilities.shape}; pass (n, q), q at least 2")
        if known is not None and not ((known >= 0).all() and (abs(known.sum(1) - 1) < 1e-4).all()):
            raise ValueError("probabilities has rows that are negative or do not sum to one")
        self.probabilities = probabilities / jnp.sum(probabilities, axis=1, keepdims=True)
        self.order = _order(self.probabilities.shape[0], order)

    def log_conditional(self, step, values):
        return jnp.log(self.probabilities[self.order[step]])

    def check_support(self):
        known = concrete(self.probabilities)
        if known is not None and not (known > 0).all():
            site, value = np.argwhere(known == 0)[0].tolist()
            raise ValueError(
                f"prior gives the value {value} of site {site} no probability, one of {(known == 0).sum()} such values, but "
                "every configuration has weight: E[W] = Z needs each probability positive; mix in some of the uniform law"
            )

    def __repr__(self):
        return shown("Product", probabilities=self.probabilities)


class Boltzmann(AbstractPrior):
    """Each site by its Boltzmann law given the neighbours that are known: ĝ = 0.

    Example:
        >>> from pidjax.discrete import ising, lattice
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

    def __repr__(self):
        return shown("Boltzmann", model=self.model)


class Corrected(AbstractPrior):
    """The decision ∝ exp( what v adds to log p̃ + ĝ_{t+1}(prefix, v) ), for an estimate ĝ of the Green function.

    Args:
        model: a pairwise model.
        estimate: ĝ: `Cavity`, `Table`, `Features`, a sum of them, or your own.
        order: by default the model's.

    Raises:
        ValueError: ĝ is made for another order of revealing, or another number of values.
    """

    order: Int[Array, " n"]
    model: Pairwise
    estimate: "AbstractValueEstimate"

    def __init__(self, model: Pairwise, estimate: "AbstractValueEstimate", order: ArrayLike | None = None):
        wanted = "an estimate: Cavity(...), Table(...), Features(...), or a sum of them"
        check_kind("estimate", estimate, AbstractValueEstimate, wanted)
        self.model, self.estimate, self.order = model, estimate, model_order(model, order)
        for made_for in estimate.orders:
            _check_same_order(made_for, self.order)
        increments = outcome("estimate.increments", estimate.increments, *_arguments(self), of="a step and values")
        if increments.shape != (model.num_values,):
            raise ValueError(
                f"estimate gives increments of shape {increments.shape}; the model has {model.num_values} values"
            )

    def log_conditional(self, step, values):
        return jax.nn.log_softmax(self.model.local(self.order[step], values) + self.estimate.increments(step, values))

    def value_increments(self, step, values):
        return self.estimate.increments(step, values)

    def __repr__(self):
        return shown("Corrected", model=self.model, estimate=self.estimate)


class Autoregressive(AbstractPrior):
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
        check_kind("function", function, Callable, "a function of (step, values)")
        check_kind("order", order, (jax.Array, np.ndarray, Sequence), "the sites as they are revealed, shape (n,)")
        self.function, self.order = function, _order(np.size(order), order)
        check_gives("function", function, _arguments(self), np.number, "log-probabilities of shape (q,)", ndim=1)

    def log_conditional(self, step, values):
        logits = jnp.asarray(self.function(step, values))
        return jax.nn.log_softmax(logits.astype(float) if jnp.issubdtype(logits.dtype, jnp.integer) else logits)

    def __repr__(self):
        return shown("Autoregressive", order=self.order, function=getattr(self.function, "__name__", "function"))


class AbstractValueEstimate(eqx.Module):
    """An estimate ĝ_t(prefix) of the logarithm of the Green function, with ĝ_n = 0."""

    @property
    def orders(self) -> tuple[ArrayLike, ...]:
        """The orders of revealing that its parts are made for; none if any will do."""
        return ()

    @abstractmethod
    def increments(self, step: Int[Array, ""], values: Int[Array, " n"]) -> Float[Array, " q"]:
        """ĝ_{t+1}(prefix, v) − ĝ_t(prefix) for each value v of the site revealed at this step."""

    def __add__(self, other: "AbstractValueEstimate") -> "AbstractValueEstimate":
        return _Sum(self, other) if isinstance(other, AbstractValueEstimate) else NotImplemented


class _Sum(AbstractValueEstimate):
    first: AbstractValueEstimate
    second: AbstractValueEstimate

    @property
    def orders(self):
        return (*self.first.orders, *self.second.orders)

    def increments(self, step, values):
        return self.first.increments(step, values) + self.second.increments(step, values)

    def __repr__(self):
        return f"{self.first} + {self.second}"


def hidden(prior: AbstractPrior, step: Int[Array, ""], values: Int[Array, " n"]) -> Int[Array, " n"]:
    """The values as they were before a step: −1 at sites that come at it or later."""
    later = jnp.zeros(prior.num_sites, bool).at[prior.order].set(jnp.arange(prior.num_sites) >= step)
    return jnp.where(later, UNKNOWN, values)


def log_probability(prior: AbstractPrior, values: Int[Array, " n"]) -> Float[Array, ""]:
    """log p of one configuration; NaN if traced values are not all in 0 … q−1.

    Example:
        >>> from pidjax.discrete import ising_grid
        >>> round(float(log_probability(Uniform(ising_grid(2)), jnp.zeros(4, int))), 4)
        -2.7726
    """
    num_values = law_of(prior).shape[0]
    values = as_values("values", values, num_values, (prior.num_sites,))

    def term(step):
        law = prior.log_conditional(step, hidden(prior, step, values))
        return law[values[prior.order[step]]]

    log_law = jnp.sum(jax.vmap(term)(jnp.arange(prior.num_sites)))
    return jnp.where(jnp.all(are_values(values, num_values)), log_law, jnp.nan)


def law_of(prior: AbstractPrior) -> jax.ShapeDtypeStruct:
    """The shape and dtype of a prior's laws; raise if there are none."""
    check_kind(
        "prior", prior, AbstractPrior, "a prior: Boltzmann(model), Uniform(model), Corrected(model, estimate), ..."
    )
    law = jax.eval_shape(prior.log_conditional, *_arguments(prior))
    if len(law.shape) != 1 or law.dtype not in (jnp.float32, jnp.float64):
        raise ValueError(
            f"prior gives laws of {law.dtype}{list(law.shape)}; let it give log-probabilities (q,) of float32 or float64"
        )
    return law


def check_prior(target: Pairwise, prior: AbstractPrior) -> None:
    """Raise unless the prior reveals the sites of the target, once each, with all of their values, and reads inside of them."""
    as_model(target, "target")
    num_values = law_of(prior).shape[0]
    if prior.num_sites != target.num_sites:
        raise ValueError(f"prior reveals {prior.num_sites} sites but the target has {target.num_sites}")
    if num_values != target.num_values:
        raise ValueError(f"prior has laws of {num_values} values but the target has {target.num_values}")
    outcome("prior.log_conditional", prior.log_conditional, *_arguments(prior), of="a step and values")
    _order(target.num_sites, prior.order)
    prior.check_support()


def model_order(model: Pairwise, order: ArrayLike | None) -> Int[Array, " n"]:
    """The order, checked; the graph's own if None."""
    graph = as_model(model).graph
    return jnp.asarray(graph.order) if order is None else _order(graph.num_sites, order)


def _order(num_sites: int, order: ArrayLike | None) -> Int[Array, " n"]:
    known = None if order is None else concrete(order)
    if order is not None and known is None:
        return jnp.asarray(order)
    return jnp.asarray(checked_order(num_sites, known))


def _check_same_order(made_for: ArrayLike, order: ArrayLike) -> None:
    made, asked = concrete(made_for), concrete(order)
    if made is not None and asked is not None and not np.array_equal(made, asked):
        raise ValueError(
            f"estimate is made for another order, of {made.size} sites, than the prior reveals; make it for this model, and "
            "pass both the same order"
        )


def _arguments(prior: AbstractPrior) -> tuple[Array, Array]:
    """A step and values, as `log_conditional` takes them."""
    return jnp.array(0), jnp.full(prior.num_sites, UNKNOWN)
