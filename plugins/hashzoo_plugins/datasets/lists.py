"""Images and labels by list files: one's own, or those of published benchmarks.

``root`` is a folder with ``train.txt``, ``test.txt`` or ``query.txt``, and ``database.txt``; a list may be split over
``database0.txt``, ``database1.txt`` and so on, and lists may lie in a folder ``test``, as HashNet's do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashzoo import EnvironmentFailure, Splits
from hashzoo_plugins.datasets.carve import INSIDE, Pool, Shuffle
from hashzoo_plugins.datasets.list_lines import Lines, name, read
from hashzoo_plugins.datasets.paths import Paths

#: What the files of a part are called.
NAMES = {"train": ("train",), "query": ("test", "query"), "database": ("database",)}

#: The most labels, images times classes, that are made of class numbers.
LABELS = 1 << 31

#: Which images are searched: those of the database list, or all that any list names but the queries.
Database = Literal["listed", "others"]


def files(place: Path, part: str) -> list[Path]:
    """The list files of a part in a folder, in order. EnvironmentFailure where one of several is missing."""
    for folder in (place, place / "test"):
        for stem in NAMES[part]:
            if (whole := folder / f"{stem}.txt").is_file():
                return [whole]
            several = {
                int(found[1]): path
                for path in folder.glob(f"{stem}*.txt")
                if (found := re.fullmatch(rf"{stem}(\d{{1,4}})\.txt", path.name))
            }
            for number in range(min([1, *several]), max(several, default=0)):
                if number not in several:
                    raise EnvironmentFailure(
                        f"there is no {folder / f'{stem}{number}.txt'} among {len(several)} list files; put it there"
                    )
            if several:
                return [several[number] for number in sorted(several)]
    return []


@dataclass(frozen=True)
class Listed:
    """All images that the lists of a benchmark name, each once: names (N), labels (N, C), and the rows of each part.

    An image that a part lists twice is in it twice.
    """

    names: list[str]
    labels: Tensor  # (N, C) float
    rows: Mapping[str, NDArray[np.int64]]
    multilabel: bool

    @property
    def others(self) -> NDArray[np.int64]:
        """The images that are no queries, each once, in the order of the lists."""
        return np.setdiff1d(np.arange(len(self.names)), self.rows["query"])

    def splits(self, pool: Pool, database: Database, seed: int, validation: float, told: str) -> Splits:
        """The parts as they are listed; with ``database="others"``, all images but the queries are searched.

        ``told`` and ``seed`` say which share of train is held out.
        """
        searched = self.rows["database"] if database == "listed" else self.others
        return pool.splits(
            self.rows["train"],
            searched,
            self.rows["query"],
            validation=validation,
            shuffle=Shuffle(told, seed),
            notes={} if database == "listed" else {"database": "all images of the lists but the queries"},
        )


def gather(parts: Mapping[str, Sequence[Path]], strip: str = "") -> Listed:
    """The lists of all parts, read together: an image has the same row, and so the same id, in each.

    One class number a line becomes a column for each class. EnvironmentFailure naming file and line where the lists do
    not agree with each other: other numbers of columns, or other labels of the same image.
    """
    index: dict[str, int] = {}
    every: list[Lines] = []
    rows: dict[str, NDArray[np.int64]] = {}
    for part, its_files in parts.items():
        own = [read(file) for file in its_files]
        named = [name(path, strip) for lines in own for path in lines.paths]
        rows[part] = np.array([index.setdefault(one, len(index)) for one in named], dtype=np.int64)
        every += own
    columns = every[0].labels.shape[1]
    for lines in every:
        if lines.labels.shape[1] != columns:
            raise EnvironmentFailure(
                f"{lines.file} has {lines.labels.shape[1]} labels a line, {every[0].file} {columns}; "
                "the lists of one dataset have the same classes"
            )
    listed = np.concatenate([lines.labels for lines in every])
    of_line = np.concatenate(list(rows.values()))
    if columns == 1:
        classes = int(listed.max()) + 1
        if len(index) * classes > LABELS:
            raise EnvironmentFailure(
                f"{_place(every, int(listed.argmax()))} has class {classes - 1}: {len(index)} images with that many "
                "classes do not fit in memory; number the classes from 0 without gaps"
            )
        labels = np.zeros((len(index), classes), np.uint8)
        numbers = np.zeros(len(index), listed.dtype)
        numbers[of_line] = listed[:, 0]
        labels[np.arange(len(index)), numbers] = 1
        differs = numbers[of_line] != listed[:, 0]
    else:
        labels = np.zeros((len(index), columns), np.uint8)
        labels[of_line] = listed
        differs = (labels[of_line] != listed).any(1)
    if differs.any():
        one = int(np.flatnonzero(differs)[0])
        other = int(np.flatnonzero((of_line == of_line[one]) & ~differs)[0])
        raise EnvironmentFailure(f"{_place(every, other)} has other labels than the same image in {_place(every, one)}")
    multilabel = bool((labels.sum(1, dtype=np.int64) != 1).any())
    return Listed(list(index), torch.from_numpy(labels).float(), rows, multilabel)


def _place(every: Sequence[Lines], row: int) -> str:
    for lines in every:
        if row < len(lines.numbers):
            return f"{lines.file} line {lines.numbers[row]}"
        row -= len(lines.numbers)
    raise IndexError(row)


def lists(
    *,
    root: Path,
    pictures: Path | None = None,
    database: Database = "listed",
    strip: str = "",
    seed: int = 0,
    validation: float = 0.0,
) -> Splits:
    """Any images by list files in ``root``: a line an image, its path and its labels as 0 and 1, or its class.

    Paths are relative to ``images``, by default ``root``; ``strip`` names the folder that they go on from, where some
    lists have more before it than others. Images that are not there are found when they are asked for. Data is
    multi-label unless every line has one label. With ``database="others"``, what is learned from is searched too, and
    the notes say so.
    """
    found = {part: files(root, part) for part in NAMES}
    for part, stems in NAMES.items():
        if not found[part] and (part != "database" or database == "listed"):
            cure = "" if part != "database" else ', or search all listed images but the queries: database="others"'
            raise EnvironmentFailure(
                f"there is no {' or '.join(f'{s}.txt' for s in stems)} in {root}; put it there{cure}"
            )
    listed = gather(found, strip)
    names = tuple(str(c) for c in range(listed.labels.shape[1]))
    base = root if pictures is None else pictures
    images = Paths([base / one for one in listed.names])
    source = f"lists in {root.resolve().name}"
    pool = Pool(images, listed.labels, names, source, multilabel=listed.multilabel, names=listed.names)
    made = listed.splits(pool, database, seed, validation, "lists")
    inside = database == "others" and np.isin(listed.rows["train"], listed.others).all()
    return replace(made, notes={**made.notes, **INSIDE}) if inside else made
