"""Fifty hostile densities: what breaks samplers, with log Z in closed form, or without any.

No finite mass, poles, heavy tails, plateaus, walls, NaN, extreme scales and shifts, ridges, rings, bends, jumps, spikes,
offsets and kinks, in 1 to 100 dimensions. None is normalised for convenience; where a function is NaN it has no mass.

The closed forms are those of Student's t, of the Gamma and Dirichlet laws, of Gaussians on wedges, slabs and halves, and of

    ∫ exp(−½ (|y| − R)²/w²) dy = S_d w √(2π) E r^{d−1},   r ~ N(R, w²),   S_d = 2 π^{d/2}/Γ(d/2),

up to the Gaussian's mass below r = 0, e^{−R²/2w²}, no digit here.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from .grade import Question

_LOG_2PI = math.log(2 * math.pi)


def hostile() -> list[Question]:
    """The list, by kind."""
    return [
        *_without_mass(), *_tails(), *_plateaus(), *_walls(), *_invalid(), *_scales(), *_rings_and_bends(), *_jumps(),
        *_spikes(), *_offsets(), *_kinks(),
    ]  # fmt: skip


def _without_mass() -> list[Question]:
    return [
        Question("flat", "no finite mass", 1, lambda y: 0 * y[0], None),
        Question("flat in one of two", "no finite mass", 2, lambda y: _gaussian(y[:1]), None),
        Question("flat in one of thirty", "no finite mass", 30, lambda y: _gaussian(y[:-1]), None),
        Question("1/(1 + r²) in the plane", "no finite mass", 2, lambda y: -jnp.log1p(jnp.sum(y**2)), None),
        Question("growing exponential", "no finite mass", 1, lambda y: y[0], None),
        Question("Gaussian over |x|", "no finite mass", 1, lambda y: _gaussian(y) - jnp.log(jnp.abs(y[0])), None),
        Question(
            "+inf on a disc", "no density", 2, lambda y: jnp.where(jnp.sum(y**2) < 0.01, jnp.inf, _gaussian(y)), None
        ),
        Question("zero everywhere", "no density", 2, lambda y: jnp.full_like(y[0], -jnp.inf), None),
    ]


def _tails() -> list[Question]:
    degrees = {
        "Cauchy, d = 1": (1, 1), "Cauchy, d = 2": (1, 2), "Cauchy, d = 5": (1, 5), "Student ν = 2": (2, 10),
        "Student ν = 1/2": (0.5, 1), "Student ν = 3": (3, 30),
    }  # fmt: skip
    ten = Question("ten Cauchys", "heavy tails", 10, lambda y: -jnp.sum(jnp.log1p(y**2)), 10 * math.log(math.pi))
    return [
        ten,
        *(
            Question(name, "heavy tails", dim, _student(degree), _student_log_z(degree, dim))
            for name, (degree, dim) in degrees.items()
        ),
    ]


def _plateaus() -> list[Question]:
    def box(y):
        return _within(jnp.max(jnp.abs(y)) < 1, 0 * y[0])

    def shell(y):
        radius = _norm(y)
        return _within((radius > 1) & (radius < 1.1), 0 * radius)

    def pieces(y):
        x = y[0]
        inside = [(x > 0) & (x < 1), (x > 3) & (x < 4), (x > -10) & (x < -5)]
        return jnp.select(inside, [0 * x, 0 * x + 2, 0 * x - 1], -jnp.inf)

    log_ball = 2.5 * math.log(math.pi) - math.lgamma(3.5)
    return [
        Question("box, d = 1", "plateau", 1, box, math.log(2)),
        Question("box, d = 10", "plateau", 10, box, 10 * math.log(2)),
        Question("shell", "plateau", 5, shell, log_ball + math.log(1.1**5 - 1)),
        Question("constant pieces", "plateau", 1, pieces, math.log(1 + math.exp(2) + 5 * math.exp(-1))),
    ]


def _walls() -> list[Question]:
    def positive(y):
        return _within(jnp.all(y > 0), _gaussian(y))

    def dirichlet(y):
        shares = jnp.append(y, 1 - jnp.sum(y))
        return _within(jnp.all(shares > 0), jnp.sum(jnp.log(shares)))

    slab = math.sqrt(math.pi / 2) * (math.erf(2.01 / math.sqrt(2)) - math.erf(1.99 / math.sqrt(2)))
    return [
        Question("half-normal", "wall", 1, positive, math.log(math.pi / 2) / 2),
        Question("orthant", "wall", 100, positive, 50 * math.log(math.pi / 2)),
        Question("Dirichlet(2, …, 2)", "wall", 5, dirichlet, -math.lgamma(12)),
        Question(
            "wedge",
            "wall",
            2,
            lambda y: _within(jnp.abs(y[1]) < 0.1 * y[0], _gaussian(y)),
            math.log(2 * math.atan(0.1)),
        ),
        Question(
            "thin slab",
            "wall",
            5,
            lambda y: _within(jnp.abs(y[0] - 2) < 0.01, _gaussian(y)),
            2 * _LOG_2PI + math.log(slab),
        ),
    ]


def _invalid() -> list[Question]:
    strip = _below(2) - _below(1)
    return [
        Question(
            "NaN in a strip", "NaN", 2, lambda y: jnp.where((y[0] > 1) & (y[0] < 2), jnp.nan, _gaussian(y)),
            _LOG_2PI + math.log1p(-strip),
        ),
        Question("Gamma(3), log of negatives", "NaN", 1, lambda y: 2 * jnp.log(y[0]) - y[0], math.log(2)),
    ]  # fmt: skip


def _scales() -> list[Question]:
    decades = np.logspace(-4, 4, 10), np.logspace(-2, 2, 100)
    ridge = np.array([1, 1e-4])

    def rotated(y):
        return _gaussian(jnp.stack([y[0] + y[1], y[0] - y[1]]) / math.sqrt(2), ridge)

    return [
        Question("scale 1e-7", "scale", 2, lambda y: _gaussian(y / 1e-7), _LOG_2PI + 2 * math.log(1e-7)),
        Question("scale 1e7", "scale", 2, lambda y: _gaussian(y / 1e7), _LOG_2PI + 2 * math.log(1e7)),
        Question("shift 1e6", "shift", 2, lambda y: _gaussian(y - 1e6), _LOG_2PI),
        Question(
            "shift 1e6, width 0.02", "shift that float32 does not resolve", 1, lambda y: _gaussian((y - 1e6) / 0.02),
            _LOG_2PI / 2 + math.log(0.02),
        ),
        Question("widths 1e-4 … 1e4", "scales", 10, lambda y: _gaussian(y, decades[0]), 5 * _LOG_2PI),
        Question("widths 1e-2 … 1e2", "scales", 100, lambda y: _gaussian(y, decades[1]), 50 * _LOG_2PI),
        Question("ridge along an axis", "ridge", 2, lambda y: _gaussian(y, ridge), _LOG_2PI + math.log(1e-4)),
        Question("ridge, rotated", "ridge", 2, rotated, _LOG_2PI + math.log(1e-4)),
    ]  # fmt: skip


def _rings_and_bends() -> list[Question]:
    def ring(radius, width):
        return lambda y: -0.5 * ((_norm(y) - radius) / width) ** 2

    def log_ring(dim, width, moment):
        surface = math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)
        return surface + math.log(width) + _LOG_2PI / 2 + math.log(moment)

    def rosenbrock(y):
        return -100 * (y[1] - y[0] ** 2) ** 2 - (1 - y[0]) ** 2

    def banana(y):
        return _gaussian(y.at[0].divide(10).at[1].add(0.03 * y[0] ** 2 - 3))

    return [
        Question("ring, d = 2", "ring", 2, ring(5, 0.1), log_ring(2, 0.1, 5)),
        Question("ring, d = 3", "ring", 3, ring(10, 0.05), log_ring(3, 0.05, 10**2 + 0.05**2)),
        Question("ring, d = 5", "ring", 5, ring(4, 0.2), log_ring(5, 0.2, 4**4 + 6 * 4**2 * 0.2**2 + 3 * 0.2**4)),
        Question("Rosenbrock", "bend", 2, rosenbrock, math.log(math.pi / 10)),
        Question("banana", "bend", 10, banana, 5 * _LOG_2PI + math.log(10)),
    ]


def _jumps() -> list[Question]:
    def board(y):
        return _within(jnp.sum(jnp.floor(y)) % 2 == 0, _gaussian(y))

    return [
        Question("staircase", "jump", 1, lambda y: -jnp.floor(jnp.abs(y[0])), math.log(2 / (1 - math.exp(-1)))),
        Question(
            "step of e³", "jump", 5, lambda y: _gaussian(y) + jnp.where(y[0] > 1, 3.0, 0.0),
            2.5 * _LOG_2PI + math.log1p(math.expm1(3) * (1 - _below(1))),
        ),
        Question("checkerboard", "jump", 2, board, math.log(math.pi)),
    ]  # fmt: skip


def _spikes() -> list[Question]:
    def slab_and_spike(place, width):
        def log_density(y):
            spike = _gaussian(y.at[0].add(-place) / width) - y.size * math.log(width)
            return jnp.logaddexp(_gaussian(y), spike) - math.log(2) - y.size / 2 * _LOG_2PI

        return log_density

    return [
        Question("spike in a slab", "spike", 10, slab_and_spike(0, 0.1), 0.0),
        Question("spike beside", "spike", 5, slab_and_spike(3, 0.01), 0.0),
    ]


def _offsets() -> list[Question]:
    return [
        Question("offset 1e6", "offset", 2, lambda y: _gaussian(y) + 1e6, _LOG_2PI + 1e6),
        Question("offset -1e6", "offset", 2, lambda y: _gaussian(y) - 1e6, _LOG_2PI - 1e6),
    ]


def _kinks() -> list[Question]:
    def gamma(y):
        return _within(y[0] > 0, -0.9 * jnp.log(y[0]) - y[0])

    log_sphere = math.log(2) + 2.5 * math.log(math.pi) - math.lgamma(2.5)
    return [
        Question("exp(−√|x|)", "kink", 1, lambda y: -jnp.sqrt(jnp.abs(y[0])), math.log(4)),
        Question("exp(−|y|)", "kink", 5, lambda y: -_norm(y), log_sphere + math.lgamma(5)),
        Question("exp(−x⁸)", "steep", 30, lambda y: -jnp.sum(y**8), 30 * (math.log(2) + math.lgamma(9 / 8))),
        Question("Gamma(1/10)", "pole", 1, gamma, math.lgamma(0.1)),
    ]


def _gaussian(y, widths: np.ndarray | None = None):
    """−½ Σ (y_i/w_i)²."""
    return -0.5 * jnp.sum((y if widths is None else y / jnp.asarray(widths, y.dtype)) ** 2)


def _norm(y):
    """|y|, whose gradient at 0 is NaN."""
    return jnp.sqrt(jnp.sum(y**2))


def _within(inside, log_density):
    return jnp.where(inside, log_density, -jnp.inf)


def _student(degrees: float) -> Callable:
    """−(ν + d)/2 log(1 + |y|²/ν)."""
    return lambda y: -(degrees + y.size) / 2 * jnp.log1p(jnp.sum(y**2) / degrees)


def _student_log_z(degrees: float, dim: int) -> float:
    return math.lgamma(degrees / 2) - math.lgamma((degrees + dim) / 2) + dim / 2 * math.log(degrees * math.pi)


def _below(x: float) -> float:
    """The Gaussian mass below x."""
    return math.erfc(-x / math.sqrt(2)) / 2
