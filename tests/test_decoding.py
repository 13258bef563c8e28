"""All decoders: one signature, an account that adds up, text that is the tokens' text."""

from __future__ import annotations

import asyncio
import inspect
import random
import typing
from dataclasses import replace
from typing import Any

import pytest
from fakes import (
    END,
    PROMPT,
    VOCABULARY,
    FailingEngine,
    FakeJudge,
    NearsightedJudge,
    SlowEngine,
    hates,
    ids,
    loves,
    noise,
    random_judge,
    random_script,
    says,
    scripted,
    text_of,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ringfence.budget import Budget
from ringfence.decoding import DECODERS, DecoderName, Options, complete, decode
from ringfence.errors import BudgetError, ContextError, EngineError, InputError, JudgeError
from ringfence.events import Committed, Drafted, Ended, Event, Judged, Reply, Rewound

NAMES: tuple[DecoderName, ...] = typing.get_args(DecoderName)
JUDGING = [name for name in NAMES if name != "plain"]
each = pytest.mark.parametrize("decoder", NAMES)
each_judging = pytest.mark.parametrize("decoder", JUDGING)
anything = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


async def events_of(script, judge=None, decoder="plain", engine=None, **options) -> list[Event]:
    stream = decode(
        engine or scripted(script),
        PROMPT,
        decoder=decoder,
        judge=judge,
        options=Options(**options),
    )
    return [event async for event in stream]


async def told(events: list[Event]):
    for event in events:
        yield event


async def reply_of(script, judge=None, decoder="plain", **options) -> Reply:
    return await complete(told(await events_of(script, judge, decoder, **options)))


def of(events: list[Event], kind: type) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def before_stop(text: str, stops) -> str:
    """The text before the stop string that is complete first, as if it came letter by letter."""
    for end in range(len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return text[: min(starts)]
    return text


@st.composite
def cases(draw) -> dict[str, Any]:
    return {
        "decoder": draw(st.sampled_from(NAMES)),
        "script": draw(st.integers(0, 10_000)),
        "end": draw(st.sampled_from([0.0, 0.02, 0.2])),
        "judge": draw(st.integers(0, 10_000)),
        "options": {
            "max_tokens": draw(st.integers(1, 40)),
            "temperature": draw(st.sampled_from([0.0, 0.7, 1.5])),
            "seed": draw(st.integers(0, 1000)),
            "budget": {
                "tokens": draw(st.integers(1, 800)),
                "iterations": draw(st.integers(1, 60)),
            },
            "exhausted": draw(st.sampled_from(["refuse", "best"])),
            "n": draw(st.integers(1, 6)),
            "segment": draw(st.integers(1, 12)),
            "redraws": draw(st.integers(1, 4)),
            "widenings": draw(st.integers(1, 3)),
            "threshold": draw(st.one_of(st.none(), st.floats(-1, 1))),
            "preset": draw(st.sampled_from(["fast", "paper"])),
            "search": {"iterations": draw(st.integers(1, 10)), "visits": draw(st.integers(1, 3))},
            "stop": draw(st.lists(st.sampled_from(["a", "bc", "e.", " da"]), max_size=2)),
        },
    }


async def run(case: dict[str, Any]) -> list[Event]:
    return await events_of(
        random_script(case["script"], end=case["end"]),
        random_judge(case["judge"]),
        case["decoder"],
        **case["options"],
    )


def test_all_decoders_have_one_signature():
    assert set(DECODERS) == set(NAMES)
    assert len({str(inspect.signature(decoder)) for decoder in DECODERS.values()}) == 1


@anything
@given(cases())
async def test_the_account_adds_up_with_the_events(case):
    events = await run(case)
    [ended] = of(events, Ended)
    assert events[-1] is ended
    cost, options = ended.cost, case["options"]
    committed = sum(len(event.tokens) for event in of(events, Committed))
    assert cost.committed == committed <= options["max_tokens"]
    # A child of one token comes from the model's list of likely tokens, and may not be the drafted.
    assert committed <= sum(len(event.tokens) for event in of(events, Drafted))
    assert cost.drafted <= options["budget"]["tokens"]
    # An ended reply that the search comes back to is told again, but not judged again.
    assert len({event.node for event in of(events, Judged)}) <= cost.iterations
    assert cost.iterations <= options["budget"]["iterations"]
    assert cost.rewinds == len(of(events, Rewound))
    assert (cost.first_commit_seconds is not None) == bool(committed)
    assert cost.fed >= cost.drafted + cost.judged
    assert cost.rounds <= cost.requests or ended.reason == "refused"


@anything
@given(cases())
async def test_the_texts_of_all_commits_are_the_text_of_the_tokens_up_to_a_stop_string(case):
    events = await run(case)
    reply = await complete(told(events))
    assert reply.text == "".join(event.text for event in of(events, Committed))
    assert reply.tokens == tuple(t for event in of(events, Committed) for t in event.tokens)
    whole = text_of(reply.tokens)
    assert reply.text == before_stop(whole, case["options"]["stop"])
    if reply.text != whole:
        assert reply.reason == "stop"


@anything
@given(cases())
async def test_the_same_seed_gives_the_same_events(case):
    first, second = await run(case), await run(case)
    assert first[:-1] == second[:-1]
    assert (first[-1].reason, first[-1].value) == (second[-1].reason, second[-1].value)


async def test_a_negative_seed_is_another_than_its_positive_one():
    replies = {
        seed: (await reply_of(random_script(1), seed=seed, max_tokens=40)).tokens
        for seed in (-2, -1, 1, 2)
    }
    assert len(set(replies.values())) == 4


@pytest.mark.parametrize("seed", [0, 7, 2**62])
async def test_what_other_seeds_draw_stays_as_it_was(seed):
    seen = []

    class Watched(SlowEngine):
        async def draft(self, prefix, count, length, sampling):
            seen.append(sampling.seed)
            return await self.inner.draft(prefix, count, length, sampling)

    engine = Watched(scripted(random_script(1)), 0.0)
    await events_of(None, engine=engine, seed=seed)
    assert seen[0] == random.Random(seed).getrandbits(31)


@anything
@given(cases())
async def test_every_draft_goes_on_from_its_parent_and_every_commit_from_the_last(case):
    check_parents(await run(case))


async def test_searches_of_guarded_hang_below_the_last_commit():
    judge = random_judge(5, threshold=0.0)
    script = random_script(1, end=0)
    events = await events_of(script, judge, "guarded", segment=6, max_tokens=60)
    assert len(of(events, Rewound)) > 1 and len(of(events, Committed)) > 3
    check_parents(events)


def check_parents(events: list[Event]) -> None:
    known: dict[int, tuple[int, ...]] = {0: ()}
    committed: tuple[int, ...] = ()
    for event in events:
        if isinstance(event, Drafted):
            assert event.node not in known
            assert event.parent in known
            known[event.node] = known[event.parent] + event.tokens
        elif isinstance(event, Rewound):
            assert event.kept == len(committed)
        elif isinstance(event, Committed) and event.tokens:
            committed += event.tokens
            assert known[event.node] == committed


@anything
@given(cases())
async def test_only_good_tokens_are_committed_unless_the_best_was_asked_for(case):
    events = await run(case)
    threshold = case["options"]["threshold"]
    if case["decoder"] == "plain" or case["options"]["exhausted"] == "best":
        return
    least = threshold if threshold is not None else 0.5
    for event in of(events, Committed):
        assert event.value is None or event.value >= least - 1e-9


@each
async def test_a_finished_reply_ends_with_stop(decoder):
    reply = await reply_of(says("hello."), loves(), decoder)
    assert (reply.text, reply.reason) == ("hello.", "stop")


@each
async def test_a_reply_is_cut_at_max_tokens(decoder):
    reply = await reply_of(random_script(1, end=0), loves(), decoder, max_tokens=29, segment=10)
    assert len(reply.tokens) == 29
    assert reply.reason == "length"


@each
async def test_a_judge_that_loves_everything_never_rewinds(decoder):
    events = await events_of(random_script(1), loves(), decoder, max_tokens=60)
    assert not of(events, Rewound)
    assert events[-1].cost.rewinds == 0
    assert events[-1].reason != "refused"


@each_judging
async def test_a_judge_that_hates_everything_ends_in_a_refusal(decoder):
    reply = await reply_of(random_script(1), hates(), decoder, max_tokens=60)
    assert (reply.reason, reply.tokens, reply.text, reply.value) == ("refused", (), "", -1)
    assert reply.detail


@each_judging
async def test_a_judge_that_hates_everything_gets_the_best_where_so_asked(decoder):
    reply = await reply_of(
        random_script(1, end=0), hates(), decoder, max_tokens=30, exhausted="best"
    )
    assert len(reply.tokens) == 30
    assert (reply.reason, reply.value) == ("length", -1)


@pytest.mark.parametrize("iterations", [1, 10, 30])
@pytest.mark.parametrize("decoder", ["rejection", "rain", "guarded"])
@pytest.mark.parametrize("preset", ["fast", "paper"])
async def test_a_budget_that_ends_early_still_gives_the_best_where_so_asked(
    decoder, preset, iterations
):
    """Also where it ends in a first search that would have been widened."""
    judge = FakeJudge(lambda text: 0.01 * text.count("a") - 0.5)
    events = await events_of(
        random_script(3, end=0),
        judge,
        decoder,
        max_tokens=24,
        exhausted="best",
        preset=preset,
        budget={"iterations": iterations},
    )
    reply = await complete(told(events))
    assert (reply.reason, bool(reply.text)) == ("length", True)
    drafted = [event.node for event in of(events, Drafted)]
    assert len(drafted) == len(set(drafted))


@pytest.mark.parametrize("best_is", [1, 3])
async def test_guarded_takes_the_best_of_all_it_judged_and_not_of_the_last(best_is):
    """The draft it rejected at first, or one of a search that wider ones came after."""
    judged = 0

    def opinion(text: str) -> float:
        nonlocal judged
        judged += 1
        return 0.2 if judged == best_is else -0.9

    search = {"lengths": (8,), "iterations": 4}
    events = await events_of(
        random_script(3, end=0),
        FakeJudge(opinion),
        "guarded",
        max_tokens=8,
        segment=8,
        exhausted="best",
        search=search,
    )
    [best] = [event.node for event in of(events, Judged) if event.value == 0.2]
    assert of(events, Committed)[0].node == best
    assert events[-1].value == 0.2


@each_judging
async def test_a_judge_that_hates_everything_raises_where_so_asked(decoder):
    with pytest.raises(BudgetError, match="no acceptable reply"):
        await reply_of(random_script(1), hates(), decoder, max_tokens=60, exhausted="error")


@each_judging
async def test_what_was_good_stays_when_the_rest_is_refused(decoder):
    if decoder == "best-of-n":
        pytest.skip("commits whole replies only")
    judge = FakeJudge(lambda text: 1.0 if len(text) <= 16 else -1.0)
    options = {"max_tokens": 60, "segment": 8, "search": {"lengths": (8,)}}
    reply = await reply_of(random_script(1, end=0), judge, decoder, **options)
    assert reply.reason == "refused"
    assert 0 < len(reply.tokens) <= 16
    assert reply.text == text_of(reply.tokens)


@each
@pytest.mark.parametrize("budget", [{"tokens": 20}, {"iterations": 1}, {"tokens": 1}])
async def test_a_spent_budget_ends_the_stream_and_says_which(decoder, budget):
    reply = await reply_of(random_script(1, end=0), random_judge(1, 0.99), decoder, budget=budget)
    if decoder != "plain":
        assert reply.reason == "refused" and reply.detail
    assert reply.cost.drafted <= budget.get("tokens", 20_000)
    assert reply.cost.iterations <= budget.get("iterations", 500)


@each
async def test_the_deadline_ends_the_stream_and_cancels_the_engine(decoder):
    engine = SlowEngine(scripted(random_script(1)))
    reply = await complete(
        decode(
            engine,
            PROMPT,
            decoder=decoder,
            judge=loves(),
            options=Options(budget=Budget(seconds=0.2)),
        )
    )
    assert reply.reason == "refused"
    assert "0.2 seconds" in reply.detail
    assert 0.2 <= reply.cost.seconds < 2
    assert (engine.started, engine.running) == (engine.cancelled, 0)


@each
async def test_leaving_the_stream_cancels_the_calls_in_flight(decoder):
    engine = SlowEngine(scripted(random_script(1)))
    stream = decode(engine, PROMPT, decoder=decoder, judge=loves())
    task = asyncio.create_task(anext(stream))
    while not engine.running:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.running == 0
    assert engine.cancelled == engine.started >= 1


@each
async def test_closing_the_stream_between_events_leaves_nothing_running(decoder):
    engine = SlowEngine(scripted(random_script(1, end=0)), seconds=0.001)
    stream = decode(engine, PROMPT, decoder=decoder, judge=loves())
    async for event in stream:
        if isinstance(event, Drafted):
            break
    await stream.aclose()
    assert engine.running == 0


@each
async def test_nothing_is_running_when_the_stream_says_it_ended(decoder):
    engine = SlowEngine(scripted(says("abcdefgh! and much more of it")), seconds=0.001)
    options = Options(stop=("!",), segment=4, seed=1)
    async for event in decode(engine, PROMPT, decoder=decoder, judge=loves(), options=options):
        if isinstance(event, Ended):
            assert engine.running == 0


@each
@pytest.mark.parametrize("after", [0, 2, 5])
async def test_an_engine_error_comes_out_as_itself(decoder, after):
    failure = EngineError("the child died")
    engine = FailingEngine(scripted(random_script(1, end=0)), failure, after)
    with pytest.raises(EngineError) as caught:
        options = Options(max_tokens=400, segment=8, redraws=4)
        judge = FakeJudge(lambda text: 2 * noise(text) - 1, 0.0)
        await complete(decode(engine, PROMPT, decoder=decoder, judge=judge, options=options))
        if decoder == "best-of-n" and after:
            raise failure  # a single call to the engine
    assert caught.value is failure


@each_judging
async def test_a_judge_that_fails_comes_out_as_itself(decoder):
    def fail(text: str) -> float:
        raise EngineError("no logprobs")

    with pytest.raises(EngineError, match="no logprobs"):
        await reply_of(random_script(1), FakeJudge(fail), decoder)


@each_judging
async def test_a_decoder_that_judges_needs_a_judge(decoder):
    with pytest.raises(JudgeError, match=f"{decoder}.*--principle"):
        await reply_of(random_script(1), None, decoder)


async def test_an_unknown_decoder_is_an_input_error_that_names_the_known_ones():
    with pytest.raises(InputError, match="plain, best-of-n, rejection, rain, guarded"):
        await reply_of(random_script(1), None, "brain")


def test_a_misspelt_option_is_an_error():
    for wrong in ({"max_token": 3}, {"search": {"visit": 3}}, {"budget": {"token": 3}}):
        with pytest.raises(ValueError):
            Options(**wrong)


def test_an_empty_stop_string_is_an_error():
    with pytest.raises(ValueError, match="empty"):
        Options(stop=("",))


def test_the_threshold_of_the_options_is_that_of_the_search():
    assert Options(threshold=0.3, preset="paper").settings().threshold == 0.3
    assert Options(preset="paper").settings().threshold == 0.8
    assert Options().settings().threshold is None


@anything
@given(
    st.sampled_from(NAMES),
    st.text(alphabet="ab€😀.\u0301", min_size=1, max_size=20),
    st.lists(st.text(alphabet="ab€😀.", min_size=1, max_size=4), max_size=3),
    st.integers(1, 7),
)
async def test_stop_strings_and_characters_may_straddle_commits(decoder, text, stops, segment):
    events = await events_of(
        says(text),
        loves(),
        decoder,
        stop=tuple(stops),
        segment=segment,
        search={"lengths": (segment,)},
    )
    shown = "".join(event.text for event in of(events, Committed))
    assert shown == before_stop(text, stops)
    assert events[-1].reason == "stop"


@pytest.mark.parametrize("segment", [1, 3])
async def test_of_several_stop_strings_the_one_complete_first_counts_wherever_commits_end(segment):
    reply = await reply_of(says(".ab"), loves(), "rejection", stop=(".ab", "a"), segment=segment)
    assert reply.text == "."


@each
async def test_a_character_cut_off_by_the_length_is_shown_as_replaced(decoder):
    reply = await reply_of(says("a€"), loves(), decoder, max_tokens=3)
    assert reply.text == text_of(reply.tokens) == "a\N{REPLACEMENT CHARACTER}"


@each
async def test_text_that_begins_a_stop_string_and_does_not_go_on_is_shown_at_the_end(decoder):
    reply = await reply_of(says("one ST"), loves(), decoder, stop=("STOP",))
    assert reply.text == "one ST"


@each_judging
async def test_the_text_judged_is_the_text_shown_where_a_stop_string_ends_it(decoder):
    """What stands behind the stop string cannot make a draft good, nor bad, and is not counted."""
    judge = FakeJudge(lambda text: -1.0 if "sorry" in text else 1.0)
    text = "Mix A and B. But sorry, do not. Never do that."
    events = await events_of(
        says(text),
        judge,
        decoder,
        stop=(" But",),
        segment=40,
        n=2,
        search={"lengths": (40,), "simulation": True},
    )
    reply = await complete(told(events))
    assert (reply.text, reply.reason, reply.value) == ("Mix A and B.", "stop", 1.0)
    assert "Mix A and B." in judge.seen and not any("But" in seen for seen in judge.seen)
    assert reply.cost.committed == len("Mix A and B. But")
    assert not of(events, Rewound)


@anything
@given(cases())
async def test_no_judge_is_shown_what_stands_behind_a_stop_string(case):
    judge = random_judge(case["judge"])
    script = random_script(case["script"], end=case["end"])
    await events_of(script, judge, case["decoder"], **case["options"])
    assert all(before_stop(seen, case["options"]["stop"]) == seen for seen in judge.seen)


async def test_text_held_back_is_shown_with_the_verdict_it_got_and_not_that_of_what_followed():
    judge = FakeJudge(lambda text: 1.0 if len(text) <= 6 else -1.0)
    events = await events_of(
        says("hello wonderful"), judge, "rejection", segment=6, redraws=1, stop=("lo X",)
    )
    commits = of(events, Committed)
    assert commits[-1].text == "lo " and not commits[-1].tokens
    assert [event.value for event in commits] == [1.0] * len(commits)
    assert (events[-1].reason, events[-1].value) == ("refused", -1.0)


async def test_plain_needs_no_judge_and_asks_none():
    judge = loves()
    reply = await reply_of(random_script(1, end=0), judge, "plain", max_tokens=50)
    assert judge.seen == []
    assert reply.value is None
    assert reply.cost.drafted == reply.cost.committed == 50


async def test_best_of_n_takes_the_best():
    judge = random_judge(3, threshold=-1)
    events = await events_of(random_script(1), judge, "best-of-n", n=6, max_tokens=20)
    values = {event.node: event.value for event in of(events, Judged)}
    [committed] = of(events, Committed)
    assert len(values) == 6
    assert committed.value == max(values.values()) == values[committed.node]
    drafts = {event.node: event.tokens for event in of(events, Drafted)}
    assert committed.tokens == drafts[committed.node]


@pytest.mark.parametrize("exhausted", ["best", "refuse"])
async def test_rejection_redraws_at_most_so_often_and_keeps_the_best(exhausted):
    judge = FakeJudge(lambda text: noise(text) - 0.5, 0.9)
    events = await events_of(
        random_script(1, end=0),
        judge,
        "rejection",
        redraws=4,
        segment=6,
        max_tokens=6,
        exhausted=exhausted,
    )
    judged = of(events, Judged)
    assert len(judged) == 4
    best = max(judged, key=lambda event: event.value)
    if exhausted == "best":
        [committed] = of(events, Committed)
        assert (committed.node, committed.value) == (best.node, best.value)
    else:
        assert not of(events, Committed)
        assert events[-1].value == best.value


async def test_best_of_n_draws_no_more_replies_than_may_be_judged():
    options = {"n": 8, "max_tokens": 20, "budget": {"iterations": 3}}
    events = await events_of(random_script(1, end=0), loves(), "best-of-n", **options)
    assert len(of(events, Drafted)) == len(of(events, Judged)) == 3
    assert (events[-1].reason, events[-1].cost.drafted) == ("length", 60)


@pytest.mark.parametrize("exhausted", ["refuse", "best", "error"])
async def test_replies_of_best_of_n_that_the_budget_cut_are_not_whole(exhausted):
    options = {"n": 8, "max_tokens": 64, "exhausted": exhausted, "budget": {"tokens": 80}}
    made = reply_of(says("x" * 50), loves(), "best-of-n", **options)
    if exhausted == "error":
        with pytest.raises(BudgetError, match="80 drafted tokens"):
            await made
        return
    reply = await made
    assert reply.reason == ("length" if exhausted == "best" else "refused")
    assert (len(reply.text), "80 drafted tokens" in reply.detail) == (
        10 if exhausted == "best" else 0,
        True,
    )
    whole = await reply_of(says("x" * 5), loves(), "best-of-n", **options)
    assert (whole.text, whole.reason, whole.detail) == ("x" * 5, "stop", "")


async def test_rejection_stops_redrawing_at_the_first_good_draft():
    values = iter([-1.0, -0.5, 0.7, 1.0, 1.0])
    judge = FakeJudge(lambda text: next(values))
    events = await events_of(
        random_script(1, end=0), judge, "rejection", segment=6, max_tokens=6, redraws=8
    )
    assert len(of(events, Judged)) == 3
    assert len(of(events, Rewound)) == 2
    assert of(events, Committed)[0].value == 0.7


async def test_rejection_cuts_a_segment_before_its_least_certain_token():
    def script(prefix):
        if len(prefix) - len(PROMPT.tokens) == 6:
            return {ids(letter)[0]: 1.0 for letter in "abcdefgh"}
        return {ids("x")[0]: 1.0}

    events = await events_of(script, loves(), "rejection", segment=8, max_tokens=40)
    assert len(of(events, Committed)[0].tokens) == 6


async def test_guarded_is_the_default():
    stream = decode(scripted(says("hi.")), PROMPT, judge=loves())
    judged = [event async for event in stream if isinstance(event, Judged)]
    assert judged


async def test_guarded_rewinds_exactly_on_a_bad_verdict_and_goes_on_from_the_last_good_commit():
    judge = random_judge(5, threshold=0.0)
    events = await events_of(
        random_script(1, end=0), judge, "guarded", segment=6, max_tokens=60, budget={"tokens": 5000}
    )
    assert of(events, Rewound)
    committed: tuple[int, ...] = ()
    judged = 0
    drafts = {event.node: event for event in of(events, Drafted)}
    for event, following in zip(events, events[1:], strict=False):
        if isinstance(event, Judged):
            assert isinstance(following, Rewound) == (event.value < 0.0)
        if isinstance(event, Rewound):
            assert event.kept == len(committed)
            assert event.dropped[-1:] == drafts[judged].tokens[-1:]
        if isinstance(event, Committed):
            committed += event.tokens
        judged = event.node if isinstance(event, Judged) else 0


async def test_guarded_keeps_a_good_draft_whole_although_its_first_step_was_judged_badly():
    def script(prefix):
        return {ids("a")[0]: 1.0} if len(prefix) < len(PROMPT.tokens) + 4 else {ids("b")[0]: 1.0}

    judge = FakeJudge(lambda text: 1.0 if "b" in text else -1.0)
    search = {"lengths": (2,), "simulation": False, "dynamic_addition": False}
    events = await events_of(script, judge, "guarded", segment=2, max_tokens=6, search=search)
    # Everything shown ends a draft that was judged well: four letters that are no good by
    # themselves are committed together with what makes them good.
    assert events[-1].reason == "length"
    judged_well = {event.node for event in of(events, Judged) if event.value > 0}
    assert text_of([token for event in of(events, Committed) for token in event.tokens]) == "aaaabb"
    assert of(events, Committed)[-1].node in judged_well
    assert len(of(events, Rewound)) == 3  # the segment, and two leaves on the way to the good one


async def test_guarded_costs_one_verdict_a_segment_where_nothing_is_wrong():
    events = await events_of(random_script(1, end=0), loves(), "guarded", segment=10, max_tokens=50)
    cost = events[-1].cost
    assert cost.iterations == 5
    assert cost.drafted == cost.committed == 50


async def test_guarded_searches_wider_each_time_and_then_refuses():
    events = await events_of(
        random_script(1, end=0),
        hates(),
        "guarded",
        segment=6,
        max_tokens=60,
        widenings=3,
        search={"width": 2, "iterations": 3, "lengths": (6,), "dynamic_addition": False},
    )
    # All searches start at the prompt: two drafts, then four, then eight.
    below_prompt = [event for event in of(events, Drafted)[1:] if event.parent == 0]
    assert len(below_prompt) == 2 + 4 + 8
    # The first segment, and 3 + 6 + 12 iterations.
    assert len(of(events, Judged)) == 1 + 3 + 6 + 12
    assert events[-1].reason == "refused"
    assert "12 drafts judged" in events[-1].detail


async def test_guarded_steers_away_from_what_the_judge_hates():
    def script(prefix):
        return {ids("b")[0]: 0.6, ids("a")[0]: 0.4} if len(prefix) < 40 else {END: 1.0}

    judge = FakeJudge(lambda text: -1.0 if "bbb" in text else 1.0)
    reply = await reply_of(script, judge, "guarded", segment=6, search={"lengths": (2,)})
    assert reply.reason == "stop"
    assert "bbb" not in reply.text


@each
async def test_the_logprob_of_a_reply_is_that_of_its_tokens(decoder):
    engine = scripted(random_script(1, end=0))
    reply = await complete(
        decode(engine, PROMPT, decoder=decoder, judge=loves(), options=Options(max_tokens=20))
    )
    scores = await engine.logprobs(PROMPT.tokens, [reply.tokens])
    assert reply.logprob == pytest.approx(scores.logprobs[0])
    assert reply.perplexity >= 1


class HidingEngine(SlowEngine):
    """As llama.cpp, tells nothing of a character that is not complete at a draft's end."""

    async def draft(self, prefix, count, length, sampling):
        drafts = await self.inner.draft(prefix, count, length, sampling)
        return [replace(d, tokens=d.tokens[:-1], logprobs=d.logprobs[:-1]) for d in drafts]


async def test_a_reply_of_best_of_n_that_stops_inside_a_character_is_whole():
    engine = HidingEngine(scripted(says("é" * 50)), 0.0)
    options = {"engine": engine, "n": 2, "max_tokens": 11}
    made = await complete(told(await events_of(None, loves(), "best-of-n", **options)))
    assert (made.reason, made.text, made.detail) == ("length", "ééééé", "")


@each_judging
@pytest.mark.parametrize("exhausted", ["refuse", "best", "error"])
async def test_a_reply_too_long_to_be_judged_ends_as_with_a_spent_budget(decoder, exhausted):
    options = {"max_tokens": 60, "segment": 8, "exhausted": exhausted}
    search = {"lengths": (8,), "simulation": False}
    made = reply_of(
        random_script(1, end=0), NearsightedJudge(20), decoder, search=search, **options
    )
    if exhausted == "error":
        with pytest.raises(BudgetError, match="no room to judge a longer reply"):
            await made
        return
    reply = await made
    some = decoder != "best-of-n"
    assert bool(reply.text) == some
    assert reply.reason == ("length" if some and exhausted == "best" else "refused")
    assert "no room to judge a longer reply" in reply.detail


@pytest.mark.parametrize("exhausted", ["refuse", "best"])
async def test_best_of_n_takes_the_best_of_those_that_could_be_judged(exhausted):
    judge = NearsightedJudge(8, lambda text: noise(text), threshold=-1)
    options = {"n": 12, "max_tokens": 30, "seed": 2, "exhausted": exhausted}
    events = await events_of(random_script(1, end=0.1), judge, "best-of-n", **options)
    texts = {event.node: text_of(event.tokens) for event in of(events, Drafted)}
    short = {node for node, text in texts.items() if len(text) <= 8}
    assert 1 < len(short) < 12
    assert {event.node for event in of(events, Judged)} == short
    [committed] = of(events, Committed)
    assert committed.value == max(noise(texts[node]) for node in short)
    assert events[-1].reason == "stop"


async def test_a_search_goes_on_beside_a_draft_too_long_to_be_judged():
    def script(prefix):
        said = text_of(prefix[len(PROMPT.tokens) :])
        if not said:
            return {ids("a")[0]: 0.5, ids("b")[0]: 0.5}
        return {END: 1.0} if said.startswith("aa") else {ids(said[0])[0]: 1.0}

    judge = NearsightedJudge(5)
    events = await events_of(script, judge, "rain", max_tokens=20, search={"width": 8})
    assert {text_of(event.tokens) for event in of(events, Drafted)} == {"aa", "b" * 20}
    reply = await complete(told(events))
    assert (reply.text, reply.reason, judge.seen) == ("aa", "stop", ["aa"])


@each
async def test_a_reply_is_cut_where_the_context_ends(decoder):
    engine = scripted(random_script(1, end=0), context=40)
    reply = await complete(decode(engine, PROMPT, decoder=decoder, judge=loves()))
    assert (reply.reason, len(reply.tokens)) == ("length", 40 - len(PROMPT.tokens))


@each
async def test_a_prompt_that_leaves_no_room_for_a_reply_is_an_error(decoder):
    engine = scripted(random_script(1, end=0), context=len(PROMPT.tokens))
    with pytest.raises(ContextError, match="exceed the context of 3 tokens"):
        await complete(decode(engine, PROMPT, decoder=decoder, judge=loves()))
    assert engine.calls["draft"] == 0


# Every child of the root is a whole reply, so that the search can only come back to them.
ENDED: dict[str, Any] = {"decoder": "rain", "preset": "paper", "max_tokens": 1}


async def test_a_search_that_only_comes_back_to_ended_replies_keeps_to_the_iterations():
    options = ENDED | {"search": {"iterations": 2000}, "budget": {"iterations": 20}}
    events = await events_of(random_script(1, end=0), hates(), **options)
    [ended] = of(events, Ended)
    assert ended.reason == "refused" and 0 < ended.cost.iterations <= 20
    assert len(of(events, Judged)) < 60
    assert ended.detail == f"{ended.cost.iterations} drafts judged, none good enough"


async def test_a_search_that_only_comes_back_to_ended_replies_keeps_to_the_deadline():
    budget = {"iterations": 9000, "seconds": 0.05}
    options = ENDED | {"search": {"iterations": 9000}, "budget": budget}
    reply = await reply_of(random_script(1, end=0), hates(), **options)
    assert reply.detail == "budget of 0.05 seconds is spent"


async def test_others_have_their_turn_while_a_search_comes_back_to_ended_replies():
    options = ENDED | {"search": {"iterations": 2000}, "budget": {"iterations": 2000}}
    made = asyncio.create_task(reply_of(random_script(1, end=0), hates(), **options))
    for _ in range(50):
        await asyncio.sleep(0)
    assert not made.done()
    made.cancel()
    with pytest.raises(asyncio.CancelledError):
        await made


async def test_an_ended_reply_gets_the_visits_it_needs_within_the_smallest_budget():
    options = ENDED | {"budget": {"iterations": 1}}
    events = await events_of(random_script(1, end=0), loves(), **options)
    assert [event.visits for event in of(events, Committed)] == [7]


async def test_many_replies_at_once_do_not_disturb_each_other():
    alone = [
        await reply_of(random_script(seed), random_judge(seed), "guarded", max_tokens=30, seed=seed)
        for seed in range(8)
    ]
    together = await asyncio.gather(
        *(
            reply_of(random_script(seed), random_judge(seed), "guarded", max_tokens=30, seed=seed)
            for seed in range(8)
        )
    )
    for one, other in zip(alone, together, strict=True):
        assert (one.tokens, one.reason, one.value) == (other.tokens, other.reason, other.value)


def test_control_tokens_of_the_fakes_are_not_text():
    assert END in VOCABULARY.control.values()


@each
async def test_a_spent_budget_keeps_the_best_so_far_where_so_asked(decoder):
    reply = await reply_of(
        random_script(1, end=0),
        loves(),
        decoder,
        max_tokens=60,
        exhausted="best",
        segment=10,
        n=2,
        budget={"tokens": 40},
    )
    assert reply.reason == "length"
    assert 0 < len(reply.tokens) <= 40


async def test_plain_decoding_is_cut_and_not_refused_where_the_budget_is_spent():
    reply = await reply_of(
        random_script(1, end=0), None, "plain", max_tokens=60, budget={"tokens": 20}
    )
    assert (reply.reason, len(reply.tokens)) == ("length", 20)
    assert "budget of 20 drafted tokens is spent" in reply.detail


async def test_a_cancelled_look_ahead_counts_as_drafted():
    """Every segment fails, so every look-ahead is dropped: it was work all the same."""
    events = await events_of(
        random_script(1, end=0),
        hates(),
        "guarded",
        max_tokens=60,
        segment=10,
        widenings=1,
        search={"iterations": 1, "width": 1, "lengths": (10,)},
    )
    shown = sum(len(event.tokens) for event in of(events, Drafted))
    assert events[-1].cost.drafted == shown + 10
