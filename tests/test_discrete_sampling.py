"""Decisions from priors: E[W] = Z for every prior and algorithm, fitted Green functions, networks, Markov chains."""

import importlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_within, mean_and_error

from pidjax import SamplingError
from pidjax import discrete as df

KEY = jax.random.key(7)
GLASS3 = 9.0749608857


def users(model):
    """A prior that a user might write, in the order of the graph."""
    return df.Autoregressive(
        lambda step, values: 0.3 * jnp.stack([jnp.cos(step.astype(float)), jnp.sum(values == 1).astype(float)]),
        model.graph.order,
    )


def shuffled(model):
    return jax.random.permutation(KEY, model.num_sites)


def cavity(model):
    return df.Cavity(model, df.belief_propagation(model))


PRIORS = {
    "uniform": df.Uniform,
    "uniform, random order": lambda model: df.Uniform(model, shuffled(model)),
    "mean field": lambda model: df.Product(df.mean_field(model)),
    "belief propagation": lambda model: df.Product(df.belief_propagation(model).probabilities, model.graph.order),
    "Boltzmann": df.Boltzmann,
    "Boltzmann, random order": lambda model: df.Boltzmann(model, shuffled(model)),
    "cavity": lambda model: df.Corrected(model, cavity(model)),
    "user's": users,
    "table": lambda model: df.fit(KEY, model, df.Table(model, window=2), num_paths=100),
    "features": lambda model: df.fit(KEY, model, df.Features(model), num_paths=100),
    "features and cavity": lambda model: df.fit(KEY, model, df.Features(model), base=cavity(model), num_paths=100),
    "network": lambda model: df.Neural(KEY, df.Boltzmann(model)),
}
"""Every kind of prior, for a model on a lattice."""
TWISTED = "uniform, random order", "belief propagation", "features and cavity", "network"


@pytest.fixture(scope="module")
def glass():
    return df.ising_glass(3)


@pytest.fixture(scope="module")
def priors(glass):
    return {name: make(glass) for name, make in PRIORS.items()}


class TestWeights:
    @pytest.mark.parametrize(
        ("name", "population"),
        [
            pytest.param(name, count, marks=pytest.mark.extended if count > 1 and name not in TWISTED else [])
            for name in PRIORS
            for count in (1, 20)
        ],
    )
    @pytest.mark.slow
    def test_mean_weight_is_z(self, glass, priors, name, population):
        solution = df.sample(KEY, glass, priors[name], num_samples=8000, population=population)
        ratios = jnp.exp(solution.log_weights - GLASS3).reshape(solution.num_islands, -1).mean(axis=1)
        mean, error = mean_and_error(ratios)
        assert_within(mean, 1, error)
        assert_within(solution.log_z.value, GLASS3, solution.log_z.standard_error)

    @pytest.mark.parametrize("population", [1, 50])
    def test_expectations_and_their_errors(self, glass, population):
        solution = df.sample(KEY, glass, num_samples=10_000, population=population)
        found, error = solution.expectation(glass.spins)
        assert_within(found, df.exact(glass).magnetisations, error)

    @pytest.mark.parametrize("name", PRIORS)
    @pytest.mark.slow
    def test_priors_are_normalised(self, glass, priors, name):
        configurations = df.Enumeration(glass).configurations
        log_law = jax.vmap(lambda v: df.log_probability(priors[name], v))(configurations)
        np.testing.assert_allclose(jnp.sum(jnp.exp(log_law)), 1, rtol=1e-6)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", PRIORS)
    def test_reveal_tells_the_probability(self, priors, name):
        values, log_law = df.reveal(KEY, priors[name], 20)
        np.testing.assert_allclose(log_law, jax.vmap(lambda v: df.log_probability(priors[name], v))(values), atol=1e-10)

    @pytest.mark.slow
    def test_potts(self):
        model = df.potts(df.lattice(2, 3), 0.8, jax.random.normal(KEY, (6, 3)))
        log_z = df.exact(model).log_z
        for name in ("Boltzmann", "cavity", "features"):
            for population in (1, 40):
                solution = df.sample(KEY, model, _potts_prior(name, model), num_samples=4000, population=population)
                assert_within(solution.log_z.value, log_z, solution.log_z.standard_error)

    @pytest.mark.slow
    def test_solution(self, glass):
        solution = df.sample(KEY, glass, num_samples=500)
        assert solution.check() is solution
        assert solution.to_dict()["samples"].shape == (500, 9)
        assert solution.resample(KEY, 30).shape == (30, 9)
        np.testing.assert_allclose(solution.weights.sum(), 1)
        with pytest.raises(SamplingError, match="effective sample size"):
            df.sample(KEY, df.ising_glass(10), df.Uniform(df.ising_glass(10)), num_samples=500).check()
        assert jnp.isnan(df.sample(KEY, glass, num_samples=500, population=500).log_z.standard_error)


def _potts_prior(name, model):
    return {
        "Boltzmann": lambda: df.Boltzmann(model),
        "cavity": lambda: df.Corrected(model, df.Cavity(model, df.belief_propagation(model))),
        "features": lambda: df.fit(KEY, model, df.Features(model), num_paths=500),
    }[name]()


class TestBeliefs:
    def test_exact_on_a_tree(self):
        edges = [(0, 1), (0, 2), (1, 3), (1, 4), (2, 5), (5, 6)]
        model = df.ising(df.Graph(7, edges), jax.random.normal(KEY, (6,)), jax.random.normal(KEY, (7,)))
        beliefs = df.belief_propagation(model)
        np.testing.assert_allclose(beliefs.probabilities, df.exact(model).marginals, atol=1e-12)
        solution = df.sample(KEY, model, df.Corrected(model, df.Cavity(model, beliefs)), num_samples=50)
        np.testing.assert_allclose(solution.log_weights, df.exact(model).log_z, atol=1e-10)

    def test_mean_field_is_its_fixed_point(self, glass):
        """m_i = tanh(h_i + Σ_j J_ij m_j) to the end of the iteration."""
        law = df.mean_field(glass, num_iterations=2000)
        magnetisation = law @ glass.levels
        couplings = np.zeros((9, 9))
        couplings[tuple(glass.graph.edges.T)] = glass.couplings[:, 1, 1]
        couplings += couplings.T
        np.testing.assert_allclose(magnetisation, np.tanh(glass.fields[:, 1] + couplings @ magnetisation), atol=1e-8)


class TestFitted:
    def test_table_is_the_transfer_matrix(self, glass):
        """Pooled over the whole frontier, with every state seen, the table is the exact Green function."""
        prior = df.fit(KEY, glass, df.Table(glass, window=3), num_paths=5000, num_rounds=1)
        solution = df.sample(KEY, glass, prior, num_samples=100)
        np.testing.assert_allclose(solution.log_weights, GLASS3, atol=1e-9)

    def test_samples_take_the_place_of_the_first_paths(self, glass):
        """Every configuration once, which is another law: the table of the whole frontier is exact."""
        every = jnp.stack(jnp.meshgrid(*[jnp.arange(2)] * 9, indexing="ij"), axis=-1).reshape(-1, 9)
        prior = df.fit(KEY, glass, df.Table(glass, window=3), samples=every, num_paths=1, num_rounds=1)
        solution = df.sample(KEY, glass, prior, num_samples=100)
        np.testing.assert_allclose(solution.log_weights, GLASS3, atol=1e-9)

    @pytest.mark.extended
    @pytest.mark.optimised
    def test_samples_and_energy_on_a_cold_glass(self):
        """At a third of the temperature paths alone do not find the mass. With those of a short chain, log Z at 4 sigma."""
        hot = df.ising_glass(12)
        cold = eqx.tree_at(lambda one: (one.couplings, one.fields), hot, (3 * hot.couplings, 0.3 * hot.fields))
        chain = df.run(KEY, df.Gibbs(cold), num_chains=2000, num_sweeps=200)[:, -1]
        alone = df.sample(KEY, cold, df.fit(KEY, cold, df.Features(cold), num_paths=2000))
        both = df.sample(KEY, cold, df.fit(KEY, cold, df.Features(cold), samples=chain, num_paths=2000))
        assert alone.ess < 0.05 * 4096 < 0.3 * 4096 < both.ess
        assert abs(both.log_z.value - df.exact(cold).log_z) < 4 * both.log_z.standard_error

    @pytest.mark.slow
    def test_features_are_exact_for_a_narrow_lattice(self):
        """On a ladder the frontier is two spins: its fields and one coupling are all there is."""
        model = df.ising(df.lattice(6, 2), 0.4 * jax.random.normal(KEY, (16,)), 0.4 * jax.random.normal(KEY, (12,)))
        prior = df.fit(KEY, model, df.Features(model), num_paths=1000, num_rounds=1)
        solution = df.sample(KEY, model, prior, num_samples=100)
        np.testing.assert_allclose(solution.log_weights, df.exact(model).log_z, atol=1e-4)

    @pytest.mark.extended
    @pytest.mark.slow
    @pytest.mark.optimised
    def test_large_glass(self):
        """The effective sample size on a 12×12 glass: above nine tenths, where the prior alone has less than a hundredth."""
        model = df.ising_glass(12)
        fitted = df.fit(KEY, model, df.Features(model), num_paths=2000)
        solution = df.sample(KEY, model, fitted)
        assert solution.ess > 0.9 * 4096
        assert df.sample(KEY, model).ess < 0.01 * 4096
        assert_within(solution.log_z.value, df.Transfer(model).log_z, solution.log_z.standard_error)

    @pytest.mark.slow
    def test_works_in_any_order(self, glass):
        order = np.random.default_rng(0).permutation(9)
        prior = df.fit(KEY, glass, df.Features(glass, order), num_paths=300)
        assert df.sample(KEY, glass, prior, num_samples=1000).ess > 900


class TestEmpirical:
    @pytest.mark.slow
    def test_is_importance_resampling_in_law(self, glass):
        """Each of its samples is one of its paths, with the probability of its weight."""
        chain = df.Empirical.from_prior(KEY, glass, df.Boltzmann(glass), num_paths=30)
        codes = 2 ** np.arange(9)
        weights = np.bincount(chain.paths.samples @ codes, chain.paths.weights, 512)
        found = np.eye(512)[np.asarray(chain.sample(jax.random.key(1), 4000)) @ codes]
        frequency, error = mean_and_error(found)
        assert_within(frequency[weights > 0], weights[weights > 0], np.maximum(error[weights > 0], 1e-3))
        assert frequency[weights == 0].sum() == 0

    def test_what_no_path_holds_has_no_mass(self, glass):
        chain = df.Empirical.from_prior(KEY, glass, df.Uniform(glass), num_paths=3)
        laws = jax.vmap(lambda v: df.log_probability(chain, v))(df.Enumeration(glass).configurations)
        np.testing.assert_allclose(jnp.sum(jnp.exp(laws)), 1, rtol=1e-10)

    def test_log_z_is_that_of_its_paths(self, glass):
        chain = df.Empirical.from_prior(KEY, glass, df.Uniform(glass), num_paths=5000)
        assert_within(chain.paths.log_z.value, GLASS3, chain.paths.log_z.standard_error)


class TestNeural:
    @pytest.fixture(autouse=True)
    def promotion(self):
        """optax itself raises Python floats to integer counts, which strict promotion forbids."""
        with jax.numpy_dtype_promotion("standard"):
            yield

    @pytest.mark.parametrize("loss", [df.trajectory_balance, df.log_variance, df.reverse_kl])
    @pytest.mark.slow
    def test_training_helps_and_weights_stay_exact(self, glass, loss):
        start = df.Neural(KEY, df.Boltzmann(glass))
        trained = df.train(KEY, glass, start, loss=loss, num_iterations=150, batch_size=128)
        before, after = (df.sample(KEY, glass, prior, num_samples=4000) for prior in (start, trained.parameters.prior))
        assert after.ess > 0.98 * 4000 > before.ess
        assert_within(after.log_z.value, GLASS3, after.log_z.standard_error)
        assert trained.history.shape == (150,)
        assert trained.num_evaluations == 150 * 128

    @pytest.mark.slow
    @pytest.mark.extended
    def test_trajectory_balance_learns_log_z(self, glass):
        trained = df.train(KEY, glass, df.Neural(KEY, df.Boltzmann(glass)), num_iterations=300)
        assert abs(trained.parameters.log_z - GLASS3) < 0.01

    @pytest.mark.slow
    @pytest.mark.extended
    def test_losses_have_the_gradient_of_the_divergence(self, glass):
        """The gradient of reverse_kl over exact configurations, weighted by the prior, is that of KL(p ‖ p̃/Z)."""
        prior = df.Neural(KEY, df.Boltzmann(glass))
        configurations = df.Enumeration(glass).configurations
        log_weights = jax.vmap(glass.log_density)(configurations)

        def log_laws(network):
            changed = eqx.tree_at(lambda p: p.network, prior, network)
            return jax.vmap(lambda v: df.log_probability(changed, v))(configurations)

        def divergence(network):
            log_law = log_laws(network)
            return jnp.sum(jnp.exp(log_law) * (log_law - log_weights))

        exact = jax.grad(divergence)(prior.network).shift
        values, _ = df.reveal(KEY, prior, 20_000)

        def ratios(network):
            changed = eqx.tree_at(lambda p: p.network, prior, network)
            return jax.vmap(lambda v: glass.log_density(v) - df.log_probability(changed, v))(values)

        def batch(loss):
            chunks = lambda network: ratios(network).reshape(20, -1)  # noqa: E731
            return jax.jacobian(lambda n: jax.vmap(lambda r: loss(r, jnp.zeros(())))(chunks(n)))(prior.network).shift

        mean, error = mean_and_error(batch(df.reverse_kl))
        assert_within(mean, exact, error + 1e-4)
        mean, error = mean_and_error(batch(df.log_variance))
        assert_within(mean, 2 * exact, error + 1e-4)

    @pytest.mark.slow
    def test_a_step_does_not_see_what_comes_later(self, glass):
        prior = df.Neural(KEY, df.Boltzmann(glass))
        network = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(KEY, leaf.shape), prior.network)
        prior = eqx.tree_at(lambda p: p.network, prior, network)
        laws = jax.vmap(lambda v: df.log_probability(prior, v))(df.Enumeration(glass).configurations)
        np.testing.assert_allclose(jnp.sum(jnp.exp(laws)), 1, rtol=1e-10)


class TestMarkov:
    @pytest.mark.parametrize("sweep", [df.Metropolis, df.Gibbs, df.SwendsenWang])
    @pytest.mark.slow
    def test_keeps_the_exact_law(self, sweep):
        model = df.ising_grid(3)
        start = df.exact(model).sample(KEY, 20_000).samples
        after = df.run(KEY, sweep(model), num_chains=20_000, num_sweeps=2, start=start)[:, -1]
        assert float(jnp.mean(after == start)) < 0.95
        exact = df.exact_moments(df.exact(model))
        spins = model.spins(after)
        found, error = mean_and_error(spins)
        assert_within(found, exact.magnetisations, error)
        found, error = mean_and_error(spins[:, :, None] * spins[:, None, :])
        assert_within(found, exact.correlations, error + 1e-12)

    @pytest.mark.parametrize("sweep", [df.Metropolis, df.Gibbs, df.SwendsenWang])
    def test_converges_from_anywhere(self, sweep):
        model = df.potts(df.lattice(2, 2), 0.6, jax.random.normal(KEY, (4, 3)))
        values = df.run(KEY, sweep(model), num_chains=4000, num_sweeps=60)[:, -1]
        found, error = mean_and_error(jax.nn.one_hot(values, 3))
        assert_within(found, df.exact(model).marginals, error)

    def test_colours_of_a_lattice_are_its_checkerboard(self):
        assert [len(sites) for sites in df.lattice(5, 5).colours] == [13, 12]

    def test_clusters(self):
        clusters = importlib.import_module("pidjax.discrete.markov").clusters
        graph = df.lattice(6, 6)
        first, second = graph.edges.T
        bound = jax.random.bernoulli(KEY, 0.4, first.shape)
        kept = np.asarray(bound)
        label = np.arange(36)
        for _ in range(36):
            for a, b in zip(first[kept], second[kept]):
                label[[a, b]] = min(label[a], label[b])
        np.testing.assert_array_equal(clusters(first, second, bound, 36), label)

    def test_autocorrelation_time_of_an_autoregression(self):
        """x' = a x + noise has τ = (1 + a)/(1 − a)."""
        noise = np.random.default_rng(0).normal(size=(20, 5000))
        series = np.zeros_like(noise)
        for t in range(1, 5000):
            series[:, t] = 0.8 * series[:, t - 1] + noise[:, t]
        time, error = df.autocorrelation_time(series[:, 100:])
        assert_within(time, 9, error)
        with pytest.raises(ValueError, match="constant"):
            df.autocorrelation_time(jnp.ones((2, 10)))


@pytest.mark.slow
@pytest.mark.optimised
class TestLarge:
    @pytest.mark.extended
    def test_sixteen_squared(self):
        """Independent samples, magnetisations by one gradient that agree with them, and the memory of both."""
        exact = importlib.import_module("pidjax.discrete.enumeration")
        transfer = df.Transfer(df.ising_glass(16))
        solution = transfer.sample(KEY, 10_000)
        found, error = solution.expectation(transfer.model.spins)
        assert_within(found, transfer.magnetisations, error, sigmas=4.5)
        for program in (
            exact._draw.lower(transfer, KEY, 10_000),
            exact._gradient.lower(transfer),
        ):
            assert program.compile().compiled.memory_analysis().temp_size_in_bytes < 200 * 2**20

    @pytest.mark.extended
    def test_long_lattice(self):
        """16×64: the same log Z whichever way the rows are numbered."""
        rng = np.random.default_rng(0)
        tall = df.lattice(64, 16)
        couplings, fields = rng.uniform(-1, 1, len(tall.edges)), rng.uniform(-1, 1, 1024)
        flipped = np.arange(1024).reshape(64, 16)[::-1, ::-1].ravel()
        one = df.Transfer(df.ising(tall, couplings, fields)).log_z
        other = df.Transfer(df.ising(tall, couplings, fields), flipped).log_z
        np.testing.assert_allclose(one, other, rtol=1e-12)
