"""Supports, and models of numpyro, against the closed evidence and means of conjugate models; Jacobians against derivatives."""

import math
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import EFFECTS, ERRORS, as_a_user, assert_within, eight_schools, grid_quadrature
from jax.scipy import stats
from scipy import special
from scipy.special import betaln, gammaln
from scipy.stats import multivariate_normal, norm

import pidjax as pid
from pidjax._maths.weighted import Weighted
from pidjax.supports import Interval, Positive, Real, Simplex

KEY = jax.random.key(0)
COUNTS, SUCCESSES, TRIALS, VOTES, VALUES = np.array([2, 0, 3, 1]), 7, 10, np.array([4, 1, 3]), np.array([0.8, 1.9, 1.1])
ALPHA = np.array([1.0, 2.0, 0.5])
SUPPORTS = {"rate": Positive(), "share": Interval(-1.0, 2.0), "weights": Simplex(3), "mean": Real()}


def log_gamma_poisson(rate):
    data = jnp.asarray(COUNTS, rate.dtype)
    likelihood = data * jnp.log(rate) - rate - jax.scipy.special.gammaln(data + 1)
    return 2 * jnp.log(rate) - 1.5 * rate + 3 * math.log(1.5) - math.log(2) + jnp.sum(likelihood)  # Gamma(3, 1.5)


def log_beta_binomial(share):
    unit = (share + 1) / 3
    prior = jnp.log(unit) + jnp.log(1 - unit) + math.log(6) - math.log(3)  # Beta(2, 2), stretched to (−1, 2)
    likelihood = SUCCESSES * jnp.log(unit) + (TRIALS - SUCCESSES) * jnp.log1p(-unit)
    return prior + likelihood + math.log(math.comb(TRIALS, SUCCESSES))


def log_dirichlet_multinomial(weights):
    alpha, votes = jnp.asarray(ALPHA, weights.dtype), jnp.asarray(VOTES, weights.dtype)
    prior = jnp.sum((alpha - 1) * jnp.log(weights)) + float(gammaln(ALPHA.sum()) - gammaln(ALPHA).sum())
    return prior + jnp.sum(votes * jnp.log(weights)) + float(gammaln(VOTES.sum() + 1) - gammaln(VOTES + 1).sum())


def log_normal(mean):
    data = jnp.asarray(VALUES, mean.dtype)
    return stats.norm.logpdf(mean, scale=2.0) + jnp.sum(stats.norm.logpdf(data, mean, 0.5))


LOG_DENSITIES = {
    "rate": log_gamma_poisson,
    "share": log_beta_binomial,
    "weights": log_dirichlet_multinomial,
    "mean": log_normal,
}
LOG_EVIDENCE = {
    "rate": 3 * math.log(1.5)
    + gammaln(3 + COUNTS.sum())
    - gammaln(3)
    - (3 + COUNTS.sum()) * math.log(1.5 + COUNTS.size)
    - gammaln(COUNTS + 1).sum(),
    "share": math.log(math.comb(TRIALS, SUCCESSES)) + betaln(2 + SUCCESSES, 2 + TRIALS - SUCCESSES) - betaln(2, 2),
    "weights": gammaln(VOTES.sum() + 1)
    - gammaln(VOTES + 1).sum()
    + gammaln(ALPHA.sum())
    - gammaln(ALPHA).sum()
    + gammaln(ALPHA + VOTES).sum()
    - gammaln((ALPHA + VOTES).sum()),
    "mean": multivariate_normal(np.zeros(3), 0.25 * np.eye(3) + 4.0).logpdf(VALUES),
}
MEANS = {
    "rate": (3 + COUNTS.sum()) / (1.5 + COUNTS.size),
    "share": 3 * (2 + SUCCESSES) / (4 + TRIALS) - 1,
    "weights": (ALPHA + VOTES) / (ALPHA + VOTES).sum(),
    "mean": VALUES.sum() / 0.25 / (1 / 4 + 3 / 0.25),
}


def log_joint(at):
    return sum(log_density(at[name]) for name, log_density in LOG_DENSITIES.items())


def numpyro_model(counts, successes, votes, values):
    import numpyro
    import numpyro.distributions as dist

    rate = numpyro.sample("rate", dist.Gamma(3.0, 1.5))
    with numpyro.plate("sites", counts.size):
        numpyro.sample("counts", dist.Poisson(rate), obs=counts)
    unit = numpyro.sample("unit", dist.Beta(2.0, 2.0))
    numpyro.deterministic("share", 3 * unit - 1)
    numpyro.sample("successes", dist.Binomial(TRIALS, unit), obs=successes)
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.asarray(ALPHA)))
    numpyro.sample("votes", dist.Multinomial(int(votes.sum()), weights), obs=votes)
    mean = numpyro.sample("mean", dist.Normal(0.0, 2.0))
    numpyro.sample("values", dist.Normal(mean, 0.5), obs=values)


def test_jacobians_are_those_of_the_maps(dtype):
    supports = [
        Positive((2, 3)),
        Interval(-2.0, jnp.array([1.0, 5.0])),
        Interval(0, 1, 3),
        Simplex(2),
        Simplex(5),
        Real(3),
    ]
    points = [jax.random.normal(KEY, support.shape, dtype) for support in supports]

    def of_support(support, u):
        matrix = jax.jacfwd(lambda u: support.value(u).ravel()[: u.size])(u)
        return support.log_jacobian(u), matrix.reshape(u.size, u.size)

    for found, matrix in jax.jit(lambda points: list(map(of_support, supports, points)))(points):
        assert found.dtype == dtype
        expected = np.linalg.slogdet(np.asarray(matrix, float))[1]
        np.testing.assert_allclose(found, expected, rtol=1e-4 if dtype == "float32" else 1e-10, atol=1e-5)


def test_far_values_stay_inside_with_slopes(dtype):
    """Where the dtype would round to the edge; nowhere a NaN."""
    supports = [Positive(2), Interval(jnp.array([0.0, 1.0]), 4.0), Simplex(3)]
    points = jnp.array([[far, 0.0] for far in (-1e3, -90.0, 30.0, 1e3)], dtype)

    def of_point(u):
        functions = [(support.value, support.log_jacobian) for support in supports]
        return [[(function(u), jax.jacrev(function)(u)) for function in pair] for pair in functions]

    (positive, _), (interval, _), (simplex, _) = found = jax.jit(jax.vmap(of_point))(points)
    assert ((positive[0] > 0) & (positive[0] < jnp.inf)).all()
    assert ((interval[0] > jnp.array([[0, 1]], dtype)) & (interval[0] < 4)).all()
    assert (simplex[0] > 0).all()
    np.testing.assert_allclose(jnp.sum(simplex[0], axis=1), 1, rtol=1e-6)
    for value, log_jacobian in found:
        assert not jnp.isnan(log_jacobian[0]).any()
        assert jnp.isfinite(value[1]).all()
        assert jnp.isfinite(log_jacobian[1]).all()


def test_simplex_prefers_no_entry():
    """An isometry of the free numbers on the logarithms about their mean; whatever the entry, its law is the same."""
    u, v = jax.random.normal(KEY, (2, 4))
    logs = [jnp.log(Simplex(5).value(w)) for w in (u, v)]
    a, b = (log - jnp.mean(log) for log in logs)
    np.testing.assert_allclose(jnp.sum((a - b) ** 2), jnp.sum((u - v) ** 2), rtol=1e-10)


@pytest.mark.parametrize("name", LOG_EVIDENCE)
def test_evidence_and_means_by_quadrature(name):
    density = pid.Density(LOG_DENSITIES[name], SUPPORTS[name], dtype=jnp.float64)
    points, cell = grid_quadrature(-30.0, 30.0, 1201 if density.dim == 1 else 401, density.dim)
    masses = np.exp(np.asarray(jax.vmap(density.log_density)(points))) * cell
    np.testing.assert_allclose(np.log(masses.sum()), LOG_EVIDENCE[name], atol=1e-6)
    values = np.asarray(jax.vmap(density.point)(points))
    np.testing.assert_allclose(masses @ values / masses.sum(), MEANS[name], rtol=1e-6)


def test_supports_in_a_pytree():
    """A density over a pytree is that over its parts; moved and scaled too; an array in it means real numbers."""
    dtype = jnp.float32
    density = pid.Density(log_joint, SUPPORTS | {"mean": jnp.zeros((), dtype)}, dtype=dtype)
    y = jax.random.normal(KEY, (5,), dtype)
    moved = density.rescaled(y, jnp.asarray(2.0, dtype))
    parts = {name: pid.Density(LOG_DENSITIES[name], SUPPORTS[name], dtype=dtype) for name in SUPPORTS}

    @jax.jit
    def values(y):
        alone = [parts[name].log_density(u.ravel()) for name, u in density.free(y).items()]
        return density.log_density(y), sum(alone), moved.log_density(0 * y) - 5 * math.log(2)

    found, of_parts, of_moved = values(y)
    assert found.dtype == dtype
    np.testing.assert_allclose([of_parts, of_moved], [found, found], rtol=1e-5)
    shapes = jax.tree.map(jnp.shape, jax.eval_shape(density.point, y))
    assert shapes == {"rate": (), "share": (), "weights": (3,), "mean": ()}
    assert repr(density) == "Density(log_joint, dim=5)"


def test_saved_with_its_supports(tmp_path):
    density = pid.Density(log_beta_binomial, SUPPORTS["share"])
    pid.save(tmp_path / "density.npz", density)
    same, y = pid.load(tmp_path / "density.npz", log_beta_binomial=log_beta_binomial), jnp.ones(1)
    assert same.log_density(y) == density.log_density(y)
    assert same.point(y) == density.point(y)


def test_starts_of_a_pytree():
    density = pid.Density(log_joint, SUPPORTS)
    points = jax.random.normal(KEY, (3, 5))
    np.testing.assert_array_equal(density.vectors("starts", jax.vmap(density.free)(points)), points)
    with pytest.raises(
        ValueError, match=r"starts holds {'rate': float64\[3\]}; pass .*'weights': float64\[2\]}, with one"
    ):
        density.vectors("starts", {"rate": jnp.zeros(3)})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Interval(1.0, 1.0), "low is 1.0 and high is 1.0; pass low < high"),
        (lambda: Interval(1e8, jnp.float32(1e8 + 16)), "told apart by their dtype"),
        (lambda: Interval(-jnp.inf, 1.0), "low holds 1 non-finite"),
        (lambda: Interval(jnp.zeros(2), jnp.ones(3)), r"low has shape \(2,\), high \(3,\)"),
        (lambda: Simplex(1), "k is 1; pass an integer >= 2"),
        (lambda: Positive(0), "shape is 0; pass an integer >= 1"),
        (lambda: pid.Density(lambda y: y, Simplex(3)), r"log_density returns float64\[3\] for one point, float64\[3\]"),
        (lambda: pid.Density(log_joint, {"rate": Positive(), "n": 3}), "like holds int"),
        (lambda: pid.interop.draws(KEY, 3.0), "solution is a float"),
        (lambda: pid.interop.numpyro_density(3.0), "model is a float"),
    ],
)
def test_errors_at_the_door(wrong, message, annotations_unchecked):
    with pytest.raises(ValueError, match=message):
        wrong()


def test_numpyro_model_is_the_density_over_its_supports():
    """Written twice: as a model of numpyro's, and by hand over supports; the simplex, where the maps differ, by its volume."""
    pytest.importorskip("numpyro")
    with as_a_user():
        model = pid.interop.numpyro_density(numpyro_model, COUNTS, SUCCESSES, VOTES, VALUES)
        y = jax.random.normal(KEY, (model.dim,))
        free = model.free(y)

        def view(u):
            return model.view(free | {"weights": u})["weights"][:2]

        value, point, matrix = jax.jit(
            lambda y: (model.log_density(y), model.point(y), jax.jacfwd(view)(free["weights"]))
        )(y)
        assert sorted(point) == ["mean", "rate", "share", "unit", "weights"]
        np.testing.assert_allclose(point["share"], 3 * point["unit"] - 1, rtol=1e-6)
        by_hand = log_joint(point) + free["rate"] + jnp.log(3 * point["unit"] * (1 - point["unit"]))
        expected = by_hand + jnp.log(jnp.abs(matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]))
        np.testing.assert_allclose(value, expected, rtol=1e-4)


def test_numpyro_is_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "numpyro.handlers", None)
    with pytest.raises(
        ImportError, match=r"numpyro_density needs numpyro; install it with pip install pidjax\[numpyro\]"
    ):
        pid.interop.numpyro_density(numpyro_model, COUNTS)


def test_numpyro_models_that_cannot_be():
    numpyro = pytest.importorskip("numpyro")
    dist = pytest.importorskip("numpyro.distributions")
    with as_a_user():
        with pytest.raises(ValueError, match="model has the discrete latent sites which; pass"):
            pid.interop.numpyro_density(lambda: numpyro.sample("which", dist.Bernoulli(0.5)))
        with pytest.raises(ValueError, match="model has no latent site"):
            pid.interop.numpyro_density(lambda: None)


class Found(Weighted):
    samples: Any
    log_weights: jax.Array
    num_islands: int = 4
    num_energy_evaluations: int = 0
    shared: None = None

    def _problems(self):
        return []

    def _advice(self):
        return "", ""

    def _facts(self):
        return {}


def test_draws_have_a_chain_and_names():
    """Equally weighted: where all the weight is on one sample, that sample alone."""
    y = jnp.arange(8.0).reshape(4, 2)
    found = pid.interop.draws(KEY, Found({"a": y[:, 0], "b": [y]}, jnp.log(jnp.eye(4)[2])), 6)
    assert {name: array.shape for name, array in found.items()} == {"a": (1, 6), "b.0": (1, 6, 2)}
    np.testing.assert_array_equal(found["b.0"], np.broadcast_to(y[2], (1, 6, 2)))


def check(solution):
    assert_within(solution.log_z.value, sum(LOG_EVIDENCE.values()), solution.log_z.standard_error)
    mean, error = solution.check().expectation(lambda at: {name: at[name] for name in MEANS})
    for name in MEANS:
        assert_within(mean[name], MEANS[name], error[name])
        assert solution.samples[name].shape == (solution.num_samples, *np.shape(MEANS[name]))
    assert solution.vectors.shape == (solution.num_samples, 5)
    sd = math.sqrt((3 + COUNTS.sum()) / (1.5 + COUNTS.size) ** 2)
    rates = pid.interop.draws(jax.random.key(9), solution)["rate"]
    assert_within(np.mean(rates), MEANS["rate"], np.sqrt(2) * sd / np.sqrt(float(solution.ess)))
    assert "rate" in repr(solution)


@pytest.mark.extended
@pytest.mark.slow
def test_sampled_over_supports(as_users_have_it):
    starts = {"rate": jnp.zeros(2), "share": jnp.ones(2), "weights": jnp.zeros((2, 2)), "mean": jnp.ones(2)}
    density = pid.Density(log_joint, SUPPORTS | {"share": Interval(-1.0, 2.0)})
    check(pid.sample(KEY, density, starts=starts, progress=False))


@pytest.mark.extended
@pytest.mark.slow
def test_sampled_as_a_numpyro_model(as_users_have_it):
    pytest.importorskip("numpyro")
    check(pid.sample(KEY, pid.interop.numpyro_density(numpyro_model, COUNTS, SUCCESSES, VOTES, VALUES), progress=False))


def schools():
    """Not centred: θ = μ + τ z."""
    import numpyro
    import numpyro.distributions as dist

    mu, tau = numpyro.sample("mu", dist.Normal(0, 5)), numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("schools", 8):
        theta = numpyro.deterministic("theta", mu + tau * numpyro.sample("z", dist.Normal(0, 1)))
        numpyro.sample("effects", dist.Normal(theta, ERRORS), obs=EFFECTS)


def logistic(inputs, labels):
    import numpyro
    import numpyro.distributions as dist

    slopes = numpyro.sample("slopes", dist.Normal(0, 2).expand([inputs.shape[1]]).to_event(1))
    numpyro.sample("labels", dist.Bernoulli(logits=inputs @ slopes), obs=labels)


def assert_as_nuts(solution, features, model, *data):
    """Means, and shares below five quantiles, of each feature against 40,000 draws of NUTS, by the errors of both."""
    import numpyro.infer
    from numpyro.diagnostics import effective_sample_size

    kernel = numpyro.infer.NUTS(model, target_accept_prob=0.95)
    chains = numpyro.infer.MCMC(
        kernel, num_warmup=1000, num_samples=10_000, num_chains=4, chain_method="vectorized", progress_bar=False
    )
    chains.run(jax.random.key(7), *data)
    values = np.asarray(jax.vmap(jax.vmap(features))(chains.get_samples(group_by_chain=True)))
    quantiles = np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95], axis=(0, 1))

    def statistics(values):
        below = [values < quantile for quantile in quantiles]
        return jnp.concatenate([values, *(jnp.asarray(share, values.dtype) for share in below)])

    of_nuts = np.asarray(jax.vmap(jax.vmap(statistics))(values))
    errors = of_nuts.std(axis=(0, 1)) / np.sqrt(effective_sample_size(of_nuts))
    own = solution.expectation(lambda at: statistics(features(at)))
    assert_within(own.value, of_nuts.mean(axis=(0, 1)), np.hypot(own.standard_error, errors))


@pytest.mark.extended
@pytest.mark.slow
def test_a_logistic_regression_against_quadrature_and_nuts(as_users_have_it):
    """log Z and means by the trapezium rule: the density is smooth, and vanishes at the edge."""
    pytest.importorskip("numpyro")
    inputs = np.column_stack([np.ones(60), np.random.default_rng(0).normal(size=(60, 2))])
    labels = np.random.default_rng(1).random(60) < special.expit(inputs @ [0.5, 2.0, -1.0])
    data = jnp.asarray(inputs), jnp.asarray(labels, int)
    solution = pid.sample(KEY, pid.interop.numpyro_density(logistic, *data), progress=False).check()
    points, cell = grid_quadrature(-6.0, 8.0, 141, 3)
    logits = points @ inputs.T
    log_p = norm.logpdf(points, 0, 2).sum(axis=1) + (labels * logits - np.logaddexp(0, logits)).sum(axis=1)
    log_z = special.logsumexp(log_p) + np.log(cell)
    assert_within(solution.log_z.value, log_z, solution.log_z.standard_error)
    mean = solution.expectation(lambda at: at["slopes"])
    assert_within(mean.value, special.softmax(log_p) @ points, mean.standard_error)
    assert_as_nuts(solution, lambda at: at["slopes"], logistic, *data)


@pytest.mark.extended
@pytest.mark.slow
def test_eight_schools_against_quadrature_and_nuts(as_users_have_it):
    """Given (μ, τ) the schools integrate out, y_i ~ N(μ, σ_i² + τ²)."""
    pytest.importorskip("numpyro")
    points, log_p, log_z = eight_schools()
    solution = pid.sample(KEY, pid.interop.numpyro_density(schools), progress=False).check()
    assert_within(solution.log_z.value, log_z, solution.log_z.standard_error)
    mean = solution.expectation(lambda at: jnp.stack([at["mu"], jnp.log(at["tau"])]))
    assert_within(mean.value, special.softmax(log_p) @ points, mean.standard_error)
    assert_as_nuts(
        solution, lambda at: jnp.concatenate([jnp.stack([at["mu"], jnp.log(at["tau"])]), at["theta"]]), schools
    )
