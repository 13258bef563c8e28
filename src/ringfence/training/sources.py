"""Training data from files, with the proof that none of it is for evaluation. Knows no tokens.

A source is a folder that `ringfence synthesize` or `ringfence train pairs` wrote, with its
manifest, or one JSONL file of conversations, of which nothing is known but its bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ringfence.errors import InputError
from ringfence.principle import Principle
from ringfence.training.overlap import strings
from ringfence.training.recipe import Kind

Json = dict[str, Any]
FILES: Mapping[Kind, str] = {"sft": "sft.jsonl", "dpo": "preferences.jsonl"}
MANIFEST = "manifest.json"
_WANTED: Mapping[Kind, tuple[str, ...]] = {
    "sft": ("messages",),
    "dpo": ("prompt", "chosen", "rejected"),
}
# A line longer than this is no conversation.
_LONGEST = 16_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One line of training data.

    Attributes:
        data: name of the source.
        line: its number there, from 1.
        messages: the conversation; for preferences, what comes before the reply.
        rings: of every message by name, but for the three of a judge; None takes them from the
            roles.
        chosen: the better reply, `rejected` the worse; empty for supervised training.
        policy: preset that knows the rings, or its definition by the source's manifest.
        verdict: the last message is a judge's on the reply before, and what is learnt here.
        target: of a verdict: that reply is learnt with it.
        principle: that the judge of a verdict goes by; empty without one.
        decisions: characters of the last reply at which it parts from a wrong one.
    """

    data: str
    line: int
    id: str
    recipe: str
    sibling: str
    messages: tuple[Json, ...]
    rings: tuple[str, ...] | None
    reply_ring: str | None
    policy: str
    tools: tuple[Json, ...]
    chosen: tuple[Json, ...] = ()
    rejected: tuple[Json, ...] = ()
    verdict: bool = False
    target: bool = False
    principle: str = ""
    decisions: tuple[int, ...] = ()

    @property
    def case(self) -> str:
        """What its siblings have in common; that of synthesis stands first in the id."""
        return self.id.partition("/")[0]

    def texts(self) -> Iterator[str]:
        """Everything that is trained on or seen in training."""
        for message in (*self.messages, *self.chosen, *self.rejected):
            content = message.get("content")
            if isinstance(content, str):
                yield content
            elif isinstance(content, list):
                yield from (str(part.get("text", "")) for part in content if isinstance(part, dict))
            for call in message.get("tool_calls") or ():
                yield from strings(call)
        yield from strings(list(self.tools))


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file of training data, checked.

    Attributes:
        name: by which a mixture names it.
        sha256: of the file.
        proof: why it is no evaluation set, as far as that is known; for the manifest.
        policy: the policy of its manifest, as a job describes it; None without one.
    """

    name: str
    file: Path
    kind: Kind
    sha256: str
    proof: Json
    policy: Json | None

    def examples(self) -> Iterator[Example]:
        """Its lines.

        Raises:
            InputError: a line that is no example of this kind, or one for evaluation.
        """
        with self.file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield self._example(number, line)

    def described(self) -> Json:
        """For the manifest."""
        return {
            "name": self.name,
            "file": self.file.name,
            "sha256": self.sha256,
            "proof": self.proof,
        }

    def _example(self, number: int, line: bytes) -> Example:
        where = f"{self.file}, line {number}"
        if len(line) > _LONGEST:
            raise InputError(f"{where}: longer than {_LONGEST:,} bytes")
        try:
            data = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: is no JSON: {error}") from None
        if not isinstance(data, dict):
            raise InputError(f"{where}: must be an object with {', '.join(_WANTED[self.kind])}")
        judges = self.kind == "sft" and "good" in data
        if judges:
            data = _judging(where, data)
        for key in _WANTED[self.kind]:
            if not isinstance(data.get(key), list) or not data[key]:
                raise InputError(f"{where}: {key}: must be a list of messages")
        identity, recipe = str(data.get("id", number)), str(data.get("recipe", ""))
        if data.get("split", "train") != "train" or _is_for_evaluation(identity, recipe):
            raise InputError(
                f"{where}: is for evaluation ({identity}); training never reads such lines. "
                "Synthesise with --split train, or take the line out."
            )
        rings, tools = _listed(where, data, "rings", str), _listed(where, data, "tools", dict)
        head = data["messages"] if self.kind == "sft" else data["prompt"]
        return Example(
            data=self.name,
            line=number,
            id=identity,
            recipe=recipe,
            sibling=str(data.get("sibling", "")),
            messages=tuple(_messages(where, head)),
            rings=rings,
            reply_ring=str(data["reply_ring"]) if data.get("reply_ring") else None,
            policy=str(data.get("policy") or "harmony"),
            tools=tools or (),
            chosen=tuple(_messages(where, data.get("chosen", ()))),
            rejected=tuple(_messages(where, data.get("rejected", ()))),
            verdict=judges,
            target=judges and bool(data.get("target")),
            principle=str(data.get("principle", _JUDGED_BY)) if judges else "",
            decisions=_places(where, data.get("decisions", ())),
        )


def open_sources(specs: Sequence[str], kind: Kind) -> list[Source]:
    """The sources that `--data` names: paths, each with `NAME=` before it where one wants.

    Raises:
        InputError: nothing is there, a name twice, or data that must not be trained on.
    """
    sources: list[Source] = []
    for spec in specs:
        name, equals, path = spec.partition("=")
        if not equals or "/" in name:
            name, path = "", spec
        found = Path(os.path.expanduser(path))
        name = name or found.resolve().name.removesuffix(".jsonl")
        if any(source.name == name for source in sources):
            raise InputError(f"--data {spec}: {name!r} is there twice; write NAME={path}")
        sources.append(_opened(name, found, kind))
    if not sources:
        raise InputError("--data: name a folder of `ringfence synthesize` or a JSONL file")
    return sources


def _opened(name: str, path: Path, kind: Kind) -> Source:
    if path.is_dir():
        file = path / FILES[kind]
        if not file.is_file():
            raise InputError(f"--data {path}: holds no {FILES[kind]}, which train {kind} reads")
        digest = sha256(file)
        proof, policy = _proof(path / MANIFEST, file.name, digest)
        return Source(name=name, file=file, kind=kind, sha256=digest, proof=proof, policy=policy)
    if not path.is_file():
        raise InputError(f"--data {path}: does not exist")
    digest, beside = sha256(path), path.parent / MANIFEST
    proof, policy = {"manifest": False, "says": "a file without manifest; see the overlap"}, None
    if _lists(beside, path.name):
        proof, policy = _proof(beside, path.name, digest)
    return Source(name=name, file=path, kind=kind, sha256=digest, proof=proof, policy=policy)


def _lists(manifest: Path, name: str) -> bool:
    try:
        return name in json.loads(manifest.read_text("utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _proof(path: Path, name: str, digest: str) -> tuple[Json, Json | None]:
    """What the manifest beside a file says of it.

    Raises:
        InputError: it is for evaluation, is of another file, or cannot be read.
    """
    if not path.is_file():
        return {"manifest": False, "says": "a folder without manifest; see the overlap"}, None
    try:
        manifest = json.loads(path.read_text("utf-8"))
        job, listed = manifest["job"], manifest["files"][name]["sha256"]
        split = job["split"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{path}: not made by ringfence synthesize or train pairs") from None
    if split not in ("train", "both"):
        raise InputError(
            f"{path}: job.split is {split!r}: evaluation sets are never trained on. Synthesise "
            "with --split train."
        )
    if listed != digest:
        raise InputError(
            f"{path}: {name} has changed since it was made (sha256 {digest[:12]}…, the manifest "
            f"says {str(listed)[:12]}…). Make it again, or give the file alone as --data."
        )
    proof = {
        "manifest": True,
        "manifest_sha256": sha256(path),
        "split": split,
        "says": "the manifest's split, and lines of the train split only",
        "families_in_both_splits": manifest.get("families_in_both_splits", []),
        "overlap_of_the_splits": manifest.get("overlap"),
    }
    policy = job.get("policy")
    return proof, policy if isinstance(policy, dict) else None


def sha256(path: Path) -> str:
    """Of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# The principle of a judged line that names none.
_JUDGED_BY = "rings"


def _judging(where: str, data: Json) -> Json:
    """A judged line as a conversation that ends with the question of a judge and its verdict.

    Raises:
        InputError: the line has no reply, or its principle does not ask in a turn.
    """
    principle = _principle(str(data.get("principle", _JUDGED_BY)))
    messages, reply = data.get("messages"), data.get("reply")
    if not isinstance(messages, list) or not messages or not isinstance(reply, str):
        raise InputError(f"{where}: a line with good needs messages (a list) and reply (text)")
    if not isinstance(data["good"], bool):
        raise InputError(f"{where}: good must be true or false, not {data['good']!r}")
    best = max(principle.options, key=lambda option: option.value)
    worst = min(principle.options, key=lambda option: option.value)
    verdict = (best if data["good"] else worst).label
    asked = [
        {"role": "assistant", "content": reply or "…"},
        {"role": "user", "content": principle.question},
        {"role": "assistant", "content": verdict},
    ]
    return {**data, "messages": [*messages, *asked], "sibling": "judged"}


def hash_of_principle(name: str) -> str:
    """SHA-256 of what a principle says."""
    said = _principle(name).model_dump_json()
    return hashlib.sha256(said.encode()).hexdigest()


@cache
def _principle(name: str) -> Principle:
    principle = Principle.load(name)
    if principle.form != "turn" or principle.letters or principle.answer:
        raise InputError(
            f"principle {name}: only a judge that asks in a turn of the conversation (form: turn) "
            "and answers with a label alone can be trained"
        )
    return principle


def _is_for_evaluation(identity: str, recipe: str) -> bool:
    """Ids of cases say their split."""
    return bool(recipe) and re.match(rf"{re.escape(recipe)}-eval-", identity) is not None


def _listed(where: str, data: Json, name: str, kind: type) -> tuple[Any, ...] | None:
    """A list of a line; None where it has none.

    Raises:
        InputError: it is no list, or holds something else.
    """
    found = data.get(name)
    if found is None:
        return None
    if not isinstance(found, list) or not all(isinstance(item, kind) for item in found):
        what = "names, one a message" if kind is str else "definitions"
        raise InputError(f"{where}: {name}: must be a list of {what}, or left out")
    return tuple(found)


def _places(where: str, items: object) -> tuple[int, ...]:
    if not isinstance(items, list | tuple) or not all(
        type(item) is int and item >= 0 for item in items
    ):
        raise InputError(f"{where}: decisions: must be a list of characters of the reply, from 0")
    return tuple(items)


def _messages(where: str, items: object) -> Iterator[Json]:
    for item in items if isinstance(items, list | tuple) else [None]:
        if not isinstance(item, dict):
            raise InputError(f"{where}: every message must be an object with role and content")
        yield item
