"""Preferences from a model's own failures: what it says, what its graders say of that.

Chosen is a reply of its own that passes, or the target of synthesis; rejected is one of its own
that fails. Knows nothing of terminals, and of engines only how to draft.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import os
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from pydantic import ValidationError

from ringfence.engine import Engine, Sampling
from ringfence.errors import ContextError, InputError, RenderingError
from ringfence.graders import grade, parse_grader
from ringfence.partial_files import PartialLines, refuse_existing, sync_folder
from ringfence.rendering import render
from ringfence.rings import Conversation, Policy
from ringfence.synthesis.case import Case, Sibling, Turn
from ringfence.synthesis.targets import preferences
from ringfence.training.encoding import policy_of
from ringfence.training.manifest import put
from ringfence.training.sources import sha256

Json = dict[str, Any]
CASES, PREFERENCES, JUDGED = "cases.jsonl", "preferences.jsonl", "judged.jsonl"
MANIFEST = "manifest.json"
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """How replies are drawn and how many.

    Attributes:
        samples: replies to every conversation.
        tokens: longest reply; one that is cut off there is not used.
        temperature: of the draws.
        seed: of the draws.
    """

    samples: int = 4
    tokens: int = 256
    temperature: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what draws nothing.

        Raises:
            InputError: a number below 1, or a temperature of 0 with several samples.
        """
        if self.samples < 1 or self.tokens < 1:
            raise InputError("--samples and --max-tokens: must be at least 1")
        if self.temperature <= 0 and self.samples > 1:
            raise InputError("--temperature 0: all samples would be equal; use --samples 1")


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
        if not (resume or force):
            refuse_existing(
                self._lines.path,
                tuple(self._out / name for name in (MANIFEST, PREFERENCES, JUDGED)),
            )
        self._out.mkdir(exist_ok=True)
        self._lines.open(force=force)
        return sum(1 for _ in self._lines.lines())

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
        """Let go of the folder; what was written stays."""
        self._lines.close()


async def pairs(
    engine: Engine, folder: Folder, sampled: Sampled, finished: int, *, concurrency: int
) -> AsyncGenerator[int, None]:
    """Do the cases that are left, some side by side; yields how many are safe.

    Raises:
        EngineError: the engine cannot answer; cases before are safe.
    """
    cases = folder.cases()
    for _ in range(finished):
        next(cases, None)
    flying: deque[asyncio.Task[Json]] = deque()
    with closing(folder):
        try:
            number = finished
            while True:
                while len(flying) < concurrency and (case := next(cases, None)) is not None:
                    task = _of_case(engine, case, folder.policy, sampled)
                    flying.append(asyncio.create_task(task))
                if not flying:
                    break
                folder.append(await flying.popleft())
                number += 1
                yield number
        finally:
            for task_left in flying:
                task_left.cancel()
            await asyncio.gather(*flying, return_exceptions=True)
        folder.finish()


async def _of_case(engine: Engine, case: Case, policy: Policy, sampled: Sampled) -> Json:
    counts: Counter[str] = Counter()
    made = []
    for name in case.siblings:
        pair = await _of_sibling(engine, case, name, policy, sampled, counts)
        if pair is not None:
            made.append(pair)
        counts["conversations"] += 1
    return {"case": case.id, "pairs": made, "counts": dict(counts)}


async def _of_sibling(
    engine: Engine,
    case: Case,
    name: str,
    policy: Policy,
    sampled: Sampled,
    counts: Counter[str],
) -> Json | None:
    sibling = case.siblings[name]
    if sibling.target is None or sibling.world is not None:
        counts["left out: no target, or one that calls tools"] += 1
        return None
    replies = await _replies(engine, case, name, policy, sampled)
    if replies is None:
        counts["left out: the template or the window does not take it"] += 1
        return None
    counts["replies"] += sampled.samples
    counts["replies cut off"] += sampled.samples - len(replies)
    grader = parse_grader(sibling.grader)
    verdicts = [(reply, grade(grader, reply)) for reply in replies]
    right = [reply for reply, verdict in verdicts if verdict.passed]
    wrong = [reply for reply, verdict in verdicts if verdict.decided and not verdict.passed]
    counts["replies right"] += len(right)
    counts["replies wrong"] += len(wrong)
    if not wrong:
        counts["left out: no failure" if replies else "left out: no whole reply"] += 1
        return None
    rejected = _worst(sibling, wrong)
    chosen = right[0] if right else sibling.target
    counts["chosen: own" if right else "chosen: target"] += 1
    own = sibling.model_copy(
        update={
            "target": chosen,
            "target_calls": () if right else sibling.target_calls,
            "wrong": rejected,
            "wrong_calls": (),
        }
    )
    (line,) = preferences(case.model_copy(update={"siblings": {name: own}}))
    return {
        **line,
        "split": "train",
        "chosen_by": "model" if right else sibling.target_by,
        "rejected_by": "model",
    }


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


def _worst(sibling: Sibling, wrong: list[str]) -> str:
    """The first failure that obeys what is void, else the first."""
    if sibling.lower is not None:
        lower = parse_grader(sibling.lower)
        for reply in wrong:
            if grade(lower, reply).passed:
                return reply
    return wrong[0]


async def _replies(
    engine: Engine, case: Case, name: str, policy: Policy, sampled: Sampled
) -> list[str] | None:
    """Whole replies, drawn with a seed of their own; None if the model cannot be asked."""
    messages = case.siblings[name].messages
    rings = [turn.ring for turn in messages]
    own = policy if policy.name == case.policy else _made_of(case, messages)
    turns = [turn.model_dump(exclude_defaults=True) for turn in messages]
    try:
        conversation = Conversation.of(turns, own, rings, list(case.siblings[name].tools) or None)
        prompt = render(conversation, engine.card)
    except RenderingError:
        return None
    sampling = Sampling(
        temperature=sampled.temperature,
        seed=Random(f"{sampled.seed}:{case.id}/{name}").getrandbits(31),
    )
    try:
        drafts = await engine.draft(prompt.tokens, sampled.samples, sampled.tokens, sampling)
    except ContextError:
        return None
    tokenizer = engine.card.tokenizer
    return [tokenizer.decode(draft.tokens).strip() for draft in drafts if draft.finished]


def _made_of(case: Case, messages: tuple[Turn, ...]) -> Policy:
    """A policy with the case's rings, where its name is not that of the data."""
    return Policy.of(case.policy, case.rings, {turn.role: turn.ring for turn in messages})
