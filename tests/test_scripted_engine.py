"""The fake that ships: what `Engine` promises, exactly."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from fakes import END, PROMPT, VOCABULARY, ids, noise, random_script, says, scripted, text_of
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ringfence.engine import Engine, Sampling, ScriptedEngine
from ringfence.errors import ContextError, EngineError, InputError

A, B, C = ids("abc")


def three(prefix):
    return {A: 5.0, B: 3.0, C: 2.0}


def test_it_is_an_engine():
    assert isinstance(scripted(three), Engine)


async def test_equal_calls_give_equal_drafts_that_differ_from_each_other():
    engine = scripted(random_script(1))
    sampling = Sampling(seed=3)
    first = await engine.draft(PROMPT.tokens, 5, 12, sampling)
    assert first == await engine.draft(PROMPT.tokens, 5, 12, sampling)
    assert len({draft.tokens for draft in first}) > 1
    assert first != await engine.draft(PROMPT.tokens, 5, 12, Sampling(seed=4))


async def test_without_a_seed_calls_differ():
    engine = scripted(random_script(1, end=0))
    drafts = [(await engine.draft(PROMPT.tokens, 1, 30, Sampling()))[0].tokens for _ in range(3)]
    assert len(set(drafts)) == 3


async def test_a_shorter_prefix_gives_the_drafts_of_a_fresh_engine():
    used = scripted(random_script(1))
    long = PROMPT.tokens + ids("abcabc")
    await used.draft(long, 3, 8, Sampling(seed=1))
    again = await used.draft(PROMPT.tokens, 3, 8, Sampling(seed=2))
    fresh = scripted(random_script(1))
    assert again == await fresh.draft(PROMPT.tokens, 3, 8, Sampling(seed=2))


async def test_greedy_drafts_are_equal_and_take_the_most_likely():
    drafts = await scripted(three).draft(PROMPT.tokens, 3, 4, Sampling(temperature=0))
    assert {text_of(draft.tokens) for draft in drafts} == {"aaaa"}
    assert drafts[0].logprobs == pytest.approx([math.log(0.5)] * 4)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 99),
    st.floats(0, 3),
    st.integers(0, 5),
    st.floats(0.05, 1),
    st.integers(1, 15),
    st.integers(0, 4),
)
async def test_drafts_keep_to_what_was_asked(seed, temperature, top_k, top_p, length, alternatives):
    script = random_script(seed, end=0.1)
    engine = scripted(script)
    sampling = Sampling(
        temperature=temperature, top_k=top_k, top_p=top_p, seed=seed, alternatives=alternatives
    )
    drafts = await engine.draft(PROMPT.tokens, 3, length, sampling)
    assert [draft.fed for draft in drafts] == [len(PROMPT.tokens), 0, 0]
    for draft in drafts:
        assert len(draft.tokens) == len(draft.logprobs) <= length
        assert END not in draft.tokens
        assert draft.finished or len(draft.tokens) == length
        [score] = (
            (await engine.logprobs(PROMPT.tokens, [draft.tokens])).logprobs
            if (draft.tokens)
            else [0.0]
        )
        assert sum(draft.logprobs) == pytest.approx(score)
        steps = len(draft.tokens) + draft.finished
        assert len(draft.alternatives) == (steps if alternatives else 0)
        for place, token in enumerate((*draft.tokens, *[END] * draft.finished)):
            masses = script(PROMPT.tokens + draft.tokens[:place])
            ranked = sorted(masses, key=lambda token: (-masses[token], token))
            if top_k:
                assert token in ranked[:top_k]
            before = sum(masses[other] for other in ranked[: ranked.index(token)])
            assert before / sum(masses.values()) < top_p + 1e-9
            if alternatives:
                assert [t for t, _ in draft.alternatives[place]] == ranked[:alternatives]


async def test_frequencies_are_those_of_the_temperature():
    engine = scripted(three)
    for temperature, wanted in ((1.0, (0.5, 0.3, 0.2)), (0.5, (25 / 38, 9 / 38, 4 / 38))):
        [draft] = await engine.draft(
            PROMPT.tokens, 1, 4000, Sampling(seed=1, temperature=temperature)
        )
        counts = Counter(draft.tokens)
        for token, share in zip((A, B, C), wanted, strict=True):
            assert counts[token] / 4000 == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("temperature", [-0.1, float("nan"), float("inf")])
def test_a_temperature_that_is_none_is_refused(temperature):
    with pytest.raises(EngineError, match="temperature"):
        Sampling(temperature=temperature)


@pytest.mark.parametrize("temperature", [0.01, 0.001, 1e-6, 1e-300])
async def test_a_very_low_temperature_is_all_but_greedy(temperature):
    def flat(prefix):
        return {token: 1.0 + noise(token, len(prefix)) for token in ids("abcdefgh")}

    engine = scripted(flat)
    [cold] = await engine.draft(PROMPT.tokens, 1, 9, Sampling(seed=1, temperature=temperature))
    [greedy] = await engine.draft(PROMPT.tokens, 1, 9, Sampling(temperature=0))
    if temperature <= 0.001:
        assert cold.tokens == greedy.tokens


@settings(max_examples=40, deadline=None)
@given(
    st.text(alphabet="ab€.", min_size=1, max_size=12),
    st.lists(st.text(alphabet="ab€.", min_size=1, max_size=3), min_size=1, max_size=3),
)
@example(text="a€a", stops=["€", "a€a"])
async def test_a_draft_ends_before_the_stop_string_that_is_complete_first(text, stops):
    [draft] = await scripted(says(text)).draft(PROMPT.tokens, 1, 99, Sampling(stop=tuple(stops)))
    # (end, start): a model writes from left to right and is stopped as soon as one is complete.
    places = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    assert text_of(draft.tokens) == (text[: min(places)[1]] if places else text)
    assert draft.finished == (not places)
    assert len(draft.logprobs) == len(draft.tokens)


async def test_scores_are_products_of_probabilities():
    scores = await scripted(three).logprobs(PROMPT.tokens, [(A,), (A, C), (255,)])
    assert scores.logprobs[:2] == pytest.approx((math.log(0.5), math.log(0.1)))
    assert scores.logprobs[2] == -math.inf
    assert scores.requests == 1


async def test_what_no_engine_can_answer_is_an_error():
    engine = scripted(three, context=10)
    with pytest.raises(EngineError, match="prefix is empty"):
        await engine.draft((), 1, 1, Sampling())
    with pytest.raises(EngineError, match="at least 1"):
        await engine.draft((A,), 0, 1, Sampling())
    with pytest.raises(EngineError, match="at least 1"):
        await engine.draft((A,), 1, 0, Sampling())
    with pytest.raises(ContextError, match="context of 10 tokens"):
        await engine.draft((A,) * 8, 1, 3, Sampling())
    with pytest.raises(ContextError):
        await engine.logprobs((A,) * 8, [(A,) * 3])
    assert await engine.draft((A,) * 8, 1, 2, Sampling())


def test_a_context_error_is_an_input_error_too():
    assert issubclass(ContextError, InputError)


async def test_a_script_that_says_nothing_is_an_error():
    with pytest.raises(EngineError, match="no next token"):
        await scripted(lambda prefix: {}).draft(PROMPT.tokens, 1, 1, Sampling())


async def test_calls_are_counted_and_closing_twice_is_fine():
    engine = ScriptedEngine(script=three, tokenizer=VOCABULARY, ends=frozenset({END}))
    await engine.draft((A,), 2, 2, Sampling())
    await engine.logprobs((A,), [(A,)])
    assert engine.calls == {"draft": 1, "logprobs": 1}
    await engine.aclose()
    await engine.aclose()


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1},
        {"top_p": 0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"alternatives": -1},
        {"temperature": math.nan},
        {"top_p": math.nan},
    ],
)
def test_sampling_outside_its_ranges_is_an_error(wrong):
    with pytest.raises(EngineError):
        Sampling(**wrong)
