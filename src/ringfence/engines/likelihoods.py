"""Probabilities of any next token, from a server that lists only the likely ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ringfence.engine import Tokens
from ringfence.engines.dialects import Choice
from ringfence.errors import EngineError
from ringfence.vocabulary import Vocabulary

# How many alternatives to look for labels among: the most that vLLM gives unless told otherwise.
_LABELS_AMONG = 20
# What OpenAI and vLLM clamp a logit bias to. A token this much more likely is always drawn.
_FORCED = 100

# Prefix, drafts, length and options → the choices, and the tokens fed for them.
Complete = Callable[[Tokens, int, int, dict[str, Any]], Awaitable[tuple[list[Choice], int]]]


class Likelihoods:
    """Asks for the 20 most likely next tokens, and draws by force what is not among them.

    Servers tell a drawn token's probability before the bias that forced it. A token never gets a
    value that the server did not name.
    """

    def __init__(
        self, complete: Complete, vocabulary: Vocabulary, ids: int | None, name: str
    ) -> None:
        """Ask by `complete`.

        Args:
            complete: asks the server.
            vocabulary: the model's.
            ids: how many token ids it knows, if known.
            name: of the server, for errors.
        """
        self._complete = complete
        self._vocabulary = vocabulary
        self._ids = ids
        self._name = name

    async def of(
        self, context: Tokens, wanted: Sequence[int]
    ) -> tuple[dict[int, float], list[int]]:
        """Log-probabilities of tokens after a context, and the tokens fed by each request."""
        choices, fed = await self._complete(context, 1, 1, {"logprobs": _LABELS_AMONG})
        costs = [fed]
        if choices[0].steps and choices[0].steps[0].logprob is not None:
            [step] = self._one_step(choices)
        else:
            step, fed = await self.beside_hidden(context, _LABELS_AMONG)
            costs.append(fed)
        likely = dict(step.top)
        if step.logprob is not None:
            likely[step.token] = step.logprob
        found = {token: likely[token] for token in wanted if token in likely}
        for token in wanted:
            if token not in found and self._is_whole(token):
                found[token], fed = await self._forced(context, token, min(likely.values()))
                costs.append(fed)
            elif token not in found:
                step, fed = await self.beside_hidden(context, self._ids or _LABELS_AMONG)
                found[token] = dict(step.top)[token]
                costs.append(fed)
        return found, costs

    def _is_whole(self, token: int) -> bool:
        """Whether a token is text by itself, and not a part of a character."""
        piece = self._vocabulary.bytes_of(token)
        try:
            return piece is None or bool(piece.decode())
        except UnicodeDecodeError:
            return False

    async def beside_hidden(self, context: Tokens, among: int) -> tuple[Any, int]:
        """The most likely next tokens where llama.cpp hides the likeliest: a part of a character.

        A letter is drawn by force instead, which changes nothing about the list.
        """
        letter = self._vocabulary.id_of(b"a")
        if letter is None:
            raise EngineError(f"{self._name}: this tokenizer has no token for 'a'")
        bias = {"logit_bias": {str(letter): _FORCED}}
        choices, fed = await self._complete(context, 1, 1, {"logprobs": among, **bias})
        return self._one_step(choices)[0], fed

    async def _forced(self, context: Tokens, token: int, at_most: float) -> tuple[float, int]:
        """The log-probability of an unlikely token, and the tokens fed to get it."""
        bias = {"logit_bias": {str(token): _FORCED}}
        choices, fed = await self._complete(context, 1, 1, {"logprobs": 1, **bias})
        [step] = self._one_step(choices)
        # A token outside the best 20 that is now said to be likely has its bias counted in. The
        # margin is for arithmetic that depends on the batch.
        if step.token != token or known(step.logprob) > at_most + 0.5:
            raise EngineError(
                f"{self._name} does not tell the probability of unlikely tokens: it "
                "ignores logit_bias, or counts the bias into the logprobs. Use llama.cpp, vLLM "
                "with --logprobs-mode raw_logprobs, or SGLang with "
                "SGLANG_RETURN_ORIGINAL_LOGPROB=1."
            )
        return known(step.logprob), fed

    def _one_step(self, choices: list[Choice]) -> Sequence[Any]:
        if len(choices) != 1 or len(choices[0].steps) != 1:
            raise EngineError(
                f"{self._name} was asked for the next token and told "
                f"{[len(choice.steps) for choice in choices]}; it seems to hide end-of-sequence "
                "tokens. Use a server that lists them, such as llama.cpp or vLLM."
            )
        return choices[0].steps


def known(logprob: float | None) -> float:
    """A log-probability that must have been told or asked for by now."""
    assert logprob is not None
    return logprob
