"""The samplers that are compared: each takes a case, a key and a budget, and gives back one or more named outcomes."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

import pidjax as pid
from pidjax import learning, metrics
from pidjax.sampling.rules import AbstractGaussianRule, AbstractRule, EndingOnDraw
from pidjax.targets.base import WithDensity, able

from . import baselines, measure
from .cases import Case
from .outcome import CLOSED, ENERGY, EXACT, FOLLMER, PIS, SURROGATE, TEMPERED, Budget, Outcome

PIS_STEPS = 100

Method = Callable[[Case, Key[Array, ""], Budget], Mapping[str, Outcome]]


def exact(case: Case, key: Key[Array, ""], budget: Budget) -> dict[str, Outcome]:
    samples, cost = measure.driven(lambda: case.exact(key, budget.num_samples))
    return {EXACT: Outcome("fresh draws of the density", samples, cost)}


def closed_form(case: Case, key: Key[Array, ""], budget: Budget) -> dict[str, Outcome]:
    """H-PID from the target's closed form or data, defaults untouched."""
    number = budget.num_samples
    solution, cost = measure.driven(lambda: pid.sample(key, case.closed, num_samples=number, progress=False))
    return {CLOSED: replace(answer(solution, cost), temporaries=None)}


def rule(step_rule: AbstractRule, num_steps: int) -> Method:
    """H-PID from the closed form by one step rule; its samples are shown without their weights."""
    name = f"{type(step_rule).__name__.lower()}, K = {num_steps}"

    def run(case, key, budget):
        key_paths, key_back, key_exact = jax.random.split(key, 3)
        used = (
            step_rule
            if able(case.closed, WithDensity) or not isinstance(step_rule, AbstractGaussianRule)
            else EndingOnDraw(step_rule)
        )
        (samples, log_weights), cost = _rollout(case, used, num_steps, budget.num_samples).measured(key_paths)
        outcome = Outcome(
            budget="closed form, log-SNR grid",
            samples=samples,
            cost=cost,
            weighted=False,
            has_density=able(case.closed, WithDensity),
            ess=float(metrics.ess(log_weights)) / log_weights.size,
            energy_evaluations=budget.num_samples if able(case.closed, WithDensity) else 0,
        )
        if able(case.closed, WithDensity):
            log_z = metrics.log_z_error(log_weights)
            outcome = replace(outcome, log_z=float(log_z.value), log_z_error=float(log_z.standard_error))
        if able(case.closed, WithDensity) and isinstance(used, AbstractGaussianRule):
            ends = case.exact(key_exact, budget.num_samples)
            forward = _backward(case.closed, pid.harmonic(), pid.log_snr_grid(num_steps), used, key_back, ends)
            outcome = replace(outcome, forward_ess=float(metrics.forward_ess(forward)) / forward.size)
        return {name: outcome}

    return run


@functools.cache
def _rollout(case: Case, step_rule: AbstractRule, num_steps: int, num_samples: int) -> measure.Program:
    """`prepare` and `rollout` as one program of the key."""
    arrays, rest = eqx.partition(case.closed, eqx.is_array)

    def run(arrays, key):
        prepared = pid.Problem(eqx.combine(arrays, rest), pid.harmonic()).prepare(pid.log_snr_grid(num_steps))
        paths = pid.rollout(prepared, step_rule, key, jnp.arange(num_samples))
        return prepared.unit.from_unit(paths.samples), paths.log_weights

    return measure.Program(functools.partial(run, arrays), jax.random.key(0))


@eqx.filter_jit
def _backward(target, protocol, grid, step_rule, key, ends):
    """log W of paths led back from exact end points, in the user's units."""
    prepared = pid.Problem(target, protocol).prepare(grid)
    return pid.backward_log_weights(prepared, step_rule, key, prepared.unit.to_unit(ends))


def energy_alone(case: Case, key: Key[Array, ""], budget: Budget) -> dict[str, Outcome]:
    """H-PID from the log-density, defaults untouched; and importance sampling from the surrogate, if it found one."""
    key_solve, key_draw, key_exact = jax.random.split(key, 3)
    target, number = pid.Density(case.log_density, case.dim), budget.num_samples
    solution, cost = measure.driven(lambda: pid.sample(key_solve, target, num_samples=number, progress=False))
    gradients = solution.num_gradient_evaluations
    fitted = int(solution.num_energy_evaluations) - gradients
    settings = solution.settings
    road = f", {settings['road']}" if "road" in settings else ""
    own = replace(
        answer(solution, cost),
        budget=f"defaults: {settings['rule']}, K = {settings['num_steps']}{road}",
        energy_evaluations=fitted,
        gradient_evaluations=gradients,
    )
    if not isinstance(solution.target, pid.Surrogate):
        return {ENERGY: own}
    draws, log_weights, forward = _importance(solution.target, key_draw, case.exact(key_exact, number))
    log_z = metrics.log_z_error(log_weights)
    return {
        ENERGY: replace(own, forward_ess=float(metrics.forward_ess(forward)) / forward.size),
        SURROGATE: Outcome(
            budget="fresh draws, the fit of the line above",
            samples=draws,
            cost=None,
            log_weights=log_weights,
            log_z=float(log_z.value),
            log_z_error=float(log_z.standard_error),
            ess=float(metrics.ess(log_weights)) / log_weights.size,
            forward_ess=float(metrics.forward_ess(forward)) / forward.size,
            energy_evaluations=fitted,
            gradient_evaluations=gradients,
        ),
    }


@eqx.filter_jit
def _importance(surrogate: pid.Surrogate, key, ends):
    draws = surrogate.mixture.sample(key, ends.shape[0])
    return draws, jax.vmap(surrogate.log_correction)(draws), jax.vmap(surrogate.log_correction)(ends)


def answer(solution: pid.Solution, cost: measure.Cost) -> Outcome:
    """The outcome of a run with the default rule, grid and protocol."""
    has_density = able(solution.target, WithDensity)

    def temporaries():
        prepared = pid.Problem(solution.target, pid.harmonic()).prepare(
            pid.log_snr_grid(solution.settings["num_steps"])
        )
        arrays, rest = eqx.partition(prepared, eqx.is_array)
        run = lambda arrays, key, indices: pid.rollout(eqx.combine(arrays, rest), pid.Ancestral(), key, indices)  # noqa: E731
        indices = jnp.arange(solution.settings["batch_size"])
        return measure.Program(run, arrays, jax.random.key(0), indices).peak_bytes

    return Outcome(
        budget=f"{solution.settings['rule']}, K = {solution.settings['num_steps']}",
        samples=solution.samples,
        cost=cost,
        log_weights=solution.log_weights,
        has_density=has_density,
        log_z=float(solution.log_z.value) if has_density else None,
        log_z_error=float(solution.log_z.standard_error) if has_density else None,
        ess=float(solution.ess) / solution.num_samples,
        energy_evaluations=int(solution.num_energy_evaluations),
        temporaries=temporaries,
        warning=_warning(solution),
    )


def _warning(solution: pid.Solution) -> str | None:
    try:
        solution.check()
    except pid.SamplingError as error:
        return str(error)
    return None


def trained_path_integral_sampler(
    keys: Key[Array, " 4"],
    target: pid.Density,
    center: Float[Array, " d"],
    scale: float,
    *,
    num_iterations: int,
    batch_size: int,
    num_samples: int,
) -> tuple[pid.Protocol, learning.Descent, pid.Solution]:
    """PIS: the same integrator at β = 0, its control a network and a gated gradient, trained for this target."""
    key_probe, key_weights, key_fit, key_solve = keys
    grid = pid.uniform_grid(PIS_STEPS)
    protocol = learning.brownian(key_probe, target, scale=scale, start=center)
    control = pid.Controlled(learning.Guided(key_weights, target, protocol))
    trained = learning.fit(
        key_fit,
        target,
        control,
        protocol=protocol,
        grid=grid,
        num_iterations=num_iterations,
        batch_size=batch_size,
    )
    solution = pid.sample(
        key_solve,
        target,
        protocol=protocol,
        grid=grid,
        rule=trained.parameters,
        num_samples=num_samples,
        progress=False,
    )
    return protocol, trained, solution


def path_integral_sampler(case: Case, key: Key[Array, ""], budget: Budget) -> dict[str, Outcome]:
    keys = jax.random.split(key, 6)
    target, num_iterations = pid.Density(case.log_density, case.dim), budget.pis_iterations_on(case.name)

    def train_and_sample():
        return trained_path_integral_sampler(
            keys[:4],
            target,
            case.center,
            case.scale,
            num_iterations=num_iterations,
            batch_size=budget.pis_batch,
            num_samples=budget.num_samples,
        )

    (protocol, trained, solution), cost = measure.driven(train_and_sample)
    key_back, key_exact = keys[4:]
    ends = case.exact(key_exact, budget.num_samples)
    forward = _backward(target, protocol, pid.uniform_grid(PIS_STEPS), trained.parameters, key_back, ends)
    sampling = budget.num_samples * PIS_STEPS
    return {
        PIS: replace(
            answer(solution, cost),
            budget=f"{num_iterations} iterations of {budget.pis_batch} paths, K = {PIS_STEPS}",
            weighted=False,
            forward_ess=float(metrics.forward_ess(forward)) / forward.size,
            gradient_evaluations=trained.num_evaluations + sampling,
            temporaries=None,
        )
    }


def schrodinger_follmer(case: Case, key: Key[Array, ""], budget: Budget) -> dict[str, Outcome]:
    draws, steps = (budget.follmer_draws, 50) if case.dim < 50 else (budget.follmer_draws // 4, 25)
    count = min(budget.num_samples, 128 * (-(-case.size // 128)))
    program = _program(baselines.schrodinger_follmer, case, num_samples=count, num_steps=steps, num_inner=draws)
    found, cost = program.measured(key)
    return {FOLLMER: of_draws(found, cost, f"{steps} steps × {draws} draws, rescaled")}


def tempered_smc(case: Case, key: Key[Array, ""], budget: Budget) -> dict[str, Outcome]:
    found, cost = _program(baselines.tempered_smc, case, num_samples=budget.num_samples).measured(key)
    return {TEMPERED: of_draws(found, cost, "ESS/N 0.9, 4 HMC moves of 8 steps")}


@functools.cache
def _program(sampler: Callable, case: Case, **options: int) -> measure.Program:
    """A baseline on a case, compiled once for all seeds."""

    def run(key):
        return sampler(key, case.log_density, case.dim, case.center, case.scale, **options)

    return measure.Program(run, jax.random.key(0))


def of_draws(found: baselines.Draws, cost: measure.Cost | None, budget: str) -> Outcome:
    weights = found.log_weights
    return Outcome(
        budget=budget,
        samples=found.samples,
        cost=cost,
        log_weights=weights,
        log_z=None if found.log_z is None else float(found.log_z),
        ess=None if weights is None else float(metrics.ess(weights)) / weights.size,
        energy_evaluations=int(found.energy_evaluations),
        gradient_evaluations=int(found.gradient_evaluations),
    )


METHODS: Mapping[str, Method] = {
    EXACT: exact,
    CLOSED: closed_form,
    "euler, K = 100": rule(pid.Euler(), 100),
    "moment, K = 20": rule(pid.Moment(), 20),
    "ancestral, K = 5": rule(pid.Ancestral(), 5),
    ENERGY: energy_alone,
    PIS: path_integral_sampler,
    FOLLMER: schrodinger_follmer,
    TEMPERED: tempered_smc,
}
"""Name → the method; a failed run's row has this name, a finished one's first row as well."""
