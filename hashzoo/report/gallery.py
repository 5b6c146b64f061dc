"""The retrieval gallery: some queries, and the nearest images that each method finds for them.

The neighbors come from the cells, the images from the dataset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from hashzoo.report.thumbnails import Album
from hashzoo.results.by_dataset import GALLERY_ARRAYS, Arrays, BoardEntry, DatasetBoard, Results
from hashzoo.types import Split, Splits

#: Operation of a composed query -> its sign and word.
OPERATIONS = {"union": ("\u222a", "or"), "intersection": ("\u2229", "and"), "difference": ("\u2216", "without")}


@dataclass(frozen=True)
class ImageSource:
    """The images of a board.

    Attributes:
        board: The board.
        data: Its dataset.
        digest: The fingerprint of the data, which cells must have to be shown with these images.
    """

    board: DatasetBoard
    data: Splits
    digest: str


@dataclass(frozen=True)
class GalleryImage:
    """An image of the gallery.

    Attributes:
        thumbnail: The id of its symbol.
        labels: The names of its classes.
        relevant: Whether it is relevant to the query.
        distance: Its distance from the query; empty for the query itself.
    """

    thumbnail: str
    labels: str
    relevant: bool = True
    distance: str = ""

    @property
    def description(self) -> str:
        """A description for screen readers."""
        if not self.distance:
            return f"query: {self.labels}"
        return f"{'relevant' if self.relevant else 'not relevant'}: {self.labels}, distance {self.distance}"


@dataclass(frozen=True)
class MethodResult:
    """The images that one method finds for a query, nearest first."""

    entry: BoardEntry
    images: Sequence[GalleryImage]

    @property
    def hits(self) -> int:
        """The number of relevant images."""
        return sum(image.relevant for image in self.images)


@dataclass(frozen=True)
class Query:
    """A query and the results of each method.

    Attributes:
        images: The image of the query, or the two images that it is composed of.
        results: The results.
        sign: The sign of the operation that composes two images.
        operation: The word for it.
        labels: The labels that the query looks for.
    """

    images: Sequence[GalleryImage]
    results: Sequence[MethodResult]
    sign: str = ""
    operation: str = ""
    labels: str = ""


@dataclass
class Gallery:
    """The queries of one board and code length.

    Attributes:
        board: The board.
        bits: The code length.
        selected: The number of queries selected; fewer are shown if their thumbnails exceed the limit of the album.
        queries: The queries shown.
        without: Names of methods whose cells have no neighbors among these images.
    """

    board: DatasetBoard
    bits: int
    selected: int
    queries: list[Query] = field(default_factory=list)
    without: list[str] = field(default_factory=list)


def build_gallery(
    results: Results, source: ImageSource, bits: int, names: Sequence[str], count: int, album: Album
) -> Gallery:
    """Build the gallery of one code length.

    Args:
        results: The results, whose cells have neighbors.
        source: The images. Cells measured on other data are not shown.
        bits: The code length.
        names: The methods to show.
        count: The number of queries, evenly spaced over those that every cell has. Of several seeds the first is shown.
        album: Gets the thumbnails. The gallery ends at the first query whose thumbnails exceed its limit.
    """
    rows = {entry.name: entry for entry in source.board.entries_at(bits)}
    entries = [rows[name] for name in names if name in rows and rows[name].ok_cells]
    arrays = {entry.name: found for entry in entries if (found := _neighbour_arrays(results, entry, source))}
    gallery = Gallery(source.board, bits, 0, without=[entry.name for entry in entries if entry.name not in arrays])
    entries = [entry for entry in entries if entry.name in arrays]
    if not entries:
        return gallery
    queries = _common_queries([arrays[entry.name] for entry in entries], count)
    gallery.selected = len(queries)
    for query in queries:
        neighbours = [(entry, *_neighbours(arrays[entry.name], query)) for entry in entries]
        if not album.add(_wanted_images(source, query, [rows for _, rows, _ in neighbours])):
            break
        gallery.queries.append(build_query(source, query, neighbours, album))
    return gallery


def _neighbour_arrays(results: Results, entry: BoardEntry, source: ImageSource) -> Arrays | None:
    """The arrays of the first seed that has neighbors among these images."""
    count = len(source.data.query) if source.data.pairs is None else len(source.data.pairs)
    for cell in entry.ok_cells:
        arrays = results.arrays(cell)
        if cell.identity.data != source.digest or GALLERY_ARRAYS[0] not in arrays:
            continue
        queries, rows, _ = (arrays[name] for name in GALLERY_ARRAYS)
        if queries.max(initial=-1) < count and rows.max(initial=-1) < len(source.data.database):
            return arrays
    return None


def _common_queries(arrays: Sequence[Arrays], count: int) -> list[int]:
    """Up to ``count`` evenly spaced queries of those that all cells have."""
    common = sorted(set.intersection(*(set(one["gallery_queries"].tolist()) for one in arrays)))
    places = np.linspace(0, len(common) - 1, min(count, len(common))).round().astype(int)
    return [common[place] for place in np.unique(places)]


def _neighbours(arrays: Arrays, query: int) -> tuple[list[int], list[float]]:
    """The rows and distances of a query's neighbors."""
    place = arrays["gallery_queries"].tolist().index(query)
    return arrays["gallery_rows"][place].tolist(), arrays["gallery_distances"][place].tolist()


def _query_rows(data: Splits, query: int) -> list[int]:
    """The rows of the query split that a query consists of."""
    if data.pairs is None:
        return [query]
    return [int(data.pairs.first[query]), int(data.pairs.second[query])]


def _wanted_images(
    source: ImageSource, query: int, neighbours: Sequence[Sequence[int]]
) -> dict[tuple[object, ...], tuple[Split, int]]:
    """The images of a query and its neighbors by their keys in the album."""
    number, data = source.board.number, source.data
    images: dict[tuple[object, ...], tuple[Split, int]] = {
        (number, "q", row): (data.query, row) for row in _query_rows(data, query)
    }
    return images | {(number, "d", row): (data.database, row) for rows in neighbours for row in rows}


def build_query(
    source: ImageSource,
    query: int,
    neighbours: Sequence[tuple[BoardEntry, Sequence[int], Sequence[float]]],
    album: Album,
) -> Query:
    """A query, whose images are in the album, with the rows and distances of the neighbors that each method finds."""
    number, data = source.board.number, source.data
    wanted = data.query.labels[query] if data.pairs is None else data.pairs.labels[query]
    images = [
        GalleryImage(album.symbol_id((number, "q", row)), label_names(data.query.labels[row], data.class_names))
        for row in _query_rows(data, query)
    ]
    results = []
    for entry, rows, distances in neighbours:
        found = [
            GalleryImage(
                album.symbol_id((number, "d", row)),
                label_names(data.database.labels[row], data.class_names),
                bool((data.database.labels[row] * wanted).sum() > 0),
                f"{distance:g}" if float(distance).is_integer() else f"{distance:.3f}",
            )
            for row, distance in zip(rows, distances, strict=True)
        ]
        results.append(MethodResult(entry, found))
    sign, word = OPERATIONS.get(data.pairs.operation, ("", "")) if data.pairs is not None else ("", "")
    return Query(images, results, sign, word, label_names(wanted, data.class_names))


def label_names(labels: Tensor, names: Sequence[str]) -> str:
    """The names of the classes in a label vector (C,)."""
    classes = labels.nonzero()[:, 0].tolist()
    return ", ".join(names[c] if c < len(names) else f"class {c}" for c in classes) or "no label"
