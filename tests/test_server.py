"""Requests and replies of the server: what is honoured, and what is refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from server_parts import CHATML, GREETING, NoZ, Parts, Running, asking, refused, serving, user

from ringfence.options import Options

SMALL = Options.model_validate({"budget": {"tokens": 600, "iterations": 40, "seconds": 20}})


@pytest.fixture(scope="module")
def guarded() -> Iterator[Running]:
    with serving(judges={"no-z": NoZ(), "other": NoZ()}, options=SMALL) as running:
        yield running


@pytest.fixture(scope="module")
def unguarded() -> Iterator[Running]:
    with serving() as running:
        yield running


def test_a_reply_has_text_usage_and_our_account_of_it(guarded: Running) -> None:
    reply = guarded.client().chat.completions.create(**asking())
    [choice] = reply.choices
    assert choice.message.content == GREETING and choice.message.refusal is None
    assert choice.finish_reason == "stop"
    account = reply.ringfence  # type: ignore[attr-defined]
    assert account["decoder"] == "guarded" and account["principle"] == "no-z"
    assert account["verdict"] == 1.0 and account["reason"] == "stop"
    assert account["rewinds"] == 0 and account["requests"] >= 2
    assert account["tokens"]["committed"] == len(GREETING.encode())
    assert reply.usage is not None
    assert reply.usage.completion_tokens == account["tokens"]["committed"]
    assert account["seconds"] >= account["first_commit_seconds"] > 0


def test_completions_continue_raw_text(guarded: Running) -> None:
    reply = guarded.client().completions.create(model="tiny", prompt="x", max_tokens=7)
    assert len(reply.choices[0].text) == 7 and reply.choices[0].finish_reason == "length"
    assert reply.usage is not None and reply.usage.prompt_tokens == 1


def test_completions_take_one_prompt_in_a_list_and_no_more(guarded: Running) -> None:
    client = guarded.client()
    assert client.completions.create(model="tiny", prompt=["x"]).choices[0].text
    body = {"model": "tiny", "prompt": ["x", "y"]}
    assert refused(guarded, body, "/v1/completions")[0] == "prompt"


def test_equal_seeds_give_equal_replies_and_without_a_seed_the_drawn_one_is_told(
    guarded: Running,
) -> None:
    client = guarded.client()
    first = client.chat.completions.create(**asking("babble", max_tokens=20))
    seed = first.ringfence["seed"]  # type: ignore[attr-defined]
    again = client.chat.completions.create(**asking("babble", max_tokens=20, seed=seed))
    other = client.chat.completions.create(**asking("babble", max_tokens=20, seed=seed + 1))
    texts = [reply.choices[0].message.content for reply in (first, again, other)]
    assert texts[0] == texts[1] != texts[2]


def test_n_replies_have_seeds_that_count_up_and_share_the_budget(guarded: Running) -> None:
    client = guarded.client()
    two = client.chat.completions.create(**asking("babble", max_tokens=20, seed=5, n=2))
    one = client.chat.completions.create(**asking("babble", max_tokens=20, seed=6))
    assert [choice.index for choice in two.choices] == [0, 1]
    assert two.choices[1].message.content == one.choices[0].message.content
    account = two.ringfence  # type: ignore[attr-defined]
    assert [reply["seed"] for reply in account["replies"]] == [5, 6]
    assert account["tokens"]["committed"] == 40 == two.usage.completion_tokens  # type: ignore[union-attr]


def test_n_beyond_the_budget_is_refused(guarded: Running) -> None:
    body = asking(n=3, ringfence={"budget": {"tokens": 2}})
    assert refused(guarded, body)[0] == "n"


def test_stop_strings_end_the_reply_and_are_not_part_of_it(guarded: Running) -> None:
    reply = guarded.client().chat.completions.create(**asking(stop=[", ", "never"]))
    assert reply.choices[0].message.content == "Hello"
    assert reply.choices[0].finish_reason == "stop"


def test_a_reply_longer_than_the_limit_is_cut_under_either_name(guarded: Running) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        reply = guarded.client().chat.completions.create(**asking(**{name: 4}))
        assert reply.choices[0].message.content == "Hell"
        assert reply.choices[0].finish_reason == "length"


def test_a_refused_reply_is_a_content_filter_with_a_refusal(guarded: Running) -> None:
    reply = guarded.client().chat.completions.create(**asking("bad"))
    [choice] = reply.choices
    assert choice.finish_reason == "content_filter"
    assert choice.message.content is None and choice.message.refusal
    account = reply.ringfence  # type: ignore[attr-defined]
    assert account["reason"] == "refused" and account["rewinds"] > 0 and account["detail"]
    assert account["tokens"]["drafted"] <= 600 and account["iterations"] <= 40


def test_a_reply_refused_half_way_keeps_what_was_committed(guarded: Running) -> None:
    [choice] = guarded.client().chat.completions.create(**asking("half")).choices
    assert choice.message.content and set(choice.message.content) == {"a"}
    assert choice.message.refusal and choice.finish_reason == "content_filter"


def test_a_refused_reply_sent_back_is_part_of_the_next_conversation(guarded: Running) -> None:
    client = guarded.client()
    refused_reply = client.chat.completions.create(**asking("bad")).choices[0].message
    messages = [*user("bad"), refused_reply.model_dump(), *user("hi")]
    reply = client.chat.completions.create(model="tiny", messages=messages, max_tokens=2)
    assert reply.usage is not None and refused_reply.refusal is not None
    assert reply.usage.prompt_tokens > len(refused_reply.refusal)


def test_an_exhausted_budget_is_an_error_where_the_client_wants_one(guarded: Running) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        guarded.client().chat.completions.create(
            **asking("bad"), extra_body={"ringfence": {"exhausted": "error"}}
        )
    assert caught.value.code == "budget_exhausted"


@pytest.mark.parametrize("decoder", ["plain", "best-of-n", "rejection", "rain", "guarded"])
def test_a_request_may_choose_its_decoder(guarded: Running, decoder: str) -> None:
    steering = {"decoder": decoder, "n": 2, "exhausted": "best", "search": {"width": 2}}
    reply = guarded.client().chat.completions.create(
        **asking(max_tokens=6), extra_body={"ringfence": steering}
    )
    assert reply.choices[0].message.content == "Hello,"
    assert reply.ringfence["decoder"] == decoder  # type: ignore[attr-defined]


def test_a_request_may_choose_among_the_loaded_principles_only(guarded: Running) -> None:
    reply = guarded.client().chat.completions.create(
        **asking(), extra_body={"ringfence": {"principle": "other"}}
    )
    assert reply.ringfence["principle"] == "other"  # type: ignore[attr-defined]
    param, message = refused(guarded, asking(ringfence={"principle": "nice"}))
    assert param == "ringfence.principle" and "no-z, other" in message


def test_a_principle_that_nothing_would_judge_is_refused(guarded: Running) -> None:
    body = asking(ringfence={"decoder": "plain", "principle": "no-z"})
    assert refused(guarded, body)[0] == "ringfence.principle"


def test_limits_may_be_lowered_and_not_raised(guarded: Running) -> None:
    reply = guarded.client().chat.completions.create(
        **asking("babble"), extra_body={"ringfence": {"budget": {"tokens": 30}}}
    )
    assert reply.ringfence["tokens"]["drafted"] <= 30  # type: ignore[attr-defined]
    for limit, value in {"tokens": 601, "iterations": 41, "seconds": 20.5}.items():
        body = asking(ringfence={"budget": {limit: value}})
        assert refused(guarded, body)[0] == f"ringfence.budget.{limit}"


def test_every_role_is_rendered_and_parts_are_joined(guarded: Running) -> None:
    messages: list[Any] = [
        {"role": "system", "content": "s"},
        {"role": "developer", "content": "d"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c", "name": "me"},
        {"role": "tool", "content": "t", "tool_call_id": "call_1"},
    ]
    for policy in ("paper", "harmony", "model-spec"):
        reply = guarded.client().chat.completions.create(
            model="tiny", messages=messages, extra_body={"ringfence": {"policy": policy}}
        )
        assert reply.choices[0].message.content == GREETING
    assert "developer" in reply.ringfence["notes"][0]  # type: ignore[attr-defined]


def test_a_reply_that_does_not_fit_is_refused_before_it_is_begun(guarded: Running) -> None:
    error = refused(guarded, asking(max_tokens=5000))
    assert error[0] == "messages" and "max_tokens" in error[1]
    assert refused(guarded, asking("long " * 1000))[0] == "messages"
    reply = guarded.client().chat.completions.create(**asking("x" * 4064))
    assert reply.choices[0].finish_reason == "length"


def test_an_unknown_model_is_not_found(guarded: Running) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        guarded.client().chat.completions.create(model="gpt-9", messages=user("hi"))
    assert caught.value.code == "model_not_found" and caught.value.param == "model"


def test_moderation_scores_the_replies_of_a_plain_decoder(guarded: Running) -> None:
    for text, flagged in (("hi", False), ("bad", True)):
        reply = guarded.client().chat.completions.create(
            **asking(text, max_tokens=20),
            extra_body={"moderation": {"model": "other"}, "ringfence": {"decoder": "plain"}},
        )
        assert reply.choices[0].finish_reason != "content_filter"
        assert reply.moderation is not None
        output: Any = reply.moderation.output
        assert output.results[0].flagged is flagged
        assert output.results[0].category_scores == {"other": float(flagged)}
        assert reply.moderation.input.type == "error"


def test_moderation_blocks_where_it_is_asked_to(guarded: Running) -> None:
    block = {"model": "other", "policy": {"output": {"mode": "block"}}}
    reply = guarded.client().chat.completions.create(
        **asking("bad"), extra_body={"moderation": block}
    )
    assert reply.choices[0].finish_reason == "content_filter"
    body = asking(moderation={"model": "other", "policy": {"input": {"mode": "score"}}})
    assert refused(guarded, body)[0] == "moderation.policy.input"


def test_a_server_without_a_principle_decodes_plainly_and_says_so(unguarded: Running) -> None:
    assert "nothing judges" in unguarded.announced
    reply = unguarded.client().chat.completions.create(**asking("bad", max_tokens=3))
    account = reply.ringfence  # type: ignore[attr-defined]
    assert (account["decoder"], account["principle"], account["verdict"]) == ("plain", None, None)
    [model] = unguarded.client().models.list().data
    about = model.ringfence  # type: ignore[attr-defined]
    assert about["judged"] is False and about["decoders"] == ["plain"]
    assert refused(unguarded, asking(ringfence={"decoder": "rain"}))[0] == "ringfence.decoder"


def test_the_model_is_described_with_what_guards_it(guarded: Running) -> None:
    model = guarded.client().models.retrieve("tiny")
    about = model.ringfence  # type: ignore[attr-defined]
    assert about["principles"] == ["no-z", "other"] and about["principle"] == "no-z"
    assert about["budget"]["tokens"] == 600 and about["judged"] is True


def test_an_operators_seed_is_that_of_requests_without_one() -> None:
    with serving(options=Options(seed=7)) as running:
        reply = running.client().chat.completions.create(**asking())
        assert reply.ringfence["seed"] == 7  # type: ignore[attr-defined]


def test_a_model_without_a_template_still_completes_text() -> None:
    parts = Parts()
    parts.inner.template = None
    with serving(parts) as running:
        assert refused(running, asking())[0] == "messages"
        reply = running.client().completions.create(model="tiny", prompt=CHATML)
        assert len(reply.choices[0].text) == 16
