"""Runs of synthesis: nothing lost or doubled, the same bytes for a seed, errors before output."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ringfence.cli import app
from ringfence.errors import InputError
from ringfence.judged_items import load_items
from ringfence.rings import Policy
from ringfence.synthesis import writing
from ringfence.synthesis.recipes import RECIPES
from ringfence.synthesis.run import Job, synthesize
from ringfence.synthesis.sketch import Seen, Smallest, grams, words
from ringfence.synthesis.writing import Folder

COUNT = 18
FILES = [
    "cases.jsonl",
    "judge-check.jsonl",
    "judged.jsonl",
    "manifest.json",
    "preferences.jsonl",
    "sft.jsonl",
]


def job(count: int = COUNT, seed: int = 3, **fields: object) -> Job:
    return Job(
        recipes=tuple(RECIPES), count=count, seed=seed, policy=Policy.preset("harmony"), **fields
    )


def run(out: Path, one: Job, *, stop: int | None = None, **options: bool) -> int:
    folder = Folder(out, one.described())
    done = folder.open(**options)
    if folder.complete:
        return 0
    made = 0
    for made, _ in enumerate(steps := synthesize(one, folder, done), 1):
        if made == stop:
            steps.close()
            break
    return made


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole") / "out"
    run(out, job())
    return contents(out)


def test_a_run_leaves_four_files(whole: dict[str, bytes]) -> None:
    assert sorted(whole) == FILES
    cases = [json.loads(line) for line in whole["cases.jsonl"].splitlines()]
    assert [case["recipe"] for case in cases] == [*RECIPES, *RECIPES]
    assert len({case["id"] for case in cases}) == COUNT


def test_the_same_seed_gives_the_same_bytes(whole: dict[str, bytes], tmp_path: Path) -> None:
    run(tmp_path / "again", job())
    assert contents(tmp_path / "again") == whole
    run(tmp_path / "other", job(seed=4))
    assert contents(tmp_path / "other")["cases.jsonl"] != whole["cases.jsonl"]


def test_a_longer_run_begins_with_the_shorter_one(whole: dict[str, bytes], tmp_path: Path) -> None:
    run(tmp_path / "long", job(COUNT + 5))
    assert contents(tmp_path / "long")["cases.jsonl"].startswith(whole["cases.jsonl"])


# Up to COUNT cases are made, then COUNT are written.
@pytest.mark.parametrize("stop", [1, 7, COUNT, COUNT + 1, 2 * COUNT - 1])
def test_a_run_cut_short_is_resumed(whole: dict[str, bytes], tmp_path: Path, stop: int) -> None:
    out = tmp_path / "out"
    run(out, job(), stop=stop)
    assert sorted(contents(out)) == ["cases.jsonl.partial"]
    run(out, job(), resume=True)
    assert contents(out) == whole


def test_a_partial_file_cut_anywhere_is_resumed(whole: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(out, job(), stop=COUNT)
    partial = out / "cases.jsonl.partial"
    text = partial.read_bytes()
    ends = [place for place, byte in enumerate(text) if byte == ord("\n")]
    for cut in (0, 3, ends[0], ends[0] + 1, ends[2] - 5, ends[4], ends[4] + 1, len(text)):
        for rest in (b"", b"\0\0\0\n\0"):
            partial.write_bytes(text[:cut] + rest)
            run(out, job(), resume=True)
            assert contents(out) == whole, cut
            (out / "manifest.json").unlink()


def test_resuming_what_is_complete_makes_nothing(tmp_path: Path) -> None:
    run(tmp_path / "out", job(3))
    before = (tmp_path / "out" / "cases.jsonl").stat().st_mtime_ns
    assert run(tmp_path / "out", job(3), resume=True) == 0
    assert (tmp_path / "out" / "cases.jsonl").stat().st_mtime_ns == before


def test_another_job_in_the_folder_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "out", job(3), stop=1)
    with pytest.raises(InputError, match="seed was 3, now 4"):
        run(tmp_path / "out", job(3, seed=4), resume=True)
    run(tmp_path / "out", job(3), resume=True)
    with pytest.raises(InputError, match="count was 3, now 4"):
        run(tmp_path / "out", job(4), resume=True)
    with pytest.raises(InputError, match="--force replaces it"):
        run(tmp_path / "out", job(4))
    run(tmp_path / "out", job(4), force=True)
    assert len(contents(tmp_path / "out")["cases.jsonl"].splitlines()) == 4


def test_what_another_version_began_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "out", job(3), stop=1)
    with monkeypatch.context() as other:
        other.setattr("ringfence.synthesis.run._code", lambda: "other")
        with pytest.raises(InputError, match="other code"):
            run(tmp_path / "out", job(3), resume=True)
    run(tmp_path / "out", job(3), resume=True)
    monkeypatch.setattr("ringfence.synthesis.run._code", lambda: "other")
    # Finished by one version it is of one piece.
    assert run(tmp_path / "out", job(3), resume=True) == 0


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    first = Folder(tmp_path / "out", job().described())
    first.open()
    with pytest.raises(InputError, match="another run"):
        Folder(tmp_path / "out", job().described()).open(resume=True)
    first.close()


def test_a_full_disk_is_told_and_can_be_resumed(
    whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync
    left = 3

    def full(handle: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    out = tmp_path / "out"
    monkeypatch.setattr(writing.os, "fsync", full)
    with pytest.raises(InputError, match="make room, then --resume"):
        run(out, job())
    monkeypatch.setattr(writing.os, "fsync", real)
    assert sorted(contents(out)) == ["cases.jsonl.partial"]
    run(out, job(), resume=True)
    assert contents(out) == whole


def test_the_manifest_says_what_was_made(whole: dict[str, bytes]) -> None:
    manifest = json.loads(whole["manifest.json"])
    assert manifest["job"]["seed"] == 3
    assert manifest["counts"]["split"] == {"train": COUNT}
    assert manifest["families_in_both_splits"] == []
    assert manifest["duplicates"] == 0
    assert manifest["licences"]
    assert manifest["files"]["sft.jsonl"]["lines"] == len(whole["sft.jsonl"].splitlines())


def test_both_splits_are_compared(tmp_path: Path) -> None:
    run(tmp_path / "out", job(90))
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["counts"]["split"] == {"train": 72, "eval": 18}
    assert manifest["families_in_both_splits"] == []
    assert manifest["overlap"]["share_of_eval_in_train"] < 0.005


def test_evaluation_alone_trains_nothing(tmp_path: Path) -> None:
    run(tmp_path / "out", job(9, split="eval"))
    assert contents(tmp_path / "out")["sft.jsonl"] == b""
    # What a judge is measured on is read by the command that measures it.
    lines = (tmp_path / "out" / "judge-check.jsonl").read_text("utf-8").splitlines()
    assert len(load_items(tmp_path / "out" / "judge-check.jsonl")) == len(lines) > 10


# ---- sketches


def test_the_overlap_of_sets_is_estimated() -> None:
    one, two = Smallest(keep=500), Smallest(keep=500)
    words = [f"word{number}" for number in range(6000)]
    one.add(grams(" ".join(words[:4000]), 3))
    two.add(grams(" ".join(words[2000:]), 3))
    shared = one.shared(two)
    assert shared is not None and abs(shared - 0.5) < 0.08
    assert one.shared(Smallest()) is None


def test_texts_of_the_same_words_are_the_same() -> None:
    seen = Seen()
    assert not seen.add("One text.")
    assert seen.add("one TEXT")
    assert not seen.add("another text")


# ---- the command line


def command(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*words])
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--count", "0"], "--count 0"),
        (["--recipe", "nonsense"], "unknown recipe 'nonsense'"),
        (["--policy", "nonsense"], "unknown policy 'nonsense'"),
        (["--split", "half"], "--split 'half'"),
        (["--resume", "--force"], "give one of them"),
        (["--principle", "rings"], "--principle: means nothing here without --engine"),
        (["--max-tokens", "9"], "--max-tokens: means nothing here without --engine"),
        (["--best-of", "9"], "--best-of: means nothing here without --engine"),
    ],
)
def test_bad_options_write_nothing(tmp_path: Path, words: list[str], message: str) -> None:
    code, output = command("synthesize", "--out", str(tmp_path / "out"), *words)
    assert code == 2
    assert message in output
    assert not (tmp_path / "out").exists()


def test_a_broken_policy_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("name: x\nrings: [one]\nroles: {}\n")
    code, output = command(
        "synthesize", "--out", str(tmp_path / "out"), "--policy", str(tmp_path / "policy.yaml")
    )
    assert code == 2 and "policy.yaml" in output and not (tmp_path / "out").exists()


def test_a_policy_file_is_used(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(
        "name: house\nrings: [owner, guest, other]\n"
        "roles: {system: owner, user: guest, assistant: other, tool: other}\nsilent: [other]\n"
    )
    words = ["--policy", str(tmp_path / "policy.yaml"), "--count", "9", "--json"]
    code, output = command("synthesize", "--out", str(tmp_path / "out"), *words)
    assert code == 0, output
    case = json.loads((tmp_path / "out" / "cases.jsonl").read_text().splitlines()[1])
    assert case["policy"] == "house"
    assert {turn["ring"] for turn in case["siblings"]["conflict"]["messages"]} <= {
        "owner",
        "guest",
        "other",
    }


def test_a_run_too_small_for_evaluation_says_so(tmp_path: Path) -> None:
    code, output = command("synthesize", "--out", str(tmp_path / "out"), "--count", "9")
    assert code == 0 and "no case is for evaluation" in output
    words = ["--count", "10", "--recipe", "conflict"]
    code, output = command("synthesize", "--out", str(tmp_path / "more"), *words)
    assert code == 0 and "no case is for evaluation" not in output


def test_out_in_a_folder_that_is_not_there(tmp_path: Path) -> None:
    code, output = command("synthesize", "--out", str(tmp_path / "no" / "out"))
    assert code == 2 and "does not exist" in output


def test_preview_shows_every_sibling_and_hides_nothing(tmp_path: Path) -> None:
    code, output = command("preview", "--recipe", "ignorance", "--seed", "5", "--index", "7")
    assert code == 0
    for name in ("reference", "aligned", "conflict", "lower-only", "role-swapped"):
        assert f"── {name}" in output
    assert "\x1b" not in output.replace("\x1b[", "")
    code, output = command("preview", "--recipe", "ignorance", "--seed", "5", "--json")
    assert code == 0 and json.loads(output)["recipe"] == "ignorance"


@pytest.mark.parametrize("words", [["--recipe", "x"], ["--index", "-1"], ["--split", "both"]])
def test_preview_tells_what_it_cannot_draw(words: list[str]) -> None:
    code, output = command("preview", *words)
    assert code == 2 and "error: --" in output


def test_hidden_characters_of_a_case_are_shown_as_escapes() -> None:
    for index in range(8):
        code, output = command("preview", "--recipe", "ignorance", "--index", str(index))
        assert code == 0
        assert not {"\u200b", "\u200c", "\u200d", "\u2060", "\ufeff"} & set(output)


def test_names_of_a_policy_cannot_move_the_cursor(tmp_path: Path) -> None:
    rings = ["owner\x1b[31m", "guest", "other"]
    roles = dict(zip(("system", "user", "assistant", "tool"), [*rings, "other"], strict=True))
    policy = {"name": "evil\x1b]0;pwned\x07", "rings": rings, "roles": roles, "silent": ["other"]}
    (tmp_path / "evil.yaml").write_text(json.dumps(policy))
    code, output = command("preview", "--policy", str(tmp_path / "evil.yaml"))
    assert code == 0, output
    assert "\x1b" not in output and "\\x1b]0;pwned" in output and "owner\\x1b[31m" in output


def test_ctrl_c_leaves_a_run_that_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["synthesize", "--out", str(out), "--count", "5000", "--recipe", "conflict"]
    program = [sys.executable, "-c", "from ringfence.cli import main; main()", *words]
    with subprocess.Popen(program, stderr=subprocess.PIPE, text=True) as process:
        partial = out / "cases.jsonl.partial"
        deadline = time.monotonic() + 60
        while not (partial.exists() and partial.stat().st_size > 50_000):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Go on with: ringfence synthesize" in errors and "--resume" in errors
    assert [path.name for path in out.iterdir()] == ["cases.jsonl.partial"]
    for line in partial.read_bytes().split(b"\n")[:-1]:
        json.loads(line)


def test_spaced_letters_share_no_run_of_words_by_chance() -> None:
    assert words("W e   r e q u i r e   it, on A.B.C street") == [
        "we",
        "require",
        "it",
        "on",
        "abc",
        "street",
    ]
    spaced = [" ".join(text) for text in ("we require you to go", "they require your")]
    one, other = (set(grams(text, 8)) for text in spaced)
    assert not one & other
