"""A tree of drafts as an SVG picture: `ringfence picture` makes that of the README.

Knows rows of a tree and where to put them. The text of models is escaped like any other.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from ringfence.commandline import demo
from ringfence.commandline.escaping import one_line
from ringfence.commandline.terminal import colour
from ringfence.commandline.workplace import Workplace
from ringfence.errors import InputError
from ringfence.rendering import render_text
from ringfence.tree_view import DraftTree, Row, signed

PROMPT = "The food was cold and the waiter"
DEFAULTS = {**demo.DEFAULTS, "decoder": "guarded", "max_tokens": 36, "stop": ["\n"]}

_WIDTH = 960
_MARGIN = 32
_LINE = 22
_GAP = 14
_STEP = 30
_PILL = 58
# Advance of one character of the monospaced font at 15 px, the widest of the fonts named below.
_ADVANCE = 9.05
_FONT = "ui-monospace, 'SF Mono', Menlo, 'DejaVu Sans Mono', monospace"
_STYLE = f"""
text {{ font: 15px {_FONT}; fill: #1f2933; }}
.title {{ font-weight: 700; }}
.note, .more {{ fill: #7b8794; font-size: 13px; }}
.prompt {{ font-style: italic; fill: #52606d; }}
.kept {{ font-weight: 600; }}
.dropped {{ fill: #7b8794; text-decoration: line-through; }}
.pill {{ font-size: 13px; font-weight: 700; fill: #ffffff; text-anchor: middle; }}
"""


@dataclass(frozen=True, slots=True)
class _Placed:
    """A row with its lines and the height of its first one."""

    row: Row
    lines: tuple[str, ...]
    x: int
    y: int


async def picture(place: Workplace, prompt: str) -> str:
    """Run the decoder on a raw prompt and draw what happened.

    Raises:
        InputError: the decoder rewound nothing, so there is nothing to draw.
    """
    tokenizer = place.engine.card.tokenizer
    tree = DraftTree(prompt, tokenizer)
    async for event in place.events(render_text(prompt, tokenizer)):
        tree.grow(event)
    if tree.ended is None or not tree.ended.cost.rewinds:
        raise InputError("nothing was rewound; take another --seed or --prompt")
    name = place.principle.name if place.principle else "none"
    cost = tree.ended.cost
    title = f"{place.engine.card.name}, decoder {place.decoder}, principle {name}"
    note = (
        f"{cost.rewinds} rewinds, {cost.drafted} tokens drafted for {cost.committed} committed; "
        "values are the model's own verdicts"
    )
    return svg(list(tree.rows(breadth=4, depth=2)), title, note)


def svg(rows: Sequence[Row], title: str, note: str) -> str:
    """The picture of some rows."""
    placed = list(_placed(rows))
    bottom = placed[-1].y + len(placed[-1].lines) * _LINE
    height = bottom + 52
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" role="img" aria-label="{escape(title)}">',
        f"<style>{_STYLE}</style>",
        f'<rect width="{_WIDTH}" height="{height}" rx="14" fill="#ffffff" stroke="#d9dee4"/>',
        _text(_MARGIN, 40, "title", title),
        *_lines(placed),
        *(part for one in placed for part in _drawn(one)),
        _text(_MARGIN, height - 22, "note", note),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _placed(rows: Sequence[Row]) -> Iterator[_Placed]:
    y = 82
    for row in rows:
        x = _MARGIN + _STEP * (row.depth + (row.kind != "prompt"))
        indent = x + (_PILL + 14 if row.value is not None else 0)
        width = int((_WIDTH - _MARGIN - indent) / _ADVANCE)
        lines = tuple(textwrap.wrap(one_line(row.text, "⏎").strip(), width)) or ("",)
        yield _Placed(row, lines, x, y)
        y += len(lines) * _LINE + _GAP


def _drawn(one: _Placed) -> Iterator[str]:
    row, x, y = one.row, one.x, one.y
    kind = {"committed": "kept", "refused": "kept"}.get(row.kind, row.kind)
    if row.value is not None:
        r, g, b = colour(row.value)
        yield (
            f'<rect x="{x}" y="{y - 16}" width="{_PILL}" height="22" rx="11" '
            f'fill="rgb({r},{g},{b})"/>'
        )
        yield _text(x + _PILL // 2, y - 0.5, "pill", signed(row.value))
        x += _PILL + 14
    elif row.depth:
        x += 6
    for index, line in enumerate(one.lines):
        yield _text(x, y + index * _LINE, kind, line)


def _lines(placed: Sequence[_Placed]) -> Iterator[str]:
    """The trunk from the prompt to the last commit, and a curve to every branch."""
    trunk = _MARGIN + 10
    kept = [one.y for one in placed if one.row.kind in ("committed", "refused")]
    top = placed[0].y + (len(placed[0].lines) - 1) * _LINE + 10
    # Branches below the last commit hang on the trunk as well.
    end = max([one.y for one in placed if one.row.depth == 1] + kept, default=top) - 5
    yield f'<path d="M{trunk} {top}V{end}" stroke="#9aa5b1" stroke-width="2" fill="none"/>'
    above: dict[int, int] = {}
    for one in placed:
        depth, y = one.row.depth, one.y - 5
        if one.row.kind in ("committed", "refused"):
            yield f'<path d="M{trunk} {y}H{one.x}" stroke="#9aa5b1" stroke-width="2"/>'
            r, g, b = colour(one.row.value if one.row.value is not None else 1.0)
            yield f'<circle cx="{trunk}" cy="{y}" r="6" fill="rgb({r},{g},{b})"/>'
        elif depth:
            start = trunk + _STEP * (depth - 1) + (20 if depth > 1 else 0)
            begin = above.get(depth - 1, y - 24) + 11 if depth > 1 else y - 12
            yield (
                f'<path d="M{start} {begin}V{y - 8}Q{start} {y} {start + 8} {y}H{one.x}" '
                'stroke="#cbd2d9" stroke-width="1.6" fill="none"/>'
            )
        above[depth] = y


def _text(x: float, y: float, kind: str, text: str) -> str:
    return f'<text x="{x}" y="{y}" class="{kind}">{escape(text)}</text>'
