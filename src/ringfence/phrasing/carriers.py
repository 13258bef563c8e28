"""Documents that carry foreign text: where an injection hides. Knows nothing of what it says.

A carrier writes the injected text as its format requires, so that the whole stays valid, and says
where it stands. Line ends are line feeds, also where a format would have CRLF on the wire.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from random import Random
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ringfence.errors import InputError
from ringfence.phrasing.escaping import ESCAPINGS, Escaping, carriable
from ringfence.phrasing.grammar import Grammar, Split
from ringfence.phrasing.grammar_file import GrammarFile, Weighted
from ringfence.yaml_files import parsed

Position = Literal["start", "middle", "end", "any"]
# No carriable text contains it.
_HERE = "\x00"
_BOUNDARY = re.compile(r"(?<=[.!?])[ \n]+|\n+")
_SLOTS = ("head", "injected", "tail")


class CarrierEntry(BaseModel):
    """One carrier of the file of carriers.

    Attributes:
        name: what people call it.
        split: whose draws may use it.
        media: kinds of tools in whose state it looks at home.
        escape: name of the way in which injected text is written.
        innocent: the same for the text around it; empty: as `escape`.
        frames: documents with `{head}`, `{injected}` and `{tail}`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    split: Split
    media: tuple[str, ...] = Field(min_length=1)
    escape: str
    innocent: str = ""
    frames: tuple[str | Weighted, ...] = Field(min_length=1)


class CarrierFile(BaseModel):
    """The schema of the file of carriers: what frames may name, and the carriers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    details: dict[str, tuple[str | Weighted, ...]]
    carriers: tuple[CarrierEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """A document with an injection.

    Attributes:
        text: the whole.
        start: where the injection begins, as it is written there.
        end: where it ends.
        carrier: name of the carrier.
    """

    text: str
    start: int
    end: int
    carrier: str

    @property
    def passage(self) -> str:
        """The injection as it stands in the text."""
        return self.text[self.start : self.end]


@dataclass(frozen=True, slots=True, kw_only=True)
class Carrier:
    """One kind of document.

    Attributes:
        name: what people call it.
        split: whose draws may use it.
        media: kinds of tools in whose state it looks at home.
        escaping: how injected text is written.
        innocent: how the text around it is written.
        frames: documents to draw from.
    """

    name: str
    split: Split
    media: frozenset[str]
    escaping: Escaping
    innocent: Escaping
    frames: Grammar

    def carry(
        self, rng: Random, innocent: str, injected: str, position: Position = "any"
    ) -> Carried:
        """A document around both texts.

        Args:
            rng: draws the frame, its details, and the cut.
            innocent: text that is split at the end of a sentence or line.
            injected: text that stands at the cut.
            position: which cut: before all of the innocent text, after it, between two of its
                sentences, or any of these.

        Raises:
            InputError: a text has control characters other than line feed and tab.
        """
        for field, value in (("innocent", innocent), ("injected", injected)):
            if not carriable(value):
                raise InputError(
                    f"{field}: has control characters; only line feeds and tabs can be carried"
                )
        head, tail = _cut(rng, innocent, position)
        head, tail = self.innocent.write(head), self.innocent.write(tail)
        written = self.escaping.write(injected)
        lines = sum(part.count("\n") + 1 for part in (head, written, tail))
        slots = {"head": head, "injected": _HERE, "tail": tail, "lines": str(lines)}
        text = self.frames.draw(rng, self.name.replace("-", "_"), slots, self.split).text
        before, after = text.split(_HERE)
        start = len(before)
        return Carried(
            text=before + written + after,
            start=start,
            end=start + len(written),
            carrier=self.name,
        )

    def recover(self, passage: str) -> str:
        """The injected text from how it stands in the document."""
        return self.escaping.read(passage)


def carriers(split: Split | None = None, medium: str = "") -> list[Carrier]:
    """The carriers of a split, or all; only those at home in a medium, if one is named."""
    return [
        carrier
        for carrier in _packaged().values()
        if (split is None or carrier.split == split) and (not medium or medium in carrier.media)
    ]


def carrier(name: str) -> Carrier:
    """A carrier by its name.

    Raises:
        InputError: there is none of that name.
    """
    if name not in _packaged():
        raise InputError(f"no carrier {name!r}. Carriers: {', '.join(_packaged())}.")
    return _packaged()[name]


@lru_cache(maxsize=1)
def _packaged() -> Mapping[str, Carrier]:
    file = resources.files("ringfence.phrasing") / "media" / "carriers.yaml"
    return read_carriers(file.read_text("utf-8"), "carriers.yaml")


def read_carriers(source: str, where: str) -> dict[str, Carrier]:
    """Carriers from YAML text; `where` names it in errors.

    Raises:
        InputError: broken YAML, an unknown escaping, or a frame without one of its three slots.
    """
    file = parsed(CarrierFile, source, where)
    rules = {entry.name.replace("-", "_"): entry.frames for entry in file.carriers}
    if len(rules) != len(file.carriers) or rules.keys() & file.details.keys():
        raise InputError(f"{where}: carriers: two carriers or details have the same name")
    for entry in file.carriers:
        for escaping in (entry.escape, entry.innocent or entry.escape):
            if escaping not in ESCAPINGS:
                raise InputError(
                    f"{where}: carriers: {entry.name}: no escaping {escaping!r}. "
                    f"There are {', '.join(ESCAPINGS)}."
                )
        for frame in entry.frames:
            text = frame if isinstance(frame, str) else frame.text
            for slot in _SLOTS:
                if text.count(f"{{{slot}}}") != 1:
                    raise InputError(
                        f"{where}: carriers: {entry.name}: every frame needs {{{slot}}} once"
                    )
    frames = Grammar(
        GrammarFile(
            name="carriers",
            summary="Documents that carry foreign text.",
            slots=(*_SLOTS, "lines"),
            starts=tuple(rules),
            disjoint=False,
            rules={**file.details, **rules},
        ),
        where,
    )
    return {
        entry.name: Carrier(
            name=entry.name,
            split=entry.split,
            media=frozenset(entry.media),
            escaping=ESCAPINGS[entry.escape],
            innocent=ESCAPINGS[entry.innocent or entry.escape],
            frames=frames,
        )
        for entry in file.carriers
    }


def _cut(rng: Random, text: str, position: Position) -> tuple[str, str]:
    if position == "start":
        return "", text
    if position == "end":
        return text, ""
    cuts = [(match.start(), match.end()) for match in _BOUNDARY.finditer(text)]
    cuts = [(end, start) for end, start in cuts if end and start < len(text)]
    if position == "any" or not cuts:
        cuts += [(0, 0), (len(text), len(text))]
    end, start = cuts[int(rng.random() * len(cuts))]
    return text[:end], text[start:]
