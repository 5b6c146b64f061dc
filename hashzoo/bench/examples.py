"""What a cell keeps for people to look at: what a few queries find, and how often each bit is 1."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashzoo.index import Index
from hashzoo.types import Codes

QUERIES = 24  # whose neighbours are kept
NEIGHBOURS = 10  # of each
HELD = 1 << 28  # bits, a byte each, that are looked at


def spread(total: int, count: int = QUERIES) -> NDArray[np.int32]:
    """(count,) rows of a split, or all of fewer, evenly spread, so that classes that stand in order all have a part.

    >>> spread(7, 3).tolist(), spread(2, 3).tolist()
    ([0, 3, 6], [0, 1])
    """
    return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(np.int32))


def samples(index: Index, query: Codes, items: int) -> dict[str, NDArray[Any]]:
    """Arrays of a database of N ``items`` and the codes of its queries.

    ``gallery_queries`` (G,) are rows of the queries, of the composed ones where they are composed; ``gallery_rows``
    (G, 10) the rows of the database that are nearest, equal distances in its order; ``gallery_distances`` (G, 10) how
    far they are. ``bit_means`` (K,) is the share of ones of each stored bit, where the index stores bits.
    """
    rows = spread(len(next(iter(query.values()))))
    found = index.search({name: values[rows.astype(np.int64)] for name, values in query.items()}, NEIGHBOURS)
    kept: dict[str, NDArray[Any]] = {
        "gallery_queries": rows,
        "gallery_rows": found.rows.cpu().numpy().astype(np.int32),
        "gallery_distances": found.distances.cpu().numpy().astype(np.float32),
    }
    if index.stored_bits() * items <= HELD and (bits := index.bits()) is not None:
        kept["bit_means"] = bits.mean(0, dtype=np.float64).astype(np.float32)
    return kept
