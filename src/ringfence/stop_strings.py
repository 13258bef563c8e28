"""Where stop strings end a reply: what is judged and counted is what is shown.

Knows nothing of how drafts are made or judged.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import replace

from ringfence.engine import Draft, Tokenizer, Tokens


def stop_place(text: str, stops: Iterable[str]) -> int | None:
    """Where the stop string begins that is complete first; None without one.

    That one counts, and not the one that begins first, so that it does not matter in which pieces
    the text came.
    """
    found = [(place + len(stop), place) for stop in stops if (place := text.find(stop)) >= 0]
    return min(found)[1] if found else None


class StopStrings:
    """The stop strings of one reply."""

    def __init__(self, tokenizer: Tokenizer, stops: Iterable[str]) -> None:
        """End replies before the first of `stops`; none of them is empty."""
        self._tokenizer = tokenizer
        self._stops = tuple(stops)

    def text(self, reply: Tokens) -> str:
        """The text of a reply's tokens as it may be shown: up to the first stop string."""
        text = self._tokenizer.decode(reply)
        return text[: stop_place(text, self._stops)]

    def cut(self, reply: Tokens, draft: Draft) -> Draft:
        """A draft after a reply, up to the token that completes a stop string; it ends the reply.

        That token is kept, since whatever stands in it before the stop string is shown.
        """
        if not self._stops or not self._stopped(reply + draft.tokens):
            return draft
        lengths = range(len(draft.tokens) + 1)
        kept = bisect_left(
            lengths, True, key=lambda length: self._stopped(reply + draft.tokens[:length])
        )
        return replace(
            draft,
            tokens=draft.tokens[:kept],
            logprobs=draft.logprobs[:kept],
            alternatives=draft.alternatives[:kept],
            finished=True,
            end_logprob=0.0,
        )

    def _stopped(self, reply: Tokens) -> bool:
        return stop_place(self._tokenizer.decode(reply), self._stops) is not None
