"""Counts of items by distance: the number of items, and of relevant ones, at each distance from a query.

A distance between K-bit codes is one of K + 1 integers, so a histogram by distance holds everything a metric needs of a
ranking. No ranking is computed, no (Q, N) array is held, and the order of the database has no effect.

Shapes: Q queries, N database items, K bits, B = ceil(K / 8) bytes, G groups of equal distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashzoo.hamming.packing import ONES, Ints, Words, check_codes, compiled_loops, ones, words, words_by_column
from hashzoo.hamming.relevance import Graded, Neighbours, Relevance

_LONGEST_SHORT = 127  # bits: distance and relevance together still fit a byte
_ITEMS = 1 << 18  # database items counted at a time: their 64-bit codes and labels stay in the cache
_TABLE = 1 << 22  # entries of a table of integer counts: 32 MB
_LARGEST = 1 << 20  # largest integer distance that is counted in a table and not sorted


@dataclass(frozen=True)
class Counts:
    """Number of items in each group of equal distance, nearest group first; a group can be empty.

    Attributes:
        items: (Q, G) int64, items in each group.
        relevant: (Q, G) int64, relevant items in each group.
        grades: (Q, G, R + 1) int64, items by grade 0..R; None unless counted with ``graded``.
        hamming: If True, group g holds the items at Hamming distance g. If False, the groups of a query are its
            distinct distances in increasing order, and rows with fewer groups end in empty ones.
        gains: (R + 1,) float64, the gain of each grade in ``ndcg``; None for 2^r - 1.
    """

    items: Ints
    relevant: Ints
    grades: Ints | None
    hamming: bool
    gains: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.items)

    @property
    def size(self) -> Ints:
        """(Q,) number of items ranked for each query."""
        return np.asarray(self.items.sum(axis=1))

    @property
    def positives(self) -> Ints:
        """(Q,) number of relevant items of each query."""
        return np.asarray(self.relevant.sum(axis=1))


def concatenate_counts(parts: Sequence[Counts]) -> Counts:
    """Join counts of successive queries; rows with fewer groups are padded with empty ones.

    >>> wide, narrow = (Counts(np.ones((1, g), int), np.ones((1, g), int), None, hamming=False) for g in (2, 1))
    >>> concatenate_counts([wide, narrow]).items.tolist()
    [[1, 1], [1, 0]]
    """
    groups = max(part.items.shape[1] for part in parts)

    def padded(tables: Sequence[Ints]) -> Ints:
        return np.concatenate(
            [np.pad(table, ((0, 0), (0, groups - table.shape[1]), (0, 0))[: table.ndim]) for table in tables]
        )

    grades = [part.grades for part in parts if part.grades is not None]
    return Counts(
        items=padded([part.items for part in parts]),
        relevant=padded([part.relevant for part in parts]),
        grades=padded(grades) if grades else None,
        hamming=all(part.hamming for part in parts),
    )


def hamming_counts(
    query_packed: NDArray[np.uint8],
    database_packed: NDArray[np.uint8],
    bits: int,
    relevance: Relevance,
    graded: bool = False,
) -> Counts:
    """Count items by Hamming distance.

    Args:
        query_packed: (Q, B) codes as :func:`hashzoo.pack` returns them; the padding must be zero.
        database_packed: (N, B) codes.
        bits: Code length K.
        relevance: Labels of the Q queries and N items.
        graded: Whether to count by the number of shared labels too.

    Returns:
        Counts with G = bits + 1 groups.

    Raises:
        ValueError: If the shapes do not match.

    >>> from hashzoo import pack, relevance
    >>> query, database = pack(np.array([[1, 1]], bool)), pack(np.array([[1, 1], [0, 1], [1, 0]], bool))
    >>> counts = hamming_counts(query, database, 2, relevance([5], [5, 5, 4]))
    >>> counts.items.tolist(), counts.relevant.tolist()
    ([[1, 2, 0]], [[1, 1, 0]])
    """
    check_codes(query_packed, database_packed)
    if query_packed.shape[1] != -(-bits // 8):
        raise ValueError(f"codes of {bits} bits take {-(-bits // 8)} bytes, not {query_packed.shape[1]}")
    if (len(relevance), relevance.items) != (len(query_packed), len(database_packed)):
        raise ValueError(
            f"labels of {len(relevance)} queries and {relevance.items} items do not go with "
            f"codes of {len(query_packed)} and {len(database_packed)}"
        )
    highest = relevance.highest if graded else 1
    queries = words(query_packed)
    table = np.zeros((len(queries), (highest + 1) * (bits + 1)), np.int64)
    for start in range(0, len(database_packed), _ITEMS):
        items = slice(start, start + _ITEMS)
        _add_counts(table, queries, words_by_column(database_packed[items]), bits, relevance.among(items), highest)
    if isinstance(relevance, Neighbours) and compiled_loops() is not None:
        listed = _listed_distances(query_packed, database_packed, relevance.rows)
        _move_listed(table, listed, bits + 1, _levels(relevance, highest))
    levels = table.reshape(len(queries), highest + 1, bits + 1)
    return Counts(
        items=levels.sum(axis=1),
        relevant=levels[:, 1:].sum(axis=1),
        grades=np.ascontiguousarray(levels.transpose(0, 2, 1)) if graded else None,
        hamming=True,
    )


def _add_counts(table: Ints, queries: Words, database: Words, bits: int, relevance: Relevance, highest: int) -> None:
    """Add the pairs of queries (Q, W) and items (W, N) to a table (Q, (highest + 1) * (bits + 1))."""
    loops = compiled_loops()
    if loops is None:
        for q, query in enumerate(queries):
            grade = relevance.grades(q) if highest > 1 else relevance.relevant(q)
            value = ones(database ^ query[:, None]) + (bits + 1) * grade
            table[q] += np.bincount(value, minlength=table.shape[1])
    elif highest == 1 and bits <= _LONGEST_SHORT:
        loops.count_short(queries, database, _labels(relevance), loops.threads(), table)
    else:
        loops.count_wide(queries, database, _labels(relevance), highest, loops.threads(), table)


def _listed_distances(
    query_packed: NDArray[np.uint8], database_packed: NDArray[np.uint8], rows: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(Q, k) Hamming distances between queries and the items in their lists; -1 for no item."""
    found = np.full(rows.shape, -1, np.int64)
    for q, listed in enumerate(rows):
        there = listed >= 0
        found[q, there] = ONES[database_packed[listed[there]] ^ query_packed[q]].sum(axis=1)
    return found


def _levels(relevance: Neighbours, highest: int) -> NDArray[np.int64]:
    """(Q, k) grades of listed items, at most ``highest``."""
    ones = np.ones_like(relevance.rows)
    return np.minimum(relevance.levels, highest) if isinstance(relevance, Graded) else ones


def _move_listed(table: Ints, distances: NDArray[np.int64], groups: int, levels: NDArray[np.int64]) -> None:
    """Move items at these distances (Q, k) from grade 0 to their grades (Q, k) in a table (Q, grades * groups)."""
    query, place = np.nonzero(distances >= 0)
    at = distances[query, place]
    np.subtract.at(table, (query, at), 1)
    np.add.at(table, (query, at + groups * levels[query, place]), 1)


def _labels(relevance: Relevance) -> tuple[bool, NDArray[np.uint8], NDArray[np.uint8]]:
    return relevance.same, np.ascontiguousarray(relevance.query), relevance.database


def integer_counts(distances: NDArray[Any], largest: int, relevance: Relevance, graded: bool = False) -> Counts:
    """Count items by whole-number distance, without sorting: the result is that of :func:`distance_counts`.

    Args:
        distances: (Q, N) integers from 0 to ``largest``.
        largest: Upper bound on the distances. Above 2^20, a sort is faster and is used.
        relevance: Labels of the Q queries and N items.
        graded: Whether to count by the number of shared labels too.

    Returns:
        Counts by distinct distance.

    Raises:
        ValueError: If a distance is outside 0..largest, or if the shapes do not match.

    >>> from hashzoo import relevance
    >>> counts = integer_counts(np.array([[7, 3, 7]]), 9, relevance([0], [0, 1, 1]))
    >>> counts.items.tolist(), counts.relevant.tolist()
    ([[1, 2]], [[0, 1]])
    """
    _check_distances(distances, relevance)
    if distances.dtype.kind not in "iu":
        raise ValueError(f"distances must be integers, not {distances.dtype}")
    if largest > _LARGEST:
        return distance_counts(distances, relevance, graded)
    grades, groups = relevance.highest + 1 if graded else 2, largest + 1
    tables: list[Ints] = []
    step = max(1, _TABLE // (grades * groups))
    for start in range(0, len(distances), step):
        rows = slice(start, start + step)
        for table in _integer_tables(distances[rows], groups, relevance[rows], grades):
            tables.append(table[:, table.any(axis=0)].T)
    return _by_distinct_distance(tables, graded)


def _integer_tables(distances: NDArray[Any], groups: int, relevance: Relevance, grades: int) -> Ints:
    """(Q, grades, groups) items by grade and distance; ValueError for a distance that is not in 0..groups - 1."""
    loops, tables = compiled_loops(), np.zeros((len(distances), grades * groups), np.int64)
    valid = True
    if loops is not None:
        given = np.ascontiguousarray(distances, dtype=None if distances.dtype.itemsize in (4, 8) else np.int64)
        valid = bool(loops.count_integers(given, _labels(relevance), grades - 1, loops.threads(), tables))
        if valid and isinstance(relevance, Neighbours):
            listed = np.take_along_axis(distances, relevance.rows.clip(min=0), axis=1).astype(np.int64)
            listed = np.where(relevance.rows >= 0, listed, -1)
            _move_listed(tables, listed, groups, _levels(relevance, grades - 1))
    elif valid := bool(distances.min() >= 0 and distances.max() < groups):
        for q, row in enumerate(distances):
            grade = relevance.grades(q) if grades > 2 else relevance.relevant(q)
            tables[q] = np.bincount(row.astype(np.int64) + groups * grade, minlength=grades * groups)
    if not valid:
        raise ValueError(
            f"distances range from {distances.min()} to {distances.max()}, but `largest` allows 0 to {groups - 1}; "
            "correct `largest` of the distance"
        )
    return tables.reshape(len(distances), grades, groups)


def distance_counts(distances: NDArray[Any], relevance: Relevance, graded: bool = False) -> Counts:
    """Count items by real distance, by sorting; items at equal distance are one group.

    Args:
        distances: (Q, N) numbers.
        relevance: Labels of the Q queries and N items.
        graded: Whether to count by the number of shared labels too.

    Returns:
        Counts by distinct distance; G is the largest number of groups of a query.

    Raises:
        ValueError: If a distance is NaN, or if the shapes do not match.

    >>> from hashzoo import relevance
    >>> counts = distance_counts(np.array([[.5, .1, .5]]), relevance([0], [0, 1, 1]))
    >>> counts.items.tolist(), counts.relevant.tolist()
    ([[1, 2]], [[0, 1]])
    """
    _check_distances(distances, relevance)
    if np.isnan(distances).any():
        raise ValueError("distances hold NaN; a ranking needs an order")
    if isinstance(relevance, Neighbours) and not graded:
        return _neighbour_counts(distances, relevance)
    grades = relevance.highest + 1 if graded else 2
    tables = []
    for q, row in enumerate(distances):
        order = np.argsort(row)
        nearest = row[order]
        group = np.concatenate([[0], np.cumsum(nearest[1:] != nearest[:-1])])
        grade = (relevance.grades(q) if graded else relevance.relevant(q))[order]
        table = np.bincount(group * grades + grade, minlength=(group[-1] + 1) * grades)
        tables.append(table.reshape(-1, grades))
    return _by_distinct_distance(tables, graded)


def _neighbour_counts(distances: NDArray[Any], relevance: Neighbours) -> Counts:
    """Counts whose groups are the distances that listed items have, and all items between two of these.

    Within a group without a relevant item the order has no effect on any metric of the ranks of relevant items, so
    that items between two relevant distances are one group and a row has at most 2 k + 1 of them.
    """
    most = 2 * relevance.rows.shape[1] + 1
    items, relevant = np.zeros((len(distances), most), np.int64), np.zeros((len(distances), most), np.int64)
    for q, row in enumerate(distances):
        listed = relevance.rows[q]
        known, times = np.unique(row[listed[listed >= 0]], return_counts=True)
        ordered = np.sort(row[row <= known[-1]]) if len(known) else row[:0]  # no edge lies among the farther items
        start, stop = (np.searchsorted(ordered, known, side=side) for side in ("left", "right"))
        edges = np.concatenate([np.stack([start, stop], axis=1).ravel(), [len(row)]])
        items[q, : len(edges)] = np.diff(edges, prepend=0)
        relevant[q, 1 : len(edges) : 2] = times
    return Counts(items, relevant, None, hamming=False)


def _check_distances(distances: NDArray[Any], relevance: Relevance) -> None:
    if distances.shape != (len(relevance), relevance.items) or distances.size == 0:
        raise ValueError(
            f"distances {distances.shape} do not go with labels of {len(relevance)} queries and {relevance.items} items"
        )


def _by_distinct_distance(tables: Sequence[Ints], graded: bool) -> Counts:
    """Counts from a table (G, grades) for each query, padded with empty groups."""
    padded = np.zeros((len(tables), max(map(len, tables)), tables[0].shape[1]), np.int64)
    for q, table in enumerate(tables):
        padded[q, : len(table)] = table
    return Counts(padded.sum(axis=2), padded[:, :, 1:].sum(axis=2), padded if graded else None, hamming=False)
