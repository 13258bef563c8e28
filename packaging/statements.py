r"""Makes data/statements.csv of the synthesis: sentences that the packaged model wrote itself.

    python packaging/statements.py ask PROMPTS.jsonl
    ringfence generate --prompts PROMPTS.jsonl --adapter none --decoder plain --max-tokens 48 \
      --temperature 0.8 --seed 1 --out REPLIES.jsonl
    python packaging/statements.py keep REPLIES.jsonl

They are right replies to the requests of mentions.yaml, for training. Thirty-five written by hand
were learnt by heart. The file that ships was made in two halves (`split -n l/2`), one a core, each
with seed 1.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path

from ringfence.synthesis import catalogue

TARGET = catalogue.DATA / "statements.csv"
# Of every request.
_TRIES = 2
_SHORT = " Keep it short."
_FEWEST, _MOST = 5, 22
_SENTENCE = re.compile(r"([^.!?]+[.!?])(?=\s|$)")
_PLAIN = re.compile(r"[A-Z][A-Za-z ]*\.")
# The model about itself, or about the request.
_UNWANTED = re.compile(r"\b(?:AI|language model|sorry|Sure|short|sentence)\b")


def ask(target: Path) -> None:
    """Write every request of the training split about every subject."""
    lines = []
    for name, mention in catalogue.mentions("train").items():
        for subject in catalogue.names("train")[mention.subject]:
            for number, request in enumerate(mention.asks * _TRIES):
                text = request.replace("{subject}", subject) + _SHORT
                messages = [{"role": "user", "content": text}]
                lines.append({"id": f"{name}|{subject}|{number}", "messages": messages})
    target.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    print(f"{target}: {len(lines)} requests")


def keep(replies: Path) -> None:
    """Write the first sentence of every reply that is plain and names its subject once."""
    kept: dict[str, tuple[str, str]] = {}
    lines = replies.read_text("utf-8").splitlines()
    for line in lines:
        reply = json.loads(line)
        name, subject, _ = reply["id"].split("|")
        said = (_plain(found[1], subject) for found in _SENTENCE.finditer(reply["reply"]))
        if statement := next(filter(None, said), None):
            kept.setdefault(statement, (name, subject))
    rows = sorted((name, subject, statement) for statement, (name, subject) in kept.items())
    with TARGET.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("mention", "subject", "statement"))
        table.writerows(rows)
    print(f"{TARGET}: {len(rows)} statements from {len(lines)} replies")


def _plain(sentence: str, subject: str) -> str | None:
    """The sentence if it will do, without its commas: some rules forbid them."""
    sentence = sentence.strip().replace("!", ".").replace(",", "")
    if _UNWANTED.search(sentence) or not _PLAIN.fullmatch(sentence):
        return None
    words = re.findall(r"[A-Za-z]+", sentence)
    if sentence.count(subject) != 1 or not set(subject.split()) <= set(words):
        return None
    return sentence if _FEWEST <= len(words) <= _MOST else None


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in {"ask", "keep"}:
        sys.exit(__doc__)
    (ask if sys.argv[1] == "ask" else keep)(Path(sys.argv[2]))
