"""Answers of completions servers, each in its dialect, read into one form. Knows no HTTP.

All of them extend OpenAI's `/v1/completions`, each in its own way. Which way is seen from the
answer and never configured:

* llama.cpp lists `logprobs.content` with ids, the end-of-sequence token included; of a character
  that was drawn in several tokens it lists the last one only, with the bytes of all, and nothing
  of one that is not complete;
* vLLM adds `token_ids` and `stop_reason`, and writes alternatives as `token_id:123` when asked;
* SGLang adds `matched_stop`; it and everyone else name tokens by their text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ringfence.errors import EngineError
from ringfence.vocabulary import Vocabulary

Ending = Literal["length", "stop", "end", "unclear"]

_IMPOSSIBLE = -9999.0  # vLLM's stand-in for -inf; llama.cpp's is lower still
_ESCAPED = re.compile(rb"\\x([0-9a-fA-F]{2})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One drawn token.

    Attributes:
        token: its id.
        logprob: natural log of the probability the server reports; None where it hides the token.
        top: the most likely tokens and their log-probabilities, best first.
        nameless: how many more the server named by a text that several tokens share.
    """

    token: int
    logprob: float | None
    top: tuple[tuple[int, float], ...]
    nameless: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One draft as the server tells it.

    Attributes:
        steps: with the end-of-sequence token if the server lists it.
        text: up to a stop string.
        ending: `stop` is a stop string, `end` an end-of-sequence token; `unclear` is either.
    """

    steps: tuple[Step, ...]
    text: str
    ending: Ending


def read_choices(answer: Mapping[str, Any], vocabulary: Vocabulary, where: str) -> list[Choice]:
    """Read all drafts of an answer, in order.

    Raises:
        EngineError: log-probabilities are missing, or tokens cannot be told from their names.
    """
    try:
        choices = sorted(answer["choices"], key=lambda choice: int(choice.get("index", 0)))
        told = (answer.get("__verbose") or {}).get("tokens") if len(choices) == 1 else None
        return [_read_choice(choice, told or None, vocabulary, where) for choice in choices]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EngineError(
            f"{where} answered in a form that no known completions server has ({error!r})"
        ) from error


def read_fed(answer: Mapping[str, Any], prefix: int) -> int:
    """Prompt tokens processed after cache hits; the whole prefix if the server does not say."""
    timings, usage = answer.get("timings") or {}, answer.get("usage") or {}
    if isinstance(timings.get("prompt_n"), int):
        return int(timings["prompt_n"])
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return max(prefix - int(cached), 0)


def _read_choice(
    choice: Mapping[str, Any], drawn: Sequence[int] | None, vocabulary: Vocabulary, where: str
) -> Choice:
    logprobs = choice.get("logprobs")
    text = str(choice.get("text") or "")
    incomplete = text.endswith("\N{REPLACEMENT CHARACTER}")
    stopped_at_once = not text and choice.get("finish_reason") == "stop"
    if not logprobs and (incomplete or stopped_at_once):
        # llama.cpp lists nothing where the only character is not complete, and where a stop string
        # comes first; an end-of-sequence token it would list.
        logprobs = {"content": []}
    if not logprobs:
        raise EngineError(
            f"{where} returned no logprobs, which drafts and judges need. Start the server with "
            "logprobs enabled, or use another server (llama.cpp, vLLM and SGLang have them)."
        )
    listed = "content" in logprobs
    if listed:
        steps = _content_steps(logprobs["content"], drawn, vocabulary)
    else:
        steps = list(_plain_steps(choice, vocabulary))
    return Choice(steps=tuple(steps), text=text, ending=_ending(choice, listed))


def _content_steps(
    content: Sequence[Mapping[str, Any]], drawn: Sequence[int] | None, vocabulary: Vocabulary
) -> list[Step]:
    """Steps of llama.cpp, with the tokens that it hides put back.

    `drawn` are all tokens where the server told them; without them, hidden ones are the fewest
    tokens with the bytes that are missing, and those of an incomplete character at the end stay
    hidden.
    """
    steps: list[Step] = []
    for entry in content:
        token = int(entry["id"])
        if drawn is None:
            steps += [_hidden(id_) for id_ in _missing(entry, token, vocabulary)]
        else:
            shown = _bytes(entry)
            own = vocabulary.bytes_of(token)
            length = len(own) if own is not None else len(shown)
            while length < len(shown) and len(steps) < len(drawn):
                steps.append(_hidden(drawn[len(steps)]))
                length += len(vocabulary.bytes_of(steps[-1].token) or b"")
        top = [(int(item["id"]), item["logprob"]) for item in entry.get("top_logprobs") or ()]
        steps.append(_step(token, entry["logprob"], top, 0))
    if drawn is not None:
        steps += [_hidden(token) for token in drawn[len(steps) :]]
        if [step.token for step in steps] != list(drawn):
            raise EngineError("the server's list of tokens does not agree with its logprobs")
    return steps


def _hidden(token: int) -> Step:
    return Step(token=token, logprob=None, top=(), nameless=0)


def _bytes(entry: Mapping[str, Any]) -> bytes:
    return bytes(entry.get("bytes") or ())


def _missing(entry: Mapping[str, Any], token: int, vocabulary: Vocabulary) -> list[int]:
    """Tokens before `token` that make up the rest of a character's bytes, longest first."""
    shown, own = _bytes(entry), vocabulary.bytes_of(token)
    if not own or len(shown) <= len(own) or not shown.endswith(own):
        return []
    rest, found = shown[: -len(own)], []
    while rest:
        for length in range(len(rest), 0, -1):
            id_ = vocabulary.id_of(rest[:length])
            if id_ is not None:
                found.append(id_)
                rest = rest[length:]
                break
        else:
            raise EngineError(f"no tokens of this tokenizer have the bytes {rest!r}")
    return found


def _plain_steps(choice: Mapping[str, Any], vocabulary: Vocabulary) -> Iterator[Step]:
    logprobs = choice["logprobs"]
    names = logprobs["tokens"]
    ids = choice.get("token_ids") or [_token(name, vocabulary) for name in names]
    tops = logprobs.get("top_logprobs") or [None] * len(ids)
    for id_, name, logprob, top in zip(ids, names, logprobs["token_logprobs"], tops, strict=True):
        if id_ is None:
            raise EngineError(
                f"the server names a token only by its text {name!r}, which no token or several "
                "of this tokenizer have. Is it the model's own tokenizer? vLLM and llama.cpp give "
                "token ids."
            )
        pairs = [(_token(text, vocabulary), value) for text, value in (top or {}).items()]
        known = [(token, value) for token, value in pairs if token is not None]
        yield _step(int(id_), logprob, known, len(pairs) - len(known))


def _step(token: int, logprob: float, top: Sequence[tuple[int, float]], nameless: int) -> Step:
    ranked = sorted(((id_, _log(value)) for id_, value in top), key=lambda pair: -pair[1])
    return Step(token=token, logprob=_log(logprob), top=tuple(ranked), nameless=nameless)


def _log(value: float) -> float:
    return float("-inf") if value <= _IMPOSSIBLE else float(value)


def _token(name: str, vocabulary: Vocabulary) -> int | None:
    r"""The id of a token that a server names: `token_id:7`, `bytes:\xe2\x82`, or its text."""
    if name.startswith("token_id:"):
        return int(name.removeprefix("token_id:"))
    if name.startswith("bytes:"):
        escaped = name.removeprefix("bytes:").encode()
        return vocabulary.id_of(_ESCAPED.sub(lambda m: bytes([int(m[1], 16)]), escaped))
    return vocabulary.id_of(name.encode("utf-8", "replace"))


def _ending(choice: Mapping[str, Any], listed: bool) -> Ending:
    reason = choice.get("finish_reason")
    if reason == "length":
        return "length"
    if reason != "stop":
        raise EngineError(f"the server broke a draft off: finish_reason is {reason!r}")
    for field in ("stop_reason", "matched_stop"):  # vLLM, SGLang: the string, or a token
        if field in choice:
            return "stop" if isinstance(choice[field], str) else "end"
    # A server that lists the end-of-sequence token and did not has met a stop string.
    return "stop" if listed else "unclear"
