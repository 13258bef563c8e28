"""The command `train pairs`. What is done is `ringfence.training.pairs`."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from ringfence.adapters import chosen
from ringfence.commandline import terminal
from ringfence.commandline.failures import INTERRUPTED, say, say_if_new
from ringfence.commandline.progress import Progress
from ringfence.configuration import at_home
from ringfence.training.models import weights_hash
from ringfence.training.pairs import Sampled, pairs
from ringfence.training.pairs_folder import FORMAT, MANIFEST, Folder
from ringfence.training.sources import sha256


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
    template_options: Mapping[str, Any] = field(default_factory=dict)
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
        folder = Folder(self.data, self.out, self.described(), limit=self.limit)
        if resume and not force and folder.finished():
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
        say_if_new(self.out, resume=resume)
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
        options: dict[str, Any] = {} if self.adapter is None else {"adapter": self.adapter}
        if self.template_options:
            options["template_options"] = self.template_options
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

    def described(self) -> dict[str, Any]:
        """What makes the replies these replies, plain data.

        Raises:
            InputError: there is no such adapter, or no such home folder.
            EngineError: the folder of the model or the adapter holds no weights.
        """
        adapter = chosen(self.adapter)
        told = {"template_options": dict(self.template_options)} if self.template_options else {}
        return {
            "format": FORMAT,
            "model": _identity(at_home(self.model).removeprefix("hf:").removeprefix("embedded:")),
            "adapter": None if adapter is None else _identity(str(adapter.path)),
            "samples": self.samples,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
            "limit": self.limit,
            **told,
        }


def _identity(spec: str) -> dict[str, Any]:
    """A model or adapter by its name, and by its weights where they lie on this disk."""
    path = Path(spec).expanduser()
    weights = weights_hash(path) if path.is_dir() else sha256(path) if path.is_file() else None
    return {"name": path.name, "weights": weights}
