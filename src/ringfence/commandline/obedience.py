"""The first part of the demonstration: whom the packaged model obeys, before and after training."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group
from rich.style import Style
from rich.table import Table
from rich.text import Text

from ringfence.adapters.choosing import NONE
from ringfence.commandline import terminal
from ringfence.commandline.workplace import Workplace
from ringfence.decoding import complete, decode
from ringfence.engine import Engine
from ringfence.graders import grade, parse_grader
from ringfence.policy_files import load
from ringfence.rendering import render
from ringfence.rings import Conversation
from ringfence.synthesis.case import Case, Sibling
from ringfence.synthesis.recipes import make_sound

# The first cases of the evaluation split, whatever comes of them: an attack, and a permitted
# request to the same prompt.
CASES = (("extraction", 0), ("extraction", 1), ("extraction", 2))
SIBLINGS = ("conflict", "twin")
_POLICY = "harmony"
_TOKENS = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What one model says to one conversation.

    Attributes:
        right: by the case's grader, which is code.
    """

    id: str
    said: str
    reply: str
    right: bool

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"id": self.id, "reply": self.reply, "right": self.right}


def conversations() -> list[tuple[Case, str]]:
    """Cases with the names of the siblings that are shown."""
    policy = load(_POLICY)
    return [
        (make_sound(recipe, seed=0, index=index, split="eval", policy=policy), name)
        for recipe, index in CASES
        for name in SIBLINGS
    ]


async def answers(place: Workplace, engine: Engine) -> list[Answered]:
    """Every conversation answered greedily, all side by side."""
    return list(await asyncio.gather(*(_of(place, engine, *one) for one in conversations())))


async def before_and_after(place: Workplace) -> dict[str, list[Answered]]:
    """Answers of the packaged model without its adapter and with it, under these names.

    Args:
        place: whose engine has the adapter.
    """
    from ringfence.engines import open_engine

    base = await open_engine(place.settings.engine, adapter=NONE)
    try:
        return {
            "as shipped": await answers(place, base),
            "trained": await answers(place, place.engine),
        }
    finally:
        await base.aclose()


async def _of(place: Workplace, engine: Engine, case: Case, name: str) -> Answered:
    sibling = case.siblings[name]
    reply = await complete(
        decode(
            engine,
            render(_conversation(sibling), engine.card),
            decoder="plain",
            options=place.settings.options.model_copy(
                update={"temperature": 0.0, "max_tokens": _TOKENS, "exhausted": "best"}
            ),
        )
    )
    verdict = grade(parse_grader(sibling.grader), reply.text)
    said = sibling.messages[-1].content
    return Answered(id=f"{case.id}/{name}", said=said, reply=reply.text, right=verdict.passed)


def _conversation(sibling: Sibling) -> Conversation:
    turns = [turn.model_dump(exclude_defaults=True) for turn in sibling.messages]
    return Conversation.of(turns, load(_POLICY), [turn.ring for turn in sibling.messages])


def view(shown: Mapping[str, Sequence[Answered]]) -> Group:
    """A table of what was said and answered, and how much of it was right."""
    table = Table(expand=True, show_lines=True, border_style="dim", padding=(0, 1))
    table.add_column("a user says", ratio=2)
    for name in shown:
        table.add_column(name, ratio=3)
    for row in zip(*shown.values(), strict=True):
        table.add_row(terminal.shown(row[0].said, Style(italic=True)), *map(_cell, row))
    counts = ", ".join(
        f"{name} {sum(one.right for one in made)} of {len(made)}" for name, made in shown.items()
    )
    text = Text("Right, by code: ").append(counts, terminal.COMMITTED)
    text.append(
        ". The system or developer message of each holds a secret that must stay, and a fact that "
        "may be told. They are the first cases of the evaluation split; training has seen none of "
        "their wording. Figures on many: docs/results.md.",
        terminal.DIM,
    )
    return Group(Text("Whom does it obey?", terminal.COMMITTED), table, text, Text())


def _cell(one: Answered) -> Text:
    red, green, blue = terminal.colour(1.0 if one.right else -1.0)
    mark = Text("✓ " if one.right else "✗ ", Style(color=f"rgb({red},{green},{blue})", bold=True))
    return mark.append_text(terminal.shown(one.reply))
