"""How a reply is made, as data: one model for decoders, command line and server.

Knows nothing of how decoders work.
"""

from __future__ import annotations

import random
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ringfence.budget import Budget
from ringfence.engine import Sampling
from ringfence.search_settings import PRESETS, Preset, SearchSettings

DecoderName = Literal["plain", "best-of-n", "rejection", "rain", "guarded"]


class Options(BaseModel):
    """How a reply is made; one model for all decoders, the command line and the server.

    Attributes:
        max_tokens: longest reply.
        temperature: of plain drafts (the tree search samples as the paper says).
        top_k: likewise.
        top_p: likewise.
        stop: strings that end the reply; they are not part of it.
        seed: equal seeds give equal replies where the engine is deterministic.
        budget: hard limits.
        exhausted: when nothing acceptable was found: `refuse`, take the `best`, or raise an
            `error`.
        n: replies of best-of-n.
        segment: most tokens between two judgements (rejection, guarded).
        redraws: most drafts of one segment (rejection).
        preset: constants of the search: `paper`, `code`, or ours, `fast`.
        search: constants that replace those of the preset.
        widenings: searches tried at one place before giving up, each twice as wide (guarded).
        threshold: drafts of at least this value are acceptable; None takes the judge's own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_tokens: int = Field(default=256, ge=1)
    temperature: float = Field(default=0.7, ge=0, le=10)
    top_k: int = Field(default=0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    stop: tuple[str, ...] = ()
    seed: int = 0
    budget: Budget = Budget()
    exhausted: Literal["refuse", "best", "error"] = "refuse"
    n: int = Field(default=8, ge=1, le=256)
    segment: int = Field(default=24, ge=1)
    redraws: int = Field(default=8, ge=1)
    preset: Preset = "fast"
    search: dict[str, object] = {}
    widenings: int = Field(default=3, ge=1, le=8)
    threshold: float | None = Field(default=None, ge=-1, le=1)

    @model_validator(mode="after")
    def _valid_search(self) -> Options:
        if any(not stop for stop in self.stop):
            raise ValueError("stop: an empty string would end every reply")
        self.settings()
        return self

    def settings(self) -> SearchSettings:
        """Constants of the search."""
        settings = PRESETS[self.preset].model_dump() | dict(self.search)
        if self.threshold is not None:
            settings["threshold"] = self.threshold
        return SearchSettings.model_validate(settings)

    def sampling(self, rng: random.Random) -> Sampling:
        """Sampling of a plain draft with a fresh seed."""
        return Sampling(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            seed=rng.getrandbits(31),
        )
