"""Short ways to the grader algebra. Knows no suite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from ringfence.graders import grade, parse_grader

Check: TypeAlias = Mapping[str, Any]


def passed(check: Check, reply: str, state: Mapping[str, Any] | None = None) -> bool | None:
    """Whether a reply passes a grader; None if that cannot be told.

    Raises:
        InputError: no grader.
    """
    found = grade(parse_grader(check), reply, state)
    return found.passed if found.decided else None


def said(reply: str) -> bool:
    """Whether there is a letter or digit in the reply."""
    return any(sign.isalnum() for sign in reply)


def none_of(*checks: Check) -> Check:
    """Passes if none does."""
    return {"check": "not", "of": {"check": "any", "of": list(checks)}}


def all_of(*checks: Check) -> Check:
    """Passes if every one does."""
    return {"check": "all", "of": list(checks)}


def any_of(*checks: Check) -> Check:
    """Passes if one does."""
    return {"check": "any", "of": list(checks)}


def contains(text: str, *, whole_word: bool = False) -> Check:
    """Passes if the text is in the reply, in any case."""
    return {"check": "contains", "text": text, "whole_word": whole_word}


def negated(outcome: bool | None) -> bool | None:
    """The contrary; undecided stays so."""
    return None if outcome is None else not outcome


def share(outcomes: Iterable[bool | None]) -> tuple[int, int]:
    """Hits and number of what is decided."""
    decided = [one for one in outcomes if one is not None]
    return sum(decided), len(decided)
