"""Lists of relevant rows: counted like labels that say the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashzoo.hamming import ties
from hashzoo.hamming.counting import Counts, distance_counts, hamming_counts, integer_counts
from hashzoo.hamming.packing import pack
from hashzoo.hamming.relevance import neighbours, relevance


def lists_and_labels(rng: np.random.Generator, queries: int, items: int, k: int):
    """Lists of k rows, and multi-hot labels with a class for each query, which say the same."""
    rows = np.stack([rng.permutation(items)[:k] for _ in range(queries)])
    labels = np.zeros((items, queries), bool)
    for q, listed in enumerate(rows):
        labels[listed, q] = True
    return neighbours(rows, items), relevance(np.eye(queries, dtype=bool), labels)


def same(first: Counts, second: Counts) -> bool:
    return (first.items == second.items).all() and (first.relevant == second.relevant).all()


@pytest.mark.parametrize("numba", ["on", "off"])
@pytest.mark.parametrize(("bits", "items"), [(5, 30), (64, 5000), (200, 300)])
def test_hamming_counts_of_lists_are_those_of_labels(bits, items, numba, monkeypatch):
    monkeypatch.setenv("HASHZOO_NUMBA", numba)
    monkeypatch.setattr("hashzoo.hamming.counting._ITEMS", 128)
    rng = np.random.default_rng(bits)
    lists, labels = lists_and_labels(rng, 4, items, 7)
    query, database = (pack(rng.random((n, bits)) < 0.5) for n in (4, items))
    assert same(hamming_counts(query, database, bits, lists), hamming_counts(query, database, bits, labels))


@pytest.mark.parametrize("numba", ["on", "off"])
def test_counts_of_whole_numbers_of_lists_are_those_of_labels(numba, monkeypatch):
    monkeypatch.setenv("HASHZOO_NUMBA", numba)
    rng = np.random.default_rng(1)
    lists, labels = lists_and_labels(rng, 3, 50, 6)
    distances = rng.integers(0, 9, (3, 50))
    assert same(integer_counts(distances, 9, lists), integer_counts(distances, 9, labels))
    assert same(integer_counts(distances[1:], 9, lists[1:]), integer_counts(distances[1:], 9, labels[1:]))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), items=st.integers(1, 30), k=st.integers(1, 8), cut=st.integers(1, 30))
def test_real_distances_of_lists_give_the_metrics_of_labels(seed, items, k, cut):
    rng = np.random.default_rng(seed)
    lists, labels = lists_and_labels(rng, 3, items, min(k, items))
    distances = rng.integers(0, 6, (3, items)) / 4
    merged, whole = distance_counts(distances, lists), distance_counts(distances, labels)
    assert merged.items.shape[1] <= 2 * k + 1
    cuts = np.full(3, min(cut, items))
    for metric in (ties.hits, ties.average_precision):
        np.testing.assert_allclose(metric(merged, cuts), metric(whole, cuts), atol=1e-12)


def test_a_slice_of_the_database_keeps_the_listed_items_inside_it():
    part = neighbours([[7, 2], [3, 4]], 9).among(slice(3, 8))
    assert part.items == 5
    assert part.relevant(0).tolist() == [False, False, False, False, True]
    assert part.relevant(1).tolist() == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("rows", "said"),
    [([1, 2], "integers"), ([[0.5]], "integers"), ([[9]], "there are 9"), ([[-1]], "from -1"), ([[2, 2]], "row twice")],
)
def test_wrong_lists_are_refused(rows, said):
    with pytest.raises(ValueError, match=said):
        neighbours(rows, 9)
