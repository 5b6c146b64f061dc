"""Distances between codes of queries and items: Hamming, cosine, base classes for others, and rankings by them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashzoo.errors import UsageError
from hashzoo.hamming.counting import Counts, concatenate_counts, hamming_counts, integer_counts
from hashzoo.hamming.distances import masked_distances, nearest, nearest_by
from hashzoo.hamming.packing import pack
from hashzoo.hamming.relevance import Relevance
from hashzoo.types import Codes, Ranking

ITEMS = 1 << 16  # items converted to float64 at a time
PAIRS = 1 << 24  # largest number of distances held in memory at once: 64 queries against 262,144 items


class Distance(ABC):
    """Base class of a distance between named codes.

    A subclass sets ``stored`` and implements ``__call__``. For an integer distance between bit codes, extend
    :class:`PackedDistance` instead: an index can count it without sorting.

    Attributes:
        stored: Names of the codes that the distance reads from the database. An index keeps these codes and no others.

    Example:
        >>> class Manhattan(Distance):
        ...     stored = ("vector",)
        ...
        ...     def __call__(self, query: Codes, database: Codes) -> Tensor:
        ...         return torch.cdist(query["vector"], database["vector"], p=1)
    """

    stored: tuple[str, ...]

    @abstractmethod
    def __call__(self, query: Codes, database: Codes) -> Tensor:
        """Compute all distances between queries and database items.

        Args:
            query: Codes of Q queries, by name.
            database: Codes of N items, by name: those in ``stored``. Bits are bool (N, K).

        Returns:
            (Q, N) distances; smaller is nearer, and equal distances are ties.
        """


class PackedDistance(Distance):
    """Base class for integer distances between packed bit codes (eight bits per byte).

    The database stays packed, and items are counted in a histogram by distance, without sorting. A subclass implements
    :meth:`largest` and :meth:`packed`. The default :meth:`counts` computes blocks of (Q, N) distances and is therefore
    slower than :class:`Hamming`, whose compiled loops store none; override :meth:`counts` and :meth:`nearest` to do the
    same. Metrics within a Hamming radius, such as ``p@h2``, are undefined for other distances.

    Args:
        name: Name of the code to compare: bool (B, K), as ``encode`` returns it.

    Example:
        >>> from hashzoo import weighted_distances
        >>> class Weighted(PackedDistance):
        ...     def __init__(self, name: str, weights: NDArray[np.int64]) -> None:
        ...         super().__init__(name)
        ...         self.weights = weights  # (K,) non-negative integers
        ...
        ...     def largest(self, bits: int) -> int:
        ...         return int(self.weights.sum())
        ...
        ...     def packed(self, query: Codes, database: NDArray[np.uint8]) -> Tensor:
        ...         codes = pack(query[self.name].numpy())
        ...         return torch.from_numpy(weighted_distances(codes, self.weights, database))
        ...
        >>> database = np.array([[0b00000000], [0b01000000]], np.uint8)
        >>> Weighted("code", np.array([5, 2])).packed({"code": torch.tensor([[True, True]])}, database)
        tensor([[7, 5]], dtype=torch.int32)
    """

    def __init__(self, name: str) -> None:
        self.name, self.stored = name, (name,)

    @abstractmethod
    def largest(self, bits: int) -> int:
        """Return an upper bound on the distance between two codes.

        Args:
            bits: Code length K.

        Returns:
            The bound. Counting takes memory and time proportional to it; above 2^20, distances are sorted instead.
        """

    @abstractmethod
    def packed(self, query: Codes, database: NDArray[np.uint8]) -> Tensor:
        """Compute all distances between queries and packed database codes.

        Args:
            query: Codes of Q queries on the CPU, by name: ``query[self.name]`` is bool (Q, K), and other codes of the
                method can be read too.
            database: (N, ceil(K / 8)) packed codes, as :func:`hashzoo.pack` makes them: the first bit is the highest
                of the first byte, and the padding is zero.

        Returns:
            (Q, N) tensor of integers from 0 to ``largest(K)``.
        """

    def __call__(self, query: Codes, database: Codes) -> Tensor:
        """(Q, N) distances between unpacked bool codes (Q, K) and (N, K)."""
        return self.packed(on_cpu(query), pack(database[self.name].cpu().numpy()))

    def counts(
        self, query: Codes, database: NDArray[np.uint8], bits: int, relevance: Relevance, graded: bool = False
    ) -> Counts:
        """Count the items at each distance from each query.

        Args:
            query: Codes of Q queries on the CPU.
            database: (N, ceil(bits / 8)) packed codes.
            bits: Code length K.
            relevance: Labels of the Q queries and N items.
            graded: Whether to count by the number of shared labels too.

        Returns:
            Counts by group of equal distance, nearest first.
        """
        largest, parts, start = self.largest(bits), list[Counts](), 0
        for block in query_blocks(query, len(database)):
            distances = self._tensor(block, database).cpu().numpy()
            parts.append(integer_counts(distances, largest, relevance[start : start + len(distances)], graded))
            start += len(distances)
        return concatenate_counts(parts)

    def nearest(self, query: Codes, database: NDArray[np.uint8], k: int) -> Ranking:
        """Find the k nearest items of each query.

        Args:
            query: Codes of Q queries on the CPU.
            database: (N, ceil(K / 8)) packed codes.
            k: Items per query, from 1 to N.

        Returns:
            The ranking, nearest first; items at equal distance are in database order.
        """
        blocks = query_blocks(query, len(database))
        return concatenate_rankings([rank(self._tensor(block, database), k) for block in blocks])

    def _tensor(self, query: Codes, database: NDArray[np.uint8]) -> Tensor:
        distances: object = self.packed(query, database)
        if not isinstance(distances, Tensor):  # a plugin's
            name, kind = type(self).__name__, type(distances).__name__
            raise TypeError(f"{name}.packed returned {kind}; return a tensor, such as torch.from_numpy(distances)")
        return distances


class Hamming(PackedDistance):
    """The number of bits in which two codes differ.

    Args:
        name: Name of the code to compare: bool (B, K).
        mask: Name of a second code of each query, bool (Q, K). If given, only bits set in the query's mask count.
        beside: Names of further codes that an index stores but this distance does not compare, for searches by them.
        prefix: Number of bits at the start of the code that count; 0 counts all. A prefix of a nested code is a code
            itself, which :class:`hashzoo.Cascade` can search first without storing it a second time.

    >>> query, item = ({"code": torch.tensor([row])} for row in ([True, True, True], [True, False, False]))
    >>> Hamming("code")(query, item).item(), Hamming("code", prefix=2)(query, item).item()
    (2, 1)
    """

    def __init__(self, name: str, mask: str = "", beside: Sequence[str] = (), prefix: int = 0) -> None:
        super().__init__(name)
        self.mask, self.stored, self.prefix = mask, (name, *beside), prefix

    def largest(self, bits: int) -> int:
        """The code length, or that of the prefix."""
        return min(bits, self.prefix) if self.prefix else bits

    def _first(self, query: Codes, name: str) -> NDArray[np.uint8]:
        """(Q, B) packed bits of a code of the queries that count."""
        codes = query[name].detach().cpu()
        if codes.shape[1] < self.prefix:
            raise ValueError(f"{name!r} has {codes.shape[1]} bits and cannot be compared by its first {self.prefix}")
        return pack((codes[:, : self.prefix] if self.prefix else codes).numpy())

    def _stored(self, database: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(N, B) packed bits of the items that count; the padding is zero."""
        if not self.prefix:
            return database
        first = database[:, : -(-self.prefix // 8)].copy()
        first[:, -1] &= (0xFF << -self.prefix % 8) & 0xFF
        return first

    def packed(self, query: Codes, database: NDArray[np.uint8]) -> Tensor:
        """(Q, N) int32 distances to packed codes (N, ceil(K / 8))."""
        codes = self._first(query, self.name)
        ones = {self.name: torch.ones_like(query[self.name])}
        mask = self._first(query, self.mask) if self.mask else self._first(ones, self.name)
        return torch.from_numpy(masked_distances(codes, mask, self._stored(database)))

    def counts(
        self, query: Codes, database: NDArray[np.uint8], bits: int, relevance: Relevance, graded: bool = False
    ) -> Counts:
        """Count in compiled loops, without storing the distances; without a mask, group g holds distance g."""
        if self.mask:
            return super().counts(query, database, bits, relevance, graded)
        return hamming_counts(
            self._first(query, self.name), self._stored(database), self.largest(bits), relevance, graded
        )

    def nearest(self, query: Codes, database: NDArray[np.uint8], k: int) -> Ranking:
        """Search by compiled loops that hold no distances."""
        if self.mask:
            return super().nearest(query, database, k)
        rows, distances = nearest(self._first(query, self.name), self._stored(database), k)
        return Ranking(torch.from_numpy(rows), torch.from_numpy(distances))


class WeightedHamming(Distance):
    """A weighted sum, over several codes, of the share of bits in which two codes differ.

    Shares, so that codes of different lengths have the same influence at the same weight.

    Args:
        weights: Weight of each code, by name: a positive number.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.weights, self.stored = dict(weights), tuple(weights)

    def __call__(self, query: Codes, database: Codes) -> Tensor:
        """(Q, N) float32. Rounded from float64, so that items with equal codes are at equal distance."""
        parts = [
            weight * Hamming(name)(query, database).double() / query[name].shape[1]
            for name, weight in self.weights.items()
        ]
        return torch.stack(parts).sum(0).float()


def hamming_of(weights: Mapping[str, float]) -> Distance:
    """The distance for codes with weights: plain Hamming if only one weight is positive.

    Raises:
        UsageError: If a weight is negative or not finite, or if none is positive.

    >>> hamming_of({"code": 0, "fine": 2}).stored, hamming_of({"code": 1, "fine": 2}).stored
    (('fine',), ('code', 'fine'))
    """
    for name, weight in weights.items():
        if not 0 <= weight < math.inf:
            raise UsageError(f"the weight of {name} is {weight:g}; choose a finite number of at least 0")
    positive = {name: weight for name, weight in weights.items() if weight > 0}
    if not positive:
        raise UsageError(f"no weight is positive: {', '.join(weights) or 'no code'}; give a code a weight above 0")
    return Hamming(next(iter(positive))) if len(positive) == 1 else WeightedHamming(positive)


class Cosine(Distance):
    """One minus the cosine similarity of real vectors.

    Args:
        name: Name of the code to compare: real (B, D).
    """

    def __init__(self, name: str) -> None:
        self.name, self.stored = name, (name,)

    def __call__(self, query: Codes, database: Codes) -> Tensor:
        """(Q, N) float32. Rounded from float64, so that items with equal vectors are at equal distance."""
        q, d = (torch.nn.functional.normalize(codes[self.name].double(), dim=1) for codes in (query, database))
        return (1 - q @ d.T).float()


class SignedProduct(Distance):
    """Minus the inner product of a real query and the bits of an item as -1 and +1, in units of the query.

    Args:
        name: Name of the code to compare: real (Q, K) for queries, bool (N, K) for items.
    """

    def __init__(self, name: str) -> None:
        self.name, self.stored = name, (name,)

    def __call__(self, query: Codes, database: Codes) -> Tensor:
        """(Q, N) float32. Rounded from float64, so that items with equal bits are at equal distance."""
        asked, bits = query[self.name].double(), database[self.name]
        found = torch.empty(len(asked), len(bits))
        for start in range(0, len(bits), ITEMS):
            part = slice(start, start + ITEMS)
            found[:, part] = (asked.sum(1, keepdim=True) - 2 * (asked @ bits[part].double().T)).float()
        return found


def query_blocks(query: Codes, items: int) -> Iterator[Codes]:
    """Split queries into blocks of at most ``PAIRS`` distances to all items, with at least one query each.

    >>> [len(block["code"]) for block in query_blocks({"code": torch.zeros(5, 8)}, PAIRS // 2)]
    [2, 2, 1]
    """
    step = max(1, PAIRS // max(1, items))
    count = len(next(iter(query.values())))
    for start in range(0, max(1, count), step):
        yield {name: values[start : start + step] for name, values in query.items()}


def rank(distances: Tensor, k: int) -> Ranking:
    """The k nearest items by distances (Q, N), at equal distance in database order."""
    if distances.dtype == torch.bfloat16:  # NumPy has no such type
        distances = distances.float()
    rows, values = nearest_by(distances.cpu().numpy(), k)
    return Ranking(torch.from_numpy(rows), torch.from_numpy(values))


def concatenate_rankings(parts: Sequence[Ranking]) -> Ranking:
    """Join rankings of successive queries."""
    return Ranking(torch.cat([part.rows for part in parts]), torch.cat([part.distances for part in parts]))


def on_cpu(codes: Codes) -> Codes:
    """The same codes on the CPU, without gradient."""
    return {name: values.detach().cpu() for name, values in codes.items()}
