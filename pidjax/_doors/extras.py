"""Packages that only some functions need, imported when first used."""

import importlib
from types import ModuleType


def load(module: str, *, user: str, package: str, extra: str) -> ModuleType:
    """The module; if it is missing an error that says who needs it and how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{user} needs {package}; install it with pip install pidjax[{extra}]") from error
