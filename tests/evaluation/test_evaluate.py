"""Evaluation from codes to numbers: what must not matter, what is refused, and how it is said."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hashzoo.errors import UsageError
from hashzoo.evaluation.metrics import evaluate, needs_grades, parse, pr_curve, score, summarize
from hashzoo.hamming.counting import Counts, distance_counts, hamming_counts
from hashzoo.hamming.packing import pack
from hashzoo.hamming.relevance import relevance


def task(seed: int, Q: int = 30, N: int = 200, bits: int = 12, classes: int = 6):
    rng = np.random.default_rng(seed)
    labels = rng.random((Q + N, classes)) < 0.2
    codes = rng.random((Q + N, bits)) < 0.3 + 0.4 * (labels @ rng.random((classes, bits)) > 0.5)
    return codes[:Q], codes[Q:], labels[:Q], labels[Q:]


EVERY = [
    *("map@all", "map@20", "map@20:hits", "map@20:best", "map@all:worst", "p@10", "r@50", "p@h2", "r@h2"),
    *("empty@h2", "ndcg@30", "ndcg@all", "acg@30", "wap@all"),
]


@pytest.mark.parametrize("seed", range(3))
def test_permuting_the_database_changes_nothing(seed):
    queries, database, query_labels, labels = task(seed)
    order = np.random.default_rng(seed + 10).permutation(len(database))
    one = evaluate(queries, database, query_labels, labels, EVERY)
    other = evaluate(queries, database[order], query_labels, labels[order], EVERY)
    for name in EVERY:
        np.testing.assert_array_equal(one.per_query[name], other.per_query[name])


def test_flipping_a_bit_everywhere_changes_nothing():
    queries, database, query_labels, labels = task(4)
    flip = np.arange(12) % 3 == 0
    one = evaluate(queries, database, query_labels, labels, EVERY)
    assert evaluate(queries ^ flip, database ^ flip, query_labels, labels, EVERY).means == one.means


def test_chunks_of_queries_change_nothing(monkeypatch):
    whole = evaluate(*task(5), EVERY)
    monkeypatch.setattr("hashzoo.evaluation.metrics._CHUNK", 1)
    for name, values in evaluate(*task(5), EVERY).per_query.items():
        np.testing.assert_array_equal(values, whole.per_query[name])


def test_numpy_and_numba_evaluate_alike(monkeypatch):
    fast = evaluate(*task(6), EVERY)
    monkeypatch.setenv("HASHZOO_NUMBA", "off")
    for name, values in evaluate(*task(6), EVERY).per_query.items():
        np.testing.assert_array_equal(values, fast.per_query[name])


def test_packed_codes_are_the_same_codes():
    queries, database, *labels = task(7)
    one = evaluate(queries, database, *labels)
    assert evaluate(pack(queries), pack(database), *labels, bits=12).means == one.means
    assert evaluate(pack(queries), pack(database), *labels).means == one.means  # padding adds no distance


def test_the_band_of_ties_holds_the_expected_value():
    values = evaluate(*task(8), ["map@all", "map@all:best", "map@all:worst"]).per_query
    worst, mean, best = (values[name] for name in ("map@all:worst", "map@all", "map@all:best"))
    seen = ~np.isnan(mean)
    assert (worst[seen] < mean[seen]).any()
    assert (worst[seen] <= mean[seen] + 1e-12).all()
    assert (mean[seen] <= best[seen] + 1e-12).all()


def test_all_places_by_hits_is_plain_average_precision():
    values = evaluate(*task(9), ["map@all", "map@all:hits"]).per_query
    np.testing.assert_allclose(values["map@all"], values["map@all:hits"], atol=1e-12)


def test_queries_without_a_relevant_item_are_left_out_and_counted():
    codes = np.array([[0, 0], [0, 1], [1, 1]], bool)
    found = evaluate(codes, codes, [1, 9, 1], [1, 1, 2], ["map@all", "empty@h0", "map@1:hits"])
    assert (found.excluded, found.queries) == (1, 3)
    assert all(np.isnan(values[1]) for values in found.per_query.values())
    assert found.means["map@all"] == pytest.approx(found.per_query["map@all"][[0, 2]].mean())
    assert found.per_query["map@1:hits"][2] == 0  # relevant items there are, but none at the first place


def test_no_query_with_a_relevant_item_has_no_mean():
    found = evaluate(np.ones((2, 3), bool), np.ones((4, 3), bool), [1, 2], [3, 3, 3, 3])
    assert math.isnan(found.means["map@all"])
    assert found.excluded == 2


def test_tied_real_distances_go_through_the_same_forms():
    queries, database, query_labels, labels = task(11)
    distances = (queries[:, None] != database[None]).sum(axis=2) * 0.1
    names = [name for name in EVERY if "h2" not in name]
    real = score(distance_counts(distances, relevance(query_labels, labels), graded=True), names)
    whole = evaluate(queries, database, query_labels, labels, names)
    for name in names:
        np.testing.assert_allclose(real[name], whole.per_query[name], atol=1e-12)


def test_a_radius_of_distances_that_are_not_integers_is_refused_by_name():
    counts = distance_counts(np.array([[0.5]]), relevance([0], [0]))
    with pytest.raises(UsageError, match="'p@h2' needs integer Hamming distances"):
        score(counts, ["map@all", "p@h2"])
    with pytest.raises(UsageError, match="integer Hamming distances"):
        pr_curve(counts)


def test_a_curve_by_radius_is_blank_for_a_query_without_a_relevant_item():
    queries, database, *_ = task(12)
    counts = hamming_counts(pack(queries[:2]), pack(database), 12, relevance([0, 5], np.zeros(200, int)))
    for side in pr_curve(counts):
        assert side.shape == (2, 13)
        assert not np.isnan(side[0]).any()
        assert np.isnan(side[1]).all()


def test_graded_metrics_of_counts_without_grades_are_refused():
    counts = Counts(np.array([[2]]), np.array([[1]]), None, hamming=True)
    for name in ("ndcg@1", "acg@1", "wap@all"):
        with pytest.raises(ValueError, match="graded=True"):
            score(counts, [name])


def test_grades_are_needed_by_graded_metrics_only():
    assert not needs_grades([name for name in EVERY if name[:2] in ("ma", "p@", "r@", "em")])
    assert all(needs_grades(["map@all", name]) for name in ("ndcg@5", "acg@5", "wap@all"))


def test_a_metric_from_outside_is_asked_for_by_its_name():
    def reciprocal_rank(counts, cut):
        return np.full(len(counts), 0.5 if cut is None else float(cut))

    extra = {"mrr": reciprocal_rank}
    found = evaluate(*task(13), ["mrr", "mrr@all", "mrr@7"], extra=extra)
    assert found.means == {"mrr": 0.5, "mrr@all": 0.5, "mrr@7": 7}
    assert found.excluded == evaluate(*task(13)).excluded > 0
    for broken in (lambda counts, cut: np.ones(1), lambda counts, cut: np.full(len(counts), np.nan)):
        with pytest.raises(ValueError, match="metric 'mrr' must return one number for each query"):
            evaluate(*task(13), ["mrr"], extra={"mrr": broken})
    with pytest.raises(UsageError, match="'map' is built in"):
        parse("map@all", {"map": reciprocal_rank})


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("mpa@all", "did you mean 'map@all'"),
        ("map", "did you mean 'map@all'"),
        ("map@-1", "did you mean 'map@1'"),
        ("map@h2", "did you mean 'map@2'"),
        ("map@50:hit", "did you mean 'map@50:hits'"),
        ("wap@10", "did you mean 'wap@all'"),
        ("ndgc@30", "did you mean 'ndcg@30'"),
        ("empty@2", "did you mean 'empty@h2'"),
        ("p@h2:best", "did you mean 'p@h2'"),
        ("p@0", "the cut-off must be at least 1"),
        ("zzzzzz", "there are: "),
        ("", "there are: "),
        ("mrr@h2", "did you mean"),
    ],
)
def test_a_name_that_does_not_exist_gets_the_nearest(name, cure):
    with pytest.raises(UsageError, match=cure):
        parse(name, {"mrr": lambda counts, cut: counts.items[:, 0]})


def test_no_metric_at_all_is_refused():
    with pytest.raises(UsageError, match="no metric given"):
        evaluate(*task(1), [])


def test_nothing_to_summarize_is_refused():
    with pytest.raises(ValueError, match="at least one chunk"):
        summarize([])


GOOD = np.zeros((2, 9), bool)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((GOOD, np.zeros((2, 8), bool), [0, 1], [0, 1]), {}, "query_codes have 9 bits and .* 8"),
        ((GOOD, GOOD, [0], [0, 1]), {}, "query_labels has 1 rows for the 2 rows of query_codes"),
        ((GOOD, GOOD, [0, 1], [0, 1, 1]), {}, "database_labels has 3 rows for the 2 rows of database_codes"),
        (
            (GOOD + np.array([[-0.5], [0.3]]), GOOD + 0.25, [0, 1], [0, 1]),
            {},
            "query_codes must be bool .* float64 .*codes >= 0",
        ),
        ((GOOD, GOOD + np.array([[1], [1 << 60]]), [0, 1], [0, 1]), {}, "database_codes must be bool .* not int64"),
        ((GOOD[0], GOOD, [0, 1], [0, 1]), {}, r"query_codes must be bool \(N, K\)"),
        ((GOOD[:0], GOOD, [], [0, 1]), {}, "query_codes is empty"),
        ((GOOD, GOOD[:0], [0, 1], []), {}, "database_codes is empty"),
        ((GOOD[:, :0], GOOD[:, :0], [0, 1], [0, 1]), {}, "query_codes is empty"),
        ((GOOD, GOOD, [0, 1], [0, 1]), {"bits": 8}, "query_codes has 9 bits, but bits says 8"),
        (
            (pack(GOOD), pack(GOOD), [0, 1], [0, 1]),
            {"bits": 8},
            "query_codes has 2 bytes per row; 8 bits take 1",
        ),
        ((pack(GOOD), ~pack(GOOD), [0, 1], [0, 1]), {"bits": 9}, "database_codes has ones after bit 9 of 16"),
        ((GOOD, GOOD, [0.0, np.nan], [0, 1]), {}, "query_labels holds NaN"),
        ((GOOD, GOOD, [0.5, 1.0], [0, 1]), {}, "query_labels must be integers"),
        ((GOOD, GOOD, np.eye(2), np.ones((2, 3))), {}, "must have the same classes"),
        ((GOOD, GOOD, np.eye(2), [0, 1]), {}, "must both be integers"),
    ],
)
def test_an_argument_that_does_not_fit_is_named(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate(*arguments, **options)
