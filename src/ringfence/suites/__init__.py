"""Suites: samples with code graders, one a table. Knows no model, and nothing of how runs go.

Every security figure has its benign twin in the same suite, so that refusing everything never looks
good. Graders are code; nothing here asks a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ringfence.errors import InputError
from ringfence.suites.extraction import EXTRACTION
from ringfence.suites.guardrails import GUARDRAILS
from ringfence.suites.harmful import HARMFUL
from ringfence.suites.hierarchy import HIERARCHY
from ringfence.suites.ifeval import CAPABILITY, RULES
from ringfence.suites.iheval import IHEVAL
from ringfence.suites.indirect import INDIRECT
from ringfence.suites.jailbreak import JAILBREAK
from ringfence.suites.over_refusal import OVER_REFUSAL
from ringfence.suites.sentiment import SENTIMENT
from ringfence.suites.suite import Counts, Graded, Item, Metric, Outcomes, Suite, Twin
from ringfence.suites.truthful import TRUTHFUL
from ringfence.written_calls import calls_in, written

__all__ = [
    "SUITES",
    "Counts",
    "Graded",
    "Item",
    "Metric",
    "Outcomes",
    "Suite",
    "Twin",
    "calls_in",
    "suite",
    "written",
]

SUITES: Mapping[str, Suite] = MappingProxyType(
    {
        one.name: one
        for one in (
            HIERARCHY,
            EXTRACTION,
            RULES,
            GUARDRAILS,
            IHEVAL,
            INDIRECT,
            HARMFUL,
            JAILBREAK,
            OVER_REFUSAL,
            TRUTHFUL,
            SENTIMENT,
            CAPABILITY,
        )
    }
)
"""Every suite by its name, in the order of tables."""


def suite(name: str) -> Suite:
    """A suite by its name.

    Raises:
        InputError: there is none of that name.
    """
    if name not in SUITES:
        raise InputError(f"no suite {name!r}. Suites: {', '.join(SUITES)}.")
    return SUITES[name]
