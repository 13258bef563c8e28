"""The endpoint engine against a real HTTP server that misbehaves on request."""

from __future__ import annotations

import asyncio
import json
import math
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import character_folder

from ringfence.engine import Sampling, Tokens
from ringfence.engines import open_engine
from ringfence.engines.connection import ConnectionLostError
from ringfence.engines.endpoint import EndpointEngine
from ringfence.engines.room import Room
from ringfence.errors import ContextError, EngineError, RingfenceError

Answer = Callable[[dict[str, Any]], tuple[int, Any]]
END = 257
PROMPT: Tokens = tuple(b"Hi ")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        self._send(*self.server.gets.get(self.path, (404, {"detail": "Not Found"})))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.posts.append(body | {"key": self.headers.get("Authorization")})
        answers = self.server.answers
        status, answer = (answers.pop(0) if len(answers) > 1 else answers[0])(body)
        self._send(status, answer)

    def _send(self, status: int, answer: Any) -> None:
        if status == 0:  # hang up
            self.close_connection = True
            return
        content = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            for name, value in self.server.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            self.server.hung_up.set()

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Answers POSTs by `answers` in order, the last one for ever."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.models: list[dict[str, Any]] = [{"id": "tiny", "max_model_len": 128}]
        self.gets: dict[str, tuple[int, Any]] = {"/v1/models": (200, {"data": self.models})}
        self.answers: list[Answer] = [vllm]
        self.posts: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.headers: dict[str, str] = {}
        self.hung_up = threading.Event()

    def handle_error(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return character_folder(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
async def engine(server: Server, folder: Path) -> AsyncIterator[EndpointEngine]:
    engine = await open_engine(server.url, tokenizer=folder, key="secret", backoff=0.01, slots=3)
    assert isinstance(engine, EndpointEngine)
    yield engine
    await engine.aclose()


def drawn(body: dict[str, Any], tokens: Tokens) -> list[tuple[int, float, dict[int, float]]]:
    """The drawn tokens with log-probabilities and alternatives, forced ones as asked."""
    forced = [int(token) for token in body.get("logit_bias", {})]
    if forced:
        return [(forced[0], -12.0, {97: -0.5, 98: -1.0})]
    top = {97: -0.5, 98: -1.0, 99: -2.0}
    return [(token, top.get(token, -3.0), top) for token in tokens[: body["max_tokens"]]]


def vllm(
    body: dict[str, Any], tokens: Tokens = (97, 98, END), stop_reason: Any = None, text: str = ""
) -> tuple[int, Any]:
    steps = drawn(body, tokens)
    choice = {
        "text": text,
        "token_ids": [token for token, _, _ in steps],
        "stop_reason": stop_reason,
        "finish_reason": "stop" if len(steps) == len(tokens) else "length",
        "logprobs": {
            "tokens": [f"token_id:{token}" for token, _, _ in steps],
            "token_logprobs": [logprob for _, logprob, _ in steps],
            "top_logprobs": [
                {f"token_id:{token}": value for token, value in top.items()} for _, _, top in steps
            ],
        },
    }
    usage = {"prompt_tokens": len(body["prompt"]), "prompt_tokens_details": {"cached_tokens": 2}}
    choices = [choice | {"index": index} for index in reversed(range(body["n"]))]
    return 200, {"choices": choices, "usage": usage}


def llama(
    body: dict[str, Any], tokens: Tokens = (97, 98, END), text: str = "ab"
) -> tuple[int, Any]:
    steps = drawn(body, tokens)
    content = [
        {
            "id": token,
            "token": "",
            "logprob": logprob,
            "top_logprobs": [{"id": id_, "logprob": value} for id_, value in top.items()],
        }
        for token, logprob, top in steps
    ]
    reason = "stop" if len(steps) == len(tokens) else "length"
    choice = {"text": text, "finish_reason": reason, "logprobs": {"content": content}}
    choices = [choice | {"index": index} for index in range(body["n"])]
    return 200, {"choices": choices, "timings": {"cache_n": 2, "prompt_n": 1, "predicted_n": 2}}


def plain(
    body: dict[str, Any], names: tuple[str, ...] = ("a", "b", "<|im_end|>"), **more: Any
) -> tuple[int, Any]:
    logprobs = {
        "tokens": list(names),
        "token_logprobs": [-0.5] * len(names),
        "top_logprobs": [{"a": -0.5, "bytes:\\xe2": -1.5, "unknown word": -1.0}] * len(names),
    }
    choice = {"index": 0, "text": "ab", "finish_reason": "stop", "logprobs": logprobs} | more
    return 200, {"choices": [choice] * body["n"]}


def failing(status: int, message: str = "no") -> Answer:
    return lambda _: (status, {"error": {"message": message}})


async def test_the_card_tells_what_the_server_and_the_folder_say(engine: EndpointEngine) -> None:
    card = engine.card
    assert card.name.endswith("/v1#tiny") and card.context == 128 and card.slots == 3
    assert card.ends == {END, 258} and (card.bos, card.eos) == ("<|endoftext|>", "<|im_end|>")


@pytest.mark.parametrize("dialect", [vllm, llama, plain])
async def test_every_dialect_gives_the_same_draft(
    server: Server, engine: EndpointEngine, dialect: Answer
) -> None:
    server.answers = [dialect]
    [draft] = await engine.draft(PROMPT, 1, 5, Sampling())
    assert draft.tokens == (97, 98) and draft.finished
    assert draft.logprobs[0] == -0.5 and len(draft.logprobs) == 2


@pytest.mark.parametrize("dialect", [vllm, llama])
async def test_alternatives_are_ids_and_cover_the_end(
    server: Server, engine: EndpointEngine, dialect: Answer
) -> None:
    server.answers = [dialect]
    [draft] = await engine.draft(PROMPT, 1, 5, Sampling(alternatives=2))
    assert draft.alternatives == (((97, -0.5), (98, -1.0)),) * 3


@pytest.mark.parametrize(("dialect", "fed"), [(vllm, 1), (llama, 1), (plain, 3)])
async def test_fed_is_what_the_server_says_or_the_whole_prefix(
    server: Server, engine: EndpointEngine, dialect: Answer, fed: int
) -> None:
    server.answers = [dialect]
    drafts = await engine.draft(PROMPT, 2, 5, Sampling())
    assert [draft.fed for draft in drafts] == [fed, 0]


async def test_every_setting_that_servers_have_defaults_for_is_sent(
    server: Server, engine: EndpointEngine
) -> None:
    await engine.draft(PROMPT, 2, 5, Sampling(temperature=0.7, top_p=0.9, top_k=4, seed=1))
    await engine.draft(PROMPT, 2, 5, Sampling())
    asked, neutral = server.posts
    assert (asked["temperature"], asked["top_p"], asked["top_k"]) == (0.7, 0.9, 4)
    assert (neutral["temperature"], neutral["top_p"], neutral["top_k"]) == (1, 1, -1)
    assert neutral["min_p"] == 0 and neutral["repetition_penalty"] == 1
    assert neutral["prompt"] == list(PROMPT) and neutral["n"] == 2 and neutral["model"] == "tiny"
    assert neutral["stop_token_ids"] == [END, 258] and "stop" not in neutral


async def test_equal_seeds_send_equal_seeds_and_large_counts_are_split(
    server: Server, engine: EndpointEngine
) -> None:
    drafts = await engine.draft(PROMPT, 8, 5, Sampling(seed=7))
    assert len(drafts) == 8
    assert sorted(post["n"] for post in server.posts) == [2, 3, 3]
    first = {post["seed"] for post in server.posts}
    await engine.draft(PROMPT, 8, 5, Sampling(seed=7))
    assert len(first) == 3 and {post["seed"] for post in server.posts} == first


async def test_greedy_drafts_are_asked_for_once(server: Server, engine: EndpointEngine) -> None:
    drafts = await engine.draft(PROMPT, 9, 5, Sampling(temperature=0))
    assert len(drafts) == 9 and [post["n"] for post in server.posts] == [1]


async def test_an_overloaded_server_is_asked_again(server: Server, engine: EndpointEngine) -> None:
    server.answers = [failing(429), failing(503), lambda _: (0, None), vllm]
    [draft] = await engine.draft(PROMPT, 1, 5, Sampling())
    assert draft.finished and len(server.posts) == 4


async def test_retry_after_is_honoured(server: Server, engine: EndpointEngine) -> None:
    server.headers["Retry-After"] = "0.4"
    server.answers = [failing(429), vllm]
    begun = time.monotonic()
    await engine.draft(PROMPT, 1, 5, Sampling())
    assert time.monotonic() - begun >= 0.4


@pytest.mark.parametrize(
    ("answer", "complaint", "requests"),
    [
        (failing(500), "answered 500", 4),
        (failing(429, "quota"), "overloaded or the quota.*quota", 4),
        (lambda _: (0, None), "hung up", 4),
        (failing(401), "refuses the key.*RINGFENCE_API_KEY", 1),
        (failing(404, "no model tiny"), "no model tiny.*usually ends in /v1", 1),
        (failing(400, "unknown field samplers"), "unknown field samplers", 1),
        (lambda _: (200, "<html>"), "not answer with a JSON object.*base URL", 1),
        (lambda _: (200, []), "not answer with a JSON object", 1),
        (lambda _: (200, {"choices": "?"}), "form that no known", 1),
        (lambda _: (200, {"choices": []}), "asked for 1 drafts and gave 0", 1),
        (lambda body: plain(body, logprobs=None), "returned no logprobs.*Start the server", 1),
        (lambda body: plain(body, finish_reason="abort"), "finish_reason is 'abort'", 1),
        (lambda body: plain(body, names=("a", "\ufffd")), "only by its text", 1),
    ],
)
async def test_a_failure_says_what_and_the_way_out(
    server: Server, engine: EndpointEngine, answer: Answer, complaint: str, requests: int
) -> None:
    server.answers = [answer]
    with pytest.raises(EngineError, match=complaint):
        await engine.draft(PROMPT, 1, 5, Sampling())
    assert len(server.posts) == requests


async def test_a_server_that_finds_the_prompt_too_long_is_a_context_error(
    server: Server, engine: EndpointEngine
) -> None:
    server.answers = [failing(400, "maximum context length is 100 tokens")]
    with pytest.raises(ContextError, match="maximum context length"):
        await engine.draft(PROMPT, 1, 5, Sampling())


@pytest.mark.parametrize("said", ["context deadline exceeded", "CUDA context is destroyed"])
async def test_another_context_is_no_prompt_that_is_too_long(
    server: Server, engine: EndpointEngine, said: str
) -> None:
    server.answers = [failing(500, said)] * 4
    with pytest.raises(EngineError, match=said) as caught:
        await engine.draft(PROMPT, 1, 5, Sampling())
    assert not isinstance(caught.value, ContextError)


async def test_a_connection_closed_by_others_is_a_lost_one(
    server: Server, engine: EndpointEngine
) -> None:
    await engine.aclose()
    with pytest.raises(ConnectionLostError, match="was closed during a call"):
        await engine.draft(PROMPT, 1, 5, Sampling())


async def test_a_slow_server_is_given_up_once(server: Server, folder: Path) -> None:
    server.answers = [lambda body: time.sleep(1.0) or vllm(body)]
    engine = await open_engine(server.url, tokenizer=folder, timeout=0.2, backoff=0.01)
    with pytest.raises(EngineError, match="nothing for 0.2 s.*timeout="):
        await engine.draft(PROMPT, 1, 5, Sampling())
    assert len(server.posts) == 1
    await engine.aclose()


async def test_a_cancelled_call_hangs_up(server: Server, engine: EndpointEngine) -> None:
    large = {"padding": "x" * 10_000_000}
    server.answers = [lambda body: time.sleep(0.3) or (200, large), vllm]
    call = asyncio.create_task(engine.draft(PROMPT, 1, 5, Sampling()))
    await asyncio.sleep(0.1)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert await asyncio.to_thread(server.hung_up.wait, 5)
    assert await engine.draft(PROMPT, 1, 5, Sampling())


async def test_one_failing_request_of_a_split_call_fails_the_call(
    server: Server, engine: EndpointEngine
) -> None:
    server.answers = [failing(400, "first"), vllm]
    with pytest.raises(EngineError, match="first"):
        await engine.draft(PROMPT, 9, 5, Sampling())


@pytest.mark.parametrize(
    ("answer", "tokens", "finished"),
    [
        # vLLM lists the tokens of the stop string, the text ends before it.
        (lambda body: vllm(body, tuple(b"ab.c"), ".", "ab"), b"ab", False),
        (lambda body: vllm(body, (*b"ab", END), None, "ab"), b"ab", True),
        (lambda body: vllm(body, (*b"ab", 258), 258, "ab"), b"ab", True),
        # llama.cpp drops as many tokens as the stop string has by itself: here one too few.
        (lambda body: llama(body, tuple(b"ab\n"), "ab"), b"ab", False),
        (lambda body: llama(body, (*b"ab", END), "ab"), b"ab", True),
        # It leaves control tokens out of the text.
        (lambda body: llama(body, (256, *b"ab\n"), "ab"), bytes, False),
        (lambda body: plain(body, ("a", "b"), matched_stop="."), b"ab", False),
        (lambda body: plain(body, ("a", "b"), matched_stop=END), b"ab", True),
    ],
)
async def test_a_stop_string_is_told_from_an_end(
    server: Server, engine: EndpointEngine, answer: Answer, tokens: Any, finished: bool
) -> None:
    server.answers = [answer]
    [draft] = await engine.draft(PROMPT, 1, 9, Sampling(stop=(".", "\n\n")))
    expected = (256, *b"ab") if tokens is bytes else tuple(tokens)
    assert (draft.tokens, draft.finished) == (expected, finished)
    assert len(draft.logprobs) == len(draft.tokens)


async def test_a_server_that_does_not_tell_them_apart_is_refused(
    server: Server, engine: EndpointEngine
) -> None:
    server.answers = [lambda body: plain(body, ("a", "b"))]
    with pytest.raises(EngineError, match="does not tell a stop string from an end"):
        await engine.draft(PROMPT, 1, 9, Sampling(stop=(".",)))
    [draft] = await engine.draft(PROMPT, 1, 9, Sampling())
    assert draft.finished and draft.tokens == (97, 98)


async def test_an_end_that_only_the_server_knows_is_no_part_of_the_draft(
    server: Server, engine: EndpointEngine
) -> None:
    server.answers = [lambda body: llama(body, (97, 98, 256), "ab")]
    [draft] = await engine.draft(PROMPT, 1, 9, Sampling())
    assert draft.finished and draft.tokens == (97, 98)


async def test_a_draft_ends_at_an_end_that_the_server_goes_on_from(
    server: Server, engine: EndpointEngine
) -> None:
    server.answers = [lambda body: llama(body, (97, 258, 98, 99, 100), "abc")]
    [draft] = await engine.draft(PROMPT, 1, 4, Sampling(alternatives=1))
    assert draft.finished and draft.tokens == (97,) and len(draft.alternatives) == 2


async def test_alternatives_without_ids_are_refused_where_texts_are_shared(
    server: Server, engine: EndpointEngine
) -> None:
    server.answers = [plain]
    with pytest.raises(EngineError, match="vLLM and llama.cpp give token ids"):
        await engine.draft(PROMPT, 1, 5, Sampling(alternatives=2))


async def test_likely_tokens_are_scored_in_one_request_and_others_exactly(
    server: Server, engine: EndpointEngine
) -> None:
    scores = await engine.logprobs(PROMPT, [(97,), (98,), (120,), (97, 98)])
    assert scores.logprobs == (-0.5, -1.0, -12.0, -1.5)
    assert scores.requests == 3 and scores.fed == 1 + 1 + 2
    forced = [post["logit_bias"] for post in server.posts if "logit_bias" in post]
    assert forced == [{"120": 100}]
    assert all(post["max_tokens"] == 1 and post["temperature"] == 0 for post in server.posts)


async def test_a_bias_that_is_counted_into_the_logprobs_is_found_out(
    server: Server, engine: EndpointEngine
) -> None:
    def biased(body: dict[str, Any]) -> tuple[int, Any]:
        status, answer = llama(body, (97,))
        if "logit_bias" in body:
            answer["choices"][0]["logprobs"]["content"][0]["logprob"] = -0.001
        return status, answer

    server.answers = [biased]
    with pytest.raises(EngineError, match="counts the bias"):
        await engine.logprobs(PROMPT, [(120,)])


async def test_a_bias_that_is_ignored_is_found_out(server: Server, engine: EndpointEngine) -> None:
    server.answers = [lambda body: llama({k: v for k, v in body.items() if k != "logit_bias"})]
    with pytest.raises(EngineError, match="ignores logit_bias"):
        await engine.logprobs(PROMPT, [(120,)])
    # Also where every token is as unlikely as the one that was asked for.
    flat = {"id": 97, "logprob": -3.0, "top_logprobs": []}
    choice = {"text": "a", "finish_reason": "length", "logprobs": {"content": [flat]}}
    server.answers = [lambda _: (200, {"choices": [choice]})]
    with pytest.raises(EngineError, match="ignores logit_bias"):
        await engine.logprobs(PROMPT, [(120,)])


async def test_an_impossible_token_scores_minus_infinity(
    server: Server, engine: EndpointEngine
) -> None:
    def impossible(body: dict[str, Any]) -> tuple[int, Any]:
        status, answer = vllm(body, (97,))
        if "logit_bias" in body:
            answer["choices"][0]["logprobs"]["token_logprobs"] = [-9999.0]
        return status, answer

    server.answers = [impossible]
    scores = await engine.logprobs(PROMPT, [(120,), (97,)])
    assert scores.logprobs == (-math.inf, -0.5)


async def test_texts_of_tokens_and_forced_letters_work_beside_byte_tokens(
    server: Server, tmp_path: Path
) -> None:
    # As in Llama 2: `a` and `<0x61>` say the same.
    vocab = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "a", "b", "▁"]
    model = {"type": "BPE", "byte_fallback": True, "merges": []}
    model |= {"vocab": {text: id_ for id_, text in enumerate(vocab)}}
    added = [{"id": id_, "content": text} for id_, text in enumerate(vocab[:2])]
    source = {"version": "1.0", "model": model, "added_tokens": added}
    for token in added:
        token |= dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        token["special"] = True
    (tmp_path / "tokenizer.json").write_text(json.dumps(source))
    server.answers = [lambda body: plain(body, ("a", "b"))]
    engine = await open_engine(server.url, tokenizer=tmp_path)
    assert isinstance(engine, EndpointEngine)
    [draft] = await engine.draft(PROMPT, 1, 5, Sampling())
    assert draft.tokens == (258, 259)
    server.answers = [lambda body: plain(body, ("a",))]
    await engine._likelihoods.beside_hidden(PROMPT, 1)
    assert list(server.posts[-1]["logit_bias"]) == ["258"]
    await engine.aclose()


@pytest.mark.parametrize("continuations", [[], [()], [(97,), ()]])
async def test_empty_continuations_are_refused(
    engine: EndpointEngine, continuations: list[Tokens]
) -> None:
    with pytest.raises(EngineError, match="at least one token"):
        await engine.logprobs(PROMPT, continuations)


async def test_ids_below_zero_are_refused_before_they_are_sent(
    server: Server, engine: EndpointEngine
) -> None:
    with pytest.raises(EngineError, match="another model's tokenizer"):
        await engine.draft((-1,), 1, 1, Sampling())
    assert not server.posts


async def test_the_key_comes_from_the_environment(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "second")
    monkeypatch.setenv("RINGFENCE_API_KEY", "first")
    for key, expected in [(None, "Bearer first"), ("given", "Bearer given")]:
        engine = await open_engine(server.url, tokenizer=folder, key=key)
        await engine.draft(PROMPT, 1, 1, Sampling())
        await engine.aclose()
        assert server.posts[-1]["key"] == expected


@pytest.mark.parametrize("key", ["hunter2\nX: y", "hunter2\x7f", "hunter2é", "hunter2\0"])
async def test_a_key_that_no_header_can_hold_is_refused_and_not_quoted(
    server: Server, folder: Path, key: str
) -> None:
    with pytest.raises(EngineError, match="the API key holds") as raised:
        await open_engine(server.url, tokenizer=folder, key=key)
    assert "hunter2" not in str(raised.value) and "é" not in str(raised.value)
    assert not server.paths


async def test_one_of_several_models_has_to_be_named(server: Server, folder: Path) -> None:
    server.models.append({"id": "org/large", "max_model_len": 64})
    with pytest.raises(EngineError, match="not exactly one.*org/large, tiny.*#MODEL"):
        await open_engine(server.url, tokenizer=folder)
    with pytest.raises(EngineError, match="no 'huge'"):
        await open_engine(f"{server.url}#huge", tokenizer=folder)
    engine = await open_engine(f"{server.url}#org/large", tokenizer=folder)
    assert engine.card.context == 64
    await engine.aclose()


async def test_an_adapter_has_the_context_of_its_base(server: Server, folder: Path) -> None:
    """vLLM tells it of the base only."""
    server.models.append({"id": "judge", "parent": "tiny", "max_model_len": None})
    engine = await open_engine(f"{server.url}#judge", tokenizer=folder)
    assert engine.card.context == 128
    await engine.aclose()


async def test_a_url_without_a_path_means_v1(server: Server, folder: Path) -> None:
    engine = await open_engine(server.url.removesuffix("/v1") + "#tiny", tokenizer=folder)
    assert server.paths == ["/v1/models"]
    await engine.aclose()


async def test_the_context_of_llama_cpp_is_that_of_a_slot(server: Server, folder: Path) -> None:
    server.models[:] = [{"id": "tiny", "owned_by": "llamacpp", "meta": {"n_ctx_train": 4096}}]
    server.models[0]["meta"]["n_ctx"] = 4096
    server.gets["/props"] = (200, {"default_generation_settings": {"n_ctx": 512}})
    engine = await open_engine(server.url, tokenizer=folder)
    assert engine.card.context == 512
    await engine.aclose()
    engine = await open_engine(server.url, tokenizer=folder, context=100)
    assert engine.card.context == 100
    await engine.aclose()


async def test_an_unknown_tokenizer_or_context_names_the_option(
    server: Server, folder: Path
) -> None:
    with pytest.raises(EngineError, match="tokenizer=PATH"):
        await open_engine(server.url)
    del server.models[0]["max_model_len"]
    with pytest.raises(EngineError, match="context=TOKENS"):
        await open_engine(server.url, tokenizer=folder)
    engine = await open_engine(server.url, tokenizer=folder, context=50)
    assert engine.card.context == 50
    await engine.aclose()


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("http://127.0.0.1:9/v1", "cannot be reached.*Is the server running"),
        ("http://127.0.0.1:99999/v1", "no usable URL|cannot be reached"),
        ("http://", "no usable URL|cannot be reached|missing"),
        ("http://[::1/v1", "no usable URL"),
        ("http://[::1", "no usable URL"),
    ],
)
async def test_a_server_that_is_not_there_is_an_error(url: str, complaint: str) -> None:
    with pytest.raises(EngineError, match=complaint):
        await open_engine(url, tokenizer=".", backoff=0.01)


async def test_passwords_in_the_url_stay_out_of_messages(server: Server, folder: Path) -> None:
    url = server.url.replace("//", "//user:hunter2@")
    for complaint in ("it has: none", "Not Found"):
        server.models.clear()
        with pytest.raises(RingfenceError, match=complaint) as raised:
            await open_engine(url, tokenizer=folder)
        assert "hunter2" not in str(raised.value)
        server.gets.clear()


async def test_room_lets_in_what_fits_in_the_order_of_asking() -> None:
    room, log = Room(10), []

    async def hold(name: str, cells: int, seconds: float) -> None:
        async with room.taken(cells):
            log.append(name)
            await asyncio.sleep(seconds)

    begun = [("a", 6, 0.05), ("b", 9, 0.01), ("c", 2, 0.0), ("whole", 99, 0.0)]
    await asyncio.gather(*(hold(*each) for each in begun))
    assert log == ["a", "b", "c", "whole"]


async def test_room_survives_cancelled_holders_and_waiters() -> None:
    room = Room(10)
    rng = random.Random(1)

    async def hold() -> None:
        async with room.taken(rng.randint(1, 10)):
            await asyncio.sleep(0.001)

    tasks = [asyncio.create_task(hold()) for _ in range(200)]
    await asyncio.sleep(0.02)
    for task in rng.sample(tasks, 100):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(1), room.taken(10):
        pass
