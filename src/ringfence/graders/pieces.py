"""The pieces of a text: lines, paragraphs, sentences, words. Knows nothing of checks.

Every function takes time linear in the text, whatever the text is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_JOINED = re.compile(r"\w+(?:['’\-]\w+)*")
_WRITTEN = re.compile(r"\w+(?:['’\-./]\w+)*")
_APART = re.compile(r"\w+(?:[\-./]\w+)*")
_WORD = re.compile(r"\w+")
_SAID = re.compile(r"[^\W_]")
_BLANK = re.compile(r"\n[^\S\n]*\n\s*")
_ITEM = re.compile(r"[^\S\n]*(?:[-*+•]|\d{1,4}[.)])[^\S\n]")
# A sentence may end here: closing punctuation, then quotes or brackets, then space or the end.
# Looking back keeps a long row of dots from being tried at every dot.
_END = re.compile(r"(?<![.!?…])[.!?…]+[\"'”’)\]*_]*(?=\s|\Z)|[。！？]+[”’」』）]*|[।؟۔]+")
_NEXT = re.compile(r"[\s\"'“‘(\[*_]*(\S)")
# Abbreviations that a name, a number or more of the sentence follows.
_BEFORE_NAMES = frozenset(
    "mr mrs ms dr prof st mt gen col sgt capt lt rev hon gov sen rep no vol fig vs v cf e.g i.e viz"
    " approx ca messrs jr sr al p pp ed eds".split()
)
# Abbreviations that may as well end a sentence: only a capital after them tells.
_ANYWHERE = frozenset(
    "etc inc ltd co corp u.s u.k u.n d.c a.m p.m ph.d b.c a.d jan feb mar apr jun jul aug sep"
    " sept oct nov dec mon tue wed thu fri sat sun ave blvd dept est".split()
)


def words(text: str, *, joined: bool = True) -> Iterator[str]:
    """Words; `joined` takes "don't" and "well-known" for one word each.

    Scripts without spaces give a word for every run between spaces or punctuation.
    """
    return (found.group() for found in (_JOINED if joined else _WORD).finditer(text))


def capital_words(text: str, *, joined: bool = True) -> Iterator[str]:
    """Words in capitals; "U.S." and "I/O" are one each, and so is "DON'T" if `joined`."""
    pattern = _WRITTEN if joined else _APART
    return (found.group() for found in pattern.finditer(text) if found.group().isupper())


def lines(text: str) -> list[str]:
    """Lines that are not blank, without the space around them."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def paragraphs(text: str) -> list[str]:
    """What stands between blank lines, without the space around it."""
    return [part.strip() for part in _BLANK.split(text) if part.strip()]


def sentences(text: str, *, layout: bool = True) -> list[str]:
    """Sentences, told by punctuation and common English abbreviations.

    `layout`: a blank line and a list item end a sentence too, and neither the number of an item
    nor what has no letter or digit, such as a rule or an emoji, is one.
    """
    if not layout:
        return list(_sentences(text))
    found = (one for block in _blocks(text) for one in _sentences(block))
    return [one for one in found if _SAID.search(one)]


def _blocks(text: str) -> Iterator[str]:
    block: list[str] = []
    for line in text.splitlines():
        item = _ITEM.match(line)
        if block and (item or not line.strip()):
            yield " ".join(block)
            block = []
        rest = line[item.end() :] if item else line
        if rest.strip():
            block.append(rest)
    if block:
        yield " ".join(block)


def _sentences(text: str) -> Iterator[str]:
    start = 0
    for end in _END.finditer(text):
        if _ends(text, start, end) and (sentence := text[start : end.end()].strip()):
            yield sentence
            start = end.end()
    if rest := text[start:].strip():
        yield rest


def _ends(text: str, start: int, end: re.Match[str]) -> bool:
    """Whether a sentence ends at this punctuation, rather than an abbreviation."""
    mark = end.group()
    if not mark.startswith(".") and not mark.startswith("…"):
        return True
    following = _NEXT.match(text, end.end(), end.end() + 40)
    first = following.group(1) if following else ""
    if mark.startswith(("..", "…")):
        return not first.islower()
    # Forty characters hold any abbreviation; all of the sentence would make this quadratic.
    before = text[max(start, end.start() - 40) : end.start()]
    word = (before.split() or [""])[-1].lstrip("\"'“‘([*_")
    token = word.lower()
    if not first:
        return True
    if token in _BEFORE_NAMES or (len(word) == 1 and word.isupper() and word != "I"):
        return False
    if token in _ANYWHERE:
        return first.isupper()
    if token.isdecimal():
        return not first.islower()
    return True
