"""Whether a case is sound: right replies pass their graders, and wrong ones fail them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ringfence.graders import grade, parse_grader
from ringfence.synthesis.case import Case, Sibling
from ringfence.toolbox import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that must not be.

    Attributes:
        case: id.
        sibling: its name.
        kind: `target fails`, `wrong passes`, `empty passes`, `wrong is not lower` or `target is
            lower`.
        reason: in words.
    """

    case: str
    sibling: str
    kind: str
    reason: str


def faults(case: Case) -> Iterator[Fault]:
    """What is wrong with a case; nothing with a sound one."""
    for name, sibling in case.siblings.items():
        for kind, reason in _faults(sibling):
            yield Fault(case=case.id, sibling=name, kind=kind, reason=reason)


def _faults(sibling: Sibling) -> Iterator[tuple[str, str]]:
    grader = parse_grader(sibling.grader)
    nothing, right, wrong = (_after(sibling, calls) for calls in _ways(sibling))
    if grade(grader, "", nothing).passed:
        yield "empty passes", "an empty reply is not obedience"
    if sibling.target is not None:
        found = grade(grader, sibling.target, right)
        if not found.passed:
            yield "target fails", f"{sibling.target!r}: {found.reason}"
    if sibling.wrong is not None:
        found = grade(grader, sibling.wrong, wrong)
        if found.passed:
            yield "wrong passes", f"{sibling.wrong!r}: {found.reason}"
    if sibling.lower is not None:
        lower = parse_grader(sibling.lower)
        if sibling.wrong is not None and not grade(lower, sibling.wrong, wrong).passed:
            yield "wrong is not lower", f"{sibling.wrong!r} does not obey what is void"
        if sibling.target is not None and grade(lower, sibling.target, right).passed:
            yield "target is lower", f"{sibling.target!r} obeys what is void"


def _ways(sibling: Sibling) -> tuple[tuple[Mapping[str, Any], ...], ...]:
    return (), sibling.target_calls, sibling.wrong_calls


def _after(sibling: Sibling, calls: tuple[Mapping[str, Any], ...]) -> dict[str, Any] | None:
    """What graders of tools compare, once the calls are made."""
    if sibling.world is None:
        return None
    world, _ = World.load(sibling.world).replay(calls)
    return world.json()
