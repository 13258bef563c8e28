"""What happens while a reply is made: a stream of frozen events, and the folds over it.

Knows nothing of engines, judges or how the events come about. Command line, server, logs and
tests are folds over this stream.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Literal

from ringfence.engine import Tokens

EndReason = Literal["stop", "length", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a reply took.

    Attributes:
        drafted: tokens sampled, kept or not.
        judged: tokens fed to the engine for verdicts, after cache hits.
        committed: tokens declared final.
        fed: tokens the engine processed after cache hits: drafted, judged and prompt tokens.
        requests: requests to the engine.
        rounds: sequential requests: those sent side by side count once.
        iterations: judgements asked for in search, at most the budget.
        rewinds: times that rejected tokens were dropped.
        seconds: wall time.
        first_commit_seconds: wall time to the first committed token; None if nothing was.
    """

    drafted: int = 0
    judged: int = 0
    committed: int = 0
    fed: int = 0
    requests: int = 0
    rounds: int = 0
    iterations: int = 0
    rewinds: int = 0
    seconds: float = 0.0
    first_commit_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafted:
    """A draft was proposed: a new node below `parent` (0 is the prompt)."""

    node: int
    parent: int
    tokens: Tokens
    prior: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A node got a verdict in [-1, 1]. `simulated` are look-ahead tokens the judge saw as well."""

    node: int
    value: float
    reason: str
    simulated: Tokens = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewound:
    """Tokens were rejected: go on after `kept` reply tokens; `dropped` are gone."""

    kept: int
    dropped: Tokens
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """Tokens became final and may be shown.

    Attributes:
        node: the node they belong to.
        tokens: in order; the tokens of all commits are the reply.
        value: the mean verdict of the node, or the verdict of the draft that it leads to where that
            decides (search with `commit: verdict`); None where nothing was judged.
        visits: real visits of the node in the search.
        logprob: natural log of the model's own probability of the tokens after what precedes them.
        text: what may be shown now. The texts of all commits are the text of the reply; a text may
            lag behind its tokens where UTF-8 or a stop string is incomplete.
    """

    node: int
    tokens: Tokens
    value: float | None = None
    visits: int = 0
    logprob: float = 0.0
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The last event of every stream.

    Attributes:
        reason: `stop` (the model ended, or a stop string), `length`, `refused` (budget spent on
            rejected drafts).
        value: last verdict on the whole reply, None if nothing was judged.
        detail: for a refusal, why, in words.
        cost: what it took.
    """

    reason: EndReason
    value: float | None
    detail: str
    cost: Cost


Event = Drafted | Judged | Rewound | Committed | Ended
Events = AsyncGenerator[Event, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A finished reply: the fold over one stream of events.

    `logprob` is the natural log of the model's own probability of the tokens; the other fields are
    those of `Committed` and `Ended`.
    """

    tokens: Tokens
    text: str
    logprob: float
    reason: EndReason
    value: float | None
    detail: str
    cost: Cost

    @property
    def perplexity(self) -> float:
        """Of the reply under the model that drafted it; 1 for an empty reply."""
        return math.exp(-self.logprob / len(self.tokens)) if self.tokens else 1.0
