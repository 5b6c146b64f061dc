"""Search engines for packed codes: the exact scan of hashzoo, and two indexes of faiss (extra ``search``).

- ``exact`` counts differing bits in compiled loops and is the fastest exact engine.
- ``faiss-flat`` is exact too. It is the default if the loops of hashzoo are not compiled.
- ``faiss-ivf`` divides the codes into lists and searches some of them. It is faster and finds nearly all neighbors.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from hashzoo.distance import Hamming
from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.hamming.distances import nearest
from hashzoo.hamming.packing import compiled, get_threads, words
from hashzoo.index import Index, Scan

EngineName = Literal["exact", "faiss-flat", "faiss-ivf"]
ENGINE_NAMES: tuple[EngineName, ...] = get_args(EngineName)

#: Number of codes from which ``auto`` chooses lists: an exact scan of that many takes about 4 ms per query.
IVF_MIN_CODES = 10_000_000

TARGET_RECALL = 0.995  # of the NEIGHBOURS nearest, for queries from the index itself; other queries find slightly less
NEIGHBOURS = 100
RECALL_QUERIES = 200
CODES_PER_LIST = 64  # codes for each list that its center is computed from
FAISS_CODES_PER_LIST = 39  # faiss warns about fewer

Bytes = NDArray[np.uint8]
#: Rows and distances, both (Q, k).
Neighbours = tuple[NDArray[np.int64], NDArray[np.int32]]


def import_faiss() -> Any:
    """The faiss module. Raises EnvironmentFailure that names the extra if it is not installed."""
    try:
        import faiss
    except ImportError:
        raise EnvironmentFailure("this needs faiss; pip install 'hashzoo[search]'") from None
    return faiss


def hamming_code(index: Index) -> str:
    """The name of the code by whose whole Hamming distance an index ranks; empty if it ranks in another way."""
    distance = index.distance if isinstance(index, Scan) else None
    return distance.name if isinstance(distance, Hamming) and not distance.mask and not distance.prefix else ""


def select_engine(name: str, items: int, code: str) -> EngineName:
    """Choose the engine for an index.

    >>> select_engine("auto", 1000, "code"), select_engine("auto", IVF_MIN_CODES, "")
    ('exact', 'exact')

    Args:
        name: A name in ``ENGINE_NAMES``, or ``auto``: ``faiss-ivf`` from ``IVF_MIN_CODES`` items, ``faiss-flat`` if the
            loops of hashzoo are not compiled, else ``exact``. Without faiss, ``auto`` is ``exact``.
        items: Number of images in the index.
        code: The code by whose Hamming distance the index ranks; see :func:`hamming_code`.

    Raises:
        UsageError: If the engine does not exist, or cannot search the index.
        EnvironmentFailure: If the engine needs faiss, which is not installed.
    """
    if name != "auto" and name not in ENGINE_NAMES:
        raise UsageError(f"no engine {name!r}; there are: auto, {', '.join(ENGINE_NAMES)}")
    if name != "auto":
        if name != "exact" and not code:
            raise UsageError(f"{name} ranks by the Hamming distance of one code, and this method does not; use exact")
        if name != "exact":
            import_faiss()  # fails before anything is encoded
        return next(known for known in ENGINE_NAMES if known == name)
    default: EngineName = "faiss-ivf" if items >= IVF_MIN_CODES else "exact" if compiled() else "faiss-flat"
    if default != "exact" and code:
        try:
            import_faiss()
        except EnvironmentFailure:
            return "exact"
        return default
    return "exact"


class Engine(Protocol):
    """Finds nearest codes."""

    def search(self, queries: Bytes, k: int) -> Neighbours:
        """The k nearest codes of each query (Q, B)."""


class ExactEngine:
    """The compiled loops of hashzoo: compares every query with every code (N, B)."""

    def __init__(self, codes: Bytes) -> None:
        self._codes = _whole_words(codes)  # once, and not in every search

    def search(self, queries: Bytes, k: int) -> Neighbours:
        """The k nearest codes of each query (Q, B), equal distances ordered by row."""
        return nearest(_whole_words(queries), self._codes, k)


def _whole_words(codes: Bytes) -> Bytes:
    """Codes with zero bytes up to a multiple of 64 bits.

    >>> _whole_words(np.array([[1, 2]], np.uint8)).tolist()
    [[1, 2, 0, 0, 0, 0, 0, 0]]
    """
    return codes if codes.shape[1] % 8 == 0 else words(codes).view(np.uint8)


class FlatEngine:
    """faiss ``IndexBinaryFlat``: compares every query with every code (N, B)."""

    def __init__(self, codes: Bytes) -> None:
        self._index = import_faiss().IndexBinaryFlat(8 * codes.shape[1])
        self._index.add(codes)

    def search(self, queries: Bytes, k: int) -> Neighbours:
        """The k nearest codes of each query (Q, B), equal distances ordered by row.

        Among codes at the largest distance returned, faiss decides which are included.
        """
        return _search_in_threads(self._index, queries, k)


@dataclass(frozen=True)
class InvertedLists:
    """Codes divided into L lists.

    Attributes:
        centers: The center of each list, packed (L, B).
        assignments: The list of each code, (N,).
        probes: Number of lists that a query searches to reach ``TARGET_RECALL``.
    """

    centers: Bytes
    assignments: NDArray[np.int32]
    probes: int


class IVFEngine:
    """faiss ``IndexBinaryIVF``: a query searches the ``probes`` lists with the nearest centers."""

    def __init__(self, codes: Bytes, lists: InvertedLists) -> None:
        self._index = binary_ivf(codes, lists)
        self.probes = lists.probes

    def search(self, queries: Bytes, k: int) -> Neighbours:
        """The k nearest codes found for each query (Q, B); row -1 where the searched lists hold fewer."""
        self._index.nprobe = self.probes
        return _search_in_threads(self._index, queries, k)


def binary_ivf(codes: Bytes, lists: InvertedLists, start: int = 0) -> Any:
    """faiss ``IndexBinaryIVF`` of codes (N, B), whose ids count from ``start``."""
    library, codes = import_faiss(), np.ascontiguousarray(codes)
    centers = library.IndexBinaryFlat(8 * codes.shape[1])
    centers.add(lists.centers)
    index = library.IndexBinaryIVF(centers, 8 * codes.shape[1], len(lists.centers))
    index.referenced_objects = [centers]  # the index holds only a pointer to it
    index.is_trained, index.nprobe = True, lists.probes
    ids, assignments = np.arange(start, start + len(codes), dtype=np.int64), lists.assignments.astype(np.int64)
    index.add_core(len(codes), *map(library.swig_ptr, (codes, ids, assignments)))
    return index


def _search_in_threads(index: Any, queries: Bytes, k: int) -> Neighbours:
    """Search an index of faiss with as many threads as the loops of hashzoo use.

    The threads of faiss wait in busy loops: if a core is occupied, two of them are 20 times slower than one.
    """

    def search(part: Bytes) -> Neighbours:
        import_faiss().omp_set_num_threads(1)  # in the calling thread only
        return _sort_neighbours(*index.search(np.ascontiguousarray(part), k))

    threads = max(1, min(get_threads(), len(queries)))
    with ThreadPoolExecutor(threads) as pool:
        rows, distances = zip(*pool.map(search, np.array_split(queries, threads)), strict=True)
    return np.concatenate(rows), np.concatenate(distances)


def _sort_neighbours(distances: NDArray[np.int32], rows: NDArray[np.int64]) -> Neighbours:
    """Neighbors by distance, then by row, with missing ones (row -1) last.

    >>> _sort_neighbours(np.array([[1, 0, 1, 9]], np.int32), np.array([[7, 3, 5, -1]]))[0].tolist()
    [[3, 5, 7, -1]]
    """
    keys = np.where(rows < 0, np.iinfo(np.int32).max, distances)
    order = np.lexsort((rows, keys), axis=1)
    return np.take_along_axis(rows, order, 1), np.take_along_axis(distances, order, 1)


def build_lists(codes: Bytes, count: int | None = None, seed: int = 0, centers: Bytes | None = None) -> InvertedLists:
    """Divide codes into lists, and measure how many of them a query must search to reach ``TARGET_RECALL``.

    Args:
        codes: Packed codes (N, B).
        count: Number of lists; by default sqrt(N).
        seed: Seed of the sample that the centers are computed from, and of the queries that recall is measured with.
        centers: The center of each list; by default, they are computed.

    Returns:
        The lists.

    Raises:
        UsageError: If there are fewer than ``CODES_PER_LIST`` codes.
    """
    if len(codes) < CODES_PER_LIST:
        raise UsageError(f"faiss-ivf needs {CODES_PER_LIST} images or more, not {len(codes)}; use exact")
    rng = np.random.default_rng(seed)
    if centers is None:
        count = count or max(1, round(len(codes) ** 0.5))
        sample = codes[np.sort(rng.choice(len(codes), min(len(codes), CODES_PER_LIST * count), replace=False))]
        centers = train_centers(sample, count, seed)
    assignments = nearest_centers(centers, codes)
    queries = codes[np.sort(rng.choice(len(codes), min(len(codes), RECALL_QUERIES), replace=False))]
    k = min(NEIGHBOURS, len(codes))
    _, exact = nearest(queries, codes, k)
    engine, probes = IVFEngine(codes, InvertedLists(centers, assignments, 1)), 1
    while True:
        engine.probes = probes
        rows, distances = engine.search(queries, k)
        # any code as near as the exact k-th neighbor counts as found, since ties are interchangeable
        recall = ((rows >= 0) & (distances <= exact[:, -1:])).mean()
        if recall >= TARGET_RECALL or probes >= len(centers):
            return InvertedLists(centers, assignments, probes)
        probes = min(len(centers), probes + max(1, probes // 2))


def train_centers(sample: Bytes, count: int, seed: int = 0) -> Bytes:
    """Centers (L, B) of at most ``count`` lists, computed from a sample of codes (N, B)."""
    library, bits = import_faiss(), 8 * sample.shape[1]
    count = min(count, max(1, len(sample) // FAISS_CODES_PER_LIST))
    quantizer = library.IndexBinaryFlat(bits)
    index = library.IndexBinaryIVF(quantizer, bits, count)
    index.cp.seed = seed + 1
    index.train(sample)
    centers: Bytes = library.vector_to_array(quantizer.xb).reshape(-1, sample.shape[1])
    return centers


def nearest_centers(centers: Bytes, codes: Bytes) -> NDArray[np.int32]:
    """The nearest center of each code, (N,); the first of equally near ones."""
    step = 1 << 16
    parts = [nearest(codes[start : start + step], centers, 1)[0][:, 0] for start in range(0, len(codes), step)]
    return np.concatenate(parts).astype(np.int32)
