"""A user's function at the door: traced once, never run, and what would go wrong in silence or in riddles is said there."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer

from .bounds import read_past_the_end
from .checks import check_kind


class HostOnly(ValueError):
    """What works with numbers, on the host, is called where there are none."""


_UNTRACEABLE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
    HostOnly,
)


UNKNOWN = object()
"""What a function returns that cannot be traced."""


def check_on_host(user: str, *values: Any) -> None:
    """Raise if one of the values is being traced."""
    if any(isinstance(value, Tracer | jax.ShapeDtypeStruct) for value in values):
        raise HostOnly(f"{user} takes numbers, which jit and vmap do not have: call it outside of them")


def outcome(
    name: str, function: Any, *arguments: Any, of: str = "one point", where: str = "", on_host: bool = False
) -> Any:
    """The shapes and dtypes of what a function returns for arguments like these.

    Args:
        of: what the arguments are, for the messages.
        where: what to pass instead, where the function reads past the end of them.
        on_host: the function may take numbers out of them; nothing is then known of it, and UNKNOWN returned.

    Raises:
        ValueError: it is no function, cannot take the arguments, takes numbers out of them, or reads past their end.

    Example:
        >>> outcome("log_density", lambda y: y @ y, jnp.zeros(3))
        ShapeDtypeStruct(shape=(), dtype=float32)
        >>> outcome("f", lambda y: y[0] + y[3], jnp.zeros(3))
        Traceback (most recent call last):
        ValueError: f reads index (3,) of an array of shape (3,), which JAX moves to the nearest end; let it read inside
    """
    check_kind(name, function, Callable, f"a function of {of}")
    if isinstance(function, type):
        raise ValueError(f"{name} is the class {function.__name__}; pass an instance, or a function of {of}")
    try:
        traced, found = jax.make_jaxpr(function, return_shape=True)(*arguments)
    except _UNTRACEABLE as error:
        if on_host:
            return UNKNOWN
        raise ValueError(
            f"{name} cannot be traced: it takes numbers out of what it is given, as `if`, `float` or NumPy do. Write it with "
            "jax.numpy, and jnp.where in the place of `if`"
        ) from error
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise ValueError(f"{name} fails for {of}, {_given(arguments)}, with {type(error).__name__}: {error}") from error
    read = read_past_the_end(traced)
    if read is not None:
        shape, index = read
        raise ValueError(
            f"{name} reads index {index} of an array of shape {shape}, which JAX moves to the nearest end; "
            + (where or "let it read inside")
        )
    return found


@eqx.filter_jit
def evaluate(function: Callable, *arguments: Any) -> Any:
    """function(*arguments), traced and lowered once for all the places of compiled programs that call it."""
    return function(*arguments)


def check_array(name: str, function: Any, *arguments: Any, of: str = "one point", on_host: bool = False) -> None:
    """Raise unless a function returns one array; as `outcome`.

    Example:
        >>> check_array("function", lambda y: (y, y), jnp.zeros(3))
        Traceback (most recent call last):
        ValueError: function returns (float32[3], float32[3]) for one point; return one array
    """
    found = outcome(name, function, *arguments, of=of, on_host=on_host)
    if found is not UNKNOWN and not hasattr(found, "shape"):
        raise ValueError(f"{name} returns {in_words(found)} for {of}; return one array")


def check_scalar(name: str, function: Any, *arguments: Any, of: str = "one point", where: str = "") -> None:
    """Raise unless a function returns one floating scalar; as `outcome`.

    Example:
        >>> check_scalar("log_density", lambda y: y, jnp.zeros(3))
        Traceback (most recent call last):
        ValueError: log_density returns float32[3] for one point, float32[3]; return one floating scalar, of shape ()
    """
    found = outcome(name, function, *arguments, of=of, where=where)
    if getattr(found, "shape", None) != () or not jnp.issubdtype(found.dtype, jnp.floating):
        raise ValueError(
            f"{name} returns {in_words(found)} for {of}, {_given(arguments)}; return one floating scalar, of shape ()"
        )


def check_gives(name: str, function: Callable, arguments: tuple, kind: Any, wanted: str, ndim: int = 0) -> None:
    """Raise unless a function of these arguments gives one array of a kind, and reads inside of them; it is not run."""
    found = outcome(name, lambda *arguments: jnp.asarray(function(*arguments)), *arguments, of="arguments")
    if len(found.shape) != ndim or not jnp.issubdtype(found.dtype, kind):
        raise ValueError(f"{name} gives {in_words(found)}; let it give {wanted}")


def _given(arguments: tuple) -> str:
    return in_words(arguments[0] if len(arguments) == 1 else arguments)


def in_words(tree: Any) -> str:
    """Shapes and dtypes of a pytree in a few words.

    Example:
        >>> in_words({"a": jnp.zeros(2), "b": (jnp.ones(()), None)})
        "{'a': float32[2], 'b': (float32[], None)}"
    """
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{key!r}: {in_words(part)}" for key, part in tree.items()) + "}"
    if isinstance(tree, tuple | list):
        inner = ", ".join(map(in_words, tree))
        return f"({inner})" if isinstance(tree, tuple) else f"[{inner}]"
    if hasattr(tree, "shape") and hasattr(tree, "dtype"):
        return f"{tree.dtype}{list(tree.shape)}"
    return "None" if tree is None else f"a {type(tree).__name__}"
