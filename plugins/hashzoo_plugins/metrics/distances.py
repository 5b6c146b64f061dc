"""How far codes of a class lie from each other, and from those of other classes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hashzoo import CodeSample, hamming_counts, pack, relevance

QUERIES = 1024  # counted in one go


def intra(coded: CodeSample) -> float:
    """Hamming distance / K of a query and an item that share a label, mean over all such pairs: 0 to 1, small is dense.

    NaN where no pair shares a label.

    >>> query, items = np.array([[0, 0]], bool), np.array([[0, 1], [0, 0], [1, 1]], bool)
    >>> intra(CodeSample(query, items, np.array([[1, 0]]), np.array([[1, 0], [1, 0], [0, 1]])))
    0.25
    """
    return _mean(_pairs(coded)[0])


def inter(coded: CodeSample) -> float:
    """Hamming distance / K of a query and an item that share no label, mean over all such pairs; .5 for random codes.

    NaN where every pair shares a label.

    >>> query, items = np.array([[0, 0]], bool), np.array([[0, 1], [0, 0], [1, 1]], bool)
    >>> inter(CodeSample(query, items, np.array([[1, 0]]), np.array([[1, 0], [1, 0], [0, 1]])))
    1.0
    """
    return _mean(_pairs(coded)[1])


def _mean(pairs: NDArray[np.int64]) -> float:
    total, bits = int(pairs.sum()), len(pairs) - 1
    return float(pairs @ np.arange(bits + 1) / (total * bits)) if total else math.nan


def _pairs(coded: CodeSample) -> NDArray[np.int64]:
    """(2, K + 1) pairs at each distance that share a label, and that do not."""
    bits, database = coded.database.shape[1], pack(coded.database)
    labels = relevance(coded.query_labels, coded.database_labels)
    total = np.zeros((2, bits + 1), np.int64)
    for start in range(0, len(coded.query), QUERIES):
        rows = slice(start, start + QUERIES)
        counts = hamming_counts(pack(coded.query[rows]), database, bits, labels[rows])
        total += np.stack([counts.relevant, counts.items - counts.relevant]).sum(1)
    return total
