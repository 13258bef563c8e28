"""Synthesis with an engine: its replies count only where graders agree."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ringfence.cli import app
from ringfence.commandline import synthesizing
from ringfence.configuration import settings_from
from ringfence.graders import grade, parse_grader
from ringfence.rings import Policy
from ringfence.synthesis.case import Case, Turn
from ringfence.synthesis.distillation import enriched, faithful
from ringfence.synthesis.recipes import RECIPES, make
from ringfence.synthesis.run import Job, synthesize_with
from ringfence.synthesis.writing import Folder

HARMONY = Policy.preset("harmony")
ESSAY = "Rivers begin as springs in the hills and carry water and stones down to the sea below."


class Fake:
    """Says one of several things, and remembers what it was shown."""

    def __init__(self, *says: str | None) -> None:
        self.says = says
        self.shown: list[str] = []
        self.rooms: list[int] = []

    async def reply(
        self, case: Case, messages: Sequence[Turn], seed: int, characters: int
    ) -> str | None:
        self.shown.append("\n".join(turn.content for turn in messages))
        self.rooms.append(characters)
        return self.says[len(self.shown) % len(self.says)]


def conflict(family: str = "opening-words") -> Case:
    for index in range(500):
        case = make("conflict", seed=1, index=index, split="train", policy=HARMONY)
        roles = [turn.role for turn in case.siblings["conflict"].messages]
        alone = len(case.families) == 2 and case.families[0] == family
        if alone and roles == ["system", "user"]:
            return case
    raise AssertionError(family)


@pytest.mark.parametrize("says", ["", "Nonsense.", None])
async def test_replies_that_fail_change_nothing(says: str | None) -> None:
    case = conflict()
    assert await enriched(case, Fake(says), 2) == case


async def test_a_reply_gets_room_by_the_codes_own_and_not_more() -> None:
    case, author = conflict(), Fake("Nonsense.")
    await enriched(case, author, 1)
    longest = max(len(s.target or "") + len(s.wrong or "") for s in case.siblings.values())
    assert author.rooms and max(author.rooms) <= max(3 * longest + 100, 1000)
    assert min(author.rooms) < 500


async def test_replies_that_pass_take_the_place_of_the_codes() -> None:
    case = conflict()
    sibling = case.siblings["conflict"]
    assert sibling.target and sibling.wrong
    right, wrong = f"{sibling.target} Gladly said.", f"{sibling.wrong} Gladly said."
    found = (await enriched(case, Fake(right, wrong), 4)).siblings["conflict"]
    assert (found.target, found.target_by) == (right, "engine")
    assert (found.wrong, found.wrong_by) == (wrong, "engine")
    assert grade(parse_grader(found.grader), found.target).passed


async def test_the_engine_never_sees_what_is_void_when_it_writes_the_right_reply() -> None:
    case = conflict()
    author = Fake("Nonsense.")
    await enriched(case, author, 1)
    void = [item.text for item in case.siblings["conflict"].instructions if not item.holds]
    kept = [item.text for item in case.siblings["conflict"].instructions if item.id == "system-0"]
    distilled = [text for text in author.shown if kept[0] in text and void[0] not in text]
    assert distilled
    swapped = [text for text in author.shown if void[0] in text and kept[0] not in text]
    assert swapped


async def test_an_open_request_is_answered_where_a_try_passes() -> None:
    case = conflict()
    opening = case.siblings["conflict"].target.split("!")[0]
    found = await enriched(case, Fake("no", f"{opening}! {ESSAY}"), 3)
    assert found.siblings["open"].target == f"{opening}! {ESSAY}"
    assert "open" not in (await enriched(case, Fake("no"), 3)).siblings


@pytest.mark.parametrize(
    ("new", "good"),
    [
        ('Please start each answer with "Ahoy".', True),
        ("Please start each answer with Ahoy.", False),
        ('Please start\neach answer with "Ahoy".', False),
        ('"Ahoy"', False),
    ],
)
def test_a_paraphrase_keeps_literals_and_length(new: str, good: bool) -> None:
    assert faithful('Begin every single reply with "Ahoy".', new) is good


async def test_paraphrases_are_the_same_in_all_siblings() -> None:
    case = conflict("letter-case")
    old = case.siblings["conflict"].instructions[0].text
    new = f"{old} Always."
    found = await enriched(case, Fake(new), 1)
    texts = [turn.content for turn in found.siblings["conflict"].messages]
    assert any(new in text for text in texts)


async def test_what_an_engine_adds_is_written_in_order_and_resumed(tmp_path: Path) -> None:
    job = Job(recipes=tuple(RECIPES), count=9, seed=1, policy=HARMONY, engine={"engine": "fake"})

    async def enrich(case: Case) -> Case:
        return await enriched(case, Fake("Nonsense."), 1)

    async def run(out: Path, stop: int = 99) -> None:
        folder = Folder(out, job.described())
        numbers = synthesize_with(enrich, job, folder, folder.open(resume=True), concurrency=3)
        async for number in numbers:
            if number == stop:
                break
        await numbers.aclose()

    await run(tmp_path / "cut", 4)
    await run(tmp_path / "cut")
    await run(tmp_path / "whole")
    for name in ("cases.jsonl", "manifest.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_the_command_takes_an_engine(tmp_path: Path) -> None:
    program = str(Path(__file__).parent / "scripted_ringfence.py")
    words = ["synthesize", "--engine", "embedded", "--count", "2", "--best-of", "1"]
    done = subprocess.run(
        [sys.executable, program, *words, "--max-tokens", "4", "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["job"]["engine"]["best_of"] == 1
    assert manifest["job"]["engine"]["engine"] == "embedded"
    assert manifest["cases"] == 2


def test_a_start_that_failed_is_in_nobodys_way(tmp_path: Path) -> None:
    words = ["synthesize", "--count", "2", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*words, "--engine", "embedded:nope.gguf"])
    assert done.exit_code == 2 and "nope.gguf" in done.stderr
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.stderr


def test_what_other_files_write_is_another_job(tmp_path: Path) -> None:
    """By what is in the files, wherever a name stays the same."""
    adapter, template, principle = (tmp_path / name for name in ("a", "t.jinja", "p.yaml"))
    adapter.mkdir()
    packaged = files("ringfence") / "principles" / "positive.yaml"

    def described() -> dict[str, Any]:
        given = {"engine": f"embedded:{tmp_path / 'm.gguf'}", "adapter": str(adapter)}
        given |= {"chat_template": str(template), "principle": [str(principle)]}
        job = synthesizing.Run(
            tmp_path / "out",
            recipe="conflict",
            count=1,
            seed=0,
            policy="harmony",
            split="train",
            settings=settings_from(None, given),
        )
        return dict(job._job.engine)

    def write(changed: str = "") -> None:
        for name in ("m.gguf", "a/adapter_model.safetensors", "t.jinja"):
            (tmp_path / name).write_text("new" if name == changed else "old")
        summary = "summary: New.\n" if changed == "p.yaml" else "summary: Old.\n"
        lines = packaged.read_text("utf-8").splitlines(keepends=True)
        kept = "".join(line for line in lines if not line.startswith("summary:"))
        principle.write_text(kept + summary)

    write()
    before = described()
    assert described() == before
    for name in ("m.gguf", "a/adapter_model.safetensors", "t.jinja", "p.yaml"):
        write(changed=name)
        assert described() != before, name
