"""Libraries that only some checks need. Knows nothing of the checks."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any


def require(module: str, package: str) -> None:
    """Nothing, if the module is installed; does not import it.

    Raises:
        ValueError: it is not; names the way out.
    """
    if find_spec(module) is None:
        raise ValueError(f"this check needs {package}: pip install 'ringfence[graders]'")


def library(module: str) -> Any:
    """The module, imported when first used."""
    return import_module(module)
