"""Labelled replies on which a judge is measured, from files. Knows nothing of judges."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from ringfence.engine import EngineCard
from ringfence.errors import InputError
from ringfence.rendering import Rendering, render, render_text
from ringfence.rings import Conversation

_FIELDS = ("prompt", "messages", "reply", "good", "policy", "rings", "tools")
# Further fields of `judge-check.jsonl`.
_OF_THE_CASE = ("id", "recipe", "sibling", "expected", "target")


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
    """

    prompt: str | tuple[Mapping[str, Any], ...]
    reply: str
    good: bool
    policy: str = "harmony"
    rings: tuple[str, ...] | None = None
    tools: tuple[Mapping[str, Any], ...] = ()

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
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    return _parse_items(text, str(path))


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


def _item(line: str, where: str) -> JudgedItem:
    try:
        data = json.loads(line)
    except ValueError as error:
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
    messages = tuple(data["messages"])
    item = JudgedItem(
        prompt=messages,
        reply=data["reply"],
        good=data["good"],
        policy=str(data.get("policy", "harmony")),
        rings=None if rings is None else tuple(map(str, rings)),
        tools=tuple(data.get("tools") or ()),
    )
    try:
        Conversation.of(messages, item.policy, item.rings, list(item.tools))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return item
