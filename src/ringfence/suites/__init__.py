"""Suites: samples with code graders, one a table. Knows no model, and nothing of how runs go.

Every security figure has its benign twin in the same suite, so that refusing everything never looks
good. Graders are code; nothing here asks a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ringfence.errors import InputError
from ringfence.suites.suite import Counts, Graded, Item, Metric, Outcomes, Suite, Twin

__all__ = [
    "SUITES",
    "Counts",
    "Graded",
    "Item",
    "Metric",
    "Outcomes",
    "Suite",
    "Twin",
    "suite",
]

SUITES: Mapping[str, Suite] = MappingProxyType({})


def suite(name: str) -> Suite:
    """A suite by its name.

    Raises:
        InputError: there is none of that name.
    """
    if name not in SUITES:
        raise InputError(f"no suite {name!r}. Suites: {', '.join(SUITES)}.")
    return SUITES[name]
