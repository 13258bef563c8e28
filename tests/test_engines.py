"""What every engine promises; see `ringfence.engine.Engine`."""

from __future__ import annotations

import asyncio
import math

import pytest
from conftest import Subject

from ringfence.engine import Draft, Engine, Sampling
from ringfence.engines import open_engine
from ringfence.errors import ContextError, EngineError, InputError

GREEDY = Sampling(temperature=0)
# Arithmetic may depend on the batch and on what was cached, but only in the last digits.
CLOSE = 0.05


def test_every_engine_is_an_engine(engine: Engine) -> None:
    assert isinstance(engine, Engine)
    assert engine.card.name and engine.card.ends and engine.card.context > 0


async def test_drafts_are_as_many_as_asked_even_beyond_the_slots(subject: Subject) -> None:
    slots = subject.engine.card.slots
    drafts = await subject.engine.draft(subject.prompt, slots + 1, 1, Sampling(seed=1))
    assert len(drafts) == slots + 1


async def test_a_draft_is_as_long_as_asked_or_says_why_not(subject: Subject) -> None:
    for draft in await subject.engine.draft(subject.prompt, 4, 5, Sampling(seed=2)):
        assert len(draft.logprobs) == len(draft.tokens)
        assert draft.finished or len(draft.tokens) == 5
        assert all(-math.inf < logprob <= 0 for logprob in draft.logprobs)


async def test_a_finished_draft_says_so(subject: Subject) -> None:
    drafts = await subject.engine.draft(
        subject.prompt, subject.count, subject.length, Sampling(seed=3)
    )
    assert any(draft.finished for draft in drafts)
    assert all(draft.finished == (len(draft.tokens) < subject.length) for draft in drafts)
    assert not any(subject.engine.card.ends & set(draft.tokens) for draft in drafts)


async def test_a_shorter_prefix_gives_the_drafts_of_a_fresh_engine(subject: Subject) -> None:
    engine, prompt = subject.engine, subject.prompt
    [fresh] = await engine.draft(prompt, 1, 5, GREEDY)
    await engine.draft(prompt + fresh.tokens + prompt, 2, 3, Sampling(seed=4))
    [rewound] = await engine.draft(prompt, 1, 5, GREEDY)
    assert rewound.tokens == fresh.tokens
    assert rewound.logprobs == pytest.approx(fresh.logprobs, abs=CLOSE)


async def test_going_on_from_a_draft_gives_the_rest_of_it(subject: Subject) -> None:
    engine, prompt = subject.engine, subject.prompt
    [whole] = await engine.draft(prompt, 1, 4, GREEDY)
    [rest] = await engine.draft(prompt + whole.tokens[:2], 1, 2, GREEDY)
    assert rest.tokens == whole.tokens[2:]


async def test_equal_seeds_give_equal_drafts(subject: Subject) -> None:
    # The first call fills the cache, so that also an engine whose arithmetic depends on it repeats.
    engine, prompt = subject.engine, subject.prompt
    runs = [await engine.draft(prompt, 3, 6, Sampling(seed=5)) for _ in range(3)]
    assert texts(runs[1]) == texts(runs[2])


async def test_drafts_of_one_call_differ(subject: Subject) -> None:
    drafts = await subject.engine.draft(subject.prompt, 4, 12, Sampling(temperature=2, seed=6))
    assert len(set(texts(drafts))) > 1


async def test_without_a_seed_two_calls_differ(subject: Subject) -> None:
    engine, prompt = subject.engine, subject.prompt
    runs = [await engine.draft(prompt, 2, 12, Sampling(temperature=2)) for _ in range(2)]
    assert texts(runs[0]) != texts(runs[1])


async def test_greedy_drafts_are_equal(subject: Subject) -> None:
    drafts = await subject.engine.draft(subject.prompt, 3, 3, GREEDY)
    assert len(drafts) == 3 and len(set(texts(drafts))) == 1


async def test_greedy_drafts_follow_the_best_alternative(subject: Subject) -> None:
    [draft] = await subject.engine.draft(
        subject.prompt, 1, 4, Sampling(temperature=0, alternatives=3)
    )
    best = [step[0][0] for step in draft.alternatives]
    assert tuple(best[: len(draft.tokens)]) == draft.tokens


async def test_alternatives_come_best_first_and_as_many_as_asked(subject: Subject) -> None:
    drafts = await subject.engine.draft(
        subject.prompt, 3, 6, Sampling(temperature=2, alternatives=3, seed=7)
    )
    for draft in drafts:
        assert len(draft.alternatives) == len(draft.tokens) + draft.finished
        for step in draft.alternatives:
            values = [logprob for _, logprob in step]
            assert len(values) == 3 and values == sorted(values, reverse=True)


async def test_temperature_and_truncation_do_not_change_the_logprobs(subject: Subject) -> None:
    engine, prompt = subject.engine, subject.prompt
    [plain] = await engine.draft(prompt, 1, 1, GREEDY)
    [odd] = await engine.draft(prompt, 1, 1, Sampling(temperature=2, top_k=1, top_p=0.5, seed=8))
    assert odd.tokens == plain.tokens
    assert odd.logprobs == pytest.approx(plain.logprobs, abs=CLOSE)


async def test_top_k_of_one_is_greedy(subject: Subject) -> None:
    engine, prompt = subject.engine, subject.prompt
    [greedy] = await engine.draft(prompt, 1, 4, GREEDY)
    [narrow] = await engine.draft(prompt, 1, 4, Sampling(temperature=2, top_k=1, seed=9))
    assert narrow.tokens == greedy.tokens


async def test_logprobs_of_a_greedy_draft_sum_to_its_scores(subject: Subject) -> None:
    engine, prompt = subject.engine, subject.prompt
    [draft] = await engine.draft(prompt, 1, 4, GREEDY)
    scores = await engine.logprobs(prompt, [draft.tokens, draft.tokens[:1]])
    assert scores.logprobs[0] == pytest.approx(sum(draft.logprobs), abs=CLOSE)
    assert scores.logprobs[1] == pytest.approx(draft.logprobs[0], abs=CLOSE)
    assert scores.requests >= 1 and scores.fed >= 0


async def test_scores_agree_with_the_alternatives(subject: Subject) -> None:
    engine, prompt = subject.engine, subject.prompt
    [draft] = await engine.draft(prompt, 1, 1, Sampling(temperature=0, alternatives=5))
    tokens = [token for token, _ in draft.alternatives[0]]
    scores = await engine.logprobs(prompt, [(token,) for token in tokens])
    told = [logprob for _, logprob in draft.alternatives[0]]
    assert scores.logprobs == pytest.approx(told, abs=CLOSE)


async def test_an_unlikely_end_has_a_score_below_the_best(subject: Subject) -> None:
    engine, prompt = subject.engine, subject.prompt
    [best] = await engine.draft(prompt, 1, 1, GREEDY)
    ends = [(token,) for token in sorted(engine.card.ends)]
    scores = await engine.logprobs(prompt, ends)
    assert all(-math.inf < value < best.logprobs[0] for value in scores.logprobs)


async def test_a_stop_string_is_not_part_of_the_draft(subject: Subject) -> None:
    engine, prompt = subject.engine, subject.prompt
    decode = engine.card.tokenizer.decode
    [whole] = await engine.draft(prompt, 1, 5, GREEDY)
    stop = decode(whole.tokens[2:3])
    [draft] = await engine.draft(prompt, 1, 5, Sampling(temperature=0, stop=(stop,)))
    assert not draft.finished
    assert draft.tokens == whole.tokens[: len(draft.tokens)]
    assert stop not in decode(draft.tokens)
    assert len(draft.tokens) <= 2 and len(draft.logprobs) == len(draft.tokens)


async def test_a_stop_string_that_does_not_occur_changes_nothing(subject: Subject) -> None:
    engine, prompt = subject.engine, subject.prompt
    [whole] = await engine.draft(prompt, 1, 4, GREEDY)
    [draft] = await engine.draft(prompt, 1, 4, Sampling(temperature=0, stop=("☃☃",)))
    assert (draft.tokens, draft.finished) == (whole.tokens, whole.finished)


async def test_a_prefix_that_does_not_fit_is_a_context_error(subject: Subject) -> None:
    engine = subject.engine
    long = subject.prompt[:1] * engine.card.context
    with pytest.raises(ContextError, match="Shorten"):
        await engine.draft(long, 1, 1, GREEDY)
    with pytest.raises(ContextError, match="Shorten"):
        await engine.logprobs(long, [subject.prompt])


async def test_an_empty_prefix_or_count_is_refused(subject: Subject) -> None:
    with pytest.raises(EngineError, match="empty"):
        await subject.engine.draft((), 1, 1, GREEDY)
    with pytest.raises(EngineError, match="at least 1"):
        await subject.engine.draft(subject.prompt, 0, 1, GREEDY)


async def test_a_cancelled_call_leaves_the_engine_usable(subject: Subject) -> None:
    engine, prompt = subject.engine, subject.prompt
    [before] = await engine.draft(prompt, 1, 3, GREEDY)
    call = asyncio.create_task(engine.draft(prompt, 8, 400, Sampling(temperature=2)))
    await asyncio.sleep(0.2)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    [after] = await engine.draft(prompt, 1, 3, GREEDY)
    assert after.tokens == before.tokens


async def test_concurrent_calls_do_not_mix(subject: Subject) -> None:
    engine, prompt = subject.engine, subject.prompt
    decode = engine.card.tokenizer.decode
    prompts = [prompt + engine.card.tokenizer.encode(text) for text in ("One", "Two", "Three")]
    alone = [(await engine.draft(each, 1, 3, GREEDY))[0] for each in prompts]
    together = await asyncio.gather(
        *(engine.draft(each, 2, 3, GREEDY) for each in prompts),
        *(engine.draft(each, 3, 8, Sampling(temperature=2)) for each in prompts),
    )
    same = [
        decode(drafts[0].tokens) == decode(expected.tokens)
        for expected, drafts in zip(alone, together[:3], strict=True)
    ]
    # Where batching may flip a near-tie, two of three that agree still show that nothing is mixed.
    assert sum(same) >= (3 if engine.card.deterministic else 2)


async def test_fed_is_counted_once_for_a_shared_prefix(subject: Subject) -> None:
    drafts = await subject.engine.draft(subject.prompt, 3, 2, Sampling(seed=10))
    assert 0 <= drafts[0].fed <= len(subject.prompt)
    assert [draft.fed for draft in drafts[1:]] == [0, 0]


@pytest.mark.parametrize("spec", ["", "nonsense", "hf:", "ftp://host/v1"])
async def test_an_unknown_engine_lists_the_forms(spec: str) -> None:
    with pytest.raises(InputError, match="embedded:PATH.gguf"):
        await open_engine(spec)


@pytest.mark.parametrize("spec", ["embedded", "http://127.0.0.1:9/v1"])
async def test_a_misspelt_option_is_an_error(spec: str) -> None:
    with pytest.raises(InputError, match="slot_count.*slots"):
        await open_engine(spec, slot_count=3)


def texts(drafts: list[Draft]) -> list[tuple[int, ...]]:
    return [draft.tokens for draft in drafts]
