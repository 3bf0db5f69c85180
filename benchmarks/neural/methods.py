"""What is compared: each a function of (key, problem, H-PID's solution, budget) to a run, or to why there is none.

PIS and the regression on inner estimates are told centre and scale of the target, but for PIS in raw coordinates; H-PID and its
corrections are told nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

import pidjax as pid
from pidjax import learning

from ..densities.rivals import Problem
from .budget import Budget
from .inner import InnerRegression

HPID, MOMENT = "H-PID", "H-PID, moment steps"
CORRECTION_STEPS = 20
COUNTS, FITTING = (64, 256, 1024), 20
"""Numbers of Gaussians that the end points of a climb are fitted by, and the seed of these fits."""
INNER_DRAWS = 64
BROAD = 1.5
"""Standard deviation of the Gaussian whose draws the inner estimates weigh, over the target's."""


@dataclass(frozen=True, eq=False)
class Run:
    """What a method came to.

    Attributes:
        solution: of the rule as it is at the end.
        settings: in words.
        energy_evaluations, gradient_evaluations: in all, the fit, training and the last samples included.
        descent: the training, if there was any.
        evaluations_at: how many of these were spent when a report of the training was made.
    """

    solution: pid.Solution
    settings: str
    energy_evaluations: int
    gradient_evaluations: int
    descent: learning.Descent | None = None
    evaluations_at: tuple[int, ...] = ()


Method = Callable[[Key[Array, ""], Problem, pid.Solution, Budget], Run | str]


def solve(key: Key[Array, ""], problem: Problem, budget: Budget) -> pid.Solution:
    """H-PID from the log-density alone, defaults untouched."""
    return pid.sample(key, problem.target.density, num_samples=budget.num_samples, progress=False)


def left_alone(key: Key[Array, ""], problem: Problem, solution: pid.Solution, budget: Budget) -> Run:
    gradients = solution.num_gradient_evaluations
    words = ", ".join(f"{name} {value}" for name, value in solution.settings.items())
    return Run(solution, words, int(solution.num_energy_evaluations) - gradients, gradients)


def moment_steps(key: Key[Array, ""], problem: Problem, solution: pid.Solution, budget: Budget) -> Run | str:
    """The rule that is to be corrected, as it is."""
    surrogate = start(problem, solution)
    if surrogate is None:
        return without_surrogate(solution)
    energies, gradients = fitted(solution)
    explicit = _sampled(key, surrogate, pid.Moment(), budget)
    return Run(explicit, f"K = {CORRECTION_STEPS}", energies + budget.num_samples, gradients)


def corrected(loss_of: Callable[[learning.Buffer], learning.AbstractLoss], *, buffered: bool, slopes: bool) -> Method:
    """Moment steps to the surrogate, with a network that is trained by a loss.

    Args:
        loss_of: the loss, given H-PID's samples.
        buffered: whether it uses them, so that they are counted.
        slopes: whether what it evaluates is the gradient.
    """

    def run(key, problem, solution, budget):
        surrogate = start(problem, solution)
        if surrogate is None:
            return without_surrogate(solution)
        key_weights, key_fit, key_solve = jax.random.split(key, 3)
        rule = pid.Corrected(pid.Moment(), learning.Network(key_weights, problem.target.dim))
        loss, number = loss_of(learning.Buffer.of(solution)), budget.correction_iterations
        grid = pid.log_snr_grid(CORRECTION_STEPS)
        descent = _trained(key_fit, problem, surrogate, rule, pid.harmonic(), grid, loss, number, budget.batch_size)
        energies, gradients = fitted(solution)
        energies += budget.num_samples if buffered else 0
        return Run(
            _sampled(key_solve, surrogate, descent.parameters, budget),
            f"{number} iterations of {budget.batch_size}, K = {CORRECTION_STEPS}",
            energies + (0 if slopes else descent.num_evaluations) + budget.num_samples,
            gradients + (descent.num_evaluations if slopes else 0),
            descent,
            _counted(descent, loss, energies + gradients, budget.batch_size, CORRECTION_STEPS, 0),
        )

    return run


def start(problem: Problem, solution: pid.Solution) -> pid.Surrogate | None:
    """The surrogate that was sampled, without what is there for its weights only; of a climb, one of its end points.

    Of these three quarters are fitted by many Gaussians, and the others choose: that mixture, or the one before the climb. It
    is the same for all methods.
    """
    if isinstance(solution.target, pid.Surrogate):
        return learning.undefended(solution.target)
    if not solution.pinned:
        return None
    key_ends, key_fit = jax.random.split(jax.random.key(FITTING))
    ends = solution.resample(key_ends)
    known, held_out = jnp.split(ends, [3 * len(ends) // 4])
    found = [
        pid.Surrogate(problem.target.density, pid.fit_local_gaussians(key_fit, pid.Samples(known), held_out, COUNTS))
    ]
    if solution.fit is not None:
        found.append(learning.undefended(pid.Surrogate(problem.target.density, solution.fit.mixture)))
    return max(found, key=lambda one: float(jnp.mean(jax.vmap(one.mixture.log_density)(held_out))))


def without_surrogate(solution: pid.Solution) -> str:
    road = solution.settings.get("road")
    return "H-PID has no surrogate to correct" + (f", it took {road}" if road else "")


def fitted(solution: pid.Solution) -> tuple[int, int]:
    """Energies and gradients that H-PID spent before its samples; a climb's are its own."""
    gradients = solution.num_gradient_evaluations
    weighed = 0 if solution.pinned else solution.num_samples
    return int(solution.num_energy_evaluations) - gradients - weighed, gradients


def path_integral_sampler(*, guided: bool = True, beta: float = 0.0, raw: bool = False) -> Method:
    """The reference has stiffness β, in units of the target's scale, or is W from 0; the control a gated gradient or none."""

    def run(key, problem, solution, budget):
        key_weights, key_fit, key_solve = jax.random.split(key, 3)
        protocol = pid.harmonic(beta=0.0, noise_scale=1.0) if raw else _reference(problem, beta)
        grid, density, loss = pid.uniform_grid(budget.sampler_steps), problem.target.density, learning.RelativeEntropy()
        network = learning.Guided(key_weights, density, protocol) if guided else _network(key_weights, problem)
        rule, number = pid.Controlled(network), budget.sampler_iterations
        descent = _trained(key_fit, problem, density, rule, protocol, grid, loss, number, budget.batch_size)
        per_sample = budget.sampler_steps if guided else 0
        return Run(
            _controlled(key_solve, problem, descent, protocol, grid, budget),
            f"{number} iterations of {budget.batch_size}, K = {budget.sampler_steps}",
            budget.num_samples,
            descent.num_evaluations + budget.num_samples * per_sample,
            descent,
            _counted(descent, loss, 0, budget.batch_size, budget.sampler_steps, int(guided)),
        )

    return run


def inner_regression(key: Key[Array, ""], problem: Problem, solution: pid.Solution, budget: Budget) -> Run:
    key_weights, key_fit, key_solve = jax.random.split(key, 3)
    protocol, grid = _reference(problem, 0.0), pid.uniform_grid(budget.sampler_steps)
    density, number = problem.target.density, budget.correction_iterations
    loss = InnerRegression(pid.LocalDraws(density, broad(problem), INNER_DRAWS), budget.batch_size)
    rule = pid.Controlled(_network(key_weights, problem))
    descent = _trained(key_fit, problem, density, rule, protocol, grid, loss, number, budget.batch_size)
    return Run(
        _controlled(key_solve, problem, descent, protocol, grid, budget),
        f"{number} iterations of {budget.batch_size} states × {INNER_DRAWS} draws, K = {budget.sampler_steps}",
        descent.num_evaluations + budget.num_samples,
        0,
        descent,
        _counted(descent, loss, 0, budget.batch_size, budget.sampler_steps, 0),
    )


def broad(problem: Problem) -> pid.GaussianMixture:
    """Where the inner estimates draw from."""
    return pid.GaussianMixture.isotropic(problem.center[None], (BROAD * problem.scale) ** 2)


def _network(key, problem: Problem) -> learning.Network:
    return learning.Network(key, problem.target.dim, dtype=problem.center.dtype)


def _reference(problem: Problem, beta: float) -> pid.Protocol:
    place, scale = problem.center, jnp.asarray(problem.scale, problem.center.dtype)
    return pid.harmonic(beta=beta / scale**2, centre=place, start=place, noise_scale=scale)


def _trained(key, problem: Problem, target, rule, protocol, grid, loss, num_iterations: int, batch_size: int):
    key_ends, key = jax.random.split(key)
    ends: Float[Array, "n d"] | None = None
    if problem.target.draw is not None:
        ends = problem.target.draw(key_ends, batch_size)
    return learning.fit(
        key,
        target,
        rule,
        protocol=protocol,
        grid=grid,
        loss=loss,
        num_iterations=num_iterations,
        batch_size=batch_size,
        report_every=max(1, num_iterations // 25),
        ends=ends,
        progress=False,
    )


def _sampled(key, surrogate: pid.Surrogate, rule, budget: Budget) -> pid.Solution:
    grid = pid.log_snr_grid(CORRECTION_STEPS)
    return pid.sample(key, surrogate, rule=rule, grid=grid, num_samples=budget.num_samples, progress=False)


def _controlled(key, problem: Problem, descent, protocol, grid, budget: Budget) -> pid.Solution:
    return pid.sample(
        key,
        problem.target.density,
        protocol=protocol,
        grid=grid,
        rule=descent.parameters,
        num_samples=budget.num_samples,
        progress=False,
    )


def _counted(descent, loss, before: int, batch_size: int, num_steps: int, per_step: int) -> tuple[int, ...]:
    iterations = np.asarray(descent.reports["iteration"]).tolist()
    spent = (loss.num_evaluations(number, batch_size, num_steps, per_step) if number else 0 for number in iterations)
    return tuple(before + number for number in spent)


METHODS: Mapping[str, Method] = {
    HPID: left_alone,
    MOMENT: moment_steps,
    "H-PID + regression on bridges": corrected(learning.Regression, buffered=True, slopes=True),
    "H-PID + log-variance": corrected(lambda _: learning.LogVariance(), buffered=False, slopes=False),
    "H-PID + trajectory balance": corrected(learning.TrajectoryBalance, buffered=True, slopes=False),
    "H-PID + relative entropy": corrected(lambda _: learning.RelativeEntropy(), buffered=False, slopes=True),
    "regression on inner estimates": inner_regression,
    "PIS": path_integral_sampler(),
    "PIS, no gradient": path_integral_sampler(guided=False),
    "PIS, harmonic reference": path_integral_sampler(beta=1.0),
    "PIS, raw coordinates": path_integral_sampler(raw=True),
}
"""Name → the method; the last few take the longest."""
LONG = tuple(METHODS)[-3:]
