"""HTML made of text that somebody else wrote. Knows nothing of what a page says.

Characters that are not plainly visible, such as direction overrides, are shown as escapes, so that
a text reads as what it is.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable, Sequence

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Of other categories, and drawn as nothing all the same: Unicode's Default_Ignorable_Code_Point,
# but for U+FE0F, which stands behind emoji.
_IGNORABLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0e\uffa0\U000e0100-\U000e01ef]"
)
_PLAIN = re.compile(r"[ -~\n\t]*\Z")


def shown(text: object, most: int = 100_000) -> str:
    """Text as HTML; what is longer than `most` characters is cut, and says so."""
    whole = str(text)
    cut = "" if len(whole) <= most else f'<span class="cut">… {len(whole) - most} more</span>'
    whole = whole[:most]
    if _PLAIN.match(whole):
        return html.escape(whole) + cut
    return "".join(_sign(sign) for sign in whole) + cut


def attribute(text: object) -> str:
    """Text as the value of an attribute in double quotes, on one line."""
    visible = "".join(sign if sign == " " or not _hidden(sign) else " " for sign in str(text))
    return html.escape(visible)


def anchor(*words: object) -> str:
    """An id for a place on a page: the same words give the same one, others another."""
    import hashlib

    whole = "\x1f".join(map(str, words))
    plain = re.sub(r"[^a-z0-9]+", "-", whole.lower())[:40].strip("-")
    return f"{plain}-{hashlib.sha256(whole.encode('utf-8', 'replace')).hexdigest()[:8]}"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """A table that scrolls on narrow screens. Cells are HTML; the first of a row heads it."""
    parts = ['<div class="wide"><table>']
    if caption:
        parts.append(f"<caption>{caption}</caption>")
    parts.append("<thead><tr>" + "".join(f"<th>{one}</th>" for one in heads) + "</tr></thead>")
    parts.append("<tbody>")
    for row in rows:
        first, *rest = row
        cells = "".join(f"<td>{one}</td>" for one in rest)
        parts.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    parts.append("</tbody></table></div>")
    return "".join(parts)


def _sign(sign: str) -> str:
    if sign in "\n\t" or not _hidden(sign):
        return html.escape(sign)
    code = ord(sign)
    name = f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return f'<span class="hidden">{name}</span>'


def _hidden(sign: str) -> bool:
    return unicodedata.category(sign) in _HIDDEN or _IGNORABLE.match(sign) is not None
