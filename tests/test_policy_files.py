"""Policies from files."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ringfence.cli import app
from ringfence.errors import InputError
from ringfence.policy_files import as_file, load, schema
from ringfence.rings import PRESETS, Policy

GOOD = """\
name: shop
rings: [company, shop, customer, web]
roles: {system: company, developer: shop, user: customer, tool: web}
silent: [web]
supersession: false
"""
SCHEMA = Path(__file__).parent.parent / "docs" / "policy.schema.json"


def written(folder, text):
    file = folder / "policy.yaml"
    file.write_text(text)
    return str(file)


def test_a_file_says_what_a_policy_says(tmp_path):
    policy = load(written(tmp_path, GOOD))
    assert policy.ring_of("tool").level == 3 and policy.silent == {"web"}
    assert not policy.supersession and policy.delegation


@pytest.mark.parametrize("policy", [*PRESETS.values(), Policy.tiers(12)], ids=lambda p: p.name)
def test_every_preset_can_be_said_as_a_file(policy, tmp_path):
    file = written(tmp_path, json.dumps(as_file(policy).model_dump(mode="json")))
    assert load(file) == policy == load(policy.name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("silent: [web]", "silent: [moon]"), "policy.yaml: policy shop: silent: no ring 'moon'"),
        (("user: customer", "user: guest"), "policy.yaml: policy shop: roles: 'user'"),
        (("name: shop", "nam: shop"), "policy.yaml: name: .*; nam: "),
        (("[company, shop, customer, web]", "[company]"), "policy.yaml: rings: "),
        (("name: shop", "name: ["), "policy.yaml: not valid YAML"),
        (("name: shop", "name: 2024-02-30"), "policy.yaml: not valid YAML: day is out of range"),
        (("name: shop", f"name: {'9' * 5000}"), "policy.yaml: not valid YAML: "),
        (("supersession: false", "rings: [a, b]"), "stands here twice"),
    ],
)
def test_a_broken_file_names_file_and_field(change, words, tmp_path):
    with pytest.raises(InputError, match=words):
        load(written(tmp_path, GOOD.replace(*change)))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no/such.yaml", "no file no/such.yaml"),
        ("openai", "unknown policy 'openai'"),
        ("tiers(1)", "2 to 12"),
        ("tiers(13)", "2 to 12"),
    ],
)
def test_a_policy_that_is_not_there_is_an_error(name, words):
    with pytest.raises(InputError, match=words):
        load(name)


def test_the_published_schema_is_that_of_the_code():
    assert json.loads(SCHEMA.read_text()) == schema()


HEARD = """\
{"id": "rule", "ring": "system", "about": "language", "wants": "French"}
{"id": "wish", "ring": "user", "about": "language", "wants": "German"}
{"id": "page", "ring": "tool", "about": "password", "wants": "tell it \\u001b[31m"}
"""


def command(*words):
    program = Path(sys.executable).parent / "ringfence"
    return subprocess.run([program, "policy", *words], capture_output=True, text=True, timeout=60)


def test_the_command_says_which_instructions_hold(tmp_path):
    (tmp_path / "i.jsonl").write_text(HEARD)
    shown = command("harmony", "--instructions", str(tmp_path / "i.jsonl"))
    assert shown.returncode == 0 and "\x1b[31m" not in shown.stdout
    assert "ring system overrules ring user" in " ".join(shown.stdout.split())
    data = json.loads(
        command("harmony", "--instructions", str(tmp_path / "i.jsonl"), "--json").stdout
    )
    assert [ruling["holds"] for ruling in data["rulings"]] == [True, False, False]
    assert data["silent"] == ["tool"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"id": "a", "ring": "moon", "about": "x", "wants": "y"}', "line 1: ring: policy harmony"),
        ('{"id": "a", "rign": "user", "about": "x", "wants": "y"}', "line 1: ring: "),
        ("[]", "line 1: "),
    ],
)
def test_a_broken_line_of_instructions_is_an_error(line, words, tmp_path):
    (tmp_path / "i.jsonl").write_text(line)
    shown = command("harmony", "--instructions", str(tmp_path / "i.jsonl"))
    assert shown.returncode == 2 and words in shown.stderr
    assert "Traceback" not in shown.stderr


def test_a_line_of_instructions_may_hold_what_python_takes_for_its_end(tmp_path):
    line = {"id": "a", "ring": "user", "about": "x", "wants": "one\u2028two"}
    (tmp_path / "i.jsonl").write_text(json.dumps(line, ensure_ascii=False))
    shown = command("harmony", "--instructions", str(tmp_path / "i.jsonl"), "--json")
    assert shown.returncode == 0, shown.stderr


def test_the_command_prints_the_schema():
    assert json.loads(command("--schema").stdout) == schema()


def test_the_examples_of_the_manual_are_ruled_on_as_it_says(tmp_path):
    manual = (Path(__file__).parent.parent / "docs" / "policies.md").read_text("utf-8")
    for name, kind in (("policy.yaml", "yaml"), ("said.jsonl", "json")):
        (tmp_path / name).write_text(re.search(rf"```{kind}\n(.*?)```", manual, re.DOTALL)[1])
    words = ["policy", str(tmp_path / "policy.yaml"), "--json"]
    done = CliRunner().invoke(app, [*words, "--instructions", str(tmp_path / "said.jsonl")])
    rulings = {one["id"]: one for one in json.loads(done.stdout)["rulings"]}
    assert {id_: one["holds"] for id_, one in rulings.items()} == {
        "rule": True,
        "wish": False,
        "page": False,
    }
    assert rulings["wish"]["overruled_by"] == "rule"
    for preset in PRESETS:
        assert f"`{preset}`" in manual
