"""Counts against plain loops, and the compiled loops against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashzoo.hamming import packing
from hashzoo.hamming.counting import distance_counts, hamming_counts
from hashzoo.hamming.distances import nearest
from hashzoo.hamming.packing import pack, set_threads, unpack
from hashzoo.hamming.relevance import CELLS, relevance
from tests.oracles import brute

WIDTHS = (1, 2, 7, 8, 9, 31, 63, 64, 65, 100, 126, 127, 128, 129, 192, 255, 300)


@pytest.fixture
def without_numba(monkeypatch):
    return lambda off: monkeypatch.setenv("HASHZOO_NUMBA", "off" if off else "on")


def problem(seed: int, Q: int, N: int, bits: int, multi: bool, classes: int = 3, clustered: bool = False):
    rng = np.random.default_rng(seed)
    queries, database = rng.random((Q, bits)) < 0.5, rng.random((N, bits)) < 0.5
    if clustered:
        centers = rng.random((3, bits)) < 0.5
        queries, database = centers[rng.integers(0, 3, Q)], centers[rng.integers(0, 3, N)]
    if multi:
        return queries, database, rng.random((Q, classes)) < 0.3, rng.random((N, classes)) < 0.3
    return queries, database, rng.integers(-1, classes, Q), rng.integers(-1, classes, N)


def counted(queries, database, query_labels, labels, graded=False):
    prepared = relevance(query_labels, labels)
    return hamming_counts(pack(queries), pack(database), queries.shape[1], prepared, graded)


@pytest.mark.parametrize("off", [False, True])
@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize("bits", WIDTHS)
def test_counts_are_those_of_plain_loops(bits, multi, off, without_numba):
    without_numba(off)
    queries, database, query_labels, labels = problem(bits, 2, 21, bits, multi, classes=9)
    counts = counted(queries, database, query_labels, labels)
    assert counts.items.shape == (2, bits + 1)
    for q in range(2):
        mine, theirs = query_labels[q].tolist(), labels.tolist()
        items, relevant = brute.histogram(queries[q], database, mine, theirs, bits)
        assert counts.items[q].tolist() == items
        assert counts.relevant[q].tolist() == relevant


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    Q=st.integers(1, 5),
    N=st.one_of(st.integers(1, 40), st.sampled_from([4095, 4096, 4097, 8193])),
    bits=st.integers(1, 300),
    multi=st.booleans(),
    classes=st.sampled_from([1, 2, 63, 64, 65, 130]),
    graded=st.booleans(),
    clustered=st.booleans(),
)
def test_compiled_loops_and_numpy_give_the_same_integers(seed, Q, N, bits, multi, classes, graded, clustered):
    task = problem(seed, Q, N, bits, multi, classes, clustered)
    k = 1 + seed % N
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HASHZOO_NUMBA", "on")
        assert packing.compiled_loops() is not None
        fast, near = counted(*task, graded), nearest(pack(task[0]), pack(task[1]), k)
        patch.setenv("HASHZOO_NUMBA", "off")
        assert packing.compiled_loops() is None
        plain, sure = counted(*task, graded), nearest(pack(task[0]), pack(task[1]), k)
    np.testing.assert_array_equal(fast.items, plain.items)
    np.testing.assert_array_equal(fast.relevant, plain.relevant)
    if graded:
        np.testing.assert_array_equal(fast.grades, plain.grades)
    np.testing.assert_array_equal(near[0], sure[0])
    np.testing.assert_array_equal(near[1], sure[1])


@pytest.mark.parametrize("off", [False, True])
@pytest.mark.parametrize("bits", [3, 64, 130])
def test_grades_are_counted_inside_each_distance(bits, off, without_numba):
    without_numba(off)
    queries, database, query_labels, labels = problem(bits, 3, 50, bits, True, classes=70)
    counts = counted(queries, database, query_labels, labels, graded=True)
    for q, n in np.ndindex(3, 50):
        distance = brute.hamming(queries[q], database[n])
        counts.grades[q, distance, brute.shared(query_labels[q], labels[n])] -= 1
    assert not counts.grades.any()


def test_grades_agree_with_items_and_relevant():
    counts = counted(*problem(1, 4, 300, 16, True, classes=12), graded=True)
    np.testing.assert_array_equal(counts.grades.sum(axis=2), counts.items)
    np.testing.assert_array_equal(counts.grades[:, :, 1:].sum(axis=2), counts.relevant)


def test_grades_are_left_out_when_nobody_asks():
    assert counted(*problem(1, 4, 30, 16, True)).grades is None


def test_one_query_and_one_item():
    counts = counted(np.array([[True]]), np.array([[False]]), [4], [4])
    assert counts.items.tolist() == [[0, 1]]
    assert counts.relevant.tolist() == [[0, 1]]


def test_every_pair_at_the_largest_distance_that_fits_a_byte():
    counts = counted(np.ones((1, 127), bool), np.zeros((4099, 127), bool), [1], np.ones(4099, int))
    assert counts.items[0, 127] == counts.relevant[0, 127] == counts.items.sum() == 4099


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float16, np.float32, np.float64])
def test_one_label_a_row_is_counted_as_a_class(dtype):
    classes = np.array([0, 2, 1, 2])
    one_hot = np.eye(3, dtype=dtype)[classes]
    prepared = relevance(one_hot[:2], one_hot)
    assert prepared.same
    assert prepared.relevant(1).tolist() == [False, True, False, True]
    assert np.array_equal(prepared.database, relevance(classes[:2], classes).database)
    assert not relevance(one_hot[:2], np.vstack([one_hot, [[1, 1, 0]]])).same


def test_rows_without_a_label_share_nothing():
    for labels in ([[1, 0], [0, 0]], [[1, 1], [0, 0]]):
        prepared = relevance(labels, labels)
        assert prepared.relevant(0).tolist() == [True, False]
        assert prepared.relevant(1).tolist() == [False, False]


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32, np.float64])
def test_multi_hot_labels_of_any_number_type_are_the_same_labels(dtype):
    rng = np.random.default_rng(0)
    query, labels = rng.random((3, 81)) < 0.2, rng.random((20, 81)) < 0.2
    prepared = relevance(query.astype(dtype), labels.astype(dtype))
    expected = [[brute.shared(a, b) for b in labels.tolist()] for a in query.tolist()]
    assert [prepared.grades(q).tolist() for q in range(3)] == expected
    assert [prepared.relevant(q).tolist() for q in range(3)] == [[g > 0 for g in row] for row in expected]


def test_labels_are_checked_beyond_the_first_block():
    labels = np.zeros((3 * CELLS // 1000, 1000), np.float32)
    labels[-1, -1] = 0.5
    with pytest.raises(ValueError, match="database_labels holds values other than 0 and 1"):
        relevance(np.ones((1, 1000)), labels)


@pytest.mark.parametrize("values", [[5, 5], [0, 255], [1, 256], [-1, 0], [7, 7 + 2**40], [-(2**63), 2**63 - 1]])
def test_classes_are_told_apart_whatever_their_numbers(values):
    prepared = relevance(values, values)
    assert prepared.relevant(0).tolist() == [True, values[0] == values[1]]
    assert relevance(values[:1], values[1:]).relevant(0).tolist() == [values[0] == values[1]]
    counts = hamming_counts(np.zeros((2, 1), np.uint8), np.zeros((2, 1), np.uint8), 1, prepared)
    assert counts.relevant[:, 0].tolist() == [1 + (values[0] == values[1])] * 2


def test_a_slice_of_relevance_holds_those_queries():
    prepared = relevance([1, 2, 3], [3, 2])
    assert len(prepared[1:]) == 2
    assert prepared[1:].relevant(1).tolist() == [True, False]


@given(bits=st.integers(1, 40), rows=st.integers(1, 5), seed=st.integers(0, 99))
def test_unpacking_undoes_packing(bits, rows, seed):
    codes = np.random.default_rng(seed).random((rows, bits)) < 0.5
    assert pack(codes).shape == (rows, -(-bits // 8))
    np.testing.assert_array_equal(unpack(pack(codes), bits), codes)


@pytest.mark.parametrize("off", [False, True])
@pytest.mark.parametrize(("bits", "k"), [(2, 1), (2, 17), (5, 40), (70, 13), (300, 40)])
def test_nearest_orders_by_distance_and_then_by_row(bits, k, off, without_numba):
    without_numba(off)
    queries, database, *_ = problem(bits + k, 3, 40, bits, False)
    rows, distances = nearest(pack(queries), pack(database), k)
    assert (rows.dtype, distances.dtype) == (np.int64, np.int32)
    for q in range(3):
        assert list(zip(distances[q], rows[q], strict=True)) == brute.nearest(queries[q], database, k)


@pytest.mark.parametrize("k", [0, -1, 5])
def test_nearest_refuses_a_k_outside_the_database(k):
    with pytest.raises(ValueError, match="k must be from 1 to the 4 items"):
        nearest(np.zeros((1, 1), np.uint8), np.zeros((4, 1), np.uint8), k)


def test_equal_real_distances_are_one_group():
    distances = np.array([[0.5, -0.0, 0.5, 0.0], [3.0, 2.0, np.inf, np.inf]])
    counts = distance_counts(distances, relevance([0, 1], [0, 1, 1, 1]))
    assert counts.items.tolist() == [[2, 2, 0], [1, 1, 2]]
    assert counts.relevant.tolist() == [[0, 1, 0], [1, 0, 2]]
    assert not counts.hamming


@pytest.mark.parametrize("graded", [False, True])
def test_hamming_distances_given_as_real_ones_are_counted_alike(graded):
    queries, database, query_labels, labels = problem(3, 4, 60, 10, True, classes=6)
    prepared = relevance(query_labels, labels)
    whole = counted(queries, database, query_labels, labels, graded)
    distances = (queries[:, None] != database[None]).sum(axis=2) / 7
    ragged = distance_counts(distances, prepared, graded)
    for q in range(4):
        there = np.flatnonzero(whole.items[q])
        G = len(there)
        assert ragged.items[q, :G].tolist() == whole.items[q, there].tolist()
        assert ragged.relevant[q, :G].tolist() == whole.relevant[q, there].tolist()
        assert not ragged.items[q, G:].any()
        if graded:
            assert ragged.grades[q, :G].tolist() == whole.grades[q, there].tolist()


def test_a_distance_that_is_not_a_number_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        distance_counts(np.array([[0.0, np.nan]]), relevance([0], [0, 1]))


@pytest.mark.parametrize(
    ("query", "database", "message"),
    [
        ([0, 1], [[1, 0]], "must both be"),
        ([[1, 0]], [[1, 0, 0]], "same classes"),
        ([0.0, np.nan], [0, 1], "query_labels holds NaN"),
        ([0, 1], [0.5, 1.0], "database_labels must be integers"),
        ([[1, 0]], [[np.nan, 0]], "database_labels holds NaN"),
        ([[2, 0]], [[1, 0]], "query_labels holds values other than 0 and 1"),
        ([0], np.zeros(0, int), "database_labels is empty"),
        (np.zeros((1, 0)), np.zeros((1, 0)), "query_labels is empty"),
        (["cat"], ["dog"], "query_labels must be integers"),
        ([["cat"]], [["dog"]], "query_labels must be .* not texts"),
    ],
)
def test_labels_that_cannot_be_compared_are_named(query, database, message):
    with pytest.raises(ValueError, match=message):
        relevance(query, database)


def test_shapes_that_do_not_go_together_are_named():
    one, two = np.zeros((1, 1), np.uint8), np.zeros((1, 2), np.uint8)
    with pytest.raises(ValueError, match="query codes have 1 bytes, database codes 2"):
        hamming_counts(one, two, 8, relevance([0], [0]))
    with pytest.raises(ValueError, match="codes of 9 bits take 2 bytes, not 1"):
        hamming_counts(one, one, 9, relevance([0], [0]))
    with pytest.raises(ValueError, match="labels of 1 queries and 2 items do not go with codes of 1 and 1"):
        hamming_counts(one, one, 8, relevance([0], [0, 0]))
    with pytest.raises(ValueError, match="distances"):
        distance_counts(np.zeros((1, 3)), relevance([0], [0, 0]))


def test_threads_change_nothing_but_the_time():
    task = problem(5, 40, 500, 64, True)
    most = set_threads(10**6)
    try:
        wide = counted(*task)
        assert set_threads(1) == 1
        narrow = counted(*task)
    finally:
        set_threads(most)
    np.testing.assert_array_equal(wide.relevant, narrow.relevant)
    with pytest.raises(ValueError, match="at least 1"):
        set_threads(0)


def test_threads_are_one_without_numba(without_numba):
    without_numba(True)
    assert set_threads(8) == 1
