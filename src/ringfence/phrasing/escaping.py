"""How text is written inside documents of other formats, and read back. Knows nothing of frames.

Every way is exact: `read(write(text)) == text` for any text that `carriable` accepts.
"""

from __future__ import annotations

import html
import json
import quopri
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from urllib.parse import quote, unquote

# Control and line-separating characters that some format cannot hold, whatever is done to them.
_UNCARRIABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff\ufeff]"
)
_FOLD_OCTETS = 74
_COMMENT_END = re.compile(r"\*(\\*)/")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_LETTERS = {"n": "\n", "t": "\t"}


@dataclass(frozen=True, slots=True)
class Escaping:
    """One way of writing text inside something else.

    Attributes:
        name: as carriers call it.
        write: text → what stands in the document.
        read: what stands in the document → text.
    """

    name: str
    write: Callable[[str], str]
    read: Callable[[str], str]


def carriable(text: str) -> bool:
    """Whether every format can hold the text: no control characters but line feed and tab."""
    return _UNCARRIABLE.search(text) is None


def _same(text: str) -> str:
    return text


def _write_line(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")


def _unescape(text: str) -> str:
    return _ESCAPED.sub(lambda match: _LETTERS.get(match[1], match[1]), text)


def _write_attribute(text: str) -> str:
    return html.escape(text).replace("\n", "&#10;").replace("\t", "&#9;")


def _write_html_comment(text: str) -> str:
    return html.escape(text, quote=False).replace("--", "&#45;&#45;")


def _write_cdata(text: str) -> str:
    return text.replace("]]>", "]]]]><![CDATA[>")


def _read_cdata(text: str) -> str:
    return text.replace("]]]]><![CDATA[>", "]]>")


def _write_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _read_json(text: str) -> str:
    return str(json.loads(f'"{text}"'))


def _write_docstring(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _read_docstring(text: str) -> str:
    return _ESCAPED.sub(r"\1", text)


def _write_block_comment(text: str) -> str:
    return _COMMENT_END.sub(r"*\1\\/", text)


def _read_block_comment(text: str) -> str:
    return re.sub(r"\*(\\*)\\/", r"*\1/", text)


def _write_cell(text: str) -> str:
    return html.escape(text, quote=False).replace("|", "&#124;").replace("\n", "<br>")


def _read_cell(text: str) -> str:
    return html.unescape(text.replace("<br>", "\n"))


def _write_folded(text: str) -> str:
    """The text of an iCalendar or vCard property (RFC 5545, section 3.1 and 3.3.11)."""
    escaped = re.sub(r"([\\;,])", r"\\\1", text).replace("\n", "\\n")
    lines, octets = [[]], 0  # type: list[list[str]], int
    for character in escaped:
        size = len(character.encode())
        if octets + size > _FOLD_OCTETS:
            lines.append([])
            octets = 0
        lines[-1].append(character)
        octets += size
    return "\n ".join("".join(line) for line in lines)


def _read_folded(text: str) -> str:
    unfolded = text.replace("\n ", "")
    return _ESCAPED.sub(lambda match: "\n" if match[1] in "nN" else match[1], unfolded)


def _write_quoted_printable(text: str) -> str:
    return quopri.encodestring(text.encode()).decode("ascii")


def _read_quoted_printable(text: str) -> str:
    return quopri.decodestring(text.encode("ascii")).decode()


def _write_prefixed(prefix: str, text: str) -> str:
    return text.replace("\n", f"\n{prefix}")


def _read_prefixed(prefix: str, text: str) -> str:
    return text.replace(f"\n{prefix}", "\n")


def _prefixed(name: str, prefix: str) -> Escaping:
    """Lines that each begin with a mark; the mark of the first line belongs to the frame."""
    return Escaping(name, partial(_write_prefixed, prefix), partial(_read_prefixed, prefix))


ESCAPINGS: Mapping[str, Escaping] = MappingProxyType(
    {
        escaping.name: escaping
        for escaping in (
            Escaping("plain", _same, _same),
            Escaping("line", _write_line, _unescape),
            Escaping("markup", html.escape, html.unescape),
            Escaping("attribute", _write_attribute, html.unescape),
            Escaping("html-comment", _write_html_comment, html.unescape),
            Escaping("cdata", _write_cdata, _read_cdata),
            Escaping("json", _write_json, _read_json),
            Escaping(
                "csv", lambda text: text.replace('"', '""'), lambda text: text.replace('""', '"')
            ),
            Escaping("docstring", _write_docstring, _read_docstring),
            Escaping("block-comment", _write_block_comment, _read_block_comment),
            Escaping("cell", _write_cell, _read_cell),
            Escaping("folded", _write_folded, _read_folded),
            Escaping("percent", partial(quote, safe=""), unquote),
            Escaping("quoted-printable", _write_quoted_printable, _read_quoted_printable),
            _prefixed("hash", "# "),
            _prefixed("slashes", "// "),
            _prefixed("dashes", "-- "),
            _prefixed("percents", "% "),
            _prefixed("quote", "> "),
            _prefixed("plus", "+"),
            _prefixed("indent", "    "),
        )
    }
)
