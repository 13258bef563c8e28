"""The command `generate`: prompts in, one line a prompt out, progress for people.

What survives which crash is the business of `ringfence.generation`.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from contextlib import aclosing, closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ringfence.commandline import terminal
from ringfence.commandline.failures import say, say_if_new
from ringfence.commandline.identity import described
from ringfence.commandline.judging import admitted
from ringfence.commandline.progress import Progress
from ringfence.commandline.workplace import Workplace, opened
from ringfence.configuration import Settings
from ringfence.decoding import complete
from ringfence.errors import BudgetError, InputError
from ringfence.events import Reply
from ringfence.generation import Ledger, Line, Prompt, generate, manifest, read_prompts


class Batch:
    """One job of `generate`.

    Attributes:
        finished: lines that are safe on the disk, of this run and of those before it.
    """

    def __init__(
        self,
        settings: Settings,
        prompts: Path,
        out: Path,
        *,
        limit: int | None,
        cost: bool,
        any_judge: bool = False,
    ) -> None:
        """Read the prompts and name the job.

        Args:
            settings: how replies are made.
            prompts: JSONL.
            out: JSONL.
            limit: only so many of the prompts.
            cost: put the cost into every line.
            any_judge: go on with a judge at chance.

        Raises:
            InputError: prompts or principle cannot be used.
        """
        name = settings.one_principle()
        if name is None and settings.chosen_decoder() != "plain":
            raise InputError(
                f"decoder {settings.chosen_decoder()} judges its drafts: name a principle "
                "(--principle NAME), or use --decoder plain"
            )
        self.settings = settings
        self.prompts = read_prompts(prompts, limit)
        self._cost, self._any_judge = cost, any_judge
        if out.is_dir():
            raise InputError(f"--out {out}: is a folder; name a file")
        if out.resolve() == prompts.resolve():
            raise InputError(f"--out {out}: is the file of the prompts; name another")
        self._out = out
        made = described(settings, trained=True) | {"cost": cost}
        self.ledger = Ledger(out, manifest(self.prompts, made))
        self.finished = 0

    async def run(self, *, resume: bool, force: bool) -> dict[str, Any]:
        """Do what is left; returns a summary.

        Raises:
            RingfenceError: output that is in the way, or an engine that fails.
        """
        started = time.monotonic()
        reasons: Counter[str] = Counter()
        say_if_new(self._out, resume=resume)
        with closing(self.ledger):
            done = self.ledger.open(resume=resume, force=force)
            self.finished = len(done)
            if done:
                say(f"{len(done)} of {len(self.prompts)} lines are there already")
            if not self.ledger.complete:
                async with opened(self.settings) as place:
                    if place.judge is not None:
                        await admitted(
                            place, force=self._any_judge, option="--any-judge", unmeasured=True
                        )
                    await self._work(place, done, reasons)
        return {
            "lines": len(self.prompts),
            "made_now": sum(reasons.values()),
            "reasons": self._reasons(),
            "reasons_now": dict(sorted(reasons.items())),
            "seconds": round(time.monotonic() - started, 3),
        }

    def _reasons(self) -> dict[str, int]:
        """How the lines of the output ended, those of earlier parts of the run among them."""
        with self._out.open("rb") as lines:
            return dict(sorted(Counter(json.loads(line)["reason"] for line in lines).items()))

    async def _work(self, place: Workplace, done: set[str], reasons: Counter[str]) -> None:
        """Make the lines that are not done, and count how they ended."""
        concurrency = self.settings.concurrency
        if concurrency > 1 and not place.engine.card.deterministic:
            say(
                f"{place.engine.card.name} computes side by side what runs side by side: equal "
                "seeds are sure to give equal replies only with --concurrency 1"
            )
        progress = Progress()
        progress.begin(self.finished)

        async def answer(prompt: Prompt) -> Line:
            return await self._line(place, prompt)

        lines = generate(self.prompts, self.ledger, done, answer, concurrency=concurrency)
        async with aclosing(lines):
            async for line in lines:
                self.finished += 1
                reasons[line["reason"]] += 1
                if line["reason"] == "error" and reasons["error"] == 1:
                    say(f"line {line['id']}: {line['detail']} (the reply's line says so, too)")
                progress.show(self.finished, len(self.prompts))
        progress.end()

    async def _line(self, place: Workplace, prompt: Prompt) -> Line:
        """Answer one prompt; what is wrong with it is told in its line and stops no other."""
        seed = prompt.seed(self.settings.options.seed)
        line: Line = {"id": prompt.id, "reply": None, "reason": "error", "value": None}
        fixed: Line = {"decoder": place.decoder, "seed": seed}
        try:
            reply = await complete(place.events(place.rendering(prompt), seed=seed))
        except (InputError, BudgetError) as error:
            return {**line, "detail": str(error), **fixed}
        return {**line, **self._made(reply), **fixed, **self._costs(reply)}

    def _made(self, reply: Reply) -> Line:
        return {
            "reply": reply.text,
            "reason": reply.reason,
            # Beyond this, arithmetic differs with what runs side by side.
            "value": None if reply.value is None else round(reply.value, 3),
            "detail": reply.detail,
        }

    def _costs(self, reply: Reply) -> Line:
        return {"cost": asdict(reply.cost)} if self._cost else {}


def told(summary: dict[str, Any], out: Path, *, as_json: bool) -> None:
    """The summary on stdout."""
    if as_json:
        terminal.emit(json.dumps({**summary, "out": str(out)}))
        return
    reasons = ", ".join(f"{count} {name}" for name, count in summary["reasons"].items())
    if not summary["made_now"]:
        say(f"{out}: all {summary['lines']} lines were there already ({reasons})")
        return
    say(f"{out}: {summary['lines']} lines ({reasons}) in {summary['seconds']:.1f} s")
