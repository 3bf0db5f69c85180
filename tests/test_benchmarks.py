"""The benchmarks: a run that was stopped and goes on is as if it had never stopped; the suites `densities` and `neural`."""

import json
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import mixture_of

import pidjax as pid
from benchmarks import __main__ as command
from benchmarks import core, measure, protocols, weak
from benchmarks.cases import Case
from benchmarks.data import suite as data_suite
from benchmarks.data.generated import Generation
from benchmarks.data.sets import DataSet
from benchmarks.densities import annealed, run_densities, targets
from benchmarks.densities import suite as densities
from benchmarks.densities.rivals import Problem
from benchmarks.ledger import Ledger
from benchmarks.neural import methods as neural_methods
from benchmarks.neural import run_neural
from benchmarks.neural import suite as neural
from benchmarks.neural.budget import Budget
from benchmarks.neural.inner import InnerRegression
from benchmarks.outcome import Outcome
from pidjax.targets.fitting.defence import defended
from pidjax.targets.fitting.gaussians import Gaussians


def line(size):
    """A standard Gaussian in one dimension."""

    def exact(key, number):
        return jax.random.normal(key, (number, 1))

    return Case(
        name="line",
        note="A standard Gaussian.",
        log_density=lambda y: -0.5 * jnp.sum(y**2) - 0.5 * jnp.log(2 * jnp.pi),
        closed=pid.GaussianMixture(jnp.zeros((1, 1)), jnp.ones((1, 1, 1))),
        exact=exact,
        reference=exact,
        pairs={"density": lambda key: (exact(key, size), exact(jax.random.fold_in(key, 1), size))},
        size=size,
        center=jnp.zeros(1),
        scale=1.0,
        entropy=0.5 * float(jnp.log(2 * jnp.pi * jnp.e)),
        distances={"mean": lambda x, y: jnp.abs(jnp.mean(x) - jnp.mean(y))},
    )


def fresh(case, key, budget):
    return {"fresh": Outcome("", case.exact(key, budget.num_samples), None)}


def tilted(case, key, budget):
    """Two rows a run, the second weighted."""
    samples = case.exact(key, budget.num_samples)
    plain = Outcome("", samples, None)
    return {"tilted": plain, "tilted, weighted": Outcome("", samples, None, log_weights=0.1 * samples[:, 0])}


@pytest.fixture
def suite(monkeypatch):
    """`suite(out, *options)` runs `core` on the line; `suite.methods` are its methods, `suite.calls` what has run."""

    def run(out, *options):
        command.main(["line", "--quick", "--seeds", "3", "--out", str(out), *options])
        return json.loads((out / "results.json").read_text())

    def counted(name, method):
        def call(case, key, budget):
            run.calls.append(name)
            return run.methods[name](case, key, budget)

        return call

    run.calls, run.methods = [], {"fresh": fresh, "tilted": tilted}
    monkeypatch.setattr(core, "METHODS", {name: counted(name, method) for name, method in run.methods.items()})
    for module in (core, command):
        monkeypatch.setattr(module, "CASES", {"line": line})
    monkeypatch.setattr(command.figures, "draw", lambda *_: None)
    monkeypatch.setattr(jax, "clear_caches", lambda: None)
    return run


def after(count, method, error):
    """The method, but for an error in place of its call number `count`."""
    calls = iter(range(1000))

    def failing(*arguments):
        if next(calls) == count:
            raise error
        return method(*arguments)

    return failing


def test_a_stopped_run_goes_on_where_it_was(suite, tmp_path):
    whole = suite(tmp_path / "whole")
    assert suite.calls == ["fresh"] * 3 + ["tilted"] * 3
    assert all(row["error"] is None for row in whole["rows"])
    suite.methods["tilted"] = after(1, tilted, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        suite(tmp_path / "stopped")
    kept = json.loads((tmp_path / "stopped" / "results.json").read_text())
    assert kept["rows"] == whole["rows"][:5]

    suite.calls.clear()
    assert suite(tmp_path / "stopped") == whole
    assert suite.calls == ["tilted"] * 2
    assert (tmp_path / "stopped" / "table.md").read_text() == (tmp_path / "whole" / "table.md").read_text()
    assert suite(tmp_path / "stopped") == whole
    assert suite.calls == ["tilted"] * 2


def test_a_failed_run_is_a_row_and_is_tried_again(suite, tmp_path):
    whole = suite(tmp_path / "whole")
    suite.methods["fresh"] = after(1, fresh, RuntimeError("out of luck"))
    failed = suite(tmp_path / "failed")
    assert [row["error"] for row in failed["rows"]].count("RuntimeError: out of luck") == 1
    suite.calls.clear()
    assert suite(tmp_path / "failed") == whole
    assert suite.calls == ["fresh"]


def test_other_options_or_versions_are_refused_until_asked_to_start_anew(suite, tmp_path, monkeypatch):
    suite(tmp_path)
    with pytest.raises(SystemExit, match=r"options, seeds: 3 then, 2 now(.|\n)*--fresh"):
        suite(tmp_path, "--seeds", "2")
    assert len(suite(tmp_path, "--seeds", "2", "--fresh")["rows"]) == 6

    then = measure.environment()
    monkeypatch.setattr(measure, "environment", lambda: {**then, "jax": "0.0.1"})
    with pytest.raises(SystemExit, match=r"environment, jax: .* then, 0\.0\.1 now"):
        suite(tmp_path, "--seeds", "2")


def test_the_other_suites_go_on_as_well(tmp_path, monkeypatch):
    """Here `protocols`, its measurements replaced."""
    done = []

    def case(dim, pieces, paths, rounds):
        done.append((dim, pieces, paths))
        return {"seconds": float(rounds)}

    def run():
        protocols.run_protocols(Ledger(tmp_path / "protocols.json", {"quick": True}), quick=True)

    monkeypatch.setattr(protocols, "case", case)
    monkeypatch.setattr(protocols, "learn", after(0, lambda iterations: {"loss": 0.0}, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        run()
    run()
    rows = json.loads((tmp_path / "protocols.json").read_text())["rows"]
    assert [row.get("dim") for row in rows] == [2, 8, 8, None]
    assert len(done) == 3


@pytest.mark.slow
def test_annealing_has_the_evidence_and_the_shares():
    """Two Gaussians of unequal weight and width, from a base with the wrong weights, places and widths of both."""
    truth = pid.GaussianMixture.isotropic(jnp.array([[-4.0, 0, 0], [4.0, 1, 0]]), jnp.array([0.3, 1.0]), [0.2, 0.8])
    density = pid.Density(lambda y: truth.log_density(y) + 3.0, 3)
    base = pid.GaussianMixture.isotropic(jnp.array([[-4.3, 0, 0], [3.5, 0.5, 0]]), jnp.array([0.8, 2.0]))
    key_pilot, key = jax.random.split(jax.random.key(0))
    steps = annealed.pilot(key_pilot, density, base, num_levels=12).steps
    found = annealed.annealed(key, density, base, steps, 512)
    log_z = pid.metrics.log_z_error(found.log_weights, truth=3.0)
    assert abs(log_z.value) < 4 * log_z.standard_error < 0.4
    weights = jax.nn.softmax(found.log_weights)
    left = (found.samples[:, 0] < 0).astype(weights.dtype)
    error = jnp.sqrt(jnp.sum((weights * (left - 0.2)) ** 2))
    assert abs(weights @ left - 0.2) < 4 * error


@pytest.mark.slow
@pytest.mark.parametrize("name", targets.TARGETS)
def test_targets_have_truths_and_distances(name, as_users_have_it):
    target = targets.TARGETS[name]()
    one, other = (target.draw(jax.random.key(seed), 64) for seed in (0, 1))
    assert jnp.isfinite(target.log_z)
    assert jnp.isfinite(jax.jit(jax.vmap(target.density.log_density))(one)).all()
    assert target.distance(one, None, other) >= 0
    assert target.distance(one, jnp.zeros(64), other) == pytest.approx(
        float(target.distance(one, None, other)), abs=1e-5
    )


@pytest.mark.slow
def test_samplers_get_what_hpid_spent(tmp_path, monkeypatch):
    given = []

    def outcome(log_z, error, key):
        samples = jax.random.normal(key, (16, 2))
        return Outcome(
            "", samples, None, log_z=log_z, log_z_error=error, energy_evaluations=100, gradient_evaluations=23
        )

    def rival(key, problem, evaluations):
        given.append(evaluations)
        return outcome(0.5, 0.25, key)

    def failing(key, problem, evaluations):
        raise RuntimeError("out of luck")

    def run():
        ledger = Ledger(tmp_path / "densities.json", {})
        run_densities(ledger, tmp_path, tmp_path, quick=True, seeds=2)
        return ledger.results()["rows"]

    monkeypatch.setattr(densities, "available", lambda data: {"nine": targets.TARGETS["nine"]})
    monkeypatch.setattr(densities, "path_integral_diffusion", lambda number: lambda key, *_: outcome(-0.1, 0.1, key))
    monkeypatch.setattr(densities, "RIVALS", {"rival": rival, "failing": failing})
    monkeypatch.setattr(jax, "clear_caches", lambda: None)
    rows = run()
    assert given == [123] * 3
    assert [row.get("score") for row in rows] == [-1, -1] + [2, None] * 2
    assert [row["error"] is None for row in rows] == [True, True] + [True, False] * 2
    table = (tmp_path / "densities.md").read_text()
    assert "| nine | 2 | rival | 2 | 0.5 (0.5 … 0.5) | 2 |  | 123 |" in table
    assert "| nine | 2 | failing | 0 of 2 | failed: RuntimeError: out of luck |" in table
    assert (
        "**H-PID, defaults untouched: of 2 runs 0 failed and 0 were flagged; of the others the score of log Z is 1"
        in table
    )
    assert run()[:2] == rows[:2]
    assert given == [123] * 3


TINY = Budget(3, 2, 16, sampler_steps=4, num_samples=64)


def from_the_mixture(key, problem, budget):
    """In the place of H-PID's solution one whose surrogate is the target, widened as by a fit, for 1,000 evaluations."""
    nine = pid.zoo.nine().target
    factors = jnp.linalg.cholesky(nine.covariances)
    mixture = mixture_of(defended(Gaussians(nine.log_weights, nine.means, factors)))
    surrogate = pid.Surrogate(problem.target.density, mixture)
    solution = pid.sample(key, surrogate, num_samples=budget.num_samples, progress=False)
    return eqx.tree_at(
        lambda solution: solution.num_energy_evaluations, solution, jnp.asarray(1000 + budget.num_samples)
    )


@pytest.mark.extended
@pytest.mark.slow
def test_networks_are_trained_counted_and_shown(tmp_path, monkeypatch, as_users_have_it):
    def run():
        ledger = Ledger(tmp_path / "neural.json", {})
        run_neural(ledger, tmp_path, quick=True, seeds=1)
        return ledger.results()

    monkeypatch.setattr(neural, "QUICK", ("nine",))
    monkeypatch.setattr(neural.Budget, "quick", lambda: TINY)
    monkeypatch.setattr(neural, "solve", from_the_mixture)
    monkeypatch.setattr(jax, "clear_caches", lambda: None)
    results = run()
    rows = {row["method"]: row for row in results["rows"]}
    assert list(rows) == list(neural_methods.METHODS)
    assert all(row["error"] is None and row["reason"] is None for row in rows.values())
    spent = {name: (row["energy_evaluations"], row["gradient_evaluations"]) for name, row in rows.items()}
    assert list(spent.values()) == [
        (1064, 0),
        (1064, 0),
        (1128, 64),
        (1064 + 32, 0),
        (1128 + 32 + 256, 0),
        (1064, 32),
        (2 * 16 * neural_methods.INNER_DRAWS + 64, 0),
        (64, 3 * 16 * 5 + 64 * 4),
        (64, 3 * 16),
        (64, 3 * 16 * 5 + 64 * 4),
        (64, 3 * 16 * 5 + 64 * 4),
    ]
    assert rows["PIS"]["curve"]["evaluations"] == [0, 80, 160, 240]
    assert rows["H-PID + log-variance"]["curve"]["evaluations"] == [1000, 1016, 1032]
    assert [row["steps"] for row in rows.values()] == [0, 0, 2, 2, 2, 2, 2, 3, 3, 3, 3]
    for row in rows.values():
        assert len(row["history"]) == row["steps"]
        assert all(len(values) == row["steps"] + 1 for values in row["curve"].values())
        assert row["elbo"] <= row["delta"] + 1e-5
    for name in ("H-PID", "H-PID, moment steps"):
        assert rows[name]["eubo"] == pytest.approx(0, abs=0.5)
    page = (tmp_path / "neural.md").read_text()
    assert all(f"| {name} | 1 |" in page for name in rows)
    assert (tmp_path / "neural.png").stat().st_size > 10_000
    monkeypatch.setattr(neural, "METHODS", dict.fromkeys(rows))
    assert run() == results


@pytest.mark.extended
@pytest.mark.slow
def test_a_network_that_learned_nothing_changes_nothing(tmp_path, monkeypatch, as_users_have_it):
    """The suite `weak`, its training left out: both rules are one, path by path, and the page says so."""

    def untrained(key, target, rule, **options):
        assert options["num_iterations"] == 10_000
        return SimpleNamespace(parameters=rule, num_evaluations=7)

    def run():
        ledger = Ledger(tmp_path / "weak.json", {})
        weak.run_weak(ledger, tmp_path, seeds=1)
        return ledger.results()

    monkeypatch.setattr(weak, "TARGETS", {"nine": weak.TARGETS["nine"]})
    monkeypatch.setattr(weak, "STEPS", (5,))
    for name, number in (("NUM_SAMPLES", 256), ("NUM_ENDS", 512), ("REPEATED", 1)):
        monkeypatch.setattr(weak, name, number)
    monkeypatch.setattr(weak.learning, "fit", untrained)
    monkeypatch.setattr(jax, "clear_caches", lambda: None)
    results = run()
    (row,) = results["rows"]
    assert row["error"] is None
    assert row["slopes"] == 7
    for name in ("ess", "forward_ess", "delta", "log_z_error"):
        np.testing.assert_allclose(row[f"corrected_{name}"], row[f"explicit_{name}"], rtol=1e-4, atol=1e-5)
    assert 0.05 < row["explicit_ess"] < row["exact_ess"] < 1
    assert abs(row["explicit_delta"]) < 4 * row["explicit_log_z_error"]
    assert row["explicit_seconds"] > 0
    assert "1.0 to 1.0 times as large" in (tmp_path / "weak.md").read_text()
    monkeypatch.setattr(weak.learning, "fit", None)
    assert run() == results


@pytest.mark.slow
def test_end_points_of_a_climb_are_fitted_to_be_corrected(monkeypatch, as_users_have_it):
    """By as many Gaussians as those held out choose; the mixture before the climb is taken if these are likelier under it."""
    monkeypatch.setattr(neural_methods, "COUNTS", (1, 3))
    truth = pid.GaussianMixture.isotropic(jnp.array([[-5.0, 0.0], [0.0, 4.0], [5.0, 0.0]]), 1.0)
    problem = SimpleNamespace(target=SimpleNamespace(density=pid.Density(truth.log_density, 2)))
    solution = SimpleNamespace(target=None, pinned=True, fit=None, resample=lambda key: truth.sample(key, 2000))
    found = neural_methods.start(problem, solution).mixture
    np.testing.assert_allclose(jnp.sort(found.means[:, 0]), [-5, 0, 5], atol=4 / np.sqrt(500))
    before = mixture_of(
        defended(Gaussians(jnp.log(truth.weights), truth.means, jnp.linalg.cholesky(truth.covariances)))
    )
    for mixture, chosen in ((before, truth), (eqx.tree_at(lambda own: own.means, before, before.means + 9), found)):
        solution.fit = SimpleNamespace(mixture=mixture)
        start = neural_methods.start(problem, solution).mixture
        np.testing.assert_allclose(start.means, chosen.means, rtol=1e-5, atol=1e-5)


def test_what_has_no_surrogate_says_so(tmp_path):
    solution = pid.sample(jax.random.key(0), pid.zoo.nine().target, num_samples=4, progress=False)
    reason = neural_methods.moment_steps(jax.random.key(1), None, solution, TINY)
    assert reason == "H-PID has no surrogate to correct"
    row = {"target": "DW4", "method": "H-PID, moment steps", "error": None, **neural.row_of(reason, None, None)}
    target = {"target": "DW4", "error": None, "dim": 6, "log_z": 29.667, "quality": None}
    page = neural.report.markdown({"environment": {}, "targets": [target], "rows": [row]})
    assert "| H-PID, moment steps | 0 of 1 | H-PID has no surrogate to correct |" in page


def test_inner_estimates_know_the_control():
    """From the origin to N(1, 1) by Brownian motion the control is 1; one of 0 is wrong by ½ |1|²."""
    density = pid.Density(lambda y: -0.5 * jnp.sum((y - 1) ** 2), 1)
    broad = pid.GaussianMixture.isotropic(jnp.zeros((1, 1)), 2.0)
    loss = InnerRegression(pid.LocalDraws(density, broad, 500), num_paths=64, every=2)
    protocol = pid.harmonic(beta=0.0, noise_scale=1.0)
    prepared = pid.Problem(density, protocol).prepare(pid.uniform_grid(5))

    @eqx.filter_jit
    def value(control):
        rule = pid.Controlled(lambda t, x: jnp.full_like(x, control))
        state = loss.start(prepared, rule, jax.random.key(0))
        for number in range(3):
            found, state = loss(prepared, rule, jax.random.key(1 + number), jnp.arange(64), state)
        return found

    assert value(1.0) < 0.02
    assert value(0.0) == pytest.approx(0.5, abs=0.1)


def test_draws_of_inner_estimates_are_wider_than_the_target():
    problem = Problem(targets.of(pid.zoo.gmm40()), jnp.zeros(2), 23.0)
    assert jnp.allclose(neural_methods.broad(problem).covariances[0], (1.5 * 23.0) ** 2 * jnp.eye(2))


@pytest.mark.extended
@pytest.mark.optimised
def test_the_suite_of_data_sets_goes_on_where_it_stopped(tmp_path, monkeypatch, as_users_have_it):
    """Every section of a small data set, the page and all figures; nothing is done twice."""
    rng, labels = np.random.default_rng(0), np.arange(60) % 3
    points = jnp.array(rng.normal(size=(3, 4))[labels] + 0.4 * rng.normal(size=(60, 4)))
    made = DataSet(pid.Samples(points, labels=labels), (2, 2, 1), jnp.zeros(4), 100, 0.02, 60.0)
    monkeypatch.setattr(data_suite, "data_sets", lambda folder, quick: {"small": lambda: made})
    monkeypatch.setattr(data_suite, "gaussians", lambda quick: [(16, 64), (16, 128)])
    pixels = pid.images.Images(jnp.array(rng.uniform(size=(60, 4, 4, 1))))
    training = pixels[jnp.arange(40)]
    makers = {"data": lambda: training.samples, "squares": lambda: pid.images.Local(training, pid.images.Squares(3))}
    few = Generation(training, pixels[jnp.arange(40, 60)], 3, 8, makers)
    monkeypatch.setattr(data_suite, "generations", lambda folder, quick: {"small": lambda: few})
    row = {"distance": [1.0, 1.1, 1.2], "inside": [0.9, 1.0, 1.0], "ess": [0.5, 0.5, 0.6], "floor": [1.0, 0.1]}
    monkeypatch.setattr(data_suite, "swept", lambda **_: [row])
    monkeypatch.setattr(data_suite.zoo, "nine", lambda: SimpleNamespace(target=line(0).closed))

    def run():
        ledger = Ledger(tmp_path / "data.json", {})
        data_suite.run_data(ledger, tmp_path, tmp_path, quick=True)
        return ledger.results()

    results = run()
    for section in data_suite.SECTIONS:
        assert results[section]
        assert all(row["error"] is None for row in results[section])
    assert "small" in (tmp_path / "data.md").read_text()
    assert len(list(tmp_path.glob("*.png"))) == 9
    copies, new = results["generated"]
    assert copies["distance"] < 1e-3 < 0.1 < new["distance"]
    np.testing.assert_allclose([copies["entropy"][0], new["entropy"][0]], 1, atol=1e-6)
    monkeypatch.setattr(data_suite, "at_beta", None)
    assert run() == results
