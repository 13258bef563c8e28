"""Records: what goes out comes back, and what is none is refused by name."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.errors import InputError
from ringfence.records import (
    Record,
    manifest_of,
    record_as_json,
    record_from_json,
    records_as_jsonl,
    records_from_jsonl,
)

RECORD = Record(
    model="ringfence/embedded?decoder=guarded&principle=rings",
    suite="extraction",
    item="7",
    cluster="c",
    seed=0,
    outcomes={"held": True, "fidelity": None},
    prompt=({"role": "user", "content": "hi"},),
    reply="no",
    reason="refused",
    cost={"drafted": 3, "seconds": 0.5},
    seconds=1.5,
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(
    text=texts,
    outcomes=st.dictionaries(texts, st.sampled_from([True, False, None]), max_size=3),
    seconds=st.none() | st.floats(allow_nan=False, allow_infinity=False),
)
def test_a_record_comes_back_as_it_was(text, outcomes, seconds):
    record = replace(RECORD, reply=text, item=text, outcomes=outcomes, seconds=seconds)
    line = record_as_json(record)
    assert "\n" not in line
    assert record_from_json(line, "here") == record


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"outcomes": {"held": 1}}, "outcomes.held"),
        ({"seed": "0"}, "seed"),
        ({"reply": None}, "reply"),
        ({"judge": 1}, "judge: Unexpected"),
        ({"cost": {"drafted": "3"}}, "cost.drafted"),
        ({"prompt": "hi"}, "prompt"),
    ],
)
def test_a_line_that_is_no_record_names_the_field(change, words):
    line = json.dumps({**json.loads(record_as_json(RECORD)), **change})
    with pytest.raises(InputError, match=f"here: .*{words}"):
        record_from_json(line, "here")


@pytest.mark.parametrize("line", ["", "[]", "{", '{"a":' * 100_000, "[" * 100_000, '"\\ud800"'])
def test_hostile_lines_are_errors_of_ours(line):
    with pytest.raises(InputError):
        record_from_json(line, "here")


def test_half_a_surrogate_pair_does_not_make_a_file_unreadable():
    line = record_as_json(replace(RECORD, reply="a\ud800b\u2028c"))
    assert record_from_json(line, "here").reply == "a?b\u2028c"


def test_no_line_holds_a_number_that_json_does_not_have():
    with pytest.raises(InputError, match="is no JSON"):
        record_as_json(replace(RECORD, seconds=float("nan")))
    line = record_as_json(RECORD).replace("1.5", "NaN")
    with pytest.raises(InputError, match="seconds"):
        record_from_json(line, "here")


def test_a_file_comes_back_in_order_and_errors_name_its_line(tmp_path):
    path = tmp_path / "records.jsonl"
    records = [replace(RECORD, item=str(number)) for number in range(5)]
    assert records_as_jsonl(records, path) == 5
    assert list(records_from_jsonl(path)) == records
    assert [file.name for file in tmp_path.iterdir()] == ["records.jsonl"]
    with path.open("a") as file:
        file.write("{}\n")
    with pytest.raises(InputError, match="records.jsonl, line 6: model"):
        list(records_from_jsonl(path))


def test_two_records_of_one_key_are_refused_and_leave_the_old_file(tmp_path):
    path = tmp_path / "records.jsonl"
    records_as_jsonl([RECORD], path)
    with pytest.raises(InputError, match="two records of extraction/7, seed 0"):
        records_as_jsonl([RECORD, replace(RECORD, reply="other")], path)
    assert list(records_from_jsonl(path)) == [RECORD]


def test_a_folder_without_a_manifest_is_no_run(tmp_path):
    with pytest.raises(InputError, match="no run folder.*ringfence evaluate"):
        manifest_of(tmp_path)
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(InputError, match="must be an object"):
        manifest_of(tmp_path)
    (tmp_path / "run.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="not valid JSON"):
        manifest_of(tmp_path)
