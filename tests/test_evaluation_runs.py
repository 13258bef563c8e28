"""Run folders: what is finished is never lost, what is broken is named, and what is told is so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from suite_folder import fill

pytest.importorskip("inspect_ai")

from ringfence.errors import InputError
from ringfence.evaluation.reading import load_run
from ringfence.records import records_from_jsonl

HERE = Path(__file__).parent
pytestmark = pytest.mark.slow


def command(out: Path, *words: str) -> list[str]:
    program = [sys.executable, "scripted_evaluation.py", "evaluate", "--out", str(out)]
    return [*program, "--suite", "toy", *words]


def evaluate(out: Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(out, *words),
        capture_output=True,
        text=True,
        cwd=HERE,
        timeout=300,
        env=os.environ | settings,
    )


def begun(out: Path, *words: str, **settings: str) -> tuple[subprocess.Popen[str], int]:
    """A run of 40 slow items in which some are finished, and how many it says."""
    settings = {"RINGFENCE_TEST_ITEMS": "40", "RINGFENCE_TEST_PAUSE": "1"} | settings
    process = subprocess.Popen(
        command(out, "--max-samples", "4", *words),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=HERE,
        env=os.environ | settings,
    )
    assert process.stderr is not None
    for line in process.stderr:
        # Printed with the first sample finished five seconds or more after the first task began.
        if " of 40" in line:
            return process, int(line.partition(" of 40")[0].split()[-1])
    raise AssertionError(f"ended with {process.wait()} before anything was finished")


def test_a_run_killed_twice_loses_no_finished_sample(tmp_path):
    out = tmp_path / "run"
    resumed = {"RINGFENCE_TEST_ITEMS": "40", "RINGFENCE_TEST_PAUSE": "0"}
    for words in ((), ("--resume",)):
        process, _ = begun(out, *words)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    done = evaluate(out, "--max-samples", "4", "--resume", "--json", **resumed)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["samples"], summary["missing"], summary["failed"]) == (40, 0, [])
    # The progress line of each killed attempt told of at least one finished sample, and says so
    # only after five seconds; a finished sample is never made again.
    assert summary["made_now"] <= 38
    run = load_run(out)
    assert sorted(record.item for record in run.records) == sorted(f"i{n}" for n in range(40))
    assert len(list((out / "logs").glob("*.eval"))) == 1
    # Without records.jsonl the logs say the same.
    (out / "records.jsonl").unlink()
    assert load_run(out).records == run.records


def test_ctrl_c_ends_cleanly_and_says_how_to_go_on(tmp_path):
    out = tmp_path / "run"
    process, _ = begun(out)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stdout == "" and "Traceback" not in stderr
    assert f"go on with: ringfence evaluate --out {out}" in stderr and "--resume" in stderr
    kept = len(load_run(out).records)
    assert 1 <= kept < 40
    again, said = begun(out, "--resume")
    again.send_signal(signal.SIGINT)
    again.communicate(timeout=60)
    assert said > kept


def test_a_run_tells_its_rates_and_goes_into_records(tmp_path):
    out = tmp_path / "run"
    models = "embedded,embedded?prompt-only=true"
    done = evaluate(out, "--model", models, "--seeds", "2", "--limit", "3")
    assert done.returncode == 0, done.stderr
    assert "held" in done.stdout and "12 samples, 12 of them now" in done.stderr
    assert f"next: ringfence report {out}" in done.stderr
    run = load_run(out)
    assert list(records_from_jsonl(out / "records.jsonl")) == list(run.records)
    cells = {(record.model, record.seed) for record in run.records}
    assert cells == {(f"ringfence/{model}", seed) for model in models.split(",") for seed in (0, 1)}
    assert run.records[0].prompt[0] == {"role": "system", "content": "The code is PLUM."}
    assert run.records[0].cost["committed"] == 6
    assert run.manifest["engines"]["ringfence/embedded"]["template_sha256"]
    assert run.manifest["prompt_only"].startswith("How to treat")
    again = evaluate(out, "--model", models, "--seeds", "2", "--limit", "3", "--resume", "--json")
    summary = json.loads(again.stdout)
    assert (summary["made_now"], summary["samples"]) == (0, 12)
    assert load_run(out).records == run.records
    other = evaluate(out, "--model", models, "--seeds", "2", "--limit", "4", "--resume")
    assert other.returncode == 2
    assert "was begun with limit 3, now 4" in other.stderr
    assert evaluate(out).returncode == 2  # not empty, and no --resume


def test_kinds_may_be_named_and_belong_to_a_run(tmp_path):
    out = tmp_path / "run"
    assert evaluate(out, "--kinds", "odd").returncode == 0
    assert {record.item for record in load_run(out).records} == {"i1", "i3"}
    other = evaluate(out, "--resume")
    assert other.returncode == 2
    assert 'was begun with kinds ["odd"], now null' in other.stderr
    unknown = evaluate(tmp_path / "other", "--kinds", "odd,blue")
    assert unknown.returncode == 2
    assert "--kinds blue: suite" in unknown.stderr and "Kinds: even, odd." in unknown.stderr
    assert not (tmp_path / "other").exists()


def test_data_may_be_named_otherwise_and_may_not_lie_elsewhere(tmp_path):
    out = tmp_path / "run"
    assert evaluate(out, "--data", "data", "--limit", "2").returncode == 0
    again = evaluate(out, "--data", str(HERE / "data"), "--limit", "2", "--resume", "--json")
    assert json.loads(again.stdout)["made_now"] == 0, again.stderr
    (tmp_path / "data").mkdir()
    other = evaluate(out, "--data", str(tmp_path / "data"), "--limit", "2", "--resume")
    assert other.returncode == 2
    assert f"the run was begun with {HERE / 'data'}" in other.stderr


def test_a_server_that_is_not_there_is_one_error_at_once(tmp_path):
    program = str(Path(sys.executable).with_name("ringfence"))
    words = ["--model", "http://127.0.0.1:9/v1#m", "--suite", "over-refusal", "--limit", "2"]
    done = subprocess.run(
        [program, "evaluate", "--out", str(tmp_path / "run"), *words],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode not in (0, 1) and done.stdout == ""
    assert "127.0.0.1:9" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_sample_that_fails_is_told_and_tried_again(tmp_path):
    out = tmp_path / "run"
    broken = evaluate(out, "--json", RINGFENCE_TEST_BROKEN="Say 2")
    assert broken.returncode == 1, broken.stderr
    summary = json.loads(broken.stdout)
    [failure] = summary["failed"]
    assert failure["item"] == "i2" and "the engine is gone. Start it again." in failure["error"]
    assert next(row for row in summary["rows"] if row["metric"] == "held")["n"] == 3
    mended = evaluate(out, "--json", "--resume")
    assert mended.returncode == 0, mended.stderr
    summary = json.loads(mended.stdout)
    assert (summary["failed"], summary["made_now"], summary["samples"]) == ([], 1, 4)


def test_a_run_does_not_go_on_with_other_files_or_items_of_the_same_name(tmp_path):
    out, template = tmp_path / "run", tmp_path / "own.jinja"
    template.write_text("{{ messages }}", "utf-8")
    words = ("--model", f"embedded?chat-template={template}")
    assert evaluate(out, *words).returncode == 0
    other = evaluate(out, *words, "--resume", RINGFENCE_TEST_ITEMS="5")
    assert other.returncode == 2
    assert "the items of toy are not those that the run was begun with" in other.stderr
    template.write_text("{{ messages }}!", "utf-8")
    other = evaluate(out, *words, "--resume")
    assert other.returncode == 2 and "was begun with hashes" in other.stderr
    assert "chat_template/own.jinja" in other.stderr


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--suite", "nothing"), "no suite 'nothing'. Suites: toy, choosing"),
        (("--model", "embedded?n=x"), "n: Input should be a valid integer"),
        (("--model", "embedded,embedded"), "embedded is named twice"),
        (("--model", "gpt"), "or a model of Inspect"),
        (("--model", "mockllm/model", "--suite", "choosing"), "which mockllm/model does not give"),
        (("--model", "mockllm/model", "--decoder", "plain"), "--decoder: means nothing to"),
        (("--decoder", "guarded"), "add a principle"),
        (("--limit", "0"), "--limit 0: must be at least 1"),
        (("--model", "embedded?seed=3", "--seeds", "2"), "gives a seed"),
        (("--data", "nowhere"), "--data nowhere: there is no such folder"),
        (("--model", "embedded?decoder=guarded&principle=nope"), "no principle 'nope'"),
        (("--model", "embedded:nope.gguf"), "there is no file nope.gguf"),
        (("--model", "embedded?judge=embedded:nope.gguf&principle=rings"), "no file nope.gguf"),
        (("--model", "hf:./nope"), "there is no model ./nope"),
        (("--model", "embedded?chat_template=nope.jinja"), "there is no chat_template nope.jinja"),
        (("--model", "embedded?adapter=nope"), "nope"),
    ],
)
def test_what_cannot_be_run_ends_with_2_and_one_line(tmp_path, words, error):
    done = evaluate(tmp_path / "run", *words)
    assert done.returncode == 2, done.stderr
    assert error in done.stderr
    assert done.stderr.count("\n") == 1 and done.stdout == ""
    assert not (tmp_path / "run").exists()  # in nobody's way


def test_a_model_of_inspect_that_cannot_be_opened_leaves_nothing_behind(tmp_path):
    """Inspect looks for keys and packages of a provider only when it begins."""
    out = tmp_path / "run"
    done = evaluate(out, "--model", "openai/gpt-4o", OPENAI_API_KEY="")
    assert done.returncode == 2, done.stderr
    assert "openai" in done.stderr.casefold()
    assert not out.exists()


def test_a_run_that_another_holds_is_refused(tmp_path):
    out = tmp_path / "run"
    process, _ = begun(out)
    try:
        settings = {"RINGFENCE_TEST_ITEMS": "40"}
        done = evaluate(out, "--max-samples", "4", "--resume", **settings)
        assert done.returncode == 2
        assert "another run is writing it" in done.stderr
    finally:
        process.kill()
        process.communicate()


def folder(tmp_path: Path, content: bytes | None) -> Path:
    (tmp_path / "logs").mkdir()
    (tmp_path / "run.json").write_text("{}")
    if content is not None:
        (tmp_path / "logs" / "x.eval").write_bytes(content)
    return tmp_path


def zipped(tmp_path: Path, **entries: str) -> bytes:
    file = tmp_path / "made.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in entries.items():
            archive.writestr(f"{name}.json", text)
    return file.read_bytes()


def test_hostile_logs_are_errors_that_name_the_file(tmp_path):
    bomb = "0" * (65 << 20)
    logs = [
        b"no zip",
        zipped(tmp_path),
        zipped(tmp_path, header="{"),
        zipped(tmp_path, header="[" * 100_000),
        zipped(tmp_path, header='{"version": 2, "eval": {}}'),
        zipped(tmp_path, header=bomb),
    ]
    for number, content in enumerate(logs):
        place = tmp_path / str(number)
        place.mkdir()
        began = time.monotonic()
        with pytest.raises(InputError, match=r"x\.eval: "):
            load_run(folder(place, content))
        assert time.monotonic() - began < 60
    empty = tmp_path / "empty"
    empty.mkdir()
    assert load_run(folder(empty, None)).records == ()


@pytest.mark.model
def test_inspect_eval_answers_with_the_embedded_model(tmp_path):
    """The command of the README, with the real model and suite."""
    model = "ringfence/embedded?threads=1&max_tokens=8"
    words = ["eval", "ringfence/extraction", "--model", model, "--limit", "2"]
    done = subprocess.run(
        [str(Path(sys.executable).with_name("inspect")), *words, "--display", "plain"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=500,
        env=os.environ | {"INSPECT_LOG_DIR": str(tmp_path / "logs")},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (tmp_path / "run.json").write_text("{}")
    records = load_run(tmp_path).records
    assert [record.suite for record in records] == ["extraction"] * 2
    assert all(record.cost["committed"] > 0 and record.outcomes for record in records)
    assert {record.reason for record in records} <= {"stop", "length"}


def test_a_papers_table_asks_its_suites_and_says_what_needs_data(tmp_path, capsys):
    from ringfence.commandline.evaluating import planned

    def suites(**given) -> tuple[str, ...]:
        usual = {"suites": None, "table": None, "data": None} | given
        plan = planned(
            model="embedded", options={}, seeds=1, limit=1, samples=1, command=[], **usual
        )
        return plan.suites

    assert suites(table="rain") == ("harmful", "capability", "truthful")
    assert "left out, since they need --data: sentiment" in capsys.readouterr().err
    data = fill(tmp_path / "data")
    assert suites(table="rain", data=data)[-1] == "sentiment"
    assert suites(table="rain", suites="extraction") == ("extraction",)
    assert "jailbreak" not in suites() and "jailbreak" in suites(data=data)
    (data / "truthfulqa/TruthfulQA.csv").unlink()
    (data / "imdb_prefixes/imdb_prefixes.jsonl").unlink()
    with pytest.raises(InputError, match=r"--data .*truthfulqa/ lacks TruthfulQA.csv.*imdb_pre"):
        suites(table="rain", data=data)
    with pytest.raises(InputError, match="no table 'other'"):
        suites(table="other")


def test_a_threshold_of_nought_is_one():
    from ringfence.commandline.evaluating import planned

    plan = planned(
        model="embedded",
        options={"principle": "positive", "threshold": 0.0},
        suites="extraction",
        table=None,
        data=None,
        seeds=1,
        limit=1,
        samples=1,
        command=[],
    )
    assert plan.models == ("ringfence/embedded?principle=positive&threshold=0.0",)


def test_a_papers_table_stands_below_the_rates(tmp_path):
    done = evaluate(tmp_path / "run", "--table", "instruction-hierarchy", "--limit", "1")
    assert done.returncode == 0, done.stderr
    assert "System message extraction" in done.stdout and "95.9" in done.stdout


def test_seeds_of_a_greedy_model_are_told_to_be_no_tries(capsys):
    from ringfence.commandline.evaluating import planned

    models = (
        "embedded,embedded?decoder=guarded&principle=rings,embedded?temperature=0.7,"
        "embedded?decoder=rain&principle=rings"
    )
    for seeds in (1, 3):
        given = {"suites": "extraction", "table": None, "data": None, "seeds": seeds}
        planned(model=models, options={}, limit=1, samples=1, command=[], **given)
        told = [line for line in capsys.readouterr().err.splitlines() if "temperature 0," in line]
        assert [line.split()[2] for line in told] == (
            ["embedded", "embedded?decoder=guarded&principle=rings"] if seeds > 1 else []
        )


def test_the_table_has_the_intervals_of_the_report():
    from ringfence.commandline.evaluating import rows
    from ringfence.records import Record, Run
    from ringfence.reports.contents import report_of

    # The same 20 items under five seeds are 20 pieces of evidence, not 100.
    records = tuple(
        Record(
            model="m",
            suite="extraction",
            item=f"role-{item}/0",
            cluster=f"role-{item}",
            seed=seed,
            outcomes={"kept": item % 3 > 0, "gone": True},
        )
        for item in range(20)
        for seed in range(5)
    )
    found = {row.metric: row for row in rows(records)}
    kept = found["kept"]
    assert (kept.hits, kept.n) == (65, 100)
    report = report_of([Run(path=Path("r"), manifest={}, records=records)])
    assert kept.interval == next(one.interval for one in report.rates if one.metric.name == "kept")
    assert kept.interval.high - kept.interval.low > 0.35
    assert found["gone"].n == 100  # of graders before those of today
    assert found["served"].described()["rate"] is None


def test_rings_of_an_item_are_in_its_record_and_on_the_page_of_a_report():
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ModelOutput
    from inspect_ai.scorer import Score

    from ringfence.evaluation import reading, tasks
    from ringfence.records import Run
    from ringfence.reports.contents import report_of
    from ringfence.reports.page import page
    from ringfence.reports.regrading import regraded
    from ringfence.suites import SUITES

    # A case of tiers: all of its messages are a user's, with rings of their own.
    item = next(one for one in SUITES["hierarchy"].items(None, 60) if one.rings)
    assert "tier" in item.rings[-1]
    asked = tasks._sample("hierarchy", item)
    sample = EvalSample(
        id=item.id,
        epoch=1,
        input=asked.input,
        target="",
        metadata=asked.metadata,
        output=ModelOutput.from_content("m", "No."),
        scores={
            "graded": Score(value=SUITES["hierarchy"].grade(item.grading, "No.") | {"right": 0})
        },
    )
    record = reading._record(sample, "hierarchy", "m", 0)
    assert [message.get("ring") for message in record.prompt] == list(item.rings)
    assert f"ring {item.rings[-1]}" in page(
        report_of([Run(path=Path("r"), manifest={}, records=(record,))])
    )
    assert regraded([record], limit=60).replies == 1
