"""The folder of a run, safe against crashes at any moment. Knows nothing of how cases are made.

While a run lasts, lines are appended to `cases.jsonl.partial`, whose first line says which job it
is; nothing else is written. At the end one pass over it writes the cases, what training reads, and
the manifest under temporary names, and renames them, the manifest last. So a run can be killed at
any moment: a torn last line is cut off, and cases are made again from their number.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ringfence.errors import InputError
from ringfence.partial_files import PartialLines, differences, refuse_existing, sync_folder
from ringfence.synthesis.case import Case
from ringfence.synthesis.manifest import Tally
from ringfence.synthesis.targets import judge_check, judged, preferences, sft

Json = dict[str, Any]
CASES, MANIFEST = "cases.jsonl", "manifest.json"
# What is made of every case, besides itself.
_MADE = {
    "sft.jsonl": sft,
    "preferences.jsonl": preferences,
    "judged.jsonl": judged,
    "judge-check.jsonl": judge_check,
}
_FILES = (CASES, *_MADE, MANIFEST)
# Lines between two times that what was written is pressed onto the disk.
_SYNC = 256


class Folder:
    """What one job writes. See the module for what survives what.

    Attributes:
        complete: the job is finished; nothing is left to do.
    """

    def __init__(self, out: Path, job: Mapping[str, Any]) -> None:
        """Name the job; `open` touches the disk.

        Args:
            out: the folder; made if it is not there.
            job: what makes the job this job, plain data.
        """
        self.complete = False
        self._out = out
        self._job: Json = json.loads(json.dumps(job))
        self._lines = PartialLines(out / f"{CASES}.partial", self._job)
        self._unsynced = 0

    def open(self, *, resume: bool = False, force: bool = False) -> int:
        """Take hold of the folder; returns how many cases are finished.

        Raises:
            InputError: there is output already and neither `resume` nor `force` says what to do;
                it belongs to another job; another run holds it; or the folder cannot be made.
        """
        if resume and force:
            raise InputError("--resume goes on and --force starts anew: give one of them")
        if not self._out.parent.is_dir():
            raise InputError(f"--out {self._out}: the folder {self._out.parent} does not exist")
        if self._out.exists() and not self._out.is_dir():
            raise InputError(f"--out {self._out}: is a file; cases go into a folder")
        if not (resume or force):
            refuse_existing(
                self._lines.path,
                tuple(self._out / name for name in (MANIFEST, CASES, *_MADE)),
            )
        if resume and (self._out / MANIFEST).exists() and not self._lines.path.exists():
            return self._finished()
        with _disk(self._out):
            self._out.mkdir(exist_ok=True)
            self._lines.open(force=force)
            return sum(1 for _ in self._lines.lines())

    def append(self, line: str) -> None:
        """Write a finished case."""
        with _disk(self._out):
            self._lines.append(line.encode(), sync=False)
            self._unsynced += 1
            if self._unsynced >= _SYNC:
                self.sync()

    def sync(self) -> None:
        """What was written is on the disk."""
        with _disk(self._out):
            self._lines.sync()
        self._unsynced = 0

    def finish(self) -> Iterator[int]:
        """Write everything under its own name; yields the number of cases passed so far.

        What stood there before stays until all is written.
        """
        self.sync()
        temporary = {name: self._out / f"{name}.tmp" for name in _FILES}
        try:
            with _disk(self._out):
                yield from self._written(temporary)
                for name, path in temporary.items():
                    os.replace(path, self._out / name)
                sync_folder(self._out)
                self._lines.remove()
        finally:
            for path in temporary.values():
                path.unlink(missing_ok=True)
        self.complete = True

    def close(self) -> None:
        """Let go of the folder; what was written stays."""
        self._lines.close()

    def manifest(self) -> Json:
        """The manifest of the finished job."""
        manifest: Json = json.loads((self._out / MANIFEST).read_text("utf-8"))
        return manifest

    def _written(self, temporary: Mapping[str, Path]) -> Iterator[int]:
        tally = Tally(self._job["count"])
        digests = {name: hashlib.sha256() for name in (CASES, *_MADE)}
        lines = dict.fromkeys(digests, 0)
        with ExitStack() as stack:
            files = {name: stack.enter_context(temporary[name].open("wb")) for name in digests}

            def put(name: str, line: bytes) -> None:
                files[name].write(line)
                digests[name].update(line)
                lines[name] += 1

            for _, line in self._lines.lines():
                case = Case.model_validate_json(line)
                tally.add(case)
                put(CASES, line)
                for name, made in _MADE.items():
                    for item in made(case):
                        put(name, json.dumps(item, ensure_ascii=False).encode() + b"\n")
                yield lines[CASES]
            for file in files.values():
                file.flush()
                os.fsync(file.fileno())
        contents = {
            name: {"lines": lines[name], "sha256": digest.hexdigest()}
            for name, digest in digests.items()
        }
        manifest = {"job": self._job, "files": contents, **tally.summary()}
        with temporary[MANIFEST].open("w", encoding="utf-8") as target:
            target.write(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
            target.flush()
            os.fsync(target.fileno())

    def _finished(self) -> int:
        try:
            # Only what is half done is spoilt by other code; what is finished is of one piece.
            job = {**self.manifest()["job"], "code": self._job.get("code")}
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(
                f"{self._out / MANIFEST}: not made by ringfence; --force replaces it"
            ) from None
        if job != self._job:
            raise InputError(f"{self._out} holds another job: {differences(job, self._job)}")
        self.complete = True
        return int(self._job["count"])


@contextmanager
def _disk(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        way_out = "--resume goes on from here"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            way_out = f"make room, then {way_out}"
        raise InputError(f"--out {out}: cannot be written: {error.strerror}; {way_out}") from error
