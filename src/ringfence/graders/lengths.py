"""Checks on how long a reply is. Knows nothing of what it says."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import override

from ringfence.graders.grades import Bounded, Flag, Grade, Seen, verdict
from ringfence.graders.pieces import capital_words, lines, paragraphs, sentences, words


class Characters(Bounded):
    """Number of characters, outer space not counted."""

    check: Literal["characters"]
    any_length = True

    @override
    def look(self, seen: Seen) -> Grade:
        return self.within(len(seen.reply.strip()), "characters")


class Words(Bounded):
    """Number of words."""

    check: Literal["words"]
    cost = 2
    joined: Flag = True
    """"don't" and "well-known" are one word each."""

    @override
    def look(self, seen: Seen) -> Grade:
        return self.within(sum(1 for _ in words(seen.reply, joined=self.joined)), "words")


class CapitalWords(Bounded):
    """Number of words in capitals; single letters such as "I" and "A" count."""

    check: Literal["capital_words"]
    cost = 4
    joined: Flag = True
    """"DON'T" is one word; otherwise two, and "I'm" has one."""

    @override
    def look(self, seen: Seen) -> Grade:
        found = sum(1 for _ in capital_words(seen.reply, joined=self.joined))
        return self.within(found, "words in capitals")


class Sentences(Bounded):
    """Number of sentences, told by punctuation and common English abbreviations."""

    check: Literal["sentences"]
    cost = 10
    layout: Flag = True
    """Blank lines and list items end a sentence too."""

    @override
    def look(self, seen: Seen) -> Grade:
        return self.within(len(sentences(seen.reply, layout=self.layout)), "sentences")


class Lines(Bounded):
    """Number of lines that are not blank."""

    check: Literal["lines"]
    cost = 2

    @override
    def look(self, seen: Seen) -> Grade:
        return self.within(len(lines(seen.reply)), "lines")


class Paragraphs(Bounded):
    """Number of paragraphs: what stands between blank lines, or between dividers."""

    check: Literal["paragraphs"]
    cost = 3
    divider: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    """What stands between two paragraphs, such as `***`; without it, a blank line."""
    empty: Literal["ignore", "fail"] = "ignore"
    """What nothing between two dividers means; before the first and after the last it is fine."""
    distinct: Flag = False
    """No two may be the same."""

    @override
    def look(self, seen: Seen) -> Grade:
        if self.divider is None:
            parts = paragraphs(seen.reply)
        else:
            split = [part.strip() for part in seen.reply.split(self.divider)]
            if self.empty == "fail" and not all(split[1:-1]):
                return verdict(False, f"nothing between two {self.divider!r}")
            parts = [part for part in split if part]
        if self.distinct and len(set(parts)) < len(parts):
            return verdict(False, "two paragraphs are the same")
        return self.within(len(parts), "paragraphs")
