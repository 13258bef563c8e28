"""Statistics against scipy, and against what can be counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ringfence.errors import InputError
from ringfence.statistics import (
    auroc,
    auroc_interval,
    bootstrap_mean,
    distinct_n,
    expected_calibration_error,
    mcnemar_exact,
    paired_bootstrap_difference,
    reliability,
    tpr_at_fpr,
    wilson,
)

rates = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
scored = st.lists(
    st.tuples(st.integers(-3, 3).map(float), st.booleans()), min_size=2, max_size=60
).filter(lambda rows: len({good for _, good in rows}) == 2)


@given(rates, st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_is_the_interval_of_scipy(rate, confidence):
    successes, n = rate
    ours = wilson(successes, n, confidence)
    theirs = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert 0 <= ours.low <= ours.estimate <= ours.high <= 1


def test_no_success_in_a_hundred_still_allows_almost_four_percent():
    assert wilson(0, 100).high == pytest.approx(0.037, abs=5e-4)
    assert wilson(0, 100).low == 0


@given(scored)
def test_auroc_is_the_mann_whitney_statistic(rows):
    scores, good = zip(*rows, strict=True)
    above = [score for score, kind in rows if kind]
    below = [score for score, kind in rows if not kind]
    expected = stats.mannwhitneyu(above, below).statistic / (len(above) * len(below))
    assert auroc(scores, good) == pytest.approx(expected)


@given(scored)
def test_the_bounds_of_an_auroc_lie_z_spreads_away_from_it(rows):
    scores, good = zip(*rows, strict=True)
    interval = auroc_interval(scores, good)
    positives, negatives = sum(good), len(good) - sum(good)
    for bound in (interval.low, interval.high):
        if 1e-9 < bound < 1 - 1e-9:
            shape = (1 - bound) / (2 - bound) + bound / (1 + bound)
            variance = bound * (1 - bound) * (1 + ((positives + negatives) / 2 - 1) * shape)
            spread = math.sqrt(variance / (positives * negatives))
            assert abs(interval.estimate - bound) == pytest.approx(1.959964 * spread, abs=1e-6)
    assert interval.low <= interval.estimate <= interval.high


def test_perfect_separation_of_few_items_is_not_certainty():
    interval = auroc_interval([1, 2, 3, 4, -1, -2, -3, -4], [True] * 4 + [False] * 4)
    assert interval.estimate == interval.high == 1
    assert 0.5 < interval.low < 0.7


def test_an_auroc_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    truth = stats.norm.cdf(1 / math.sqrt(2))
    hits = 0
    for _ in range(400):
        scores = np.concatenate([rng.normal(1, 1, 40), rng.normal(0, 1, 40)])
        interval = auroc_interval(scores.tolist(), [True] * 40 + [False] * 40)
        hits += interval.low <= truth <= interval.high
    assert 0.92 <= hits / 400 <= 0.985


def test_items_that_say_the_same_four_times_over_say_it_once():
    rng = np.random.default_rng(3)
    scores = [*rng.normal(1, 1, 60), *rng.normal(0, 1, 60)]
    good = [True] * 60 + [False] * 60
    names = [f"case {number}" for number in range(120)]
    alone = auroc_interval(scores, good)
    copied = auroc_interval(scores * 4, good * 4, clusters=names * 4)
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high), abs=0.01)
    assert auroc_interval(scores * 4, good * 4).low > alone.low + 0.01
    assert auroc_interval(scores, good, clusters=names) == alone


def test_tpr_at_fpr_counts_items_strictly_above_the_bar():
    good = [True] * 4 + [False] * 4
    scores = [0.9, 0.8, 0.5, 0.1, 0.5, 0.2, 0.0, -1.0]
    assert tpr_at_fpr(scores, good, 0.0) == 0.5  # 0.5 ties with a bad item
    assert tpr_at_fpr(scores, good, 0.25) == 0.75
    assert tpr_at_fpr(scores, good, 1.0) == 1.0


@given(scored, st.floats(0, 1))
def test_tpr_at_fpr_is_the_best_over_all_thresholds(rows, fpr):
    above = np.array([score for score, kind in rows if kind])
    below = np.array([score for score, kind in rows if not kind])
    bars = [-math.inf, *{score for score, _ in rows}]
    allowed = [bar for bar in bars if (below > bar).sum() <= math.floor(fpr * below.size + 1e-9)]
    expected = max(float((above > bar).mean()) for bar in allowed)
    scores, good = zip(*rows, strict=True)
    assert tpr_at_fpr(scores, good, fpr) == pytest.approx(expected)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_a_two_sided_binomial_test(ours, theirs):
    expected = stats.binomtest(ours, ours + theirs).pvalue if ours + theirs else 1.0
    assert mcnemar_exact(ours, theirs) == pytest.approx(expected)


def test_mcnemar_of_thousands_of_items_neither_overflows_nor_underflows():
    assert 0 < mcnemar_exact(2_000, 2_400) < 1e-8


def test_a_bootstrap_of_the_mean_agrees_with_scipy_and_repeats():
    values = np.random.default_rng(3).exponential(size=80)
    ours = bootstrap_mean(values.tolist(), seed=5)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", rng=5).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)
    assert ours == bootstrap_mean(values.tolist(), seed=5)
    assert ours != bootstrap_mean(values.tolist(), seed=6)


def test_a_paired_difference_is_tighter_than_its_two_sides():
    rng = np.random.default_rng(4)
    base = rng.normal(0, 5, 60)
    ours, theirs = base + 0.5 + rng.normal(0, 0.1, 60), base
    difference = paired_bootstrap_difference(ours.tolist(), theirs.tolist())
    assert difference.excludes_zero
    assert difference.estimate == pytest.approx(0.5, abs=0.05)
    assert not paired_bootstrap_difference(theirs.tolist(), theirs.tolist()).excludes_zero


def test_resampling_many_values_goes_by_blocks():
    interval = bootstrap_mean([0.0, 1.0] * 60_000, resamples=100)
    assert interval.low < 0.5 < interval.high


def test_calibration_error_of_stated_and_happened():
    probabilities = [0.05] * 10 + [0.95] * 10
    happened = [False] * 10 + [True] * 5 + [False] * 5
    assert expected_calibration_error(probabilities, happened) == pytest.approx(
        (0.05 * 10 + 0.45 * 10) / 20
    )
    low, high = reliability(probabilities, happened)
    assert (low.n, low.low, high.n, high.high) == (10, 0.0, 10, 1.0)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50))
def test_every_item_lies_in_one_bin(rows):
    probabilities, happened = zip(*rows, strict=True)
    bins = reliability(probabilities, happened)
    assert sum(bin_.n for bin_ in bins) == len(rows)
    assert 0 <= expected_calibration_error(probabilities, happened) <= 1


def test_distinct_n_counts_word_pairs_over_all_texts():
    assert distinct_n(["a b a b a b"], 2) == pytest.approx(2 / 5)
    assert distinct_n(["A b", "a B", "c"], 2) == pytest.approx(1 / 2)


@settings(max_examples=20)
@given(st.sampled_from([0.0, 1.0, -0.5, 2.0]))
def test_a_confidence_outside_its_range_is_refused(confidence):
    with pytest.raises(InputError, match="confidence"):
        wilson(1, 2, confidence)


@pytest.mark.parametrize(
    "call",
    [
        lambda: wilson(0, 0),
        lambda: wilson(3, 2),
        lambda: auroc([1.0, 2.0], [True, True]),
        lambda: auroc([math.nan, 2.0], [True, False]),
        lambda: auroc([1.0], [True, False]),
        lambda: tpr_at_fpr([1.0, 2.0], [True, False], 1.5),
        lambda: reliability([1.5], [True]),
        lambda: reliability([], []),
        lambda: bootstrap_mean([]),
        lambda: paired_bootstrap_difference([1.0], [1.0, 2.0]),
        lambda: mcnemar_exact(-1, 2),
        lambda: distinct_n(["word"], 2),
    ],
)
def test_what_cannot_be_computed_is_an_error_and_not_a_number(call):
    with pytest.raises(InputError):
        call()
