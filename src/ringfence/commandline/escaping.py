"""Text of models and files made safe to show. Knows nothing of where it is shown.

A terminal obeys control characters, so text that somebody else wrote could move the cursor, change
the window title or type for the user. Every character that is not plainly visible is shown as an
escape instead.
"""

from __future__ import annotations

import unicodedata

# Other, control and format characters, surrogates, private use, unassigned; line and paragraph
# separators. Format characters hold the direction overrides that make text read as another text.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def printable(text: str) -> str:
    r"""The text with hidden characters as escapes; newlines and tabs stay.

    A zero-width joiner becomes \u200d as well: emoji families come apart, and nothing hides.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(character if _visible(character) else _escape(character) for character in text)


def one_line(text: str, newline: str = " ") -> str:
    """As `printable`, on one line."""
    return printable(text).replace("\n", newline).replace("\t", " ")


def _visible(character: str) -> bool:
    return character in "\n\t" or unicodedata.category(character) not in _HIDDEN


def _escape(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
