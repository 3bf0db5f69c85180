"""Which of the functions of a problem on cells is not finite, and where: asked once log Z came out NaN or infinite."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .box import Box
from .cost import Cost
from .process import Process


def fault(process: Process, box: Box, end: Any, middles: Float[Array, " steps"]) -> str | None:
    """The function that is not finite at a centre where it must be, in words, with the place and the time."""
    for name, (is_bad, k, cell) in _faults(process, box, end, middles).items():
        if is_bad:
            x = box.points.reshape(-1, box.dim)[cell]
            when = "" if name == "the end" else f" and t = {float(middles[k]):g}"
            return f"{name} is NaN or infinite at x = {[round(float(value), 3) for value in x]}{when}"
    return None


@eqx.filter_jit
def _faults(
    process: Process, box: Box, end: Any, middles: Float[Array, " steps"]
) -> dict[str, tuple[Bool[Array, ""], Int[Array, ""], Int[Array, ""]]]:
    """Of each function, whether there is such a centre, and the numbers of its step and cell. V and a cost may be +∞."""
    inside = box.are_inside.ravel()
    points = box.points.reshape(-1, box.dim)

    def is_faulty(values):
        return (jnp.isnan(values) | jnp.isneginf(values)) & inside

    def at(t):
        fields = jax.vmap(lambda x: process.at(t, x))(points)
        vectors = (jnp.where(jnp.isfinite(field).all(-1), 0, jnp.nan) for field in (fields.force, fields.gauge))
        return [is_faulty(values) for values in (fields.potential, *vectors)]

    def first(faulty: Bool[Array, "steps cells"]):
        k, cell = jnp.divmod(jnp.argmax(faulty), inside.size)
        return jnp.any(faulty), k, cell

    found = jax.lax.map(at, middles)
    cost = end.function if isinstance(end, Cost) else lambda y: -end.log_density(y)
    found.append(is_faulty(jax.vmap(cost)(points))[None])
    return {name: first(faulty) for name, faulty in zip(("potential", "force", "gauge", "the end"), found)}
