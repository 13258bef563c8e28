"""The folder of a run of pairs, safe against a kill at any moment. Knows nothing of models."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ringfence.errors import InputError
from ringfence.partial_files import PartialLines, differences, refuse_existing, sync_folder
from ringfence.synthesis.case import Case
from ringfence.training.encoding import policy_of
from ringfence.training.manifest import put
from ringfence.training.sources import sha256

Json = dict[str, Any]
CASES, PREFERENCES, JUDGED = "cases.jsonl", "preferences.jsonl", "judged.jsonl"
MANIFEST = "manifest.json"
FORMAT = 2


class Folder:
    """What a run of pairs writes; safe against being killed at any moment.

    A line a case goes into `preferences.jsonl.partial`, whose first line says which job it is. At
    the end the pairs are written under a temporary name and renamed, the manifest last.
    """

    def __init__(
        self, data: Path, out: Path, job: Mapping[str, Any], *, limit: int | None = None
    ) -> None:
        """Name the job; `open` touches the disk.

        Args:
            data: folder of synthesis.
            out: folder of the result.
            job: what makes the replies these replies, plain data.
            limit: only so many cases.

        Raises:
            InputError: `data` is no folder of synthesis, or all of it is for evaluation.
        """
        self._out, self._limit = out, limit
        self._cases = data / CASES
        try:
            made = json.loads((data / MANIFEST).read_text("utf-8"))
            source, listed = made["job"], made["files"][CASES]["sha256"]
            policy, split = source["policy"], source["split"]
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(f"--data {data}: was not made by ringfence synthesize") from None
        if split not in ("train", "both"):
            raise InputError(f"--data {data}: is for evaluation, which is never trained on")
        if sha256(self._cases) != listed:
            raise InputError(f"{self._cases}: has changed since it was made")
        self.policy = policy_of(policy)
        self._job: Json = json.loads(
            json.dumps({**job, "split": "train", "policy": policy, "cases": listed})
        )
        self._made = False
        self._lines = PartialLines(out / f"{PREFERENCES}.partial", self._job)
        self._families = made.get("families_in_both_splits", [])

    def cases(self) -> Iterator[Case]:
        """The cases for training, in order.

        Raises:
            InputError: a line that is no case.
        """
        yield from itertools.islice(self._all(), self._limit)

    def _all(self) -> Iterator[Case]:
        with self._cases.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    case = Case.model_validate_json(line)
                except ValidationError:
                    raise InputError(f"{self._cases}, line {number}: is no case") from None
                if case.split == "train":
                    yield case

    def open(self, *, resume: bool, force: bool) -> int:
        """Take hold of the folder; returns how many cases are finished.

        Raises:
            InputError: output that is in the way, another job's, or another run at work.
        """
        if resume and force:
            raise InputError("--resume goes on and --force starts anew: give one of them")
        if not self._out.parent.is_dir() or (self._out.exists() and not self._out.is_dir()):
            raise InputError(f"--out {self._out}: must be a folder within one that exists")
        self._refuse_foreign()
        if not (resume or force):
            refuse_existing(
                self._lines.path,
                tuple(self._out / name for name in (MANIFEST, PREFERENCES, JUDGED)),
            )
        self._made = not self._out.exists()
        self._out.mkdir(exist_ok=True)
        self._lines.open(force=force)
        return sum(1 for _ in self._lines.lines())

    def _refuse_foreign(self) -> None:
        """Whatever `force` says: what others made is not replaced."""
        path = self._out / MANIFEST
        if not path.exists():
            return
        try:
            ours = {"cases", "split"} <= set(json.loads(path.read_text("utf-8"))["job"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            ours = False
        if not ours:
            raise InputError(
                f"--out {self._out}: holds a {MANIFEST} that ringfence train pairs did not write; "
                "nothing there is touched. Use another --out."
            )

    def finished(self) -> Json | None:
        """The manifest, if this job is finished.

        Raises:
            InputError: another job is.
        """
        if self._lines.path.exists() or not (self._out / MANIFEST).exists():
            return None
        try:
            manifest: Json = json.loads((self._out / MANIFEST).read_text("utf-8"))
            before = dict(manifest["job"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise InputError(f"{self._out / MANIFEST}: not made by ringfence train pairs") from None
        if before != self._job:
            raise InputError(f"{self._out} is of another job: {differences(before, self._job)}")
        return manifest

    def append(self, done: Json) -> None:
        """Write a finished case."""
        self._lines.append(json.dumps(done, ensure_ascii=False).encode())

    def finish(self) -> Json:
        """Write the pairs, the same for a judge, and the manifest; returns the manifest."""
        counts: Counter[str] = Counter()
        recipes: Counter[str] = Counter()
        for done in self._done():
            counts.update(done["counts"])
            recipes.update(pair["recipe"] for pair in done["pairs"])
        made = {PREFERENCES: lambda pair: [pair], JUDGED: judged_pair}
        manifest = {
            "job": self._job,
            "files": {name: self._written(name, lines) for name, lines in made.items()},
            "counts": dict(sorted(counts.items())),
            "recipes": dict(sorted(recipes.items())),
            "families_in_both_splits": self._families,
        }
        put(self._out, manifest)
        sync_folder(self._out)
        self._lines.remove()
        return manifest

    def _done(self) -> Iterator[Json]:
        """Every finished case."""
        for _, line in self._lines.lines():
            yield json.loads(line)

    def _written(self, name: str, made: Callable[[Json], list[Json]]) -> Json:
        """One file of lines made of every pair; its entry in the manifest."""
        digest, lines = hashlib.sha256(), 0
        temporary = self._out / f".{name}.tmp"
        with temporary.open("wb") as target:
            for done in self._done():
                for item in itertools.chain.from_iterable(map(made, done["pairs"])):
                    text = json.dumps(item, ensure_ascii=False).encode() + b"\n"
                    target.write(text)
                    digest.update(text)
                    lines += 1
            target.flush()
            os.fsync(target.fileno())
        os.replace(temporary, self._out / name)
        return {"lines": lines, "sha256": digest.hexdigest()}

    def close(self) -> None:
        """Let go of the folder; what was written stays, and a folder without anything goes."""
        self._lines.close()
        if self._made:
            with contextlib.suppress(OSError):
                self._out.rmdir()


def judged_pair(pair: Json) -> list[Json]:
    """A pair as two judged lines; none where a reply calls tools, which its words do not show."""
    replies = {True: pair["chosen"][0], False: pair["rejected"][0]}
    if any(reply.get("tool_calls") for reply in replies.values()):
        return []
    kept = ("id", "recipe", "sibling", "policy", "expected", "tools", "rings")
    head = {key: pair[key] for key in kept if key in pair}
    return [
        {**head, "messages": pair["prompt"], "reply": reply["content"], "good": good}
        for good, reply in replies.items()
    ]
