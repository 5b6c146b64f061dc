"""Compiled loops over pairs of a query and a database item; counting.py and distances.py have the same in NumPy.

Codes are uint64 words, labels are bytes. The database is word-major, (W, N), so that one word of successive
items is contiguous and LLVM compiles loops over a tile to vector instructions if the processor has them.

A pair is encoded as one number, ``distance + (bits + 1) * relevant``, in a tile that stays in the
first-level cache, and the tile is then counted. Short codes fit a byte, and reading two bytes as one number
counts two pairs with one increment (a joint histogram, summed to its two marginals once per query).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba import prange
from numba.extending import intrinsic

F = TypeVar("F", bound=Callable[..., Any])

TILE = 4096  # pairs; a multiple of 8
JOINT = 65536 + 64  # entries of a joint histogram; the extra 64 keep its copies in different cache sets
SMALL = 1024  # pairs of a tile in a search: the smaller the tile, the more often it can be skipped
GROUP = 16  # queries that use such a tile in turn
COPIES = 4  # of a histogram, used in turn, because an increment waits for the previous one of the same entry
LOW = np.uint64(0xFFFF)


def _compiled(function: F) -> F:
    return cast(F, numba.njit(cache=True, nogil=True)(function))


def _parallel(function: F) -> F:
    return cast(F, numba.njit(cache=True, nogil=True, parallel=True)(function))


def _intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
    return cast(Callable[..., Any], intrinsic(function))


@_intrinsic
def _popcount(_typing: Any, _word: Any) -> Any:
    """The number of ones of a uint64, as a processor instruction."""

    def build(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return numba.types.uint64(numba.types.uint64), build


@_compiled
def _write_distances(tile: Any, query: Any, database: Any, start: int, stop: int) -> None:
    column = database[0, start:stop]
    word = query[0]
    for j in range(column.size):
        tile[j] = _popcount(word ^ column[j])
    for w in range(1, query.size):
        column = database[w, start:stop]
        word = query[w]
        for j in range(column.size):
            tile[j] += _popcount(word ^ column[j])


@_compiled
def _write_relevance(hit: Any, same: bool, query: Any, labels: Any, start: int, stop: int) -> None:
    hit[:] = np.uint8(same)
    for w in range(query.size):
        byte = query[w]
        column = labels[w, start:stop]
        if same:
            for j in range(column.size):
                hit[j] &= np.uint8(column[j] == byte)
        elif byte != 0:  # a query has few labels, so most bytes of a long label row are zero
            for j in range(column.size):
                hit[j] |= column[j] & byte


@_compiled
def _write_grades(hit: Any, same: bool, highest: int, query: Any, labels: Any, start: int, stop: int) -> None:
    hit[:] = np.uint32(same)
    for w in range(query.size):
        byte = query[w]
        column = labels[w, start:stop]
        if same:
            for j in range(column.size):
                hit[j] &= np.uint32(column[j] == byte)
        elif byte != 0:
            for j in range(column.size):
                hit[j] += _popcount(np.uint64(column[j] & byte))
    for j in range(stop - start):
        hit[j] = min(hit[j], np.uint32(highest))


@_parallel
def count_short(queries: Any, database: Any, labels: Any, blocks: int, counts: Any) -> None:
    """Add to ``counts`` (Q, 2 * (bits + 1)) int64, other items before relevant ones; up to 127 bits and 2^32 items.

    ``labels`` are those of a Relevance: (same, query, database).
    """
    same, query_labels, item_labels = labels
    Q, N, V = queries.shape[0], database.shape[1], counts.shape[1]
    for block in prange(blocks):
        tile = np.zeros(TILE, np.uint8)
        hit = np.zeros(TILE, np.uint8)
        fours = tile.view(np.uint64)  # four numbers of two pairs each
        joint = np.zeros((COPIES, JOINT), np.uint32)
        margin = np.zeros(V, np.uint32)
        step = np.uint8(V // 2)
        for q in range(block * Q // blocks, (block + 1) * Q // blocks):
            padding = 0
            for start in range(0, N, TILE):
                stop = min(start + TILE, N)
                _write_distances(tile, queries[q], database, start, stop)
                _write_relevance(hit, same, query_labels[q], item_labels, start, stop)
                for j in range(stop - start):
                    tile[j] += step if hit[j] != 0 else np.uint8(0)
                full = (stop - start + 7) // 8
                padding += full * 8 - (stop - start)
                tile[stop - start : full * 8] = 0
                for i in range(full):
                    four = fours[i]
                    joint[0, four & LOW] += np.uint32(1)
                    joint[1, (four >> np.uint64(16)) & LOW] += np.uint32(1)
                    joint[2, (four >> np.uint64(32)) & LOW] += np.uint32(1)
                    joint[3, four >> np.uint64(48)] += np.uint32(1)
            row = counts[q]
            margin[:] = 0
            for high in range(V):
                line = joint[:, high * 256 : high * 256 + V]
                total = np.uint32(0)
                for low in range(V):
                    here = line[0, low] + line[1, low] + line[2, low] + line[3, low]
                    margin[low] += here
                    total += here
                line[:] = 0
                row[high] += total
            for low in range(V):
                row[low] += margin[low]
            row[0] -= padding


@_parallel
def count_wide(queries: Any, database: Any, labels: Any, highest: int, blocks: int, counts: Any) -> None:
    """Add to ``counts`` (Q, (highest + 1) * (bits + 1)) int64 by grade, at most ``highest``."""
    same, query_labels, item_labels = labels
    Q, N, V = queries.shape[0], database.shape[1], counts.shape[1]
    step = np.uint32(V // (highest + 1))
    for block in prange(blocks):
        tile = np.zeros(TILE, np.uint32)
        hit = np.zeros(TILE, np.uint32)
        single = np.zeros((COPIES, V), np.int64)
        for q in range(block * Q // blocks, (block + 1) * Q // blocks):
            single[:] = 0
            for start in range(0, N, TILE):
                stop = min(start + TILE, N)
                _write_distances(tile, queries[q], database, start, stop)
                _write_grades(hit, same, highest, query_labels[q], item_labels, start, stop)
                for j in range(stop - start):
                    tile[j] += step * hit[j]
                for j in range(stop - start):
                    single[j % COPIES, tile[j]] += 1
            for copy in range(COPIES):
                counts[q] += single[copy]


@_parallel
def count_integers(distances: Any, labels: Any, highest: int, blocks: int, counts: Any) -> Any:
    """Add pairs to ``counts`` (Q, (highest + 1) * groups) int64 by grade and given distance (Q, N).

    Returns False if a distance is not in 0..groups - 1; such pairs are not counted.
    """
    same, query_labels, item_labels = labels
    Q, N, V = distances.shape[0], distances.shape[1], counts.shape[1]
    groups = V // (highest + 1)
    invalid = np.zeros(blocks, np.int64)
    for block in prange(blocks):
        hit = np.zeros(TILE, np.uint32)
        single = np.zeros((COPIES, V), np.int64)
        step = np.uint32(groups)
        for q in range(block * Q // blocks, (block + 1) * Q // blocks):
            single[:] = 0
            for start in range(0, N, TILE):
                stop = min(start + TILE, N)
                tile = distances[q, start:stop]
                low, high = tile[0], tile[0]
                for j in range(tile.size):
                    low, high = min(low, tile[j]), max(high, tile[j])
                if low < 0 or high >= groups:
                    invalid[block] += 1
                    continue
                _write_grades(hit, same, highest, query_labels[q], item_labels, start, stop)
                for j in range(tile.size):
                    hit[j] = np.uint32(tile[j]) + step * hit[j]
                for j in range(tile.size):
                    single[j % COPIES, hit[j]] += 1
            for copy in range(COPIES):
                counts[q] += single[copy]
    return invalid.sum() == 0


@_parallel
def add_planes(queries: Any, masks: Any, database: Any, distances: Any) -> None:
    """Add to ``distances`` (Q, N) int32: 2^p times the differing bits in plane p of ``masks`` (Q, P, W), for all p."""
    for q in prange(queries.shape[0]):
        for start in range(0, distances.shape[1], TILE):
            tile = distances[q, start : start + TILE]
            for w in range(queries.shape[1]):
                word = queries[q, w]
                column = database[w, start : start + TILE]
                for plane in range(masks.shape[1]):
                    mask = masks[q, plane, w]
                    if mask != 0:
                        for j in range(tile.size):
                            tile[j] += np.int32(_popcount(mask & (word ^ column[j])) << np.uint64(plane))


@_compiled
def _radius(count: Any, k: int, bound: int) -> int:
    """The smallest distance within which k items have been counted; ``bound`` if there are fewer than k so far."""
    within = 0
    for distance in range(bound):
        within += count[distance]
        if within >= k:
            return distance
    return bound


@_parallel
def nearest(queries: Any, database: Any, blocks: int, rows: Any, distances: Any) -> None:
    """Fill ``rows`` (Q, k) int64 and ``distances`` (Q, k) int32 by (distance, row): count, then place.

    ``GROUP`` queries use a tile in turn while it is in the cache. No distance is kept, only the smallest of each tile:
    a tile with no item within the bound is not counted and is skipped in the second pass.
    """
    Q, N, k = queries.shape[0], database.shape[1], rows.shape[1]
    tiles, farthest = (N + SMALL - 1) // SMALL, 64 * database.shape[0]
    for block in prange(blocks):
        tile_distances = np.zeros(SMALL, np.uint32)
        count = np.zeros((GROUP, farthest + 1), np.int64)
        bound = np.zeros(GROUP, np.int64)  # no farther item is among the k nearest
        least = np.zeros((GROUP, tiles), np.uint32)
        end = (block + 1) * Q // blocks
        for low in range(block * Q // blocks, end, GROUP):
            high = min(low + GROUP, end)
            count[:] = 0
            bound[:] = farthest
            for tile in range(tiles):
                start, stop = tile * SMALL, min(tile * SMALL + SMALL, N)
                for q in range(low, high):
                    g = q - low
                    _write_distances(tile_distances, queries[q], database, start, stop)
                    near = np.uint32(farthest)
                    for j in range(stop - start):
                        near = min(near, tile_distances[j])
                    least[g, tile] = near
                    if near <= bound[g]:
                        for j in range(stop - start):
                            if tile_distances[j] <= bound[g]:
                                count[g, tile_distances[j]] += 1
                        bound[g] = _radius(count[g], k, bound[g])
            for q in range(low, high):
                g = q - low
                place, before = count[g], 0  # of the next item at each distance
                for distance in range(bound[g] + 1):
                    before, place[distance] = before + place[distance], before
                for tile in range(tiles):
                    if least[g, tile] > bound[g]:
                        continue
                    start, stop = tile * SMALL, min(tile * SMALL + SMALL, N)
                    _write_distances(tile_distances, queries[q], database, start, stop)
                    for j in range(stop - start):
                        distance = tile_distances[j]
                        if distance <= bound[g] and place[distance] < k:
                            rows[q, place[distance]] = start + j
                            distances[q, place[distance]] = distance
                            place[distance] += 1


def prepare() -> None:
    """Load what numba reads before its first call; starts no thread, so that the process can be forked afterwards."""
    _radius(np.zeros(1, np.int64), 1, 0)


def set_threads(count: int) -> int:
    """See :func:`hashzoo.hamming.packing.set_threads`."""
    numba.set_num_threads(min(count, vars(numba.config)["NUMBA_NUM_THREADS"]))
    return threads()


def threads() -> int:
    """The number of threads that the next call from this thread will use."""
    return int(numba.get_num_threads())
