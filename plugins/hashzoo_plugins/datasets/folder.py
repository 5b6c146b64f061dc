"""Your own images: a folder with one folder for each class, or a table of paths and labels.

The id of an image is its row among all paths, sorted by their bytes, which is the same on every machine.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from hashzoo import IMAGE_SUFFIXES, EnvironmentFailure, Splits, UsageError, files_below, printable, read_image_file
from hashzoo_plugins.datasets.carve import INSIDE, Pool, Shuffle, stratified
from hashzoo_plugins.datasets.image_table import PARTS, TABLES, Table, read_table
from hashzoo_plugins.datasets.paths import Paths

SIDES = (8, 1024)
QUERIES = 1000


class Squares(Paths):
    """Image files, each cut to the middle square and resized to one side, so that a network can take several."""

    def __init__(self, paths: Sequence[Path], side: int) -> None:
        super().__init__(paths)
        self.side, self.form = side, f"{side} x {side}"

    def __getitem__(self, row: Any) -> Any:
        """One image, (side, side), upright, in RGB. EnvironmentFailure naming it where it does not decode."""
        image: Image.Image = super().__getitem__(row)
        return ImageOps.fit(image, (self.side, self.side), Image.Resampling.BICUBIC)

    def read(self, row: int) -> bytes:
        """The bytes of one file. OSError where they cannot be read, EnvironmentFailure where they are too many."""
        return read_image_file(self.paths[row])

    def name(self, row: int) -> str:
        """The path, on one line."""
        return printable(self.paths[row])

    def stamp(self, row: int) -> str:
        """That of the file; of one that cannot be found, its path."""
        try:
            return super().stamp(row)
        except OSError as error:
            return f"{self.paths[row]} {error.errno}"


def folder(
    *,
    root: Path,
    labels: Path | None = None,
    query: float | None = None,
    train: float | None = None,
    size: int = 256,
    seed: int = 0,
    validation: float = 0.0,
) -> Splits:
    """Your own images: class folders in ``root``, or a table (CSV, Parquet) of ``path`` and ``label``.

    ``root`` is the folder or the table; ``labels`` names a table whose paths start at ``root``. ``query`` and
    ``train`` are a share of the images (below 1) or their number; by default a tenth, at most 1,000, and half; the
    others are the database. Images are cut to a square of ``size`` pixels.
    """
    if not isinstance(root, str | os.PathLike):
        raise UsageError("folder needs to know where the images are: --root IMAGES, a folder or a table")
    root = Path(root)
    if not SIDES[0] <= size <= SIDES[1]:
        raise UsageError(f"folder.size is {SIDES[0]} to {SIDES[1]} pixels, not {size}")
    table = None
    place = root
    if labels is not None:
        table = read_table(_found(Path(labels), root), root)
    elif root.is_file() or (root.suffix.lower() in TABLES and not root.is_dir()):
        place = root.parent
        table = read_table(root, place)
    else:
        table = walked(root)
    names = table.class_names
    if len(names) < 2:
        raise UsageError(f"{printable(root)} has one class only ({names[0]}); a benchmark needs two or more")
    several = bool((table.labels.sum(1) != 1).any())
    source = "images of a table" if table.listed else "images in class folders"
    below = Path(os.path.abspath(place)) if table.listed else place  # noqa: PTH100 - what the paths begin with
    relative = [path.relative_to(below).as_posix() for path in table.paths]
    pool = Pool(Squares(table.paths, size), table.labels, names, source, multilabel=several, names=relative)
    shuffle = Shuffle("folder", seed)
    if table.parts is not None:
        return _as_listed(pool, table.parts, query, train, validation, shuffle)
    learned, database, asking = drawn(table.labels, several, query, train, shuffle)
    return pool.splits(learned, database, asking, validation=validation, shuffle=shuffle)


def walked(root: Path) -> Table:
    """The images below the class folders of ``root``, sorted by the bytes of their paths."""
    if not root.is_dir():
        raise EnvironmentFailure(f"there is no folder {printable(root)}; name the folder of your images with --root")
    found = sorted(files_below(root), key=lambda relative: os.fsencode(relative.as_posix()))
    kept = [relative for relative in found if relative.suffix.lower() in IMAGE_SUFFIXES]
    inside = [relative for relative in kept if len(relative.parts) > 1]
    if not inside:
        raise EnvironmentFailure(f"no images found in folders of {printable(root)}: {_instead(found, kept)}")
    classes = list(dict.fromkeys(relative.parts[0] for relative in inside))
    column = {name: number for number, name in enumerate(classes)}
    numbers = torch.tensor([column[relative.parts[0]] for relative in inside])
    paths = [root / relative for relative in inside]
    return Table(paths, torch.eye(len(classes))[numbers], tuple(printable(name) for name in classes))


def _instead(found: Sequence[PurePath], kept: Sequence[PurePath]) -> str:
    """What there was where no image in a class folder was found, and the cure."""
    if kept:
        return f"{len(kept)} lie directly in it; put each into a folder named like its class, or list them in a table"
    (ending, count), *_ = Counter(path.suffix.lower() for path in found).most_common(1) or [("", 0)]
    others = f"it has {count} files that end with {printable(ending)!r}; " if ending else ""
    return f"{others}put JPEG, PNG, GIF, WebP, TIFF or BMP files into folders named like their classes"


def _found(labels: Path, root: Path) -> Path:
    """A table where it says, or in the folder of the images."""
    return root / labels if not labels.is_file() and (root / labels).is_file() else labels


def drawn(
    labels: Tensor, several: bool, query: float | None, train: float | None, shuffle: Shuffle
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Rows to learn from, to search and to ask with, without overlap.

    With one label an image, classes are in proportion, and the first image of each is learned from and the second
    is searched, so that what is asked for can be found: a class of one image is learned from only.
    """
    total = len(labels)
    classes = labels.argmax(1).numpy() if not several else np.zeros(total, dtype=np.int64)
    order = [shuffle.permutation(np.flatnonzero(classes == c)) for c in np.unique(classes)]
    first = np.concatenate([rows[:1] for rows in order])
    rest = np.sort(np.concatenate([rows[2:] for rows in order]))
    asking = _number("query", query, total, min(QUERIES, max(1, total // 10)))
    if asking > len(rest):
        reason = "a class needs three images to ask with one" if not several else "three images are needed"
        raise UsageError(f"folder: {total} images cannot give {asking} queries: {reason}; add images or ask fewer")
    room = len(rest) - asking + len(first)
    learned = _number("train", train, total, min(room, max(len(first), total // 2)))
    if not len(first) <= learned <= room:
        raise UsageError(
            f"folder: of {total} images, {len(first)} to {room} can be learned from beside {asking} queries, "
            f"not {learned}; change folder.train or folder.query"
        )
    queries, more = stratified(classes[rest], [asking, learned - len(first)], shuffle)
    trained = np.concatenate([first, rest[more]])
    database = np.setdiff1d(np.arange(total), np.concatenate([trained, rest[queries]]))
    return shuffle.permutation(trained), shuffle.permutation(database), rest[queries]


def _number(name: str, given: float | None, total: int, default: int) -> int:
    """A share of all images, or a number of them, as a number."""
    if given is None:
        return default
    if given <= 0 or (given >= 1 and given != int(given)):
        raise UsageError(f"folder.{name} is a share below 1 or a whole number of images, not {given}")
    return max(1, round(given * total)) if given < 1 else int(given)


def _as_listed(
    pool: Pool, parts: NDArray[np.str_], query: float | None, train: float | None, validation: float, shuffle: Shuffle
) -> Splits:
    """The splits that the table's column ``part`` says; without a database, what is learned from is searched."""
    if query is not None or train is not None:
        raise UsageError("folder: the table's column part says who asks and who is learned from; leave out the sizes")
    rows = {part: np.flatnonzero(parts == part) for part in PARTS}
    for part in ("train", "query"):
        if not len(rows[part]):
            raise UsageError(f"folder: no row of the table has {part} in its column part")
    if validation and len(rows["validation"]):
        raise UsageError("folder: the table has its own validation images; leave out folder.validation")
    apart = len(rows["database"]) > 0
    database, notes = (rows["database"], {}) if apart else (rows["train"], INSIDE)
    made = pool.splits(rows["train"], database, rows["query"], validation=validation, shuffle=shuffle, notes=notes)
    return replace(made, validation=pool.part(rows["validation"])) if len(rows["validation"]) else made
