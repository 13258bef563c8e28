"""llama.cpp hides the tokens of a character until it is complete; drafts must have them all."""

import math

import pytest

from ringfence.engine import Sampling

pytestmark = pytest.mark.model

# The model goes on with the same rare emoji, which is three tokens.
EMOJI = "I love it \U0001f996 \U0001f996 \U0001f996 \U0001f996 \U0001f996 \U0001f996 \U0001f996"


@pytest.mark.parametrize("length", [1, 2, 3, 4, 6])
async def test_a_greedy_draft_has_the_tokens_of_unfinished_characters(embedded, length):
    tokenizer = embedded.card.tokenizer
    prefix = tokenizer.encode(EMOJI)
    [draft] = await embedded.draft(prefix, 1, length, Sampling(temperature=0, alternatives=3))
    assert len(draft.tokens) == length == len(draft.logprobs) == len(draft.alternatives)
    for token, logprob, top in zip(draft.tokens, draft.logprobs, draft.alternatives, strict=True):
        assert top[0][0] == token
        assert math.isclose(top[0][1], logprob, abs_tol=0.2)


async def test_the_next_token_may_be_part_of_a_character(embedded):
    tokenizer = embedded.card.tokenizer
    prefix = tokenizer.encode(EMOJI)
    [draft] = await embedded.draft(prefix, 1, 3, Sampling(temperature=0))
    scores = await embedded.logprobs(prefix, [draft.tokens, draft.tokens[:1]])
    assert math.isclose(scores.logprobs[0], sum(draft.logprobs), abs_tol=0.3)
    assert scores.logprobs[0] <= scores.logprobs[1] <= 0


async def test_sampled_drafts_say_what_the_server_said(embedded):
    tokenizer = embedded.card.tokenizer
    prefix = tokenizer.encode(EMOJI)
    drafts = await embedded.draft(prefix, 6, 9, Sampling(temperature=0.3, seed=1))
    texts = [tokenizer.decode(draft.tokens) for draft in drafts]
    assert any("\U0001f996" in text for text in texts)
    assert not any("\N{REPLACEMENT CHARACTER}" in text for text in texts)


async def test_a_sampled_draft_of_one_token_is_never_empty_unless_finished(embedded):
    prefix = embedded.card.tokenizer.encode(EMOJI)
    drafts = await embedded.draft(prefix, 4, 1, Sampling(temperature=0.3, seed=1))
    assert all(draft.tokens or draft.finished for draft in drafts)


async def test_a_stop_string_that_comes_first_leaves_an_empty_draft(embedded):
    tokenizer = embedded.card.tokenizer
    prefix = tokenizer.encode("1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12")
    [draft] = await embedded.draft(prefix, 1, 8, Sampling(temperature=0, stop=(",",)))
    assert draft.tokens == ()
    assert not draft.finished
