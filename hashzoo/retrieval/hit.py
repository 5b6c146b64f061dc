"""What a search for images found: hits, and the results of a query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Hit:
    """An image found by a search.

    Attributes:
        row: Its row in the index.
        path: Its file.
        distance: The distance of its code from that of the query: the number of differing bits, or another number that
            only orders the images (see :class:`hashzoo.ImageIndex`).
        id: Its id in an index folder; its path relative to the root in an index file.
    """

    row: int
    path: Path
    distance: float
    id: str = ""


@dataclass(frozen=True)
class SearchResult:
    """The hits of one query.

    Attributes:
        heading: Title of the query.
        queries: The image of the query, or the two images that it is composed of.
        hits: The images found, nearest first.
    """

    heading: str
    queries: Sequence[Path]
    hits: Sequence[Hit]
