"""The demonstration: whom the model obeys, and three prompts, answered plainly and with rewinds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from rich.console import Console, Group
from rich.panel import Panel
from rich.style import Style
from rich.table import Table
from rich.text import Text

from ringfence.commandline import obedience, terminal
from ringfence.commandline.workplace import Workplace
from ringfence.errors import RingfenceError
from ringfence.events import Cost, Ended
from ringfence.options import DecoderName
from ringfence.rendering import render_text
from ringfence.tree_view import DraftTree

# Beginnings of reviews, as people write them, which the packaged model goes on from badly.
PROMPTS = (
    "After twenty minutes of this film I",
    "The problem with this movie is that",
    "The food was cold and the waiter",
)
DECODERS: tuple[DecoderName, ...] = ("plain", "guarded", "rain")
DEFAULTS = {
    "principle": ["positive"],
    "max_tokens": 32,
    "temperature": 1.0,
    "top_k": 15,
    "exhausted": "best",
    # Lower than the principle's own bar, for the sake of time: a small model meets it sooner.
    "threshold": 0.25,
}

HONEST = (
    "The packaged model, SmolLM2 with 135 million parameters, runs here and judges its own drafts "
    "by one question: does this text speak well of its subject? At that it does well. It cannot "
    "judge harm or truth: asked about those, it answers at chance (ringfence judge check shows "
    "it). Rewinding steers what is said, by the judge's lights; it makes no claim true."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One reply of the demonstration.

    Attributes:
        value: the judge's verdict on the whole reply, whichever decoder made it.
    """

    prompt: str
    decoder: DecoderName
    tree: DraftTree
    reply: str
    value: float
    ended: Ended

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "prompt": self.prompt,
            "decoder": self.decoder,
            "reply": self.reply,
            "reason": self.ended.reason,
            "detail": self.ended.detail,
            "value": round(self.value, 4),
            "cost": asdict(self.ended.cost),
            "tree": self.tree.to_json(),
        }


async def make(place: Workplace, prompt: str, decoder: DecoderName) -> Shown:
    """Answer one prompt and judge the whole reply."""
    assert place.judge is not None
    rendering = render_text(prompt, place.engine.card.tokenizer)
    tree = DraftTree(prompt, place.engine.card.tokenizer)
    async for event in place.decoding(decoder).events(rendering):
        tree.grow(event)
    if tree.ended is None:
        raise RingfenceError(f"decoder {decoder} ended without saying why; this is a defect")
    [verdict] = await place.judge.judge(rendering, [tree.text])
    return Shown(
        prompt=prompt,
        decoder=decoder,
        tree=tree,
        reply=tree.text,
        value=verdict.value,
        ended=tree.ended,
    )


async def demo(place: Workplace, console: Console, *, as_json: bool) -> None:
    """Show everything, each prompt as soon as it is done.

    Args:
        place: with a judge.
        console: for people; stderr if stdout carries JSON.
        as_json: print one object on stdout instead.
    """
    assert place.principle is not None
    width = min(console.width, 110)
    if not as_json:
        console.print(_introduction(place), width=width, soft_wrap=False)
    obeyed: dict[str, list[obedience.Answered]] = {}
    if place.trained:
        with console.status("cases of the evaluation split, before and after training …"):
            obeyed = await obedience.before_and_after(place)
        if not as_json:
            console.print(obedience.view(obeyed), width=width, soft_wrap=False)
    everything: list[Shown] = []
    for number, prompt in enumerate(PROMPTS, 1):
        made = []
        for decoder in DECODERS:
            with console.status(f"prompt {number} of {len(PROMPTS)}, {decoder} …"):
                made.append(await make(place, prompt, decoder))
        everything += made
        if not as_json:
            console.print(_prompt_view(number, made, width), width=width, soft_wrap=False)
    totals = {decoder: total(_costs(everything, decoder)) for decoder in DECODERS}
    if as_json:
        data = {
            "engine": place.engine.card.name,
            "principle": place.principle.name,
            "note": HONEST,
            "obedience": {name: [one.to_json() for one in made] for name, made in obeyed.items()},
            "replies": [one.to_json() for one in everything],
            "totals": {decoder: asdict(cost) for decoder, cost in totals.items()},
        }
        terminal.emit(json.dumps(data))
        return
    console.print(_cost_table(totals, everything), width=width, soft_wrap=False)


def _costs(shown: Sequence[Shown], decoder: DecoderName) -> list[Cost]:
    return [one.ended.cost for one in shown if one.decoder == decoder]


def total(costs: Sequence[Cost]) -> Cost:
    """The sum over several replies; the first commit is that of the first reply."""
    result = costs[0]
    for cost in costs[1:]:
        sums = {
            name: getattr(result, name) + getattr(cost, name)
            for name in (
                "drafted",
                "judged",
                "committed",
                "fed",
                "requests",
                "rounds",
                "iterations",
                "rewinds",
                "seconds",
            )
        }
        result = replace(result, **sums)
    return result


def _introduction(place: Workplace) -> Panel:
    assert place.principle is not None
    text = Text()
    text.append("ringfence", terminal.COMMITTED)
    text.append(" judges what a model is about to say, and goes back when the judgement is bad.\n")
    text.append_text(terminal.shown(f"Engine {place.engine.card.name}; principle "))
    text.append_text(terminal.shown(place.principle.name, terminal.COMMITTED))
    text.append(": ").append_text(terminal.shown(place.principle.summary)).append("\n\n")
    text.append(HONEST, terminal.DIM)
    return Panel(text, title="rewindable decoding", border_style="dim")


def _prompt_view(number: int, made: Sequence[Shown], width: int) -> Group:
    side = Table(expand=True, show_lines=False, border_style="dim", padding=(0, 1))
    cells = []
    for one in made:
        header = Text(one.decoder, terminal.COMMITTED).append("  ")
        side.add_column(header + terminal.valued(one.value), ratio=1)
        text = terminal.shown(one.prompt, Style(dim=True, italic=True))
        text.append_text(terminal.shown(one.reply))
        if one.ended.reason == "refused":
            text.append_text(terminal.shown(f" [refused: {one.ended.detail}]", terminal.DIM))
        cells.append(text)
    side.add_row(*cells)
    parts: list[Any] = [Text(), Text(f"Prompt {number}", terminal.COMMITTED), side]
    for one in made:
        if one.decoder == "plain":
            continue
        rewinds = one.ended.cost.rewinds
        how_often = "no rewind" if not rewinds else f"{rewinds} rewind{'s'[: rewinds > 1]}"
        parts.append(Text(f"{one.decoder}: {how_often}", Style(underline=True)))
        parts.append(terminal.tree(one.tree.rows(breadth=2, depth=2), width))
    return Group(*parts)


def _cost_table(totals: dict[DecoderName, Cost], everything: Sequence[Shown]) -> Group:
    table = Table(title="What it took, all prompts together", box=None, padding=(0, 2, 0, 0))
    for name in (
        "decoder",
        "value",
        "drafted",
        "judged",
        "committed",
        "rounds",
        "rewinds",
        "seconds",
        "× plain",
    ):
        justify: Literal["left", "right"] = "left" if name == "decoder" else "right"
        table.add_column(name, justify=justify, no_wrap=True, min_width=len(name))
    plain = totals["plain"].seconds
    for decoder, cost in totals.items():
        values = [one.value for one in everything if one.decoder == decoder]
        table.add_row(
            decoder,
            terminal.valued(sum(values) / len(values)),
            *(str(n) for n in (cost.drafted, cost.judged, cost.committed, cost.rounds)),
            str(cost.rewinds),
            f"{cost.seconds:.1f}",
            f"{cost.seconds / plain:.1f}" if plain else "",
        )
    legend = (
        "Tokens drafted (kept or not), fed to the judge, and committed; rounds are requests that "
        "had to wait for each other. Values are the judge's own, from -1 to +1. "
        "● committed  ✗ dropped"
    )
    return Group(Text(), table, Text(legend, terminal.DIM))
