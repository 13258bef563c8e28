"""Files that are written in part and finished later. Knows nothing of what their lines say."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ringfence.errors import InputError


def locked(partial: Path) -> BinaryIO:
    """Open a partial file for one run alone; closing it lets go.

    Raises:
        InputError: another run has it.
    """
    while True:
        file = partial.open("a+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise InputError(f"{partial}: another run is writing it") from None
        if os.fstat(file.fileno()).st_nlink:
            return file
        # The other run finished, and removed the file, between our opening and locking it.
        file.close()


def refuse_existing(partial: Path, finished: tuple[Path, ...]) -> None:
    """For a run that begins: nothing may be in its way.

    Raises:
        InputError: a run that did not finish, or the results of one that did.
    """
    if partial.exists():
        raise InputError(
            f"{partial} is there from a run that did not finish; --resume goes on with it, "
            "--force starts anew"
        )
    for file in finished:
        if file.exists():
            raise InputError(f"{file} exists; --force replaces it, --resume keeps what is finished")


def sync_folder(folder: Path) -> None:
    """Make names in a folder as durable as the files."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class PartialLines:
    """Lines of JSON of a job that is not finished. The first line says which job it is.

    Lines are appended whole. What a crash leaves is a torn last line, or zeros after a power cut;
    it was not finished, and is cut off when the job goes on. A lock keeps a second run away. A job
    that is let go of before its first line leaves no file: a start that failed is in nobody's way.

    Attributes:
        path: of the file.
    """

    def __init__(self, path: Path, job: Mapping[str, Any]) -> None:
        """Name the job, plain data; `open` touches the disk."""
        self.path = path
        self._job: dict[str, Any] = json.loads(json.dumps(job))
        self._file: BinaryIO | None = None
        # Bytes of the first line, once the file is known to be this job's.
        self._head: int | None = None

    def open(self, *, force: bool = False) -> None:
        """Take hold of the file, cut off what is torn, or begin it.

        Args:
            force: throw away what is there.

        Raises:
            InputError: another run has it, it is of another job, or nothing of ours.
        """
        self._file, self._head = locked(self.path), None
        try:
            if force:
                self._file.truncate(0)
            self._head = self._recovered()
            if not self._head:
                _, self._head = self.append(json.dumps({"job": self._job}).encode())
                sync_folder(self.path.parent)
        except BaseException:
            self.close()
            raise

    def append(self, line: bytes, *, sync: bool = True) -> tuple[int, int]:
        """Write a line; returns where it starts and its length with its end.

        Args:
            line: without its end.
            sync: on return it is on the disk; else `sync` does it for many.
        """
        start = self._held.seek(0, os.SEEK_END)
        self._held.write(line + b"\n")
        if sync:
            self.sync()
        return start, len(line) + 1

    def sync(self) -> None:
        """What was written is on the disk."""
        self._held.flush()
        os.fsync(self._held.fileno())

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """The lines after the first, each with where it starts."""
        start = 0
        self._held.seek(0)
        for number, line in enumerate(self._held):
            if number:
                yield start, line
            start += len(line)

    def at(self, start: int, length: int) -> bytes:
        """What stands at a place that `append` or `lines` gave."""
        self._held.seek(start)
        return self._held.read(length)

    def close(self) -> None:
        """Let go of the file; the lines that were written stay."""
        file, self._file = self._file, None
        if file is None:
            return
        # Where the disk is full, the torn line is cut off by the next run.
        with contextlib.suppress(OSError):
            if self._head is not None and file.seek(0, os.SEEK_END) <= self._head:
                self._unlink(file)
        with contextlib.suppress(OSError):
            file.close()

    def remove(self) -> None:
        """Everything of it stands elsewhere now."""
        self.path.unlink()

    @property
    def _held(self) -> BinaryIO:
        assert self._file is not None
        return self._file

    def _unlink(self, file: BinaryIO) -> None:
        """Remove the name, unless it is gone or another file's by now."""
        if os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
            self.path.unlink()

    def _recovered(self) -> int:
        """Length of the first line, if the file was begun before; else 0, and it is empty."""
        self._held.seek(0)
        head = end = 0
        for line in self._held:
            torn = not line.endswith(b"\n") or b"\0" in line
            if end == 0 and not (torn and self._torn_at_once(line)):
                self._check(line)
            if torn:
                break
            head = head or len(line)
            end += len(line)
        self._held.truncate(end)
        return head

    def _torn_at_once(self, line: bytes) -> bool:
        """Whether this is what a crash leaves of the first line, and nothing comes after it."""
        written = line.rstrip(_REST)
        ours = written.startswith(_BEGINNING) or _BEGINNING.startswith(written)
        return ours and not any(later.strip(_REST) for later in self._held)

    def _check(self, line: bytes) -> None:
        try:
            job = dict(json.loads(line)["job"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise InputError(
                f"{self.path}, line 1: not made by ringfence; --force starts anew"
            ) from None
        if job != self._job:
            raise InputError(f"{self.path} is of another job: {differences(job, self._job)}")


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What is not the same about two jobs, and the way out."""
    keys = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    parts = []
    for key in keys:
        values = [json.dumps(job.get(key)) for job in (before, now)]
        told = max(map(len, values)) <= _LONGEST
        parts.append(f"{key} was {values[0]}, now {values[1]}" if told else f"other {key}")
    return f"{'; '.join(parts)}. Use the same settings, another --out, or --force."


# Of every file that is begun here.
_BEGINNING = b'{"job":'
# Zeros where nothing was written before the power went, and ends of lines.
_REST = b"\0\n"
# A longer value, such as a hash, says nothing to a person.
_LONGEST = 60
