"""The meter: nothing is asked for that a limit does not allow, and everything is counted."""

from __future__ import annotations

import asyncio

import pytest
from fakes import (
    PROMPT,
    FakeJudge,
    NearsightedJudge,
    SlowEngine,
    hates,
    loves,
    random_script,
    scripted,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.budget import Budget, Exhausted, Meter
from ringfence.concurrency import together
from ringfence.engine import Sampling
from ringfence.errors import EngineError, JudgeError


def meter(judge=None, engine=None, **limits) -> Meter:
    return Meter(engine or scripted(random_script(1, end=0)), judge, Budget(**limits))


async def drafted(meter: Meter, count: int, length: int) -> int:
    drafts = await meter.draft(PROMPT.tokens, count, length, Sampling(seed=1))
    return sum(len(draft.tokens) for draft in drafts)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 100),
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 30)), max_size=12),
)
async def test_drafts_add_up_to_the_limit_at_most(tokens, calls):
    metered = meter(tokens=tokens)
    total = 0
    for count, length in calls:
        try:
            total += await drafted(metered, count, length)
        except Exhausted as limit:
            assert tokens - total < count
            assert f"budget of {tokens} drafted tokens" in str(limit)
        assert metered.cost().drafted == total <= tokens


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 60),
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 30)), min_size=2, max_size=6),
)
async def test_drafts_side_by_side_do_not_exceed_the_limit_together(tokens, calls):
    engine = SlowEngine(scripted(random_script(1, end=0)), seconds=0)
    metered = meter(engine=engine, tokens=tokens)
    await asyncio.gather(*(drafted(metered, *call) for call in calls), return_exceptions=True)
    assert metered.cost().drafted <= tokens


async def test_near_the_limit_drafts_get_shorter():
    metered = meter(tokens=10)
    assert await drafted(metered, 1, 7) == 7
    assert await drafted(metered, 1, 7) == 3
    with pytest.raises(Exhausted):
        await drafted(metered, 1, 7)


async def test_a_draft_that_failed_gives_its_tokens_back():
    class Failing(SlowEngine):
        async def draft(self, prefix, count, length, sampling):
            if length == 7:
                raise EngineError("no")
            return await self.inner.draft(prefix, count, length, sampling)

    metered = meter(engine=Failing(scripted(random_script(1, end=0))), tokens=10)
    with pytest.raises(EngineError):
        await drafted(metered, 1, 7)
    assert await drafted(metered, 1, 10) == 10


async def test_verdicts_add_up_to_the_limit_at_most():
    judge = loves()
    metered = meter(judge, iterations=5)
    await metered.judge(PROMPT, ["a", "b", "c"])
    assert metered.iterations_left == 2
    with pytest.raises(Exhausted, match="budget of 5 judged drafts"):
        await metered.judge(PROMPT, ["a", "b", "c"])
    await metered.judge(PROMPT, ["a", "b"])
    assert metered.iterations_left == 0
    assert len(judge.seen) == metered.cost().iterations == 5


async def test_a_reply_too_long_for_the_judge_costs_the_others_no_verdict():
    metered = meter(NearsightedJudge(3), iterations=9)
    verdicts = await metered.judge(PROMPT, ["ab", "abcd", "abc"])
    assert [verdict and verdict.value for verdict in verdicts] == [1.0, None, 1.0]
    cost = metered.cost()
    assert (cost.iterations, cost.judged, cost.requests, cost.rounds) == (3, 5, 2, 1)


@pytest.mark.parametrize("replies", [["abcd"], ["abcd", "abcde"]])
async def test_where_no_reply_can_be_judged_the_judge_is_exhausted(replies):
    judge = NearsightedJudge(3)
    with pytest.raises(Exhausted, match="no room to judge a longer reply: too long for the judge"):
        await meter(judge).judge(PROMPT, replies)
    assert judge.seen == []


async def test_an_error_of_the_judge_comes_out_as_itself_also_when_replies_are_judged_alone():
    class Failing(NearsightedJudge):
        async def judge(self, prompt, replies):
            if replies == ["ab"]:
                raise EngineError("died meanwhile")
            return await super().judge(prompt, replies)

    with pytest.raises(EngineError, match="died meanwhile"):
        await meter(Failing(3)).judge(PROMPT, ["ab", "abcd"])


async def test_no_judge_is_an_error():
    with pytest.raises(JudgeError):
        await meter().judge(PROMPT, ["a"])


async def test_the_deadline_cancels_what_is_in_flight():
    engine = SlowEngine(scripted(random_script(1)))
    metered = meter(engine=engine, seconds=0.1)
    with pytest.raises(Exhausted, match="budget of 0.1 seconds"):
        await drafted(metered, 1, 5)
    assert (engine.cancelled, engine.running) == (1, 0)
    with pytest.raises(Exhausted, match="budget of 0.1 seconds"):
        await drafted(metered, 1, 5)
    assert engine.started == 1


async def test_the_deadline_holds_for_the_judge_too():
    class Slow(FakeJudge):
        async def judge(self, prompt, replies):
            await asyncio.sleep(3600)

    with pytest.raises(Exhausted, match="seconds"):
        await meter(Slow(len), seconds=0.1).judge(PROMPT, ["a"])


async def test_a_timeout_of_the_engines_own_is_not_the_budgets():
    class TimesOut(SlowEngine):
        async def draft(self, prefix, count, length, sampling):
            raise TimeoutError("the engine's own")

    with pytest.raises(TimeoutError, match="the engine's own"):
        await drafted(meter(engine=TimesOut(scripted(random_script(1)))), 1, 5)


async def test_cancelling_the_caller_is_not_a_spent_budget():
    engine = SlowEngine(scripted(random_script(1)))
    task = asyncio.create_task(drafted(meter(engine=engine), 1, 5))
    while not engine.running:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.running == 0


async def test_requests_side_by_side_are_one_round():
    engine = SlowEngine(scripted(random_script(1, end=0)), seconds=0.001)
    metered = meter(hates(), engine=engine)
    await together(drafted(metered, 1, 5) for _ in range(4))
    await drafted(metered, 2, 5)
    assert (metered.cost().requests, metered.cost().rounds) == (5, 2)
    await metered.judge(PROMPT, ["ab", "abc"])
    cost = metered.cost()
    assert (cost.requests, cost.rounds, cost.judged) == (7, 3, 5)
    assert cost.fed == 5 * len(PROMPT.tokens) + cost.drafted + cost.judged


async def test_a_request_that_was_cancelled_was_a_request():
    engine = SlowEngine(scripted(random_script(1)))
    metered = meter(engine=engine, seconds=0.05)
    for _ in range(2):
        with pytest.raises(Exhausted):
            await drafted(metered, 1, 5)
    assert (metered.cost().requests, metered.cost().rounds, engine.started) == (1, 1, 1)


async def test_the_first_commit_is_the_first_with_tokens():
    metered = meter()
    metered.committed(0)
    assert metered.cost().first_commit_seconds is None
    metered.committed(3)
    first = metered.cost().first_commit_seconds
    metered.committed(2)
    assert metered.cost().first_commit_seconds == first
    assert metered.cost().committed == 5


@pytest.mark.parametrize("wrong", [{"tokens": 0}, {"iterations": 0}, {"seconds": 0}, {"token": 3}])
def test_a_budget_that_allows_nothing_is_an_error(wrong):
    with pytest.raises(ValueError):
        Budget(**wrong)


async def test_together_raises_the_first_failure_as_itself_and_cancels_the_rest():
    stopped = []

    async def slow():
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            stopped.append(True)
            raise

    async def fail():
        await asyncio.sleep(0)
        raise EngineError("as itself")

    with pytest.raises(EngineError, match="as itself"):
        await together([slow(), fail(), slow()])
    assert stopped == [True, True]


async def test_together_keeps_the_order_and_takes_nothing_too():
    async def after(seconds: float, value: int) -> int:
        await asyncio.sleep(seconds)
        return value

    assert await together([after(0.01, 1), after(0, 2)]) == [1, 2]
    assert await together([]) == []
