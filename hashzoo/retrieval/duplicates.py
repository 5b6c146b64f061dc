"""Copies among image files: which are alike, and which one of each group to keep; as a table and as a page."""

from __future__ import annotations

import csv
import io
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hashzoo.data import copies, image_paths
from hashzoo.data.copies import PARTS, Pair
from hashzoo.errors import UsageError, printable
from hashzoo.retrieval import code_file
from hashzoo.retrieval.results_page import file_uri, page_template
from hashzoo.types import ProgressCallback

COLUMNS = ("group", "keep", "path", "width", "height", "bytes", "like", "distance", "correlation", "what")

PAGE = page_template(
    """
.keep img { outline: 3px solid; }
""",
    """
<p>The image with an outline is kept: it has the most pixels, then the most bytes.</p>
{% for group in groups %}
<section>
<h2>Group {{ loop.index }}</h2>
<ul>
{% for one, image in group %}<li{% if one.keep %} class="keep"{% endif %}>
<img src="{{ image }}" alt="{{ one.shown }}">
{% if one.keep %}keep{% else %}{{ one.what }}, correlation {{ "%.2f" | format(one.correlation) }}{% endif %}<br>
<small>{{ one.shown }}<br>{{ one.width }} x {{ one.height }}, {{ one.bytes }} bytes</small></li>
{% endfor %}</ul>
</section>
{% endfor %}
""",
)


@dataclass(frozen=True)
class ImageCopy:
    """An image of a group of copies.

    Attributes:
        group: Number of the group, from 1.
        keep: Whether it is the one to keep: with the most pixels, then the most bytes, then the first path.
        path: Its file.
        width: Width in pixels.
        height: Height in pixels.
        bytes: Size of the file.
        like: The file of the group that it agrees with best; of other files than the kept one, the kept one if they
            were compared.
        distance: Bits of 64 in which their perceptual hashes differ.
        correlation: Correlation of their pixels.
        what: What the two show of each other: ``"whole"``, ``"part"``, ``"mirrored"`` or ``"mirrored part"``.
    """

    group: int
    keep: bool
    path: Path
    width: int
    height: int
    bytes: int
    like: Path
    distance: int
    correlation: float
    what: str

    @property
    def shown(self) -> str:
        """The path, for a page."""
        return printable(self.path)


@dataclass(frozen=True)
class Duplicates:
    """The copies among some images.

    Attributes:
        groups: Images that show the same, in groups of at least two, the one to keep first.
        images: Number of images that were compared.
        left_out: A line for each image that could not be read.
    """

    groups: Sequence[Sequence[ImageCopy]]
    images: int
    left_out: Sequence[str]

    @property
    def copies(self) -> int:
        """Number of images that can be removed."""
        return sum(len(group) - 1 for group in self.groups)

    def table(self) -> str:
        """All images of groups as CSV, with the columns of :class:`ImageCopy`."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(COLUMNS)
        for one in (one for group in self.groups for one in group):
            values = [getattr(one, name) for name in COLUMNS]
            values[1], values[8] = "yes" if one.keep else "no", f"{one.correlation:.4f}"
            writer.writerow(values)
        return buffer.getvalue()

    def page(self) -> str:
        """A self-contained HTML page with the images of each group side by side."""
        from jinja2 import Environment  # not needed for the table

        title = f"{self.copies} copies of {self.images} images"
        groups = [[(one, file_uri(one.path)) for one in group] for group in self.groups]
        return Environment(autoescape=True).from_string(PAGE).render(title=title, groups=groups)


def find_duplicates(
    images: Sequence[str | os.PathLike[str]],
    *,
    radius: int = copies.RADIUS,
    flips: bool = False,
    threads: int | None = None,
    progress: ProgressCallback = lambda *_: None,
) -> Duplicates:
    """Find copies among image files: recompressed, resized, in gray, with a mark, or cropped by a tenth of a side.

    Args:
        images: Image files and folders; or one index of ``hashzoo index build``, for the images that it lists.
        radius: Bits of 64, from 0 to 20, in which the perceptual hash of a copy differs at most from that of the image,
            or of a part of it. Candidates are then compared by their pixels.
        flips: Whether mirrored copies are found too.
        threads: Threads that read images; by default one per core, 8 at most.
        progress: Called with the number of images read and their total.

    Returns:
        The groups of copies. Copies of copies are in one group. 4 KB of memory are used for each image.

    Raises:
        UsageError: If a path does not exist, there are no images, or ``radius`` is out of range.

    Source: perceptual hashes of the discrete cosine transform as in pHash (Zauner, 2010).
    """
    if not 0 <= radius <= 20:
        raise UsageError(f"the radius is from 0 to 20 bits, not {radius}: half of the 64 bits of unlike images differ")
    files, left_out = _files([Path(one) for one in images])
    threads = threads or min(8, os.cpu_count() or 1)
    prints = copies.print_images(len(files), lambda row: image_paths.open_image(files[row]), threads, progress)
    left_out += [prints.reasons[row] for row in sorted(prints.reasons)]
    pairs = copies.find_pairs(prints, radius, flips=flips)
    by_row = defaultdict[int, list[Pair]](list)
    for pair in pairs:
        by_row[pair.first].append(pair)
        by_row[pair.second].append(pair)
    groups = []
    for number, rows in enumerate(copies.clusters(len(files), pairs), 1):
        sizes = {row: (-int(prints.sizes[row].prod()), -files[row].stat().st_size, row) for row in rows}
        kept, *others = sorted(rows, key=lambda row: sizes[row])
        groups.append([_copy(number, row, kept, by_row[row], files, prints) for row in (kept, *others)])
    return Duplicates(groups, len(files) - len(prints.reasons), left_out)


def _files(paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The image files, and a line for each one that is not decoded."""
    if len(paths) == 1 and paths[0].is_file() and paths[0].suffix.lower() not in image_paths.IMAGE_SUFFIXES:
        stored = code_file.read(paths[0])
        if stored.of_vectors:
            raise UsageError(f"{paths[0]} is an index of vectors; name an index of images, or images")
        return [Path(stored.metadata["root"]) / path for path in stored.paths], []
    found = image_paths.find_images(paths)
    return [found.root / path for path in found.images], list(found.left_out)


def _copy(
    group: int, row: int, kept: int, pairs: Sequence[Pair], files: Sequence[Path], prints: copies.Prints
) -> ImageCopy:
    def closeness(pair: Pair) -> tuple[bool, float]:
        return kept in (pair.first, pair.second), pair.correlation

    best = max(pairs, key=closeness)
    other = best.second if best.first == row else best.first
    words = [*(["mirrored"] if best.mirrored else []), *(["part"] if best.part != PARTS[0] else [])]
    width, height = prints.sizes[row].tolist()
    return ImageCopy(
        group,
        row == kept,
        files[row],
        width,
        height,
        files[row].stat().st_size,
        files[other],
        best.distance,
        best.correlation,
        " ".join(words) or "whole",
    )
