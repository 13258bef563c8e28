"""Comparisons: regressions are caught, noise is not, and gates mean what they say."""

from __future__ import annotations

import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest
import report_runs as made
from typer.testing import CliRunner

from ringfence.cli import app
from ringfence.errors import InputError
from ringfence.records import Record
from ringfence.reports.ci_files import junit, sarif
from ringfence.reports.comparison import compare
from ringfence.reports.gates import judged, parse_gate
from ringfence.reports.verdicts import verdict
from ringfence.statistics import mcnemar_exact
from ringfence.suites import SUITES


def outcomes(values, metric="kept", model=made.PLAIN, **given):
    return [
        made.record(item, model, outcomes={metric: value}, cluster=f"c{item}", **given)
        for item, value in enumerate(values)
    ]


def compared(a, b, metric="kept"):
    found = compare(outcomes(a, metric), outcomes(b, metric, made.GUARDED), made.CATALOGUE)
    return next(one for one in found if one.metric.name == metric)


LEFT_OUT = "items not shared, asked otherwise or undecided"
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
    assert same.endswith("with 200 pairs a difference below 3.9 points would be missed")


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


def siblings(model, lower, cases=50):
    """A hierarchy case each: one conflict won, and three lost to the lower ring or to neither."""
    found = []
    for case in range(cases):
        cluster = f"multi-turn-eval-0-{case}"
        lost = {"obeyed-higher": False, "obeyed-lower": lower}
        outcomes = {
            "reference": {"right": True, "followed": True},
            "conflict": {"obeyed-higher": True, "obeyed-lower": False},
            **dict.fromkeys(("role-swapped", "near", "quoted"), lost),
        }
        found += [
            made.record(
                case, model, "hierarchy", item=f"{cluster}/{name}", cluster=cluster, outcomes=one
            )
            for name, one in outcomes.items()
        ]
    return found


def of_figure(a, b, name="obedience"):
    return next(one for one in compare(a, b, SUITES) if one.metric.name == name)


def test_a_figure_is_compared_by_its_rates_although_the_two_have_other_numbers_of_replies():
    one = of_figure(siblings("old", lower=False), siblings("new", lower=True))
    assert (one.rate_a, one.rate_b, one.n_a, one.n_b) == (1.0, 0.25, 50, 200)
    assert one.difference.estimate == -0.75
    assert one.difference.high < -0.7
    assert one.significant
    words = verdict(one, "old", "new")
    assert words.startswith(
        "new is less robust than old: 100.0 % of 50 → 25.0 % of 200, 0 clusters better, "
        "50 worse, p < 0.001"
    )
    assert judged(parse_gate("hierarchy.obedience drops > 2"), (one,))[0].holds
    assert one.changes[3].item == "multi-turn-eval-0-3"


def test_a_figure_of_equal_counts_says_what_its_items_would():
    lost = [record for record in siblings("new", lower=True) if not record.item.endswith("near")]
    one = of_figure(siblings("old", lower=True), siblings("new", lower=True))
    assert (one.p, one.difference.estimate, one.changes) == (1.0, 0.0, ())
    assert verdict(one).startswith(
        "no difference seen: 25.0 % of 200 → 25.0 % of 200, 0 clusters better"
    )
    # Items that only one side has count for neither.
    fewer = of_figure(siblings("old", lower=True), lost)
    assert (fewer.n_a, fewer.n_b, fewer.left_out, fewer.asked) == (150, 150, 50, 250)


def test_a_figure_pairs_only_what_both_answered():
    failed = [
        replace(one, outcomes={}, error="gone") if number % 5 == 0 and number < 50 else one
        for number, one in enumerate(siblings("new", lower=False))
    ]
    one = of_figure(siblings("old", lower=False), failed)
    # Ten references never came: their cases count on neither side.
    assert (one.n_a, one.n_b, one.left_out, one.asked) == (40, 40, 10, 250)


def test_items_that_ask_something_else_today_are_no_pairs():
    def asked(name: str, words: str) -> list[Record]:
        prompts = [f"{words} {number}" if number < 4 else "the same" for number in range(10)]
        return [
            replace(one, prompt=({"role": "user", "content": prompt},))
            for one, prompt in zip(outcomes([True] * 10, model=name), prompts, strict=True)
        ]

    one = compare(asked(made.PLAIN, "old"), asked(made.GUARDED, "new"), made.CATALOGUE)[0]
    assert (one.pairs, one.left_out, one.asked) == (6, 4, 10)
    without = [replace(one, prompt=()) for one in outcomes([True] * 10, model=made.GUARDED)]
    assert compare(asked(made.PLAIN, "old"), without, made.CATALOGUE)[0].pairs == 10


def test_few_pairs_are_said_and_no_gate_passes_on_them():
    ours = outcomes([True] * 100)
    theirs = [
        one if number < 3 else replace(one, outcomes={}, error="engine gone")
        for number, one in enumerate(outcomes([True] * 100, model=made.GUARDED))
    ]
    for other in (theirs, theirs[:3]):
        one = compare(ours, other, made.CATALOGUE)[0]
        assert (one.pairs, one.left_out, one.asked) == (3, 97, 100)
        assert f"97 of 100 {LEFT_OUT}" in verdict(one)
        (gate,) = judged(parse_gate("keeping drops > 2"), (one,))
        assert gate.holds and gate.incomplete
        assert f"97 of 100 {LEFT_OUT}, more than a fifth" in gate.words
    whole = compared(BEFORE, BEFORE)
    assert "not shared" not in verdict(whole)
    assert not judged(parse_gate("keeping drops > 2"), (whole,))[0].incomplete


def test_a_fifth_of_the_items_may_be_missing():
    ours = outcomes([True] * 100)
    one = compare(ours, outcomes([True] * 80, model=made.GUARDED), made.CATALOGUE)[0]
    (gate,) = judged(parse_gate("keeping drops > 2"), (one,))
    assert not gate.holds
    assert f"20 of 100 {LEFT_OUT}" in gate.words


def test_a_metric_that_only_one_side_has_decided_fails_the_gate_of_its_suite():
    both = {"kept": True, "served": True}
    ours = [made.record(item, outcomes=both) for item in range(20)]
    theirs = [made.record(item, made.GUARDED, outcomes=both | {"kept": None}) for item in range(20)]
    found = {one.metric.name: one for one in compare(ours, theirs, made.CATALOGUE)}
    assert found["kept"].difference is None
    assert verdict(found["kept"]) == f"not compared: 20 of 20 {LEFT_OUT}"
    gates = judged(parse_gate("keeping drops > 2"), tuple(found.values()))
    assert [(one.comparison.metric.name, one.holds) for one in gates] == [
        ("kept", True),
        ("served", False),
    ]
    junit(tuple(found.values()), gates, "a", "b")


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
    told = runner.invoke(app, ["compare", old, new], env={"COLUMNS": "80"})
    assert told.exit_code == 0
    assert "\n kept  " in told.stdout.partition("broken:")[0], "eighty columns break no name"
    assert "broken: item-140 (seed 0)" in told.stdout
    assert runner.invoke(app, ["compare", old, old, *gated]).exit_code == 2
    missing = runner.invoke(app, ["compare", old, new, "--fail-if", "rules drops > 1"])
    assert missing.exit_code == 2
    assert "Compared: keeping" in missing.stderr
    wrong = runner.invoke(app, ["compare", old, new, "--model-b", "other"])
    assert wrong.exit_code == 2
    assert made.PLAIN in wrong.stderr
