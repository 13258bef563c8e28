"""Failing samples as HTML: prompt with rings, reply, outcomes, each behind one click."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ringfence.records import Record
from ringfence.reports.markup import anchor, shown
from ringfence.reports.samples import MOST_OF_A_TEXT, Failing

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_MOST_MESSAGES = 60


def failing_section(
    failing: Sequence[Failing], logs: Sequence[str], names: Mapping[str, str]
) -> str:
    """What failed of a suite, by model and metric; empty where nothing did."""
    if not failing:
        return ""
    return "<h3>Failing samples</h3>" + "".join(_group(one, logs, names) for one in failing)


def _group(one: Failing, logs: Sequence[str], names: Mapping[str, str]) -> str:
    place = anchor("failing", one.suite, one.model, one.metric.name)
    samples = "".join(_sample(record) for record in one.shown)
    more = ""
    hidden = one.count - len(one.shown)
    if hidden:
        where = ", ".join(shown(log) for log in logs)
        listed = shown(", ".join(one.named))
        unnamed = hidden - len(one.named)
        rest = f" and {unnamed} others" if unnamed else ""
        more = (
            f"<details><summary>{hidden} more, not shown here; their full text is in {where}"
            f"</summary><p>{listed}{rest}</p></details>"
        )
    return (
        f'<div id="{place}"><p><b>{shown(names[one.model])}</b>, {shown(one.metric.name)}: '
        f"{one.count} failing</p>{samples}{more}</div>"
    )


def _sample(record: Record) -> str:
    outcomes = ", ".join(
        f"{shown(name)} = {'undecided' if value is None else str(value).lower()}"
        for name, value in record.outcomes.items()
    )
    messages = "".join(_message(message) for message in record.prompt[:_MOST_MESSAGES])
    if len(record.prompt) > _MOST_MESSAGES:
        messages += f'<p class="cut">{len(record.prompt) - _MOST_MESSAGES} more messages</p>'
    ended = f", ended by {shown(record.reason)}" if record.reason else ""
    seconds = "" if record.seconds is None else f", {record.seconds:.2f} s"
    peek = shown(" ".join(record.reply[:400].split())[:90] or "(empty reply)")
    return (
        f"<details><summary>{shown(record.item)}, seed {record.seed}: "
        f'<span class="dim">{peek}</span></summary>{messages}'
        f'<div class="message reply"><b>reply{ended}{seconds}</b>'
        f"<pre>{shown(record.reply, MOST_OF_A_TEXT)}</pre></div>"
        f'<p class="dim">{outcomes}</p></details>'
    )


def _message(message: Mapping[str, Any]) -> str:
    role = str(message.get("role", "?"))
    ring = message.get("ring")
    name = message.get("name") or message.get("tool_call_id")
    head = shown(role)
    if ring and ring != role:
        head += f", ring {shown(ring)}"
    if name:
        head += f" ({shown(name, 200)})"
    content = message.get("content")
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    calls = message.get("tool_calls")
    if calls:
        text = (
            f"{text if content else ''}\n{json.dumps(calls, ensure_ascii=False, indent=1)}".strip()
        )
    style = role if role in _ROLES else "other"
    return (
        f'<div class="message {style}"><b>{head}</b><pre>{shown(text, MOST_OF_A_TEXT)}</pre></div>'
    )
