"""Distances between packed codes, and the nearest items by them.

Shapes: Q queries, N database items, K bits, B = ceil(K / 8) bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashzoo.hamming.packing import Ints, Words, check_codes, compiled_loops, ones, pack, words, words_by_column


def masked_distances(
    query_packed: NDArray[np.uint8], mask_packed: NDArray[np.uint8], database_packed: NDArray[np.uint8]
) -> NDArray[np.int32]:
    """Count the bits of each query's mask in which the query and an item differ.

    Args:
        query_packed: (Q, B) codes as :func:`hashzoo.pack` returns them.
        mask_packed: (Q, B) masks.
        database_packed: (N, B) codes.

    Returns:
        (Q, N) int32 distances.

    Raises:
        ValueError: If the shapes do not match.

    >>> query, mask, database = (np.array(rows, np.uint8) for rows in ([[0b11]], [[0b01]], [[0b00], [0b01]]))
    >>> masked_distances(query, mask, database)
    array([[1, 0]], dtype=int32)
    """
    check_codes(query_packed, database_packed)
    if mask_packed.shape != query_packed.shape or mask_packed.dtype != np.uint8:
        raise ValueError(f"a mask for each query is needed: {query_packed.shape} codes, {mask_packed.shape} masks")
    return _sum_of_planes(words(query_packed), words(mask_packed)[:, None], words_by_column(database_packed))


def weighted_distances(
    query_packed: NDArray[np.uint8], weights: NDArray[Any], database_packed: NDArray[np.uint8]
) -> NDArray[np.int32]:
    """Sum the weights of the bits in which a query and an item differ: weighted Hamming distance.

    The weights are split into their binary digits, so time grows with the number of digits of the largest weight.

    Args:
        query_packed: (Q, B) codes as :func:`hashzoo.pack` returns them.
        weights: (K,) weight of each bit, or (Q, K) for weights of each query: non-negative integers.
        database_packed: (N, B) codes.

    Returns:
        (Q, N) int32 distances.

    Raises:
        ValueError: If the shapes do not match, if a weight is negative or not an integer, or if the weights of a query
            sum to 2^31 or more.

    >>> query, database = (np.array(rows, np.uint8) for rows in ([[0b11000000]], [[0b00000000], [0b01000000]]))
    >>> weighted_distances(query, np.array([5, 2]), database)
    array([[7, 5]], dtype=int32)
    """
    check_codes(query_packed, database_packed)
    bits = weights.shape[-1] if weights.ndim else 0
    if weights.shape not in ((bits,), (len(query_packed), bits)) or -(-bits // 8) != query_packed.shape[1]:
        raise ValueError(
            f"weights {weights.shape} do not go with codes {query_packed.shape}: give one weight for each bit, (K,), "
            "or one for each query and bit, (Q, K)"
        )
    if weights.dtype.kind not in "iu" or weights.min() < 0 or int(weights.sum(axis=-1).max()) > np.iinfo(np.int32).max:
        raise ValueError("weights must be integers of at least 0, whose sum is below 2^31; round and scale real ones")
    digits = int(weights.max()).bit_length()
    planes = [pack(weights.reshape(-1, bits) >> digit & 1 == 1) for digit in range(digits)]
    masks = np.zeros((len(query_packed), digits, words(query_packed).shape[1]), np.uint64)
    for digit, plane in enumerate(planes):
        masks[:, digit] = words(plane)
    return _sum_of_planes(words(query_packed), masks, words_by_column(database_packed))


def _sum_of_planes(queries: Words, masks: Words, database: Words) -> NDArray[np.int32]:
    """(Q, N) sum over planes p of 2^p times the bits of ``masks`` (Q, P, W) in which (Q, W) and (W, N) differ."""
    distances = np.zeros((len(queries), database.shape[1]), np.int32)
    loops = compiled_loops()
    if loops is not None:
        loops.add_planes(queries, np.ascontiguousarray(masks), database, distances)
        return distances
    for q, query in enumerate(queries):
        differing = database ^ query[:, None]
        for digit, mask in enumerate(masks[q]):
            distances[q] += (ones(differing & mask[:, None]) << digit).astype(np.int32)
    return distances


def nearest(
    query_packed: NDArray[np.uint8], database_packed: NDArray[np.uint8], k: int
) -> tuple[Ints, NDArray[np.int32]]:
    """Find the k nearest items by Hamming distance, exactly and without sorting.

    Args:
        query_packed: (Q, B) codes as :func:`hashzoo.pack` returns them.
        database_packed: (N, B) codes.
        k: Items per query, from 1 to N.

    Returns:
        Rows (Q, k) int64 and distances (Q, k) int32, nearest first; items at equal distance are ordered by row.

    Raises:
        ValueError: If ``k`` is outside 1..N, or if the shapes do not match.

    >>> rows, distances = nearest(np.array([[3]], np.uint8), np.array([[0], [3], [1], [2]], np.uint8), 3)
    >>> rows.tolist(), distances.tolist()
    ([[1, 2, 3]], [[0, 1, 1]])
    """
    check_codes(query_packed, database_packed)
    queries, database = words(query_packed), words_by_column(database_packed)
    N = database.shape[1]
    if not 1 <= k <= N:
        raise ValueError(f"k must be from 1 to the {N} items of the database, not {k}")
    rows, distances = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.int32)
    loops = compiled_loops()
    if loops is not None:
        loops.nearest(queries, database, loops.threads(), rows, distances)
        return rows, distances
    for q, query in enumerate(queries):
        rows[q : q + 1], distances[q : q + 1] = nearest_by(ones(database ^ query[:, None])[None], k)
    return rows, distances


def nearest_by(distances: NDArray[Any], k: int) -> tuple[Ints, NDArray[Any]]:
    """Find the k nearest items by given distances, sorting only the items within the k-th distance.

    Args:
        distances: (Q, N) numbers; NaN is farther than any of them.
        k: Items per query.

    Returns:
        Rows (Q, k) int64 and distances (Q, k), nearest first; items at equal distance are ordered by row.

    >>> rows, distances = nearest_by(np.array([[2, 0, 1, 1]]), 3)
    >>> rows.tolist(), distances.tolist()
    ([[1, 2, 3]], [[0, 1, 1]])
    """
    k = min(k, distances.shape[1])
    rows = np.empty((len(distances), k), np.int64)
    for q, row in enumerate(distances):
        within = np.flatnonzero(~(row > np.partition(row, k - 1)[k - 1]))  # a comparison with NaN is false
        rows[q] = within[np.argsort(row[within], kind="stable")[:k]]
    return rows, np.take_along_axis(distances, rows, axis=1)
