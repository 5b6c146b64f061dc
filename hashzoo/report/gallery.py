"""What some queries find, method by method: from the neighbours that cells keep, and the images of their data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from hashzoo.report.results import GALLERY, DatasetBoard, Entry, Results
from hashzoo.report.thumbnails import Album
from hashzoo.results.cell import Cell
from hashzoo.types import Split, Splits

SIGNS = {"union": ("\u222a", "or"), "intersection": ("\u2229", "and"), "difference": ("\u2216", "without")}


@dataclass(frozen=True)
class Shown:
    """An image of the gallery: the id of its thumbnail, what it is of, and how it came there."""

    thumbnail: str
    labels: str
    relevant: bool = True
    distance: str = ""

    @property
    def said(self) -> str:
        """In words."""
        if not self.distance:
            return f"query: {self.labels}"
        return f"{'relevant' if self.relevant else 'not relevant'}: {self.labels}, distance {self.distance}"


@dataclass(frozen=True)
class Found:
    """What one method finds for a query."""

    entry: Entry
    images: Sequence[Shown]

    @property
    def hits(self) -> int:
        """How many of them are relevant."""
        return sum(one.relevant for one in self.images)


@dataclass(frozen=True)
class Query:
    """A query, of one image or of two and a sign between, and what each method finds for it."""

    images: Sequence[Shown]
    found: Sequence[Found]
    sign: str = ""
    operation: str = ""
    wanted: str = ""


@dataclass
class Gallery:
    """The queries of one dataset at one number of bits; ``asked`` were to be shown, before room ran out."""

    board: DatasetBoard
    bits: int
    asked: int
    queries: list[Query] = field(default_factory=list)
    without: list[str] = field(default_factory=list)  # names whose cells keep no neighbours among these data


def gallery(
    results: Results,
    board: DatasetBoard,
    bits: int,
    names: Sequence[str],
    data: Splits,
    digest: str,
    count: int,
    album: Album,
) -> Gallery:
    """Up to ``count`` queries, evenly spread over those that every cell keeps, as each row's first seed found them.

    Cells count that were measured on ``data``, whose fingerprint is ``digest``. Queries are left out from the first on
    whose images find no room in the album.
    """
    rows = {entry.name: entry for entry in board.at(bits)}
    chosen = [rows[name] for name in names if name in rows and rows[name].ok]
    held = {id(entry): cell for entry in chosen if (cell := _first(results, entry, data, digest))}
    made = Gallery(board, bits, 0, without=[entry.name for entry in chosen if id(entry) not in held])
    chosen = [entry for entry in chosen if id(entry) in held]
    if not chosen:
        return made
    kept = [results.arrays(held[id(entry)]) for entry in chosen]
    common = sorted(set.intersection(*(set(arrays["gallery_queries"].tolist()) for arrays in kept)))
    picks = [common[i] for i in np.unique(np.linspace(0, len(common) - 1, min(count, len(common))).round().astype(int))]
    made.asked = len(picks)
    for query in picks:
        asking = _asking(data, query)
        at = [arrays["gallery_queries"].tolist().index(query) for arrays in kept]
        found = [
            (a["gallery_rows"][i].tolist(), a["gallery_distances"][i].tolist()) for a, i in zip(kept, at, strict=True)
        ]
        wanted: dict[tuple[object, ...], tuple[Split, int]] = {
            (board.number, "q", row): (data.query, row) for row in asking
        }
        wanted |= {(board.number, "d", row): (data.database, row) for nearest, _ in found for row in nearest}
        if album.missing(wanted):
            break
        made.queries.append(_query(board, data, query, asking, list(zip(chosen, found, strict=True)), album))
    return made


def _first(results: Results, entry: Entry, data: Splits, digest: str) -> Cell | None:
    """The cell of the first seed that keeps neighbours among these data."""
    for cell in entry.ok:
        arrays = results.arrays(cell)
        if cell.identity.data != digest or GALLERY[0] not in arrays:
            continue
        queries, rows, _ = (arrays[name] for name in GALLERY)
        if queries.max(initial=-1) < _asked(data) and rows.max(initial=-1) < len(data.database):
            return cell
    return None


def _asked(data: Splits) -> int:
    return len(data.query) if data.pairs is None else len(data.pairs)


def _asking(data: Splits, query: int) -> list[int]:
    """The rows of the query split that a query is made of."""
    if data.pairs is None:
        return [query]
    return [int(data.pairs.first[query]), int(data.pairs.second[query])]


def _query(
    board: DatasetBoard,
    data: Splits,
    query: int,
    asking: Sequence[int],
    found: Sequence[tuple[Entry, tuple[list[int], list[float]]]],
    album: Album,
) -> Query:
    wanted = data.query.labels[query] if data.pairs is None else data.pairs.labels[query]
    images = [
        Shown(album.name((board.number, "q", row)), labels(data.query.labels[row], data.class_names)) for row in asking
    ]
    answers = []
    for entry, (rows, distances) in found:
        shown = [
            Shown(
                album.name((board.number, "d", row)),
                labels(data.database.labels[row], data.class_names),
                bool((data.database.labels[row] * wanted).sum() > 0),
                f"{distance:g}" if float(distance).is_integer() else f"{distance:.3f}",
            )
            for row, distance in zip(rows, distances, strict=True)
        ]
        answers.append(Found(entry, shown))
    sign, word = SIGNS.get(data.pairs.operation, ("", "")) if data.pairs is not None else ("", "")
    return Query(images, answers, sign, word, labels(wanted, data.class_names))


def labels(row: Tensor, names: Sequence[str]) -> str:
    """The names of the classes of an image."""
    return ", ".join(names[i] if i < len(names) else f"class {i}" for i in row.nonzero()[:, 0].tolist()) or "no label"
