"""The scripts that make what is packaged: nothing is lost by where they are told to write."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def packing(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("packing", ROOT / "packaging" / "suites.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = {"set/part": [{"prompt": "new"}]}
    monkeypatch.setattr(module, "parts", lambda data: made)
    monkeypatch.setattr(module, "PACKAGED", tmp_path / "packaged")

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["suites.py", "data", *map(str, words)])
        module.main()

    module.run = run
    return module


def test_a_folder_of_ones_own_is_not_emptied(packing, tmp_path, capsys):
    own = tmp_path / "home"
    own.mkdir()
    (own / "thesis.txt").write_text("years of work")
    with pytest.raises(SystemExit) as left:
        packing.run("--out", own)
    assert left.value.code == 2 and "is not empty" in capsys.readouterr().err
    assert [file.name for file in own.iterdir()] == ["thesis.txt"]
    (own / "thesis.txt").unlink()
    for out in (own, tmp_path / "new"):
        packing.run("--out", out)
        assert (out / "set" / "part.jsonl").read_text() == '{"prompt": "new"}\n'


def test_the_packaged_parts_are_replaced_whole_or_not_at_all(packing, tmp_path, monkeypatch):
    old = tmp_path / "packaged" / "set" / "gone.jsonl"
    old.parent.mkdir(parents=True)
    old.write_text("old")
    monkeypatch.setattr(packing, "parts", lambda data: {"a/b": [{"x": 1}], "c/d": [{"x": {1}}]})
    with pytest.raises(TypeError):
        packing.run()
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["gone.jsonl"]
    monkeypatch.setattr(packing, "parts", lambda data: {"a/b": [{"x": 1}]})
    packing.run()
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["b.jsonl"]
    assert [folder.name for folder in tmp_path.iterdir()] == ["packaged"]
