"""Markov chains on configurations, the baselines: Metropolis and Hastings, Gibbs, Swendsen and Wang.

    Metropolis      n times: a random site, another value, accepted with min(1, p̃'/p̃)
    Gibbs           all sites of one colour of the graph at once, from their local Boltzmann laws, colour by colour
    Swendsen–Wang   bonds between equal values, kept with 1 − e^{−J}, make clusters; each takes a value anew, with its fields.
                    Only where every coupling favours equal values: J(v, u) = const + J [v = u], J ≥ 0

One sweep of any costs one evaluation of the energy. Chains start from independent uniform values and run side by side.
"""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Int, Key

from .._doors.checks import as_floating, check_count, check_key, check_kind, concrete
from .._doors.show import shown
from .._maths.estimates import Estimate
from .._maths.logs import pick
from .model import Pairwise, as_model, as_values


class AbstractSweep(eqx.Module):
    """A Markov kernel that leaves the model's law invariant."""

    model: eqx.AbstractVar[Pairwise]

    @abstractmethod
    def __call__(self, key: Key[Array, ""], values: Int[Array, " n"]) -> Int[Array, " n"]:
        """The configuration after one sweep."""

    def __repr__(self):
        return shown(type(self).__name__, model=self.model)


class Metropolis(AbstractSweep):
    """n single-site proposals at random sites.

    Example:
        >>> from pidjax.discrete import ising_grid
        >>> run(jax.random.key(0), Metropolis(ising_grid(3)), num_chains=4, num_sweeps=10).shape
        (4, 10, 9)
    """

    model: Pairwise = eqx.field(converter=as_model)

    def __call__(self, key, values):
        n, q = self.model.num_sites, self.model.num_values
        site_key, value_key, accept_key = jax.random.split(key, 3)
        sites = jax.random.randint(site_key, (n,), 0, n)
        shifts = jax.random.randint(value_key, (n,), 1, q)
        log_uniforms = jnp.log(jax.random.uniform(accept_key, (n,), self.model.dtype))

        def step(values, inputs):
            site, shift, log_uniform = inputs
            old = values[site]
            new = (old + shift) % q
            local = self.model.local(site, values)
            accepted = log_uniform < local[new] - local[old]
            return values.at[site].set(jnp.where(accepted, new, old)), None

        return jax.lax.scan(step, values, (sites, shifts, log_uniforms))[0]


class Gibbs(AbstractSweep):
    """Every site once, from its law given its neighbours; sites of a colour at the same time (a lattice's checkerboard)."""

    model: Pairwise = eqx.field(converter=as_model)

    def __call__(self, key, values):
        colours = self.model.graph.colours
        uniforms = jax.random.uniform(key, values.shape, self.model.dtype)
        if len(colours) > 16:

            def step(values, site):
                return values.at[site].set(pick(self.model.local(site, values), uniforms[site])), None

            return jax.lax.scan(step, values, jnp.arange(self.model.num_sites))[0]
        for sites in colours:
            laws = jax.vmap(self.model.local, (0, None))(jnp.asarray(sites), values)
            values = values.at[sites].set(jax.vmap(pick)(laws, uniforms[sites]))
        return values


class SwendsenWang(AbstractSweep):
    """Cluster moves.

    Raises:
        ValueError: a coupling that is not of the form const + J [v = u] with J ≥ 0; the first is named.
    """

    model: Pairwise = eqx.field(converter=as_model)

    def __check_init__(self):
        couplings = concrete(self.model.couplings)
        if couplings is None or not couplings.size:
            return
        q = self.model.num_values
        strength = couplings[:, 0, 0] - couplings[:, 0, 1]
        form = couplings[:, :1, 1:2] + strength[:, None, None] * np.eye(q)
        wrong = (np.abs(couplings - form).max((1, 2)) > 1e-5 * (1 + np.abs(couplings).max())) | (strength < 0)
        if wrong.any():
            raise ValueError(
                f"coupling {np.flatnonzero(wrong)[0]} is one of {wrong.sum()} that do not favour equal values alike; clusters "
                "need a ferromagnet: use Gibbs"
            )

    def __call__(self, key, values):
        bond_key, value_key = jax.random.split(key)
        first, second = self.model.graph.edges.T
        strength = self.model.couplings[:, 0, 0] - self.model.couplings[:, 0, 1]
        uniforms = jax.random.uniform(bond_key, strength.shape, strength.dtype)
        bound = (values[first] == values[second]) & (uniforms < -jnp.expm1(-strength))
        cluster = clusters(first, second, bound, self.model.num_sites)
        fields = jax.ops.segment_sum(self.model.fields, cluster, self.model.num_sites)
        noise = jax.random.uniform(value_key, values.shape, fields.dtype)
        return jax.vmap(pick)(fields, noise)[cluster]


def clusters(first, second, bound, num_sites: int) -> Int[Array, " n"]:
    """For each site the smallest site it is joined to: labels fall to the least of their bonds, and to their label's label.

    Example:
        >>> clusters(jnp.array([0, 1]), jnp.array([1, 2]), jnp.array([False, True]), 3).tolist()
        [0, 1, 1]
    """

    def fall(carry):
        label, _ = carry
        low = jnp.minimum(label[first], label[second])
        low = jnp.where(bound, low, num_sites)
        new = label.at[first].min(low).at[second].min(low)
        new = new[new]
        return new, jnp.any(new != label)

    return jax.lax.while_loop(lambda carry: carry[1], fall, (jnp.arange(num_sites), jnp.array(True)))[0]


def run(
    key: Key[Array, ""],
    sweep: AbstractSweep,
    *,
    num_chains: int,
    num_sweeps: int,
    start: Int[Array, "num_chains n"] | None = None,
) -> Int[Array, "num_chains num_sweeps n"]:
    """The configurations of several chains after each sweep.

    Args:
        key: a typed key; chain i uses fold_in(key, i).
        sweep: `Metropolis(model)`, `Gibbs(model)` or `SwendsenWang(model)`.
        start: where chains start; uniform if None.

    Raises:
        ValueError: counts below 1; a sweep that is none; a start that is not of values, one configuration for each chain.
    """
    check_key("key", key)
    check_kind("sweep", sweep, AbstractSweep, "Metropolis(model), Gibbs(model) or SwendsenWang(model)")
    num_chains, num_sweeps = check_count("num_chains", num_chains), check_count("num_sweeps", num_sweeps)
    if start is not None:
        start = as_values("start", start, sweep.model.num_values, (num_chains, sweep.model.num_sites))
    return _run(key, sweep, num_chains, num_sweeps, start)


@eqx.filter_jit
def _run(key, sweep: AbstractSweep, num_chains: int, num_sweeps: int, start):
    model = sweep.model
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(num_chains))
    if start is None:
        draw = lambda key: jax.random.randint(jax.random.fold_in(key, 0), (model.num_sites,), 0, model.num_values)  # noqa: E731
        start = jax.vmap(draw)(keys)

    def chain(key, values):
        def step(values, key):
            values = sweep(key, values)
            return values, values

        return jax.lax.scan(step, values, jax.random.split(jax.random.fold_in(key, 1), num_sweeps))[1]

    return jax.vmap(chain)(keys, start)


def autocorrelation_time(series: ArrayLike) -> Estimate:
    """τ = 1 + 2 Σ_{k≥1} ρ_k in sweeps, of a stationary series, shape (num_chains, num_sweeps), pooled over chains; N sweeps
    are worth N/τ samples.

    The sum stops at the first k ≥ 5 τ_k. Standard error τ √((4k + 2)/N). Source: Sokal, *Monte Carlo methods in
    statistical mechanics*, 1989; Madras & Sokal 1988.

    Raises:
        ValueError: a wrong shape, a constant series.

    Example:
        >>> noise = jax.random.normal(jax.random.key(0), (8, 1000))
        >>> bool(abs(autocorrelation_time(noise).value - 1) < 0.1)
        True
    """
    series = as_floating("series", series)
    if series.ndim != 2 or series.shape[1] < 2:
        raise ValueError(f"series has shape {series.shape}; pass (num_chains, num_sweeps), at least 2 sweeps")
    length = series.shape[1]
    centred = series - jnp.mean(series)
    spectrum = jnp.abs(jnp.fft.rfft(centred, 2 * length, axis=1)) ** 2
    covariance = jnp.mean(jnp.fft.irfft(spectrum, axis=1)[:, :length], axis=0)
    least = jnp.finfo(series.dtype).eps * jnp.mean(series**2)
    if concrete(covariance) is not None and not covariance[0] > least:
        raise ValueError("series is constant: it has no autocorrelation time")
    times = 2 * jnp.cumsum(covariance / covariance[0]) - 1
    lag = jnp.arange(length)
    stop = lag.astype(times.dtype) >= 5 * times
    last = jnp.where(jnp.any(stop), jnp.argmax(stop), length - 1)
    error = times[last] * jnp.sqrt((4 * last + 2).astype(times.dtype) / series.size)
    return Estimate(times[last], error)
