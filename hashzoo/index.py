"""How queries meet the database: distances over named codes, and the scan that searches and counts with them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from hashzoo.hamming.counting import (
    Counts,
    Relevance,
    distance_counts,
    hamming_counts,
    masked_distances,
    nearest,
    pack,
    unpack,
)
from hashzoo.types import Codes, Ranking

PAIRS = 1 << 24  # distances that are held at a time, where they must be: 64 queries to 262,144 items


class Distance(ABC):
    """A distance over named codes. ``stored`` are the names it reads of the database: they, and only they, are kept."""

    stored: tuple[str, ...]
    integer: ClassVar[bool] = False  # True only where the values are Hamming distances 0..K

    @abstractmethod
    def __call__(self, query: Codes, database: Codes) -> Tensor:
        """(Q, N) distances, smaller is nearer."""


class Hamming(Distance):
    """The number of bits in which two codes differ; with ``weight``, of those that the query's mask names."""

    integer = True

    def __init__(self, name: str, weight: str = "") -> None:
        self.name, self.weight, self.stored = name, weight, (name,)

    def __call__(self, query: Codes, database: Codes) -> Tensor:
        """(Q, N) int32 distances of bool codes (Q, K) and (N, K)."""
        return self.packed(query, pack(database[self.name].cpu().numpy()))

    def packed(self, query: Codes, database: np.ndarray) -> Tensor:
        """(Q, N) int32 distances to a packed database (N, ceil(K / 8))."""
        codes = query[self.name].detach().cpu()
        mask = query[self.weight].detach().cpu() if self.weight else torch.ones_like(codes)
        return torch.from_numpy(masked_distances(pack(codes.numpy()), pack(mask.numpy()), database))


class Cosine(Distance):
    """One minus the cosine of real vectors."""

    def __init__(self, name: str) -> None:
        self.name, self.stored = name, (name,)

    def __call__(self, query: Codes, database: Codes) -> Tensor:
        """(Q, N) float32; rounded from float64 so that equal images are equally far wherever they stand."""
        q, d = (torch.nn.functional.normalize(codes[self.name].double(), dim=1) for codes in (query, database))
        return (1 - q @ d.T).float()


class Index(ABC):
    """A database that answers queries and counts what stands at each distance."""

    @abstractmethod
    def add(self, codes: Codes) -> None:
        """Append the codes of N images."""

    @abstractmethod
    def search(self, query: Codes, k: int) -> Ranking:
        """The k nearest rows of each query."""

    @abstractmethod
    def counts(self, query: Codes, relevance: Relevance, graded: bool = False) -> Counts:
        """How many items, and relevant ones, stand at each distance from each query."""

    def bits(self) -> np.ndarray | None:
        """(N, K) bool, the bits that are stored of each image, side by side; None where none can be shown."""
        return None

    def reads(self) -> tuple[str, ...] | None:
        """The names of the codes that are read of the database; None where all of them may be."""
        return None

    @abstractmethod
    def nbytes(self) -> int:
        """Bytes that the stored codes take."""

    @abstractmethod
    def stored_bits(self) -> int:
        """Bits stored an image, side information included."""


def few(query: Codes, items: int) -> Iterator[Codes]:
    """The queries so many at a time that their distances to all items are no more than ``PAIRS``; one at least.

    >>> [len(some["code"]) for some in few({"code": torch.zeros(5, 8)}, PAIRS // 2)]
    [2, 2, 1]
    """
    step = max(1, PAIRS // max(1, items))
    count = len(next(iter(query.values())))
    for start in range(0, max(1, count), step):
        yield {name: values[start : start + step] for name, values in query.items()}


def one_below_another(parts: Sequence[Counts]) -> Counts:
    """Counts of successive queries to one database as one; rows of fewer groups end in empty ones.

    >>> wide, narrow = (Counts(np.ones((1, g), int), np.ones((1, g), int), None, integer=False) for g in (2, 1))
    >>> one_below_another([wide, narrow]).items.tolist()
    [[1, 1], [1, 0]]
    """
    groups = max(part.items.shape[1] for part in parts)

    def joined(sides: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(
            [np.pad(side, ((0, 0), (0, groups - side.shape[1]), (0, 0))[: side.ndim]) for side in sides]
        )

    graded = [part.grades for part in parts if part.grades is not None]
    return Counts(
        items=joined([part.items for part in parts]),
        relevant=joined([part.relevant for part in parts]),
        grades=joined(graded) if graded else None,
        integer=all(part.integer for part in parts),
    )


def ranked(distances: Tensor, k: int) -> Ranking:
    """The k nearest by distances (Q, N), equal ones in database order."""
    values, rows = distances.sort(dim=1, stable=True)
    return Ranking(rows[:, :k].clone(), values[:, :k].clone())  # no views, which would hold all N


def one_ranking(parts: Sequence[Ranking]) -> Ranking:
    """Rankings of successive queries as one."""
    return Ranking(torch.cat([part.rows for part in parts]), torch.cat([part.distances for part in parts]))


class Packed:
    """Packed codes that are appended to. The array grows by doubling, and what is not filled takes no memory.

    >>> codes = Packed()
    >>> codes.add(np.ones((3, 2), np.uint8)), codes.add(np.zeros((1, 2), np.uint8)), codes.rows.shape
    (None, None, (4, 2))
    """

    def __init__(self) -> None:
        self._room = np.empty((0, 0), np.uint8)
        self._count = 0

    @property
    def rows(self) -> np.ndarray:
        """(N, B) all that was added."""
        return self._room[: self._count]

    def add(self, packed: np.ndarray) -> None:
        """Append (n, B) rows."""
        count = self._count + len(packed)
        if count > len(self._room):
            room = np.empty((max(count, 2 * len(self._room)), packed.shape[1]), np.uint8)
            room[: self._count] = self.rows if self._count else 0
            self._room = room
        self._room[self._count : count] = packed
        self._count = count


class Scan(Index):
    """Every query against every item, exactly."""

    def __init__(self, distance: Distance) -> None:
        self.distance = distance
        self._rows = 0
        self._widths: dict[str, int] = {}
        self._packed: dict[str, Packed] = {}  # bits, eight to a byte
        self._plain: dict[str, list[Tensor]] = {}  # side information

    def add(self, codes: Codes) -> None:
        """Append the codes that the distance reads; bits are packed eight to a byte."""
        for name in self.distance.stored:
            if name not in codes:
                raise ValueError(f"the index reads {name!r} but encode gave only {', '.join(codes) or 'nothing'}")
            values = codes[name].detach().cpu()
            if isinstance(self.distance, Hamming) and name == self.distance.name and values.dtype != torch.bool:
                given = str(values.dtype).removeprefix("torch.")
                raise ValueError(
                    f"{name!r} is compared bit by bit and encode gave {given}; make it bool with bits(values)"
                )
            if values.dtype == torch.bool:
                self._widths[name] = values.shape[1]
                self._packed.setdefault(name, Packed()).add(pack(values.numpy()))
            else:
                self._plain.setdefault(name, []).append(values)
        self._rows += len(codes[self.distance.stored[0]])

    def _bits(self, name: str) -> np.ndarray:
        return self._packed[name].rows

    def _database(self) -> Codes:
        codes = {name: torch.cat(parts) for name, parts in self._plain.items()}
        codes |= {name: torch.from_numpy(unpack(self._bits(name), self._widths[name])) for name in self._packed}
        return codes

    def _distances(self, query: Codes) -> Tensor:
        if isinstance(self.distance, Hamming):
            return self.distance.packed(query, self._bits(self.distance.name))
        return self.distance({name: value.detach().cpu() for name, value in query.items()}, self._database())

    def search(self, query: Codes, k: int) -> Ranking:
        """The k nearest rows, nearest first; equal distances in database order."""
        k = min(k, self._rows)
        if isinstance(self.distance, Hamming) and not self.distance.weight:
            name = self.distance.name
            rows, distances = nearest(pack(query[name].detach().cpu().numpy()), self._bits(name), k)
            return Ranking(torch.from_numpy(rows), torch.from_numpy(distances))
        return one_ranking([ranked(self._distances(some), k) for some in few(query, self._rows)])

    def counts(self, query: Codes, relevance: Relevance, graded: bool = False) -> Counts:
        """Histograms by distance; no sort for Hamming, one grouping of equal values for any other distance."""
        if isinstance(self.distance, Hamming) and not self.distance.weight:
            name = self.distance.name
            packed = pack(query[name].detach().cpu().numpy())
            return hamming_counts(packed, self._bits(name), self._widths[name], relevance, graded)
        parts, start = list[Counts](), 0
        for some in few(query, self._rows):
            distances = self._distances(some).double().numpy()
            parts.append(distance_counts(distances, relevance[start : start + len(distances)], graded))
            start += len(distances)
        return one_below_another(parts)

    def bits(self) -> np.ndarray | None:
        """(N, K) bool of all codes that are bits, in the order in which the distance names them."""
        found = [unpack(self._bits(name), self._widths[name]) for name in self._packed]
        return np.concatenate(found, axis=1) if found else None

    def reads(self) -> tuple[str, ...]:
        """What the distance reads of the database."""
        return self.distance.stored

    def nbytes(self) -> int:
        """Bytes of packed codes and side information."""
        packed = sum(codes.rows.nbytes for codes in self._packed.values())
        return packed + sum(part.nbytes for parts in self._plain.values() for part in parts)

    def stored_bits(self) -> int:
        """Widths of the codes plus eight bits for each byte of side information, an image."""
        plain = sum(8 * part[0].nbytes // max(1, len(part[0])) for part in self._plain.values())
        return sum(self._widths.values()) + plain


class Cascade(Index):
    """A coarse ranking by one code, whose head is ranked again by another.

    The items within the smallest coarse distance that holds ``depth`` of them come first, by (fine distance, coarse
    distance); the rest follow by coarse distance. The head is a whole number of coarse distances, so where it ends
    does not depend on the order of the database. Ranks are no Hamming distances: metrics within a radius are refused.
    """

    def __init__(self, coarse: Hamming, fine: Hamming, depth: int) -> None:
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

    def ranks(self, query: Codes) -> Tensor:
        """(Q, N) int64, smaller is nearer, equal is tied: what the ranking is by."""
        coarse, fine = (self._codes[d.name]._distances(query).long() for d in (self.coarse, self.fine))  # (Q, N) each
        last = coarse.kthvalue(min(self.depth, self._rows), dim=1, keepdim=True).values  # (Q, 1)
        levels = self._codes[self.coarse.name].stored_bits() + 1
        behind = (self._codes[self.fine.name].stored_bits() + 1) * levels  # farther than any of the head
        return torch.where(coarse <= last, fine * levels + coarse, behind + coarse)

    def search(self, query: Codes, k: int) -> Ranking:
        """The k nearest rows by (fine, coarse, row), then by (coarse, row); the distances are ranks."""
        return one_ranking([ranked(self.ranks(some), k) for some in few(query, self._rows)])

    def counts(self, query: Codes, relevance: Relevance, graded: bool = False) -> Counts:
        """Items and relevant ones by rank."""
        parts, start = list[Counts](), 0
        for some in few(query, self._rows):
            ranks = self.ranks(some).numpy()
            parts.append(distance_counts(ranks, relevance[start : start + len(ranks)], graded))
            start += len(ranks)
        return one_below_another(parts)

    def bits(self) -> np.ndarray | None:
        """(N, K) bool: the coarse code, then the fine one where it is another."""
        found = [bits for scan in self._codes.values() if (bits := scan.bits()) is not None]
        return np.concatenate(found, axis=1) if found else None

    def reads(self) -> tuple[str, ...]:
        """The coarse code, then the fine one where it is another."""
        return tuple(self._codes)

    def nbytes(self) -> int:
        """Bytes of both codes."""
        return sum(scan.nbytes() for scan in self._codes.values())

    def stored_bits(self) -> int:
        """Bits of both codes."""
        return sum(scan.stored_bits() for scan in self._codes.values())
