"""Items within a radius are those of plain NumPy, in the order of distance and row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hashzoo.hamming import scanning
from hashzoo.hamming.packing import ONES


def plainly(query, database, k, radius):
    distances = ONES[query ^ database].sum(axis=1)
    order = [row for row in np.argsort(distances, kind="stable") if radius is None or distances[row] <= radius][:k]
    return order, distances[order].tolist()


@given(
    st.integers(0, 10**6), st.integers(1, 20), st.integers(0, 60), st.none() | st.integers(1, 9),
    st.none() | st.integers(0, 40), st.sampled_from([1, 7, 1 << 16]),
)  # fmt: skip
def test_the_items_within_a_radius_are_those_of_plain_numpy(seed, width, items, k, radius, block):
    rng = np.random.default_rng(seed)
    database = rng.integers(0, 4, (items, width), np.uint8)
    queries = rng.integers(0, 4, (2, width), np.uint8)
    before, scanning.ITEMS = scanning.ITEMS, block
    try:
        found = scanning.within(queries, database, k, radius)
    finally:
        scanning.ITEMS = before
    assert [(rows.tolist(), far.tolist()) for rows, far in found] == [
        plainly(query, database, k, radius) for query in queries
    ]


def test_numpy_1_counts_ones_too(monkeypatch):
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    ((rows, far),) = scanning.within(np.array([[3, 0]], np.uint8), np.array([[0, 0], [3, 1], [3, 0]], np.uint8), k=2)
    assert (rows.tolist(), far.tolist()) == ([2, 1], [0, 1])


def test_codes_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="query codes have 2 bytes"):
        scanning.within(np.zeros((1, 2), np.uint8), np.zeros((3, 1), np.uint8))
