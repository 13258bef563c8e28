"""A run of training: from a model, data and a recipe to a folder. Knows nothing of terminals.

The folder, while a run lasts: `job.json` (what it is), `tokens/` (the data, rendered),
`checkpoints/`, `metrics.jsonl`. At its end: the adapter or the model, `manifest.json`, `README.md`,
`loss.png`. Every name appears with its contents or not at all: a run can be killed at any moment.
`run_folder` says whose a folder is.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ringfence.adapters.folder import CONFIG
from ringfence.adapters.host import host_of
from ringfence.engines.chat_templates import Value, with_template
from ringfence.engines.descriptions import Description, describe
from ringfence.errors import EngineError, InputError
from ringfence.segments.saved import CARD, SignalCard
from ringfence.training import manifest as manifests
from ringfence.training.encoding import card_of
from ringfence.training.memory import Memory, estimated, shape_of
from ringfence.training.metrics import FIGURE
from ringfence.training.models import checked_adapter, model_folder, weights_hash
from ringfence.training.overlap import Overlap, refuse, stamp, told
from ringfence.training.plan import Plan, encoded, key_of, planned
from ringfence.training.recipe import Kind, Recipe
from ringfence.training.run_folder import TOKENS
from ringfence.training.sources import Source, open_sources, sha256

Json = dict[str, Any]
Say = Callable[[str], None]
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
        template_options: variables for the model's chat template, such as `enable_thinking`.
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
    template_options: Mapping[str, Value] = field(default_factory=dict)

    def described(
        self, sources: list[Source], folder: Path, description: Description, world: int = 1
    ) -> Json:
        """Plain data from which the job could be done again; equal for equal jobs.

        `processes` (`world`) is a part of it: the rows of a step come from all of them, so that a
        run that goes on with another number of them would leave some out and repeat others.

        Raises:
            EngineError: the model has no weights.
        """
        adapter = None
        if self.adapter is not None:
            files = (self.adapter / name for name in (CONFIG, CARD))
            adapter = {
                "name": self.adapter.name,
                "sha256": weights_hash(self.adapter),
                "settings": [sha256(file) for file in files if file.is_file()],
            }
        options = dict(self.template_options)
        return {
            "format": FORMAT,
            "kind": self.kind,
            "model": {
                "name": folder.name,
                "weights": weights_hash(folder),
                "template": manifests.text_hash(description.template),
                "tokenizer": sha256(folder / "tokenizer.json"),
            },
            "adapter": adapter,
            "data": [{"name": source.name, "sha256": source.sha256} for source in sources],
            "recipe": self.recipe.model_dump(mode="json"),
            "processes": world,
            **({"template_options": options} if options else {}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A job whose model, data and adapter were found and belong together.

    Attributes:
        described: the job as plain data; empty in all processes but the first.
        description: the model's files.
        folder: of the model.
        signal: of the adapter, if it has one.
    """

    job: Job
    described: Json
    description: Description
    folder: Path
    sources: list[Source]
    signal: SignalCard | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A job whose data is rendered and ordered.

    Attributes:
        checked: the job, and what was found for it.
        plan: everything that is trained on, in order.
    """

    checked: Checked
    plan: Plan

    @property
    def job(self) -> Job:
        """What is to be trained."""
        return self.checked.job

    @property
    def folder(self) -> Path:
        """Of the model."""
        return self.checked.folder


def checked(job: Job, *, first: bool = True, world: int = 1, weights: bool = True) -> Checked:
    """Find model, data and adapter, before anything is rendered, loaded or removed.

    Args:
        job: what to do.
        first: this is the process that writes, and describes the job.
        world: processes that train together.
        weights: bring them; without, nothing is described by them.

    Raises:
        RingfenceError: something cannot be used; says what and the way out.
    """
    folder = model_folder(job.model, weights=weights)
    description = with_template(describe(folder), None, job.template_options)
    if description.template is None:
        raise EngineError(f"{folder} has no chat template; train a chat model")
    limit = description.context
    if limit is not None and job.recipe.sequence.length > limit:
        raise InputError(
            f"sequence.length: {job.recipe.sequence.length}, and the model's context is {limit}"
        )
    signal = None
    if job.adapter is not None:
        signal = checked_adapter(job.adapter, folder, description.tokenizer, job.recipe)
    elif job.recipe.adapter is not None:
        host_of(folder, description.tokenizer)  # is kept beside the adapter, and must be known
    sources = open_sources(job.data, job.kind)
    return Checked(
        job=job,
        described=job.described(sources, folder, description, world) if first and weights else {},
        description=description,
        folder=folder,
        sources=sources,
        signal=signal,
    )


def prepared(
    found: Checked,
    say: Say,
    *,
    world: int = 1,
    first: bool = True,
    wait: Callable[[], None] | None = None,
) -> Ready:
    """Render what is not rendered yet, settle the order.

    Args:
        found: as `checked` gives it.
        say: takes lines for people.
        world: processes that train together.
        first: this is the one that writes.
        wait: returns when all processes have called it.

    Raises:
        RingfenceError: something cannot be used; says what and the way out.
    """
    job, card = found.job, card_of(found.description)
    check = "" if job.check_against is None else stamp(job.check_against)
    key = key_of(found.sources, job.recipe, job.kind, card, check, found.signal)
    if not first and wait is not None:
        wait()
    made = encoded(
        found.sources,
        job.recipe,
        job.kind,
        card,
        job.out / TOKENS,
        key=key,
        overlap=_overlap(job, first=first, key=key),
        told=_Counter(say),
        signal=found.signal,
    )
    if first:
        _tell_dropped(made.summary, say)
        if made.summary["overlap"] is not None:
            say(told(made.summary["overlap"]))
            refuse(made.summary["overlap"], job.most_overlap)
    if first and wait is not None:
        wait()
    return Ready(checked=found, plan=planned(made, job.recipe, job.kind, world))


def dry_run(job: Job, say: Say) -> Json:
    """Memory of every device and, where there is data, what would be trained on; loads no weights.

    Raises:
        RingfenceError: model, data or recipe cannot be used.
    """
    folder = model_folder(job.model, weights=False)
    memory: Memory = estimated(shape_of(folder, job.recipe, job.adapter), job.recipe, job.kind)
    found: Json = {"memory": memory.described(), "lines": memory.lines()}
    if job.data:
        with tempfile.TemporaryDirectory(prefix="ringfence-") as place:
            within = replace(job, out=Path(place))
            ready = prepared(checked(within, weights=False), say, world=job.recipe.hardware.devices)
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

    found, plan, out = ready.checked, ready.plan, ready.job.out
    lines = metrics.read(out)
    manifest: Json = {
        "job": found.described,
        "model": {
            "template_sha256": manifests.text_hash(found.description.template),
            "tokenizer_sha256": sha256(ready.folder / "tokenizer.json"),
        },
        "data": {
            "sources": [source.described() for source in found.sources],
            "read": plan.store.summary["read"],
            "principles": plan.store.summary["principles"],
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
    listed = all(source.proof["manifest"] for source in ready.checked.sources)
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


class _Counter:
    """Tells how many examples were rendered, now and then."""

    def __init__(self, say: Say) -> None:
        self._say = say

    def __call__(self, number: int) -> None:
        if number % 2000 == 0:
            self._say(f"rendered {number} examples")
