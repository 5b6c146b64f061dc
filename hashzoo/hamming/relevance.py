"""Which items are relevant to which queries: labels in the form in which they are compared and counted, or lists
of rows.

Shapes: Q queries, N database items, C classes, L bytes of a label row, k items of a list.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashzoo.hamming.packing import ONES, Ints, pack
from hashzoo.hamming.reading import read_labels
from hashzoo.hamming.values import few_values

CELLS = 1 << 20  # label entries checked at a time, which bounds the memory of the check


@dataclass(frozen=True)
class Relevance:
    """Labels of queries and database items, prepared for comparison by :func:`relevance`.

    A slice holds the labels of those queries and of the whole database.

    Attributes:
        query: (Q, L) uint8.
        database: (L, N) uint8.
        same: If True, the L bytes of a row encode its class, and two rows match if all bytes are equal. If False, they
            are 8 L multi-hot labels.
        highest: Upper bound on the number of labels that a pair shares.
    """

    query: NDArray[np.uint8]
    database: NDArray[np.uint8]
    same: bool
    highest: int

    def __len__(self) -> int:
        return len(self.query)

    def __getitem__(self, queries: slice) -> Relevance:
        return replace(self, query=self.query[queries])

    @property
    def items(self) -> int:
        """Number N of database items."""
        return int(self.database.shape[1])

    def among(self, items: slice) -> Relevance:
        """The labels of all queries and of some database items."""
        return replace(self, database=np.ascontiguousarray(self.database[:, items]))

    def relevant(self, row: int) -> NDArray[np.bool_]:
        """(N,) whether each item is relevant to the query in this row."""
        labels = self.query[row][:, None]
        if self.same:
            return np.asarray((self.database == labels).all(axis=0))
        return np.asarray((self.database & labels).any(axis=0))

    def grades(self, row: int) -> Ints:
        """(N,) number of labels that each item shares with the query in this row."""
        if self.same:
            return self.relevant(row).astype(np.int64)
        return np.asarray(ONES[self.database & self.query[row][:, None]].sum(axis=0), dtype=np.int64)


@dataclass(frozen=True)
class Neighbours(Relevance):
    """Relevant items given as lists of rows, not by labels; made by :func:`neighbours`.

    The label rows are empty, so that loops over labels find nothing, and what counts pairs adds the listed items.

    Attributes:
        rows: (Q, k) int64 rows of the database, each once; -1 stands for no item.
    """

    rows: NDArray[np.int64]

    def __getitem__(self, queries: slice) -> Neighbours:
        return replace(self, query=self.query[queries], rows=self.rows[queries])

    def among(self, items: slice) -> Neighbours:
        """The listed items of all queries that are among some database items, by their places in them."""
        start, stop, _ = items.indices(self.items)
        inside = (self.rows >= start) & (self.rows < stop)
        rows = np.where(inside, self.rows - start, -1)
        return replace(self, database=self.database[:, items], rows=rows)

    def relevant(self, row: int) -> NDArray[np.bool_]:
        """(N,) whether each item is in the list of the query in this row."""
        found = np.zeros(self.items, bool)
        listed = self.rows[row]
        found[listed[listed >= 0]] = True
        return found


@dataclass(frozen=True)
class Graded(Neighbours):
    """Relevant items given as lists of rows with their grades; made by :func:`graded`.

    Attributes:
        levels: (Q, k) int64 grade, at least 1, of each listed item.
    """

    levels: NDArray[np.int64]

    def __getitem__(self, queries: slice) -> Graded:
        return replace(self, query=self.query[queries], rows=self.rows[queries], levels=self.levels[queries])

    def grades(self, row: int) -> Ints:
        """(N,) the grade of each item, 0 for one that is not in the list of the query in this row."""
        found = np.zeros(self.items, np.int64)
        listed = self.rows[row] >= 0
        found[self.rows[row][listed]] = self.levels[row][listed]
        return found


def graded(grades: NDArray[np.int64], highest: int) -> Graded:
    """Prepare grades (Q, N), from 0 to ``highest``, of all items for counting; items of grade 1 or more are relevant.

    >>> graded(np.array([[2, 0, 1], [0, 0, 0]]), 2).grades(0)
    array([2, 0, 1])
    """
    longest = max(1, int((grades > 0).sum(axis=1).max()))
    rows, levels = (np.full((len(grades), longest), value, np.int64) for value in (-1, 0))
    for q, row in enumerate(grades):
        listed = np.flatnonzero(row)
        rows[q, : len(listed)], levels[q, : len(listed)] = listed, row[listed]
    none = np.zeros((0, grades.shape[1]), np.uint8)
    return Graded(np.zeros((len(grades), 0), np.uint8), none, False, highest, rows, levels)


def neighbours(rows: Any, items: int) -> Neighbours:
    """Prepare lists of relevant items for counting.

    Args:
        rows: (Q, k) integers, the rows of the database that are relevant to each query, each once.
        items: Number N of database items.

    Returns:
        The prepared lists.

    Raises:
        ValueError: If the rows have another form, are not those of a database of N items, or occur twice in a list.

    >>> neighbours([[2, 0]], 4).relevant(0)
    array([ True, False,  True, False])
    """
    listed = np.asarray(rows)
    if listed.ndim != 2 or listed.dtype.kind not in "iu" or listed.size == 0:
        raise ValueError(f"lists of neighbours must be integers (Q, k), not {listed.dtype} {listed.shape}")
    if listed.min() < 0 or listed.max() >= items:
        raise ValueError(f"lists of neighbours hold rows from {listed.min()} to {listed.max()}, but there are {items}")
    ordered = np.sort(listed, axis=1)
    if (ordered[:, 1:] == ordered[:, :-1]).any():
        raise ValueError("a list of neighbours holds a row twice; list each once")
    none = np.zeros((0, items), np.uint8)
    return Neighbours(np.zeros((len(listed), 0), np.uint8), none, False, 1, listed.astype(np.int64))


def relevance(query_labels: Any, database_labels: Any, *, multi_hot: bool = False) -> Relevance:
    """Prepare the labels of queries and database items for counting.

    The grade of a pair is the number of labels it shares (1 for equal classes); a pair of grade 1 or more is relevant.

    Args:
        query_labels: Classes (Q,) or (Q, 1), integer, or multi-hot labels (Q, C) of zeros and ones.
        database_labels: Classes (N,) or (N, 1), or multi-hot labels (N, C), in the same form.
        multi_hot: Whether one column of zeros and ones says which items have a single label. Otherwise it is refused,
            since it can be two classes as well, unless its type is bool.

    Returns:
        The prepared labels.

    Raises:
        ValueError: If the labels have another form; the message names the side.

    >>> relevance([0, 1], [1, 1, 0]).relevant(0)
    array([False, False,  True])
    >>> relevance([[1, 1]], [[1, 1], [0, 1], [0, 0]]).grades(0)
    array([2, 1, 0])
    """
    query, database, _ = read_labels(query_labels, database_labels, multi_hot=multi_hot)
    if query.ndim != database.ndim:
        raise ValueError(
            f"query_labels {query.shape} and database_labels {database.shape} must both be integers (N,) "
            "or both multi-hot (N, C)"
        )
    for name, labels in (("query_labels", query), ("database_labels", database)):
        if labels.size == 0:
            raise ValueError(f"{name} is empty, {labels.shape}; at least one labeled item is needed")
    if query.ndim == 1:
        return _by_class(_integers(query, "query_labels"), _integers(database, "database_labels"))
    if query.ndim != 2 or query.shape[1] != database.shape[1]:
        raise ValueError(
            f"query_labels {query.shape} and database_labels {database.shape} must have the same classes: "
            "both (N, C) with one C"
        )
    classes = [_single_classes(query), _single_classes(database)]
    if classes[0] is not None and classes[1] is not None:
        return _by_class(classes[0], classes[1])
    (q, most_q), (d, most_d) = _multi_hot(query, "query_labels"), _multi_hot(database, "database_labels")
    return Relevance(q, np.ascontiguousarray(d.T), same=False, highest=max(1, min(most_q, most_d)))


def _integers(labels: NDArray[Any], name: str) -> Ints:
    if labels.dtype.kind not in "iu":
        raise ValueError(f"{name} must be integers (N,) or multi-hot (N, C), not {labels.dtype} {labels.shape}")
    return np.ascontiguousarray(labels, dtype=np.int64)


def _by_class(query: Ints, database: Ints) -> Relevance:
    """Keep only the bytes in which some classes differ: one of eight, for up to 256 classes."""
    if min(query.min(), database.min()) >= 0 and max(query.max(), database.max()) < 256:
        return Relevance(query.astype(np.uint8)[:, None], database.astype(np.uint8)[None], same=True, highest=1)
    q, d = (side.view(np.uint8).reshape(-1, 8) for side in (query, database))
    used = (q != d[0]).any(axis=0) | (d != d[0]).any(axis=0)
    return Relevance(q[:, used], np.ascontiguousarray(d[:, used].T), same=True, highest=1)


def _single_classes(labels: NDArray[Any]) -> Ints | None:
    """(N,) classes if each row has a single one and zeros elsewhere, otherwise None."""
    if labels.dtype.kind not in "biuf":
        return None
    classes = np.empty(len(labels), np.int64)
    columns = labels.shape[1]
    for rows in _row_blocks(labels):
        part = labels[rows]
        if not np.count_nonzero(part == 1) == np.count_nonzero(part != 0) == len(part):
            return None  # other values, or not as many ones as rows
        # a row with a one in column c sums to C + c, and one without to 0; einsum waits for no threads of a BLAS
        total = np.einsum("ij,j->i", part, np.arange(columns, 2 * columns, dtype=np.float32))
        if total.min() < columns:
            return None
        classes[rows] = total - columns
    return classes


def _multi_hot(labels: NDArray[Any], name: str) -> tuple[NDArray[np.uint8], int]:
    """(N, ceil(C / 8)) bytes, and the largest number of labels of a row."""
    if labels.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be multi-hot numbers (N, C), not {labels.dtype}")
    packed = np.empty((len(labels), -(-labels.shape[1] // 8)), np.uint8)
    most = 0
    for rows in _row_blocks(labels):
        part = labels[rows]
        ones = part == 1
        if np.count_nonzero(ones) != np.count_nonzero(part != 0):
            values = few_values([labels])
            cure = f"; for these two values, pass `labels > {values[0]}`" if values is not None else ""
            raise ValueError(
                f"{name} holds values other than 0 and 1; a multi-hot row is 1 at each label of the item and 0 "
                f"elsewhere{cure}"
            )
        packed[rows] = pack(ones)
        most = max(most, int(ones.sum(axis=1).max()))
    return packed, most


def _row_blocks(labels: NDArray[Any]) -> list[slice]:
    rows = max(1, CELLS // labels.shape[1])
    return [slice(start, start + rows) for start in range(0, len(labels), rows)]
