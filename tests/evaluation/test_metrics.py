"""Metrics against their definitions: every order of ties tried, or many drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom

from hashzoo.evaluation.metrics import chance_ap, evaluate, pr_curve, score
from hashzoo.hamming.counting import Counts, distance_counts
from hashzoo.hamming.relevance import relevance
from tests.oracles import brute


def counts_of(distances, grades) -> Counts:
    """Counts of one query whose items have these integer distances and grades."""
    distances, grades = np.asarray(distances), np.asarray(grades)
    table = np.zeros((1, distances.max() + 1, grades.max() + 1), np.int64)
    np.add.at(table[0], (distances, grades), 1)
    return Counts(table.sum(axis=2), table[:, :, 1:].sum(axis=2), table, hamming=True)


def value(counts: Counts, name: str) -> float:
    return float(score(counts, [name])[name][0])


def every_metric(size: int):
    for cut in range(1, size + 3):  # beyond the database too
        for metric in ("map", "map:hits", "p", "r", "ndcg", "acg"):
            family, _, variant = metric.partition(":")
            yield metric, f"{family}@{cut}" + (f":{variant}" if variant else ""), min(cut, size)
    for metric in ("map", "map:hits", "ndcg", "acg", "wap", "p", "r"):
        family, _, variant = metric.partition(":")
        yield metric, f"{family}@all" + (f":{variant}" if variant else ""), size


rankings = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=6)


@settings(max_examples=150, deadline=None)
@given(rankings)
def test_every_metric_is_the_mean_over_all_orders_of_ties(items):
    distances, grades = zip(*items, strict=True)
    assume(any(grades))
    counts = counts_of(distances, grades)
    names = [name for _, name, _ in every_metric(len(items))]
    values = score(counts, names)
    rankings = [[grades[i] for i in order] for order in brute.orders(distances)]
    for metric, name, cut in every_metric(len(items)):
        given = [float(brute.RANKED[metric](ranking, cut)) for ranking in rankings]
        expected = sum(given) / len(given)
        assert values[name][0] == pytest.approx(expected, abs=1e-9), name


@settings(max_examples=150, deadline=None)
@given(rankings, st.integers(1, 8))
def test_best_and_worst_are_the_ends_over_all_orders_of_ties(items, cut):
    distances, grades = zip(*items, strict=True)
    assume(any(grades))
    counts, inside = counts_of(distances, grades), min(cut, len(items))
    for pick, end in ((max, "best"), (min, "worst")):
        expected = brute.extreme_over_orders(pick, distances, grades, inside)
        assert value(counts, f"map@{cut}:{end}") == pytest.approx(expected, abs=1e-9)
        everything = brute.extreme_over_orders(pick, distances, grades, len(items))
        assert value(counts, f"map@all:{end}") == pytest.approx(everything, abs=1e-9)


def test_two_thousand_rankings_of_seven_match_every_order():
    rng = np.random.default_rng(7)
    names = ["map@all", "map@3", "map@3:hits", "map@5:hits"]
    tables, expected = [], []
    for _ in range(2000):
        distances = np.concatenate([rng.integers(0, 6, 6), [6]])
        hit = rng.integers(0, 2, 7)
        hit[rng.integers(0, 7)] = 1
        tables.append(counts_of(distances, hit))
        ranking = hit[np.array(list(brute.orders(distances.tolist())))]
        found = np.cumsum(ranking, axis=1)
        total = np.cumsum(found / np.arange(1, 8) * ranking, axis=1)
        row = [total[:, 6] / hit.sum(), total[:, 2] / min(3, hit.sum())]
        row += [total[:, cut - 1] / np.maximum(found[:, cut - 1], 1) for cut in (3, 5)]
        expected.append([sample.mean() for sample in row])
    items, relevant = (np.concatenate([getattr(t, side) for t in tables]) for side in ("items", "relevant"))
    values = score(Counts(items, relevant, None, hamming=True), names)
    np.testing.assert_allclose(np.stack([values[n] for n in names], axis=1), expected, atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_expected_values_lie_where_random_orders_do(seed):
    rng = np.random.default_rng(seed)
    n, draws = 400, 4000
    distances = rng.integers(0, (2, 6, 20, 60)[seed], n)
    grades = np.maximum(0, rng.integers(-4, 4, n))
    ranking = np.argsort(distances[None] + rng.random((draws, n)) * 0.5, axis=1)
    grade = grades[ranking]
    hit = grade > 0
    place = np.arange(1, n + 1)
    found, positives = np.cumsum(hit, axis=1), int((grades > 0).sum())
    sums = np.cumsum(hit * found / place, axis=1)
    gain = np.cumsum((2.0**grade - 1) / np.log2(place + 1), axis=1)
    ideal = np.cumsum((2.0 ** np.sort(grades)[::-1] - 1) / np.log2(place + 1))
    mean_grade = np.cumsum(grade, axis=1) / place
    samples = {
        "map@all": sums[:, -1] / positives,
        "wap@all": (hit * mean_grade).sum(axis=1) / positives,
        "ndcg@all": gain[:, -1] / ideal[-1],
    }
    for R in (1, 37, 150, 399):
        samples[f"map@{R}"] = sums[:, R - 1] / min(R, positives)
        samples[f"map@{R}:hits"] = sums[:, R - 1] / np.maximum(found[:, R - 1], 1)
        samples[f"p@{R}"] = found[:, R - 1] / R
        samples[f"r@{R}"] = found[:, R - 1] / positives
        samples[f"ndcg@{R}"] = gain[:, R - 1] / ideal[R - 1]
        samples[f"acg@{R}"] = mean_grade[:, R - 1]
    values = score(counts_of(distances, grades), list(samples))
    for name, drawn in samples.items():
        error = drawn.std() / math.sqrt(draws)
        assert values[name][0] == pytest.approx(drawn.mean(), abs=4 * error + 1e-9), name


def test_hits_variant_keeps_its_precision_in_a_long_cut_group():
    n, relevant, cut = 100_000, 300, 5000
    counts = Counts(np.array([[n]]), np.array([[relevant]]), None, hamming=True)
    h = np.arange(1, relevant + 1)
    H = math.fsum(1 / t for t in range(1, cut + 1))
    ap = (1 / cut) * (H + (h - 1) / (cut - 1) * (cut - H))
    expected = math.fsum(hypergeom(n, relevant, cut).pmf(h) * ap)
    assert value(counts, f"map@{cut}:hits") == pytest.approx(expected, abs=1e-9)


def test_worked_example_of_average_precision():
    counts = counts_of([0, 1, 1, 1, 2], [1, 0, 1, 1, 0])
    assert value(counts, "map@all") == pytest.approx(0.9074074074, abs=1e-10)
    assert value(counts, "map@all:worst") == pytest.approx(0.8055555556, abs=1e-10)
    assert value(counts, "map@all:best") == 1
    assert value(counts, "map@2") == pytest.approx(0.8333333333, abs=1e-10)
    assert value(counts, "map@2:hits") == 1


def test_worked_example_of_discounted_gain():
    grades = [3, 0, 1, 2, 0]
    counts = counts_of([0, 1, 1, 1, 2], grades)
    ideal = brute.dcg(sorted(grades, reverse=True), 5)
    assert value(counts, "ndcg@all") == pytest.approx(0.9669270220, abs=1e-10)
    assert value(counts, "ndcg@all") * ideal == pytest.approx(9.0821417488, abs=1e-10)


def test_worked_example_by_radius():
    counts = counts_of([0, 1, 1, 1, 2], [1, 0, 1, 1, 0])
    precision, recall = pr_curve(counts)
    np.testing.assert_allclose(precision, [[1, 0.75, 0.6]])
    np.testing.assert_allclose(recall, [[1 / 3, 1, 1]])
    for radius in range(3):
        assert value(counts, f"p@h{radius}") == precision[0, radius]
        assert value(counts, f"r@h{radius}") == recall[0, radius]
    assert value(counts, "r@h99") == 1


def test_worked_example_of_grades():
    counts = counts_of([0, 1, 2, 3, 4], [2, 0, 1, 3, 0])
    assert value(counts, "acg@3") == 1
    assert value(counts, "wap@all") == pytest.approx(1.5, abs=1e-12)
    assert value(counts, "map@all") == pytest.approx(0.8055555556, abs=1e-10)


def test_average_precision_counts_the_first_place():
    assert value(counts_of([0, 1, 2], [1, 0, 1]), "map@all") == pytest.approx(5 / 6, abs=1e-12)


def test_a_relevant_item_at_the_last_place_is_counted():
    n = 50
    codes = np.tril(np.ones((n, n), bool), -1)  # row i is at distance i from row 0
    labels = np.zeros(n, int)
    labels[-1] = 1
    for name in ("map@all", f"map@{n}", f"p@{n}", f"map@{n}:hits"):
        assert evaluate(codes[:1], codes, [1], labels, [name]).means[name] == pytest.approx(1 / n)
    assert evaluate(codes[:1], codes, [1], labels, [f"map@{n - 1}"]).means == {f"map@{n - 1}": 0}


def test_a_cut_off_beyond_the_database_is_the_whole_database():
    counts = counts_of([0, 1, 1, 3], [1, 0, 2, 1])
    for family in ("map", "p", "r", "ndcg", "acg"):
        assert value(counts, f"{family}@9") == value(counts, f"{family}@4") == value(counts, f"{family}@all")
    assert value(counts, "p@9") == 0.75


def test_an_empty_ball_has_no_precision_and_is_reported():
    counts = counts_of([3, 3, 4], [1, 0, 1])
    assert [value(counts, name) for name in ("p@h2", "r@h2", "empty@h2")] == [0, 0, 1]
    assert [value(counts, name) for name in ("p@h3", "r@h3", "empty@h3")] == [0.5, 0.5, 0]


def test_class_by_class_storage_gives_chance_and_not_what_a_stable_sort_gives():
    labels = np.repeat(np.arange(10), 100)
    hits = labels == np.arange(10)[:, None]
    stable = (hits * np.cumsum(hits, axis=1) / np.arange(1, 1001)).sum(axis=1) / 100
    assert stable.mean() == pytest.approx(0.2088, abs=1e-4)
    same = np.ones((1000, 16), bool)
    tied = evaluate(same[:10], same, np.arange(10), labels).means["map@all"]
    assert tied == pytest.approx(0.1058427665, abs=1e-10)


@pytest.mark.parametrize(("n", "relevant"), [(1, 1), (2, 1), (2, 2), (1000, 100), (117_218, 3)])
def test_chance_is_the_closed_form_of_one_group(n, relevant):
    H = math.fsum(1 / t for t in range(1, n + 1))
    expected = (H + (relevant - 1) / max(n - 1, 1) * (n - H)) / n
    assert chance_ap(n, relevant) == pytest.approx(expected, abs=1e-12)


def test_chance_of_nothing_is_refused():
    with pytest.raises(ValueError, match="cannot hold 0 relevant"):
        chance_ap(5, 0)


def test_a_perfect_classifier_as_code_scores_one_and_a_constant_one_scores_chance():
    labels = np.repeat(np.arange(10), 30)
    index = (labels[:, None] >> np.arange(4) & 1).astype(bool)
    exact = distance_counts((labels[:, None] != labels[None]).astype(float), relevance(labels, labels))
    np.testing.assert_allclose(score(exact, ["map@all"])["map@all"], 1)
    assert evaluate(index, index, labels, labels, ["map@30", "p@h0"]).means == {"map@30": 1, "p@h0": 1}
    constant = evaluate(0 * index > 0, 0 * index > 0, labels, labels).means["map@all"]
    assert constant == pytest.approx(chance_ap(300, 30), abs=1e-12)
