"""A user's function at the door: what it returns, what it takes out of its point, what it reads past the end of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pidjax as pid

pytestmark = pytest.mark.usefixtures("as_users_have_it")


def loop(length):
    return lambda y: jax.lax.fori_loop(0, length, lambda i, total: total + y[i] ** 2, 0.0)


def while_loop(length):
    def density(y):
        return jax.lax.while_loop(lambda s: s[0] < length, lambda s: (s[0] + 1, s[1] + y[s[0]]), (0, 0.0))[1]

    return density


def scanned(indices, **options):
    return lambda y: jax.lax.scan(lambda total, i: (total + y[i], None), 0.0, jnp.asarray(indices), **options)[0]


OUTSIDE = [
    loop(3),
    while_loop(3),
    scanned([0, 1, 2]),
    scanned([2, 0], reverse=True),
    lambda y: jax.vmap(lambda i: y[i])(jnp.arange(3)).sum(),
    lambda y: y.at[5].set(1.0).sum(),
    lambda y: y.at[jnp.array([0, 2])].add(1.0).sum(),
    lambda y: jax.lax.dynamic_slice(y, (1,), (2,)).sum(),
    lambda y: jax.lax.dynamic_update_slice(y, y, (1,)).sum(),
    lambda y: jax.lax.cond(y[0] > 0, lambda: y[3], lambda: y[1]),
    lambda y: jax.lax.switch(1, [lambda: y[0], lambda: y[2]]),
    lambda y: y[jnp.array([0, 2])].sum(),
    lambda y: jax.jit(lambda y, i: y[i])(y, 2),
]

INSIDE = [
    loop(2),
    while_loop(2),
    scanned([1, 0], reverse=True),
    lambda y: jax.vmap(lambda i: y[i] * y[(i + 1) % 2] * y[i - 1])(jnp.arange(2)).sum(),
    lambda y: jax.vmap(lambda i: y[jnp.clip(i, 0, 1)])(jnp.arange(9)).sum(),
    lambda y: (jnp.roll(y, 1) + y[::-1] + jnp.cumsum(y)).sum() + jnp.diff(y).sum(),
    lambda y: y.at[-1].set(1.0).at[jnp.arange(2)].add(2.0).sum(),
    lambda y: jax.lax.cond(y[0] > 0, lambda: y[0], lambda: y[1]),
    lambda y: y[jnp.argmax(y)] + jnp.sort(y)[jnp.argsort(y)[0]],
    lambda y: jnp.where(jnp.array([[True, False]]), jnp.outer(jnp.ones(3), y), 0).sum(),
]


@pytest.mark.parametrize("log_density", OUTSIDE)
def test_reads_past_the_end_are_found(log_density):
    with pytest.raises(ValueError, match=r"log_density reads index \(.*\) of an array of shape \(2,\)"):
        pid.Density(log_density, 2)


@pytest.mark.parametrize("log_density", INSIDE)
def test_reads_inside_pass(log_density):
    assert pid.Density(log_density, 2).dim == 2


FUNCTIONS = [
    (lambda y: y @ y > 0, r"returns bool\[\] for one point, float32\[2\]"),
    (lambda y: y @ y + 0j, r"returns complex64\[\]"),
    (lambda y: {"a": y}, r"returns {'a': float32\[2\]}"),
    (lambda y: None, "returns None"),
    (lambda y: (-(y @ y),), r"returns \(float32\[\]\)"),
    (lambda y: [-(y @ y)], r"returns \[float32\[\]\]"),
    (lambda y: float(y[0]), "cannot be traced"),
    (lambda y: np.sin(y[0]), "cannot be traced"),
    (lambda y: y @ jnp.ones(3), r"fails for one point, float32\[2\], with TypeError: dot_general"),
    (lambda x, y: x, "fails .* missing 1 required positional argument"),
    (dict, "is the class dict; pass an instance"),
    ("abc", "is a str; pass a function of one point"),
]


@pytest.mark.parametrize(("log_density", "message"), FUNCTIONS)
def test_every_door_takes_the_same_log_densities(log_density, message):
    with pytest.raises(ValueError, match=f"log_density {message}"):
        pid.Density(log_density, 2)
    with pytest.raises(ValueError, match=f"log_density {message}"):
        pid.fit_surrogate(jax.random.key(0), log_density, 2)


CONTROLS = [
    (lambda t, x: None, r"control returns None for one time and point, \(float32\[\], float32\[2\]\)"),
    (lambda t, x: [0.0, 0.0], "control returns"),
    (lambda t, x: x + 0j, r"control returns complex64\[2\] .*; return float32\[2\]"),
    (lambda t, x: x[0], r"control returns float32\[\]"),
    (lambda t, x: x.at[7].set(1.0), r"control reads index \(7,\)"),
    (lambda x: x, "control fails for one time and point"),
]


@pytest.mark.parametrize(("control", "message"), CONTROLS)
def test_controls_are_looked_at(control, message):
    prepared = pid.Problem(pid.GaussianMixture(jnp.zeros((1, 2)), jnp.ones(1)), pid.harmonic()).prepare(
        pid.uniform_grid(3)
    )
    with pytest.raises(ValueError, match=message):
        pid.rollout(prepared, pid.Controlled(control), jax.random.key(0), jnp.arange(2))
    with pytest.raises(ValueError, match=message.replace("control", "correction")):
        pid.rollout(prepared, pid.Euler(control), jax.random.key(0), jnp.arange(2))


COEFFICIENTS = [
    ({"beta": lambda t: 1.0 if t > 0 else 2.0}, "beta cannot be traced"),
    ({"beta": lambda t: np.sin(t)}, "beta cannot be traced"),
    ({"centre": lambda t: "a"}, "centre fails for a time"),
    ({"force": ([[1.0, 0.0], [0.0, 1.0]], jnp.eye(2))}, "the vector of force has shape"),
]


@pytest.mark.parametrize(("coefficients", "message"), COEFFICIENTS)
def test_coefficients_are_looked_at(coefficients, message):
    with pytest.raises(ValueError, match=message):
        pid.from_function(3, **coefficients)


def test_coefficients_may_be_lists_and_pairs_of_functions():
    protocol = pid.from_function(3, centre=[0.0, 1.0], force=(lambda t: t, lambda t: jnp.ones(2) * t))
    assert protocol.centre.shape == (3, 2)
    assert jnp.allclose(protocol.force.matrix, jnp.array([1, 3, 5]) / 6)


@pytest.mark.extended
@pytest.mark.slow
def test_a_log_density_is_traced_at_most_three_times():
    """In a run without gradients, the fit of its surrogate included; and not once more in another run of the same."""
    traced = []

    def log_density(y):
        traced.append(y)
        return -0.5 * jnp.sum((y - 1) ** 2)

    target = pid.Density(log_density, 2)
    pid.sample(jax.random.key(0), target, num_samples=64, num_steps=4, progress=False)
    assert len(traced) <= 3
    pid.sample(jax.random.key(1), target, num_samples=64, num_steps=4, progress=False)
    assert len(traced) <= 3
