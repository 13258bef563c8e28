"""Disguises that can be undone: the same text in other characters. Knows nothing of phrasing."""

from __future__ import annotations

import base64
import binascii
import codecs
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ringfence.errors import InputError

_ZERO_WIDTH = "\u200b"


def _swap(left: str, right: str) -> dict[int, int]:
    """A table that exchanges characters, so that applying it twice changes nothing."""
    return str.maketrans(left + right, right + left)


_LEET = _swap("aeiost", "431057")
# Latin letters and Cyrillic ones that look the same.
_HOMOGLYPHS = _swap("aceopxyABCEHKMOPTX", "асеорхуАВСЕНКМОРТХ")


@dataclass(frozen=True, slots=True)
class Encoding:
    """One disguise.

    Attributes:
        name: as mutators call it.
        words: as people call it, in a sentence.
        framed: whether a reader has to be told how to undo it.
        encode: text → disguised text.
        decode: the way back; exact for any text that `encode` took.
    """

    name: str
    words: str
    framed: bool
    encode: Callable[[str], str]
    decode: Callable[[str], str]


def _to_base64(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "surrogatepass")).decode("ascii")


def _from_base64(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode("utf-8", "surrogatepass")
    except (binascii.Error, ValueError) as error:
        raise InputError(f"base64: not the encoding of a text: {error}") from error


def _rot13(text: str) -> str:
    return codecs.encode(text, "rot13")


def _reversed(text: str) -> str:
    return text[::-1]


def _leet(text: str) -> str:
    return text.translate(_LEET)


def _homoglyphs(text: str) -> str:
    return text.translate(_HOMOGLYPHS)


def _with_zero_width(text: str) -> str:
    return _ZERO_WIDTH.join(text)


ENCODINGS: Mapping[str, Encoding] = MappingProxyType(
    {
        encoding.name: encoding
        for encoding in (
            Encoding("base64", "base64", True, _to_base64, _from_base64),
            Encoding("rot13", "rot13", True, _rot13, _rot13),
            Encoding("reversal", "reversed letters", True, _reversed, _reversed),
            Encoding("spacing", "spaced letters", False, " ".join, lambda text: text[::2]),
            Encoding("leetspeak", "leetspeak", False, _leet, _leet),
            Encoding(
                "zero-width",
                "text with invisible characters",
                False,
                _with_zero_width,
                lambda text: text[::2],
            ),
            Encoding("homoglyph", "look-alike letters", False, _homoglyphs, _homoglyphs),
        )
    }
)
