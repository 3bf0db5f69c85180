"""Compilation of what runs once: optimising it would take longer than running it."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def compiled_once(function: Callable[_Arguments, _Result], *, level: int = 0) -> Callable[_Arguments, _Result]:
    """The function of pytrees, compiled: where nothing is traced with little optimisation, by default with none.

    JAX takes such an option at top level only.

    Example:
        >>> compiled_once(lambda x: 2 * x)(jnp.ones(())).item()
        2.0
    """
    compile_with: Any = eqx.filter_jit
    optimised = compile_with(function)
    as_it_is = compile_with(function, compiler_options={"xla_backend_optimization_level": level})

    @wraps(function)
    def compiled(*arguments: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
        inside_of_jit = isinstance(jnp.zeros(()), Tracer)
        is_traced = inside_of_jit or any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((arguments, options)))
        return (optimised if is_traced else as_it_is)(*arguments, **options)

    return compiled
