"""What the server refuses: fields it cannot honour, wrong values, clients without the key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from pydantic import ValidationError
from server_parts import NoZ, Parts, Running, asking, refused, serving, user

from ringfence.errors import InputError
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


def test_an_engine_that_fails_is_unavailable_and_the_next_request_works() -> None:
    parts = Parts(broken="the child process died; the next request starts it again")
    with serving(parts) as running:
        with pytest.raises(openai.InternalServerError) as caught:
            running.client().chat.completions.create(**asking())
        assert caught.value.status_code == 503 and "child process died" in caught.value.message
        parts.broken = ""
        assert running.client().chat.completions.create(**asking()).choices
        assert running.figure("requests_total", outcome="failed") == 1


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
