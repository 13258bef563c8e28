"""The commands `synthesize` and `preview`: cases into a folder, or one of them drawn.

What is made is the business of `ringfence.synthesis`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.style import Style
from rich.text import Text

from ringfence.commandline import terminal
from ringfence.commandline.failures import say, say_if_new
from ringfence.commandline.identity import described
from ringfence.commandline.progress import Progress
from ringfence.commandline.workplace import Workplace, opened
from ringfence.configuration import Settings
from ringfence.decoding import complete
from ringfence.errors import InputError
from ringfence.policy_files import load
from ringfence.rendering import render
from ringfence.rings import Conversation, Policy
from ringfence.synthesis.case import Case, Sibling, Split, Stated, Turn
from ringfence.synthesis.distillation import enriched
from ringfence.synthesis.recipes import make_sound, named
from ringfence.synthesis.run import Job, synthesize, synthesize_with
from ringfence.synthesis.writing import Folder

SPLITS = ("train", "eval", "both")
# From the highest ring down; the last one for all that follow.
_COLOURS = ("red", "dark_orange", "yellow3", "green4", "dodger_blue2", "medium_purple")


class Run:
    """One job of `synthesize`.

    Attributes:
        finished: cases that are safe on the disk.
        count: of the job.
    """

    def __init__(
        self,
        out: Path,
        *,
        recipe: str,
        count: int,
        seed: int,
        policy: str,
        split: str,
        settings: Settings | None = None,
        best_of: int = 4,
    ) -> None:
        """Name the job; with `settings` an engine writes, too, each reply in `best_of` tries.

        Raises:
            InputError: an unknown recipe, policy or split, a count below 1, or a file of the
                settings that cannot be read.
        """
        if split not in SPLITS:
            raise InputError(f"--split {split!r}: must be one of {', '.join(SPLITS)}")
        self._job = Job(
            recipes=named(recipe),
            count=count,
            seed=seed,
            policy=load(policy),
            split=split,  # type: ignore[arg-type]
            engine=described(settings, trained=False) | {"best_of": best_of} if settings else {},
        )
        self._settings, self._best_of = settings, best_of
        self._out = out
        self._folder = Folder(out, self._job.described())
        self.count = count
        self.finished = 0

    async def run(self, *, resume: bool, force: bool) -> dict[str, Any]:
        """Do what is left; returns a summary.

        Raises:
            InputError: output that is in the way, or a disk that takes no more.
        """
        began = time.monotonic()
        say_if_new(self._out, resume=resume)
        with closing(self._folder):
            done = self._folder.open(resume=resume, force=force)
            self.finished = done
            if done:
                say(f"{done} of {self.count} cases are there already")
            if not self._folder.complete:
                await self._work(done)
        manifest = self._folder.manifest()
        return {
            "cases": self.count,
            "made_now": self.count - done,
            "split": self._job.split,
            "files": {name: file["lines"] for name, file in manifest["files"].items()},
            "counts": manifest["counts"]["recipe"],
            "overlap": manifest["overlap"]["share_of_eval_in_train"],
            "seconds": round(time.monotonic() - began, 3),
        }

    async def _work(self, done: int) -> None:
        if self._settings is None:
            places = _async(synthesize(self._job, self._folder, done))
            async with aclosing(_told(places, done, self.count)) as numbers:
                async for number in numbers:
                    self.finished = max(self.finished, number)
            return
        concurrency = self._settings.concurrency
        async with opened(self._settings, trained=False) as place:
            author = _Author(place)

            async def enrich(case: Case) -> Case:
                return await enriched(case, author, self._best_of)

            places = synthesize_with(enrich, self._job, self._folder, done, concurrency=concurrency)
            async with aclosing(places), aclosing(_told(places, done, self.count)) as numbers:
                async for number in numbers:
                    self.finished = max(self.finished, number)


class _Author:
    """The engine of a workplace as an author of replies."""

    def __init__(self, place: Workplace) -> None:
        self._place = place

    async def reply(
        self, case: Case, messages: Sequence[Turn], seed: int, characters: int
    ) -> str | None:
        """See `Author.reply`."""
        policy = Policy.of(case.policy, case.rings, {turn.role: turn.ring for turn in messages})
        turns = [turn.model_dump(exclude_defaults=True) for turn in messages]
        rings = [turn.ring for turn in messages]
        try:
            conversation = Conversation.of(turns, policy, rings)
            prompt = render(conversation, self._place.engine.card)
            # A token is hardly ever shorter than two characters.
            length = min(self._place.settings.options.max_tokens, characters // 2)
            events = self._place.events(prompt, seed=seed, max_tokens=length)
            return (await complete(events)).text.strip()
        except InputError:
            # The model's template or window does not take it: the code's own reply stays.
            return None


async def _async(numbers: Iterator[int]) -> AsyncGenerator[int, None]:
    with closing(numbers):  # type: ignore[type-var]
        for number in numbers:
            # Where Ctrl-C takes hold: nothing else here waits for anything.
            await asyncio.sleep(0)
            yield number


async def _told(
    places: AsyncGenerator[int, None], done: int, total: int
) -> AsyncGenerator[int, None]:
    """Tell how far it is: making, then writing, which counts from the start again."""
    progress = Progress()
    progress.begin(done, "making")
    before = done
    async for number in places:
        if number <= before:
            progress.begin(0, "writing")
        before = number
        progress.show(number, total)
        yield number
    progress.end()


def told(summary: dict[str, Any], out: Path, *, as_json: bool) -> None:
    """The summary on stdout."""
    if as_json:
        terminal.emit(json.dumps({**summary, "out": str(out)}))
        return
    if not summary["made_now"]:
        say(f"{out}: all {summary['cases']} cases were there already")
        return
    files = ", ".join(f"{lines} in {name}" for name, lines in summary["files"].items())
    say(f"{out}: {files}, in {summary['seconds']:.1f} s")
    if summary["split"] == "both" and not summary["files"]["judge-check.jsonl"]:
        say("no case is for evaluation: every fifth of a recipe is; raise --count, or --split eval")


def preview(
    console: Console,
    *,
    recipe: str,
    seed: int,
    index: int,
    policy: str,
    split: str,
    as_json: bool,
) -> None:
    """Draw one case with all its siblings.

    Raises:
        InputError: an unknown recipe, policy or split, or a negative index.
    """
    if split not in SPLITS[:2]:
        raise InputError(f"--split {split!r}: must be train or eval")
    if index < 0:
        raise InputError(f"--index {index}: must be at least 0")
    chosen: Split = "train" if split == "train" else "eval"
    case = make_sound(named(recipe)[0], seed=seed, index=index, split=chosen, policy=load(policy))
    if as_json:
        terminal.emit(json.dumps(json.loads(case.line())))
        return
    console.print(_drawn(case))


def _drawn(case: Case) -> Text:
    lines = [
        terminal.shown(f"{case.id}  policy {case.policy}  domain {case.domain}", Style(bold=True)),
        terminal.shown(f"made of {', '.join(case.families)}", terminal.DIM),
    ]
    for name, sibling in case.siblings.items():
        lines += [Text(), *_sibling(case, name, sibling)]
    return Text("\n").join(lines)


def _sibling(case: Case, name: str, sibling: Sibling) -> Iterator[Text]:
    head = terminal.shown(f"── {name} ", Style(bold=True))
    yield head + terminal.shown(sibling.expected, Style(italic=True))
    for turn in sibling.messages:
        yield from _turn(case, turn)
    for stated in sibling.instructions:
        yield _stated(stated)
    if sibling.target is not None:
        yield Text("  right  ", "green") + terminal.shown(
            _with(sibling.target, sibling.target_calls)
        )
    if sibling.wrong is not None:
        yield Text("  wrong  ", "red") + terminal.shown(_with(sibling.wrong, sibling.wrong_calls))


def _turn(case: Case, turn: Turn) -> Iterator[Text]:
    colour = Style(color=_COLOURS[min(case.rings.index(turn.ring), len(_COLOURS) - 1)])
    head = f"  {turn.ring:<10} {turn.role}" + (f" ({turn.name})" if turn.name else "")
    yield terminal.shown(head, colour + Style(bold=True))
    text = _with(turn.content, turn.tool_calls)
    bar = Text("  ┃ ", colour)
    for line in terminal.shown_lines(text).split("\n"):
        yield bar + line


def _stated(stated: Stated) -> Text:
    mark = Text("  ✓ ", "green") if stated.holds else Text("  ✗ ", "red")
    what = f"{stated.id} ({stated.about}: {stated.wants}): {stated.reason}"
    return mark + terminal.shown(what, terminal.DIM)


def _with(text: str, calls: Any) -> str:
    """A text and the calls that go with it."""
    made = [f"→ {call['name']}({json.dumps(call['arguments'])})" for call in calls]
    return "\n".join([*([text] if text else []), *made])
