"""Corrections of the weighted state: nothing at first, exact weights whatever they are, gone at the end of time."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pidjax as pid
from pidjax import learning
from pidjax._maths.maps import dense
from pidjax.process.bridge import Observation

MIXTURE = pid.GaussianMixture.isotropic(jnp.array([[-1.0, 0.0], [1.0, 0.5]]), jnp.array([0.1, 0.3]))
DENSE = pid.harmonic(jnp.array([[3.0, 1.0], [1.0, 2.0]]), noise_scale=1.0)
KEY = jax.random.key(0)


def waves(t, x):
    return 0.3 * jnp.sin(3 * x + t)


@pytest.mark.parametrize("rule", [pid.Euler(), pid.Moment()])
def test_an_untrained_network_changes_no_path(rule):
    corrected = pid.Corrected(rule, learning.Network(KEY, 2, width=8))
    plain, other = (
        pid.sample(KEY, MIXTURE, rule=one, num_samples=50, num_steps=4, save_paths=True) for one in (rule, corrected)
    )
    for name in ("samples", "log_weights", "states", "weighted_states"):
        np.testing.assert_allclose(getattr(other, name), getattr(plain, name), rtol=1e-12)


def test_no_correction_changes_no_path_of_many_coordinates():
    """Of data in more than 32 dimensions a moment step takes variances alone."""
    data = pid.Samples(jax.random.normal(KEY, (30, 40)) * jnp.linspace(0.2, 2, 40)[None])
    rules = pid.Moment(), pid.Corrected(pid.Moment(), lambda t, x: jnp.zeros_like(x))
    plain, other = (pid.sample(KEY, data, rule=rule, num_samples=5, num_steps=4) for rule in rules)
    np.testing.assert_allclose(other.log_weights, plain.log_weights, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", [pid.harmonic(), DENSE])
@pytest.mark.parametrize("rule", [pid.Euler(), pid.Moment()])
def test_weights_stay_unbiased(rule, protocol):
    """E[W] = 1 at 4 standard errors."""
    run = pid.sample(KEY, MIXTURE, protocol=protocol, rule=pid.Corrected(rule, waves), num_samples=8000)
    weights = np.exp(run.log_weights)
    assert abs(weights.mean() - 1) < 4 * weights.std(ddof=1) / weights.size**0.5
    assert run.ess < 0.95 * run.num_samples


def test_weights_of_a_data_set_stay_unbiased():
    """The last step is a draw from the laws as they are; E[W] = 1 at 4 standard errors."""
    data = pid.Samples(jnp.array([[1.0, 2.0], [3.0, 4.0], [0.0, 1.0]]))
    run = pid.sample(KEY, data, rule=pid.Corrected(pid.Euler(), waves), num_samples=4000)
    weights = np.exp(run.log_weights)
    assert abs(weights.mean() - 1) < 4 * weights.std(ddof=1) / weights.size**0.5
    assert (np.abs(run.samples[:, None] - data.points[None]).max(axis=2).min(axis=1) < 1e-12).all()


@pytest.mark.parametrize("protocol", [pid.harmonic(noise_scale=1.0), DENSE])
def test_a_correction_of_one_is_one_deviation(protocol):
    """x̂' − x̂ = c has |(1/σ² + K)^{1/2} (x̂' − x̂)| = |c| at every time, with K of the observation."""
    prepared = pid.Problem(MIXTURE, protocol).prepare(pid.uniform_grid(5))
    rule = pid.Corrected(pid.Euler(), lambda t, x: jnp.ones_like(x), deviation=0.5)
    law = prepared.target.tilt(Observation(jnp.ones(()), jnp.zeros(2)))
    for k in range(5):
        now = jax.tree.map(lambda leaf: leaf[k], prepared.step_laws)  # noqa: B023
        moved = rule.weighted_state(law, now, jnp.zeros(2)) - law.mean
        right, covariance = (dense(part, 2) for part in (now.observation.right, now.observation.covariance))
        information = right.T @ np.linalg.pinv(covariance) @ right
        assert np.isclose(moved @ (np.eye(2) / 0.25 + information) @ moved, 2)


@pytest.mark.slow
def test_the_gradient_reaches_the_correction():
    prepared = pid.Problem(MIXTURE, pid.harmonic()).prepare(pid.uniform_grid(3))
    rule = pid.Corrected(pid.Moment(), learning.Network(KEY, 2, width=8))
    gradient = eqx.filter_grad(lambda rule: jnp.mean(pid.rollout(prepared, rule, KEY, jnp.arange(8)).log_weights))(rule)
    last = gradient.correction.rest.layers[-1]
    assert jnp.isfinite(last.weight).all()
    assert jnp.any(last.bias != 0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: pid.Corrected(pid.Ancestral(), waves), "rule is a Ancestral"),
        (lambda: pid.Corrected(pid.Controlled(waves), waves), "asks for no tilted law to correct"),
        (lambda: pid.Corrected(pid.Euler(), 3.0), "correction is a float; pass a function"),
        (lambda: pid.Corrected(pid.Euler(), waves, deviation=0.0), "deviation is 0.0; pass a number > 0"),
        (
            lambda: pid.sample(KEY, MIXTURE, rule=pid.Corrected(pid.Euler(), lambda t, x: x[:1])),
            r"correction returns float64\[1\]",
        ),
    ],
)
def test_bad_input(annotations_unchecked, build, message):
    with pytest.raises(ValueError, match=message):
        build()
