"""The command `train pairs`. What is done is `ringfence.training.pairs`."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from ringfence.commandline import terminal
from ringfence.commandline.failures import INTERRUPTED, say
from ringfence.commandline.progress import Progress
from ringfence.training.pairs import FORMAT, MANIFEST, Folder, Sampled, pairs


@dataclass(kw_only=True)
class Job:
    """One run of `train pairs`, by its options."""

    model: str
    data: Path
    out: Path
    samples: int
    max_tokens: int
    temperature: float
    seed: int
    adapter: str | None
    limit: int | None
    concurrency: int
    finished: int = 0
    total: int = 0

    def do(self, *, resume: bool, force: bool, as_json: bool) -> None:
        """Do what is left and tell what came of it.

        Raises:
            RingfenceError: data, output or engine cannot be used.
        """
        sampled = Sampled(
            samples=self.samples,
            tokens=self.max_tokens,
            temperature=self.temperature,
            seed=self.seed,
        )
        folder = Folder(self.data, self.out, self._described(sampled), limit=self.limit)
        if resume and (self.out / MANIFEST).exists():
            say(f"{self.out}: is finished")
        else:
            self._work(folder, sampled, resume=resume, force=force)
        manifest = json.loads((self.out / MANIFEST).read_text("utf-8"))
        if as_json:
            terminal.emit(json.dumps({"out": str(self.out), **manifest}))
            return
        lines = manifest["files"]["preferences.jsonl"]["lines"]
        counts = ", ".join(f"{count} {name}" for name, count in manifest["counts"].items())
        say(f"{self.out}: {lines} pairs; {counts}")

    def _work(self, folder: Folder, sampled: Sampled, *, resume: bool, force: bool) -> None:
        self.finished = folder.open(resume=resume, force=force)
        self.total = sum(1 for _ in folder.cases())
        try:
            asyncio.run(self._run(folder, sampled))
        except KeyboardInterrupt:
            words = [word for word in sys.argv[1:] if word not in ("--resume", "--force")]
            say(
                f"interrupted: {self.finished} of {self.total} cases are safe. Go on with: "
                f"{shlex.join(['ringfence', *words, '--resume'])}"
            )
            raise typer.Exit(INTERRUPTED) from None
        finally:
            folder.close()

    async def _run(self, folder: Folder, sampled: Sampled) -> None:
        from ringfence.engines import open_engine

        spec = f"hf:{self.model}" if Path(self.model).is_dir() else self.model
        options = {} if self.adapter is None else {"adapter": self.adapter}
        engine = await open_engine(spec, **options)
        progress = Progress()
        progress.begin(self.finished)
        try:
            numbers = pairs(engine, folder, sampled, self.finished, concurrency=self.concurrency)
            async with aclosing(numbers):
                async for number in numbers:
                    self.finished = number
                    progress.show(number, self.total)
            progress.end()
        finally:
            await engine.aclose()

    def _described(self, sampled: Sampled) -> dict[str, Any]:
        """What makes the replies these replies."""
        return {
            "format": FORMAT,
            "model": Path(self.model).name,
            "adapter": None if self.adapter is None else Path(self.adapter).name,
            "samples": sampled.samples,
            "max_tokens": sampled.tokens,
            "temperature": sampled.temperature,
            "seed": sampled.seed,
            "limit": self.limit,
        }
