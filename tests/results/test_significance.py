"""Tests of tests: against enumeration, against scipy, and how often they cry wolf where there is none."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hashzoo.results.significance import bootstrap_intervals, crossed_test, holm, sign_flip_test

small = st.lists(st.integers(-9, 9).map(float), min_size=1, max_size=9)


def by_enumeration(d):
    sums = [
        abs(sum(s * x for s, x in zip(signs, d, strict=True))) for signs in itertools.product((1, -1), repeat=len(d))
    ]
    return sum(one >= abs(sum(d)) - 1e-9 for one in sums) / len(sums)


@settings(deadline=None, max_examples=50)
@given(small)
def test_few_differences_are_tested_with_all_their_signs(d):
    assert sign_flip_test([d])[0] == pytest.approx(by_enumeration(d))


def test_the_exact_test_is_that_of_scipy():
    d = np.random.default_rng(0).normal(0.3, 1, 10)
    theirs = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_test([d])[0] == pytest.approx(theirs.pvalue)


def test_many_differences_are_tested_with_enough_signs():
    pytest.importorskip("scipy", "1.15", reason="permutation_test has no rng before scipy 1.15")
    generator = np.random.default_rng(1)
    d = generator.normal(0.1, 1, (3, 200))
    theirs = [
        stats.permutation_test((x,), np.mean, permutation_type="samples", n_resamples=9999, rng=generator).pvalue
        for x in d
    ]
    assert sign_flip_test(d) == pytest.approx(theirs, abs=0.015)
    assert sign_flip_test(d).tolist() == sign_flip_test(d).tolist()


def test_a_p_that_draws_cannot_reach_is_bounded_and_never_below_the_exact_one():
    d = np.ones((1, 40))
    assert 2.0**-39 <= sign_flip_test(d)[0] == pytest.approx(2 * np.exp(-20))


def test_queries_with_equal_scores_say_nothing():
    d = np.random.default_rng(2).normal(0.2, 1, 11)
    assert sign_flip_test([[*d, *np.zeros(500)]])[0] == pytest.approx(sign_flip_test([d])[0])
    assert sign_flip_test(np.zeros((2, 50))).tolist() == [1, 1]
    assert sign_flip_test(np.zeros((0, 50))).tolist() == []


def test_holm_is_its_worked_example():
    # by hand: 4 x .005 = .02, 3 x .01 = .03, 2 x .03 = .06, and .04 may not fall below its forerunner
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]).tolist() == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_lies_between_no_correction_and_bonferroni_and_keeps_the_order(p):
    found = holm(p)
    assert (found >= np.array(p)).all()
    assert (found <= np.minimum(np.array(p) * len(p), 1) + 1e-12).all()
    assert (np.diff(found[np.argsort(p, kind="stable")]) >= 0).all()


# --- seeds ---


def test_without_queries_that_differ_it_is_the_t_test_of_the_seeds():
    seeds = np.array([0.01, 0.03, 0.02, 0.05])
    p, low, high = crossed_test(np.repeat(seeds[:, None], 30, 1))
    theirs = stats.ttest_1samp(seeds, 0)
    assert p == pytest.approx(theirs.pvalue)
    assert (low, high) == pytest.approx(tuple(theirs.confidence_interval()))


def test_without_seeds_that_differ_it_is_the_t_test_of_the_queries():
    queries = np.random.default_rng(0).normal(0.1, 1, 30)
    p, low, high = crossed_test(np.repeat(queries[None], 3, 0))
    theirs = stats.ttest_1samp(queries, 0)
    assert p == pytest.approx(theirs.pvalue)
    assert (low, high) == pytest.approx(tuple(theirs.confidence_interval()))


def test_where_both_differ_it_is_the_distribution_of_behrens_and_fisher():
    generator = np.random.default_rng(0)
    by_seed, by_query = np.array([-1.0, 0, 1.5]), generator.normal(0, 9, 40)
    d = by_seed[:, None] + by_query - by_query.mean() + 2
    drawn = by_seed.std(ddof=1) / 3**0.5 * generator.standard_t(2, 400_000)
    drawn += by_query.std(ddof=1) / 40**0.5 * generator.standard_t(39, 400_000)
    p, low, high = crossed_test(d)
    assert p == pytest.approx((abs(drawn) >= d.mean()).mean(), abs=0.003)
    assert high - d.mean() == pytest.approx(d.mean() - low)
    assert high - d.mean() == pytest.approx(np.quantile(abs(drawn), 0.95), rel=0.01)


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 5), st.integers(2, 20), st.integers(0, 99), st.floats(-1, 1))
def test_p_is_below_5_per_cent_just_where_the_interval_leaves_out_0(seeds, queries, draw, shift):
    p, low, high = crossed_test(np.random.default_rng(draw).normal(shift, 0.3, (seeds, queries)))
    assert low <= high
    if min(abs(low), abs(high)) > 1e-6:
        assert (p < 0.05) == (not low <= 0 <= high)


def test_equal_differences_everywhere_are_sure():
    assert crossed_test(np.zeros((3, 5))) == (1, 0, 0)
    assert crossed_test(np.ones((3, 4))) == (0, 1, 1)


@pytest.mark.parametrize("shape", [(1, 9), (3, 1)])
def test_one_seed_has_no_variance(shape):
    with pytest.raises(ValueError, match="two seeds"):
        crossed_test(np.zeros(shape))


# --- 1,000 pairs and more without a difference ---


def skewed(generator, shape):
    """Differences with a long tail to one side, the mean 0: skewness 1.4, more than 1,000 pairs had on CIFAR-10."""
    return generator.gamma(2, 0.1, shape) - 0.2


@pytest.mark.parametrize("queries", [100, 300, 1000])
def test_models_without_a_difference_are_told_apart_in_5_of_100_pairs(queries):
    d = skewed(np.random.default_rng(queries), (1000, queries))
    assert 0.035 <= (sign_flip_test(d) < 0.05).mean() <= 0.065
    low, high = bootstrap_intervals(d).T
    assert 0.93 <= ((low <= 0) & (high >= 0)).mean() <= 0.965


def runs(generator, seeds, of_seeds, of_queries):
    """(S, Q) differences of two methods that are equal on average: a part a seed, one a query, and noise."""
    return (
        generator.normal(0, of_seeds, (seeds, 1))
        + of_queries * skewed(generator, 100)
        + 0.15 * generator.standard_t(5, (seeds, 100))
    )


@pytest.mark.parametrize(("seeds", "least"), [(2, 0.025), (3, 0.035), (5, 0.035)])  # two seeds: 4 in 100
@pytest.mark.parametrize("of_seeds", [0, 0.01, 0.05])
def test_runs_of_one_method_with_other_seeds_are_told_apart_in_5_of_100_pairs(seeds, least, of_seeds):
    generator = np.random.default_rng(seeds)
    p = [crossed_test(runs(generator, seeds, of_seeds, 0))[0] for _ in range(1000)]
    assert least <= np.mean(np.array(p) < 0.05) <= 0.065


@pytest.mark.parametrize("of_seeds", [0, 0.01, 0.05])
def test_methods_that_differ_by_query_and_not_on_average_are_told_apart_less_often_still(of_seeds):
    generator = np.random.default_rng(0)
    p = [crossed_test(runs(generator, 3, of_seeds, 1))[0] for _ in range(1000)]
    assert 0.015 <= np.mean(np.array(p) < 0.05) <= 0.065


def test_a_test_of_queries_alone_takes_the_luck_of_a_seed_for_a_difference():
    generator = np.random.default_rng(0)
    d = np.stack([runs(generator, 1, 0.03, 0)[0] for _ in range(1000)])
    assert (sign_flip_test(d) < 0.05).mean() > 0.3


def test_resampling_three_seeds_covers_too_little_which_is_why_it_is_not_done():
    generator = np.random.default_rng(0)
    covered = np.zeros(2)
    for _ in range(300):
        d = runs(generator, 3, 0.1, 1)
        seeds, queries = (generator.multinomial(n, np.full(n, 1 / n), 999) / n for n in d.shape)
        low, high = np.quantile(((seeds @ d) * queries).sum(1), [0.025, 0.975])
        _, left, right = crossed_test(d)
        covered += [low <= 0 <= high, left <= 0 <= right]
    naive, ours = covered / 300
    assert naive < 0.88
    assert ours > 0.93
