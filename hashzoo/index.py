"""How queries meet the database: distances over named codes, and the scan that searches and counts with them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from hashzoo.counting import (
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
        """(Q, N) float32; rounded from float64 so that equal pictures are equally far wherever they stand."""
        q, d = (torch.nn.functional.normalize(codes[self.name].double(), dim=1) for codes in (query, database))
        return (1 - q @ d.T).float()


class Index(ABC):
    """A database that answers queries and counts what stands at each distance."""

    @abstractmethod
    def add(self, codes: Codes) -> None:
        """Append the codes of N pictures."""

    @abstractmethod
    def search(self, query: Codes, k: int) -> Ranking:
        """The k nearest rows of each query."""

    @abstractmethod
    def counts(self, query: Codes, relevance: Relevance, graded: bool = False) -> Counts:
        """How many items, and relevant ones, stand at each distance from each query."""

    def bits(self) -> np.ndarray | None:
        """(N, K) bool, the bits that are stored of each picture, side by side; None where none can be shown."""
        return None

    @abstractmethod
    def nbytes(self) -> int:
        """Bytes that the stored codes take."""

    @abstractmethod
    def stored_bits(self) -> int:
        """Bits stored a picture, side information included."""


class Scan(Index):
    """Every query against every item, exactly."""

    def __init__(self, distance: Distance) -> None:
        self.distance = distance
        self._rows = 0
        self._widths: dict[str, int] = {}
        self._packed: dict[str, list[np.ndarray]] = {}  # bits, eight to a byte
        self._plain: dict[str, list[Tensor]] = {}  # side information

    def add(self, codes: Codes) -> None:
        """Append the codes that the distance reads; bits are packed eight to a byte."""
        for name in self.distance.stored:
            if name not in codes:
                raise ValueError(f"the index reads {name!r} but encode gave only {', '.join(codes) or 'nothing'}")
            values = codes[name].detach().cpu()
            if values.dtype == torch.bool:
                self._widths[name] = values.shape[1]
                self._packed.setdefault(name, []).append(pack(values.numpy()))
            else:
                self._plain.setdefault(name, []).append(values)
        self._rows += len(codes[self.distance.stored[0]])

    def _bits(self, name: str) -> np.ndarray:
        parts = self._packed[name]
        if len(parts) > 1:
            self._packed[name] = parts = [np.concatenate(parts)]
        return parts[0]

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
        values, rows_ = self._distances(query).sort(dim=1, stable=True)
        return Ranking(rows_[:, :k], values[:, :k])

    def counts(self, query: Codes, relevance: Relevance, graded: bool = False) -> Counts:
        """Histograms by distance; no sort for Hamming, one grouping of equal values for any other distance."""
        if isinstance(self.distance, Hamming) and not self.distance.weight:
            name = self.distance.name
            packed = pack(query[name].detach().cpu().numpy())
            return hamming_counts(packed, self._bits(name), self._widths[name], relevance, graded)
        return distance_counts(self._distances(query).double().numpy(), relevance, graded)

    def bits(self) -> np.ndarray | None:
        """(N, K) bool of all codes that are bits, in the order in which the distance names them."""
        found = [unpack(self._bits(name), self._widths[name]) for name in self._packed]
        return np.concatenate(found, axis=1) if found else None

    def nbytes(self) -> int:
        """Bytes in memory: packed codes and side information."""
        packed = sum(part.nbytes for parts in self._packed.values() for part in parts)
        return packed + sum(part.nbytes for parts in self._plain.values() for part in parts)

    def stored_bits(self) -> int:
        """Widths of the codes plus eight bits for each byte of side information, a picture."""
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
        values, rows = self.ranks(query).sort(dim=1, stable=True)
        return Ranking(rows[:, :k], values[:, :k])

    def counts(self, query: Codes, relevance: Relevance, graded: bool = False) -> Counts:
        """Items and relevant ones by rank."""
        return distance_counts(self.ranks(query).numpy(), relevance, graded)

    def bits(self) -> np.ndarray | None:
        """(N, K) bool: the coarse code, then the fine one where it is another."""
        found = [bits for scan in self._codes.values() if (bits := scan.bits()) is not None]
        return np.concatenate(found, axis=1) if found else None

    def nbytes(self) -> int:
        """Bytes of both codes."""
        return sum(scan.nbytes() for scan in self._codes.values())

    def stored_bits(self) -> int:
        """Bits of both codes."""
        return sum(scan.stored_bits() for scan in self._codes.values())
