"""How text, values and rows look in a terminal. Knows nothing of what is shown.

Text is put into `Text` objects and never into markup, and made printable first: see `escaping`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from rich.cells import cell_len
from rich.console import Console
from rich.style import Style
from rich.text import Text

from ringfence.commandline.escaping import one_line, printable
from ringfence.tree_view import Row, signed

DIM = Style(dim=True)
DROPPED = Style(strike=True, dim=True)
COMMITTED = Style(bold=True)
# From red over amber to green; readable on dark and on light ground.
_BAD, _MIDDLE, _GOOD = (204, 51, 63), (201, 138, 27), (38, 145, 80)


def console(*, stderr: bool = False) -> Console:
    """A console that takes no markup, highlights nothing and replaces no :names: by emoji."""
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False, soft_wrap=True)


def emit(json_text: str) -> None:
    """One line of JSON on stdout; `json.dumps` has escaped whatever a terminal would obey."""
    sys.stdout.write(json_text.replace("\x7f", "\\u007f") + "\n")
    sys.stdout.flush()


def colour(value: float) -> tuple[int, int, int]:
    """Red at -1, amber at 0, green at 1."""
    start, end, share = (_BAD, _MIDDLE, value + 1) if value < 0 else (_MIDDLE, _GOOD, value)
    share = min(1.0, max(0.0, share))
    r, g, b = (round(one + (two - one) * share) for one, two in zip(start, end, strict=True))
    return r, g, b


def valued(value: float | None, *, width: int = 5) -> Text:
    """A value in its colour; blank where nothing was judged."""
    if value is None:
        return Text(" " * width)
    r, g, b = colour(value)
    return Text(signed(value), Style(color=f"rgb({r},{g},{b})", bold=True))


def shown(text: str, style: Style | None = None) -> Text:
    """Somebody's text, safe, on one line."""
    return Text(one_line(text, "⏎"), style or Style())


def shown_lines(text: str, style: Style | None = None) -> Text:
    """Somebody's text, safe, with its line breaks."""
    return Text(printable(text), style or Style())


def tree(rows: Iterable[Row], width: int) -> Text:
    """Rows of a tree of drafts: the trunk of what was committed, dropped branches beside it."""
    lines = [line for row in rows for line in _row(row, width)]
    return Text("\n").join(lines)


def _row(row: Row, width: int) -> list[Text]:
    trunk = Text("│ ", DIM)
    if row.kind == "prompt":
        return _wrapped(Text(), Text(), shown(row.text, Style(italic=True)), width)
    if row.kind == "committed":
        head = Text("● ", COMMITTED) + valued(row.value) + Text(" ")
        return _wrapped(head, trunk, shown(row.text, COMMITTED), width)
    if row.kind == "refused":
        head = Text("■ ", COMMITTED) + valued(row.value) + Text(" ")
        return _wrapped(head, Text("  "), shown(f"refused: {row.text}", COMMITTED), width)
    below = trunk + Text("  " * (row.depth - 1))
    if row.kind == "more":
        return _wrapped(below + Text("└ ", DIM), below, shown(row.text, DIM), width)
    head = below + Text("✗ ", Style(color="red")) + valued(row.value) + Text(" ")
    return _wrapped(head, below, shown(row.text, DROPPED), width)


def _wrapped(head: Text, under: Text, text: Text, width: int) -> list[Text]:
    """Text broken at words, its later lines indented below the first."""
    indent = cell_len(head.plain)
    lines = _broken(text, max(20, width - indent))
    blank = Text(" " * (indent - cell_len(under.plain)))
    return [(head if index == 0 else under + blank) + line for index, line in enumerate(lines)]


def _broken(text: Text, width: int) -> list[Text]:
    return list(text.wrap(Console(width=width), width)) or [Text()]
