"""The exact nearest neighbors of queries among vectors: the truth of ``recall@k``.

Shapes: Q queries, N vectors in the database, D dimensions, k neighbors.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import filelock
import numpy as np
import torch
from numpy.typing import NDArray

from hashzoo.data.vectors import Vectors
from hashzoo.errors import EnvironmentFailure
from hashzoo.hamming.relevance import Neighbours, neighbours
from hashzoo.storage import npz
from hashzoo.storage.cache import cache_folder
from hashzoo.storage.files import canonical_json, replace_bytes, sha256
from hashzoo.storage.schema import CACHE, refuse_newer
from hashzoo.types import ProgressCallback

SCHEMA = 1  # of a cached file
QUERIES = 1024  # queries compared with the database at a time
SPARE = 16  # candidates beyond k + 1 that are compared again in float64
TOGETHER = 1 << 22  # numbers of candidates in float64 at a time
DIGITS = 12  # of a score, relative to the largest one of its query: scores that agree so far are tied


@dataclass(frozen=True)
class Truth:
    """The exact nearest neighbors of queries, nearest first.

    Attributes:
        rows: (Q, k) int64 rows of the database.
        scores: (Q, k + 1) float64, how near the neighbors and the next item are; higher is nearer.
        items: Number N of vectors in the database.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float64]
    items: int

    def nearest(self, k: int) -> Neighbours:
        """The first k neighbors as lists of relevant items."""
        return neighbours(self.rows[:, :k], self.items)

    def margin(self, k: int) -> NDArray[np.float64]:
        """(Q,) how much nearer the k-th neighbor is than the next item; 0 for a tie."""
        return self.scores[:, k - 1] - self.scores[:, k]


def exact_neighbours(
    query: Vectors,
    database: Vectors,
    k: int,
    metric: str,
    device: torch.device | str = "cpu",
    progress: ProgressCallback = lambda *_: None,
) -> Truth:
    """Find the exact k nearest vectors of each query.

    Products of blocks in float32 select candidates, which are compared again in float64. If the rounding of float32
    can have excluded a neighbor of a query, that query is compared with all vectors in float64. At equal scores, the
    smaller row comes first. Memory does not depend on N.

    Args:
        query: Q vectors.
        database: N vectors, more than k.
        k: Neighbors per query.
        metric: ``"cosine"``, ``"ip"`` or ``"l2"``; for ``"cosine"``, both sides are divided by their lengths.
        device: Where products are computed.
        progress: Receives the number of compared vectors.

    Raises:
        ValueError: If there are not more than k vectors in the database.
    """
    if not 0 < k < len(database):
        raise ValueError(f"{k} neighbours need a database of more than {k} vectors, not {len(database)}")
    if metric == "cosine":
        query, database = (Vectors(side.matrix, side.rows, unit=True) for side in (query, database))
    search = _Search(database, k, metric, torch.device(device))
    parts, total = [], len(database) * -(-len(query) // QUERIES)
    for start in range(0, len(query), QUERIES):
        asked = query.numbers(query.rows[start : start + QUERIES], np.float64)
        done = start // QUERIES * len(database)
        parts.append(search.find(asked, lambda count, before=done: progress(before + count, total)))  # type: ignore[misc]
    found, scores = (np.concatenate(side) for side in zip(*parts, strict=True))
    return Truth(found, scores, len(database))


class _Search:
    """The search for the neighbors of some queries."""

    def __init__(self, database: Vectors, k: int, metric: str, device: torch.device) -> None:
        self.database, self.k, self.metric, self.device = database, k, metric, device
        self.count = min(len(database), k + 1 + max(k, SPARE))  # candidates

    def find(
        self, query: NDArray[np.float64], progress: Callable[[int], None]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Neighbors (Q, k) and scores (Q, k + 1) of queries (Q, D)."""
        rows, last, longest = self._candidates(query, np.float32, progress)
        places, scores = self._compared(query, rows)
        # rounding of an inner product: D products and sums, each by half a unit in the last place (Higham, section 3.1)
        unit = np.finfo(np.float32).eps / 2
        lengths = np.sqrt(np.square(query).sum(axis=1))
        error = (query.shape[1] + 8) * unit * longest * (lengths if self.metric != "l2" else 2 * lengths + longest)
        if self.metric == "l2":
            last = last - lengths**2
        unsure = np.flatnonzero(scores[:, self.k] <= last + 2 * error) if self.count < len(self.database) else ()
        if len(unsure):
            again, _, _ = self._candidates(query[unsure], np.float64, progress)
            places[unsure], scores[unsure] = self._compared(query[unsure], again)
        return places[:, : self.k], scores

    def _candidates(
        self, query: NDArray[np.float64], dtype: Any, progress: Callable[[int], None]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], float]:
        """The ``count`` best items (Q, count) by scores in a type, the score (Q,) of the last, the longest vector.

        The scores order items as the metric does: inner products or, for l2, these without the squares of the query in
        float32, and distances in float64.
        """
        asked = torch.from_numpy(query.astype(dtype)).to(self.device)
        best = torch.full((len(asked), self.count), -torch.inf, dtype=asked.dtype, device=self.device)
        rows = torch.zeros(best.shape, dtype=torch.int64, device=self.device)
        longest = 0.0
        for start, block in self.database.blocks():
            x = torch.from_numpy(self.database.numbers(block, dtype)).to(self.device)
            squares = x.square().sum(1)
            longest = max(longest, float(squares.max().sqrt()))
            if self.metric != "l2":
                scores = asked @ x.T
            elif dtype == np.float32:
                scores = 2 * (asked @ x.T) - squares
            else:  # without the difference of large squares
                scores = -torch.cdist(asked, x, compute_mode="donot_use_mm_for_euclid_dist")
            found, at = scores.topk(min(self.count, len(block)), dim=1)
            both, places = torch.cat([best, found], dim=1), torch.cat([rows, at + start], dim=1)
            best, at = both.topk(self.count, dim=1)
            rows = places.gather(1, at)
            progress(start + len(block))
        return rows.cpu().numpy(), best[:, -1].double().cpu().numpy(), longest

    def _compared(
        self, query: NDArray[np.float64], rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The best k + 1 of the candidates (Q, count) and their scores, in float64."""
        found = np.empty((len(query), self.k + 1), np.int64)
        scores = np.empty(found.shape)
        step = max(1, TOGETHER // (rows.shape[1] * query.shape[1]))
        for start in range(0, len(query), step):
            part = slice(start, start + step)
            mine = np.sort(rows[part], axis=1)
            flat = self.database.numbers(self.database.rows[mine.ravel()], np.float64)
            x = flat.reshape(*mine.shape, -1)
            if self.metric == "l2":
                exact = -np.square(x - query[part, None]).sum(axis=2)
            else:
                exact = np.einsum("qcd,qd->qc", x, query[part])
            largest = np.abs(exact).max(axis=1, keepdims=True)
            rounded = np.round(exact / np.where(largest > 0, largest, 1), DIGITS)
            order = np.argsort(-rounded, axis=1, kind="stable")[:, : self.k + 1]
            found[part] = np.take_along_axis(mine, order, axis=1)
            scores[part] = np.take_along_axis(rounded, order, axis=1) * largest
        return found, scores


def cached_truth(about: dict[str, Any], k: int, compute: Callable[[], Truth]) -> Truth:
    """The truth from the cache folder if it has it; otherwise it is computed and stored.

    Processes that need the same truth wait for the one that computes it. A failure to write it is ignored.

    Args:
        about: What identifies it: digests of both sides, the metric.
        k: Neighbors per query.
        compute: Computes it.
    """
    name = sha256(canonical_json({**about, "k": k}).encode())[:32]
    file = cache_folder() / "truth" / f"{name}.npz"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        held = filelock.FileLock(f"{file}.lock").acquire()
    except OSError:  # a folder that cannot be written
        return compute()
    with held:  # releases the lock at its end
        found = _read(file, k)
        if found is None:
            found = compute()
            buffer = io.BytesIO()
            np.savez(buffer, schema=SCHEMA, rows=found.rows, scores=found.scores, items=found.items)
            with suppress(OSError, EnvironmentFailure):
                replace_bytes(file, buffer.getvalue())
    return found


def _read(file: Any, k: int) -> Truth | None:
    """A cached truth; None if it is missing or damaged. Raises NewerSchemaError."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        stored = npz.read(file)
        refuse_newer(file, int(stored["schema"]), SCHEMA, CACHE)
        rows, scores, items = stored["rows"], stored["scores"], int(stored["items"])
        fits = rows.dtype == np.int64 and scores.dtype == np.float64 and rows.shape[1:] == (k,)
        if fits and scores.shape == (len(rows), k + 1) and 0 <= rows.min() <= rows.max() < items:
            return Truth(rows, scores, items)
    return None
