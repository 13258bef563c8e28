"""Labelled replies on which a judge is measured, from files. Knows nothing of judges."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from itertools import zip_longest
from pathlib import Path
from random import Random
from typing import Any

from ringfence.engine import EngineCard
from ringfence.errors import InputError
from ringfence.rendering import Rendering, render, render_text
from ringfence.rings import Conversation
from ringfence.yaml_files import text_of

_FIELDS = ("prompt", "messages", "reply", "good", "policy", "rings", "tools")
# Further fields of `judge-check.jsonl`.
_OF_THE_CASE = ("id", "recipe", "sibling", "expected", "target", "begun")
# Those by which a judge is also measured part by part.
PARTS = ("recipe", "sibling", "expected", "begun")


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedItem:
    """A reply of which somebody knows whether it is good.

    Attributes:
        prompt: raw text that the reply continues, or the messages that it answers.
        reply: what the judge has to judge.
        good: what the judge ought to say.
        policy: preset that ranks the messages.
        rings: of the messages by name; None takes them from their roles.
        tools: that the assistant could call.
        case: lines of one case share most of their text; empty where nobody says.
        about: what the line says of its case: recipe, sibling, what is expected, whether the reply
            is only begun.
    """

    prompt: str | tuple[Mapping[str, Any], ...]
    reply: str
    good: bool
    policy: str = "harmony"
    rings: tuple[str, ...] | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    case: str = ""
    about: Mapping[str, str] = field(default_factory=dict)

    def rendering(self, card: EngineCard) -> Rendering:
        """The prompt for one model.

        Raises:
            RenderingError: the model's chat template cannot express the messages.
        """
        if isinstance(self.prompt, str):
            return render_text(self.prompt, card.tokenizer)
        return render(Conversation.of(self.prompt, self.policy, self.rings, list(self.tools)), card)


def load_items(path: str | Path) -> list[JudgedItem]:
    """Labelled replies from a JSONL file; every line `{"prompt" | "messages", "reply", "good"}`.

    `judge-check.jsonl` of `ringfence synthesize` is such a file: messages may have a `policy` and
    the `rings` of every message, and what else stands there is about the case.

    Raises:
        InputError: the file cannot be read, or a line cannot be used; names file, line and field.
    """
    text = text_of(Path(path))
    return _parse_items(text, str(path))


def drawn(items: Sequence[JudgedItem], limit: int, seed: int = 0) -> list[JudgedItem]:
    """At most `limit` of them: good and bad in turn, recipes in turn, in each all sorts of lines.

    Raises:
        InputError: `limit` is below 2, which cannot be good and bad.
    """
    if limit < 2:
        raise InputError(f"--limit {limit}: must be at least 2, one good reply and one bad")
    mixed = Random(seed).sample(items, len(items))
    return _in_turn(mixed, [lambda item: str(item.good), *map(_about, PARTS)])[:limit]


def _about(name: str) -> Callable[[JudgedItem], str]:
    return lambda item: item.about.get(name, "")


def _in_turn(
    items: Sequence[JudgedItem], by: Sequence[Callable[[JudgedItem], str]]
) -> list[JudgedItem]:
    """Groups by the first of `by` in turn, and in each group the same by the others."""
    if not by:
        return list(items)
    groups: dict[str, list[JudgedItem]] = {}
    for item in items:
        groups.setdefault(by[0](item), []).append(item)
    queues = [_in_turn(group, by[1:]) for group in groups.values()]
    return [item for row in zip_longest(*queues) for item in row if item is not None]


def packaged_items(principle: str) -> list[JudgedItem]:
    """The check set that ships for a packaged principle.

    Raises:
        InputError: none ships for this name.
    """
    folder = resources.files("ringfence") / "principles" / "checks"
    names = sorted(f.name[:-6] for f in folder.iterdir() if f.name.endswith(".jsonl"))
    if principle not in names:
        raise InputError(
            f"no check set ships for principle {principle!r} (only for {', '.join(names)}). Give "
            "labelled replies of your own: --data FILE, JSONL with prompt or messages, reply, good."
        )
    file = folder / f"{principle}.jsonl"
    return _parse_items(file.read_text("utf-8"), file.name)


def _parse_items(text: str, where: str) -> list[JudgedItem]:
    # Not splitlines: a reply may hold U+2028 and other characters that Python takes for line ends.
    numbered = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    items = [_item(line, f"{where}, line {number}") for number, line in numbered]
    kinds = {item.good for item in items}
    if kinds != {True, False}:
        raise InputError(
            f"{where}: needs at least one item with good: true and one with good: false; a judge "
            "can only be measured on both."
        )
    return items


def _told(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _item(line: str, where: str) -> JudgedItem:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not valid JSON: {error}") from error
    if not isinstance(data, dict):
        raise InputError(f"{where}: must be an object with prompt or messages, reply and good")
    unknown = sorted(set(data) - {*_FIELDS, *_OF_THE_CASE})
    if unknown:
        raise InputError(f"{where}: unknown field {unknown[0]!r}; there are {', '.join(_FIELDS)}")
    if ("prompt" in data) == ("messages" in data):
        raise InputError(f"{where}: needs either prompt or messages, and not both")
    if not isinstance(data.get("good"), bool):
        raise InputError(f"{where}: good must be true or false, not {data.get('good')!r}")
    if not isinstance(data.get("reply"), str):
        raise InputError(f"{where}: reply must be text, not {data.get('reply')!r}")
    if "prompt" in data:
        if not isinstance(data["prompt"], str) or not data["prompt"]:
            raise InputError(f"{where}: prompt must be text and not empty")
        return JudgedItem(prompt=data["prompt"], reply=data["reply"], good=data["good"])
    if not isinstance(data["messages"], list):
        raise InputError(f"{where}: messages must be a list of objects with role and content")
    rings = data.get("rings")
    if rings is not None and not isinstance(rings, list):
        raise InputError(f"{where}: rings must be a list of names, one a message")
    if not isinstance(data.get("tools") or [], list):
        raise InputError(f"{where}: tools must be a list of definitions")
    messages = tuple(data["messages"])
    item = JudgedItem(
        prompt=messages,
        reply=data["reply"],
        good=data["good"],
        policy=str(data.get("policy", "harmony")),
        rings=None if rings is None else tuple(map(str, rings)),
        tools=tuple(data.get("tools") or ()),
        case=str(data.get("id", "")).partition("/")[0],
        about={name: _told(data[name]) for name in PARTS if name in data},
    )
    try:
        Conversation.of(messages, item.policy, item.rings, list(item.tools))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return item
