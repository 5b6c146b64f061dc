"""Counting pairs: how many items, and how many relevant ones, lie at each distance from a query.

A distance between K-bit codes is one of K + 1 integers, so everything a metric needs of a ranking is a
histogram by distance. No ranking is made, no (Q, N) array is held, and the order of the database cannot
matter.

The loops are compiled (kernels.py). Without numba, or with ``HASHZOO_NUMBA=off`` in the environment, NumPy
gives the same integers, about a hundred times slower.

Shapes: Q queries, N database items, K bits, B = ceil(K / 8) bytes, C classes, G groups of equal distance.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
Ints = NDArray[np.int64]

_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1)
_LONGEST_SHORT = 127  # bits: distance and relevance together still fit a byte
_CELLS = 1 << 20  # label entries looked at in one go, so that checking them takes no memory to speak of
_ITEMS = 1 << 18  # of the database that are counted at a time: 64-bit codes and labels of so many stay in the cache


def _kernels() -> ModuleType | None:
    if os.environ.get("HASHZOO_NUMBA", "").lower() == "off":
        return None
    try:
        from hashzoo.hamming import kernels
    except ImportError:
        return None
    return kernels


def compiled() -> bool:
    """Whether the loops are compiled, or NumPy stands in for them."""
    return _kernels() is not None


def set_threads(count: int) -> int:
    """Let the compiled loops called from this thread use ``count`` threads; returns how many they will use.

    That is fewer than asked for on a machine that has fewer, and 1 without numba. ValueError below one.
    """
    if count < 1:
        raise ValueError(f"threads must be at least 1, not {count}")
    kernels = _kernels()
    return 1 if kernels is None else int(kernels.set_threads(count))


def get_threads() -> int:
    """The threads that the compiled loops called from this thread use; 1 without numba."""
    kernels = _kernels()
    return 1 if kernels is None else int(kernels.threads())


def pack(bits: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """(N, K) bool to (N, ceil(K / 8)) uint8: bit 0 is the highest of byte 0, the last byte ends in zeros.

    >>> pack(np.array([[True, False, False, False, False, False, False, True, True]]))
    array([[129, 128]], dtype=uint8)
    """
    return np.packbits(bits, axis=1)


def unpack(packed: NDArray[np.uint8], bits: int) -> NDArray[np.bool_]:
    """The inverse of :func:`pack`, to (N, bits) bool.

    >>> unpack(np.array([[129, 128]], dtype=np.uint8), 9).astype(int)
    array([[1, 0, 0, 0, 0, 0, 0, 1, 1]])
    """
    return np.unpackbits(packed, axis=1, count=bits).astype(bool)


@dataclass(frozen=True)
class Relevance:
    """Labels of both sides, ready to be compared, as :func:`relevance` makes them.

    A slice of it holds those queries and the whole database. With ``same`` the L bytes of a row are its
    class, which another row has or has not; without, they are 8 L multi-hot labels.
    """

    query: NDArray[np.uint8]  # (Q, L)
    database: NDArray[np.uint8]  # (L, N)
    same: bool
    highest: int  # the grade above which no pair can be

    def __len__(self) -> int:
        return len(self.query)

    def __getitem__(self, queries: slice) -> Relevance:
        return replace(self, query=self.query[queries])

    def among(self, items: slice) -> Relevance:
        """That of all queries to some items of the database."""
        return replace(self, database=np.ascontiguousarray(self.database[:, items]))

    def relevant(self, row: int) -> NDArray[np.bool_]:
        """(N,) whether each item is relevant to the query in this row."""
        mine = self.query[row][:, None]
        if self.same:
            return np.asarray((self.database == mine).all(axis=0))
        return np.asarray((self.database & mine).any(axis=0))

    def grades(self, row: int) -> Ints:
        """(N,) how many labels each item shares with the query in this row."""
        if self.same:
            return self.relevant(row).astype(np.int64)
        return np.asarray(_ONES[self.database & self.query[row][:, None]].sum(axis=0), dtype=np.int64)


def relevance(query_labels: Any, database_labels: Any) -> Relevance:
    """Prepare labels for counting: integers (Q,) and (N,), or multi-hot (Q, C) and (N, C) of zeros and ones.

    The grade of a pair is the number of shared labels (1 for equal integers); a pair of grade above 0 is
    relevant. ValueError names the side whose labels are something else.

    >>> relevance([0, 1], [1, 1, 0]).relevant(0)
    array([False, False,  True])
    >>> relevance([[1, 1]], [[1, 1], [0, 1], [0, 0]]).grades(0)
    array([2, 1, 0])
    """
    query, database = np.asarray(query_labels), np.asarray(database_labels)
    if query.ndim != database.ndim:
        raise ValueError(
            f"query_labels {query.shape} and database_labels {database.shape} must both be integers (N,) "
            "or both multi-hot (N, C)"
        )
    for name, labels in (("query_labels", query), ("database_labels", database)):
        if labels.size == 0:
            raise ValueError(f"{name} is empty, {labels.shape}; at least one labelled item is needed")
    if query.ndim == 1:
        return _of_classes(_integers(query, "query_labels"), _integers(database, "database_labels"))
    if query.ndim != 2 or query.shape[1] != database.shape[1]:
        raise ValueError(
            f"query_labels {query.shape} and database_labels {database.shape} must have the same classes: "
            "both (N, C) with one C"
        )
    q, fewest_q, most_q = _multi_hot(query, "query_labels")
    d, fewest_d, most_d = _multi_hot(database, "database_labels")
    if fewest_q == most_q == fewest_d == most_d == 1:
        return _of_classes(_classes(query), _classes(database))
    return Relevance(q, np.ascontiguousarray(d.T), same=False, highest=max(1, min(most_q, most_d)))


def _integers(labels: NDArray[Any], name: str) -> Ints:
    if labels.dtype.kind == "f" and np.isnan(labels).any():
        raise ValueError(f"{name} holds NaN; every item needs a class")
    if labels.dtype.kind not in "iu":
        raise ValueError(f"{name} must be integers (N,) or multi-hot (N, C), not {labels.dtype} {labels.shape}")
    return np.ascontiguousarray(labels, dtype=np.int64)


def _of_classes(query: Ints, database: Ints) -> Relevance:
    """Keep only the bytes of the integers that differ somewhere: one of eight, for up to 256 classes."""
    q, d = (side.view(np.uint8).reshape(-1, 8) for side in (query, database))
    used = (q != d[0]).any(axis=0) | (d != d[0]).any(axis=0)
    return Relevance(q[:, used], np.ascontiguousarray(d[:, used].T), same=True, highest=1)


def _multi_hot(labels: NDArray[Any], name: str) -> tuple[NDArray[np.uint8], int, int]:
    """(N, ceil(C / 8)) bytes, and the fewest and the most labels of a row."""
    if labels.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be multi-hot numbers (N, C), not {labels.dtype}")
    packed = np.empty((len(labels), -(-labels.shape[1] // 8)), np.uint8)
    fewest, most = labels.shape[1], 0
    for rows in _row_blocks(labels):
        part = labels[rows]
        ones = part == 1
        if not (ones | (part == 0)).all():
            what = "NaN" if part.dtype.kind == "f" and np.isnan(part).any() else "values other than 0 and 1"
            raise ValueError(f"{name} holds {what}; a multi-hot row is 1 at each label of the item and 0 elsewhere")
        packed[rows] = pack(ones)
        held = ones.sum(axis=1)
        fewest, most = min(fewest, int(held.min())), max(most, int(held.max()))
    return packed, fewest, most


def _classes(labels: NDArray[Any]) -> Ints:
    parts = [labels[rows].argmax(axis=1) for rows in _row_blocks(labels)]
    return np.concatenate(parts).astype(np.int64)


def _row_blocks(labels: NDArray[Any]) -> list[slice]:
    rows = max(1, _CELLS // labels.shape[1])
    return [slice(start, start + rows) for start in range(0, len(labels), rows)]


def _words(packed: NDArray[np.uint8]) -> Words:
    """(N, B) bytes to (N, ceil(B / 8)) words; what is added is zero, so it adds nothing to a distance.

    Whole words are not copied.
    """
    if packed.shape[1] % 8 == 0:
        return np.ascontiguousarray(packed).view(np.uint64)
    padded = np.zeros((len(packed), -(-packed.shape[1] // 8) * 8), np.uint8)
    padded[:, : packed.shape[1]] = packed
    return padded.view(np.uint64)


def _ones(words: Words) -> Ints:
    """(W, N) words to (N,) counts of ones."""
    octets = words.view(np.uint8).reshape(*words.shape, 8)
    return np.asarray(_ONES[octets].sum(axis=(0, 2)), dtype=np.int64)


@dataclass(frozen=True)
class Counts:
    """Items of each group of equal distance, nearest group first; a group may be empty.

    With ``integer``, group g holds the items at Hamming distance g. Without, groups are the distinct
    distances of a query in increasing order, and rows of queries that have fewer end in empty groups.
    """

    items: Ints  # (Q, G)
    relevant: Ints  # (Q, G)
    grades: Ints | None  # (Q, G, R + 1) items by grade 0..R, where grades were asked for
    integer: bool

    def __len__(self) -> int:
        return len(self.items)

    @property
    def size(self) -> Ints:
        """(Q,) items in the ranking of each query."""
        return np.asarray(self.items.sum(axis=1))

    @property
    def positives(self) -> Ints:
        """(Q,) relevant items in the ranking of each query."""
        return np.asarray(self.relevant.sum(axis=1))


def hamming_counts(
    query_packed: NDArray[np.uint8],
    database_packed: NDArray[np.uint8],
    bits: int,
    relevance: Relevance,
    graded: bool = False,
) -> Counts:
    """Counts by Hamming distance, G = bits + 1, of packed codes (Q, B) and (N, B) whose padding is zero.

    ``graded`` also counts by grade. ValueError when the shapes do not go together.

    >>> query, database = pack(np.array([[1, 1]], bool)), pack(np.array([[1, 1], [0, 1], [1, 0]], bool))
    >>> counts = hamming_counts(query, database, 2, relevance([5], [5, 5, 4]))
    >>> counts.items.tolist(), counts.relevant.tolist()
    ([[1, 2, 0]], [[1, 1, 0]])
    """
    _check_codes(query_packed, database_packed)
    if query_packed.shape[1] != -(-bits // 8):
        raise ValueError(f"codes of {bits} bits take {-(-bits // 8)} bytes, not {query_packed.shape[1]}")
    if (len(relevance), relevance.database.shape[1]) != (len(query_packed), len(database_packed)):
        raise ValueError(
            f"labels of {len(relevance)} queries and {relevance.database.shape[1]} items do not go with "
            f"codes of {len(query_packed)} and {len(database_packed)}"
        )
    highest = relevance.highest if graded else 1
    queries = _words(query_packed)
    table = np.zeros((len(queries), (highest + 1) * (bits + 1)), np.int64)
    for start in range(0, len(database_packed), _ITEMS):
        items = slice(start, start + _ITEMS)
        _add_counts(table, queries, _by_word(database_packed[items]), bits, relevance.among(items), highest)
    levels = table.reshape(len(queries), highest + 1, bits + 1)
    return Counts(
        items=levels.sum(axis=1),
        relevant=levels[:, 1:].sum(axis=1),
        grades=np.ascontiguousarray(levels.transpose(0, 2, 1)) if graded else None,
        integer=True,
    )


def _add_counts(table: Ints, queries: Words, database: Words, bits: int, relevance: Relevance, highest: int) -> None:
    """Add the pairs of queries (Q, W) and items (W, N) to a table (Q, (highest + 1) * (bits + 1))."""
    kernels = _kernels()
    pairs = queries, database, relevance.same, np.ascontiguousarray(relevance.query), relevance.database, bits
    if kernels is None:
        for q, query in enumerate(queries):
            level = relevance.grades(q) if highest > 1 else relevance.relevant(q)
            value = _ones(database ^ query[:, None]) + (bits + 1) * level
            table[q] += np.bincount(value, minlength=table.shape[1])
    elif highest == 1 and bits <= _LONGEST_SHORT:
        kernels.count_short(*pairs, kernels.threads(), table)
    else:
        kernels.count_wide(*pairs, highest, kernels.threads(), table)


def _by_word(packed: NDArray[np.uint8]) -> Words:
    """(N, B) bytes to (W, N) words; not copied where one word is the whole code."""
    return np.ascontiguousarray(_words(packed).T)


def _check_codes(query_packed: NDArray[np.uint8], database_packed: NDArray[np.uint8]) -> None:
    for name, packed in (("query_packed", query_packed), ("database_packed", database_packed)):
        if packed.dtype != np.uint8 or packed.ndim != 2 or packed.size == 0:
            raise ValueError(f"{name} must be uint8 (N, B) with at least one row, not {packed.dtype} {packed.shape}")
    if query_packed.shape[1] != database_packed.shape[1]:
        raise ValueError(f"query codes have {query_packed.shape[1]} bytes, database codes {database_packed.shape[1]}")


def _code_words(query_packed: NDArray[np.uint8], database_packed: NDArray[np.uint8]) -> tuple[Words, Words]:
    _check_codes(query_packed, database_packed)
    return _words(query_packed), _by_word(database_packed)


def masked_distances(
    query_packed: NDArray[np.uint8], mask_packed: NDArray[np.uint8], database_packed: NDArray[np.uint8]
) -> NDArray[np.int32]:
    """(Q, N) in how many bits of each query's mask (Q, B) its code (Q, B) and an item's (N, B) differ.

    ValueError when the shapes do not go together.

    >>> query, mask, database = (np.array(rows, np.uint8) for rows in ([[0b11]], [[0b01]], [[0b00], [0b01]]))
    >>> masked_distances(query, mask, database)
    array([[1, 0]], dtype=int32)
    """
    queries, database = _code_words(query_packed, database_packed)
    if mask_packed.shape != query_packed.shape or mask_packed.dtype != np.uint8:
        raise ValueError(f"a mask for each query is needed: {query_packed.shape} codes, {mask_packed.shape} masks")
    masks = _words(mask_packed)
    distances = np.empty((len(queries), database.shape[1]), np.int32)
    kernels = _kernels()
    if kernels is not None:
        kernels.masked(queries, masks, database, distances)
        return distances
    for q, (query, mask) in enumerate(zip(queries, masks, strict=True)):
        distances[q] = _ones((database ^ query[:, None]) & mask[:, None])
    return distances


def distance_counts(distances: NDArray[Any], relevance: Relevance, graded: bool = False) -> Counts:
    """Counts by any real distance (Q, N): equal distances are one group, G the most groups of a query.

    ValueError for NaN, or when the shape does not go with the labels.

    >>> counts = distance_counts(np.array([[.5, .1, .5]]), relevance([0], [0, 1, 1]))
    >>> counts.items.tolist(), counts.relevant.tolist()
    ([[1, 2]], [[0, 1]])
    """
    if distances.shape != (len(relevance), relevance.database.shape[1]) or distances.size == 0:
        raise ValueError(
            f"distances {distances.shape} do not go with labels of {len(relevance)} queries "
            f"and {relevance.database.shape[1]} items"
        )
    if np.isnan(distances).any():
        raise ValueError("distances hold NaN; a ranking needs an order")
    levels = relevance.highest + 1 if graded else 2
    tables = []
    for q, row in enumerate(distances):
        order = np.argsort(row)
        near = row[order]
        group = np.concatenate([[0], np.cumsum(near[1:] != near[:-1])])
        level = (relevance.grades(q) if graded else relevance.relevant(q))[order]
        table = np.bincount(group * levels + level, minlength=(group[-1] + 1) * levels)
        tables.append(table.reshape(-1, levels))
    joined = np.zeros((len(tables), max(map(len, tables)), levels), np.int64)
    for q, table in enumerate(tables):
        joined[q, : len(table)] = table
    return Counts(joined.sum(axis=2), joined[:, :, 1:].sum(axis=2), joined if graded else None, integer=False)


def nearest(
    query_packed: NDArray[np.uint8], database_packed: NDArray[np.uint8], k: int
) -> tuple[Ints, NDArray[np.int32]]:
    """The k nearest rows of packed codes (Q, B) and (N, B): rows and distances (Q, k), equal ones by row.

    Exact, and without a sort: the counts by distance say where each row within the k-th distance belongs.
    ValueError unless 1 <= k <= N.

    >>> rows, distances = nearest(np.array([[3]], np.uint8), np.array([[0], [3], [1], [2]], np.uint8), 3)
    >>> rows.tolist(), distances.tolist()
    ([[1, 2, 3]], [[0, 1, 1]])
    """
    queries, database = _code_words(query_packed, database_packed)
    N = database.shape[1]
    if not 1 <= k <= N:
        raise ValueError(f"k must be from 1 to the {N} items of the database, not {k}")
    rows, found = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.int32)
    kernels = _kernels()
    if kernels is not None:
        kernels.nearest(queries, database, kernels.threads(), rows, found)
        return rows, found
    for q, query in enumerate(queries):
        distance = _ones(database ^ query[:, None])
        radius = int(np.searchsorted(np.cumsum(np.bincount(distance)), k))
        within = np.flatnonzero(distance <= radius)
        rows[q] = within[np.argsort(distance[within], kind="stable")[:k]]
        found[q] = distance[rows[q]]
    return rows, found
