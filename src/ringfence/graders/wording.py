"""Checks on the words of a reply: what is in it, how it begins and ends. Knows no languages."""

from __future__ import annotations

import unicodedata
from typing import Literal

from pydantic import Field
from typing_extensions import override

from ringfence.graders.grades import (
    Bounded,
    Check,
    Flag,
    Grade,
    Phrase,
    Seen,
    Text,
    Visible,
    shown,
    undecided,
    verdict,
)
from ringfence.graders.patterns import Pattern, Program
from ringfence.graders.pieces import lines, words
from ringfence.graders.structure import unmarked

MOST_MISSES = 50_000
"""Places inside longer words after which a whole word is no longer looked for."""


def folded(text: str, ignore_case: bool) -> str:
    """The text as it is compared."""
    return text.casefold() if ignore_case else text


def whole_words(text: str, reply: str, enough: int | None = None) -> int | None:
    """How often `text` stands in the reply as words of its own; counts no further than `enough`.

    None if that would take too long.
    """
    found = misses = place = 0
    while (place := reply.find(text, place)) >= 0:
        end = place + len(text)
        before = place > 0 and _wordy(reply[place - 1]) and _wordy(text[0])
        after = end < len(reply) and _wordy(reply[end]) and _wordy(text[-1])
        if before or after:
            misses += 1
            place += 1
        else:
            found += 1
            place = end
        if misses > MOST_MISSES:
            return None
        if enough is not None and found >= enough:
            break
    return found


def _wordy(character: str) -> bool:
    return character.isalnum() or character == "_"


class Contains(Check):
    """The reply contains a text."""

    check: Literal["contains"]
    any_length = True
    text: Phrase
    ignore_case: Flag = True
    whole_word: Flag = False
    """Letters and digits around the text make it another word."""

    @override
    def look(self, seen: Seen) -> Grade:
        reply, text = folded(seen.reply, self.ignore_case), folded(self.text, self.ignore_case)
        found = whole_words(text, reply, 1) if self.whole_word else int(text in reply)
        if found is None:
            return undecided(f"too many words that only contain {shown(self.text)}")
        return verdict(bool(found), f"{'contains' if found else 'lacks'} {shown(self.text)}")


class Prefix(Check):
    """The reply begins with a text; space before it is ignored."""

    check: Literal["prefix"]
    any_length = True
    text: Visible
    ignore_case: Flag = False

    @override
    def look(self, seen: Seen) -> Grade:
        # Folding a character gives at most three, never fewer than one for three.
        head = seen.reply.lstrip()[: 3 * len(self.text)]
        text = folded(self.text.lstrip(), self.ignore_case)
        passed = folded(head, self.ignore_case).startswith(text)
        return verdict(passed, f"begins with {shown(head)}, wanted {shown(self.text)}")


class Suffix(Check):
    """The reply ends with a text; space after it is ignored."""

    check: Literal["suffix"]
    any_length = True
    text: Visible
    ignore_case: Flag = False

    @override
    def look(self, seen: Seen) -> Grade:
        tail = seen.reply.rstrip()[-3 * len(self.text) :]
        text = folded(self.text.rstrip(), self.ignore_case)
        passed = folded(tail, self.ignore_case).endswith(text)
        return verdict(passed, f"ends with {shown(tail[-60:])}, wanted {shown(self.text)}")


class Exact(Check):
    """The reply is a text and nothing else."""

    check: Literal["exact"]
    any_length = True
    text: Text
    ignore_case: Flag = False
    strip: Flag = True
    """Space around the reply and around the text is ignored."""

    @override
    def look(self, seen: Seen) -> Grade:
        reply, text = seen.reply, self.text
        if self.strip:
            reply, text = reply.strip(), text.strip()
        passed = folded(reply, self.ignore_case) == folded(text, self.ignore_case)
        return verdict(passed, f"is {shown(reply)}, wanted {shown(text)}")


class Count(Bounded):
    """How often a text, or a regular expression, occurs; occurrences do not overlap."""

    check: Literal["count"]
    cost = 2
    text: Phrase | None = None
    pattern: Pattern | None = None
    ignore_case: Flag = True
    """Applies to `text`; a pattern says `(?i)` itself."""
    whole_word: Flag = False

    def model_post_init(self, context: object) -> None:
        """One of the two, and bounds.

        Raises:
            ValueError: both or none, or a pattern with `whole_word`.
        """
        super().model_post_init(context)
        if (self.text is None) == (self.pattern is None):
            raise ValueError("needs either text or pattern")
        if self.pattern is not None and self.whole_word:
            raise ValueError(r"whole_word goes with text; a pattern says \b itself")

    @override
    def price(self, length: int) -> int:
        return super().price(length) + (Program.of(self.pattern).price(0) if self.pattern else 0)

    @override
    def look(self, seen: Seen) -> Grade:
        # Beyond this number the bounds have decided.
        enough = (self.at_most + 1) if self.at_most is not None else (self.at_least or 0)
        what = f"times {shown(self.text or self.pattern or '')}"
        found: int | None
        if self.pattern is not None:
            found = Program.of(self.pattern).count(seen.reply, enough, seen)
        else:
            text = folded(self.text or "", self.ignore_case)
            reply = folded(seen.reply, self.ignore_case)
            found = whole_words(text, reply, enough) if self.whole_word else reply.count(text)
        if found is None:
            return undecided(f"too many places to look for {what}")
        return self.within(found, what)


class LetterCase(Check):
    """All letters are capitals, or small, or every word begins with a capital (`title`)."""

    check: Literal["letter_case"]
    cost = 3
    case: Literal["upper", "lower", "title"] = Field(alias="is")

    @override
    def look(self, seen: Seen) -> Grade:
        if self.case == "title":
            passed, wrong = self._title(seen.reply)
        else:
            passed = seen.reply.isupper() if self.case == "upper" else seen.reply.islower()
            wrong = ""
        reason = f"letters are {'' if passed else 'not '}in {self.case} case"
        return verdict(passed, f"{reason}{wrong}")

    @staticmethod
    def _title(reply: str) -> tuple[bool, str]:
        some = False
        for word in words(reply):
            # A word in a script without capitals is neither right nor wrong.
            if word[0].islower():
                return False, f": {shown(word)}"
            some = some or word[0].isupper()
        return some, ""


class Alphabetical(Check):
    """Words, or lines without their list marks, are in order; needs two; accents are ignored."""

    check: Literal["alphabetical"]
    cost = 4
    by: Literal["word", "line"] = "word"

    @override
    def look(self, seen: Seen) -> Grade:
        if self.by == "word":
            parts = list(words(seen.reply))
        else:
            parts = [text for line in lines(seen.reply) if (text := unmarked(line))]
        if len(parts) < 2:
            return verdict(False, f"fewer than two {self.by}s")
        folds = [_unaccented(part.casefold()) for part in parts]
        for place in range(1, len(folds)):
            if folds[place] < folds[place - 1]:
                wrong = f"{shown(parts[place])} after {shown(parts[place - 1])}"
                return verdict(False, f"not in alphabetical order: {wrong}")
        return verdict(True, "in alphabetical order")


def _unaccented(text: str) -> str:
    """Letters without their accents."""
    if text.isascii():
        return text
    # Accents of their own go first: long runs of them make normalising quadratic.
    bare = "".join(sign for sign in text if not unicodedata.combining(sign))
    apart = unicodedata.normalize("NFD", bare)
    return "".join(sign for sign in apart if not unicodedata.combining(sign))


class Palindrome(Check):
    """Letters and digits read the same backwards; needs three at least."""

    check: Literal["palindrome"]
    cost = 4

    @override
    def look(self, seen: Seen) -> Grade:
        letters = "".join(words(seen.reply.casefold(), joined=False))
        passed = len(letters) >= 3 and letters == letters[::-1]
        return verdict(passed, f"{shown(letters)} is {'' if passed else 'not '}a palindrome")
