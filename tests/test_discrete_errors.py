"""Bad input to decisions gets a clear error at the door; what shows only while running is counted, and `check` explains it."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_within

from pidjax import SamplingError
from pidjax import discrete as df
from pidjax.learning import DescentError

pytestmark = pytest.mark.usefixtures("annotations_unchecked")
KEY = jax.random.key(0)
RAW = jax.random.PRNGKey(0)
MODEL = df.ising_glass(2)
THREE = df.ising_glass(3)
SQUARE = df.lattice(2, 2)
POTTS = df.potts(SQUARE, 0.5, jnp.zeros((4, 3)))
CHAIN = df.Dense(jnp.full((3, 4, 4), 0.25))
UNIFORM = df.Uniform(MODEL)
BELIEFS = df.belief_propagation(MODEL, num_iterations=1)
SPINS = jnp.array([-1, 1, 1, -1])
INF, NAN = math.inf, math.nan


def counter(site, count, value):
    return count + value


def guided(**options):
    return df.Transfer(MODEL, guide=df.Guide(**options))


def transferred(model, num_sites, size):
    return df.Transfer(model, guide=df.total(num_sites, jnp.zeros(size)))


def neural():
    return df.Neural(KEY, UNIFORM)


CALLS = {
    "graph": [
        (lambda: df.Graph(2, [(0, 1.7)]), r"edges is of float64\[1, 2\]; pass pairs of integers"),
        (lambda: df.Graph(2.5, [(0, 1)]), "num_sites is 2.5; pass an integer >= 1"),
        (lambda: df.Graph(3, [0, 1, 1, 2]), r"edges is of int64\[4\]"),
        (lambda: df.Graph(3, [(0, 1), (2,)]), "edges are not all pairs"),
        (lambda: df.Graph([(0, 1)], 2), r"num_sites is \[\(0, 1\)\]"),
        (lambda: df.Graph(2, [(0, 1)], order=[1.0, 0.0]), "order is of float64"),
        (lambda: df.lattice(2.5, 3), "rows is 2.5"),
        (lambda: df.complete(2.5), "num_sites is 2.5"),
        (lambda: df.random_regular(RAW, 10, 3), "key is an array of uint32"),
        (lambda: df.random_regular(KEY, 10, 2.5), "degree is 2.5"),
    ],
    "model": [
        (lambda: df.ising(1.0, SQUARE), "graph is a float; pass a Graph"),
        (lambda: df.ising(SQUARE, 1 + 1j), "couplings holds complex numbers"),
        (lambda: df.ising(SQUARE, 1e308), r"couplings add up to as much as .*too large for float64"),
        (
            lambda: df.Pairwise(SQUARE, jnp.full((4, 2), NAN), jnp.zeros((4, 2, 2)), jnp.ones(2)),
            "fields holds 8 non-fin",
        ),
        (lambda: df.Pairwise(SQUARE, jnp.zeros((4, 1)), jnp.zeros((4, 1, 1)), jnp.ones(1)), "q at least 2"),
        (
            lambda: df.Pairwise(SQUARE, jnp.zeros((4, 2), jnp.float32), jnp.zeros((4, 2, 2)), jnp.ones(2)),
            "fields is of float32 but levels of float64",
        ),
        (lambda: df.ising_glass(2.0), "size is 2.0"),
        (lambda: df.ising_glass(3, KEY), "seed is a .*; pass an integer"),
        (lambda: df.ising_glass(3, dtype=int), "dtype is int64; pass float32 or float64"),
        (lambda: df.sherrington_kirkpatrick(RAW, 5), "key is an array"),
        (lambda: MODEL.tempered(NAN), "beta holds 1 non-finite"),
        (lambda: MODEL.tempered(jnp.ones(2)), r"beta has shape \(2,\)"),
        (lambda: MODEL.tempered(1e308), "too large for float64"),
        (lambda: MODEL.in_field(jnp.ones(3)), r"field has shape \(3,\); pass one number or shape \(4,\)"),
    ],
    "values": [
        (
            lambda: MODEL.log_density(SPINS),
            r"values holds -1 … 1; pass integers from 0 to 1; for spins ∓1 the values 0 and 1",
        ),
        (lambda: MODEL.log_density(jnp.full(4, 5)), "values holds 5 … 5"),
        (lambda: MODEL.log_density(jnp.zeros((3, 4), int)), r"values has shape \(3, 4\); pass \(4,\), and jax.vmap"),
        (lambda: MODEL.log_density(jnp.zeros(4)), "values is of float64; pass integers from 0 to 1"),
        (lambda: MODEL.log_density(jnp.zeros(4, bool)), "values is of bool"),
        (lambda: MODEL.spins(SPINS), "values holds -1 … 1"),
        (lambda: MODEL.local(jnp.array(4), jnp.zeros(4, int)), "site holds 4 … 4; pass integers from 0 to 3"),
        (lambda: MODEL.local(jnp.array(0), jnp.full(4, -2)), "values holds -2 … -2; pass integers from -1 to 1"),
        (lambda: df.log_probability(UNIFORM, SPINS), "values holds -1 … 1"),
        (lambda: df.log_probability(jnp.zeros(4, int), UNIFORM), "prior is a ArrayImpl; pass a prior"),
    ],
    "prior": [
        (lambda: df.Product(jnp.zeros((0, 2))), r"probabilities has shape \(0, 2\)"),
        (lambda: df.Autoregressive(jnp.arange(4), lambda step, values: jnp.zeros(2)), "function is a ArrayImpl"),
        (lambda: df.Autoregressive(lambda step, values: jnp.zeros(2), 4), "order is a int"),
        (lambda: df.Boltzmann(SQUARE), "model is a Graph; pass a Pairwise model"),
        (lambda: df.Corrected(MODEL, None), "estimate is a NoneType; pass an estimate"),
        (lambda: df.Corrected(MODEL, df.Features(THREE)), "estimate is made for another order, of 9 sites"),
        (
            lambda: df.Corrected(MODEL, df.Features(MODEL, [3, 2, 1, 0])),
            "estimate is made for another order, of 4 sites",
        ),
        (
            lambda: df.Corrected(MODEL, df.Features(POTTS)),
            r"estimate gives increments of shape \(3,\); the model has 2 values",
        ),
        (lambda: df.Cavity(THREE, BELIEFS), "beliefs are of another model, with 2 values on a Graph.4 sites"),
        (
            lambda: df.Cavity(df.ising(df.Graph(4, [(0, 1), (1, 2), (2, 3), (0, 3)]), 1.0), BELIEFS),
            "beliefs are of another",
        ),
        (lambda: df.Cavity(MODEL, BELIEFS, order=[0] * 4), "no permutation"),
        (lambda: df.mean_field(MODEL, damping=2.0), "damping is 2; pass 0 <= damping < 1"),
        (lambda: df.mean_field(MODEL, num_iterations=2.5), "num_iterations is 2.5"),
        (lambda: df.belief_propagation(MODEL, damping=1.0), "damping is 1"),
        (lambda: df.belief_propagation(SQUARE), "model is a Graph"),
    ],
    "sample": [
        (lambda: df.sample(RAW, MODEL), "key is an array of uint32"),
        (lambda: df.sample(MODEL, KEY), "pass one typed key"),
        (lambda: df.sample(KEY, MODEL, num_samples=10.0), "num_samples is 10.0"),
        (lambda: df.sample(KEY, MODEL, num_samples=10, population=2.0), "population is 2.0"),
        (lambda: df.sample(KEY, UNIFORM, MODEL), "target is a Uniform"),
        (lambda: df.sample(KEY, MODEL, df.Uniform), "prior is the class Uniform"),
        (lambda: df.sample(KEY, MODEL, df.Uniform(POTTS)), "prior has laws of 3 values but the target has 2"),
        (
            lambda: df.sample(KEY, MODEL, df.Autoregressive(lambda step, values: jnp.zeros(()), jnp.arange(4))),
            r"function gives float64\[\]; let it give log-prob",
        ),
        (
            lambda: df.Autoregressive(lambda step, values: jnp.zeros(2) + values[5].astype(float), [0, 1, 2, 3]),
            r"function reads index \(5,\) of an array of shape \(4,\)",
        ),
        (
            lambda: df.sample(KEY, MODEL, df.Product([[1, 0]] * 4)),
            "the value 1 of site 0 no probability, one of 4 such values",
        ),
        (lambda: df.reveal(RAW, UNIFORM, 5), "key is an array"),
        (lambda: df.reveal(KEY, UNIFORM, 0), "num_samples is 0"),
        (lambda: df.reveal(KEY, MODEL, 5), "prior is a Pairwise"),
        (
            lambda: df.Solution(jnp.zeros((6, 4), int), jnp.zeros(5), 1, 6),
            r"samples has shape \(6, 4\) and log_weights",
        ),
        (
            lambda: df.Solution(jnp.zeros((6, 4), int), jnp.zeros(6), 4, 6),
            "num_islands is 4; pass a divisor of 6 samples",
        ),
        (lambda: df.Solution(jnp.zeros((6, 4), int), jnp.zeros(6), 6, 6).check(2.0), "min_ess_fraction is 2"),
        (lambda: df.sample(KEY, MODEL, num_samples=5).expectation(lambda v: v[9]), r"function reads index \(9,\)"),
    ],
    "exact": [
        (lambda: df.Enumeration(MODEL).sample(RAW, 10), "key is an array"),
        (lambda: df.Enumeration(MODEL).sample(KEY, 10.0), "num_samples is 10.0"),
        (lambda: df.exact(SQUARE), "model is a Graph"),
        (lambda: df.Enumeration(SQUARE), "model is a Graph"),
        (lambda: df.Elimination(None), "model is a NoneType"),
        (lambda: df.Transfer(MODEL, guide=jnp.zeros(5)), "guide is a ArrayImpl"),
        (
            lambda: transferred(THREE, 4, 5),
            r"guide counts 4 sites of 2 values but the model has 9 of 2; pass total\(9, log_weight\).*\(10,\)",
        ),
        (lambda: transferred(POTTS, 4, 5), "4 sites of 2 values but the model has 4 of 3"),
        (lambda: transferred(MODEL, 4, 9), "4 sites of 3 values but the model has 4 of 2"),
        (lambda: transferred(MODEL, 2, 5), "2 sites of 3 values but the model has 4 of 2"),
        (lambda: df.total(0, jnp.zeros(1)), "num_sites is 0"),
        (lambda: df.total(4, jnp.zeros(1)), r"log_weight has shape \(1,\)"),
        (lambda: df.total(4, jnp.zeros(5, complex)), "log_weight holds complex"),
        (lambda: df.Guide(2.0, counter, jnp.zeros(2)), "num_counts is 2.0"),
        (lambda: df.Guide(2, counter, jnp.zeros(2), start=0.5), "start is 0.5"),
        (lambda: df.Guide(running=jnp.zeros(3)), "running is a ArrayImpl"),
        (lambda: guided(num_counts=4, update=counter, log_weight=jnp.zeros(4)), "update reaches the counts 0 … 4"),
        (
            lambda: guided(num_counts=2, update=lambda s, c, v: c / 2, log_weight=jnp.zeros(2)),
            r"update gives float64\[\]",
        ),
        (lambda: guided(running=lambda site, window, value: window.astype(float)), r"running gives float64\[2\]"),
        (
            lambda: guided(running=lambda site, window, value: window[2].astype(float)),
            r"reads index \(2,\) of .* shape \(2,\)",
        ),
        (lambda: guided(running=lambda site, window, value: NAN).log_z, "log Z is nan"),
    ],
    "chain": [
        (lambda: df.Sparse(5, counter, 4), "step is a int; pass a function"),
        (lambda: df.Sparse(lambda t, s: (jnp.array([s]), jnp.ones(1)), 5.0, 4), "num_states is 5.0"),
        (lambda: df.Sparse(lambda t, s: (s[None], jnp.ones(1) * MODEL.levels[2]), 5, 4), r"step reads index \(2,\)"),
        (lambda: df.Sparse(lambda t, s: jnp.array([s]), 5, 4), r"step gives shapes \[\(1,\)\]"),
        (lambda: df.Sparse(lambda t, s: (jnp.array([s * 1.0]), jnp.ones(1)), 5, 4), "step gives float64 and float64"),
        (lambda: df.solve(jnp.zeros(4), CHAIN), "chain is a ArrayImpl; pass a chain"),
        (lambda: df.solve(CHAIN, jnp.zeros(4, complex)), "energy holds complex"),
        (lambda: df.solve(CHAIN, jnp.zeros(4), running_costs=jnp.zeros(3)), r"running_costs has shape \(3,\)"),
        (lambda: df.solve_control(CHAIN, jnp.full(4, -1e308), running_costs=jnp.full(4, -1e308)), "log Z is inf"),
        (lambda: df.solve(CHAIN, jnp.zeros(4)).sample(RAW, 5), "key is an array"),
        (lambda: df.solve(CHAIN, jnp.zeros(4)).sample(KEY, 0), "num_samples is 0"),
        (lambda: df.log_forward(CHAIN, jnp.full((3, 4), NAN)), r"costs is nan at \(0, 0\), the first of 12"),
        (lambda: df.log_green(CHAIN, jnp.zeros((4, 3))), r"costs has shape \(4, 3\); pass shape \(3, 4\)"),
        (lambda: df.log_backward(CHAIN, None, jnp.zeros(5)), r"log_final has shape \(5,\)"),
        (lambda: df.augmented(CHAIN, 3, lambda t, c, s: c - s), "leads to states -1"),
        (lambda: df.augmented(CHAIN, 3, lambda t, c, s: c * 1.0), "update gives float64"),
        (lambda: df.augmented(CHAIN, 3, counter, start=3), "start is 3; pass a count from 0 to 2"),
    ],
    "fit": [
        (lambda: df.fit(RAW, MODEL, df.Features(MODEL)), "key is an array"),
        (lambda: df.fit(KEY, MODEL, df.Features), "estimate is the class Features"),
        (lambda: df.fit(KEY, MODEL, df.Features(MODEL), num_paths=10.0), "num_paths is 10.0"),
        (lambda: df.fit(KEY, MODEL, df.Features(MODEL), base=UNIFORM), "base is a Uniform"),
        (lambda: df.fit(KEY, MODEL, df.Features(THREE)), "no permutation"),
        (lambda: df.fit(KEY, MODEL, df.Features(MODEL), samples=jnp.zeros((5, 2), int)), r"samples has shape \(5, 2\)"),
        (lambda: df.fit(KEY, MODEL, df.Features(MODEL), samples=jnp.full((5, 4), 2)), "samples holds 2"),
        (lambda: df.Table(MODEL, window=2.0), "window is 2.0"),
        (lambda: df.Features(MODEL, num_paired=-2), "num_paired is -2; pass an integer >= 0"),
        (lambda: df.Empirical.from_prior(KEY, MODEL, UNIFORM, num_paths=5.0), "num_paths is 5.0"),
        (lambda: df.Neural(RAW, UNIFORM), "key is an array"),
        (lambda: df.Neural(KEY, UNIFORM, width=0), "width is 0"),
        (lambda: df.Neural(KEY, MODEL), "prior is a Pairwise"),
        (lambda: df.train(RAW, MODEL, neural()), "key is an array"),
        (lambda: df.train(KEY, MODEL, UNIFORM), "prior is a Uniform; pass Neural"),
        (lambda: df.train(KEY, THREE, neural()), "prior reveals 4 sites but the target has 9"),
        (lambda: df.train(KEY, MODEL, df.Neural(KEY, df.Product([[1, 0]] * 4))), "no probability"),
        (lambda: df.train(KEY, MODEL, neural(), learning_rate=-1.0), "learning_rate is -1; pass a number > 0"),
        (lambda: df.train(KEY, MODEL, neural(), batch_size=1), "batch_size is 1; pass an integer >= 2"),
        (
            lambda: df.train(KEY, MODEL, neural(), loss=lambda ratios, log_z: ratios),
            "loss gives float64.256.; let it give",
        ),
    ],
    "Markov": [
        (lambda: df.run(RAW, df.Gibbs(MODEL), num_chains=2, num_sweeps=2), "key is an array"),
        (lambda: df.run(KEY, MODEL, num_chains=2, num_sweeps=2), "sweep is a Pairwise; pass Metropolis"),
        (lambda: df.run(KEY, df.Gibbs(MODEL), num_chains=2.0, num_sweeps=2), "num_chains is 2.0"),
        (lambda: df.run(KEY, df.Gibbs(MODEL), num_chains=1, num_sweeps=2, start=SPINS[None]), "start holds -1 … 1"),
        (lambda: df.run(KEY, df.Gibbs(MODEL), num_chains=2, num_sweeps=2, start=SPINS), r"start has shape \(4,\)"),
        (lambda: df.Gibbs(SQUARE), "model is a Graph"),
        (lambda: df.moments(jnp.zeros(4)), r"spins has shape \(4,\); pass \(N, n\)"),
        (lambda: df.moments(jnp.zeros((5, 4), int)), "spins is of int64; pass numbers with a point, as model.spins"),
        (lambda: df.moments(jnp.zeros((5, 4)), jnp.zeros(3)), r"weights has shape \(3,\); pass \(5,\)"),
        (lambda: df.moments(jnp.zeros((5, 4)), jnp.ones(5)), "the sum 5; pass weights >= 0 that sum to one"),
        (lambda: df.exact_moments(MODEL), "exact is a Pairwise"),
        (
            lambda: df.moment_errors(df.moments(jnp.zeros((5, 4))), df.moments(jnp.zeros((5, 3)))),
            "found is of 4 sites but true of 3",
        ),
    ],
}


@pytest.mark.parametrize(
    ("call", "message"),
    [pytest.param(*row, id=f"{door} {i}") for door, rows in CALLS.items() for i, row in enumerate(rows)],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_counts_of_numpy_are_counts():
    two = np.int64(2)
    assert df.sample(KEY, MODEL, num_samples=2 * two, population=two).num_islands == 2
    assert df.Enumeration(MODEL).sample(KEY, two).num_samples == 2
    assert df.run(KEY, df.Gibbs(MODEL), num_chains=two, num_sweeps=two).shape == (2, 2, 4)
    assert df.Table(MODEL, window=two).window == 2
    assert df.random_regular(KEY, 2 * two, two) == df.random_regular(KEY, 4, 2)
    assert type(df.Guide(two, lambda site, count, value: (count + value) % 2, jnp.zeros(2)).num_counts) is int


def test_a_count_that_no_path_reaches_may_be_beyond_the_last():
    """count + value passes the last count only from counts that no path has so early."""
    weights = jnp.array([0.3, -1.0, 0.5, 0.2, 0.0])
    assert (
        guided(num_counts=5, update=counter, log_weight=weights).log_z
        == df.Transfer(MODEL, guide=df.total(4, weights)).log_z
    )


def test_traced_values_out_of_range_give_nan():
    """Nothing can be raised while they are traced; those in range are as they were, and so are derivatives."""
    values = jnp.stack([SPINS, jnp.array([0, 1, 1, 0]), jnp.array([0, 1, 2, 0])])
    inside = np.array([False, True, False])
    for function in (lambda one: MODEL.log_density(one), lambda one: df.log_probability(UNIFORM, one)):
        np.testing.assert_array_equal(jnp.isfinite(jax.jit(jax.vmap(function))(values)), inside)
    np.testing.assert_array_equal(jnp.isnan(eqx.filter_jit(MODEL.spins)(SPINS)), SPINS < 0)
    gradient = eqx.filter_grad(lambda model: model.log_density(values[1]))(MODEL)
    np.testing.assert_array_equal(gradient.fields, jax.nn.one_hot(values[1], 2))


class Unnormalised(df.AbstractPrior):
    """Laws (1, 1)."""

    order: jax.Array

    def log_conditional(self, step, values):
        return jnp.zeros(2)


FAULTY = {
    "a value left out": lambda: df.Autoregressive(lambda step, values: jnp.array([0.0, -INF]), jnp.arange(4)),
    "NaN": lambda: df.Autoregressive(lambda step, values: jnp.array([0.0, NAN]), jnp.arange(4)),
    "no law": lambda: Unnormalised(jnp.arange(4)),
}


class TestFaultyLaws:
    @pytest.mark.parametrize("population", [1, 5])
    @pytest.mark.parametrize("name", FAULTY)
    def test_each_decision_is_counted(self, name, population):
        solution = df.sample(KEY, MODEL, FAULTY[name](), num_samples=20, population=population)
        assert solution.num_faulty_laws == solution.to_dict()["num_faulty_laws"] == 80
        with pytest.raises(SamplingError, match="at 80 of 80 decisions the prior gave a value no probability"):
            solution.check()

    def test_where_one_site_can_be_left_out_only_on_the_way(self):
        """The last of two sites is forced to be down after an up: in half the paths."""

        def follow(step, values):
            return jnp.where((step == 1) & (values[0] == 1), jnp.array([0.0, -INF]), jnp.zeros(2))

        pair = df.ising(df.lattice(1, 2), 0.4)
        solution = df.sample(KEY, pair, df.Autoregressive(follow, [0, 1]), num_samples=200)
        assert solution.num_faulty_laws == jnp.sum(solution.samples[:, 0] == 1)

    def test_paths_as_a_prior(self):
        paths = df.Empirical.from_prior(KEY, MODEL, UNIFORM, num_paths=3)
        with pytest.raises(SamplingError, match="no probability"):
            df.sample(KEY, MODEL, paths, num_samples=50).check()

    @pytest.mark.parametrize("population", [1, 20])
    def test_none_of_a_prior_that_is_one(self, population):
        assert df.sample(KEY, MODEL, num_samples=100, population=population).check(0.01).num_faulty_laws == 0

    def test_rows_of_a_product_are_scaled_to_one(self):
        product = df.Product(jnp.full((4, 2), 0.49996))
        np.testing.assert_allclose(product.probabilities, 0.5, rtol=1e-15)


class Past(df.AbstractPrior):
    """A prior that reads past the last site."""

    order: jax.Array

    def log_conditional(self, step, values):
        return jnp.zeros(2) + values[4].astype(float)


class Tilt(df.AbstractValueEstimate):
    """An estimate that does not end at 0."""

    def increments(self, step, values):
        return jnp.array([0.4, -0.3])


def test_a_prior_of_your_own_that_reads_past_the_last_site():
    with pytest.raises(ValueError, match=r"prior.log_conditional reads index \(4,\) of an array of shape \(4,\)"):
        df.sample(KEY, MODEL, Past(jnp.arange(4)))


def test_mean_weight_is_z_for_an_estimate_that_does_not_end_at_zero():
    for prior in (df.Corrected(MODEL, Tilt()), df.Corrected(MODEL, df.Features(MODEL) + Tilt())):
        solution = df.sample(KEY, MODEL, prior, num_samples=8000, population=40)
        assert_within(solution.log_z.value, df.exact(MODEL).log_z, solution.log_z.standard_error)
        assert solution.log_z.standard_error < 0.02


def test_log_weights_beyond_their_resolution():
    cold = df.ising_glass(3, dtype=jnp.float32).tempered(1e6)
    with pytest.raises(SamplingError, match=r"resolved to .* only in float32"):
        df.Elimination(cold).sample(KEY, 10).check()


@pytest.mark.slow
def test_features_fitted_to_few_paths_in_single_precision():
    """Fewer paths than features: the ridge alone makes the matrix one that rounding leaves positive."""
    key = jax.random.key(1)
    model = df.potts(df.lattice(6, 6), jnp.float32(0.8), jax.random.normal(key, (36, 3), jnp.float32))
    prior = df.fit(KEY, model, df.Features(model), num_paths=50)
    assert df.sample(key, model, prior, num_samples=500).ess > 250


@pytest.mark.slow
def test_training_that_is_not_finite_is_explained():
    with (
        jax.numpy_dtype_promotion("standard"),
        pytest.raises(DescentError, match=r"4 of 5 iterations .* smaller learning rate"),
    ):
        df.train(KEY, MODEL, neural(), learning_rate=1e200, num_iterations=5, batch_size=8, progress=False).check()


VALUES = {
    "Graph": SQUARE,
    "Pairwise": MODEL,
    "Uniform": UNIFORM,
    "Product": df.Product(jnp.full((4, 2), 0.5)),
    "Boltzmann": df.Boltzmann(MODEL),
    "Corrected": df.Corrected(MODEL, df.Features(MODEL) + df.Table(MODEL, window=1)),
    "Autoregressive": df.Autoregressive(lambda step, values: jnp.zeros(2), [0, 1, 2]),
    "Neural": neural(),
    "Beliefs": BELIEFS,
    "Cavity": df.Cavity(MODEL, BELIEFS),
    "Enumeration": df.Enumeration(MODEL),
    "Transfer": df.Transfer(MODEL, guide=df.total(4, jnp.zeros(5))),
    "Elimination": df.Elimination(MODEL),
    "Guide": df.Guide(running=lambda site, window, value: 0.0),
    "Dense": CHAIN,
    "Decisions": df.solve(CHAIN, jnp.zeros(4)),
    "Gibbs": df.Gibbs(MODEL),
}


class TestShown:
    @pytest.mark.parametrize("name", VALUES)
    def test_in_one_line_traced_or_not(self, name):
        texts = [repr(VALUES[name])]
        eqx.filter_jit(lambda value: texts.append(repr(value)))(VALUES[name])
        for text in texts:
            assert text.startswith(f"{name}(")
            assert "\n" not in text
            assert len(text) < 240

    def test_what_it_says(self):
        assert (
            repr(MODEL) == "Pairwise(graph=Graph(4 sites, 4 bonds), fields=float64[4, 2], couplings=float64[4, 2, 2])"
        )
        assert repr(UNIFORM) == "Uniform(order=[0, 1, 2, 3])"
        assert "window=2, guide=total(num_sites=4, log_weight=[0, 0, 0, 0, …])" in repr(VALUES["Transfer"])

    def test_a_solution(self):
        texts = []

        def sampled(key):
            solution = df.sample(key, MODEL, num_samples=100, population=20)
            texts.append(repr(solution))
            return solution

        texts.append(repr(eqx.filter_jit(sampled)(KEY)))
        traced, known = (text.splitlines() for text in texts)
        for lines in (traced, known):
            assert lines[0] == "Solution: 100 configurations of 4 sites, weighted"
            assert lines[-1].split() == ["islands", "5", "populations", "of", "20"]
        assert [line.split()[0] for line in known] == ["Solution:", "log", "ESS", "E[v]", "islands"]
        assert repr(df.sample(KEY, MODEL, FAULTY["NaN"](), num_samples=2)).splitlines()[-1].split()[:2] == [
            "faulty",
            "8",
        ]
