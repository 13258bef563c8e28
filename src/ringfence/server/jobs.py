"""One admitted request at work: waits for a slot, decodes its replies, tells what may be shown.

A job runs on its own, so a slot is free as soon as the decoding is done, however slowly the client
reads. Knows nothing of HTTP or of the shape of replies.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Literal

from ringfence.concurrency import together
from ringfence.decoding import decode
from ringfence.embedding import Embedder
from ringfence.engine import Engine
from ringfence.errors import ContextError, EngineError, JudgeError
from ringfence.events import Committed, Cost, Drafted, Ended, Event, Judged, Rewound
from ringfence.judges import Judge
from ringfence.options import DecoderName, Options
from ringfence.rendering import Rendering
from ringfence.server.admission import Admission
from ringfence.server.failures import Failure, failure_of, log_failure
from ringfence.server.metrics import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be made for one request.

    Attributes:
        prompt: what the model is given.
        decoder: how each reply is made.
        principle: name of the principle judged by; None without a judge.
        judge: of that principle.
        options: of each reply, one entry a reply.
        score: judge the finished replies of a decoder that does not.
    """

    prompt: Rendering
    decoder: DecoderName
    principle: str | None
    judge: Judge | None
    options: tuple[Options, ...]
    score: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Something to show of one reply: text that is final, or its end."""

    choice: int
    event: Committed | Ended


class _Account:
    """What is known of a reply that has not ended: a fold over its events."""

    def __init__(self) -> None:
        self.begun = False
        self.ended = False
        self._cost = Cost()
        self._value: float | None = None
        self._started = time.monotonic()

    def add(self, event: Event) -> None:
        cost = self._cost
        if isinstance(event, Drafted):
            self._cost = replace(cost, drafted=cost.drafted + len(event.tokens))
        elif isinstance(event, Judged):
            self._value = event.value
            self._cost = replace(cost, iterations=cost.iterations + 1)
        elif isinstance(event, Rewound):
            self._cost = replace(cost, rewinds=cost.rewinds + 1)
        elif isinstance(event, Committed):
            first = cost.first_commit_seconds
            self._cost = replace(
                cost,
                committed=cost.committed + len(event.tokens),
                first_commit_seconds=self._seconds() if first is None else first,
            )
        else:
            self.ended = True

    def refused(self, detail: str) -> Ended:
        """The end of a reply that is broken off; its account lacks what only `Ended` tells."""
        return Ended(reason="refused", value=self._value, detail=detail, cost=self.cost())

    def cost(self) -> Cost:
        return replace(self._cost, seconds=self._seconds())

    def _seconds(self) -> float:
        return time.monotonic() - self._started


class Job:
    """One request at work. Make it, `start` it, read its `steps`, and always `close` it."""

    def __init__(
        self,
        engine: Engine,
        plan: Plan,
        admission: Admission,
        metrics: Metrics,
        embedder: Embedder | None = None,
    ) -> None:
        """Nothing runs yet."""
        self.plan = plan
        self._engine = engine
        self._admission = admission
        self._metrics = metrics
        self._embedder = embedder
        self._created = time.monotonic()
        self._shown = False
        self._accounts = [_Account() for _ in plan.options]
        # Unbounded, but a reply has no more steps than tokens.
        self._steps: asyncio.Queue[Step | Exception | None] = asyncio.Queue()
        self._why_broken_off = ""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> asyncio.Task[None]:
        """Begin to wait for a slot; returns the task, which never fails."""
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._finished)
        return self._task

    async def steps(self, pause: float) -> AsyncGenerator[Step | None, None]:
        """What may be shown, in order; None whenever nothing came for `pause` seconds.

        Raises:
            RingfenceError, Failure: the request failed.
        """
        while True:
            try:
                async with asyncio.timeout(pause):
                    step = await self._steps.get()
            except TimeoutError:
                yield None
                continue
            if step is None:
                return
            if isinstance(step, Exception):
                raise step
            yield step

    def break_off(self, detail: str) -> None:
        """End all replies as refused, at once, for the reason given."""
        if self._task is not None and not self._task.done():
            self._why_broken_off = detail
            self._task.cancel()

    async def close(self) -> None:
        """Stop whatever still runs; returns when the slot is free."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        outcome: Literal["done", "failed", "gone", "rejected"] = "failed"
        try:
            async with self._admission.slot():
                self._metrics.prompt(len(self.plan.prompt.tokens))
                await together(self._decode(index) for index in range(len(self._accounts)))
            outcome = "done"
        except asyncio.CancelledError:
            outcome = self._broken_off() if self._why_broken_off else "gone"
            self._leave()
        except Exception as error:  # handed to the reader, who knows what to tell whom
            self._leave()
            if isinstance(error, EngineError | JudgeError):
                log_failure(error)
            outcome = "rejected" if failure_of(error).status == 429 else "failed"
            self._steps.put_nowait(error)
        finally:
            took = time.monotonic() - self._created if outcome == "done" else None
            self._metrics.request(outcome, took)

    def _finished(self, task: asyncio.Task[None]) -> None:
        """Tell the reader that nothing more comes."""
        if task.cancelled():
            # It was broken off before it ran at all.
            self._steps.put_nowait(self._turned_away())
        self._steps.put_nowait(None)

    def _turned_away(self) -> Failure:
        return Failure(503, self._why_broken_off, code="stopping", headers={"Retry-After": "1"})

    def _broken_off(self) -> Literal["done", "rejected"]:
        """End as refused what has begun; what has not may be asked of another server."""
        if not any(account.begun for account in self._accounts):
            self._steps.put_nowait(self._turned_away())
            return "rejected"
        for index, account in enumerate(self._accounts):
            if not account.ended:
                account.ended = True
                self._show(index, account.refused(self._why_broken_off))
        return "done"

    def _leave(self) -> None:
        """Account for replies that nobody will see the end of."""
        for account in self._accounts:
            if account.begun and not account.ended:
                self._metrics.reply("left", account.cost())

    async def _decode(self, index: int) -> None:
        plan, account = self.plan, self._accounts[index]
        events = decode(
            self._engine,
            plan.prompt,
            decoder=plan.decoder,
            judge=plan.judge,
            options=plan.options[index],
            embedder=self._embedder,
        )
        account.begun = True
        text = ""
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Committed):
                    text += event.text
                elif isinstance(event, Ended) and plan.score and _unscored(event):
                    event = await self._scored(event, text, plan.options[index])
                account.add(event)
                if isinstance(event, Ended) or (isinstance(event, Committed) and event.text):
                    self._show(index, event)

    async def _scored(self, ended: Ended, text: str, options: Options) -> Ended:
        """The same end with a verdict on the whole reply, if there is time for one."""
        assert self.plan.judge is not None
        try:
            async with asyncio.timeout(max(0.0, options.budget.seconds - ended.cost.seconds)):
                [verdict] = await self.plan.judge.judge(self.plan.prompt, [text])
        except (TimeoutError, ContextError):  # the reply stands, judged or not
            return ended
        cost = replace(
            ended.cost,
            judged=ended.cost.judged + verdict.fed,
            fed=ended.cost.fed + verdict.fed,
            requests=ended.cost.requests + verdict.requests,
            rounds=ended.cost.rounds + 1,
            iterations=ended.cost.iterations + 1,
        )
        return replace(ended, value=verdict.value, cost=cost)

    def _show(self, index: int, event: Committed | Ended) -> None:
        if isinstance(event, Ended):
            self._metrics.reply(event.reason, event.cost)
        elif not self._shown:
            self._shown = True
            self._metrics.first_text(time.monotonic() - self._created)
        self._steps.put_nowait(Step(choice=index, event=event))


def _unscored(ended: Ended) -> bool:
    """Whether there is a reply that no verdict was given on."""
    return ended.value is None and ended.reason != "refused"
