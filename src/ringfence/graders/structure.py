"""Checks on the form of a reply: lists, markup, acrostics. Knows nothing of what it says."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import override

from ringfence.graders.grades import Bounded, Check, Flag, Grade, Seen, shown, verdict
from ringfence.graders.pieces import lines, sentences, words

_BULLET = re.compile(r"\s*[-*+•]\s+(?=\S)")
_NUMBER = re.compile(r"\s*(\d{1,6})[.)]\s+(?=\S)")
_COUNTED = {
    "placeholders": re.compile(r"\[[^\[\]\n]{1,500}\]"),
    "headings": re.compile(r"(?m)^[ ]{0,3}#{1,6}[ \t]+\S"),
    "table_rows": re.compile(r"(?m)^[ ]{0,3}\|[^\n]*\|[ \t]*$"),
    "quotes": re.compile(r"(?m)^[ ]{0,3}>"),
    "rules": re.compile(r"(?m)^[ ]{0,3}(?:\*{3,}|-{3,}|_{3,})[ \t]*$"),
}
_CODE = re.compile(r"[ ]{0,3}```")
_SIGN = re.compile(r"[^\W_]")
_STARRED = re.compile(r"\*[^\n*]*\*")
_DOUBLE = re.compile(r"\*\*[^\n*]*\*\*")


class Items(Bounded):
    """Bounds on the number of items of a list."""


class ListForm(Check):
    """The reply is a list: bulleted, numbered from 1, separated by commas, or one item a line."""

    check: Literal["list_form"]
    cost = 6
    style: Literal["bullets", "numbers", "commas", "lines"]
    items: Items | None = None
    alone: Flag = True
    """Nothing but the list; otherwise lines around it are ignored (bullets and numbers only)."""

    @override
    def look(self, seen: Seen) -> Grade:
        found = _items(self.style, seen.reply, self.alone)
        if isinstance(found, str):
            return verdict(False, found)
        if self.items is not None:
            return self.items.within(found, "items")
        return verdict(True, f"a list of {found} items")


def _items(style: str, reply: str, alone: bool) -> int | str:
    """Number of items, or what is wrong with the list."""
    if style == "commas":
        parts = [part.strip() for part in reply.strip().split(",")]
        if len(lines(reply)) != 1 or len(parts) < 2 or not all(parts):
            return "not one line of at least two items between commas"
        return len(parts)
    rows = [line for line in reply.splitlines() if line.strip()]
    if style == "lines":
        marked = next((row for row in rows if _BULLET.match(row) or _NUMBER.match(row)), None)
        if marked is not None:
            return f"an item has a bullet or a number: {shown(marked)}"
        return len(rows) or "no items"
    return _marked(_BULLET if style == "bullets" else _NUMBER, rows, alone)


def _marked(mark: re.Pattern[str], rows: list[str], alone: bool) -> int | str:
    found = 0
    for row in rows:
        item = mark.match(row)
        if item is None:
            # Indented text goes on with the item before it.
            if alone and not (found and row[0].isspace()):
                return f"not an item of the list: {shown(row)}"
            continue
        found += 1
        if mark is _NUMBER and int(item.group(1)) != found:
            return f"item {found} has the number {item.group(1)}"
    return found or "no items"


class Markup(Bounded):
    """Number of Markdown elements of one kind."""

    check: Literal["markup"]
    cost = 6
    what: Literal[
        "bullets",
        "highlights",
        "bold",
        "headings",
        "placeholders",
        "code_blocks",
        "table_rows",
        "quotes",
        "rules",
    ]
    """`highlights`: `*so*` and `**so**`; `placeholders`: `[so]`; `rules`: lines across. A code
    block that is not closed counts against `at_most` and not for `at_least`."""

    @override
    def look(self, seen: Seen) -> Grade:
        number, words = _elements(self.what, seen.reply), self.what.replace("_", " ")
        grade = self.within(number, words)
        unclosed = self.what == "code_blocks" and _fences(seen.reply) % 2 == 1
        if grade.passed and unclosed and self.at_most is not None:
            # A reply cut short inside a block has begun one, which is one too many.
            return self.within(number + 1, words)
        return grade


def _fences(reply: str) -> int:
    return sum(1 for line in reply.splitlines() if _CODE.match(line))


def _elements(what: str, reply: str) -> int:
    if what == "bullets":
        return sum(1 for line in reply.splitlines() if _BULLET.match(line))
    if what == "code_blocks":
        return _fences(reply) // 2
    if what in ("bold", "highlights"):
        bold = sum(1 for found in _DOUBLE.finditer(reply) if found.group().strip("*\t "))
        single = sum(1 for found in _STARRED.finditer(reply) if found.group().strip("*\t "))
        return bold if what == "bold" else bold + single
    return sum(1 for _ in _COUNTED[what].finditer(reply))


class Acrostic(Check):
    """First letters of the lines, words or sentences spell a word; case is ignored."""

    check: Literal["acrostic"]
    cost = 10
    word: Annotated[str, Field(min_length=2, max_length=200, pattern=r"^\w+$")]
    by: Literal["line", "word", "sentence"] = "line"

    @override
    def look(self, seen: Seen) -> Grade:
        if self.by == "word":
            parts = list(words(seen.reply))
        else:
            parts = lines(seen.reply) if self.by == "line" else sentences(seen.reply)
        spelt = "".join(unmarked(part)[:1] for part in parts)
        passed = spelt.casefold() == self.word.casefold()
        return verdict(passed, f"{self.by}s spell {shown(spelt)}, wanted {shown(self.word)}")


def unmarked(part: str) -> str:
    """The part from its first letter on, after bullets, numbers and quotation marks."""
    item = _BULLET.match(part) or _NUMBER.match(part)
    first = _SIGN.search(part, item.end() if item else 0)
    return part[first.start() :] if first else ""
