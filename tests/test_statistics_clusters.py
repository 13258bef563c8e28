"""Exact, clustered and paired statistics against scipy, statsmodels and what can be counted."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from ringfence.errors import InputError
from ringfence.statistics import (
    Ratios,
    asr_at_k,
    breached_within,
    clopper_pearson,
    clustered_bootstrap_difference,
    clustered_bootstrap_mean,
    clustered_error,
    clustered_rate,
    detectable_difference,
    holm,
    mcnemar_clustered,
    mcnemar_exact,
    paired_bootstrap_difference,
    par,
    ratio_detectable,
    ratio_difference,
    ratio_test,
    shared_correlation,
    sum_of_rates,
    wilson,
)
from ringfence.statistics.intervals import incomplete_beta, student_quantile

quick = settings(deadline=None, max_examples=40)
rates = st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
marked = st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=60)
signed = st.lists(st.tuples(st.integers(-1, 1), st.integers(0, 5)), min_size=1, max_size=40)


@quick
@given(rates, st.sampled_from([0.8, 0.95, 0.99]))
def test_clopper_pearson_is_the_exact_interval_of_scipy(rate, confidence):
    successes, n = rate
    ours = clopper_pearson(successes, n, confidence)
    theirs = stats.binomtest(successes, n).proportion_ci(confidence, method="exact")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@quick
@given(st.floats(0, 1), st.floats(0.5, 2000), st.floats(0.5, 2000))
def test_the_incomplete_beta_function_is_that_of_scipy(x, a, b):
    assert incomplete_beta(x, a, b) == pytest.approx(special.betainc(a, b, x), abs=1e-10)


@quick
@given(st.integers(1, 500), st.sampled_from([0.5, 0.95, 0.999]))
def test_students_quantile_is_that_of_scipy(freedom, confidence):
    expected = stats.t.ppf((1 + confidence) / 2, freedom)
    assert student_quantile(confidence, freedom) == pytest.approx(expected, rel=1e-8)


@quick
@given(marked.filter(lambda rows: len({cluster for _, cluster in rows}) > 1))
def test_the_clustered_error_is_the_sandwich_of_statsmodels(rows):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        api = pytest.importorskip("statsmodels.api")
        values, clusters = (list(column) for column in zip(*rows, strict=True))
        data = np.array(values, dtype=float)
        fitted = api.OLS(data, np.ones_like(data)).fit(
            cov_type="cluster", cov_kwds={"groups": np.array(clusters)}
        )
        expected = float(np.sqrt(np.atleast_2d(fitted.cov_params())[0, 0]))
    assert clustered_error(values, clusters) == pytest.approx(expected, abs=1e-9)


@quick
@given(st.lists(st.booleans(), min_size=1, max_size=80))
def test_clusters_of_one_item_each_give_wilsons_interval(values):
    assert clustered_rate(values, range(len(values))) == wilson(sum(values), len(values))


@quick
@given(st.lists(st.booleans(), min_size=3, max_size=30).filter(lambda v: len(set(v)) == 2))
def test_repeating_every_item_adds_nothing_to_what_is_known(values):
    clusters = list(range(len(values)))
    repeated = clustered_rate(values * 3, clusters * 3)
    once = clustered_rate(values, clusters)
    assert repeated.estimate == pytest.approx(once.estimate)
    assert repeated.low <= once.low + 1e-9
    assert repeated.high >= once.high - 1e-9


def test_a_clustered_interval_covers_the_truth_where_the_plain_one_does_not():
    rng = np.random.default_rng(2)
    plain = clustered = 0
    for _ in range(600):
        chances = rng.beta(1.5, 1.5, 30)  # clusters that differ a lot
        values = (rng.random((30, 8)) < chances[:, None]).ravel().tolist()
        ours = clustered_rate(values, np.repeat(np.arange(30), 8).tolist())
        theirs = wilson(sum(values), len(values))
        clustered += ours.low <= 0.5 <= ours.high
        plain += theirs.low <= 0.5 <= theirs.high
    assert clustered / 600 > 0.925
    assert plain / 600 < 0.85


def test_no_breach_in_ten_clusters_of_a_hundred_allows_what_ten_trials_allow():
    bounds = clustered_rate([0] * 1000, [place % 10 for place in range(1000)])
    assert bounds == wilson(0, 10)


@quick
@given(st.lists(st.integers(-1, 1), min_size=1, max_size=50))
def test_flipping_clusters_of_one_item_is_mcnemars_test(differences):
    expected = mcnemar_exact(differences.count(1), differences.count(-1))
    assert mcnemar_clustered(differences, range(len(differences))) == pytest.approx(expected)


@quick
@given(signed)
def test_flipping_clusters_agrees_with_trying_all_signs(rows):
    sums: dict[int, int] = {}
    for difference, cluster in rows:
        sums[cluster] = sums.get(cluster, 0) + difference
    distance = abs(sum(sums.values()))
    signs = list(itertools.product([-1, 1], repeat=len(sums)))
    extreme = sum(
        abs(sum(s * d for s, d in zip(one, sums.values(), strict=True))) >= distance
        for one in signs
    )
    differences, clusters = zip(*rows, strict=True)
    assert mcnemar_clustered(differences, clusters) == pytest.approx(extreme / len(signs))


def test_mcnemar_is_the_exact_test_of_statsmodels():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    for ours, theirs in [(12, 3), (0, 5), (40, 40), (1, 0)]:
        expected = tables.mcnemar([[9, ours], [theirs, 9]], exact=True).pvalue
        assert mcnemar_exact(ours, theirs) == pytest.approx(expected)


def test_a_clustered_test_of_thousands_of_pairs_is_quick_and_finite():
    rng = np.random.default_rng(3)
    differences = rng.integers(-1, 2, 50_000).tolist()
    p = mcnemar_clustered(differences, rng.integers(0, 12_000, 50_000).tolist())
    assert 0 < p <= 1


@quick
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_that_of_statsmodels(p_values):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        multitest = pytest.importorskip("statsmodels.stats.multitest")
        expected = multitest.multipletests(p_values, method="holm")[1]
    assert holm(p_values) == pytest.approx(list(expected))


def test_a_clustered_bootstrap_agrees_with_its_robust_error():
    rng = np.random.default_rng(4)
    clusters = np.repeat(np.arange(80), 5)
    values = rng.normal(0, 1, 80)[clusters] + rng.normal(0, 1, 400)
    ours = clustered_bootstrap_mean(values.tolist(), clusters.tolist(), seed=1)
    half = 1.96 * clustered_error(values.tolist(), clusters.tolist())
    assert (ours.high - ours.low) / 2 == pytest.approx(half, rel=0.1)
    assert ours == clustered_bootstrap_mean(values.tolist(), clusters.tolist(), seed=1)


def test_without_clusters_the_clustered_difference_is_the_paired_bootstrap():
    rng = np.random.default_rng(5)
    ours, theirs = rng.integers(0, 2, (2, 300)).astype(float).tolist()
    plain = paired_bootstrap_difference(ours, theirs)
    clustered = clustered_bootstrap_difference(ours, theirs, range(300))
    assert clustered.estimate == pytest.approx(plain.estimate)
    assert (clustered.low, clustered.high) == pytest.approx((plain.low, plain.high), abs=0.012)


@quick
@given(st.integers(1, 14), st.data())
def test_success_within_k_tries_is_the_mean_over_all_choices_of_k(tries, data):
    breaches = data.draw(st.integers(0, tries))
    k = data.draw(st.integers(1, min(tries, 5)))
    outcomes = [True] * breaches + [False] * (tries - breaches)
    choices = list(itertools.combinations(outcomes, k))
    expected = sum(any(choice) for choice in choices) / len(choices)
    assert breached_within(k, tries, breaches) == pytest.approx(expected)


def test_one_percent_a_try_is_sixty_three_percent_in_a_hundred():
    rate = asr_at_k([10_000] * 4, [100] * 4, 100).rate
    assert rate is not None
    assert rate.estimate == pytest.approx(1 - 0.99**100, abs=0.002)


def test_items_with_too_few_tries_are_left_out_and_counted():
    found = asr_at_k([100, 3, 10], [100, 3, 0], 10)
    assert (found.items, found.left_out) == (2, 1)
    assert found.rate is not None
    assert found.rate.estimate == 0.5
    assert asr_at_k([3], [0], 10).rate is None


def test_success_at_one_try_of_one_try_each_is_a_wilson_rate():
    assert asr_at_k([1] * 20, [1] * 5 + [0] * 15, 1).rate == wilson(5, 20)


@quick
@given(st.integers(1, 200), st.integers(1, 200), st.data())
def test_the_interval_of_j_is_newcombes_where_nothing_is_shared(n, m, data):
    a, b = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        proportion = pytest.importorskip("statsmodels.stats.proportion")
        # J = security - (1 - benign): a difference of two proportions.
        low, high = proportion.confint_proportions_2indep(a, n, m - b, m, method="newcomb")
    ours = sum_of_rates(wilson(a, n), wilson(b, m))
    assert (ours.low, ours.high) == pytest.approx((max(-1, low), min(1, high)), abs=1e-9)


def test_j_of_a_perfect_system_is_one_and_still_has_a_width():
    ours = sum_of_rates(wilson(20, 20), wilson(20, 20))
    assert ours.estimate == ours.high == 1
    assert ours.low < 0.85


def test_rates_of_shared_clusters_are_correlated_and_of_others_not():
    rng = np.random.default_rng(6)
    skill = rng.random(200)
    ours = (rng.random(200) < skill).tolist()
    theirs = (rng.random(200) < 1 - skill).tolist()
    names = list(range(200))
    assert shared_correlation(ours, names, ours, names) == pytest.approx(1)
    assert shared_correlation(ours, names, theirs, names) < -0.1
    assert shared_correlation(ours, names, theirs, [-1 - name for name in names]) == 0


def test_par_counts_replies_that_obeyed_one_of_the_two():
    higher = [True, True, False, True, False]
    lower = [False, False, True, True, False]
    assert par(higher, lower) == wilson(2, 3)
    assert par([True], [True]) is None


def test_what_pairs_would_show_shrinks_with_their_number_but_never_below_what_shows_six():
    few = detectable_difference([1, -1] * 10 + [0] * 80, range(100))
    many = detectable_difference([1, -1] * 100 + [0] * 800, range(1000))
    assert many < few
    assert few == pytest.approx((1.959964 + 0.841621) * math.sqrt(20 / 99) / 10, rel=0.01)
    rate = detectable_difference([0] * 200, range(200))
    fewer = sum(math.comb(200, n) * rate**n * (1 - rate) ** (200 - n) for n in range(6))
    assert fewer == pytest.approx(0.2)
    assert detectable_difference([0] * 5, range(5)) == 1


def test_clusters_that_agree_but_for_rounding_are_no_certainty():
    for rate in (asr_at_k([3] * 30, [1] * 30, 1).rate, clustered_rate([0.2] * 3, range(3))):
        assert rate is not None and rate.high - rate.low > 0.2


def test_few_clusters_that_agree_exactly_tell_no_more_than_as_many_that_nearly_do():
    """Two clusters of ten with five hits each, and with five and six."""
    clusters = [0] * 10 + [1] * 10
    exact, nearly = ([1] * 5 + [0] * 5 + [1] * hits + [0] * (10 - hits) for hits in (5, 6))
    agreed, near = clustered_rate(exact, clusters), clustered_rate(nearly, clusters)
    assert agreed.high - agreed.low == pytest.approx(near.high - near.low, abs=0.02)


@pytest.mark.parametrize("power", [0.4, 1, -1])
def test_a_power_that_is_none_is_named(power):
    with pytest.raises(InputError, match=r"power must lie in \[0\.5, 1\)"):
        detectable_difference([1, 0], range(2), power=power)


def test_half_power_needs_no_more_than_the_error_itself():
    half = detectable_difference([1, -1] * 10 + [0] * 80, range(100), power=0.5)
    assert half == pytest.approx(1.959964 * math.sqrt(20 / 99) / 10, rel=0.01)


side = st.tuples(st.integers(0, 4), st.integers(0, 3)).map(lambda one: (one[0], sum(one)))
two = st.lists(st.tuples(side, side), min_size=1, max_size=8).filter(
    lambda found: all(sum(one[place][1] for one in found) for place in (0, 1))
)


def ratios(found):
    return Ratios(ours=[one for one, _ in found], theirs=[other for _, other in found])


@quick
@given(two)
def test_rates_of_other_numbers_of_outcomes_are_tested_by_swapping_clusters(found):
    def beyond(sides):
        (hits, n), (other, m) = ([sum(one[i][j] for one in sides) for j in (0, 1)] for i in (0, 1))
        # Of all swaps the sum is the difference of rates, weighted by the numbers behind them.
        assert (
            (hits / n - other / m) * 2 * n * m
            == pytest.approx((n + m) * (hits - other) - (hits + other) * (n - m))
            if n and m
            else True
        )
        return (n + m) * (hits - other) - (hits + other) * (n - m)

    swaps = [
        abs(beyond([one[::-1] if flip else one for one, flip in zip(found, flips, strict=True)]))
        for flips in itertools.product([False, True], repeat=len(found))
    ]
    expected = sum(one >= abs(beyond(found)) for one in swaps) / len(swaps)
    assert ratio_test(ratios(found)) == pytest.approx(expected)
    assert ratio_test(ratios([one[::-1] for one in found])) == pytest.approx(expected)


@quick
@given(signed)
def test_with_equal_numbers_the_swaps_are_those_of_the_paired_test(found):
    differences, clusters = [one for one, _ in found], [cluster for _, cluster in found]
    sums = {name: [0, 0, 0] for name in clusters}
    for one, cluster in found:
        for place, value in enumerate((one > 0, one < 0, 1)):
            sums[cluster][place] += value
    both = Ratios(
        ours=[(plus, n) for plus, _, n in sums.values()],
        theirs=[(minus, n) for _, minus, n in sums.values()],
    )
    assert ratio_test(both) == pytest.approx(mcnemar_clustered(differences, clusters))
    assert ratio_detectable(both) == pytest.approx(detectable_difference(differences, clusters))
    ours = ratio_difference(both)
    theirs = clustered_bootstrap_mean(differences, clusters)
    assert ours.estimate == pytest.approx(theirs.estimate)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.15)


def test_rates_under_the_null_are_rarely_called_different_and_intervals_cover():
    rng = np.random.default_rng(7)
    alarms = covered = 0
    for _ in range(60):
        n = rng.integers(0, 6, (2, 60))
        hits = rng.binomial(n, rng.beta(2, 2, 60))
        table = Ratios(
            ours=list(zip(hits[0], n[0], strict=True)), theirs=list(zip(hits[1], n[1], strict=True))
        )
        alarms += ratio_test(table) < 0.05
        interval = ratio_difference(table, resamples=400)
        covered += interval.low <= 0 <= interval.high
    assert alarms <= 7
    assert covered >= 53


def test_a_collapse_on_more_outcomes_is_seen():
    table = Ratios(ours=[(1, 4)] * 50, theirs=[(1, 1)] * 50)
    assert ratio_difference(table).estimate == -0.75
    assert ratio_difference(table).high < -0.7
    assert ratio_test(table) < 0.001
    assert ratio_detectable(table) == pytest.approx(0.1535, abs=1e-4)


@pytest.mark.parametrize(
    "call",
    [
        lambda: ratio_test(Ratios(ours=[(1, 1)], theirs=[])),
        lambda: ratio_test(Ratios(ours=[(2, 1)], theirs=[(1, 1)])),
        lambda: ratio_difference(Ratios(ours=[(0, 0)], theirs=[(1, 1)])),
        lambda: clopper_pearson(3, 2),
        lambda: clustered_error([1.0, 0.0], ["a", "a"]),
        lambda: clustered_rate([], []),
        lambda: clustered_rate([2.0], ["a"]),
        lambda: clustered_rate([1.0], ["a", "b"]),
        lambda: mcnemar_clustered([2], ["a"]),
        lambda: holm([1.5]),
        lambda: breached_within(3, 2, 0),
        lambda: asr_at_k([1], [1, 2], 1),
        lambda: par([True], []),
    ],
)
def test_what_cannot_be_computed_is_an_error_and_not_a_number(call):
    with pytest.raises(InputError):
        call()
