"""Compilation of what hands on large arrays, and of what runs once: optimising it would take longer than running it."""

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class _Argument(NamedTuple):
    """In the place of a result that is an array of the arguments: the number of the leaf."""

    number: int


def compiled(function: Callable[_Arguments, _Result], **how: Any) -> Callable[_Arguments, _Result]:
    """The function of pytrees, compiled. An array of its arguments that it returns is that array: a program would copy it.

    Example:
        >>> data = jnp.ones(3)
        >>> kept, total = compiled(lambda x: (x, jnp.sum(x)))(data)
        >>> kept is data
        True
    """
    compile_with: Any = eqx.filter_jit
    of_anything: Callable[..., Any] = function

    def marked(arguments, options):
        numbers = {id(leaf): k for k, leaf in enumerate(jax.tree.leaves((arguments, options))) if eqx.is_array(leaf)}
        result = of_anything(*arguments, **options)
        return jax.tree.map(lambda leaf: _Argument(numbers[id(leaf)]) if id(leaf) in numbers else leaf, result)

    program = compile_with(marked, **how)

    @wraps(function)
    def called(*arguments: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
        leaves, result = jax.tree.leaves((arguments, options)), program(arguments, options)
        return jax.tree.map(
            lambda leaf: jnp.asarray(leaves[leaf.number]) if isinstance(leaf, _Argument) else leaf,
            result,
            is_leaf=lambda leaf: isinstance(leaf, _Argument),
        )

    return called


def compiled_once(function: Callable[_Arguments, _Result], *, level: int = 0) -> Callable[_Arguments, _Result]:
    """The function of pytrees, compiled: where nothing is traced with little optimisation, by default with none.

    JAX takes such an option at top level only.

    Example:
        >>> compiled_once(lambda x: 2 * x)(jnp.ones(())).item()
        2.0
    """
    optimised = compiled(function)
    as_it_is = compiled(function, compiler_options={"xla_backend_optimization_level": level})

    @wraps(function)
    def run(*arguments: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
        inside_of_jit = isinstance(jnp.zeros(()), Tracer)
        is_traced = inside_of_jit or any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((arguments, options)))
        return (optimised if is_traced else as_it_is)(*arguments, **options)

    return run
