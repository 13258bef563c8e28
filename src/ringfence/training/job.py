"""A run of training: from a model, data and a recipe to a folder. Knows nothing of terminals.

The folder, while a run lasts: `job.json` (what it is), `tokens/` (the data, rendered),
`checkpoints/`, `metrics.jsonl`. At its end: the adapter or the model, `manifest.json`, `README.md`,
`loss.png`. Every name appears with its contents or not at all: a run can be killed at any moment.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from ringfence.engines.descriptions import Description, describe
from ringfence.errors import EngineError, InputError
from ringfence.partial_files import locked
from ringfence.training import manifest as manifests
from ringfence.training.checkpoints import CHECKPOINTS
from ringfence.training.encoding import card_of
from ringfence.training.memory import Memory, estimated, shape_of
from ringfence.training.metrics import FIGURE, METRICS
from ringfence.training.models import model_folder, weights_hash
from ringfence.training.overlap import Overlap, refuse
from ringfence.training.plan import Plan, encoded, key_of, planned
from ringfence.training.recipe import Kind, Recipe
from ringfence.training.sources import Source, open_sources, sha256

Json = dict[str, Any]
Say = Callable[[str], None]
JOB, TOKENS, LOCK = "job.json", "tokens", ".lock"
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is to be trained.

    Attributes:
        kind: of training.
        model: as `models.model_folder` takes it.
        data: as `sources.open_sources` takes it.
        out: the folder.
        adapter: of an earlier training, to go on with.
        check_against: evaluation data that must not occur in the training data.
        most_overlap: share of its texts up to which shared wording is taken for chance.
        cpu: do without an accelerator.
    """

    kind: Kind
    model: str
    data: tuple[str, ...]
    out: Path
    recipe: Recipe = field(default_factory=Recipe)
    adapter: Path | None = None
    check_against: Path | None = None
    most_overlap: float = 0.0
    cpu: bool = False

    def described(self, sources: list[Source], folder: Path) -> Json:
        """Plain data from which the job could be done again; equal for equal jobs.

        Raises:
            EngineError: the model has no weights.
        """
        adapter = None
        if self.adapter is not None:
            adapter = {"name": self.adapter.name, "sha256": weights_hash(self.adapter)}
        return {
            "format": FORMAT,
            "kind": self.kind,
            "model": {"name": folder.name, "weights": weights_hash(folder)},
            "adapter": adapter,
            "data": [{"name": source.name, "sha256": source.sha256} for source in sources],
            "recipe": self.recipe.model_dump(mode="json"),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A job whose data is rendered and ordered.

    Attributes:
        described: the job as plain data; empty in all processes but the first.
        description: the model's files.
        folder: of the model.
        plan: everything that is trained on, in order.
    """

    job: Job
    described: Json
    description: Description
    folder: Path
    sources: list[Source]
    plan: Plan


def prepared(
    job: Job,
    say: Say,
    *,
    world: int = 1,
    first: bool = True,
    wait: Callable[[], None] | None = None,
) -> Ready:
    """Check model and data, render what is not rendered yet, settle the order.

    Args:
        job: what to do.
        say: takes lines for people.
        world: processes that train together.
        first: this is the one that writes.
        wait: returns when all processes have called it.

    Raises:
        RingfenceError: something cannot be used; says what and the way out.
    """
    folder = model_folder(job.model)
    description = describe(folder)
    if description.template is None:
        raise EngineError(f"{folder} has no chat template; train a chat model")
    card = card_of(description)
    limit = description.context
    if limit is not None and job.recipe.sequence.length > limit:
        raise InputError(
            f"sequence.length: {job.recipe.sequence.length}, and the model's context is {limit}"
        )
    sources = open_sources(job.data, job.kind)
    check = _check(job)
    key = key_of(sources, job.recipe, job.kind, card, check)
    tokens = job.out / TOKENS
    if not first and wait is not None:
        wait()
    counted = _Counter(say)
    made = encoded(
        sources,
        job.recipe,
        job.kind,
        card,
        tokens,
        key=key,
        overlap=_overlap(job, first=first, key=key),
        told=counted,
    )
    if first:
        _tell_dropped(made.summary, say)
        if made.summary["overlap"] is not None:
            refuse(made.summary["overlap"], job.most_overlap)
    described = job.described(sources, folder) if first else {}
    if first and wait is not None:
        wait()
    return Ready(
        job=job,
        described=described,
        description=description,
        folder=folder,
        sources=sources,
        plan=planned(made, job.recipe, job.kind, world),
    )


def claimed(job: Job, *, resume: bool, force: bool) -> BinaryIO:
    """Take hold of the folder, before anything dear is done; closing what is returned lets go.

    Raises:
        InputError: something is there and neither `resume` nor `force` says what to do, or another
            run holds the folder.
    """
    if resume and force:
        raise InputError("--resume goes on and --force starts anew: give one of them")
    if not job.out.parent.is_dir() or (job.out.exists() and not job.out.is_dir()):
        raise InputError(f"--out {job.out}: must be a folder within one that exists")
    job.out.mkdir(exist_ok=True)
    held = locked(job.out / LOCK)
    try:
        if force:
            for name in (JOB, METRICS, manifests.MANIFEST):
                (job.out / name).unlink(missing_ok=True)
            shutil.rmtree(job.out / CHECKPOINTS, ignore_errors=True)
        if (job.out / JOB).exists() and not resume:
            raise InputError(
                f"{job.out} holds a run already; --resume goes on with it, --force starts anew"
            )
    except BaseException:
        held.close()
        raise
    return held


def opened(job: Job, described: Mapping[str, Any]) -> None:
    """Write down in the folder which job it is of, or check that it is of this one.

    Raises:
        InputError: it is of another job.
    """
    file = job.out / JOB
    if file.exists():
        try:
            before = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError):
            raise InputError(f"{file}: not made by ringfence; --force starts anew") from None
        if before != described:
            raise InputError(f"{job.out} holds another run: {_differences(before, described)}")
        return
    manifests.put_text(file, json.dumps(described, indent=2) + "\n")


def dry_run(job: Job, say: Say) -> Json:
    """Memory of every device and, where there is data, what would be trained on; loads no weights.

    Raises:
        RingfenceError: model, data or recipe cannot be used.
    """
    path = Path(job.model).expanduser()
    folder = path if (path / "config.json").is_file() else model_folder(job.model)
    memory: Memory = estimated(shape_of(folder, job.recipe), job.recipe, job.kind)
    found: Json = {"memory": memory.described(), "lines": memory.lines()}
    if job.data:
        with tempfile.TemporaryDirectory(prefix="ringfence-") as place:
            within = replace(job, out=Path(place))
            ready = prepared(within, say, world=job.recipe.hardware.devices)
            plan = ready.plan
            lengths = plan.store.lengths()
            tokens = sum(lengths[number] for row in plan.rows for number in row)
            found["plan"] = {
                "steps": plan.steps,
                "rows": len(plan.rows),
                "tokens": tokens,
                "places": sum(plan.tokens),
                "mixture": plan.mixed,
                "dropped": plan.store.summary["dropped"],
                "overlap": plan.store.summary["overlap"],
            }
            found["lines"] += [
                f"{plan.steps} steps over {len(plan.rows)} rows: {sum(plan.tokens):,} places for "
                f"{tokens:,} tokens"
            ]
            del ready, plan
    return found


def finished(ready: Ready, result: Json, environment: Json, isolation: Json) -> Json:
    """Write figure, card and manifest into the folder; returns the manifest."""
    from ringfence.training import metrics

    out, plan = ready.job.out, ready.plan
    lines = metrics.read(out)
    manifest: Json = {
        "job": ready.described,
        "model": {
            "template_sha256": manifests.text_hash(ready.description.template),
            "tokenizer_sha256": sha256(ready.folder / "tokenizer.json"),
        },
        "data": {
            "sources": [source.described() for source in ready.sources],
            "read": plan.store.summary["read"],
            "dropped": plan.store.summary["dropped"],
            "mixture": plan.mixed,
            "proof": _proof(ready),
        },
        "packing": isolation,
        "result": result,
        "environment": environment,
    }
    metrics.figure(lines, out / FIGURE, f"{ready.folder.name}: {ready.job.kind}")
    manifests.put_text(out / manifests.CARD, manifests.card(manifest))
    manifest["files"] = manifests.written(out)
    manifests.put(out, manifest)
    return manifest


def tokens_of_steps(plan: Plan) -> list[int]:
    """Tokens of every step, on all devices."""
    return [
        sum(plan.tokens[start : start + plan.batch])
        for start in range(0, plan.steps * plan.batch, plan.batch)
    ]


def _proof(ready: Ready) -> Json:
    overlap = ready.plan.store.summary["overlap"]
    listed = all(source.proof["manifest"] for source in ready.sources)
    says = (
        "every source's manifest says train, and lines for evaluation are refused"
        if listed
        else "a source has no manifest, so only its overlap with evaluation data can tell"
    )
    if overlap is None:
        says += "; no evaluation data was given to compare with"
    else:
        says += (
            f"; {overlap['evaluation_texts_shared']} of {overlap['evaluation_texts']} evaluation "
            f"texts share {overlap['words']} words in a row with it"
        )
    return {"says": says, "manifests": listed, "overlap": overlap}


def _check(job: Job) -> str:
    """Evaluation data as part of the key: names, sizes and times are enough to notice a change."""
    if job.check_against is None:
        return ""
    files = sorted(path for path in job.check_against.rglob("*") if path.is_file())
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(json.dumps(stats).encode()).hexdigest()


def _overlap(job: Job, *, first: bool, key: str) -> Overlap | None:
    if job.check_against is None or not first:
        return None
    try:
        head = json.loads((job.out / TOKENS / "summary.json").read_text("utf-8"))
        if head["key"] == key:
            return None  # it was compared when it was rendered
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return Overlap(job.check_against)


def _tell_dropped(summary: Json, say: Say) -> None:
    dropped = summary["dropped"]
    if dropped["count"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped["reasons"].items())
        say(f"left out {dropped['count']} of {summary['read']} examples: {reasons}")


def _differences(before: object, now: Mapping[str, Any]) -> str:
    held = before if isinstance(before, dict) else {}
    names = [name for name in sorted({*held, *now}) if held.get(name) != now.get(name)]
    inner = []
    for name in names:
        one, other = held.get(name), now.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            keys = [key for key in sorted({*one, *other}) if one.get(key) != other.get(key)]
            inner += [f"{name}.{key}" for key in keys]
        else:
            inner.append(name)
    return f"{', '.join(inner)} differ. Use the same settings, another --out, or --force."


class _Counter:
    """Tells how many examples were rendered, now and then."""

    def __init__(self, say: Say) -> None:
        self._say = say

    def __call__(self, number: int) -> None:
        if number % 2000 == 0:
            self._say(f"rendered {number} examples")
