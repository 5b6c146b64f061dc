"""The user's own images: a folder with one folder per class, or a table of paths and labels.

The id of an image is its row among all paths, sorted by their bytes, which is the same on every machine.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from hashzoo import Splits, UsageError, printable, read_image_file
from hashzoo_plugins.datasets.class_folders import read_class_folders
from hashzoo_plugins.datasets.image_table import SUFFIXES, Table, read_table
from hashzoo_plugins.datasets.part_names import PARTS
from hashzoo_plugins.datasets.paths import ImagePaths
from hashzoo_plugins.datasets.pool import TRAIN_IN_DATABASE, Pool, Shuffle, stratify

SIDES = (8, 1024)  # the smallest and the largest value of the option size
QUERIES = 1000  # the largest default number of queries


class SquareImages(ImagePaths):
    """Image files, each cropped to the central square and resized to one side, so that they form batches."""

    def __init__(self, paths: Sequence[Path], side: int) -> None:
        super().__init__(paths)
        self.side, self.form = side, f"{side} x {side}"

    def decoded(self, row: int, side: int | None = None) -> Image.Image:
        """One image (side, side), upright, in RGB. Raises EnvironmentFailure if it does not decode."""
        image = super().decoded(row, max(side, self.side) if side else None)
        return ImageOps.fit(image, (self.side, self.side), Image.Resampling.BICUBIC)

    def read(self, row: int) -> bytes:
        """The bytes of one file. Raises OSError if it cannot be read, EnvironmentFailure if it is too large."""
        return read_image_file(self.paths[row])

    def name(self, row: int) -> str:
        """The path, on one line."""
        return printable(self.paths[row])

    def stamp(self, row: int) -> str:
        """The stamp of the file, or its path if it does not exist."""
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
    """Your own images: class folders in ``root``, a table (CSV, Parquet) of ``path`` and ``label``, or without labels.

    Folders in ``root`` that are named after parts (train, val, test, gallery) and hold class folders are these parts.
    Images directly in ``root`` have no labels. ``root`` is the folder or the table; ``labels`` is a table whose paths
    are relative to ``root``. ``query`` and ``train`` are fractions of the images (below 1) or numbers of images; the
    defaults are a tenth, at most 1,000, and half. All other images are the database. Images are cropped to a square and
    resized to ``size`` pixels.
    """
    if not isinstance(root, str | os.PathLike):
        raise UsageError("the dataset folder needs --root IMAGES, a folder of images or a table")
    root = Path(root)
    if not SIDES[0] <= size <= SIDES[1]:
        raise UsageError(f"folder.size must be {SIDES[0]} to {SIDES[1]} pixels, not {size}")
    place = root
    if labels is not None:
        table = read_table(_find_table(Path(labels), root), root)
    elif root.is_file() or (root.suffix.lower() in SUFFIXES and not root.is_dir()):
        place = root.parent
        table = read_table(root, place)
    else:
        table = read_class_folders(root)
    names = table.class_names
    if len(names) == 1:
        hint = _inner_folders(table, root)
        raise UsageError(f"{printable(root)} has only one class ({names[0]}); a benchmark needs at least two{hint}")
    multilabel = bool(names) and bool((table.labels.sum(1) != 1).any())
    source = "images of a table" if table.listed else "images in class folders" if names else "images without labels"
    base = Path(os.path.abspath(place)) if table.listed else place  # noqa: PTH100 - the common prefix of the paths
    relative = [path.relative_to(base).as_posix() for path in table.paths]
    pool = Pool(SquareImages(table.paths, size), table.labels, names, source, multilabel=multilabel, names=relative)
    shuffle = Shuffle("folder", seed)
    if table.parts is not None:
        data = _splits_by_part(pool, table, query, train, validation, shuffle)
    else:
        rows = draw_rows(table.labels, multilabel, query, train, shuffle)
        data = pool.splits(*rows, validation=validation, shuffle=shuffle)
    return replace(data, findings=table.findings)


def _inner_folders(table: Table, root: Path) -> str:
    """A hint for a folder that holds the folder of the classes."""
    if table.listed:
        return ""
    below = {path.relative_to(root).parts[1] for path in table.paths if len(path.relative_to(root).parts) > 2}
    inner = root / table.paths[0].relative_to(root).parts[0]
    return f"; if the folders in {printable(inner)} are the classes or parts, set root to it" if len(below) > 1 else ""


def _find_table(labels: Path, root: Path) -> Path:
    """A table by its path, or by its path in the folder of the images."""
    return root / labels if not labels.is_file() and (root / labels).is_file() else labels


def draw_rows(
    labels: Tensor, multilabel: bool, query: float | None, train: float | None, shuffle: Shuffle
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Draw the rows of training set, database and queries, without overlap.

    In a single-label dataset the classes are in proportion. The first image of each class is a training image and the
    second is in the database, so that every query has a relevant item; a class of one image has a training image only.
    """
    total = len(labels)
    single = labels.shape[1] > 0 and not multilabel
    classes = labels.argmax(1).numpy() if single else np.zeros(total, dtype=np.int64)
    order = [shuffle.permutation(np.flatnonzero(classes == c)) for c in np.unique(classes)]
    first = np.concatenate([rows[:1] for rows in order])
    rest = np.sort(np.concatenate([rows[2:] for rows in order]))
    queries = _count("query", query, total, min(QUERIES, max(1, total // 10)))
    if queries > len(rest):
        reason = "a class needs three images to have a query" if single else "at least three images are needed"
        raise UsageError(
            f"folder: {total} images are too few for {queries} queries: {reason}; add images or reduce folder.query"
        )
    most = len(rest) - queries + len(first)
    count = _count("train", train, total, min(most, max(len(first), total // 2)))
    if not len(first) <= count <= most:
        raise UsageError(
            f"folder: {total} images with {queries} queries allow {len(first)} to {most} training images, "
            f"not {count}; change folder.train or folder.query"
        )
    query_rows, more = stratify(classes[rest], [queries, count - len(first)], shuffle)
    train_rows = np.concatenate([first, rest[more]])
    database = np.setdiff1d(np.arange(total), np.concatenate([train_rows, rest[query_rows]]))
    return shuffle.permutation(train_rows), shuffle.permutation(database), rest[query_rows]


def _count(name: str, given: float | None, total: int, default: int) -> int:
    """The number of images for an option that is a fraction or a number."""
    if given is None:
        return default
    if given <= 0 or (given >= 1 and given != int(given)):
        raise UsageError(f"folder.{name} must be a fraction below 1 or a whole number of images, not {given}")
    return max(1, round(given * total)) if given < 1 else int(given)


def _splits_by_part(
    pool: Pool, table: Table, query: float | None, train: float | None, validation: float, shuffle: Shuffle
) -> Splits:
    """The splits that a table or folders name; without database images, the training images are the database."""
    if query is not None or train is not None:
        raise UsageError(f"folder: {table.parts_from} decides the splits; leave out folder.query and folder.train")
    rows = {part: np.flatnonzero(table.parts == part) for part in PARTS}
    for part in ("train", "query"):
        if not len(rows[part]):
            raise UsageError(f"folder: {table.parts_from} has no {part} images; add some")
    if validation and len(rows["validation"]):
        raise UsageError(f"folder: {table.parts_from} has validation images; leave out folder.validation")
    separate = len(rows["database"]) > 0
    database, notes = (rows["database"], {}) if separate else (rows["train"], TRAIN_IN_DATABASE)
    data = pool.splits(rows["train"], database, rows["query"], validation=validation, shuffle=shuffle, notes=notes)
    return replace(data, validation=pool.split(rows["validation"])) if len(rows["validation"]) else data
