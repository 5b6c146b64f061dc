"""Ways to search packed codes: the exact scan of the core, and two indexes of faiss (the extra ``search``).

``exact`` counts, and is the fastest exact way. ``faiss-flat`` is as exact; it serves where the core's loops are not
compiled. ``faiss-ivf`` cuts the codes into lists and looks into some of them: it finds nearly all neighbours, faster.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.hamming import counting
from hashzoo.index import Hamming, Index, Scan

Name = Literal["exact", "faiss-flat", "faiss-ivf"]
NAMES: tuple[Name, ...] = get_args(Name)

#: Codes from which an index gets lists, unless an engine is named: a scan of so many takes about 4 ms a query.
LISTED = 10_000_000

RECALL = 0.995  # of the ``NEIGHBOURS`` nearest that lists must find for codes they hold; new ones find a bit less
NEIGHBOURS = 100
ASKED = 200  # codes of the index itself that measure it
LEARNED = 64  # codes a list that the lists are learned from

Bytes = NDArray[np.uint8]
Found = tuple[NDArray[np.int64], NDArray[np.int32]]


def faiss() -> Any:
    """The library. EnvironmentFailure naming the extra where it is not installed."""
    try:
        import faiss as library
    except ImportError:
        raise EnvironmentFailure("this needs faiss; pip install 'hashzoo[search]'") from None
    return library


def hamming(index: Index) -> str:
    """The name of the one code by whose plain Hamming distance an index ranks; empty where it ranks otherwise."""
    plain = isinstance(index, Scan) and isinstance(index.distance, Hamming) and not index.distance.weight
    return index.distance.name if plain and isinstance(index, Scan) and isinstance(index.distance, Hamming) else ""


def chosen(asked: str, items: int, code: str) -> Name:
    """The engine of an index of so many items that ranks by one code ("" for one that ranks otherwise).

    ``auto``: ``faiss-ivf`` from ``LISTED`` items, ``faiss-flat`` where nothing is compiled, else ``exact``, as where
    faiss is not installed. UsageError where another engine cannot serve the index, EnvironmentFailure where it needs
    faiss.

    >>> chosen("auto", 1000, "code"), chosen("auto", LISTED, "")
    ('exact', 'exact')
    """
    if asked != "auto" and asked not in NAMES:
        raise UsageError(f"no engine {asked!r}; there are: auto, {', '.join(NAMES)}")
    if asked != "auto":
        if asked != "exact" and not code:
            raise UsageError(f"{asked} ranks by the Hamming distance of one code, and this method does not; use exact")
        if asked != "exact":
            faiss()  # what is not there is said before anything is encoded
        return next(name for name in NAMES if name == asked)
    wanted: Name = "faiss-ivf" if items >= LISTED else "exact" if counting.compiled() else "faiss-flat"
    if wanted != "exact" and code:
        try:
            faiss()
        except EnvironmentFailure:
            return "exact"
        return wanted
    return "exact"


class Flat:
    """faiss ``IndexBinaryFlat``: every query against every code."""

    def __init__(self, codes: Bytes) -> None:
        self._index = faiss().IndexBinaryFlat(8 * codes.shape[1])
        self._index.add(codes)

    def search(self, query: Bytes, k: int) -> Found:
        """Rows and distances (Q, k) of the nearest; equal distances by row, but for which of the last are in it."""
        return _asked(self._index, query, k)


@dataclass(frozen=True)
class Lists:
    """Codes (N, B) cut into lists: the code ``centers`` (L, B) of each, the list ``of`` (N,) each code, and ``probes``,
    how many lists a query looks into to find ``RECALL`` of its ``NEIGHBOURS`` nearest.
    """

    centers: Bytes
    of: NDArray[np.int32]
    probes: int


class Listed:
    """faiss ``IndexBinaryIVF``: a query looks into the lists whose centers are nearest."""

    def __init__(self, codes: Bytes, lists: Lists) -> None:
        library = faiss()
        self._centers = library.IndexBinaryFlat(8 * codes.shape[1])  # held: the index only points to it
        self._centers.add(lists.centers)
        self._index = library.IndexBinaryIVF(self._centers, 8 * codes.shape[1], len(lists.centers))
        self._index.is_trained = True
        of = lists.of.astype(np.int64)
        self._index.add_core(len(codes), library.swig_ptr(codes), None, library.swig_ptr(of))
        self.probes = lists.probes

    def search(self, query: Bytes, k: int) -> Found:
        """Rows and distances (Q, k) of what is found; row -1 where the lists hold fewer."""
        self._index.nprobe = self.probes
        return _asked(self._index, query, k)


def _asked(index: Any, query: Bytes, k: int) -> Found:
    """What an index of faiss finds, asked by as many threads as the core's loops have.

    Its own threads wait for each other by spinning: where a core is busy, two of them are 20 times slower than one.
    """

    def part(some: Bytes) -> Found:
        faiss().omp_set_num_threads(1)  # of this thread alone
        return _by_row(*index.search(np.ascontiguousarray(some), k))

    threads = max(1, min(counting.get_threads(), len(query)))
    with ThreadPoolExecutor(threads) as pool:
        rows, distances = zip(*pool.map(part, np.array_split(query, threads)), strict=True)
    return np.concatenate(rows), np.concatenate(distances)


def _by_row(distances: NDArray[np.int32], rows: NDArray[np.int64]) -> Found:
    """Nearest first, equal ones by row, and last what was not found.

    >>> _by_row(np.array([[1, 0, 1, 9]], np.int32), np.array([[7, 3, 5, -1]]))[0].tolist()
    [[3, 5, 7, -1]]
    """
    near = np.where(rows < 0, np.iinfo(np.int32).max, distances)
    order = np.lexsort((rows, near), axis=1)
    return np.take_along_axis(rows, order, 1), np.take_along_axis(distances, order, 1)


def lists(codes: Bytes, count: int | None = None, seed: int = 0) -> Lists:
    """Cut codes (N, B) into lists, sqrt(N) unless told how many, and measure how many of them must be looked into.

    The measure is the recall of codes drawn from these. UsageError for fewer codes than one list is learned from.
    """
    if len(codes) < LEARNED:
        raise UsageError(f"faiss-ivf needs {LEARNED} images or more, not {len(codes)}; use exact")
    library, rng = faiss(), np.random.default_rng(seed)
    most = count or max(1, round(len(codes) ** 0.5))
    some = codes[np.sort(rng.choice(len(codes), min(len(codes), LEARNED * most), replace=False))]
    most = min(most, max(1, len(some) // 39))  # faiss warns below
    centers = library.IndexBinaryFlat(8 * codes.shape[1])
    index = library.IndexBinaryIVF(centers, 8 * codes.shape[1], most)
    index.cp.seed = seed + 1
    index.train(some)
    own = library.vector_to_array(centers.xb).reshape(-1, codes.shape[1])
    of = counted(own, codes)
    asked = codes[np.sort(rng.choice(len(codes), min(len(codes), ASKED), replace=False))]
    k = min(NEIGHBOURS, len(codes))
    _, exact = counting.nearest(asked, codes, k)
    cut, probes = Listed(codes, Lists(own, of, 1)), 1
    while True:
        cut.probes = probes
        rows, distances = cut.search(asked, k)
        # ties stand in for each other: what counts is how many are as near as the exact k-th
        found = ((rows >= 0) & (distances <= exact[:, -1:])).mean()
        if found >= RECALL or probes >= len(own):
            return Lists(own, of, probes)
        probes = min(len(own), probes + max(1, probes // 2))


def counted(centers: Bytes, codes: Bytes) -> NDArray[np.int32]:
    """(N,) the nearest center of each code, the first of equally near ones."""
    step = 1 << 16
    parts = [counting.nearest(codes[start : start + step], centers, 1)[0][:, 0] for start in range(0, len(codes), step)]
    return np.concatenate(parts).astype(np.int32)
