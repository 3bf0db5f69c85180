"""Losses against closed forms, quadrature and finite differences, and what they do to a displaced surrogate."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from helpers import mixture_of

import pidjax as pid
from pidjax import learning
from pidjax.learning.regression import estimate
from pidjax.process.bridge import Observation
from pidjax.sampling.rules import Proposal
from pidjax.targets.fitting.defence import defended
from pidjax.targets.fitting.gaussians import Gaussians

KEY = jax.random.key(0)
CENTRES, WIDTHS = jnp.array([[-2.0, 0.0], [2.0, 1.0], [0.0, -3.0]]), jnp.array([0.3, 0.5, 0.4])
TRUTH = pid.GaussianMixture.isotropic(CENTRES, WIDTHS)
LOG_Z = 0.7
DISPLACED = pid.Surrogate(
    pid.Density(lambda y: TRUTH.log_density(y) + LOG_Z, 2),
    pid.GaussianMixture.isotropic(CENTRES + jnp.array([[0.4, 0.4], [-0.4, -0.4], [0.4, 0.4]]), WIDTHS + 0.2),
)
GRID = pid.log_snr_grid(5)
BUFFER = learning.Buffer(TRUTH.sample(jax.random.key(9), 1000))


@pytest.fixture(autouse=True)
def promotion():
    """optax itself raises Python floats to integer counts, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def prepared():
    return pid.Problem(DISPLACED, pid.harmonic()).prepare(GRID)


def corrected(width=8, size=0.0):
    """A correction, with noise on every array."""
    network, rest = eqx.partition(learning.Network(jax.random.key(1), 2, width=width), eqx.is_array)
    leaves, structure = jax.tree.flatten(network)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    noisy = [leaf + size * jax.random.normal(key, leaf.shape, leaf.dtype) for leaf, key in zip(leaves, keys)]
    return pid.Corrected(pid.Moment(), eqx.combine(structure.unflatten(noisy), rest))


LOSSES = {
    "relative entropy": learning.RelativeEntropy(),
    "log-variance": learning.LogVariance(BUFFER),
    "trajectory balance": learning.TrajectoryBalance(BUFFER),
    "regression": learning.Regression(BUFFER),
    "damped": learning.Regression(BUFFER, damping=0.5, variance=0.1),
    "sum": learning.Sum([learning.RelativeEntropy(), learning.LogVariance(BUFFER)], [1.0, 0.3]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_the_value(prepared, name):
    rule, loss = corrected(size=0.3), LOSSES[name]
    learned, fixed = eqx.partition(rule, learning.is_learned(rule))
    direction = jax.tree.map(lambda leaf: jnp.cos(jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape), learned)
    state = jax.jit(lambda: loss.start(prepared, corrected(), KEY))()

    @jax.jit
    @jax.value_and_grad
    def along(step):
        moved = jax.tree.map(lambda leaf, towards: leaf + step * towards, learned, direction)
        return loss(prepared, eqx.combine(moved, fixed), KEY, jnp.arange(10), state)[0]

    derivative = along(0.0)[1]
    difference = (along(1e-5)[0] - along(-1e-5)[0]) / 2e-5
    assert abs(derivative) > 1e-3
    assert abs(derivative - difference) < 1e-6 * max(1, abs(derivative))


@pytest.mark.parametrize("variance", [0.0, 0.1, 1.0, 10.0])
def test_the_estimate_is_unbiased(variance):
    """Its mean over p(y|x), on a fine lattice, is the weighted state, for a mixture seen through a gain."""
    mixture = pid.GaussianMixture.isotropic(jnp.array([[-1.0], [1.5]]), jnp.array([0.1, 0.4]))
    seen = Observation(jnp.array(1.3), jnp.array([0.4]))
    y = jnp.linspace(-6, 6, 4001)[:, None]
    log_tilted = jax.vmap(mixture.log_density)(y) - 0.5 * jnp.sum((seen.value[None] - seen.gain * y) ** 2, axis=1)
    slopes = jax.vmap(jax.grad(mixture.log_density))(y)
    estimates = jax.vmap(lambda y, slope: estimate(seen, y, slope, jnp.array(variance)))(y, slopes)
    mean = jax.nn.softmax(log_tilted) @ estimates
    assert jnp.allclose(mean, mixture.tilt(seen).mean, atol=1e-10)


@pytest.mark.parametrize("gain", [jnp.array(0.0), jnp.array(2.0), jnp.array([[1.0, 0.5], [0.0, 2.0]])])
def test_the_estimate_has_no_variance_for_a_gaussian(gain):
    gaussian = pid.GaussianMixture.isotropic(jnp.array([[1.0, -2.0]]), 0.3)
    seen = Observation(gain, jnp.array([0.5, 1.0]))
    for y in (jnp.array([0.0, 0.0]), jnp.array([3.0, -1.0])):
        found = estimate(seen, y, jax.grad(gaussian.log_density)(y), jnp.array(0.3))
        assert jnp.allclose(found, gaussian.tilt(seen).mean, atol=1e-12)


@pytest.mark.extended
@pytest.mark.slow
def test_the_best_variance_is_found_for_each_step():
    """A Gaussian of unit variance has an estimate without variance at σ² = 1, and a loss of zero there."""
    gaussian = pid.GaussianMixture.isotropic(jnp.array([[1.0, -2.0]]), 1.0)
    prepared = pid.Problem(gaussian, pid.harmonic()).prepare(GRID)
    loss = learning.Regression(learning.Buffer(gaussian.sample(KEY, 100)))
    rule = corrected()
    state = loss.start(prepared, rule, KEY)
    assert jnp.all(state.variances == 1)
    assert loss(prepared, rule, KEY, jnp.arange(20), state)[0] < 1e-20


@pytest.mark.slow
def test_losses_of_the_optimal_process():
    """`Moment` on a Gaussian is optimal: every path weighs Z, so variances vanish, and the learned log Z is right."""
    gaussian = pid.GaussianMixture.isotropic(jnp.array([[1.0, -2.0]]), 0.5)
    prepared = pid.Problem(gaussian, pid.harmonic()).prepare(GRID)
    for buffer in (None, learning.Buffer(gaussian.sample(KEY, 100))):
        assert learning.LogVariance(buffer)(prepared, pid.Moment(), KEY, jnp.arange(9), ())[0] < 1e-20
        balance = learning.TrajectoryBalance(buffer)
        log_z = balance.start(prepared, pid.Moment(), KEY)
        assert abs(log_z) < 1e-10
        value, after = balance(prepared, pid.Moment(), KEY, jnp.arange(9), log_z + 1)
        assert jnp.allclose(value, 0.5)
        assert jnp.allclose(after, 0.9)


@pytest.fixture(scope="module")
def trained():
    """A correction of the displaced surrogate by regression on weighted draws of it."""
    solution = pid.sample(jax.random.key(3), DISPLACED)
    with jax.numpy_dtype_promotion("standard"):
        return learning.fit(
            jax.random.key(4),
            DISPLACED,
            corrected(width=32),
            protocol=pid.harmonic(),
            grid=GRID,
            loss=learning.Regression(learning.Buffer.of(solution)),
            optimiser=learning.adam(5e-3, decay=200, clip=1.0),
            num_iterations=200,
            batch_size=250,
            report_every=200,
            ends=BUFFER.ends,
            average=0.98,
            progress=False,
        )


@pytest.mark.slow
def test_regression_mends_a_displaced_surrogate(trained):
    """EUBO − ELBO falls by half, with log Z between the bounds all along, by reports of 250 paths."""
    reports = trained.reports
    assert reports["iteration"].tolist() == [0, 200]
    assert (reports["elbo"] < LOG_Z).all()
    assert (reports["eubo"] > LOG_Z).all()
    gap = reports["eubo"] - reports["elbo"]
    assert gap[1] < 0.6 * gap[0]
    assert trained.num_evaluations == 4096


@pytest.mark.slow
def test_weights_of_the_trained_rule_are_exact(trained):
    """log Z at 4 standard errors, by the last parameters and by their average; ESS/N above the explicit one's."""
    rules = pid.Moment(), trained.parameters, trained.averaged
    plain, *runs = (pid.sample(jax.random.key(5), DISPLACED, rule=rule, grid=GRID, num_samples=2000) for rule in rules)
    for run in runs:
        assert abs(run.log_z.value - LOG_Z) < 4 * run.log_z.standard_error
        assert run.ess > plain.ess + 0.05 * run.num_samples


@pytest.mark.slow
def test_a_control_is_learned_from_its_own_samples():
    """Under the Brownian reference the optimal control of N(μ, I) is μ: a regression without variance."""
    mean = jnp.array([1.5, -0.5])
    gaussian = pid.GaussianMixture(mean[None], jnp.eye(2)[None])
    rule = pid.Controlled(learning.Network(KEY, 2, width=16))
    loss = learning.Regression(variance=1.0, refresh=learning.Refresh(25, 64, power=0.0))
    options = {"protocol": pid.harmonic(0.0, noise_scale=1.0), "grid": pid.uniform_grid(4), "progress": False}
    options["optimiser"] = learning.adam(5e-3, decay=150, clip=1.0)
    found = learning.fit(KEY, gaussian, rule, loss=loss, num_iterations=150, batch_size=64, **options)
    points = jax.random.normal(KEY, (100, 2)) + mean[None] / 2
    learned = jax.vmap(found.parameters.control, in_axes=(None, 0))(jnp.array(0.5), points)
    assert jnp.sqrt(jnp.mean((learned - mean[None]) ** 2)) < 0.1
    assert found.num_evaluations == 6 * 64 * 2


@pytest.mark.parametrize(
    "loss",
    [
        learning.Regression(refresh=learning.Refresh(5, 20)),
        pytest.param(learning.TrajectoryBalance(), marks=pytest.mark.extended),
    ],
)
def test_a_parameter_that_the_rule_closes_over_is_learned_alike(loss):
    """What a loss begins with has no derivative: the slope of a closure is that of a module."""

    def slope(rule):
        family = learning.Amortised(
            lambda c: pid.GaussianMixture.isotropic(c[None], 1.0), rule, lambda key: jax.random.normal(key, (2,)),
            protocol=pid.harmonic(0.0, noise_scale=1.0), grid=pid.uniform_grid(3), loss=loss, num_members=4, num_paths=5,
        )  # fmt: skip
        return float(jax.grad(family)(jnp.array(0.4), KEY))

    closure = slope(lambda gain, c: pid.Controlled(lambda t, x: gain * c))
    module = slope(lambda gain, c: pid.Controlled(eqx.Partial(lambda drift, t, x: drift, gain * c)))
    assert abs(module) > 0.1
    assert closure == pytest.approx(module, rel=1e-6)


def test_points_without_a_slope_or_a_weight_are_not_learned_from():
    """With a buffer and a refresh; and where no path of a refresh has a weight the loss is not finite, and so counted."""
    cusp = pid.Density(lambda y: -jnp.sqrt(jnp.abs(y[0] - 3)), 1)
    prepared = pid.Problem(cusp, pid.harmonic(0.0, noise_scale=1.0)).prepare(pid.uniform_grid(3))
    rule = pid.Controlled(lambda t, x: jnp.zeros_like(x))
    buffer = learning.Buffer(jnp.array([[3.0], [2.5], [3.5], [3.0]]))
    points = learning.Regression(buffer, refresh=learning.Refresh(5, 8)).start(prepared, rule, KEY).points
    assert set(points.ends.ravel().tolist()) == {2.5, 3.5}
    for refresh in (None, learning.Refresh(5, 8)):
        loss = learning.Regression(learning.Buffer(jnp.full((2, 1), 3.0)), refresh=refresh, variance=0.1)
        assert jnp.isnan(loss(prepared, rule, KEY, jnp.arange(4), loss.start(prepared, rule, KEY))[0])
    nowhere = pid.Density(lambda y: jnp.where(y[0] < 1e6, -jnp.inf, -jnp.sum(y**2)), 1)
    prepared = pid.Problem(nowhere, pid.harmonic(0.0, noise_scale=1.0)).prepare(pid.uniform_grid(3))
    loss = learning.Regression(refresh=learning.Refresh(5, 8), variance=0.1)
    assert jnp.isnan(loss(prepared, rule, KEY, jnp.arange(4), loss.start(prepared, rule, KEY))[0])


def test_a_bare_density_has_no_laws_to_correct():
    density = pid.Density(TRUTH.log_density, 2)
    with pytest.raises(
        ValueError, match="target is a Density, which has no tilted laws for the rule Corrected; pass what"
    ):
        learning.fit(KEY, density, corrected(), protocol=pid.harmonic(), loss=learning.Regression(BUFFER))


def test_a_buffer_that_does_not_fit_is_named(prepared):
    for loss in (learning.Regression, learning.LogVariance, learning.TrajectoryBalance):
        with pytest.raises(ValueError, match="buffer is "):
            loss(jnp.ones((4, 2)))
        made = loss(learning.Buffer(jnp.ones((4, 3))))
        with pytest.raises(ValueError, match="buffer has points of dimension 3 but target has dimension 2"):
            made.start(prepared, corrected(), KEY) or made(prepared, corrected(), KEY, jnp.arange(4), ())


def test_a_buffer_has_no_weight_that_is_nan():
    with pytest.raises(ValueError, match="log_weights has NaN"):
        learning.Buffer(jnp.ones((3, 1)), jnp.array([0.0, jnp.nan, 0.0]))


@pytest.mark.slow
def test_what_is_selected_of_a_rule_is_fitted():
    """The loss starts with the rule itself; what it closes over stays."""
    rule = learning.only(lambda rule: rule.correction.rest.layers[-1], corrected(size=0.1))
    options = {"protocol": pid.harmonic(), "grid": GRID, "batch_size": 20, "progress": False, "num_iterations": 3}
    found = learning.fit(KEY, DISPLACED, rule, loss=learning.Regression(BUFFER, damping=0.1), **options).parameters
    before, after = (one.correction.rest.layers for one in (corrected(size=0.1), found))
    assert eqx.tree_equal(before[0], after[0])
    assert not eqx.tree_equal(before[-1], after[-1])


class Scalar(eqx.Module):
    gain: jax.Array

    def __call__(self, t, x):
        return self.gain * jnp.sum(x)


class Wide(pid.Euler):
    """Steps of a width that could be learned."""

    log_width: jax.Array = eqx.field(default_factory=lambda: jnp.zeros(()))

    def proposal(self, law, now, x):
        step = super().proposal(law, now, x)
        return Proposal(step.mean, step.factor * jnp.exp(self.log_width))


def test_a_regression_learns_vectors_and_no_widths(prepared):
    options = {"protocol": pid.harmonic(), "grid": GRID, "loss": learning.Regression(BUFFER), "progress": False}
    with pytest.raises(ValueError, match=r"correction returns float64\[\]"):
        learning.fit(KEY, DISPLACED, pid.Corrected(pid.Moment(), Scalar(jnp.ones(()))), **options)
    loss = learning.Regression(BUFFER, variance=0.1)
    state = loss.start(prepared, Wide(), KEY)
    slope = eqx.filter_grad(lambda rule: loss(prepared, rule, KEY, jnp.arange(10), state)[0])(Wide())
    assert slope.log_width == 0


@pytest.mark.slow
def test_a_descent_with_a_buffer_goes_on_where_it_stopped(tmp_path):
    loss = learning.Regression(BUFFER, refresh=learning.Refresh(20, 50), damping=0.1)
    options = {"protocol": pid.harmonic(), "grid": GRID, "loss": loss, "batch_size": 20, "progress": False}
    options["optimiser"] = learning.adam(1e-3)
    whole = learning.fit(KEY, DISPLACED, corrected(), num_iterations=75, **options)
    for iterations in (50, 75):
        parts = learning.fit(
            KEY, DISPLACED, corrected(), num_iterations=iterations, checkpoint=tmp_path / "descent.npz", **options
        )
    assert (parts.history == whole.history).all()
    assert eqx.tree_equal(parts.free, whole.free)
    assert eqx.tree_equal(parts.state, whole.state)


def test_a_surrogate_without_its_widened_component():
    """The mixture before it was defended; of a product, block by block. Others have none to leave out."""
    roots = jnp.sqrt(WIDTHS)[:, None, None] * jnp.eye(2)[None]
    core = Gaussians(jnp.log(jnp.array([0.2, 0.5, 0.3])), CENTRES, roots)
    one = mixture_of(defended(core))
    assert one.weights.size == 4
    density = DISPLACED.density
    found = learning.undefended(pid.Surrogate(density, one)).mixture
    for mine, truth in (
        (found.means, core.means),
        (found.factors, core.factors),
        (found.weights, jnp.exp(core.log_weights)),
    ):
        assert jnp.allclose(mine, truth, rtol=1e-5)
    pair = pid.Density(lambda y: density.log_density(y[:2]) + density.log_density(y[2:]), 4)
    product = pid.Product([[0, 1], [2, 3]], [one, one])
    blocks = learning.undefended(pid.Surrogate(pair, product)).mixture
    y = jnp.array([0.3, -1.0, 0.5, 2.0])
    assert jnp.allclose(blocks.log_density(y), found.log_density(y[:2]) + found.log_density(y[2:]), rtol=1e-5)
    with pytest.raises(ValueError, match="last component is not the widened one"):
        learning.undefended(DISPLACED)
    with pytest.raises(ValueError, match="last component is not the widened one"):
        learning.undefended(pid.Surrogate(density, found))
