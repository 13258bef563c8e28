"""Comparisons: regressions are caught, noise is not, and gates mean what they say."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest
import report_runs as made
from typer.testing import CliRunner

from ringfence.cli import app
from ringfence.errors import InputError
from ringfence.reports.ci_files import junit, sarif
from ringfence.reports.comparison import compare, verdict
from ringfence.reports.gates import judged, parse_gate
from ringfence.statistics import mcnemar_exact


def outcomes(values, metric="kept", model=made.PLAIN, **given):
    return [
        made.record(item, model, outcomes={metric: value}, cluster=f"c{item}", **given)
        for item, value in enumerate(values)
    ]


def compared(a, b, metric="kept"):
    found = compare(outcomes(a, metric), outcomes(b, metric, made.GUARDED), made.CATALOGUE)
    return next(one for one in found if one.metric.name == metric)


BEFORE = [True] * 160 + [False] * 40
REGRESSED = [True] * 140 + [False] * 20 + [True] * 3 + [False] * 37


def test_a_planted_regression_is_caught():
    one = compared(BEFORE, REGRESSED)
    assert (one.pairs, one.fixed, one.broken) == (200, 3, 20)
    assert one.p == pytest.approx(mcnemar_exact(3, 20))
    assert one.significant
    assert one.difference.estimate == pytest.approx(-0.085)
    assert one.difference.high < 0
    words = verdict(one, "old", "new")
    assert words.startswith(
        "new is less robust than old: 3 items fixed, 20 broken, McNemar p < 0.0"
    )


def test_noise_is_called_no_difference_with_what_would_have_been_missed():
    one = compared([True] * 190 + [False] * 10, [False] * 2 + [True] * 189 + [False] * 9)
    words = verdict(one)
    assert words.startswith("no difference seen")
    assert "with 200 pairs a difference below" in words
    same = verdict(compared([True] * 200, [True] * 200))
    assert same.endswith("with 200 pairs a difference below 3.0 points would be missed")


def test_fewer_refusals_are_better_where_lower_is_better():
    one = compared([True] * 30 + [False] * 30, [False] * 60, "refused")
    assert (one.fixed, one.broken) == (30, 0)
    assert verdict(one).startswith("B serves more harmless requests")


def test_items_pair_by_seed_and_undecided_ones_are_counted():
    ours = [*outcomes([True, True]), *outcomes([True], seed=1)]
    theirs = [*outcomes([False, None], model=made.GUARDED), *outcomes([True], seed=2)]
    one = compare(ours, theirs, made.CATALOGUE)[0]
    assert (one.pairs, one.undecided) == (1, 1)
    assert [(change.item, change.seed) for change in one.changes] == [("item-0", 0)]


def test_items_that_share_a_prompt_are_one_piece_of_evidence():
    ours = [made.record(i, outcomes={"kept": True}, cluster=f"c{i // 10}") for i in range(40)]
    theirs = [made.record(i, outcomes={"kept": False}, cluster=f"c{i // 10}") for i in range(40)]
    one = compare(ours, theirs, made.CATALOGUE)[0]
    assert one.p == pytest.approx(2 / 2**4)
    assert not one.significant


def test_runs_that_share_no_item_are_an_error():
    with pytest.raises(InputError, match="share no graded item"):
        compare(outcomes([True]), outcomes([True], suite="other"), made.CATALOGUE)


@pytest.mark.parametrize(
    "text, holds",
    [
        ("keeping.kept drops > 2", True),
        ("keeping.kept drops > 8.5", False),
        ("keeping.kept drops >= 8.5 points", True),
        ("keeping drops > 5 significantly", True),
        ("keeping.kept worsens > 5%", True),
        ("keeping.kept rises > 1", False),
        ("keeping.kept improves > 0", False),
        ("keeping.kept changes > 8 points", True),
        ("keeping.kept differs > 9", False),
    ],
)
def test_conditions_mean_what_they_say(text, holds):
    found = (compared(BEFORE, REGRESSED),)
    assert [one.holds for one in judged(parse_gate(text), found)] == [holds]


def test_a_drop_of_refusals_is_no_worsening():
    found = (compared([True] * 30 + [False] * 30, [False] * 60, "refused"),)
    assert judged(parse_gate("keeping.refused drops > 10"), found)[0].holds
    assert not judged(parse_gate("keeping.refused worsens > 10"), found)[0].holds


def test_a_condition_on_a_suite_is_about_its_primary_metrics():
    both = (compared(BEFORE, REGRESSED), compared(BEFORE, REGRESSED, "done"))
    names = [one.comparison.metric.name for one in judged(parse_gate("keeping drops > 1"), both)]
    assert names == ["kept"]


@pytest.mark.parametrize(
    "text, words",
    [
        ("keeping kept drops 2", "write SUITE"),
        ("keepin drops > 2", "Did you mean 'keeping'"),
        ("keeping.kep drops > 2", "Did you mean 'kept'"),
        ("keeping drops > -2", "write SUITE"),
    ],
)
def test_a_condition_that_cannot_be_read_is_an_error_with_the_names(text, words):
    with pytest.raises(InputError, match=words):
        judged(parse_gate(text), (compared(BEFORE, REGRESSED),))


def test_build_servers_are_told_what_broke():
    found = (compared(BEFORE, REGRESSED),)
    gates = judged(parse_gate("keeping.kept drops > 2"), found)
    suite = ElementTree.fromstring(junit(found, gates, "a", "b\x1b\u202e<"))[0]
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    assert "item-140 (seed 0)" in suite[0][0].text
    results = sarif(found, gates, "a", "b", "run/records.jsonl")["runs"][0]["results"]
    assert [one["level"] for one in results] == ["error"] + ["note"] * 20


def test_the_command_exits_with_1_on_a_regression_0_without_and_2_on_bad_input(tmp_path):
    old = str(made.run(tmp_path / "old", outcomes(BEFORE)))
    new = str(made.run(tmp_path / "new", outcomes(REGRESSED)))
    runner = CliRunner()
    files = [tmp_path / "junit.xml", tmp_path / "out.sarif"]
    gated = ["--fail-if", "keeping.kept drops > 2 points significantly"]
    more = ["--junit", str(files[0]), "--sarif", str(files[1]), "--json"]
    done = runner.invoke(app, ["compare", old, new, *gated, *more])
    assert done.exit_code == 1, done.output
    data = json.loads(done.stdout)
    assert data["failed"]
    assert data["gates"][0]["holds"]
    assert all(file.exists() for file in files)
    told = runner.invoke(app, ["compare", old, new])
    assert told.exit_code == 0
    assert "broken: item-140 (seed 0)" in told.stdout
    assert runner.invoke(app, ["compare", old, old, *gated]).exit_code == 2
    missing = runner.invoke(app, ["compare", old, new, "--fail-if", "rules drops > 1"])
    assert missing.exit_code == 2
    assert "Compared: keeping" in missing.stderr
    wrong = runner.invoke(app, ["compare", old, new, "--model-b", "other"])
    assert wrong.exit_code == 2
    assert made.PLAIN in wrong.stderr
