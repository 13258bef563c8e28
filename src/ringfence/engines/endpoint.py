"""Any OpenAI-compatible completions server as an engine. Knows nothing of judges or templates."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urlsplit

from ringfence.concurrency import together
from ringfence.engine import Draft, EngineCard, Sampling, Scores, Tokens, check_call
from ringfence.engines.chat_templates import Value, with_template
from ringfence.engines.connection import Connection
from ringfence.engines.dialects import Choice, read_choices, read_fed
from ringfence.engines.discovery import discover
from ringfence.engines.likelihoods import Likelihoods, known
from ringfence.engines.room import Room
from ringfence.errors import EngineError
from ringfence.vocabulary import Vocabulary


class EndpointEngine:
    """Drafts and probabilities from a server, by token-id prompts; see `engine.Engine`.

    Caches are the server's: a request whose prefix it has seen costs what is new. Equal seeds give
    equal drafts as far as the server's arithmetic does not depend on what else it computes at the
    moment; on none of the servers known it does not, so `card.deterministic` is False.

    With a temperature other than 1, top_p and top_k choose before the temperature is applied on
    llama.cpp, as in `ScriptedEngine`, and after it on vLLM and SGLang.
    """

    def __init__(
        self,
        connection: Connection,
        card: EngineCard,
        vocabulary: Vocabulary,
        *,
        model: str,
        ids: int | None = None,
        room: Room | None = None,
    ) -> None:
        """Wrap a connection; use `open` instead.

        Args:
            connection: to the server.
            card: what the server's model is.
            vocabulary: the model's.
            model: the server's name for it.
            ids: how many token ids it knows, if known.
            room: how many tokens the server can hold at once, if known.
        """
        self._connection = connection
        self._card = card
        self._vocabulary = vocabulary
        self._model = model
        self._ids = ids
        self._room = room
        self._rng = random.Random()
        self._likelihoods = Likelihoods(self._complete, vocabulary, ids, connection.name)

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        tokenizer: str | Path | None = None,
        key: str | None = None,
        context: int | None = None,
        slots: int | None = None,
        timeout: float = 600.0,
        attempts: int = 4,
        backoff: float = 0.5,
        chat_template: str | Path | None = None,
        template_options: Mapping[str, Value] | None = None,
    ) -> EndpointEngine:
        """Connect to a server and find out what it serves.

        Args:
            url: base URL, usually ending in `/v1`; `#MODEL` names one of several models.
            tokenizer: folder with the model's `tokenizer.json`, or a GGUF file of it. Needed unless
                the server is llama.cpp on this machine, which tells where its file is.
            key: bearer token; the default is RINGFENCE_API_KEY, then OPENAI_API_KEY.
            context: longest prompt plus draft, in tokens; needed if the server does not say.
            slots: most drafts to ask for in one request.
            timeout: seconds without a byte from the server before giving up.
            attempts: how often to send a request that the server is too busy for.
            backoff: seconds before the first repetition; each further one waits twice as long.
            chat_template: a file with another chat template than the model's own.
            template_options: variables for the chat template, such as `enable_thinking`.

        Raises:
            EngineError: unreachable, ambiguous, or something is missing; says the way out.
        """
        try:
            base, model = urldefrag(url)
            path = urlsplit(base).path
        except ValueError:
            # Neither the address nor what is wrong with it is quoted: both may hold a password.
            raise EngineError(
                "the server's address is no usable URL; one looks like http://HOST:PORT/v1"
            ) from None
        if path in ("", "/"):
            base = base.rstrip("/") + "/v1"
        connection = Connection(base, key=key, timeout=timeout, attempts=attempts, backoff=backoff)
        try:
            found = await discover(
                connection, unquote(model), tokenizer=tokenizer, context=context, slots=slots
            )
            files = with_template(found.description, chat_template, template_options)
            card = replace(found.card, template=files.template)
            return cls(connection, card, files.tokenizer, model=found.model, ids=files.ids)
        except BaseException:
            await connection.aclose()
            raise

    @property
    def card(self) -> EngineCard:
        """See `Engine.card`."""
        return self._card

    async def aclose(self) -> None:
        """See `Engine.aclose`."""
        await self._connection.aclose()

    async def draft(
        self, prefix: Tokens, count: int, length: int, sampling: Sampling
    ) -> list[Draft]:
        """See `Engine.draft`.

        A token that holds both the beginning of a stop string and text before it is dropped whole.
        llama.cpp may drop a token or two more, where it would split the stop string into more
        tokens than the model drew it in.
        """
        check_call(self._card, prefix, count, length)
        self._check_ids(prefix)
        if sampling.temperature == 0:  # vLLM refuses several greedy drafts, and they are equal
            [first] = await self._request(prefix, 1, length, sampling, sampling.seed)
            return [first, *[replace(first, fed=0)] * (count - 1)]
        sizes = self._portions(prefix, count, length)
        seeds = random.Random(sampling.seed) if sampling.seed is not None else self._rng
        requests = [
            self._request(prefix, size, length, sampling, seeds.getrandbits(31)) for size in sizes
        ]
        return [draft for drafts in await together(requests) for draft in drafts]

    async def logprobs(self, prefix: Tokens, continuations: Sequence[Tokens]) -> Scores:
        """See `Engine.logprobs`.

        Asks for the likely next tokens after each beginning of a continuation; see `Likelihoods`.
        """
        if not continuations or not all(continuations):
            raise EngineError("logprobs needs continuations of at least one token each")
        check_call(self._card, prefix, 1, max(len(tokens) for tokens in continuations))
        self._check_ids(prefix, *continuations)
        wanted: dict[Tokens, set[int]] = {}
        for tokens in continuations:
            for place, token in enumerate(tokens):
                wanted.setdefault(tokens[:place], set()).add(token)
        values: dict[Tokens, float] = {}
        fed = requests = 0
        # One after the other and sorted, so that each request finds its prefix in the cache of
        # the one before. Side by side, every slot would process the whole prefix by itself.
        for start in sorted(wanted):
            found, cost = await self._likelihoods.of(prefix + start, sorted(wanted[start]))
            values.update({(*start, token): value for token, value in found.items()})
            fed, requests = fed + sum(cost), requests + len(cost)
        scores = tuple(
            sum(values[tokens[: place + 1]] for place in range(len(tokens)))
            for tokens in continuations
        )
        return Scores(logprobs=scores, fed=fed, requests=requests)

    async def _request(
        self, prefix: Tokens, count: int, length: int, sampling: Sampling, seed: int | None
    ) -> list[Draft]:
        options: dict[str, Any] = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or -1,
            "logprobs": max(sampling.alternatives, 1),
        }
        options |= {} if seed is None else {"seed": seed % 2**31}
        options |= {"stop": list(sampling.stop)} if sampling.stop else {}
        if count == 1 and not sampling.stop:
            options |= {"verbose": True, "return_tokens": True}
        choices, fed = await self._complete(prefix, count, length, options)
        drafts = []
        for place, choice in enumerate(choices):
            if not choice.steps and choice.ending == "length" and count > 1:
                # llama.cpp hides a draft that ends in its first character, unless it is asked for
                # that draft alone.
                other = None if seed is None else seed + place
                drafts += await self._request(prefix, 1, length, sampling, other)
                continue
            told, extra = await self._told(prefix, choice, sampling.alternatives)
            fed += extra
            drafts.append(self._draft(told, sampling))
        return [replace(drafts[0], fed=fed), *drafts[1:]]

    async def _told(self, prefix: Tokens, choice: Choice, alternatives: int) -> tuple[Choice, int]:
        """The choice with the probabilities of tokens that the server hid, and what that fed."""
        steps, fed = list(choice.steps), 0
        for place, step in enumerate(steps):
            if step.logprob is not None:
                continue
            context = prefix + tuple(before.token for before in steps[:place])
            found, costs = await self._likelihoods.of(context, [step.token])
            fed += sum(costs)
            top: tuple[tuple[int, float], ...] = ()
            if alternatives:
                beside, cost = await self._likelihoods.beside_hidden(context, alternatives)
                top, fed = beside.top, fed + cost
            steps[place] = replace(step, logprob=found[step.token], top=top)
        return replace(choice, steps=tuple(steps)), fed

    async def _complete(
        self, prefix: Tokens, count: int, length: int, options: dict[str, Any]
    ) -> tuple[list[Choice], int]:
        """Ask for completions; returns them and the prompt tokens processed for them."""
        body = self._neutral() | options
        body |= {"prompt": list(prefix), "n": count, "max_tokens": length}
        cells = len(prefix) + count * length
        async with self._room.taken(cells) if self._room else nullcontext():
            answer = await self._connection.post("completions", body)
        choices = read_choices(answer, self._vocabulary, f"{self._connection.name}/completions")
        if len(choices) != count:
            raise EngineError(
                f"{self._connection.name} was asked for {count} drafts and gave {len(choices)}"
            )
        return choices, read_fed(answer, len(prefix))

    def _neutral(self) -> dict[str, Any]:
        """Settings that leave the model's distribution alone, whatever the server's defaults.

        llama-server's are top_k 40, top_p 0.95 and min_p 0.05, and vLLM takes a repetition
        penalty from the model's generation_config. Servers ignore fields of other servers.
        """
        return {
            "model": self._model,
            "temperature": 0,
            "top_p": 1,
            "top_k": -1,
            "min_p": 0,
            "repetition_penalty": 1,
            "stop_token_ids": sorted(self._card.ends),
            "skip_special_tokens": False,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            "cache_prompt": True,
            "samplers": ["top_k", "top_p", "temperature"],
        }

    def _draft(self, choice: Choice, sampling: Sampling) -> Draft:
        steps, finished = self._kept(choice, sampling)
        listed = steps
        if finished:
            listed = choice.steps[: len(steps) + 1]
        alternatives = tuple(step.top[: sampling.alternatives] for step in listed)
        if sampling.alternatives and (
            any(step.nameless for step in listed) or len(listed) < len(steps) + finished
        ):
            raise EngineError(
                f"{self._connection.name} names alternatives by texts that several tokens share, "
                "or hides the end-of-sequence token. vLLM and llama.cpp give token ids."
            )
        return Draft(
            tokens=tuple(step.token for step in steps),
            logprobs=tuple(known(step.logprob) for step in steps),
            finished=finished,
            end_logprob=sum(known(step.logprob) for step in listed[len(steps) :]),
            alternatives=alternatives if sampling.alternatives else (),
        )

    def _kept(self, choice: Choice, sampling: Sampling) -> tuple[Sequence[Any], bool]:
        """The steps of a choice that belong to the draft, and whether the model ended it."""
        steps = choice.steps
        for place, step in enumerate(steps):
            if step.token in self._card.ends:
                return steps[:place], True
        if choice.ending == "length":
            return steps, False
        # llama.cpp has more end-of-sequence tokens than the model's files name, such as
        # <reponame>; all of them are control tokens.
        if steps and steps[-1].token in self._vocabulary.control.values():
            return steps[:-1], True
        if choice.ending == "end" or not sampling.stop:
            return steps, True
        if choice.ending == "unclear":
            raise EngineError(
                f"{self._connection.name} does not tell a stop string from an end of the reply. "
                "Use a server that does (llama.cpp, vLLM, SGLang), or no stop strings."
            )
        return self._before_stop(choice), False

    def _before_stop(self, choice: Choice) -> Sequence[Any]:
        """The steps whose text lies before the stop string; servers tell where that begins."""
        ordinary = set(self._vocabulary.control.values())
        for keep in range(len(choice.steps), 0, -1):
            tokens = [step.token for step in choice.steps[:keep]]
            # llama.cpp leaves control tokens out of the text.
            shown = [token for token in tokens if token not in ordinary]
            texts = (self._vocabulary.decode(tokens), self._vocabulary.decode(shown))
            if choice.text.startswith(texts):
                return choice.steps[:keep]
        return ()

    def _portions(self, prefix: Tokens, count: int, length: int) -> list[int]:
        """How many drafts to ask for in each request."""
        most = self._card.slots
        if self._room:
            most = max(1, min(most, (self._room.cells - len(prefix)) // length))
        return [min(most, count - start) for start in range(0, count, most)]

    def _check_ids(self, *sequences: Tokens) -> None:
        # An id that the model does not have can bring a whole server down.
        lowest = min(min(tokens) for tokens in sequences)
        highest = max(max(tokens) for tokens in sequences)
        if lowest < 0 or (self._ids is not None and highest >= self._ids):
            raise EngineError(
                f"token ids must lie between 0 and {self._ids or '…'}, not {lowest} or {highest}; "
                "were these tokens made by another model's tokenizer?"
            )
