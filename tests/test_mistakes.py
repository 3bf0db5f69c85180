"""What goes wrong in the rooms around the sampler is said at the door, as a user meets it: which argument, found, wanted."""

import functools
import importlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pidjax as pid
from pidjax import diagnostics, exact, guides, learning, metrics, plot, zoo
from pidjax.guides import lines as guidance
from pidjax.guides import mean_field

pytestmark = pytest.mark.usefixtures("as_users_have_it")


def key():
    return jax.random.key(0)


def line():
    return pid.GaussianMixture.isotropic([[-1.0], [1.0]], 0.3)


def plane():
    return pid.GaussianMixture.isotropic([[-1.0, 0.0], [1.0, 1.0]], 0.3)


def turned():
    """Another mixture than `plane`, of the same mean and spread."""
    return pid.GaussianMixture.isotropic([[-1.0, 1.0], [1.0, 0.0]], 0.3)


def several():
    """Two mixtures, where one is wanted."""
    return jax.vmap(lambda means: pid.GaussianMixture.isotropic(means, 0.3))(jnp.zeros((2, 2, 2)))


def data():
    return pid.Samples(jnp.array([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]]))


def brownian(beta=1.0, **options):
    return pid.harmonic(beta, **{"noise_scale": 1.0} | options)


def guide(**options):
    return brownian(**{"centre": jnp.zeros(2)} | options)


@functools.cache
def solution():
    return pid.sample(key(), plane(), protocol=brownian(), num_samples=8, num_steps=4, save_paths=True)


@functools.cache
def paths():
    return diagnostics.ensemble(solution())


def classes():
    return jnp.full((8, 5, 2), 0.5)


def points():
    return jnp.arange(8.0).reshape(4, 2)


def vector(x):
    return x


def nan(x):
    return jnp.nan * x[0]


def square(x):
    return -jnp.sum(x**2)


def exits(*arguments, key=None, of=None, draw=None):
    one, draw = solution() if of is None else of, draw or plane().sample
    return diagnostics.early_exit(jax.random.key(0) if key is None else key, one, draw, *arguments)


METRICS = [
    (lambda: metrics.ess("abc"), "log_weights is a str"),
    (lambda: metrics.ess(jnp.array([1 + 1j])), "log_weights holds complex"),
    (lambda: metrics.log_z_error(jnp.zeros(3), jnp.nan), "truth holds 1 non-finite"),
    (lambda: metrics.fraction_within(points(), points(), -1.0), "standard_deviations holds -1"),
    (lambda: metrics.fraction_within(points(), points(), 0.0), "standard_deviations holds 0"),
    (lambda: metrics.fraction_within(points(), points(), 1.0, radius=jnp.nan), "radius holds 1 non-finite"),
    (lambda: metrics.fraction_within(points(), points(), 1.0, radius=-1.0), "radius is -1"),
    (lambda: metrics.fraction_within(points(), points()[:0], 1.0), r"centres has shape \(0, 2\)"),
    (lambda: metrics.mode_total_variation(points(), metrics.nearest(points()), [1, 1, 1, -1]), "minimum -1"),
    (lambda: metrics.mode_shares(points(), lambda x: x[0]), r"assignment returns shape \(\)"),
    (lambda: metrics.mode_shares(points(), lambda x: jnp.ones(2)), "shares that sum to 2"),
    (lambda: metrics.mode_shares(points(), metrics.nearest(jnp.zeros((2, 3)))), "the centres have dimension 3"),
    (lambda: metrics.mmd_squared(points(), points(), bandwidth=-1.0), "bandwidth is -1"),
    (lambda: metrics.mmd_squared(points(), points(), bandwidth=0.0), "bandwidth is 0"),
    (lambda: metrics.mmd_squared(points(), jnp.ones((4, 2))), "bandwidth is by default .* which is 0"),
    (lambda: metrics.mmd_squared(points(), points(), [0.0, *[-jnp.inf] * 3]), "leave one sample"),
    (lambda: metrics.mmd_squared(points(), points(), chunk_size=0), "chunk_size is 0"),
    (lambda: metrics.sinkhorn_divergence(points(), points(), jnp.inf), "epsilon holds 1 non-finite"),
    (lambda: metrics.sinkhorn_divergence(points(), points(), 1.0, max_iterations=1e4), "max_iterations is 10000.0"),
    (lambda: metrics.energy_ks(points(), points(), nan), "log_density is NaN at 4 of 4"),
    (lambda: metrics.energy_ks(points(), points(), points()), "log_density is a .*; pass a function"),
    (lambda: metrics.cross_entropy(points(), vector), r"log_density returns float32\[2\]"),
    (lambda: metrics.cross_entropy(points(), zoo.funnel().log_density), "log_density fails for one point"),
    (lambda: metrics.sliced_ks(points(), points(), 0), "key is 0"),
    (lambda: metrics.sliced_ks(points(), points(), key(), num_projections=0), "num_projections is 0"),
    (lambda: metrics.floor(metrics.mmd_squared, plane().sample, key(), 4, reference_n=0), "reference_n is 0"),
    (lambda: metrics.floor(metrics.mmd_squared, plane(), key(), 4), "draw is a GaussianMixture"),
    (lambda: metrics.floor(metrics.mmd_squared, lambda key, n: points(), key(), 3), r"draw returns shape \(4, 2\)"),
    (lambda: metrics.floor(metrics.mmd_squared, lambda key, n: 1.0, key(), 3), r"draw returns shape \(\)"),
    (lambda: metrics.floor(metrics.mmd_squared, lambda key: points(), key(), 3), "draw fails for a key, .*TypeError"),
    (lambda: metrics.floor(vector, plane().sample, key(), 3), "metric fails for two sets of points, .*TypeError"),
    (lambda: metrics.floor(lambda x, y: x[0, 9], plane().sample, key(), 3), r"metric reads index \(0, 9\)"),
    (lambda: metrics.floor(lambda x, y: None, plane().sample, key(), 3), "metric returns None"),
    (lambda: metrics.floor(lambda x, y: x[0], plane().sample, key(), 3), r"metric returns shape \(2,\)"),
    (lambda: jax.jit(metrics.wasserstein2)(points(), points()), "wasserstein2 takes numbers"),
    (lambda: jax.vmap(metrics.sinkhorn_divergence, (0, None, None))(points()[None], points(), 1.0), "takes numbers"),
]

DIAGNOSTICS = [
    (lambda: diagnostics.ensemble(None), "solution is a NoneType; pass one from pidjax.sample"),
    (lambda: diagnostics.autocorrelations(solution()), "paths is a Solution; pass pidjax.diagnostics.ensemble"),
    (lambda: diagnostics.average(jnp.zeros(3), jnp.zeros(4)), r"values have shape \(3,\); pass the 4 paths"),
    (lambda: diagnostics.average(jnp.zeros(3), jnp.full(3, -jnp.inf)), "log_weights are all -inf"),
    (
        lambda: diagnostics.average(jnp.zeros(3), jnp.zeros(3), lambda mean: (mean,)),
        r"function returns \(float32\[\]\)",
    ),
    (
        lambda: diagnostics.average(jnp.zeros((3, 2)), jnp.zeros(3), lambda mean: mean[5]),
        r"function reads index \(5,\)",
    ),
    (lambda: diagnostics.average(jnp.zeros(3), jnp.zeros(3), lambda: 0), "function fails for the mean of the values"),
    (lambda: paths().given_end(lambda x: x[0] > 1e6), "region holds the ends of 0 of 8 paths"),
    (lambda: paths().given_end(lambda x: x > 0), r"region returns bool\[2\]"),
    (lambda: paths().given_end(lambda x: x[0]), r"region returns float32\[\]"),
    (
        lambda: paths().given_end(diagnostics.ball(jnp.zeros(1), 9.0)),
        r"region fails for one point.* but the ball's centre \(1,\)",
    ),
    (lambda: diagnostics.path_costs(paths(), brownian(5.0)), "another potential, force or gauge"),
    (lambda: diagnostics.path_costs(paths(), brownian(noise_scale=2.0)), "another scale"),
    (lambda: diagnostics.path_costs(paths(), brownian(horizon=2.0)), "another horizon"),
    (lambda: diagnostics.path_costs(paths(), brownian(start=jnp.ones(2))), "another start"),
    (lambda: diagnostics.path_costs(paths(), 1.0), "protocol is a float"),
    (lambda: diagnostics.sensitivity(line(), brownian(), paths()), "target has dimension 1"),
    (lambda: diagnostics.sensitivity(plane(), pid.harmonic(), paths()), "target and protocol have another scale"),
    (lambda: diagnostics.class_probabilities(plane(), brownian(5.0), paths()), "another potential"),
    (lambda: diagnostics.class_probabilities(line(), brownian(), paths()), "target has dimension 1"),
    (lambda: diagnostics.class_probabilities(data(), brownian(), paths()), "target has no labels; pass Samples"),
    (lambda: diagnostics.predicted_class_probabilities(line(), paths()), "target has dimension 1"),
    (lambda: diagnostics.class_probabilities(turned(), brownian(), paths()), "target is another mixture"),
    (lambda: diagnostics.predicted_class_probabilities(turned(), paths()), "target is another mixture"),
    (lambda: diagnostics.sensitivity(turned(), brownian(), paths()), "target is another mixture"),
    (lambda: diagnostics.responsibilities(plane(), [1e30, 0.0]), "responsibilities is NaN for y so far off"),
    (lambda: diagnostics.path_cross_entropies(paths(), nan), "log_density, or its gradient, is NaN on the paths"),
    (lambda: diagnostics.langevin_mismatch(paths(), nan), "log_density, or its gradient, is NaN on the paths"),
    (lambda: diagnostics.decisions(paths(), classes(), diagnostics.Reliability(window=-1.0)), "window is -1"),
    (lambda: diagnostics.decisions(paths(), classes(), diagnostics.Reliability(confidence=2.0)), "confidence is 2"),
    (lambda: diagnostics.is_reliable(0.0, [[1.0]]), r"times has shape \(\)"),
    (lambda: diagnostics.responsibilities(plane(), jnp.zeros(1)), r"y has shape \(1,\)"),
    (lambda: diagnostics.decisions(paths(), classes()[:, :-1]), r"probabilities has shape \(8, 4, 2\)"),
    (lambda: diagnostics.decisions(paths(), 3 * classes()), "probabilities sum to 3"),
    (lambda: diagnostics.decisions(paths(), classes(), 0.9), "reliability is 0.9"),
    (lambda: diagnostics.is_reliable(-jnp.arange(5.0), classes()[0]), "times is .* increasing"),
    (lambda: diagnostics.ball(jnp.zeros(2), -1.0), "radius is -1"),
    (lambda: diagnostics.ball(1.0, jnp.zeros(2)), r"radius has shape \(2,\)"),
    (lambda: diagnostics.tail(square, points(), 2.0), "mass is 2"),
    (lambda: diagnostics.tail(square, points()[:0], 0.1), r"exact has shape \(0, 2\)"),
    (lambda: diagnostics.tail(nan, points(), 0.1), "log_density is NaN"),
    (lambda: exits([99], 4), r"steps is \[99\]; pass steps between 0 and 4"),
    (lambda: exits([0.5], 4), r"steps is \[0.5\]"),
    (lambda: exits([0], 4, draw=lambda key: points()), "draw fails for a key"),
    (lambda: exits([0], 9), "num_points is 9; pass at most the 8 paths"),
    (lambda: exits([0], 4, key=0), "key is 0"),
    (lambda: exits([0], 4, of=paths()), "solution is a Ensemble"),
    (lambda: diagnostics.path_cross_entropies(paths(), vector), r"log_density returns float32\[2\]"),
    (lambda: diagnostics.langevin_mismatch(paths(), None), "log_density is a NoneType"),
    (lambda: pid.Problem(plane(), brownian()).at(1.0, jnp.zeros(2)).control_jacobian, "t is the horizon"),
]

EXACT = [
    (lambda: exact.expectation(plane(), lambda x: x[2]), r"function reads index \(2,\)"),
    (lambda: exact.expectation(plane(), lambda x: (x, x)), r"function returns \(float32\[2\], float32\[2\]\)"),
    (lambda: exact.expectation(several(), square), r"mixture is a batch of shape \(2,\)"),
    (lambda: exact.marginal(several(), brownian(), 0.5), r"mixture is a batch of shape \(2,\)"),
    (lambda: exact.marginal(plane(), jax.vmap(brownian)(jnp.ones(2)), 0.5), r"protocol is a batch of shape \(2,\)"),
    (lambda: several().log_density(jnp.zeros(2)), r"mixture is a batch of shape \(2,\)"),
    (lambda: several().sample(key(), 3), r"mixture is a batch of shape \(2,\)"),
    (lambda: exact.lattice(20, 10), r"10\^20 points"),
    (lambda: exact.lattice(2, 10, "float16"), "dtype is float16; pass float32 or float64"),
    (lambda: exact.marginal(plane(), 1.0, 0.5), "protocol is a float"),
    (lambda: exact.marginal(plane(), brownian(), 0.0), "t is 0"),
    (lambda: exact.marginal(plane(), brownian(), jnp.ones(2)), r"t has shape \(2,\)"),
    (lambda: exact.marginal(plane(), brownian(), 0.5, starts=jnp.zeros(2)), "starts is a .*; pass a GaussianMixture"),
    (lambda: exact.marginals(plane(), brownian(), 0.5), r"times has shape \(\)"),
    (lambda: exact.score(plane(), brownian(), 0.5, 3), r"x has shape \(\); pass one point of shape \(2,\)"),
    (lambda: exact.score(plane(), brownian(), 0.5, points()), r"x has shape \(4, 2\)"),
    (lambda: exact.score(plane(), brownian(), 0.5, jnp.zeros(1)), r"x has shape \(1,\)"),
    (lambda: exact.transition_time([1.0, 0.5, 0.0], [0.0, 0.4, 1.0]), "times is .* increasing"),
    (lambda: exact.transition_time([0.0, 0.5, 1.0], [0.0, 1.0]), r"curve \(2,\)"),
    (lambda: exact.transition_time([0.0, 1.0], [0.0, jnp.nan]), "curve holds 1 non-finite"),
    (lambda: exact.costs(plane(), brownian(), until=2.0), "until is 2"),
    (lambda: exact.costs(plane(), brownian(), entropy=jnp.nan), "entropy holds 1 non-finite"),
    (lambda: exact.costs(data(), brownian(), until=1.0), r"until is 1; pass a time in \(0, 1\)"),
    (lambda: exact.costs(plane(), brownian(), nodes=exact.lattice(1, 9)), r"nodes have points of shape \(1,\)"),
    (lambda: exact.expectation(plane(), square, exact.lattice(1, 9)), r"nodes have points of shape \(1,\)"),
    (lambda: exact.expectation(data(), square), "mixture is a Samples"),
    (lambda: exact.quadratic_cost(plane(), brownian(), jnp.ones((1, 3)), jnp.zeros((1, 2))), "stiffness has shape"),
    (
        lambda: exact.quadratic_cost(plane(), brownian(), jnp.array([[[1.0, 1.0], [0.0, 1.0]]]), jnp.zeros((1, 2))),
        r"stiffness\[0\] is not symmetric",
    ),
    (
        lambda: guides.corridor_loss(
            plane(), brownian(), guides.Corridor(jnp.array([0.5]), jnp.zeros((1, 3)), jnp.ones((1, 3, 3)))
        ),
        r"centres has shape \(1, 3\); pass shape \(1, 2\)",
    ),
    (lambda: exact.lattice(2, 5.0), "per_axis is 5.0"),
    (lambda: exact.lattice(1, 5, int), "dtype is"),
    (lambda: exact.sobol(2, 0), "count is 0"),
    (lambda: exact.sobol(2, 7), "count is 7; pass a power of two"),
    (lambda: exact.default_nodes(0), "dim is 0"),
]

LEARN = [
    (
        lambda: learning.only(lambda protocol: protocol.force, brownian()),
        "where selects None: this Protocol has no .*force",
    ),
    (lambda: learning.only(brownian(), lambda protocol: protocol.beta), "where is a Protocol"),
    (lambda: learning.positive(3.0), "protocol is a float"),
    (lambda: learning.Positive.of(jnp.ones((1, 2, 3))), r"value has shape \(1, 2, 3\)"),
    (lambda: learning.Positive.of(jnp.array([jnp.inf])), "value holds 1 non-finite"),
    (lambda: learning.refined(brownian(), 1.5), "factor is 1.5"),
    (lambda: learning.descend(jnp.ones(2), square), "loss is a"),
    (lambda: learning.descend(vector, jnp.ones(2)), r"loss returns float32\[2\]; return one floating scalar"),
    (lambda: learning.descend(square, jnp.ones(2), key=key()), r"loss fails .*takes 1 positional argument but 2"),
    (
        lambda: learning.descend(lambda y: y[0] + y[2], jnp.ones(2)),
        r"loss reads index \(2,\) of an array of shape \(2,\)",
    ),
    (lambda: learning.descend(lambda y: float(y[0]), jnp.ones(2)), "loss cannot be traced"),
    (lambda: learning.descend(lambda y: jnp.sum(jnp.ones(2)), jnp.ones(2)), "loss has no slope .* exactly zero"),
    (lambda: learning.descend(lambda y, state: square(y), jnp.ones(2), state=jnp.ones(3)), r"return \(value, state\)"),
    (lambda: learning.descend(lambda y, s: (square(y), y), jnp.ones(2), state=jnp.ones(3)), r"and float32\[3\]"),
    (lambda: learning.descend_refining(square, brownian(), refine=2), "refine is a int"),
    (lambda: learning.descend(square, 1.0), "parameters holds nothing to learn.*a number is none"),
    (lambda: learning.descend(square, jnp.ones(2, complex)), "parameters holds complex"),
    (lambda: learning.descend(square, jnp.ones(2), optimiser=0.1), "optimiser is a float"),
    (lambda: learning.descend(square, jnp.ones(2), average=1.0), "average is 1.0; pass a decay between 0 and 1"),
    (lambda: learning.descend(square, jnp.ones(2), average="slow"), "average is 'slow'"),
    (lambda: learning.descend(square, jnp.ones(2), report_every=0), "report_every is 0"),
    (lambda: learning.descend(square, jnp.ones(2), report=3.0), "report is a float"),
    (lambda: learning.descend(square, jnp.ones(2), report=square), r"report returns float32\[\]; return a dictionary"),
    (lambda: learning.descend(square, jnp.ones(2), report=lambda y: {}), "report returns {}; return a dictionary"),
    (lambda: learning.descend(square, jnp.ones(2), report=lambda y: {"y": y}), r"{'y': float32\[2\]}; return"),
    (lambda: learning.descend(square, jnp.ones(2), report=lambda y: {"iteration": 1.0}), "called iteration"),
    (lambda: learning.descend(square, jnp.ones(2), report=lambda y: {"y": float(y[0])}), "report cannot be traced"),
    (lambda: learning.descend(square, jnp.ones(2), report=lambda y, key: {}), "report fails .*missing 1 required"),
    (lambda: learning.adam(-1.0), "learning_rate is -1"),
    (lambda: learning.descend_refining(square, jnp.ones(2)), "protocol is a"),
    (lambda: learning.sharpness(plane(), brownian(), late_penalty=-1.0), "late_penalty is -1"),
    (lambda: learning.sharpness(plane(), brownian(), nodes=exact.lattice(1, 5)), "nodes have points"),
    (lambda: learning.control_gradient(plane(), brownian(), window=(0.9, 0.1)), "window is"),
    (lambda: learning.control_gradient(plane(), brownian(), num_times=1), "num_times is 1"),
    (lambda: learning.energy(data(), brownian()), "target is a Samples, which has no density"),
    (lambda: learning.energy(plane(), brownian(), num_times=0), "num_times is 0"),
    (lambda: guides.product_of_experts([plane(), line()], [1, 1]), r"dimensions \[2, 1\]"),
    (lambda: guides.product_of_experts([plane(), data()], [1, 1]), "experts holds a Samples"),
    (lambda: guides.product_of_experts([plane()], [40]), "which makes 1099511627776 components"),
    (lambda: guides.product_of_experts(plane(), 1), "experts is a GaussianMixture; pass a list"),
    (lambda: guides.fuse_protocols([guide(), guide(horizon=2.0)], [1, 1]), "protocols differ in edges"),
    (lambda: guides.fuse_protocols([guide(), guide(noise_scale=2.0)], [1, 1]), "protocols differ in noise_scale"),
    (lambda: guides.fuse_protocols([guide(), guide(force=(0.0, jnp.ones(2)))], [1, 1]), "protocols differ in force"),
    (lambda: guides.fuse_protocols([guide(), guide()], [1, -1]), "the sum of the stiffnesses has no inverse"),
    (lambda: guidance.straight(jnp.zeros(2), jnp.zeros(3)), r"end \(3,\)"),
    (lambda: guidance.bend(jnp.zeros(2), jnp.zeros(2), 0.5), "start and end are both"),
    (lambda: guidance.bend(jnp.zeros(3), jnp.ones(3), 0.5), "dimension 3"),
    (lambda: guidance.bend(jnp.zeros(2), jnp.ones(2), 0.5, bumps=1.5), "bumps is 1.5"),
    (lambda: guides.v_neck(jnp.zeros(2), jnp.ones(2), width=0.0), "width is 0"),
    (lambda: guides.following_cost(plane(), brownian(), jnp.zeros(2)), r"line has shape \(2,\)"),
    (lambda: guides.following_cost(plane(), brownian(), jnp.zeros((1, 2)), effort=-1.0), "effort is -1"),
    (lambda: mean_field.mean_field(line(), plane(), jnp.ones(1), num_pieces=2), "starts has dimension 1"),
    (lambda: guides.mean_field_energy(line(), plane(), jnp.ones(1)), "starts has dimension 1"),
    (lambda: guides.mean_field_energy(plane(), plane(), 1.0), r"beta has shape \(\)"),
]

ZOO = [
    (lambda: zoo.funnel(dim=2.5), "dim is 2.5"),
    (lambda: zoo.gmm40(int), "dtype is"),
    (lambda: zoo.nine("foo"), "dtype is 'foo'"),
    (lambda: zoo.funnel(jnp.ones(2)), r"scale has shape \(2,\)"),
    (lambda: zoo.funnel().log_density(jnp.full(10, jnp.nan)), "y holds 10 non-finite"),
    (lambda: zoo.nine().log_density(jnp.zeros(2) + 0j), "y holds complex"),
    (lambda: pid.Density(square, 2, dtype="foo"), "dtype is 'foo'"),
    (lambda: pid.fit_surrogate(key(), square, 2, dtype="float16"), "dtype is float16"),
    (lambda: pid.Density(square, 2).log_density(jnp.zeros(1)), r"y has shape \(1,\); pass one point of shape \(2,\)"),
    (lambda: pid.Surrogate(pid.Density(square, 2), plane()).log_correction([0.0]), r"y has shape \(1,\)"),
    (lambda: pid.Pool.draw(key(), pid.Density(square, 2), plane(), 2), "points has 2 points in dimension 2"),
    (
        lambda: brownian(force=(jnp.ones(3), jnp.ones(2))),
        "the vector of force has .* the matrix of force has dimension 3",
    ),
    (lambda: brownian(start=np.float32(0)), r"start has shape \(\)"),
    (lambda: zoo.nine().sample(0, 4), "key is 0"),
    (lambda: zoo.funnel().sample(key(), -1), "num_samples is -1"),
    (lambda: zoo.nine().responsibilities(jnp.zeros(3)), r"y has shape \(3,\)"),
    (lambda: zoo.funnel().log_density(jnp.zeros(3)), r"y has shape \(3,\); pass one point of shape \(10,\)"),
]


def evolution(states, times, exact=None, weighted=None):
    row = plot.Evolution("a", states, states if weighted is None else weighted)
    return plot.evolution([row], times, np.ones((9, 2)) if exact is None else exact)


def bundles(density, times, lines=()):
    bundle = plot.Bundle("a", np.zeros((4, 3, 2)), density, {name: np.zeros((3, 2)) for name in lines})
    return plot.bundles([bundle], np.linspace(-3, 3, 5), np.linspace(-3, 3, 7), times)


def cost(*mark, method="a"):
    return plot.quality_cost({"nine": {method: mark}}, ["a"], xlabel="", ylabel="")


PLOT = [
    (lambda: evolution(np.zeros((3, 5, 2)), [0.5]), r"states has shape \(3, 5, 2\); pass shape \(1, n, 2\)"),
    (lambda: evolution(np.zeros((1, 5, 2)), [0.5], weighted=np.zeros((1, 4, 2))), "weighted_states has shape"),
    (lambda: evolution(np.zeros((1, 5, 2)), [0.5], exact=np.zeros((0, 2))), r"exact has shape \(0, 2\)"),
    (lambda: plot.evolution([], [0.5], np.ones((9, 2))), "rows is empty"),
    (lambda: plot.space_time(np.arange(3), np.zeros((4, 3)), np.zeros((4, 3)), np.zeros(8)), "paths has shape"),
    (lambda: plot.space_time(np.arange(3), *[np.zeros((3, 4))] * 2, np.zeros(8), drawn=-1), "drawn is -1"),
    (lambda: bundles(np.ones((1, 5, 7)), [0.5]), r"density has shape \(1, 5, 7\); pass shape \(1, 7, 5\)"),
    (lambda: bundles(np.ones((3, 7, 5)), [0.5]), r"density has shape \(3, 7, 5\); pass shape \(1, 7, 5\)"),
    (lambda: bundles(np.ones((1, 7, 5)), [0.5], lines="abcde"), "lines has 5 entries"),
    (
        lambda: plot.convergence([plot.Panel("", "", "", {"a": plot.Curve(np.ones(3), *[np.ones(2)] * 3)})]),
        "middle of 'a' has shape",
    ),
    (lambda: plot.convergence(5), "panels is a int; pass a list of Panel"),
    (lambda: plot.evolution(["a"], [0.5], np.ones((3, 2))), r"rows\[0\] is a str; pass one Evolution"),
    (lambda: plot.quality_cost(5, ["a"], xlabel="", ylabel=""), "points is a int"),
    (lambda: cost(1.0, 2.0, method="b"), "points has the method 'b'"),
    (lambda: cost(1.0, 2.0, 3.0), "the mark of 'a' has shape"),
]

ROOMS = {"metrics": METRICS, "diagnostics": DIAGNOSTICS, "exact": EXACT, "learn": LEARN, "zoo": ZOO, "plot": PLOT}


@pytest.mark.parametrize(
    ("call", "message"),
    [pytest.param(*case, id=f"{room}-{i}") for room, cases in ROOMS.items() for i, case in enumerate(cases)],
)
def test_mistakes(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: metrics.mmd_squared(points(), points() + 1, chunk_size=np.int64(3)),
        lambda: metrics.sliced_ks(points(), points(), key(), num_projections=np.int64(2)),
        lambda: metrics.mode_total_variation(points(), metrics.nearest(points()), [5, 5, 5, 5]),
        lambda: metrics.wasserstein2(1e25 * points(), 1e25 * (points() + 1)),
        lambda: diagnostics.average(np.arange(3) > 1, [0.0, 0.0, 0.0]).value,
        lambda: exact.score(plane(), brownian(), 0.5, [0, 0]),
        lambda: exact.correlation(plane(), brownian(), [0.25, 0.5]),
        lambda: exact.transition_time([0, 1, 2], [0, 0.4, 1]),
        lambda: exact.sobol(np.int64(2), np.int64(8)).points,
        lambda: guides.product_of_experts([line(), line()], np.array([1, 1])).means,
        lambda: guidance.bend([0, 0], [1, 1], 0.5, np.int64(2))(jnp.array(0.5)),
        lambda: zoo.funnel(dim=np.int64(3)).sample(key(), np.int64(2)),
        lambda: zoo.nine().log_density([0, 1]),
        lambda: pid.Density(square, 2).log_density([0.0, 1.0]),
        lambda: brownian(start=(0.0, 0.0)).start,
        lambda: diagnostics.is_reliable([0.0, 0.5, 1.0], [[0.5, 0.5], [0.9, 0.1], [0.9, 0.1]]),
        lambda: metrics.floor(metrics.wasserstein2, plane().sample, key(), 4).mean,
    ],
)
def test_what_is_meant_is_accepted(call):
    assert jnp.isfinite(call()).all()


def test_only_a_concrete_value_is_checked():
    """Under a transformation everything passes, and the derivative is there."""

    def of(stiffness, radius, curve):
        protocol = brownian(stiffness)
        ensemble = paths().given_end(diagnostics.ball(jnp.zeros(2), radius))
        cost = diagnostics.path_costs(ensemble, protocol).potential.value[-1]
        return cost + exact.transition_time(jnp.array([0.0, 1.0]), curve)

    paths()
    value, slope = jax.jit(jax.value_and_grad(of))(2.0, 9.0, jnp.array([0.0, 1.0]))
    assert jnp.isfinite(value)
    assert slope > 0


def test_sinkhorn_below_the_resolution_of_its_numbers():
    """Converged by its own account, at −∞."""
    with pytest.raises(RuntimeError, match="pass a larger epsilon"):
        metrics.sinkhorn_divergence(plane().sample(key(), 20), points(), epsilon=1e-9, max_iterations=200)


def test_a_missing_matplotlib_is_named(monkeypatch):
    def missing(module, *arguments):
        raise ImportError(module)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ImportError, match=r"pidjax.plot needs matplotlib; install it with pip install pidjax\[plot\]"):
        evolution(np.zeros((1, 5, 2)), [0.5])


VALUES = [
    ("paths=8, times=5, dim=2, horizon=1", paths),
    ("value=float32[2, 5]", lambda: diagnostics.average(jnp.zeros((8, 2, 5)), jnp.zeros(8))),
    ("mean_time=Estimate", lambda: diagnostics.decisions(paths(), classes())),
    ("Nodes(points=float32[", lambda: exact.lattice(2, 9)),
    ("Corridor(times=[0.5], dim=1)", lambda: guides.Corridor(jnp.full(1, 0.5), jnp.ones((1, 1)), jnp.ones((1, 1, 1)))),
    ("Positive(value=float32[1, 2, 2])", lambda: learning.Positive.of(jnp.eye(2)[None])),
    ("Fixed(value=[1, 2])", lambda: learning.Fixed(jnp.array([1.0, 2.0]))),
    ("noise_scale=Fixed(value=1)", lambda: learning.only(lambda one: one.beta, learning.positive(brownian()))),
    ("iterations=3", lambda: learning.descend(lambda x: jnp.sum(x**2), jnp.ones(50), num_iterations=3)),
    ("called=nine, dim=2", zoo.nine),
    ("Curve(x=[0, 1, 2, 3, …]", lambda: plot.Curve(*[np.arange(9.0)] * 4)),
]


@pytest.mark.parametrize("make", [plane, data, brownian])
def test_shapes_alone_can_be_read(make):
    assert "float32" in repr(jax.eval_shape(make))


@pytest.mark.parametrize(("part", "make"), VALUES, ids=[part for part, _ in VALUES])
def test_values_read_in_a_line(part, make):
    """Of what is traced the shapes are shown."""
    value, texts = make(), []
    arrays, others = eqx.partition(value, eqx.is_array)
    jax.eval_shape(lambda arrays: texts.append(repr(eqx.combine(arrays, others))), arrays)
    assert part in repr(value)
    for text in (repr(value), *texts):
        assert "\n" not in text
        assert "Array(" not in text
        assert len(text) < 400


def density(dim=2):
    return pid.Density(square, dim)


def trained(**options):
    rule = pid.Controlled(learning.Guided(key(), density(), brownian(0.0), width=4, depth=1))
    arguments = {
        "key": key(),
        "rule": rule,
        "grid": pid.uniform_grid(2),
        "num_iterations": 2,
        "batch_size": 3,
    } | options
    return learning.fit(arguments.pop("key"), density(), arguments.pop("rule"), protocol=brownian(0.0), **arguments)


def amortised(target=lambda c: density(), rule=lambda parameters, c: pid.Ancestral(), context=jax.random.normal):
    return learning.Amortised(target, rule, context, protocol=brownian(0.0), grid=pid.uniform_grid(2))


def corrected(*arguments, **options):
    rule = pid.Euler(correction=learning.Network(key(), *arguments, width=4, **options))
    return pid.sample(key(), plane(), rule=rule, num_samples=3, num_steps=2)


class Shapeless(learning.AbstractLoss):
    def __call__(self, prepared, rule, key, indices, state):
        return prepared.unit.start, state


def loss(indices, of=None):
    of = learning.RelativeEntropy() if of is None else of
    return of(pid.Problem(plane(), brownian()).prepare(pid.uniform_grid(2)), pid.Moment(), key(), indices, ())


NEURAL = [
    (lambda: learning.brownian(key(), "x"), "target is a str"),
    (lambda: learning.brownian(density(), key()), "key is Density.*; pass one typed key"),
    (lambda: learning.brownian(key(), pid.Density(nan, 2)), "log_density was finite at none of the points"),
    (lambda: learning.brownian(key(), pid.Density(lambda y: -jnp.inf * y[0] ** 2, 2)), "finite at none of the points"),
    (lambda: learning.brownian(key(), density(), horizon="x"), "horizon is 'x'"),
    (lambda: learning.brownian(key(), density(), start=[1.0]), r"start has shape \(1,\)"),
    (lambda: learning.adam(decay="a"), "decay is 'a'"),
    (lambda: learning.adam(decay=jnp.nan), "decay is nan"),
    (lambda: learning.adam(clip=0.0), "clip is 0"),
    (lambda: learning.adam(jnp.nan), "learning_rate holds 1 non-finite"),
    (lambda: learning.adam("abc"), "learning_rate is 'abc'"),
    (lambda: learning.Network(key(), 2, dtype="float16"), "dtype is float16; pass float32 or float64"),
    (lambda: learning.Network(key(), 2)([0.5], [1.0, 1.0]), r"t has shape \(1,\)"),
    (lambda: learning.Guided(key(), density(), brownian(0.0), clip="a"), "clip is a str; pass a number > 0"),
    (lambda: learning.Guided(density(), key(), brownian(0.0)), "key is Density"),
    (lambda: trained(optimiser="adam"), "optimiser is a str; pass one from optax"),
    (lambda: trained(loss=lambda prepared, rule: 0.0), r"loss is a function; pass RelativeEntropy\(\)"),
    (lambda: trained(loss=Shapeless()), r"loss returns \(float32\[2\], .*return \(value, state\)"),
    (lambda: trained(report_every=1, ends=jnp.zeros((2, 2))), r"ends has shape \(2, 2\); pass 3 samples"),
    (lambda: learning.Regression(), "no buffer is given; pass Buffer.of"),
    (lambda: learning.Regression(jnp.zeros((3, 2))), "buffer is .*pass a Buffer"),
    (
        lambda: learning.Regression(learning.Buffer(jnp.zeros((3, 2))), variance=-1.0),
        "variance is -1; pass a number >= 0",
    ),
    (lambda: learning.Refresh(0, 3), "every is 0; pass an integer >= 1"),
    (lambda: learning.Refresh(3, 3, power=2.0), r"power is 2; pass a number in \[0, 1\]"),
    (lambda: learning.Buffer(jnp.zeros(3)), r"ends has shape \(3,\)"),
    (lambda: learning.Buffer(jnp.full((2, 1), jnp.nan)), "ends holds 2 non-finite|not finite; leave them out"),
    (lambda: learning.Buffer(jnp.zeros((2, 1)), jnp.zeros(3)), r"log_weights has shape \(3,\) but ends \(2, 1\)"),
    (lambda: learning.Buffer(jnp.zeros((2, 1)), jnp.full(2, -jnp.inf)), "log_weights"),
    (lambda: learning.Buffer.of(3.0), "solution is a float"),
    (lambda: learning.Sum([learning.RelativeEntropy()], [1.0, 2.0]), "1 losses and 2 factors"),
    (lambda: learning.TrajectoryBalance(rate=1.5), r"rate is 1.5; pass a number in \(0, 1\]"),
    (lambda: jax.jit(lambda key: trained(key=key).history)(key()), "descent takes numbers.* outside"),
    (lambda: jax.jit(lambda: trained().history)(), "descent takes numbers.* outside"),
    (lambda: corrected(3), r"float32\[2\] but the network is made for float32\[3\]"),
    (
        lambda: learning.Guided(key(), density(3), brownian(0.0))(0.5, jnp.zeros(2)),
        r"float32\[2\] but the network is made for float32\[3\]",
    ),
    (lambda: amortised(target=density()), "target is a Density; pass a function of a context"),
    (lambda: amortised()(jnp.zeros(1), key()), r"rule\(parameters, context\) is a Ancestral; pass a Gaussian rule"),
    (lambda: amortised(target=lambda c: c)(jnp.zeros(1), key()), "target is a .*; pass a GaussianMixture"),
    (lambda: loss(jnp.arange(0)), "indices has 0 paths; a mean needs at least 1"),
    (lambda: loss(jnp.arange(1), learning.LogVariance()), "indices has 1 paths; a variance needs at least 2"),
]

GREEN = [
    (lambda: pid.Green(jnp.eye(2)), r"beta has shape \(2, 2\); pass a scalar or"),
    (lambda: pid.Green(1.0).pull(-1.0), "duration is -1; pass a duration > 0"),
    (lambda: pid.Green(1.0).pull(jnp.array([0.5, 0.0])), "duration is 0"),
    (lambda: pid.Green(-4.0).pull(2.0), r"duration is 2 and beta -4: the conjugate point lies at .* 1.5708"),
    (lambda: pid.Green([1.0, 2.0]).pull(jnp.ones(3)), r"duration has shape \(3,\) but beta has \(2,\)"),
    (lambda: pid.Green(1.0).pin(-1.0, 2.0), "before is -1; pass a duration >= 0"),
    (lambda: pid.Green(1.0).pin(1.0, -0.5), "after is -0.5"),
    (lambda: pid.Green(1.0).pin(0.0, 0.0), r"before \+ after is 0"),
    (lambda: pid.Green(-4.0).pin(1.0, 1.0), r"before \+ after is 2 and beta -4"),
    (lambda: pid.Green(1.0).log([0.0], [1.0], 0.0), "duration is 0"),
    (lambda: pid.Green(1.0).log([0.0], [1.0], jnp.ones(2)), r"duration \(2,\)"),
    (lambda: pid.Green([1.0, -10.0]).log([0.0, 0.0], [1.0, 1.0], 1.0), "conjugate point"),
    (lambda: pid.Green([1.0, 2.0]).log([0.0], [1.0], 1.0), r"x has shape \(1,\), y \(1,\), beta \(2,\)"),
    (lambda: pid.Green(1.0).log([0.0], [1.0, 2.0], 1.0), r"x has shape \(1,\), y \(2,\)"),
    (lambda: pid.Green(1.0).log(0.0, 1.0, 1.0), r"x has shape \(\)"),
    (lambda: pid.Green(1.0).log("abc", [1.0], 1.0), "x is 'abc'"),
]


@pytest.mark.parametrize(("call", "message"), [*NEURAL, *GREEN])
def test_mistakes_with_networks_and_green_functions(call, message):
    test_mistakes(call, message)


def test_what_green_functions_and_optimisers_accept():
    assert jnp.isfinite(pid.Green([1, 2]).log([0, 1], [1, 0], 1))
    assert pid.Green([1.0]).pull([0.5, 1.0])[0].shape == (2,)
    assert jnp.allclose(jnp.stack(pid.Green(1.0).pin(0, 1)), jnp.array([1, 0, 0]))
    assert jnp.isnan(jax.jit(lambda duration: pid.Green(1.0).pull(duration)[0])(0.0 * jnp.inf))
    assert learning.adam(decay=np.int64(10)) is learning.adam(decay=10) is learning.adam(np.float64(3e-2), decay=10)


@functools.cache
def fitted():
    return trained()


IN_A_LINE = [
    ("LogSNRGrid(num_steps=20, low=0.1, high=None)", lambda: pid.log_snr_grid(20, low=0.1)),
    ("UniformGrid(num_steps=5)", lambda: pid.uniform_grid(5)),
    ("AtTimes(values=[0, 0.5, 1])", lambda: pid.at_times([0.0, 0.5, 1.0])),
    ("Green(beta=[1, 2])", lambda: pid.Green([1.0, 2.0])),
    ("Euler(correction=None)", pid.Euler),
    ("Controlled(control=vector)", lambda: pid.Controlled(vector)),
    ("Controlled(control=vector)", lambda: pid.Controlled(functools.partial(vector))),
    ("Euler(correction=MLP)", lambda: pid.Euler(eqx.nn.MLP(3, 2, 4, 1, key=key()))),
    ("correction=Network(dim=2, width=8, depth=2)", lambda: pid.Euler(learning.Network(key(), 2, width=8))),
    ("Moment()", pid.Moment),
    ("Ancestral()", pid.Ancestral),
    ("target=Density(square, dim=2), clip=100)", lambda: fitted().parameters),
    ("outcome=completed", fitted),
    ("steps=4, unit=UnitProblem(reference=Harmonic, start=[", lambda: solution().prepared),
    ("Prepared(target=StreamedSamples, steps=2", lambda: pid.Problem(data(), brownian()).prepare(pid.uniform_grid(2))),
    ("UnitProblem(reference=Harmonic, start=[0, 0]", lambda: solution().prepared.unit),
    ("converged=True)", lambda: pid.fit_surrogate(key(), square, 1, progress=False)),
]


@pytest.mark.slow
@pytest.mark.parametrize(("part", "make"), IN_A_LINE)
def test_values_of_the_core_read_in_a_line(part, make):
    test_values_read_in_a_line(part, make)


def test_what_is_no_solution_of_its_own_says_so():
    """The evidence of a batch, of shapes alone and of weights that are all zero."""
    one = solution()
    batch = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), one)
    assert batch._evidence() == {"log_W": "float32[2, 8]"}
    assert eqx.filter_eval_shape(lambda: one)._evidence() == {"log_W": "float32[8]"}
    lost = eqx.tree_at(lambda one: one.log_weights, one, jnp.full(8, -jnp.inf))
    assert lost._evidence() == {"log_Z": "-inf ± nan", "ESS": "nan of 8 (nan%)"}
