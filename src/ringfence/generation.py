"""A batch of prompts answered into one file, safe against crashes at any moment.

Knows nothing of engines, decoders or terminals: whatever makes one line is handed in.

While the job runs, lines are appended to `OUT.partial`, in the order they finish, each written
whole and synced to disk before the next. Its first line says which job it is. At the end the lines
are written in the order of the prompts to `OUT.tmp`, which is synced and renamed to `OUT`, and only
then the partial file goes. So at any moment every finished line is in `OUT.partial` or in `OUT`,
and a crash can only tear the last line of the partial file, which was not finished: it is cut off
when the job is resumed. A lock on the partial file keeps a second run away.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringfence.errors import InputError
from ringfence.partial_files import PartialLines, refuse_existing, sync_folder
from ringfence.yaml_files import text_of

Line = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One line of a file of prompts: raw text or chat messages, exactly one of them.

    Attributes:
        id: as written, or the number of the line.
        where: file and line, for errors.
    """

    id: str | int
    where: str
    text: str | None = None
    messages: tuple[Mapping[str, Any], ...] | None = None

    def seed(self, seed: int) -> int:
        """Its own seed, the same wherever the prompt stands and whatever runs beside it."""
        digest = hashlib.sha256(f"{seed}/{self.id}".encode("utf-8", "backslashreplace")).digest()
        return int.from_bytes(digest[:4], "big") >> 1


Answer = Callable[[Prompt], Awaitable[Line]]


def read_prompts(path: Path, limit: int | None = None) -> list[Prompt]:
    """Prompts of a JSONL file: `{"prompt": …}` or `{"messages": […]}`, with an optional `id`.

    Raises:
        InputError: the file cannot be read, a line cannot be used, or two have the same id; names
            file and line.
    """
    text = text_of(path)
    # Not splitlines: a string may hold U+2028 and other characters Python takes for line ends.
    numbered = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    prompts = [_prompt(line, number, path) for number, line in numbered[:limit]]
    if not prompts:
        raise InputError(f'{path}: holds no prompt; every line is {{"prompt": "…"}} or messages')
    seen: dict[str, str] = {}
    for prompt in prompts:
        if (before := seen.setdefault(str(prompt.id), prompt.where)) != prompt.where:
            raise InputError(f"{prompt.where}: id {prompt.id!r} is that of {before}, too")
    return prompts


def _prompt(line: str, number: int, path: Path) -> Prompt:
    where = f"{path}, line {number}"
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not valid JSON: {error}") from error
    if not isinstance(data, dict) or ("prompt" in data) == ("messages" in data):
        raise InputError(f"{where}: must be an object with either prompt or messages")
    unknown = sorted(set(data) - {"prompt", "messages", "id"})
    if unknown:
        raise InputError(
            f"{where}: unknown field {unknown[0]!r}; there are prompt, messages and id"
        )
    id_ = data.get("id", number)
    if not isinstance(id_, str | int) or isinstance(id_, bool):
        raise InputError(f"{where}: id must be text or a whole number, not {id_!r}")
    if "messages" in data:
        if not isinstance(data["messages"], list):
            raise InputError(f"{where}: messages must be a list of objects with role and content")
        return Prompt(id=id_, where=where, messages=tuple(data["messages"]))
    if not isinstance(data["prompt"], str) or not data["prompt"]:
        raise InputError(f"{where}: prompt must be text and not empty")
    return Prompt(id=id_, where=where, text=data["prompt"])


def manifest(prompts: Sequence[Prompt], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a job this job: its settings, and a hash of its prompts."""
    content = json.dumps([[prompt.id, prompt.text, prompt.messages] for prompt in prompts])
    return {**settings, "prompts": hashlib.sha256(content.encode()).hexdigest()}


class Ledger:
    """The finished lines of one job, on disk. See the module for what survives what.

    Attributes:
        complete: the job is finished and its output is there; nothing is left to do.
    """

    def __init__(self, out: Path, manifest: Mapping[str, Any]) -> None:
        """Name the job; `open` touches the disk.

        Args:
            out: the finished output.
            manifest: of the job, plain data.
        """
        self.complete = False
        self._out = out
        self._manifest = json.loads(json.dumps(manifest))
        self._lines = PartialLines(Path(f"{out}.partial"), self._manifest)
        self._places: dict[str, tuple[int, int]] = {}
        self._run = hashlib.sha256(json.dumps(self._manifest, sort_keys=True).encode()).hexdigest()[
            :12
        ]

    def open(self, *, resume: bool = False, force: bool = False) -> set[str]:
        """Take hold of the files; returns the ids (as text) of the lines that are finished.

        Raises:
            InputError: there is output already and neither `resume` nor `force` says what to do;
                what is there belongs to another job; or another run holds it.
        """
        if resume and force:
            raise InputError("--resume goes on and --force starts anew: give one of them")
        if not self._out.parent.is_dir():
            raise InputError(f"--out {self._out}: the folder {self._out.parent} does not exist")
        if not (resume or force):
            refuse_existing(self._lines.path, (self._out,))
        if resume and self._out.exists() and not self._lines.path.exists():
            self.complete = True
            return self._finished_ids()
        self._lines.open(force=force)
        try:
            self._find()
        except BaseException:
            self.close()
            raise
        return set(self._places)

    def append(self, line: Line) -> None:
        """Write a finished line; on return it is on the disk."""
        place = self._lines.append(json.dumps({**line, "run": self._run}).encode())
        self._places[str(line["id"])] = place

    def finish(self, order: Sequence[str | int]) -> None:
        """Put the lines in order, under the name of the output."""
        ordered = Path(f"{self._out}.tmp")
        with ordered.open("wb") as target:
            for id_ in order:
                target.write(self._lines.at(*self._places[str(id_)]))
            target.flush()
            os.fsync(target.fileno())
        os.replace(ordered, self._out)
        sync_folder(self._out.parent)
        self._lines.remove()
        self.complete = True

    def close(self) -> None:
        """Let go of the lock."""
        self._lines.close()

    def _find(self) -> None:
        """Where the finished lines stand.

        Raises:
            InputError: a line that no crash could have left.
        """
        for number, (start, line) in enumerate(self._lines.lines(), 2):
            try:
                self._places.setdefault(str(json.loads(line)["id"]), (start, len(line)))
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise InputError(
                    f"{self._lines.path}, line {number}: damaged ({error!r}). Remove that line and "
                    "--resume, or --force to start anew."
                ) from error

    def _finished_ids(self) -> set[str]:
        """Ids in the finished output.

        Raises:
            InputError: it is not the output of this job.
        """
        try:
            lines = [json.loads(line) for line in self._out.read_bytes().splitlines()]
            ids = {str(line["id"]) for line in lines if line["run"] == self._run}
        except (ValueError, KeyError, TypeError, RecursionError):
            lines, ids = [], set()
        if not lines or len(ids) != len(lines):
            raise InputError(
                f"{self._out} exists and was not made with these settings and prompts; --force "
                "replaces it"
            )
        return ids


async def generate(
    prompts: Sequence[Prompt], ledger: Ledger, done: set[str], answer: Answer, *, concurrency: int
) -> AsyncGenerator[Line, None]:
    """Answer the prompts that are not done, some side by side; yields every line once it is safe.

    Args:
        prompts: all of the job.
        ledger: open, of the same job.
        done: ids that `ledger.open` returned.
        answer: makes the line of one prompt.
        concurrency: prompts in flight at once.

    Raises:
        Exception: whatever `answer` raises; lines that finished are safe, the rest is cancelled.
    """
    waiting = iter([prompt for prompt in prompts if str(prompt.id) not in done])
    flying: set[asyncio.Task[Line]] = set()

    async def answered(prompt: Prompt) -> Line:
        return await answer(prompt)

    with closing(ledger):
        try:
            while True:
                while len(flying) < concurrency and (prompt := next(waiting, None)):
                    flying.add(asyncio.create_task(answered(prompt)))
                if not flying:
                    break
                landed, flying = await asyncio.wait(flying, return_when=asyncio.FIRST_COMPLETED)
                # What succeeded is safe before anything else is done, or anything is raised.
                failures = [error for task in landed if (error := task.exception())]
                lines = [task.result() for task in landed if not task.exception()]
                for line in lines:
                    ledger.append(line)
                for line in lines:
                    yield line
                if failures:
                    raise failures[0]
        finally:
            for task in flying:
                task.cancel()
            await asyncio.gather(*flying, return_exceptions=True)
        ledger.finish([prompt.id for prompt in prompts])
