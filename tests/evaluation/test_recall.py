"""Recall of exact neighbors: against every order of ties, and against exact comparison of the candidates."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hashzoo.data.vector_files import read_vectors
from hashzoo.data.vectors import Vectors
from hashzoo.distance import Hamming, SignedProduct
from hashzoo.errors import UsageError
from hashzoo.evaluation.metrics import by_neighbours, evaluate, higher_is_better, parse, score
from hashzoo.evaluation.recall import RecallCurve, score_neighbours
from hashzoo.evaluation.truth import Truth, exact_neighbours
from hashzoo.hamming.counting import distance_counts, hamming_counts
from hashzoo.hamming.packing import pack
from hashzoo.hamming.relevance import neighbours
from hashzoo.index import Scan
from tests.oracles import brute
from tests.shared_data import SHARED, needs

NAMES = ["recall@10", "recall@10:f2", "recall@10:f3", "recall@10:f5", "recall@10:f10"]


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_recall_at_every_number_of_candidates_is_its_mean_over_all_orders_of_ties(data):
    distances = data.draw(st.lists(st.integers(0, 3), min_size=2, max_size=7))
    k = data.draw(st.integers(1, len(distances) - 1))
    listed = data.draw(st.permutations(range(len(distances))))[:k]
    lists = neighbours([listed], len(distances))
    counts = distance_counts(np.array([distances], float), lists)
    curve = RecallCurve(len(distances))
    curve.add(counts)
    grades = [int(row in listed) for row in range(len(distances))]
    for cut, value in enumerate(curve.values(), 1):
        assert value == pytest.approx(brute.mean_over_orders("r", distances, grades, cut))
    for factor in (1, 1.5, 2):
        found = score(counts, [f"recall@{k}:f{factor}"])[f"recall@{k}:f{factor}"]
        cut = min(len(distances), int(np.ceil(k * factor)))
        assert found[0] == pytest.approx(brute.mean_over_orders("r", distances, grades, cut))


def test_the_factor_is_the_first_at_which_the_mean_reaches_the_target():
    curve = RecallCurve(8)
    for distances in ([0, 0, 1, 1, 2, 2, 3, 3], [3, 1, 1, 0, 2, 2, 3, 3]):
        curve.add(distance_counts(np.array([distances], float), neighbours([[0, 1]], 8)))
    values = curve.values()
    for target in (0.3, 0.75, 0.95):
        first = next(r for r in range(1, 9) if values[r - 1] >= target)
        assert curve.factor(2, target) == max(first, 2) / 2
    factors, shares = curve.arrays(2)
    assert factors.tolist() == [1, 2, 3, 4]
    assert shares.tolist() == values[[1, 3, 5, 7]].tolist()


@cache
def minilm():
    matrix = read_vectors(SHARED / "data" / "minilm_41k.npy").matrix
    database, query = Vectors(matrix, np.arange(40000)), Vectors(matrix, np.arange(40000, 40040))
    return database[np.arange(40000)], query[np.arange(40)], exact_neighbours(query, database, 10, "cosine")


@needs("data", "minilm_41k.npy")
@pytest.mark.parametrize("code", ["sign", "hyperplanes"])
def test_recall_is_that_of_exact_comparison_of_the_candidates_on_sentence_embeddings(code):
    """With one random order of ties at each distance, for F = 1..10; the expected value is the mean over orders."""
    database, query, truth = minilm()
    if code == "hyperplanes":
        plane = torch.randn(384, 64, generator=torch.Generator().manual_seed(0))
        mean = database.mean(0)
        items, asked = ((x - mean) @ plane >= 0 for x in (database, query))
    else:
        items, asked = database >= 0, query >= 0
    exact = (query.double() @ torch.nn.functional.normalize(database.double(), dim=1).T).numpy()
    distances = (384 if code == "sign" else 64) - (
        asked.float() @ items.float().T + (~asked).float() @ (~items).float().T
    ).numpy()
    names = [f"recall@10:f{factor}" for factor in range(1, 11)]
    expected = score(distance_counts(distances, truth.nearest(10)), names)
    rng, explicit = np.random.default_rng(0), []
    for _ in range(3):
        order = np.lexsort((rng.random(distances.shape), distances), axis=1)[:, :100]
        broken = np.full(distances.shape, 1000.0)
        np.put_along_axis(broken, order, np.arange(100.0)[None], axis=1)
        closed = score(distance_counts(broken, truth.nearest(10)), names)
        for factor, name in enumerate(names, 1):
            candidates = order[:, : 10 * factor]
            best = np.argsort(-np.take_along_axis(exact, candidates, 1), axis=1)[:, :10]
            kept = np.take_along_axis(candidates, best, 1)
            share = [np.isin(mine, true).mean() for mine, true in zip(kept, truth.rows, strict=True)]
            np.testing.assert_allclose(closed[name], share, atol=1e-12)
        explicit.append([closed[name].mean() for name in names])
    for name, values in zip(names, np.transpose(explicit), strict=True):
        assert expected[name].mean() == pytest.approx(values.mean(), abs=0.02)


@needs("data", "minilm_41k.npy")
def test_the_signs_of_sentence_embeddings_have_the_published_recall():
    matrix = read_vectors(SHARED / "data" / "minilm_41k.npy").matrix
    database, query = Vectors(matrix, np.arange(40000)), Vectors(matrix, np.arange(40000, 41000))
    truth = exact_neighbours(query, database, 10, "cosine")
    items, asked = (pack((side[np.arange(len(side))] >= 0).numpy()) for side in (database, query))
    found = score(hamming_counts(asked, items, 384, truth.nearest(10)), NAMES)
    means = [round(float(found[name].mean()), 3) for name in NAMES]
    assert means == [0.531, 0.711, 0.797, 0.874, 0.939]
    assert (truth.margin(10) > 0).all()


def small_index():
    rng = np.random.default_rng(0)
    bits, query = torch.from_numpy(rng.random((40, 8)) < 0.5), torch.from_numpy(rng.normal(size=(5, 8))).float()
    index = Scan(Hamming("code"))
    index.add({"code": bits})
    rows = np.stack([rng.permutation(40)[:3] for _ in range(5)])
    return index, bits, query, Truth(rows, np.linspace(1, 0, 20).reshape(5, 4), 40)


def test_relaxed_queries_are_compared_with_bits_as_signs():
    index, bits, query, truth = small_index()
    names = ["recall@3", "recall@3:f2/asym", "factor@3:0.9/asym", "factor@3:0.9"]
    found, arrays = score_neighbours(index, {"code": query >= 0}, lambda: query, truth, names, {})
    distances = -(query.double() @ (2.0 * bits - 1).double().T).float().numpy()
    counts = distance_counts(distances, truth.nearest(3))
    assert found.per_query["recall@3:f2/asym"].tolist() == score(counts, ["recall@3:f2"])["recall@3:f2"].tolist()
    assert set(found.means) == set(names)
    assert {"recall_curve@3", "recall_curve@3/asym", "truth_margin@3"} <= arrays.keys()


def test_a_method_without_real_values_has_no_asymmetric_scores():
    index, _, query, truth = small_index()
    found, _ = score_neighbours(index, {"code": query >= 0}, lambda: None, truth, ["recall@3", "recall@3/asym"], {})
    assert np.isnan(found.means["recall@3/asym"])
    assert "recall@3/asym" not in found.per_query


def test_items_with_equal_bits_are_tied_for_real_queries():
    rng = np.random.default_rng(0)
    query = {"v": torch.from_numpy(rng.normal(size=(9, 384))).float()}
    bits = torch.from_numpy(rng.random((300, 384)) < 0.5)
    found = SignedProduct("v")(query, {"v": torch.cat([bits, bits])})
    assert (found[:, :300] == found[:, 300:]).all()


@pytest.mark.parametrize("name", ["recall@10", "recall@10:f2", "recall@10:f2.5/asym", "factor@10:0.95", "factor@5:.9"])
def test_names_of_exact_neighbors_are_read(name):
    metric = parse(name)
    assert metric.by_neighbours
    assert by_neighbours(name)
    assert higher_is_better(name) == (metric.family == "recall")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("recall@all", "did you mean"),
        ("recall@10:f", "did you mean"),
        ("recall@10:f0.5", "at least 1"),
        ("factor@10", "did you mean"),
        ("factor@10:1.5", "between 0 and 1"),
        ("recall@10/head", "did you mean|recall@10/asym"),
        ("map@10/asym", "no metric"),
    ],
)
def test_other_names_are_refused(name, said):
    with pytest.raises(UsageError, match=said):
        parse(name)


def test_labels_do_not_stand_for_exact_neighbors():
    codes = np.eye(3, dtype=bool)
    with pytest.raises(UsageError, match="use r@K"):
        evaluate(codes, codes, [0, 1, 2], [0, 1, 2], ["recall@1"])
