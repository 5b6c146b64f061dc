"""Indexes, scan and cascade: add codes, return the nearest items or counts by distance. No images and no files."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashzoo.distance import Distance, PackedDistance, concatenate_rankings, on_cpu, query_blocks, rank
from hashzoo.hamming.counting import Counts, concatenate_counts, distance_counts, integer_counts
from hashzoo.hamming.packing import pack, unpack
from hashzoo.hamming.relevance import Relevance
from hashzoo.hamming.values import bit_values, code_cure, few_values
from hashzoo.types import Codes, Ranking

ITEMS = 1 << 14  # items whose codes are unpacked at a time for distances that do not read packed bits


class Index(ABC):
    """Base class of an index: it stores the codes of a database, searches them and counts items by distance."""

    @abstractmethod
    def add(self, codes: Codes) -> None:
        """Append the codes of N images.

        Args:
            codes: Codes by name, each (N, ...), as ``Method.encode`` returns them.
        """

    @abstractmethod
    def search(self, query: Codes, k: int) -> Ranking:
        """Find the k nearest items of each query.

        Args:
            query: Codes of Q queries, by name.
            k: Items per query; at most the size of the database is returned.

        Returns:
            Rows and distances (Q, k), nearest first.
        """

    @abstractmethod
    def counts(self, query: Codes, relevance: Relevance, graded: bool = False) -> Counts:
        """Count the items, and the relevant ones, at each distance from each query.

        Args:
            query: Codes of Q queries, by name.
            relevance: Labels of the Q queries and the N items, from :func:`hashzoo.relevance`.
            graded: Whether to count by the number of shared labels too.

        Returns:
            Counts by group of equal distance, nearest first.
        """

    def bits(self) -> NDArray[np.bool_] | None:
        """(N, K) stored bits of each image, codes concatenated; None if the index stores no bits."""
        return None

    def reads(self) -> tuple[str, ...] | None:
        """Names of the codes that the index keeps; None if it can keep all of them."""
        return None

    @abstractmethod
    def nbytes(self) -> int:
        """Size of the stored codes in bytes."""

    @abstractmethod
    def stored_bits(self) -> int:
        """Bits stored per image, side information included."""


class PackedRows:
    """An array of packed codes that grows by doubling.

    >>> codes = PackedRows()
    >>> codes.add(np.ones((3, 2), np.uint8)), codes.add(np.zeros((1, 2), np.uint8)), codes.rows.shape
    (None, None, (4, 2))
    """

    def __init__(self) -> None:
        self._buffer = np.empty((0, 0), np.uint8)  # pages beyond the last row are never touched and take no memory
        self._count = 0

    @property
    def rows(self) -> NDArray[np.uint8]:
        """(N, B) all rows added so far."""
        return self._buffer[: self._count]

    def add(self, packed: NDArray[np.uint8]) -> None:
        """Append (n, B) rows."""
        count = self._count + len(packed)
        if count > len(self._buffer):
            buffer = np.empty((max(count, 2 * len(self._buffer)), packed.shape[1]), np.uint8)
            buffer[: self._count] = self.rows if self._count else 0
            self._buffer = buffer
        self._buffer[self._count : count] = packed
        self._count = count


def _not_bits(name: str, values: Tensor) -> str:
    """What to do with a code that is compared bit by bit and is not bool, by its values."""
    numbers = values.detach().cpu().numpy()
    if bit_values(few_values([numbers])):
        cure = "make it bool with values > 0"
    elif numbers.dtype.kind == "f" and numbers.size and numbers.min() < 0 < numbers.max():
        cure = "make it bool with bits(values)"
    else:
        cure = code_cure([numbers], "values")
    return f"{name!r} is compared bit by bit and encode gave {numbers.dtype}; {cure}"


class Scan(Index):
    """An exhaustive index: it compares every query with every item by one distance.

    Args:
        distance: The distance to rank by.
    """

    def __init__(self, distance: Distance) -> None:
        self.distance = distance
        self._rows = 0
        self._widths: dict[str, int] = {}
        self._packed: dict[str, PackedRows] = {}  # bits, eight to a byte
        self._plain: dict[str, list[Tensor]] = {}  # side information

    def add(self, codes: Codes) -> None:
        """Append the codes that the distance reads; bits are stored eight to a byte.

        Raises:
            ValueError: If a code is missing, or if a code that is compared bit by bit is not bool.
        """
        for name in self.distance.stored:
            if name not in codes:
                raise ValueError(f"the index reads {name!r} but encode gave only {', '.join(codes) or 'nothing'}")
            values = codes[name].detach().cpu()
            if isinstance(self.distance, PackedDistance) and values.dtype != torch.bool:
                raise ValueError(_not_bits(name, values))
            if values.dtype == torch.bool:
                self._widths[name] = values.shape[1]
                self._packed.setdefault(name, PackedRows()).add(pack(values.numpy()))
            else:
                self._plain.setdefault(name, []).append(values)
        self._rows += len(codes[self.distance.stored[0]])

    def packed(self, name: str) -> NDArray[np.uint8]:
        """(N, ceil(K / 8)) packed bits of a code."""
        return self._packed[name].rows

    def width(self, name: str) -> int:
        """K, the number of bits of a code."""
        return self._widths[name]

    def _distances(self, query: Codes) -> Tensor:
        """(Q, N) distances of some queries: ``ITEMS`` items at a time, so that few codes are unpacked at once."""
        for name, parts in self._plain.items():
            if len(parts) > 1:
                self._plain[name] = [torch.cat(parts)]
        found = []
        for start in range(0, max(1, self._rows), ITEMS):
            rows = slice(start, start + ITEMS)
            codes = {name: parts[0][rows] for name, parts in self._plain.items()}
            for name, width in self._widths.items():
                codes[name] = torch.from_numpy(unpack(self.packed(name)[rows], width))
            found.append(self.distance(query, codes))
        return found[0] if len(found) == 1 else torch.cat(found, dim=1)

    def search(self, query: Codes, k: int) -> Ranking:
        """The k nearest items of each query, nearest first; items at equal distance are in database order."""
        query, k, distance = on_cpu(query), min(k, self._rows), self.distance
        if isinstance(distance, PackedDistance):
            return distance.nearest(query, self.packed(distance.name), k)
        blocks = query_blocks(query, self._rows)
        return concatenate_rankings([rank(self._distances(block), k) for block in blocks])

    def counts(self, query: Codes, relevance: Relevance, graded: bool = False) -> Counts:
        """Counts by distance: a histogram for a :class:`PackedDistance`, a sort for any other distance."""
        query, distance = on_cpu(query), self.distance
        if isinstance(distance, PackedDistance):
            name = distance.name
            return distance.counts(query, self.packed(name), self._widths[name], relevance, graded)
        parts, start = list[Counts](), 0
        for block in query_blocks(query, self._rows):
            computed = self._distances(block)
            distances = (computed if computed.dtype == torch.float32 else computed.double()).numpy()
            parts.append(distance_counts(distances, relevance[start : start + len(distances)], graded))
            start += len(distances)
        return concatenate_counts(parts)

    def bits(self) -> NDArray[np.bool_] | None:
        """(N, K) all stored bits, in the order in which the distance names its codes."""
        unpacked = [unpack(self.packed(name), self._widths[name]) for name in self._packed]
        return np.concatenate(unpacked, axis=1) if unpacked else None

    def reads(self) -> tuple[str, ...]:
        """Names of the codes that the distance reads from the database."""
        return self.distance.stored

    def nbytes(self) -> int:
        """Size of packed codes and side information in bytes."""
        packed = sum(codes.rows.nbytes for codes in self._packed.values())
        return packed + sum(part.nbytes for parts in self._plain.values() for part in parts)

    def stored_bits(self) -> int:
        """Total code length, plus eight bits per byte of side information of an image."""
        plain = sum(8 * part[0].nbytes // max(1, len(part[0])) for part in self._plain.values())
        return sum(self._widths.values()) + plain


class Cascade(Index):
    """An index that ranks by a coarse distance and ranks the nearest items again by a fine one.

    The items within the smallest coarse distance that holds ``depth`` of them come first, by (fine distance, coarse
    distance); the rest follow by coarse distance. The first part is a whole number of groups of equal coarse distance,
    so the ranking does not depend on the order of the database. The distances of this index are ranks, not Hamming
    distances, so metrics within a Hamming radius are not defined.

    Args:
        coarse: Distance of the first ranking.
        fine: Distance of the second ranking.
        depth: Number of items to rank again, at least 1.

    Raises:
        ValueError: If ``depth`` is below 1.
    """

    def __init__(self, coarse: PackedDistance, fine: PackedDistance, depth: int) -> None:
        if depth < 1:
            raise ValueError(f"the depth of a cascade is 1 or more, not {depth}")
        self.coarse, self.fine, self.depth = coarse, fine, depth
        self._codes = {distance.name: Scan(distance) for distance in (coarse, fine)}
        self._rows = 0

    def add(self, codes: Codes) -> None:
        """Append both codes, packed."""
        for scan in self._codes.values():
            scan.add(codes)
        self._rows += len(codes[self.coarse.name])

    def _largest(self, distance: PackedDistance) -> int:
        return distance.largest(self._codes[distance.name].width(distance.name))

    def ranks(self, query: Codes) -> Tensor:
        """(Q, N) int64 ranks that the index orders items by: smaller is nearer, and equal ranks are ties."""
        query = on_cpu(query)
        coarse, fine = (
            d.packed(query, self._codes[d.name].packed(d.name)).long() for d in (self.coarse, self.fine)
        )  # (Q, N) each
        last = coarse.kthvalue(min(self.depth, self._rows), dim=1, keepdim=True).values  # (Q, 1)
        levels = self._largest(self.coarse) + 1
        behind = (self._largest(self.fine) + 1) * levels  # beyond every item that is ranked again
        return torch.where(coarse <= last, fine * levels + coarse, behind + coarse)

    def search(self, query: Codes, k: int) -> Ranking:
        """The k nearest items by (fine, coarse, row), then by (coarse, row); the distances returned are ranks."""
        return concatenate_rankings([rank(self.ranks(block), k) for block in query_blocks(query, self._rows)])

    def counts(self, query: Codes, relevance: Relevance, graded: bool = False) -> Counts:
        """Counts by rank."""
        largest = (self._largest(self.fine) + 2) * (self._largest(self.coarse) + 1)
        parts, start = list[Counts](), 0
        for block in query_blocks(query, self._rows):
            ranks = self.ranks(block).numpy()
            parts.append(integer_counts(ranks, largest, relevance[start : start + len(ranks)], graded))
            start += len(ranks)
        return concatenate_counts(parts)

    def bits(self) -> NDArray[np.bool_] | None:
        """(N, K) bits of the coarse code, followed by those of the fine one if they differ in name."""
        unpacked = [bits for scan in self._codes.values() if (bits := scan.bits()) is not None]
        return np.concatenate(unpacked, axis=1) if unpacked else None

    def reads(self) -> tuple[str, ...]:
        """Names of the coarse and the fine code."""
        return tuple(self._codes)

    def nbytes(self) -> int:
        """Size of both codes in bytes."""
        return sum(scan.nbytes() for scan in self._codes.values())

    def stored_bits(self) -> int:
        """Bits of both codes per image."""
        return sum(scan.stored_bits() for scan in self._codes.values())
