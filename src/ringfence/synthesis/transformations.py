"""Transformations of text whose result is exact. Knows nothing of instructions or rings."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from functools import cache
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ringfence.synthesis.case import Split
from ringfence.synthesis.catalogue import DATA
from ringfence.yaml_files import read

# What a transformation works on: running text, lines, a CSV table, or a JSON list of objects.
Kind = Literal["text", "csv", "json"]
GLOSSARY: dict[str, str] = {
    "the": "ze", "and": "und", "is": "iz", "of": "ov", "a": "un", "for": "fer", "with": "wiz",
    "to": "tu", "on": "onn", "not": "nicht",
}  # fmt: skip


class Wording(BaseModel):
    """How one transformation is asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    split: Literal["train", "eval"]
    texts: tuple[str, ...]


class Wordings(BaseModel):
    """transformations.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    transformations: dict[str, Wording]


@cache
def wordings() -> dict[str, Wording]:
    """Every transformation by its name."""
    return read(Wordings, DATA / "transformations.yaml").transformations


@cache
def of_split(split: Split) -> tuple[str, ...]:
    """Names of the transformations of a split."""
    return tuple(name for name, wording in wordings().items() if wording.split == split)


def kind_of(name: str) -> Kind:
    """What a transformation works on."""
    return "csv" if name == "csv-json" else "json" if name == "json-csv" else "text"


def glossary() -> str:
    """The table of the transformation `table`, as it is shown."""
    return ", ".join(f"{word} → {other}" for word, other in GLOSSARY.items())


def _upper(text: str) -> str:
    return text.upper()


def _word_order(text: str) -> str:
    return " ".join(reversed(text.split()))


def _count_words(text: str) -> str:
    return str(len(text.split()))


def _number_lines(text: str) -> str:
    return "\n".join(f"{number}: {line}" for number, line in enumerate(text.split("\n"), 1))


def _capitals(text: str) -> str:
    words = (re.sub(r"[\W_]+", "", word) for word in text.split())
    return ",".join(word for word in words if word[:1].isupper())


def _shout_vowels(text: str) -> str:
    return re.sub("[aeiouAEIOU]", "*", text)


def _csv_json(text: str) -> str:
    return json.dumps(list(csv.DictReader(io.StringIO(text))), ensure_ascii=False)


def _sort_lines(text: str) -> str:
    return "\n".join(sorted(text.split("\n")))


def _snake(text: str) -> str:
    return "_".join(text.lower().split())


def _copy(text: str) -> str:
    return text


def _dash_lines(text: str) -> str:
    return "\n".join(f"- {line}" for line in text.split("\n"))


def _one_line(text: str) -> str:
    return " ".join(text.split("\n"))


def _line_ends(text: str) -> str:
    return "\n".join(re.sub(r"[\W_]+", "", line.split()[-1]) for line in text.split("\n"))


def _enclosed(text: str) -> str:
    return f"BEGIN\n{text}\nFINISH"


def _joined_lines(text: str) -> str:
    return " | ".join(text.split("\n"))


def _line_starts(text: str) -> str:
    return "\n".join(line.split()[0] for line in text.split("\n"))


def _swap_case(text: str) -> str:
    return text.swapcase()


def _mirror(text: str) -> str:
    return text[::-1]


def _count_letters(text: str) -> str:
    return str(text.lower().count("e"))


def _quote_lines(text: str) -> str:
    return "\n".join(f"> {line}" for line in text.split("\n"))


def _initials(text: str) -> str:
    return "".join(word[0] for word in text.split())


def _table(text: str) -> str:
    pattern = "|".join(map(re.escape, GLOSSARY))
    return re.sub(rf"\b({pattern})\b", lambda match: GLOSSARY[match[1]], text)


def _json_csv(text: str) -> str:
    rows = json.loads(text)
    lines = [rows[0].keys(), *(row.values() for row in rows)]
    return "\n".join(";".join(line) for line in lines)


APPLY: dict[str, Callable[[str], str]] = {
    "upper": _upper,
    "word-order": _word_order,
    "count-words": _count_words,
    "number-lines": _number_lines,
    "capitals": _capitals,
    "shout-vowels": _shout_vowels,
    "csv-json": _csv_json,
    "sort-lines": _sort_lines,
    "snake": _snake,
    "copy": _copy,
    "dash-lines": _dash_lines,
    "one-line": _one_line,
    "line-ends": _line_ends,
    "enclosed": _enclosed,
    "joined-lines": _joined_lines,
    "line-starts": _line_starts,
    "swap-case": _swap_case,
    "mirror": _mirror,
    "count-letters": _count_letters,
    "quote-lines": _quote_lines,
    "initials": _initials,
    "table": _table,
    "json-csv": _json_csv,
}
