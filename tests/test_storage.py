"""What is saved comes back: the same arrays, the same answers, from a file that holds no code."""

import json
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pidjax as pid

KEY = jax.random.key(3)
MIXTURE = pid.GaussianMixture.isotropic(jnp.array([[-1.0, 0.0], [1.0, 0.5]]), 0.3)


def ring(y):
    return -2 * (jnp.linalg.norm(y) - 1) ** 2


class Bowl(eqx.Module):
    """A log-density with arrays of its own."""

    width: jax.Array

    def __call__(self, point):
        return -0.5 * jnp.sum(point["a"] ** 2) / self.width - 0.5 * point["b"] ** 2


def solution_with_paths():
    return pid.sample(KEY, MIXTURE, num_samples=6, num_steps=3, save_paths=True)


def surrogate():
    return pid.Surrogate(pid.Density(ring, 2), MIXTURE)


def protocol():
    beta = jnp.array([[[2.0, 0.5], [0.5, 1.0]], [[0.5, -0.3], [-0.3, 3.0]]])
    force = jnp.zeros((2, 2, 2)), jnp.ones((2, 2))
    start = pid.GaussianStart(jnp.zeros(2), jnp.array(0.5))
    return pid.piecewise(beta, force=force, start=start, linear=jnp.ones((2, 2)), noise_scale=2.0)


def network():
    density = pid.Density(MIXTURE.log_density, 2)
    return pid.Controlled(pid.learning.Guided(KEY, density, pid.harmonic(0.0, noise_scale=1.0), width=4, depth=1))


def user_network():
    return pid.Euler(correction=eqx.nn.MLP(3, 2, 4, 1, key=KEY))


def decision_problem():
    model = pid.discrete.ising_glass(2)
    messages = pid.discrete.Cavity(model, pid.discrete.belief_propagation(model))
    prior = pid.discrete.Corrected(model, pid.discrete.Features(model) + messages)
    return prior, pid.discrete.Transfer(model, guide=pid.discrete.total(4, jnp.zeros(5)))


def module_on_a_pytree():
    like = {"a": jnp.zeros(2), "b": jnp.zeros(())}
    return pid.Surrogate(
        pid.Density(Bowl(jnp.array(2.0)), like), pid.GaussianMixture(jnp.zeros((1, 3)), jnp.eye(3)[None])
    )


def partial():
    return pid.Density(jax.tree_util.Partial(lambda data, y: -jnp.sum((y - data) ** 2), jnp.ones(2)), 2)


@pytest.mark.parametrize(
    ("make", "given"),
    [
        (solution_with_paths, {}),
        (surrogate, {"ring": ring}),
        (protocol, {}),
        (network, {}),
        (user_network, {}),
        (module_on_a_pytree, {"Bowl": Bowl}),
        (lambda: pid.discrete.sample(KEY, pid.discrete.ising_glass(2), num_samples=8, population=4), {}),
        (decision_problem, {}),
        (
            lambda: {"grid": pid.at_times(jnp.array([0.0, 0.3, 1.0])), "rules": [pid.Moment(), (None, 2.5, "x", True)]},
            {},
        ),
    ],
    ids=[
        "solution",
        "surrogate",
        "protocol",
        "network",
        "user network",
        "module",
        "decisions",
        "discrete",
        "containers",
    ],
)
def test_round_trip(make, given, tmp_path):
    value, path = make(), tmp_path / "value.npz"
    pid.save(path, value)
    again = pid.load(path, **given)
    assert eqx.tree_equal(value, again)
    assert jax.tree.structure(value) == jax.tree.structure(again)


@pytest.mark.slow
def test_a_solution_goes_on_where_it_was(tmp_path):
    solution = pid.sample(KEY, surrogate(), num_samples=50, num_steps=3)
    pid.save(tmp_path / "run.npz", solution)
    again = pid.load(tmp_path / "run.npz", ring=ring)
    assert repr(again) == repr(solution)
    more, same = (pid.sample(jax.random.key(1), one.target, num_samples=5, num_steps=3) for one in (solution, again))
    np.testing.assert_array_equal(more.samples, same.samples)
    exact = MIXTURE.sample(KEY, 20)
    assert again.forward_ess(KEY, exact) == solution.forward_ess(KEY, exact)


def test_a_lambda_goes_by_the_name_of_its_field(tmp_path):
    function = lambda y: -jnp.sum(y**2)  # noqa: E731
    pid.save(tmp_path / "density.npz", pid.Density(function, 2))
    with pytest.raises(ValueError, match=r"names function, which a file cannot hold; pass load\(.*function=…\)"):
        pid.load(tmp_path / "density.npz")
    assert pid.load(tmp_path / "density.npz", function=function).function is function
    partial_density = partial()
    pid.save(tmp_path / "partial.npz", partial_density)
    again = pid.load(tmp_path / "partial.npz", function=partial_density.function.func)
    assert eqx.tree_equal(again, partial_density)


def test_two_functions_of_one_name(tmp_path):
    """The second is asked for by a name of its own; one that occurs twice is asked for once."""
    pair = [lambda y: -jnp.sum(y**2), lambda y: -jnp.sum(y**4)]  # fmt: skip
    densities = [pid.Density(one, 2) for one in (*pair, pair[0])]
    pid.save(tmp_path / "pair.npz", densities)
    with pytest.raises(ValueError, match="names function, function_2, which"):
        pid.load(tmp_path / "pair.npz")
    again = pid.load(tmp_path / "pair.npz", function=pair[0], function_2=pair[1])
    assert [one.function for one in again] == [*pair, pair[0]]


def test_two_classes_of_one_name(tmp_path):
    def made(factor):
        class Cup(eqx.Module):
            depth: jax.Array

            def __call__(self, y):
                return -factor * jnp.sum(self.depth * y**2)

        return Cup

    one, other = made(1.0), made(2.0)
    cups = one(jnp.ones(())), other(jnp.ones(())), one(jnp.zeros(()))
    pid.save(tmp_path / "cups.npz", cups)
    again = pid.load(tmp_path / "cups.npz", Cup=one, Cup_2=other)
    assert [type(cup) for cup in again] == [one, other, one]


def test_what_is_given_must_fit(tmp_path):
    pid.save(tmp_path / "module.npz", module_on_a_pytree())
    for given in (ring, Bowl(jnp.ones(())), None):
        with pytest.raises(ValueError, match=r"Bowl is a .*; pass the class of this name"):
            pid.load(tmp_path / "module.npz", Bowl=given)


def test_what_is_not_named_is_not_taken(tmp_path):
    pid.save(tmp_path / "mixture.npz", MIXTURE)
    with pytest.raises(ValueError, match="does not name ring"):
        pid.load(tmp_path / "mixture.npz", ring=ring)


def test_random_keys(tmp_path):
    pid.save(tmp_path / "key.npz", {"key": KEY})
    assert pid.load(tmp_path / "key.npz")["key"] == KEY


def test_an_array_that_occurs_twice_is_kept_once(tmp_path):
    one, two = tmp_path / "one.npz", tmp_path / "two.npz"
    points = jnp.ones((500, 50))
    pid.save(one, points)
    pid.save(two, [points, points])
    assert two.stat().st_size < 1.1 * one.stat().st_size


def test_damage_is_found(tmp_path):
    path = tmp_path / "value.npz"
    pid.save(path, MIXTURE)
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
    for damaged in (b"", b"junk", whole[:-30], flipped):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="is no file of pidjax's, or is damaged"):
            pid.load(path)
    with pytest.raises(FileNotFoundError):
        pid.load(tmp_path / "missing.npz")


def test_later_formats_and_foreign_classes_are_refused(tmp_path):
    path = tmp_path / "value.npz"
    for change, message in (
        ({"version": 99}, "is of format pidjax 99"),
        ({"value": {"module": "os:system", "fields": {}}}, "a os:system, which this version"),
        (
            {"value": {"module": "pidjax.sampling.sample:sample", "fields": {}}},
            "pidjax.sampling.sample:sample, which this version",
        ),
        ({"value": {"module": "pidjax.nowhere:Thing", "fields": {}}}, "does not fit this version"),
        ({"value": {"array": 3, "dtype": "float32", "on": "host"}}, "does not fit this version"),
        ({"version": "1"}, "is of format pidjax 1"),
    ):
        header = {"format": "pidjax", "version": 1, "library": "", "holds": "", "value": None} | change
        with path.open("wb") as file:
            np.savez(file, header=np.frombuffer(json.dumps(header).encode(), np.uint8))
        with pytest.raises(ValueError, match=message):
            pid.load(path)


def test_what_cannot_be_stored_is_named(tmp_path):
    with pytest.raises(TypeError, match="value is a set, which cannot be stored"):
        pid.save(tmp_path / "value.npz", {1, 2})


class Dish(eqx.Module):
    """Another module than `Bowl`."""

    depth: jax.Array


Place = NamedTuple("Place", [("x", float), ("y", float)])  # noqa: UP014
Range = NamedTuple("Range", [("low", float), ("high", float)])  # noqa: UP014


@pytest.mark.parametrize(
    ("value", "given", "message"),
    [
        (Bowl(jnp.ones(())), {"Bowl": Dish}, "Dish has the fields depth but what was saved has width"),
        (Bowl(jnp.ones(())), {"Bowl": dict}, "Bowl is the class dict, no Module"),
        (Place(0.0, 1.0), {"Place": Range}, "Range has the fields low, high but what was saved has x, y"),
        (Place(0.0, 1.0), {"Place": Dish}, "Place is the class Dish, no tuple"),
    ],
)
def test_a_class_of_other_fields_is_refused(value, given, message, tmp_path):
    pid.save(tmp_path / "value.npz", value)
    with pytest.raises(ValueError, match=message):
        pid.load(tmp_path / "value.npz", **given)
    assert pid.load(tmp_path / "value.npz", **{type(value).__name__: type(value)}) == value


def test_what_is_traced_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="save takes numbers, which"):
        jax.jit(lambda x: pid.save(tmp_path / "value.npz", {"x": x}))(jnp.ones(2))
    assert not list(tmp_path.iterdir())


def test_a_log_density_of_another_point_is_refused(tmp_path):
    pid.save(tmp_path / "value.npz", pid.Density(ring, 2))
    with pytest.raises(ValueError, match=r"log_density reads index \(2,\)"):
        pid.load(tmp_path / "value.npz", ring=lambda y: y[2])


def test_graphs_are_stored(tmp_path):
    transfer = pid.discrete.Transfer(pid.discrete.ising_glass(2))
    pid.save(tmp_path / "value.npz", transfer)
    assert pid.load(tmp_path / "value.npz").model.graph == transfer.model.graph
