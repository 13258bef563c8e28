"""Making a reply: run a decoder and add what all decoders share.

Text that may be shown, stop strings, the ways to end, and the account; `decode` yields events and
`complete` folds them into a `Reply`. Knows nothing of servers or command lines.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import replace

from ringfence.budget import Meter
from ringfence.decoders import DECODERS, Refused, Task
from ringfence.embedding import Embedder, HashedNgrams
from ringfence.engine import Engine, Tokens, check_call
from ringfence.errors import BudgetError, InputError, JudgeError
from ringfence.events import Committed, Ended, EndReason, Events, Reply
from ringfence.judges import Judge
from ringfence.options import DecoderName, Options
from ringfence.rendering import Rendering
from ringfence.stop_strings import stop_place
from ringfence.vocabulary import TextStream

__all__ = ["DECODERS", "DecoderName", "Options", "complete", "decode"]


async def decode(
    engine: Engine,
    prompt: Rendering,
    *,
    decoder: DecoderName = "guarded",
    judge: Judge | None = None,
    options: Options | None = None,
    embedder: Embedder | None = None,
) -> Events:
    """Make a reply and tell what happens, event by event. The last event is `Ended`.

    Closing the iterator early cancels the work in flight. Where the model's context ends before
    `options.max_tokens`, so does the reply.

    Raises:
        JudgeError: the decoder needs a judge and there is none.
        BudgetError: nothing acceptable within the budget and `options.exhausted` is `error`.
        ContextError: the prompt leaves no room for a reply.
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
    check_call(engine.card, prompt.tokens, 1, 1)
    room = engine.card.context - len(prompt.tokens)
    options = options.model_copy(update={"max_tokens": min(options.max_tokens, room)})
    meter = Meter(engine, judge, options.budget)
    task = Task(
        prompt=prompt,
        meter=meter,
        embedder=embedder or HashedNgrams(),
        options=options,
        threshold=_threshold(options, judge),
        # As a number, a negative seed would draw what its positive one draws.
        rng=random.Random(options.seed if options.seed >= 0 else str(options.seed)),
    )
    # Closed here and now when the caller closes this stream: its work must stop at once, and not
    # when the garbage collector comes by.
    async with aclosing(DECODERS[decoder](task)) as events:
        async with aclosing(_shown(events, task)) as shown:
            async for event in shown:
                yield event


def _threshold(options: Options, judge: Judge | None) -> float:
    if options.threshold is not None:
        return options.threshold
    return judge.threshold if judge else -1.0


async def complete(events: Events) -> Reply:
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


async def _shown(events: Events, task: Task) -> Events:
    """Add text to commits, end at stop strings, and turn every way to end into `Ended`."""
    stream = _Stops(TextStream(task.meter.engine.card.tokenizer), task.options.stop)
    reason: EndReason = "length"
    value: float | None = None
    held: float | None = None
    detail = ""
    committed = False
    try:
        async for event in events:
            if isinstance(event, Ended):
                reason, value, detail = event.reason, event.value, event.detail
                break
            if isinstance(event, Committed):
                committed = True
                event = replace(event, text=stream.push(event.tokens))
                held = event.value
                value = event.value if event.value is not None else value
                yield event
                if stream.stopped:
                    reason = "stop"
                    break
                continue
            yield event
    except Refused as refused:
        # What stands is the best there is, and where that was asked for, it is enough.
        cut = committed and task.options.exhausted == "best"
        reason, detail = "length" if cut else "refused", str(refused)
        value = held if cut else refused.value
        if task.options.exhausted == "error":
            raise BudgetError(f"no acceptable reply within the budget: {detail}") from None
    # A stop string may leave a draft in flight, and whoever reads the last event may read no more.
    await events.aclose()
    if rest := stream.flush():
        yield Committed(node=0, tokens=(), value=held, text=rest)
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
        place = stop_place(text, self._stops)
        if place is not None:
            self.stopped, self._held = True, ""
            return text[:place]
        keep = 0 if final else max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of the text that begins the stop string."""
    return next(
        (n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0
    )
