"""A run folder read: the records of its logs, or those written at its end.

Logs may come from anywhere: nothing in them is run, and what they unpack to is bounded. Knows
nothing of engines. Inspect is imported only where there are logs to read.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ringfence.errors import InputError
from ringfence.records import (
    RECORDS,
    Record,
    Run,
    manifest_of,
    records_from_jsonl,
    unique,
)

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample, EvalSpec

# Suite, model and seed.
Cell = tuple[str, str, int]
LOGS = "logs"
MOST_LOGS = 10_000
LARGEST_ENTRY = 64 << 20
"""Bytes that one sample, or the header, of a log may unpack to."""
MOST_ENTRIES = 2_000_000
_BROKEN_OFF = "CancelledError("


def load_run(path: Path) -> Run:
    """A run folder, from `records.jsonl` where that is newer than every log, else from the logs.

    Raises:
        InputError: the folder is no run, or something in it is damaged; names the file.
    """
    manifest = manifest_of(path)
    kept = path / RECORDS
    logs = _files(path)
    if kept.is_file() and all(_mtime(log) <= _mtime(kept) for log in logs):
        records = tuple(records_from_jsonl(kept))
    else:
        records = tuple(unique(logged(path), str(path / LOGS)))
    return Run(path=path, manifest=manifest, records=records)


def logged(path: Path) -> Iterator[Record]:
    """Records of the logs of a run folder, one sample at a time.

    Of several logs of one model, suite and seed only the newest counts: an attempt takes over what
    those before it finished.

    Raises:
        InputError: a log that cannot be read, or is none of ours; names it.
    """
    for file, header in newest(path):
        yield from _records(file, header)


def newest(path: Path) -> list[tuple[Path, EvalLog]]:
    """The logs that count, with their headers, by suite, model and seed.

    Raises:
        InputError: a log that cannot be read; names it.
    """
    chosen: dict[Cell, tuple[tuple[str, bool], Path, EvalLog]] = {}
    for file in _files(path):
        header = _header(file)
        if header is None:
            continue
        cell = _cell(file, header)
        # A recovered log has the time of the one it was recovered from, which stays `started`.
        age = (str(header.eval.created), header.status != "started")
        if cell not in chosen or chosen[cell][0] < age:
            chosen[cell] = (age, file, header)
    return [
        (file, header) for _, (_, file, header) in sorted(chosen.items(), key=lambda one: one[0])
    ]


def _files(path: Path) -> list[Path]:
    files = sorted((path / LOGS).glob("*.eval")) if (path / LOGS).is_dir() else []
    if len(files) > MOST_LOGS:
        raise InputError(f"{path / LOGS}: more than {MOST_LOGS} logs")
    return files


def _mtime(file: Path) -> int:
    return file.stat().st_mtime_ns


def _header(file: Path) -> EvalLog | None:
    """None for a log whose run was killed before it had written any."""
    from inspect_ai.log import read_eval_log

    if file.stat().st_size == 0:
        return None
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
        if len(entries) > MOST_ENTRIES:
            raise InputError(f"{file}: more than {MOST_ENTRIES} entries")
        for entry in entries:
            if entry.file_size > LARGEST_ENTRY:
                raise InputError(f"{file}: {entry.filename!r} unpacks to {entry.file_size} bytes")
        return read_eval_log(str(file), header_only=True)
    except InputError:
        raise
    except Exception as error:  # whatever Inspect makes of a broken file
        raise InputError(f"{file}: is no Inspect log: {_said(error)}") from error


def cell_of(spec: EvalSpec) -> Cell:
    """What a log is of.

    Raises:
        InputError: its seed is no whole number.
    """
    seed = (spec.task_args or {}).get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise InputError(f"task_args.seed: must be a whole number, not {seed!r}")
    return spec.task.removeprefix("ringfence/"), str(spec.model), seed


def finished(file: Path) -> int:
    """How many samples of a log are finished without an error.

    Raises:
        InputError: it cannot be read; names it.
    """
    from inspect_ai.log import read_eval_log_sample_summaries

    try:
        return sum(summary.error is None for summary in read_eval_log_sample_summaries(str(file)))
    except Exception as error:
        raise InputError(f"{file}: its samples cannot be counted: {_said(error)}") from error


def _cell(file: Path, header: EvalLog) -> Cell:
    try:
        return cell_of(header.eval)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def _records(file: Path, header: EvalLog) -> Iterator[Record]:
    from inspect_ai.log import read_eval_log_samples

    suite, model, seed = _cell(file, header)
    try:
        samples = read_eval_log_samples(
            str(file),
            all_samples_required=False,
            resolve_attachments="core",
            exclude_fields={"events", "store", "timelines"},
        )
        for sample in samples:
            # A sample that Ctrl-C broke off has not failed: it has yet to be run.
            if sample.error is None or not sample.error.message.startswith(_BROKEN_OFF):
                yield _record(sample, suite, model, seed)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    except Exception as error:
        raise InputError(f"{file}: a sample cannot be read: {_said(error)}") from error


def _record(sample: EvalSample, suite: str, model: str, seed: int) -> Record:
    from ringfence.evaluation.tasks import reason_of, reply_of

    account = (sample.output.metadata or {}).get("ringfence")
    account = account if isinstance(account, dict) else {}
    return Record(
        model=model,
        suite=suite,
        item=str(sample.id),
        cluster=str(sample.metadata.get("cluster", sample.id)),
        seed=seed,
        outcomes=_outcomes(sample),
        prompt=_prompt(sample),
        reply=reply_of(sample.output),
        reason=reason_of(sample.output),
        cost=_numbers(account.get("cost")),
        seconds=sample.total_time,
        error=sample.error.message if sample.error else "",
    )


def _prompt(sample: EvalSample) -> tuple[Mapping[str, Any], ...]:
    """Messages as chat APIs write them, with the ring of those that have one of their own."""
    from ringfence.evaluation.conversations import from_inspect

    if isinstance(sample.input, str):
        return ({"role": "user", "content": sample.input},)
    found = []
    for one, message in zip(from_inspect(sample.input), sample.input, strict=True):
        ring = (message.metadata or {}).get("ring")
        found.append(one | ({"ring": str(ring)} if ring else {}))
    return tuple(found)


def _outcomes(sample: EvalSample) -> dict[str, bool | None]:
    score = (sample.scores or {}).get("graded")
    if score is None or not isinstance(score.value, Mapping):
        return {}
    return {str(name): _outcome(str(name), value) for name, value in score.value.items()}


def _outcome(name: str, value: Any) -> bool | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if value in (0, 1):
        return bool(value)
    raise InputError(f"score of {name}: must be 0, 1 or NaN, not {value!r}")


def _numbers(cost: Any) -> dict[str, float]:
    if not isinstance(cost, Mapping):
        return {}
    return {
        str(name): value
        for name, value in cost.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:300]}"
