"""The script that makes both papers' tables: what it would run can be run."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from typer.main import get_command

pytest.importorskip("inspect_ai")

from ringfence.cli import app
from ringfence.commandline.evaluating import planned
from ringfence.evaluation.names import parse

SCRIPT = Path(__file__).parent.parent / "runs" / "paper.sh"
ABLATIONS = SCRIPT.with_name("ablations.sh")
TABLE = SCRIPT.with_name("embedded-table.sh")


def standing_in(tmp_path: Path, failing: str = "", status: int = 0) -> dict[str, str]:
    """An environment whose `ringfence` writes down what it is told, and fails at some of it."""
    program = tmp_path / "bin" / "ringfence"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/told\n'
        f'case "$*" in {failing or "never"}) exit {status};; esac\n',
        "utf-8",
    )
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"RINGFENCE": str(program), "PATH": path}


def told_in(tmp_path: Path) -> list[str]:
    file = tmp_path / "told"
    return file.read_text("utf-8").splitlines() if file.exists() else []


def lines(*words: str) -> list[list[str]]:
    done = subprocess.run([SCRIPT, "--dry-run", *words], capture_output=True, text=True, check=True)
    return [shlex.split(line) for line in done.stdout.splitlines()]


def test_every_command_of_the_papers_script_is_one_of_ours(tmp_path):
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    told = lines("http://127.0.0.1:8001/v1#org/model-8B", str(tokenizer), str(tmp_path))
    assert [words[1] for words in told] == ["judge"] * 3 + ["evaluate"] * 2 + ["report"] * 2
    for words in told:
        command, rest = get_command(app), words[1:]
        while hasattr(command, "commands"):
            command, rest = command.commands[rest[0]], rest[1:]
        given = command.make_context(words[1], list(rest)).params
        if words[1] != "evaluate":
            continue
        usual = {"options": {}, "data": None, "samples": 1, "command": []}
        plan = planned(
            model=given["model"],
            suites=given["suite"],
            table=given["table"],
            seeds=given["seeds"],
            limit=given["limit"],
            **usual,
        )
        assert plan.models and plan.suites
        for name in plan.models:
            assert parse(name).engine == "http://127.0.0.1:8001/v1#org/model-8B"
            assert parse(name).opening["tokenizer"] == str(tokenizer)


def test_the_papers_script_goes_on_where_it_was_cut_short(tmp_path):
    (tmp_path / "rain").mkdir()
    (tmp_path / "rain" / "run.json").write_text("{}")
    told = lines("http://h/v1#m", "t", str(tmp_path), "data")
    assert [
        ("--resume" in words, "--data=data" in words) for words in told if words[1] == "evaluate"
    ] == [
        (False, True),
        (True, True),
    ]
    asked = subprocess.run([SCRIPT], capture_output=True, text=True)
    assert asked.returncode == 2 and "TOKENIZER_FOLDER" in asked.stderr


def test_every_row_of_the_packaged_models_table_can_be_run(tmp_path):
    done = subprocess.run(
        [TABLE, "--dry-run", tmp_path, tmp_path], capture_output=True, text=True, check=True
    )
    told = [shlex.split(line) for line in done.stdout.splitlines()]
    assert [words[1] for words in told] == ["evaluate"] * 12 + ["report"]
    for words in told[:-1]:
        context = get_command(app).commands["evaluate"].make_context("evaluate", words[2:])
        given = context.params
        plan = planned(
            model=given["model"],
            suites=given["suite"],
            table=None,
            options={},
            seeds=1,
            limit=given["limit"],
            data=None,
            samples=None,
            command=[],
        )
        assert plan.samples == 4 and plan.limit in (60, 300)
        assert parse(plan.models[0]).engine == "embedded"
    wrong = subprocess.run(
        [TABLE, "--dry-run", tmp_path, tmp_path, "nonsense"], capture_output=True, text=True
    )
    assert wrong.returncode == 2 and "unknown row nonsense" in wrong.stderr


@pytest.mark.parametrize(("status", "begun"), [(1, 2), (2, 1)])
def test_a_failed_sample_stops_no_table_of_the_papers(tmp_path, status, begun):
    done = subprocess.run(
        [SCRIPT, "http://h/v1#m", "t", tmp_path / "out"],
        capture_output=True,
        text=True,
        env=standing_in(tmp_path, '"evaluate "*instruction-hierarchy*', status),
    )
    assert done.returncode == status, done.stderr
    told = [line.split()[0] for line in told_in(tmp_path)]
    reports = 2 if status == 1 else 0
    assert told == ["judge"] * 3 + ["evaluate"] * begun + ["report"] * reports


def test_the_report_of_a_table_that_is_there_is_made_where_the_next_one_cannot_be_had(tmp_path):
    done = subprocess.run(
        [SCRIPT, "http://h/v1#m", "t", tmp_path / "out"],
        capture_output=True,
        env=standing_in(tmp_path, '"evaluate "*"--table rain"*', 2),
    )
    assert done.returncode == 2
    told = told_in(tmp_path)
    assert [line.split()[0] for line in told] == ["judge"] * 3 + ["evaluate"] * 2 + ["report"]
    assert "instruction-hierarchy" in told[-1]


@pytest.mark.parametrize(("status", "begun"), [(1, 4), (2, 1)])
def test_a_failed_sample_stops_no_ablation(tmp_path, status, begun):
    (tmp_path / "out").mkdir()
    done = subprocess.run(
        [ABLATIONS, tmp_path / "out", "data", "base", "packaged"],
        capture_output=True,
        cwd=ABLATIONS.parent.parent,
        env=standing_in(tmp_path, '"evaluate "*base-hierarchy*', status),
    )
    assert done.returncode == status
    assert [line.split()[0] for line in told_in(tmp_path)] == ["evaluate"] * begun


@pytest.mark.parametrize("script", [TABLE, ABLATIONS])
@pytest.mark.parametrize("wrong", ["nonsense", "sft-x", "trained-guard", "sft", "sft-"])
def test_an_unknown_row_is_told_before_anything_runs(tmp_path, script, wrong):
    (tmp_path / "out").mkdir()
    done = subprocess.run(
        [script, tmp_path / "out", "data", "base", wrong],
        capture_output=True,
        text=True,
        cwd=ABLATIONS.parent.parent,
        env=standing_in(tmp_path),
    )
    assert (done.returncode, f"unknown row {wrong}" in done.stderr) == (2, True), done.stderr
    assert told_in(tmp_path) == []


@pytest.mark.parametrize(("status", "begun"), [(1, 4), (2, 3)])
def test_a_row_that_cannot_be_had_leaves_a_report_of_those_before_it(tmp_path, status, begun):
    done = subprocess.run(
        [TABLE, tmp_path / "table", tmp_path, "base", "trained"],
        capture_output=True,
        env=standing_in(tmp_path, '"evaluate "*trained-hierarchy*', status),
    )
    assert done.returncode == status
    *rows, report = told_in(tmp_path)
    assert [row.split()[0] for row in rows] == ["evaluate"] * begun
    assert report.startswith("report ")
    assert ("trained-suites" in report, "base-suites" in report) == (status == 1, True)


def test_every_ablation_changes_the_recipe_in_what_its_name_says(tmp_path):
    from ringfence.training.recipe import load

    fake, out = tmp_path / "ringfence", tmp_path / "out"
    fake.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> {tmp_path / "log"}\n')
    fake.chmod(0o755)
    out.mkdir()
    rows = [
        "packaged",
        "sft-2",
        "input-1",
        "blocks-1",
        "general-1",
        "without-judged-2",
        "without-extraction-3",
    ]
    root = ABLATIONS.parent.parent
    subprocess.run(
        [ABLATIONS, out, "data", *rows, "dpo-4"],
        env=os.environ | {"RINGFENCE": str(fake)},
        cwd=root,
        check=True,
    )
    whole = load(root / "recipes" / "embedded.yaml")
    base = whole.model_copy(
        update={
            "examples": 900,
            "sft": whole.sft.model_copy(update={"steps": 55}),
            "hardware": whole.hardware.model_copy(update={"threads": 1}),
        }
    )
    made = {row: load(out / row / "recipe.yaml") for row in rows[1:]}
    assert {row: one.seed for row, one in made.items()} == {row: int(row[-1]) for row in made}
    assert made["sft-2"] == base.model_copy(update={"seed": 2})
    assert made["input-1"] == base.model_copy(update={"segments": "input"})
    assert made["blocks-1"] == base.model_copy(update={"segments": "blocks"})
    assert [part.name for part in made["general-1"].mixture] == ["general"]
    left = [part.name for part in base.mixture if part.name != "extraction"]
    assert [part.name for part in made["without-extraction-3"].mixture] == left
    assert not any("judged" in part.data for part in made["without-judged-2"].mixture)
    assert made["without-judged-2"].mixture != base.mixture
    preferences = load(out / "dpo-4" / "recipe.yaml")
    assert (preferences.seed, preferences.examples) == (4, 128)
    told = (tmp_path / "log").read_text().splitlines()
    assert sum(line.startswith("train ") for line in told) == 7
    models = [line.split("--model ")[1].split()[0] for line in told if line.startswith("evaluate")]
    assert len(models) == 16 and models[0] == "embedded?adapter=packaged"
    assert [parse(name).engine for name in models] == ["embedded"] * 4 + ["hf:embedded"] * 4 + [
        "embedded"
    ] * 8


@pytest.mark.parametrize(
    ("row", "why"),
    [("wings-1", "unknown row wings-1"), ("without-manners-1", "has no part manners")],
)
def test_an_unknown_ablation_is_refused(tmp_path, row, why):
    done = subprocess.run(
        [ABLATIONS, tmp_path, "data", row],
        env=os.environ | {"RINGFENCE": "true"},
        cwd=ABLATIONS.parent.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and why in done.stderr
