"""Follows every piece of text through a template. Knows nothing of tokens or of where pieces go.

The template runs twice: with marks around the pieces, and without. Where both texts agree, marks
changed nothing and tell who wrote what. Where they do not, the template looks at the ends of some
pieces: what it trims is found out with white space of our own, and blank pieces go unmarked.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ringfence.rendering.layouts import Layout, Piece
from ringfence.rendering.marks import BrokenMarks, Marks

# Spaces that templates do not write; `strip` takes them away, `strip("\n")` does not.
_LEFT, _RIGHT = "\u2003", "\u2002"
# What may be left of the white space on either side, plain or as JSON, and what that means.
_KEPT_LEFT = {f"\n{_LEFT}": "keep", f"\\n{_LEFT}": "keep", _LEFT: "newlines", "": "all"}
_KEPT_RIGHT = {f"{_RIGHT}\n": "keep", f"{_RIGHT}\\n": "keep", _RIGHT: "newlines", "": "all"}
_CALLED = ("call", "called")
_NEEDED = ("content", "wrapper", "tool", *_CALLED)
Order = list[tuple[int | None, str]]
Runner = Callable[[Layout, Callable[[int], str]], str]


class Unfit(Exception):
    """A plan under which the template loses, moves, repeats or rewrites something."""


@dataclass(frozen=True, slots=True)
class _Trim:
    """What a template takes off a piece: white space, newlines only, or nothing; at either end."""

    left: str = "keep"
    right: str = "keep"

    def of(self, text: str) -> str:
        if self.left != "keep":
            text = text.lstrip("\n" if self.left == "newlines" else None)
        if self.right != "keep":
            text = text.rstrip("\n" if self.right == "newlines" else None)
        return text


def trace(layout: Layout, marks: Marks, run: Runner) -> Order:
    """What the template makes of a layout: (number of the piece or None, text) in order.

    In the template's own text, guards stand in what came from elsewhere.
    Notes about what it leaves out on purpose are added to the layout.

    Raises:
        Unfit: something is lost, or cannot be followed.
        TemplateFailed: the template fails.
    """
    texts = [piece.text for piece in layout.pieces]

    def marked(texts: Sequence[str], *, blanks: bool = True, around: bool = False) -> Order:
        def dress(index: int) -> str:
            text = texts[index]
            if around:
                return f"\n{_LEFT}{marks.stamped(index, text)}{_RIGHT}\n"
            return marks.stamped(index, text) if blanks or text.strip() else text

        try:
            return marks.cut(run(layout, dress))
        except BrokenMarks:
            raise Unfit(
                "messages: the chat template cuts a message apart. Render with another template."
            ) from None

    order = marked(texts)
    _check(order, layout.pieces)
    plain = marks.plain(run(layout, lambda index: marks.guarded(texts[index])))
    if _text(order, marks) == plain:
        return _noted(order, layout, texts)
    words = ["x"] * len(texts)
    trims = _trims(marked(words), marked(words, around=True))
    trimmed = [trims.get(index, _Trim()).of(text) for index, text in enumerate(texts)]
    order = marked(trimmed)
    if _text(order, marks) == plain:
        return _noted(order, layout, trimmed)
    # Templates often leave out what is blank, and may leave out something else for its sake.
    order = marked(trimmed, blanks=False)
    if _text(order, marks) == plain:
        _check(order, layout.pieces, blanks=False)
        return _noted(order, layout, trimmed)
    raise Unfit(
        "messages: the chat template rewrites message text in a way that cannot be followed token "
        "by token. Render with another template (a template file), or report this one."
    )


def _text(order: Order, marks: Marks) -> str:
    return marks.plain("".join(part for _, part in order))


def _noted(order: Order, layout: Layout, texts: Sequence[str]) -> Order:
    """Notes of what the template leaves out on purpose, and of what it makes of `texts`.

    Raises:
        Unfit: what we write around tools is not what we wrote.
    """
    rewritten: dict[int | None, None] = {}
    for index, text in order:
        if index is None:
            continue
        piece = layout.pieces[index]
        if piece.kind == "wrapper" and piece.text != text:
            raise Unfit(
                "messages: the chat template rewrites what stands around tool calls and results. "
                "Render with another template."
            )
        if piece.kind in ("content", "reasoning") and text != texts[index]:
            rewritten[piece.message] = None
    layout.notes += [f"messages[{n}]: the template rewrites this message" for n in rewritten]
    seen = {index for index, _ in order}
    left_out = 0
    for index, piece in enumerate(layout.pieces):
        if index in seen:
            continue
        if piece.kind == "reasoning":
            layout.notes.append(
                f"messages[{piece.message}]: the template leaves out the reasoning of this reply"
            )
        elif piece.kind == "content":
            layout.notes.append(f"messages[{piece.message}]: is blank; the template may ignore it")
        left_out += piece.kind == "detail"
    if left_out:
        layout.notes.append(f"tools: the template leaves out {left_out} texts of the definitions")
    return order


def _check(order: Order, pieces: Sequence[Piece], *, blanks: bool = True) -> None:
    """Every piece where its kind wants it; blank ones only with `blanks`.

    Raises:
        Unfit: one is missing, repeated or elsewhere.
    """
    seen = [index for index, _ in order if index is not None]
    present = set(seen)
    for index, piece in enumerate(pieces):
        if index in present or piece.kind not in _NEEDED:
            continue
        if not blanks and not piece.text.strip():
            continue
        if piece.kind == "tool":
            raise Unfit(
                f"tools: the chat template drops {piece.text[:60]!r}. Use a model whose template "
                "has tools, or describe them in the system message."
            )
        what = "a tool call of this message" if piece.kind in _CALLED else "this message"
        raise Unfit(
            f"messages[{piece.message}]: the chat template drops {what}. Move it to a role the "
            "template has (system or user), or use a model whose template has the role."
        )
    contents = [index for index in seen if pieces[index].kind in ("content", "wrapper")]
    if len(contents) != len(set(contents)):
        raise Unfit("messages: the chat template repeats a message. Render with another template.")
    if contents != sorted(contents):
        late = next(b for a, b in zip(contents, contents[1:], strict=False) if b < a)
        raise Unfit(
            f"messages[{pieces[late].message}]: the chat template changes the order of the "
            "messages. Put system messages first, or render with another template."
        )


def _trims(bare: Order, spaced: Order) -> dict[int, _Trim]:
    """What a template takes off each piece: from its text without, and with, white space around.

    Orders alternate between the template's own text and a piece. In the template's own text stands
    whatever it left of the white space; what it wrote itself is known from the bare text.
    """
    trims: dict[int, _Trim] = {}
    if [index for index, _ in bare] != [index for index, _ in spaced]:
        return trims
    before = None
    for place in range(0, len(bare), 2):
        after = bare[place + 1][0] if place + 1 < len(bare) else None
        rights = _KEPT_RIGHT if before is not None else {"": "keep"}
        lefts = _KEPT_LEFT if after is not None else {"": "keep"}
        for right, left in itertools.product(rights, lefts):
            if spaced[place][1] == right + bare[place][1] + left:
                if before is not None:
                    trims[before] = replace(trims.get(before, _Trim()), right=rights[right])
                if after is not None:
                    trims[after] = replace(trims.get(after, _Trim()), left=lefts[left])
                break
        before = after
    return trims
