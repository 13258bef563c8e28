"""What an evaluation found: one record for each item, and the run they belong to.

Knows nothing of how items were asked or graded. A run is a folder: `run.json`, the manifest, says
what was evaluated and how; `records.jsonl` holds one record a line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from ringfence.errors import InputError
from ringfence.partial_files import sync_folder
from ringfence.yaml_files import explain

MANIFEST = "run.json"
RECORDS = "records.jsonl"
# A reply has at most some thousand tokens; a longer line is no record of ours.
LONGEST_LINE = 16_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One item of a suite, answered by one model with one seed.

    Attributes:
        model: as the user named it, such as `ringfence/embedded?decoder=plain`.
        suite: its name.
        item: id within the suite.
        cluster: items of one cluster share a base prompt.
        seed: of the run; with model, suite and item it names the record.
        outcomes: metric → whether it came true; None where it does not apply or is undecided.
        prompt: messages as chat APIs write them, without what the provider put in front; `ring`
            where an item gives one.
        reply: text of the model; for choices by likelihood, JSON.
        reason: why the reply ended: `stop`, `length`, `refused`, …; empty if unknown.
        cost: of the reply, by the names of `events.Cost`; empty if unknown.
        seconds: wall time of the item; None if unknown.
        error: why there is no reply; empty if there is one.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False
    )

    model: str
    suite: str
    item: str
    cluster: str
    seed: int
    outcomes: Mapping[str, bool | None]
    prompt: tuple[Mapping[str, Any], ...] = ()
    reply: str = ""
    reason: str = ""
    cost: Mapping[str, float] = field(default_factory=dict)
    seconds: float | None = None
    error: str = ""

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What no two records of a run share."""
        return self.model, self.suite, self.item, self.seed


def asked(messages: Iterable[Mapping[str, Any]]) -> str:
    """What was asked, as far as storing keeps it: roles and texts."""
    return json.dumps([[one.get("role"), one.get("content") or ""] for one in messages])


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run folder, read.

    Attributes:
        path: of the folder.
        manifest: what `run.json` says.
        records: in the order of their logs.
    """

    path: Path
    manifest: Mapping[str, Any]
    records: tuple[Record, ...]


def record_as_json(record: Record) -> str:
    """One line, without its end; half a surrogate pair, which is no text, becomes `?`.

    Raises:
        InputError: a number that JSON does not have, or a prompt that is no JSON.
    """
    try:
        text = json.dumps(asdict(record), allow_nan=False, ensure_ascii=False)
        return text.encode("utf-8", "replace").decode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"record of {record.suite}/{record.item}: is no JSON: {error}") from None


def record_from_json(line: str | bytes, where: str) -> Record:
    """One line, checked; `where` names it in errors.

    Raises:
        InputError: broken JSON, a field that is missing, unknown or of another type.
    """
    if len(line) > LONGEST_LINE:
        raise InputError(f"{where}: longer than {LONGEST_LINE} bytes")
    try:
        return _adapter().validate_json(line)
    except ValidationError as error:
        raise InputError(f"{where}: {explain(error)}") from None


def records_as_jsonl(records: Iterable[Record], path: Path) -> int:
    """Write records, one a line; the file appears whole or not at all. Returns how many.

    Raises:
        InputError: two records of one key, or one that is no JSON.
    """
    partial = path.with_name(f"{path.name}.tmp")
    count = 0
    with partial.open("w", encoding="utf-8", newline="\n") as file:
        for record in unique(records, str(path)):
            file.write(record_as_json(record) + "\n")
            count += 1
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    sync_folder(path.parent)
    return count


def records_from_jsonl(path: Path) -> Iterator[Record]:
    """Records of a file, one by one; only one line is held at a time.

    Raises:
        InputError: the file cannot be read, or a line is none; names file and line.
    """

    def lines() -> Iterator[Record]:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(LONGEST_LINE + 1):
                number += 1
                if line.strip():
                    yield record_from_json(line, f"{path}, line {number}")

    try:
        yield from unique(lines(), str(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error}") from error


def unique(records: Iterable[Record], where: str) -> Iterator[Record]:
    """The same records.

    Raises:
        InputError: two of them have the same model, suite, item and seed.
    """
    seen: set[int] = set()
    for record in records:
        # Hashes, so that a long run needs no second copy of its names.
        key = hash(record.key)
        if key in seen:
            raise InputError(
                f"{where}: two records of {record.suite}/{record.item}, seed {record.seed}, "
                f"model {record.model}"
            )
        seen.add(key)
        yield record


def manifest_of(path: Path) -> dict[str, Any]:
    """What `run.json` of a run folder says.

    Raises:
        InputError: the folder is no run, or the file is damaged.
    """
    file = path / MANIFEST
    if not file.is_file():
        raise InputError(
            f"{path}: is no run folder: it has no {MANIFEST}. "
            f"Make one with `ringfence evaluate --out {path}`."
        )
    try:
        if file.stat().st_size > LONGEST_LINE:
            raise InputError(f"{file}: longer than {LONGEST_LINE} bytes")
        data = json.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read as UTF-8 text: {error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not valid JSON: {error}") from error
    if not isinstance(data, dict):
        raise InputError(f"{file}: must be an object")
    return data


@cache
def _adapter() -> TypeAdapter[Record]:
    return TypeAdapter(Record)
