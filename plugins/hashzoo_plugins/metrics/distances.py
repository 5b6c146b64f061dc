"""Mean Hamming distances within classes and between classes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hashzoo import CodeSample, hamming_counts, pack, relevance

CHUNK = 1024  # queries counted at once


def intra(sample: CodeSample) -> float:
    """Hamming distance / K of a query and an item that share a label, mean over these pairs: 0 to 1, small is compact.

    NaN if no pair shares a label.

    >>> query, items = np.array([[0, 0]], bool), np.array([[0, 1], [0, 0], [1, 1]], bool)
    >>> intra(CodeSample(query, items, np.array([[1, 0]]), np.array([[1, 0], [1, 0], [0, 1]])))
    0.25
    """
    return _mean_distance(_pairs_by_distance(sample)[0])


def inter(sample: CodeSample) -> float:
    """Hamming distance / K of a query and an item that share no label, mean over these pairs; .5 for random codes.

    NaN if every pair shares a label.

    >>> query, items = np.array([[0, 0]], bool), np.array([[0, 1], [0, 0], [1, 1]], bool)
    >>> inter(CodeSample(query, items, np.array([[1, 0]]), np.array([[1, 0], [1, 0], [0, 1]])))
    1.0
    """
    return _mean_distance(_pairs_by_distance(sample)[1])


def _mean_distance(pairs: NDArray[np.int64]) -> float:
    total, bits = int(pairs.sum()), len(pairs) - 1
    return float(pairs @ np.arange(bits + 1) / (total * bits)) if total else math.nan


def _pairs_by_distance(sample: CodeSample) -> NDArray[np.int64]:
    """(2, K + 1) the number of pairs at each distance: those that share a label, and those that do not."""
    bits, database = sample.database.shape[1], pack(sample.database)
    labels = relevance(sample.query_labels, sample.database_labels, multi_hot=True)
    total = np.zeros((2, bits + 1), np.int64)
    for start in range(0, len(sample.query), CHUNK):
        rows = slice(start, start + CHUNK)
        counts = hamming_counts(pack(sample.query[rows]), database, bits, labels[rows])
        total += np.stack([counts.relevant, counts.items - counts.relevant]).sum(1)
    return total
