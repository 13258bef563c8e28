"""A real server over scripted parts, for the tests of `ringfence.server`."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import openai

from ringfence.engine import Draft, Engine, EngineCard, Sampling, Scores, ScriptedEngine, Tokens
from ringfence.errors import EngineError
from ringfence.judges import Judge, Verdict
from ringfence.rendering import Rendering
from ringfence.server import ServerSettings, create_app
from ringfence.server.serving import Server, _listener
from ringfence.vocabulary import Vocabulary

DEADLINE = 20.0
WORDS = Vocabulary.characters()
START = WORDS.control["<|im_start|>"]
END = WORDS.control["<|im_end|>"]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HEADER = "assistant\n"
GREETING = "Hello, wörld! "
CALLING = (
    "I look <at> it.\n"
    '<tool_call>\n{"name": "weather", "arguments": {"place": "Oslo"}}\n</tool_call>\n'
    '<tool_call>{"name": "weather", "arguments": {"place": "Rome"}}</tool_call>'
)


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition, with a deadline."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for: {what}"
        time.sleep(0.005)


def script(prefix: Tokens) -> Mapping[int, float]:
    """Greets; after a prompt with `babble` goes on for ever, with `bad` says only z.

    Asked for the weather it calls a tool, twice. With `half` it turns bad after 30 characters. A
    raw prompt is continued without end.
    """
    start = len(prefix) - prefix[::-1].index(START) - 1 if START in prefix else -1
    prompt, reply = WORDS.decode(prefix[:start]), prefix[start + len(WORDS.encode(HEADER)) + 1 :]
    if start < 0 or "babble" in prompt:
        return {ord(letter): 1.0 for letter in "abcd "}
    if "half" in prompt:
        return {ord("z" if len(reply) >= 30 else "a"): 1.0}
    if "bad" in prompt:
        return {ord("z"): 1.0}
    wanted = (CALLING if "What is the weather?" in prompt else GREETING).encode()
    return {wanted[len(reply)]: 1.0} if len(reply) < len(wanted) else {END: 1.0}


@dataclass
class Parts:
    """A scripted engine that can be held, at once or after some drafts, and that can fail."""

    held: bool = False
    held_after: int | None = None
    broken: str = ""
    at_work: int = 0
    cancelled: int = 0
    inner: ScriptedEngine = field(
        default_factory=lambda: ScriptedEngine(
            script=script, tokenizer=WORDS, ends=frozenset({END}), template=CHATML
        )
    )

    @property
    def card(self) -> EngineCard:
        return self.inner.card

    async def draft(
        self, prefix: Tokens, count: int, length: int, sampling: Sampling
    ) -> list[Draft]:
        self.at_work += 1
        try:
            await asyncio.sleep(0)
            self.held = self.held or self.inner.calls["draft"] == self.held_after
            while self.held:
                await asyncio.sleep(0.002)
            if self.broken:
                raise EngineError(self.broken)
            return await self.inner.draft(prefix, count, length, sampling)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.at_work -= 1

    async def logprobs(self, prefix: Tokens, continuations: Sequence[Tokens]) -> Scores:
        return await self.inner.logprobs(prefix, continuations)

    async def aclose(self) -> None:
        await self.inner.aclose()


class NoZ:
    """A judge that likes every reply without a z."""

    name = "fake:no-z"
    threshold = 0.5

    async def judge(self, prompt: Rendering, replies: Sequence[str]) -> list[Verdict]:
        return [
            Verdict(value=-1.0 if "z" in reply else 1.0, reason="z or not", fed=3, requests=1)
            for reply in replies
        ]


@dataclass
class Running:
    """A server that listens."""

    url: str
    server: Server
    engine: Any
    announced: str = ""
    _clients: dict[str, openai.OpenAI] = field(default_factory=dict)

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    def client(self, key: str = "none") -> openai.OpenAI:
        """The real client, made once for each key: that takes it a second."""
        if key not in self._clients:
            self._clients[key] = openai.OpenAI(
                base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=30
            )
        return self._clients[key]

    def http(self, **headers: str) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False)

    def figure(self, name: str, **labels: str) -> float:
        """A value of /metrics."""
        with self.http() as http:
            text = http.get("/metrics").text
        wanted = f"ringfence:{name}"
        if labels:
            wanted += "{" + ",".join(f'{k}="{v}"' for k, v in labels.items()) + "}"
        for line in text.splitlines():
            key, _, value = line.rpartition(" ")
            if key == wanted:
                return float(value)
        raise AssertionError(f"/metrics has no {wanted}")

    def idle(self) -> bool:
        """Nothing runs and nothing waits."""
        return self.figure("num_requests_running") == self.figure("num_requests_waiting") == 0


@contextmanager
def serving(
    engine: Engine | None = None,
    judges: Mapping[str, Judge] | None = None,
    loop: asyncio.AbstractEventLoop | None = None,
    **settings: Any,
) -> Iterator[Running]:
    """Run a server on a free port, in a loop that runs elsewhere or in a thread of its own."""
    engine = engine if engine is not None else Parts()
    chosen: dict[str, Any] = {"model": "tiny", "keepalive": 0.05, "stop_seconds": 0.2}
    app = create_app(engine, judges=judges or {}, settings=ServerSettings(**chosen | settings))
    said: list[str] = []
    with _listener("127.0.0.1", 0) as listener:
        server = Server(app, listener, said.append)

        def work() -> None:
            if loop is None:
                asyncio.run(server.serve([listener]))
            else:
                asyncio.run_coroutine_threadsafe(server.serve([listener]), loop).result()

        thread = threading.Thread(target=work)
        thread.start()
        try:
            until(lambda: bool(said), "the server listens")
            running = Running(url=server.url, server=server, engine=engine, announced=said[0])
            with closing(running):
                yield running
        finally:
            server.should_exit = True
            thread.join(DEADLINE)
            assert not thread.is_alive()


def user(text: str) -> list[Any]:
    """A conversation of one message."""
    return [{"role": "user", "content": text}]


def refused(running: Running, body: Any, path: str = "/v1/chat/completions") -> tuple[str, str]:
    """Post something that must be a 400; returns `param` and message."""
    with running.http() as http:
        reply = http.post(path, json=body)
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    return error["param"], error["message"]


def asking(text: str = "hi", **fields: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": user(text), **fields}
