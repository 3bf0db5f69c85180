"""Decisions of finite chains, guided or not: against matrix products, enumeration and simulation."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from helpers import assert_within, enumerated, mean_and_error

from pidjax import discrete as df

KEY = jax.random.key(0)
GRID = {3: 7.3562344022, 4: 13.2311307567, 5: 20.8765573657, 6: 30.1541024314}
GLASS = {3: 9.0749608857, 4: 17.6078898713}


class TestChain:
    num_steps, num_states = 5, 4

    @pytest.fixture
    def chain(self):
        rows = np.array(jax.random.dirichlet(KEY, jnp.ones(4), (5, 4)))
        rows[:, 0, 1] = rows[2, 3, :2] = 0
        return df.Dense(rows / rows.sum(-1, keepdims=True))

    def paths(self, chain):
        """All paths with their prior probability."""
        rows = np.asarray(chain.transitions)
        for path in itertools.product(range(self.num_states), repeat=self.num_steps):
            path = (0, *path)
            yield path, np.prod([rows[t, a, b] for t, (a, b) in enumerate(itertools.pairwise(path))])

    def test_green_function_is_the_product_of_transitions(self, chain):
        green = jnp.exp(df.log_green(chain))
        np.testing.assert_allclose(green[0], np.linalg.multi_dot(np.asarray(chain.transitions)), atol=1e-14)
        np.testing.assert_array_equal(green[-1], np.eye(4))

    def test_forward_derivatives_where_a_state_is_never_reached(self):
        chain = df.Dense(jnp.array([[[0.5, 0.5, 0.0]] * 3]))
        costs = jnp.array([0.0, 1.0, -1e4])

        def log_z(costs):
            return df.solve_control(chain, costs).log_z

        np.testing.assert_allclose(jax.jacfwd(log_z)(costs), jax.grad(log_z)(costs), rtol=1e-12)
        single = df.log_backward(chain, None, jnp.zeros(3, jnp.float32))
        np.testing.assert_array_equal(single, df.log_backward(chain, None, jnp.zeros(3)))

    @pytest.mark.parametrize("costly", [False, True])
    @pytest.mark.slow
    def test_final_law_is_that_of_the_energy(self, chain, costly):
        energy = jnp.array([0.3, -1.0, jnp.inf, 2.0])
        costs = jax.random.normal(KEY, (5, 4)) if costly else None
        decisions = df.solve(chain, energy, running_costs=costs)
        law = np.exp(-np.asarray(energy)) / np.exp(-np.asarray(energy)).sum()
        np.testing.assert_allclose(decisions.log_z, np.log(np.exp(-np.asarray(energy)).sum()), rtol=1e-13)
        np.testing.assert_allclose(np.exp(decisions.log_marginals[-1]), law, atol=1e-14)
        mass = np.eye(4)[0]
        for transition in np.asarray(decisions.transitions()):
            mass = mass @ transition
        np.testing.assert_allclose(mass, law, atol=1e-14)

    @pytest.mark.slow
    def test_control_is_the_best_over_all_paths(self, chain):
        """−log Z = −log E_prior[e^{−cost}], and the optimal law of paths is the prior tilted by e^{−cost}."""
        costs, final = jax.random.normal(KEY, (5, 4)), jnp.array([0.0, 1.0, -1.0, 0.5])
        decisions = df.solve_control(chain, final, running_costs=costs)
        total, divergence, rows = 0.0, 0.0, np.asarray(decisions.transitions())
        for path, probability in self.paths(chain):
            cost = sum(float(costs[t, s]) for t, s in enumerate(path[:-1])) + float(final[path[-1]])
            total += probability * np.exp(-cost)
            optimal = np.prod([rows[t, a, b] for t, (a, b) in enumerate(itertools.pairwise(path))])
            if optimal > 0:
                divergence += optimal * np.log(optimal / probability)
                np.testing.assert_allclose(optimal, probability * np.exp(-cost - float(decisions.log_z)), rtol=1e-10)
        np.testing.assert_allclose(decisions.log_z, np.log(total), rtol=1e-12)
        np.testing.assert_allclose(decisions.kl_cost, divergence, rtol=1e-10)

    def test_cost_without_running_costs_is_the_divergence_of_the_ends(self, chain):
        energy = jnp.array([0.3, -1.0, 0.0, 2.0])
        law = np.asarray(jax.nn.softmax(-energy))
        prior = np.asarray(jnp.exp(df.log_forward(chain, jnp.zeros((5, 4)))[-1]))
        np.testing.assert_allclose(df.solve(chain, energy).kl_cost, (law * np.log(law / prior)).sum(), rtol=1e-12)

    @pytest.mark.slow
    def test_sampled_paths_follow_the_marginals(self, chain):
        decisions = df.solve(chain, jnp.array([0.3, -1.0, jnp.inf, 2.0]))
        paths = decisions.sample(KEY, 20_000)
        for t in range(6):
            found, error = mean_and_error(jax.nn.one_hot(paths[:, t], 4))
            assert_within(found, jnp.exp(decisions.log_marginals[t]), error + 1e-12)

    @pytest.mark.slow
    def test_derivatives_in_energies_and_in_zero_probabilities(self, chain):
        """By finite differences; a zero probability is moved to the positive side."""
        final = jnp.array([0.0, 1.0, -1.0, 0.5])

        def log_z(rows, final):
            return df.solve_control(eqx.tree_at(lambda c: c.transitions, chain, rows), final).log_z

        rows, step = chain.transitions, 1e-7
        by_rows, by_final = jax.grad(log_z, argnums=(0, 1))(rows, final)
        assert jnp.isfinite(by_rows).all()
        for index in [(2, 3, 0), (1, 0, 1), (0, 0, 2), (4, 2, 2)]:
            slope = (log_z(rows.at[index].add(step), final) - log_z(rows, final)) / step
            np.testing.assert_allclose(by_rows[index], slope, rtol=1e-5, atol=1e-7)
        for state in range(4):
            slope = (log_z(rows, final.at[state].add(step)) - log_z(rows, final.at[state].add(-step))) / (2 * step)
            np.testing.assert_allclose(by_final[state], slope, rtol=1e-6)

    @pytest.mark.slow
    def test_derivatives_where_states_are_forbidden(self, chain):
        def cost(shift):
            energy = jnp.array([0.3, 0.0, jnp.inf, 2.0]) + shift * jnp.array([1.0, 0.0, 0.0, 0.0])
            return df.solve(chain, energy).kl_cost

        slope = (cost(1e-6) - cost(-1e-6)) / 2e-6
        np.testing.assert_allclose(jax.grad(cost)(0.0), slope, rtol=1e-6)

    def test_sparse_is_dense(self, chain):
        rows = chain.transitions
        sparse = df.Sparse(lambda t, s: (jnp.arange(4)[::-1], rows[t, s][::-1]), num_states=4, num_steps=5)
        energy, costs = jnp.array([0.3, -1.0, 0.0, 2.0]), jax.random.normal(KEY, (5, 4))
        one, other = (df.solve(c, energy, running_costs=costs) for c in (chain, sparse))
        np.testing.assert_allclose(one.log_psi, other.log_psi, atol=1e-12)
        np.testing.assert_allclose(one.log_marginals, other.log_marginals, atol=1e-12)
        np.testing.assert_allclose(one.transitions(), other.transitions(), atol=1e-12)

    @pytest.mark.slow
    @pytest.mark.extended
    def test_sparse_large(self):
        """A simple random walk on 100,001 states: the bridge's law halfway is hypergeometric, in closed form."""
        size, steps = 100_001, 40
        middle = size // 2
        walk = df.Sparse(lambda t, s: (jnp.array([s - 1, s + 1]) % size, jnp.full(2, 0.5)), size, steps, start=middle)
        energy = jnp.where(jnp.arange(size) == middle + 10, 0.0, jnp.inf)
        decisions = df.solve(walk, energy)
        ups = np.arange(0, 21)
        expected = scipy.stats.hypergeom(40, 25, 20).pmf(ups)
        found = np.exp(np.asarray(decisions.log_marginals[20])[middle - 20 + 2 * ups])
        np.testing.assert_allclose(found, expected, atol=1e-12)
        assert (decisions.sample(KEY, 50)[:, -1] == middle + 10).all()

    def test_works_under_jit_and_vmap(self, chain):
        energies = jax.random.normal(KEY, (3, 4))
        batched = jax.jit(jax.vmap(lambda energy: df.solve(chain, energy).kl_cost))(energies)
        np.testing.assert_allclose(batched, [df.solve(chain, energy).kl_cost for energy in energies], rtol=1e-12)

    def test_a_law_at_the_start(self, chain):
        start = jnp.array([0.5, 0.25, 0.25, 0.0])
        decisions = df.solve(df.Dense(chain.transitions, start), jnp.array([0.3, -1.0, 0.0, 2.0]))
        np.testing.assert_allclose(jnp.exp(decisions.log_marginals).sum(axis=1), 1, rtol=1e-12)
        found, error = mean_and_error(jax.nn.one_hot(decisions.sample(KEY, 5000)[:, 0], 4))
        assert_within(found, jnp.exp(decisions.log_marginals[0]), error + 1e-12)


class TestGuide:
    def test_fixed_magnetisation(self):
        model = df.ising_glass(4)
        values, log_weights = enumerated(model)
        wanted = jnp.where(jnp.arange(17) == 5, 0.0, -jnp.inf)
        guided = df.Transfer(model, guide=df.total(16, wanted))
        chosen = values.sum(1) == 5
        np.testing.assert_allclose(guided.log_z, scipy.special.logsumexp(log_weights[chosen]), atol=1e-10)
        law = np.exp(log_weights[chosen] - log_weights[chosen].max())
        marginal = (law[:, None] * values[chosen]).sum(0) / law.sum()
        np.testing.assert_allclose(guided.marginals[:, 1], marginal, atol=1e-10)
        samples = guided.sample(KEY, 5000).samples
        assert (samples.sum(axis=1) == 5).all()
        found, error = mean_and_error(samples)
        assert_within(found, marginal, error)

    def test_rare_event(self):
        """All spins up in an antiferromagnet: a probability of e^{−60} or so, exact."""
        model = df.ising(df.lattice(6, 6), -0.5)
        wanted = jnp.where(jnp.arange(37) == 36, 0.0, -jnp.inf)
        log_probability = df.Transfer(model, guide=df.total(36, wanted)).log_z - df.Transfer(model).log_z
        expected = model.log_density(jnp.ones(36, int)) - df.Elimination(model).log_z
        assert expected < -50
        np.testing.assert_allclose(log_probability, expected, rtol=1e-10)

    def test_tilt_by_a_total(self):
        """A tilt by a linear function of the total is a field."""
        model = df.ising_glass(4)
        guided = df.Transfer(model, guide=df.total(16, 0.3 * (2.0 * np.arange(17) - 16)))
        np.testing.assert_allclose(guided.log_z, df.Transfer(model.in_field(jnp.full(16, 0.3))).log_z, atol=1e-10)

    def test_forbidden_pattern(self):
        """No two spins up side by side in a row."""
        model = df.ising_glass(4)
        values, log_weights = enumerated(model)

        def no_pair(site, window, value):
            return jnp.where((site % 4 != 0) & (window[0] == 1) & (value == 1), -jnp.inf, 0.0)

        guided = df.Transfer(model, guide=df.Guide(running=no_pair))
        rows = values.reshape(-1, 4, 4)
        allowed = ~((rows[:, :, 1:] == 1) & (rows[:, :, :-1] == 1)).any((1, 2))
        np.testing.assert_allclose(guided.log_z, scipy.special.logsumexp(log_weights[allowed]), atol=1e-10)
        rows = guided.sample(KEY, 500).samples.reshape(-1, 4, 4)
        assert not ((rows[:, :, 1:] == 1) & (rows[:, :, :-1] == 1)).any()

    def test_infeasible(self):
        model = df.ising_glass(3)
        for guide in (
            df.Guide(2, lambda site, count, value: jnp.zeros_like(count), jnp.array([-jnp.inf, 0.0])),
            df.Guide(running=lambda site, window, value: jnp.where(site == 4, -jnp.inf, 0.0)),
        ):
            with pytest.raises(ValueError, match="infeasible"):
                df.Transfer(model, guide=guide).sample(KEY, 3)
        with pytest.raises(ValueError, match="infeasible"):
            df.total(9, jnp.full(10, -jnp.inf))
        with pytest.raises(ValueError, match="infeasible"):
            df.solve(df.Dense(jnp.eye(2)[None]), jnp.array([jnp.inf, jnp.inf]))

    @pytest.mark.slow
    def test_chain_conditioned_on_its_history(self):
        """Ten fair coins, seven heads."""
        coins = df.Dense(jnp.full((10, 2, 2), 0.5))
        heads = df.augmented(coins, 11, lambda t, count, state: jnp.minimum(count + state, 10))
        wanted = jnp.where(jnp.arange(22) % 11 == 7, 0.0, jnp.inf)
        decisions = df.solve_control(heads, wanted)
        np.testing.assert_allclose(jnp.exp(decisions.log_z), scipy.stats.binom(10, 0.5).pmf(7), rtol=1e-12)
        paths = decisions.sample(KEY, 200) // 11
        assert (paths[:, 1:].sum(axis=1) == 7).all()
