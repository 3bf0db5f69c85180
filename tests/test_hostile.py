"""The suites that grade `sample` by its log Z: truths against quadrature and Monte Carlo, the grader on made-up solutions."""

import json
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_within, grid_quadrature
from scipy import stats

import pidjax as pid
from benchmarks import __main__ as command
from benchmarks import coverage, grade, seeded, two_modes
from benchmarks.hostile import hostile
from benchmarks.ledger import Ledger

KNOWN = {question.name: question for question in hostile()}
SIZE = 50_000


def log_densities(name, points):
    return np.asarray(jax.vmap(KNOWN[name].log_density)(jnp.asarray(points)))


def test_fifty_of_different_names():
    assert len(KNOWN) == len(hostile()) == 50
    assert {1, 2, 5, 10, 30, 100} <= {question.dim for question in KNOWN.values()}


@pytest.mark.parametrize("question", hostile(), ids=lambda question: question.name)
def test_each_is_a_density_of_its_dimension(question):
    assert pid.Density(question.log_density, question.dim).dim == question.dim


@pytest.mark.parametrize("name", ["Student ν = 1/2", "exp(−√|x|)", "Gamma(1/10)", "Cauchy, d = 1"])
def test_log_z_on_a_line(name):
    """By the trapezoidal rule in log |x|, from e^−350 to e^150."""
    logs = np.linspace(-350, 150, 50_001)
    x = np.concatenate([np.exp(logs), -np.exp(logs)])
    values = log_densities(name, x[:, None]) + np.tile(logs, 2)
    assert math.log(np.exp(values).sum() * (logs[1] - logs[0])) == pytest.approx(KNOWN[name].log_z, abs=1e-8)


@pytest.mark.parametrize(
    ("name", "low", "high", "tolerance"),
    [("Rosenbrock", -4, 16, 1e-4), ("checkerboard", -6, 6, 1e-6), ("ring, d = 2", -6, 6, 1e-6), ("wedge", -7, 7, 1e-2)],
)
def test_log_z_in_the_plane(name, low, high, tolerance):
    """By the midpoint rule, whose cells end where the checkerboard jumps."""
    count = 1200
    cell = (high - low) / count
    points, volume = grid_quadrature(low + cell / 2, high - cell / 2, count, 2)
    assert math.log(np.exp(log_densities(name, points)).sum() * volume) == pytest.approx(
        KNOWN[name].log_z, abs=tolerance
    )


def simplex(rng):
    points = rng.dirichlet(np.ones(6), SIZE)[:, :5]
    return points, np.full(SIZE, math.lgamma(6))


def slab(rng):
    points = np.column_stack([rng.uniform(1.99, 2.01, SIZE), 1.2 * rng.normal(size=(SIZE, 4))])
    return points, -math.log(0.02) + stats.norm.logpdf(points[:, 1:], scale=1.2).sum(axis=1)


def cube(rng):
    return rng.uniform(-1.1, 1.1, (SIZE, 5)), np.full(SIZE, -5 * math.log(2.2))


def halves(rng):
    points = np.abs(rng.normal(size=(SIZE, 100), scale=1.05))
    return points, (stats.norm.logpdf(points, scale=1.05) + math.log(2)).sum(axis=1)


def student(dim, degrees):
    law = stats.multivariate_t(np.zeros(dim), np.eye(dim), df=degrees)

    def draw(rng):
        points = law.rvs(SIZE, random_state=rng)
        return points, law.logpdf(points)

    return draw


def sphere(rng):
    directions = rng.normal(size=(SIZE, 5))
    radii = 4 + 0.25 * rng.normal(size=SIZE)
    surface = 2 * math.pi**2.5 / math.gamma(2.5)
    points = directions / np.linalg.norm(directions, axis=1, keepdims=True) * radii[:, None]
    return points, stats.norm.logpdf(radii, 4, 0.25) - math.log(surface) - 4 * np.log(radii)


def bent(rng):
    points = rng.normal(size=(SIZE, 10)) * 1.1
    log_proposal = stats.norm.logpdf(points, scale=1.1).sum(axis=1) - math.log(10)
    points[:, 0] *= 10
    points[:, 1] += 3 - 0.03 * points[:, 0] ** 2
    return points, log_proposal


def two_balls(rng):
    widths = np.where(rng.uniform(size=SIZE) < 0.5, 1.1, 0.011)
    points = rng.normal(size=(SIZE, 5)) * widths[:, None]
    points[:, 0] += np.where(widths < 1, 3, 0)
    laws = [stats.multivariate_normal(mean, width**2) for mean, width in
            ((np.zeros(5), 1.1), (np.array([3.0, 0, 0, 0, 0]), 0.011))]  # fmt: skip
    return points, np.logaddexp(*(law.logpdf(points) for law in laws)) - math.log(2)


@pytest.mark.parametrize(
    ("name", "proposal"),
    [
        ("Dirichlet(2, …, 2)", simplex), ("thin slab", slab), ("shell", cube), ("orthant", halves),
        ("Student ν = 2", student(10, 1.5)), ("exp(−|y|)", student(5, 3)), ("ring, d = 5", sphere), ("banana", bent),
        ("spike beside", two_balls),
    ],
)  # fmt: skip
def test_log_z_by_importance_sampling(name, proposal):
    """50,000 independent draws of a wider law; within 4 standard errors, which are below 0.03."""
    points, log_proposal = proposal(np.random.default_rng(1))
    weights = np.exp(log_densities(name, points) - log_proposal - KNOWN[name].log_z)
    error = weights.std() / math.sqrt(SIZE)
    assert error < 0.03
    assert_within(weights.mean(), 1.0, error)


class Said(NamedTuple):
    """A solution that says this."""

    log_z: tuple[float, float]
    complaint: str | None = None
    degrees_of_freedom: float | None = None
    ess: float = 50.0
    num_samples: int = 100
    num_energy_evaluations: int = 1000
    settings: dict = {}  # noqa: RUF012

    def problems(self):
        return [] if self.complaint is None else [(pid.Outcome.FEW_EFFECTIVE, self.complaint)]

    def check(self):
        if self.complaint is not None:
            raise pid.SamplingError(*self.problems())

    def expectation(self, function):
        return self.log_z


@pytest.mark.parametrize(
    ("solution", "log_z", "expected", "within"),
    [
        (Said((5.3, 0.1)), 5.0, "right", "4 s.e."),
        (Said((5.01, 0.1)), 5.0, "right", "4 s.e. and 0.02"),
        (Said((5.01, 0.001)), 5.0, "right", "0.02"),
        (Said((5.01, math.nan)), 5.0, "right", "0.02"),
        (Said((5.3, 0.1), "few"), 5.0, "flagged but right", "4 s.e."),
        (Said((7.0, 0.1), "few"), 5.0, "flagged", ""),
        (Said((-math.inf, math.nan), "none"), None, "flagged", ""),
        (Said((5.5, 0.1)), 5.0, "content and wrong", ""),
        (Said((5.5, math.inf)), 5.0, "content and wrong", ""),
        (Said((5.0, 0.1)), None, "content and wrong", ""),
    ],
)
def test_grades(solution, log_z, expected, within):
    row = grade.graded(solution, log_z)
    assert (row["grade"], row["within"], row["complaint"]) == (expected, within, solution.complaint)


QUESTIONS = [
    grade.Question("narrow | wide", "plain", 2, lambda y: -0.5 * jnp.sum(y**2), 1.0),
    grade.Question("refused", "no density", 1, lambda y: y[0], None),
]


@pytest.fixture
def calls(monkeypatch):
    """`sample` answers 1.1 ± 0.1 in the plane and refuses else; the calls that it had."""
    done = []

    def sample(key, target, **_):
        done.append(int(jax.random.key_data(key)[1]))
        if target.dim == 1:
            raise ValueError("no surrogate")
        return Said((1.1, 0.1))

    monkeypatch.setattr(pid, "sample", sample)
    monkeypatch.setattr(jax, "clear_caches", lambda: None)
    return done


@pytest.mark.parametrize("suite", ["hostile", "seeded", "two_modes"])
def test_suites_of_grades_go_on_where_they_were(suite, calls, tmp_path, monkeypatch):
    monkeypatch.setattr(command.hostile, "hostile", lambda: QUESTIONS)
    for suite_of in (command.seeded, command.two_modes):
        monkeypatch.setattr(suite_of, "questions", lambda: QUESTIONS)
    command.main([suite, "--out", str(tmp_path)])
    assert calls == [0, 0]
    command.main([suite, "--seeds", "2", "--out", str(tmp_path)])
    assert calls == [0, 0, 1, 1]
    rows = json.loads((tmp_path / f"{suite}.json").read_text())["rows"]
    assert sorted(row["grade"] for row in rows) == ["flagged", "flagged", "right", "right"]
    table = (tmp_path / f"{suite}.md").read_text()
    assert "**2 right, 0 flagged but right, 2 flagged, 0 content and wrong.**" in table
    assert "| refused | no density | 1 | 1 | none |" in table
    assert "ValueError of sample: no surrogate |" in table


def test_a_run_that_breaks_is_counted(monkeypatch, tmp_path):
    def broken(key, target, **_):
        raise ZeroDivisionError("| out of order")

    monkeypatch.setattr(pid, "sample", broken)
    monkeypatch.setattr(jax, "clear_caches", lambda: None)
    grade.run_graded(QUESTIONS[:1], Ledger(tmp_path / "rows.json", {}), tmp_path / "rows.md", 1)
    table = (tmp_path / "rows.md").read_text()
    assert "1 broken" in table
    assert table.splitlines()[-1].startswith("| narrow \\| wide |")
    assert "ZeroDivisionError: \\| out of order" in table


def test_seeded_questions_are_the_list_in_words():
    questions = seeded.questions()
    assert [question.log_z for question in questions] == [known.log_z for known in seeded.seeded()]
    assert seeded.Shape(3, 2, 4.25, True, False, True, 1.0).in_words() == "2 × Student ν = 4.2, skewed, walled"
    assert seeded.Shape(3, 1, None, False, True, False, 1.0).in_words() == "1 × Gaussian, bent"


def test_the_map_of_two_modes_is_of_two_modes():
    """Each mode's height is that of half of a Gaussian, far from the other, and its name says where it is."""
    asked = two_modes.questions()
    assert len({question.name for question in asked}) == len(asked) == 55
    for question in asked:
        distance, width = (float(part.split(" = ")[1]) for part in question.name.split(", ")[:2])
        height = -math.log(2) - question.dim / 2 * math.log(2 * math.pi)
        assert question.log_density(jnp.zeros(question.dim)) == pytest.approx(height, abs=1e-4)
        if "e₁" in question.name:
            other = question.log_density(distance * jnp.eye(question.dim)[0])
            assert other == pytest.approx(height - question.dim * math.log(width), abs=1e-4)


@pytest.mark.parametrize("degrees", [None, 4.0])
def test_true_errors_cover(degrees):
    """Scores of the law that is stated: 0.95 hold and z has a root mean square of 1, within 4 standard errors."""
    rng, number = np.random.default_rng(2), 4000
    scores = rng.normal(size=number) if degrees is None else rng.standard_t(degrees, number)
    rows = [{"log Z": (score, 0.5), "degrees_of_freedom": degrees} for score in scores]
    found = coverage.coverage(rows, "log Z")
    assert_within(found.share, 0.95, found.share_error)
    assert found.share_error == pytest.approx(math.sqrt(0.95 * 0.05 / number), rel=0.1)
    assert_within(found.rms_score, 1.0, math.sqrt(0.5 / number))
    assert found.median_error == 0.5


def test_errors_of_half_the_size_do_not_cover():
    scores = 2 * np.random.default_rng(3).normal(size=1000)
    found = coverage.coverage([{"mean": (score, 0.1), "degrees_of_freedom": None} for score in scores], "mean")
    assert found.share < 0.95 - 10 * found.share_error
    assert_within(found.rms_score, 2.0, 2 * math.sqrt(0.5 / 1000))


def test_coverage_goes_on_by_tens(calls, tmp_path, monkeypatch):
    known = pid.zoo.funnel(1.0, 2)
    targets = {"funnel3": lambda data: coverage.Subject(known, 1.1), "mw54": lambda data: coverage.Subject(known, None)}
    monkeypatch.setattr(coverage, "TARGETS", targets)
    command.main(["coverage", "funnel3", "--runs", "11", "--out", str(tmp_path)])
    assert calls == list(range(20))
    command.main(["coverage", "--runs", "30", "--out", str(tmp_path)])
    assert calls == [*range(20), *range(20, 30), *range(30)]
    table = (tmp_path / "coverage.md").read_text()
    assert "| funnel3 | mean | content | 30 of 30 | 1.000 ± 0.04" in table
    assert "| mw54 | log Z | any | 30 of 30 | 0.000 ± 0.04" in table
    assert "| mw54 | mean" not in table


def test_the_mean_of_a_well_is_that_of_its_density():
    assert coverage.many_well().mean == pytest.approx(1.18796, abs=1e-5)
