"""Which engine searches the codes of an index, and how."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.hamming.packing import pack
from hashzoo.index import Index
from hashzoo.retrieval import engines
from hashzoo.retrieval.code_file import StoredCodes
from hashzoo.types import Codes, Ranking


def searcher(
    stored: StoredCodes, index: Index, engine: str, listed: str
) -> tuple[str, Callable[[Codes, int], Ranking]]:
    """The name of the engine, and a function that finds the k nearest rows of encoded queries.

    Args:
        stored: The codes.
        index: The empty index that ranks.
        engine: A name as for :func:`hashzoo.open_index`.
        listed: The name of the code that stored lists are of.

    Raises:
        UsageError: If the engine cannot search the index.
    """
    code = engines.hamming_code(index)
    # an index that holds lists is searched through them by default
    lists_fit = "ivf.of" in stored.arrays and code == listed
    name = engines.select_engine(engine, engines.IVF_MIN_CODES if lists_fit else 0, code)
    if name == "faiss-ivf" and code != listed:
        raise UsageError(f"faiss-ivf searches the lists of the code {listed!r}, not {code!r}; use exact")
    if name == "exact" and code and len(stored):
        return name, partial(_search_packed, engines.ExactEngine(stored.packed_code(code).rows), code)
    if name == "exact":
        for part in stored.chunks():
            index.add(part)
        return name, index.search
    if name == "faiss-flat":
        return name, partial(_search_packed, engines.FlatEngine(stored.packed_code(code).rows), code)
    lists = engines.IVFEngine(stored.packed_code(code).rows, stored_lists(stored, code))
    return name, partial(_search_packed, lists, code)


def _search_packed(engine: engines.Engine, code: str, queries: Codes, k: int) -> Ranking:
    rows, distances = engine.search(pack(queries[code].numpy()), k)
    return Ranking(torch.from_numpy(rows), torch.from_numpy(distances))


def stored_lists(stored: StoredCodes, code: str) -> engines.InvertedLists:
    """The lists of an index that was built with ``faiss-ivf``.

    Raises:
        UsageError: If the index has no lists.
        EnvironmentFailure: If the lists do not match the codes.
    """
    if "ivf.of" not in stored.arrays:
        raise UsageError("this index has no lists; build it with --engine faiss-ivf, or search it with --engine exact")
    centers, assignments, probes = (stored.arrays[f"ivf.{name}"] for name in ("centers", "of", "probes"))
    width = stored.packed_code(code).rows.shape[1]
    if (
        (centers.dtype, centers.shape[1:]) != (np.uint8, (width,))
        or (assignments.dtype, assignments.shape) != (np.int32, (len(stored),))
        or not ((assignments >= 0) & (assignments < len(centers))).all()
        or not 1 <= int(probes) <= len(centers)
    ):  # faiss does not check them and would access memory out of bounds
        raise EnvironmentFailure("the lists of this index do not match its codes; build it again")
    return engines.InvertedLists(centers, assignments, int(probes))
