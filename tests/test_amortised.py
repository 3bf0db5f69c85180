"""A loss over a family of targets against closed forms, and members that training never saw."""

import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_within, mean_and_error

import pidjax as pid
from pidjax import learning

KEY = jax.random.key(0)
GAIN = 0.4
LOSSES = [
    (learning.RelativeEntropy(), 0.5, -1),
    (learning.LogVariance(), 1.0, -2),
    pytest.param(learning.TrajectoryBalance(), 0.5 * (1 + 1 / 256), -1, marks=[pytest.mark.slow, pytest.mark.extended]),
]


def normals(loss):
    """N(c, I) from a Brownian motion, of which u = c is the optimal control; the rule has u = gain · c."""
    return learning.Amortised(
        lambda c: pid.GaussianMixture.isotropic(c[None], 1.0),
        lambda gain, c: pid.Controlled(lambda t, x: gain * c),
        lambda key: jnp.array([1.0, 0.5]) + jax.random.exponential(key, (2,)),
        protocol=pid.harmonic(0.0, noise_scale=1.0),
        grid=pid.uniform_grid(3),
        loss=loss,
        num_members=10,
        num_paths=5,
    )


@pytest.mark.parametrize(("loss", "of_variance", "of_slope"), LOSSES, ids=lambda value: type(value).__name__)
def test_value_and_slope_are_means_over_contexts(loss, of_variance, of_slope):
    """log W ~ N(−v/2, v) with v = (1 − gain)² |c|², and E|c|² = 2² + 1.5² + 2: E v in the value, E v/(1 − gain) in the slope.

    On fixed paths the variance has twice, the balance once the slope of the relative entropy.
    """
    family = normals(loss)
    run = jax.jit(jax.vmap(jax.value_and_grad(family), in_axes=(None, 0)))
    values, slopes = run(jnp.array(GAIN), jax.random.split(KEY, 400))
    mean, error = mean_and_error(values)
    assert_within(mean, of_variance * (1 - GAIN) ** 2 * 8.25, error)
    mean, error = mean_and_error(slopes)
    assert_within(mean, of_slope * (1 - GAIN) * 8.25, error)
    optimal, _ = run(jnp.array(1.0), jax.random.split(KEY, 2))
    assert jnp.max(jnp.abs(optimal)) < 1e-12


def test_every_step_is_learned_of_fewer_paths():
    """A regression has a bridge a path, at the steps by turns: none is left out for good."""
    steps = 5
    family = learning.Amortised(
        lambda c: pid.GaussianMixture.isotropic(c[None], 1.0),
        lambda gains, c: pid.Controlled(lambda t, x: gains[jnp.round(t * steps).astype(int)] * jnp.ones_like(x)),
        lambda key: jax.random.normal(key, (1,)),
        protocol=pid.harmonic(0.0, noise_scale=1.0),
        grid=pid.uniform_grid(steps),
        loss=learning.Regression(refresh=learning.Refresh(5, 8), variance=0.5),
        num_members=4,
        num_paths=2,
    )
    slopes = jax.jit(jax.vmap(jax.grad(family), in_axes=(None, 0)))(jnp.full(steps, 0.5), jax.random.split(KEY, 40))
    assert (jnp.mean(slopes != 0, axis=0) > 0.5).all()


def test_a_buffer_is_of_one_member():
    regression = learning.Regression(learning.Buffer(jnp.zeros((4, 2))))
    for loss in (regression, learning.Sum([learning.RelativeEntropy(), regression], [1.0, 1.0])):
        with pytest.raises(
            ValueError, match="loss has a Regression on a buffer, whose points are samples of one member"
        ):
            normals(loss)


@pytest.mark.extended
@pytest.mark.slow
def test_devices_do_not_change_the_descent():
    """Members spread over four devices, where two lie on each: the history of one device, to rounding."""
    script = """
        import jax, jax.numpy as jnp, numpy as np
        import pidjax as pid
        from pidjax import learning

        def descent(members):
            family = learning.Amortised(
                lambda c: pid.GaussianMixture.isotropic(c[None], 1.0),
                lambda gain, c: pid.Controlled(lambda t, x: gain * c),
                lambda key: jax.random.normal(key, (2,)),
                protocol=pid.harmonic(0.0, noise_scale=1.0), grid=pid.uniform_grid(3), num_members=members, num_paths=5,
            )
            gain = jnp.zeros(())
            return learning.descend(family, gain, key=jax.random.key(0), num_iterations=30, progress=False), family

        found, family = descent(8)
        assert len(found.parameters.sharding.device_set) == len(family.members.sharding.device_set) == len(jax.devices())
        assert len(family.members.addressable_shards[0].data) == 8 // len(jax.devices())
        assert len(descent(3)[1].members.sharding.device_set) == 1
        np.savetxt(__import__("sys").stdout, found.history)
    """

    def history(devices):
        environment = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-c", textwrap.dedent(script)]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert run.returncode == 0, run.stderr
        return [float(line) for line in run.stdout.split()]

    np.testing.assert_allclose(history(4), history(1), rtol=1e-5)


def log_two_modes(c, y):
    """Of ½ N(−c, ¼) + ½ N(c, ¼), times e."""
    return pid.GaussianMixture.isotropic(jnp.stack([-c, c]), 0.25).log_density(y) + 1


@pytest.mark.extended
@pytest.mark.slow
def test_unseen_members_are_sampled_by_one_rollout():
    """A Gaussian of the right mean and variance stands in: its ESS/N falls below a half, the network's is above for all."""
    grid, protocol = pid.log_snr_grid(12, low=0.3, high=60.0), pid.harmonic()

    def target(c):
        density = pid.Density(jax.tree_util.Partial(log_two_modes, c), 1)
        return pid.Surrogate(density, pid.GaussianMixture(jnp.zeros((1, 1)), (c**2 + 0.25)[None, None]))

    def rule(network, c):
        return pid.Corrected(pid.Moment(), network.given(c))

    def context(key):
        return jax.random.uniform(key, (1,), minval=0.5, maxval=2.5)

    family = learning.Amortised(
        target, rule, context, protocol=protocol, grid=grid, loss=learning.LogVariance(), num_members=16
    )
    network = learning.Network(jax.random.key(1), 1, context_dim=1, width=32)
    optimiser = learning.adam(1e-2, decay=150, clip=1.0)
    with jax.numpy_dtype_promotion("standard"):
        trained = learning.descend(family, network, key=KEY, optimiser=optimiser, num_iterations=150, progress=False)
    ess = []
    for key in jax.random.split(jax.random.key(2), 5):
        c = context(key)
        for one in (network, trained.parameters):
            solution = pid.sample(key, target(c), protocol=protocol, grid=grid, rule=rule(one, c), num_samples=1000)
            ess.append(solution.ess / 1000)
        assert_within(solution.log_z.value, 1, solution.log_z.standard_error)
    before, after = jnp.array(ess).reshape(5, 2).T
    assert before.min() < 0.5
    assert after.min() > 0.5
