"""An autoregressive network, as a prior or as a correction to one, and three losses to train it.

    log p_t(v | prefix) = log_softmax( base_t(v | prefix) + N_t(v; prefix) )

N_t is a small perceptron for each step t, which sees the values revealed before it; all are zero at first, so training
starts at the base, and with a `Corrected` base N corrects the estimated Green function. With L = log p̃ − log p of paths
drawn from p, held fixed,

    trajectory_balance   mean (log Z_θ − L)², log Z_θ learned                 the objective of GFlowNets
    log_variance         Var[L]                                               the same with log Z_θ at its best, mean L
    reverse_kl           −mean L = KL(p ‖ p̃/Z) − log Z                        by the score, the mean as baseline

On its own paths the last two have the same gradient, but for a factor. Whatever is trained, weights stay exact:
`sample(key, model, prior)`.

Source: Malkin et al., *Trajectory balance*, arXiv 2201.13259; Richter et al., *VarGrad*, arXiv 2010.10436; Wu, Wang & Zhang,
*Solving statistical mechanics using variational autoregressive networks*, arXiv 1809.10606.
"""

from collections.abc import Callable
from dataclasses import replace
from os import PathLike

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float, Int, Key

from .._doors.checks import check_count, check_key, check_kind
from .._doors.functions import check_gives
from .._doors.show import shown
from ..learning import Descent, adam, descend, only
from .model import Pairwise
from .prior import AbstractPrior, check_prior, law_of, log_probability
from .revealing import reveal


class Perceptrons(eqx.Module):
    """N_t(v; prefix) for each step t: one hidden layer of `width` units and a linear skip, from one-hot values.

    What is not revealed is all zero, so step t cannot see it. Outputs are zero at first.
    """

    into: Float[Array, "n width inputs"]
    bias: Float[Array, "n width"]
    out: Float[Array, "n q width"]
    skip: Float[Array, "n q inputs"]
    shift: Float[Array, "n q"]

    def __init__(self, key: Key[Array, ""], num_sites: int, num_values: int, width: int, dtype: DTypeLike):
        inputs = num_sites * num_values
        self.into = jax.random.normal(key, (num_sites, width, inputs), dtype) / np.sqrt(num_sites).astype(dtype)
        self.bias = jnp.zeros((num_sites, width), dtype)
        self.out = jnp.zeros((num_sites, num_values, width), dtype)
        self.skip = jnp.zeros((num_sites, num_values, inputs), dtype)
        self.shift = jnp.zeros((num_sites, num_values), dtype)

    def __repr__(self):
        return shown("Perceptrons", into=self.into)

    def __call__(self, step: Int[Array, ""], values: Int[Array, " n"]) -> Float[Array, " q"]:
        inputs = jax.nn.one_hot(values, self.shift.shape[1], dtype=self.shift.dtype).ravel()
        hidden = jax.nn.silu(self.into[step] @ inputs + self.bias[step])
        return self.out[step] @ hidden + self.skip[step] @ inputs + self.shift[step]


class Neural(AbstractPrior):
    """A prior with a network added to its log-law.

    Args:
        key: a typed key for the first weights.
        base: the prior to start from: `Uniform(model)` for a network alone, `Boltzmann`, or `Corrected`.
        num_values: q.
        width: hidden units of each step's perceptron.

    Raises:
        ValueError: an untyped key, a base of other values, a width below 1.

    Example:
        >>> from pidjax.discrete import Boltzmann
        >>> from pidjax.discrete import ising_grid
        >>> from pidjax.discrete import sample
        >>> model = ising_grid(3)
        >>> trained = train(jax.random.key(1), model, Neural(jax.random.key(0), Boltzmann(model)), num_iterations=100)
        >>> bool(sample(jax.random.key(2), model, trained.parameters.prior).ess > 0.95 * 4096)
        True
    """

    base: AbstractPrior
    network: Perceptrons

    def __init__(self, key: Key[Array, ""], base: AbstractPrior, *, num_values: int = 2, width: int = 16):
        check_key("key", key)
        law = law_of(base)
        if law.shape != (num_values,):
            raise ValueError(f"base has laws of shape {law.shape}; pass num_values={law.shape[0]}")
        self.base = base
        self.network = Perceptrons(key, base.num_sites, num_values, check_count("width", width), law.dtype)

    def __repr__(self):
        return shown("Neural", base=self.base, network=self.network)

    def check_support(self):
        self.base.check_support()

    @property
    def order(self) -> Int[Array, " n"]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.base.order

    def log_conditional(self, step, values):
        return jax.nn.log_softmax(self.base.log_conditional(step, values) + self.network(step, values))

    def value_increments(self, step, values):
        return self.base.value_increments(step, values)


Loss = Callable[[Float[Array, " batch"], Float[Array, ""]], Float[Array, ""]]


def trajectory_balance(log_ratios: Float[Array, " batch"], log_z: Float[Array, ""]) -> Float[Array, ""]:
    """mean (log Z_θ + log p − log p̃)²."""
    return jnp.mean((log_z - log_ratios) ** 2)


def log_variance(log_ratios: Float[Array, " batch"], log_z: Float[Array, ""]) -> Float[Array, ""]:
    """Var[log p̃ − log p]."""
    return jnp.var(log_ratios, ddof=1)


def reverse_kl(log_ratios: Float[Array, " batch"], log_z: Float[Array, ""]) -> Float[Array, ""]:
    """−mean L, with the gradient −E[(−L + mean L) ∇L] of paths drawn from p."""
    fixed = jax.lax.stop_gradient(log_ratios)
    score = (fixed - jnp.mean(fixed)) * (log_ratios - fixed)
    return jnp.mean(score) - jnp.mean(fixed)


class Trainee(eqx.Module):
    """A prior whose network is learned, and log Z_θ beside it, in units of ten: at ten times the network's rate."""

    prior: Neural
    tenth: Float[Array, ""]

    @property
    def log_z(self) -> Float[Array, ""]:
        return 10 * self.tenth

    def __repr__(self):
        return shown("Trainee", prior=self.prior, log_z=self.log_z)


def train(
    key: Key[Array, ""],
    target: Pairwise,
    prior: Neural,
    *,
    loss: Loss = trajectory_balance,
    num_iterations: int = 1000,
    batch_size: int = 256,
    learning_rate: float = 3e-3,
    checkpoint: str | PathLike | None = None,
    progress: bool = True,
) -> Descent:
    """Adam on the network and on log Z_θ (at ten times the rate); its base stays as it is.

    Iteration i draws its paths with fold_in(key, i). The rate falls to zero along half a cosine.

    Args:
        key: a typed key.
        target: a pairwise model.
        prior: the network and its base.
        loss: `trajectory_balance`, `log_variance` or `reverse_kl`, or a function with their signature.
        num_iterations, batch_size, learning_rate: as they say; a sweep of local energies is spent on each path.
        checkpoint, progress: as of `pidjax.learning.descend`.

    Returns:
        The descent, whose `parameters` have the trained `prior` and `log_z`.

    Raises:
        ValueError: counts below 1 (2 of a batch); a rate that is not positive; a prior that is no `Neural`, of another
            target, or without full support; a loss that is no scalar; as `pidjax.learning.descend`.
    """
    num_iterations, batch_size = check_count("num_iterations", num_iterations), check_count("batch_size", batch_size)
    _check_arguments(key, target, prior, loss, batch_size)
    optimiser = adam(learning_rate, decay=num_iterations)
    log_z = _first_log_z(jax.random.fold_in(key, num_iterations), target, prior, batch_size)
    descent = descend(
        eqx.Partial(_of_trainee, loss, target, batch_size),
        only(lambda one: (one.prior.network, one.tenth), Trainee(prior, log_z / 10)),
        optimiser=optimiser,
        num_iterations=num_iterations,
        key=key,
        checkpoint=checkpoint,
        progress=progress,
    )
    return replace(descent, num_evaluations=descent.history.size * batch_size)


def _of_trainee(loss: Loss, target: Pairwise, batch_size: int, trainee: Trainee, key):
    return loss(_log_ratios(key, target, trainee.prior, batch_size), trainee.log_z)


def _check_arguments(key, target, prior, loss, batch_size: int) -> None:
    check_key("key", key)
    check_kind("prior", prior, Neural, "Neural(key, base)")
    check_prior(target, prior)
    check_kind("loss", loss, Callable, "trajectory_balance, log_variance or reverse_kl")
    check_gives(
        "loss", loss, (jnp.zeros(batch_size, target.dtype), jnp.zeros((), target.dtype)), jnp.floating, "one number"
    )
    if batch_size < 2:
        raise ValueError(f"batch_size is {batch_size}; pass an integer >= 2")


def _log_ratios(key, target, prior, batch_size):
    values = reveal(key, prior, batch_size)[0]
    return jax.vmap(target.log_density)(values) - jax.vmap(lambda v: log_probability(prior, v))(values)


@eqx.filter_jit
def _first_log_z(key, target, prior, batch_size: int):
    return jnp.mean(_log_ratios(key, target, prior, batch_size))
