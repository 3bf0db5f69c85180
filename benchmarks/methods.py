"""The samplers that are compared: each takes a case, a key and a budget, and gives back one or more named outcomes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

import pidjax as pid
from pidjax import metrics
from pidjax.step import EndingOnDraw

from . import baselines, measure
from .cases import Case

CLOSED = "H-PID, closed form"
ENERGY = "H-PID, energy alone"
SURROGATE = "importance sampling from its surrogate"
PIS = "PIS"
FOLLMER = "BlackJAX Schrödinger–Föllmer"
TEMPERED = "BlackJAX tempered SMC"
EXACT = "exact samples"


@dataclass(frozen=True)
class Budget:
    """How much is spent: paths of each run, seeds, training iterations of PIS and seeds it is trained with."""

    num_samples: int
    seeds: int
    pis_iterations: int
    pis_seeds: int
    follmer_draws: int

    @classmethod
    def quick(cls) -> "Budget":
        return cls(num_samples=2048, seeds=2, pis_iterations=300, pis_seeds=1, follmer_draws=32)

    @classmethod
    def full(cls) -> "Budget":
        return cls(num_samples=4096, seeds=5, pis_iterations=2000, pis_seeds=2, follmer_draws=128)

    def with_seeds(self, seeds: int) -> "Budget":
        return replace(self, seeds=seeds, pis_seeds=seeds)


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        budget: what was spent, in words.
        samples: (N, d); log_weights: (N,) or None.
        weighted: whether the distances are of the weighted samples, else of the samples as they came.
        has_density: False if the target was a data set, which has neither log Z nor energies.
        log_z, log_z_error, ess, forward_ess: where the method has them; ESS over N.
        temporaries: asks the compiler for the bytes of temporaries, if `cost` does not say.
    """

    budget: str
    samples: Float[Array, "n d"]
    cost: measure.Cost | None
    log_weights: Float[Array, " n"] | None = None
    weighted: bool = True
    has_density: bool = True
    log_z: float | None = None
    log_z_error: float | None = None
    ess: float | None = None
    forward_ess: float | None = None
    energy_evaluations: int = 0
    gradient_evaluations: int = 0
    temporaries: Callable[[], int | None] | None = None


Method = Callable[[Case, Key[Array, ""], Budget], Mapping[str, Outcome]]


def exact(case: Case, key: Key[Array, ""], budget: Budget) -> dict[str, Outcome]:
    samples, cost = measure.driven(lambda: case.exact(key, budget.num_samples))
    return {EXACT: Outcome("fresh draws of the density", samples, cost)}


def closed_form(case: Case, key: Key[Array, ""], budget: Budget) -> dict[str, Outcome]:
    """H-PID from the target's closed form or data, defaults untouched."""
    return {CLOSED: _solved(case, key, budget, case.closed)}


def rule(name: str, step_rule, num_steps: int) -> Method:
    """H-PID from the closed form by one step rule; its samples are shown without their weights."""

    def run(case, key, budget):
        outcome = _solved(case, key, budget, case.closed, rule=step_rule, num_steps=num_steps)
        return {f"{name}, K = {num_steps}": replace(outcome, weighted=False)}

    return run


def energy_alone(case: Case, key: Key[Array, ""], budget: Budget) -> dict[str, Outcome]:
    """H-PID from the log-density, defaults untouched; and plain importance sampling from the surrogate that it fitted."""
    key_solve, key_draw, key_exact = jax.random.split(key, 3)
    target = pid.Density(case.log_density, case.dim)
    solution, cost = measure.driven(lambda: pid.sample(key_solve, target, num_samples=budget.num_samples, progress=False))
    surrogate = solution.target
    draws, log_weights, forward = _importance(surrogate, key_draw, case.exact(key_exact, budget.num_samples))
    fitted = int(solution.num_energy_evaluations)
    log_z = metrics.log_z_error(log_weights)
    settings = solution.settings
    return {
        ENERGY: replace(
            _answer(solution, cost, pid.Ancestral()),
            budget=f"defaults: {settings['rule']}, K = {settings['num_steps']}",
            forward_ess=float(metrics.forward_ess(forward)) / forward.size,
        ),
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
        ),
    }


@eqx.filter_jit
def _importance(surrogate: pid.Surrogate, key, ends):
    draws = surrogate.mixture.sample(key, ends.shape[0])
    return draws, jax.vmap(surrogate.log_weight)(draws), jax.vmap(surrogate.log_weight)(ends)


def _solved(case: Case, key, budget: Budget, target, **options) -> Outcome:
    key_solve, key_back, key_exact = jax.random.split(key, 3)
    call = lambda: pid.sample(key_solve, target, num_samples=budget.num_samples, progress=False, **options)  # noqa: E731
    solution, cost = measure.driven(call)
    step_rule = options.get("rule", pid.Ancestral())
    outcome = _answer(solution, cost, step_rule)
    if outcome.has_density and not isinstance(step_rule, pid.Ancestral):
        ends = case.exact(key_exact, budget.num_samples)
        forward = _backward(target, step_rule, key_back, ends, options["num_steps"])
        outcome = replace(outcome, forward_ess=float(metrics.forward_ess(forward)) / forward.size)
    return outcome


@eqx.filter_jit
def _backward(target, step_rule, key, ends, num_steps: int):
    prepared = pid.prepare(target, pid.harmonic(), pid.log_snr(num_steps))
    return pid.backward_log_weights(prepared, step_rule, key, prepared.unit.to_unit(ends))


def _answer(solution: pid.Solution, cost: measure.Cost, step_rule) -> Outcome:
    has_density = solution.target.has_density

    def rollout_temporaries():
        prepared = pid.prepare(solution.target, pid.harmonic(), pid.log_snr(solution.settings["num_steps"]))
        drawn_last = not has_density and not isinstance(step_rule, pid.Ancestral)
        arrays, rest = eqx.partition((prepared, EndingOnDraw(step_rule) if drawn_last else step_rule), eqx.is_array)
        run = lambda arrays, key, indices: pid.rollout(*eqx.combine(arrays, rest), key, indices)  # noqa: E731
        indices = jnp.arange(solution.settings["batch_size"])
        return measure.temporaries(jax.jit(run).lower(arrays, jax.random.key(0), indices).compile())

    return Outcome(
        budget=f"{solution.settings['rule']}, K = {solution.settings['num_steps']}",
        samples=solution.samples,
        cost=cost,
        log_weights=solution.log_weights,
        has_density=has_density,
        log_z=float(solution.log_z) if has_density else None,
        log_z_error=float(solution.log_z_error) if has_density else None,
        ess=float(solution.ess) / solution.num_samples,
        energy_evaluations=int(solution.num_energy_evaluations),
        temporaries=rollout_temporaries,
    )


def schrodinger_follmer(case: Case, key: Key[Array, ""], budget: Budget) -> dict[str, Outcome]:
    draws, steps = budget.follmer_draws, 50 if case.dim < 50 else 25
    count = min(budget.num_samples, 128 * (-(-case.size // 128)))

    def run(key):
        return baselines.schrodinger_follmer(
            key, case.log_density, case.dim, case.center, case.scale, count, num_steps=steps, num_inner=draws
        )

    found, cost = measure.compiled(run, key)
    return {FOLLMER: _baseline(found, cost, f"{steps} steps × {draws} draws, rescaled")}


def tempered_smc(case: Case, key: Key[Array, ""], budget: Budget) -> dict[str, Outcome]:
    def run(key):
        return baselines.tempered_smc(key, case.log_density, case.dim, case.center, case.scale, budget.num_samples)

    found, cost = measure.compiled(run, key)
    return {TEMPERED: _baseline(found, cost, "4 HMC moves of 8 steps a temperature")}


def _baseline(found: baselines.Draws, cost: measure.Cost, budget: str) -> Outcome:
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
    "euler": rule("euler", pid.Euler(), 100),
    "moment": rule("moment", pid.Moment(), 20),
    "ancestral": rule("ancestral", pid.Ancestral(), 5),
    ENERGY: energy_alone,
    FOLLMER: schrodinger_follmer,
    TEMPERED: tempered_smc,
}
"""Name in the progress lines → the method."""
