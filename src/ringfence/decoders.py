"""The decoders: plain, best-of-n, rejection, rain and guarded. All have one signature.

Each takes a `Task` and yields events; `decoding` adds what they share. Knows nothing of text that
is shown, servers or command lines.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

from ringfence.budget import Exhausted, Meter
from ringfence.embedding import Embedder
from ringfence.engine import Draft, Tokens
from ringfence.events import Committed, Cost, Drafted, Ended, Event, Events, Judged, Rewound
from ringfence.judges import Verdict
from ringfence.options import DecoderName, Options
from ringfence.rendering import Rendering
from ringfence.search import TreeSearch
from ringfence.search_settings import MOST_ITERATIONS, SearchSettings
from ringfence.stop_strings import StopStrings


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a decoder gets: prompt, metered engine and judge, options.

    Drafts of at least the threshold are acceptable.
    """

    prompt: Rendering
    meter: Meter
    embedder: Embedder
    options: Options
    threshold: float
    rng: random.Random

    @property
    def stops(self) -> StopStrings:
        """Where stop strings end the reply."""
        return StopStrings(self.meter.engine.card.tokenizer, self.options.stop)

    def text(self, tokens: Tokens) -> str:
        """Reply text of reply tokens, up to a stop string: what is shown, and so what is judged."""
        return self.stops.text(tokens)

    async def draft(self, reply: Tokens, count: int, length: int) -> list[Draft]:
        """Plain drafts that go on from the reply so far, up to a stop string."""
        sampling = self.options.sampling(self.rng)
        prefix = self.prompt.tokens + reply
        drafts = await self.meter.draft(prefix, count, length, sampling)
        return [self.stops.cut(reply, draft) for draft in drafts]

    async def judge(self, reply: Tokens) -> Verdict:
        """Verdict on the reply so far."""
        [verdict] = await self.meter.judge(self.prompt, [self.text(reply)])
        assert verdict is not None  # or the budget would have been exhausted
        return verdict


Decoder = Callable[[Task], Events]


class Refused(Exception):
    """A decoder gave up; carries the last value and the reason in words."""

    def __init__(self, value: float | None, detail: str) -> None:
        """Value of the last verdict, None without one."""
        super().__init__(detail)
        self.value = value


def _commit(task: Task, node: int, draft: Draft, value: float | None) -> Committed:
    task.meter.committed(len(draft.tokens))
    return Committed(node=node, tokens=draft.tokens, value=value, logprob=draft.logprob)


def _drafted(node: int, parent: int, draft: Draft, count: int = 1) -> Drafted:
    return Drafted(node=node, parent=parent, tokens=draft.tokens, prior=1 / count)


def _end(draft: Draft, value: float | None) -> Ended:
    """A decoder's own end; `_shown` adds the account."""
    return Ended(reason="stop" if draft.finished else "length", value=value, detail="", cost=Cost())


async def plain(task: Task) -> Events:
    """Sample, in pieces that grow, so that the first words show early and requests stay few.

    A spent budget cuts the reply as `max_tokens` does: nobody has found anything wrong with it.
    """
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
        if not reply or task.options.exhausted == "error":
            raise Refused(None, str(limit)) from None
        yield Ended(reason="length", value=None, detail=str(limit), cost=Cost())


async def best_of_n(task: Task) -> Events:
    """Draw n whole replies, judge them all, take the best one; fewer where fewer may be judged."""
    options = task.options
    count = max(1, min(options.n, task.meter.iterations_left))
    # What was allowed and not what came: servers hide the tokens of an incomplete character.
    short = options.budget.tokens // count < options.max_tokens
    try:
        drafts = await task.draft((), count, options.max_tokens)
        for node, draft in enumerate(drafts, 1):
            yield _drafted(node, 0, draft, len(drafts))
        verdicts = await task.meter.judge(task.prompt, [task.text(d.tokens) for d in drafts])
    except Exhausted as limit:
        raise Refused(None, str(limit)) from None
    judged = {place: verdict for place, verdict in enumerate(verdicts) if verdict is not None}
    for place, verdict in judged.items():
        yield Judged(node=place + 1, value=verdict.value, reason=verdict.reason)
    best = max(judged, key=lambda place: (judged[place].value, drafts[place].logprob))
    value = judged[best].value
    if value < task.threshold and options.exhausted != "best":
        raise Refused(value, f"the best of {len(judged)} replies has a value of {value:.2f}")
    detail = ""
    if short and not drafts[best].finished:
        detail = f"budget of {options.budget.tokens} drafted tokens cut {count} replies short"
    if detail and options.exhausted != "best":
        raise Refused(value, detail)
    yield _commit(task, best + 1, drafts[best], value)
    yield replace(_end(drafts[best], value), detail=detail)


async def rejection(task: Task) -> Events:
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
                verdict = await task.judge(reply + draft.tokens)
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
            raise Refused(best[0] if best else None, detail)
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


async def rain(task: Task) -> Events:
    """The rewindable tree search for every token of the reply."""
    search = _search(task, (), 0, 1, task.options.settings())
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
            raise Refused(value, search.spent)
    yield _end(Draft(tokens=(), logprobs=(), finished=search.finished), value)


def _search(
    task: Task, committed: Tokens, root_id: int, next_id: int, settings: SearchSettings
) -> TreeSearch:
    return TreeSearch(
        task.prompt,
        task.meter,
        task.embedder,
        settings,
        threshold=task.threshold,
        limit=task.options.max_tokens,
        rng=task.rng,
        committed=committed,
        root_id=root_id,
        next_id=next_id,
        stops=task.options.stop,
    )


async def guarded(task: Task) -> Events:
    """Decode plainly, judge at segment ends; search only where a verdict is bad.

    While a segment is judged, the next one is drafted already. A segment that fails is dropped,
    with what was drafted after it, and the tree search makes the next tokens from the last good
    commit; where it finds nothing, it is tried again twice as wide, and then the reply is refused.
    """
    options = task.options
    reply: Tokens = ()
    parent = node = 0
    value: float | None = None
    finished = False
    ahead: asyncio.Task[Draft] | None = None
    try:
        while len(reply) < options.max_tokens and not finished:
            try:
                draft = await (ahead or _next_segment(task, reply))
                node += 1
                yield _drafted(node, parent, draft)
                ahead = _look_ahead(task, reply, draft)
                verdict = await task.judge(reply + draft.tokens)
            except Exhausted as limit:
                raise Refused(value, str(limit)) from None
            value = verdict.value
            yield Judged(node=node, value=value, reason=verdict.reason)
            if value >= task.threshold:
                yield _commit(task, node, draft, value)
                reply, finished, parent = reply + draft.tokens, draft.finished, node
                continue
            await _cancel(ahead)
            ahead = None
            task.meter.rewound()
            yield Rewound(kept=len(reply), dropped=draft.tokens, value=value)
            search: TreeSearch | None = None
            async for event in _widening(task, reply, parent, node + 1, verdict.value):
                if isinstance(event, TreeSearch):
                    search = event
                    continue
                value = event.value if isinstance(event, Committed | Judged) else value
                yield event
            assert search is not None
            if search.spent and options.exhausted != "best":
                raise Refused(value, search.spent)
            if search.spent:  # no draft was judged better than the one rejected
                value = verdict.value
                yield _commit(task, node, draft, value)
                reply, finished, parent = reply + draft.tokens, draft.finished, node
            else:
                reply, finished, parent = search.committed, search.finished, search.root.id
            node = search.next_id - 1
    finally:
        await _cancel(ahead)
    yield _end(Draft(tokens=(), logprobs=(), finished=finished), value)


async def _next_segment(task: Task, reply: Tokens) -> Draft:
    length = min(task.options.segment, task.options.max_tokens - len(reply))
    [draft] = await task.draft(reply, 1, length)
    return draft


def _look_ahead(task: Task, reply: Tokens, draft: Draft) -> asyncio.Task[Draft] | None:
    """Start on the segment after a draft; None where the reply ends with it."""
    reply += draft.tokens
    if draft.finished or len(reply) >= task.options.max_tokens:
        return None
    return asyncio.create_task(_next_segment(task, reply))


async def _cancel(ahead: asyncio.Task[Draft] | None) -> None:
    """Stop a draft that nobody wants, and wait until it has stopped."""
    if ahead is not None:
        ahead.cancel()
        await asyncio.wait([ahead])
        if not ahead.cancelled():
            ahead.exception()  # a failure of an unwanted draft is nobody's failure


async def _widening(
    task: Task, reply: Tokens, root_id: int, next_id: int, rejected: float
) -> AsyncIterator[Event | TreeSearch]:
    """Search from the reply until something is committed, each time twice as wide.

    The last item is the search that committed, or the last one that failed. Where the best will do,
    that is the best draft of all searches, where one is better than the draft that was `rejected`:
    the widest may have judged none before the budget ended.
    """
    settings = task.options.settings()
    searches: list[TreeSearch] = []
    for _ in range(task.options.widenings):
        searches.append(search := _search(task, reply, root_id, next_id, settings))
        async for event in search.commit():
            yield event
        if not search.spent:
            yield search
            return
        if task.meter.spent:
            break
        next_id = search.next_id
        settings = settings.model_copy(
            update={
                "width": min(2 * settings.width, 64),
                "max_width": min(2 * settings.max_width, 64),
                "iterations": min(2 * settings.iterations, MOST_ITERATIONS),
            }
        )
    chosen = searches[-1]
    if task.options.exhausted == "best":
        best = max(searches, key=lambda search: search.best_value)
        if best.best_value > rejected:
            chosen = best
            chosen.next_id = searches[-1].next_id
            for step in chosen.settle():
                yield step
    yield chosen


DECODERS: dict[DecoderName, Decoder] = {
    "plain": plain,
    "best-of-n": best_of_n,
    "rejection": rejection,
    "rain": rain,
    "guarded": guarded,
}
