"""Compilation of what runs once, on few numbers: optimising it would take longer than running it."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer


def compiled_once(function: Callable) -> Callable:
    """The function of pytrees, compiled: without optimisation where nothing is traced; JAX takes such an option at top level only.

    Example:
        >>> compiled_once(lambda x: 2 * x)(jnp.ones(())).item()
        2.0
    """
    optimised = eqx.filter_jit(function)
    as_it_is = eqx.filter_jit(function, compiler_options={"xla_backend_optimization_level": 0})

    @wraps(function)
    def compiled(*arguments: Any) -> Any:
        inside_of_jit = isinstance(jnp.zeros(()), Tracer)
        is_traced = inside_of_jit or any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(arguments))
        return (optimised if is_traced else as_it_is)(*arguments)

    return compiled
