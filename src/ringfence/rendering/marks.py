"""Marks around text that a template places. Knows nothing of templates, roles or rings.

Three characters of a private-use plane that occur nowhere in the text. Two of them make a pair
around every piece, so that the piece is found again in what the template makes. The third, the
guard, breaks control tokens that stand in the text, so that a template cannot be steered by them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ringfence.errors import RenderingError

# Supplementary private-use plane B.
_PLANE = range(0x100000, 0x10FFFE)
# Templates cut replies at these words even where the tokenizer has no such token.
_REASONING = ("<think>", "</think>")


class BrokenMarks(Exception):
    """A template that cut a piece of text apart."""


@dataclass(frozen=True, slots=True)
class Marks:
    """How pieces are marked.

    Attributes:
        opening: begins a mark; `closing` ends it.
        guard: stands inside every control token of a text.
        control: finds control tokens.
    """

    opening: str
    closing: str
    guard: str
    control: re.Pattern[str]

    @classmethod
    def fresh(cls, texts: Iterable[str], control: re.Pattern[str]) -> Marks:
        """Marks that occur in none of the texts.

        Raises:
            RenderingError: the texts use every character there is.
        """
        used: set[str] = set()
        for text in texts:
            used.update(text)
        free = (chr(code) for code in _PLANE if chr(code) not in used)
        opening, closing, guard = next(free, None), next(free, None), next(free, None)
        if opening is None or closing is None or guard is None:
            raise RenderingError(
                "messages: the text uses every character of the private-use plane U+100000 to "
                "U+10FFFD; three of them must be left over"
            )
        return cls(opening, closing, guard, control)

    def stamped(self, index: int, text: str) -> str:
        """The text between marks that carry its number; numbers sort as the texts are numbered."""
        opening, closing = self.opening, self.closing
        return f"{opening}{index:07d}{closing}{self.guarded(text)}{opening}{closing}"

    def guarded(self, text: str) -> str:
        """The text with a guard behind the first character of every control token in it."""
        text = self.control.sub(lambda match: match[0][0] + self.guard + match[0][1:], text)
        for word in _REASONING:
            text = text.replace(word, word[0] + self.guard + word[1:])
        return text

    def enclosed(self, text: str) -> str:
        """The text guarded at both ends as well, so that it completes no control token."""
        return f"{self.guard}{self.guarded(text)}{self.guard}"

    def plain(self, text: str) -> str:
        """The text without guards."""
        return text.replace(self.guard, "")

    def cut(self, text: str) -> list[tuple[int | None, str]]:
        """What a template made, cut at the marks: (number of the piece or None, text) in order.

        Guards stay in the template's own text, for what stands there `enclosed`.

        Raises:
            BrokenMarks: one mark of a pair is missing.
        """
        pattern = re.compile(
            f"{self.opening}([0-9]{{7}}){self.closing}(.*?){self.opening}{self.closing}", re.DOTALL
        )
        parts: list[tuple[int | None, str]] = []
        position = 0
        for match in pattern.finditer(text):
            parts.append((None, text[position : match.start()]))
            parts.append((int(match[1]), self.plain(match[2])))
            position = match.end()
        parts.append((None, text[position:]))
        if any(self.opening in part or self.closing in part for _, part in parts):
            raise BrokenMarks
        return parts


def control_pattern(control: Iterable[str]) -> re.Pattern[str]:
    """Splits text at control tokens, longest first; never matches where there are none."""
    ranked = sorted((text for text in control if text), key=len, reverse=True)
    return re.compile("(" + "|".join(map(re.escape, ranked)) + ")" if ranked else r"((?!))")
