"""What the server refuses: fields it cannot honour, wrong values, clients without the key."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import openai
import pytest
from pydantic import ValidationError
from server_parts import NoZ, Parts, Running, asking, refused, serving, until, user

from ringfence.errors import ContextError, InputError, JudgeError
from ringfence.judges import SelfJudge, Verdict
from ringfence.options import Options
from ringfence.principle import Principle
from ringfence.rendering import Rendering
from ringfence.server import ServerSettings, create_app


@pytest.fixture(scope="module")
def guarded() -> Iterator[Running]:
    with serving(judges={"no-z": NoZ()}) as running:
        yield running


UNSUPPORTED: dict[str, Any] = {
    "functions": [{"name": "f"}],
    "tool_choice": "required",
    "response_format": {"type": "json_object"},
    "logprobs": True,
    "top_logprobs": 3,
    "logit_bias": {"5": 1},
    "frequency_penalty": 0.5,
    "presence_penalty": True,
    "store": True,
    "modalities": ["text", "audio"],
    "service_tier": "flex",
    "nonsense": 1,
}


@pytest.mark.parametrize("field", UNSUPPORTED)
def test_what_cannot_be_honoured_is_refused_by_name(guarded: Running, field: str) -> None:
    assert refused(guarded, asking(**{field: UNSUPPORTED[field]}))[0] == field


def test_fields_that_ask_for_nothing_are_fine(guarded: Running) -> None:
    guarded.client().chat.completions.create(
        **asking(
            tools=[],
            tool_choice="none",
            response_format={"type": "text"},
            logprobs=False,
            frequency_penalty=0,
            user="somebody",
            n=1,
        )
    )


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 2, "max_completion_tokens": 3}, "max_completion_tokens"),
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"seed": 2**70}, "seed"),
        ({"stop": ""}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": [3]}, "stop"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "boss", "content": "x"}]}, "messages[0].role"),
        ({"messages": [*user("x"), {"role": "user", "content": 3}]}, "messages[1].content"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": [{}]}]}, None),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, None),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, None),
        ({"messages": [{"role": "user", "content": "x", "refusal": "y"}]}, "messages[0].refusal"),
        ({"ringfence": {"decodr": "rain"}}, "ringfence.decodr"),
        ({"ringfence": {"decoder": "best"}}, "ringfence.decoder"),
        ({"ringfence": {"policy": "mine"}}, "ringfence.policy"),
        ({"ringfence": {"search": {"widht": 3}}}, "ringfence.search.widht"),
        ({"ringfence": {"search": {"top_k": -1}}}, "ringfence.search.top_k"),
        ({"ringfence": {"segment": 0}}, "ringfence.segment"),
        ({"moderation": {"model": "omni"}}, "moderation.model"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": [{"function": {"name": "no name"}}]}, "tools[0].function.name"),
        ({"tools": "weather"}, "tools"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
    ],
)
def test_a_wrong_value_is_refused_by_name(
    guarded: Running, fields: dict[str, Any], param: str | None
) -> None:
    named, message = refused(guarded, asking(**fields))
    if param is None:
        param = "messages[0]"
        assert named.startswith(param)
    else:
        assert named == param
    assert param in message


def test_every_error_has_openais_shape(guarded: Running) -> None:
    with guarded.http() as http:
        replies = [
            (404, http.get("/nowhere")),
            (405, http.get("/v1/completions")),
            (400, http.post("/v1/completions", content=b"{", headers=_JSON)),
            (400, http.post("/v1/completions", content=b"[" * 100_000, headers=_JSON)),
            (400, http.post("/v1/completions", json=[1])),
            (400, http.post("/v1/completions", content=b"{}", headers={"Content-Type": "a/b"})),
            (404, http.get("/v1/models/none/such")),
            (403, http.get("/v1/models", headers={"Host": "evil.example"})),
        ]
    for status, reply in replies:
        assert reply.status_code == status, reply.text
        assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
    assert replies[1][1].headers["allow"] == "POST"


_JSON = {"Content-Type": "application/json"}


INTERNAL = "http://10.0.0.1:9/v1 says: \x1b[2Jno key\nERROR all is well"


@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_that_fails_is_unavailable_and_the_next_request_works(
    stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    parts = Parts(broken=INTERNAL + "!" * 5000)
    with serving(parts) as running:
        with pytest.raises(openai.InternalServerError) as caught:
            running.client().chat.completions.create(**asking(stream=stream))
        assert caught.value.status_code == 503 and caught.value.code == "engine_error"
        assert "10.0.0.1" not in caught.value.message and "log" in caught.value.message
        told_in_the_log(caplog, "EngineError", "server_parts.py")
        parts.broken = ""
        assert running.client().chat.completions.create(**asking()).choices
        assert running.figure("requests_total", outcome="failed") == 1


def told_in_the_log(caplog: pytest.LogCaptureFixture, *words: str) -> None:
    """One record with what the operator needs, on lines that nobody else can write."""
    [record] = caplog.records
    told = record.getMessage()
    assert all(word in told for word in ("http://10.0.0.1:9/v1 says: ", "no key", *words))
    assert "\x1b" not in told and "\nERROR" not in told and len(told) < 5000


def test_a_failure_in_the_middle_of_a_stream_tells_no_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    parts = Parts(held_after=2)
    with serving(parts) as running, running.http() as http:
        with http.stream(
            "POST", "/v1/chat/completions", json=asking("babble", stream=True)
        ) as reply:
            lines = reply.iter_lines()
            assert any("content" in line for line in lines)
            until(lambda: parts.held, "the engine is held")
            parts.broken, parts.held = INTERNAL, False
            rest = "\n".join(lines)
    assert "engine_error" in rest and "10.0.0.1" not in rest
    told_in_the_log(caplog, "EngineError", "server_parts.py")


@pytest.mark.parametrize("stream", [False, True])
def test_a_judge_that_fails_tells_only_the_log_why(
    stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(NoZ):
        async def judge(self, prompt: Rendering, replies: Sequence[str]) -> list[Verdict]:
            raise JudgeError(INTERNAL)

    with serving(judges={"no-z": Failing()}) as running, running.http() as http:
        reply = http.post("/v1/chat/completions", json=asking(stream=stream))
    assert reply.status_code == 503 and reply.json()["error"]["code"] == "judge_error"
    assert "10.0.0.1" not in reply.text
    told_in_the_log(caplog, "JudgeError", "test_server_refusals.py")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", asking()),
        ("/v1/chat/completions", asking(stream=True)),
        ("/v1/completions", {"model": "tiny", "prompt": "x"}),
    ],
)
def test_a_context_that_turns_out_too_small_tells_only_the_log_whose(
    path: str, body: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    class Small(Parts):
        async def draft(self, *_: Any) -> Any:
            raise ContextError(INTERNAL)

    with serving(Small()) as running, running.http() as http:
        reply = http.post(path, json=body)
    assert reply.status_code == 400 and "10.0.0.1" not in reply.text
    error = reply.json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert error["param"] == ("prompt" if "prompt" in body else "messages")
    told_in_the_log(caplog, "ContextError")


def test_what_nobody_foresaw_is_a_500_that_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Faulty(Parts):
        async def draft(self, *_: Any) -> Any:
            raise ZeroDivisionError("hi, secret")

    with serving(Faulty()) as running, running.http() as http:
        reply = http.post("/v1/chat/completions", json=asking())
    assert reply.status_code == 500 and "secret" not in reply.text
    assert "ZeroDivisionError" in caplog.text and "secret" not in caplog.text


def test_a_key_is_needed_where_there_is_one() -> None:
    with serving(api_key="sesame") as running:
        with pytest.raises(openai.AuthenticationError) as caught:
            running.client("sesam").models.list()
        assert caught.value.code == "invalid_api_key"
        with running.http(Authorization="Bearer") as http:
            assert http.get("/openapi.json").status_code == 401
        with running.http(Authorization="Basic abc") as http:
            assert http.get("/metrics").status_code == 401
            assert http.get("/health").json() == {"status": "ok"}
        with running.http(Authorization="bearer sesame") as http:
            assert http.get("/v1/models", headers={"Host": "any.name"}).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "", "example.com"])
def test_a_key_is_required_off_loopback(host: str) -> None:
    with pytest.raises(InputError, match="api_key"):
        ServerSettings(host=host)
    ServerSettings.model_validate({"host": host, "api_key": "k"})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_no_key_is_required_on_loopback(host: str) -> None:
    assert ServerSettings(host=host).api_key is None


@pytest.mark.parametrize("key", ["", "two words", "sésame", "tab\t"])
def test_a_key_that_clients_cannot_send_is_refused(key: str) -> None:
    with pytest.raises(ValidationError, match="api_key"):
        ServerSettings.model_validate({"api_key": key})


def test_a_key_does_not_show_in_what_is_printed() -> None:
    assert "hush" not in repr(ServerSettings.model_validate({"api_key": "hush"}))


def test_defaults_that_cannot_be_honoured_stop_the_start() -> None:
    with pytest.raises(InputError, match="needs a principle"):
        create_app(Parts(), judges={}, settings=ServerSettings(decoder="rain"))
    with pytest.raises(InputError, match="not loaded. Loaded: a"):
        create_app(Parts(), judges={"a": NoZ()}, settings=ServerSettings(principle="b"))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"ringfence": {"decoder": "plain"}}, "ringfence.decoder"),
        ({"ringfence": {"threshold": -1.0}}, "ringfence.threshold"),
        ({"ringfence": {"exhausted": "best"}}, "ringfence.exhausted"),
        ({"ringfence": {"search": {"threshold": -1}}}, "ringfence.search"),
        ({"ringfence": {"principle": "lax"}}, "ringfence.principle"),
        ({"moderation": {"model": "lax"}}, "moderation.model"),
    ],
)
def test_a_locked_server_lets_no_request_choose_how_it_is_decoded(
    fields: dict[str, Any], param: str
) -> None:
    with serving(judges={"no-z": NoZ(), "lax": NoZ()}, locked=True) as running:
        assert refused(running, asking(**fields))[0] == param
        reply = running.client().chat.completions.create(
            **asking(extra_body={"ringfence": {"budget": {"tokens": 500}}})
        )
        assert reply.model_dump()["ringfence"]["decoder"] == "guarded"


BEST = Options.model_validate(
    {"exhausted": "best", "max_tokens": 12, "budget": {"tokens": 2000, "iterations": 200}}
)


@pytest.mark.parametrize(
    "fields",
    [
        {"ringfence": {"budget": {"iterations": 1}}},
        {"ringfence": {"budget": {"tokens": 40}}},
        {"ringfence": {"budget": {"seconds": 9.0}}},
        {"n": 2},
    ],
)
@pytest.mark.parametrize("decoder", ["guarded", "rain", "best-of-n"])
def test_on_a_locked_server_a_budget_made_smaller_delivers_nothing_rejected(
    fields: dict[str, Any], decoder: str
) -> None:
    with (
        serving(judges={"no-z": NoZ()}, locked=True, options=BEST, decoder=decoder) as running,
        running.http() as http,
    ):
        for choice in http.post("/v1/chat/completions", json=asking("bad") | fields).json()[
            "choices"
        ]:
            assert choice["finish_reason"] == "content_filter" and not choice["message"]["content"]
        # The operator's own limits end as the operator said.
        same = {"ringfence": {"budget": {"iterations": 200}}}
        for own in ({}, same):
            [choice] = http.post("/v1/chat/completions", json=asking("bad") | own).json()["choices"]
            assert choice["message"]["content"] == "z" * 12


def test_on_an_open_server_a_request_still_says_how_a_small_budget_ends() -> None:
    with serving(judges={"no-z": NoZ()}, options=BEST) as running, running.http() as http:
        body = asking("bad", ringfence={"budget": {"iterations": 1}})
        [choice] = http.post("/v1/chat/completions", json=body).json()["choices"]
    assert choice["message"]["content"] == "z" * 12


BLOCK = {"model": "no-z", "policy": {"output": {"mode": "block"}}}


def test_what_is_to_be_blocked_is_refused_also_where_the_best_is_the_default() -> None:
    with serving(judges={"no-z": NoZ()}, options=BEST) as running, running.http() as http:
        reply = http.post("/v1/chat/completions", json=asking("bad", moderation=BLOCK)).json()
        [choice] = reply["choices"]
        assert choice["finish_reason"] == "content_filter" and not choice["message"]["content"]
        scored = asking("bad", moderation=BLOCK | {"policy": {"output": {"mode": "score"}}})
        [choice] = http.post("/v1/chat/completions", json=scored).json()["choices"]
        assert choice["message"]["content"] == "z" * 12


def test_a_request_cannot_have_the_best_delivered_and_what_is_bad_blocked(guarded: Running) -> None:
    body = asking(moderation=BLOCK, ringfence={"exhausted": "best"})
    param, message = refused(guarded, body)
    assert param == "moderation.policy.output.mode" and "ringfence.exhausted" in message


def test_raw_text_is_refused_where_the_judge_asks_within_a_conversation() -> None:
    question = {
        "form": "turn",
        "shows": "conversation",
        "question": "Warm? ",
        "options": [{"label": "yes", "value": 1}, {"label": "no", "value": -1}],
    }
    turn = Principle.model_validate({"name": "warm", "summary": "It is warm.", **question})
    judges = {"warm": asyncio.run(SelfJudge.open(Parts(), turn)), "no-z": NoZ()}
    parts = Parts()
    with serving(parts, judges=judges) as running:
        body: dict[str, Any] = {"model": "tiny", "prompt": "x"}
        param, message = refused(running, body, "/v1/completions")
        assert param == "prompt" and "warm" in message
        named = body | {"ringfence": {"principle": "warm", "decoder": "rain"}}
        assert refused(running, named, "/v1/completions")[0] == "ringfence.principle"
        assert parts.inner.calls["draft"] == 0
        with running.http() as http:
            for other in ({"principle": "no-z"}, {"decoder": "plain"}):
                reply = http.post("/v1/completions", json=body | {"ringfence": other})
                assert reply.status_code == 200, reply.text
            reply = http.post("/v1/chat/completions", json=asking())
            assert reply.status_code == 200, reply.text
