"""Items within a Hamming radius, and the nearest ones of few queries, without compiled loops, which take time to load.

Shapes: Q queries, N database items, B bytes of a code.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashzoo.hamming.packing import Ints, Words, check_codes, ones, words

ITEMS = 1 << 16  # items compared at a time: their distances stay in the cache


def within(
    query_packed: NDArray[np.uint8], database_packed: NDArray[np.uint8], k: int | None = None, radius: int | None = None
) -> list[tuple[Ints, Ints]]:
    """Find the items within a Hamming radius of each query, or the k nearest of them, exactly.

    Args:
        query_packed: (Q, B) codes as :func:`hashzoo.pack` returns them.
        database_packed: (N, B) codes; N may be 0.
        k: Most items per query; None returns all within the radius.
        radius: Largest distance; None has no limit.

    Returns:
        For each query, the rows and the distances of n items, nearest first; equal distances are ordered by row.

    >>> query, database = np.array([[3]], np.uint8), np.array([[0], [3], [1], [2]], np.uint8)
    >>> [array.tolist() for array in within(query, database, radius=1)[0]]
    [[1, 2, 3], [0, 1, 1]]
    >>> [array.tolist() for array in within(query, database, k=2)[0]]
    [[1, 2], [0, 1]]
    """
    if not len(database_packed) or not len(query_packed):
        return [(np.empty(0, np.int64), np.empty(0, np.int64)) for _ in query_packed]
    check_codes(query_packed, database_packed)
    return [_within(query, database_packed, k, radius) for query in words(query_packed)]


def _within(query: Words, database: NDArray[np.uint8], k: int | None, radius: int | None) -> tuple[Ints, Ints]:
    bound = 64 * len(query) if radius is None else radius  # no farther item is wanted
    rows, distances, waiting = list[Ints](), list[Ints](), 0
    for start in range(0, len(database), ITEMS):
        differing = _ones(words(database[start : start + ITEMS]) ^ query)
        near = np.flatnonzero(differing <= bound)
        rows.append(near + start)
        distances.append(differing[near].astype(np.int64))
        waiting += len(near)
        if k is not None and waiting > 4 * k + ITEMS // 8:
            row, distance = _first(rows, distances, k)
            rows, distances, waiting = [row], [distance], len(row)
            bound = int(distance[-1]) - 1 if k else -1  # of equally near items, earlier rows come first
    return _first(rows, distances, k)


def _first(rows: list[Ints], distances: list[Ints], k: int | None) -> tuple[Ints, Ints]:
    """The first k of items by distance, then by row."""
    row, distance = np.concatenate(rows), np.concatenate(distances)
    order = np.argsort(distance, kind="stable")[:k]
    return row[order], distance[order]


def _ones(codes: Words) -> NDArray[Any]:
    """(n, W) words to (n,) numbers of ones."""
    if hasattr(np, "bitwise_count"):  # NumPy 2
        return np.asarray(np.bitwise_count(codes).sum(axis=1, dtype=np.int64))
    return ones(np.ascontiguousarray(codes.T))
