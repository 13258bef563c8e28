"""IFEval as it is (capability), and with its instructions moved to the system message (rules)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ringfence.errors import InputError
from ringfence.graders import parse_grader
from ringfence.suites.files import Fields, chat, rows, texts
from ringfence.suites.suite import Counts, Graded, Item, Metric, Outcomes, Suite
from ringfence.suites.verdicts import all_of, passed, said

_FIELDS: Fields = {"key": int, "instruction_id_list": list, "kwargs": list, "prompt": str}
_MOST = 10
"""Instructions of a prompt; IFEval has three at most. Each has a metric of its own."""


def _as_it_is(data: Path | None, seed: int) -> Iterator[Item]:
    for number, row in enumerate(rows(data, "ifeval", "input_data.jsonl", _FIELDS), start=1):
        where = f"ifeval/input_data.jsonl:{number}"
        yield _item(row, where, ({"role": "user", "content": row["prompt"]},))


def _in_the_system_message(data: Path | None, seed: int) -> Iterator[Item]:
    fields: Fields = {**_FIELDS, "messages": list}
    for number, row in enumerate(rows(data, "ifeval", "sys_ifeval.jsonl", fields), start=1):
        where = f"ifeval/sys_ifeval.jsonl:{number}"
        yield _item(row, where, tuple(chat(row, where, ("system", "user", "assistant"))))


def _item(row: Mapping[str, Any], where: str, messages: Sequence[Mapping[str, str]]) -> Item:
    names = texts(dict(row), "instruction_id_list", where)
    given = row["kwargs"]
    if not 0 < len(names) == len(given) <= _MOST or not all(isinstance(k, dict) for k in given):
        raise InputError(
            f"{where}: kwargs: must have an object for each of 1 to {_MOST} instructions"
        )
    checks = [
        {"check": "ifeval", "instruction_id": name, "kwargs": kwargs}
        for name, kwargs in zip(names, given, strict=True)
    ]
    try:
        parse_grader(all_of(*checks))
    except InputError as error:
        raise InputError(f"{where}: instruction_id_list: {error}") from None
    return Item(
        id=f"ifeval-{row['key']}",
        cluster=f"ifeval-{row['key']}",
        messages=tuple(messages),
        grading={"checks": checks},
        metadata={"kind": names[0].partition(":")[0], "instructions": names},
    )


def loosened(reply: str) -> list[str]:
    """The eight readings of IFEval's loose measure (arXiv 2311.07911, section 2.2).

    First or last line (or both) left out, asterisks left out, and all combinations.
    """
    lines = reply.split("\n")
    cut = ["\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])]
    plain = [reply, *cut]
    return list(dict.fromkeys([*plain, *(one.replace("*", "") for one in plain)]))


def _check(grading: Mapping[str, Any], reply: str) -> Outcomes:
    checks = grading["checks"]
    strict = [passed(check, reply) for check in checks]
    readings = loosened(reply)
    loose = [
        one or any(passed(check, reading) for reading in readings[1:])
        for one, check in zip(strict, checks, strict=True)
    ]
    found: Outcomes = {"strict": _all(strict), "loose": _all(loose), "said": said(reply)}
    for place, (one, other) in enumerate(zip(strict, loose, strict=True), start=1):
        found[f"strict-{place}"] = one
        found[f"loose-{place}"] = other
    return found


def _all(outcomes: Sequence[bool | None]) -> bool | None:
    if False in outcomes:
        return False
    return None if None in outcomes else True


def _by_instruction(records: Sequence[Graded]) -> Counts:
    """Instruction-level accuracy: every instruction counts, not every prompt."""
    found: Counts = {}
    for way in ("strict", "loose"):
        outcomes = [
            record.outcomes.get(f"{way}-{place}")
            for record in records
            for place in range(1, _MOST + 1)
        ]
        decided = [one for one in outcomes if one is not None]
        if decided:
            found[f"instructions-{way}"] = (sum(decided), len(decided))
    return found


def _metrics() -> tuple[Metric, ...]:
    places = tuple(
        Metric(
            name=f"{way}-{place}",
            kind="diagnostic",
            better="higher",
            words=f"Instruction {place} of the prompt followed ({way}).",
        )
        for way in ("strict", "loose")
        for place in range(1, _MOST + 1)
    )
    return (
        Metric(
            name="strict",
            kind="capability",
            better="higher",
            words="Replies that follow every instruction of the prompt.",
        ),
        Metric(
            name="loose",
            kind="diagnostic",
            better="higher",
            words="The same, where the reply may also be read without first or last line or "
            "asterisks.",
        ),
        Metric(
            name="said",
            kind="utility",
            better="higher",
            words="Replies that say anything at all.",
        ),
        *places,
    )


_FIGURES = tuple(
    Metric(
        name=f"instructions-{way}",
        kind="capability" if way == "strict" else "diagnostic",
        better="higher",
        words=f"Instructions followed ({way}), every one counted by itself.",
    )
    for way in ("strict", "loose")
)
_SOURCE = "IFEval, arXiv 2311.07911 (google-research/google-research)"

RULES = Suite(
    name="rules",
    title="Rules in the system message (S-IFEval)",
    measures="Whether format rules of the system message are kept while a user asks for something "
    "else. The same prompts with the rules in the user's message are the suite `capability`: the "
    "difference of the two is what moving them costs.",
    threat_model="None: nobody attacks, and the user merely does not repeat the rules.",
    source=f"{_SOURCE}; rewritten by RealGuardrails, arXiv 2502.12197",
    licence="Apache-2.0 (IFEval), MIT (the rewriting)",
    size="packaged: 120 prompts; with data: 541",
    not_meaning="Not robustness: no user argues against the rules. Graders read form, not sense; "
    "nonsense in the right form passes. Their agreement with the published graders is in "
    "docs/graders.md.",
    static=True,
    packaged=True,
    files=("ifeval/sys_ifeval.jsonl",),
    max_tokens=1024,
    metrics=_metrics(),
    figures=_FIGURES,
    primary=("strict", "instructions-strict"),
    load=_in_the_system_message,
    check=_check,
    aggregate=_by_instruction,
    formal=True,
)

CAPABILITY = Suite(
    name="capability",
    title="Instruction following (IFEval)",
    measures="Whether instructions that code can check are followed: the cost of a defence in "
    "plain use.",
    threat_model="None: nobody attacks.",
    source=_SOURCE,
    licence="Apache-2.0",
    size="packaged: 120 prompts; with data: 541",
    not_meaning="Not usefulness: graders read form, not sense. Not comparable with published "
    "figures where max_tokens cuts replies short, or by more than the agreement in "
    "docs/graders.md.",
    static=True,
    packaged=True,
    files=("ifeval/input_data.jsonl",),
    max_tokens=1024,
    metrics=_metrics(),
    figures=_FIGURES,
    primary=("strict", "instructions-strict"),
    load=_as_it_is,
    check=_check,
    aggregate=_by_instruction,
    formal=True,
)
