"""Is this judge any good? A judge measured on labelled replies before it is used.

Knows nothing of search, servers or command lines. Why it exists: a judge whose labels mean nothing
to the model is noise, and a search steered by noise looks like one that works.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from ringfence.concurrency import together
from ringfence.engine import EngineCard
from ringfence.errors import InputError, RenderingError
from ringfence.judged_items import PARTS, JudgedItem
from ringfence.judges import Judge, Verdict
from ringfence.principle import Principle
from ringfence.statistics import (
    Bin,
    Interval,
    auroc_interval,
    expected_calibration_error,
    reliability,
    tpr_at_fpr,
)

Progress = Callable[[int, int], None]

# Bump when the meaning of a figure changes; older cached reports are then ignored.
_FORMAT = 3
_BATCH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The same figure of the items of one sort.

    Attributes:
        by: what they have in common, such as `recipe`.
        value: which one.
        n: items; `positives` of them are good.
        auroc: None where all are good or all are bad.
    """

    by: str
    value: str
    n: int
    positives: int
    auroc: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeReport:
    """How well a judge tells good replies from bad ones.

    Attributes:
        judge: its name.
        engine: name of the engine it ran on.
        n: items; `positives` of them are good.
        auroc: with its 95 % interval (Newcombe's).
        threshold: of the judge; values of at least this are accepted.
        accuracy: share of right answers at the threshold.
        accuracy_at_zero: share of right answers if positive values were accepted.
        tpr_at_1_fpr: share of good replies accepted when at most 1 % of the bad ones may be.
        swap_flip_rate: how often the answer changes when the options are swapped; None without.
        lean: mean value over good and bad replies, each kind weighing half; 0 has no bias.
        calibration_error: of (value + 1) / 2 read as the probability of a good reply.
        reliability: the bins behind it.
        fed: mean tokens processed for a verdict, after cache hits.
        requests: mean requests for a verdict.
        seconds: mean wall time for a verdict, as judged side by side.
        parts: of items that say what they are about, such as those of `ringfence synthesize`.
    """

    judge: str
    engine: str
    n: int
    positives: int
    auroc: Interval
    threshold: float
    accuracy: float
    accuracy_at_zero: float
    tpr_at_1_fpr: float
    swap_flip_rate: float | None
    lean: float
    calibration_error: float
    reliability: tuple[Bin, ...]
    fed: float
    requests: float
    seconds: float
    parts: tuple[Part, ...] = ()

    @property
    def at_chance(self) -> bool:
        """Whether guessing could have done as well: the interval of the AUROC reaches 0.5."""
        return self.auroc.low <= 0.5

    def refusal(self) -> str:
        """Why a judge at chance is refused, with the figures and the way out."""
        area = self.auroc
        flips = (
            ""
            if self.swap_flip_rate is None
            else f", {self.swap_flip_rate:.0%} of its answers change when the options are swapped"
        )
        return (
            f"{self.judge} on {self.engine} cannot tell good replies from bad ones: AUROC "
            f"{area.estimate:.2f} (95 % interval {area.low:.2f} to {area.high:.2f}; 0.5 is chance)"
            f" on {self.n} labelled replies, accuracy {self.accuracy:.0%} at its threshold "
            f"{self.threshold:g}{flips}. Use a larger model, a principle that this model can judge "
            "(ringfence judge check shows which), or a better principle file."
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data; `from_json` takes it back."""
        return {**asdict(self), "at_chance": self.at_chance}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """From what `to_json` gave.

        Raises:
            InputError: it did not come from there.
        """
        try:
            values = {field.name: data[field.name] for field in fields(cls)}
            values["auroc"] = Interval(**values["auroc"])
            values["reliability"] = tuple(Bin(**item) for item in values["reliability"])
            values["parts"] = tuple(
                Part(**{**part, "auroc": part["auroc"] and Interval(**part["auroc"])})
                for part in values["parts"]
            )
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise InputError(f"not a judge report: {error!r}") from error


async def check_judge(
    judge: Judge,
    card: EngineCard,
    items: Sequence[JudgedItem],
    *,
    progress: Progress | None = None,
    batch: int = _BATCH,
) -> JudgeReport:
    """Judge every item, a batch side by side at a time, and compare with what is known.

    Args:
        judge: to be measured.
        card: of the engine behind it.
        items: good and bad ones.
        progress: told (done, all) after every batch.
        batch: items judged side by side.

    Raises:
        InputError: the items are not of both kinds, or an item does not fit the model.
        EngineError: the engine behind the judge cannot answer.
    """
    if {item.good for item in items} != {True, False}:
        raise InputError("a judge can only be measured on items of both kinds, good and bad")
    prompts = []
    for number, item in enumerate(items, 1):
        try:
            prompts.append(item.rendering(card))
        except RenderingError as error:
            raise InputError(f"item {number}: {error}") from error
    verdicts: list[Verdict] = []
    clock = asyncio.get_running_loop().time
    start = clock()
    for first in range(0, len(items), batch):
        rows = await together(
            judge.judge(prompt, [item.reply])
            for prompt, item in zip(
                prompts[first : first + batch], items[first : first + batch], strict=True
            )
        )
        verdicts.extend(row[0] for row in rows)
        if progress is not None:
            progress(len(verdicts), len(items))
    return _report(judge, card.name, items, verdicts, clock() - start)


def _report(
    judge: Judge,
    engine: str,
    items: Sequence[JudgedItem],
    verdicts: Sequence[Verdict],
    seconds: float,
) -> JudgeReport:
    good = [item.good for item in items]
    values = [verdict.value for verdict in verdicts]
    probabilities = [(value + 1) / 2 for value in values]
    flips = [verdict.flipped for verdict in verdicts if verdict.flipped is not None]
    n = len(items)

    def mean_of(kind: bool) -> float:
        of_kind = [value for value, is_good in zip(values, good, strict=True) if is_good is kind]
        return sum(of_kind) / len(of_kind)

    def accuracy(accepted: Sequence[bool]) -> float:
        return sum(a == g for a, g in zip(accepted, good, strict=True)) / n

    return JudgeReport(
        judge=judge.name,
        engine=engine,
        n=n,
        positives=sum(good),
        auroc=auroc_interval(values, good, clusters=_clusters(items)),
        threshold=judge.threshold,
        accuracy=accuracy([value >= judge.threshold for value in values]),
        accuracy_at_zero=accuracy([value > 0 for value in values]),
        tpr_at_1_fpr=tpr_at_fpr(values, good, 0.01),
        swap_flip_rate=sum(flips) / len(flips) if flips else None,
        lean=(mean_of(True) + mean_of(False)) / 2,
        calibration_error=expected_calibration_error(probabilities, good),
        reliability=reliability(probabilities, good),
        fed=sum(verdict.fed for verdict in verdicts) / n,
        requests=sum(verdict.requests for verdict in verdicts) / n,
        seconds=seconds / n,
        parts=tuple(_parts(items, values)),
    )


def _parts(items: Sequence[JudgedItem], values: Sequence[float]) -> Iterator[Part]:
    for by in PARTS:
        for value in sorted({item.about[by] for item in items if by in item.about}):
            chosen = [place for place, item in enumerate(items) if item.about.get(by) == value]
            good = [items[place].good for place in chosen]
            both = {True, False} <= set(good)
            yield Part(
                by=by,
                value=value,
                n=len(good),
                positives=sum(good),
                auroc=auroc_interval(
                    [values[place] for place in chosen],
                    good,
                    clusters=_clusters([items[place] for place in chosen]),
                )
                if both
                else None,
            )


def _clusters(items: Sequence[JudgedItem]) -> list[str]:
    """The case of every item; an item that names none is one of its own."""
    return [item.case or f"/{place}" for place, item in enumerate(items)]


async def check_judge_once(
    judge: Judge,
    principle: Principle,
    card: EngineCard,
    items: Sequence[JudgedItem],
    *,
    progress: Progress | None = None,
    folder: Path | None = None,
) -> JudgeReport:
    """`check_judge`, or the report kept from the last time all of it was the same.

    The same means: the engine's name, its files (`EngineCard.stamp`) and chat template, what the
    principle file says, and the items. Of an engine without a stamp, such as a server, nothing is
    kept: it may serve another model under the same name.

    Args:
        judge: to be measured.
        principle: that it judges by.
        card: of the engine behind it.
        items: good and bad ones.
        progress: told (done, all) after every batch; not called for a kept report.
        folder: where reports are kept; default `$XDG_CACHE_HOME/ringfence`.

    Raises:
        InputError: as `check_judge`.
        EngineError: as `check_judge`.
    """
    if not card.stamp:
        return await check_judge(judge, card, items, progress=progress)
    file = (folder or cache_folder()) / f"judge-{_key(judge, principle, card, items)}.json"
    kept = _kept(file)
    if kept is not None:
        return kept
    report = await check_judge(judge, card, items, progress=progress)
    _keep(file, report)
    return report


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/ringfence`; the variable counts only if it is an absolute path."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(named) if named.startswith("/") else Path.home() / ".cache"
    return root / "ringfence"


def _key(judge: Judge, principle: Principle, card: EngineCard, items: Sequence[JudgedItem]) -> str:
    what = {
        "format": _FORMAT,
        "judge": judge.name,
        "engine": [card.name, card.stamp, card.template, card.bos, card.eos],
        "principle": principle.model_dump(mode="json"),
        "items": [asdict(item) for item in items],
    }
    text = json.dumps(what, sort_keys=True, default=dict)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _kept(file: Path) -> JudgeReport | None:
    """The report in a file; None if there is none, or none that can be used."""
    try:
        return JudgeReport.from_json(json.loads(file.read_text("utf-8")))
    except (OSError, ValueError, TypeError, InputError):
        return None


def _keep(file: Path, report: JudgeReport) -> None:
    """Write whole or not at all; a cache that cannot be written is no reason to stop."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=file.name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                json.dump(report.to_json(), stream)
            os.replace(name, file)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
