"""The score of a random order: its expected value and its standard error are those of a simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtri

from hashzoo.evaluation.chance import expected_scores, has_chance, largest_error, standard_error
from hashzoo.evaluation.metrics import chance_ap, score
from hashzoo.hamming.counting import distance_counts
from hashzoo.hamming.relevance import relevance


def chance_score(metric, prepared, queries):
    expected = expected_scores(metric, prepared, queries)
    error = standard_error(metric, prepared, queries, expected)
    assert error <= largest_error(metric, expected) + 1e-12
    return float(expected.mean()), error


def simulated(metric, prepared, queries, draws, seed=0):
    """Means over the queries of the metric in random orders, one for each query, (draws,)."""
    generator, items = np.random.default_rng(seed), prepared.database.shape[1]
    means = []
    for _ in range(draws):
        orders = np.argsort(generator.random((len(queries), items)), axis=1).astype(float)
        counts = distance_counts(orders, type(prepared)(prepared.query[queries], prepared.database, prepared.same,
                                                        prepared.highest), graded=True)  # fmt: skip
        means.append(float(score(counts, [metric])[metric].mean()))
    return np.array(means)


def labelled(kind, seed=1):
    generator = np.random.default_rng(seed)
    if kind == "classes":
        return relevance(generator.integers(0, 4, 40), generator.choice(4, 60, p=[0.6, 0.2, 0.15, 0.05]))
    query, database = (generator.random((n, 5)) < 0.3 for n in (40, 60))
    query[:, 0] |= ~query.any(1)
    database[0] = True
    return relevance(query.astype(int), database.astype(int))


@pytest.mark.parametrize("kind", ["classes", "labels"])
@pytest.mark.parametrize("metric", ["map@all", "map@10", "p@5", "ndcg@20", "wap@all", "map@10:hits"])
def test_the_expected_score_and_its_standard_error_are_those_of_random_orders(metric, kind):
    prepared = labelled(kind)
    queries = list(range(40))
    expected, error = chance_score(metric, prepared, queries)
    means = simulated(metric, prepared, queries, 400)
    assert expected == pytest.approx(means.mean(), abs=4 * means.std() / 20)
    assert error == pytest.approx(means.std(), rel=0.5)


def test_the_average_precision_of_a_random_order_is_the_formula():
    prepared = relevance([0, 0, 1], [0] * 10 + [1] * 90)
    assert chance_score("map@all", prepared, [0, 1])[0] == pytest.approx(chance_ap(100, 10))
    assert chance_score("map@all", prepared, [0, 2])[0] == pytest.approx((chance_ap(100, 10) + chance_ap(100, 90)) / 2)


def test_random_orders_are_below_the_margin_in_95_of_100_cases():
    prepared = labelled("classes")
    expected, error = chance_score("map@all", prepared, list(range(40)))
    means = simulated("map@all", prepared, list(range(40)), 600, seed=5)
    assert 0.90 < np.mean(means <= expected - ndtri(0.05) * error) < 0.99


def test_the_best_order_of_ties_does_not_change_the_score_of_an_order_without_ties():
    prepared = labelled("classes")
    same = [chance_score(f"map@all{variant}", prepared, [0, 1, 2]) for variant in ("", ":best", ":worst")]
    assert same[0] == same[1] == same[2]


def test_metrics_of_a_radius_have_no_score_for_an_order():
    assert [has_chance(name) for name in ("map@all", "map@10/tail", "p@h2", "empty@h2")] == [True, True, False, False]


@settings(max_examples=20, deadline=None)
@given(classes=st.integers(1, 4), items=st.integers(2, 30), queries=st.integers(1, 10), seed=st.integers(0, 99))
def test_the_expected_score_is_that_of_one_code_for_all(classes, items, queries, seed):
    generator = np.random.default_rng(seed)
    database = generator.integers(0, classes, items)
    wanted = generator.choice(database, queries)
    prepared = relevance(wanted, database)
    tied = distance_counts(np.zeros((queries, items)), prepared)
    expected, error = chance_score("map@all", prepared, list(range(queries)))
    assert expected == pytest.approx(float(score(tied, ["map@all"])["map@all"].mean()))
    assert error >= 0
