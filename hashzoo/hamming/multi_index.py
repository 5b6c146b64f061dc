"""Exact search of codes by tables of their parts: multi-index hashing (Norouzi, Punjani and Fleet, CVPR 2012).

A code of K bits is cut into m parts of up to 16 bits. If it differs from a query in at most r bits, then in some part i
(from 0) it differs in at most floor((r - i) / m) bits: otherwise all parts together would differ in more than r. So
only the codes are compared whose part is one of the few near that of the query, which a table lists.

Shapes: N codes, B bytes of a code, Q queries.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations, pairwise
from math import comb

import numpy as np
from numpy.typing import NDArray

from hashzoo.hamming.packing import Ints, check_codes
from hashzoo.hamming.scanning import within

PART_BITS = 16
SCAN_SHARE = 160  # a scan of all codes takes less time than to compare more than N / SCAN_SHARE codes at random places
LARGE = 1_000_000  # codes from which tables are made
PATIENCE = 64  # scans that take about as long as to make tables

Bytes = NDArray[np.uint8]


class MultiIndex:
    """Tables of the parts of codes. They take 4 bytes for each code and part, and as long to make as sorting them.

    Args:
        codes: (N, B) codes as :func:`hashzoo.pack` returns them, fewer than 2^31.
    """

    def __init__(self, codes: Bytes) -> None:
        self._codes = codes
        self._cuts = _cuts(8 * codes.shape[1])
        self._rows, self._starts = list[NDArray[np.int32]](), list[Ints]()
        for start, stop in self._cuts:
            part = _part(codes, start, stop)
            self._rows.append(np.argsort(part, kind="stable").astype(np.int32))
            counts = np.bincount(part, minlength=1 << (stop - start))
            self._starts.append(np.concatenate([[0], np.cumsum(counts)]))

    def within(self, queries: Bytes, radius: int) -> list[tuple[Ints, Ints]]:
        """Find all codes within a Hamming radius of each query.

        Args:
            queries: (Q, B) packed codes.
            radius: Largest distance.

        Returns:
            For each query, the rows and the distances of n codes, nearest first; equal distances are ordered by row.

        >>> index = MultiIndex(np.array([[0], [3], [1], [2]], np.uint8))
        >>> [array.tolist() for array in index.within(np.array([[3]], np.uint8), 1)[0]]
        [[1, 2, 3], [0, 1, 1]]
        """
        check_codes(queries, self._codes)
        return [self._within(query, radius) for query in queries]

    def _within(self, query: Bytes, radius: int) -> tuple[Ints, Ints]:
        candidates = self._candidates(query, radius) if radius >= 0 else np.empty(0, np.int64)
        if candidates is None:
            return within(query[None], self._codes, radius=radius)[0]
        return self._compare(query, candidates, radius)

    def _candidates(self, query: Bytes, radius: int) -> Ints | None:
        """The rows of codes near the query in some part, in order; None if they are too many."""
        found, left = [np.empty(0, np.int32)], len(self._codes) // SCAN_SHARE
        for number, (start, stop) in enumerate(self._cuts):
            width, differing = stop - start, _differing(radius, number, len(self._cuts))
            if sum(comb(width, ones) for ones in range(differing + 1)) > left:
                return None
            keys = int(_part(query[None], start, stop)[0]) ^ _masks(width, min(differing, width))
            firsts, ends = self._starts[number][keys], self._starts[number][keys + 1]
            lengths = ends - firsts
            left -= int(lengths.sum())
            if left < 0:
                return None
            places = np.arange(lengths.sum()) + np.repeat(ends - np.cumsum(lengths), lengths)
            found.append(self._rows[number][places])
        return np.unique(np.concatenate(found)).astype(np.int64)

    def _compare(self, query: Bytes, candidates: Ints, radius: int) -> tuple[Ints, Ints]:
        """The candidates within the radius and their distances, nearest first."""
        ((places, distances),) = within(query[None], np.ascontiguousarray(self._codes[candidates]), radius=radius)
        return candidates[places], distances


class RadiusSearch:
    """Exact search within radii: by scans, and by tables as soon as these take less time.

    Args:
        codes: (N, B) packed codes; N may be 0.
    """

    def __init__(self, codes: Bytes) -> None:
        self._codes, self._asked = codes, 0
        self._tables: MultiIndex | None = None

    def within(self, queries: Bytes, k: int | None = None, radius: int | None = None) -> list[tuple[Ints, Ints]]:
        """Find the codes within a radius, or the k nearest of them, as :func:`hashzoo.hamming.scanning.within`."""
        if (
            radius is None
            or not len(queries)
            or len(self._codes) < LARGE
            or not few_candidates(8 * self._codes.shape[1], radius)
        ):
            return within(queries, self._codes, k, radius)
        self._asked += len(queries)
        if self._tables is None and self._asked > PATIENCE:
            self._tables = MultiIndex(self._codes)
        if self._tables is None:
            return within(queries, self._codes, k, radius)
        return [(rows[:k], distances[:k]) for rows, distances in self._tables.within(queries, radius)]


def few_candidates(bits: int, radius: int) -> bool:
    """Whether tables leave few codes to compare, if all parts are equally frequent.

    >>> [radius for radius in range(64) if few_candidates(64, radius)][-1]
    9
    """
    cuts, share = _cuts(bits), 0.0
    for number, (start, stop) in enumerate(cuts):
        near = range(_differing(radius, number, len(cuts)) + 1)
        share += sum(comb(stop - start, ones) for ones in near) / (1 << (stop - start))
    return share < 1 / SCAN_SHARE


def _differing(radius: int, number: int, parts: int) -> int:
    """The most bits in which a part can differ; -1 if codes within the radius are found by other parts."""
    return (radius - number + parts) // parts - 1


def _cuts(bits: int) -> list[tuple[int, int]]:
    """The first bit of each part and the one after it, as even as possible.

    >>> _cuts(24), _cuts(72)[-1]
    ([(0, 12), (12, 24)], (57, 72))
    """
    count = -(-bits // PART_BITS)
    return list(pairwise(bits * number // count for number in range(count + 1)))


def _part(codes: Bytes, start: int, stop: int) -> NDArray[np.uint16]:
    """Some bits of codes as numbers, (N,); bit 0 is the highest of the first byte.

    >>> _part(np.array([[0b00000101, 0b11000000]], np.uint8), 5, 10).tolist()
    [23]
    """
    first, last = start // 8, -(-stop // 8)
    value = np.zeros(len(codes), np.uint32)
    for column in range(first, last):
        value = value << np.uint32(8) | codes[:, column]
    return (value >> np.uint32(8 * last - stop) & np.uint32((1 << (stop - start)) - 1)).astype(np.uint16)


@lru_cache
def _masks(width: int, most: int) -> Ints:
    """All numbers of ``width`` bits with at most ``most`` ones.

    >>> _masks(3, 1).tolist()
    [0, 1, 2, 4]
    """
    chosen = (places for ones in range(most + 1) for places in combinations(range(width), ones))
    return np.array([sum(1 << place for place in places) for places in chosen], np.int64)
