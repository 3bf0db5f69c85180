"""The suite `control`: stochastic optimal control where the answer is known, and the controller that others use.

    dx = ( −∇Σ κ_i (x_i² − 1)² + u ) dt + dW from 0,      cost ½∫|u|² dt + Σ ν_i (x_i² − 1)² at t = 1,

in ten dimensions, κ = 5, ν = 3 for three of them, else 1. It factorises, so that u* and log Z are those of grids on the line;
`path_integral` is not told:

    grids          the control of half the cells and steps beside the grids' own: squared error, log Z
    paths          `path_integral` at points of optimal paths: squared error, log Z

In the plane, across a vortex and around an obstacle to a goal,

    closed loop    the cost beyond the least under the grid's u*, under `path_integral` and under model-predictive path integral
                   control at each step, and under the control that knows neither vortex nor obstacle

Source: Domingo-Enrich et al., *Stochastic optimal control matching*, arXiv 2312.02027, for the problem; Williams, Aldrich &
Theodorou, *Model predictive path integral control*, arXiv 1509.01149, for the rival.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from pidjax.general import Box, Cost, Process, Solved, path_integral, solve, steer

from .ledger import Ledger
from .protocols import shown

KINDS = ((5.0, 3.0, 3), (1.0, 1.0, 7))
"""κ, ν, and coordinates that have them."""
DIM = sum(copies for *_, copies in KINDS)
TIMES = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99)


class Wells(eqx.Module):
    """The problem with its answer: a grid for each kind of coordinate."""

    grids: list[Solved]

    @classmethod
    def solved(cls, cells: int = 400, num_steps: int = 1000) -> "Wells":
        def on_line(kappa, nu):
            well = Process(force=lambda t, x: -4 * kappa * x * (x**2 - 1))
            return solve(well, Box([-2.5], [2.5], (cells,)), _end(nu), num_steps=num_steps)

        return cls([on_line(kappa, nu) for kappa, nu, _ in KINDS])

    @property
    def log_z(self) -> Float[Array, ""]:
        return sum(copies * grid.log_z for (*_, copies), grid in zip(KINDS, self.grids))

    def control(self, t: Float[Array, ""], x: Float[Array, " d"]) -> Float[Array, " d"]:
        """u*."""
        parts = jnp.split(x, [KINDS[0][2]])
        along = [jax.vmap(grid.control, (None, 0))(t, part[:, None]) for grid, part in zip(self.grids, parts)]
        return jnp.concatenate(along)[:, 0]

    def paths(self, key: Key[Array, ""], number: int) -> Float[Array, "n times d"]:
        """Optimal ones, exactly."""
        parts = [
            grid.sample(jax.random.fold_in(key, index), number * copies)[..., 0].reshape(number, copies, -1)
            for index, ((*_, copies), grid) in enumerate(zip(KINDS, self.grids))
        ]
        return jnp.swapaxes(jnp.concatenate(parts, axis=1), 1, 2)


def _each(index: int) -> Float[Array, " d"]:
    return jnp.concatenate([jnp.full(kind[2], kind[index]) for kind in KINDS])


def _end(nu) -> Cost:
    return Cost(lambda y: jnp.sum(nu * (y**2 - 1) ** 2))


def whole() -> tuple[Process, Cost]:
    """The problem in ten dimensions, as it is given to those who are not told that it factorises."""
    kappa = _each(0)
    return Process(force=lambda t, x: -4 * kappa * x * (x**2 - 1)), _end(_each(1))


def points(key: Key[Array, ""], wells: Wells, number: int) -> tuple[Float[Array, " times"], Float[Array, "times n d"]]:
    """Times, and states of optimal paths there."""
    times = jnp.array(TIMES)
    numbers = jnp.round(times * wells.grids[0].num_steps).astype(int)
    return times, jnp.swapaxes(wells.paths(key, number)[:, numbers], 0, 1)


def error(times, found: Float[Array, "times n d"], known: Float[Array, "times n d"]) -> float:
    """∫ E|u − u*|² dt over ∫ E|u*|² dt."""
    squares = [jnp.trapezoid(jnp.mean(jnp.sum(u**2, -1), 1), times) for u in (found - known, known)]
    return float(squares[0] / squares[1])


def of_grids(number: int = 100) -> dict[str, Any]:
    coarse, fine = Wells.solved(200, 500), Wells.solved()
    times, states = points(jax.random.key(0), fine, number)
    found, known = (jax.vmap(jax.vmap(one.control, (None, 0)))(times, states) for one in (coarse, fine))
    cells = sum(grid.backward.size for grid in coarse.grids)
    row = {"method": "grids of 200 cells, 500 steps", "squared error": error(times, found, known)}
    return row | {"log Z error": float(coarse.log_z - fine.log_z), "evaluations": 2 * cells}


def of_paths(num_paths: int, number: int = 8, num_steps: int = 200) -> dict[str, Any]:
    """The evaluations are those of one point at t = 0, and at most of any."""
    wells, (process, cost) = Wells.solved(), whole()
    times, states = points(jax.random.key(0), wells, number)

    @jax.jit
    def at(key, t, x):
        return path_integral(key, process, None, cost, t, x, num_samples=num_paths, num_steps=num_steps).control.value

    keys = jax.random.split(jax.random.key(1), (times.size, number))
    found = jnp.stack(
        [jnp.stack([at(*one) for one in zip(keys[k], [t] * number, states[k])]) for k, t in enumerate(times)]
    )
    known = jax.vmap(jax.vmap(wells.control, (None, 0)))(times, states)
    log_z = steer(
        jax.random.key(2), process, None, cost, start=jnp.zeros(DIM), num_samples=num_paths, num_steps=1000
    ).log_z
    row = {"method": f"{num_paths} free paths a point", "squared error": error(times, found, known)}
    return row | {"log Z error": float(log_z.value - wells.log_z), "evaluations": num_paths * (num_steps + 1)}


GOAL, OBSTACLE = jnp.array([1.5, 0.0]), jnp.array([0.0, 0.2])
CROSSING = Process(
    potential=lambda t, x: 20 * jnp.exp(-4 * jnp.sum((x - OBSTACLE) ** 2)),
    force=lambda t, x: 2 * jnp.exp(-0.5 * x @ x) * jnp.stack([-x[1], x[0]]),
)
TO_GOAL = Cost(lambda y: 4 * jnp.sum((y - GOAL) ** 2))
BEGIN = -GOAL


def towards(t: Float[Array, ""], x: Float[Array, " d"]) -> Float[Array, " d"]:
    """The optimal control where there is neither vortex nor obstacle: what `path_integral` runs its paths under."""
    return 8 * (GOAL - x) / (9 - 8 * t)


class Predictive(NamedTuple):
    """Model-predictive path integral control: rollouts around a plan of controls, which is averaged, taken up and shifted.

    U_j ← U_j + Σ_i w_i ε_ij/h, a mean over near steps,      log w = −Σ_j ( h V + U_jᵀε_ij + ½h|U_j|² ) − c
    """

    process: Process
    cost: Cost
    num_steps: int
    num_paths: int
    width: int

    def start(self, x: Float[Array, " d"]) -> Float[Array, "steps d"]:
        return jnp.zeros((self.num_steps, x.size))

    def __call__(self, key, k, t, x, plan) -> tuple[Float[Array, " d"], Float[Array, "steps d"]]:
        """The control of step k, and the plan for the next."""
        h, numbers = 1 / self.num_steps, jnp.arange(self.num_steps)
        noise = jnp.sqrt(h) * jax.random.normal(key, (self.num_paths, *plan.shape))

        def log_weight(noise):
            def advance(carry, indexed):
                x, total = carry
                number, u, kick = indexed
                now, is_on = self.process.at(h * number.astype(x.dtype), x), number < self.num_steps
                paid = h * now.potential + u @ kick + 0.5 * h * u @ u
                after = x + (now.force + u) * h + kick
                return (jnp.where(is_on, after, x), total - jnp.where(is_on, paid, 0)), None

            end, total = jax.lax.scan(advance, (x, jnp.zeros(())), (k + numbers, plan, noise))[0]
            return total - self.cost.function(end)

        weights = jax.nn.softmax(jax.vmap(log_weight)(noise))
        near = jnp.maximum(1 - jnp.abs(numbers[:, None] - numbers[None]) / self.width, 0)
        near = jnp.where((k + numbers < self.num_steps)[None], near, 0)
        shares = near / jnp.maximum(jnp.sum(near, axis=1, keepdims=True), 1)
        plan = plan + shares @ jnp.tensordot(weights, noise, 1) / h
        return plan[0], jnp.roll(plan, -1, axis=0).at[-1].set(0)


def closed_loop(
    feedback: Callable, memory: Any, num_steps: int, num_runs: int, key: Key[Array, ""]
) -> Float[Array, " runs"]:
    """½∫|u|² dt + ∫V dt + c of each run across, and ∫uᵀdW, which has no mean: −log W, of u* nearly constant."""
    h = 1 / num_steps

    def run(key):
        def advance(carry, k):
            x, paid, memory = carry
            t = h * k.astype(x.dtype)
            key_control, key_noise = jax.random.split(jax.random.fold_in(key, k))
            u, memory = feedback(key_control, k, t, x, memory)
            now, noise = CROSSING.at(t, x), jnp.sqrt(h) * jax.random.normal(key_noise, x.shape)
            paid = paid + h * now.potential + 0.5 * h * u @ u + u @ noise
            return (x + (now.force + u) * h + noise, paid, memory), None

        x, paid, _ = jax.lax.scan(advance, (BEGIN, jnp.zeros(()), memory), jnp.arange(num_steps))[0]
        return paid + TO_GOAL.function(x)

    return jax.jit(lambda keys: jax.lax.map(run, keys, batch_size=8))(jax.random.split(key, num_runs))


def of_controllers(num_paths: int, num_runs: int, num_steps: int = 100, width: int = 20) -> list[dict[str, Any]]:
    """On the same noise; evaluations are those of one step's control, at most, and of the grid those of all."""
    grid = solve(CROSSING, Box([-4.0, -4.0], [4.0, 4.0], (128, 128)), TO_GOAL, start=BEGIN, num_steps=200)
    rival = Predictive(CROSSING, TO_GOAL, num_steps, num_paths, width)

    def by_paths(key, k, t, x, memory):
        run = {"num_samples": num_paths, "num_steps": num_steps}
        return path_integral(key, CROSSING, towards, TO_GOAL, t, x, **run).control.value, memory

    controllers = {
        "u*": (lambda key, k, t, x, memory: (grid.control(t, x), memory), None, grid.backward.size),
        "path_integral": (by_paths, None, num_paths * (num_steps + 1)),
        "model-predictive": (rival, rival.start(BEGIN), num_paths * num_steps),
        "without vortex and obstacle": (lambda key, k, t, x, memory: (towards(t, x), memory), None, 0),
    }
    rows = []
    for name, (feedback, memory, evaluations) in controllers.items():
        costs = closed_loop(feedback, memory, num_steps, num_runs, jax.random.key(3))
        row = {"method": f"closed loop, {name}", "cost beyond the least": float(jnp.mean(costs) + grid.log_z)}
        rows.append(row | {"s.e.": float(jnp.std(costs) / jnp.sqrt(num_runs)), "evaluations": evaluations})
    return rows


def closed(part: str, paths: int, runs: int) -> Iterator[dict[str, Any]]:
    for row in of_controllers(paths, runs):
        yield from shown(row)


def run_control(ledger: Ledger, *, quick: bool) -> None:
    """All rows, printed as they come."""
    ledger.run("rows", lambda part: shown(of_grids()), part="grids")
    for number in (256,) if quick else (4096, 16_384):
        ledger.run("rows", lambda part, paths: shown(of_paths(paths)), part="paths", paths=number)
    for number in (64,) if quick else (64, 1024):
        ledger.run("rows", closed, part="closed loop", paths=number, runs=16 if quick else 64)
