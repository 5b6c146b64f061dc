"""Examples stored with a cell for the report: the neighbors of a few queries, and the mean of each bit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashzoo.index import Index
from hashzoo.types import Codes

QUERIES = 24  # whose neighbors are stored
NEIGHBORS = 10  # of each query
HELD = 1 << 28  # bits, a byte each, that are unpacked at most


def spread(total: int, count: int = QUERIES) -> NDArray[np.int32]:
    """Rows (count,) of a split, evenly spread so that every class of a sorted split is represented.

    >>> spread(7, 3).tolist(), spread(2, 3).tolist()
    ([0, 3, 6], [0, 1])
    """
    return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(np.int32))


def samples(index: Index, query: Codes, items: int) -> dict[str, NDArray[Any]]:
    """Arrays for the report.

    Args:
        index: An index of N ``items``.
        query: Codes of the queries.
        items: N.

    Returns:
        ``gallery_queries`` (G,), rows of the queries; ``gallery_rows`` (G, 10), the nearest rows of the database, equal
        distances in its order; ``gallery_distances`` (G, 10), their distances. If the index stores bits,
        ``bit_means`` (K,), the share of ones of each bit.
    """
    rows = spread(len(next(iter(query.values()))))
    ranking = index.search({name: values[rows.astype(np.int64)] for name, values in query.items()}, NEIGHBORS)
    arrays: dict[str, NDArray[Any]] = {
        "gallery_queries": rows,
        "gallery_rows": ranking.rows.cpu().numpy().astype(np.int32),
        "gallery_distances": ranking.distances.cpu().numpy().astype(np.float32),
    }
    if index.stored_bits() * items <= HELD and (bits := index.bits()) is not None:
        arrays["bit_means"] = bits.mean(0, dtype=np.float64).astype(np.float32)
    return arrays
