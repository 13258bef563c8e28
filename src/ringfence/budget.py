"""Hard limits on the work for one reply, and the account of it.

Everything a decoder asks of an engine or a judge goes through a `Meter`, so no decoder can forget
to count or to stop. Knows nothing of how decoders decide.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from pydantic import BaseModel, ConfigDict, Field

from ringfence.concurrency import together
from ringfence.engine import Draft, Engine, Sampling, Tokens
from ringfence.errors import ContextError, JudgeError
from ringfence.events import Cost
from ringfence.judges import Judge, Verdict
from ringfence.rendering import Rendering


class Budget(BaseModel):
    """Limits for one reply. Never exceeded: a draft that might exceed one is not asked for.

    Attributes:
        tokens: most tokens drafted, kept or not.
        iterations: most drafts judged. The work of the judge is bounded by this and by the length
            of the conversation.
        seconds: wall time; work in flight is cancelled.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens: int = Field(default=20_000, ge=1)
    iterations: int = Field(default=500, ge=1)
    seconds: float = Field(default=300.0, gt=0)


class Exhausted(Exception):
    """The budget, or the judge's context, does not allow the next step; says which limit."""


class Meter:
    """Engine and judge of one reply, with limits and an account.

    Not for concurrent replies: each has its own.
    """

    def __init__(self, engine: Engine, judge: Judge | None, budget: Budget) -> None:
        """Start the clock."""
        self.engine = engine
        self.budget = budget
        self._judge = judge
        self._started = time.monotonic()
        self._in_flight = 0
        self._drafted = self._reserved = self._judged = self._fed = 0
        self._requests = self._rounds = self._iterations = 0
        self._committed = self._rewinds = 0
        self._first_commit: float | None = None

    async def draft(
        self, prefix: Tokens, count: int, length: int, sampling: Sampling
    ) -> list[Draft]:
        """As `Engine.draft`; near the limit drafts get shorter.

        A draft that is cancelled counts in full: how far it came is not known.

        Raises:
            Exhausted: not even one token a draft is left, or the time is up.
        """
        length = min(length, (self.budget.tokens - self._drafted - self._reserved) // count)
        if length < 1:
            raise Exhausted(f"budget of {self.budget.tokens} drafted tokens is spent")
        self._reserved += count * length
        cut = False
        try:
            async with self._counted():
                self._requests += 1
                cut = True
                drafts = await self.engine.draft(prefix, count, length, sampling)
                cut = False
        except (asyncio.CancelledError, Exhausted):
            self._drafted += count * length * cut
            self._fed += count * length * cut
            raise
        finally:
            self._reserved -= count * length
        self._drafted += sum(len(draft.tokens) for draft in drafts)
        self._fed += sum(len(draft.tokens) + draft.fed for draft in drafts)
        return drafts

    async def judge(self, prompt: Rendering, replies: Sequence[str]) -> list[Verdict | None]:
        """As `Judge.judge`; one iteration a reply.

        A reply that the judge has no room for in its context gets None.

        Raises:
            Exhausted: fewer iterations than replies are left, the time is up, or the judge has no
                room for any of the replies.
            JudgeError: there is no judge.
        """
        if self._judge is None:
            raise JudgeError("this decoder judges its drafts, and no principle was given")
        if self._iterations + len(replies) > self.budget.iterations:
            raise Exhausted(f"budget of {self.budget.iterations} judged drafts is spent")
        self._iterations += len(replies)
        async with self._counted():
            verdicts = await self._fitting(self._judge, prompt, replies)
        given = [verdict for verdict in verdicts if verdict is not None]
        self._requests += sum(verdict.requests for verdict in given)
        judged = sum(verdict.fed for verdict in given)
        self._judged += judged
        self._fed += judged
        return verdicts

    @staticmethod
    async def _fitting(
        judge: Judge, prompt: Rendering, replies: Sequence[str]
    ) -> list[Verdict | None]:
        """Verdicts on the replies that fit into the judge's context.

        Raises:
            Exhausted: none does.
        """

        async def alone(reply: str) -> Verdict | None:
            try:
                [verdict] = await judge.judge(prompt, [reply])
            except ContextError:
                return None
            return verdict

        try:
            return [*await judge.judge(prompt, replies)]
        except ContextError as error:  # which of them is too long, it does not say
            verdicts = await together(alone(reply) for reply in replies if len(replies) > 1)
            if not any(verdicts):  # what was judged before stands
                raise Exhausted(f"no room to judge a longer reply: {error}") from None
            return verdicts

    async def turn(self) -> None:
        """Let others have their turn, in work that asks neither engine nor judge.

        Raises:
            Exhausted: the time is up.
        """
        await asyncio.sleep(0)
        self._seconds_left()

    def committed(self, tokens: int) -> None:
        """Count tokens that became final."""
        if tokens and self._first_commit is None:
            self._first_commit = time.monotonic() - self._started
        self._committed += tokens

    def rewound(self) -> None:
        """Count a rewind."""
        self._rewinds += 1

    @property
    def iterations_left(self) -> int:
        """How many more drafts may be judged."""
        return self.budget.iterations - self._iterations

    @property
    def spent(self) -> bool:
        """Whether nothing more may be drafted, or nothing more judged."""
        return (
            self._drafted + self._reserved >= self.budget.tokens
            or self.iterations_left < 1
            or time.monotonic() - self._started >= self.budget.seconds
        )

    def cost(self) -> Cost:
        """The account so far."""
        return Cost(
            drafted=self._drafted,
            judged=self._judged,
            committed=self._committed,
            fed=self._fed,
            requests=self._requests,
            rounds=self._rounds,
            iterations=self._iterations,
            rewinds=self._rewinds,
            seconds=time.monotonic() - self._started,
            first_commit_seconds=self._first_commit,
        )

    def _seconds_left(self) -> float:
        """More than 0.

        Raises:
            Exhausted: the time is up.
        """
        left = self._started + self.budget.seconds - time.monotonic()
        if left <= 0:
            raise Exhausted(f"budget of {self.budget.seconds:g} seconds is spent")
        return left

    @asynccontextmanager
    async def _counted(self) -> AsyncIterator[None]:
        """Count a round unless it runs beside another, and keep the deadline."""
        left = self._seconds_left()
        if self._in_flight == 0:
            self._rounds += 1
        self._in_flight += 1
        timer = asyncio.timeout(left)
        try:
            async with timer:
                yield
        except TimeoutError:
            if not timer.expired():  # the engine's own
                raise
            raise Exhausted(f"budget of {self.budget.seconds:g} seconds is spent") from None
        finally:
            self._in_flight -= 1
