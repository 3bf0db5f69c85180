"""What a descent reports of its parameters as it goes: scalars by name.

    r_i = report( θ_i, s_i, fold_in(fold_in(key, 2³² − 1), i) ),     i = 0, m, 2m, …, and at the end

The loss of iteration i is given fold_in(key, i) with i < 2³¹: it never shares a random number with a report.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key, Shaped

from .._doors.functions import in_words, outcome
from .parameters import resolve

Reports = dict[str, Shaped[np.ndarray, " m"]]
"""Values by name, and under "iteration" how many iterations there had been."""

_OF_REPORTS = np.uint32(2**32 - 1)


def given(state: Any, key: Key[Array, ""] | None) -> list[Any]:
    """What a loss or report is given with the parameters: of state and key, those that there are."""
    return [part for part in (state, key) if part is not None]


def with_report(
    reports: Reports, report: Callable, free: Any, state: Any, key: Key[Array, ""] | None, iteration: int
) -> Reports:
    """The reports and one more.

    Raises:
        ValueError: a report that cannot be traced, or is no dictionary of real scalars.

    Example:
        >>> with_report({}, lambda x: {"norm": jnp.linalg.norm(x)}, jnp.array([3.0, 4.0]), None, None, 10)
        {'iteration': array([10]), 'norm': array([5.], dtype=float32)}
    """
    values = _evaluated(report, free, state, key, jnp.array(iteration))
    new = {"iteration": np.array([iteration])} | {name: np.asarray(value)[None] for name, value in values.items()}
    return {name: np.concatenate([reports[name], one]) if reports else one for name, one in new.items()}


def kinds(report: Callable, free: Any, state: Any, key: Key[Array, ""] | None) -> str:
    """Names and dtypes of what it reports, in words; it is traced, not run."""
    return in_words(eqx.filter_eval_shape(_evaluated, report, free, state, key, jnp.array(0)))


@eqx.filter_jit
def _evaluated(report: Callable, free: Any, state: Any, key: Key[Array, ""] | None, iteration: Int[Array, ""]) -> Any:
    key = None if key is None else jax.random.fold_in(jax.random.fold_in(key, _OF_REPORTS), iteration)
    arrays, others = eqx.partition((resolve(free), *given(state, key)), eqx.is_array)

    def of_arrays(*arrays):
        return report(*eqx.combine(arrays, others))

    _check_report(outcome("report", of_arrays, *arrays, of="the parameters and what is given with them"))
    return jax.tree.map(jnp.asarray, of_arrays(*arrays))


def _check_report(found: Any) -> None:
    """Traced once a compilation: raise unless it is a dictionary of real scalars, none of them called "iteration"."""
    is_named = isinstance(found, dict) and bool(found) and all(isinstance(name, str) for name in found)
    if not (is_named and all(map(_is_real_scalar, found.values()))):
        raise ValueError(f"report returns {in_words(found)}; return a dictionary of real scalars by name")
    if "iteration" in found:
        raise ValueError("report returns a value called iteration, which counts the iterations; give it another name")


def _is_real_scalar(value: Any) -> bool:
    kinds = jnp.floating, jnp.integer, jnp.bool_
    return getattr(value, "shape", None) == () and any(jnp.issubdtype(value.dtype, kind) for kind in kinds)
