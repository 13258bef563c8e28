"""Decoders: ways to turn an engine (and a judge) into a reply. All have one signature.

`plain`, `best-of-n`, `rejection`, `rain` and `guarded` yield the events of `ringfence.events`;
`decode` runs one of them and adds what they share (text, stop strings, the final account), and
`complete` folds the stream into a `Reply`. Knows nothing of servers or command lines.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ringfence.budget import Budget, Exhausted, Meter
from ringfence.embedding import Embedder, HashedNgrams
from ringfence.engine import Draft, Engine, Sampling, Tokens
from ringfence.errors import BudgetError, InputError, JudgeError
from ringfence.events import (
    Committed,
    Cost,
    Drafted,
    Ended,
    EndReason,
    Event,
    Judged,
    Reply,
    Rewound,
)
from ringfence.judges import Judge
from ringfence.rendering import Rendering
from ringfence.search import TreeSearch
from ringfence.search_settings import PRESETS, Preset, SearchSettings
from ringfence.vocabulary import TextStream

DecoderName = Literal["plain", "best-of-n", "rejection", "rain", "guarded"]


class Options(BaseModel):
    """How a reply is made; one model for all decoders, the command line and the server.

    Attributes:
        max_tokens: longest reply.
        temperature: of plain drafts (the tree search samples as the paper says).
        top_k: likewise.
        top_p: likewise.
        stop: strings that end the reply; they are not part of it.
        seed: equal seeds give equal replies where the engine is deterministic.
        budget: hard limits.
        exhausted: when nothing acceptable was found: `refuse`, take the `best`, or raise an
            `error`.
        n: replies of best-of-n.
        segment: most tokens between two judgements (rejection, guarded).
        redraws: most drafts of one segment (rejection).
        preset: constants of the search: `paper`, `code`, or ours, `fast`.
        search: constants that replace those of the preset.
        widenings: searches tried at one place before giving up, each twice as wide (guarded).
        threshold: drafts of at least this value are acceptable; None takes the judge's own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_tokens: int = Field(default=256, ge=1)
    temperature: float = Field(default=0.7, ge=0, le=10)
    top_k: int = Field(default=0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    stop: tuple[str, ...] = ()
    seed: int = 0
    budget: Budget = Budget()
    exhausted: Literal["refuse", "best", "error"] = "refuse"
    n: int = Field(default=8, ge=1, le=256)
    segment: int = Field(default=24, ge=1)
    redraws: int = Field(default=8, ge=1)
    preset: Preset = "fast"
    search: dict[str, object] = {}
    widenings: int = Field(default=3, ge=1, le=8)
    threshold: float | None = Field(default=None, ge=-1, le=1)

    @model_validator(mode="after")
    def _valid_search(self) -> Options:
        if any(not stop for stop in self.stop):
            raise ValueError("stop: an empty string would end every reply")
        self.settings()
        return self

    def settings(self) -> SearchSettings:
        """Constants of the search."""
        settings = PRESETS[self.preset].model_dump() | dict(self.search)
        if self.threshold is not None:
            settings["threshold"] = self.threshold
        return SearchSettings.model_validate(settings)

    def sampling(self, rng: random.Random) -> Sampling:
        """Sampling of a plain draft with a fresh seed."""
        return Sampling(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            seed=rng.getrandbits(31),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a decoder gets: prompt, metered engine and judge, options."""

    prompt: Rendering
    meter: Meter
    judge: Judge | None
    embedder: Embedder
    options: Options
    rng: random.Random

    @property
    def threshold(self) -> float:
        """Drafts of at least this value are acceptable."""
        if self.options.threshold is not None:
            return self.options.threshold
        return self.judge.threshold if self.judge else -1.0

    def text(self, tokens: Tokens) -> str:
        """Reply text of reply tokens."""
        return self.meter.engine.card.tokenizer.decode(tokens)

    async def draft(self, reply: Tokens, count: int, length: int) -> list[Draft]:
        """Plain drafts that go on from the reply so far."""
        sampling = self.options.sampling(self.rng)
        return await self.meter.draft(self.prompt.tokens + reply, count, length, sampling)


Decoder = Callable[[Task], AsyncIterator[Event]]


class _Refused(Exception):
    """A decoder gave up; carries the last value and the reason in words."""

    def __init__(self, value: float | None, detail: str) -> None:
        super().__init__(detail)
        self.value = value


async def decode(
    engine: Engine,
    prompt: Rendering,
    *,
    decoder: DecoderName = "guarded",
    judge: Judge | None = None,
    options: Options | None = None,
    embedder: Embedder | None = None,
) -> AsyncIterator[Event]:
    """Make a reply and tell what happens, event by event. The last event is `Ended`.

    Closing the iterator early cancels the work in flight.

    Raises:
        JudgeError: the decoder needs a judge and there is none.
        BudgetError: nothing acceptable within the budget and `options.exhausted` is `error`.
        EngineError: the engine cannot answer.
    """
    options = options or Options()
    if decoder not in DECODERS:
        raise InputError(f"unknown decoder {decoder!r}. Decoders: {', '.join(DECODERS)}.")
    if judge is None and decoder != "plain":
        raise JudgeError(
            f"decoder {decoder} judges its drafts and needs a principle (--principle NAME); "
            "or use the decoder plain."
        )
    meter = Meter(engine, judge, options.budget)
    task = Task(
        prompt=prompt,
        meter=meter,
        judge=judge,
        embedder=embedder or HashedNgrams(),
        options=options,
        rng=random.Random(options.seed),
    )
    async for event in _shown(DECODERS[decoder](task), task):
        yield event


async def complete(events: AsyncIterator[Event]) -> Reply:
    """Fold a stream into its reply."""
    tokens: list[int] = []
    text: list[str] = []
    logprob = 0.0
    async for event in events:
        if isinstance(event, Committed):
            tokens.extend(event.tokens)
            logprob += event.logprob
            text.append(event.text)
        elif isinstance(event, Ended):
            return Reply(
                tokens=tuple(tokens),
                text="".join(text),
                logprob=logprob,
                reason=event.reason,
                value=event.value,
                detail=event.detail,
                cost=event.cost,
            )
    raise AssertionError("a stream of events must end with Ended")


async def _shown(events: AsyncIterator[Event], task: Task) -> AsyncIterator[Event]:
    """Add text to commits, end at stop strings, and turn every way to end into `Ended`."""
    stream = _Stops(TextStream(task.meter.engine.card.tokenizer), task.options.stop)
    reason: EndReason = "length"
    value: float | None = None
    detail = ""
    try:
        async for event in events:
            if isinstance(event, Ended):
                reason, value = event.reason, event.value
                break
            if isinstance(event, Committed):
                event = replace(event, text=stream.push(event.tokens))
                value = event.value if event.value is not None else value
                yield event
                if stream.stopped:
                    reason = "stop"
                    break
                continue
            yield event
    except _Refused as refused:
        reason, value, detail = "refused", refused.value, str(refused)
        if task.options.exhausted == "error":
            raise BudgetError(f"no acceptable reply within the budget: {detail}") from None
    if rest := stream.flush():
        yield Committed(node=0, tokens=(), value=value, text=rest)
    yield Ended(reason=reason, value=value, detail=detail, cost=task.meter.cost())


class _Stops:
    """Text that may be shown, given stop strings: holds back what could begin one."""

    def __init__(self, stream: TextStream, stops: Iterable[str]) -> None:
        self.stopped = False
        self._stream = stream
        self._stops = tuple(stops)
        self._held = ""

    def push(self, tokens: Tokens) -> str:
        return self._release(self._stream.push(tokens), final=False)

    def flush(self) -> str:
        return "" if self.stopped else self._release(self._stream.flush(), final=True)

    def _release(self, text: str, *, final: bool) -> str:
        text = self._held + text
        found = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = 0 if final else max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of the text that begins the stop string."""
    return next(
        (n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0
    )


def _commit(task: Task, node: int, draft: Draft, value: float | None) -> Committed:
    task.meter.committed(len(draft.tokens))
    return Committed(node=node, tokens=draft.tokens, value=value, logprob=sum(draft.logprobs))


def _drafted(node: int, parent: int, draft: Draft, count: int = 1) -> Drafted:
    return Drafted(node=node, parent=parent, tokens=draft.tokens, prior=1 / count)


def _end(draft: Draft, value: float | None) -> Ended:
    """A decoder's own end; `_shown` adds the account."""
    return Ended(reason="stop" if draft.finished else "length", value=value, detail="", cost=Cost())


async def plain(task: Task) -> AsyncIterator[Event]:
    """Sample, in pieces that grow, so that the first words show early and requests stay few."""
    reply: Tokens = ()
    node, length = 0, 8
    try:
        while len(reply) < task.options.max_tokens:
            length = min(length * 2, 64, task.options.max_tokens - len(reply))
            [draft] = await task.draft(reply, 1, length)
            yield _drafted(node + 1, node, draft)
            node += 1
            reply += draft.tokens
            yield _commit(task, node, draft, None)
            if draft.finished:
                yield _end(draft, None)
                return
    except Exhausted as limit:
        raise _Refused(None, str(limit)) from None


async def best_of_n(task: Task) -> AsyncIterator[Event]:
    """Draw n whole replies, judge them all, take the best one."""
    options = task.options
    try:
        drafts = await task.draft((), options.n, options.max_tokens)
        for node, draft in enumerate(drafts, 1):
            yield _drafted(node, 0, draft, len(drafts))
        verdicts = await task.meter.judge(task.prompt, [task.text(d.tokens) for d in drafts])
    except Exhausted as limit:
        raise _Refused(None, str(limit)) from None
    for node, verdict in enumerate(verdicts, 1):
        yield Judged(node=node, value=verdict.value, reason=verdict.reason)
    best = max(range(len(drafts)), key=lambda i: (verdicts[i].value, sum(drafts[i].logprobs)))
    value = verdicts[best].value
    if value < task.threshold and options.exhausted != "best":
        raise _Refused(value, f"the best of {options.n} replies has a value of {value:.2f}")
    yield _commit(task, best + 1, drafts[best], value)
    yield _end(drafts[best], value)


async def rejection(task: Task) -> AsyncIterator[Event]:
    """Segment by segment: draft, judge, redraw up to k times, keep the best.

    Segments end where the model is uncertain, as in CARDS (arXiv 2406.16306): a longer draft is cut
    before its least certain token.
    """
    options = task.options
    reply: Tokens = ()
    parent = node = 0
    while len(reply) < options.max_tokens:
        best: tuple[float, int, Draft] | None = None
        detail = ""
        try:
            for _ in range(options.redraws):
                draft = await _segment(task, reply)
                node += 1
                yield _drafted(node, parent, draft)
                [verdict] = await task.meter.judge(task.prompt, [task.text(reply + draft.tokens)])
                yield Judged(node=node, value=verdict.value, reason=verdict.reason)
                if best is None or verdict.value > best[0]:
                    best = (verdict.value, node, draft)
                if verdict.value >= task.threshold:
                    break
                task.meter.rewound()
                yield Rewound(kept=len(reply), dropped=draft.tokens, value=verdict.value)
            else:
                detail = f"{options.redraws} drafts of a segment, none good enough"
        except Exhausted as limit:
            detail = str(limit)
        if best is None or (best[0] < task.threshold and options.exhausted != "best"):
            raise _Refused(best[0] if best else None, detail)
        value, parent, chosen = best
        reply += chosen.tokens
        yield _commit(task, parent, chosen, value)
        if chosen.finished:
            yield _end(chosen, value)
            return


async def _segment(task: Task, reply: Tokens) -> Draft:
    """A draft that ends before its least certain token, at least half a segment long."""
    length = min(task.options.segment, task.options.max_tokens - len(reply))
    [draft] = await task.draft(reply, 1, length)
    shortest = max(1, length // 2)
    if (
        draft.finished
        or len(draft.tokens) <= shortest
        or len(reply) + length >= task.options.max_tokens
    ):
        return draft
    cut = min(range(shortest, len(draft.tokens)), key=lambda place: draft.logprobs[place])
    return Draft(tokens=draft.tokens[:cut], logprobs=draft.logprobs[:cut], finished=False)


async def rain(task: Task) -> AsyncIterator[Event]:
    """The rewindable tree search for every token of the reply."""
    search = _search(task, (), 1, task.options.settings())
    best = task.options.exhausted == "best"
    value = None
    while len(search.committed) < task.options.max_tokens and not search.finished:
        committed = False
        async for event in search.commit(exhausted_best=best):
            if isinstance(event, Committed):
                committed, value = True, event.value
            elif isinstance(event, Judged) and not committed:
                value = event.value
            yield event
        if not committed:
            raise _Refused(value, search.spent)
    yield _end(Draft(tokens=(), logprobs=(), finished=search.finished), value)


def _search(task: Task, committed: Tokens, next_id: int, settings: SearchSettings) -> TreeSearch:
    return TreeSearch(
        task.prompt,
        task.meter,
        task.embedder,
        settings,
        threshold=task.threshold,
        limit=task.options.max_tokens,
        rng=task.rng,
        committed=committed,
        next_id=next_id,
    )


async def guarded(task: Task) -> AsyncIterator[Event]:
    """Decode plainly, judge at segment ends; search only where a verdict is bad.

    A segment that fails is dropped, and the tree search makes the next tokens from the last good
    commit; where it finds nothing, it is tried again twice as wide, and then the reply is refused.
    """
    options = task.options
    reply: Tokens = ()
    node = 0
    value: float | None = None
    finished = False
    while len(reply) < options.max_tokens and not finished:
        try:
            [draft] = await task.draft(
                reply, 1, min(options.segment, options.max_tokens - len(reply))
            )
            parent, node = node, node + 1
            yield _drafted(node, parent, draft)
            [verdict] = await task.meter.judge(task.prompt, [task.text(reply + draft.tokens)])
        except Exhausted as limit:
            raise _Refused(value, str(limit)) from None
        value = verdict.value
        yield Judged(node=node, value=value, reason=verdict.reason)
        if value >= task.threshold:
            yield _commit(task, node, draft, value)
            reply, finished = reply + draft.tokens, draft.finished
            continue
        task.meter.rewound()
        yield Rewound(kept=len(reply), dropped=draft.tokens, value=value)
        search: TreeSearch | None = None
        async for event in _widening(task, reply, node + 1):
            if isinstance(event, TreeSearch):
                search = event
                continue
            value = event.value if isinstance(event, Committed | Judged) else value
            yield event
        if search is None:
            raise _Refused(value, f"no acceptable draft in {options.widenings} searches")
        reply, finished, node = search.committed, search.finished, search.next_id
    yield _end(Draft(tokens=(), logprobs=(), finished=finished), value)


async def _widening(task: Task, reply: Tokens, next_id: int) -> AsyncIterator[Event | TreeSearch]:
    """Search from the reply until something is committed, each time twice as wide.

    The last item is the search that committed; there is none if all failed.
    """
    settings = task.options.settings()
    for attempt in range(task.options.widenings):
        last = attempt == task.options.widenings - 1
        search = _search(task, reply, next_id, settings)
        async for event in search.commit(exhausted_best=last and task.options.exhausted == "best"):
            yield event
            if isinstance(event, Committed):
                yield search
                return
        next_id = search.next_id
        settings = settings.model_copy(
            update={
                "width": min(2 * settings.width, 64),
                "max_width": min(2 * settings.max_width, 64),
                "iterations": 2 * settings.iterations,
            }
        )


DECODERS: dict[DecoderName, Decoder] = {
    "plain": plain,
    "best-of-n": best_of_n,
    "rejection": rejection,
    "rain": rain,
    "guarded": guarded,
}
