r"""Regular expressions that cannot run away. Knows nothing of checks but `regex`.

Expressions are RE2's (google-re2), not those of `re` or `regex`: an expression comes with a case,
cases come from files that anyone may have written, and RE2 is the one engine whose time is linear
in the text whatever the expression, whose compiled size is bounded, and whose verdict does not
depend on a clock as a time-out's does. The price: no look-around and no references back; `\w`,
`\d`, `\s` and `\b` know ASCII only (`\p{L}` is any letter, `\p{N}` any digit).

Linear is not fast: time is at worst text times size of the program. So texts are read up to
`STEPS` steps; beyond that only the ends are searched.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from typing_extensions import override

from ringfence.graders.grades import Check, Flag, Grade, Seen, shown, undecided, verdict
from ringfence.graders.optional import library, require

STEPS = 120_000_000
"""Characters times states of the program: about a second and a half at worst."""
PROGRAM_BYTES = 1 << 20
COMPILING = 50
"""Characters whose search takes as long as compiling: of many patterns few are kept."""


def _compiles(pattern: str) -> str:
    require("re2", "google-re2")
    Program.of(pattern)
    return pattern


Pattern = Annotated[str, Field(min_length=1, max_length=2_000), AfterValidator(_compiles)]


class Program:
    """A compiled expression that reads no more than it may."""

    __slots__ = ("_regexp", "size")

    def __init__(self, pattern: str) -> None:
        """Compile a pattern.

        Raises:
            ValueError: it is none of RE2's, or too large.
        """
        re2 = library("re2")
        options = re2.Options()
        options.max_mem = PROGRAM_BYTES
        options.log_errors = False
        try:
            self._regexp: Any = re2.compile(pattern, options)
        except re2.error as error:
            why = error.args[0] if error.args else error
            why = why.decode("utf-8", "replace") if isinstance(why, bytes) else why
            hint = "; look-around and references back are not available" if "(?" in pattern else ""
            raise ValueError(f"not a regular expression of RE2's: {why}{hint}") from None
        self.size = max(1, int(self._regexp.programsize))

    @staticmethod
    @lru_cache(maxsize=64)
    def of(pattern: str) -> Program:
        """The program of an expression.

        Raises:
            ValueError: it is not one, or it is too large.
        """
        return Program(pattern)

    def found(self, text: str, *, full: bool = False) -> bool | None:
        """Whether it matches somewhere, or all of the text; None if the text is too long to tell.

        Of a text too long both ends are searched; a match there is a match.
        """
        data = text.encode("utf-8", "replace")
        reach = STEPS // self.size
        if len(data) <= reach:
            method = self._regexp.fullmatch if full else self._regexp.search
            return method(data) is not None
        if full:
            return None
        # All of the text is given: where it is cut, `^`, `$` and `\b` are to see no end of it.
        search, half = self._regexp.search, reach // 2
        return True if search(data, 0, half) or search(data, len(data) - half) else None

    def price(self, length: int) -> int:
        """What searching a text counts (see `READING`); ten steps are about one character."""
        return min((length + COMPILING) * self.size, STEPS) // 10

    def count(self, text: str, enough: int, seen: Seen) -> int | None:
        """Matches that do not overlap, up to `enough`; None if that would take too long.

        Pays for each search.
        """
        data = text.encode("utf-8", "replace")
        left = STEPS
        found = place = 0
        while found < enough:
            # Each search may read all the rest, so many matches cost the square of the text.
            left -= (len(data) - place + 1) * self.size
            if left < 0 or not seen.pay(self.price(len(data) - place)):
                return None
            match = self._regexp.search(data, place)
            if match is None:
                break
            found += 1
            if match.end() >= len(data):
                break
            place = match.end() if match.end() > match.start() else _after(data, match.end())
        return found


def _after(data: bytes, place: int) -> int:
    """Where the next character begins."""
    place += 1
    while place < len(data) and data[place] & 0xC0 == 0x80:
        place += 1
    return place


class Regex(Check):
    """A regular expression (RE2) matches somewhere in the reply, or all of it."""

    check: Literal["regex"]
    any_length = True
    pattern: Pattern
    full: Flag = False
    """It must match all of the reply, outer space left out."""

    @override
    def price(self, length: int) -> int:
        return Program.of(self.pattern).price(length)

    @override
    def look(self, seen: Seen) -> Grade:
        reply = seen.reply.strip() if self.full else seen.reply
        found = Program.of(self.pattern).found(reply, full=self.full)
        if found is None:
            return undecided(f"a reply of {len(reply):,} characters is too long for this pattern")
        matches = "matches" if found else "does not match"
        return verdict(found, f"{matches} {shown(self.pattern)}")
