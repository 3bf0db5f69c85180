"""The samplers that are compared, each a function of (key, target, evaluations) to an outcome.

`evaluations`, of log p̃ with or without its gradient, is what H-PID spent on the same target with the same seed: each other
sampler takes settings by which it spends about so many. How many it did spend is in its outcome.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

import pidjax as pid
from pidjax import metrics, tempering
from pidjax.tempering.moves import num_leapfrogs

from .. import baselines
from ..methods import PIS_STEPS, of_draws, trained_path_integral_sampler
from ..outcome import FOLLMER, PIS, TEMPERED, Budget, Outcome
from .annealed import annealed, pilot
from .targets import Target

HPID, TENFOLD_HPID, NUTS, LAPLACE = "H-PID", "H-PID, ten times the paths", "BlackJAX NUTS", "annealing from Laplace"
NUM_SAMPLES = 4096
TOLD = "told centre and scale"

MOVES_AND_ENDS = 4 * 8 + 1 + 2
"""Evaluations for each particle and temperature of `baselines.tempered_smc`."""
CHAINS, GRADIENTS_PER_TRANSITION = 8, 16
FOLLMER_STEPS, FOLLMER_SAMPLES = 25, 256


@dataclass(frozen=True, eq=False)
class Problem:
    """A target, and what some samplers are told of it."""

    target: Target
    center: Float[Array, " d"]
    scale: float

    @classmethod
    def of(cls, target: Target) -> "Problem":
        return cls(target, *target.place())


Rival = Callable[[Key[Array, ""], Problem, int], Outcome]


def about(number: float) -> int:
    """To four binary digits, so that seeds of nearly equal budgets share their compiled programs.

    Example:
        >>> about(1000), about(1010), about(7)
        (1024, 1024, 7)
    """
    unit = 2 ** max(0, math.floor(math.log2(max(number, 1))) - 3)
    return max(1, round(number / unit)) * unit


def path_integral_diffusion(num_samples: int) -> Rival:
    """H-PID from the log-density, defaults untouched but for the number of samples."""

    def run(key, problem, evaluations):
        solution = pid.sample(key, problem.target.density, num_samples=num_samples, progress=False)
        gradients = solution.num_gradient_evaluations
        words = ", ".join(f"{name} {value}" for name, value in solution.settings.items())
        return of_solution(solution, words, int(solution.num_energy_evaluations) - gradients, gradients)

    return run


def of_solution(solution: pid.Solution, budget: str, energies: int, gradients: int) -> Outcome:
    """Paths to given ends are to a choice of the particles that climbed; expectations, as here, are those of all of them."""
    problems = solution.problems()
    pinned = solution.pinned and solution.reached is not None
    weighted = solution.reached.population if pinned else solution
    return Outcome(
        budget=budget,
        samples=weighted.samples,
        cost=None,
        log_weights=weighted.log_weights,
        log_z=float(solution.log_z.value),
        log_z_error=float(solution.log_z.standard_error),
        ess=float(solution.ess) / solution.num_samples,
        energy_evaluations=energies,
        gradient_evaluations=gradients,
        warning=", ".join(found.name for found, _ in problems) if problems else None,
    )


def tempered_smc(key: Key[Array, ""], problem: Problem, evaluations: int) -> Outcome:
    """A run of 64 particles, not counted, tells the number of temperatures, and so how many particles can be paid for."""
    pilot_key, key = jax.random.split(key)
    temperatures = int(_tempered_smc(pilot_key, problem, 64).energy_evaluations) / (2 * 64)
    number = about(max(64, evaluations / (MOVES_AND_ENDS * temperatures)))
    words = f"{TOLD}, {number} particles, ESS/N 0.9, 4 HMC moves of 8 steps"
    return of_draws(_tempered_smc(key, problem, number), None, words)


def _tempered_smc(key, problem: Problem, num_samples: int) -> baselines.Draws:
    return _compiled(baselines.tempered_smc, key, problem, num_samples=num_samples)


def schrodinger_follmer(key: Key[Array, ""], problem: Problem, evaluations: int) -> Outcome:
    draws = about(max(8, evaluations / (FOLLMER_SAMPLES * FOLLMER_STEPS)))
    found = _compiled(
        baselines.schrodinger_follmer,
        key,
        problem,
        num_samples=FOLLMER_SAMPLES,
        num_steps=FOLLMER_STEPS,
        num_inner=draws,
    )
    return of_draws(found, None, f"{TOLD}, {FOLLMER_SAMPLES} samples, {FOLLMER_STEPS} steps × {draws} draws")


def _compiled(sampler: Callable, key, problem: Problem, **sizes: int) -> baselines.Draws:
    center, scale = problem.center, jnp.asarray(problem.scale)
    return _sampled(sampler, key, problem.target.density, center, scale, tuple(sizes.items()))


@eqx.filter_jit
def _sampled(sampler, key, density, center, scale, sizes):
    return sampler(key, density.log_density, density.dim, center, scale, **dict(sizes))


def nuts(key: Key[Array, ""], problem: Problem, evaluations: int) -> Outcome:
    """A third of the evaluations are for the adaptation, if a transition takes 16 gradients."""
    num_warmup = about(max(100, evaluations / (3 * CHAINS * GRADIENTS_PER_TRANSITION)))
    found = baselines.nuts(
        key,
        problem.target.density.log_density,
        problem.target.dim,
        problem.center,
        problem.scale,
        NUM_SAMPLES,
        num_gradients=evaluations,
        num_warmup=num_warmup,
        num_chains=CHAINS,
    )
    return of_draws(found, None, f"{TOLD}, {CHAINS} chains, {num_warmup} transitions of adaptation")


def annealing_from_laplace(key: Key[Array, ""], problem: Problem, evaluations: int) -> Outcome:
    """As many levels as particles, of what the search for modes and the pilot have left, at least half."""
    key_modes, key_pilot, key_run = jax.random.split(key, 3)
    density = problem.target.density
    modes = tempering.locate(key_modes, density)
    mixture = modes.laplace(by_mass=True)
    short = pilot(key_pilot, density, mixture)
    beforehand = int(modes.evaluations + short.evaluations)
    left = max(evaluations - beforehand, evaluations / 2)
    number = about(math.sqrt(left / (1 + float(jnp.mean(num_leapfrogs(short.steps))))))
    places = (jnp.arange(number) + 0.5) / number
    known = (jnp.arange(short.steps.size) + 0.5) / short.steps.size
    steps = jnp.interp(places, known, short.steps).astype(short.steps.dtype)
    found = annealed(key_run, density, mixture, steps, number)
    log_z = metrics.log_z_error(found.log_weights)
    return Outcome(
        budget=f"{len(mixture.means)} modes, {number} particles and levels",
        samples=found.samples,
        cost=None,
        log_weights=found.log_weights,
        log_z=float(log_z.value),
        log_z_error=float(log_z.standard_error),
        ess=float(metrics.ess(found.log_weights)) / number,
        gradient_evaluations=beforehand + int(found.evaluations),
    )


def path_integral_sampler(key: Key[Array, ""], problem: Problem, evaluations: int) -> Outcome:
    """Trained as in the suite `core`: with as few evaluations as the others have it learns nothing."""
    budget = Budget.full()
    _, trained, solution = trained_path_integral_sampler(
        jax.random.split(key, 4),
        problem.target.density,
        problem.center,
        problem.scale,
        num_iterations=budget.pis_iterations,
        batch_size=budget.pis_batch,
        num_samples=NUM_SAMPLES,
    )
    words = f"{TOLD}, {budget.pis_iterations} iterations of {budget.pis_batch} paths, K = {PIS_STEPS}"
    return of_solution(solution, words, NUM_SAMPLES, (trained.num_evaluations or 0) + NUM_SAMPLES * PIS_STEPS)


RIVALS: Mapping[str, Rival] = {
    TEMPERED: tempered_smc,
    NUTS: nuts,
    FOLLMER: schrodinger_follmer,
    LAPLACE: annealing_from_laplace,
}
"""Name → the sampler, of those that run on every target."""

FEW_DIMENSIONS: Mapping[str, Rival] = {PIS: path_integral_sampler}
"""Those that run up to `MOST_DIMENSIONS`, in the full form."""
MOST_DIMENSIONS = 10
