"""What can be wrong with vectors: numbers that are not finite, lengths, constant columns, copies."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hashzoo.data.vectors import Vectors
from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.types import ProgressCallback, SourceFinding, Split, Splits

EXAMPLES = 3  # of a finding
AT_ONCE = 1024  # pairs of vectors compared at a time
LENGTHS = (0.99, 1.01)  # of vectors of length 1, which float16 and int8 round


def scan_vectors(
    vectors: Vectors, progress: ProgressCallback | None = None
) -> tuple[NDArray[np.uint8], dict[int, str]]:
    """Read all vectors: a digest of the usable ones (1, 32), and the reason for each unusable one, by row."""
    total, bad = hashlib.sha256(f"{vectors.dim} {vectors.unit}".encode()), dict[int, str]()
    for start, rows in vectors.blocks():
        values = vectors.matrix.read(rows)
        usable = np.ones(len(rows), bool)
        for place, reason in _unusable(values, vectors.unit).items():
            usable[place] = False
            bad[start + place] = f"{vectors.name(start + place)} {reason}"
        total.update(np.ascontiguousarray(values[usable]).data)
        if progress:
            progress(start + len(rows), len(vectors))
    return np.frombuffer(total.digest(), np.uint8)[None], bad


def _unusable(values: NDArray[Any], unit: bool) -> dict[int, str]:
    """Why rows (n, D) cannot be used."""
    with np.errstate(over="ignore"):
        finite = np.isfinite(values.astype(np.float32, copy=False))
    found = {}
    for place in np.flatnonzero(~finite.all(axis=1)).tolist():
        column = int(np.flatnonzero(~finite[place])[0])
        found[place] = f"has {values[place, column]} in column {column}"
    if unit:
        zero = np.flatnonzero(~values.any(axis=1)).tolist()
        found |= dict.fromkeys(zero, "is zero, which has no direction for the metric cosine")
    return found


def checked_numbers(vectors: Vectors, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """(n, D) float32 numbers of some rows of the matrix of ``vectors``.

    Raises:
        EnvironmentFailure: If a row cannot be used; the message names its file.
    """
    values = vectors.numbers(rows)
    if _unusable(values, vectors.unit):
        place, reason = next(iter(_unusable(vectors.matrix.read(rows), vectors.unit).items()))
        raise EnvironmentFailure(f"row {int(rows[place])} of {vectors.matrix.name} {reason}; correct or remove the row")
    return np.asarray(values)


class _Pass:
    """What one pass over some vectors gives: keys of equal rows, ranges of columns and of lengths."""

    def __init__(self, dim: int) -> None:
        self.keys: list[NDArray[np.uint64]] = []
        self.least, self.most = np.full(dim, np.inf, np.float32), np.full(dim, -np.inf, np.float32)
        self.lengths: list[NDArray[np.float64]] = []
        self.bad: dict[int, str] = {}

    def add(self, vectors: Vectors, start: int, values: NDArray[Any]) -> None:
        """Add a block of rows."""
        for place, reason in _unusable(values, vectors.unit).items():
            self.bad[start + place] = f"{vectors.name(start + place)} {reason}"
        with np.errstate(over="ignore", invalid="ignore"):
            single = values.astype(np.float32) + np.float32(0)  # so that -0.0 equals 0.0
            self.keys.append(row_keys(single))
            self.lengths.append(np.sqrt(np.einsum("nd,nd->n", single, single, dtype=np.float64)))
        self.least = np.minimum(self.least, single.min(axis=0))
        self.most = np.maximum(self.most, single.max(axis=0))


def row_keys(values: NDArray[np.float32]) -> NDArray[np.uint64]:
    """A 64-bit number for each row (N, D); equal rows have the same."""
    factors = np.random.default_rng(0).integers(1, 2**63, values.shape[1:], dtype=np.uint64) | np.uint64(1)
    words = np.ascontiguousarray(values).view(np.uint32)
    keys = np.zeros(len(values), np.uint64)
    for column in range(values.shape[1]):
        keys += words[:, column].astype(np.uint64) * factors[column]
        keys ^= keys >> np.uint64(29)
    return keys


def vector_findings(data: Splits, progress: ProgressCallback = lambda *_: None) -> list[SourceFinding]:
    """The findings of vectors; empty for images. Each vector of database and queries is read once."""
    if not isinstance(data.database.images, Vectors):
        return []
    passes: dict[str, _Pass] = {}
    parts = {"database": data.database, "query": data.query}
    if not torch.isin(data.train.ids, data.database.ids).all():
        parts["train"] = data.train
    total, done = sum(map(len, parts.values())), 0
    for name, part in parts.items():
        passes[name] = _Pass(part.images.dim)
        for start, rows in part.images.blocks():
            passes[name].add(part.images, start, part.images.matrix.read(rows))
            done += len(rows)
            progress(done, total)
    whole = passes["database"]
    constant = np.flatnonzero(whole.least == whole.most).tolist()
    bad = [reason for one in passes.values() for reason in one.bad.values()]
    columns = tuple(f"column {column}" for column in constant[:EXAMPLES])
    return [
        SourceFinding("unusable-vectors", len(bad), total, tuple(bad[:EXAMPLES])),
        _lengths(data, [length for one in passes.values() for length in one.lengths]),
        SourceFinding("constant-columns", len(constant), data.database.images.dim, columns),
        _repeats(data.database, np.concatenate(whole.keys)),
        *(
            _copies(f"query-copy-in-{name}", data.query, np.concatenate(passes["query"].keys), parts[name], one)
            for name, one in passes.items()
            if name != "query"
        ),
    ]


def require_different(name: str, data: Splits, findings: Sequence[SourceFinding]) -> None:
    """Raise UsageError if all vectors of the database are equal, so that every order of them is a tie."""
    if any(one.name == "constant-columns" and one.count == one.total for one in findings):
        file = data.database.images.matrix.name
        raise UsageError(f"{name}: all {len(data.database):,} rows of the database in {file} are equal; check the file")


def _lengths(data: Splits, parts: Sequence[NDArray[np.float64]]) -> SourceFinding:
    """Vectors whose length is not 1."""
    lengths = np.concatenate(parts)
    other = (lengths < LENGTHS[0]) | (lengths > LENGTHS[1])
    finite = lengths[np.isfinite(lengths)]
    low, high = (finite.min(), finite.max()) if len(finite) else (np.nan, np.nan)
    done = {
        "cosine": "each is divided by its length, which the metric cosine does not see",
        "ip": "codes of directions do not see the lengths, which the inner product depends on",
        "l2": "codes of directions do not see the lengths, which l2 depends on",
    }[data.metric]
    return SourceFinding("lengths", int(other.sum()), len(lengths), (), f"from {low:.4g} to {high:.4g}; {done}")


def _equal(first: Vectors, rows: NDArray[np.int64], second: Vectors, others: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which vectors are equal, and not only their keys."""
    found = np.zeros(len(rows), bool)
    for start in range(0, len(rows), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        one, two = first.matrix.read(first.rows[rows[part]]), second.matrix.read(second.rows[others[part]])
        found[part] = (one.astype(np.float32) == two.astype(np.float32)).all(axis=1)
    return found


def _pairs(name: str, first: Split, rows: NDArray[np.int64], second: Split, others: NDArray[np.int64]) -> SourceFinding:
    """The finding of rows of one part that are equal to rows of another."""
    equal = _equal(first.images, rows, second.images, others)
    some = sorted(zip(rows[equal].tolist(), others[equal].tolist(), strict=True))[:EXAMPLES]
    examples = tuple(f"{first.images.name(row)} = {second.images.name(other)}" for row, other in some)
    return SourceFinding(name, int(equal.sum()), len(first), examples)


def _repeats(part: Split, keys: NDArray[np.uint64]) -> SourceFinding:
    """Rows that are equal to an earlier one."""
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=keys[order[:1]] ^ np.uint64(1)) != 0)
    firsts = np.repeat(order[starts], np.diff(starts, append=len(keys)))  # the first row with the key of each
    later = order != firsts
    return _pairs("duplicate-rows", part, order[later], part, firsts[later])


def _copies(name: str, query: Split, queries: NDArray[np.uint64], part: Split, read: _Pass) -> SourceFinding:
    """Queries that are equal to a row of another part."""
    keys = np.concatenate(read.keys)
    order = np.argsort(keys, kind="stable")
    found = order[np.searchsorted(keys[order], queries).clip(max=len(keys) - 1)]
    rows = np.flatnonzero(keys[found] == queries)
    return _pairs(name, query, rows, part, found[rows])
