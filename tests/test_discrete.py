"""Exact sums over spins against enumeration by other means; what bad input of decisions says."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from helpers import enumerated

from pidjax import discrete as df

KEY = jax.random.key(0)
GRID = {3: 7.3562344022, 4: 13.2311307567, 5: 20.8765573657, 6: 30.1541024314}
GLASS = {3: 9.0749608857, 4: 17.6078898713}


def truth(model):
    """log Z, marginals (n, q) and E[level level] (n, n) by enumeration in NumPy."""
    values, log_weights = enumerated(model)
    log_z = scipy.special.logsumexp(log_weights)
    p = np.exp(log_weights - log_z)
    levels = np.asarray(model.levels)[values]
    marginals = np.stack([((values == a) * p[:, None]).sum(0) for a in range(model.num_values)], 1)
    return log_z, marginals, (levels * p[:, None]).T @ levels, (p * log_weights).sum()


def random_potts(key=KEY):
    graph = df.lattice(2, 3)
    first, second = jax.random.split(key)
    return df.potts(graph, jax.random.normal(first, (7,)), jax.random.normal(second, (6, 3)))


MODELS = {
    "glass 3": lambda: df.ising_glass(3),
    "glass 4": lambda: df.ising_glass(4),
    "ferromagnet 4": lambda: df.ising_grid(4),
    "potts": random_potts,
    "cylinder": lambda: df.ising(
        df.lattice(3, 4, periodic=True), jax.random.normal(KEY, (20,)), jax.random.normal(KEY, (12,))
    ),
    "wide": lambda: df.ising(df.lattice(2, 6), jax.random.normal(KEY, (16,)), 0.2),
    "SK": lambda: df.sherrington_kirkpatrick(KEY, 10),
    "regular": lambda: df.ising(df.random_regular(KEY, 10, 3), jax.random.normal(KEY, (15,)), 0.1),
}


class TestExact:
    @pytest.mark.parametrize("size", GRID)
    def test_log_z_of_the_grid(self, size):
        for way in (df.Transfer, df.Elimination):
            assert abs(way(df.ising_grid(size)).log_z - GRID[size]) < 1e-9

    @pytest.mark.parametrize("size", GLASS)
    def test_log_z_of_the_glass(self, size):
        for way in (df.Enumeration, df.Transfer, df.Elimination):
            assert abs(way(df.ising_glass(size)).log_z - GLASS[size]) < 1e-9

    @pytest.mark.parametrize(
        "way", [pytest.param(df.Enumeration, marks=pytest.mark.extended), df.Transfer, df.Elimination]
    )
    @pytest.mark.parametrize("name", MODELS)
    @pytest.mark.slow
    def test_moments_are_those_of_enumeration(self, name, way):
        model = MODELS[name]()
        log_z, marginals, correlations, mean_log_density = truth(model)
        exact = way(model)
        np.testing.assert_allclose(exact.log_z, log_z, atol=1e-10)
        np.testing.assert_allclose(exact.marginals, marginals, atol=1e-10)
        np.testing.assert_allclose(exact.correlations, correlations, atol=1e-10)
        np.testing.assert_allclose(exact.mean_log_density, mean_log_density, atol=1e-10)
        np.testing.assert_allclose(exact.pair_marginals.sum(axis=(1, 2)), 1, atol=1e-12)

    def test_any_order_gives_the_same(self):
        model = df.ising_glass(3)
        order = np.random.default_rng(0).permutation(9)
        np.testing.assert_allclose(df.Transfer(model, order).log_z, GLASS[3], atol=1e-9)

    @pytest.mark.slow
    def test_infinite_temperature(self):
        exact = df.Transfer(df.ising_glass(5).tempered(0.0))
        np.testing.assert_allclose(exact.log_z, 25 * np.log(2), rtol=1e-14)
        np.testing.assert_allclose(exact.marginals, 0.5, atol=1e-14)
        np.testing.assert_allclose(exact.correlations, np.eye(25), atol=1e-14)

    @pytest.mark.slow
    def test_zero_temperature(self):
        """log Z/β → the largest log p̃, the moments and the samples → those of its configuration."""
        model = df.ising_glass(4)
        values, log_weights = enumerated(model)
        ground = values[np.argmax(log_weights)]
        for way in (df.Transfer, df.Elimination):
            cold = way(model.tempered(1e4))
            np.testing.assert_allclose(cold.log_z / 1e4, log_weights.max(), rtol=1e-12)
            np.testing.assert_allclose(cold.magnetisations, 2.0 * ground - 1, atol=1e-12)
            assert (cold.sample(KEY, 20).samples == ground[None]).all()

    def test_single_precision(self):
        exact = df.Transfer(df.ising_glass(6, dtype=jnp.float32))
        solution = exact.sample(KEY, 10)
        assert exact.log_z.dtype == solution.log_weights.dtype == jnp.float32
        assert abs(float(exact.log_z) - float(df.Transfer(df.ising_glass(6)).log_z)) < 1e-4

    @pytest.mark.parametrize("way", [df.Enumeration, df.Transfer, df.Elimination])
    def test_samples_have_the_exact_law(self, way):
        """Chi-square over all 512 configurations, those expected fewer than 5 times taken together."""
        model, count = df.ising_glass(3), 40_000
        _, log_weights = enumerated(model)
        expected = count * np.exp(log_weights - GLASS[3])
        samples = np.asarray(way(model).sample(KEY, count).samples)
        found = np.bincount(samples @ 2 ** np.arange(9)[::-1], minlength=512)
        often = expected >= 5
        found = np.append(found[often], found[~often].sum())
        expected = np.append(expected[often], expected[~often].sum())
        assert scipy.stats.chisquare(found, expected * found.sum() / expected.sum()).pvalue > 1e-4

    def test_samples_do_not_depend_on_how_many(self):
        transfer = df.Transfer(df.ising_glass(5))
        np.testing.assert_array_equal(transfer.sample(KEY, 10).samples, transfer.sample(KEY, 30).samples[:10])

    def test_exact_solution_has_weight_z(self):
        solution = df.Transfer(df.ising_glass(4)).sample(KEY, 100)
        np.testing.assert_allclose(solution.log_weights, GLASS[4], atol=1e-9)
        np.testing.assert_allclose(solution.ess, 100, rtol=1e-10)
        assert solution.log_z.standard_error < 1e-7

    @pytest.mark.slow
    def test_gradient_agrees_with_finite_differences(self):
        model = df.ising_glass(3)

        def log_z(scale):
            return df.Transfer(model).log_partition(model.tempered(scale))

        step = 1e-6
        slope = (log_z(1.0 + step) - log_z(1.0 - step)) / (2 * step)
        np.testing.assert_allclose(jax.grad(log_z)(1.0), slope, rtol=1e-8)

    def test_automatic_choice(self):
        assert isinstance(df.exact(df.ising_glass(3)), df.Enumeration)
        assert isinstance(df.exact(df.ising_glass(6)), df.Transfer)
        assert isinstance(df.exact(df.ising(df.random_regular(KEY, 60, 3), 0.2)), df.Elimination)
        with pytest.raises(ValueError, match="width 39, the limit is 19"):
            df.exact(df.sherrington_kirkpatrick(KEY, 40))


def onsager(coupling):
    """Free energy −βf per site of the infinite square lattice, by its integral."""
    k = 2 * np.sinh(2 * coupling) / np.cosh(2 * coupling) ** 2

    def integrand(angle):
        return np.log((1 + np.sqrt(1 - k**2 * np.sin(angle) ** 2)) / 2)

    return np.log(2 * np.cosh(2 * coupling)) + scipy.integrate.quad(integrand, 0, np.pi)[0] / (2 * np.pi)


@pytest.mark.parametrize("coupling", [0.3, 0.55])
@pytest.mark.slow
def test_onsager_is_approached(coupling):
    """On cylinders w around and L long, log Z = L F_w − (ends): the difference of two lengths per site is free of the ends,
    and approaches Onsager's free energy as the width grows."""

    def per_site(width):
        long, short = (
            df.Transfer(df.ising(df.lattice(rows, width, periodic=True), coupling)).log_z for rows in (60, 40)
        )
        return float(long - short) / (20 * width)

    distances = [abs(per_site(width) - onsager(coupling)) for width in (4, 6, 8, 10)]
    assert all(later < 0.6 * earlier for earlier, later in itertools.pairwise(distances))
    assert distances[-1] < 2e-4


class TestErrors:
    def test_rows(self):
        with pytest.raises(ValueError, match=r"transitions at \(0, 1\) has the sum 0.9"):
            df.Dense(jnp.array([[[0.5, 0.5], [0.5, 0.4]]]))
        with pytest.raises(ValueError, match=r"minimum -0\.5"):
            df.Dense(jnp.array([[[0.5, 0.5], [1.5, -0.5]]]))
        with pytest.raises(ValueError, match=r"step\(0, ·\) at \(0,\) has the sum 0.8"):
            df.Sparse(lambda t, s: (jnp.array([0, 1]), jnp.full(2, 0.4)), 2, 3)
        with pytest.raises(ValueError, match="non-finite"):
            df.Dense(jnp.full((1, 2, 2), jnp.nan))
        with pytest.raises(ValueError, match=r"transitions has shape \(2, 3\)"):
            df.Dense(jnp.ones((2, 3)))

    def test_unreachable(self):
        chain = df.Dense(jnp.array([[[1.0, 0.0], [0.0, 1.0]]]))
        with pytest.raises(ValueError, match="the first is 1"):
            df.solve(chain, jnp.zeros(2))

    @pytest.mark.parametrize("bad", [jnp.nan, -jnp.inf])
    def test_energies(self, bad):
        with pytest.raises(ValueError, match=r"energy is .* at \(1,\)"):
            df.solve(df.Dense(jnp.full((1, 2, 2), 0.5)), jnp.array([0.0, bad]))
        with pytest.raises(ValueError, match="couplings holds 1 non-finite"):
            df.ising(df.lattice(1, 2), jnp.array([bad]))

    def test_graphs(self):
        with pytest.raises(ValueError, match="disconnected: 2 pieces of 1 to 2 sites"):
            df.Graph(3, [(0, 1)])
        with pytest.raises(ValueError, match=r"loop \(1, 1\)"):
            df.Graph(2, [(1, 1)])
        with pytest.raises(ValueError, match="twice"):
            df.Graph(2, [(0, 1), (1, 0)])
        with pytest.raises(ValueError, match="reach back 21 sites, the limit is 20"):
            df.Transfer(df.ising(df.lattice(21, 21), 0.1))
        with pytest.raises(ValueError, match="width 29, the limit is 19"):
            df.Elimination(df.sherrington_kirkpatrick(KEY, 30))
        with pytest.raises(ValueError, match="too many to enumerate"):
            df.Enumeration(df.ising_glass(5))

    def test_arguments(self):
        model = df.ising_glass(3)
        with pytest.raises(ValueError, match="population 3"):
            df.sample(KEY, model, num_samples=10, population=3)
        with pytest.raises(ValueError, match="no permutation"):
            df.Boltzmann(model, order=[0, 1, 1])
        with pytest.raises(ValueError, match="sum to one"):
            df.Product(jnp.full((9, 2), 0.4))
        with pytest.raises(ValueError, match="coupling 0 is one of"):
            df.SwendsenWang(df.ising(df.lattice(1, 2), -1.0))
        with pytest.raises(ValueError, match="reveals 16 sites"):
            df.sample(KEY, model, df.Uniform(df.ising_glass(4)))
