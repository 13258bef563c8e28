"""Streams of the server: what arrives in which order, and what happens when somebody leaves."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from server_parts import DEADLINE, GREETING, NoZ, Parts, Running, serving, until, user

from ringfence.errors import InputError
from ringfence.options import Options
from ringfence.server import serve
from ringfence.server.serving import _listener

CHAT = "/v1/chat/completions"
SMALL = Options.model_validate({"budget": {"tokens": 600, "iterations": 40, "seconds": 20}})


@pytest.fixture(scope="module")
def guarded() -> Iterator[Running]:
    with serving(judges={"no-z": NoZ()}, options=SMALL) as running:
        yield running


def asking(text: str = "hi", **fields: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": user(text), "stream": True, **fields}


def events(text: str) -> list[Any]:
    """The data of a stream's events; comments are left out."""
    return [line[6:] for line in text.splitlines() if line.startswith("data: ")]


def chunks(text: str) -> list[Any]:
    return [json.loads(data) for data in events(text) if data != "[DONE]"]


def test_a_stream_begins_with_the_role_and_ends_with_the_account_and_done(guarded: Running) -> None:
    with guarded.http() as http:
        reply = http.post(CHAT, json=asking())
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert events(reply.text)[-1] == "[DONE]"
    first, *middle, last = chunks(reply.text)
    assert first["choices"][0]["delta"]["role"] == "assistant"
    said = [chunk["choices"][0]["delta"]["content"] for chunk in middle]
    assert "".join(said) == GREETING
    assert last["choices"][0]["finish_reason"] == "stop" and last["choices"][0]["delta"] == {}
    assert last["ringfence"]["tokens"]["committed"] == len(GREETING.encode())
    assert "usage" not in first and len({chunk["id"] for chunk in chunks(reply.text)}) == 1


def test_a_stream_says_what_the_whole_reply_says(guarded: Running) -> None:
    for path, extra in ((CHAT, {}), ("/v1/completions", {"prompt": "x"})):
        body = asking("babble", seed=3, max_tokens=90, n=2) | extra
        if extra:
            del body["messages"]
        with guarded.http() as http:
            streamed = chunks(http.post(path, json=body).text)
            whole = http.post(path, json=body | {"stream": False}).json()
        for index, choice in enumerate(whole["choices"]):
            mine = [c for k in streamed for c in k["choices"] if c["index"] == index]
            texts = [c["text"] if extra else c["delta"].get("content") or "" for c in mine]
            assert "".join(texts) == (choice["text"] if extra else choice["message"]["content"])
            assert mine[-1]["finish_reason"] == choice["finish_reason"] == "length"


def test_usage_comes_in_a_chunk_of_its_own_without_choices(guarded: Running) -> None:
    stream = guarded.client().chat.completions.create(
        **asking(stream_options={"include_usage": True})
    )
    *others, last = list(stream)
    assert all(chunk.usage is None and chunk.choices for chunk in others)
    assert last.choices == [] and last.usage is not None
    assert last.usage.completion_tokens == len(GREETING.encode())
    assert last.ringfence["reason"] == "stop"


def test_only_committed_text_is_streamed(guarded: Running) -> None:
    with guarded.http() as http:
        text = http.post(CHAT, json=asking("half")).text
    said = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks(text))
    assert said and set(said) == {"a"}
    *_, refusal, end = chunks(text)
    assert refusal["choices"][0]["delta"]["refusal"]
    assert end["choices"][0]["finish_reason"] == "content_filter"
    assert end["ringfence"]["rewinds"] > 0


def test_an_exhausted_budget_is_an_error_event_once_the_stream_has_begun(guarded: Running) -> None:
    steering = {"ringfence": {"exhausted": "error"}}
    with pytest.raises(openai.APIError, match="no acceptable reply") as caught:
        list(guarded.client().chat.completions.create(**asking("half"), extra_body=steering))
    assert caught.value.code == "budget_exhausted"


def test_moderation_comes_in_a_chunk_of_its_own(guarded: Running) -> None:
    with guarded.http() as http:
        text = http.post(CHAT, json=asking(moderation={"model": "no-z"})).text
    [told] = [chunk["moderation"] for chunk in chunks(text) if "moderation" in chunk]
    assert told["output"]["results"][0]["flagged"] is False


def test_what_fails_at_once_is_an_error_and_not_a_stream() -> None:
    with serving(Parts(broken="gone")) as running, running.http() as http:
        assert http.post(CHAT, json=asking()).status_code == 503
        assert http.post(CHAT, json=asking(max_tokens=9999)).status_code == 400


def test_what_fails_later_is_an_error_event() -> None:
    parts = Parts(held=True)
    with serving(parts) as running, running.http() as http:
        with http.stream("POST", CHAT, json=asking()) as reply:
            lines = reply.iter_lines()
            assert any(line == ": searching" for line in lines)
            parts.broken, parts.held = "the child died", False
            rest = "\n".join(lines)
    assert json.loads(events(rest)[0])["error"]["code"] == "engine_error"
    assert events(rest)[1] == "[DONE]"


def test_comments_keep_the_connection_alive_while_nothing_is_committed() -> None:
    parts = Parts(held=True)
    with serving(parts) as running, running.http() as http:
        with http.stream("POST", CHAT, json=asking()) as reply:
            lines = reply.iter_lines()
            for _ in range(3):
                assert any(line == ": searching" for line in lines)
            parts.held = False
            rest = "\n".join(lines)
    assert chunks(rest)[-1]["choices"][0]["finish_reason"] == "stop"


def test_a_client_that_leaves_a_stream_cancels_its_work_and_frees_its_slot() -> None:
    parts = Parts(held=True)
    with serving(parts, concurrency=1, queue=0, keepalive=60) as running, running.http() as http:
        for count in range(1, 4):
            sent = _post(running, asking())
            until(lambda: parts.at_work == 1, "the engine works")
            sent.close()
            until(lambda count=count: parts.cancelled == count, "the work is cancelled")  # type: ignore[misc]
            until(running.idle, "the slot is free")
        parts.held = False
        assert http.post(CHAT, json=asking()).status_code == 200
        assert running.figure("requests_total", outcome="gone") == 3


def test_a_client_that_leaves_in_mid_stream_frees_its_slot() -> None:
    parts = Parts(held_after=2)
    with serving(parts) as running, running.http() as http:
        with http.stream("POST", CHAT, json=asking("babble")) as reply:
            pieces = (line for line in reply.iter_lines() if '"delta":{"content"' in line)
            assert next(pieces) and next(pieces)
            until(lambda: parts.at_work == 1, "the engine is at work")
        until(lambda: parts.cancelled == 1, "the work is cancelled")
        until(running.idle, "the slot is free")
        assert running.figure("replies_total", reason="left") == 1


def test_a_client_that_leaves_without_streaming_frees_its_slot() -> None:
    parts = Parts(held=True)
    with serving(parts) as running:
        sent = _post(running, asking(stream=False, n=3))
        until(lambda: parts.at_work == 3, "the engine works")
        sent.close()
        until(lambda: parts.cancelled == 3, "the work is cancelled")
        until(running.idle, "the slot is free")


def test_a_client_that_leaves_the_queue_frees_its_place() -> None:
    parts = Parts(held=True)
    with serving(parts, concurrency=1, queue=1) as running:
        first = _post(running, asking())
        until(lambda: running.figure("num_requests_running") == 1, "one runs")
        second = _post(running, asking(stream=False))
        until(lambda: running.figure("num_requests_waiting") == 1, "one waits")
        second.close()
        until(lambda: running.figure("num_requests_waiting") == 0, "nobody waits")
        assert running.figure("num_requests_running") == 1
        first.close()
        until(running.idle, "nobody runs")


def _post(running: Running, body: dict[str, Any]) -> socket.socket:
    """A request whose answer nobody reads."""
    host, port = running.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    content = json.dumps(body).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    return connection


def test_more_than_run_and_wait_are_told_when_to_come_again() -> None:
    parts = Parts(held=True)
    with serving(parts, concurrency=1, queue=1) as running, ThreadPoolExecutor(2) as threads:
        body = asking(stream=False)
        inside = [threads.submit(_whole, running, body) for _ in range(2)]
        until(lambda: running.figure("num_requests_waiting") == 1, "one runs, one waits")
        refused = _whole(running, body)
        assert refused.status_code == 429 and int(refused.headers["Retry-After"]) >= 1
        assert refused.json()["error"]["type"] == "rate_limit_error"
        with pytest.raises(openai.RateLimitError):
            list(running.client().chat.completions.create(**asking()))
        parts.held = False
        assert [future.result(DEADLINE).status_code for future in inside] == [200, 200]
        assert running.figure("requests_total", outcome="rejected") == 2
        assert running.idle()


def _whole(running: Running, body: dict[str, Any]) -> httpx.Response:
    with running.http() as http:
        return http.post(CHAT, json=body)


def test_requests_that_run_when_the_server_stops_may_finish() -> None:
    parts = Parts(held=True)
    with serving(parts, concurrency=1, stop_seconds=DEADLINE) as running:
        with ThreadPoolExecutor(2) as threads:
            inside = [threads.submit(_whole, running, asking()) for _ in range(2)]
            until(lambda: running.figure("num_requests_waiting") == 1, "one runs, one waits")
            running.server.should_exit = True
            until(lambda: _closed(running), "the door is closed")
            parts.held = False
            for future in inside:
                end = chunks(future.result(DEADLINE).text)[-1]
                assert end["choices"][0]["finish_reason"] == "stop"


def test_at_the_deadline_of_a_stop_requests_are_refused_and_not_cut() -> None:
    parts = Parts(held=True)
    with serving(parts, concurrency=2, stop_seconds=0.1) as running:
        with ThreadPoolExecutor(3) as threads:
            streamed = threads.submit(_whole, running, asking())
            whole = threads.submit(_whole, running, asking(stream=False))
            until(lambda: running.figure("num_requests_running") == 2, "two run")
            waiting = threads.submit(_whole, running, asking(stream=False))
            until(lambda: running.figure("num_requests_waiting") == 1, "one waits")
            running.server.should_exit = True
            *_, refusal, end = chunks(streamed.result(DEADLINE).text)
            assert "stopping" in refusal["choices"][0]["delta"]["refusal"]
            assert end["choices"][0]["finish_reason"] == "content_filter"
            assert events(streamed.result().text)[-1] == "[DONE]"
            choice = whole.result(DEADLINE).json()["choices"][0]
            assert choice["finish_reason"] == "content_filter"
            assert "stopping" in choice["message"]["refusal"]
            assert waiting.result(DEADLINE).status_code == 503
            assert "Retry-After" in waiting.result().headers


def _closed(running: Running) -> bool:
    try:
        with running.http() as http:
            http.get("/health")
    except httpx.TransportError:
        return True
    return False


SERVED = """
import asyncio, sys
from server_parts import Parts
from ringfence.server import ServerSettings, create_app, serve

async def main():
    settings = ServerSettings(model="tiny", port=0, keepalive=0.05, stop_seconds=0.1)
    app = create_app(Parts(held=True), judges={}, settings=settings)
    await serve(app, started=lambda line: print(line, flush=True))
    print("closed", flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_server_gracefully(number: signal.Signals) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen(
        [sys.executable, "-c", SERVED], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split(" on ")[1].split("/v1")[0]
            with httpx.Client(base_url=url, trust_env=False, timeout=DEADLINE) as http:
                with http.stream("POST", CHAT, json=asking()) as reply:
                    lines = reply.iter_lines()
                    assert any(line == ": searching" for line in lines)
                    process.send_signal(number)
                    rest = "\n".join(lines)
            assert chunks(rest)[-1]["choices"][0]["finish_reason"] == "content_filter"
            assert process.stdout.readline() == "closed\n"
            assert process.wait(DEADLINE) == 0
        finally:
            process.kill()


async def test_a_port_that_is_taken_is_an_error_that_says_so() -> None:
    from server_parts import ServerSettings, create_app

    app = create_app(Parts(), judges={}, settings=ServerSettings())
    with _listener("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(InputError, match="Choose another port"):
            await serve(app, "127.0.0.1", taken.getsockname()[1])
    with pytest.raises(InputError, match="api_key"):
        await serve(app, "0.0.0.0", 0)


def test_slots_and_places_are_counted_right_when_many_come_and_go() -> None:
    parts = Parts()
    with serving(parts, concurrency=3, queue=50) as running, ThreadPoolExecutor(12) as threads:

        def visit(number: int) -> int:
            if number % 3:
                return _whole(running, asking("babble", max_tokens=64)).status_code
            _post(running, asking("babble", max_tokens=300)).close()
            return 200

        assert set(threads.map(visit, range(60))) == {200}
        until(running.idle, "everything is free")
        assert parts.at_work == 0
