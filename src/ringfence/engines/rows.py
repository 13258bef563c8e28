"""Drafts of one batch while they grow: drawing and ending. Knows nothing of models or caches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ringfence.engine import Draft, Sampling, Tokenizer

# torch may be absent when this module is checked, so its types have no names here.
Tensor = Any
Item = TypeVar("Item")

_TINY = 1e-37  # above zero in float32; noise of zero would win against any probability


@dataclass(slots=True, kw_only=True)
class Row:
    """A draft while it grows.

    Attributes:
        length: most tokens it may have.
        sampling: how its tokens are drawn.
        ends: ids that end a reply.
        tokenizer: for stop strings.
        noise: a torch.Generator of its own, on the model's device.
        tokens: drawn so far, without what ended it; `logprobs` and `alternatives` belong to them.
        finished: it drew an end-of-sequence token, of probability exp(`end_logprob`).
        ended: no token may follow.
    """

    length: int
    sampling: Sampling
    ends: frozenset[int]
    tokenizer: Tokenizer
    noise: Any
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    alternatives: list[tuple[tuple[int, float], ...]] = field(default_factory=list)
    finished: bool = False
    end_logprob: float = 0.0
    ended: bool = False

    def take(self, token: int, logprob: float, alternatives: tuple[tuple[int, float], ...]) -> None:
        """Add a token; ends the draft if it was the last, and drops what is not part of it."""
        if alternatives:
            self.alternatives.append(alternatives)
        if token in self.ends:
            self.finished = self.ended = True
            self.end_logprob = logprob
            return
        self.tokens.append(token)
        self.logprobs.append(logprob)
        kept = self._before_stop()
        self.ended = kept < len(self.tokens) or kept == self.length
        del self.tokens[kept:], self.logprobs[kept:], self.alternatives[kept:]

    def _before_stop(self) -> int:
        """How many tokens lie wholly before the first stop string."""
        kept = len(self.tokens)
        text = self.tokenizer.decode(self.tokens) if self.sampling.stop else ""
        found = [text.find(stop) for stop in self.sampling.stop if stop in text]
        while found and kept and len(self.tokenizer.decode(self.tokens[:kept])) > min(found):
            kept -= 1
        return kept

    def draft(self) -> Draft:
        """What has been drawn."""
        return Draft(
            tokens=tuple(self.tokens),
            logprobs=tuple(self.logprobs),
            finished=self.finished,
            end_logprob=self.end_logprob,
            alternatives=tuple(self.alternatives),
        )


def extend(rows: Sequence[Row], logprobs: Tensor) -> None:
    """Draw the next token of every row from float32 log-probabilities, [rows, vocabulary].

    All rows of a call share their sampling. A draw depends on its row's noise alone, not on the
    other rows.
    """
    sampling = rows[0].sampling
    scores = logprobs
    if sampling.temperature:
        scores = _truncate(logprobs, sampling)
        # From the best token down: a tiny temperature makes the others -inf, and not all of them.
        scores = (scores - scores.amax(-1, keepdim=True)) / sampling.temperature
        scores = scores + _gumbel(rows, logprobs)
    drawn = scores.argmax(-1)
    chosen = logprobs.gather(-1, drawn[:, None])[:, 0].tolist()
    best = logprobs.topk(min(sampling.alternatives, logprobs.shape[-1]))
    ranked = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    for row, token, logprob, pairs in zip(rows, drawn.tolist(), chosen, ranked, strict=True):
        row.take(token, logprob, tuple(zip(*pairs, strict=True)))


def _truncate(logprobs: Tensor, sampling: Sampling) -> Tensor:
    """Log-probabilities [rows, vocabulary] with -inf for what top_k and top_p leave out."""
    if not sampling.top_k and sampling.top_p == 1:
        return logprobs
    ranked, order = logprobs.sort(descending=True, stable=True)
    masses = ranked.exp()
    left_out = masses.cumsum(-1) - masses >= sampling.top_p
    if sampling.top_p == 1:
        left_out[:] = False  # rounding lets the mass reach 1 too early
    if sampling.top_k:
        left_out[:, sampling.top_k :] = True
    return logprobs.scatter(-1, order, ranked.masked_fill(left_out, float("-inf")))


def _gumbel(rows: Sequence[Row], like: Tensor) -> Tensor:
    """Noise under which the largest sum is an exact draw (the Gumbel-max trick).

    Unlike a draw by cumulative probability it hardly minds rounding: a draft changes only if
    the two largest sums are as close as that.
    """
    noise = like.new_empty(like.shape)
    for values, row in zip(noise, rows, strict=True):
        values.exponential_(generator=row.noise)
    return -noise.clamp_min(_TINY).log()


def batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """The items in order, at most `size` (at least 1) at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))
