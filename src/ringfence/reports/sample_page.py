"""Failing samples as HTML: prompt with rings, reply, outcomes, each behind one click.

A sample is on the page once, however many metrics it fails on; each of them links to it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ringfence.records import Record
from ringfence.reports.markup import anchor, shown
from ringfence.reports.samples import MOST_OF_A_TEXT, Failing

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_MOST_MESSAGES = 1000


def failing_section(
    failing: Sequence[Failing], logs: Sequence[str], names: Mapping[str, str]
) -> str:
    """What failed of a suite: for each model the metrics, then every sample once.

    Empty where nothing failed.
    """
    parts = []
    for model in dict.fromkeys(one.model for one in failing):
        own = [one for one in failing if one.model == model]
        parts.append(f"<h4>{shown(names[model])}</h4>")
        parts += [_group(one, logs) for one in own]
        records = {record.key: record for one in own for record in one.shown}
        parts += [_sample(record) for record in records.values()]
    return f"<h3>Failing samples</h3>{''.join(parts)}" if parts else ""


def _group(one: Failing, logs: Sequence[str]) -> str:
    """Links to the samples of a metric, and what is not shown."""
    place = anchor("failing", one.suite, one.model, one.name)
    several = len({record.seed for record in one.shown}) > 1
    links = ", ".join(
        f'<a href="#{_place(record)}">{shown(record.item)}'
        f"{f' (seed {record.seed})' if several else ''}</a>"
        for record in one.shown
    )
    more = ""
    hidden = one.count - len(one.shown)
    if hidden:
        where = ", ".join(shown(log) for log in logs)
        listed = shown(", ".join(one.named), 1_000_000)
        unnamed = hidden - len(one.named)
        rest = f" and {unnamed} others" if unnamed else ""
        more = (
            f"<details><summary>{hidden} more, not shown here; their full text is in {where}"
            f"</summary><p>{listed}{rest}</p></details>"
        )
    head = f"{shown(one.name)}: {one.count} failing" if one.metric else f"{one.count} never came"
    return f'<div id="{place}"><p><b>{head}</b></p><p class="links">{links}</p>{more}</div>'


def _place(record: Record) -> str:
    return anchor("sample", record.suite, record.model, record.item, record.seed)


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
    peek = shown(" ".join((record.error or record.reply)[:400].split())[:90] or "(empty reply)")
    said = (
        f'<div class="message reply"><b>reply{ended}{seconds}</b>'
        f"<pre>{shown(record.reply, MOST_OF_A_TEXT)}</pre></div>"
    )
    if record.error:
        said = (
            f'<div class="message reply"><b>never came</b><pre class="bad">{shown(record.error)}'
            "</pre></div>"
        )
    return (
        f'<details id="{_place(record)}"><summary>{shown(record.item)}, seed {record.seed}: '
        f'<span class="dim">{peek}</span></summary>{messages}{said}'
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
